"""Holds the processes that live against the entries in the log, both ways, and against the control groups.

Decides whether a live process belongs to the sandboxes though no entry accounts for it. It does not decide what
happens to it. An entry without a process is the watch's to find: it looks at each. Follows proc(5), namespaces(7),
cgroups(7).

Rule 1: a process is a sandbox's if it carries a sandbox user, descends from the zygote or from a sandbox, sits in a
        namespace that is a sandbox's alone, or in a control group of this deployment.
Rule 2: a process is named by number and start time together.
Rule 3: what is known of a process is kept only while the kernel's events tell of every change; else it is read anew.
Rule 4: a container's processes beside its first are its descendants, what waits outside for it, and, while it is
        being built, what sits in its control group. In gVisor's group only its file server is beside those: it runs the
        same program, has the same parent, and is no younger than the kernel that it serves. How many they are, and that
        each is as bare as the first, the posture says (`container`). A Wasm worker has none.
Rule 5: one child of the zygote is no sandbox while it stands by, which is looked at anew each time: it has the zygote's
        own users, no file, so no agent's configuration or module, and executes the very files
        that the zygote does. Whoever could hide in it could hide better beside the zygote, which nobody here ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Final, NamedTuple

from ironbound.core.posture import NAMESPACES

from .container import CGROUPS
from .observe import Baseline, descriptors_of, executable_mappings
from .proc import read_proc
from .processes import Process, is_alive, read_process

#: Control group hierarchies and folders that are looked at, at most.
MAX_GROUPS: Final = 4096
#: Sweeps after which everything is read anew although no event told of a change.
WHOLE_EVERY: Final = 30
NOTHING_READ: Final = Baseline({})
_NO_FILE: Final = ("/dev/null", "socket", "anon_inode:[pidfd]")


class Family(NamedTuple):
    """A sandbox with an entry: its first process, its launch; `native`: it may have more; `nested`: it is gVisor."""

    pid: int
    pid_start: int
    launch: int
    native: bool
    nested: bool


def _own_namespaces() -> frozenset[str]:
    return frozenset(os.readlink(f"/proc/self/ns/{kind}") for kind in NAMESPACES)


class Reconciler:
    """What lives, by number. `group`: the control group of all sandboxes. `events`: whether the kernel tells of every
    fork and change of user."""

    def __init__(self, uids: range | None, group: str, *, events: bool) -> None:
        self._uids = uids
        self._events = events
        self._group = group
        self._table: dict[int, Process] = {}
        self._ended: set[int] = set()  # still listed, as nobody took their exit code; they never live again
        self._own = _own_namespaces()
        self._groups: dict[str, str] = {}
        self._sweeps = 0
        self._listed: tuple[list[str], set[int]] = ([], set())
        self._zygote_files: tuple[tuple[int, int], frozenset[tuple[str, int]] | None] | None = None
        self.zygote: tuple[int, int] | None = None
        #: Who sat in a namespace of a sandbox, as of the latest sweep.
        self.joined: set[int] = set()
        #: The launch of each process beside the first ones, as of the latest sweep, and the other way around.
        self.members: dict[int, int] = {}
        self.beside: dict[int, set[int]] = {}
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
            self._ended.discard(pid)

    def sweep(self, families: Sequence[Family], coming: Set[int], *, whole: bool) -> tuple[Process, ...]:
        """The live processes of the sandboxes that no entry accounts for, by number.

        `families`: the sandboxes with an entry. `coming`: the launches that are admitted and not yet started. With
        `whole`, nothing is taken from what was known.
        """
        self._sweeps += 1
        if whole or not self._events or self._sweeps % WHOLE_EVERY == 0:
            self._table.clear()
            self._ended.clear()
        self._read()
        zygote = self.zygote if self.zygote is not None and is_alive(*self.zygote) else None
        roots = {one.pid for one in families} | ({zygote[0]} if zygote is not None else set())
        groups = self._grouped()
        children = _children(self._table.values())
        self._find_members(families, coming, groups, children)
        accounted = {one.pid for one in families if self._started(one.pid) in (one.pid_start, None)}
        if zygote is not None:
            accounted.add(zygote[0])
        kin = _descendants(children, roots)
        joined = self._joined(zygote)
        if (standby := self._standing_by(zygote)) is not None:
            accounted.add(standby)
        accounted.add(os.getpid())
        strays = []
        for pid, process in self._table.items():
            if pid in accounted or pid in self.members:
                continue
            owned = self._uids is not None and any(uid in self._uids for uid in process.uids)
            if owned or pid in kin or pid in groups or pid in joined:
                strays.append(process)
        return tuple(sorted(strays, key=lambda one: one.pid))

    def _standing_by(self, zygote: tuple[int, int] | None) -> int | None:
        """Rule 5: the youngest, if there are several."""
        first = None if zygote is None else self._table.get(zygote[0])
        if first is None or self._uids is None:  # without users of their own, sandboxes are forked on order
            return None
        if any(uid in self._uids for uid in first.uids):
            return None
        children = [one for one in self._table.values() if one.ppid == first.pid and one.uids == first.uids]
        for one in sorted(children, key=lambda one: one.start, reverse=True):
            if _is_empty(one.pid, first.pid) and self._executes_as(one.pid, first):
                return one.pid
        return None

    def _executes_as(self, pid: int, zygote: Process) -> bool:
        """Whether a process executes the very files that the zygote does, or did when it was looked at."""
        named, files = (zygote.pid, zygote.start), _executes(pid)
        if files is None or (named, files) == self._zygote_files:
            return files is not None
        self._zygote_files = (named, _executes(zygote.pid))
        return (named, files) == self._zygote_files

    def _started(self, pid: int) -> int | None:
        process = self._table.get(pid)
        return None if process is None else process.start

    def _find_members(
        self,
        families: Sequence[Family],
        coming: Set[int],
        groups: Mapping[int, str],
        children: Mapping[int, Sequence[int]],
    ) -> None:
        """Rule 4: which processes belong to which launch, beside its first one."""
        found: dict[int, int] = {}
        for family in families:
            if not family.native:
                continue
            found |= dict.fromkeys(_descendants(children, {family.pid}), family.launch)
            first = self._table.get(family.pid)
            parent = None if first is None else self._table.get(first.ppid)
            if parent is not None and parent.uid == (first.uid if first is not None else -1) != os.getuid():
                found[parent.pid] = family.launch  # bubblewrap waits outside for what it started
        building = {str(launch) for launch in coming}
        kernels = {str(one.launch): one.pid for one in families if one.nested}
        for pid, name in groups.items():
            if name in building or (name in kernels and self._serves(pid, kernels[name])):
                found.setdefault(pid, int(name))
        self.members = found
        self.beside = {}
        for pid, launch in found.items():
            self.beside.setdefault(launch, set()).add(pid)

    def _serves(self, pid: int, kernel: int) -> bool:
        """Whether a process is the file server of that gVisor kernel (Rule 4)."""
        one, served = self._table.get(pid), self._table.get(kernel)
        if one is None or served is None or one.ppid != served.ppid or one.start > served.start:
            return False
        program = _program(pid)
        return program is not None and program == _program(kernel)

    def _read(self) -> None:
        names = os.listdir("/proc")
        if names != self._listed[0]:
            self._listed = (names, {int(name) for name in names if name.isascii() and name.isdigit()})
        pids = self._listed[1]
        for pid in self._table.keys() - pids:
            del self._table[pid]
        self._ended &= pids
        self._take(pids - self._table.keys() - self._ended)
        # Whose parent has ended was adopted, of which no event tells.
        self._take([pid for pid, one in self._table.items() if one.ppid and one.ppid not in self._table])

    def _take(self, pids: Iterable[int]) -> None:
        for pid in pids:
            process = read_process(pid)
            if process is None:
                self._table.pop(pid, None)
                self._ended.add(pid)
            else:
                self._table[pid] = process

    def _joined(self, zygote: tuple[int, int] | None) -> set[int]:
        """Who sits in a namespace that only sandboxes have.

        Once a sandbox is over the kernel may give the number of its namespace to another: then it counts only for who
        sat in it before.
        """
        living = [links for pid, links in self.namespaces.items() if pid in self._table]
        sandboxes = set().union(*living) - self._own
        former = set().union(*self.namespaces.values()) - self._own - sandboxes
        theirs = set(sandboxes)
        if zygote is not None:
            theirs |= set(_links(zygote[0], NAMESPACES)) - self._own
        kinds = sorted({link.partition(":")[0] for link in theirs | former})
        strangers = [pid for pid, one in self._table.items() if not one.kernel and pid not in self.namespaces]
        links = {pid: set(_links(pid, kinds)) for pid in strangers} if kinds else {}
        remain = {pid for pid in self.joined if links.get(pid, set()) & former}
        self.joined = {pid for pid, found in links.items() if found & sandboxes} | remain
        return {pid for pid, found in links.items() if found & theirs} | remain

    def _grouped(self) -> dict[int, str]:
        """Who sits in a control group of this deployment, and below which launch's."""
        found: dict[int, str] = {}
        self._groups = self.groups()
        for group, name in self._groups.items():
            try:
                found |= {int(line): name for line in read_proc(f"{group}/cgroup.procs").split()}
            except OSError:
                continue  # it has gone, or is of a kind that has no list
        return found

    def groups(self) -> dict[str, str]:
        """The folders of this deployment's control groups in every hierarchy, with the launch's name or ''."""
        found: dict[str, str] = {}
        try:
            with os.scandir(CGROUPS) as trees:
                roots = [str(CGROUPS), *(one.path for one in trees if one.is_dir(follow_symlinks=False))]
        except OSError:
            return found
        for root in roots:
            top = f"{root}{self._group}"
            for folder, _, _ in os.walk(top):
                if len(found) == MAX_GROUPS:
                    return found
                found[folder] = folder[len(top) + 1 :].partition("/")[0]
        return found

    def leftovers(self, launches: Set[int]) -> int:
        """How many control groups stood in the latest sweep though none of these launches, which run or will, has
        them."""
        return len(set(self._groups.values()) - {str(launch) for launch in launches} - {""})


