"""Proposals in the log: they bind bytes, count humans, give nothing, and outlive a change of the roster correctly."""

from __future__ import annotations

from typing import Any

import pytest

from ironbound.core.authority import Refused
from ironbound.core.envelope import Envelope, envelope_from_value, sign_envelope
from ironbound.core.proposal import MAX_OPEN
from ironbound.core.reasons import REASONS
from ironbound.core.replay import Replay
from verifier.lab import Honest, Lab, digest_of, honest, key


@pytest.fixture
def scene() -> Honest:
    return honest()


def launch(scene: Honest, who: str = "ada", **fields: Any) -> Envelope:
    about = {"agent": "newcomer", "module_sha256": scene.module, "config_sha256": scene.cage}
    return scene.lab.request("launch-request", who, **about | fields)


def propose(scene: Honest, request: Envelope) -> Any:
    return scene.lab.say("controller", "proposed", request=request.as_value())


def second(scene: Honest, request: Envelope, approval: Envelope) -> Any:
    return scene.lab.say("controller", "seconded", request_sha256=request.digest, approval=approval.as_value())


def decline(scene: Honest, request: Envelope, answer: Envelope) -> Any:
    return scene.lab.say("controller", "declined", request_sha256=request.digest, decline=answer.as_value())


def void(scene: Honest, entry: Any) -> str:
    assert entry.void in REASONS
    return str(entry.void)


def test_a_proposal_and_its_approvals_give_nothing(scene: Honest) -> None:
    lab = scene.lab
    state = lab.replay.authority.digest()
    request = launch(scene)
    lab.expect(propose(scene, request))
    lab.expect(second(scene, request, lab.approval(request, "bob")))
    lab.expect(second(scene, request, lab.approval(request, "cy")))
    assert lab.replay.authority.digest() == state
    assert "newcomer" not in {one.agent for one in lab.replay.books.launches.values()}
    proposal = lab.replay.books.proposals[request.digest]
    assert [human for _, human in proposal.approvals] == ["bob", "cy"]
    admitted = lab.expect(lab.admit(request, [envelope_from_value(dict(one)) for one, _ in proposal.approvals]))
    assert lab.replay.books.proposals[request.digest].applied == admitted
    assert not {"C1", "C3", "D3"} & lab.falling().keys()


def test_who_may_propose_and_approve(scene: Honest) -> None:
    lab = scene.lab
    stranger = sign_envelope(launch(scene).payload, [key("stranger")])
    assert void(scene, propose(scene, stranger)) == "signer-unknown"
    stop = lab.request("stop", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage)
    assert void(scene, propose(scene, stop)) == "one-is-enough"
    request = launch(scene)
    assert void(scene, second(scene, request, lab.approval(request, "bob"))) == "proposal-unknown"
    lab.expect(propose(scene, request))
    assert void(scene, propose(scene, request)) == "request-replayed"
    assert void(scene, second(scene, request, lab.approval(request, "ada"))) == "initiator-approves"
    forged = sign_envelope(lab.approval(request, "bob").payload, [key("stranger")])
    assert void(scene, second(scene, request, forged)) == "signer-unknown"
    other = launch(scene, ticket="more than was shown")
    assert void(scene, second(scene, request, lab.approval(other, "bob"))) == "approval-for-another-request"
    lab.expect(second(scene, request, lab.approval(request, "bob")))
    assert void(scene, second(scene, request, lab.approval(request, "bob"))) == "same-human-twice"
    for voice in ("node", "gateway", "monitor"):
        entry = lab.say(voice, "proposed", request=launch(scene).as_value())
        assert void(scene, entry) == "voice-not-entitled"


def test_what_was_admitted_is_proposed_and_approved_no_more(scene: Honest) -> None:
    lab = scene.lab
    request = launch(scene)
    lab.expect(propose(scene, request))
    lab.expect(lab.admit(request, [lab.approval(request, "bob")]))
    assert void(scene, second(scene, request, lab.approval(request, "cy"))) == "request-replayed"
    other = launch(scene, agent="third")
    lab.expect(lab.admit(other, [lab.approval(other, "bob")]))
    assert void(scene, propose(scene, other)) == "request-replayed"


