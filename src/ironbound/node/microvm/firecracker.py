"""Firecracker on this node: a jail, a machine with an agent in it, and its three connections.

Decides whether Firecracker can be had here, and in which order a machine comes to be: files into the jail, listeners,
the jailer, the API, the connections. What the jailer and the API are told is for `core/firecracker.py`; the machine's
life is `machine`'s. No machine of ours had the binary and a KVM that boots stock kernels: what is tested is everything
up to the jailer and the API's socket, and docs/runtimes.md says so.

The jailer closes every descriptor above 2 and Firecracker opens its files by name, so kernel and RAM disk lie in the
jail, written by root from bytes that were measured, and not writable for Firecracker. Its vsock gives new sockets, so
the agent's channel is passed on between the two by this process, byte for byte.

Rule 1: what lies in the jail was hashed from the bytes that were written; the jailer's copy of the binary is hashed
        before the machine starts.
Rule 2: whoever connects does so before the guard is asked for anything; a machine without its three connections is
        killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ironbound.core import firecracker, microvm
from ironbound.core.canonical import Digest, FormatError, sha256_hex
from ironbound.core.jailed import command, jailed_envelope
from ironbound.core.native import parse_manifest, plan
from ironbound.core.profile import parse_configuration
from ironbound.core.tree import File
from ironbound.node.microvm.bzimage import elf_kernel
from ironbound.node.native import cgroup
from ironbound.node.processes import kill, readable, reap, spawn
from ironbound.node.runtime import HoldFailed, Order
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.images import DIRECTORY, ImageRefused, Images, shipped_guard

from . import ramdisk
from .api import ApiRefused, configure
from .kernel import KERNEL, Kernel, MeasurementDiffers
from .machine import READY_SECONDS, Lines, Machine
from .qemu import init_bytes

SEARCH: Final = "/usr/local/bin:/usr/bin:/bin"
UNSHARE: Final = "unshare"
"""Of util-linux: the jailer itself makes no network, IPC and host name namespaces."""
KVM: Final = "/dev/kvm"
JAILS: Final = "jails"
JAILER_S: Final = 20.0
MAX_SAID: Final = 2000
CHUNK: Final = 65536

_PID: Final = re.compile(r"[1-9][0-9]{0,6}\n?")


def lacking(separated: bool) -> list[str]:
    """What this host lacks for Firecracker, in words; empty where it can be tried."""
    names = (firecracker.BINARY, firecracker.JAILER, UNSHARE)
    lacks = [f"the program {name}" for name in names if shutil.which(name, path=SEARCH) is None]
    if not os.access(KVM, os.R_OK | os.W_OK):
        lacks.append(KVM)
    if not separated:
        lacks.append("a node that is root, as the jailer has to be")
    return lacks


def _digest_of(path: str) -> Digest:
    with open(path, "rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def _which(name: str) -> str:
    found = shutil.which(name, path=SEARCH)
    if found is None:
        raise FileNotFoundError(name)
    return os.path.realpath(found)


async def relay(ours: socket.socket, guest: socket.socket) -> None:
    """Pass on whatever either says to the other; when the guest has ended, or this is cancelled, both are closed."""
    loop = asyncio.get_running_loop()

    async def pour(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := await loop.sock_recv(source, CHUNK):
                await loop.sock_sendall(target, part)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    inwards = asyncio.create_task(pour(ours, guest))
    try:
        await pour(guest, ours)
    finally:
        inwards.cancel()
        await asyncio.wait([inwards])
        ours.close()
        guest.close()


class _Jail:
    """The jail of one machine on disk, and the sockets at which the guest arrives."""

    def __init__(self, jail: firecracker.Jail) -> None:
        self.jail = jail
        self.root = Path(firecracker.jail_root(jail))
        os.makedirs(self.root, mode=0o755)
        self.folder = os.open(self.root, DIRECTORY)
        self.listeners: dict[str, socket.socket] = {}

    def path(self, name: str) -> str:
        """A short path for a socket's name, however long the deployment's own is."""
        return f"/proc/self/fd/{self.folder}/{name}"

    def put(self, name: str, data: bytes | int) -> None:
        """A file of root's that Firecracker can read; a descriptor's bytes from their begin."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o444, dir_fd=self.folder), "wb") as file:
            if isinstance(data, bytes):
                file.write(data)
                return
            os.lseek(data, 0, os.SEEK_SET)
            while part := os.read(data, CHUNK):
                file.write(part)

    def listen(self) -> None:
        """The sockets to which Firecracker connects for the guest."""
        for port in microvm.PORTS:
            endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listeners[port] = endpoint
            path = self.path(firecracker.listening(port))
            endpoint.bind(path)
            os.chmod(path, 0o600)
            os.chown(path, self.jail.uid, self.jail.gid)
            endpoint.listen(1)
            endpoint.setblocking(False)

    def pid(self) -> int:
        """Firecracker's pid as the jailer wrote it. ValueError."""
        said = (self.root / firecracker.pid_file(self.jail)).read_text("ascii")
        if _PID.fullmatch(said) is None:
            raise ValueError(f"the jailer's pid file: expected a number, got {said[:20]!r}")
        return int(said)

    def close(self) -> None:
        """Let go of sockets and folder; the jail stays."""
        for endpoint in self.listeners.values():
            endpoint.close()
        self.listeners = {}
        if self.folder >= 0:
            os.close(self.folder)
            self.folder = -1


