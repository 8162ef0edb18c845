"""Real agents hand on what they hold, and real operators approve single calls, through the agent's own pipe."""

from __future__ import annotations

import json

from puppet import WAIT, call, puppet, request
from stand import Stand, until

from ironbound.core.replay import Entry, delegated_id

ANY = {"name": {"any": True}, "text": {"any": True}}


def over(stand: Stand, started: Entry) -> str:
    return str(stand.await_entry("exited", started.index, started=started.index).predicate["report"])


def refusals(stand: Stand, started: Entry) -> list[str]:
    found = stand.entries("action-denied", started.index, agent=started.predicate["agent"])
    return [one.predicate["reason"] for one in found]


def test_a_part_is_handed_on_through_the_pipe_used_by_the_other_and_ends_with_the_whole(stand: Stand) -> None:
    write = call(1, "note", name="a.txt", text="x")
    child = stand.started("child", puppet(WAIT, write, call(2, "note", name="b.txt", text="x"), WAIT, write))
    parent = stand.started("parent", puppet(
        call(1, "ironbound.delegate", tool="scratch.write", to="child"),
        WAIT,
        call(2, "ironbound.delegate", tool="scratch.write", to="nobody", name="note"),
        call(3, "ironbound.delegate", tool="scratch.write", to="child", name="note", calls=9),
        call(4, "ironbound.delegate", tool="scratch.write", to="child", name="note", where={"more": {"any": True}}),
        call(5, "ironbound.delegate", tool="scratch.write", to="child", name="note",
             where=ANY | {"name": {"equals": "a.txt"}}, calls=3),
        WAIT,
        WAIT,
    ))  # fmt: skip
    grant = stand.grant("parent", "scratch.write", where=ANY, calls=4, delegable=1)
    handed = stand.await_entry("delegated", parent.index, agent="parent")
    part = delegated_id(handed.predicate["id"])
    intent = stand.await_entry("action-intent", handed.index, agent="child")
    assert intent.void is None and intent.predicate["grant"] == part
    stand.await_entry("action-denied", intent.index, agent="child", reason="arguments-not-covered")
    left = stand.log.with_state(lambda replay: [replay.authority.read("grant_left", one) for one in (grant, part)])
    assert left == [3, 2]
    shown = {one["grant"]: one for one in json.loads(stand.command("grants", "--json").stdout)}
    assert (shown[part]["parent"], shown[part]["signed"]) == (grant, shown[grant]["signed"])
    assert stand.command("status").returncode == 0
    stand.revoke("parent", grant)
    over(stand, child)
    assert refusals(stand, child) == ["arguments-not-covered", "grant-revoked"]
    stand.stop_agent("parent")
    over(stand, parent)
    assert refusals(stand, parent) == ["no-such-grant", "child-not-running", "delegated-too-much", "not-narrower"]


def test_the_two_tools_stand_in_the_list_only_for_who_has_something_to_hand_on(stand: Stand) -> None:
    for delegable, tools in ((0, ["scratch.write"]), (1, ["ironbound.delegate", "ironbound.drop", "scratch.write"])):
        agent = f"lister-{delegable}"
        entry = stand.started(agent, puppet(WAIT, request(1, "tools/list", {})))
        stand.grant(agent, "scratch.write", where=ANY, delegable=delegable)
        listed = json.loads(over(stand, entry))["result"]["tools"]
        assert [one["name"] for one in listed] == tools


def test_an_agent_gives_up_its_own_grant_for_good(stand: Stand) -> None:
    entry = stand.started("modest", puppet(
        WAIT,
        call(1, "ironbound.drop", tool="scratch.write"),
        call(2, "scratch.write", name="a.txt", text="x"),
    ))  # fmt: skip
    stand.grant("modest", "scratch.write", where=ANY, delegable=1)
    over(stand, entry)
    assert stand.entries("dropped", entry.index, agent="modest")
    assert refusals(stand, entry) == ["grant-revoked"]
    assert stand.log.with_state(lambda replay: replay.holds("modest")) == []


def test_arguments_without_a_canonical_form_are_denied_in_the_log_and_end_no_channel(stand: Stand) -> None:
    odd = [{"calls": 0.5}, {"calls": 2**60}, {"where": {"name": {"equals": 1.5}}}]
    lines = [call(n, "ironbound.delegate", tool="x", to="y", **one) for n, one in enumerate(odd, 1)]
    entry = stand.started("odd", puppet(*lines, call(9, "ironbound.drop", tool=0.5), request(10, "ping", {})))
    assert json.loads(over(stand, entry))["id"] == 10
    assert refusals(stand, entry) == ["arguments-invalid"] * 4


