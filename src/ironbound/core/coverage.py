"""When a canary is due: the time in which a build was in use, divided into windows, each of which needs a refusal.

Decides which windows there are, and which of them given times cover. It judges no result (`core.canary`, the verifier)
and draws no time (`monitor.schedule`). Monitor and verifier fold the same entries through it, so that what the one
plans the other asks for. It follows no outer specification.

A *build* is a configuration on one runtime, boot and release of Ironbound. A *period* is a time in which agents used a
build, without a gap as long as the interval. Its windows are as long as the interval, one after the other; the first
begins with the period, or with the approval of the canary if that came later.

Rule 1: a window is covered by a refusal of the canary, on that very build, whose challenge lies in the window.
Rule 2: the last window, in which the use ended or the log does, is covered too by a refusal at most one interval before
        that end. Nothing else is rounded up.
Rule 3: an end is not before what others had said by then: a node that dates an `exited` back shortens no use.
Rule 4: the cost depends on the number of entries, never on the times that they claim.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from .replay import Entry, Launch

#: A result that is said later than this after its challenge does not count.
ANSWER_MS: Final = 120_000


@dataclass(frozen=True, slots=True)
class Build:
    """What agents and canaries run on: digests of configuration, runtime and Ironbound, and the host's boot."""

    config: str
    runtime: str
    boot: str
    release: str


@dataclass(slots=True)
class Period:
    """A time in which a build was in use. `index` is the first launch's entry; `running` are the launches that run."""

    build: Build
    index: int
    begin_ms: int
    end_ms: int
    running: set[int] = field(default_factory=set)

    def stop_ms(self, now_ms: int) -> int:
        """When the use ended, as far as is known now."""
        return max(self.begin_ms, now_ms if self.running else self.end_ms)


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one canary in one period as of a time: `count` of them from `begin_ms` on, `interval_ms` each."""

    begin_ms: int
    stop_ms: int
    interval_ms: int
    count: int
    is_open: bool

    def uncovered(self, times: Sequence[int]) -> list[range]:
        """The windows that no time in the sorted `times` covers, as ranges of their numbers from 0."""
        end = self.begin_ms + self.count * self.interval_ms
        within = times[bisect_left(times, self.begin_ms) : bisect_left(times, end)]
        covered = sorted({(at - self.begin_ms) // self.interval_ms for at in within})
        last = bisect_right(times, self.stop_ms) - 1
        if last >= 0 and self.stop_ms - times[last] <= self.interval_ms:  # Rule 2
            covered = sorted({*covered, self.count - 1})
        found, begin = [], 0
        for number in [*covered, self.count]:
            if number > begin:
                found.append(range(begin, number))
            begin = number + 1
        return found

    def span(self, windows: range) -> tuple[int, int]:
        """From when to when some of them lie."""
        return self.begin_ms + windows.start * self.interval_ms, self.begin_ms + windows.stop * self.interval_ms


class Usage:
    """Which builds were in use when, and since when canaries are approved. `add` takes the log's entries in order."""

    def __init__(self) -> None:
        self.periods: list[Period] = []
        self.approved_ms: dict[str, int] = {}
        self.release = ""
        self.boot = ""
        self._clock_ms = 0
        self._latest: dict[Build, Period] = {}
        self._of_launch: dict[int, Period] = {}

    def add(self, entry: Entry, launch: Launch | None, interval_ms: int) -> None:
        """Take notice of an accepted entry; `launch` is the one that a `started` names."""
        said = entry.predicate
        self._clock_ms = max(self._clock_ms, said.get("at_ms", 0))
        if entry.kind == "service-started" and said["role"] == entry.role == "node":
            self.release, self.boot = said["release_sha256"], said["boot_id"]
        elif entry.kind == "started" and launch is not None and launch.nonce is None:
            build = Build(said["config_sha256"], said["runtime_sha256"], said["boot_id"], self.release)
            self._begin(build, entry.index, said["at_ms"], said["launch"], interval_ms)
        elif entry.kind == "exited":
            period = self._of_launch.pop(said["launch"], None)
            if period is not None:
                period.running.discard(said["launch"])
                period.end_ms = max(period.end_ms, self._clock_ms)
        elif entry.kind == "admitted" and entry.consent is not None:
            asked = entry.consent.statement
            if asked.kind == "module-approval" and asked.predicate["body"]["kind"] == "canary":
                self.approved_ms[asked.predicate["module_sha256"]] = said["at_ms"]

    def _begin(self, build: Build, index: int, at_ms: int, launch: int, interval_ms: int) -> None:
        period = self._latest.get(build)
        if period is None or (not period.running and at_ms - period.end_ms >= interval_ms):
            period = self._latest[build] = Period(build, index, at_ms, at_ms)
            self.periods.append(period)
        period.running.add(launch)
        period.end_ms = max(period.end_ms, at_ms)
        self._of_launch[launch] = period

    def windows(self, period: Period, module: str, interval_ms: int, now_ms: int) -> Windows | None:
        """The windows in which a canary was due in a period as of now; None if it was approved after the period."""
        stop = period.stop_ms(now_ms)
        begin = max(period.begin_ms, self.approved_ms.get(module, now_ms + 1))
        if begin > stop:
            return None
        count = max(1, -((begin - stop) // interval_ms))
        return Windows(begin, stop, interval_ms, count, begin + count * interval_ms > now_ms)
