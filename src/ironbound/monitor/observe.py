"""One sample of one live process, in the shape of a posture.

Decides what can be seen of a process from outside, and writes null for what cannot. It judges nothing:
`core/posture.py` compares, the monitor acts. Follows proc(5), namespaces(7), fcntl(2) "File Sealing".

Rule 1: a sample belongs to one process. Its start time is checked before and after; a process that ended, or
        another one under its number, raises ProcessGone and gives no sample.
Rule 2: null stands for "could not be seen". Nothing is filled in from what was expected.
Rule 3: every thread is looked at. The values are the main thread's; a thread that differs makes
        `threads.uniform` false and is named under `threads.differing`.
Rule 4: a name counts only with the object behind it: the null device by its number, a sealed memory file by
        its seals, a mapped file by device and inode.

An ordinary user of the same uid sees all of this except the filters (CAP_SYS_ADMIN). Of another user's
process, or of one that is not dumpable, it sees only the ids, capabilities, no_new_privs, seccomp mode,
threads, limits and tracer. A monitor with a user of its own sees everything with OBSERVER_CAPABILITIES, and
not with less.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NewType

from ironbound.core.canonical import Digest, Value
from ironbound.core.limits import RLIMIT_NAMES
from ironbound.core.posture import CAPABILITY_SETS, NAMESPACES, POSTURE_VERSION
from ironbound.monitor.environment import environment_of
from ironbound.monitor.proc import has_ended, is_ending, read_lines, read_proc, stat_fields
from ironbound.monitor.tracing import TracingRefused, read_filters

NamespaceId = NewType("NamespaceId", tuple[int, int])

OBSERVER_CAPABILITIES: Final = frozenset({19, 21})
"""CAP_SYS_PTRACE to look at another user's process, CAP_SYS_ADMIN to read filters and map_files."""

MAX_FILE: Final = 1 << 30
"""Bytes of a mapped file, or of a memory file, that are still read for its digest."""
MACHINE_FILES: Final = ("settings", "kernel", "initrd", "firmware")
"""Memory files of a virtual machine's hypervisor."""
MAX_DIFFERING: Final = 8
"""Threads that are named one by one when they differ."""

_REQUIRED_SEALS: Final = (
    fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | 0x10  # FUTURE_WRITE
)
_SYS_PIDFD_GETFD: Final = 438
_MEMFD: Final = re.compile(r"/memfd:ironbound-([a-z]+) \(deleted\)")
_EXECUTABLE: Final = re.compile(r"^(\S+) (..x.) \S+ (\S+) (\d+) *(.*)$", re.MULTILINE)
"""A line of /proc/PID/maps; a newline in a name is written as \\012."""
_NULL_DEVICE: Final = os.makedev(1, 3)
_SECCOMP_FILTER: Final = "2"
_DEAD: Final = "ZXx"

