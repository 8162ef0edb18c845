"""bubblewrap, runc, crun and gVisor: one way to hold an agent in a container, from the bytes that were approved.

Decides how a runtime is called and when a container counts as held; what the call is, follows purely in
`core/container.py`. The guard inside tells the digests that it consumed and what its probes met.

Rule 1: what a launch consumes is sealed in memory files before the runtime starts: configuration, manifest, plan, and
        the runtime's own arguments. What lies on disk (runtime, image) is compared with its digest just before.
Rule 2: a runtime's binary that changed since the node started is not called, nor a program that starts it, nor any
        whose libraries changed (`programs`).
Rule 3: a container ends by SIGKILL to its first process, whose pid namespace ends with it, and by the cgroup's being
        emptied.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError, parse_json, sha256_hex
from ironbound.core.container import HYBRID, MASKED, READ_ONLY, STARTERS, Place, arguments, command, envelope
from ironbound.core.native import parse_manifest, plan, variables
from ironbound.core.profile import parse_configuration
from ironbound.node.processes import children, describe, kill, readable, reap, spawn
from ironbound.node.runtime import HoldFailed, Order
from ironbound.node.sandbox.memfd import sealed_memfd
from ironbound.wire.deployment import Deployment
from ironbound.wire.images import ImageRefused, Images

from . import cgroup
from .cell import ContainerCell
from .programs import Programs

BINARIES: Final[Mapping[str, str]] = {"bubblewrap": "bwrap", "runc": "runc", "crun": "crun", "gvisor": "runsc"}
SEARCH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_S: Final = 20.0
MAX_SAID: Final = 2000
"""Characters of a runtime's own error that a refusal keeps."""


def guard_bytes() -> bytes:
    """The guard that this version ships."""
    return (Path(__file__).parent / "guard" / "guard").read_bytes()


