"""The walls of native_walls.py as settings of an OCI configuration, and containers without just these.

A container of runc, crun or gVisor has the product's own configuration, but for what a probe's row takes away; and
instead of the guard, which would refuse to go on, walled.c, which gives each agent the guard's limits and filter.
Probes that need the same container share it, one after the other.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import resource
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from native_walls import ADDRESSES, LIMITS, NETWORK, NONCE, ORDER, SHIMS, USERS, WALLS, Without, make_files

from ironbound.core.container import HYBRID, Place, oci_config
from ironbound.node.native import cgroup
from ironbound.node.native.container import BINARIES
from native_channel import careless, closed_table
from native_stand import filter_without, start, unsealed

TESTS = Path(__file__).resolve().parents[1]
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
        "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
]
SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
DEVICES = ("device-char", "device-block")
"""Probes that the cgroup's list of devices keeps in, behind the capabilities."""
#: In gVisor one more wall each: nothing at all is writable there, and memory belongs to root alone.
NESTED: Mapping[str, dict[str, bool]] = {
    "setuid-file": {"scratch": True},
    "capability-file": {"scratch": True},
    "file-symlink": {"scratch": True},
    "process-own-memory": {"root": True},
    "call-quotactl": {"root": True},
}
FLAGS: Mapping[str, tuple[str, ...]] = {
    "call-io-uring": ("--iouring",),
    "network-raw": ("--net-raw",),
    "network-packet": ("--net-raw",),
}
"""Walls that are options of runsc, beside the network's."""


@dataclass(frozen=True)
class Box:
    """A container without some walls. All false: with every wall but the guard's own and the gateway's."""

    root: bool = False
    """process.user and process.capabilities"""
    privileges: bool = False
    """process.noNewPrivileges"""
    writable: bool = False
    """root.readonly"""
    free: tuple[str, ...] = ()
    """Of linux.resources: `memory`, `pids`, `cpu`, `devices`."""
    shown: bool = False
    """linux.maskedPaths and linux.readonlyPaths"""
    binds: tuple[str, ...] = ()
    """mounts: these files, made for the purpose"""
    made: tuple[str, ...] = ()
    """Files in /proc/sys that this kernel lacks."""
    scratch: bool = False
    """mounts: the size of /tmp, and the number of its files"""
    network: bool = False
    """linux.namespaces: the network's"""
    terminal: bool = False
    """process.terminal"""
    descriptor: bool = False
    seals: bool = False
    gateway: bool = False
    flags: tuple[str, ...] = ()
    share: int = 100
    """Not a wall: the share of a processor that it has."""


def box(runtime: str, name: str, walls: Without) -> Box:
    """The container without these walls of a probe."""
    nested = runtime == "gvisor"
    if nested and walls != Without(size=walls.size):
        walls = replace(walls, **NESTED.get(name, {}))
    of_proc = tuple(one for one in walls.present if one.startswith("/proc/"))
    of_sys = tuple(one for one in of_proc if one.startswith("/proc/sys/"))
    free = [kind for limit, kind in (("as", "memory"), ("nproc", "pids"), ("cpu", "cpu")) if limit in walls.limits]
    return Box(
        root=walls.root or bool(of_proc),
        privileges=walls.bubblewrap,
        writable=walls.read_only,
        free=(*free, *(["devices"] if walls.root and name in DEVICES else [])),
        shown=bool(of_proc),
        binds=tuple(one for one in walls.present if one not in of_proc),
        made=of_sys if nested or not all(map(os.path.exists, of_sys)) else (),
        scratch=walls.scratch,
        network=walls.network,
        terminal=walls.terminal,
        descriptor=walls.descriptor,
        seals=walls.seals,
        gateway=walls.channel is not None,
        flags=FLAGS.get(name, ()) if nested and walls.calls else (),
        share=10 if name == "limit-cpu" else 100,
    )


