"""The initial RAM disk of a virtual machine: the bytes that a listing and a few files of ours become.

Decides the archive's bytes, so that the same image gives the same RAM disk everywhere. It reads no disk: the node
copies the files' bytes behind the headers that are made here. Follows the kernel's "initramfs buffer format"
(Documentation/driver-api/early-userspace/buffer-format.rst), cpio's "newc" kind.

Rule 1: nothing but the listing is in an archive: owner 0, time 0, inode numbers counted from 1, each file once.
Rule 2: our own files come last, in a folder that no image has; an image that has it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, assert_never

from ironbound.core.canonical import FormatError
from ironbound.core.tree import Entry, File, Folder, Link

MAGIC: Final = b"070701"
TRAILER: Final = "TRAILER!!!"
ALIGNMENT: Final = 4
OWN_FOLDER: Final = ".ironbound-vm"
"""Where our own files lie until the machine's first process removes them."""
INIT: Final = f"/{OWN_FOLDER}/init"

_DIRECTORY: Final = 0o040000
_REGULAR: Final = 0o100000
_SYMLINK: Final = 0o120000
_MAX_FIELD: Final = 0xFFFFFFFF


def padding(size: int) -> bytes:
    """The zero bytes that follow so many bytes of a file."""
    return b"\0" * (-size % ALIGNMENT)


def header(path: str, mode: int, size: int, number: int) -> bytes:
    """What stands before a member's bytes: its name is padded here, its bytes have to be by whoever writes them."""
    name = path.encode() + b"\0"
    links = 2 if mode & 0o170000 == _DIRECTORY else 1
    fields = (number, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(name), 0)
    if any(not 0 <= field <= _MAX_FIELD for field in fields):
        raise FormatError("initrd-invalid", f"{path[:80]!a}: too large for an initial RAM disk")
    head = MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return head + padding(len(head))


def _member(path: str, mode: int, data: bytes, number: int) -> bytes:
    return header(path, mode, len(data), number) + data + padding(len(data))


def image_members(entries: Sequence[Entry]) -> Iterator[bytes | File]:
    """An image's part of the archive in order: bytes as they are, and files whose bytes and padding come in their
    place. Raises FormatError (Rule 2)."""
    for number, entry in enumerate(entries, 1):
        if entry.path.partition("/")[0] == OWN_FOLDER:
            raise FormatError("initrd-invalid", f"an image may not hold {OWN_FOLDER}")
        match entry:
            case Folder():
                yield _member(entry.path, _DIRECTORY | entry.mode, b"", number)
            case Link():
                yield _member(entry.path, _SYMLINK | 0o777, entry.target.encode(), number)
            case File():
                yield header(entry.path, _REGULAR | entry.mode, entry.size, number)
                yield entry
            case _:
                assert_never(entry)


def own_members(files: Sequence[tuple[str, int, bytes]], first: int) -> bytes:
    """Our own files (name, permission bits, bytes), numbered from `first`, and the archive's end."""
    parts = [_member(OWN_FOLDER, _DIRECTORY | 0o700, b"", first)]
    parts += [
        _member(f"{OWN_FOLDER}/{name}", _REGULAR | mode, data, first + at)
        for at, (name, mode, data) in enumerate(files, 1)
    ]
    return b"".join(parts) + _member(TRAILER, 0, b"", 0)
