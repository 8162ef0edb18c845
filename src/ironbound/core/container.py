"""Container runtimes: the exact call that follows from an effective configuration, and what it consumes.

Decides the arguments of bubblewrap and the OCI configuration of runc, crun and gVisor's runsc, from the effective
configuration and the launch's place on the host. It starts nothing: `node/native` seals the bytes in a memory file
and hands them over; the verifier derives them again from the log and compares digests. Follows the OCI runtime
specification 1.0.2, bwrap(1), and the runtimes' own command lines.

Rule 1: nothing writable but /tmp, which is small, without programs and gone at the end; bubblewrap and gVisor, which
        can't bound the number of files there, have nothing writable at all.
Rule 2: no network, no capability, no new privilege, no device beyond five that hold no state.
Rule 3: the first process is the guard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError, Value, canonical, parse_digest, sha256_hex
from ironbound.core.native import GUARD_PATH, is_manifest, parse_manifest, plan
from ironbound.core.profile import WHOLE_CORE

OCI_RUNTIMES: Final = ("runc", "crun", "gvisor")
DEVICES: Final = ("full", "null", "random", "urandom", "zero")
SENTRY_PROCESSES: Final = 512
"""Host threads that gVisor's own kernel may have; the agent's processes are bounded inside it."""
CPU_PERIOD_US: Final = 100_000
MIB: Final = 1024 * 1024
DEV_BYTES: Final = 65_536

MASKED: Final = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
)  # fmt: skip
"""Hidden in runc and crun; a host has some of them."""
READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_CAPABILITY_SETS: Final = ("ambient", "bounding", "effective", "inheritable", "permitted")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_NAMESPACES: Final = ("cgroup", "ipc", "mount", "network", "pid", "uts")


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as whom one launch runs: host paths of root file system and cell folder, user, group, whether those
    are the sandbox's own, and the cgroup's path (empty where the runtime has none)."""

    rootfs: str
    cell: str
    uid: int
    gid: int
    separated: bool
    cgroup: str

    def as_value(self) -> dict[str, Value]:
        return {
            "cell": self.cell,
            "cgroup": self.cgroup,
            "gid": self.gid,
            "rootfs": self.rootfs,
            "separated": self.separated,
            "uid": self.uid,
        }


def place_from(value: Value) -> Place:
    """The place in an envelope. Raises FormatError."""
    if not isinstance(value, dict) or value.keys() != {"cell", "cgroup", "gid", "rootfs", "separated", "uid"}:
        raise FormatError("envelope-invalid", "place: expected cell, cgroup, gid, rootfs, separated and uid")
    texts = [value[name] for name in ("rootfs", "cell", "cgroup")]
    ids = [value[name] for name in ("uid", "gid")]
    if not all(isinstance(one, str) and len(one) <= 4096 for one in texts) or not all(type(one) is int for one in ids):
        raise FormatError("envelope-invalid", "place: expected paths and ids")
    separated = value["separated"]
    if type(separated) is not bool:
        raise FormatError("envelope-invalid", "place: expected separated as true or false")
    return Place(str(texts[0]), str(texts[1]), int(str(ids[0])), int(str(ids[1])), separated, str(texts[2]))


def bubblewrap_arguments(place: Place) -> bytes:
    """What bwrap reads from its --args descriptor: words, each ended by a zero byte."""
    words = ["--unshare-all", "--unshare-user", "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--as-pid-1",
             "--hostname", "sandbox", "--clearenv", "--ro-bind", place.rootfs, "/", "--proc", "/proc",
             "--tmpfs", "/dev"]  # fmt: skip
    for device in DEVICES:
        words += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    words += ["--remount-ro", "/dev", "--chdir", "/"]
    return b"".join(word.encode() + b"\0" for word in words)


