"""Firecracker: what its jailer and its API are told, purely from an effective configuration.

Decides the jailer's arguments, the requests in their order and bodies, and where the files lie in the jail. It starts
nothing; `node/microvm/firecracker.py` does. Follows Firecracker's OpenAPI description and its "The Firecracker Jailer".

Rule 1: a machine has processors, memory, a kernel, a RAM disk and one vsock device, and nothing else: no network, no
        disk, no metadata service, no balloon, no snapshot.
Rule 2: nothing that weakens is ever said: no request or argument turns Firecracker's own filters off.
Rule 3: the paths in a request are the jail's; no value of a profile but a number gets into a request or argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ironbound.core.canonical import FormatError, Value, canonical
from ironbound.core.microvm import FIRECRACKER, MIB, PORTS, WHOLE_CORE, kernel_arguments

BINARY: Final = "firecracker"
JAILER: Final = "jailer"
KERNEL: Final = "vmlinux"
INITRD: Final = "initrd"
API_SOCKET: Final = "api.socket"
VSOCK: Final = "v.sock"
"""Names in the jail's root. A connection of the guest's to port N of the host arrives at `v.sock_N`."""
GUEST: Final = 3
"""The guest's vsock address, the least there is."""
MAX_PROCESSORS: Final = 32
OVERHEAD: Final = 64
"""MiB that Firecracker itself may take beside the guest's memory."""
THREADS: Final = 8
"""Threads of Firecracker beside the guest's processors: the API's and the machine's own, with room."""
OPEN_FILES: Final = 64
FILE_SIZE: Final = 4096
"""Bytes that Firecracker can write into a file: the jailer's pid file has to fit."""
MAX_PATH: Final = 512

_ID: Final = re.compile(r"[0-9a-z-]{1,64}")
_PATH: Final = re.compile(r"/[\x21-\x7e]+")
_PARENT: Final = re.compile(r"[0-9A-Za-z_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Request:
    """One request to Firecracker's API; each is answered by 204 or is a failure."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Jail:
    """Where a machine's jail is, and as whom Firecracker runs in it. `unified`: the host has cgroups of version 2."""

    jailer: str
    binary: str
    base: str
    name: str
    uid: int
    gid: int
    parent: str
    unified: bool


def listening(port: str) -> str:
    """The name in the jail's root of the socket at which a port of the guest's (`channel` …) arrives."""
    return f"{VSOCK}_{PORTS[port]}"


def processors(config: Mapping[str, Any]) -> int:
    """The guest's processors: as many as its share of computing time can keep busy, 1 or an even number."""
    wanted = -(-int(config["runtime"]["max_cpu"]) // WHOLE_CORE)
    return 1 if wanted <= 1 else wanted + wanted % 2


def unenforced(config: Mapping[str, Any]) -> str | None:
    """The setting that no host can hold a machine of this configuration to, with the reason."""
    if processors(config) > MAX_PROCESSORS:
        return f"runtime.max_cpu: Firecracker has at most {MAX_PROCESSORS} processors"
    return None


def requests(config: Mapping[str, Any]) -> tuple[Request, ...]:
    """All that is sent, in order; the last one starts the machine. FormatError where it can't be said."""
    if (setting := unenforced(config)) is not None:
        raise FormatError("config-invalid", setting)
    bodies: tuple[tuple[str, dict[str, Value]], ...] = (
        (
            "/machine-config",
            {
                "vcpu_count": processors(config),
                "mem_size_mib": int(config["runtime"]["max_memory"]),
                "smt": False,
                "track_dirty_pages": False,
            },
        ),
        (
            "/boot-source",
            {
                "kernel_image_path": f"/{KERNEL}",
                "initrd_path": f"/{INITRD}",
                "boot_args": kernel_arguments(FIRECRACKER),
            },
        ),
        ("/vsock", {"guest_cid": GUEST, "uds_path": f"/{VSOCK}"}),
        ("/actions", {"action_type": "InstanceStart"}),
    )
    return tuple(Request("PUT", path, canonical(body)) for path, body in bodies)


def group_limits(config: Mapping[str, Any]) -> dict[str, int]:
    """Firecracker's cgroup: bytes of memory, percent of one core, tasks."""
    return {
        "memory": (config["runtime"]["max_memory"] + OVERHEAD) * MIB,
        "cpu": config["runtime"]["max_cpu"],
        "pids": THREADS + processors(config),
    }


def _groups(limits: Mapping[str, int], unified: bool) -> tuple[str, ...]:
    memory, share, pids = limits["memory"], limits["cpu"] * 1000, limits["pids"]
    if unified:
        return (f"memory.max={memory}", "memory.swap.max=0", f"cpu.max={share} 100000", f"pids.max={pids}")
    return (
        f"memory.limit_in_bytes={memory}",
        "cpu.cfs_period_us=100000",
        f"cpu.cfs_quota_us={share}",
        f"pids.max={pids}",
    )


def jailer_argv(config: Mapping[str, Any], jail: Jail) -> tuple[str, ...]:
    """The jailer's arguments: a root, a pid namespace, a user, a cgroup and limits of the machine's own. FormatError
    where a name or a path can't be an argument.

    The jailer copies the binary into the jail, makes /dev/kvm there, and becomes Firecracker without any right.
    """
    paths = (jail.jailer, jail.binary, jail.base)
    if any(len(path) > MAX_PATH or _PATH.fullmatch(path) is None for path in paths):
        raise FormatError("jail-invalid", "expected absolute paths without spaces")
    # The jailer itself refuses a binary of another name, and nobody is root.
    if BINARY not in jail.binary.rpartition("/")[2] or min(jail.uid, jail.gid) < 1:
        raise FormatError("jail-invalid", f"expected a binary named {BINARY} and the ids of no root")
    if _ID.fullmatch(jail.name) is None or _PARENT.fullmatch(jail.parent) is None or jail.parent.startswith("."):
        raise FormatError("jail-invalid", "expected a name of a to z, digits and hyphens")
    arguments = [jail.jailer, "--id", jail.name, "--exec-file", jail.binary]
    arguments += ["--uid", str(jail.uid), "--gid", str(jail.gid), "--chroot-base-dir", jail.base, "--new-pid-ns"]
    arguments += ["--cgroup-version", "2" if jail.unified else "1", "--parent-cgroup", jail.parent]
    for setting in _groups(group_limits(config), jail.unified):
        arguments += ["--cgroup", setting]
    arguments += ["--resource-limit", f"fsize={FILE_SIZE}", "--resource-limit", f"no-file={OPEN_FILES}"]
    return (*arguments, "--", "--api-sock", f"/{API_SOCKET}")


def jail_root(jail: Jail) -> str:
    """The folder that the jailer makes the root of everything that Firecracker sees."""
    return f"{jail.base}/{jail.binary.rpartition('/')[2]}/{jail.name}/root"


def pid_file(jail: Jail) -> str:
    """The file in the jail's root in which the jailer says Firecracker's pid."""
    return f"{jail.binary.rpartition('/')[2]}.pid"
