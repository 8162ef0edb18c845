"""The monitor's heartbeat: says every few seconds how much it looked at, so that "nothing to report" is evidence.

Decides nothing. Each sample is a leaf of a Merkle tree (`core.merkle`); its root and the counts are said. The bytes of
a leaf: `sample_leaf`. Source: 3-formats, "Merkle roots".

Rule 1: what was not said, since the log was away, is said with the next beat: the sequence has no gap, and no sample
        is left out.
Rule 2: intervals are measured on a clock that never jumps.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ironbound.core.canonical import Value, b64encode, canonical
from ironbound.core.merkle import Tree, leaf_hash
from ironbound.core.statement import Subject
from ironbound.wire.log import Log, LogUnavailable

#: Seconds to the first beat, and from one to the next.
FIRST_S: Final = 1.0
BEAT_S: Final = 10.0


def sample_leaf(started: int, posture: Value) -> bytes:
    """The leaf's hash of a sample: of the canonical bytes of the posture with the index of its `started`."""
    return leaf_hash(canonical({"posture": posture, "started": started}))


class Pulse:
    """Counts, and says. Everything since the last beat that was said is in the next one."""

    def __init__(self, log: Log, mode: str) -> None:
        self._log = log
        self._mode = mode
        self._tree = Tree()
        self._sequence = 0
        self._events = 0
        self._lost = 0
        self._findings = 0
        self._since = time.monotonic()
        self.agents = 0
        self.processes = 0
        self.leftovers = 0

    def sampled(self, leaf: bytes) -> None:
        """A sample was taken."""
        self._tree.append(leaf)

    def happened(self, events: int, lost: int) -> None:
        """The kernel told of so many events, and lost some so many times."""
        self._events += events
        self._lost += lost

    def found(self) -> None:
        """A drift was found."""
        self._findings += 1

    async def run(self) -> None:
        """Beat for ever."""
        await asyncio.sleep(FIRST_S)
        while True:
            began = time.monotonic()
            try:
                await self.beat()
            except LogUnavailable:
                pass  # Rule 1
            await asyncio.sleep(max(0.0, began + BEAT_S - time.monotonic()))

    async def beat(self) -> None:
        """Say one beat. LogUnavailable if it could not be said; then everything is in the next one."""
        now = time.monotonic()
        counts = (self._tree, self._events, self._lost, self._findings)
        self._tree, self._events, self._lost, self._findings = Tree(), 0, 0, 0
        tree, events, lost, findings = counts
        trust = self._log.deployment.trust
        try:
            await self._log.append(
                "heartbeat",
                (Subject("trust-root", trust.digest),),
                {
                    "sequence": self._sequence + 1,
                    "interval_ms": int((now - self._since) * 1000),
                    "mode": self._mode,
                    "agents": self.agents,
                    "processes": self.processes,
                    "samples": tree.size,
                    "root": b64encode(tree.root()),
                    "events": events,
                    "lost": lost,
                    "findings": findings,
                    "leftovers": self.leftovers,
                },
            )
        except LogUnavailable:
            later, self._tree = self._tree, tree
            for index in range(later.size):
                self._tree.append(later.leaf(index))
            self._events, self._lost, self._findings = (
                self._events + events,
                self._lost + lost,
                self._findings + findings,
            )
            raise
        self._sequence += 1
        self._since = now
