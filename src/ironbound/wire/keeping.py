"""A running service's part in snapshots: says those that are due, and keeps its own once others said the same.

Decides nothing: whether a snapshot is started from, `snapshots` decides, and what one says `core.snapshot`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from ironbound.core.canonical import FormatError, b64encode
from ironbound.core.replay import Entry
from ironbound.core.snapshot import VOUCHING, Mark
from ironbound.core.statement import Subject

from .log import AppendRefused, Log, LogUnavailable
from .snapshots import keep


class Keeper:
    """For one service; `role` says its word if it is a vouching voice, and keeps its bytes unless it is the monitor."""

    def __init__(self, log: Log, role: str, *, keeps: bool = True) -> None:
        self._log, self._role, self._keeps = log, role, keeps
        self._spoken = self._kept = log.beginning.size
        self._tasks: set[asyncio.Task[None]] = set()
        log.listen(self.entered)

    def entered(self, entry: Entry) -> None:
        """Look whether a snapshot became due, or was vouched for; never blocks."""
        mark = self._log.replay.mark
        if mark is None:
            return
        if self._role in VOUCHING and mark.size > self._spoken:
            self._spoken = mark.size
            self._begin(self._say(mark))
        if self._keeps and mark.size > self._kept and mark.voices >= VOUCHING:
            self._kept = mark.size
            self._begin(asyncio.to_thread(keep, self._log.deployment, self._role, mark.data))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # the next one will do
            print(f"ironbound {self._role}: snapshot: {error}", file=sys.stderr, flush=True)

    async def _say(self, mark: Mark) -> None:
        fields = {"size": mark.size, "root": b64encode(mark.root), "state_sha256": mark.digest}
        try:
            await self._log.append("snapshot", (Subject("state", mark.digest),), fields)
        except (LogUnavailable, AppendRefused, FormatError) as error:
            raise RuntimeError(f"not said: {error}") from error
