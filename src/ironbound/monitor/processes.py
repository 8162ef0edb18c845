"""Which processes there are, and which of them nobody accounted for.

Decides whether a live process belongs to the sandboxes: it descends from the zygote, sits in the zygote's own
network namespace, or carries a sandbox uid. It does not decide what happens to a stray. Follows proc(5).

Rule 1: a process is named by number and start time together, never by number alone.
Rule 2: a child whose parent ended is adopted by another process; it is still found by its uid or its
        namespace.
"""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass
from typing import Final

from ironbound.monitor.observe import ProcessGone, has_ended, read_proc, start_time, stat_fields

_KERNEL_THREAD: Final = 0x00200000
"""The kernel's PF_KTHREAD, in field 9 of /proc/PID/stat."""


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
        status = read_proc(f"/proc/{pid}/status")
    except (FileNotFoundError, ProcessLookupError):
        return None
    line = next(line for line in status.splitlines() if line.startswith("Uid:"))
    uids = tuple(int(word) for word in line.split()[1:5])
    return Process(pid, int(fields[1]), int(fields[19]), uids[0], uids, bool(int(fields[6]) & _KERNEL_THREAD))


def process_table() -> tuple[Process, ...]:
    """Every live process that this one can see, by number; zombies are not alive. Raises OSError."""
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isascii() and name.isdigit())
    return tuple(sorted((process for process in found if process is not None), key=lambda one: one.pid))


def children_of(pid: int) -> tuple[Process, ...]:
    """The live children of a process, by number; none where it has ended."""
    return tuple(process for process in process_table() if process.ppid == pid)


def _descendants(table: tuple[Process, ...], ancestor: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for process in table:
        children.setdefault(process.ppid, []).append(process.pid)
    found: set[int] = set()
    waiting = [ancestor]
    while waiting:
        for child in children.get(waiting.pop(), []):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _network(pid: int | str) -> tuple[int, int] | None:
    try:
        status = os.stat(f"/proc/{pid}/ns/net")
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def find_strays(
    expected: Set[tuple[int, int]], zygote: tuple[int, int] | None, sandbox_uids: range | None
) -> tuple[Process, ...]:
    """The live processes of the sandboxes that have no entry, by number.

    `expected` holds (pid, start) of every worker with an entry, `zygote` is the zygote's, or None where there
    is none. Where that zygote has ended, only uids can tell. The zygote itself is no stray.
    """
    table = process_table()
    kin: set[int] = set()
    network = None
    if zygote is not None and _is_alive(zygote):
        kin = _descendants(table, zygote[0])
        network = _network(zygote[0])
        if network == _network("self"):
            network = None
    strays = []
    for process in table:
        named = (process.pid, process.start)
        if named in expected or named == zygote:
            continue
        owned = sandbox_uids is not None and any(uid in sandbox_uids for uid in process.uids)
        if owned or process.pid in kin or (network is not None and _network(process.pid) == network):
            strays.append(process)
    return tuple(strays)


def _is_alive(process: tuple[int, int]) -> bool:
    try:
        return start_time(process[0]) == process[1]
    except ProcessGone:
        return False
