"""The cgroup of a hypervisor: memory, computing time and tasks, made before it starts and removed after its end.

Decides which limits a host can hold a hypervisor to: all three where the node is root, none where it isn't. Follows
cgroups(7), the kernel's cgroup-v1 and cgroup-v2 documents.

Rule 1: a limit that the kernel doesn't take, or tells otherwise afterwards, is an error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ironbound.node.native import cgroup

PERIOD_US: Final = 100_000
PERCENT: Final = 100


def available() -> bool:
    """Whether this node can make cgroups with every limit."""
    return os.getuid() == 0 and cgroup.missing() is None


def _write(folder: Path, name: str, value: int | str) -> None:
    (folder / name).write_text(str(value), encoding="ascii")
    told = (folder / name).read_text("ascii").split()
    if told != str(value).split():
        raise OSError(f"{folder / name}: expected {value}, the kernel tells {' '.join(told)}")


def create(path: str, limits: Mapping[str, int]) -> list[str]:
    """The group's folders, in which a process has to be written into `cgroup.procs`. `limits` are those of
    `core.microvm.group_limits`. OSError; one that is there already is somebody else's, and is left as it is."""
    made: list[Path] = []
    try:
        return _create(path, limits, made)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _create(path: str, limits: Mapping[str, int], made: list[Path]) -> list[str]:
    quota = limits["cpu"] * PERIOD_US // PERCENT
    if cgroup.is_unified():
        folder = cgroup.folders(path)[0]
        folder.parent.mkdir(mode=0o755, exist_ok=True)
        for level in (cgroup.ROOT, folder.parent):
            (level / "cgroup.subtree_control").write_text("+memory +cpu +pids", encoding="ascii")
        folder.mkdir(mode=0o755)
        made.append(folder)
        _write(folder, "memory.max", limits["memory"])
        _write(folder, "cpu.max", f"{quota} {PERIOD_US}")
        _write(folder, "pids.max", limits["pids"])
        return [str(folder)]
    folders = {name: cgroup.ROOT / name / path.lstrip("/") for name in cgroup.CONTROLLERS}
    for folder in folders.values():
        folder.mkdir(parents=True, mode=0o755)
        made.append(folder)
    _write(folders["memory"], "memory.limit_in_bytes", limits["memory"])
    _write(folders["cpu"], "cpu.cfs_period_us", PERIOD_US)
    _write(folders["cpu"], "cpu.cfs_quota_us", quota)
    _write(folders["pids"], "pids.max", limits["pids"])
    return [str(folder) for folder in folders.values()]


def remove(path: str) -> None:
    """Whoever is still in it is killed; nothing where there is no group."""
    if path:
        cgroup.empty(path)
