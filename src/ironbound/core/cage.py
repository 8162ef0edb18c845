"""Cages: what the sandbox of any runtime must look like from outside, and how a sample differs from it.

Decides the expected posture of containers (version 2), and hands Wasm workers' to `posture` and virtual machines' to
`enclosure`. What can't be seen from
outside (a Landlock domain, everything inside gVisor) is in no posture: the guard's probes, made inside before the
agent runs, are the evidence for it, and `INSIDE` names it. It looks at nothing.

A container is looked at twice as strictly while it is held as later: held, every descriptor, program and limit is
exactly known; running, the agent may open files, start programs of its image and close descriptors.

Rule 1: null in an expectation means that this runtime doesn't let anybody outside see it; nothing else is left out.
Rule 2: null in a sample where something is expected is NOT_SEEN, never equal.
Rule 3: a mount is expected with its point, kind and flags; more flags are stricter, another mount is a difference.
Rule 4: a held container has no variable but the runtime's own. Later no process in it has one that steers the loader
        but an approved one, with the approved value. Other variables an agent may set for its programs as it likes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError, Value, canonical, parse_digest, sha256_hex
from ironbound.core.container import CPU_PERIOD_US, DEV_BYTES, DEVICES, MASKED, MIB, READ_ONLY, SENTRY_PROCESSES
from ironbound.core.enclosure import ENCLOSURE_VERSION, compare_enclosure, expected_enclosure
from ironbound.core.jailed import expected_jailed
from ironbound.core.limits import native_rlimits
from ironbound.core.microvm import FIRECRACKER
from ironbound.core.posture import (
    CAPABILITY_SETS,
    FIELDS,
    NAMESPACES,
    NO_CAPABILITIES,
    NOT_SEEN,
    SECCOMP_FILTER,
    Difference,
    compare,
    compare_postures,
    expected_posture,
    require_posture,
)
from ironbound.core.profile import NATIVE, WASM, family_of
from ironbound.core.seccomp import filter_digest, native_filter

CONTAINER_VERSION: Final = 2
CONTAINER_FIELDS: Final = (
    *(name for name in FIELDS if name != "mappings"),
    "cgroup",
    "cpus",
    "foreign",
    "masks",
    "mounts",
    "processes",
    "rootfs_sha256",
)
HELD_ENVIRONMENT: Final[Mapping[str, tuple[str, ...]]] = {"bubblewrap": ("PWD=/",), "runc": ("HOME=/",),
                                                         "crun": ("HOME=/",)}  # fmt: skip
"""What a runtime adds for the first process. The guard hands none of it on."""
RUNNING_FREE: Final = frozenset({"exe", "fds", "threads", "config_sha256", "module_sha256"})
"""What an agent changes lawfully once it runs; the digests of descriptors that it closed are then absent."""

HELD_DESCRIPTORS: Final[Mapping[str, str]] = {
    "0": "socket",
    "1": "socket",
    "2": "socket",
    "3": "memfd:config:sealed",
    "4": "memfd:module:sealed",
    "5": "memfd:plan:sealed",
}
"""Every descriptor of a held container's first process."""

SENTRY_USER: Final = 65534
"""The user that gVisor's kernel becomes."""

INSIDE: Final[Mapping[str, tuple[str, ...]]] = {
    "wasmtime": ("Landlock domain",),
    "bubblewrap": ("Landlock domain",),
    "runc": ("Landlock domain",),
    "crun": ("Landlock domain",),
    "gvisor": ("the agent's user, capabilities, filter, limits, descriptors, environment, mounts and processes",),
    "qemu-microvm": ("everything of the guest",),
    "firecracker": ("everything of the guest",),
}
"""What nobody can see from outside: proved by the sandbox's own probes before the release."""

_FACTS: Final = frozenset({"uid", "gid", "module_sha256", "config_sha256", "filters_visible", "guard", "runtime_sha256",
                           "rootfs_sha256", "cgroup", "masks", "variables"})  # fmt: skip
_OPTIONAL: Final = frozenset({"groups", "bounding"})
_CGROUP: Final = re.compile(r"(/[A-Za-z0-9._-]{1,128}){2}")


def expected_cage(config: Value, facts: Value) -> Value:
    """The posture of a held sandbox that consumed `config` on a host with these facts. Raises FormatError.

    For Wasm the facts of `expected_posture`. For containers: uid, gid, module_sha256, config_sha256, filters_visible,
    guard and runtime_sha256 (digests of the two programs), rootfs_sha256, cgroup (its path, or ''), masks (the paths
    of MASKED and READ_ONLY that the host has), variables (the agent's whole environment); optionally groups, for an
    ordinary user.
    """
    if not isinstance(config, dict):
        raise FormatError("config-invalid", "expected an object")
    if family_of(config) == WASM:
        return expected_posture(config, facts)
    if family_of(config) == NATIVE:
        return _container(config, _checked(config, facts))
    if _runtime(config) == FIRECRACKER:
        return expected_jailed(config, facts)
    return expected_enclosure(config, facts)


