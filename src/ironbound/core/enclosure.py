"""Enclosures: what the hypervisor of a virtual machine must look like from outside, and how a sample differs from it.

Decides the expected posture (version 3) of QEMU's process, from an effective configuration and the host's facts, and
whether a launch envelope is the one call that follows from both. The guest can't be seen from outside: what holds in
there is proved by the guard's probes before the release (`core/cage.py`, INSIDE). It looks at nothing. What
Firecracker's process must look like is for `jailed`, in the same form.

Rule 1: a hypervisor has nothing that an agent may change lawfully, so it looks the same held and running.
Rule 2: null in an expectation means that nobody outside may see it, or that it says nothing; null in a sample where
        something is expected is NOT_SEEN, never equal.
Rule 3: the memory files that it reads are compared by digest: settings, kernel, RAM disk, firmware.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ironbound.core import microvm
from ironbound.core.canonical import FormatError, Value, canonical, parse_digest, sha256_hex
from ironbound.core.native import is_manifest, parse_manifest, plan
from ironbound.core.posture import (
    CAPABILITY_SETS,
    NAMESPACES,
    NO_CAPABILITIES,
    NOT_SEEN,
    SECCOMP_FILTER,
    Difference,
    compare,
    require_posture,
)

ENCLOSURE_VERSION: Final = 3
ENCLOSURE_FIELDS: Final = (
    "version",
    "uid",
    "gid",
    "groups",
    "caps",
    "no_new_privs",
    "seccomp",
    "filters",
    "threads",
    "namespaces",
    "exe",
    "environment",
    "mappings",
    "writable_executable",
    "rlimits",
    "fds",
    "files",
    "tracer",
    "cgroup",
    "cpus",
    "mounts",
    "processes",
    "config_sha256",
    "module_sha256",
)
FILES: Final = ("settings", "kernel", "initrd", "firmware")
"""The memory files that QEMU reads."""
CPU_PERIOD_US: Final = 100_000
SYSTEM: Final = ("bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr")
"""Folders of the host that QEMU may read, where they are folders and no links."""
DEVICES: Final = ("null", "urandom")
MAX_LIBRARIES: Final = 512

_FACTS: Final = frozenset(
    {"uid", "gid", "module_sha256", "config_sha256", "filters_visible", "runtime_sha256", "cgroup", "accelerator",
     "libraries", "system", "initrd", "kernel", "firmware", "separated"}
)  # fmt: skip
_OPTIONAL: Final = frozenset({"groups"})


def _checked(config: Mapping[str, Any], facts: Value) -> dict[str, Any]:
    if not isinstance(facts, dict) or not _FACTS <= facts.keys() <= _FACTS | _OPTIONAL:
        raise FormatError("facts-invalid", "missing or unknown facts of a virtual machine")
    given: dict[str, Any] = dict(facts)
    if given["config_sha256"] != sha256_hex(canonical(dict(config))):
        raise FormatError("facts-invalid", "config_sha256: not the configuration's")
    for name in ("module_sha256", "runtime_sha256", "initrd", "kernel", "firmware"):
        parse_digest(str(given[name]))
    if any(type(given[name]) is not int or given[name] < 0 for name in ("uid", "gid")):
        raise FormatError("facts-invalid", "uid, gid: expected ids")
    libraries, system = given["libraries"], given["system"]
    if not isinstance(libraries, list) or not 0 < len(libraries) <= MAX_LIBRARIES:
        raise FormatError("facts-invalid", f"libraries: expected 1 to {MAX_LIBRARIES} digests")
    for one in libraries:
        parse_digest(str(one))
    if not isinstance(system, list) or any(one not in SYSTEM for one in system) or "usr" not in system:
        raise FormatError("facts-invalid", "system: expected folders of programs, with usr")
    if not isinstance(given["cgroup"], str) or given["accelerator"] not in microvm.ACCELERATORS:
        raise FormatError("facts-invalid", "cgroup, accelerator: expected a path and kvm or tcg")
    groups = given.get("groups", [])
    if (
        type(given["separated"]) is not bool
        or not isinstance(groups, list)
        or any(type(one) is not int for one in groups)
    ):
        raise FormatError("facts-invalid", "separated, groups: expected a truth value and ids")
    return given


def _mounts(given: Mapping[str, Any]) -> list[Value]:
    devices = [*DEVICES, *(["kvm"] if given["accelerator"] == "kvm" else [])]
    found: list[Value] = ["/ tmpfs nodev,nosuid,ro", "/proc proc nodev,noexec,nosuid"]
    found += [f"/{name} host nodev,nosuid,ro" for name in given["system"]]
    if given["separated"]:  # as root it has nodes of its own
        found.append("/dev tmpfs noexec,nosuid,ro")
    else:
        found += [f"/dev/{name} device -" for name in devices]
    return sorted(found, key=str)


def expected_enclosure(config: Mapping[str, Any], facts: Value) -> Value:
    """The posture of the hypervisor of a machine that consumed `config` on a host with these facts. FormatError.

    Facts: uid, gid, module_sha256, config_sha256, filters_visible, runtime_sha256, cgroup (its path, or ''),
    accelerator, separated (whether sandboxes have users of their own), libraries (digests of all that is mapped to be
    executed), system (folders of programs that the host has), and the digests initrd, kernel and firmware; optionally
    groups, for an ordinary user.
    """
    if config["runtime"]["type"] != microvm.QEMU:
        raise FormatError("config-invalid", "no posture of that runtime is known")
    given = _checked(config, facts)
    limits = microvm.group_limits(config)
    cgroup: Value = None
    if given["cgroup"]:
        cgroup = {
            "path": given["cgroup"],
            "memory": limits["memory"],
            "cpu": [limits["cpu"] * CPU_PERIOD_US // 100, CPU_PERIOD_US],
            "pids": limits["pids"],
        }
    lines = {str(microvm.DESCRIPTORS[name]): f"memfd:{name}:sealed" for name in FILES}
    lines |= {str(number): "socket" for name, number in microvm.DESCRIPTORS.items() if name not in FILES}
    settings = sha256_hex(microvm.qemu_settings(config, given["accelerator"]))
    shared = ("user",) if given["separated"] else ()
    mappings: list[Value] = [*sorted({*given["libraries"], given["runtime_sha256"]})]
    rlimits: dict[str, Value] = {name: [value, value] for name, value in microvm.qemu_limits(config).items()}
    return {
        "version": ENCLOSURE_VERSION,
        "uid": [given["uid"]] * 4,
        "gid": [given["gid"]] * 4,
        "groups": [*sorted(given.get("groups", []))],
        "caps": dict.fromkeys(CAPABILITY_SETS, NO_CAPABILITIES),
        "no_new_privs": 1,
        "seccomp": SECCOMP_FILTER,
        "filters": None,  # QEMU's own library assembles it
        "threads": {"most": limits["pids"], "uniform": True},
        "namespaces": {kind: "shared" if kind in shared else "private" for kind in NAMESPACES},
        "exe": given["runtime_sha256"],
        "environment": {},
        "mappings": mappings,
        # An emulator writes the code that it executes.
        "writable_executable": 0 if given["accelerator"] == "kvm" else None,
        "rlimits": rlimits,
        "fds": {"0": "/dev/null", "1": "/dev/null", "2": "socket", **lines},
        "files": {"settings": settings, **{name: given[name] for name in ("kernel", "initrd", "firmware")}},
        "tracer": 0,
        "cgroup": cgroup,
        "cpus": None if given["cgroup"] else microvm.processors(config),
        "mounts": _mounts(given),
        "processes": {"count": 1},
        "config_sha256": given["config_sha256"],
        "module_sha256": given["module_sha256"],
    }


_INSIDE: Final = frozenset({"config_sha256", "module_sha256"})
"""In the RAM disk: the guard tells them, and the RAM disk's digest is seen."""


