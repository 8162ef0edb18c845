"""A start counts only with the monitor's signed look at that very sandbox, and what follows where it lacks it."""

from __future__ import annotations

from typing import Any

import pytest

from ironbound.core.envelope import envelope_from_value, sign_envelope
from ironbound.core.held import account_digest, read_held
from ironbound.core.reasons import REASONS
from ironbound.verifier.codes import REFUTING

from .lab import Honest, digest_of, honest, key

DIFFERENCE = {"path": "rlimits.nofile", "expected": [7, 7], "got": [64, 64]}
EMPTY = {"payload": "", "payloadType": "application/vnd.in-toto+json", "signatures": []}


@pytest.fixture
def scene() -> Honest:
    made = honest()
    assert made.lab.falling() == {}
    return made


def _second(scene: Honest) -> int:
    return scene.lab.expect(scene.lab.ask_launch("second", scene.module, scene.cage))


def _held(scene: Honest, at: int, **fields: Any) -> Any:
    return scene.lab.held(scene.lab.account(at), **fields)


def _twice_signed(scene: Honest, launch: int) -> Any:
    payload = envelope_from_value(_held(scene, launch)).payload
    return sign_envelope(payload, [scene.lab.services["monitor"], scene.lab.services["node"]]).as_value()


def _said_aloud(scene: Honest, launch: int) -> Any:
    """The monitor's entry about a sandbox that runs, in the place of a look."""
    fields = {"started": scene.started, "agent": "second", "pid": 1000 + launch, "posture": {}, "differences": []}
    return sign_envelope(scene.lab.statement("observed", fields), [scene.lab.services["monitor"]]).as_value()


FORGED = {
    "nothing": lambda scene, launch: {},
    "no signature": lambda scene, launch: EMPTY,
    "no envelope": lambda scene, launch: {"look": "honest"},
    "signed by the node itself": lambda s, launch: _held(s, launch, signer=s.lab.services["node"]),
    "signed by another service": lambda s, launch: _held(s, launch, signer=s.lab.services["gateway"]),
    "signed by an operator": lambda s, launch: _held(s, launch, signer=s.lab.humans["ada"]),
    "signed by a stranger": lambda s, launch: _held(s, launch, signer=key("stranger")),
    "signed by two": _twice_signed,
    "another kind of word of the monitor": _said_aloud,
}
ANOTHER = {
    "a look at another launch": lambda s, launch: s.lab.started(s.started)["held"],
    "a look that names another launch": lambda s, launch: _held(s, launch, launch=s.launch),
    "a look at another agent": lambda s, launch: _held(s, launch, agent="other"),
    "a look at another process": lambda s, launch: _held(s, launch, pid=31_337),
    "a look in another deployment": lambda s, launch: _held(s, launch, deployment="other"),
    "a look at another account": lambda s, launch: _held(s, launch, account_sha256=digest_of("another")),
    "a process that started later": lambda s, launch: s.lab.held(s.lab.account(launch, pid_start=4)),
    "a boot before this one": lambda s, launch: s.lab.held(s.lab.account(launch, boot_id="a")),
    "an account of another posture": lambda s, launch: s.lab.held(s.lab.account(launch, posture={})),
    "a difference": lambda s, launch: _held(s, launch, differences=[DIFFERENCE]),
}


@pytest.mark.parametrize("what", [*FORGED, *ANOTHER])
def test_a_start_without_the_monitor_s_look_at_that_sandbox_has_no_effect_and_refutes_f1(
    scene: Honest, what: str
) -> None:
    lab, launch = scene.lab, _second(scene)
    before = dict(lab.replay.books.launches), dict(lab.replay.books.started)
    entry = lab.start(launch, held=(FORGED | ANOTHER)[what](scene, launch))
    assert entry.void == ("not-seen" if what in FORGED else "seen-differs") and entry.void in REASONS
    assert (lab.replay.books.launches, lab.replay.books.started) == before
    assert lab.falling() == {"A1": {"start-void"}, "F1": {"start-unseen"}} and "start-unseen" in REFUTING
    lab.expect(lab.start(launch))  # the positive control: the launch still waits, and starts with the look


def test_a_start_that_was_seen_is_an_observation_of_its_own(scene: Honest) -> None:
    lab, launch = scene.lab, _second(scene)
    started = lab.expect(lab.start(launch))
    claims = {one.id: one for one in lab.verify().claims}
    assert claims["F1"].counts["observations"] == claims["F1"].counts["launches"] + 1  # the honest one was seen twice
    assert lab.falling() == {}
    said = lab.started(started)
    assert read_held(said["held"])["account_sha256"] == account_digest(said)


def test_the_look_is_no_entry_of_its_own(scene: Honest) -> None:
    look = envelope_from_value(_held(scene, _second(scene)))
    assert scene.lab.append(look.encode()).void == "voice-not-entitled"
    assert scene.lab.falling() == {"D3": {"voice-not-entitled"}}


def test_the_account_is_every_word_of_a_start_but_its_head_its_look_and_its_quote(scene: Honest) -> None:
    said = scene.lab.started(scene.started)
    free = {"id", "deployment", "at_ms", "held", "quote"}
    for name in said:
        assert (account_digest(dict(said) | {name: "changed"}) == account_digest(said)) == (name in free), name
