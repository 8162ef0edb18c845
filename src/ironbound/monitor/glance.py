"""A glance at a process: what can change without an event, as raw bytes, cheap enough for every second.

Decides only whether anything differs from the glance before. It judges nothing: whoever sees a difference takes a
whole sample (`observe`). Follows proc(5).

Rule 1: a glance belongs to one process. The files are opened below a descriptor of its /proc folder, which the kernel
        ties to that process and no later one; its start time is checked once, after the folder is open.
Rule 2: what a glance leaves out, a whole sample sees: the list is in docs/threat-model.md.

A glance holds, of each thread: tracer, ids, groups, the capability sets, no_new_privs, the seccomp mode and the number
of filters, whether it has ended; of the process: the number of threads, the limits, the namespaces, the control
groups, the executable's inode, the number of descriptors; of a container also its mounts and its groups' limits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, TypeAlias

from ironbound.core.posture import NAMESPACES

from .observe import ProcessGone, has_ended, stat_fields

Seen: TypeAlias = tuple[bytes | str | int | None, ...]

_READ: Final = os.O_RDONLY | os.O_CLOEXEC
_FOLDER: Final = _READ | os.O_DIRECTORY
_STATUS_BYTES: Final = 8192
_FILE_BYTES: Final = 65536
_DEAD: Final = b"ZXx"


class Glance:
    """One process's files, kept open. `look` reads them; `close` when the process is over."""

    __slots__ = ("_cgroup", "_folder", "_limit_files", "_limits", "_namespaces", "_threads", "links", "pid")

    def __init__(self, pid: int, pid_start: int, limit_files: Iterable[str] | None = None) -> None:
        """`limit_files`: of a container, the files of its control groups' limits. Raises ProcessGone, OSError."""
        self.pid = pid
        self._threads: dict[int, int] = {}
        #: The namespaces that the latest look saw, as the kernel names them.
        self.links: frozenset[str] = frozenset()
        self._limit_files = None if limit_files is None else tuple(limit_files)
        self._limits = self._cgroup = self._namespaces = -1
        try:
            self._folder = os.open(f"/proc/{pid}", _FOLDER)
        except FileNotFoundError:
            raise ProcessGone(f"process {pid} has ended") from None
        try:
            self._open(pid_start)
        except (FileNotFoundError, ProcessLookupError):
            self.close()
            raise ProcessGone(f"process {pid} has ended") from None
        except BaseException:
            self.close()
            raise

    def _open(self, pid_start: int) -> None:
        fields = stat_fields(self._read("stat").decode("utf-8", "surrogateescape"))
        if has_ended(fields) or int(fields[19]) != pid_start:
            raise ProcessGone(f"process {self.pid}: expected the one started at {pid_start}, got {fields[19]}")
        for name in os.listdir(f"/proc/self/fd/{self._folder}/task"):
            self._threads[int(name)] = os.open(f"task/{name}/status", _READ, dir_fd=self._folder)
        self._limits = self._perhaps("limits", _READ)
        self._cgroup = self._perhaps("cgroup", _READ)
        # Another user's folder can be passed through, not read.
        self._namespaces = os.open("ns", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)

    def _perhaps(self, name: str, flags: int) -> int:
        try:
            return os.open(name, flags, dir_fd=self._folder)
        except PermissionError:
            return -1

    def _read(self, name: str) -> bytes:
        descriptor = os.open(name, _READ, dir_fd=self._folder)
        try:
            return os.read(descriptor, _FILE_BYTES)
        finally:
            os.close(descriptor)

    def look(self) -> Seen:
        """What is there now; equal to an earlier glance if nothing that it holds has changed. Raises ProcessGone."""
        try:
            return self._look()
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone(f"process {self.pid} or a thread of it has ended") from None

    def _look(self) -> Seen:
        seen: list[bytes | str | int | None] = []
        for tid, descriptor in self._threads.items():
            status = os.pread(descriptor, _STATUS_BYTES, 0)
            begin, middle = status.index(b"\nTracerPid:"), status.index(b"\nThreads:")
            caps = status.index(b"\nCapInh:", middle)
            seen += (
                tid,
                status[status.index(b"\nState:\t") + 8] in _DEAD,
                status[begin : _end_of_ids(status, begin, middle)],
                status[middle : status.index(b"\n", middle + 1)],
                status[caps : _end_of_seccomp(status, caps)],
            )
        seen.append(None if self._limits < 0 else os.pread(self._limits, _FILE_BYTES, 0))
        seen.append(None if self._cgroup < 0 else os.pread(self._cgroup, _FILE_BYTES, 0))
        seen += self._links()
        if self._limit_files is not None:
            seen += (self._read("mountinfo"), *(_content(path) for path in self._limit_files))
        return tuple(seen)

    def _links(self) -> list[bytes | str | int | None]:
        found: list[bytes | str | int | None] = []
        try:
            if self._namespaces >= 0:
                links = [os.readlink(kind, dir_fd=self._namespaces) for kind in NAMESPACES]
                self.links = frozenset(links)
                found += links
            exe = os.stat("exe", dir_fd=self._folder)
            found += (exe.st_dev, exe.st_ino, exe.st_mtime_ns, exe.st_ctime_ns)
        except PermissionError:
            found.append(None)
        # The size of the folder of descriptors is their number since Linux 6.2, and zero before.
        count = os.stat("fd", dir_fd=self._folder).st_size
        if count == 0:
            try:
                count = len(os.listdir(f"/proc/self/fd/{self._folder}/fdinfo"))
            except PermissionError:
                count = -1
        found.append(count)
        return found

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in (*self._threads.values(), self._limits, self._cgroup, self._namespaces, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._threads = {}
        self._limits = self._cgroup = self._namespaces = self._folder = -1


def _content(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return None
    try:
        return os.read(descriptor, _FILE_BYTES)
    finally:
        os.close(descriptor)


def _end_of_ids(status: bytes, begin: int, end: int) -> int:
    """Where the lines from TracerPid to Groups end: what follows counts memory."""
    for line in (b"\nNStgid:", b"\nVmPeak:"):
        found = status.find(line, begin, end)
        if found >= 0:
            return found
    return end


def _end_of_seccomp(status: bytes, begin: int) -> int:
    """Where the lines from CapInh to Seccomp_filters end."""
    last = status.index(b"\nSeccomp", begin)
    filters = status.find(b"\nSeccomp_filters:", last)
    return status.index(b"\n", (filters if filters >= 0 else last) + 1)
