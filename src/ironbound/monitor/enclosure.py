"""One sample of one live hypervisor, in the shape of an enclosure (version 3, `core/enclosure.py`).

Decides what can be seen of a virtual machine from outside: QEMU's process, its mounts, its cgroup, and the sealed
memory files that it reads, by digest. Nothing of the guest. Writes null for what can't be seen, and judges nothing.
Follows proc(5), mount_namespaces(7), cgroups(7).

Rule 1: a sample belongs to one process (see `observe`).
"""

from __future__ import annotations

import os
from typing import Final

from ironbound.core.canonical import Value
from ironbound.core.enclosure import ENCLOSURE_VERSION, SYSTEM

from .container import cgroup_of, processors_of
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
    require_start,
    rlimits_of,
    thread_states,
    tracer_of,
)
from .proc import read_proc

_ANONYMOUS: Final = "anon_inode:"
"""QEMU's own event loop: events, signals, timers, and the kernel's side of a guest."""


def observe_enclosure(
    pid: int, pid_start: int, baseline: Baseline, limits: tuple[str, ...], *, filters: bool
) -> Value:
    """A sample of the hypervisor `pid`, started at `pid_start`, with these limits, and with `filters` its own ones too,
    for which each thread is stopped. Raises ProcessGone."""
    require_start(pid, pid_start)
    try:
        sample = _sample(pid, baseline, limits, filters)
    except (FileNotFoundError, ProcessLookupError):
        require_start(pid, pid_start)
        raise ProcessGone(f"process {pid} ended while it was read") from None
    require_start(pid, pid_start)
    return sample


def _sample(pid: int, baseline: Baseline, limits: tuple[str, ...], filters: bool) -> Value:
    threads, root = thread_states(pid), f"/proc/{pid}"
    main = threads[pid]
    descriptors = descriptors_of(pid, root, baseline)
    names = descriptors.names
    mappings, writable = executable_files(root, baseline)
    fds: Value = None
    if names is not None:
        fds = {number: name for number, name in names.items() if not _is_own(name)}
    sample: dict[str, Value] = {
        "version": ENCLOSURE_VERSION,
        "uid": [int(word) for word in main["Uid"].split()],
        "gid": [int(word) for word in main["Gid"].split()],
        "groups": [*sorted(int(word) for word in main["Groups"].split())],
        "caps": {name: main[line] for name, line in CAPABILITY_LINES.items()},
        "no_new_privs": int(main["NoNewPrivs"]),
        "seccomp": int(main["Seccomp"]),
        "namespaces": namespaces_of(root, baseline),
        "exe": exe_digest(root, baseline),
        "environment": environment_of(pid),
        "mappings": mappings,
        "writable_executable": writable,
        "rlimits": rlimits_of(root, limits),
        "fds": fds,
        "files": None if names is None else dict(descriptors.files),
        "tracer": tracer_of(threads),
        "cgroup": cgroup_of(root),
        "cpus": processors_of(main["Cpus_allowed"]),
        "mounts": _mounts(root),
        "processes": {"count": _processes(pid)},
        "config_sha256": None,
        "module_sha256": None,
    }
    sample["filters"], sample["threads"] = filters_and_threads(pid, threads, filters)
    return sample


def _is_own(name: Value) -> bool:
    return isinstance(name, str) and (name.startswith(_ANONYMOUS) or name == "/dev/kvm")


def _processes(pid: int) -> int:
    """The process and its children."""
    count = 1
    for thread in os.listdir(f"/proc/{pid}/task"):
        count += len(read_proc(f"/proc/{pid}/task/{thread}/children").split())
    return count


def _mounts(root: str) -> Value:
    """Every mount as `point kind flags`; what is the host's own is told by its place, whatever file system it has."""
    if (listed := mounts_of(root)) is None:
        return None
    found: list[Value] = []
    for one in listed:
        kind, flags = one.kind, ",".join(sorted(one.flags)) or "-"
        if one.point.startswith("/dev/"):
            is_own = one.source == one.point.removeprefix("/dev")
            kind, flags = ("device", "-") if is_own else (f"{kind}:{one.source}", flags)
        elif one.point[1:] in SYSTEM and one.source.endswith(one.point):
            kind = "host"
        elif one.source != "/":
            kind = f"{kind}:{one.source}"
        found.append(f"{one.point} {kind} {flags}")
    found.sort(key=str)
    return found
