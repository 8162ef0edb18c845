"""Virtual machines: what a hypervisor is told, purely from an effective configuration.

Decides QEMU's arguments and configuration file, the guest's kernel arguments and order, and the limits
of the hypervisor's own process. It starts nothing; `node/microvm` does, and the verifier can derive it all again.
Follows QEMU's `-readconfig` and "microvm" machine.

Rule 1: a machine has memory, processors, the ports to the node and nothing else: no network, no disk, no display.
Rule 2: whatever a hypervisor reads is a sealed memory file, by its descriptor's number.
Rule 3: the kernel's arguments are these, whatever the profile says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ironbound.core.canonical import FormatError
from ironbound.core.initrd import INIT

QEMU: Final = "qemu-microvm"
FIRECRACKER: Final = "firecracker"
ACCELERATORS: Final = ("kvm", "tcg")
MIB: Final = 1024 * 1024
WHOLE_CORE: Final = 100
AGENT_ID: Final = 65534
"""The agent's user and group inside the guest."""
MIN_MEMORY: Final = 96
"""MiB: the kernel doesn't come up with less."""

CHANNEL_PORT: Final = 1
CONTROL_PORT: Final = 2
STATUS_PORT: Final = 3
PORTS: Final = {"channel": CHANNEL_PORT, "control": CONTROL_PORT, "status": STATUS_PORT}

MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    QEMU: ("virtio_ring", "virtio", "virtio_mmio", "virtio_console"),
    FIRECRACKER: (
        "virtio_ring",
        "virtio",
        "virtio_mmio",
        "vsock",
        "vmw_vsock_virtio_transport_common",
        "vmw_vsock_virtio_transport",
    ),
}
"""The kernel's modules that each machine's devices need, in the order of their loading."""

_ARGUMENTS: Final = "console=ttyS0 reboot=t panic=-1 quiet"
#: Without them three boots of ten hang where the hypervisor itself is emulated or a guest.
_TIMERS: Final = "no_timer_check lpj=5200000 tsc_early_khz=2600000"

#: Descriptors of QEMU's process, every one of them, beside 0 to 2.
DESCRIPTORS: Final[Mapping[str, int]] = {
    "settings": 3,
    "kernel": 4,
    "initrd": 5,
    "firmware": 6,
    "channel": 7,
    "control": 8,
    "status": 9,
    "console": 10,
}
SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
QEMU_OVERHEAD: Final = 256
"""MiB that QEMU itself may take beside the guest's memory; its translated code is bounded to 64 of them."""
TRANSLATED: Final = 64
QEMU_THREADS: Final = 16
"""Threads of QEMU beside the guest's processors."""


def kernel_arguments(runtime: str) -> str:
    """The guest kernel's command line."""
    timers = f" {_TIMERS}" if runtime == QEMU else ""
    return f"{_ARGUMENTS}{timers} rdinit={INIT}"


