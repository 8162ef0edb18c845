"""The canaries that ship with the product: each probe's document with its module's bytes."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from ironbound.core.canary import Controlled, Probe, applies, parse_probe
from ironbound.core.canonical import FormatError, parse_json
from ironbound.core.enforcement import Wall, matches
from ironbound.core.profile import RUNTIMES

_MAX_TABLE = 256 * 1024
_FOLDERS = {"wasm": "modules", "native": "native"}

_X32: Final = {"call-x32": ("ENOSYS", "no kernel of Debian has the x32 ABI")}
_NO_CALL: Final = ("ENOSYS", "its kernel has no such call")
_GVISOR: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(
        (
            "mount-fsopen", "mount-fspick", "mount-open-tree", "mount-move", "mount-setattr", "setfsuid-root",
            "landlock-widen", "process-descriptor", "call-bpf", "call-userfaultfd", "call-iopl", "call-init-module",
            "call-kexec", "call-reboot", "call-swapon", "call-acct", "call-quotactl", "call-clock", "call-fanotify",
        ),
        _NO_CALL,
    ),
    "call-x32": ("ENOSYS", "its kernel has no foreign ABI"),
    "call-i386": ("ENOSYS|SIGSEGV", "its kernel has no foreign ABI"),
    "capability-ambient": ("EINVAL", "its kernel has no ambient capabilities"),
    "capability-securebits": ("EINVAL", "its kernel has no securebits"),
    "capability-file": ("EOPNOTSUPP", "its kernel takes no capabilities from files"),
    "no-new-privs-off": ("EINVAL", "its kernel gives no process new privileges, asked or not"),
    "kernel-addresses": ("ENOENT", "its kernel shows no addresses"),
    "device-tiocsti": ("ENOTTY", "its terminals take no input from programs"),
    "call-modify-ldt": ("EPERM", "its kernel refuses it to everybody"),
    "call-null-page": ("ENOMEM", "its lowest address is higher, for everybody"),
}  # fmt: skip

UNCONTROLLED: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "wasmtime": {},
    "gvisor": _GVISOR,
    **dict.fromkeys(("bubblewrap", "runc", "crun", "qemu-microvm", "firecracker"), _X32),
}
"""For each runtime the probes without a positive control: what they meet where the wall is down (a pattern that the
tests hold against it), and why. There is nothing to get out by, and so no wall to take away; that they are refused
proves less. No count of controls holds them."""

_NO_GRANT: Final = "canaries have no grants, and scratch space comes only by one; tests fill it"
UNTRIED: Final[Mapping[str, str]] = {
    "runtime.max_wall_clock": "as shipped it is an hour; tests end agents by it in each runtime",
    "runtime.max_module_size": "as shipped it is 8 MiB; tests launch what is larger than a smaller one",
    "channel.max_messages_per_second": "without imports there is no clock to count by; `channel-rate` asks the same "
    "gateway from native agents",
    **dict.fromkeys(("scratch.max_bytes", "scratch.max_files"), _NO_GRANT),
}
"""Limits that no canary of some runtime tries, and why."""

_ONE_WALL: Final = "the same program without just that wall, or with another gateway"
_LACKS: Final = "what this host's kernel lacks, in a machine's"
CONTROL: Final[Mapping[str, str]] = {
    "wasmtime": "the same module in an engine without just that limit or refusal, or with a gateway that has one gap",
    "bubblewrap": f"{_ONE_WALL}: options of bubblewrap, the filter, a limit; {_LACKS}",
    **dict.fromkeys(
        ("runc", "crun"),
        f"{_ONE_WALL}: [settings](#the-walls-as-settings) of the OCI configuration, the filter, a limit; {_LACKS}",
    ),
    "gvisor": f"{_ONE_WALL}: [settings](#the-walls-as-settings) of the OCI configuration, options of runsc, the filter",
    **dict.fromkeys(
        ("qemu-microvm", "firecracker"),
        f"{_ONE_WALL}: a machine whose first process gives it another user, filter, limit, mount or network",
    ),
}
"""For each runtime the sandbox in which its probes have their positive control: there the tests see them escape."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A probe's row of `probes.json`, which operators approve as it stands, and its module: the Wasm module itself, or
    the native program that a root file system for canaries holds as `/probe`."""

    name: str
    document: dict[str, Any]
    module: bytes


def load_probes(family: str) -> tuple[Shipped, ...]:
    """Every shipped probe of a family ('wasm', 'native'), in the table's order. FormatError if the table is not what
    it should be."""
    folder = resources.files("ironbound.canary")
    rows = parse_json((folder / "probes.json").read_bytes(), limit=_MAX_TABLE)
    if not isinstance(rows, list):
        raise FormatError("probe-invalid", "expected a list of probes")
    shipped = []
    for row in rows:
        probe = parse_probe(row)
        if not isinstance(row, dict):
            raise FormatError("probe-invalid", "expected an object")
        if probe.family == family:
            shipped.append(Shipped(probe.name, row, (folder / _FOLDERS[family] / probe.module).read_bytes()))
    return tuple(shipped)


def controlled() -> tuple[Controlled, ...]:
    """Each runtime's positive controls, in words for a reader who has no such table of the documents."""
    return tuple(
        Controlled(
            name,
            re.sub(r"\[(.+?)\]\(.+?\)", r"\1", how),
            len(probes_for(name)),
            {probe: why for probe, (_, why) in UNCONTROLLED[name].items()},
        )
        for name, how in CONTROL.items()
    )


def biting(wall: Wall, runtime: str) -> list[Probe]:
    """The shipped probes that try a wall of a runtime, in the table's order."""
    return [one for one in probes_for(runtime) if any(matches(pattern, one.name) for pattern in wall.canaries)]


@functools.cache
def _parsed() -> tuple[Probe, ...]:
    return tuple(parse_probe(one.document) for family in _FOLDERS for one in load_probes(family))


def probes_for(runtime: str) -> list[Probe]:
    """The shipped probes that a runtime's sandboxes have to refuse, in the table's order."""
    return [probe for probe in _parsed() if applies(probe.family, RUNTIMES[runtime])]
