"""When each canary is run: once in each window of its use, at a time that nobody can foresee.

Decides the times, and says what is due. It runs nothing (`challenge`), and which windows there are `core.coverage`
says, which the verifier asks too. The time is an argument; the draw is the system's randomness, handed in.

Rule 1: a time is drawn evenly from what is left of the window, each canary's by itself; it is told to nobody before.
Rule 2: what was refused in this window is not due again in it; what failed is drawn anew, ATTEMPTS times at most.
Rule 3: everything follows from the log, so that after a restart nothing is missed and nothing done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ironbound.core.canary import applies
from ironbound.core.coverage import Build, Period, Usage
from ironbound.core.replay import Entry, Replay

#: A build that comes into use is tried by every canary within this time: not at once, but soon.
FIRST_MS: Final = 120_000
#: And not before this, so that the launch itself is over.
SETTLE_MS: Final = 10_000
#: The least time that is left of a window for a canary to be asked in it, but for short intervals.
MARGIN_MS: Final = 30_000
#: Times that one canary is tried in one window.
ATTEMPTS: Final = 4
#: The least time between two tries.
AGAIN_MS: Final = 5_000

#: A number from 0 up to the bound, evenly, from a source that nobody can foresee.
Draw = Callable[[int], int]
#: The family of a configuration's sandboxes, None if it can't be read.
FamilyOf = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Slot:
    """One canary in one window: the period by its first launch, the module, and the window's number."""

    period: int
    module: str
    window: int


@dataclass(slots=True)
class _Plan:
    at_ms: int
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """A canary whose time has come."""

    config: str
    module: str
    name: str


@dataclass(slots=True)
class Schedule:
    """The plan for one log. `add` takes its accepted entries, `due` says what to run now."""

    interval_ms: int
    draw: Draw
    family_of: FamilyOf
    usage: Usage = field(default_factory=Usage)
    _refused: dict[tuple[Build, str], int] = field(default_factory=dict)
    _plans: dict[Slot, _Plan] = field(default_factory=dict)

    def add(self, entry: Entry, replay: Replay) -> None:
        """Take notice of an accepted entry."""
        said = entry.predicate
        self.usage.add(entry, replay.books.launches.get(said.get("launch", -1)), self.interval_ms)
        if entry.kind == "canary-result" and said["verdict"] == "REFUSED":
            launch, asked = replay.books.launches[said["challenge"]], replay.books.challenges[said["challenge"]]
            build = Build(launch.config, said["runtime_sha256"], said["boot_id"], said["release_sha256"])
            self._refused[(build, launch.module)] = asked["at_ms"]

    def due(self, now_ms: int, replay: Replay) -> list[Due]:
        """What is to be run now; each of them counts as one attempt."""
        found, live = [], set()
        for period, module, name in self._canaries(now_ms, replay):
            slot, begin, end = self._slot(period, module, now_ms)
            if slot is None or self._refused.get((period.build, module), -1) >= begin:
                continue
            live.add(slot)
            plan = self._plans.setdefault(slot, _Plan(self._drawn(slot.window == 0, begin, end, now_ms)))
            if plan.at_ms <= now_ms and plan.attempts < ATTEMPTS:
                plan.attempts += 1
                pause = min(AGAIN_MS, self.interval_ms // 20)
                plan.at_ms = now_ms + pause + self.draw(max(1, (end - now_ms) // ATTEMPTS))
                found.append(Due(period.build.config, module, name))
        self._plans = {slot: plan for slot, plan in self._plans.items() if slot in live}
        return found

    def _canaries(self, now_ms: int, replay: Replay) -> Iterator[tuple[Period, str, str]]:
        """Every build that the node could still run a canary on, with each canary for its family."""
        usage = self.usage
        for period in usage.periods:
            over = not period.running and now_ms - period.end_ms >= self.interval_ms
            if over or (period.build.boot, period.build.release) != (usage.boot, usage.release):
                continue
            family = self.family_of(period.build.config)
            for module in usage.approved_ms:
                approved = replay.books.modules[module]
                if family is not None and applies(family_of_probe(approved.probe), family):
                    yield period, module, approved.name

    def _slot(self, period: Period, module: str, now_ms: int) -> tuple[Slot | None, int, int]:
        """The window that is now, if the build was in use in it."""
        windows = self.usage.windows(period, module, self.interval_ms, now_ms)
        if windows is None:
            return None, 0, 0
        number = (now_ms - windows.begin_ms) // self.interval_ms
        if number >= windows.count:
            return None, 0, 0
        begin, end = windows.span(range(number, number + 1))
        return Slot(period.index, module, number), begin, end

    def _drawn(self, is_first: bool, begin: int, end: int, now_ms: int) -> int:
        last = end - min(MARGIN_MS, self.interval_ms // 10)
        first = now_ms
        if is_first:  # soon; and the draw begins anew if this process comes late
            first = max(now_ms, begin + min(SETTLE_MS, self.interval_ms // 10))
            last = min(last, first + min(FIRST_MS, self.interval_ms // 2))
        return first + self.draw(max(1, last - first))


def family_of_probe(document: Any) -> str:
    """The family in a probe's document; empty if it has none."""
    family = document.get("family") if isinstance(document, Mapping) else None
    return family if isinstance(family, str) else ""
