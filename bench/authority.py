"""What authority costs: a decision among many grants, at each depth of handing on, and the check of an approval.

A decision is `Authority.check("invoke", …)` that lets the call through. The check of an approval is what everybody does
with an admitted `call-approval`: two humans' signatures, the log head, the kernel's rule; its floor is two bare Ed25519
verifications. Floor and measurement take turns in one run.
"""

from __future__ import annotations

import time
from typing import Any

from bench.kernel import CALL, _blocks, _decisions, _kernel, _row
from ironbound.core.authority import MAX_DELEGATION, Authority
from ironbound.core.envelope import verify_envelope
from ironbound.core.request import NO_LIMITS
from verifier.lab import DAY, honest


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


def run(quick: bool) -> list[dict[str, Any]]:
    """Rows for the decision at each number of live grants and at each depth, and for an approval."""
    rounds = 200 if quick else 2000
    return [*_decisions(rounds), *_depths(rounds), _approval(rounds)]
