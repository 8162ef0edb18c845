"""C4 holds only for a proof of the very kernel that ran, with the very questions that follow from it."""

from __future__ import annotations

from typing import Any

import pytest

from ironbound.core import authority
from ironbound.verifier.claims import REFUTED, UNPROVEN
from ironbound.verifier.proof.obligations import scripts, scripts_digest
from ironbound.verifier.proved import questions

from .lab import Lab, digest_of, honest, status, verdict


def test_the_honest_proof_holds_and_counts_its_obligations() -> None:
    report = honest().lab.verify()
    claim = next(one for one in report.claims if one.id == "C4")
    assert (claim.status, claim.reasons) == ("holds", ())
    assert claim.counts["obligations"] == questions()[1] > 1_900 and "z3" in claim.remarks[0]


def test_without_a_proof_for_the_kernel_that_ran_it_is_unproven() -> None:
    lab = Lab()
    lab.announce(proof=False)
    assert lab.falling()["C4"] == {"proof-missing"} and status(lab.verify(), "C4") == UNPROVEN
    lab.say_proof(kernel_sha256=digest_of("another kernel"))
    assert lab.falling()["C4"] == {"proof-missing"}
    lab.expect(lab.say_proof())
    assert "C4" not in lab.falling()


@pytest.mark.parametrize("role", ["controller", "node", "gateway"])
def test_nobody_but_the_monitor_says_a_proof(role: str) -> None:
    lab = Lab()
    lab.announce(proof=False)
    assert lab.say_proof(role).void == "voice-not-entitled"
    assert lab.falling()["C4"] == {"proof-missing"}


def test_a_service_that_started_with_another_kernel_leaves_it_unproven() -> None:
    scene = honest()
    scene.lab.announce(kernel=digest_of("changed"), proof=False)
    assert scene.lab.falling()["C4"] == {"proof-missing"}
    scene.lab.say_proof(kernel_sha256=digest_of("changed"))
    assert scene.lab.falling()["C4"] == {"kernel-not-here"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"scripts_sha256": digest_of("other questions")}, "proof-differs"),
        ({"obligations": 7, "verdicts": [verdict(held=7)]}, "proof-differs"),
        ({"rules": 3, "verdicts": [verdict(possible=3)]}, "proof-differs"),
        ({"verdicts": []}, "proof-fails"),
        ({"verdicts": [verdict(failed=1, named=["invoke: to this agent: sat"])]}, "proof-fails"),
        ({"verdicts": [verdict(held=questions()[1] - 1)]}, "proof-fails"),
        ({"verdicts": [verdict(possible=0)]}, "proof-fails"),
        ({"verdicts": [verdict(solver="cvc5", possible=0)]}, "proof-fails"),
        ({"verdicts": [verdict(), verdict(solver="cvc5", possible=0, failed=2)]}, "proof-fails"),
    ],
)
def test_a_forged_or_failed_proof_refutes_it(fields: dict[str, Any], code: str) -> None:
    scene = honest()
    scene.lab.expect(scene.lab.say_proof(**fields))
    assert scene.lab.falling() == {"C4": {code}} and status(scene.lab.verify(), "C4") == REFUTED


def test_the_digest_of_the_questions_changes_with_any_of_them() -> None:
    made = list(scripts(authority))
    assert scripts_digest(made) == questions()[0]
    assert scripts_digest(made[:-1]) != questions()[0] != scripts_digest(made[::-1])
