"""One launch from its admission in the log to its exit in the log.

Decides whether the node runs it: everything is checked again here, from the node's own replay of the log, where the
humans' signatures were verified; the controller's word counts for nothing.

The order, and each step waits for the one before:
(1) the admission stands in the log, unexpired, not stopped, and this release on this host may run it
(2) configuration and module by their digests
(3) a sandbox is built and held; it tells the digests that it consumed  (4) the monitor looked at it, and signed that it
differs in nothing  (5) `started`, which carries that look, is in the log  (6) the gateway holds the other end of the
pipe, which it may have taken since (3) but serves from (5) on  (7) the agent's first instruction  (8) `exited` is in
the log.

Rule 1: no step is skipped, for canaries neither; what fails ends the launch, with an entry that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ironbound.core.authority import ADMITTED, STARTED
from ironbound.core.cage import expected_cage
from ironbound.core.canary import verdict
from ironbound.core.canonical import Digest, FormatError, Value, canonical, parse_canonical
from ironbound.core.profile import MAX_CONFIG_BYTES
from ironbound.core.reasons import REASONS
from ironbound.core.replay import Entry, Launch
from ironbound.core.statement import Subject
from ironbound.core.tpm import measured, qualifying
from ironbound.wire.deployment import SANDBOX_SLOTS, Deployment, DeploymentError
from ironbound.wire.frames import receive_frame
from ironbound.wire.log import Log, LogUnavailable, now_ms

from .look import look
from .runtime import Cell, Ended, HoldFailed, Order, Ready, Refused, Runtime
from .tpm import Tpm, TpmError

GATEWAY_TIMEOUT_S: Final = 10.0
#: How long a launch waits for the monitor to measure a service that has just started.
MEASURED_WITHIN_MS: Final = 10_000
#: The digest of a runtime that this host lacks.
NOBODY: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Host:
    """What the node has: its runtimes by name, why the others can't be had, and what it measured of itself once."""

    runtimes: Mapping[str, Runtime]
    unavailable: Mapping[str, str]
    boot: str
    release: Digest
    tpm: Tpm | None

    def facts(self) -> dict[str, Value]:
        """What the node says of its host when it starts."""
        return {
            "runtimes": {name: dict(runtime.facts()) for name, runtime in self.runtimes.items()},
            "unavailable": dict(self.unavailable),
        }

    def runtime_of(self, config: Value) -> Runtime:
        """The runtime that a configuration names. HoldFailed where this host lacks it."""
        part = config.get("runtime") if isinstance(config, dict) else None
        name = str(part.get("type")) if isinstance(part, dict) else ""
        if name not in self.runtimes:
            why = self.unavailable.get(name, "no such runtime")
            raise HoldFailed("runtime", "runtime-unavailable", f"{name}: {why}"[:1000])
        return self.runtimes[name]


