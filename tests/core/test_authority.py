"""The table of rules: every condition refuses with its own reason, and a refusal changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.authority import (
    ADMITTED,
    AGENT_MODULE,
    CANARY_MODULE,
    ENDED,
    FIELDS,
    LIVE,
    MAX_BREAK_GLASS_MS,
    MAX_DELEGATED_PER_AGENT,
    MAX_GRANTS_PER_AGENT,
    MAX_REQUEST_LIFE_MS,
    READY,
    REVOKED,
    RULES,
    STARTED,
    USED,
    Authority,
    Refused,
)
from ironbound.core.constraint import parse_where
from ironbound.core.logic import Across, Plain
from ironbound.core.reasons import REASONS
from ironbound.core.statement import QUORUMS

NOW = 1_000_000
WHERE = parse_where({"path": {"one_of": ["a", "b"]}})
PART = parse_where({"path": {"equals": "a"}})
ELSE = parse_where({"path": {"equals": "c"}})
OTHER = "another"

#: What a request that gives power carries besides what it asks for.
GIVING = {
    "index": 50, "now": NOW, "id": "r", "consents": 2, "not_before": NOW, "expires": NOW + 1000,
    "head": 40, "head_known": True, "agent": "clerk", "module": "m", "config": "c",
}  # fmt: skip
START = {"launch": 10, "agent": "clerk", "module": "m", "config": "c", "now": NOW, "release": "r"}
GRANT = GIVING | {
    "tool": "t", "action": "a", "where": WHERE, "calls": 1, "grant_expires": NOW + 500,
    "every": 0, "slack": 0, "budget": 0, "cost": 0, "approvals": 0, "delegable": 0,
}  # fmt: skip
LEGITIMATE: dict[str, dict[str, Any]] = {
    "approve-module": GIVING | {"module": "new", "canary": False},
    "approve-profile": GIVING | {"config": "new"},
    "approve-release": GIVING | {"release": "new"},
    "launch": dict(GIVING),
    "grant": GRANT,
    "break-glass": GRANT | {"grant_expires": NOW + MAX_BREAK_GLASS_MS},
    "reconfigure": GIVING | {
        "version": 4, "consents_after": 3, "quorum_module": 1, "quorum_profile": 2, "quorum_launch": 2,
        "quorum_release": 2, "quorum_grant": 3, "quorum_reconfigure": 3, "quorum_break_glass": 2,
    },
    "flag-key": GIVING | {"key": "stolen", "since": 50},
    "review": GIVING | {"grant": "g"},
    "approve-call": GIVING | {"agent": "worker", "grant": "g", "tool": "t", "args_digest": "d"},
    "set-quota": GIVING | {"every": 10, "slack": 20},
    "revoke": {"index": 50, "now": NOW, "consents": 1, "grant": "g"},
    "stop": {"index": 50, "now": NOW, "consents": 1, "agent": "clerk"},
    "withdraw-module": {"index": 50, "now": NOW, "consents": 1, "module": "m"},
    "withdraw-profile": {"index": 50, "now": NOW, "consents": 1, "config": "c"},
    "withdraw-release": {"index": 50, "now": NOW, "consents": 1, "release": "r"},
    "challenge": {"index": 50, "now": NOW, "id": "n", "agent": "canary:n", "module": "k", "config": "c", "expires": 1},
    "order-stop": {"now": NOW, "launch": 20},
    "start": START,
    "refuse-launch": START,
    "exit": {"now": NOW, "launch": 20, "agent": "worker"},
    "invoke": {"index": 50, "now": NOW, "launch": 20, "agent": "worker", "grant": "g", "tool": "t", "action": "a",
               "args": {"path": "a"}, "args_digest": "d", "approval": "call", "client": "client",
               "client_args": {"path": "a"}},
    "settle": {"now": NOW, "intent": 40, "spent": 3},
    "delegate": {"index": 50, "now": NOW, "launch": 20, "agent": "worker", "grant": "g", "id": "part", "child": 30,
                 "to": "helper", "module": "n", "config": "c", "tool": "u", "where": PART, "calls": 2,
                 "grant_expires": NOW + 400, "budget": 10, "delegable": 1},
    "drop": {"index": 50, "now": NOW, "launch": 20, "agent": "worker", "grant": "g"},
}  # fmt: skip

Setting = tuple[str, Any, Any]


def world() -> Authority:
    """A state in which every legitimate message may happen."""
    made = Authority(dict.fromkeys((*QUORUMS, "break-glass"), 2))
    state: dict[str, dict[Any, Any]] = {
        "version": {"": 3},
        "clock": {"": NOW - 10},
        "module": {"m": AGENT_MODULE, "k": CANARY_MODULE, "n": AGENT_MODULE},
        "profile": {"c": True},
        "release": {"r": True},
        "launch_state": {10: ADMITTED, 20: STARTED, 30: STARTED, 31: STARTED},
        "launch_agent": {10: "clerk-waiting", 20: "worker", 30: "helper", 31: "other"},
        "launch_module": {10: "m", 20: "m", 30: "n", 31: "m"},
        "launch_config": {10: "c", 20: "c", 30: "c", 31: "c"},
        "launch_expires": {10: NOW + 1000, 20: NOW + 1000, 30: NOW + 1000},
        "agent_launch": {"worker": 20, "helper": 30, "other": 31},
        "agent_changed": {"clerk": 40},
        "agent_grants": {"worker": 1},
        "grant_state": {"g": LIVE, "root": LIVE, "client": LIVE},
        "grant_agent": {"g": "worker", "root": "boss", "client": "other"},
        "grant_module": {"g": "m", "client": "m"},
        "grant_config": {"g": "c", "client": "c"},
        "grant_tool": {"g": "t"},
        "grant_action": {"g": "a", "client": "a"},
        "grant_where": {"g": WHERE, "client": PART},
        "grant_left": {"g": 3, "root": 9, "client": 1},
        "grant_expires": {"g": NOW + 500, "root": NOW + 900, "client": NOW + 900},
        "grant_every": {"g": 100, "root": 100},
        "grant_slack": {"g": 200, "root": 200},
        "grant_budget": {"g": 20, "root": 30},
        "grant_cost": {"g": 7, "root": 7},
        "grant_approvals": {"g": 1, "root": 1, "client": 1},
        "grant_delegable": {"g": 2, "root": 3},
        "grant_line": {"g": frozenset({"root", "g"}), "root": frozenset({"root"}), "client": frozenset({"client"})},
        "tool_grant": {("worker", "t"): "g"},
        "call_state": {"call": READY},
        "call_agent": {"call": "worker"},
        "call_grant": {"call": "g"},
        "call_tool": {"call": "t"},
        "call_args": {"call": "d"},
        "call_expires": {"call": NOW + 300},
        "quota_every": {"worker": 20, "": 30},
        "quota_slack": {"worker": 20, "": 30},
        "open_grant": {40: "g"},
        "open_cost": {40: 7},
    }
    state["launch_agent"][10] = "clerk"  # waits; `launch` asks for the same agent, whose latest launch is none
    for field, values in state.items():
        made._state[field].update(values)
    return made


_GIVING: list[tuple[str, dict[str, Any], list[Setting]]] = [
    ("quorum-not-met", {"consents": 1}, []),
    ("request-replayed", {}, [("used", "r", True)]),
    ("request-too-early", {"not_before": NOW + 1}, []),
    ("request-expired", {"expires": NOW}, []),
    ("request-life-too-long", {"expires": NOW + MAX_REQUEST_LIFE_MS + 1}, []),
    ("head-unknown", {"head_known": False}, []),
]
_ACTING: list[tuple[str, dict[str, Any], list[Setting]]] = [
    ("agent-not-running", {}, [("launch_state", 20, ENDED)]),
    ("agent-not-running", {}, [("launch_state", 20, ADMITTED)]),
    ("launch-stopped", {}, [("launch_stopped", 20, True)]),
    ("canary-holds-nothing", {}, [("launch_canary", 20, True)]),
    ("agent-differs", {}, [("launch_agent", 20, OTHER)]),
]
_HOLDING: list[tuple[str, dict[str, Any], list[Setting]]] = [
    ("no-such-grant", {"grant": "none"}, [("grant_agent", "none", "worker"), ("grant_left", "none", 1)]),
    ("grant-of-another-agent", {}, [("grant_agent", "g", OTHER)]),
    ("grant-revoked", {}, [("grant_state", "g", REVOKED)]),
    ("grant-revoked", {}, [("grant_state", "root", REVOKED)]),
    ("grant-for-another-module", {}, [("launch_module", 20, OTHER)]),
    ("grant-for-another-profile", {}, [("launch_config", 20, OTHER)]),
    ("grant-expired", {}, [("grant_expires", "g", NOW)]),
    ("grant-expired", {}, [("grant_expires", "root", NOW)]),
]
_GRANT: list[tuple[str, dict[str, Any], list[Setting]]] = [
    *_GIVING,
    ("head-stale", {"head": 39}, []),
    ("module-not-approved", {"module": "k"}, []),
    ("profile-not-approved", {"config": "never"}, []),
    ("grant-id-used", {"id": "g"}, []),
    ("grant-id-used", {}, [("grant_state", "r", REVOKED)]),
    ("grant-without-calls", {"calls": 0}, []),
    ("grant-without-calls", {"calls": -1}, []),
    ("grant-expired", {"grant_expires": NOW}, []),
    ("tool-name-taken", {"agent": "worker"}, []),
    ("too-many-grants", {}, [("agent_grants", "clerk", MAX_GRANTS_PER_AGENT)]),
]
#: For each rule: a reason, what to change in the message, what to change in the state. One condition fails, no other.
MUTATIONS: dict[str, list[tuple[str, dict[str, Any], list[Setting]]]] = {
    "approve-module": [*_GIVING, ("module-already-approved", {"module": "k"}, [])],
    "approve-profile": _GIVING,
    "approve-release": _GIVING,
    "launch": [
        *_GIVING,
        ("head-stale", {"head": 39}, []),
        ("module-not-approved", {"module": "never"}, []),
        ("module-not-approved", {"module": "k"}, []),
        ("profile-not-approved", {"config": "never"}, []),
        ("agent-already-running", {"agent": "worker"}, []),
        ("agent-already-running", {}, [("agent_launch", "clerk", 10)]),
    ],
    "grant": _GRANT,
    "break-glass": [*_GRANT, ("break-glass-too-long", {"grant_expires": NOW + MAX_BREAK_GLASS_MS + 1}, [])],
    "reconfigure": [
        *_GIVING,
        ("new-quorum-not-met", {"consents_after": 2}, []),
        ("trust-root-version", {"version": 3}, []),
        ("trust-root-version", {"version": 5}, []),
        ("trust-root-version", {}, [("version", "", 2)]),
    ],
    "flag-key": [*_GIVING, ("flag-in-the-future", {"since": 51}, [])],
    "review": [*_GIVING, ("no-such-grant", {"grant": "none"}, [])],
    "approve-call": [
        ("quorum-not-met", {"consents": 0}, [("grant_approvals", "g", 0)]),
        *_GIVING[1:],
        ("no-such-grant", {"grant": "none"}, [("grant_agent", "none", "worker")]),
        ("grant-of-another-agent", {"agent": OTHER}, []),
        ("approval-lacks-humans", {}, [("grant_approvals", "g", 3)]),
    ],
    "set-quota": [*_GIVING, ("head-stale", {"head": 39}, [])],
    "revoke": [("quorum-not-met", {"consents": 0}, [])],
    "stop": [("quorum-not-met", {"consents": 0}, [])],
    "withdraw-module": [("quorum-not-met", {"consents": 0}, [])],
    "withdraw-profile": [("quorum-not-met", {"consents": 0}, [])],
    "withdraw-release": [("quorum-not-met", {"consents": 0}, [])],
    "challenge": [
        ("request-replayed", {}, [("used", "n", True)]),
        ("module-not-a-canary", {"module": "m"}, []),
        ("profile-not-approved", {"config": "never"}, []),
        ("agent-already-running", {"agent": "worker"}, []),
    ],
    "order-stop": [],
    "start": [
        ("launch-not-admitted", {}, [("launch_state", 10, STARTED)]),
        ("launch-not-admitted", {}, [("launch_state", 10, ENDED)]),
        ("launch-stopped", {}, [("launch_stopped", 10, True)]),
        ("request-expired", {}, [("launch_expires", 10, NOW)]),
        ("agent-differs", {"agent": OTHER}, []),
        ("module-differs", {"module": OTHER}, []),
        ("config-differs", {"config": OTHER}, []),
        ("release-not-approved", {"release": OTHER}, []),
        ("release-not-approved", {}, [("release", "r", False)]),
    ],
    "refuse-launch": [
        ("launch-not-admitted", {}, [("launch_state", 10, STARTED)]),
        ("agent-differs", {"agent": OTHER}, []),
    ],
    "exit": [
        ("launch-not-started", {}, [("launch_state", 20, ADMITTED)]),
        ("launch-not-started", {}, [("launch_state", 20, ENDED)]),
        ("agent-differs", {"agent": OTHER}, []),
    ],
    "invoke": [
        *_ACTING,
        *_HOLDING,
        ("tool-differs", {}, [("grant_tool", "g", OTHER)]),
        ("action-differs", {}, [("grant_action", "g", OTHER)]),
        ("calls-exhausted", {}, [("grant_left", "g", 0)]),
        ("calls-exhausted", {}, [("grant_left", "g", -1)]),
        ("calls-exhausted", {}, [("grant_left", "root", 0)]),
        ("rate-exceeded", {}, [("grant_full", "g", NOW + 201)]),
        ("rate-exceeded", {}, [("grant_full", "root", NOW + 201)]),
        ("quota-exceeded", {}, [("quota_full", "worker", NOW + 21)]),
        ("quota-exceeded", {}, [("quota_full", "", NOW + 31)]),
        ("budget-exhausted", {}, [("grant_budget", "g", 6)]),
        ("budget-exhausted", {}, [("grant_budget", "root", 6)]),
        ("arguments-not-covered", {}, [("grant_where", "g", ELSE)]),
        ("approval-needed", {"approval": ""}, []),
        ("approval-used", {}, [("call_state", "call", USED)]),
        ("approval-for-another-call", {}, [("call_agent", "call", OTHER)]),
        ("approval-for-another-call", {}, [("call_grant", "call", "root")]),
        ("approval-for-another-call", {}, [("call_tool", "call", OTHER)]),
        ("approval-for-another-call", {"args_digest": "e"}, []),
        ("approval-expired", {}, [("call_expires", "call", NOW)]),
        ("client-grant-not-live", {}, [("grant_state", "client", REVOKED)]),
        ("client-grant-not-live", {}, [("grant_expires", "client", NOW)]),
        ("client-grant-not-live", {}, [("grant_left", "client", 0)]),
        ("client-grant-not-live", {}, [("grant_line", "client", frozenset({"client", "gone"}))]),
        ("client-not-covered", {}, [("grant_action", "client", OTHER)]),
        ("client-not-covered", {}, [("grant_where", "client", ELSE)]),
        ("client-not-covered", {"args": {"path": "b"}}, []),
        ("client-not-running", {}, [("agent_launch", "other", 20)]),
        ("client-not-running", {}, [("launch_state", 31, ENDED)]),
        ("client-not-running", {}, [("launch_stopped", 31, True)]),
        ("client-not-running", {}, [("launch_canary", 31, True)]),
        ("client-not-running", {}, [("launch_module", 31, "n")]),
        ("client-not-running", {}, [("launch_config", 31, OTHER)]),
        ("client-spent", {}, [("grant_full", "client", NOW + 1)]),
        ("client-spent", {}, [("quota_full", "other", NOW + 1)]),
        ("client-spent", {}, [("grant_cost", "client", 1)]),
        ("client-needs-approval", {}, [("grant_approvals", "client", 2)]),
    ],
    "settle": [
        ("intent-closed", {}, [("open_grant", 40, "")]),
        ("spent-out-of-bounds", {"spent": 8}, []),
        ("spent-out-of-bounds", {"spent": -1}, []),
    ],
    "delegate": [
        *_ACTING,
        *_HOLDING,
        ("grant-not-delegable", {}, [("grant_delegable", "g", 0)]),
        ("delegate-to-itself", {"to": "worker"}, [("launch_agent", 30, "worker")]),
        ("child-not-running", {}, [("launch_state", 30, ENDED)]),
        ("child-not-running", {}, [("launch_stopped", 30, True)]),
        ("child-not-running", {}, [("launch_canary", 30, True)]),
        ("child-not-running", {}, [("launch_agent", 30, OTHER)]),
        ("child-not-running", {"module": "m"}, []),
        ("child-not-running", {"config": "d"}, []),
        ("grant-id-used", {"id": "root"}, []),
        ("not-narrower", {}, [("grant_where", "g", ELSE)]),
        ("delegated-too-much", {"calls": 0}, []),
        ("delegated-too-much", {"calls": 4}, []),
        ("delegated-too-much", {"grant_expires": NOW}, []),
        ("delegated-too-much", {"grant_expires": NOW + 501}, []),
        ("delegated-too-much", {"budget": 21}, []),
        ("delegated-too-much", {"budget": -1}, []),
        ("delegated-too-much", {"delegable": 2}, []),
        ("delegated-too-much", {"delegable": -1}, []),
        ("tool-name-taken", {}, [("tool_grant", ("helper", "u"), "root")]),
        ("tool-name-taken", {}, [("tool_grant", ("helper", "u"), "client"), ("grant_parent", "client", "root")]),
        ("tool-name-taken", {}, [("tool_grant", ("helper", "u"), "old"), ("grant_state", "old", REVOKED)]),
        ("too-many-grants", {}, [("agent_delegated", "helper", MAX_DELEGATED_PER_AGENT)]),
    ],
    "drop": [
        *_ACTING,
        ("no-such-grant", {"grant": "none"}, [("grant_agent", "none", "worker")]),
        ("grant-of-another-agent", {"grant": "root"}, []),
    ],
}
#: What can't be otherwise where a condition fails: of an expired grant, no part is left to hand on.
IMPLIED = {
    ("delegate", "grant-expired"): {"delegated-too-much"},
    ("delegate", "grant-not-delegable"): {"delegated-too-much"},
}
CASES = [(rule, *case) for rule, cases in MUTATIONS.items() for case in cases]


def _ids(case: Any) -> str:
    return str(case) if isinstance(case, str) else ""


@pytest.mark.parametrize("rule", RULES)
def test_the_legitimate_message_of_each_rule_happens(rule: str) -> None:
    made = world()
    assert made.check(rule, LEGITIMATE[rule]) is None
    before = copy.deepcopy(made._state)
    made.apply(rule, LEGITIMATE[rule])
    assert made._state != before


@pytest.mark.parametrize(("rule", "reason", "message", "settings"), CASES, ids=_ids)
def test_each_condition_refuses_with_its_reason_and_changes_nothing(
    rule: str, reason: str, message: dict[str, Any], settings: list[Setting]
) -> None:
    made = world()
    for field, key, value in settings:
        made._state[field][key] = value
    before = copy.deepcopy(made._state)
    said = LEGITIMATE[rule] | message
    with pytest.raises(Refused) as refused:
        made.apply(rule, said)
    assert refused.value.reason == reason
    assert made._state == before
    skipped = {"no-such-grant"}  # nothing about a grant that isn't there can be in order
    if reason not in skipped:
        failing = [name for name, holds in RULES[rule].guard(Plain, made._state, said) if holds is not True]
        others = set(failing) - {reason} - IMPLIED.get((rule, reason), set())
        assert not others, "another condition failed too: the case does not isolate its guard"


@pytest.mark.parametrize("rule", RULES)
def test_every_condition_of_every_guard_has_a_case(rule: str) -> None:
    yielded = [name for name, _ in RULES[rule].guard(Plain, world()._state, LEGITIMATE[rule])]
    assert set(yielded) == {reason for reason, _, _ in MUTATIONS[rule]}
    assert len(set(yielded)) == len(yielded), "a reason twice in a guard: one of the two may be untested"
    assert set(yielded) <= REASONS.keys()


@pytest.mark.parametrize("rule", RULES)
def test_writes_name_only_fields_of_the_state_and_a_field_of_each_once(rule: str) -> None:
    writes = RULES[rule].writes(Plain, world()._state, LEGITIMATE[rule])
    written = [(field, one) for field, key, _ in writes for one in (key.keys if isinstance(key, Across) else (key,))]
    assert {field for field, _ in written} <= FIELDS.keys()
    assert len(set(written)) == len(written)


@pytest.mark.parametrize(
    "act",
    [
        "approve-module", "approve-profile", "launch", "grant", "set-quota", "break-glass", "reconfigure", "flag-key",
        "review", "approve-release",
    ],
)  # fmt: skip
def test_an_act_without_a_quorum_in_the_trust_root_never_happens(act: str) -> None:
    made = world()
    made._state["quorum"].clear()
    assert made.check(act, LEGITIMATE[act] | {"consents": 64}) == "quorum-not-met"


@pytest.mark.parametrize(
    ("rule", "act"),
    [
        ("approve-module", "module"), ("approve-profile", "profile"), ("launch", "launch"), ("grant", "grant"),
        ("break-glass", "break-glass"), ("reconfigure", "reconfigure"), ("flag-key", "reconfigure"),
        ("review", "grant"), ("set-quota", "reconfigure"),
        ("approve-release", "release"),
    ],
)  # fmt: skip
def test_each_rule_asks_for_the_quorum_of_its_own_act(rule: str, act: str) -> None:
    made = world()
    made._state["quorum"][act] = 3
    assert made.check(rule, LEGITIMATE[rule]) == "quorum-not-met"
    assert made.check(rule, LEGITIMATE[rule] | {"consents": 3}) is None
    others = [one for one in (*QUORUMS, "break-glass") if one != act]
    made._state["quorum"] |= dict.fromkeys(others, 64) | {act: 2}
    assert made.check(rule, LEGITIMATE[rule]) is None


def test_bounds_hold_to_the_last_millisecond_call_and_grant() -> None:
    made = world()
    grant = LEGITIMATE["grant"]
    day = grant | {"expires": NOW + MAX_REQUEST_LIFE_MS}
    assert made.check("grant", day) is None
    assert made.check("grant", grant | {"expires": NOW + 1}) is None
    assert made.check("grant", grant | {"grant_expires": NOW + 1}) is None
    made._state["agent_grants"]["clerk"] = MAX_GRANTS_PER_AGENT - 1
    assert made.check("grant", grant) is None
    made._state["launch_expires"][10] = NOW + 1
    assert made.check("start", START) is None
    invoke = LEGITIMATE["invoke"] | {"client": ""}
    assert made.check("invoke", invoke | {"now": NOW + 299}) is None
    made._state["grant_approvals"].clear()
    made._state["grant_cost"].clear()
    made._state["quota_every"].clear()
    assert made.check("invoke", invoke | {"now": NOW + 499}) is None
    for left in (2, 1, 0):
        made.apply("invoke", invoke)
        assert made.read("grant_left", "g") == left
    assert made.check("invoke", invoke) == "calls-exhausted"


def test_a_voice_that_lies_about_the_past_gains_nothing() -> None:
    made = world()
    made.apply("order-stop", {"now": NOW + 2000, "launch": 77})
    for rule in ("launch", "grant", "approve-module", "approve-profile", "start"):
        assert made.check(rule, LEGITIMATE[rule] | {"now": 0}) == "request-expired"
    assert made.check("invoke", LEGITIMATE["invoke"] | {"now": 0}) == "grant-expired"
    made.apply("order-stop", {"now": 0, "launch": 77})
    assert made.read("clock", "") == NOW + 2000


@pytest.mark.parametrize("rule", list(RULES))
def test_every_rule_that_happens_moves_the_clock_and_never_back(rule: str) -> None:
    made = world()
    made.apply(rule, LEGITIMATE[rule])
    assert made.read("clock", "") == NOW


def test_taking_away_works_in_every_state_and_is_final() -> None:
    empty = Authority({})
    empty.apply("revoke", {"index": 3, "now": 1, "consents": 1, "grant": "future"})
    empty.apply("stop", {"index": 4, "now": 1, "consents": 1, "agent": "never-launched"})
    empty.apply("order-stop", {"now": 1, "launch": 99})
    assert empty.read("grant_state", "future") == REVOKED

    made = world()
    made.apply("revoke", LEGITIMATE["revoke"])
    assert made.read("agent_grants", "worker") == 0
    assert made.read("agent_changed", "worker") == 51
    made.apply("revoke", LEGITIMATE["revoke"] | {"index": 60})
    assert made.read("agent_grants", "worker") == 0, "the second revocation counted the grant again"
    assert made.read("agent_changed", "worker") == 51
    assert made.check("invoke", LEGITIMATE["invoke"]) == "grant-revoked"
    again = LEGITIMATE["grant"] | {"id": "g", "agent": "worker", "head": 70}
    assert made.check("grant", again) == "grant-id-used"


def test_a_revocation_that_came_first_keeps_its_grant_from_ever_living() -> None:
    made = world()
    made.apply("revoke", {"index": 3, "now": NOW, "consents": 1, "grant": "r"})
    assert made.check("grant", LEGITIMATE["grant"]) == "grant-id-used"
    assert made.read("agent_grants", "clerk") == 0


def test_a_stop_ends_the_latest_launch_alone_and_the_agent_can_run_again_later() -> None:
    made = world()
    made.apply("stop", LEGITIMATE["stop"] | {"agent": "worker"})
    assert made.check("invoke", LEGITIMATE["invoke"]) == "launch-stopped"
    assert made.check("start", START) is None
    launch = LEGITIMATE["launch"] | {"agent": "worker", "head": 51, "index": 60}
    assert made.check("launch", launch) == "agent-already-running"
    made.apply("exit", LEGITIMATE["exit"])
    assert made.check("launch", launch | {"head": 50}) == "head-stale"
    made.apply("launch", launch)
    made.apply("start", START | {"launch": 60, "agent": "worker"})
    assert made.check("invoke", LEGITIMATE["invoke"] | {"launch": 60}) is None
    assert made.check("invoke", LEGITIMATE["invoke"]) == "agent-not-running"


def _revoke(made: Authority) -> None:
    made.apply("revoke", LEGITIMATE["revoke"])


def _exhaust(made: Authority) -> None:
    made._state["grant_left"]["g"] = 0


def _expire(made: Authority) -> None:
    made._state["grant_expires"]["g"] = NOW


@pytest.mark.parametrize("end", [_revoke, _exhaust, _expire])
def test_a_tool_s_name_is_free_again_only_when_its_grant_can_do_nothing_more(end: Callable[[Authority], None]) -> None:
    made = world()
    anew = LEGITIMATE["grant"] | {"agent": "worker", "head": 60}
    assert made.check("grant", anew) == "tool-name-taken"
    end(made)
    made.apply("grant", anew)
    assert made.read("tool_grant", ("worker", "t")) == "r"
    assert made.check("invoke", LEGITIMATE["invoke"]) is not None, "the old grant came back"
    assert made.check("invoke", LEGITIMATE["invoke"] | {"grant": "r", "client": ""}) is None
    assert "g" not in made._state["tool_grant"].values()


def test_a_used_id_is_used_for_every_rule_that_gives() -> None:
    for first in ("approve-module", "approve-profile", "launch", "grant"):
        for second in ("approve-module", "approve-profile", "launch", "grant"):
            made = world()
            made.apply(first, LEGITIMATE[first])
            assert made.check(second, LEGITIMATE[second] | {"head": 60}) == "request-replayed"


def test_values_of_different_types_are_never_the_same() -> None:
    for left, right in ((1, True), (0, False), (1, "1"), (None, False), ("", None), (b"a", "a")):
        assert not Plain.same(left, right)
    assert Plain.same(1, 1) and Plain.same("a", "a") and Plain.same(None, None)


@given(st.integers(), st.integers())
def test_the_plain_reading_agrees_with_arithmetic(left: int, right: int) -> None:
    assert Plain.at_most(left, right) is (left <= right)
    assert Plain.less(left, right) is (left < right)
    assert Plain.plus(left, right) == left + right
    assert Plain.same(left, right) is (left == right)


@given(st.lists(st.booleans(), max_size=4))
def test_the_plain_reading_agrees_with_truth_tables(terms: list[bool]) -> None:
    assert Plain.conj(*terms) is all(terms)
    assert Plain.disj(*terms) is any(terms)
    assert Plain.neg(Plain.conj(*terms)) is Plain.disj(*(Plain.neg(term) for term in terms))
    assert Plain.when(Plain.conj(*terms), 1, 2) == (1 if all(terms) else 2)


@pytest.mark.parametrize("rule", ["set-quota", "reconfigure", "flag-key", "review"])
def test_what_was_asked_once_is_not_asked_again(rule: str) -> None:
    kernel = world()
    asked = LEGITIMATE[rule] | {"consents": 9}
    kernel.apply(rule, asked)
    assert kernel.check(rule, asked) == "request-replayed"


def test_a_reconfiguration_sets_each_quorum() -> None:
    kernel = world()
    acts = (*QUORUMS, "break-glass")
    numbers = {f"quorum_{act.replace('-', '_')}": number for number, act in enumerate(acts, 3)}
    message = LEGITIMATE["reconfigure"] | numbers | {"consents_after": 99}
    kernel.apply("reconfigure", message)
    assert [kernel.read("quorum", act) for act in acts] == list(range(3, 3 + len(acts)))


def test_a_key_is_flagged_from_the_earliest_entry_that_was_said() -> None:
    kernel = world()
    for number, (since, marked) in enumerate([(20, 21), (40, 21), (9, 10), (0, 1), (9, 1)]):
        kernel.apply("flag-key", LEGITIMATE["flag-key"] | {"id": f"f{number}", "since": since})
        assert kernel.read("flagged", "stolen") == marked


def test_what_is_over_leaves_nothing_behind_in_the_state() -> None:
    kernel = world()
    kernel.apply("set-quota", LEGITIMATE["set-quota"])
    assert kernel.read("quota_full", "clerk") == 0
    kernel.apply("launch", LEGITIMATE["launch"] | {"id": "s", "head": 51})
    assert kernel.read("launch_canary", 50) is False
    kernel.apply("settle", LEGITIMATE["settle"])
    assert (kernel.read("open_grant", 40), kernel.read("open_cost", 40)) == ("", 0)


def test_one_approval_is_for_one_call_and_burnt_by_no_call_that_needs_none() -> None:
    kernel = world()
    kernel.apply("invoke", LEGITIMATE["invoke"])
    assert kernel.check("invoke", LEGITIMATE["invoke"] | {"index": 60, "now": NOW + 200}) == "approval-used"
    kernel = world()
    kernel._state["grant_approvals"].clear()
    kernel.apply("invoke", LEGITIMATE["invoke"])
    assert kernel.read("call_state", "call") == READY


def test_a_part_lives_no_longer_than_its_whole() -> None:
    kernel = world()
    assert kernel.holds("g", NOW)
    kernel.apply("revoke", LEGITIMATE["revoke"] | {"grant": "root"})
    assert not kernel.holds("g", NOW)
