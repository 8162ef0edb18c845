"""Starting, waiting for and ending processes by descriptor, never by a number that may belong to another by now.

Decides nothing. Follows posix_spawn(3), pidfd_open(2), wait4(2), prctl(2) (PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_HIGH: Final = 200
"""Descriptors are moved out of the way of their targets first."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a child ended: exit code or minus the signal, and what it used, its own children's use included."""

    code: int
    cpu_ms: int
    max_rss: int


def spawn(argv: Sequence[str], handed: Mapping[int, int]) -> int:
    """Start `argv` with an empty environment and just these descriptors (target → ours). The child's pid. OSError."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            if int(name) > 2 and os.get_inheritable(int(name)):
                os.set_inheritable(int(name), False)
    moved = {target: fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _HIGH) for target, ours in handed.items()}
    try:
        actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, ours, target) for target, ours in moved.items()]
        return os.posix_spawn(argv[0], list(argv), {}, file_actions=actions, setsid=False, setsigmask=())
    finally:
        for descriptor in moved.values():
            os.close(descriptor)


def become_subreaper() -> None:
    """Orphans below this process become its children, so that their end is told to it and to nobody else. OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    one, zero = ctypes.c_ulong(1), ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(_PR_SET_CHILD_SUBREAPER), one, zero, zero, zero) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def kill(pidfd: int) -> None:
    """SIGKILL; nothing where the process has ended or was never there."""
    if pidfd < 0:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return


def reap(pid: int) -> Status | None:
    """The status of a child that has ended; None where it is no child of ours, or another took its status."""
    try:
        found, status, used = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return _status(status, used) if found == pid else None


def _status(status: int, used: resource.struct_rusage) -> Status:
    return Status(
        os.waitstatus_to_exitcode(status), int((used.ru_utime + used.ru_stime) * 1000), int(used.ru_maxrss) * 1024
    )


def describe(code: int) -> str:
    """An exit code, or minus a signal, in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def children(pid: int) -> list[int]:
    """The children of a process, its threads' included; none where it has ended."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
    return found


async def readable(descriptor: int) -> None:
    """Wait until a descriptor is readable; a pidfd is once its process has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
