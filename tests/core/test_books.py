"""The books, record by record: people read them, each snapshot holds them, and what is withdrawn is found by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ironbound.core.books import Act, Approved, BrokenGlass, Grant, Launch, Release, approved_as
from ironbound.core.canonical import canonical, sha256_hex
from ironbound.core.constraint import parse_where
from ironbound.core.proposal import Proposal
from ironbound.core.replay import CANARY_PREFIX, CHALLENGE_LIFE_MS, Entry
from ironbound.core.request import Signatory
from ironbound.core.statement import Kind, parse_statement
from ironbound.core.strength import Strength
from ironbound.core.trust import Human
from verifier.lab import DAY, Lab, digest_of, honest

HUMANS = ("ada", "bob")


def signed(lab: Lab, *who: str) -> tuple[Signatory, ...]:
    return tuple(
        Signatory(lab.replay.trust.humans[key], key, Strength.SOFTWARE, None)
        for key in (lab.humans[one].public.keyid for one in who or HUMANS)
    )


def admitted(lab: Lab, kind: str) -> list[Entry]:
    return [one for one in lab.said if one.consent is not None and one.consent.statement.kind == kind]


def asked_in(entry: Entry) -> Mapping[str, Any]:
    assert entry.void is None and entry.consent is not None, entry.void
    return entry.consent.statement.predicate


def test_what_was_approved_and_launched_is_remembered_as_it_was_said() -> None:
    scene = honest()
    lab, books = scene.lab, scene.lab.replay.books
    modules, expected = {}, {}
    for entry, name in zip(admitted(lab, "module-approval"), ("agent", "operator-verbs"), strict=True):
        asked = asked_in(entry)
        body, digest = asked["body"], asked["module_sha256"]
        modules[digest] = Approved(entry.index, name, HUMANS, body["probe"], body["surface_sha256"])
        expected[entry.index] = Act("module-approval", digest, ((2, signed(lab)),))
    assert books.modules == modules and list(modules) == [scene.module, scene.canary]
    (entry,) = admitted(lab, "profile-approval")
    assert books.profiles == {scene.cage: Approved(entry.index, "strict", HUMANS)}
    expected[entry.index] = Act("profile-approval", scene.cage, ((2, signed(lab)),))
    (entry,) = admitted(lab, "launch-request")
    asked = asked_in(entry)
    launch = Launch(entry.index, "clerk", scene.module, scene.cage, None, HUMANS, asked["expires_ms"], scene.started)
    expected[entry.index] = Act("launch-request", asked["id"], ((2, signed(lab)),))
    (posed,) = (one for one in lab.said if one.kind == "canary-challenge")
    (result,) = (one for one in lab.said if one.kind == "canary-result")
    (begun,) = (one.index for one in lab.said if one.kind == "started" and one.predicate["launch"] == posed.index)
    nonce, until = posed.predicate["nonce"], posed.predicate["at_ms"] + CHALLENGE_LIFE_MS
    canary = Launch(
        posed.index, CANARY_PREFIX + nonce, scene.canary, scene.cage, nonce, (), until, begun,
        result.predicate["evidence"],
    )  # fmt: skip
    assert books.launches == {launch.index: launch, canary.index: canary}
    assert (books.challenges, books.answered) == ({posed.index: posed.predicate}, {posed.index})
    assert books.started == {scene.started: lab.said[scene.started].predicate}
    (entry,) = admitted(lab, "grant")
    where: Any = {"path": {"prefix": {"value": "out", "separator": "/"}}}
    expires = asked_in(entry)["body"]["expires_ms"]
    grant = Grant(
        entry.index, scene.grant, "clerk", scene.module, scene.cage, "write", "scratch.write", parse_where(where),
        where, 100, expires, None, HUMANS, None, None, 0, 0,
    )  # fmt: skip
    assert (books.grants, books.grants_of) == ({scene.grant: grant}, {"clerk": {scene.grant: None}})
    expected[entry.index] = Act("grant", scene.grant, ((2, signed(lab)),))
    assert books.acts == expected
    assert books.signed == dict.fromkeys(expected, signed(lab))
    assert books.kinds == [one.kind for one in lab.said]
    assert books.release == approved_as(digest_of("release"), digest_of("settings"), ""), "nothing was measured"


def test_a_release_is_remembered_by_all_that_was_approved_as_one() -> None:
    lab = honest(releases=True).lab
    (entry,) = admitted(lab, "release-approval")
    body = asked_in(entry)["body"]
    one = approved_as(body["release_sha256"], body["settings_sha256"], body["statements"]["install"])
    release = Release(entry.index, body["release_sha256"], body["settings_sha256"], body["statements"], HUMANS)
    assert (lab.replay.books.releases, lab.replay.books.release) == ({one: release}, one)
    assert lab.replay.books.acts[entry.index] == Act("release-approval", one, ((2, signed(lab)),))


def test_limits_are_remembered_as_they_were_signed() -> None:
    scene = honest()
    lab, books = scene.lab, scene.lab.replay.books
    rate, budget = {"calls": 3, "window_ms": 1000}, {"unit": "eur", "total": 9, "call": 2}
    body = {
        "tool": "pay", "action": "pay", "where": {"to": {"equals": "x"}}, "calls": 7, "expires_ms": lab.now + DAY,
        "credential": "bank", "rate": rate, "budget": budget, "approvals": 3, "delegable": 2,
    }  # fmt: skip
    about = {"agent": "clerk", "module_sha256": scene.module, "config_sha256": scene.cage}
    entry = lab.ask("grant", **about, body=body)
    grant = books.grants[asked_in(entry)["id"]]
    told = (grant.calls, grant.credential, grant.rate, grant.budget, grant.approvals, grant.delegable)
    assert told == (7, "bank", rate, budget, 3, 2)
    call = {"grant": grant.id, "tool": "pay", "args": {"to": "x"}}
    given = []
    for _ in range(2):
        asked = lab.request("call-approval", **about, body=call)
        given.append(lab.admit(asked, [lab.approval(asked, one) for one in ("bob", "cy")]))
        quorum = ((3, signed(lab, "ada", "bob", "cy")),)
        assert books.acts[lab.expect(given[-1])] == Act("call-approval", grant.id, quorum)
    first, second = (asked_in(one)["id"] for one in given)
    key = (grant.id, sha256_hex(canonical({"to": "x"})))
    assert books.approved_calls == {key: [first, second]}
    made = {"tool": "pay", "action": "pay", "args": {"to": "x"}}
    intent = lab.intent("clerk", scene.launch, grant.id, **made, approval=first)
    assert books.open_intents == {lab.expect(intent): intent.predicate}
    assert books.approved_calls == {key: [second]} and lab.replay.approval_of(grant.id, {"to": "x"}) == second
    lab.expect(lab.outcome(intent.index, spent=1))
    assert books.open_intents == {}
    lab.now += 1000
    lab.expect(lab.intent("clerk", scene.launch, grant.id, **made, approval=second))
    assert books.approved_calls == {}


def test_broken_glass_is_remembered_with_its_request_and_every_review() -> None:
    scene = honest()
    lab, books = scene.lab, scene.lab.replay.books
    holders = [lab.holder(one) for one in ("ada", "eli", "fay")]
    change = lab.expect(lab.reform(lab.next_root(break_glass={"quorum": 2, "holders": holders})))
    asked = asked_in(lab.said[change])["id"]
    assert books.acts[change] == Act("trust-root-change", asked, ((2, signed(lab)), (2, signed(lab))))
    body = {
        "tool": "urgent", "action": "scratch.write", "where": {}, "calls": 1, "expires_ms": lab.now + 60_000,
        "credential": None, "rate": None, "budget": None, "approvals": 0, "delegable": 0,
    }  # fmt: skip
    about = {"agent": "clerk", "module_sha256": scene.module, "config_sha256": scene.cage}
    request = lab.request("grant", "ada, sealed", **about, body=body)
    entry = lab.admit(request, [lab.approval(request, "eli, sealed")])
    grant = asked_in(entry)["id"]
    assert books.broken_glass == {grant: BrokenGlass(entry.index, request.digest)}
    assert books.acts[entry.index] == Act("grant", grant, ((2, books.signed[entry.index]),))
    assert [(one.human, one.keyid) for one in books.signed[entry.index]] == [
        (one, lab.humans[f"{one}, sealed"].public.keyid) for one in ("ada", "eli")
    ]
    found = {"grant": grant, "request_sha256": request.digest, "finding": "justified", "text": "looked at it"}
    reviews = tuple(lab.expect(lab.ask("review", body=found)) for _ in range(2))
    assert books.broken_glass == {grant: BrokenGlass(entry.index, request.digest, reviews)}


def test_a_proposal_is_remembered_with_who_asked_and_what_became_of_it() -> None:
    scene = honest()
    lab, proposals = scene.lab, scene.lab.replay.books.proposals
    request = lab.request("launch-request", agent="second", module_sha256=scene.module, config_sha256=scene.cage)
    asked = parse_statement(request.payload).predicate
    entry = lab.say("controller", "proposed", request=request.as_value())
    made = Proposal(
        lab.expect(entry), request.digest, entry.predicate["request"], Kind("launch-request"), asked["id"], "second",
        Human("ada"), asked["expires_ms"],
    )  # fmt: skip
    assert proposals == {request.digest: made}
    approval = lab.approval(request, "bob")
    said = lab.say("controller", "seconded", request_sha256=request.digest, approval=approval.as_value())
    lab.expect(said)
    made = replace(made, approvals=((said.predicate["approval"], Human("bob")),))
    assert proposals == {request.digest: made}
    applied = lab.expect(lab.admit(request, [approval]))
    assert proposals == {request.digest: replace(made, applied=applied)}
