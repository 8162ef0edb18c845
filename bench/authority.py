"""What authority costs: decisions, approvals, the way from a revocation to the first refusal, and a service's start.

A decision is `Authority.check("invoke", …)` that lets the call through. The check of an approval is what everybody does
with an admitted `call-approval`: two humans' signatures, the log head, the kernel's rule; its floor is two bare Ed25519
verifications. Floor and measurement take turns in one run.

A revocation's way is taken in a real deployment, with an agent that calls without a pause: from the time at which the
controller signed the entry, which is before it was witnessed, to the time at which the gateway signed its first refusal
of a call under that grant, or its first intent that is void for it. Both are of whole milliseconds. The agent's own
round, a durable append a call, is in it; beside it, as floor, that append.

A start is what a service does before it can serve, without the ledger's answer: with the snapshot, read and check it,
and fold what came after; the floor is the fold of every entry.

`aim` is what the issue asks for, by p50, of a revocation by p99; `met` says whether it is so here.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.kernel import CALL, _blocks, _decisions, _kernel, _row
from ironbound.core.authority import MAX_DELEGATION, Authority
from ironbound.core.canonical import sha256_hex
from ironbound.core.envelope import verify_envelope
from ironbound.core.replay import Replay
from ironbound.core.request import NO_LIMITS
from ironbound.core.snapshot import read_head
from verifier.lab import DAY, honest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "system"))

from puppet import call, puppet
from stand import Stand, folder, until

#: What each measurement should be at most, in its unit.
DECISION_US, APPROVAL_US, REVOCATION_MS = 20.0, 3_000.0, 100.0
#: Revocations in one agent's life, and the calls that it makes in it.
EACH, CALLS = 8, 480
SIZES = (1_000, 10_000, 100_000)


def _handed_on(kernel: Authority, grant: str, depth: int) -> dict[str, Any]:
    """A call under a grant that was handed on that often, among the agents of the kernel."""
    for step in range(depth):
        to = f"agent{step + 1}"
        kernel.apply("delegate", {
            "index": 0, "now": CALL["now"], "launch": step, "agent": f"agent{step}", "grant": grant, "child": step + 1,
            "id": f"{grant}+", "to": to, "module": "m", "config": "c", "tool": "part",
            "where": kernel.read("grant_where", grant), "calls": 100, "grant_expires": CALL["now"] + 10**9,
            "budget": 100, "delegable": MAX_DELEGATION - step - 1,
        })  # fmt: skip
        grant = f"{grant}+"
    tool = kernel.read("grant_tool", grant)
    return CALL | {"launch": depth, "agent": f"agent{depth}", "grant": grant, "tool": tool, "action": "http.request"}


def _depths(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for depth in (1, MAX_DELEGATION):
        kernel, _ = _kernel(1_000, delegable=MAX_DELEGATION)
        whole, part = _handed_on(kernel, "grant0", 0), _handed_on(kernel, "grant0", depth)

        def decide(call: dict[str, Any], kernel: Authority = kernel) -> None:
            if kernel.check("invoke", call) is not None:
                raise RuntimeError("a call that its grant covers was refused")

        took: list[float] = []
        base: list[float] = []
        for _ in range(10):
            took += _blocks(decide, [part], rounds // 10)
            base += _blocks(decide, [whole], rounds // 10)
        rows.append(_row(f"decide a call, handed on {depth} times (floor: the whole)", "µs", took, base))
    return rows


def _approval(rounds: int) -> dict[str, Any]:
    scene = honest()
    lab = scene.lab
    body = {
        "tool": "paid", "action": "scratch.write", "where": {"path": {"equals": "out/a"}}, "calls": 9,
        "expires_ms": lab.now + DAY, "credential": None, **NO_LIMITS, "approvals": 2,
    }  # fmt: skip
    about = {"agent": "clerk", "module_sha256": scene.module, "config_sha256": scene.cage}
    granted = lab.ask("grant", **about, body=body)
    if granted.consent is None:
        raise RuntimeError("an honest grant is void")
    grant = granted.consent.statement.predicate["id"]
    asked = lab.request("call-approval", **about, body={"grant": grant, "tool": "paid", "args": {"path": "out/a"}})
    approvals = [lab.approval(asked, "bob")]
    keys = {one.public.keyid: one.public for one in lab.humans.values()}
    took: list[float] = []
    floor: list[float] = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for one in (asked, *approvals):
            verify_envelope(one, keys)
        floor.append((time.perf_counter() - begin) * 1e6)
        begin = time.perf_counter()
        lab.replay.consider(asked, approvals, lab.now)
        took.append((time.perf_counter() - begin) * 1e6)
    return _row("check the approval of a call by two humans", "µs", took, floor)


def _aimed(row: dict[str, Any], aim: float, column: str = "p50") -> dict[str, Any]:
    return row | {"aim": aim, "met": "yes" if row[column] <= aim else "no"}


def _revocations(rounds: int) -> dict[str, Any]:
    took: list[float] = []
    appends: list[float] = []
    script = [call(number, "t", name="a", text="x") for number in range(1, CALLS + 1)]
    with tempfile.TemporaryDirectory(prefix="ironbound-bench-") as name:
        stand = Stand(folder(Path(name), "d"))
        try:
            stand.start()
            stand.config = stand.approve_profile()
            module = stand.approve_module(puppet(*script))
            for number in range(rounds // EACH):
                agent = f"caller-{number}"
                stand.started(agent, module)
                for _ in range(EACH):
                    took.append(_revoked(stand, agent, appends))
                stand.stop_agent(agent)
        finally:
            stand.stop()
    return _aimed(_row("revocation to the gateway's refusal (floor: an append)", "ms", took, appends),
                  REVOCATION_MS, "p99")  # fmt: skip


def _revoked(stand: Stand, agent: str, appends: list[float]) -> float:
    """Grant, wait until the agent's calls go through, revoke: milliseconds to the first refusal."""
    where = {"name": {"equals": "a"}, "text": {"any": True}}
    grant = stand.grant(agent, "scratch.write", tool="t", where=where, calls=1000)
    begin = stand.sync()
    stand.await_entry("action-outcome", begin - 1, status="performed")
    index = stand.revoke(agent, grant)

    def refused() -> Any:
        for entry in stand.log.entries[index + 1 :]:
            said = entry.predicate
            if said.get("agent") == agent and (entry.kind == "action-denied" or entry.void == "grant-revoked"):
                return entry
        return None

    first = until("the gateway refuses", refused)
    calls = [one for one in stand.log.entries[begin:index] if one.kind in ("action-intent", "action-outcome")]
    appends += [
        float(later.predicate["at_ms"] - one.predicate["at_ms"])
        for one in calls
        for later in calls
        if later.kind == "action-outcome" and later.predicate["intent"] == one.index
    ]
    return float(first.predicate["at_ms"] - stand.log.entries[index].predicate["at_ms"])