def compare_enclosure(expected: Value, observed: Value) -> tuple[Difference, ...]:
    """Every difference between expectation and sample, sorted by path. FormatError where either is not a posture."""
    want = require_posture(expected, "expected", ENCLOSURE_FIELDS, ENCLOSURE_VERSION)
    got = require_posture(observed, "observed", ENCLOSURE_FIELDS, ENCLOSURE_VERSION)
    found: list[Difference] = []
    for field in ENCLOSURE_FIELDS:
        wanted, seen = want[field], got[field]
        if wanted is None or (field in _INSIDE and seen is None):
            continue  # Rule 2
        if field == "threads":
            found += _compare_threads(wanted, seen)
        elif field == "caps":
            found += _compare_caps(wanted, seen)
        elif field == "mappings":
            found += _compare_mappings(wanted, seen)
        elif field == "mounts":
            found += _compare_mounts(wanted, seen)
        elif field == "cpus":
            if type(seen) is not int or type(wanted) is not int or not 0 < seen <= wanted:
                found.append(Difference(field, wanted, NOT_SEEN if seen is None else seen))
        else:
            found += compare(field, wanted, seen)
    return tuple(sorted(found, key=lambda one: one.path))


def _compare_threads(wanted: Value, seen: Value) -> list[Difference]:
    """At most so many, and every one without privilege and behind the filter like the first."""
    if not isinstance(wanted, dict) or not isinstance(seen, dict):
        return compare("threads", wanted, seen)
    most, count = wanted.get("most"), seen.get("count", seen.get("most"))
    found: list[Difference] = []
    if type(most) is not int or type(count) is not int or not 0 < count <= most:
        found.append(Difference("threads.count", most, count))
    if seen.get("uniform") is not True:
        found.append(Difference("threads.uniform", True, seen.get("differing", False)))
    return found


