"""A virtual machine: from the node's order to the guard's word inside, beside a bare boot of the same machine.

The bare boot is QEMU as a program, with the same kernel, firmware, processor and modules, no walls around it and no
image in it: from its start to the first word of the first process on a port. What is between the two is ours: the
walls, the image's copy and digests, the devices and file systems inside, the guard's probes. Both in the same run, in
turn, on KVM where a machine of ours boots on it and emulated else (the row says which).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.floor import percentile
from ironbound.core import microvm
from ironbound.core.canonical import Digest, canonical
from ironbound.core.native import Manifest
from ironbound.core.tree import Folder
from ironbound.node.microvm import kernel as kernels
from ironbound.node.microvm import ramdisk
from ironbound.node.microvm.kernel import Kernel, KernelMissing
from ironbound.node.microvm.qemu import FIRMWARE, Qemu, init_bytes
from ironbound.node.processes import spawn
from ironbound.node.runtime import Order, Ready
from ironbound.node.sandbox.memfd import sealed_memfd
from ironbound.terminal.init import initialise
from ironbound.wire.deployment import Deployment
from ironbound.wire.image_load import load_directory
from ironbound.wire.images import Images, shipped_guard

SECONDS = 60.0


def configuration() -> dict[str, Any]:
    limits = {"max_memory": 128, "max_cpu": 100, "max_processes": 8, "max_open_files": 64, "max_wall_clock": 60}
    return {
        "version": 1,
        "profile": "bench",
        "runtime": {"type": microvm.QEMU, "strict_security": True, **limits},
        "channel": {"max_message": 65536, "max_messages_per_second": 100},
        "scratch": {"max_bytes": 1 << 20, "max_files": 32},
    }


async def held(runtime: Qemu, deployment: Deployment, rootfs: Digest, number: int) -> float:
    """Milliseconds from the order to the guard's word in the machine."""
    module = Manifest(rootfs, ("/agent",)).encode()
    uids = deployment.sandbox_uids
    user, group = (uids.start, uids.start) if uids else (os.getuid(), os.getgid())
    here, there = socket.socketpair()
    with here, there:
        begin = time.perf_counter()
        machine = await runtime.hold(Order(number, user, group, canonical(configuration()), module, there, None))
        word = await machine.ready()
        took = (time.perf_counter() - begin) * 1e3
        machine.kill()
        await machine.ended()
    if not isinstance(word, Ready):
        raise RuntimeError(f"the machine refused: {word}")
    return took


def bare(binary: str, kernel: Kernel, accelerator: str) -> float:
    """Milliseconds from QEMU's start to the first word of a first process that finds no image and no order."""
    image, modules = kernel.read()
    own = [("init", 0o500, init_bytes())]
    own += [(f"module-{at}", 0o400, data) for at, data in enumerate(modules, 1)]
    firmware = next(path for path in FIRMWARE if os.path.exists(path))
    handed = {
        "settings": sealed_memfd("settings", microvm.qemu_settings(configuration(), accelerator)),
        "kernel": sealed_memfd("kernel", image),
        "initrd": ramdisk.build(-1, [Folder("dev", 0o555), Folder("proc", 0o555)], own)[0],
        "firmware": sealed_memfd("firmware", Path(firmware).read_bytes()),
    }
    pairs = {name: socket.socketpair() for name in ("channel", "control", "status", "console")}
    handed |= {name: its.fileno() for name, (_, its) in pairs.items()}
    control = pairs["control"][0]
    control.settimeout(SECONDS)
    argv = [binary, *microvm.qemu_argv(accelerator)[1:]]
    with open("/dev/null", "r+b", buffering=0) as null:
        targets = dict.fromkeys(range(3), null.fileno())
        targets |= {microvm.DESCRIPTORS[name]: descriptor for name, descriptor in handed.items()}
        begin = time.perf_counter()
        pid = spawn(argv, targets)
    try:
        said = control.recv(4096)
        took = (time.perf_counter() - begin) * 1e3
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for name in ("settings", "kernel", "initrd", "firmware"):
            os.close(handed[name])
        for mine, its in pairs.values():
            mine.close()
            its.close()
    if b"order of the virtual machine" not in said:
        raise RuntimeError(f"the bare machine said {said!r}")
    return took


def measure(rounds: int) -> list[dict[str, Any]]:
    """The rows. OSError, KernelMissing where this host has no QEMU or no kernel for it."""
    with tempfile.TemporaryDirectory(prefix="ironbound-bench-") as name:
        os.chmod(name, 0o711)
        deployment = initialise(Path(name) / "d", f"bench-{os.urandom(4).hex()}", [("ada", b"phrase")], 1)
        kernels.place(deployment.root, *kernels.installed())
        rootfs = Path(name) / "rootfs"
        rootfs.mkdir()
        (rootfs / "agent").write_bytes(shipped_guard())
        (rootfs / "agent").chmod(0o755)
        digest = load_directory(rootfs, deployment, shipped_guard()).digest
        runtime = Qemu(deployment, Images(deployment))
        asyncio.run(runtime.start())
        accelerator = runtime.accelerator
        binary, kernel = str(runtime.facts()["binary"]), Kernel(deployment.root, microvm.QEMU)
        ours, floor = [], []
        asyncio.run(held(runtime, deployment, digest, 0))  # everything has run once
        for number in range(rounds):
            floor.append(bare(binary, kernel, accelerator))
            ours.append(asyncio.run(held(runtime, deployment, digest, number + 1)))
        for folder, _, _ in os.walk(deployment.root / "images"):
            os.chmod(folder, 0o755)
        shutil.rmtree(deployment.root / "images")
    middle, base = percentile(ours, 0.5), percentile(floor, 0.5)
    return [
        {
            "name": f"held microVM, to the guard's word ({accelerator}); floor: a bare boot",
            "unit": "ms",
            "p50": round(middle, 1),
            "p99": round(percentile(ours, 0.99), 1),
            "floor": round(base, 1),
            "ratio": round(middle / base, 2),
        },
        {"name": "of these, ours", "unit": "ms", "p50": round(middle - base, 1)},
    ]


def run(quick: bool) -> list[dict[str, Any]]:
    """Rows for a held machine beside a bare boot; one row that says why, where no machine can be had."""
    try:
        return measure(3 if quick else 10)
    except (OSError, KernelMissing) as error:
        return [{"name": f"not tested: {error}"}]