def sweep(jail: firecracker.Jail) -> None:
    """Remove what a machine that has ended leaves on the host: its jail and its cgroups."""
    cgroup.empty(f"/{jail.parent}/{jail.name}")
    shutil.rmtree(Path(firecracker.jail_root(jail)).parent, ignore_errors=True)


class Firecracker:
    """Firecracker behind its jailer."""

    name: str = microvm.FIRECRACKER

    def __init__(self, deployment: Deployment, images: Images) -> None:
        """FileNotFoundError where the host lacks something, naming all of it; KernelMissing; FormatError."""
        if lacks := lacking(deployment.separated):
            raise FileNotFoundError(f"{self.name}: not tested on this host, which lacks {', '.join(lacks)}")
        self._kernel = Kernel(deployment.root, self.name)
        self._vmlinux = elf_kernel(self._kernel.read()[0])
        self._vmlinux_sha256 = sha256_hex(self._vmlinux)
        self._deployment, self._images = deployment, images
        self._guard, self._init = sha256_hex(shipped_guard()), init_bytes()
        self._binary, self._jailer, self._unshare = (
            _which(one) for one in (firecracker.BINARY, firecracker.JAILER, UNSHARE)
        )
        self.digest = _digest_of(self._binary)
        self._jailer_sha256 = _digest_of(self._jailer)
        self._relays: set[asyncio.Task[None]] = set()

    def facts(self) -> Mapping[str, Any]:
        """What the node says of this runtime when it starts."""
        return {
            "accelerator": "kvm",
            "binary": self._binary,
            "sha256": self.digest,
            "jailer_sha256": self._jailer_sha256,
            "guard_sha256": self._guard,
            "init_sha256": sha256_hex(self._init),
            "vmlinux_sha256": self._vmlinux_sha256,
            "kernel": dict(self._kernel.digests),
        }

    def unenforced(self, config: Mapping[str, Any]) -> str | None:
        """The setting that this host can't enforce, and why."""
        if (setting := microvm.unenforced(config) or firecracker.unenforced(config)) is not None:
            return setting
        if (absent := cgroup.missing()) is not None:
            return f"runtime.{absent[0]}: {absent[1]}"
        if firecracker.processors(config) > (os.cpu_count() or 1):
            return f"runtime.max_cpu: this host has {os.cpu_count()} processors"
        return None

    async def hold(self, order: Order) -> Machine:
        """A machine with the agent held by the guard. Raises HoldFailed."""
        try:
            manifest = parse_manifest(order.module)
            config: dict[str, Any] = parse_configuration(order.config)
            if (setting := self.unenforced(config)) is not None:
                raise HoldFailed("config", "setting-unenforced", setting)
            said = plan(config, manifest, order.nonce)
            asked = firecracker.requests(config)
            jail = self._jail(order)
            argv = command(config, self._unshare, jail)
        except FormatError as error:
            raise HoldFailed("module", "sandbox-refused", str(error)) from error
        initrd, initrd_sha256 = await asyncio.to_thread(self._ramdisk, config, order, manifest.rootfs, said)
        seconds = float(config["runtime"]["max_wall_clock"])
        console, its_console = socket.socketpair()
        try:
            machine = await self._start(jail, argv, asked, initrd, order.channel, (console, its_console), seconds)
        except (OSError, ValueError, ApiRefused, MeasurementDiffers) as error:
            text = f"{self.name}: {error}: {_said(console)}"
            console.close()
            await asyncio.to_thread(sweep, jail)
            if isinstance(error, MeasurementDiffers):
                raise HoldFailed("runtime", "runtime-differs", str(error)) from error
            raise HoldFailed("spawn", "sandbox-unavailable", text[:MAX_SAID]) from error
        finally:
            os.close(initrd)
        machine.facts = {"runtime_sha256": self.digest, "cgroup": f"/{jail.parent}/{jail.name}"}
        machine.envelope = jailed_envelope(
            config,
            order.module,
            order.nonce,
            unshare=self._unshare,
            jail=jail,
            digests={
                "runtime_sha256": self.digest,
                "jailer_sha256": self._jailer_sha256,
                "guard_sha256": self._guard,
                "init_sha256": sha256_hex(self._init),
            },
            files={firecracker.KERNEL: self._vmlinux_sha256, firecracker.INITRD: initrd_sha256},
            modules={
                name.removesuffix(".ko"): digest for name, digest in self._kernel.digests.items() if name != KERNEL
            },
        )
        return machine

    def _jail(self, order: Order) -> firecracker.Jail:
        base = str(self._deployment.root / JAILS)
        parent = self._deployment.trust.control_group.removeprefix("/")
        return firecracker.Jail(
            self._jailer, self._binary, base, str(order.launch), order.uid, order.gid, parent,
            cgroup.is_unified(),
        )  # fmt: skip

    def _ramdisk(self, config: Mapping[str, Any], order: Order, rootfs: Digest, said: bytes) -> tuple[int, Digest]:
        """The RAM disk's sealed descriptor and its digest. Raises HoldFailed."""
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
                return ramdisk.build(folder, entries, own)
        except (ImageRefused, DeploymentError, FormatError) as error:
            raise HoldFailed("image", "image-differs", str(error)) from error
        except MeasurementDiffers as error:
            raise HoldFailed("runtime", "runtime-differs", str(error)) from error
        except OSError as error:
            raise HoldFailed("spawn", "sandbox-unavailable", str(error)) from error

    async def _start(
        self, jail: firecracker.Jail, argv: tuple[str, ...], asked: tuple[firecracker.Request, ...], initrd: int,
        channel: socket.socket, consoles: tuple[socket.socket, socket.socket], seconds: float,
    ) -> Machine:  # fmt: skip
        """The machine with its connections. Closes `consoles` but for ours where it fails. Raises OSError, ValueError,
        ApiRefused, MeasurementDiffers."""
        console, its_console = consoles
        pid, arrived = 0, dict[str, socket.socket]()
        with _opened(jail) as place:
            try:
                with its_console:
                    await asyncio.to_thread(self._fill, place, initrd)
                    pid = await self._jailed(place, argv, its_console)
                if await asyncio.to_thread(_digest_of, str(place.root / Path(jail.binary).name)) != self.digest:
                    raise MeasurementDiffers("the binary in the jail is not the one that was measured")
                await configure(place.path(firecracker.API_SOCKET), asked)
                await _arrivals(place.listeners, pid, arrived)
                lines = Lines(arrived["control"], arrived["status"], console)
                machine = Machine(pid, lines, seconds, lambda: sweep(jail))
            except BaseException:
                for endpoint in arrived.values():
                    endpoint.close()
                if pid:
                    await _killed(pid)
                raise
        ours = channel.dup()
        ours.setblocking(False)
        task = asyncio.create_task(relay(ours, arrived["channel"]))
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        await machine.attach()
        return machine

    def _fill(self, place: _Jail, initrd: int) -> None:
        place.put(firecracker.KERNEL, self._vmlinux)
        place.put(firecracker.INITRD, initrd)
        place.listen()

    async def _jailed(self, place: _Jail, argv: tuple[str, ...], console: socket.socket) -> int:
        """Firecracker's pid once the jailer has handed over to it. Raises OSError, ValueError, MeasurementDiffers."""
        for path, digest in ((self._binary, self.digest), (self._jailer, self._jailer_sha256)):
            if await asyncio.to_thread(_digest_of, path) != digest:
                raise MeasurementDiffers(f"{path} changed since the node started")
        with open("/dev/null", "rb") as null:
            helper = spawn(argv, {0: null.fileno(), 1: console.fileno(), 2: console.fileno()})
        async with _waiting(helper) as pidfd, asyncio.timeout(JAILER_S):
            await readable(pidfd)
        status = reap(helper)
        if status is None or status.code != 0:
            raise ValueError(f"the jailer ended with {'no status' if status is None else status.code}")
        return place.pid()

    async def close(self) -> None:
        """End what is left of this runtime's machines, of an earlier node's too, with their jails."""
        for task in list(self._relays):
            task.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        await asyncio.to_thread(cgroup.empty, self._deployment.trust.control_group)
        await asyncio.to_thread(shutil.rmtree, self._deployment.root / JAILS, ignore_errors=True)


