"""The evidence bundle's container: a ZIP file that has exactly one spelling.

Decides whether a file is a bundle and hands out its members' bytes; not what they mean. The layout is
PKWARE's APPNOTE 6.3.10, sections 4.3.6 to 4.3.16, reduced until nothing is free: members are stored, dated
1980-01-01, sorted by name, and follow each other without a gap; there is no ZIP64, comment, extra field,
descriptor or encryption. Any ZIP tool can read it.

Rule 1: every byte of the file is accounted for. Headers are rebuilt from name, CRC and size, and compared.
Rule 2: a member has a name from a closed list, once, and a size within its kind's limit.
Rule 3: a member is read at most once; its CRC is checked before anybody sees it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from ironbound.core.canonical import FormatError
from ironbound.core.note import MAX_NOTE
from ironbound.core.tile import ENTRIES, MAX_BUNDLE, WIDTH, parse_tile_path

MAX_BUNDLE_FILE: Final = (1 << 32) - 2
"""Bytes of a bundle: what ZIP can say without its 64-bit extension."""
MAX_MEMBERS: Final = 65_534
MAX_INDEX: Final = 1 << 20
"""Bytes of `bundle.json`."""
MAX_POLICY_FILE: Final = 8192
MAX_ARTIFACT: Final = 64 << 20
"""Bytes of an artifact, and of a derived file."""

_LOCAL: Final = struct.Struct("<IHHHHHIIIHH")
_CENTRAL: Final = struct.Struct("<IHHHHHHIIIHHHHHII")
_END: Final = struct.Struct("<IHHHHIIH")
_VERSION: Final = 20
_MADE_BY: Final = 0x0314  # Unix, 2.0
_DATE: Final = 0x0021  # 1980-01-01
_MODE: Final = 0o100644 << 16

_ARTIFACT = re.compile(r"artifacts/sha256/([0-9a-f]{64})")
_DERIVED = re.compile(r"report\.html|matrix\.csv|oscal/[a-z0-9-]{1,64}\.json")
_CHUNK: Final = 1 << 20


class BundleBroken(Exception):
    """The bundle's integrity is broken. `code` is one of `codes.INTEGRITY`; nothing in the bundle counts."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class Member:
    """One member's place: `offset` of its local header, `size` of its content in bytes."""

    name: str
    crc: int
    size: int
    offset: int


def member_limit(name: str) -> int:
    """The most bytes a member of this name may have; BundleBroken if no member can have the name."""
    if name == "checkpoint":
        return MAX_NOTE
    if name == "witness-policy":
        return MAX_POLICY_FILE
    if name == "bundle.json":
        return MAX_INDEX
    if _ARTIFACT.fullmatch(name) or _DERIVED.fullmatch(name):
        return MAX_ARTIFACT
    try:
        tile = parse_tile_path(name)
    except FormatError:
        raise BundleBroken("member-name", f"{name[:80]!a} is no name of a member") from None
    return MAX_BUNDLE if tile.level == ENTRIES else WIDTH * 32


def artifact_digest(name: str) -> str | None:
    """The SHA-256 in an artifact's name, or None if the member is none."""
    match = _ARTIFACT.fullmatch(name)
    return match.group(1) if match else None


def local_header(name: str, crc: int, size: int) -> bytes:
    """What stands before a member's content."""
    fields = (0x04034B50, _VERSION, 0, 0, 0, _DATE, crc, size, size, len(name), 0)
    return _LOCAL.pack(*fields) + name.encode("ascii")


def central_header(member: Member) -> bytes:
    """The member's entry in the directory."""
    size, name = member.size, member.name
    fields = (0x02014B50, _MADE_BY, _VERSION, 0, 0, 0, _DATE, member.crc, size, size, len(name))
    return _CENTRAL.pack(*fields, 0, 0, 0, 0, _MODE, member.offset) + name.encode("ascii")


def end_record(count: int, size: int, offset: int) -> bytes:
    """The end of the file: how many members, and where their directory of `size` bytes starts."""
    return _END.pack(0x06054B50, 0, 0, count, count, size, offset, 0)


def _broken_zip(message: str) -> BundleBroken:
    return BundleBroken("zip-structure", message)


class Bundle:
    """An open bundle. Its directory was checked when it was opened; each member is when it is read."""

    __slots__ = ("_file", "members", "size")

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        if self.size > MAX_BUNDLE_FILE:
            raise BundleBroken("too-large", f"a bundle has at most {MAX_BUNDLE_FILE} bytes, got {self.size}")
        self.members: Mapping[str, Member] = {one.name: one for one in self._directory()}

    def read(self, name: str) -> bytes:
        """A member's content; BundleBroken if it isn't there or isn't what the directory says."""
        member = self.members.get(name)
        if member is None:
            raise BundleBroken("member-missing", f"the bundle has no {name}")
        header = local_header(name, member.crc, member.size)
        if self._at(member.offset, len(header)) != header:
            raise _broken_zip(f"{name}: its header is not what the directory says")
        data = self._at(member.offset + len(header), member.size)
        if zlib.crc32(data) != member.crc:
            raise BundleBroken("member-damaged", f"{name}: its checksum is wrong")
        return data

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        parts: list[bytes] = []
        while size > 0:
            part = self._file.read(min(size, _CHUNK))
            if not part:
                raise _broken_zip("the file ends too early")
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _directory(self) -> list[Member]:
        """(1) the end record is the file's last 22 bytes  (2) the directory lies right before it
        (3) its entries are spelled as we spell them  (4) sorted  (5) and lie one after another from byte 0."""
        if self.size < _END.size:
            raise _broken_zip("too short to be a ZIP file")
        end = self._at(self.size - _END.size, _END.size)  # (1)
        count, size, offset = _END.unpack(end)[4:7]
        if end != end_record(count, size, offset) or not 0 < count <= MAX_MEMBERS:
            raise _broken_zip("the end record is not the last thing in the file, or says what it may not")
        if offset + size + _END.size != self.size:  # (2)
            raise _broken_zip("the directory does not lie right before the end record")
        directory = self._at(offset, size) if size else b""
        members: list[Member] = []
        position = place = 0
        for _ in range(count):
            member = _central(directory, position)
            encoded = central_header(member)  # (3)
            if directory[position : position + len(encoded)] != encoded:
                raise _broken_zip(f"{member.name}: its entry in the directory is not spelled as it must be")
            if member.size > member_limit(member.name):
                raise BundleBroken("too-large", f"{member.name}: larger than {member_limit(member.name)} bytes")
            if members and members[-1].name >= member.name:  # (4)
                raise _broken_zip(f"{member.name}: stands twice or out of order")
            if member.offset != place:  # (5)
                raise _broken_zip(f"{member.name}: expected at byte {place}, got {member.offset}")
            place += _LOCAL.size + len(member.name) + member.size
            position += len(encoded)
            members.append(member)
        if position != size or place != offset:
            raise _broken_zip("bytes lie where no member is")
        return members


def _central(directory: bytes, position: int) -> Member:
    if position + _CENTRAL.size > len(directory):
        raise _broken_zip("the directory ends too early")
    fields = _CENTRAL.unpack_from(directory, position)
    crc, size, length, offset = fields[7], fields[8], fields[10], fields[16]
    start = position + _CENTRAL.size
    try:
        name = directory[start : start + length].decode("ascii")
    except UnicodeDecodeError:
        raise BundleBroken("member-name", "a member's name is not ASCII") from None
    member_limit(name)
    return Member(name, crc, size, offset)
