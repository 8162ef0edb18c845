"""Firecracker's process: what it must look like from outside, and the one call that leads to it.

Decides the expected posture (version 3, as an enclosure) of Firecracker behind its jailer, from an effective
configuration and the host's facts, and whether a launch envelope is the call that follows from configuration and
module. It looks at nothing. What holds inside the guest is proved by the guard's probes (`core/cage.py`).

No machine of ours had Firecracker: what stands here follows from its documents and was never seen. Where they say
nothing, nothing is expected (null), and the launch's statement shows it. A real one that looks otherwise is drift, and
its agent never runs: that is the safe side to err on.

Rule 1: the envelope holds the jail's own facts (paths, ids) as values; arguments and requests are derived from them and
        the configuration again, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ironbound.core import firecracker
from ironbound.core.canonical import FormatError, Value, canonical, parse_digest, sha256_hex
from ironbound.core.enclosure import CPU_PERIOD_US, ENCLOSURE_VERSION
from ironbound.core.microvm import FIRECRACKER, MODULES
from ironbound.core.native import is_manifest, parse_manifest, plan
from ironbound.core.posture import CAPABILITY_SETS, NAMESPACES, NO_CAPABILITIES, SECCOMP_FILTER

UNSHARED: Final = ("--net", "--ipc", "--uts", "--")
"""What `unshare` is told before the jailer: the namespaces that the jailer doesn't make."""

_SHARED: Final = frozenset({"user", "cgroup"})
_FACTS: Final = frozenset(
    {"uid", "gid", "module_sha256", "config_sha256", "filters_visible", "runtime_sha256", "cgroup"}
)  # fmt: skip
_DIGESTS: Final = ("runtime_sha256", "jailer_sha256", "guard_sha256", "init_sha256")
_FILES: Final = (firecracker.KERNEL, firecracker.INITRD)


def limits_of_process() -> dict[str, int]:
    """The limits, soft and hard alike, that the jailer sets, in bytes or counts; the others are the node's own."""
    return {"fsize": firecracker.FILE_SIZE, "nofile": firecracker.OPEN_FILES}


