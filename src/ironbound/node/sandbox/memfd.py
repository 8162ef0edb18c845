"""Sealed memory files: the bytes that were approved are the bytes that the worker reads.

Decides how bytes are handed to a worker and when a descriptor counts as sealed. It does not judge the bytes. Follows
memfd_create(2) and fcntl(2), "File Sealing".

Rule 1: a descriptor without every one of REQUIRED_SEALS is not read at all.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

REQUIRED_SEALS: Final = (
    fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | 0x10  # F_SEAL_FUTURE_WRITE
)

_MFD_NOEXEC_SEAL: Final = 0x8


class SealMissing(Exception):
    """A descriptor is not a sealed memory file, or holds more bytes than it may."""


def _create(name: str) -> int:
    name = f"ironbound-{name}"  # the name by which the monitor finds it in /proc/PID/fd
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create(name, flags)  # a kernel before 6.3 does not know the flag


def sealed_memfd(name: str, data: bytes) -> int:
    """A descriptor, close-on-exec, of a memory file with exactly these bytes and all seals. Raises OSError."""
    descriptor = _create(name)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, REQUIRED_SEALS)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_sealed(descriptor: int, limit: int) -> bytes:
    """All bytes behind a sealed descriptor, at most `limit`. Raises SealMissing, OSError."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise SealMissing(f"expected a sealed memory file, got a descriptor without seals: {error.strerror}") from None
    if seals & REQUIRED_SEALS != REQUIRED_SEALS:
        raise SealMissing(f"expected the seals {REQUIRED_SEALS:#x}, got {seals:#x}")
    size = os.fstat(descriptor).st_size
    if size > limit:
        raise SealMissing(f"expected at most {limit} bytes, got {size}")
    data = bytearray()
    while len(data) < size:
        part = os.pread(descriptor, size - len(data), len(data))
        if not part:
            raise SealMissing(f"expected {size} bytes, got {len(data)}")
        data += part
    return bytes(data)
