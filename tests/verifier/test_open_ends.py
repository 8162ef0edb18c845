"""What stays open, and what stands at the edges: each with the code that says why."""

from __future__ import annotations

import io
from hashlib import sha256
from typing import Any

import pytest

from ironbound.core.canonical import canonical
from ironbound.core.checkpoint import Checkpoint, cosign_checkpoint, sign_checkpoint
from ironbound.core.merkle import EMPTY_ROOT
from ironbound.core.note import add_lines
from ironbound.core.surface import approval_body
from ironbound.verifier.bundle import BundleBroken
from ironbound.verifier.verify import verify_bundle

from .lab import ORIGIN, Honest, Lab, config, fallen, honest, pack, wasm


@pytest.fixture
def scene() -> Honest:
    return honest()


def refuse(lab: Lab, launch: int, stage: str, text: str) -> int:
    said = lab.replay.books.launches[launch]
    entry = lab.say(
        "node",
        "launch-refused",
        launch=launch,
        agent=said.agent,
        stage=stage,
        reason="sandbox-refused",
        text=text,
        module_sha256=said.module,
        config_sha256=said.config,
    )
    return entry.index


def test_an_unknown_outcome_without_authority_is_not_rounded_up(scene: Honest) -> None:
    lab = scene.lab
    lab.expect(lab.revoke("clerk", scene.module, scene.cage, scene.grant))
    intent = lab.intent("clerk", scene.launch, scene.grant)
    lab.outcome(intent.index, "unknown")
    assert lab.falling() == {"C3": {"outcome-unknown"}}


def test_an_outcome_lost_in_a_crash_is_closed_as_unknown_and_said_openly(scene: Honest) -> None:
    lab = scene.lab
    intent = lab.expect(lab.intent("clerk", scene.launch, scene.grant))
    lab.expect(lab.outcome(intent, "unknown"))
    report = lab.verify()
    assert fallen(report) == {}
    assert any("unknown" in remark for claim in report.claims for remark in claim.remarks)


def test_an_intent_refused_by_the_kernel_still_owes_its_outcome(scene: Honest) -> None:
    lab = scene.lab
    lab.expect(lab.revoke("clerk", scene.module, scene.cage, scene.grant))
    lab.intent("clerk", scene.launch, scene.grant)
    assert lab.falling() == {"D2": {"outcome-missing"}}


def test_an_admitted_launch_that_nobody_answered_is_shown_once_it_expired(scene: Honest) -> None:
    lab = scene.lab
    lab.expect(lab.ask_launch("second", scene.module, scene.cage))
    assert lab.falling() == {}
    lab.now += 600_000
    scene.act()
    assert lab.falling() == {"D2": {"launch-unanswered"}}


def test_the_end_of_what_had_not_started_refutes_d2(scene: Honest) -> None:
    refuse(scene.lab, scene.launch, "imports", "too late")
    assert scene.lab.falling() == {"D2": {"exit-without-start"}}


def test_an_observation_of_no_launch_refutes_f1(scene: Honest) -> None:
    said = scene.lab.started(scene.started)
    scene.lab.say("monitor", "observed", started=1, agent="clerk", pid=5, posture=said["posture"], differences=[])
    assert scene.lab.falling() == {"F1": {"observation-void"}}


def test_a_stray_process_that_was_ordered_to_stop_has_no_witnessed_end(scene: Honest) -> None:
    drift = scene.lab.expect(scene.lab.drift(None, "process-without-entry"))
    scene.lab.expect(scene.lab.stop_order(drift, None))
    assert scene.lab.falling() == {"B3": {"end-unwitnessed"}}


def test_a_challenge_that_had_no_effect_is_shown(scene: Honest) -> None:
    scene.lab.say_challenge(scene.module, scene.cage, scene.probe)
    assert scene.lab.falling() == {"B2": {"canary-void"}}


