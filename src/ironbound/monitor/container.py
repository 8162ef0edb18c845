"""One sample of one live container, in the shape of a cage (version 2, `core/cage.py`).

Decides what can be seen of a container from outside: its first process as any process, and beside it the mounts, the
cgroup with its limits, every process inside, and whether each of them runs only files of the approved image. Writes
null for what can't be seen, and judges nothing. Follows proc(5), mount_namespaces(7), cgroups(7).

Rule 1: a sample belongs to one process (see `observe`). Its own processes are found through it, not by name.
Rule 2: the root is the image only if it is the very folder (device and inode) in which the image lies.
Rule 3: every process inside is looked at, not the first alone: none has a debugger, more power, higher limits, other
        namespaces or groups, or more processors than the first may have. What is on its way out is not: it runs nothing
        any more, and shows emptiness.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ironbound.core.cage import CONTAINER_VERSION
from ironbound.core.canonical import Digest, Value, sha256_hex
from ironbound.core.limits import RLIMIT_NUMBERS, native_rlimits
from ironbound.core.native import steers_loader

from .environment import environment_of
from .mounts import mounts_of
from .observe import (
    CAPABILITY_LINES,
    Baseline,
    ProcessGone,
    descriptors_of,
    exe_digest,
    executable_files,
    filters_and_threads,
    namespaces_of,
    require_alive,
    require_start,
    rlimits_of,
    spokesman,
    thread_states,
    tracer_of,
)
from .proc import is_ending, read_lines, read_proc

CGROUPS: Final = Path("/sys/fs/cgroup")
MAX_PROCESSES: Final = 4096
"""Processes of one container that are looked at; more is no sample."""
MAX_FOREIGN: Final = 16
MAX_VARIABLES: Final = 64
"""Different names in one sample; more is not seen."""
_ENDING: Final = (errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.ENODEV)
"""What reading a process gives that ends meanwhile; EINVAL is its mount table's, ENODEV its cgroup's."""
_TMPFS: Final = ("size=", "nr_inodes=")
_UNLIMITED: Final = 1 << 60
_SAME: Final = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
                "Seccomp_filters")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Approved:
    """What the monitor holds a container against: its configuration, and its image with the digests of its files."""

    config: Mapping[str, Any]
    rootfs: Digest
    folder: Path
    files: frozenset[Digest]

    @property
    def runtime(self) -> str:
        return str(self.config["runtime"]["type"])

    @property
    def nested(self) -> bool:
        """Whether only the runtime's own kernel can be seen, not the agent."""
        return self.runtime == "gvisor"


def observe_container(
    pid: int, pid_start: int, baseline: Baseline, approved: Approved, runtime_sha256: Digest, *, filters: bool,
    running: bool,
) -> Value:  # fmt: skip
    """A sample of the container whose first process is `pid`, started at `pid_start`. Raises ProcessGone."""
    require_start(pid, pid_start)
    try:
        sample = _sample(pid, baseline, approved, runtime_sha256, filters, running)
    except OSError as error:
        if error.errno not in _ENDING:
            raise
        require_start(pid, pid_start)
        raise ProcessGone(f"process {pid} ended while it was read") from None
    require_alive(pid, pid_start)
    return sample


def _sample(
    pid: int, baseline: Baseline, approved: Approved, runtime_sha256: Digest, filters: bool, running: bool
) -> Value:
    root = f"/proc/{pid}"
    inside = [pid] if approved.nested else list(_inside(pid))
    states = {one: found for one in inside if (found := _states(one, pid))}
    threads = states[pid]
    main = threads.get(pid) or next(iter(threads.values()))
    descriptors = descriptors_of(pid, root, baseline)
    allowed = frozenset({runtime_sha256}) if approved.nested else approved.files
    foreign, writable = _foreign(inside, baseline, allowed)
    mounts, masks = _mounts(root, approved)
    rootfs = None if approved.nested else _rootfs(root, approved)
    sample: dict[str, Value] = {
        "version": CONTAINER_VERSION,
        "uid": [int(word) for word in main["Uid"].split()],
        "gid": [int(word) for word in main["Gid"].split()],
        "groups": [int(word) for word in main["Groups"].split()],
        "caps": {name: main[line] for name, line in CAPABILITY_LINES.items()},
        "no_new_privs": int(main["NoNewPrivs"]),
        "seccomp": int(main["Seccomp"]),
        "namespaces": namespaces_of(root, baseline),
        "exe": exe_digest(root, baseline),
        "environment": _environment(states, steering=running and not approved.nested),
        "writable_executable": writable,
        "rlimits": None if approved.nested else rlimits_of(root, _limit_names(approved)),
        "fds": None if approved.nested or running else descriptors.names,
        "tracer": tracer_of({tid: state for found in states.values() for tid, state in found.items()}),
        "config_sha256": descriptors.config,
        "module_sha256": descriptors.module,
        "cgroup": None if approved.runtime == "bubblewrap" else cgroup_of(root),
        "cpus": processors_of(main["Cpus_allowed"]),
        "foreign": foreign,
        "masks": masks,
        "mounts": mounts,
        "processes": _processes(states, main, root, approved),
        "rootfs_sha256": rootfs,
    }
    seen = filters_and_threads(pid, threads, filters) if pid in threads else (None, None)
    sample["filters"], sample["threads"] = seen
    return sample