def oci_config(config: Mapping[str, Any], place: Place) -> bytes:
    """The config.json that runc, crun or runsc reads."""
    runtime, scratch = config["runtime"], config["scratch"]
    nested = runtime["type"] == "gvisor"
    memory = runtime["max_memory"] * MIB
    # gVisor's own kernel is in the same group as the agent: what it needs itself comes on top.
    processes = SENTRY_PROCESSES if nested else runtime["max_processes"]
    linux: dict[str, Value] = {
        "namespaces": [{"type": kind} for kind in _NAMESPACES if not (nested and kind == "cgroup")],
        "cgroupsPath": place.cgroup,
        "resources": {
            "devices": [{"access": "rwm", "allow": False}],
            "memory": {"limit": memory, "swap": memory},
            "cpu": {"period": CPU_PERIOD_US, "quota": runtime["max_cpu"] * CPU_PERIOD_US // 100},
            "pids": {"limit": processes},
        },
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READ_ONLY),
    }
    own = f"mode=700,uid={place.uid},gid={place.gid},size={scratch['max_bytes']},nr_inodes={scratch['max_files']}"
    if nested:  # it would put a writable one there by itself
        own = "ro"
    value: Value = {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "process": {
            "terminal": False,
            "user": {"uid": place.uid, "gid": place.gid},
            "args": [f"/{GUARD_PATH}"],
            "env": [],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": {name: [] for name in _CAPABILITY_SETS},
        },
        "root": {"path": place.rootfs, "readonly": True},
        "mounts": [
            _mount("/proc", "proc", "nosuid,noexec,nodev"),
            _mount("/dev", "tmpfs", f"nosuid,noexec,mode=755,size={DEV_BYTES}"),
            _mount("/tmp", "tmpfs", f"nosuid,noexec,nodev,{own}"),
        ],
        "linux": linux,
    }
    return canonical(value)


def _mount(destination: str, kind: str, options: str) -> Value:
    return {"destination": destination, "type": kind, "source": kind, "options": [*options.split(",")]}


def arguments(config: Mapping[str, Any], place: Place) -> bytes:
    """What the runtime itself consumes: bwrap's words, or an OCI config.json."""
    if config["runtime"]["type"] == "bubblewrap":
        return bubblewrap_arguments(place)
    return oci_config(config, place)


SETPRIV: Final = ("/usr/bin/setpriv", "--pdeathsig", "KILL")
"""Before bubblewrap: it dies with the node, and as root it becomes the sandbox's user."""
TASKSET: Final = ("/usr/bin/taskset", "--cpu-list")
STARTERS: Final = (SETPRIV[0], TASKSET[0])
"""The programs that start bubblewrap."""
HYBRID: Final = (
    "/usr/bin/unshare", "--mount", "/bin/sh", "-c", 'umount /sys/fs/cgroup/unified && exec "$0" "$@"',
)  # fmt: skip
"""Before crun on a host with both kinds of cgroups: it takes the empty second kind for the only one."""


def command(config: Mapping[str, Any], binary: str, place: Place, cores: str) -> list[str]:
    """The runtime's whole command line, but for HYBRID. Descriptor 6 holds the arguments, 7 is where bwrap says its
    child.

    `cores` is the list of processors for bubblewrap, which has no other way to bound computing time.
    """
    runtime = config["runtime"]["type"]
    if runtime == "bubblewrap":
        return [*SETPRIV, *_ids(place), *TASKSET, cores, binary, "--args", "6",
                "--json-status-fd", "7", "--", f"/{GUARD_PATH}"]  # fmt: skip
    folder, state = place.cell, f"{place.cell}/state"
    run = ["run", "--detach", "--bundle", folder, "--pid-file", f"{folder}/pid"]
    name = folder.rpartition("/")[2]
    if runtime == "gvisor":
        passed = [word for number in ("3:3", "4:4", "5:5") for word in ("--pass-fd", number)]
        return [binary, "--root", state, "--network=none", "--platform=systrap", "--oci-seccomp", "--host-uds=none",
                "--overlay2=none", "--directfs=false", *run, *passed, name]  # fmt: skip
    return [binary, "--root", state, *run, "--preserve-fds", "3", name]


