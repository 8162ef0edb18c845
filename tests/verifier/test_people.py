"""What the verifier says of people: changed trust roots, stolen keys, sealed keys; each with what must fall."""

from __future__ import annotations

from typing import Any

import pytest

from ironbound.core.request import NO_LIMITS
from ironbound.core.roster import REVIEW_DUE_MS
from ironbound.verifier.claims import HOLDS, REFUTED

from .lab import DAY, Honest, honest, key, status


@pytest.fixture
def scene() -> Honest:
    """An honest history whose trust root has sealed keys since its second version."""
    made = honest()
    lab = made.lab
    holders = [lab.holder(one) for one in ("ada", "eli", "fay")]
    lab.expect(lab.reform(lab.next_root(break_glass={"quorum": 2, "holders": holders})))
    assert lab.falling() == {}
    return made


def grant(scene: Honest, *who: str, tool: str = "other", expires_ms: int | None = None) -> Any:
    lab = scene.lab
    body = {
        "tool": tool, "action": "scratch.write", "where": {"path": {"prefix": {"value": "out", "separator": "/"}}},
        "calls": 9, "expires_ms": expires_ms or lab.now + DAY, "credential": None, **NO_LIMITS,
    }  # fmt: skip
    request = lab.request(
        "grant", who[0], agent="clerk", module_sha256=scene.module, config_sha256=scene.cage, body=body
    )
    return lab.admit(request, [lab.approval(request, one) for one in who[1:]])


def counts(scene: Honest) -> dict[str, int]:
    return dict(next(one for one in scene.lab.verify().claims if one.id == "C1").counts)


def test_a_changed_roster_verifies_under_the_first_pin_and_says_its_version(scene: Honest) -> None:
    lab = scene.lab
    pin = lab.pin
    lab.humans["dora"] = key("dora")
    lab.expect(lab.reform(lab.next_root(operators=[lab.person(one) for one in ("ada", "cy", "dora")]), "bob", "cy"))
    lab.expect(grant(scene, "dora", "cy"))
    assert lab.pin == pin
    assert lab.falling() == {}
    assert counts(scene)["version of the trust root"] == 3
    assert counts(scene)["admitted trust-root-change"] == 2


@pytest.mark.parametrize("who", [("ada",), ("ada", "dora"), ("dora", "bob")])
def test_a_controller_that_forges_a_change_is_caught_and_its_people_sign_nothing(
    scene: Honest, who: tuple[str, ...]
) -> None:
    lab = scene.lab
    lab.humans["dora"] = key("dora")
    request = lab.change(lab.next_root(operators=[lab.person("dora")], quorum=_alone()), who[0])
    assert lab.admit(request, [lab.approval(request, one) for one in who[1:]]).void is not None
    assert grant(scene, "dora").void == "signer-unknown"
    assert lab.falling() == {"C1": {"request-not-authorised"}}
    assert status(lab.verify(), "C1") == REFUTED


def _alone() -> dict[str, int]:
    return dict.fromkeys(("module", "profile", "launch", "grant", "reconfigure"), 1)


def test_an_operator_who_was_removed_signs_and_the_verifier_names_it(scene: Honest) -> None:
    lab = scene.lab
    lab.expect(lab.reform(lab.next_root(operators=[lab.person(one) for one in ("ada", "bob")])))
    assert lab.falling() == {}
    assert grant(scene, "ada", "cy").void == "signer-removed"
    assert lab.falling() == {"C1": {"request-not-authorised"}}


def test_a_rollback_to_an_earlier_version_is_caught(scene: Honest) -> None:
    lab = scene.lab
    assert lab.reform({**lab.next_root(), "version": 1}).void == "trust-root-version"
    assert lab.falling() == {"C1": {"request-not-authorised"}}


