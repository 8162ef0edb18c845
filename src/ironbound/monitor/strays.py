"""Processes that belong to the sandboxes though no entry accounts for them.

Decides when one is a drift: when it is there in STRAY_LOOKS looks in a row, so that entries on their way can arrive,
and is none of those that a launch on its way may have. What belongs to the sandboxes, `reconcile` decides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from ironbound.core.canonical import Value
from ironbound.wire.log import Log, LogUnavailable

from .drifts import Drifts
from .processes import Process
from .reconcile import Family, Reconciler

#: Looks in a row at which a process without an entry is still there.
STRAY_LOOKS: Final = 2
#: Seconds between those looks after an event.
STRAY_AGAIN_S: Final = 0.05
#: Seconds for which the log is asked whether it accounts for a stray; then it is one.
LOG_PATIENCE_S: Final = 0.5


class Strays:
    """What lives and should not. `coming`: how many processes each launch may have that is admitted, not started."""

    def __init__(
        self,
        log: Log,
        reconciler: Reconciler,
        drifts: Drifts,
        families: Callable[[], Sequence[Family]],
        coming: Mapping[int, int],
    ) -> None:
        self._log = log
        self._reconciler = reconciler
        self._drifts = drifts
        self._families = families
        self._coming = coming
        self._seen: dict[tuple[int, int], int] = {}
        self._said: set[tuple[int, int]] = set()
        self._sweeping = asyncio.Lock()

    async def look(self, *, whole: bool) -> bool:
        """Sweep once, and say what is there too long; whether something is there that was not before."""
        async with self._sweeping:
            swept = self._sweep(whole=whole)
            seen = self._seen
            self._seen = {(one.pid, one.start): seen.get((one.pid, one.start), 0) + 1 for one in self._unheld(swept)}
            fresh = any(looks < STRAY_LOOKS for looks in self._seen.values())
            if all(looks < STRAY_LOOKS or named in self._said for named, looks in self._seen.items()):
                return fresh
            # The node may have heard of a launch before us. What lived at this look has its entry in the log by now,
            # if it has one: fold that first. Without a log there is nothing to wait for.
            with contextlib.suppress(LogUnavailable):
                await self._log.refresh(LOG_PATIENCE_S)
            living = {(one.pid, one.start) for one in self._sweep(whole=whole)}
            for stray in self._unheld(swept):
                named = (stray.pid, stray.start)
                if named in living and self._seen.get(named, 0) >= STRAY_LOOKS:
                    self._say(stray)
            return fresh

    async def look_again(self, *, whole: bool) -> None:
        """Sweep as often as it takes to know, quickly: an event or a round told of a stranger.

        While a launch is on its way the stranger is most likely its sandbox: the sweep waits until that is over.
        """
        if self._coming and not whole:
            await asyncio.sleep(STRAY_AGAIN_S)
        for _ in range(STRAY_LOOKS):
            await self.look(whole=whole)
            await asyncio.sleep(STRAY_AGAIN_S)

    def _sweep(self, *, whole: bool) -> tuple[Process, ...]:
        return self._reconciler.sweep(self._families(), self._coming.keys(), whole=whole)

    def _unheld(self, strays: Iterable[Process]) -> list[Process]:
        """All but the youngest, which may be sandboxes that are held until their start is in the log.

        A held worker's own probe makes a process for a moment: what descends from a stray goes with it. Who was forked
        by the zygote may have stood by for long, and counts as young.
        """
        known = {one.pid: one for one in strays}
        zygote = None if self._reconciler.zygote is None else self._reconciler.zygote[0]
        tops = sorted(
            (one for one in known.values() if one.ppid not in known), key=lambda one: (one.ppid == zygote, one.start)
        )
        unheld = {one.pid for one in tops[: max(0, len(tops) - sum(self._coming.values()))]}
        for one in sorted(known.values(), key=lambda one: one.start):  # a parent is no younger than its child
            if one.ppid in unheld:
                unheld.add(one.pid)
        return [one for one in known.values() if one.pid in unheld]

    def _say(self, stray: Process) -> None:
        if (stray.pid, stray.start) in self._said:
            return
        self._said.add((stray.pid, stray.start))
        found: list[Value] = [{"path": "process", "expected": None, "got": f"uid {stray.uid}, child of {stray.ppid}"}]
        joined = stray.pid in self._reconciler.joined
        self._drifts.found("process-without-entry", None, None, stray.pid, stray.start, found, joined=joined)