_PER_THREAD: Final = (
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
)
CAPABILITY_LINES: Final = dict(zip(CAPABILITY_SETS, ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), strict=True))
_LIMIT_LINES: Final = {
    "Max open files": "nofile",
    "Max processes": "nproc",
    "Max core file size": "core",
    "Max file size": "fsize",
    "Max stack size": "stack",
    "Max locked memory": "memlock",
    "Max msgqueue size": "msgqueue",
    "Max address space": "as",
    "Max nice priority": "nice",
    "Max realtime priority": "rtprio",
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class ProcessGone(Exception):
    """The process has ended, or its number belongs to another one by now."""


@dataclass(slots=True)
class Baseline:
    """What an observer compares with and keeps between samples: its own namespaces, and the digests of files
    it has read.

    A digest is kept under device, inode, size and both times, so that a file that changes is read again.
    """

    namespaces: dict[str, NamespaceId]
    digests: dict[tuple[int, int, int, int, int], Digest] = field(default_factory=dict)

    @classmethod
    def of_self(cls) -> Baseline:
        """The baseline of this process, as it is now. Raises OSError."""
        own = {}
        for kind in NAMESPACES:
            status = os.stat(f"/proc/self/ns/{kind}")
            own[kind] = NamespaceId((status.st_dev, status.st_ino))
        return cls(own)


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat, in clock ticks since boot. Raises ProcessGone, for a zombie too.

    A process whose main thread alone has ended reads as a zombie as well, but runs on.
    """
    try:
        fields = stat_fields(read_proc(f"/proc/{pid}/stat"))
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGone(f"process {pid} has ended") from None
    if has_ended(fields):
        raise ProcessGone(f"process {pid} has ended")
    return int(fields[19])


def require_start(pid: int, pid_start: int) -> None:
    if (found := start_time(pid)) != pid_start:
        raise ProcessGone(f"process {pid}: expected the one started at {pid_start}, got {found}")


def require_alive(pid: int, pid_start: int) -> None:
    """ProcessGone unless it is that process, and was not ending while it was read."""
    require_start(pid, pid_start)
    if is_ending(pid):
        raise ProcessGone(f"process {pid} was ending while it was read")


def observe(pid: int, pid_start: int, baseline: Baseline, *, filters: bool) -> Value:
    """A sample of the process `pid` that started at `pid_start`, as a posture (see core/posture.py).

    With `filters`, the installed system call filters are read as well, for which each thread is stopped for
    about 0.1 ms; without, they are null unless there are none. Raises ProcessGone.
    """
    require_start(pid, pid_start)
    try:
        sample = _sample(pid, baseline, filters)
    except (FileNotFoundError, ProcessLookupError):
        require_start(pid, pid_start)
        raise ProcessGone(f"process {pid} ended while it was read") from None
    require_alive(pid, pid_start)
    return sample


def _sample(pid: int, baseline: Baseline, filters: bool) -> Value:
    threads = thread_states(pid)
    chosen = spokesman(pid, threads)
    main, root = threads[chosen], f"/proc/{chosen}"
    mappings, writable_executable = executable_files(root, baseline)
    descriptors = descriptors_of(pid, root, baseline)
    sample: dict[str, Value] = {
        "version": POSTURE_VERSION,
        "uid": [int(word) for word in main["Uid"].split()],
        "gid": [int(word) for word in main["Gid"].split()],
        "groups": [int(word) for word in main["Groups"].split()],
        "caps": {name: main[line] for name, line in CAPABILITY_LINES.items()},
        "no_new_privs": int(main["NoNewPrivs"]),
        "seccomp": int(main["Seccomp"]),
        "namespaces": namespaces_of(root, baseline),
        "exe": exe_digest(root, baseline),
        "environment": environment_of(chosen),
        "mappings": mappings,
        "writable_executable": writable_executable,
        "rlimits": rlimits_of(root),
        "fds": descriptors.names,
        "tracer": tracer_of(threads),
        "config_sha256": descriptors.config,
        "module_sha256": descriptors.module,
    }
    # Last, since it stops the process, and makes this one its tracer while it does.
    sample["filters"], sample["threads"] = filters_and_threads(chosen, threads, filters)
    return sample


# Threads


def thread_states(pid: int) -> dict[int, dict[str, str]]:
    states = {}
    for name in os.listdir(f"/proc/{pid}/task"):
        try:
            text = read_lines(f"/proc/{pid}/task/{name}/status")
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread may end at any time; the main one's end is noticed below
        lines = (line.split(":", 1) for line in text if ":" in line)
        state = {key: value.strip() for key, value in lines}
        if int(name) == pid or not is_dead(state):
            states[int(name)] = state
    if all(is_dead(state) for state in states.values()):
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has no live thread")
    return states


def spokesman(pid: int, threads: dict[int, dict[str, str]]) -> int:
    """The thread that stands for the process. What a thread that ended still shows is empty: if the main thread has, it
    is another one."""
    return min((tid for tid in threads if not is_dead(threads[tid])), key=lambda tid: (tid != pid, tid))


def is_dead(state: dict[str, str]) -> bool:
    return state["State"][0] in _DEAD


def tracer_of(threads: dict[int, dict[str, str]]) -> int:
    own = {int(name) for name in os.listdir("/proc/self/task")}
    for state in threads.values():
        tracer = int(state["TracerPid"])
        if tracer != 0 and tracer not in own:
            return tracer
    return 0


def _is_filtered(state: dict[str, str]) -> bool:
    return state["Seccomp"] == _SECCOMP_FILTER and not is_dead(state)


def filter_counts(pid: int) -> frozenset[tuple[str, str]]:
    """The modes and numbers of filters that the threads of a process have. A filter is never taken away, and a new
    thread has those of the one that made it: while one number holds for all, they have what they had. ProcessGone."""
    try:
        states = thread_states(pid).values()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGone(f"process {pid} has ended") from None
    return frozenset((state["Seccomp"], state.get("Seccomp_filters", "")) for state in states if not is_dead(state))


def filters_and_threads(chosen: int, threads: dict[int, dict[str, str]], asked: bool) -> tuple[Value, Value]:
    """The filters of the chosen thread, null if they are not seen, and how the threads differ from it. With `asked`
    they are read: that stops each thread for a moment. Raises ProcessLookupError where the chosen one has ended."""
    installed = _installed_filters(threads, asked)
    if installed is None:
        return None, threads_summary(chosen, threads, None)
    if chosen not in installed and _is_filtered(threads[chosen]):
        raise ProcessLookupError(errno.ESRCH, f"thread {chosen} ended while it was read")
    return list(installed.get(chosen, ())), threads_summary(chosen, threads, installed)


def _installed_filters(threads: dict[int, dict[str, str]], asked: bool) -> dict[int, tuple[Digest, ...]] | None:
    filtered = [tid for tid, state in threads.items() if _is_filtered(state)]
    if not filtered:
        return {}
    if not asked:
        return None
    try:
        return read_filters(filtered)
    except TracingRefused:
        return None


def threads_summary(
    chosen: int, threads: dict[int, dict[str, str]], installed: dict[int, tuple[Digest, ...]] | None
) -> dict[str, Value]:
    main = threads[chosen]
    differing: list[Value] = []
    for tid, state in sorted(threads.items()):
        odd: dict[str, Value] = {name: state.get(name, "") for name in _PER_THREAD if state.get(name) != main.get(name)}
        # A thread without a filter differs by its mode; one behind a filter that was not read has ended.
        if installed is not None and tid in installed and installed[tid] != installed.get(chosen, ()):
            odd["filters"] = list(installed[tid])
        if is_dead(state):
            odd = {"state": state["State"]}
        if odd and len(differing) < MAX_DIFFERING:
            differing.append({"tid": tid, **odd})
    if differing:
        return {"count": len(threads), "uniform": False, "differing": differing}
    return {"count": len(threads), "uniform": True}


# Namespaces, limits


def namespaces_of(root: str, baseline: Baseline) -> Value:
    found: dict[str, Value] = {}
    for kind in NAMESPACES:
        try:
            status = os.stat(f"{root}/ns/{kind}")
        except PermissionError:
            found[kind] = None
            continue
        found[kind] = "shared" if (status.st_dev, status.st_ino) == baseline.namespaces[kind] else "private"
    return found


def rlimits_of(root: str, names: Collection[str] = RLIMIT_NAMES) -> Value:
    """The soft and hard limits of these names (those of `_LIMIT_LINES`), -1 for none."""
    try:
        lines = read_lines(f"{root}/limits")
    except PermissionError:
        return None
    found: dict[str, Value] = {}
    for line in lines:
        name = _LIMIT_LINES.get(line[:26].rstrip(), "")
        if name in names:
            found[name] = [-1 if word == "unlimited" else int(word) for word in line[26:].split()[:2]]
    return found


# Files behind names


def digest_of(path: str, baseline: Baseline, keep: bool = True) -> Digest | None:
    """The digest of the regular file that `path` opens, from the cache where it has not changed; None if not
    readable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (PermissionError, FileNotFoundError):
        return None
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode) or before.st_size > MAX_FILE:
            return None
        key = _key(before)
        if keep and key in baseline.digests:
            return baseline.digests[key]
        state = hashlib.sha256()
        while part := os.read(descriptor, 1 << 20):
            state.update(part)
        if _key(os.fstat(descriptor)) != key:
            return None  # written to while it was read: there is no digest of that
    finally:
        os.close(descriptor)
    digest = Digest(state.hexdigest())
    if keep:
        baseline.digests[key] = digest
    return digest


