"""When canaries are run: once in each window, at a time that can't be foreseen, and nothing is missed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from ironbound.monitor.schedule import ATTEMPTS, FIRST_MS, SETTLE_MS, Due, Schedule
from verifier.lab import Lab, config, fallen, wasm

MINUTE = 60_000
INTERVAL = 15 * MINUTE
NAMES = [f"probe-{number}" for number in range(12)]


class Life:
    """A deployment whose monitor runs what the schedule says, tick by tick, in the lab's time."""

    def __init__(self, seed: int = 1, draw: Any = None) -> None:
        self.lab = Lab(canary_interval_ms=INTERVAL, step_ms=1)
        self.random = random.Random(seed)
        self.schedule = self.made(draw)
        self._seen = 0
        self.lab.announce()
        self.module = self.lab.approve_module(wasm())
        self.cage = self.lab.approve_profile(config())
        self.canaries = {name: self.lab.approve_module(wasm(name), name) for name in NAMES}
        self.ran: list[tuple[int, str]] = []

    def made(self, draw: Any = None) -> Schedule:
        return Schedule(INTERVAL, draw or self.random.randrange, lambda digest: "wasm")

    def restart(self) -> None:
        """A monitor that knows nothing but the log."""
        self.schedule, self._seen = self.made(), 0

    def start(self, agent: str = "clerk") -> int:
        launch = self.lab.expect(self.lab.ask_launch(agent, self.module, self.cage))
        started = self.lab.expect(self.lab.start(launch))
        self.lab.expect(self.lab.observe(started))
        return started

    def due(self) -> list[Due]:
        for entry in self.lab.said[self._seen :]:
            if entry.void is None:
                self.schedule.add(entry, self.lab.replay)
        self._seen = len(self.lab.said)
        return self.schedule.due(self.lab.now, self.lab.replay)

    def tick(self, ms: int = 1000) -> list[Due]:
        self.lab.now += ms
        return self.due()

    def live(self, minutes: int) -> None:
        end = self.lab.now + minutes * MINUTE
        while self.lab.now < end:
            for due in self.tick():
                self.ran.append((self.lab.now, due.name))
                self.lab.canary(due.module, due.config, due.name)


@pytest.fixture
def life() -> Life:
    return Life()


def test_every_canary_runs_once_in_each_window_and_no_window_is_uncovered(life: Life) -> None:
    life.start()
    begin = life.lab.now
    life.live(61)
    windows = Counter(((at - begin) // INTERVAL, name) for at, name in life.ran)
    assert {windows[(number, name)] for number in range(4) for name in NAMES} == {1}
    assert fallen(life.lab.verify()).get("B2") is None


def test_the_first_ones_come_soon_and_not_at_once(life: Life) -> None:
    life.start()
    begin = life.lab.now
    life.live(3)
    times = [at - begin for at, _ in life.ran]
    assert len(times) == len(NAMES)
    assert min(times) >= SETTLE_MS - 1000 and max(times) <= SETTLE_MS + FIRST_MS + 2000


def test_the_times_differ_from_draw_to_draw_and_spread_over_the_window() -> None:
    runs = []
    for seed in (1, 2):
        life = Life(seed)
        life.start()
        begin = life.lab.now
        life.live(31)
        runs.append([at - begin for at, _ in life.ran if at - begin >= INTERVAL])
    assert runs[0] != runs[1]
    assert len(set(runs[0])) > len(NAMES) // 2
    assert max(runs[0]) - min(runs[0]) > INTERVAL // 3


def test_whoever_knows_every_draw_but_the_next_learns_nothing(life: Life) -> None:
    bounds = []

    def draw(bound: int) -> int:
        bounds.append(bound)
        return bound - 1

    life = Life(draw=draw)
    life.start()
    life.live(20)
    assert sum(bound > INTERVAL // 2 for bound in bounds) >= len(NAMES)  # a whole window lies open to each draw


def test_after_a_restart_nothing_is_missed_and_nothing_done_twice(life: Life) -> None:
    life.start()
    begin = life.lab.now
    for _ in range(60):
        life.restart()
        life.live(1)
    windows = Counter(((at - begin) // INTERVAL, name) for at, name in life.ran)
    assert {windows[(number, name)] for number in range(4) for name in NAMES} == {1}


def test_a_monitor_that_was_away_runs_what_the_window_still_lacks(life: Life) -> None:
    life.start()
    life.live(15)
    ran = len(life.ran)
    life.lab.now += 13 * MINUTE
    life.restart()
    life.live(2)
    assert len(life.ran) == ran + len(NAMES)


def test_a_canary_that_fails_is_drawn_anew_but_not_for_ever(life: Life) -> None:
    life.start()
    tried: Counter[str] = Counter()
    for _ in range(INTERVAL // 1000 - 30):
        for due in life.tick():
            tried[due.name] += 1
    assert set(tried.values()) == {ATTEMPTS}


def test_nothing_is_due_where_no_agent_runs_and_soon_after_the_last_one_ended(life: Life) -> None:
    assert life.tick() == []
    started = life.start()
    life.lab.expect(life.lab.exit(started))
    life.live(5)
    assert len(life.ran) == len(NAMES)  # the window in which it ran still needs its refusals
    life.live(60)
    assert len(life.ran) == len(NAMES)


def test_a_canary_is_for_its_own_family_of_sandboxes(life: Life) -> None:
    life.lab.approve_module(b"a manifest", "native-probe", family="native")
    life.start()
    life.live(5)
    assert {name for _, name in life.ran} == set(NAMES)
    native = Life()
    native.schedule.family_of = lambda digest: "microvm"
    module = native.lab.approve_module(b"a manifest", "native-probe", family="native")
    native.start()
    assert {due.module for _ in range(200) for due in native.tick()} == {module}


def test_a_build_that_the_node_left_is_not_tried_any_more(life: Life) -> None:
    started = life.start()
    life.lab.expect(life.lab.exit(started))
    life.lab.announce(release="next release")
    assert [due for _ in range(200) for due in life.tick()] == []
