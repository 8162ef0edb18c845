"""Which canaries count, and which windows of time they cover: each way of not counting, beside its counterpart."""

from __future__ import annotations

from typing import Any

import pytest

from ironbound.core.canonical import canonical
from ironbound.core.coverage import ANSWER_MS, Windows
from ironbound.verifier.claims import HOLDS, REFUTED, UNPROVEN, Claim
from ironbound.verifier.kernel import kernel_digest
from ironbound.verifier.output import report_lines
from ironbound.verifier.verify import Report

from .lab import Honest, config, digest_of, honest, key, status, wasm

MINUTE = 60_000


@pytest.fixture
def scene() -> Honest:
    return honest(canary_interval_ms=MINUTE)


def b2(scene: Honest) -> Claim:
    return next(claim for claim in scene.lab.verify().claims if claim.id == "B2")


def codes(scene: Honest) -> set[str]:
    return {reason.code for reason in b2(scene).reasons}


def probe(scene: Honest, **fields: Any) -> None:
    scene.lab.canary(scene.canary, scene.cage, scene.probe, **fields)


def wait(scene: Honest, ms: int) -> None:
    """Time goes by, and somebody says something."""
    scene.lab.now += ms
    scene.act()


def answer_later(scene: Honest, ms: int) -> None:
    """A challenge whose result comes this long after it."""
    lab = scene.lab
    challenge = lab.challenge(scene.canary, scene.cage, scene.probe)
    started = lab.expect(lab.start(challenge))
    lab.expect(lab.observe(started))
    nonce = lab.replay.books.challenges[challenge]["nonce"]
    told = {"nonce": nonce, "probe": scene.probe, "verdict": "REFUSED", "refusal": "-32601 method not found"}
    ended = lab.expect(lab.exit(started, report=canonical(told | {"tried": 2, "refused": 2}).decode()))
    lab.now += ms
    lab.expect(lab.result(challenge, scene.probe, ended))


def renew(scene: Honest, **said: Any) -> None:
    """The node announces itself anew."""
    base = {
        "role": "node", "pid": 9, "pid_start": 9, "boot_id": "b", "uid": 61_001, "gid": 61_001, "separation": "user",
        "version": "0.1.0", "kernel_sha256": kernel_digest(), "surface_sha256": None,
        "release_sha256": digest_of("release"), "settings_sha256": digest_of("settings"), "measured": None, "host": {},
    }  # fmt: skip
    scene.lab.expect(scene.lab.say("node", "service-started", **(base | said)))


def second(scene: Honest, **start: Any) -> None:
    """A second agent starts with the same configuration."""
    lab = scene.lab
    launch = lab.expect(lab.ask_launch("second", scene.module, scene.cage))
    lab.expect(lab.observe(lab.expect(lab.start(launch, **start))))


# Windows


def test_every_window_needs_its_refusal_and_an_open_one_is_said_to_be_open(scene: Honest) -> None:
    probe(scene)
    wait(scene, MINUTE)
    probe(scene)
    wait(scene, MINUTE)
    assert b2(scene).status == HOLDS
    wait(scene, 30_000)
    assert b2(scene).status == HOLDS
    assert any("were not over when the log ends" in remark for remark in b2(scene).remarks)


def test_a_window_without_a_refusal_is_named_with_its_time_its_entries_and_its_canary(scene: Honest) -> None:
    wait(scene, MINUTE + 30_000)
    wait(scene, 31_000)
    probe(scene)
    claim = b2(scene)
    assert claim.status == UNPROVEN and codes(scene) == {"canary-window-uncovered"}
    assert claim.counts["windows uncovered"] == 1 and claim.counts["windows due"] == 3
    named = [remark for remark in claim.remarks if remark.startswith("uncovered from")]
    assert len(named) == 1 and scene.probe in named[0] and "entries" in named[0]
    assert "2027-01-15 08:01:00" in named[0] and "2027-01-15 08:02:00" in named[0]


def test_many_refusals_in_one_window_cover_no_other(scene: Honest) -> None:
    for _ in range(5):
        probe(scene)
    wait(scene, 3 * MINUTE)
    assert codes(scene) == {"canary-window-uncovered"}


def test_the_use_of_a_moment_needs_a_refusal_within_its_window(scene: Honest) -> None:
    lab = scene.lab
    cage = lab.approve_profile(config(max_memory=17))
    launch = lab.expect(lab.ask_launch("second", scene.module, cage))
    started = lab.expect(lab.start(launch))
    lab.expect(lab.observe(started))
    lab.expect(lab.exit(started))
    assert codes(scene) == {"canary-missing"}
    lab.now += 40_000
    lab.canary(scene.canary, cage, scene.probe)
    probe(scene)
    assert b2(scene).status == HOLDS


