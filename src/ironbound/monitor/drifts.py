"""What follows a drift: it is said, the stop is ordered, and whatever still lives after the grace is ended here.

Decides nothing about what is drift. Rule 1: the stop is begun before anything is said, and waits for no log. Rule 2: a
drift that was said has its order, also when the monitor was restarted in between. Rule 3: the end is witnessed: the
kernel's word that the process is over, with who ended it and how long it took, is said too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from ironbound.core.canonical import Value
from ironbound.core.replay import Entry
from ironbound.core.statement import Subject
from ironbound.wire.deployment import Deployment
from ironbound.wire.log import now_ms

from .heartbeat import Pulse
from .outbox import Outbox
from .stopper import End, Stopper

MAX_DIFFERENCES: Final = 64


class Drifts:
    """The drifts of one log. `entered` takes its entries, so that a restart goes on where it ended."""

    def __init__(self, deployment: Deployment, outbox: Outbox, pulse: Pulse) -> None:
        self._subjects = (Subject("trust-root", deployment.trust.digest),)
        self._outbox = outbox
        self._pulse = pulse
        self.stopper = Stopper(deployment.sandbox_uids, deployment.trust.control_group)
        self._said: dict[int, Mapping[str, Any]] = {}
        self._ordered: set[int] = set()

    def entered(self, entry: Entry) -> None:
        """Take notice of what was said of drifts before."""
        if entry.kind == "drift":
            self._said[entry.index] = entry.predicate
        elif entry.kind == "stop-order":
            self._ordered.add(entry.predicate["drift"])
        elif entry.kind == "end-witnessed":
            self._said.pop(entry.predicate["drift"], None)

    def resume(self, watched: Mapping[int, Any]) -> None:
        """After a restart: order what was not ordered, and end what still lives. `watched`: the launches that run."""
        for index, said in list(self._said.items()):
            started = said["started"]
            launch = None if started is None or started not in watched else watched[started].said["launch"]
            if index in self._ordered and started is not None and launch is None:
                continue  # ordered, and its end is in the log
            self._outbox.begin(self._again(index, said, launch))

    async def _again(self, index: int, said: Mapping[str, Any], launch: int | None) -> None:
        end = asyncio.ensure_future(self.stopper.end(said["pid"], said["pid_start"]))
        if index not in self._ordered:
            await self._order(index, said["kind"], launch, said["pid"], said["pid_start"])
        await self._witness(index, said["pid"], said["pid_start"], await end)

    def found(
        self,
        kind: str,
        started: int | None,
        launch: int | None,
        pid: int,
        pid_start: int,
        differences: list[Value],
        *,
        joined: bool = False,
    ) -> None:
        """A drift: say it, order its stop, see to its end. Returns at once. `joined`: see `Stopper.end`."""
        self._pulse.found()
        end = asyncio.ensure_future(self.stopper.end(pid, pid_start, joined=joined))  # Rule 1
        self._outbox.begin(self._whole(kind, started, launch, pid, pid_start, differences, end))

    async def _whole(
        self,
        kind: str,
        started: int | None,
        launch: int | None,
        pid: int,
        pid_start: int,
        differences: list[Value],
        end: asyncio.Future[End | None],
    ) -> None:
        detected_ms = now_ms()
        drift = await self._outbox.say(
            "drift",
            self._subjects,
            {
                "kind": kind,
                "started": started,
                "pid": pid,
                "pid_start": pid_start,
                "differences": differences,
                "detected_ms": detected_ms,
            },
        )
        await self._order(drift.index, kind, launch, pid, pid_start)
        await self._witness(drift.index, pid, pid_start, await end)

    async def _order(self, drift: int, kind: str, launch: int | None, pid: int, pid_start: int) -> None:
        await self._outbox.say(
            "stop-order",
            self._subjects,
            {"launch": launch, "pid": pid, "pid_start": pid_start, "drift": drift, "reason": kind},
        )

    async def _witness(self, drift: int, pid: int, pid_start: int, end: End | None) -> None:
        if end is None:
            return
        await self._outbox.say(
            "end-witnessed",
            self._subjects,
            {"drift": drift, "pid": pid, "pid_start": pid_start, "by": end.by, "took_ms": end.took_ms},
        )