def _ids(place: Place) -> list[str]:
    """As root the sandbox's own user and group, and no other group."""
    return [] if not place.separated else ["--reuid", str(place.uid), "--regid", str(place.gid), "--clear-groups"]


def envelope(
    config: Mapping[str, Any],
    module: bytes,
    nonce: str | None,
    place: Place,
    *,
    argv: list[str],
    runtime_sha256: Digest,
    guard_sha256: Digest,
) -> dict[str, Value]:
    """The launch envelope: the exact call, with the digest of everything that is handed over by descriptor."""
    manifest = parse_manifest(module)
    return {
        "version": 1,
        "runtime": config["runtime"]["type"],
        "runtime_sha256": runtime_sha256,
        "guard_sha256": guard_sha256,
        "rootfs_sha256": manifest.rootfs,
        "argv": [*argv],
        "fds": {
            "3": sha256_hex(canonical(dict(config))),
            "4": sha256_hex(module),
            "5": sha256_hex(plan(config, manifest, nonce)),
            "6": sha256_hex(arguments(config, place)),
        },
        "place": place.as_value(),
    }


def require_envelope(value: Value, config: Mapping[str, Any], module: bytes, nonce: str | None) -> None:
    """Raises FormatError unless the envelope is the one call that follows from configuration, module and place.

    What the host adds (paths, user, processors, the runtime's and the guard's digests) is taken from the envelope,
    where it has the right form: bubblewrap's processors are no more than those that the configuration gives it.
    """
    if not isinstance(value, dict) or not is_manifest(module):
        raise FormatError("envelope-invalid", "expected the envelope of a native agent")
    place, argv = place_from(value.get("place")), value.get("argv")
    runtime_sha256, guard_sha256 = value.get("runtime_sha256"), value.get("guard_sha256")
    if not isinstance(argv, list) or not isinstance(runtime_sha256, str) or not isinstance(guard_sha256, str):
        raise FormatError("envelope-invalid", "expected argv and digests")
    for digest in (runtime_sha256, guard_sha256):
        parse_digest(digest)
    words = [word for word in argv if isinstance(word, str)]
    if len(words) != len(argv):
        raise FormatError("envelope-invalid", "argv: expected words")
    before = list(HYBRID) if words[: len(HYBRID)] == list(HYBRID) and config["runtime"]["type"] == "crun" else []
    binary, cores = words[len(before)] if len(words) > len(before) else "", ""
    if config["runtime"]["type"] == "bubblewrap":
        at = len(SETPRIV) + len(_ids(place)) + 2
        cores, binary = words[at : at + 2] if len(words) >= at + 2 else ("", "")
        _require_cores(cores, config["runtime"]["max_cpu"] // WHOLE_CORE)
    if not binary.startswith("/"):
        raise FormatError("envelope-invalid", "argv: expected the runtime's absolute path")
    expected = envelope(
        config,
        module,
        nonce,
        place,
        argv=before + command(config, binary, place, cores),
        runtime_sha256=Digest(runtime_sha256),
        guard_sha256=Digest(guard_sha256),
    )
    for name in sorted({*expected, *value}):
        # By their bytes: Python takes 1 for true, and null for what is not there.
        if name not in expected or name not in value or canonical(expected[name]) != canonical(value[name]):
            raise FormatError("envelope-differs", f"{name[:80]}: not what the approved configuration demands")


def _require_cores(cores: str, most: int) -> None:
    """Different processors, each as a plain number, and at most so many."""
    numbers = cores.split(",")
    if any(_NUMBER.fullmatch(one) is None for one in numbers) or len({*numbers}) != len(numbers):
        raise FormatError("envelope-invalid", "argv: expected a list of processors")
    if len(numbers) > most:
        raise FormatError("envelope-differs", f"argv: {len(numbers)} processors, the configuration gives {most}")
