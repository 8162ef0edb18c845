"""The environment of a process, as it got it from whoever started it, or as somebody wrote over it since.

Decides nothing: it gives a digest for each variable, as values may be secrets. What a variable is worth, `core/posture`
and `core/cage` say. Follows proc(5), process_vm_readv(2).

Rule 1: /proc/PID/environ is for the process's own user and root. Whoever looks with CAP_SYS_PTRACE alone reads the
        same bytes from the process's memory, at the place that the kernel tells.
Rule 2: what can't be read, or is larger than MAX_ENVIRONMENT, is not seen.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from ironbound.core.canonical import Value, sha256_hex

from .proc import read_proc, stat_fields

MAX_NAME: Final = 64
"""Characters of a name that are kept."""
MAX_ENVIRONMENT: Final = 1 << 21
"""Bytes; the kernel gives a quarter of the stack's limit, arguments included."""
_START, _END = 47, 48  # of `stat_fields`: where it lies in memory; 0 to whoever may not know
_TRIES: Final = 3

_libc = ctypes.CDLL(None, use_errno=True)
_libc.process_vm_readv.restype = ctypes.c_ssize_t


class _Part(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def environment_of(pid: int) -> dict[str, Value] | None:
    """Each variable's name with the digest of `NAME=VALUE`; of one that is there more than once, of all joined by zero
    bytes. None if it can't be seen. Raises OSError where the process has ended."""
    data = _environment(pid)
    if data is None:
        return None
    found: dict[str, bytes] = {}
    for entry in data.split(b"\0"):
        if entry:
            text = entry.partition(b"=")[0][:MAX_NAME].decode("ascii", "replace")
            name = "".join(char if char.isprintable() else "?" for char in text)
            found[name] = found[name] + b"\0" + entry if name in found else entry
    return {name: sha256_hex(entries) for name, entries in found.items()}


def _environment(pid: int) -> bytes | None:
    try:
        descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return _from_memory(pid)
    try:
        data = b""
        while part := os.read(descriptor, MAX_ENVIRONMENT):
            data += part
            if len(data) > MAX_ENVIRONMENT:
                return None
        return data
    except PermissionError:
        return None
    finally:
        os.close(descriptor)


def _bounds(pid: int) -> tuple[int, int]:
    fields = stat_fields(read_proc(f"/proc/{pid}/stat"))
    return int(fields[_START]), int(fields[_END])


def _from_memory(pid: int) -> bytes | None:
    """Rule 1. What was read while the process became another program is read again."""
    for _ in range(_TRIES):
        start, end = bounds = _bounds(pid)
        if not start or not 0 <= end - start <= MAX_ENVIRONMENT:
            return None
        data = _memory(pid, start, end - start)
        if _bounds(pid) == bounds:
            return data
    return None


def _memory(pid: int, start: int, size: int) -> bytes | None:
    if not size:
        return b""
    room = ctypes.create_string_buffer(size)
    here, there = _Part(ctypes.addressof(room), size), _Part(start, size)
    words = (ctypes.c_ulong(1), ctypes.byref(there), ctypes.c_ulong(1), ctypes.c_ulong(0))
    if _libc.process_vm_readv(ctypes.c_int(pid), ctypes.byref(here), *words) == size:
        return room.raw
    if ctypes.get_errno() == errno.ESRCH:
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended")
    return None
