"""The tree listing: what a native agent's root file system is, path by path, and its one digest.

Decides whether bytes are a well-formed listing (format `ironbound-tree/v1`, docs/formats.md), and whether a listing is
an image that a native runtime may start. It reads no disk: `wire/images.py` measures and loads.

Rule 1: a listing is canonical JSON: paths relative, sorted by their UTF-8 bytes, each once, each in a listed folder.
Rule 2: only folders, regular files and symbolic links exist; permission bits only, so no setuid, setgid or sticky.
Rule 3: a link is kept as it is written. It resolves inside the sandbox, never here.
Rule 4: an image holds the guard and three empty folders to mount on; nothing in it is writable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from .canonical import Digest, FormatError, Value, canonical, parse_canonical, parse_digest, sha256_hex

FORMAT: Final = "ironbound-tree/v1"
MAX_ENTRIES: Final = 200_000
#: Bytes of a path or of a link's target, of one name in it, and names in a path.
MAX_PATH: Final = 1024
MAX_NAME: Final = 255
MAX_DEPTH: Final = 64
#: Bytes of one file, of all files together, and of the listing itself.
MAX_FILE_SIZE: Final = 2 << 30
MAX_TOTAL_SIZE: Final = 4 << 30
MAX_LISTING: Final = 48 << 20

FOLDER_MODE: Final = 0o555
PLAIN_MODE: Final = 0o444
PROGRAM_MODE: Final = 0o555
#: Links followed on the way to one path, as the kernel follows them.
MAX_HOPS: Final = 40
#: The guard's place in every image, and the folders that a sandbox mounts on.
GUARD: Final = ".ironbound/guard"
MOUNT_POINTS: Final = ("dev", "proc", "tmp")


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory."""

    path: str
    mode: int


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: permission bits, bytes, and their SHA-256."""

    path: str
    mode: int
    size: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, with the target as it is written."""

    path: str
    target: str


Entry: TypeAlias = Folder | File | Link


def _fail(code: str, message: str) -> FormatError:
    return FormatError(f"tree-{code}", message)


def _require_text(text: str, what: str) -> None:
    try:
        size = len(text.encode("utf-8", "strict"))
    except UnicodeEncodeError:
        raise _fail("text", f"{what} is not UTF-8: {text[:80]!a}") from None
    if not 0 < size <= MAX_PATH:
        raise _fail("text", f"{what}: expected 1 to {MAX_PATH} bytes, got {size}")
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in text):
        raise _fail("text", f"{what} holds a control character: {text[:80]!a}")


def require_path(path: str) -> str:
    """The path if it may stand in a listing: relative, without empty, `.` or `..` parts, within the limits."""
    _require_text(path, "a path")
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        raise _fail("path", f"expected at most {MAX_DEPTH} names in a path: {path[:80]!a}")
    for part in parts:
        if part in ("", ".", "..") or len(part.encode()) > MAX_NAME:
            raise _fail("path", f"expected a relative path of plain names of at most {MAX_NAME} bytes: {path[:80]!a}")
    return path


def require_target(path: str, target: str) -> str:
    """The target of the link at `path`, if it may stand in a listing."""
    _require_text(target, f"the target of {path!a}")
    return target


def _require(entry: Entry) -> None:
    require_path(entry.path)
    if isinstance(entry, Link):
        require_target(entry.path, entry.target)
        return
    if not 0 <= entry.mode <= 0o777:
        raise _fail("mode", f"{entry.path!a}: expected permission bits only, got {entry.mode:o}")
    if isinstance(entry, File) and not 0 <= entry.size <= MAX_FILE_SIZE:
        raise _fail("size", f"{entry.path!a}: expected at most {MAX_FILE_SIZE} bytes, got {entry.size}")


