"""The monitor's silence: a beat that is missing while an agent runs leaves the absence of drift unproven."""

from __future__ import annotations

import pytest

from .lab import Honest, honest

BOUND = 30_000
MISSED = {"B3": {"heartbeat-missed"}}


@pytest.fixture
def scene() -> Honest:
    return honest(heartbeat_ms=BOUND)


def beat(scene: Honest, *sequence: int) -> None:
    for number in sequence:
        scene.lab.expect(scene.lab.beat(number))


def test_beats_within_the_bound_keep_every_claim(scene: Honest) -> None:
    for number in (1, 2, 3):
        beat(scene, number)
        scene.lab.now += BOUND - 1_000
    scene.act()
    assert scene.lab.falling() == {}


def test_a_launch_shorter_than_the_bound_needs_no_beat(scene: Honest) -> None:
    scene.lab.now += BOUND - 1_000
    scene.lab.expect(scene.lab.exit(scene.started))
    assert scene.lab.falling() == {}


def test_silence_between_two_beats_leaves_b3_unproven(scene: Honest) -> None:
    beat(scene, 1)
    scene.lab.now += BOUND + 1_000
    beat(scene, 2)
    assert scene.lab.falling() == MISSED


def test_silence_before_the_first_beat_and_after_the_last_is_silence_too(scene: Honest) -> None:
    scene.lab.now += BOUND + 1_000
    scene.act()
    assert scene.lab.falling() == MISSED
    late = honest(heartbeat_ms=BOUND)
    beat(late, 1)
    late.lab.now += BOUND + 1_000
    late.act()
    assert late.lab.falling() == MISSED


def test_silence_while_nothing_ran_misses_nothing(scene: Honest) -> None:
    beat(scene, 1)
    scene.lab.expect(scene.lab.exit(scene.started))
    scene.lab.now += 10 * BOUND
    beat(scene, 2)
    assert scene.lab.falling() == {}


def test_a_beat_that_was_left_out_is_missed_and_a_restarted_monitor_begins_anew(scene: Honest) -> None:
    beat(scene, 1, 2, 1, 2)
    assert scene.lab.falling() == {}
    beat(scene, 4)
    assert scene.lab.falling() == MISSED


def test_a_monitor_that_dates_a_beat_back_does_not_fill_its_silence(scene: Honest) -> None:
    beat(scene, 1)
    then = scene.lab.now
    scene.lab.now += BOUND + 1_000
    scene.lab.expect(scene.lab.beat(2))
    scene.lab.expect(scene.lab.beat(3, at_ms=then + BOUND // 2))
    assert scene.lab.falling() == MISSED


def test_the_monitor_s_own_look_at_a_stray_process_s_end_closes_its_drift(scene: Honest) -> None:
    lab = scene.lab
    drift = lab.expect(lab.drift(None, "process-without-entry"))
    lab.expect(lab.stop_order(drift, None))
    lab.expect(lab.witness_end(drift))
    assert lab.falling() == {}


def test_another_process_s_end_or_a_late_one_does_not(scene: Honest) -> None:
    lab = scene.lab
    drift = lab.expect(lab.drift(None, "process-without-entry"))
    lab.expect(lab.stop_order(drift, None))
    lab.expect(lab.witness_end(drift, pid=1))
    assert lab.falling() == {"B3": {"end-unwitnessed"}}
    lab.expect(lab.witness_end(drift, took_ms=lab.drift_stop_ms + 1))
    assert lab.falling() == {"B3": {"drift-stop-late"}}
