"""The positive control of the hostile agents in a virtual machine: in one whose first process takes every wall down and
starts them as root, the very same programs get out and say so.

Its kernel has what the host's may lack (modules, kexec, ports, every capability), so that probes whose wall can't be
taken away on the host have their control here. The machine holds nothing, and is gone at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest
import test_microvm_node as stand
from test_microvm_node import NONCE, configuration, deployment, rootfs, runtime, weakened_init  # noqa: F401

from ironbound.canary.probes import UNCONTROLLED, load_probes
from ironbound.core.canary import verdict
from ironbound.core.canonical import Digest, canonical
from ironbound.core.native import Manifest
from ironbound.node.microvm.qemu import Qemu
from ironbound.node.runtime import Order
from native_channel import careless

sys.path.append(str(Path(__file__).resolve().parents[1] / "canary"))
from native_walls import NOT_ON_THIS_HOST, ORDER, without_walls

pytestmark = [stand.pytestmark, pytest.mark.slow, pytest.mark.timeout(600)]

OPEN = Path(__file__).with_name("open_machine.h")
ROWS = {shipped.name: shipped.document for shipped in load_probes("native")}
WIDE = {"max_memory": 512, "max_processes": 1024, "max_open_files": 4096, "max_wall_clock": 600}
SCRATCH = {"max_bytes": 64 << 20, "max_files": 10_000}
SECONDS = 300.0
MUST = """static void must(const char *what, word result) {
    if (failed(result)) refuse_error("lockdown", what, result);
}
"""
LACKS = set(UNCONTROLLED["qemu-microvm"])
#: The guard's start, in the source of the machine's first process.
START = """__attribute__((noreturn)) static void become_guard(const vm_order *from) {
    static char *arguments[] = {"guard", 0}, *variables[] = {0};
    become_user(from);
    refuse_error("lockdown", "the guard", call(SYS_execve, "/.ironbound/guard", arguments, variables));
}
"""


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
            return [(await machine._readers["control"].readline()).decode() for _ in ORDER]
    finally:
        machine.kill()
        await machine.ended()


def test_in_a_machine_without_walls_every_hostile_agent_escapes_but_where_the_list_says_why_none_can(
    runtime: Qemu, rootfs: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    source = without_walls(MUST) + OPEN.read_text("ascii")
    monkeypatch.setattr(runtime, "_init", weakened_init(tmp_path, "init.c", START, source))
    lines = asyncio.run(reported(runtime, rootfs))
    found = {name: verdict(ROWS[name], NONCE, "finished", "", line) for name, line in zip(ORDER, lines, strict=True)}
    kept = {name: said for name, said in found.items() if said[0] != "ESCAPED"}
    assert set(kept) <= LACKS, kept
    assert set(NOT_ON_THIS_HOST) - LACKS <= {name for name in found if name not in kept}
    print(f"qemu-microvm: {len(found) - len(kept)} of {len(found) - len(LACKS)} positive controls escaped")