def _starts(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    scene = honest()
    lab = scene.lab
    body = {
        "tool": "much", "action": "scratch.write", "where": {"path": {"equals": "out/a"}}, "calls": max(sizes),
        "expires_ms": lab.now + DAY, "credential": None, **NO_LIMITS,
    }  # fmt: skip
    about = {"agent": "clerk", "module_sha256": scene.module, "config_sha256": scene.cage}
    grant = lab.ask("grant", **about, body=body)
    if grant.consent is None:
        raise RuntimeError("an honest grant is void")
    grant_id = grant.consent.statement.predicate["id"]
    rows = []
    for size in sizes:
        while lab.replay.size < size:
            args = {"path": "out/a"}
            lab.outcome(lab.expect(lab.intent("clerk", scene.launch, grant_id, tool="much", args=args)))
        mark = lab.replay.mark
        entries = lab.entries
        begin = time.perf_counter()
        whole = Replay()
        for data in entries:
            whole.apply(data)
        floor = (time.perf_counter() - begin) * 1e3
        kept = lab.replay.snapshot() if mark is None else mark.data
        took = []
        for _ in range(3):
            begin = time.perf_counter()
            digest = sha256_hex(kept)
            if read_head(kept).digest != digest:
                raise RuntimeError("not the snapshot")
            replay = Replay.resumed(kept)
            for data in entries[replay.size :]:
                replay.apply(data)
            took.append((time.perf_counter() - begin) * 1e3)
            if replay.snapshot() != whole.snapshot():
                raise RuntimeError("the two starts differ")
        row = _row(f"start with {size:,} entries, from a snapshot (floor: all of them)", "ms", took, [floor])
        rows.append(row | {"snapshot bytes": len(kept)})
    return rows


def run(quick: bool) -> list[dict[str, Any]]:
    """Rows for the decision at each number of live grants and at each depth, for an approval, for revocations,
    and for a start at each length of the log."""
    rounds = 200 if quick else 2000
    rows = [_aimed(row, DECISION_US) for row in _decisions(rounds)]
    rows += [_aimed(row, DECISION_US) for row in _depths(rounds)]
    rows.append(_aimed(_approval(rounds), APPROVAL_US))
    rows.append(_revocations(2 * EACH if quick else 8 * EACH))
    return rows + _starts(SIZES[:2] if quick else SIZES)