def _key(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def cached_digest(path: str, baseline: Baseline) -> Digest | None:
    """The kept digest of the file at `path`, without opening it."""
    try:
        return baseline.digests.get(_key(os.stat(path)))
    except OSError:
        return None


def exe_digest(root: str, baseline: Baseline) -> Digest | None:
    return cached_digest(f"{root}/exe", baseline) or digest_of(f"{root}/exe", baseline)


class Mapping(NamedTuple):
    """An executable mapping, as /proc/PID/maps names it; without a file its inode is 0."""

    bounds: str
    device: str
    inode: int
    path: str
    writable: bool


def executable_mappings(root: str) -> list[Mapping]:
    """What the process with this /proc folder may execute. Raises OSError."""
    found = []
    for bounds, mode, device, inode, path in _EXECUTABLE.findall(read_proc(f"{root}/maps")):
        found.append(Mapping(bounds, device, int(inode), path, "w" in mode))
    return found


def executable_files(root: str, baseline: Baseline) -> tuple[Value, Value]:
    """The sorted digests of all files mapped executable, and the count of mappings both writable and
    executable."""
    try:
        mappings = executable_mappings(root)
    except PermissionError:
        return None, None
    files = {(one.device, one.inode): one for one in reversed(mappings) if one.inode}
    digests: set[str] = set()
    unreadable = False
    for mapping in files.values():
        digest = _mapped_digest(root, mapping, baseline)
        if digest is None:
            unreadable = True
        else:
            digests.add(digest)
    sorted_digests: list[Value] = list(digests)
    sorted_digests.sort(key=str)
    return None if unreadable else sorted_digests, sum(one.writable for one in mappings)


def _mapped_digest(root: str, mapping: Mapping, baseline: Baseline) -> Digest | None:
    link = f"{root}/map_files/{mapping.bounds}"
    digest = cached_digest(link, baseline) or digest_of(link, baseline)
    if digest is not None:
        return digest
    # map_files needs CAP_CHECKPOINT_RESTORE. Without it, a name is taken only where the same inode is behind
    # it.
    for path in (f"{root}/exe", f"{root}/root{mapping.path}"):
        try:
            status = os.stat(path)
        except OSError:
            continue
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
        if (device, status.st_ino) == (mapping.device, mapping.inode):
            # The key was taken from the file that matched; a file swapped in since has another one.
            digest = baseline.digests.get(_key(status)) or digest_of(path, baseline)
            if digest is not None and baseline.digests.get(_key(status)) == digest:
                return digest
    return None


# Descriptors


@dataclass(slots=True)
class Descriptors:
    """What was found at the descriptors of a process; null where it could not be seen."""

    names: dict[str, Value] | None = None
    config: Digest | None = None
    module: Digest | None = None
    #: The other memory files that are known by name: what a hypervisor reads.
    files: dict[str, Value] = field(default_factory=dict)


def descriptors_of(pid: int, root: str, baseline: Baseline, only: Collection[int] | None = None) -> Descriptors:
    """What is at the descriptors of a process, or at these alone. Raises OSError."""
    try:
        numbers = _numbers(f"{root}/fd", only)
    except PermissionError:
        return _copied_descriptors(pid, root, baseline, only)
    found = Descriptors({})
    for number in numbers:
        _look_at(found, number, f"{root}/fd/{number}", baseline)
    return found


def _numbers(folder: str, only: Collection[int] | None) -> list[int]:
    numbers = sorted(int(name) for name in os.listdir(folder))
    return numbers if only is None else [number for number in numbers if number in only]


def _copied_descriptors(pid: int, root: str, baseline: Baseline, only: Collection[int] | None) -> Descriptors:
    """The same by copies of each descriptor: CAP_SYS_PTRACE gives those, but not another user's fd directory."""
    try:
        numbers = _numbers(f"{root}/fdinfo", only)
        process = os.pidfd_open(pid)
    except PermissionError:
        return Descriptors()
    found = Descriptors({})
    try:
        for number in numbers:
            copy = int(_libc.syscall(*map(ctypes.c_long, (_SYS_PIDFD_GETFD, process, number, 0))))
            if copy < 0:
                if ctypes.get_errno() == errno.EPERM:
                    return Descriptors()
                if ctypes.get_errno() != errno.EBADF:
                    raise OSError(ctypes.get_errno(), f"descriptor {number} of process {pid}")
                continue  # closed since the listing
            try:
                _look_at(found, number, f"/proc/self/fd/{copy}", baseline)
            finally:
                os.close(copy)
    finally:
        os.close(process)
    return found


def _look_at(found: Descriptors, number: int, path: str, baseline: Baseline) -> None:
    names = found.names if found.names is not None else {}
    try:
        symbol = symbol_of(path, os.readlink(path))
    except PermissionError:
        names[str(number)] = None
        return
    except FileNotFoundError:
        return  # closed since the listing
    names[str(number)] = symbol
    # Wherever they are: gVisor's kernel keeps its agent's descriptors under numbers of its own.
    if symbol.startswith("memfd:config") and found.config is None:
        found.config = memfd_digest(path, symbol, "config", baseline)
    elif symbol.startswith("memfd:module") and found.module is None:
        found.module = memfd_digest(path, symbol, "module", baseline)
    elif (name := symbol.removeprefix("memfd:").partition(":")[0]) in MACHINE_FILES and symbol != name:
        found.files[name] = memfd_digest(path, symbol, name, baseline)


def symbol_of(path: str, target: str) -> str:
    if target.startswith("socket:["):
        return "socket"
    if target.startswith("pipe:["):
        return "pipe"
    if target == "/dev/null":
        status = os.stat(path)
        is_null = stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE
        return target if is_null else f"{target} (not the null device)"
    memory = _MEMFD.fullmatch(target)
    if memory is not None:
        return f"memfd:{memory.group(1)}{':sealed' if _sealed(path) else ''}"
    return target.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _sealed(path: str) -> bool:
    """Whether the file is a memory file with every seal. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 0:
            return False
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _REQUIRED_SEALS == _REQUIRED_SEALS
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False  # not a memory file
        raise
    finally:
        os.close(descriptor)


def memfd_digest(path: str, symbol: str, name: str, baseline: Baseline) -> Digest | None:
    sealed = symbol == f"memfd:{name}:sealed"
    if not sealed and symbol != f"memfd:{name}":
        return None
    # What is not sealed may change without a trace in its times, so its digest is not kept.
    return digest_of(path, baseline, keep=sealed)