def _compare_caps(wanted: Value, seen: Value) -> list[Difference]:
    """A set of which nothing is expected says nothing."""
    if not isinstance(wanted, dict) or not isinstance(seen, dict):
        return compare("caps", wanted, seen)
    free = {name for name, value in wanted.items() if value is None}
    return compare("caps", *({name: one[name] for name in one if name not in free} for one in (wanted, seen)))


def _compare_mappings(wanted: Value, seen: Value) -> list[Difference]:
    """A library that is not loaded yet is none too few; one that nobody measured is one too many."""
    if not isinstance(wanted, list) or not isinstance(seen, list):
        return compare("mappings", wanted, seen)
    strange: list[Value] = [one for one in seen if one not in wanted]
    return [Difference("mappings", [], strange)] if strange else []


def _compare_mounts(wanted: Value, seen: Value) -> list[Difference]:
    if not isinstance(wanted, list) or not isinstance(seen, list):
        return compare("mounts", wanted, seen)
    missing: list[Value] = [one for one in wanted if one not in seen]
    strange: list[Value] = [one for one in seen if one not in wanted]
    return [Difference("mounts", missing, strange)] if missing or strange or len(seen) != len(wanted) else []


def envelope(
    config: Mapping[str, Any],
    module: bytes,
    nonce: str | None,
    *,
    accelerator: str,
    runtime_sha256: str,
    guard_sha256: str,
    init_sha256: str,
    files: Mapping[str, str],
    modules: Mapping[str, str],
) -> dict[str, Value]:
    """The launch envelope: QEMU's exact call, the digest of everything that it reads, and of what the guard consumes
    inside. `files`: the digests of kernel, initrd and firmware; `modules`: those of the guest kernel's modules."""
    manifest = parse_manifest(module)
    settings = sha256_hex(microvm.qemu_settings(config, accelerator))
    return {
        "version": 1,
        "runtime": config["runtime"]["type"],
        "runtime_sha256": runtime_sha256,
        "accelerator": accelerator,
        "guard_sha256": guard_sha256,
        "init_sha256": init_sha256,
        "rootfs_sha256": manifest.rootfs,
        "argv": [*microvm.qemu_argv(accelerator)],
        "fds": {str(microvm.DESCRIPTORS[name]): {**files, "settings": settings}[name] for name in FILES},
        "modules": dict(modules),
        "inside": {
            "3": sha256_hex(canonical(dict(config))),
            "4": sha256_hex(module),
            "5": sha256_hex(plan(config, manifest, nonce)),
        },
    }


def require_enclosure_envelope(value: Value, config: Mapping[str, Any], module: bytes, nonce: str | None) -> None:
    """Raises FormatError unless the envelope is the one call that follows from configuration and module.

    What the host adds (accelerator, digests of its own files) is taken from the envelope.
    """
    if not isinstance(value, dict) or not is_manifest(module):
        raise FormatError("envelope-invalid", "expected the envelope of a virtual machine")
    fds, modules, accelerator = value.get("fds"), value.get("modules"), value.get("accelerator")
    if not isinstance(fds, dict) or not isinstance(modules, dict) or accelerator not in microvm.ACCELERATORS:
        raise FormatError("envelope-invalid", "expected an accelerator, descriptors and modules")
    digests = {name: str(value.get(name)) for name in ("runtime_sha256", "guard_sha256", "init_sha256")}
    files = {name: str(fds.get(str(microvm.DESCRIPTORS[name]))) for name in FILES if name != "settings"}
    for digest in (*digests.values(), *files.values(), *(str(one) for one in modules.values())):
        parse_digest(digest)
    if sorted(modules) != sorted(microvm.MODULES[microvm.QEMU]):
        raise FormatError("envelope-invalid", "modules: not those that the machine needs")
    again = envelope(
        config,
        module,
        nonce,
        accelerator=str(accelerator),
        files=files,
        modules={name: str(digest) for name, digest in modules.items()},
        **digests,
    )
    if canonical(again) != canonical(value):
        raise FormatError("envelope-differs", "the envelope is not the call that configuration and module demand")
