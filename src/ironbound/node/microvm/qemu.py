"""QEMU's microvm: holds an agent in a virtual machine of its own, from the bytes that were approved.

Decides how QEMU is called and when a machine counts as held; what it is told follows purely in `core/microvm.py`, the
walls around its process stand in `wall`. KVM is used where a guest of ours boots under it, which is tried once;
elsewhere QEMU emulates the processor.

Rule 1: all that QEMU reads is sealed in memory files: settings, kernel, RAM disk, firmware. Its own program is started
        from the descriptor whose bytes were hashed. What differs from the measurement at start is refused.
Rule 2: no process stands between the agent and the gateway: QEMU holds the channel's other end itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ironbound.core import microvm
from ironbound.core.canonical import Digest, FormatError, Value, sha256_hex
from ironbound.core.enclosure import SYSTEM, envelope
from ironbound.core.native import parse_manifest, plan
from ironbound.core.profile import parse_configuration
from ironbound.core.tree import File
from ironbound.node.runtime import HoldFailed, Order, Ready
from ironbound.node.sandbox.memfd import sealed_memfd
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.images import ImageRefused, Images

from . import group, ramdisk, trial
from .enclosed import START_S, start_enclosed
from .kernel import Kernel, MeasurementDiffers
from .machine import Lines, Machine
from .wall import BINARY_FD

BINARY: Final = "qemu-system-x86_64"
SEARCH: Final = "/usr/local/bin:/usr/bin:/bin"
FIRMWARE: Final = ("/usr/share/qemu/bios-microvm.bin", "/usr/share/seabios/bios-microvm.bin")
MAX_FIRMWARE: Final = 1 << 20
MAX_SAID: Final = 2000
KVM_DEVICE: Final = "/dev/kvm"
KVM: Final = "kvm"
TCG: Final = "tcg"


def init_bytes() -> bytes:
    """The guest's first process that this version ships."""
    return (Path(__file__).parent / "init" / "init").read_bytes()


def guard_bytes() -> bytes:
    """The guard that this version ships."""
    return (Path(__file__).parent.parent / "native" / "guard" / "guard").read_bytes()


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What one launch consumes: names of `core.microvm.DESCRIPTORS` to sealed descriptors, and each one's digest."""

    files: Mapping[str, int]
    digests: Mapping[str, Digest]


