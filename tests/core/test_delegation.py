"""Handing on, approvals of single calls and acting for a client, as entries of a log that everybody folds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from ironbound.core.authority import READY
from ironbound.core.canonical import canonical, sha256_hex
from ironbound.core.constraint import parse_where
from ironbound.core.replay import Entry, delegated_id
from ironbound.core.request import NO_LIMITS
from verifier.lab import DAY, Honest, config, honest, wasm

WHERE = {"path": {"prefix": {"value": "out", "separator": "/"}}}


@dataclass
class Family:
    """`clerk` runs with a grant of its own, and `helper` beside it with none."""

    scene: Honest
    helper: int
    grant: str

    def part(self, **changes: Any) -> dict[str, Any]:
        return {
            "agent": "clerk", "launch": self.scene.launch, "grant": self.grant, "to": "helper", "child": self.helper,
            "tool": "part", "where": {"path": {"equals": "out/a"}}, "calls": 2,
            "expires_ms": self.scene.lab.now + 1000, "budget": 0, "delegable": 0, **changes,
        }  # fmt: skip

    def hand_on(self, **changes: Any) -> Entry:
        return self.scene.lab.say("gateway", "delegated", **self.part(**changes))

    def act(self, grant: str, path: str = "out/a", **changes: Any) -> Entry:
        return self.scene.lab.intent("helper", self.helper, grant, tool="part", args={"path": path}, **changes)


def family(**limits: Any) -> Family:
    scene = honest()
    lab = scene.lab
    helper = lab.expect(lab.ask_launch("helper", scene.module, scene.cage))
    lab.expect(lab.start(helper))
    body = {
        "tool": "own", "action": "scratch.write", "where": WHERE, "calls": 5, "expires_ms": lab.now + DAY,
        "credential": None,
    } | NO_LIMITS | {"delegable": 1} | limits  # fmt: skip
    entry = lab.ask("grant", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage, body=body)
    lab.expect(entry)
    assert entry.consent is not None
    return Family(scene, helper, str(entry.consent.statement.predicate["id"]))


def test_a_part_is_an_entry_before_it_is_a_power() -> None:
    made = family()
    lab = made.scene.lab
    part = delegated_id(lab.fresh())
    assert made.act(part).void == "no-such-grant"
    entry = made.hand_on()
    lab.expect(entry)
    part = delegated_id(entry.predicate["id"])
    lab.expect(made.act(part))
    assert made.act(part, "out/b").void == "arguments-not-covered"
    lab.expect(made.act(part))
    assert made.act(part).void == "calls-exhausted"
    assert lab.replay.authority.read("grant_left", made.grant) == 3
    whole, said = lab.replay.books.grants[made.grant], entry.predicate
    told = replace(
        whole, index=entry.index, id=part, agent="helper", tool="part", where=parse_where(said["where"]),
        where_value=said["where"], calls=2, expires_ms=said["expires_ms"], delegable=0, parent=made.grant,
    )  # fmt: skip
    assert lab.replay.books.grants[part] == told
    assert lab.replay.holds("helper") == [], "a request about the helper needn't know what others handed it"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"where": {"path": {"any": True}}}, "not-narrower"),
        ({"where": {"path": {"prefix": {"value": "outer", "separator": "/"}}}}, "not-narrower"),
        ({"where": {"path": {"unknown": 1}}}, "body-malformed"),
        ({"calls": 6}, "delegated-too-much"),
        ({"expires_ms": 1 << 50}, "delegated-too-much"),
        ({"budget": 1}, "delegated-too-much"),
        ({"delegable": 1}, "delegated-too-much"),
        ({"child": 99}, "child-not-running"),
        ({"to": "clerk"}, "delegate-to-itself"),
        ({"to": "somebody"}, "child-not-running"),
        ({"agent": "helper"}, "agent-differs"),
        ({"grant": "ab" * 16}, "no-such-grant"),
        ({"tool": "ironbound.delegate"}, "body-malformed"),
    ],
)
def test_what_is_more_than_is_held_is_void_and_changes_nothing(changes: dict[str, Any], reason: str) -> None:
    made = family()
    authority = made.scene.lab.replay.authority
    before = authority.digest()
    entry = made.hand_on(**changes)
    assert entry.void == reason, (entry.void, entry.detail)
    assert authority.digest() == before
    assert delegated_id(entry.predicate["id"]) not in made.scene.lab.replay.books.grants
    assert made.scene.lab.replay.delegation_refused(made.part(**changes), made.scene.lab.now) == reason


def test_what_was_not_signed_as_delegable_stays_where_it_is() -> None:
    made = family(delegable=0)
    assert made.hand_on().void == "grant-not-delegable"


def test_only_the_gateway_hands_on() -> None:
    made = family()
    for role in ("controller", "node", "monitor"):
        assert made.scene.lab.say(role, "delegated", **made.part()).void == "voice-not-entitled"


def test_a_part_s_id_is_a_digest_that_other_programs_make_too() -> None:
    assert delegated_id("ab" * 16) == "452e39fc0d41c950007fa5bbdba9c367"


def test_a_lying_gateway_cannot_use_up_the_id_of_a_request_on_its_way() -> None:
    made = family()
    lab = made.scene.lab
    body = {
        "tool": "late", "action": "scratch.write", "where": WHERE, "calls": 1, "expires_ms": lab.now + DAY,
        "credential": None, **NO_LIMITS,
    }  # fmt: skip
    about = {"agent": "clerk", "module_sha256": made.scene.module, "config_sha256": made.scene.cage}
    request = lab.request("grant", **about, body=body, id="cd" * 16,
                          capability={"before": lab.replay.holds("clerk"),
                                      "after": sorted([*lab.replay.holds("clerk"), "cd" * 16])})  # fmt: skip
    lab.expect(made.hand_on(id="cd" * 16))
    lab.expect(lab.admit(request, [lab.approval(request, "bob")]))


def test_revoking_the_whole_ends_the_part_and_the_operator_can_revoke_the_part_alone() -> None:
    for whole in (True, False):
        made = family()
        lab = made.scene.lab
        entry = made.hand_on()
        part = delegated_id(entry.predicate["id"])
        ended = made.grant if whole else part
        owner = "clerk" if whole else "helper"
        lab.expect(lab.revoke(owner, made.scene.module, made.scene.cage, ended))
        assert made.act(part).void == "grant-revoked"
        alive = lab.intent("clerk", made.scene.launch, made.grant, tool="own")
        assert (alive.void is None) == (not whole)


def test_a_dropped_grant_is_gone_and_nobody_drops_another_s() -> None:
    made = family()
    lab = made.scene.lab
    part = delegated_id(made.hand_on().predicate["id"])
    about = {"agent": "helper", "launch": made.helper}
    assert lab.say("gateway", "dropped", **about, grant=made.grant).void == "grant-of-another-agent"
    lab.expect(lab.say("gateway", "dropped", **about, grant=part))
    assert made.act(part).void == "grant-revoked"
    lab.expect(lab.say("gateway", "dropped", agent="clerk", launch=made.scene.launch, grant=made.grant))
    assert made.grant not in lab.replay.holds("clerk")


def approve(made: Family, path: str, **changes: Any) -> Entry:
    body = {"grant": made.grant, "tool": "own", "args": {"path": path}} | changes
    about = {"agent": "clerk", "module_sha256": made.scene.module, "config_sha256": made.scene.cage}
    return made.scene.lab.ask("call-approval", **about, body=body)


def test_an_approval_is_for_the_arguments_that_the_log_shows() -> None:
    made = family(approvals=2)
    lab = made.scene.lab

    def call(path: str, approval: str | None, **fields: Any) -> Entry:
        args = {"args": {"path": path}, "approval": approval}
        return lab.intent("clerk", made.scene.launch, made.grant, tool="own", **(args | fields))

    assert call("out/a", None).void == "approval-needed"
    assert lab.replay.approval_of(made.grant, {"path": "out/a"}) is None
    given = approve(made, "out/a")
    lab.expect(given)
    assert given.consent is not None
    approval = str(given.consent.statement.predicate["id"])
    assert lab.replay.authority.read("call_state", approval) == READY
    lie = sha256_hex(canonical({"path": "out/a"}))
    assert call("out/b", approval, args_sha256=lie).void == "approval-for-another-call"
    assert lab.replay.approval_of(made.grant, {"path": "out/a"}) == approval
    lab.expect(call("out/a", approval))
    assert lab.replay.approval_of(made.grant, {"path": "out/a"}) is None
    assert call("out/a", approval).void == "approval-used"


def test_an_approval_needs_the_grant_s_number_of_humans_and_names_what_is_there() -> None:
    made = family(approvals=2)
    lab = made.scene.lab
    about = {"agent": "clerk", "module_sha256": made.scene.module, "config_sha256": made.scene.cage}
    body = {"grant": made.grant, "tool": "own", "args": {"path": "out/a"}}
    alone = lab.request("call-approval", **about, body=body)
    assert lab.admit(alone, []).void == "approval-lacks-humans"
    assert approve(made, "out/a", grant="ab" * 16).void == "no-such-grant"
    other = lab.request("call-approval", **about | {"module_sha256": made.scene.canary}, body=body)
    assert lab.admit(other, [lab.approval(other, "bob")]).void == "subject-differs"
    lab.expect(lab.admit(alone, [lab.approval(alone, "bob")]))


def test_who_acts_for_a_client_needs_what_the_client_may() -> None:
    made = family()
    lab = made.scene.lab
    part = delegated_id(made.hand_on(calls=5).predicate["id"])

    def serve(path: str, client: str) -> Entry:
        fields = {"tool": "own", "args": {"path": path}, "client": {"grant": client, "args": {"path": path}}}
        return lab.intent("clerk", made.scene.launch, made.grant, **fields)

    assert serve("out/b", part).void == "client-not-covered"
    assert serve("out/a", "ab" * 16).void == "client-grant-not-live"
    lab.expect(serve("out/a", part))
    assert lab.replay.authority.read("grant_left", part) == 5, "naming a grant spends nothing of it"
    assert lab.replay.authority.read("grant_left", made.grant) == 4


def test_an_approval_that_is_over_is_not_shown_as_unused() -> None:
    made = family(approvals=2)
    lab = made.scene.lab
    given = approve(made, "out/a")
    lab.expect(given)
    assert given.consent is not None
    asked = given.consent.statement.predicate
    for now, left in ((asked["expires_ms"] - 1, asked["id"]), (asked["expires_ms"], None)):
        lab.now = now - lab.step_ms
        lab.expect(lab.intent("clerk", made.scene.launch, made.scene.grant))  # moves the log's clock
        assert lab.replay.approval_of(made.grant, {"path": "out/a"}) == left


def test_a_signed_rate_holds() -> None:
    made = family(rate={"calls": 2, "window_ms": 60_000})
    lab = made.scene.lab
    calls = [lab.intent("clerk", made.scene.launch, made.grant, tool="own").void for _ in range(3)]
    assert calls == [None, None, "rate-exceeded"]
    lab.now += 60_000
    lab.expect(lab.intent("clerk", made.scene.launch, made.grant, tool="own"))


def test_a_budget_is_settled_by_the_outcome() -> None:
    made = family(budget={"unit": "tokens", "total": 10, "call": 4})
    lab = made.scene.lab
    read = lab.replay.authority.read
    for spent, left in ((1, 9), (None, 5)):
        intent = lab.expect(lab.intent("clerk", made.scene.launch, made.grant, tool="own"))
        lab.expect(lab.outcome(intent, spent=spent))
        assert read("grant_budget", made.grant) == left
    intent = lab.expect(lab.intent("clerk", made.scene.launch, made.grant, tool="own"))
    assert lab.outcome(intent, spent=5).void == "spent-out-of-bounds"
    assert lab.intent("clerk", made.scene.launch, made.grant, tool="own").void == "budget-exhausted"
    lab.expect(lab.outcome(intent, "not-performed", spent=0))
    assert read("grant_budget", made.grant) == 5


def test_a_part_has_its_own_share_of_the_budget_and_lives_as_long_as_the_whole() -> None:
    made = family(budget={"unit": "tokens", "total": 10, "call": 4})
    lab = made.scene.lab
    entry = made.hand_on(budget=8)
    lab.expect(entry)
    part, now = delegated_id(entry.predicate["id"]), lab.now
    assert lab.replay.books.grants[part].budget == {"unit": "tokens", "total": 8, "call": 4}
    assert lab.replay.lives(part, now) and not lab.replay.lives(part, entry.predicate["expires_ms"])
    assert lab.replay.grant_named("helper", "part") == lab.replay.books.grants[part]
    assert lab.replay.grant_named("helper", "own") is lab.replay.grant_named("clerk", "part") is None
    lab.expect(lab.revoke("clerk", made.scene.module, made.scene.cage, made.grant))
    assert not lab.replay.lives(part, now) and not lab.replay.lives(made.grant, now)


def test_a_part_is_of_the_code_and_the_cage_of_whoever_gets_it() -> None:
    made = family()
    lab = made.scene.lab
    module, cage = lab.approve_module(wasm("other")), lab.approve_profile(config(max_fuel=1))
    third = lab.expect(lab.ask_launch("third", module, cage))
    lab.expect(lab.start(third))
    entry = made.hand_on(to="third", child=third)
    lab.expect(entry)
    part = lab.replay.books.grants[delegated_id(entry.predicate["id"])]
    assert (part.agent, part.module, part.config) == ("third", module, cage)
    assert lab.replay.books.grants_of["third"] == {part.id: None}
    lab.expect(lab.intent("third", third, part.id, tool="part", args={"path": "out/a"}))