def _runtime(config: Mapping[str, Any]) -> str:
    return str(config["runtime"]["type"])


def _checked(config: Mapping[str, Any], facts: Value) -> dict[str, Any]:
    if not isinstance(facts, dict) or not _FACTS <= facts.keys() <= _FACTS | _OPTIONAL:
        raise FormatError("facts-invalid", "missing or unknown facts of a container")
    given: dict[str, Any] = dict(facts)
    if given["config_sha256"] != sha256_hex(canonical(dict(config))):
        raise FormatError("facts-invalid", "config_sha256: not the configuration's")
    for name in ("module_sha256", "guard", "runtime_sha256", "rootfs_sha256"):
        parse_digest(str(given[name]))
    if any(type(given[name]) is not int or given[name] < 0 for name in ("uid", "gid")):
        raise FormatError("facts-invalid", "uid, gid: expected ids")
    bare = config["runtime"]["type"] == "bubblewrap"
    if not isinstance(given["cgroup"], str) or bool(given["cgroup"]) == bare:
        raise FormatError("facts-invalid", "cgroup: expected a path, or '' for bubblewrap")
    if given["cgroup"] and _CGROUP.fullmatch(given["cgroup"]) is None:
        raise FormatError("facts-invalid", "cgroup: expected the deployment's folder and the launch")
    allowed = [*MASKED, *READ_ONLY] if config["runtime"]["type"] in ("runc", "crun") else []
    if not isinstance(given["masks"], list) or any(one not in allowed for one in given["masks"]):
        raise FormatError("facts-invalid", "masks: expected paths that are to be hidden")
    variables = given["variables"]
    if not isinstance(variables, list) or any(not isinstance(one, str) or "=" not in one for one in variables):
        raise FormatError("facts-invalid", "variables: expected NAME=VALUE")
    groups = given.get("groups", [])
    if (
        type(given["filters_visible"]) is not bool
        or not isinstance(groups, list)
        or not all(type(one) is int for one in groups)
    ):
        raise FormatError("facts-invalid", "filters_visible, groups: expected a truth value and ids")
    return given


def _namespaces(runtime: str) -> dict[str, Value]:
    shared = {"runc": ("user",), "crun": ("user",), "gvisor": ("pid", "cgroup")}.get(runtime, ())
    return {kind: "shared" if kind in shared else "private" for kind in NAMESPACES}


def _mounts(config: Mapping[str, Any], rootfs: Digest) -> list[Value]:
    runtime, scratch = config["runtime"]["type"], config["scratch"]
    if runtime == "gvisor":
        return [f"/ {_SENTRY_ROOT} ro"]
    found: list[Value] = [f"/ image:{rootfs} ro", "/proc proc nodev,noexec,nosuid"]
    if runtime == "bubblewrap":
        found += ["/dev tmpfs nosuid,ro", *(f"/dev/{name} devtmpfs:/{name} nosuid" for name in DEVICES)]
    else:
        size, files = _kib(scratch["max_bytes"]), scratch["max_files"]
        found += [f"/dev tmpfs noexec,nosuid,size={_kib(DEV_BYTES)}",
                  f"/tmp tmpfs nodev,noexec,nosuid,nr_inodes={files},size={size}"]  # fmt: skip
    return sorted(found, key=str)


def _digests(variables: Sequence[str]) -> dict[str, Value]:
    return {one.partition("=")[0]: sha256_hex(one.encode()) for one in variables}


_SENTRY_ROOT: Final = "tmpfs"


def _kib(size: int) -> str:
    """Bytes as tmpfs tells its size: whole pages, in KiB."""
    return f"{-(-size // 4096) * 4}k"