@contextmanager
def _opened(jail: firecracker.Jail) -> Iterator[_Jail]:
    place = _Jail(jail)
    try:
        yield place
    finally:
        place.close()


@contextlib.asynccontextmanager
async def _waiting(pid: int) -> AsyncIterator[int]:
    """A pidfd of a child, which is killed where it is not waited for to the end."""
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        kill(pidfd)
        os.close(pidfd)


async def _killed(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            kill(pidfd)
            await readable(pidfd)
        finally:
            os.close(pidfd)
        reap(pid)


async def _arrivals(listeners: Mapping[str, socket.socket], pid: int, arrived: dict[str, socket.socket]) -> None:
    """The guest's connections by port, into `arrived`. ValueError where Firecracker ends first or none comes."""
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(pid)
    end = asyncio.ensure_future(readable(pidfd))
    waiting: list[asyncio.Future[Any]] = [end]
    port = ""
    try:
        async with asyncio.timeout(READY_SECONDS):
            for port, listener in listeners.items():
                coming = asyncio.ensure_future(loop.sock_accept(listener))
                waiting.append(coming)
                await asyncio.wait([coming, end], return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    raise ValueError(f"it ended before its guest opened the {port} connection")
                arrived[port] = coming.result()[0]
                arrived[port].setblocking(False)
    except TimeoutError:
        raise ValueError(f"expected the guest's {port} connection within {READY_SECONDS:.0f} s") from None
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)  # none of them may look at a descriptor that is closed, and soon another's
        os.close(pidfd)


def _said(console: socket.socket) -> str:
    """What the jailer, Firecracker and the guest's kernel wrote, as one line."""
    console.setblocking(False)
    try:
        data = console.recv(CHUNK)
    except OSError:
        return ""
    text = " ".join(data.decode("utf-8", "replace").split())
    return "".join(char for char in text if char.isprintable())
