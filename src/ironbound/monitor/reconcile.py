"""Holds the processes that live against the entries in the log, both ways, and against the control groups.

Decides whether a live process belongs to the sandboxes though no entry accounts for it. It does not decide what
happens to it. An entry without a process is the watch's to find: it looks at each. Follows proc(5), namespaces(7),
cgroups(7).

Rule 1: a process is a sandbox's if it carries a sandbox user, descends from the zygote or from a sandbox, sits in a
        namespace that is a sandbox's alone, or in a control group of this deployment.
Rule 2: a process is named by number and start time together.
Rule 3: what is known of a process is kept only while the kernel's events tell of every change; else it is read anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Final

from ironbound.core.posture import NAMESPACES

from .observe import ProcessGone, start_time
from .processes import Process, read_process

CGROUPS: Final = Path("/sys/fs/cgroup")
#: Control group hierarchies and folders that are looked at, at most.
MAX_GROUPS: Final = 4096
#: Sweeps after which everything is read anew although no event told of a change.
WHOLE_EVERY: Final = 8


def _own_namespaces() -> frozenset[str]:
    return frozenset(os.readlink(f"/proc/self/ns/{kind}") for kind in NAMESPACES)


class Reconciler:
    """What lives, by number. `events`: whether the kernel tells of every fork and change of user."""

    def __init__(self, uids: range | None, deployment: str, *, events: bool) -> None:
        self._uids = uids
        self._events = events
        self._prefix = f"ironbound-{deployment}"
        self._table: dict[int, Process] = {}
        self._own = _own_namespaces()
        self._sweeps = 0
        self.zygote: tuple[int, int] | None = None
        #: The namespaces of each sandbox with an entry, as the kernel names them, by its process.
        self.namespaces: dict[int, frozenset[str]] = {}

    @property
    def processes(self) -> int:
        """How many live processes the latest sweep looked at."""
        return len(self._table)

    def forget(self, pids: Iterable[int]) -> None:
        """Something happened to these: what is known of them is read anew."""
        for pid in pids:
            self._table.pop(pid, None)

    def sweep(self, expected: Set[tuple[int, int]], *, whole: bool) -> tuple[Process, ...]:
        """The live processes of the sandboxes that have no entry, by number. `expected`: those that have one.

        With `whole`, nothing is taken from what was known.
        """
        self._sweeps += 1
        if whole or not self._events or self._sweeps % WHOLE_EVERY == 0:
            self._table.clear()
        self._read()
        zygote = self.zygote if self.zygote is not None and _is_alive(self.zygote) else None
        roots = {pid for pid, _ in expected} | ({zygote[0]} if zygote is not None else set())
        kin = _descendants(self._table.values(), roots)
        joined = self._joined(zygote)
        grouped = self._grouped()
        strays = []
        for pid, process in self._table.items():
            named = (pid, process.start)
            if named in expected or named == zygote or pid == os.getpid():
                continue
            owned = self._uids is not None and any(uid in self._uids for uid in process.uids)
            if owned or pid in kin or pid in grouped or pid in joined:
                strays.append(process)
        return tuple(sorted(strays, key=lambda one: one.pid))

    def _read(self) -> None:
        pids = {int(name) for name in os.listdir("/proc") if name.isascii() and name.isdigit()}
        for pid in self._table.keys() - pids:
            del self._table[pid]
        for pid in pids - self._table.keys():
            process = read_process(pid)
            if process is not None:
                self._table[pid] = process

    def _joined(self, zygote: tuple[int, int] | None) -> set[int]:
        """Who sits in a namespace that only sandboxes have."""
        theirs: set[str] = set().union(*self.namespaces.values())
        if zygote is not None:
            theirs |= set(_links(zygote[0], NAMESPACES))
        theirs -= self._own
        if not theirs:
            return set()
        kinds = sorted({link.partition(":")[0] for link in theirs})
        # The network's in every sweep, the others in turn: a look costs 3 µs, and there are many processes.
        chosen = {kind for kind in kinds if kind == "net"} | {kinds[self._sweeps % len(kinds)]}
        return {pid for pid in self._table if not theirs.isdisjoint(_links(pid, chosen))}

    def _grouped(self) -> set[int]:
        """Who sits in a control group of this deployment."""
        found: set[int] = set()
        for group in self.groups():
            try:
                found.update(int(line) for line in (group / "cgroup.procs").read_text("ascii").split())
            except (OSError, ValueError):
                continue  # it has gone, or is of a kind that has no list
        return found

    def groups(self) -> list[Path]:
        """The folders of this deployment's control groups, in every hierarchy."""
        found: list[Path] = []
        try:
            roots = [CGROUPS, *(one for one in CGROUPS.iterdir() if one.is_dir() and not one.is_symlink())]
        except OSError:
            return found
        for root in roots:
            top = root / self._prefix
            if top.is_dir():
                found += [Path(folder) for folder, _, _ in os.walk(top)]
            if len(found) > MAX_GROUPS:
                break
        return found[:MAX_GROUPS]

    def leftovers(self, live: Mapping[str, bool]) -> int:
        """How many control groups of sandboxes stand empty though no live launch (by its folder's name) has them."""
        count = 0
        for group in self.groups():
            if group.name == self._prefix or live.get(group.name, False):
                continue
            try:
                count += not (group / "cgroup.procs").read_text("ascii").strip()
            except OSError:
                continue
        return count


def _links(pid: int, kinds: Iterable[str]) -> list[str]:
    found = []
    try:
        for kind in kinds:
            found.append(os.readlink(f"/proc/{pid}/ns/{kind}"))
    except OSError:
        pass  # it has ended, or may not be looked at
    return found


def _descendants(table: Iterable[Process], ancestors: Set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for process in table:
        children.setdefault(process.ppid, []).append(process.pid)
    found: set[int] = set()
    waiting = list(ancestors)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _is_alive(process: tuple[int, int]) -> bool:
    try:
        return start_time(process[0]) == process[1]
    except ProcessGone:
        return False
