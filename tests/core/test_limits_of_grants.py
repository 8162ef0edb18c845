"""What a grant's limits add up to: rates, budgets, approvals and everything that is handed on, over whole histories."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.admission import limits_of
from ironbound.core.authority import MAX_DELEGATED_PER_AGENT, MAX_DELEGATION, REVOKED, Authority, Refused
from ironbound.core.constraint import Where, parse_where
from ironbound.core.statement import QUORUMS

NOW = 1_000_000
FAR = NOW + 80_000_000
AGENTS = ("ann", "ben", "cat", "dan")
WIDE = parse_where({"path": {"one_of": ["a", "b"]}})
NARROW = parse_where({"path": {"equals": "a"}})
ASKED = {
    "now": NOW, "consents": 2, "not_before": NOW, "expires": NOW + 1000, "head": 1 << 40, "head_known": True,
    "module": "m", "config": "c",
}  # fmt: skip


@dataclass
class World:
    """Four running agents, of which `ann` holds what humans grant."""

    kernel: Authority = field(default_factory=lambda: Authority(dict.fromkeys(QUORUMS, 1)))
    now: int = NOW
    index: int = 100

    def __post_init__(self) -> None:
        self.kernel.apply("approve-module", ASKED | {"id": "m", "canary": False})
        self.kernel.apply("approve-profile", ASKED | {"id": "p"})
        for launch, agent in enumerate(AGENTS):
            about = ASKED | {"id": f"launch {agent}", "agent": agent}
            self.kernel.apply("launch", about | {"index": launch})
            self.kernel.apply("start", about | {"launch": launch, "release": ""})

    def grant(self, name: str = "root", agent: str = "ann", **changes: Any) -> str:
        limits = {key: changes.pop(key, None) for key in ("rate", "budget")}
        self.index += 1
        self.kernel.apply("grant", ASKED | {
            "index": self.index, "id": name, "agent": agent, "tool": name, "action": "x", "where": WIDE, "calls": 10,
            "grant_expires": FAR, "approvals": 0, "delegable": MAX_DELEGATION, **limits_of(**limits), **changes,
        })  # fmt: skip
        return name

    def hand_on(self, grant: str, name: str, to: str, **changes: Any) -> str:
        agent = self.kernel.read("grant_agent", grant)
        self.index += 1
        self.kernel.apply("delegate", {
            "index": self.index, "now": self.now, "launch": AGENTS.index(agent), "agent": agent, "grant": grant,
            "id": name, "child": AGENTS.index(to), "to": to, "module": "m", "config": "c", "tool": name,
            "where": self.kernel.read("grant_where", grant), "calls": self.kernel.read("grant_left", grant),
            "grant_expires": self.kernel.read("grant_expires", grant),
            "budget": self.kernel.read("grant_budget", grant),
            "delegable": self.kernel.read("grant_delegable", grant) - 1, **changes,
        })  # fmt: skip
        return name

    def intent(self, grant: str, **changes: Any) -> dict[str, Any]:
        agent = self.kernel.read("grant_agent", grant)
        self.index += 1
        return {
            "index": self.index, "now": self.now, "launch": AGENTS.index(agent), "agent": agent, "grant": grant,
            "tool": self.kernel.read("grant_tool", grant), "action": "x", "args": {"path": "a"}, "args_digest": "d",
            "approval": "", "client": "", "client_args": {}, **changes,
        }  # fmt: skip

    def call(self, grant: str, **changes: Any) -> str | None:
        """None if the call went through, else why not."""
        try:
            self.kernel.apply("invoke", self.intent(grant, **changes))
        except Refused as refusal:
            return refusal.reason
        return None

    def quota(self, agent: str, calls: int | None, window: int | None, consents: int = 2) -> None:
        self.index += 1
        rate = None if calls is None or window is None else {"calls": calls, "window_ms": window}
        about = {"index": self.index, "id": f"quota {self.index}", "agent": agent, "consents": consents}
        self.kernel.apply("set-quota", ASKED | about | limits_of(rate, None))

    def revoke(self, grant: str) -> None:
        self.index += 1
        self.kernel.apply("revoke", {"index": self.index, "now": self.now, "consents": 1, "grant": grant})

    def approve(self, name: str, grant: str, **changes: Any) -> None:
        self.kernel.apply("approve-call", ASKED | {
            "id": name, "agent": self.kernel.read("grant_agent", grant), "grant": grant, "args_digest": "d",
            "tool": self.kernel.read("grant_tool", grant), **changes,
        })  # fmt: skip

    def drop(self, grant: str, agent: str) -> None:
        self.index += 1
        about = {"launch": AGENTS.index(agent), "agent": agent, "grant": grant}
        self.kernel.apply("drop", about | {"index": self.index, "now": self.now})


# Rates


def test_a_rate_lets_its_calls_through_at_once_and_then_one_at_a_time() -> None:
    world = World()
    world.grant(calls=100, rate={"calls": 3, "window_ms": 3000})
    assert [world.call("root") for _ in range(5)] == [None, None, None, "rate-exceeded", "rate-exceeded"]
    world.now += 999
    assert world.call("root") == "rate-exceeded"
    world.now += 1
    assert [world.call("root") for _ in range(2)] == [None, "rate-exceeded"]
    world.now += 60_000
    assert [world.call("root") for _ in range(4)] == [None, None, None, "rate-exceeded"]


@given(st.integers(1, 6), st.integers(1, 50), st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_a_rate_is_a_bucket_of_tokens_and_never_gives_more_than_one(calls: int, window: int, waits: list[int]) -> None:
    """The integers against a bucket kept in fractions, whose tokens come back no faster than the window says."""
    world = World()
    world.grant(calls=1000, rate={"calls": calls, "window_ms": window})
    every = -(-window // calls)
    tokens, at, taken = Fraction(calls), NOW, []
    for wait in waits:
        world.now += wait
        tokens, at = min(Fraction(calls), tokens + Fraction(world.now - at, every)), world.now
        allowed = tokens >= 1
        assert (world.call("root") is None) == allowed
        if allowed:
            tokens -= 1
            taken.append(world.now)
    for first in range(len(taken)):
        within = [one for one in taken[first:] if one < taken[first] + window]
        assert len(within) <= 2 * calls, "more than the full bucket and what came back in the window"


def test_a_rate_is_shared_by_everything_that_was_handed_on() -> None:
    world = World()
    world.grant(calls=100, rate={"calls": 2, "window_ms": 2000})
    parts = [world.hand_on("root", f"part {to}", to) for to in ("ben", "cat", "dan")]
    assert [world.call(one) for one in parts] == [None, None, "rate-exceeded"]
    assert world.call("root") == "rate-exceeded"
    world.now += 1000
    assert [world.call(one) for one in (*parts, "root")].count(None) == 1


def test_a_gateway_that_dates_its_word_back_gains_no_token() -> None:
    world = World()
    world.grant(calls=100, rate={"calls": 1, "window_ms": 1000})
    assert world.call("root") is None
    assert world.call("root", now=0) == "rate-exceeded"
    assert world.call("root", now=NOW + 999) == "rate-exceeded"


# Quotas


def test_a_quota_bounds_an_agent_whatever_grants_it_has() -> None:
    world = World()
    for name in ("one", "two", "three"):
        world.grant(name, calls=100)
    world.quota("ann", 2, 2000)
    assert [world.call(one) for one in ("one", "two", "three")] == [None, None, "quota-exceeded"]
    world.grant("more", calls=100)
    assert world.call("more") == "quota-exceeded", "a grant is no way around a quota"
    world.now += 1000
    assert [world.call(one) for one in ("more", "one")] == [None, "quota-exceeded"]


def test_the_quota_of_all_agents_together_bounds_what_they_hand_on_to_each_other() -> None:
    world = World()
    world.grant(calls=100)
    world.quota("", 3, 3000)
    parts = [world.hand_on("root", f"part {to}", to) for to in ("ben", "cat", "dan")]
    assert [world.call(one) for one in (*parts, "root")] == [None, None, None, "quota-exceeded"]


def test_a_quota_of_one_agent_is_not_another_s() -> None:
    world = World()
    for agent in ("ann", "ben"):
        world.grant(agent, agent, calls=100)
    world.quota("ann", 1, 1000)
    assert [world.call(one) for one in ("ann", "ann", "ben", "ben")] == [None, "quota-exceeded", None, None]


def test_only_its_quorum_changes_a_quota_and_nothing_gives_a_call_back() -> None:
    world = World()
    world.grant(calls=100, budget={"unit": "u", "total": 100, "call": 5})
    world.quota("ann", 1, 1000)
    assert world.call("root") is None
    intent = world.index
    with pytest.raises(Refused, match="quorum-not-met"):
        world.quota("ann", 100, 1000, consents=0)
    world.kernel.apply("settle", {"now": world.now, "intent": intent, "spent": 0})
    world.kernel.apply("stop", {"index": 1 << 30, "now": world.now, "consents": 1, "agent": "ben"})
    world.grant("again", calls=100)
    assert world.call("root") == world.call("again") == "quota-exceeded"
    world.quota("ann", None, None)
    assert [world.call("again") for _ in range(5)] == [None] * 5


@given(st.integers(1, 4), st.integers(1, 40), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=40))
def test_no_choice_of_grants_lets_more_through_than_one_grant_with_that_rate(
    calls: int, window: int, tries: list[tuple[int, int]]
) -> None:
    """A quota over four grants is exactly a rate on one grant."""
    many, one = World(), World()
    for name in "abcd":
        many.grant(name, calls=1000)
    one.grant(calls=1000, rate={"calls": calls, "window_ms": window})
    many.quota("ann", calls, window)
    for wait, which in tries:
        many.now += wait
        one.now += wait
        assert (many.call("abcd"[which]) is None) == (one.call("root") is None)


# Budgets


def test_a_budget_is_charged_in_full_at_the_intent_and_settled_at_the_outcome() -> None:
    world = World()
    world.grant(budget={"unit": "tokens", "total": 10, "call": 4})
    assert [world.call("root") for _ in range(3)] == [None, None, "budget-exhausted"]
    world.kernel.apply("settle", {"now": NOW, "intent": world.index - 2, "spent": 1})
    assert world.kernel.read("grant_budget", "root") == 5
    assert world.call("root") is None
    for wrong in (world.index - 3, 7):
        with pytest.raises(Refused, match="intent-closed"):
            world.kernel.apply("settle", {"now": NOW, "intent": wrong, "spent": 0})
    with pytest.raises(Refused, match="spent-out-of-bounds"):
        world.kernel.apply("settle", {"now": NOW, "intent": world.index, "spent": 5})
    assert world.kernel.read("grant_budget", "root") == 1


def test_settling_gives_back_along_the_line_that_was_charged_also_after_a_revocation() -> None:
    world = World()
    world.grant(budget={"unit": "tokens", "total": 10, "call": 4})
    world.hand_on("root", "part", "ben", budget=6)
    assert world.call("part") is None
    left = [world.kernel.read("grant_budget", one) for one in ("root", "part")]
    assert left == [6, 2]
    world.revoke("part")
    world.kernel.apply("settle", {"now": NOW, "intent": world.index - 1, "spent": 3})
    assert [world.kernel.read("grant_budget", one) for one in ("root", "part")] == [7, 3]


# Approvals


def test_an_approval_lets_one_call_of_its_content_through_once() -> None:
    world = World()
    world.grant(approvals=2)
    assert world.call("root") == "approval-needed"
    with pytest.raises(Refused, match="approval-lacks-humans"):
        world.approve("ok", "root", consents=1)
    world.approve("ok", "root")
    assert world.call("root", approval="ok", args_digest="e") == "approval-for-another-call"
    assert world.call("root", approval="ok") is None
    assert world.call("root", approval="ok") == "approval-used"
    with pytest.raises(Refused, match="request-replayed"):
        world.approve("ok", "root")
    world.approve("late", "root")
    world.now += 1000
    assert world.call("root", approval="late") == "approval-expired"


def test_a_part_of_a_grant_needs_the_approvals_that_the_whole_needs() -> None:
    world = World()
    world.grant(approvals=1)
    world.hand_on("root", "part", "ben")
    world.approve("for the whole", "root")
    assert world.call("part") == "approval-needed"
    assert world.call("part", approval="for the whole") == "approval-for-another-call"
    world.approve("for the part", "part")
    assert world.call("part", approval="for the part") is None


def test_an_approval_does_not_revive_a_grant() -> None:
    world = World()
    world.grant(approvals=1)
    world.approve("ok", "root")
    world.revoke("root")
    assert world.call("root", approval="ok") == "grant-revoked"


# Handing on


def test_what_is_handed_on_ends_with_each_that_it_came_from() -> None:
    for ended in ("root", "part", "part of part"):
        world = World()
        world.grant()
        world.hand_on("root", "part", "ben")
        world.hand_on("part", "part of part", "cat", grant_expires=FAR - 5)
        assert world.call("part of part") is None
        world.revoke(ended)
        assert world.call("part of part") == "grant-revoked"
        assert (world.call("root") is None) == (ended != "root")
        with pytest.raises(Refused, match="grant-revoked"):
            world.hand_on("part of part", "more", "dan")


def test_nothing_can_be_handed_on_deeper_than_humans_signed() -> None:
    world = World()
    world.grant(delegable=2)
    world.hand_on("root", "part", "ben")
    world.hand_on("part", "part of part", "cat")
    with pytest.raises(Refused, match="grant-not-delegable"):
        world.hand_on("part of part", "more", "dan", delegable=0)
    world.grant("kept", delegable=0)
    with pytest.raises(Refused, match="grant-not-delegable"):
        world.hand_on("kept", "more", "ben", delegable=0)


def test_a_part_covers_no_more_than_the_whole() -> None:
    world = World()
    world.grant(where=NARROW)
    prefix = parse_where({"path": {"prefix": {"value": "a", "separator": "/"}}})
    for where in (WIDE, prefix, parse_where({"path": {"any": True}}), parse_where({})):
        with pytest.raises(Refused, match="not-narrower"):
            world.hand_on("root", "part", "ben", where=where)
    world.hand_on("root", "part", "ben")


def test_an_agent_can_not_stand_in_the_way_of_humans() -> None:
    world = World()
    world.grant(calls=1000)
    world.hand_on("root", "report", "ben")
    changed = world.kernel.read("agent_changed", "ben")
    for number in range(MAX_DELEGATED_PER_AGENT - 1):
        world.hand_on("root", f"part {number}", "ben")
    with pytest.raises(Refused, match="too-many-grants"):
        world.hand_on("root", "one more", "ben")
    assert world.kernel.read("agent_changed", "ben") == changed, "the humans' next request would be stale"
    world.grant("report", agent="ben", id="theirs")
    assert world.kernel.read("tool_grant", ("ben", "report")) == "theirs"
    world.drop("part 1", "ben")
    world.hand_on("root", "one more", "ben")
    with pytest.raises(Refused, match="tool-name-taken"):
        world.hand_on("root", "again", "ben", tool="report")


def test_a_name_that_humans_gave_is_no_agent_s_to_give_again() -> None:
    """Else what an agent calls as its own tool, used up or revoked, would be what another agent makes of it."""
    world = World()
    world.grant(calls=1000)
    world.grant("report", agent="ben", calls=1)
    assert world.call("report") is None
    with pytest.raises(Refused, match="tool-name-taken"):
        world.hand_on("root", "part", "ben", tool="report")
    world.revoke("report")
    with pytest.raises(Refused, match="tool-name-taken"):
        world.hand_on("root", "part", "ben", tool="report")
    world.hand_on("root", "part", "ben", tool="of ann")
    world.drop("part", "ben")
    world.hand_on("root", "part again", "ben", tool="of ann")
    world.grant("report again", agent="ben", tool="report")
    assert world.kernel.read("tool_grant", ("ben", "report")) == "report again"


def test_dropping_is_final_and_only_for_one_s_own() -> None:
    world = World()
    world.grant()
    world.hand_on("root", "part", "ben")
    with pytest.raises(Refused, match="grant-of-another-agent"):
        world.drop("root", "ben")
    world.drop("part", "ben")
    assert world.call("part") == "grant-revoked"
    assert world.call("root") is None
    world.drop("root", "ann")
    assert world.kernel.read("grant_state", "root") == REVOKED
    assert world.kernel.read("agent_grants", "ann") == 0
    world.drop("root", "ann")
    assert world.kernel.read("agent_grants", "ann") == 0


def test_naming_another_agent_s_grant_neither_works_nor_burns_its_budget() -> None:
    world = World()
    world.grant("mine", budget={"unit": "tokens", "total": 10, "call": 1})
    world.grant("theirs", agent="ben", where=NARROW, budget={"unit": "tokens", "total": 10, "call": 1})
    before = world.kernel.digest()
    thief = {"agent": "ann", "launch": AGENTS.index("ann"), "tool": "theirs"}
    assert world.call("theirs", **thief) == "grant-of-another-agent"
    assert world.kernel.digest() == before
    client = {"client": "theirs", "client_args": {"path": "b"}}
    assert world.call("mine", args={"path": "b"}, **client) == "client-not-covered"
    assert world.call("mine", args={"path": "a"}, **client) == "client-not-covered"
    assert world.kernel.digest() == before
    assert world.call("mine", client="theirs", client_args={"path": "a"}) is None
    assert [world.kernel.read("grant_left", one) for one in ("mine", "theirs")] == [9, 10]
    assert world.kernel.read("grant_budget", "theirs") == 10
    world.revoke("theirs")
    assert world.call("mine", client="theirs", client_args={"path": "a"}) == "client-grant-not-live"


def test_a_client_that_could_not_pay_or_needs_approval_is_not_acted_for() -> None:
    """The confused deputy: what a client's own call would be refused for, a call for it is refused for."""
    world = World()
    limits = {"rate": {"calls": 2, "window_ms": 2000}, "budget": {"unit": "tokens", "total": 3, "call": 2}}
    world.grant("mine", approvals=1)
    world.grant("theirs", agent="ben", **limits, approvals=2)
    world.approve("one", "mine", consents=1)
    for_them = {"client": "theirs", "client_args": {"path": "a"}, "approval": "one"}
    assert world.call("mine", **for_them) == "client-needs-approval"
    assert world.call("mine", approval="one") is None, "for nobody it is enough"
    world.grant("more", approvals=2)
    for name in ("two", "three", "four"):
        world.approve(name, "more")
    assert world.call("more", **for_them | {"approval": "two"}) is None, "as many humans approved this very call"
    world.approve("five", "theirs")
    assert world.call("theirs", approval="five") is None
    assert world.call("more", **for_them | {"approval": "three"}) == "client-spent", "its budget"
    world.kernel.apply("settle", {"now": world.now, "intent": world.index - 1, "spent": 0})
    assert world.call("more", **for_them | {"approval": "three"}) is None
    world.quota("ben", 1, 1000)
    world.approve("six", "theirs")
    assert world.call("theirs", approval="six") is None
    world.kernel.apply("settle", {"now": world.now, "intent": world.index, "spent": 0})
    assert world.call("more", **for_them | {"approval": "four"}) == "client-spent", "its rate and its quota"