def processors(config: Mapping[str, Any]) -> int:
    """The guest's processors: as many as its share of computing time can keep busy."""
    return max(1, -(-int(config["runtime"]["max_cpu"]) // WHOLE_CORE))


def unenforced(config: Mapping[str, Any], image_bytes: int = 0) -> str | None:
    """The setting that no host can hold a machine of this configuration to, with the reason; None if there is none.

    The image lies in the guest's memory, once as the RAM disk and once unpacked until the first is freed.
    """
    memory = config["runtime"]["max_memory"]
    least = MIN_MEMORY + 2 * -(-image_bytes // MIB)
    if memory < least:
        return f"runtime.max_memory: a virtual machine with this image needs {least} MiB, the profile gives {memory}"
    return None


def order(config: Mapping[str, Any]) -> bytes:
    """What the guest's first process reads: its ports, the agent's user, and the limits of /tmp."""
    ports = "vsock" if config["runtime"]["type"] == FIRECRACKER else "virtio"
    scratch = config["scratch"]
    lines = (
        "ironbound-vm/v1",
        f"ports {ports}",
        f"user {AGENT_ID} {AGENT_ID}",
        f"tmp {scratch['max_bytes']} {scratch['max_files']}",
    )
    return "".join(f"{line}\n" for line in lines).encode()


def own_files(
    config: Mapping[str, Any], *, encoded: bytes, module: bytes, plan: bytes, init: bytes, modules: tuple[bytes, ...]
) -> tuple[tuple[str, int, bytes], ...]:
    """Our own files of the RAM disk: name, permission bits, bytes."""
    if len(modules) != len(MODULES[config["runtime"]["type"]]):
        raise FormatError("initrd-invalid", "not the modules of this machine")
    files = [("init", 0o500, init), ("order", 0o400, order(config)), ("config", 0o400, encoded)]
    files += [("module", 0o400, module), ("plan", 0o400, plan)]
    return (*files, *((f"module-{at}", 0o400, data) for at, data in enumerate(modules, 1)))


# QEMU


def _fd(name: str) -> str:
    return f"/proc/self/fd/{DESCRIPTORS[name]}"


def qemu_settings(config: Mapping[str, Any], accelerator: str) -> bytes:
    """QEMU's configuration file, all of the machine."""
    if accelerator not in ACCELERATORS:
        raise FormatError("config-invalid", f"expected an accelerator of {', '.join(ACCELERATORS)}")
    sections: list[tuple[str, dict[str, str]]] = [
        (
            "machine",
            {
                "type": "microvm",
                "x-option-roms": "off",
                "rtc": "on",
                "pit": "on",
                "pic": "on",
                "kernel": _fd("kernel"),
                "initrd": _fd("initrd"),
                "append": kernel_arguments(QEMU),
                "firmware": _fd("firmware"),
                "dump-guest-core": "off",
                "mem-merge": "off",
            },
        ),
        ("memory", {"size": f"{config['runtime']['max_memory']}M"}),
        ("smp-opts", {"cpus": str(processors(config))}),
        ('chardev "console"', {"backend": "socket", "fd": str(DESCRIPTORS["console"])}),
        ('device "ports"', {"driver": "virtio-serial-device", "max_ports": str(len(PORTS) + 1)}),
    ]
    for name, number in PORTS.items():
        sections += [
            (f'chardev "{name}"', {"backend": "socket", "fd": str(DESCRIPTORS[name])}),
            (f'device "{name}-port"', {"driver": "virtserialport", "chardev": name, "nr": str(number)}),
        ]
    return "\n".join(
        "".join([f"[{title}]\n", *(f'  {key} = "{value}"\n' for key, value in members.items())])
        for title, members in sections
    ).encode()


def qemu_argv(accelerator: str) -> tuple[str, ...]:
    """QEMU's arguments; the machine itself is in the file behind `-readconfig`."""
    processor = "host" if accelerator == "kvm" else "max"
    engine = "kvm" if accelerator == "kvm" else f"tcg,tb-size={TRANSLATED}"
    return (
        "qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
        "-sandbox", SANDBOX, "-accel", engine, "-cpu", processor, "-serial", "chardev:console",
        "-readconfig", _fd("settings"),
    )  # fmt: skip


def qemu_limits(config: Mapping[str, Any]) -> dict[str, int]:
    """The limits, soft and hard alike, of QEMU's own process, in bytes or counts."""
    return {
        "fsize": 0,
        "stack": 8 * MIB,
        "core": 0,
        "nproc": QEMU_THREADS + processors(config),
        "nofile": 64,
        "memlock": 0,
        "msgqueue": 0,
    }


def group_limits(config: Mapping[str, Any]) -> dict[str, int]:
    """The hypervisor's cgroup: bytes of memory, percent of one core, tasks."""
    return {
        "memory": (config["runtime"]["max_memory"] + QEMU_OVERHEAD) * MIB,
        "cpu": config["runtime"]["max_cpu"],
        "pids": QEMU_THREADS + processors(config),
    }
