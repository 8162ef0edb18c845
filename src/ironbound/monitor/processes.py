"""A live process as the kernel lists it: number, parent, start time, users.

Decides nothing; which processes belong to the sandboxes, `reconcile` decides. Follows proc(5).

Rule 1: a process is named by number and start time together, never by number alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from .observe import ProcessGone, start_time
from .proc import has_ended, read_lines, read_proc, stat_fields

_FLAGS: Final = 6  # of `stat_fields`
_KERNEL_THREAD: Final = 0x00200000
_EXITING: Final = 0x00000004
"""The kernel's PF_KTHREAD and PF_EXITING, in field 9 of /proc/PID/stat."""


@dataclass(frozen=True, slots=True)
class Process:
    """A live process. `uid` is the real one, `uids` all four; `start` in clock ticks since boot; `kernel`: it is a
    thread of the kernel's own."""

    pid: int
    ppid: int
    start: int
    uid: int
    uids: tuple[int, ...]
    kernel: bool


def read_process(pid: int) -> Process | None:
    """A process as it is now; None where it has ended."""
    try:
        fields = stat_fields(read_proc(f"/proc/{pid}/stat"))
        if has_ended(fields):
            return None
        status = read_lines(f"/proc/{pid}/status")
    except (FileNotFoundError, ProcessLookupError):
        return None
    line = next(line for line in status if line.startswith("Uid:"))
    uids = tuple(int(word) for word in line.split()[1:5])
    return Process(pid, int(fields[1]), int(fields[19]), uids[0], uids, bool(int(fields[_FLAGS]) & _KERNEL_THREAD))


def is_alive(pid: int, pid_start: int) -> bool:
    """Whether the process of that number is alive and the one that started then."""
    try:
        return start_time(pid) == pid_start
    except ProcessGone:
        return False


def is_exiting(pid: int, pid_start: int) -> bool:
    """Whether no thread of that process will execute anything any more, though it may still be listed."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            fields = stat_fields(read_proc(f"/proc/{pid}/task/{thread}/stat"))
            if not int(fields[_FLAGS]) & _EXITING:
                return not is_alive(pid, pid_start)
    except (FileNotFoundError, ProcessLookupError):
        return not is_alive(pid, pid_start)
    return True
