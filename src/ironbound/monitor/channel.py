"""Asks the operator channel for what it has to refuse: at each start, and again at times that nobody can foresee.

Decides when, and sends. What is sent `core.malformed` makes; what came of it everybody reads in the controller's own
`refused` entries, so no answer is told here.

Rule 1: what was drawn is said only after all was answered. Until then nobody else knows the requests, so a refusal that
        stands in the log before is the word of one who got the very bytes.
Rule 2: an asking that is not answered in full is not said and made anew; the verifier sees for how long none was.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Final

from ironbound.core.canonical import sha256_hex
from ironbound.core.malformed import attempts, every_ms, once_more
from ironbound.core.replay import Entry
from ironbound.core.request import head_of
from ironbound.core.statement import Subject
from ironbound.wire.deployment import Deployment
from ironbound.wire.log import AppendRefused, Log, LogUnavailable, fresh_id, now_ms

#: Seconds from the first request to the last answer: an asking names a checkpoint of a minute ago at most.
WHOLE_S: Final = 45.0
#: Seconds until a request, or an asking, is made anew.
AGAIN_S: Final = 1.0
#: What says that a request was not looked at, or its refusal not logged: too fast, and no log.
_NOT_YET: Final = frozenset({429, 503})


class Unanswered(Exception):
    """The controller did not answer everything."""


class Channel:
    """The operator channel of one deployment, as the monitor asks it. `entered` takes the log's entries."""

    def __init__(self, deployment: Deployment, log: Log) -> None:
        self._deployment = deployment
        self._log = log
        #: `once_more` of the latest admitted request for power.
        self._latest: bytes | None = None
        self._begun = asyncio.Event()
        self._draw = random.SystemRandom().random

    def entered(self, entry: Entry) -> None:
        """Take notice of an entry; never blocks."""
        self._latest = once_more(entry) or self._latest
        if entry.void is None and entry.kind == "service-started" and entry.role == "controller":
            self._begun.set()

    async def run(self) -> None:
        """Ask for ever: at each start, the controller's or our own, and at least once in each interval after that."""
        every_s = every_ms(self._deployment.trust.canary_interval_ms) / 1000
        while True:
            self._begun.clear()
            try:
                await self.ask()
            except (LogUnavailable, AppendRefused, Unanswered):
                await asyncio.sleep(AGAIN_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout((0.25 + self._draw() / 2) * every_s):
                    await self._begun.wait()

    async def ask(self) -> None:
        """Send everything and say what was drawn. LogUnavailable, AppendRefused or Unanswered: nothing was said."""
        await self._log.refresh()
        checkpoint, root = self._log.checkpoint, self._deployment.trust
        if checkpoint is None:
            raise LogUnavailable("no witnessed checkpoint is known yet")
        latest = self._latest  # below that checkpoint: both come with the entries under it
        head = head_of(checkpoint.size, checkpoint.root)
        drawn = {"nonce": fresh_id(), "checkpoint": head, "began_ms": now_ms()}
        made = attempts(root, drawn, None if latest is None else sha256_hex(latest))
        try:
            async with asyncio.timeout(WHOLE_S):
                for one in made:
                    while not await self._send(one.method, one.path, latest or b"" if one.body is None else one.body):
                        await asyncio.sleep(AGAIN_S)
        except TimeoutError as error:
            raise Unanswered(f"not within {WHOLE_S:.0f} s") from error
        entry = await self._log.append("channel-probed", (Subject("trust-root", root.digest),), drawn)
        if entry.void is not None:
            raise Unanswered(entry.void)

    async def _send(self, method: str, path: str, body: bytes) -> bool:
        """Whether it was answered, whatever the answer."""
        head = f"{method} {path} HTTP/1.1\r\nhost: controller\r\nconnection: close\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        try:
            reader, writer = await asyncio.open_unix_connection(self._deployment.socket("controller"))
            try:
                writer.write(head.encode("ascii") + body)
                await writer.drain()
                words = (await reader.readuntil(b"\r\n")).split()
            finally:
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return False
        return len(words) > 1 and words[1].isdigit() and int(words[1]) not in _NOT_YET