def _states(pid: int, first: int) -> dict[int, dict[str, str]]:
    """The threads of a process inside; none where it has ended, unless it is the first."""
    try:
        return thread_states(pid)
    except (FileNotFoundError, ProcessLookupError):
        if pid == first:
            raise
        return {}


def _limit_names(approved: Approved) -> list[str]:
    return [name for name in RLIMIT_NUMBERS if name in native_rlimits(approved.config)]


def _inside(first: int) -> Iterator[int]:
    """The first process and its descendants: orphans of a pid namespace become children of its first process."""
    waiting, found = [first], 0
    while waiting:
        pid = waiting.pop()
        found += 1
        if found > MAX_PROCESSES:
            return
        yield pid
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                waiting += [int(word) for word in read_proc(f"/proc/{pid}/task/{thread}/children").split()]
        except (FileNotFoundError, ProcessLookupError):
            continue


def _foreign(inside: list[int], baseline: Baseline, allowed: frozenset[Digest]) -> tuple[Value, Value]:
    """The digests of running files that nobody approved, and how many mappings are writable and executable at once."""
    strange: set[str] = set()
    writable = 0
    for pid in inside:
        try:
            digests, both = executable_files(f"/proc/{pid}", baseline)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended; the first one's end is noticed above
        if not isinstance(digests, list) or not isinstance(both, int):
            if is_ending(pid):
                continue
            return None, None
        writable += both
        strange.update(str(one) for one in digests if one not in allowed)
    listed: list[Value] = [*sorted(strange)[:MAX_FOREIGN]]
    return listed, writable


def _environment(states: Mapping[int, dict[int, dict[str, str]]], *, steering: bool) -> Value:
    """The variables of every process inside, or of those that steer the loader alone; one that two processes have
    otherwise has the digest of both digests."""
    found: dict[str, set[str]] = {}
    for pid, threads in states.items():
        try:
            here = environment_of(spokesman(pid, threads))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if here is None:
            if is_ending(pid):
                continue
            return None
        for name, digest in here.items():
            if not steering or steers_loader(name):
                found.setdefault(name, set()).add(str(digest))
    if len(found) > MAX_VARIABLES:
        return None
    return {name: one.pop() if len(one) == 1 else sha256_hex("".join(sorted(one)).encode())
            for name, one in found.items()}  # fmt: skip


def _rootfs(root: str, approved: Approved) -> Digest | None:
    """Rule 2."""
    try:
        have, want = os.stat(f"{root}/root"), os.stat(approved.folder)
    except PermissionError:
        return None
    return approved.rootfs if (have.st_dev, have.st_ino) == (want.st_dev, want.st_ino) else Digest("")


def _mounts(root: str, approved: Approved) -> tuple[Value, Value]:
    """Every mount as `point kind flags`, and apart from them the hidden and read-only places below /proc."""
    if (listed := mounts_of(root)) is None:
        return None, None
    mounts: list[str] = []
    masks: list[str] = []
    for one in listed:
        kind, flags = one.kind, set(one.flags)
        if one.point.startswith("/proc/"):
            hidden = one.source == "/null" or kind == "tmpfs"
            masks.append(one.point if hidden or "ro" in flags else f"{one.point} writable")
            continue
        if one.point == "/" and not approved.nested:
            is_image = one.source.endswith(f"/{approved.rootfs}")
            kind = f"image:{approved.rootfs}" if is_image else f"{kind}:{one.source}"
        elif one.source != "/":
            kind = f"{kind}:{one.source}"
        elif kind == "tmpfs":
            flags |= {option for option in one.options if option.startswith(_TMPFS)}
        mounts.append(f"{one.point} {kind} {','.join(sorted(flags)) or '-'}")
    return [*sorted(mounts)], [*sorted(set(masks))]


def processors_of(mask: str) -> int:
    """How many processors a mask of /proc allows."""
    return int(mask.replace(",", ""), 16).bit_count()


# The cgroup