class Container:
    """One container runtime of this node."""

    def __init__(self, name: str, deployment: Deployment, images: Images) -> None:
        binary = shutil.which(BINARIES[name], path=SEARCH)
        if binary is None:
            raise FileNotFoundError(f"{name}: no {BINARIES[name]} in {SEARCH}")
        self.name = name
        self._binary = os.path.realpath(binary)
        self._hybrid = os.path.ismount("/sys/fs/cgroup/unified")
        before = STARTERS if name == "bubblewrap" else (HYBRID[0], HYBRID[2]) if name == "crun" and self._hybrid else ()
        self._programs = Programs((self._binary, *before))
        self.digest = self._programs.digest
        self._deployment = deployment
        self._images = images
        self._guard = sha256_hex(guard_bytes())
        self._masks = [path for path in sorted((*MASKED, *READ_ONLY)) if os.path.exists(path)]

    def facts(self) -> Mapping[str, Any]:
        """What the node says of this runtime when it starts: binary, digest, libraries by place, version,
        guard, and hidden paths."""
        return {
            "binary": self._binary,
            "sha256": self.digest,
            "libraries": dict(self._programs.libraries),
            "version": self._version(),
            "guard_sha256": self._guard,
            "masks": self._own_masks(),
        }

    def _version(self) -> str:
        done = subprocess.run([self._binary, "--version"], capture_output=True, timeout=START_S, check=False, env={})
        said = done.stdout.decode("utf-8", "replace").splitlines()
        return "".join(char for char in (said[0] if said else "unknown") if char.isprintable())[:100]

    def _own_masks(self) -> list[str]:
        return list(self._masks) if self.name in ("runc", "crun") else []

    def unenforced(self, config: Mapping[str, Any]) -> str | None:
        """The setting that this host can't enforce, and why."""
        if self.name == "bubblewrap":
            return None
        if os.getuid() != 0:
            return f"runtime.max_memory: {self.name} needs a cgroup, which an ordinary user can't make"
        missing = cgroup.missing()
        return None if missing is None else f"runtime.{missing[0]}: {missing[1]}"

    def _place(self, order: Order, rootfs: Digest) -> Place:
        deployment = self._deployment
        name = deployment.trust.deployment
        folder = deployment.root.resolve() / "run" / "node" / f"{name}-{order.launch}"
        group = "" if self.name == "bubblewrap" else f"{deployment.trust.control_group}/{order.launch}"
        image = str(self._images.path(rootfs).resolve())
        return Place(image, str(folder), order.uid, order.gid, deployment.separated, group)

    async def hold(self, order: Order) -> ContainerCell:
        """A container with the agent held by the guard. Raises HoldFailed."""
        try:
            manifest = parse_manifest(order.module)
            config = parse_configuration(order.config)
        except FormatError as error:
            raise HoldFailed("module", "sandbox-refused", str(error)) from error
        if (setting := self.unenforced(config)) is not None:
            raise HoldFailed("config", "setting-unenforced", setting)
        measured = asyncio.ensure_future(asyncio.to_thread(self._measure, manifest.rootfs))
        try:  # meanwhile
            place = self._place(order, manifest.rootfs)
            argv = command(config, self._binary, place, self._cores(config, order.launch))
            if self.name == "crun" and self._hybrid:
                argv = [*HYBRID, *argv]
            says = envelope(
                config,
                order.module,
                order.nonce,
                place,
                argv=argv,
                runtime_sha256=self.digest,
                guard_sha256=self._guard,
            )
            given = {
                "config": order.config,
                "module": order.module,
                "plan": plan(config, manifest, order.nonce),
                "arguments": arguments(config, place),
            }
        finally:
            await measured
        cell = await self._start(order, place, argv, given, config)
        cell.envelope = says
        cell.facts = {
            "guard": self._guard,
            "runtime_sha256": self.digest,
            "rootfs_sha256": manifest.rootfs,
            "cgroup": place.cgroup,
            "masks": self._own_masks(),
            "variables": [*variables(manifest, order.nonce)],
        }
        return cell

    def _measure(self, rootfs: Digest) -> None:
        """Rules 1 and 2: the runtime is the one measured, the image the one approved, its guard the one shipped."""
        self._programs.check()
        try:
            guard = self._images.verify(rootfs)
        except ImageRefused as error:
            raise HoldFailed("image", "image-differs", str(error)) from error
        if guard != self._guard:
            raise HoldFailed("image", "guard-differs", "the image holds another guard: load it again and approve it")

    def _cores(self, config: Mapping[str, Any], launch: int) -> str:
        """The processors that bubblewrap's agents are pinned to, in turn."""
        have = sorted(os.sched_getaffinity(0))
        count = max(1, config["runtime"]["max_cpu"] // 100)
        return ",".join(str(have[(launch + at) % len(have)]) for at in range(min(count, len(have))))

    async def _start(
        self, order: Order, place: Place, argv: Sequence[str], given: Mapping[str, bytes], config: Mapping[str, Any]
    ) -> ContainerCell:
        folder = Path(place.cell)
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        files: dict[str, int] = {}
        helper = -1
        try:
            with its:
                for name, data in given.items():
                    files[name] = sealed_memfd(name, data)
                channel = order.channel.fileno()
                handed = {0: channel, 1: channel, 2: its.fileno(), 3: files["config"], 4: files["module"],
                          5: files["plan"]}  # fmt: skip
                if self.name == "bubblewrap":
                    helper, pid = await self._bubblewrap(argv, handed | {6: files["arguments"]})
                else:
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir(mode=0o700)
                    # Each opens it once, and gets what is sealed behind the kernel's own link.
                    os.symlink(f"/proc/{os.getpid()}/fd/{files['arguments']}", folder / "config.json")
                    pid = await self._oci(argv, handed, folder)
            seconds = float(config["runtime"]["max_wall_clock"])
            return ContainerCell(pid, helper if helper > 0 else None, mine, seconds, place, self.name)
        except (OSError, FormatError, ValueError) as error:
            said = _said(mine) or str(error)
            mine.close()
            await asyncio.to_thread(self._abandon, place, helper)
            raise HoldFailed("spawn", "sandbox-unavailable", f"{self.name}: {said}"[:MAX_SAID]) from error
        finally:
            for descriptor in files.values():
                os.close(descriptor)

    def _abandon(self, place: Place, helper: int) -> None:
        if helper > 0:
            # Its child may not have asked yet to die with it, and waits for it then: both are ended.
            inside = [os.pidfd_open(one) for one in children(helper)]
            with contextlib.suppress(ProcessLookupError):
                os.kill(helper, signal.SIGKILL)  # our own child, not reaped yet: the number is its
            for pidfd in inside:
                kill(pidfd)
                os.close(pidfd)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(helper, 0)  # what is not reaped counts against its user's processes
        if place.cgroup:
            cgroup.empty(place.cgroup)
        shutil.rmtree(place.cell, ignore_errors=True)

    async def _bubblewrap(self, argv: Sequence[str], handed: Mapping[int, int]) -> tuple[int, int]:
        """Our child, and its child, which is the first process of the container."""
        read, write = os.pipe()
        try:
            try:
                helper = spawn(argv, {**handed, 7: write})
            finally:
                os.close(write)
            said = b""
            async with asyncio.timeout(START_S):
                while b"}" not in said:  # it comes in pieces
                    await readable(read)
                    part = os.read(read, 4096)
                    if not part:
                        break
                    said += part
            status = parse_json(said, limit=4096)
        finally:
            os.close(read)
        pid = status.get("child-pid") if isinstance(status, dict) else None
        if type(pid) is not int:
            raise ValueError("it named no child")
        return helper, pid

    async def _oci(self, argv: Sequence[str], handed: Mapping[int, int], folder: Path) -> int:
        pid = spawn(argv, handed)
        pidfd = os.pidfd_open(pid)
        try:
            async with asyncio.timeout(START_S):
                await readable(pidfd)
        except TimeoutError:
            kill(pidfd)
            raise
        finally:
            os.close(pidfd)
            status = reap(pid)
        if status is None or status.code != 0:
            raise ValueError("it failed" if status is None else describe(status.code))
        return int((folder / "pid").read_text("ascii"))

    async def close(self) -> None:
        """End what is left of this runtime's containers, of an earlier node's too."""
        if self.name != "bubblewrap" and os.getuid() == 0:
            await asyncio.to_thread(cgroup.empty, self._deployment.trust.control_group)


def _said(control: socket.socket) -> str:
    """What a runtime that failed wrote on its standard error, as one line."""
    control.setblocking(False)
    try:
        data = control.recv(65536)
    except OSError:
        return ""
    text = " ".join(data.decode("utf-8", "replace").split())
    return "".join(char for char in text if char.isprintable())