def test_an_approver_who_was_removed_counts_no_more(scene: Honest) -> None:
    lab = scene.lab
    request = launch(scene)
    lab.expect(propose(scene, request))
    lab.expect(second(scene, request, lab.approval(request, "cy")))
    lab.expect(lab.reform(lab.next_root(operators=[lab.person(one) for one in ("ada", "bob")])))
    proposal = lab.replay.books.proposals[request.digest]
    assert lab.replay.counting(proposal, lab.now) == []
    given = [envelope_from_value(dict(one)) for one, _ in proposal.approvals]
    assert lab.admit(request, given).void == "signer-removed"
    lab.expect(second(scene, request, lab.approval(request, "bob")))
    proposal = lab.replay.books.proposals[request.digest]
    lab.expect(lab.admit(request, [one for one, _ in lab.replay.counting(proposal, lab.now)]))


def test_approvals_expire_with_their_request(scene: Honest) -> None:
    lab = scene.lab
    request = launch(scene)
    lab.expect(propose(scene, request))
    approval = lab.approval(request, "bob")
    lab.now += 600_001
    assert void(scene, second(scene, request, approval)) == "approval-expired"


def test_a_change_of_the_roster_is_proposed_as_any_other_request(scene: Honest) -> None:
    lab = scene.lab
    lab.humans["dora"] = key("dora")
    request = lab.change(lab.next_root(operators=[lab.person(one) for one in ("ada", "dora")]))
    lab.expect(propose(scene, request))
    assert lab.replay.prospect(request, lab.now) is None, "only people are missing, of the old version and the new"
    lab.expect(second(scene, request, lab.approval(request, "dora")))
    lab.expect(second(scene, request, lab.approval(request, "bob")))
    proposal = lab.replay.books.proposals[request.digest]
    lab.expect(lab.admit(request, [one for one, _ in lab.replay.counting(proposal, lab.now)]))
    assert lab.replay.trust.version == 2


def test_a_declined_request_is_never_applied_and_can_be_asked_anew(scene: Honest) -> None:
    lab = scene.lab
    request = launch(scene)
    lab.expect(propose(scene, request))
    lab.expect(second(scene, request, lab.approval(request, "bob")))
    state = lab.replay.authority.digest()
    at = lab.expect(decline(scene, request, lab.decline(request, "cy")))
    assert lab.replay.authority.digest() == state
    proposal = lab.replay.books.proposals[request.digest]
    assert (proposal.declined, proposal.declined_by) == (at, "cy")
    enough = [lab.approval(request, one) for one in ("bob", "cy")]
    assert void(scene, lab.admit(request, enough)) == "request-declined"
    assert void(scene, second(scene, request, lab.approval(request, "cy"))) == "request-declined"
    assert void(scene, decline(scene, request, lab.decline(request, "bob"))) == "request-declined"
    assert void(scene, propose(scene, request)) == "request-replayed"
    again = sign_envelope(request.payload, [lab.humans["ada"]])
    assert void(scene, lab.admit(again, enough)) == "request-declined", "the bytes are declined, not a signature"
    assert lab.replay.prospect(request, lab.now) == "request-declined"
    with pytest.raises(Refused, match="request-declined"):
        lab.replay.consider(request, enough, lab.now)
    assert Replay.resumed(lab.replay.snapshot()).books.proposals[request.digest].declined_by == "cy"
    anew = launch(scene)
    lab.expect(lab.admit(anew, [lab.approval(anew, "bob")]))
    assert lab.falling()["C1"] == {"request-not-authorised"}, "a controller that applies it is refuted"