def cgroup_of(root: str) -> Value:
    """The group's path, the same in every tree that limits, and its limits; null where a tree says otherwise."""
    paths: dict[str, str] = {}
    for line in read_lines(f"{root}/cgroup"):
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path
    unified = (CGROUPS / "cgroup.controllers").exists()
    memory, cpu, pids = ("", "", "") if unified else ("memory", "cpu", "pids")
    if len({paths.get(name, "?") for name in (memory, cpu, pids)}) != 1:
        return {"path": {name: paths.get(name) for name in ("memory", "cpu", "pids")}}
    path = paths[memory]
    try:
        if unified:
            folder = CGROUPS / path.lstrip("/")
            quota, period = (folder / "cpu.max").read_text("ascii").split()
            limits: dict[str, Value] = {
                "memory": _limit(folder / "memory.max"),
                "cpu": [-1 if quota == "max" else int(quota), int(period)],
                "pids": _limit(folder / "pids.max"),
            }
        else:
            places = {name: CGROUPS / name / path.lstrip("/") for name in ("memory", "cpu", "pids")}
            limits = {
                "memory": _limit(places["memory"] / "memory.limit_in_bytes"),
                "cpu": [_limit(places["cpu"] / "cpu.cfs_quota_us"), _limit(places["cpu"] / "cpu.cfs_period_us")],
                "pids": _limit(places["pids"] / "pids.max"),
            }
    except PermissionError:
        return None
    return {"path": path, **limits}


def limit_files(path: str) -> tuple[str, ...]:
    """The files that hold the limits of a group, by its path below the root of each tree."""
    if (CGROUPS / "cgroup.controllers").exists():
        return tuple(str(CGROUPS / path / name) for name in ("memory.max", "cpu.max", "pids.max"))
    names = (("memory", "memory.limit_in_bytes"), ("cpu", "cpu.cfs_quota_us"), ("cpu", "cpu.cfs_period_us"),
             ("pids", "pids.max"))  # fmt: skip
    return tuple(str(CGROUPS / tree / path / name) for tree, name in names)


def _limit(path: Path) -> int:
    word = path.read_text("ascii").strip()
    value = -1 if word == "max" else int(word)
    return -1 if value >= _UNLIMITED else value


# The processes inside


def _processes(
    states: Mapping[int, Mapping[int, Mapping[str, str]]], main: Mapping[str, str], root: str, approved: Approved
) -> Value:
    """Rule 3."""
    differing: list[str] = []
    first, most = _surroundings(root), native_rlimits(approved.config)
    for pid, threads in states.items():
        try:
            odd = _odd(f"/proc/{pid}", first, {} if approved.nested else most)
        except (FileNotFoundError, ProcessLookupError):
            continue
        for tid, state in sorted(threads.items()):
            names = [name for name in _SAME if state.get(name) != main.get(name)]
            if not _within(state["Cpus_allowed"], main["Cpus_allowed"]):
                names.append("Cpus_allowed")
            if (names or odd) and len(differing) < MAX_FOREIGN and not is_ending(pid):
                differing.append(f"{tid}: {', '.join([*names, *odd])}")
    # gVisor's own threads are bounded by its cgroup; the agent's processes are inside it.
    count = 1 if approved.nested else sum(len(threads) for threads in states.values())
    listed: list[Value] = [*differing]
    return {"count": count, "uniform": False, "differing": listed} if listed else {"count": count, "uniform": True}


def _surroundings(root: str) -> tuple[object, str]:
    return _namespace_ids(root), read_proc(f"{root}/cgroup")


def _odd(root: str, first: tuple[object, str], most: Mapping[str, int]) -> list[str]:
    """What a process inside has otherwise than the first one may have it."""
    namespaces, groups = _surroundings(root)
    found = [name for name, is_same in (("namespaces", namespaces == first[0]), ("cgroup", groups == first[1]))
             if not is_same]  # fmt: skip
    limits = rlimits_of(root, most)
    if isinstance(limits, dict):
        found += [f"rlimits.{name}" for name, both in limits.items() if not _is_at_most(both, most[name])]
    return found


def _is_at_most(both: Value, most: int) -> bool:
    return isinstance(both, list) and all(type(one) is int and 0 <= one <= most for one in both)


def _within(mask: str, other: str) -> bool:
    """Whether every processor of a mask is in the other."""
    return not int(mask.replace(",", ""), 16) & ~int(other.replace(",", ""), 16)


def _namespace_ids(root: str) -> tuple[object, ...] | None:
    try:
        found = [os.stat(f"{root}/ns/{kind}") for kind in ("net", "ipc", "uts", "user", "pid", "mnt", "cgroup")]
    except PermissionError:
        return None
    return tuple((one.st_dev, one.st_ino) for one in found)
