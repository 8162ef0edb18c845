"""A glance at a process: what can change without an event, as raw bytes, cheap enough for every second.

Decides only whether anything differs from the glance before. It judges nothing: whoever sees a difference takes a
whole sample (`observe`). Follows proc(5).

Rule 1: a glance belongs to one process. The files are opened below a descriptor of its /proc folder, which the kernel
        ties to that process and no later one; its start time is checked once, after the folder is open.
Rule 2: what a process can only change by itself or through a debugger (its namespaces, its program) is read in turn,
        one kind a look, as exec and debugger are events. Where there are no events the glance is thorough: it reads
        all of it in every look, and the maps, the environment and the targets of all descriptors too.
Rule 3: what a glance leaves out, a whole sample sees: the list is in docs/threat-model.md.

A glance holds, of each thread: tracer, ids, groups, the capability sets, no_new_privs, the seccomp mode and the number
of filters, the processors, whether it has ended; of the process: the number of threads, the limits, the control
groups, the number of descriptors, in turn each namespace and the executable's inode; of a container also its mounts
and its groups' limits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, TypeAlias

from ironbound.core.posture import NAMESPACES

from .observe import ProcessGone
from .proc import has_ended, stat_fields

Seen: TypeAlias = tuple[bytes | str | int | None, ...]

_READ: Final = os.O_RDONLY | os.O_CLOEXEC
_FOLDER: Final = _READ | os.O_DIRECTORY
_PLACE: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_STATUS_BYTES: Final = 8192
_FILE_BYTES: Final = 65536
_MAPS_BYTES: Final = 1 << 20
_DEAD: Final = b"ZXx"
#: What is read in turn: every namespace, then the program.
TURNS: Final = len(NAMESPACES) + 1


class Glance:
    """One process's files, kept open. `look` reads them; `close` when the process is over."""

    __slots__ = ("_cgroup", "_fds", "_folder", "_groups", "_limits", "_mounts", "_namespaces", "_slow", "_thorough",
                 "_threads", "_turn", "pid")  # fmt: skip

    def __init__(
        self, pid: int, pid_start: int | None, limit_files: Iterable[str] | None = None, *, thorough: bool = False
    ) -> None:
        """`pid_start`: None for whatever runs under that number now. `limit_files`: of a container, the files of its
        control groups' limits. `thorough`: Rule 2. Raises ProcessGone, OSError."""
        self.pid = pid
        self._thorough = thorough
        self._mounts = limit_files is not None
        self._threads: dict[int, int] = {}
        self._groups: list[int] = []
        self._limits = self._cgroup = self._namespaces = self._fds = -1
        self._slow: list[bytes | str | int | None] = []
        self._turn = 0
        try:
            self._folder = os.open(f"/proc/{pid}", _FOLDER)
        except (FileNotFoundError, ProcessLookupError):  # ESRCH where it ends between the lookup and the permission
            raise ProcessGone(f"process {pid} has ended") from None
        try:
            self._open(pid_start, limit_files or ())
        except (FileNotFoundError, ProcessLookupError):
            self.close()
            raise ProcessGone(f"process {pid} has ended") from None
        except BaseException:
            self.close()
            raise

    def _open(self, pid_start: int | None, limit_files: Iterable[str]) -> None:
        fields = stat_fields(self._read("stat").decode("utf-8", "surrogateescape"))
        if has_ended(fields) or pid_start not in (None, int(fields[19])):
            raise ProcessGone(f"process {self.pid}: expected the one started at {pid_start}, got {fields[19]}")
        for name in os.listdir(f"/proc/self/fd/{self._folder}/task"):
            self._threads[int(name)] = os.open(f"task/{name}/status", _READ, dir_fd=self._folder)
        self._limits = self._perhaps("limits")
        self._cgroup = self._perhaps("cgroup")
        # Another user's folders can be passed through, not read.
        self._namespaces = os.open("ns", _PLACE, dir_fd=self._folder)
        self._fds = os.open("fd", _PLACE, dir_fd=self._folder)
        self._groups = [_opened(path) for path in limit_files]
        self._slow = [self._in_turn(turn) for turn in range(TURNS)]

    def _perhaps(self, name: str) -> int:
        try:
            return os.open(name, _READ, dir_fd=self._folder)
        except PermissionError:
            return -1

    def _read(self, name: str, most: int = _FILE_BYTES) -> bytes:
        descriptor = os.open(name, _READ, dir_fd=self._folder)
        try:
            data = os.read(descriptor, most)
            while part := os.read(descriptor, most):
                data += part
            return data
        finally:
            os.close(descriptor)

    def _read_perhaps(self, name: str) -> bytes | None:
        try:
            return self._read(name)
        except PermissionError:
            return None

    @property
    def links(self) -> frozenset[str]:
        """The namespaces that the latest looks saw, as the kernel names them."""
        return frozenset(one for one in self._slow[:-1] if isinstance(one, str))

    def look(self) -> Seen:
        """What is there now; equal to an earlier glance if nothing that it holds has changed. Raises ProcessGone."""
        try:
            return self._look()
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone(f"process {self.pid} or a thread of it has ended") from None

    def _look(self) -> Seen:
        seen: list[bytes | str | int | None] = []
        for descriptor in self._threads.values():
            status = os.pread(descriptor, _STATUS_BYTES, 0)
            begin = status.index(b"\nTracerPid:")
            middle = status.index(b"\nThreads:", begin)
            caps = status.index(b"\nCapInh:", middle)
            seen += (
                status[status.index(b"\nState:\t") + 8] in _DEAD,
                status[begin : _end_of_ids(status, begin, middle)],
                status[middle : status.index(b"\n", middle + 1)],
                status[caps : status.index(b"\nCpus_allowed_list:", caps)],
            )
        seen.append(None if self._limits < 0 else os.pread(self._limits, _FILE_BYTES, 0))
        seen.append(None if self._cgroup < 0 else os.pread(self._cgroup, _FILE_BYTES, 0))
        seen.append(self._descriptors())
        for turn in range(TURNS) if self._thorough else (self._turn,):
            self._slow[turn] = self._in_turn(turn)
        self._turn = (self._turn + 1) % TURNS
        seen += self._slow
        if self._mounts:
            seen += (self._read("mountinfo"), *(_content(one) for one in self._groups))
        if self._thorough:
            seen += self._whole()
        return tuple(seen)

    def _in_turn(self, turn: int) -> bytes | str | int | None:
        """The namespace of that number, or the executable's inode (Rule 2)."""
        try:
            if turn < len(NAMESPACES):
                return os.readlink(NAMESPACES[turn], dir_fd=self._namespaces)
            exe = os.stat("exe", dir_fd=self._folder)
        except PermissionError:
            return None
        return f"{exe.st_dev} {exe.st_ino} {exe.st_mtime_ns} {exe.st_ctime_ns}"

    def _descriptors(self) -> int:
        """How many there are: the size of their folder since Linux 6.2, which was zero before."""
        if count := os.fstat(self._fds).st_size:
            return count
        try:
            return len(os.listdir(f"/proc/self/fd/{self._folder}/fdinfo"))
        except PermissionError:
            return -1

    def _whole(self) -> list[bytes | str | int | None]:
        """Rule 2: the maps, the environment, and what each descriptor leads to."""
        try:
            found: list[bytes | str | int | None] = [self._read("maps", _MAPS_BYTES), self._read_perhaps("environ")]
            for name in sorted(os.listdir(f"/proc/self/fd/{self._fds}/")):
                try:
                    found += (name, os.readlink(name, dir_fd=self._fds))
                except FileNotFoundError:
                    continue  # closed since the listing
        except PermissionError:
            return [None]
        return found

    def close(self) -> None:
        """Let go of the files."""
        kept = (self._limits, self._cgroup, self._namespaces, self._fds, self._folder)
        for descriptor in (*self._threads.values(), *self._groups, *kept):
            if descriptor >= 0:
                os.close(descriptor)
        self._threads, self._groups = {}, []
        self._limits = self._cgroup = self._namespaces = self._fds = self._folder = -1


def _opened(path: str) -> int:
    try:
        return os.open(path, _READ)
    except OSError:
        return -1


def _content(descriptor: int) -> bytes | None:
    try:
        return None if descriptor < 0 else os.pread(descriptor, _FILE_BYTES, 0)
    except OSError:
        return None  # the group has gone


def _end_of_ids(status: bytes, begin: int, end: int) -> int:
    """Where the lines from TracerPid to Groups end: what follows counts memory."""
    for line in (b"\nNStgid:", b"\nVmPeak:"):
        found = status.find(line, begin, end)
        if found >= 0:
            return found
    return end