def _links(pid: int, kinds: Iterable[str]) -> list[str]:
    found = []
    try:
        for kind in kinds:
            found.append(os.readlink(f"/proc/{pid}/ns/{kind}"))
    except OSError:
        pass  # it has ended, or may not be looked at
    return found


def _is_empty(pid: int, zygote: int) -> bool:
    """Whether a process holds sockets, other processes, the null device, and nothing else that could be a file, but for
    the zygote's own standard error, which it holds for a moment."""
    try:
        held = descriptors_of(pid, f"/proc/{pid}", NOTHING_READ).names
        if held is None:
            return False
        strange = {number: name for number, name in held.items() if name not in _NO_FILE}
        if not strange:
            return True
        its = descriptors_of(zygote, f"/proc/{zygote}", NOTHING_READ, only=frozenset({2})).names
        return None not in strange.values() and strange == its
    except OSError:
        return False  # it has ended, or may not be looked at


def _executes(pid: int) -> frozenset[tuple[str, int]] | None:
    """The files that a process has mapped to execute, by device and inode."""
    try:
        return frozenset((one.device, one.inode) for one in executable_mappings(f"/proc/{pid}") if one.inode)
    except OSError:
        return None


def _program(pid: int) -> tuple[int, int] | None:
    try:
        status = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None  # it has ended, or may not be looked at
    return status.st_dev, status.st_ino


def _children(table: Iterable[Process]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for process in table:
        children.setdefault(process.ppid, []).append(process.pid)
    return children


def _descendants(children: Mapping[int, Sequence[int]], ancestors: Set[int]) -> set[int]:
    found: set[int] = set()
    waiting = list(ancestors)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found
