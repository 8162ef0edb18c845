"""What the monitor has to say is said, each thing once, however long the log is away."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from ironbound.core.canonical import b64encode
from ironbound.core.merkle import Tree
from ironbound.monitor.heartbeat import Pulse, sample_leaf
from ironbound.monitor.outbox import Outbox
from ironbound.wire.log import LogUnavailable


class Away:
    """A log that is away until `back`."""

    def __init__(self) -> None:
        self.deployment = SimpleNamespace(trust=SimpleNamespace(digest="0" * 64))
        self.back = False
        self.said: list[Any] = []
        self.meanwhile: Any = lambda: None

    async def append(self, kind: str, subjects: Any, fields: Any, **more: Any) -> None:
        self.meanwhile()
        if not self.back:
            raise LogUnavailable("away")
        self.said.append(dict(fields))


LEAVES = [sample_leaf(number, {"look": number}) for number in range(3)]


def root(*leaves: bytes) -> str:
    tree = Tree()
    for one in leaves:
        tree.append(one)
    return b64encode(tree.root())


def test_a_beat_that_could_not_be_said_is_in_the_next_one_with_what_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Away()
    pulse: Any = Pulse(log, "events")  # type: ignore[arg-type]
    pulse.sampled(LEAVES[0])
    pulse.happened(5, 1)

    def meanwhile() -> None:
        pulse.sampled(LEAVES[1])
        pulse.found()

    log.meanwhile = meanwhile
    with pytest.raises(LogUnavailable):
        asyncio.run(pulse.beat())
    log.back, log.meanwhile = True, lambda: None
    monkeypatch.setattr(time, "time", lambda: 0.0)  # the wall clock jumps by decades
    asyncio.run(pulse.beat())
    pulse.sampled(LEAVES[2])
    asyncio.run(pulse.beat())
    first, second = log.said
    assert (first["sequence"], first["samples"], first["events"], first["lost"], first["findings"]) == (1, 2, 5, 1, 1)
    assert first["root"] == root(LEAVES[0], LEAVES[1]) and 0 <= first["interval_ms"] < 3_600_000
    assert (second["sequence"], second["samples"], second["findings"]) == (2, 1, 0)
    assert second["root"] == root(LEAVES[2])


def test_what_fails_for_good_ends_the_monitor_also_if_it_failed_before_it_ran() -> None:
    async def fails() -> None:
        raise ValueError("for good")

    async def early() -> None:
        outbox = Outbox(Away())  # type: ignore[arg-type]
        outbox.begin(fails())
        await asyncio.sleep(0.01)
        await outbox.run()

    async def late() -> None:
        outbox = Outbox(Away())  # type: ignore[arg-type]
        running = asyncio.ensure_future(outbox.run())
        await asyncio.sleep(0)
        outbox.begin(fails())
        await running

    for way in (early, late):
        with pytest.raises(ValueError, match="for good"):
            asyncio.run(asyncio.wait_for(way(), 10))


def test_when_the_monitor_is_stopped_nothing_that_it_began_goes_on() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ended.append("work")

    async def stopped() -> None:
        outbox = Outbox(Away())  # type: ignore[arg-type]
        running = asyncio.ensure_future(outbox.run())
        outbox.begin(waits())
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert ended == ["work"]

    asyncio.run(stopped())
