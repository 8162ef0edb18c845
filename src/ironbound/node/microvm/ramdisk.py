"""An image as the initial RAM disk of a virtual machine, in a sealed memory file.

Decides that the bytes in the RAM disk are those of the listing that was approved: each file is hashed while it is
copied. The archive's form is for `core/initrd.py`.

Rule 1: what is copied is opened below the image's folder, no name followed; a byte that differs is a refusal.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from typing import Final

from ironbound.core.canonical import Digest
from ironbound.core.initrd import image_members, own_members, padding
from ironbound.core.tree import Entry, File
from ironbound.node.sandbox.memfd import REQUIRED_SEALS
from ironbound.wire.images import DIRECTORY, REGULAR, ImageRefused

CHUNK: Final = 1 << 20


class _Archive:
    """A growing memory file and its digest."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("ironbound-initrd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.digest.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]


def _open(folder: int, path: str) -> int:
    """A file below the image's folder, step by step."""
    *parents, name = path.split("/")
    current = os.dup(folder)
    try:
        for parent in parents:
            inner = os.open(parent, DIRECTORY, dir_fd=current)
            os.close(current)
            current = inner
        return os.open(name, REGULAR, dir_fd=current)
    finally:
        os.close(current)


def _copy(archive: _Archive, folder: int, file: File) -> None:
    descriptor = _open(folder, file.path)
    try:
        digest, size = hashlib.sha256(), 0
        while size <= file.size and (data := os.read(descriptor, CHUNK)):
            digest.update(data)
            size += len(data)
            archive.add(data)
    finally:
        os.close(descriptor)
    if size != file.size or digest.hexdigest() != file.sha256:
        raise ImageRefused(f"{file.path!a} is not what was approved")
    archive.add(padding(size))


def build(folder: int, entries: Sequence[Entry], own: Sequence[tuple[str, int, bytes]]) -> tuple[int, Digest]:
    """The sealed descriptor of an image's RAM disk, with our own files, and its digest. ImageRefused, OSError,
    FormatError."""
    archive = _Archive()
    try:
        for part in image_members(entries):
            if isinstance(part, bytes):
                archive.add(part)
            else:
                _copy(archive, folder, part)
        archive.add(own_members(own, len(entries) + 1))
        fcntl.fcntl(archive.descriptor, fcntl.F_ADD_SEALS, REQUIRED_SEALS)
        os.lseek(archive.descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(archive.descriptor)
        raise
    return archive.descriptor, Digest(archive.digest.hexdigest())
