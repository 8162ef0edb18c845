"""Watches every sandbox: looks at each as soon as it is started and again and again, and says what it saw.

Decides what is drift: a posture that differs from the expected one, a process that no entry accounts for, an entry
whose process is gone. It derives the expected posture itself from the approved configuration's bytes; the node's
word is compared, never taken. On drift it orders the stop; the node obeys, and the order is in the log.

Rule 1: the first sample of a launch is said before the agent's first instruction; the node waits for it.
Rule 2: a drift is said once, with all its differences, and its stop is ordered at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ironbound.core.authority import ADMITTED
from ironbound.core.cage import compare_cage
from ironbound.core.canonical import FormatError, Value
from ironbound.core.posture import Difference
from ironbound.core.replay import Entry
from ironbound.core.statement import Subject
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.log import Log, now_ms

from .cages import Cages
from .observe import ProcessGone
from .processes import Process, find_strays

#: Seconds between two looks at everything, give or take the jitter: nobody can plan around it.
SAMPLE_S: Final = 0.5
JITTER: Final = 0.4
#: Seconds after which an unchanged posture is said again.
REPEAT_S: Final = 30.0
#: Looks in a row at which a process without an entry is still there, so that entries on their way can arrive.
STRAY_LOOKS: Final = 2
#: Seconds that a process may be gone before its exit is in the log.
GONE_S: Final = 10.0
MAX_DIFFERENCES: Final = 64


@dataclass(slots=True)
class Watched:
    """A launch that runs: what the node said of it, what it must look like, when it was last spoken of."""

    index: int
    said: Mapping[str, Any]
    expected: Value
    spoken: float | None = None
    gone_since: float | None = None
    drifted: bool = False


@dataclass(slots=True)
class Strays:
    """Processes without an entry, with the number of looks at which each was there."""

    seen: dict[tuple[int, int], int] = field(default_factory=dict)
    said: set[tuple[int, int]] = field(default_factory=set)


class Watch:
    """The monitor's eyes over one log. `entered` takes the log's entries, `run` looks until cancelled."""

    def __init__(self, deployment: Deployment, log: Log) -> None:
        self._deployment = deployment
        self._log = log
        self._cages = Cages(deployment)
        self._watched: dict[int, Watched] = {}
        self._strays = Strays()
        self._zygote: tuple[int, int] | None = None
        self._fresh: asyncio.Queue[int] = asyncio.Queue()
        self._uids = deployment.sandbox_uids
        self._looking = asyncio.Lock()  # one look at a time: reading a filter traces, and must not see itself do so

    def entered(self, entry: Entry) -> None:
        """Take notice of an entry; never blocks."""
        if entry.void is not None:
            return
        said = entry.predicate
        if entry.kind == "service-started" and said["role"] == "node":
            self._cages.host = said["host"]
            measured = said["host"]["runtimes"]["wasmtime"]
            self._zygote = (measured["zygote_pid"], measured["zygote_start"])
        elif entry.kind == "started":
            self._watched[entry.index] = Watched(entry.index, said, None)
            self._fresh.put_nowait(entry.index)
        elif entry.kind == "exited":
            self._watched.pop(said["started"], None)

    async def run(self) -> None:
        """Look at new launches at once, at all of them in turn, for ever."""
        await asyncio.gather(self._first_looks(), self._rounds())

    async def _first_looks(self) -> None:
        while True:
            index = await self._fresh.get()
            watched = self._watched.get(index)
            if watched is not None:
                await self._look(watched)

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S * (1 + JITTER * (2 * random.random() - 1)))
            for watched in list(self._watched.values()):
                if watched.expected is not None:
                    await self._look(watched)
            await self._look_for_strays()

    async def _look(self, watched: Watched) -> None:
        if watched.drifted:
            return
        said, now = watched.said, asyncio.get_running_loop().time()
        is_first = watched.spoken is None
        try:
            if watched.expected is None:
                watched.expected = self._cages.expected(said)
            async with self._looking:
                sample = await asyncio.to_thread(self._cages.sample, said, running=not is_first)
            differences = list(compare_cage(watched.expected, sample, running=not is_first))
            differences += compare_cage(watched.expected, said["posture"]) if is_first else ()
            differences += self._misplaced(said)
        except ProcessGone:
            await self._gone(watched)
            return
        except (FormatError, DeploymentError, KeyError, TypeError, IndexError) as error:
            sample = {}
            differences = [Difference("started", "a posture that follows from the approval", str(error)[:200])]
        listed = [one.as_value() for one in differences[:MAX_DIFFERENCES]]
        if watched.spoken is None or now - watched.spoken > REPEAT_S or differences:
            watched.spoken = now
            await self._say_observed(watched, sample, listed)
        if differences:
            await self._drift(watched, "posture-differs", listed)

    def _misplaced(self, said: Mapping[str, Any]) -> list[Difference]:
        """Every sandbox has a user of its own, from the range that is for sandboxes."""
        if self._uids is None or said["uid"] in self._uids:
            return []
        return [Difference("uid", f"{self._uids.start} to {self._uids.stop - 1}", said["uid"])]

    async def _say_observed(self, watched: Watched, sample: Value, differences: list[Value]) -> None:
        said = watched.said
        await self._log.append(
            "observed",
            (Subject("module", said["module_sha256"]), Subject("profile", said["config_sha256"])),
            {
                "started": watched.index,
                "agent": said["agent"],
                "pid": said["pid"],
                "posture": sample,
                "differences": differences,
            },
        )

    async def _gone(self, watched: Watched) -> None:
        now = asyncio.get_running_loop().time()
        if watched.gone_since is None:
            watched.gone_since = now
        elif now - watched.gone_since > GONE_S and watched.index in self._watched:
            missing: list[Value] = [{"path": "process", "expected": watched.said["pid"], "got": None}]
            await self._drift(watched, "entry-without-process", missing)

    async def _drift(self, watched: Watched, kind: str, differences: list[Value]) -> None:
        watched.drifted = True
        said = watched.said
        await self._order(kind, watched.index, said["launch"], said["pid"], said["pid_start"], differences)

    async def _look_for_strays(self) -> None:
        expected = {(one.said["pid"], one.said["pid_start"]) for one in self._watched.values()}
        strays = await asyncio.to_thread(find_strays, expected, self._zygote, self._uids)
        accounted = {(one.said["pid"], one.said["pid_start"]) for one in self._watched.values()}
        held = self._launches_on_their_way()
        looks: dict[tuple[int, int], int] = {}
        # The youngest may be sandboxes that are held until their start is in the log: one for each admitted launch.
        for stray in sorted(strays, key=lambda one: one.start)[: max(0, len(strays) - held)]:
            named = (stray.pid, stray.start)
            if named in accounted:
                continue
            looks[named] = self._strays.seen.get(named, 0) + 1
            if looks[named] >= STRAY_LOOKS and named not in self._strays.said:
                self._strays.said.add(named)
                await self._stray(stray)
        self._strays.seen = looks

    def _launches_on_their_way(self) -> int:
        read = self._log.replay.authority.read
        launches = self._log.replay.books.launches
        return sum(1 for one in launches.values() if one.ended < 0 and read("launch_state", one.index) == ADMITTED)

    async def _stray(self, stray: Process) -> None:
        found: list[Value] = [{"path": "process", "expected": None, "got": f"uid {stray.uid}, child of {stray.ppid}"}]
        await self._order("process-without-entry", None, None, stray.pid, stray.start, found)

    async def _order(
        self, kind: str, started: int | None, launch: int | None, pid: int, pid_start: int, differences: list[Value]
    ) -> None:
        trust = self._deployment.trust
        drift = await self._log.append(
            "drift",
            (Subject("trust-root", trust.digest),),
            {
                "kind": kind,
                "started": started,
                "pid": pid,
                "differences": differences,
                "detected_ms": now_ms(),
            },
        )
        await self._log.append(
            "stop-order",
            (Subject("trust-root", trust.digest),),
            {"launch": launch, "pid": pid, "pid_start": pid_start, "drift": drift.index, "reason": kind},
        )
