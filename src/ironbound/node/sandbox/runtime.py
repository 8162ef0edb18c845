"""Wasmtime behind the node's one interface: holds a module or a component in a worker forked from the zygote.

Decides nothing that the zygote and the worker don't.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError, Value, canonical, sha256_hex
from ironbound.node.runtime import HoldFailed, Order
from ironbound.wire.deployment import DeploymentError

from .launcher import SpawnFailed, Worker, Zygote, ZygoteFacts, ZygoteLost

_LIBRARY: Final = "_libwasmtime.so"


def runtime_digest() -> Digest:
    """SHA-256 of the Wasm runtime's shared library, as installed."""
    package = Path(str(resources.files("wasmtime")))
    found = sorted(package.rglob(_LIBRARY))
    if len(found) != 1:
        raise DeploymentError(f"expected one {_LIBRARY} in {package}, found {len(found)}")
    return sha256_hex(found[0].read_bytes())


class Wasmtime:
    """The zygote and what it measured of itself."""

    def __init__(self, zygote: Zygote, measured: ZygoteFacts) -> None:
        self.name = "wasmtime"
        self._zygote = zygote
        self.measured = measured
        self.digest = runtime_digest()

    @classmethod
    async def start(cls) -> Wasmtime:
        """Start the zygote. DeploymentError where it does not start."""
        zygote = Zygote()
        try:
            return cls(zygote, await zygote.start())
        except ZygoteLost as error:
            raise DeploymentError(f"zygote: {error}") from error

    def facts(self) -> Mapping[str, Any]:
        """What the zygote measured of itself."""
        measured = self.measured
        return {
            "sha256": self.digest,
            "zygote_pid": measured.pid,
            "zygote_start": measured.pid_start,
            "namespaces": dict(measured.namespaces),
            "exe": measured.exe,
            "mappings": list(measured.mappings),
            "landlock_abi": measured.landlock_abi,
        }

    def unenforced(self, config: Mapping[str, Any]) -> str | None:
        """Nothing: the worker enforces each of its settings on every host on which it starts."""
        return None

    async def hold(self, order: Order) -> Worker:
        """A worker with the module compiled and held. Raises HoldFailed."""
        start = "" if order.nonce is None else canonical({"nonce": order.nonce}).decode()
        try:
            worker = await self._zygote.spawn(
                order.launch, order.uid, order.gid, order.config, order.module, order.channel.fileno(), start
            )
        except (SpawnFailed, ZygoteLost, OSError, FormatError) as error:
            raise HoldFailed("spawn", "sandbox-unavailable", str(error)) from error
        measured = self.measured
        fds: dict[str, Value] = {"3": sha256_hex(order.config), "4": sha256_hex(order.module)}
        worker.envelope = {
            "version": 1,
            "runtime": self.name,
            "runtime_sha256": self.digest,
            "argv": [],
            "fds": fds,
            "start": start,
            "place": {"gid": order.gid, "uid": order.uid, "zygote": measured.pid},
        }
        worker.facts = {
            "exe": measured.exe,
            "mappings": list(measured.mappings),
            "namespaces": dict(measured.namespaces),
            "groups": list(measured.groups),
            "bounding": measured.bounding,
        }
        return worker

    async def lost(self) -> None:
        """Wait until the zygote ended, and raise that."""
        await self._zygote.lost.wait()
        raise DeploymentError("the zygote ended; the node starts anew")

    async def close(self) -> None:
        """End the zygote and with it every worker."""
        await self._zygote.close()
