"""Times that are dated back, by a node for an end of its own or by log and witness for the checkpoint, hide nothing."""

from __future__ import annotations

import io

import pytest

from ironbound.verifier.verify import Report, verify_bundle

from .lab import Honest, fallen, honest, pack

MINUTE = 60_000
UNCOVERED = {"B2": {"canary-window-uncovered"}}


@pytest.fixture
def scene() -> Honest:
    return honest(canary_interval_ms=MINUTE, heartbeat_ms=10 * MINUTE)


def go_on(scene: Honest, minutes: int) -> None:
    """The agent works, the controller is asked, the monitor's heart beats; no canary runs."""
    for number in range(minutes):
        scene.lab.now += MINUTE
        scene.act()
        scene.lab.expect(scene.lab.probe_channel())
        scene.lab.expect(scene.lab.beat(number + 1))


def as_of(scene: Honest, ms: int) -> Report:
    """The verdict on all that was said, under a checkpoint that was cosigned at this time, as its witness says."""
    now, scene.lab.now = scene.lab.now, ms
    checkpoint = scene.lab.checkpoint()
    scene.lab.now = now
    return verify_bundle(io.BytesIO(pack(scene.lab.members() | {"checkpoint": checkpoint})), scene.lab.pin)


@pytest.mark.parametrize("begin", [True, False])
def test_a_checkpoint_that_is_dated_back_hides_nothing_that_fell_due(scene: Honest, begin: bool) -> None:
    began = scene.lab.now if begin else 0
    scene.lab.challenge(scene.canary, scene.cage, scene.probe)
    go_on(scene, 15)
    due = {"B2": {"canary-missed", "canary-window-uncovered"}, "D2": {"launch-unanswered"}}
    assert scene.lab.falling() == due
    report = as_of(scene, began)
    assert fallen(report) == due
    assert report.as_of_ms == report.last_ms


def test_a_node_that_dates_an_end_back_has_no_window_the_less() -> None:
    for ended in (None, 1):
        scene = honest(canary_interval_ms=MINUTE, heartbeat_ms=10 * MINUTE)
        began = scene.lab.now
        go_on(scene, 5)
        dated = {} if ended is None else {"at_ms": began}
        scene.lab.expect(scene.lab.exit(scene.started, **dated))
        assert scene.lab.falling() == UNCOVERED


def test_a_node_that_dates_an_end_back_hides_no_silence_of_the_monitor() -> None:
    scene = honest(heartbeat_ms=30_000)
    scene.lab.expect(scene.lab.beat(1))
    began = scene.lab.now
    scene.lab.now += 31_000
    scene.act()
    scene.lab.expect(scene.lab.exit(scene.started, at_ms=began))
    assert scene.lab.falling() == {"B3": {"heartbeat-missed"}}
