"""Says what has to be said, however long the log is away, and lets nobody wait for it who need not.

Decides nothing. Rule 1: what was begun is said once the log is back, in its own order. Rule 2: a failure for good
(the log refuses, or contradicts itself) ends the monitor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from ironbound.core.replay import Entry
from ironbound.core.statement import Subject
from ironbound.wire.log import Log

#: Seconds that a saying waits for the log: longer than any outage that is survived.
PATIENCE_S: Final = 30 * 86_400.0


class Outbox:
    """Work that ends in entries. `run` waits for ever, and fails when any of it does."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._early: BaseException | None = None

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start work that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if self._failed is None:
            self._early = self._early or error
        elif not self._failed.done():
            self._failed.set_exception(error)

    async def say(self, kind: str, subjects: tuple[Subject, ...], fields: Mapping[str, Any]) -> Entry:
        """The entry, once it is in the log. AppendRefused, FormatError if it never will be."""
        # One statement, and the same bytes each time: two with one id would be two sayings.
        return await self._log.append(kind, subjects, fields, timeout_s=PATIENCE_S)

    async def run(self) -> None:
        """Wait until something fails, and raise that; cancelled, take everything along."""
        if self._early is not None:
            raise self._early
        self._failed = asyncio.get_running_loop().create_future()
        try:
            await self._failed
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