def expected_jailed(config: Mapping[str, Any], facts: Value) -> Value:
    """The posture of Firecracker for a machine that consumed `config` on a host with these facts. FormatError.

    Facts: uid, gid, module_sha256, config_sha256, filters_visible, runtime_sha256, and cgroup (its path); `groups`, an
    ordinary user's, is taken and has to be empty, since there is no jailer without root.
    """
    if not isinstance(facts, dict) or not _FACTS <= facts.keys() <= _FACTS | {"groups"} or facts.get("groups"):
        raise FormatError("facts-invalid", "missing or unknown facts of a jailed machine")
    if facts["config_sha256"] != sha256_hex(canonical(dict(config))):
        raise FormatError("facts-invalid", "config_sha256: not the configuration's")
    for name in ("module_sha256", "runtime_sha256"):
        parse_digest(str(facts[name]))
    if any(type(facts[name]) is not int for name in ("uid", "gid")) or not str(facts["cgroup"]).startswith("/"):
        raise FormatError("facts-invalid", "uid, gid, cgroup: expected ids and a path")
    limits = firecracker.group_limits(config)
    rlimits: dict[str, Value] = {name: [value, value] for name, value in limits_of_process().items()}
    caps: dict[str, Value] = dict.fromkeys(CAPABILITY_SETS, NO_CAPABILITIES)
    caps["bnd"] = None  # the jailer leaves it; without new privileges it gives nothing
    return {
        "version": ENCLOSURE_VERSION,
        "uid": [facts["uid"]] * 4,
        "gid": [facts["gid"]] * 4,
        "groups": None,
        "caps": caps,
        "no_new_privs": 1,
        "seccomp": SECCOMP_FILTER,
        "filters": None,  # its own, one for each kind of thread
        "threads": {"most": limits["pids"], "uniform": True},
        "namespaces": {kind: "shared" if kind in _SHARED else "private" for kind in NAMESPACES},
        "exe": facts["runtime_sha256"],
        "environment": None,  # the jailer's own affair
        "mappings": [facts["runtime_sha256"]],  # a static program
        "writable_executable": 0,
        "rlimits": rlimits,
        "fds": None,
        "files": None,
        "tracer": 0,
        "cgroup": {
            "path": facts["cgroup"],
            "memory": limits["memory"],
            "cpu": [limits["cpu"] * CPU_PERIOD_US // 100, CPU_PERIOD_US],
            "pids": limits["pids"],
        },
        "cpus": None,
        "mounts": None,
        "processes": {"count": 1},
        "config_sha256": facts["config_sha256"],
        "module_sha256": facts["module_sha256"],
    }


def jail_value(jail: firecracker.Jail) -> dict[str, Value]:
    """A jail as the envelope holds it."""
    return {
        "jailer": jail.jailer,
        "binary": jail.binary,
        "base": jail.base,
        "name": jail.name,
        "uid": jail.uid,
        "gid": jail.gid,
        "parent": jail.parent,
        "unified": jail.unified,
    }


def _jail(value: Value) -> firecracker.Jail:
    if not isinstance(value, dict) or len(value) != 8:
        raise FormatError("envelope-invalid", "jail: expected the jail's paths and ids")
    match value:
        case {
            "jailer": str(jailer), "binary": str(binary), "base": str(base), "name": str(name),
            "uid": int(uid), "gid": int(gid), "parent": str(parent), "unified": bool(unified),
        } if type(uid) is int and type(gid) is int:  # fmt: skip
            return firecracker.Jail(jailer, binary, base, name, uid, gid, parent, unified)
        case _:
            raise FormatError("envelope-invalid", "jail: expected the jail's paths and ids")


def command(config: Mapping[str, Any], unshare: str, jail: firecracker.Jail) -> tuple[str, ...]:
    """The whole call: `unshare`, which becomes the jailer, which becomes Firecracker. FormatError."""
    if not unshare.startswith("/"):
        raise FormatError("jail-invalid", "unshare: expected an absolute path")
    return (unshare, *UNSHARED, *firecracker.jailer_argv(config, jail))


def jailed_envelope(
    config: Mapping[str, Any],
    module: bytes,
    nonce: str | None,
    *,
    unshare: str,
    jail: firecracker.Jail,
    digests: Mapping[str, str],
    files: Mapping[str, str],
    modules: Mapping[str, str],
) -> dict[str, Value]:
    """The launch envelope. `digests`: those of _DIGESTS; `files`: those in the jail; `modules`: the guest kernel's."""
    manifest = parse_manifest(module)
    said: list[Value] = [[one.method, one.path, sha256_hex(one.body)] for one in firecracker.requests(config)]
    return {
        "version": 1,
        "runtime": config["runtime"]["type"],
        "accelerator": "kvm",
        **{name: digests[name] for name in _DIGESTS},
        "rootfs_sha256": manifest.rootfs,
        "jail": jail_value(jail),
        "argv": [*command(config, unshare, jail)],
        "requests": said,
        "files": {name: files[name] for name in _FILES},
        "fds": {},
        "modules": dict(modules),
        "inside": {
            "3": sha256_hex(canonical(dict(config))),
            "4": sha256_hex(module),
            "5": sha256_hex(plan(config, manifest, nonce)),
        },
    }


def require_jailed_envelope(value: Value, config: Mapping[str, Any], module: bytes, nonce: str | None) -> None:
    """Raises FormatError unless the envelope is the one call that follows from configuration and module (Rule 1)."""
    if not isinstance(value, dict) or not is_manifest(module) or config["runtime"]["type"] != FIRECRACKER:
        raise FormatError("envelope-invalid", "expected the envelope of a jailed machine")
    files, modules, argv = value.get("files"), value.get("modules"), value.get("argv")
    if not isinstance(files, dict) or set(files) != set(_FILES) or not isinstance(modules, dict):
        raise FormatError("envelope-invalid", "expected files and modules")
    if not isinstance(argv, list) or not argv:
        raise FormatError("envelope-invalid", "expected arguments")
    digests = {name: str(value.get(name)) for name in _DIGESTS}
    for digest in (*digests.values(), *(str(one) for one in (*files.values(), *modules.values()))):
        parse_digest(digest)
    if sorted(modules) != sorted(MODULES[FIRECRACKER]):
        raise FormatError("envelope-invalid", "modules: not those that the machine needs")
    again = jailed_envelope(
        config,
        module,
        nonce,
        unshare=str(argv[0]),
        jail=_jail(value.get("jail")),
        digests=digests,
        files={name: str(digest) for name, digest in files.items()},
        modules={name: str(digest) for name, digest in modules.items()},
    )
    if canonical(again) != canonical(value):
        raise FormatError("envelope-differs", "the envelope is not the call that configuration and module demand")