class Launches:
    """All launches of this node; `admitted` begins one, `stop` ends one."""

    def __init__(self, deployment: Deployment, log: Log, host: Host) -> None:
        self._deployment = deployment
        self._log = log
        self._host = host
        self._cells: dict[int, Cell] = {}
        self._stopped: dict[int, str] = {}
        self._slots: set[int] = set()
        self._monitor = deployment.socket("monitor")
        self._gateway = deployment.socket("gateway")
        self._begun: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Fails when a launch could not be carried through to its last entry: the node must not go on.
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def admitted(self, launch: Launch) -> None:
        """Begin a launch that the log admits, once."""
        if launch.index in self._begun:
            return
        self._begun.add(launch.index)
        task = asyncio.create_task(self._whole(launch))
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not self.failed.done():
            self.failed.set_exception(task.exception() or RuntimeError("no cause"))

    def stop(self, launch: int, why: str) -> None:
        """Kill the launch's process if it has one; a launch on its way will not get one."""
        self._stopped.setdefault(launch, why)
        cell = self._cells.get(launch)
        if cell is not None:
            cell.kill()

    def stop_agent(self, agent: str, why: str) -> None:
        """The same for all launches of an agent that are not over."""
        for launch in self._log.replay.books.launches.values():
            if launch.agent == agent and launch.ended < 0:
                self.stop(launch.index, why)

    def stop_undone(self, why: str) -> None:
        """The same for all launches that the log ordered to stop."""
        for launch in self._log.replay.books.launches.values():
            if launch.ended < 0 and self._log.replay.authority.read("launch_stopped", launch.index):
                self.stop(launch.index, why)

    async def close(self) -> None:
        """Kill every process, and wait until their exits are logged (10 s at most)."""
        for launch in list(self._cells):
            self.stop(launch, "node-stopping")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10.0)
        for task in list(self._tasks):
            task.cancel()

    async def _whole(self, launch: Launch) -> None:
        try:
            await self._begin(launch)
        except HoldFailed as failure:
            await self._refuse(launch, failure)

    async def _begin(self, launch: Launch) -> None:
        if launch.index in self._stopped:
            raise HoldFailed("admission", "launch-stopped", "stopped before it started")
        if now_ms() >= launch.expires_ms:  # (1)
            raise HoldFailed("admission", "request-expired", "the request expired before the launch")
        ahead = self._log.replay.ahead(now_ms())
        if ahead is not None:
            raise HoldFailed("admission", ahead, REASONS[ahead])
        await self._require_host()
        try:  # (2)
            config = self._deployment.artifact(launch.config)
            module = self._deployment.artifact(launch.module)
        except DeploymentError as error:
            raise HoldFailed("artifacts", "artifact-missing", str(error)) from error
        runtime = self._host.runtime_of(_parsed(config))
        slot = self._slot()
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with mine:
                with its:
                    cell = await self._hold(launch, runtime, slot, config, module, its)
                try:
                    await self._held(launch, runtime, cell, slot, config, mine)
                finally:
                    cell.kill()
        finally:
            self._slots.discard(slot)
            self._cells.pop(launch.index, None)

    async def _require_host(self) -> None:
        """This node runs what a quorum approved, and the monitor measured every service as it runs now."""
        replay, deadline = self._log.replay, now_ms() + MEASURED_WITHIN_MS
        while replay.host_refused() == "host-not-measured" and now_ms() < deadline:
            await asyncio.sleep(0.05)
        why = replay.host_refused()
        if why is None and replay.trust.release is not None:
            why = None if replay.authority.read("release", replay.books.release) else "release-not-approved"
        if why is not None:
            raise HoldFailed("host", why, REASONS[why])

    def _slot(self) -> int:
        for slot in range(SANDBOX_SLOTS):
            if slot not in self._slots:
                self._slots.add(slot)
                return slot
        raise HoldFailed("admission", "node-full", f"{SANDBOX_SLOTS} agents run here already")

    def _uid(self, slot: int) -> int:
        uids = self._deployment.sandbox_uids
        return os.getuid() if uids is None else uids[slot]

    def _gid(self, slot: int) -> int:
        return self._uid(slot) if self._deployment.separated else os.getgid()

    async def _hold(
        self, launch: Launch, runtime: Runtime, slot: int, config: bytes, module: bytes, channel: socket.socket
    ) -> Cell:
        order = Order(launch.index, self._uid(slot), self._gid(slot), config, module, channel, launch.nonce)
        cell = await runtime.hold(order)
        self._cells[launch.index] = cell
        return cell

    async def _held(
        self, launch: Launch, runtime: Runtime, cell: Cell, slot: int, config: bytes, channel: socket.socket
    ) -> None:
        word = await cell.ready()  # (3)
        if isinstance(word, Refused):
            await cell.ended()
            raise HoldFailed(word.stage, "sandbox-refused", word.text)
        taking = asyncio.create_task(self._connect(launch, channel))  # (6) is begun
        try:
            failure = self._wrong(launch, word)
            if failure is not None:
                raise failure
            entry = await self._say_started(launch, self._account(launch, runtime, cell, slot, config, word))
            why = await taking if launch.index not in self._stopped else None  # (6)
        except HoldFailed:
            cell.kill()
            await cell.ended()
            raise
        finally:
            taking.cancel()
            channel.close()
        if why is not None:
            self._stopped.setdefault(launch.index, why)
        if launch.index not in self._stopped:
            await cell.release()  # (7)
        await self._say_exited(launch, entry.index, await cell.ended())  # (8)

    def _wrong(self, launch: Launch, word: Ready) -> HoldFailed | None:
        if word.config_sha256 != launch.config:
            return HoldFailed("config", "config-differs", f"the sandbox consumed {word.config_sha256}")
        if word.module_sha256 != launch.module:
            return HoldFailed("module", "module-differs", f"the sandbox consumed {word.module_sha256}")
        if word.surface_sha256 != self._log.replay.books.modules[launch.module].surface:
            text = f"the sandbox read the surface {word.surface_sha256} in the module"
            return HoldFailed("module", "surface-differs", text)
        for probe in word.probes:
            if probe.verdict != "REFUSED":
                return HoldFailed("probe", "probe-not-refused", f"{probe.name}: {probe.verdict}: {probe.refusal}")
        if launch.index in self._stopped:
            return HoldFailed("admission", "launch-stopped", "stopped before it started")
        return None

    def _account(
        self, launch: Launch, runtime: Runtime, cell: Cell, slot: int, config: bytes, word: Ready
    ) -> dict[str, Any]:
        """What the node says of the held sandbox: what the monitor looks at it with, and what `started` says."""
        uid = self._uid(slot)
        expected = expected_cage(
            _parsed(config),
            {
                "uid": uid,
                "gid": self._gid(slot),
                "module_sha256": word.module_sha256,
                "config_sha256": word.config_sha256,
                "filters_visible": self._deployment.separated,
                **cell.facts,
            },
        )
        return {
            "launch": launch.index,
            "agent": launch.agent,
            "module_sha256": word.module_sha256,
            "config_sha256": word.config_sha256,
            "runtime": runtime.name,
            "runtime_sha256": runtime.digest,
            "envelope": dict(cell.envelope),
            "pid": cell.pid,
            "pid_start": cell.pid_start,
            "boot_id": self._host.boot,
            "uid": uid,
            "posture": expected,
            "probes": [
                {"name": one.name, "verdict": one.verdict, "refusal": one.refusal[:1000]} for one in word.probes
            ],
        }

    async def _say_started(self, launch: Launch, account: Mapping[str, Any]) -> Entry:
        """Steps (4) and (5). Raises HoldFailed."""
        deployment = self._deployment
        try:
            held = await look(self._monitor, deployment.uid("monitor"), deployment.trust, account)  # (4)
            said = {**account, "held": held}
        finally:
            if launch.index in self._stopped:  # there is nothing to look at any more
                raise HoldFailed("admission", "launch-stopped", "stopped before it started")
        try:
            said["quote"] = await self._quote("started", launch, said)
        except TpmError as error:
            raise HoldFailed("tpm", "tpm-unavailable", str(error)) from error
        subjects = (Subject("module", launch.module), Subject("profile", launch.config))
        entry = await self._log.append("started", subjects, said)  # (5)
        if entry.void is not None:
            raise HoldFailed("admission", entry.void, "the log does not let it start")
        return entry

    async def _quote(self, kind: str, launch: Launch, said: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The TPM's quote over what is about to be said, None where no key is enrolled. TpmError if it gives none."""
        if self._host.tpm is None:
            return None
        measurement = measured(kind, said)
        root = self._log.replay.tree.root_at(launch.index + 1)
        expected = qualifying(launch.nonce, root, measurement)
        return await asyncio.to_thread(self._host.tpm.quote, measurement, expected)

    async def _connect(self, launch: Launch, channel: socket.socket) -> str | None:
        """Hand our end of the agent's pipe to the gateway. None once it has it, else why not."""
        try:
            async with asyncio.timeout(GATEWAY_TIMEOUT_S):
                link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                link.setblocking(False)
                loop = asyncio.get_running_loop()
                try:
                    await loop.sock_connect(link, self._gateway)
                    body = canonical({"op": "attach", "launch": launch.index, "agent": launch.agent})
                    socket.send_fds(link, [len(body).to_bytes(4, "big") + body], [channel.fileno()])
                    reader, writer = await asyncio.open_unix_connection(sock=link)
                except OSError:
                    link.close()
                    raise
                try:
                    answer = await receive_frame(reader, limit=4096)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return "gateway-unreachable"
        return None if answer is not None and answer.get("ok") is True else "gateway-refused"

    async def _say_exited(self, launch: Launch, started: int, ended: Ended) -> None:
        if ended.reason in ("eof", "killed"):
            # The gateway may have heard of a stop before us, and closed the pipe, or the monitor may have ended the
            # process itself: look whether there is an order.
            with contextlib.suppress(LogUnavailable):
                await self._log.refresh()
        why = self._stopped.get(launch.index)
        entry = await self._log.append(
            "exited",
            (Subject("module", launch.module),),
            {
                "launch": launch.index,
                "agent": launch.agent,
                "started": started,
                "reason": why or ended.reason,
                "text": ended.text,
                "report": ended.report,
                "usage": {
                    "messages": ended.messages,
                    "fuel": ended.fuel,
                    "wall_ms": ended.wall_ms,
                    "cpu_ms": ended.cpu_ms,
                    "max_rss": ended.max_rss,
                },
            },
        )
        await self._judge(launch, entry.index, entry.predicate)

    async def _refuse(self, launch: Launch, failure: HoldFailed) -> None:
        entry = await self._log.append(
            "launch-refused",
            (Subject("module", launch.module),),
            {
                "launch": launch.index,
                "agent": launch.agent,
                "stage": failure.stage,
                "reason": failure.reason,
                "text": failure.text[:4096],
                "module_sha256": launch.module,
                "config_sha256": launch.config,
            },
        )
        await self._judge(launch, entry.index, entry.predicate)

    async def _judge(self, launch: Launch, evidence: int, said: Mapping[str, Any]) -> None:
        """For a canary: the verdict that follows from how it ended; the verifier draws it again."""
        if launch.nonce is None:
            return
        runtime = self._runtime_named(launch.config)
        approved = self._log.replay.books.modules[launch.module]
        word, refusal = verdict(
            approved.probe, launch.nonce, said.get("stage", said["reason"]), said["text"], said.get("report", "")
        )
        result: dict[str, Any] = {
            "challenge": launch.index,
            "nonce": launch.nonce,
            "probe": approved.name,
            "verdict": word,
            "refusal": refusal,
            "evidence": evidence,
            "environment": self._deployment.trust.environment,
            "node": self._deployment.trust.services["node"].keyid,
            "checkpoint": self._log.replay.books.challenges[launch.index]["checkpoint"],
            "boot_id": self._host.boot,
            "runtime": runtime,
            "runtime_sha256": self._host.runtimes[runtime].digest if runtime in self._host.runtimes else NOBODY,
            "release_sha256": self._host.release,
        }
        try:
            result["quote"] = await self._quote("canary-result", launch, result)
        except TpmError:
            result["quote"] = None  # said all the same: the verifier sees that the quote is missing
        subjects = (Subject("module", launch.module), Subject("profile", launch.config))
        await self._log.append("canary-result", subjects, result)

    def _runtime_named(self, config: Digest) -> str:
        try:
            value: Any = _parsed(self._deployment.artifact(config))
            return str(value["runtime"]["type"])
        except (DeploymentError, FormatError, KeyError, TypeError):
            return "unknown"

    async def recover(self, kill_stray: Callable[[Launch], None]) -> None:
        """After a restart: what ran is gone with the node that died; what waits is launched if it still may be."""
        read = self._log.replay.authority.read
        for launch in list(self._log.replay.books.launches.values()):
            state = read("launch_state", launch.index)
            if state == STARTED:
                kill_stray(launch)
                gone = Ended("killed", "the node was restarted", "", 0, 0, None, 0, 0, 0)
                self._stopped[launch.index] = "node-lost"
                await self._say_exited(launch, launch.started, gone)
            elif state == ADMITTED:
                if read("launch_stopped", launch.index):
                    self._stopped[launch.index] = "stopped"
                self.admitted(launch)


def _parsed(config: bytes) -> Value:
    return parse_canonical(config, limit=MAX_CONFIG_BYTES)