def _container(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Value]:
    runtime, limits = config["runtime"]["type"], config["runtime"]
    nested = runtime == "gvisor"
    filters: Value = [filter_digest(native_filter())] if facts["filters_visible"] and not nested else None
    rlimits: Value = None if nested else {name: [value, value] for name, value in native_rlimits(config).items()}
    cgroup: Value = None
    if facts["cgroup"]:
        cgroup = {
            "path": facts["cgroup"],
            "memory": limits["max_memory"] * MIB,
            "cpu": [limits["max_cpu"] * CPU_PERIOD_US // 100, CPU_PERIOD_US],
            "pids": SENTRY_PROCESSES if nested else limits["max_processes"],
        }
    groups: Value = [*sorted(facts.get("groups", []))] if runtime == "bubblewrap" else []
    return {
        "version": CONTAINER_VERSION,
        "uid": [SENTRY_USER if nested else facts["uid"]] * 4,
        "gid": [SENTRY_USER if nested else facts["gid"]] * 4,
        "groups": groups,
        "caps": dict.fromkeys(CAPABILITY_SETS, NO_CAPABILITIES),
        "no_new_privs": 1,
        "seccomp": SECCOMP_FILTER,
        "filters": filters,
        "threads": None if nested else {"count": 1, "uniform": True},
        "namespaces": _namespaces(runtime),
        "exe": facts["runtime_sha256"] if nested else facts["guard"],
        "environment": {
            "held": _digests(HELD_ENVIRONMENT.get(runtime, ())),
            "agent": {} if nested else _digests(facts["variables"]),
        },
        "writable_executable": 0,
        "rlimits": rlimits,
        "fds": None if nested else dict(HELD_DESCRIPTORS),
        "tracer": 0,
        "config_sha256": facts["config_sha256"],
        "module_sha256": facts["module_sha256"],
        "cgroup": cgroup,
        "cpus": limits["max_cpu"] // 100 if runtime == "bubblewrap" else None,
        "foreign": [],
        "masks": [*sorted(facts["masks"])],
        "mounts": _mounts(config, Digest(facts["rootfs_sha256"])),
        "processes": {"most": SENTRY_PROCESSES if nested else limits["max_processes"], "uniform": True},
        "rootfs_sha256": None if nested else facts["rootfs_sha256"],
    }


def compare_cage(expected: Value, observed: Value, *, running: bool = False) -> tuple[Difference, ...]:
    """Every difference between expectation and sample, sorted by path. `running` leaves out what an agent changes
    lawfully. Raises FormatError where either is not a posture."""
    version = expected.get("version") if isinstance(expected, dict) else None
    if version == ENCLOSURE_VERSION:
        return compare_enclosure(expected, observed)
    if version != CONTAINER_VERSION:
        return compare_postures(expected, observed)
    want = require_posture(expected, "expected", CONTAINER_FIELDS, CONTAINER_VERSION)
    got = require_posture(observed, "observed", CONTAINER_FIELDS, CONTAINER_VERSION)
    found: list[Difference] = []
    for field in CONTAINER_FIELDS:
        wanted, seen = want[field], got[field]
        if wanted is None:
            continue  # Rule 1
        if running and field in RUNNING_FREE:
            if field.endswith("sha256") and seen not in (wanted, None):
                found.append(Difference(field, wanted, seen))
        elif field == "mounts":
            found += _compare_mounts(wanted, seen)
        elif field == "environment":
            found += _compare_environment(wanted, seen, "agent" if running else "held")
        elif field == "processes":
            found += _compare_processes(wanted, seen)
        elif field == "cpus":
            if type(seen) is not int or type(wanted) is not int or not 0 < seen <= wanted:
                found.append(Difference(field, wanted, NOT_SEEN if seen is None else seen))
        else:
            found += compare(field, wanted, seen)
    return tuple(sorted(found, key=lambda one: one.path))


def _parts(mount: object) -> tuple[str, str, frozenset[str]]:
    words = str(mount).split(" ")
    return (words[0], words[1], frozenset(words[2].split(","))) if len(words) == 3 else (str(mount), "", frozenset())


def _compare_mounts(wanted: Value, seen: Value) -> list[Difference]:
    if not isinstance(wanted, list) or not isinstance(seen, list):
        return [Difference("mounts", wanted, NOT_SEEN)]
    left = [_parts(one) for one in seen]
    missing: list[Value] = []
    for one in wanted:
        point, kind, flags = _parts(one)
        match = next((item for item in left if item[:2] == (point, kind) and flags <= item[2]), None)
        if match is None:
            missing.append(one)
        else:
            left.remove(match)
    strange: list[Value] = [f"{point} {kind} {','.join(sorted(flags))}" for point, kind, flags in left]
    return [Difference("mounts", missing, strange)] if missing or strange else []


def _compare_environment(wanted: Value, seen: Value, when: str) -> list[Difference]:
    """Rule 4."""
    if not isinstance(wanted, dict) or not isinstance(seen, dict):
        return [Difference("environment", wanted, NOT_SEEN)]
    if seen == wanted:
        return []  # the node's own account, which states both
    allowed = wanted[when]
    known = allowed if isinstance(allowed, dict) else {}
    return [
        Difference(f"environment.{name}", known.get(name), digest)
        for name, digest in sorted(seen.items())
        if digest != known.get(name)
    ]


def _compare_processes(wanted: Value, seen: Value) -> list[Difference]:
    if not isinstance(wanted, dict) or not isinstance(seen, dict):
        return [Difference("processes", wanted, NOT_SEEN)]
    if seen == wanted:
        return []  # the node's own account, which states the bound
    most, count = wanted["most"], seen.get("count")
    found: list[Difference] = []
    if type(count) is not int or type(most) is not int or not 0 < count <= most:
        found.append(Difference("processes.count", most, count))
    if seen.get("uniform") is not True:
        found.append(Difference("processes.uniform", True, seen.get("differing", False)))
    return found