def test_time_in_which_no_agent_ran_needs_no_canary() -> None:
    scene = honest(canary_interval_ms=MINUTE)
    scene.lab.expect(scene.lab.exit(scene.started))
    scene.lab.now += 100 * MINUTE
    second(scene)
    assert codes(scene) == {"canary-window-uncovered"}
    probe(scene)
    assert b2(scene).status == HOLDS


def test_a_canary_that_was_approved_later_is_due_from_then_on(scene: Honest) -> None:
    probe(scene)
    scene.lab.now += 30_000
    later = scene.lab.approve_module(wasm("new canary"), "path-traversal")
    assert codes(scene) == {"canary-missing"}
    scene.lab.canary(later, scene.cage, "path-traversal")
    assert b2(scene).status == HOLDS


def test_a_time_that_lasts_for_ages_costs_no_more_than_its_entries(scene: Honest) -> None:
    scene.lab.now += 1 << 50
    scene.lab.expect(scene.lab.observe(scene.started))
    claim = b2(scene)
    assert codes(scene) == {"canary-window-uncovered"}
    assert claim.counts["windows uncovered"] > 1 << 30


def test_windows_are_counted_exactly() -> None:
    five = Windows(0, 50, 10, 5, False)
    assert five.uncovered([]) == [range(5)]
    assert five.uncovered([0, 9]) == [range(1, 5)]
    assert five.uncovered([-1, 10, 35]) == [range(1), range(2, 3), range(4, 5)]
    assert five.uncovered([-1, 10, 39, 40, 49, 50, 51]) == [range(1), range(2, 3)]
    assert five.uncovered([5, 15, 25, 35, 45]) == []
    cut = Windows(0, 42, 10, 5, False)
    assert cut.uncovered([5, 15, 25, 31]) == [range(4, 5)]
    assert cut.uncovered([5, 15, 25, 32]) == []  # at most one interval before the end of the use
    assert cut.uncovered([5, 15, 25, 31, 49]) == []


# What does not count


def test_a_missed_challenge_does_not_count(scene: Honest) -> None:
    scene.lab.challenge(scene.canary, scene.cage, scene.probe)
    assert b2(scene).status == HOLDS  # there is time yet
    wait(scene, ANSWER_MS + 1000)
    assert codes(scene) >= {"canary-missed"}
    assert b2(scene).status == UNPROVEN


def test_a_late_result_does_not_count() -> None:
    in_time, late = (honest(canary_interval_ms=10 * MINUTE) for _ in range(2))
    for scene, took in ((in_time, ANSWER_MS - 1000), (late, ANSWER_MS + 1000)):
        wait(scene, 10 * MINUTE)
        answer_later(scene, took)
        wait(scene, 9 * MINUTE)
    assert b2(in_time).status == HOLDS
    assert codes(late) == {"canary-late", "canary-window-uncovered"}


def test_a_node_that_dates_a_late_result_back_does_not_make_it_count() -> None:
    scene = honest(canary_interval_ms=10 * MINUTE)
    wait(scene, 10 * MINUTE)
    lab = scene.lab
    asked = lab.now
    challenge = lab.challenge(scene.canary, scene.cage, scene.probe)
    started = lab.expect(lab.start(challenge))
    lab.expect(lab.observe(started))
    told = {
        "nonce": lab.replay.books.challenges[challenge]["nonce"], "probe": scene.probe, "verdict": "REFUSED",
        "refusal": "-32601 method not found", "tried": 2, "refused": 2,
    }  # fmt: skip
    ended = lab.expect(lab.exit(started, report=canonical(told).decode()))
    lab.now += ANSWER_MS + 1000
    lab.expect(lab.observe(started))  # the monitor's voice, which a node can't date
    lab.expect(lab.result(challenge, scene.probe, ended, at_ms=asked + 100))
    assert "canary-late" in codes(scene)


def test_a_replayed_result_does_not_count(scene: Honest) -> None:
    lab = scene.lab
    probe(scene)
    answered = max(lab.replay.books.challenges)
    evidence = lab.replay.books.launches[answered].ended
    lab.result(answered, scene.probe, evidence)
    assert b2(scene).status == REFUTED and codes(scene) == {"canary-replayed"}


def test_an_old_nonce_under_a_new_challenge_does_not_count(scene: Honest) -> None:
    lab = scene.lab
    probe(scene)
    old = lab.replay.books.challenges[max(lab.replay.books.challenges)]
    probe(scene, say=False)
    new = max(lab.replay.books.challenges)
    lab.result(new, scene.probe, lab.replay.books.launches[new].ended, nonce=old["nonce"])
    assert codes(scene) == {"canary-replayed"}