def test_a_call_that_needs_approval_goes_through_once_an_operator_approved_this_very_call(stand: Stand) -> None:
    write = call(1, "scratch.write", name="paid.txt", text="x")
    again = call(2, "scratch.write", name="paid.txt", text="x")
    entry = stand.started("asker", puppet(WAIT, write, WAIT, write, again))
    stand.grant("asker", "scratch.write", where=ANY | {"name": {"equals": "paid.txt"}}, approvals=2)
    denied = stand.await_entry("action-denied", entry.index, agent="asker", reason="approval-needed")
    assert denied.predicate["wants"]["args"]["name"] == "paid.txt"
    done = stand.command("approve", "call", str(denied.index), names=("ada",))
    assert done.returncode == 1 and "approval-lacks-humans" in done.stderr, done.stderr
    done = stand.command("approve", "call", str(denied.index), names=("ada", "bo"))
    assert done.returncode == 0, done.stderr
    intent = stand.await_entry("action-intent", denied.index, agent="asker")
    assert intent.void is None and intent.predicate["approval"] is not None
    over(stand, entry)
    assert refusals(stand, entry) == ["approval-needed", "approval-needed"]
    assert len(stand.entries("action-intent", denied.index, agent="asker")) == 1


def test_who_acts_for_a_client_says_so_and_can_do_no_more_than_the_client(stand: Stand) -> None:
    client = stand.started("client", puppet(WAIT, WAIT, WAIT))
    narrow = stand.grant("client", "scratch.write", where=ANY | {"name": {"equals": "a.txt"}}, calls=1)

    def act(number: int, name: str) -> bytes:
        arguments = {"name": "scratch.write", "arguments": {"name": name, "text": "x"}}
        return request(number, "tools/call", arguments | {"_meta": {"ironbound.dev/client": narrow}})

    script = (WAIT, act(1, "b.txt"), act(2, "a.txt"), act(3, "a.txt"), WAIT, act(4, "a.txt"))
    entry = stand.started("deputy", puppet(*script))
    stand.grant("deputy", "scratch.write", where=ANY, calls=9)
    until("it acted twice", lambda: len(stand.entries("action-outcome", entry.index)) >= 2)
    stand.stop_agent("client")
    over(stand, client)
    stand.grant("deputy", "scratch.read", where={"name": {"any": True}})  # it is told, and goes on
    over(stand, entry)
    assert refusals(stand, entry) == ["client-not-covered", "client-not-running"]
    intents = stand.entries("action-intent", entry.index, agent="deputy")
    assert [(one.predicate["client"]["grant"], one.void) for one in intents] == [(narrow, None)] * 2
    assert stand.log.with_state(lambda replay: replay.authority.read("grant_left", narrow)) == 1


def test_two_agents_that_call_at_once_share_what_one_line_has_left(stand: Stand) -> None:
    """Up to sixteen calls are under way together; the log's order decides, and what it voids is not done."""
    burst = b"".join(call(number, "note", name=f"n{number}", text="x") for number in range(8))
    hand_on = call(90, "ironbound.delegate", tool="note", to="second", name="note", calls=5)
    second = stand.started("second", puppet(WAIT, burst, WAIT))
    first = stand.started("first", puppet(WAIT, hand_on, WAIT, burst, WAIT))  # both are told of what is handed on
    budget = {"unit": "call", "total": 3, "call": 1}
    grant = stand.grant("first", "scratch.write", tool="note", where=ANY, calls=5, delegable=1, budget=budget)

    def said(kind: str) -> list[Entry]:
        return stand.entries(kind, second.index)

    until("all sixteen are decided", lambda: len(said("action-intent")) + len(said("action-denied")) == 16)
    until("each intent has its outcome", lambda: len(said("action-outcome")) == len(said("action-intent")))
    done = [one for one in said("action-outcome") if one.predicate["status"] != "not-performed"]
    assert len(done) == len([one for one in said("action-intent") if one.void is None]) == 3
    left = stand.log.with_state(
        lambda replay: [replay.authority.read(f"grant_{one}", grant) for one in ("left", "budget")]
    )
    assert left == [2, 0]
    for agent, entry in (("first", first), ("second", second)):
        stand.stop_agent(agent)
        over(stand, entry)