def test_who_may_decline(scene: Honest) -> None:
    lab = scene.lab
    lab.expect(
        lab.reform(
            lab.next_root(operators=[*(lab.person(one) for one in ("ada", "bob")), lab.person("cy") | {"acts": []}])
        )
    )
    request, other = launch(scene), launch(scene, ticket="another")
    assert void(scene, decline(scene, request, lab.decline(request, "bob"))) == "proposal-unknown"
    lab.expect(propose(scene, request))
    stranger = sign_envelope(lab.decline(request, "bob").payload, [key("stranger")])
    two = sign_envelope(lab.decline(request, "bob").payload, [lab.humans["bob"], lab.humans["cy"]])
    late = lab.decline(request, "bob", expires_ms=lab.now)
    for answer, reason in (
        (stranger, "signer-unknown"), (two, "signature-count"), (late, "approval-expired"),
        (lab.approval(request, "bob"), "not-a-decline"), (request, "not-a-decline"),
        (lab.decline(other, "bob"), "approval-for-another-request"),
    ):  # fmt: skip
        assert void(scene, decline(scene, request, answer)) == reason
    assert void(scene, second(scene, request, lab.decline(request, "bob"))) == "not-an-approval"
    for voice in ("node", "gateway", "monitor"):
        value = lab.decline(request, "bob").as_value()
        entry = lab.say(voice, "declined", request_sha256=request.digest, decline=value)
        assert void(scene, entry) == "voice-not-entitled"
    assert lab.replay.books.proposals[request.digest].declined < 0
    # Who takes away needs no act on the roster; who asked can withdraw what they asked.
    lab.expect(decline(scene, request, lab.decline(request, "cy")))
    lab.expect(propose(scene, other))
    lab.expect(decline(scene, other, lab.decline(other, "ada")))
    applied = launch(scene, agent="third")
    lab.expect(propose(scene, applied))
    lab.expect(lab.admit(applied, [lab.approval(applied, "bob")]))
    assert void(scene, decline(scene, applied, lab.decline(applied, "bob"))) == "request-replayed"


def test_sealed_removed_and_stolen_keys_decline_nothing_and_a_decline_outlives_its_human() -> None:
    scene = honest(break_glass={"quorum": 2, "holders": [Lab().holder(name) for name in ("ada", "eli", "fay")]})
    lab = scene.lab
    first, request = launch(scene, ticket="first"), launch(scene)
    for one in (first, request):
        lab.expect(propose(scene, one))
    lab.humans["ada, sealed"] = key("ada, sealed")
    assert void(scene, decline(scene, request, lab.decline(request, "ada, sealed"))) == "sealed-keys-apart"
    lab.expect(decline(scene, first, lab.decline(first, "cy")))
    lab.expect(lab.flag("cy", 1, "bob"))
    assert void(scene, decline(scene, request, lab.decline(request, "cy"))) == "key-compromised"
    enough = [lab.approval(first, "bob")]
    assert void(scene, lab.admit(first, enough)) == "request-declined"


def test_one_operator_can_not_bury_what_the_others_asked(scene: Honest) -> None:
    lab = scene.lab
    requests = [launch(scene, "cy", ticket=str(number)) for number in range(MAX_OPEN)]
    for one in requests:
        lab.expect(propose(scene, one))
    more = launch(scene, "cy", ticket="more")
    before = dict(lab.replay.books.proposals)
    assert void(scene, propose(scene, more)) == "too-many-proposals"
    assert lab.replay.books.proposals == before
    lab.expect(propose(scene, launch(scene, "ada")))
    # What is over makes room: declined, applied, expired.
    lab.expect(decline(scene, requests[0], lab.decline(requests[0], "bob")))
    lab.expect(propose(scene, more))
    again = launch(scene, "cy", ticket="again")
    assert void(scene, propose(scene, again)) == "too-many-proposals"
    lab.expect(lab.admit(requests[1], [lab.approval(requests[1], "bob")]))
    lab.expect(propose(scene, again))
    lab.now += 600_000
    last = launch(scene, "cy", ticket="last")
    lab.expect(propose(scene, last))


def test_garbage_is_no_proposal(scene: Honest) -> None:
    entry = scene.lab.say("controller", "proposed", request={})
    assert entry.void == "body-malformed"
    entry = scene.lab.say("controller", "seconded", request_sha256=digest_of("x"), approval={})
    assert entry.void == "proposal-unknown"
    request = launch(scene)
    scene.lab.expect(propose(scene, request))
    entry = scene.lab.say("controller", "declined", request_sha256=request.digest, decline={})
    assert entry.void == "body-malformed"


def test_what_waits_is_in_a_snapshot(scene: Honest) -> None:
    lab = scene.lab
    request = launch(scene)
    lab.expect(propose(scene, request))
    lab.expect(second(scene, request, lab.approval(request, "bob")))
    again = Replay.resumed(lab.replay.snapshot())
    assert again.books.proposals == lab.replay.books.proposals
    assert again.books.proposals[request.digest].asked == request
