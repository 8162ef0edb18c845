"""The canaries that ship with the product: each probe's document with its module's bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from ironbound.core.canary import Probe, applies, parse_probe
from ironbound.core.canonical import FormatError, parse_json
from ironbound.core.enforcement import Wall, matches
from ironbound.core.profile import RUNTIMES

_MAX_TABLE = 256 * 1024
_FOLDERS = {"wasm": "modules", "native": "native"}

UNCONTROLLED: Final[Mapping[str, str]] = {
    "call-x32": "no kernel of Debian has the x32 ABI: without the filter the call fails all the same",
}
"""Probes without a positive control, and why: that they are refused proves less. No count of controls holds them."""

_ON_THE_HOST: Final = "the same program in bubblewrap's sandbox without just that wall, or with another gateway"
_IN_ITS_OWN: Final = "as root in a container of its own with every wall down"
_IN_A_MACHINE: Final = "the same program as root in a machine whose first process took every wall down"
CONTROL: Final[Mapping[str, str]] = {
    "wasmtime": "the same module in an engine without just that limit or refusal, or with a gateway that has one gap",
    "bubblewrap": f"{_ON_THE_HOST}; four of them {_IN_A_MACHINE}",
    **dict.fromkeys(("runc", "crun"), f"as for bubblewrap; and {_IN_ITS_OWN}, but for what the host's kernel lacks"),
    "gvisor": f"as for bubblewrap; and {_IN_ITS_OWN}, but for what gVisor's own kernel lacks or keeps in by itself",
    **dict.fromkeys(("qemu-microvm", "firecracker"), _IN_A_MACHINE),
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


def biting(wall: Wall, runtime: str) -> list[Probe]:
    """The shipped probes that try a wall of a runtime, in the table's order."""
    return [one for one in probes_for(runtime) if any(matches(pattern, one.name) for pattern in wall.canaries)]


def probes_for(runtime: str) -> list[Probe]:
    """The shipped probes that a runtime's sandboxes have to refuse, in the table's order."""
    shipped = (parse_probe(one.document) for family in _FOLDERS for one in load_probes(family))
    return [probe for probe in shipped if applies(probe.family, RUNTIMES[runtime])]