def test_a_result_of_another_node_does_not_count(scene: Honest) -> None:
    probe(scene, result={"node": key("another node").public.keyid})
    assert b2(scene).status == REFUTED and codes(scene) == {"canary-foreign"}


def test_a_result_that_another_node_signed_does_not_count(scene: Honest) -> None:
    lab = scene.lab
    wait(scene, 2 * MINUTE + 1000)
    probe(scene, say=False)
    new = max(lab.replay.books.challenges)
    entry = lab.result(new, scene.probe, lab.replay.books.launches[new].ended, signer=key("another node"))
    assert entry.void == "voice-unknown"
    assert b2(scene).status == UNPROVEN


def test_a_challenge_with_a_checkpoint_of_another_log_starts_nothing(scene: Honest) -> None:
    other = honest().lab.head()
    assert scene.lab.say_challenge(scene.canary, scene.cage, scene.probe, checkpoint=other).void == "checkpoint-unknown"
    assert codes(scene) == {"canary-void"}


def test_a_result_from_a_test_environment_does_not_count_where_the_trust_root_says_production(scene: Honest) -> None:
    probe(scene, result={"environment": "test"})
    assert b2(scene).status == REFUTED and codes(scene) == {"canary-test-environment"}


def test_a_result_from_production_does_not_count_where_the_trust_root_says_test() -> None:
    scene = honest(environment="test")
    assert b2(scene).status == HOLDS
    probe(scene, result={"environment": "production"})
    assert codes(scene) == {"canary-test-environment"}


def test_evidence_from_another_environment_says_first_that_it_is_none_about_production() -> None:
    here, demo = honest().lab.verify(), honest(environment="demo").lab.verify()
    assert status(demo, "B2") == HOLDS and (here.environment, demo.environment) == ("production", "demo")
    assert "What this bundle does not prove" in _lines(demo)
    first = _lines(demo)[_lines(demo).index("What this bundle does not prove") + 1]
    assert "anything about production" in first and "demo" in first
    assert not any("anything about production" in line for line in _lines(here))
    remarks = next(claim for claim in demo.claims if claim.id == "B2").remarks
    assert any("environment demo" in remark and "no evidence about production" in remark for remark in remarks)


def _lines(report: Report) -> list[str]:
    return list(report_lines(report, False))


@pytest.mark.parametrize(
    ("code", "start"),
    [
        ("canary-other-runtime", {"runtime_sha256": digest_of("next wasmtime")}),
        ("canary-other-boot", {"boot_id": "next boot"}),
    ],
)
def test_a_canary_on_another_runtime_or_boot_does_not_count(scene: Honest, code: str, start: dict[str, Any]) -> None:
    second(scene, **start)
    assert codes(scene) == {code}
    probe(scene, **start)
    assert b2(scene).status == HOLDS


def test_a_canary_under_another_release_does_not_count(scene: Honest) -> None:
    renew(scene, release_sha256=digest_of("next release"))
    second(scene)
    assert codes(scene) == {"canary-other-release"}
    probe(scene, result={"release_sha256": digest_of("next release")})
    assert b2(scene).status == HOLDS


@pytest.mark.parametrize(
    "wrong", [{"runtime_sha256": digest_of("r")}, {"boot_id": "c"}, {"release_sha256": digest_of("r")}]
)
def test_a_result_at_odds_with_its_own_launch_refutes(scene: Honest, wrong: dict[str, str]) -> None:
    probe(scene, result=wrong)
    assert b2(scene).status == REFUTED and codes(scene) == {"canary-result-differs"}


def test_a_result_for_no_challenge_of_the_monitor_refutes(scene: Honest) -> None:
    lab = scene.lab
    lab.result(max(lab.replay.books.challenges), scene.probe, scene.started, challenge=scene.launch)
    assert codes(scene) == {"canary-result-void"}


def test_an_inconclusive_canary_covers_no_window(scene: Honest) -> None:
    wait(scene, MINUTE + 10_000)
    probe(scene, report={"refused": 1}, verdict="INCONCLUSIVE")
    wait(scene, MINUTE)
    probe(scene)
    assert codes(scene) == {"canary-window-uncovered"}


def test_a_canary_for_another_family_of_sandboxes_is_not_due(scene: Honest) -> None:
    scene.lab.approve_module(b"a manifest", "ptrace-sibling", family="native")
    assert b2(scene).status == HOLDS
    scene.lab.approve_module(wasm("another"), "path-traversal")
    assert codes(scene) == {"canary-missing"}