def test_a_client_that_was_stopped_or_ended_is_not_acted_for() -> None:
    for rule in ("stop", "exit"):
        world = World()
        world.grant("mine")
        world.grant("theirs", agent="ben")
        for_them = {"client": "theirs", "client_args": {"path": "a"}}
        assert world.call("mine", **for_them) is None
        about = {"index": 1 << 30, "now": world.now, "consents": 1, "agent": "ben", "launch": AGENTS.index("ben")}
        world.kernel.apply(rule, about)
        assert world.call("mine", **for_them) == "client-not-running"
        assert world.call("mine") is None


_steps = st.lists(
    st.tuples(
        st.sampled_from(("hand on", "call", "call", "settle", "revoke", "drop")),
        st.integers(0, 9), st.sampled_from(AGENTS), st.integers(0, 9), st.integers(0, 9), st.booleans(),
    ),
    max_size=40,
)  # fmt: skip


@given(_steps)
def test_nothing_that_agents_do_gets_them_more_than_humans_gave(steps: list[Any]) -> None:
    """Conservation: however it is cut up and handed on, the calls and the cost of a grant are at most what was signed;
    and no step of an agent widens what any agent can do, but for the one that it hands to."""
    world = World()
    world.grant(calls=9, budget={"unit": "tokens", "total": 20, "call": 3})
    grants, calls, open_intents = ["root"], 0, {}
    spent = 0
    for what, pick, to, number, cost, narrow in steps:
        one = grants[pick % len(grants)]
        holder = world.kernel.read("grant_agent", one)
        before = {agent: covered(world, grants, agent) for agent in AGENTS}
        gainer = None
        try:
            if what == "hand on":
                where: Where = NARROW if narrow else world.kernel.read("grant_where", one)
                name = f"part {len(grants)}"
                world.hand_on(one, name, to, calls=number, budget=cost, where=where)
                assert covered(world, [name], to) <= before[holder]
                grants.append(name)
                gainer = to
            elif what == "call":
                world.kernel.apply("invoke", intent := world.intent(one))
                calls += 1
                open_intents[intent["index"]] = 3
            elif what == "settle" and open_intents:
                intent_index, charged = sorted(open_intents.items())[pick % len(open_intents)]
                world.kernel.apply("settle", {"now": NOW, "intent": intent_index, "spent": cost})
                assert cost <= charged
                spent += cost
                del open_intents[intent_index]
                gainer = "anybody"  # what was charged too much comes back
            elif what == "revoke":
                world.revoke(one)
            elif what == "drop":
                world.drop(one, holder)
        except Refused:
            continue
        after = {agent: covered(world, grants, agent) for agent in AGENTS}
        for agent in AGENTS:
            assert after[agent] <= before[agent] or gainer in (agent, "anybody"), (what, agent)
        assert calls <= 9 and spent + sum(open_intents.values()) <= 20
        assert world.kernel.read("grant_left", "root") == 9 - calls
        assert world.kernel.read("grant_budget", "root") == 20 - spent - sum(open_intents.values())


def covered(world: World, grants: list[str], agent: str) -> set[str]:
    """The calls that the guard of `invoke` lets this agent make now."""
    return {
        path
        for one in grants
        for path in ("a", "b")
        if world.kernel.read("grant_agent", one) == agent
        and world.kernel.check("invoke", world.intent(one, args={"path": path})) is None
    }
