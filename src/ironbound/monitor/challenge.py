"""Challenges: runs the approved canaries in production, each with a fresh nonce, through the node's one launch path.

Decides when a canary is due. The humans approved its code as a canary, so the monitor may have it launched; it can
hold no grant. Whether it was refused, the node says and everybody draws again from the evidence (`core.canary`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError
from ironbound.core.replay import Entry
from ironbound.core.request import head_of
from ironbound.core.statement import Subject
from ironbound.wire.deployment import Deployment
from ironbound.wire.frames import receive_frame, send_frame
from ironbound.wire.log import AppendRefused, Log, LogUnavailable, fresh_id, now_ms

#: Challenges under way at once.
AT_ONCE: Final = 2
#: Seconds within which a canary ends, its own limits being shorter.
RESULT_TIMEOUT_S: Final = 90.0
#: Seconds between two looks at what is due, and after a launch before its profile's canaries are due.
DUE_S: Final = 30.0


class Challenges:
    """The canaries of one log. `entered` takes its entries, `run` issues what is due, `serve` what is asked for."""

    def __init__(self, deployment: Deployment, log: Log) -> None:
        self._deployment = deployment
        self._log = log
        self._waiting: dict[int, asyncio.Future[Entry]] = {}
        self._latest: dict[tuple[str, str], int] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    def entered(self, entry: Entry) -> None:
        """Take notice of an entry; never blocks."""
        if entry.kind == "canary-result" and entry.void is None:
            said = entry.predicate
            launch = self._log.replay.books.launches[said["challenge"]]
            if said["verdict"] == "REFUSED":  # nothing else keeps a canary fresh: it is due again at once
                self._latest[(launch.config, launch.module)] = said["at_ms"]
            waiting = self._waiting.get(said["challenge"])
            if waiting is not None and not waiting.done():
                waiting.set_result(entry)

    def in_use(self) -> list[str]:
        """The configurations that agents were started with; all approved ones where there was no agent yet."""
        books = self._log.replay.books
        used = {one.config for one in books.launches.values() if one.nonce is None and one.started >= 0}
        return sorted(used) or sorted(books.profiles)

    def _canaries(self) -> list[tuple[str, str]]:
        modules = self._log.replay.books.modules
        return [(digest, one.name) for digest, one in modules.items() if one.probe is not None]

    async def challenge(self, config: str, module: str, probe: str) -> Mapping[str, Any]:
        """Run one canary and wait for its result. LogUnavailable, AppendRefused or TimeoutError if there is none."""
        async with self._turn:
            await self._log.refresh()
            checkpoint = self._log.checkpoint
            if checkpoint is None:
                raise LogUnavailable("no witnessed checkpoint is known yet")
            subjects = (Subject("module", Digest(module)), Subject("profile", Digest(config)))
            trust = self._deployment.trust
            fields = {
                "nonce": fresh_id(),  # drawn after the checkpoint that it is bound to
                "probe": probe,
                "module_sha256": module,
                "config_sha256": config,
                "environment": trust.environment,
                "node": trust.services["node"].keyid,
                "checkpoint": head_of(checkpoint.size, checkpoint.root),
            }
            entry = await self._log.append("canary-challenge", subjects, fields)
            if entry.void is not None:
                return _result(probe, config, "INCONCLUSIVE", entry.void, entry.index)
            waiting: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
            self._waiting[entry.index] = waiting
            try:
                async with asyncio.timeout(RESULT_TIMEOUT_S):
                    said = (await waiting).predicate
            finally:
                del self._waiting[entry.index]
            return _result(probe, config, said["verdict"], said["refusal"], said["evidence"])

    async def run(self) -> None:
        """Issue what is due, for ever: never run on a profile in use, or longer ago than half the interval."""
        while True:
            await asyncio.sleep(DUE_S)
            oldest = now_ms() - self._deployment.trust.canary_interval_ms // 2
            for config in self.in_use():
                for module, probe in self._canaries():
                    if self._latest.get((config, module), 0) < oldest:
                        try:
                            await self.challenge(config, module, probe)
                        except (TimeoutError, LogUnavailable):
                            break

    async def everything(self) -> AsyncIterator[Mapping[str, Any]]:
        """Run every approved canary on every profile in use, now; results as they come."""
        work = [
            asyncio.ensure_future(self.challenge(config, module, probe))
            for config in self.in_use()
            for module, probe in self._canaries()
        ]
        try:
            for done in asyncio.as_completed(work):
                yield await done
        finally:
            for task in work:
                task.cancel()

    async def serve(self, path: str) -> asyncio.Server:
        """Take `canary-run` on a Unix socket, from root or our own user; it gives nobody any power."""
        if os.path.exists(path):
            os.unlink(path)
        server = await asyncio.start_unix_server(self._asked, path)
        os.chmod(path, 0o666)
        return server

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5.0):
                question = await receive_frame(reader, limit=4096)
            if _peer(writer) not in (0, os.getuid()):
                await send_frame(writer, {"ok": False, "code": "peer-mismatch"})
            elif question != {"op": "canary-run"}:
                await send_frame(writer, {"ok": False, "code": "frame-invalid"})
            else:
                total = len(self.in_use()) * len(self._canaries())
                await send_frame(writer, {"ok": True, "total": total})
                async for result in self.everything():
                    await send_frame(writer, {"ok": True, "result": dict(result)})
                await send_frame(writer, {"ok": True, "done": True})
        except (OSError, FormatError, TimeoutError, LogUnavailable, AppendRefused):
            pass  # the asker sees the connection end before `done`
        finally:
            writer.close()


def _result(probe: str, config: str, verdict: str, refusal: str, entry: int) -> Mapping[str, Any]:
    return {"probe": probe, "config": config, "verdict": verdict, "refusal": refusal, "entry": entry}


def _peer(writer: asyncio.StreamWriter) -> int:
    """The user at the other end."""
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("iII", raw)[1])
