"""Writes a bundle in its one spelling, member by member.

Decides nothing about content: the layout is `verifier.bundle`'s, so that what is written here is what is
read there. The same members give the same bytes, whenever and wherever they are written.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import BinaryIO

from ironbound.verifier.bundle import (
    MAX_BUNDLE_FILE,
    MAX_MEMBERS,
    BundleBroken,
    Member,
    central_header,
    end_record,
    local_header,
    member_limit,
)


class BundleWriter:
    """A bundle that is being written. Members come in ascending order of name; `finish` ends the file."""

    __slots__ = ("_file", "_members", "_place")

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members: list[Member] = []
        self._place = 0

    def add(self, name: str, data: bytes) -> None:
        """Write one member; BundleBroken if no reader would take it."""
        if len(data) > member_limit(name) or len(self._members) == MAX_MEMBERS:
            raise BundleBroken("too-large", f"{name}: {len(data)} bytes, member {len(self._members) + 1}")
        if self._members and self._members[-1].name >= name:
            raise ValueError(f"members come in order: {name} after {self._members[-1].name}")
        member = Member(name, zlib.crc32(data), len(data), self._place)
        header = local_header(name, member.crc, member.size)
        if self._place + len(header) + len(data) > MAX_BUNDLE_FILE:
            raise BundleBroken("too-large", f"a bundle has at most {MAX_BUNDLE_FILE} bytes")
        self._file.write(header)
        self._file.write(data)
        self._members.append(member)
        self._place += len(header) + len(data)

    def finish(self) -> int:
        """Write the directory; the file's size in bytes."""
        directory = b"".join(central_header(member) for member in self._members)
        self._file.write(directory)
        end = end_record(len(self._members), len(directory), self._place)
        self._file.write(end)
        return self._place + len(directory) + len(end)


def write_members(file: BinaryIO, members: Mapping[str, bytes]) -> int:
    """Write a bundle of these members; the file's size in bytes."""
    writer = BundleWriter(file)
    for name in sorted(members):
        writer.add(name, members[name])
    return writer.finish()