class Qemu:
    """QEMU's microvm on this node."""

    name: str = microvm.QEMU

    def __init__(self, deployment: Deployment, images: Images) -> None:
        """FileNotFoundError or KernelMissing where something is not installed, naming it."""
        binary = shutil.which(BINARY, path=SEARCH)
        firmware = next((path for path in FIRMWARE if os.path.exists(path)), None)
        if binary is None or firmware is None:
            raise FileNotFoundError(f"{self.name}: no {BINARY if binary is None else 'bios-microvm.bin'} on this host")
        self._binary, self._firmware = os.path.realpath(binary), firmware
        self._kernel = Kernel(deployment.root, self.name)
        self._deployment, self._images = deployment, images
        self._separated = deployment.separated
        self._guard, self._init = sha256_hex(guard_bytes()), init_bytes()
        descriptor, self.digest = self._measured_binary()
        os.close(descriptor)
        self._firmware_sha256 = sha256_hex(self._read_firmware())
        self._accelerator = TCG
        self._libraries: tuple[Digest, ...] = ()

    @property
    def accelerator(self) -> str:
        """What machines run on: `kvm` or `tcg`."""
        return self._accelerator

    def _measured_binary(self) -> tuple[int, Digest]:
        descriptor = os.open(self._binary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "rb") as file:
                return descriptor, Digest(hashlib.file_digest(file, "sha256").hexdigest())
        except BaseException:
            os.close(descriptor)
            raise

    def _read_firmware(self) -> bytes:
        with open(self._firmware, "rb") as file:
            return file.read(MAX_FIRMWARE)

    async def start(self) -> None:
        """Boot a machine once, with the guard and no agent in it, and measure what QEMU runs of the host's libraries:
        under KVM where that works, else emulated. ValueError where neither does."""
        said = ""
        for accelerator in [KVM, TCG] if os.access(KVM_DEVICE, os.R_OK | os.W_OK) else [TCG]:
            self._accelerator = accelerator
            said = await self._boots()
            if not said:
                return
        raise ValueError(f"{self.name}: no machine boots here: {said}"[:MAX_SAID])

    async def _boots(self) -> str:
        """What went wrong with the trial; nothing if the guard became ready and the libraries are measured."""
        # No sandbox's user, lest the monitor take the trial for a sandbox without an entry; and nobody else's.
        uids = self._deployment.sandbox_uids
        uid, gid = (os.getuid(), os.getgid()) if uids is None else (uids.stop, uids.stop)
        try:
            prepared = await asyncio.to_thread(self._prepare_trial)
            mine, channel = socket.socketpair()
            with mine, channel:
                machine = await self._start(trial.CONFIG, prepared, channel, uid, gid, "")
        except (OSError, ValueError, MeasurementDiffers, FormatError) as error:
            return str(error)
        try:
            word = await machine.ready()
            if not isinstance(word, Ready):
                return word.text
            self._libraries = await asyncio.to_thread(trial.libraries_of, machine.pid)
            return ""
        finally:
            machine.kill()
            await machine.ended()

    def _prepare_trial(self) -> _Prepared:
        return self._seal(trial.CONFIG, *trial.disk(guard_bytes(), self._init, self._kernel.read()[1]))

    def facts(self) -> Mapping[str, Any]:
        """What the node says of this runtime when it starts."""
        done = subprocess.run([self._binary, "--version"], capture_output=True, timeout=START_S, check=False, env={})
        said = done.stdout.decode("utf-8", "replace").splitlines()
        kernel, *modules = self._kernel.digests.items()
        return {
            "accelerator": self._accelerator,
            "binary": self._binary,
            "sha256": self.digest,
            "version": "".join(char for char in (said[0] if said else "unknown") if char.isprintable())[:100],
            "guard_sha256": self._guard,
            "init_sha256": sha256_hex(self._init),
            "firmware_sha256": self._firmware_sha256,
            "kernel_sha256": kernel[1],
            "modules": {name.removesuffix(".ko"): digest for name, digest in modules},
            "libraries": [*self._libraries],
            "system": self._system(),
            "grouped": group.available(),
        }

    def _system(self) -> list[str]:
        return [name for name in SYSTEM if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")]

    def unenforced(self, config: Mapping[str, Any]) -> str | None:
        """The setting that this host can't enforce, and why."""
        setting = microvm.unenforced(config)
        if setting is not None:
            return setting
        if microvm.processors(config) > (os.cpu_count() or 1):
            return f"runtime.max_cpu: this host has {os.cpu_count()} processors"
        if group.available():
            return None
        if config["runtime"]["max_cpu"] % microvm.WHOLE_CORE:
            return "runtime.max_cpu: without a cgroup, which an ordinary user can't make, only whole cores are held"
        return None

    async def hold(self, order: Order) -> Machine:
        """A machine with the agent held by the guard. Raises HoldFailed."""
        try:
            manifest = parse_manifest(order.module)
            config = parse_configuration(order.config)
        except FormatError as error:
            raise HoldFailed("module", "sandbox-refused", str(error)) from error
        if (setting := self.unenforced(config)) is not None:
            raise HoldFailed("config", "setting-unenforced", setting)
        said = plan(config, manifest, order.nonce)
        prepared = await asyncio.to_thread(self._prepare, config, order, manifest.rootfs, said)
        try:
            machine = await self._start(config, prepared, order.channel, order.uid, order.gid, str(order.launch))
        except MeasurementDiffers as error:
            raise HoldFailed("runtime", "runtime-differs", str(error)) from error
        except (OSError, ValueError, FormatError) as error:
            raise HoldFailed("spawn", "sandbox-unavailable", f"{self.name}: {error}"[:MAX_SAID]) from error
        kernel, *kernel_modules = self._kernel.digests.items()
        seen = {name: prepared.digests[name] for name in ("kernel", "initrd", "firmware")}
        machine.facts = {
            "runtime_sha256": self.digest,
            "accelerator": self._accelerator,
            "libraries": [*self._libraries],
            "system": self._system(),
            "cgroup": self._group(str(order.launch)),
            "separated": self._separated,
            "groups": [] if self._separated else os.getgroups(),
            **seen,
        }
        machine.envelope = envelope(
            config,
            order.module,
            order.nonce,
            accelerator=self._accelerator,
            runtime_sha256=self.digest,
            guard_sha256=self._guard,
            init_sha256=sha256_hex(self._init),
            files=seen,
            modules={name.removesuffix(".ko"): digest for name, digest in kernel_modules},
        )
        return machine

    def _prepare(self, config: Mapping[str, Any], order: Order, rootfs: Digest, said: bytes) -> _Prepared:
        """Rule 1."""
        try:
            _, modules = self._kernel.read()
            entries = self._images.entries(rootfs)
            size = sum(entry.size for entry in entries if isinstance(entry, File))
            if (setting := microvm.unenforced(config, size)) is not None:
                raise HoldFailed("config", "setting-unenforced", setting)
            own = microvm.own_files(
                config, encoded=order.config, module=order.module, plan=said, init=self._init, modules=modules
            )
            with self._images.opened(rootfs) as (folder, guard):
                if guard != self._guard:
                    raise HoldFailed("image", "guard-differs", "the image holds another guard: load it again")
                return self._seal(config, *ramdisk.build(folder, entries, own))
        except (ImageRefused, DeploymentError, FormatError) as error:
            raise HoldFailed("image", "image-differs", str(error)) from error
        except MeasurementDiffers as error:
            raise HoldFailed("runtime", "runtime-differs", str(error)) from error
        except OSError as error:
            raise HoldFailed("spawn", "sandbox-unavailable", str(error)) from error

    def _seal(self, config: Mapping[str, Any], initrd: int, initrd_sha256: Digest) -> _Prepared:
        """The other memory files, beside the RAM disk's. Closes it where that fails."""
        files = {"initrd": initrd}
        digests = {"initrd": initrd_sha256}
        try:
            kernel, _ = self._kernel.read()
            firmware = self._read_firmware()
            if sha256_hex(firmware) != self._firmware_sha256:
                raise MeasurementDiffers(f"{self._firmware} changed since the node started")
            settings = microvm.qemu_settings(config, self._accelerator)
            for name, data in (("settings", settings), ("kernel", kernel), ("firmware", firmware)):
                files[name] = sealed_memfd(name, data)
                digests[name] = sha256_hex(data)
        except BaseException:
            for descriptor in files.values():
                os.close(descriptor)
            raise
        return _Prepared(files, digests)

    def _group(self, name: str) -> str:
        return f"{self._deployment.trust.control_group}/{name}" if name and group.available() else ""

    async def _start(
        self, config: Mapping[str, Any], prepared: _Prepared, channel: socket.socket, uid: int, gid: int, name: str
    ) -> Machine:
        """The machine, on its way up. Closes what was prepared. Raises OSError, ValueError, FormatError,
        MeasurementDiffers."""
        handed = dict(prepared.files)
        pairs: dict[str, tuple[socket.socket, socket.socket]] = {}
        path, made = self._group(name), ""
        binary = -1
        try:
            binary, digest = await asyncio.to_thread(self._measured_binary)
            if digest != self.digest:
                raise MeasurementDiffers(f"{self._binary} changed since the node started")
            pairs = {line: socket.socketpair() for line in ("control", "status", "console")}
            groups = group.create(path, microvm.group_limits(config)) if path else []
            made = path
            order: dict[str, Value] = {
                "argv": [*microvm.qemu_argv(self._accelerator)],
                "uid": uid,
                "gid": gid,
                "separated": self._separated,
                "kvm": self._accelerator == "kvm",
                "cores": [] if path else [*self._cores(config)],
                "limits": dict(microvm.qemu_limits(config)),
                "groups": [*groups],
            }
            targets = {microvm.DESCRIPTORS[item]: descriptor for item, descriptor in handed.items()}
            targets |= {microvm.DESCRIPTORS[line]: its.fileno() for line, (_, its) in pairs.items()}
            targets |= {microvm.DESCRIPTORS["channel"]: channel.fileno(), BINARY_FD: binary}
            pid = await start_enclosed(order, targets)
            lines = Lines(*(pairs[line][0] for line in ("control", "status", "console")))
            machine = Machine(pid, lines, self._seconds(config), lambda: group.remove(path))
        except BaseException:
            for mine, _ in pairs.values():
                mine.close()
            group.remove(made)
            raise
        finally:
            for _, its in pairs.values():
                its.close()
            for descriptor in (binary, *handed.values()):
                if descriptor >= 0:
                    os.close(descriptor)
        await machine.attach()
        return machine

    def _seconds(self, config: Mapping[str, Any]) -> float:
        return float(config["runtime"]["max_wall_clock"])

    def _cores(self, config: Mapping[str, Any]) -> list[int]:
        return sorted(os.sched_getaffinity(0))[: microvm.processors(config)]

    async def close(self) -> None:
        """End what is left of this node's machines, of an earlier node's too."""
        if group.available():
            await asyncio.to_thread(group.remove, self._deployment.trust.control_group)
