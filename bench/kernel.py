"""The kernel's decision, and the fold of one entry, against their floors in the same run.

A decision is `Authority.check("invoke", …)` that lets the call through, so that every condition of the guard is
read, at 10, 1,000 and 100,000 live grants of a hundred agents; its floor is one look into a dictionary of as many
grants and the match of the arguments against the constraints, without which no kernel can decide. The fold is
`Replay.apply` of a whole action (intent, outcome), per entry; its floor is SHA-256 and one Ed25519 verification.
Latencies are taken in blocks of calls (a clock read costs as much as a tenth of a decision): p99 is that of blocks.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from bench.floor import HashAndVerify, percentile
from ironbound.core.authority import Authority
from ironbound.core.constraint import covers_rendered, parse_where
from ironbound.core.statement import QUORUMS
from verifier.lab import honest

GRANTS = (10, 1_000, 100_000)
AGENTS = 100
BLOCK = 50
NOW = 1_800_000_000_000
WHERE = {
    "path": {"prefix": {"value": "/api", "separator": "/"}},
    "method": {"one_of": ["GET", "POST"]},
    "body": {"any": True},
}
ARGS = {"path": "/api/v1/records/17", "method": "GET", "body": {"sha256": "0" * 64}}
CALL = {"now": NOW, "args": ARGS, "args_digest": "d", "approval": "", "client": "", "client_args": {}}
LIMITS = {"every": 1, "slack": 1000, "budget": 1000, "cost": 1, "approvals": 0, "delegable": 1}


def _kernel(grants: int, delegable: int = 0) -> tuple[Authority, list[dict[str, Any]]]:
    """A kernel into which that many grants were given by its own rules, and a call under each of some of them."""
    kernel = Authority(dict.fromkeys(QUORUMS, 1))
    asked = {"now": NOW, "consents": 2, "not_before": NOW, "expires": NOW + 1000, "head_known": True, "head": 1 << 40}
    kernel.apply("approve-module", asked | {"id": "m", "module": "m", "canary": False})
    kernel.apply("approve-profile", asked | {"id": "p", "config": "c"})
    about = asked | {"module": "m", "config": "c"}
    agents = min(AGENTS, grants) if grants < AGENTS * 256 else -(-grants // 256)
    for agent in range(agents):
        name = f"agent{agent}"
        kernel.apply("launch", about | {"id": f"l{agent}", "agent": name, "index": agent})
        kernel.apply("start", about | {"launch": agent, "agent": name, "release": ""})
    where = parse_where(WHERE)
    calls = []
    for number in range(grants):
        agent = number % agents
        made = {"agent": f"agent{agent}", "tool": f"tool{number}", "action": "http.request", "index": number}
        given = {"id": f"grant{number}", "where": where, "calls": 1000, "grant_expires": NOW + 10**9}
        given |= LIMITS | {"delegable": delegable}
        kernel.apply("grant", about | made | given)
        if number % max(1, grants // 1000) == 0:
            calls.append(made | CALL | {"launch": agent, "grant": f"grant{number}"})
    return kernel, calls


def _blocks(work: Callable[[dict[str, Any]], None], calls: list[dict[str, Any]], rounds: int) -> list[float]:
    took = []
    for at in range(rounds):
        block = [calls[(at * BLOCK + step) % len(calls)] for step in range(BLOCK)]
        begin = time.perf_counter()
        for one in block:
            work(one)
        took.append((time.perf_counter() - begin) / BLOCK * 1e6)
    return took


def _decisions(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for grants in GRANTS:
        kernel, calls = _kernel(grants)
        table = {f"grant{number}": parse_where(WHERE) for number in range(grants)}

        def decide(call: dict[str, Any], kernel: Authority = kernel) -> None:
            if kernel.check("invoke", call) is not None:
                raise RuntimeError("a call that its grant covers was refused")

        def floor(call: dict[str, Any], table: dict[str, Any] = table) -> None:
            if covers_rendered(table[call["grant"]], call["args"]) is not None:
                raise RuntimeError("the arguments should be covered")

        took: list[float] = []
        base: list[float] = []
        for _ in range(10):  # in turns, so that a noisy machine disturbs both alike
            took += _blocks(decide, calls, rounds // 10)
            base += _blocks(floor, calls, rounds // 10)
        rows.append(_row(f"decide a call, {grants:,} live grants", "µs", took, base))
    return rows


def _row(name: str, unit: str, took: list[float], base: list[float]) -> dict[str, Any]:
    p50, floor = percentile(took, 0.5), percentile(base, 0.5)
    return {
        "name": name,
        "unit": unit,
        "p50": round(p50, 2),
        "p99": round(percentile(took, 0.99), 2),
        "floor": round(floor, 2),
        "ratio": round(p50 / floor, 2),
    }


def _fold(rounds: int) -> dict[str, Any]:
    scene = honest()
    lab = scene.lab
    before, first = copy.deepcopy(lab.replay), len(lab.entries)
    for _ in range(45):  # a grant of the lab is for a hundred calls
        intent = lab.expect(lab.intent("clerk", scene.launch, scene.grant))
        lab.expect(lab.outcome(intent))
    entries = lab.entries[first:]
    base_work = HashAndVerify(entries, [one.public for one in lab.services.values()])
    took: list[float] = []
    floor: list[float] = []
    for _ in range(rounds):
        floor.append(base_work.microseconds())
        replay = copy.deepcopy(before)
        begin = time.perf_counter()
        for entry in entries:
            if replay.apply(entry).void is not None:
                raise RuntimeError("an honest entry is void")
        took.append((time.perf_counter() - begin) / len(entries) * 1e6)
    return _row("fold an entry of an action (intent, outcome)", "µs", took, floor)


def run(quick: bool) -> list[dict[str, Any]]:
    """Rows for the decision at each number of live grants, and for the fold of an entry."""
    return [*_decisions(200 if quick else 2000), _fold(10 if quick else 50)]
