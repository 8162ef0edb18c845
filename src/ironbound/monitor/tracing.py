"""Reads the system call filters that the kernel really installed in a live process.

Decides nothing: it gives the digests of the programs; `core/posture.py` compares them. Follows ptrace(2),
PTRACE_SECCOMP_GET_FILTER. That needs CAP_SYS_ADMIN in the first user namespace, CAP_SYS_PTRACE for another
user's process, and a caller that is under no filter itself.

Rule 1: the tracing runs in a thread of its own. The kernel detaches whatever a thread traces when the thread
        ends, so no error on the way leaves a process stopped.
Rule 2: a signal that was on its way when the process stopped is handed on.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
import time
from collections.abc import Sequence
from typing import Final

from ironbound.core.canonical import Digest, sha256_hex

_PTRACE_DETACH: Final = 17
_PTRACE_SEIZE: Final = 0x4206
_PTRACE_INTERRUPT: Final = 0x4207
_PTRACE_SECCOMP_GET_FILTER: Final = 0x420C
_PTRACE_EVENT_STOP: Final = 128
_WALL: Final = 0x40000000
_WNOTHREAD: Final = 0x20000000

MAX_FILTERS: Final = 64
MAX_INSTRUCTIONS: Final = 4096  # BPF_MAXINSNS
STOP_DEADLINE_S: Final = 0.5

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long


class TracingRefused(Exception):
    """The kernel does not let this process read the filters of that one."""


def _ptrace(request: int, tid: int, address: int, data: object) -> int:
    ctypes.set_errno(0)
    result = int(_libc.ptrace(ctypes.c_long(request), ctypes.c_long(tid), ctypes.c_void_p(address), data))
    if result == -1 and (code := ctypes.get_errno()):
        raise OSError(code, os.strerror(code))
    return result


def _wait_stop(tid: int) -> int:
    """The signal to hand on when the thread goes on again, 0 mostly. Raises ProcessLookupError,
    TracingRefused."""
    deadline = time.monotonic() + STOP_DEADLINE_S
    pause = 0.00002
    while True:
        try:
            found, status = os.waitpid(tid, os.WNOHANG | _WALL | _WNOTHREAD)
        except ChildProcessError:
            raise ProcessLookupError(errno.ESRCH, f"thread {tid} ended while it was read") from None
        if found == tid:
            break
        if time.monotonic() > deadline:
            raise TracingRefused(f"thread {tid} did not stop within {STOP_DEADLINE_S} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.002)
    if not os.WIFSTOPPED(status):
        raise ProcessLookupError(errno.ESRCH, f"thread {tid} ended while it was read")
    return 0 if status >> 16 == _PTRACE_EVENT_STOP else os.WSTOPSIG(status)


def _programs(tid: int) -> list[bytes]:
    programs: list[bytes] = []
    for index in range(MAX_FILTERS):
        try:
            count = _ptrace(_PTRACE_SECCOMP_GET_FILTER, tid, index, ctypes.c_void_p(0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return programs
            raise
        if not 0 < count <= MAX_INSTRUCTIONS:
            raise TracingRefused(f"thread {tid}: a filter of {count} instructions")
        program = ctypes.create_string_buffer(count * 8)
        _ptrace(_PTRACE_SECCOMP_GET_FILTER, tid, index, program)
        programs.append(program.raw)
    raise TracingRefused(f"thread {tid}: more than {MAX_FILTERS} filters")


def _read_one(tid: int) -> tuple[Digest, ...]:
    _ptrace(_PTRACE_SEIZE, tid, 0, ctypes.c_void_p(0))
    _ptrace(_PTRACE_INTERRUPT, tid, 0, ctypes.c_void_p(0))
    signal_number = _wait_stop(tid)
    try:
        programs = _programs(tid)
    finally:
        _ptrace(_PTRACE_DETACH, tid, 0, ctypes.c_void_p(signal_number))
    return tuple(sha256_hex(program) for program in programs)


def read_filters(tids: Sequence[int]) -> dict[int, tuple[Digest, ...]]:
    """The digests of the filters of each thread, the oldest filter first.

    Each thread stands still for about 0.1 ms; one that has ended is left out. Raises TracingRefused where the kernel
    does not permit it or another tracer is there.
    """
    found: dict[int, tuple[Digest, ...]] = {}
    failures: list[OSError | TracingRefused] = []

    def work() -> None:
        try:
            for tid in tids:
                with contextlib.suppress(ProcessLookupError):
                    found[tid] = _read_one(tid)
        except (OSError, TracingRefused) as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="read-filters")
    thread.start()
    thread.join()
    for failure in failures:
        if isinstance(failure, TracingRefused):
            raise failure
        raise TracingRefused(f"cannot read a filter: {failure.strerror}") from failure
    return found
