"""A node with an enrolled TPM: each launch and each canary carries its quote, or the claims say so."""

from __future__ import annotations

from typing import Any

import pytest

from ironbound.verifier.claims import HOLDS
from ironbound.verifier.verify import Report

from .lab import Honest, fallen, honest, status
from .quoter import Quoter


@pytest.fixture
def tpm() -> Quoter:
    return Quoter()


@pytest.fixture
def scene(tpm: Quoter) -> Honest:
    return honest(quoter=tpm)


def again(scene: Honest, **fields: Any) -> None:
    """One more canary, with its two quotes."""
    scene.lab.canary(scene.canary, scene.cage, scene.probe, **fields)


def counted(report: Report, claim: str) -> int:
    return next(one for one in report.claims if one.id == claim).counts.get("quotes by the node's TPM", 0)


def test_the_quotes_of_an_honest_node_count(scene: Honest) -> None:
    report = scene.lab.verify()
    assert fallen(report) == {} and counted(report, "B1") == 2 and counted(report, "B2") == 1


def test_without_an_enrolled_key_no_quote_is_asked_for() -> None:
    report = honest().lab.verify()
    assert fallen(report) == {} and counted(report, "B1") == 0


def test_a_missing_quote_leaves_its_claim_open(scene: Honest) -> None:
    scene.lab.quoter = None
    again(scene)
    assert scene.lab.falling() == {"B1": {"quote-missing"}, "B2": {"quote-missing"}}


def test_an_old_quote_said_again_refutes(scene: Honest) -> None:
    old = scene.lab.started(scene.started)["quote"]
    launch = scene.lab.expect(scene.lab.ask_launch("second", scene.module, scene.cage))
    scene.lab.expect(scene.lab.observe(scene.lab.expect(scene.lab.start(launch, quote=old))))
    assert scene.lab.falling() == {"B1": {"quote-invalid"}}


def test_a_quote_by_another_tpm_refutes(scene: Honest) -> None:
    scene.lab.quoter = Quoter(seed=2)
    again(scene)
    assert scene.lab.falling() == {"B1": {"quote-invalid"}, "B2": {"quote-invalid"}}


def test_a_start_that_says_other_words_than_it_measured_refutes(scene: Honest) -> None:
    launch = scene.lab.expect(scene.lab.ask_launch("second", scene.module, scene.cage))
    scene.lab.expect(scene.lab.observe(scene.lab.expect(scene.lab.start(launch, unmeasured={"pid": 4711}))))
    assert scene.lab.falling() == {"B1": {"quote-invalid"}}


def test_something_measured_that_the_log_does_not_show_is_a_gap(scene: Honest, tpm: Quoter) -> None:
    again(scene)
    assert scene.lab.falling() == {}
    tpm.quote("00" * 32, b"")
    again(scene)
    assert scene.lab.falling() == {"B1": {"quote-gap"}}


def test_a_register_that_a_reset_cleared_is_no_gap(scene: Honest, tpm: Quoter) -> None:
    tpm.pcr, tpm.resets = bytes(32), 2
    again(scene)
    assert scene.lab.falling() == {}


def test_a_start_that_a_stop_overtook_is_part_of_the_chain(scene: Honest) -> None:
    lab = scene.lab
    launch = lab.expect(lab.ask_launch("second", scene.module, scene.cage))
    lab.expect(lab.stop_order(lab.expect(lab.drift(None)), launch))
    assert lab.start(launch).void == "launch-stopped"
    again(scene)
    assert "B1" not in lab.falling()


def test_a_software_tpm_is_said_to_be_a_software_root() -> None:
    hard, soft = honest(quoter=Quoter()).lab.verify(), honest(quoter=Quoter(root="software")).lab.verify()
    for claim in ("B1", "B2"):
        assert status(soft, claim) == HOLDS
        said = [any("software root" in remark for remark in _remarks(one, claim)) for one in (hard, soft)]
        assert said == [False, True]


def _remarks(report: Report, claim: str) -> tuple[str, ...]:
    return next(one for one in report.claims if one.id == claim).remarks
