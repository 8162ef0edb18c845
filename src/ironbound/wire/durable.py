"""One small record that survives any crash, replaced with a single fdatasync.

Two slots of one block each in a file of fixed size; a write goes to the slot that holds the older record,
so that a torn write leaves the newer one whole. Decides which record is the latest whole one; not whether
it is the right one to go on from: that is for whoever keeps it (the ledger's high-water mark, the
witness's state).

Rule 1: `replace` returns only after the record is durable; an error in it is final, the caller exits.
Rule 2: a missing file, or one without a whole record, is an error; only `create` makes one.
Rule 3: one process at a time: the file is locked while it is open.

Layout of a slot (4096 bytes): generation u64be, length u32be, SHA-256 over (generation, length, record),
record, zeros.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from typing import Final, Self

SLOT_SIZE: Final = 4096
_HEAD: Final = struct.Struct(">QI32s")
#: Bytes in a record at most.
MAX_RECORD: Final = SLOT_SIZE - _HEAD.size


class RecordLost(Exception):
    """The file is missing, held by another process, or holds no whole record."""


def sync_directory(path: str) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _slot(generation: int, record: bytes) -> bytes:
    if len(record) > MAX_RECORD:
        raise ValueError(f"a record has at most {MAX_RECORD} bytes, got {len(record)}")
    digest = hashlib.sha256(struct.pack(">QI", generation, len(record)) + record).digest()
    return (_HEAD.pack(generation, len(record), digest) + record).ljust(SLOT_SIZE, b"\0")


def _read_slot(block: bytes) -> tuple[int, bytes] | None:
    if len(block) != SLOT_SIZE:
        return None
    generation, length, digest = _HEAD.unpack_from(block)
    if length > MAX_RECORD:
        return None
    record = block[_HEAD.size : _HEAD.size + length]
    if hashlib.sha256(struct.pack(">QI", generation, length) + record).digest() != digest:
        return None
    return generation, record


class DurableRecord:
    """The open file. `record` is the latest whole record."""

    __slots__ = ("_descriptor", "_generation", "record")

    def __init__(self, descriptor: int, generation: int, record: bytes) -> None:
        self._descriptor = descriptor
        self._generation = generation
        self.record = record

    @classmethod
    def create(cls, path: str, record: bytes) -> None:
        """Makes the file with its first record, durable with its name; FileExistsError if it is there."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(descriptor, _slot(0, record) + bytes(SLOT_SIZE), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(os.path.dirname(path) or ".")

    @classmethod
    def open(cls, path: str) -> Self:
        """Opens and locks the file; RecordLost says what is wrong with it."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise RecordLost(f"{path} is missing") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            blocks = os.pread(descriptor, 2 * SLOT_SIZE, 0)
        except BlockingIOError as error:
            os.close(descriptor)
            raise RecordLost(f"{path} is in use by another process") from error
        whole = [slot for at in (0, SLOT_SIZE) if (slot := _read_slot(blocks[at : at + SLOT_SIZE])) is not None]
        if not whole:
            os.close(descriptor)
            raise RecordLost(f"{path} holds no whole record")
        generation, record = max(whole)
        return cls(descriptor, generation, record)

    def replace(self, record: bytes) -> None:
        """Writes the next record; durable on return. OSError is final: the caller must not go on."""
        block = _slot(self._generation + 1, record)
        if os.pwrite(self._descriptor, block, SLOT_SIZE * ((self._generation + 1) & 1)) != SLOT_SIZE:
            raise OSError("short write of a durable record")
        os.fdatasync(self._descriptor)
        self._generation += 1
        self.record = record

    def close(self) -> None:
        """Releases the lock."""
        os.close(self._descriptor)