def _require_tree(entries: Sequence[Entry]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise _fail("entries", f"expected at most {MAX_ENTRIES} entries, got {len(entries)}")
    folders = {""}
    total = 0
    before = b""
    for entry in entries:
        _require(entry)
        key = entry.path.encode()
        if key <= before:
            raise _fail("order", f"expected paths sorted by their bytes, each once: {entry.path!a}")
        before = key
        # A folder's path is a prefix of what lies in it, so it was seen before.
        if entry.path.rpartition("/")[0] not in folders:
            raise _fail("parent", f"the folder of {entry.path!a} is not listed as one")
        if isinstance(entry, Folder):
            folders.add(entry.path)
        elif isinstance(entry, File):
            total += entry.size
    if total > MAX_TOTAL_SIZE:
        raise _fail("size", f"expected at most {MAX_TOTAL_SIZE} bytes in all files, got {total}")


def in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries as a listing has them: by the bytes of their paths."""
    return tuple(sorted(entries, key=lambda entry: entry.path.encode("utf-8", "surrogatepass")))


def _row(entry: Entry) -> list[Value]:
    match entry:
        case Folder():
            return [entry.path, "d", entry.mode]
        case File():
            return [entry.path, "f", entry.mode, entry.size, entry.sha256]
        case Link():
            return [entry.path, "l", entry.target]
        case _:
            assert_never(entry)


def encode_tree(entries: Sequence[Entry]) -> bytes:
    """The listing's bytes; FormatError unless the entries are a well-formed tree in order."""
    _require_tree(entries)
    data = canonical({"entries": [_row(entry) for entry in entries], "format": FORMAT})
    if len(data) > MAX_LISTING:
        raise _fail("size", f"expected a listing of at most {MAX_LISTING} bytes, got {len(data)}")
    return data


def tree_digest(entries: Sequence[Entry]) -> Digest:
    """SHA-256 of the listing's bytes: the root file system's digest."""
    return sha256_hex(encode_tree(entries))


def _entry(row: Value) -> Entry:
    match row:
        case [str(path), "d", int(mode)] if type(mode) is int:
            return Folder(path, mode)
        case [str(path), "f", int(mode), int(size), str(digest)] if type(mode) is int and type(size) is int:
            return File(path, mode, size, parse_digest(digest))
        case [str(path), "l", str(target)]:
            return Link(path, target)
        case _:
            raise _fail("shape", "expected [path, d, mode], [path, f, mode, size, sha256] or [path, l, target]")


def parse_tree(data: bytes) -> tuple[Entry, ...]:
    """The entries of a listing. FormatError, and nothing else, if it is not one."""
    value = parse_canonical(data, limit=MAX_LISTING)
    if type(value) is not dict or value.keys() != {"entries", "format"} or value["format"] != FORMAT:
        raise _fail("shape", f"expected entries and the format {FORMAT}")
    rows = value["entries"]
    if type(rows) is not list:
        raise _fail("shape", "expected a list of entries")
    if len(rows) > MAX_ENTRIES:
        raise _fail("entries", f"expected at most {MAX_ENTRIES} entries, got {len(rows)}")
    entries = tuple(_entry(row) for row in rows)
    _require_tree(entries)
    return entries


def require_image(entries: Sequence[Entry]) -> Digest:
    """The digest of the guard in an image's listing; FormatError unless a native runtime may start it (Rule 4)."""
    found = {entry.path: entry for entry in entries}
    for entry in entries:
        if not isinstance(entry, Link) and entry.mode & 0o222:
            raise _fail("image", f"{entry.path!a} is writable in the image")
        if entry.path.partition("/")[0] in MOUNT_POINTS and "/" in entry.path:
            raise _fail("image", f"{entry.path!a} lies where the sandbox mounts its own")
    for path in MOUNT_POINTS:
        if found.get(path) != Folder(path, FOLDER_MODE):
            raise _fail("image", f"expected an empty folder {path}")
    guard = found.get(GUARD)
    if not isinstance(guard, File) or guard.mode != PROGRAM_MODE:
        raise _fail("image", f"expected the guard at {GUARD}")
    return guard.sha256


def resolve(found: Mapping[str, Entry], path: str) -> Entry | None:
    """The folder or file that an absolute path names inside the tree, links followed as the sandbox will; or None."""
    steps = path.split("/")[::-1]
    at: Entry = Folder("", FOLDER_MODE)
    hops = 0
    while steps:
        step = steps.pop()
        if step in ("", "."):
            continue
        if not isinstance(at, Folder):
            return None
        above = at.path.rpartition("/")[0]
        if step == "..":
            at = found[above] if above else Folder("", FOLDER_MODE)
            continue
        entry = found.get(f"{at.path}/{step}" if at.path else step)
        if entry is None:
            return None
        if isinstance(entry, Link):
            hops += 1
            if hops > MAX_HOPS:
                return None
            if entry.target.startswith("/"):
                at = Folder("", FOLDER_MODE)
            steps += entry.target.split("/")[::-1]
        else:
            at = entry
    return at


def differences(approved: Sequence[Entry], found: Sequence[Entry], most: int = 5) -> list[str]:
    """In words, what was found and is not what was approved; at most `most` lines."""
    wanted = {entry.path: entry for entry in approved}
    there = {entry.path: entry for entry in found}
    lines = []
    for path in sorted(wanted.keys() | there.keys()):
        if wanted.get(path) == there.get(path):
            continue
        word = "added" if path not in wanted else "missing" if path not in there else "changed"
        lines.append(f"{word}: {path}")
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more"]
