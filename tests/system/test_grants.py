"""An agent acts under grants, against a real HTTP service: what it may, what it may not, what the log says of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from puppet import WAIT, call, puppet, request
from stand import Stand, descendants
from world import World

from ironbound.core.replay import Entry
from ironbound.terminal.credential import bound, keep

TOKEN = "swordfish-" + os.urandom(8).hex()


@pytest.fixture(scope="module")
def world(stand: Stand) -> Iterator[World]:
    """An HTTP service whose token only the gateway has."""
    made = World(TOKEN)
    keep(stand.deployment, "world", bound(f"{made.url}/", "Authorization"), f"Bearer {TOKEN}")
    stand.kill("gateway")  # it reads credentials when it starts
    yield made
    made.close()


def where(world: World, **changes: Any) -> dict[str, Any]:
    """What a grant for GETs below /open says."""
    return {
        "method": {"equals": "GET"},
        "scheme": {"equals": "http"},
        "host": {"equals": "127.0.0.1"},
        "port": {"equals": world.port},
        "path": {"prefix": {"value": "/open", "separator": "/"}},
    } | changes


def get(number: int, world: World, path: str) -> bytes:
    return call(number, "ask", method="GET", url=f"{world.url}{path}")


def over(stand: Stand, started: Entry) -> Entry:
    return stand.await_entry("exited", started.index, started=started.index)


def asked(world: World, path: str) -> int:
    return len([one for one in world.seen if one[1] == path])


def denials(stand: Stand, started: Entry) -> list[str]:
    found = stand.entries("action-denied", started.index, agent=started.predicate["agent"])
    return [one.predicate["reason"] for one in found]


def test_a_call_is_denied_before_the_grant_done_under_it_and_denied_after_the_revocation(
    stand: Stand, world: World
) -> None:
    script = [get(1, world, "/open/a"), WAIT, get(2, world, "/open/b"), WAIT, get(3, world, "/open/c")]
    entry = stand.started("rise-and-fall", puppet(*script))
    stand.await_entry("action-denied", entry.index, agent="rise-and-fall", reason="no-such-grant")
    grant = stand.grant("rise-and-fall", "http.request", tool="ask", where=where(world), credential="world")
    outcome = stand.await_entry("action-outcome", entry.index, status="performed")
    intent = stand.log.entries[outcome.predicate["intent"]]
    assert intent.kind == "action-intent" and intent.predicate["grant"] == grant
    revoked = stand.revoke("rise-and-fall", grant)
    denied = stand.await_entry("action-denied", revoked, agent="rise-and-fall")
    assert denied.predicate["reason"] in ("grant-revoked", "no-such-grant")
    assert "refused" in over(stand, entry).predicate["report"]
    assert [(path, allowed) for _, path, allowed in world.seen if path.startswith("/open/")] == [("/open/b", True)]


def test_arguments_outside_the_grant_are_denied_and_nobody_is_asked(stand: Stand, world: World) -> None:
    script = [
        WAIT,
        get(1, world, "/secret"),
        get(2, world, "/openly"),
        get(3, world, "/open/../secret"),
        get(4, world, "/open/%2e%2e/secret"),
        call(5, "ask", method="POST", url=f"{world.url}/open/x", body="x"),
        call(6, "ask", method="GET", url=f"http://localhost:{world.port}/open/x"),
        call(7, "ask", method="GET", url=f"http://127.0.0.1:{world.port + 1}/open/x"),
        call(8, "ask", method="GET", url=f"{world.url}/open/x", headers={"authorization": "Bearer mine"}),
        call(9, "ask", method="GET", url=f"http://me@127.0.0.1:{world.port}/open/x"),
        call(10, "other", method="GET", url=f"{world.url}/open/x"),
        get(11, world, "/open/allowed"),
    ]
    entry = stand.started("outsider", puppet(*script))
    before = len(world.seen)
    stand.grant("outsider", "http.request", tool="ask", where=where(world), credential="world")
    over(stand, entry)
    assert [path for _, path, _ in world.seen[before:]] == ["/open/allowed"]
    reasons = denials(stand, entry)
    assert len(reasons) == 10, reasons
    assert reasons.count("arguments-not-covered") >= 5 and "no-such-grant" in reasons


def test_calls_run_out_and_grants_expire(stand: Stand, world: World) -> None:
    script = [WAIT, *(get(number, world, "/open/count") for number in (1, 2, 3))]
    entry = stand.started("counter", puppet(*script))
    stand.grant("counter", "http.request", tool="ask", where=where(world), calls=2, credential="world")
    over(stand, entry)
    assert asked(world, "/open/count") == 2
    assert denials(stand, entry) == ["calls-exhausted"]
    entry = stand.started("late", puppet(WAIT, WAIT, get(1, world, "/open/late")))
    expires = time.time_ns() // 1_000_000 + 700
    stand.grant("late", "http.request", tool="ask", where=where(world), expires_ms=expires, credential="world")
    while time.time_ns() // 1_000_000 <= expires:
        time.sleep(0.02)
    stand.grant("late", "scratch.write", where={"name": {"any": True}})  # its notification makes it call
    over(stand, entry)
    assert asked(world, "/open/late") == 0
    assert denials(stand, entry) == ["grant-expired"]


def test_a_quota_bounds_an_agent_over_all_its_grants_at_the_gateway(stand: Stand, world: World) -> None:
    script = [WAIT, WAIT, *(get(number, world, f"/open/{number}") for number in (1, 2)),
              call(3, "scratch.write", name="a", text="x")]  # fmt: skip
    done = stand.command("quota", "busy", "--rate", "2/1d", names=("ada", "bo"))
    assert done.returncode == 0, done.stderr
    assert "quota after    2 calls at once, then 2 in 1 days" in done.stderr, "the signers see what they set"
    again = stand.command("quota", "busy", "--rate", "2/1d", names=("ada", "bo"))
    assert again.returncode == 1 and "quota already" in again.stderr
    assert stand.command("quota", "--rate", "2/1d", names=("ada",)).returncode == 2, "whose?"
    told = stand.command("status", "--json")
    assert told.returncode == 0, told.stderr
    shown = json.loads(told.stdout)["quotas"]
    assert shown == {"busy": {"calls": 2, "window_ms": 86_400_000}}
    entry = stand.started("busy", puppet(*script))
    stand.grant("busy", "scratch.write", where={"name": {"any": True}, "text": {"any": True}})
    stand.grant("busy", "http.request", tool="ask", where=where(world), credential="world")
    over(stand, entry)
    assert denials(stand, entry) == ["quota-exceeded"]
    assert [asked(world, f"/open/{number}") for number in (1, 2)] == [1, 1]
    assert stand.command("quota", "busy", names=("ada", "bo")).returncode == 0
    assert json.loads(stand.command("status", "--json").stdout)["quotas"] == {}


def test_a_grant_is_for_one_agent_and_one_module_only(stand: Stand, world: World) -> None:
    module = puppet(WAIT, get(1, world, "/open/mine"))
    entry = stand.started("owner", module)
    stand.grant("owner", "http.request", tool="ask", where=where(world), calls=5, credential="world")
    over(stand, entry)
    assert asked(world, "/open/mine") == 1
    other = stand.started("owner", puppet(get(1, world, "/open/other-code")))
    over(stand, other)
    assert denials(stand, other) == ["grant-for-another-module"]
    thief = stand.started("thief", puppet(get(1, world, "/open/other-agent")))
    over(stand, thief)
    assert denials(stand, thief) == ["no-such-grant"]
    assert not asked(world, "/open/other-code") and not asked(world, "/open/other-agent")


def test_no_operator_verb_exists_on_the_agent_s_channel(stand: Stand) -> None:
    verbs = ["grant", "ironbound/grant", "grant-network-permission", "launch", "approve", "stop", "admitted",
             "tools/grant", "sampling/createMessage", "resources/subscribe", "logging/setLevel"]  # fmt: skip
    before = stand.snapshot()
    script = [request(number + 1, verb, {}) for number, verb in enumerate(verbs)]
    entry = stand.started("climber", puppet(*script))
    over(stand, entry)
    assert denials(stand, entry) == ["method-unknown"] * len(verbs)
    state, launches, *rest = stand.snapshot()
    assert rest[0] == before[2] and state["grant_state"] == before[0]["grant_state"]
    assert len(launches) == len(before[1]) + 1  # the climber's own


def test_scratch_files_stay_within_the_profile_and_the_area(stand: Stand) -> None:
    script = [
        WAIT,
        call(1, "scratch.write", name="../../escape", text="x"),
        call(2, "scratch.write", name="/etc/escape", text="x"),
        call(3, "scratch.write", name="note.txt", text="kept"),
    ]
    entry = stand.started("writer", puppet(*script))
    stand.grant("writer", "scratch.write", where={"name": {"any": True}, "text": {"any": True}})
    over(stand, entry)
    found = {str(path.relative_to(stand.root / "scratch")) for path in (stand.root / "scratch").rglob("*.txt")}
    assert any(name.endswith("note.txt") for name in found)
    escaped = (path.relative_to(stand.root) for path in stand.root.rglob("*escape*"))
    assert not [path for path in escaped if path.parts[0] != "images"]
    assert "name-invalid" in denials(stand, entry)


def test_the_credential_is_in_no_entry_no_answer_and_no_process(stand: Stand, world: World) -> None:
    # The service echoes the token in body and header, which the gateway must scrub.
    entry = stand.started("curious", puppet(WAIT, get(1, world, "/open/echo"), WAIT))
    stand.grant("curious", "http.request", tool="ask", where=where(world), credential="world")
    stand.await_entry("action-outcome", entry.index, status="performed")
    assert stand.up is not None
    for pid in descendants(stand.up.pid):
        for name in ("environ", "cmdline"):
            try:
                assert TOKEN.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    stand.revoke("curious", stand.log.with_state(lambda replay: replay.holds("curious"))[0])
    report = over(stand, entry).predicate["report"]
    assert "hello" in report, "the answer arrived"
    assert TOKEN not in report
    assert world.seen[-1] == ("GET", "/open/echo", True)
    stand.sync()
    assert not [one.index for one in stand.log.entries if TOKEN.encode() in one.data]


def test_a_revocation_that_comes_first_makes_the_intent_void_and_nothing_is_done(stand: Stand, world: World) -> None:
    """A revocation and a call race, many times; whatever the order, the log's order is what happened."""
    calls = [get(number, world, "/open/race") for number in range(1, 40)]
    entry = stand.started("racer", puppet(WAIT, *calls))
    grant = stand.grant("racer", "http.request", tool="ask", where=where(world), calls=1000, credential="world")
    stand.await_entry("action-intent", entry.index, agent="racer")
    revoked = stand.revoke("racer", grant)
    over(stand, entry)
    intents = stand.entries("action-intent", entry.index, agent="racer")
    before = [one for one in intents if one.index < revoked]
    after = [one for one in intents if one.index > revoked]
    assert all(one.void is None for one in before) and all(one.void == "grant-revoked" for one in after)
    for one in before:
        assert stand.await_entry("action-outcome", one.index, intent=one.index).predicate["status"] == "performed"
    for one in after:
        assert stand.await_entry("action-outcome", one.index, intent=one.index).predicate["status"] == "not-performed"
    assert asked(world, "/open/race") == len(before)
    assert len(before) + len(after) + len(denials(stand, entry)) == len(calls)
