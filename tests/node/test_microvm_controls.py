"""The positive control of the hostile agents in a virtual machine: in one whose first process starts each of them
without just its wall, the very same programs get out and say so.

Its kernel has what the host's may lack (modules, kexec, ports, every capability), so that probes whose wall can't be
taken away on the host have their control here. The machine holds nothing, and is gone at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_microvm_node as stand
from test_microvm_node import configuration, deployment, rootfs, runtime, weakened_init  # noqa: F401

from ironbound.canary.probes import UNCONTROLLED, load_probes
from ironbound.core.canary import verdict
from ironbound.core.canonical import Digest, canonical
from ironbound.core.native import Manifest
from ironbound.node.microvm.qemu import Qemu
from ironbound.node.runtime import Order
from native_channel import careless
from native_stand import CALLS, filter_without

sys.path.append(str(Path(__file__).resolve().parents[1] / "canary"))
from native_walls import ADDRESSES, LIMITS, NONCE, NOT_ON_THIS_HOST, ORDER, SHIMS, WALLS, Without

pytestmark = [stand.pytestmark, pytest.mark.slow, pytest.mark.timeout(600)]

OPEN = Path(__file__).with_name("open_machine.h")
ROWS = {shipped.name: shipped.document for shipped in load_probes("native")}
WIDE = {"max_memory": 512, "max_processes": 1024, "max_open_files": 4096, "max_wall_clock": 600}
SCRATCH = {"max_bytes": 64 << 20, "max_files": 10_000}
SECONDS = 300.0
LACKS = set(UNCONTROLLED["qemu-microvm"])
#: In a machine one more wall each: the process outside is root's, the loopback device is down.
MORE: Mapping[str, dict[str, Any]] = {
    "process-kill": {"root": True},
    "network-loopback": {"network": True},
}
#: Those that are refused in this machine with every wall: what keeps in the rest is Landlock, the gateway, or the host.
WALLED = [
    name
    for name in ORDER
    if not WALLS[name].landlock and WALLS[name].channel is None and name not in ("limit-cpu", "limit-inodes")
]
#: The guard's start, in the source of the machine's first process.
START = """__attribute__((noreturn)) static void become_guard(const vm_order *from) {
    static char *arguments[] = {"guard", 0}, *variables[] = {0};
    become_user(from);
    refuse_error("lockdown", "the guard", call(SYS_execve, "/.ironbound/guard", arguments, variables));
}
"""


def defined(name: str, items: Iterable[str]) -> str:
    return f"#define {name} {', '.join(items)}\n"


def listed(items: Iterable[object]) -> str:
    return "{" + (", ".join(map(str, items)) or "0") + "}"


def row(name: str, walls: Without) -> str:
    """A row of open_machine.h. What is the kernel's own in /proc belongs to root; /sys is a folder of the root."""
    walls = replace(walls, **MORE.get(name, {})) if replace(walls, size="") != Without() else walls
    of_proc = any(one.startswith("/proc/") for one in walls.present)
    flags = {
        "OF_ROOT": walls.root or of_proc,
        "NO_FILTER": walls.filter or walls.bubblewrap,
        "NEW_PRIVILEGES": walls.bubblewrap,
        "WRITABLE": walls.read_only or any(one.startswith("/sys/") for one in walls.present),
        "WIDE_SCRATCH": walls.scratch,
        "NETWORK": walls.network,
        "OPEN_DESCRIPTOR": walls.descriptor,
        "UNSEALED": walls.seals,
        "TERMINAL": walls.terminal,
    }
    without = " | ".join(flag for flag, down in flags.items() if down) or "0"
    kept = sum(1 << at for at, limit in enumerate(LIMITS) if limit not in walls.limits)
    files = [one for one in walls.present if one.startswith("/proc/sys/") or not one.startswith("/proc/")]
    calls = listed(CALLS[one] for one in walls.calls)
    bound = json.dumps(walls.size) if walls.size else "0"
    return f'{{"{name}", {bound}, {without}, {kept}, {calls}, {listed(map(json.dumps, files))}}}'


def machine() -> str:
    """The source of what starts each agent without its wall."""
    open_ones = (row(name, WALLS[name]) for name in ORDER)
    numbers = (getattr(resource, f"RLIMIT_{limit.upper()}", 12) for limit in LIMITS)
    return (
        defined("ROWS", [*(row(name, Without(size=WALLS[name].size)) for name in WALLED), *open_ones])
        + defined("LIMITS", (f"{{{number}, {value}}}" for number, value in zip(numbers, LIMITS.values(), strict=True)))
        + defined(
            "FILTER", (f"{{{c}, {y}, {n}, {k}u}}" for c, y, n, k in struct.iter_unpack("<HBBI", filter_without()))
        )
        + defined("ADDRESSES", (str(int.from_bytes(socket.inet_aton(one), "little")) for one in ADDRESSES))
        + defined("SHIMS", map(json.dumps, SHIMS))
        + defined("NONCE", [f'"{NONCE}"'])
        + OPEN.read_text("ascii")
    )


def judged(names: Sequence[str], lines: Sequence[str]) -> dict[str, str]:
    return {name: verdict(ROWS[name], NONCE, "finished", "", line)[0] for name, line in zip(names, lines, strict=True)}


async def reported(runtime: Qemu, rootfs: Digest) -> list[str]:  # noqa: F811
    """What each probe says, in that order."""
    mine, its = socket.socketpair()
    uids = runtime._deployment.sandbox_uids
    uid = uids.start + 40 if uids else os.getuid()
    config = canonical(json.loads(configuration(**WIDE)) | {"scratch": SCRATCH})
    module = Manifest(rootfs, ("/probe",)).encode()
    with its:
        machine = await runtime.hold(Order(40, uid, uid if uids else os.getgid(), config, module, its, NONCE))
    careless(mine)
    try:
        async with asyncio.timeout(SECONDS):
            return [(await machine._readers["control"].readline()).decode() for _ in (*WALLED, *ORDER)]
    finally:
        machine.kill()
        await machine.ended()


def test_in_a_machine_without_its_wall_every_hostile_agent_escapes_but_where_the_list_says_why_none_can(
    runtime: Qemu, rootfs: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setattr(runtime, "_init", weakened_init(tmp_path, "init.c", START, machine()))
    lines = asyncio.run(reported(runtime, rootfs))
    walled, said = lines[: len(WALLED)], lines[len(WALLED) :]
    assert judged(WALLED, walled) == dict.fromkeys(WALLED, "REFUSED"), walled
    found = judged(ORDER, said)
    kept = {name for name, verdict in found.items() if verdict != "ESCAPED"}
    assert kept <= LACKS, [line for name, line in zip(ORDER, said, strict=True) if name in kept - LACKS]
    assert set(NOT_ON_THIS_HOST) - LACKS <= {name for name in found if name not in kept}
    print(f"qemu-microvm: {len(found) - len(kept)} of {len(found) - len(LACKS)} positive controls escaped")