def test_what_a_stolen_key_signed_since_then_refutes_where_the_quorum_does_not_stand(scene: Honest) -> None:
    lab = scene.lab
    since = lab.replay.size
    lab.expect(grant(scene, "ada", "bob", "cy", tool="backed"))
    assert lab.falling() == {}
    lab.expect(lab.flag("bob", since, "cy"))
    report = lab.verify()
    claim = next(one for one in report.claims if one.id == "C1")
    assert claim.status == HOLDS
    assert claim.counts["acts signed with a compromised key"] == 1
    assert any(str(since) in one for one in claim.remarks)
    bare = lab.expect(grant(scene, "ada", "cy", tool="bare"))
    assert lab.falling() == {}
    lab.expect(lab.reform(lab.next_root(operators=[lab.person("ada"), lab.person("cy"), _dora(scene)]), "cy"))
    lab.expect(lab.flag("cy", bare, "dora"))
    assert lab.falling() == {"C1": {"compromised-quorum"}}
    assert status(lab.verify(), "C1") == REFUTED


def _dora(scene: Honest) -> dict[str, Any]:
    scene.lab.humans["dora"] = key("dora")
    return scene.lab.person("dora")


def test_a_change_of_the_trust_root_by_a_stolen_key_is_named(scene: Honest) -> None:
    lab = scene.lab
    index = lab.expect(lab.reform(lab.next_root(operators=[lab.person(one) for one in ("ada", "bob", "cy")])))
    lab.expect(lab.flag("bob", index, "cy"))
    report = lab.verify()
    reason = next(one for one in report.claims if one.id == "C1").reasons[0]
    assert (reason.code, reason.indexes) == ("compromised-quorum", (index,))


def broken(scene: Honest) -> Any:
    entry = grant(scene, "eli, sealed", "fay, sealed", tool="urgent", expires_ms=scene.lab.now + 3_000_000)
    scene.lab.expect(entry)
    return entry


def review(scene: Honest, entry: Any, *who: str) -> Any:
    lab = scene.lab
    asked = entry.consent.statement.predicate["id"]
    body = {"grant": asked, "request_sha256": entry.consent.digest, "finding": "justified", "text": "it burned"}
    request = lab.request("review", who[0], body=body)
    return lab.admit(request, [lab.approval(request, one) for one in who[1:]])


def test_a_grant_by_sealed_keys_waits_for_its_review(scene: Honest) -> None:
    entry = broken(scene)
    assert scene.lab.falling() == {"C1": {"break-glass-review-due"}}
    scene.lab.expect(review(scene, entry, "ada", "cy"))
    assert scene.lab.falling() == {}
    assert counts(scene)["reviews of them in time"] == 1


def test_a_grant_by_sealed_keys_that_nobody_reviewed_in_time_refutes(scene: Honest) -> None:
    lab = scene.lab
    entry = broken(scene)
    lab.now += REVIEW_DUE_MS + 1
    lab.expect(grant(scene, "ada", "bob", tool="later"))
    assert lab.falling()["C1"] == {"break-glass-unreviewed"}
    lab.expect(review(scene, entry, "ada", "cy"))
    assert lab.falling()["C1"] == {"break-glass-unreviewed"}, "too late is too late"
    assert status(lab.verify(), "C1") == REFUTED


def test_a_review_that_the_controller_dates_back_is_late_all_the_same(scene: Honest) -> None:
    lab = scene.lab
    entry = broken(scene)
    at_ms = lab.now
    lab.now += REVIEW_DUE_MS + 1
    lab.expect(grant(scene, "ada", "bob", tool="later"))
    asked = entry.consent.statement.predicate["id"]
    body = {"grant": asked, "request_sha256": entry.consent.digest, "finding": "justified", "text": ""}
    request = lab.request("review", body=body)
    lab.expect(lab.admit(request, [lab.approval(request, "bob")], at_ms=at_ms))
    assert lab.falling()["C1"] == {"break-glass-unreviewed"}


def test_a_review_with_a_stolen_key_is_none(scene: Honest) -> None:
    lab = scene.lab
    reviewed = lab.expect(review(scene, broken(scene), "ada", "bob"))
    assert lab.falling() == {}
    lab.expect(lab.flag("bob", reviewed, "cy"))
    assert lab.falling()["C1"] == {"break-glass-review-due", "compromised-quorum"}