def configuration(runtime: str, bundle: Path, rootfs: Path, asked: Box) -> dict[str, Any]:
    """The product's own configuration of a container, without these walls."""
    limits = {"max_memory": 512 if runtime == "gvisor" else 64, "max_cpu": asked.share, "max_processes": 64}
    config = {"runtime": {"type": runtime, **limits}, "scratch": {"max_bytes": 256 << 10, "max_files": 256}}
    user = 0 if asked.root else next(USERS)
    place = Place(str(rootfs), str(bundle), user, user, True, f"/ironbound-open-{os.urandom(4).hex()}")
    value: dict[str, Any] = json.loads(oci_config(config, place))
    linux, process = value["linux"], value["process"]
    process["env"] = [f"IRONBOUND_NONCE={NONCE}"]
    process["noNewPrivileges"] = not asked.privileges
    if asked.root:
        more = ["CAP_SYS_RESOURCE"] if runtime == "gvisor" else []
        process["capabilities"] = dict.fromkeys(SETS, [*CAPABILITIES, *more])
    value["root"]["readonly"] = not asked.writable
    for kind in asked.free:
        linux["resources"] |= {kind: [{"access": "rwm", "allow": True}] if kind == "devices" else {}}
    if asked.shown:
        linux |= {"maskedPaths": [], "readonlyPaths": []}
    if asked.scratch:
        value["mounts"][-1]["options"] = ["mode=1777"]
    if asked.network:
        linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "network"]
    if asked.terminal:
        points = {"destination": "/dev/pts", "type": "devpts", "source": "devpts"}
        value["mounts"].append({**points, "options": ["newinstance", "ptmxmode=0666", "mode=0620"]})
    (bundle / "files").mkdir()
    words = make_files(bundle / "files", asked.binds)
    for source, target in zip(words[1::3], words[2::3], strict=True):
        whole = {"type": "bind", "options": ["bind", "rw"]}
        if target == "/dev":
            for file in (one for one in Path(source).rglob("*") if one.is_file()):
                inside = f"/dev/{file.relative_to(source)}"
                value["mounts"].append({**whole, "source": str(file), "destination": inside})
        else:
            value["mounts"].append({**whole, "source": source, "destination": target})
    return value


SETTINGS: Mapping[str, str] = {
    "root": "process.user, process.capabilities",
    "privileges": "process.noNewPrivileges",
    "writable": "root.readonly",
    "memory": "linux.resources.memory",
    "pids": "linux.resources.pids",
    "cpu": "linux.resources.cpu",
    "devices": "linux.resources.devices",
    "shown": "linux.maskedPaths, linux.readonlyPaths",
    "binds": "mounts",
    "scratch": "mounts",
    "network": "linux.namespaces",
    "terminal": "process.terminal",
    "descriptor": "--preserve-fds",
    "seals": "the seals",
    "gateway": "the gateway's closed table",
}
"""What of an OCI configuration, or of what is handed to the runtime, makes the wall. `made` is none: no setting
shows what a host's kernel lacks."""


def settings(runtime: str, name: str) -> tuple[str, ...]:
    """Each wall that a probe's positive control is without, as a setting."""
    walls = WALLS[name]
    asked = box(runtime, name, walls)
    found = [text for field, text in SETTINGS.items() if field in asked.free or getattr(asked, field, False)]
    if asked.network and runtime == "gvisor":
        found.append("--network")
    found += [flag.partition("=")[0] for flag in asked.flags]
    if walls.calls or walls.filter or walls.bubblewrap:
        found.append("seccomp")
    found += [f"RLIMIT_{limit.upper()}" for limit in walls.limits if limit in LIMITS]
    words = [word for text in found for word in text.split(", ")]
    return tuple(dict.fromkeys(words)) or ("Landlock",)


def words_for(name: str, walls: Without) -> Iterable[str]:
    """What walled.c reads: the agent's limits, its filter, and who it is."""
    for limit, value in LIMITS.items():
        if limit not in walls.limits:
            yield from ("limit", str(getattr(resource, f"RLIMIT_{limit.upper()}", 12)), str(value))
    if not (walls.filter or walls.bubblewrap):
        yield from ("filter", filter_without(walls.calls).hex())
    yield from ("probe", name, walls.size)


