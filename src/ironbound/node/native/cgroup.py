"""The cgroups of this node's containers: which limits the host can enforce, who is in one, and its end.

Decides nothing about a launch. Both kinds of hierarchy are known: version 2 (one tree), and version 1 or hybrid (a
tree for each controller). Follows cgroups(7), the kernel's cgroup-v1 and cgroup-v2 documents.

Rule 1: a group is emptied by SIGKILL through pidfds until nobody is in it, and only then removed.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from ironbound.node.processes import kill as kill_by

ROOT: Final = Path("/sys/fs/cgroup")
#: Which controller holds an agent to which setting.
CONTROLLERS: Final = {"memory": "max_memory", "cpu": "max_cpu", "pids": "max_processes"}
EMPTY_S: Final = 5.0


def is_unified() -> bool:
    """Whether the host has the one tree of version 2."""
    return (ROOT / "cgroup.controllers").exists()


def missing() -> tuple[str, str] | None:
    """The first setting of `[agent.runtime]` that no controller of this host holds an agent to, with the reason."""
    if is_unified():
        have = (ROOT / "cgroup.controllers").read_text("ascii").split()
        absent = [name for name in CONTROLLERS if name not in have]
    else:
        absent = [name for name in CONTROLLERS if not (ROOT / name).is_dir()]
    return (CONTROLLERS[absent[0]], f"the host has no cgroup controller {absent[0]}") if absent else None


def folders(path: str) -> list[Path]:
    """The group's directories, one for each tree."""
    if is_unified():
        return [ROOT / path.lstrip("/")]
    return [one / path.lstrip("/") for one in sorted(ROOT.iterdir()) if one.is_dir() and not one.is_symlink()]


def members(path: str) -> set[int]:
    """Everybody in the group or below it."""
    found: set[int] = set()
    for folder in folders(path):
        for below, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                found.update(int(one) for one in (Path(below) / "cgroup.procs").read_text("ascii").split())
    return found


def empty(path: str) -> None:
    """Kill everybody in the group until nobody is left (5 s at most), then remove it."""
    deadline = time.monotonic() + EMPTY_S
    while (left := members(path)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, OSError):
                descriptor = os.pidfd_open(pid)
                try:
                    if pid in members(path):  # the number may have passed to another between the two looks
                        kill_by(descriptor)
                finally:
                    os.close(descriptor)
        time.sleep(0.002)
    for folder in folders(path):
        for below, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(below)


def memory_ran_out(path: str) -> bool:
    """Whether the kernel killed somebody in the group because its memory was used up."""
    name, field = ("memory.events", "oom_kill") if is_unified() else ("memory.oom_control", "oom_kill")
    folder = (ROOT if is_unified() else ROOT / "memory") / path.lstrip("/")
    try:
        lines = (folder / name).read_text("ascii").splitlines()
    except OSError:
        return False
    return any(line.split()[0] == field and int(line.split()[1]) > 0 for line in lines if len(line.split()) == 2)