def importing_canary(lab: Lab, cage: str, text: str, verdict: str) -> None:
    """A canary that the runtime refuses before it starts."""
    request: dict[str, Any] = {
        "probe": "import-exec",
        "family": "wasm",
        "module": "import-exec.wasm",
        "about": "imports exec",
        "stage": "imports",
        "reasons": ["imports"],
        "attempts": 1,
        "refusal": "unknown import",
        "controls": ["SC-39"],
    }
    module = wasm("importing", imports=[("env", "exec")])
    digest = sha256(module).hexdigest()
    body = approval_body(module, request)
    lab.expect(lab.ask("module-approval", module_sha256=digest, body=body))
    challenge = lab.challenge(digest, cage, "import-exec")
    evidence = refuse(lab, challenge, "imports", text)
    lab.expect(lab.result(challenge, "import-exec", evidence, verdict=verdict, refusal=""))


def test_a_canary_refused_before_it_started_counts_by_the_runtimes_own_words(scene: Honest) -> None:
    importing_canary(scene.lab, scene.cage, "unknown import: env::exec has not been defined", "REFUSED")
    assert scene.lab.falling() == {}


def test_a_refusal_that_is_not_in_the_runtimes_words_is_the_nodes_invention(scene: Honest) -> None:
    importing_canary(scene.lab, scene.cage, "refused, trust me", "REFUSED")
    assert "verdict-differs" in scene.lab.falling()["B2"]


def test_a_deployment_without_canaries_proves_no_boundary() -> None:
    lab = Lab()
    lab.announce()
    module, cage = lab.approve_module(wasm()), lab.approve_profile(config())
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("clerk", module, cage))))
    lab.expect(lab.observe(started))
    assert lab.falling() == {
        "B2": {"no-canaries"},
        "C2": {"channel-not-probed"},
        "C3": {"empty-population"},
    }


def test_services_that_never_announced_themselves_leave_f1_open() -> None:
    lab = Lab()
    module, cage = lab.approve_module(wasm()), lab.approve_profile(config())
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("clerk", module, cage))))
    lab.expect(lab.observe(started))
    assert lab.falling()["F1"] == {"service-not-announced"}


def test_approved_bytes_that_are_no_configuration_refute_b1(scene: Honest) -> None:
    lab = scene.lab
    cage = lab.approve_profile({"version": 1, "profile": "loose"})
    launch = lab.expect(lab.ask_launch("second", scene.module, cage))
    started = lab.expect(lab.start(launch, posture=lab.posture(scene.module, scene.cage)))
    lab.expect(lab.observe(started))
    falling = lab.falling()
    assert falling["B1"] == {"artifact-not-a-config"} and falling["A2"] == {"artifact-missing"}


def test_a_module_whose_bytes_cannot_be_read_stays_open(scene: Honest) -> None:
    lab = scene.lab
    module = lab.approve_module(b"\x00asm\x01\x00\x00\x00\x01")
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("second", module, scene.cage))))
    lab.expect(lab.observe(started))
    assert lab.falling() == {"A2": {"surface-unreadable"}}


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ({"checkpoint": b"\xff"}, "checkpoint-malformed"),
        ({"witness-policy": b"\xff"}, "policy-malformed"),
        ({"witness-policy": b"quorum none\n"}, "policy-malformed"),
        ({"bundle.json": canonical({})[:1]}, "index-malformed"),
    ],
)
def test_a_malformed_member_breaks_the_bundle_with_its_own_code(
    scene: Honest, spoil: dict[str, bytes], code: str
) -> None:
    with pytest.raises(BundleBroken) as caught:
        verify_bundle(io.BytesIO(pack(scene.lab.members() | spoil)), scene.lab.pin)
    assert caught.value.code == code


def test_an_empty_log_has_no_trust_root(scene: Honest) -> None:
    lab = scene.lab
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    signed = add_lines(sign_checkpoint(empty, lab.log), [cosign_checkpoint(empty, lab.witness, 1)])
    with pytest.raises(BundleBroken) as caught:
        verify_bundle(io.BytesIO(pack({"checkpoint": signed, "witness-policy": lab.policy.encode()})), None)
    assert caught.value.code == "log-empty"