def reports(
    runtime: str, rootfs: Path, bundle: Path, asked: Box, probes: Mapping[str, Without], *, again: bool = True
) -> dict[str, str]:
    """What each probe says in one container. It has the gateway's closed table, or an open one."""
    bundle.mkdir()
    config = configuration(runtime, bundle, rootfs, asked)
    words = [*(word for path in asked.made for word in ("make", path))]
    words += [word for name in SHIMS if asked.network and runtime == "gvisor" for word in ("listen", name)]
    words += [*(["private"] if asked.root else []), *(["terminal"] if asked.terminal else [])]
    config["process"]["args"] = ["/walled", *words, *(word for row in probes.items() for word in words_for(*row))]
    (bundle / "config.json").write_text(json.dumps(config))
    most = 10 if asked.descriptor else 5
    given = {number: os.open("/dev/null", os.O_RDONLY) for number in range(5, most)}
    if asked.seals:
        given |= {3: unsealed(b"{}"), 4: unsealed(b"{}")}
    command = [BINARIES[runtime], "--root", str(bundle / "state")]
    passed = ["--preserve-fds", str(most - 3)]
    if runtime == "gvisor":
        network = "host" if asked.network else "none"
        command += [f"--network={network}", "--platform=systrap", "--overlay2=none", "--directfs=false", *asked.flags]
        passed = [word for number in range(3, most) for word in ("--pass-fd", f"{number}:{number}")]
    command += ["run", "--bundle", str(bundle), *passed, f"open-{os.urandom(4).hex()}"]
    before = list(HYBRID) if runtime == "crun" and os.path.ismount("/sys/fs/cgroup/unified") else []
    if asked.network:
        before += ["unshare", "--net", "python3", "-I", str(NETWORK), *ADDRESSES, "--", *SHIMS, "--"]
    without = [5] if most == 5 else []
    try:
        with start(b"\n", before=before, command=command, replace=given, without=without) as started:
            (careless if asked.gateway else closed_table)(started.channel)
            said = started.rest().decode("utf-8", "replace")
            status = started.end()
    finally:
        cgroup.empty(config["linux"]["cgroupsPath"])  # a runtime that was killed leaves it behind
    found = {}
    for line in said.splitlines():
        if line.startswith('{"nonce":'):
            found[json.loads(line)["probe"]] = line
    if not said and again:  # killed on a machine that is short of something, and so has shown nothing of any wall
        return reports(runtime, rootfs, bundle.with_name(f"{bundle.name}-again"), asked, probes, again=False)
    assert set(found) == set(probes), (asked, sorted(set(probes) - set(found)), status, said[-500:])
    return found


def every(runtime: str, rootfs: Path, folder: Path, walls: Mapping[str, Without]) -> dict[str, str]:
    """What each of these probes says in a container without its walls; two containers at a time."""
    groups: dict[Box, dict[str, Without]] = {}
    for name in (one for one in ORDER if one in walls):
        groups.setdefault(box(runtime, name, walls[name]), {})[name] = walls[name]
    found: dict[str, str] = {}
    folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        for part in pool.map(
            lambda row: reports(runtime, rootfs, folder / str(row[0]), *row[1]), enumerate(groups.items())
        ):
            found |= part
    return found


def intact(names: Iterable[str]) -> dict[str, Without]:
    """These probes with every wall; those that ask for so much, ask for it here too."""
    return {name: Without(size=WALLS[name].size) for name in names}


@functools.cache
def build_tool() -> Any:
    spec = importlib.util.spec_from_file_location("sdk_build", TESTS.parent / "sdk" / "c" / "build.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def compiled(source: Path, folder: Path) -> Path:
    """A container's first process."""
    program = folder / source.stem
    build_tool().compile_native(source, program, folder / "caches")
    return program
