"""Runs in an environment of its own, with agent-governance-toolkit-core and nothing of ours: times it and tries it.

    python -W ignore ask.py ENTRIES APPENDS ROUNDS FOLDER

Prints one JSON object. It is set as its documents show: policies evaluated in the agent's process with *deny* as what
is done otherwise, an audit log with the file sink that signs and chains its lines. What a check says is what came out.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent_os.lite import govern
from agent_os.policies import PolicyDocument, PolicyEvaluator
from agentmesh.governance.audit import AuditLog
from agentmesh.governance.audit_backends import FileAuditSink, HashChainVerifier

TOOLS = (10, 1_000)
BLOCK = 50
TEXT = "x" * 600
KEY = b"a key for these tests and nothing else"


def document(allowed: list[str]) -> Any:
    rules = [
        {"name": f"allow-{tool}", "condition": {"field": "tool_name", "operator": "eq", "value": tool},
         "action": "allow", "priority": 1}
        for tool in allowed
    ]  # fmt: skip
    return PolicyDocument.model_validate(
        {"version": "1.0", "name": "bench", "rules": rules, "defaults": {"action": "deny"}}
    )


def blocks(decide: Callable[[str], bool], tools: list[str], rounds: int) -> list[float]:
    """Microseconds of a decision, by blocks of them, over tools drawn evenly."""
    took = []
    for _ in range(rounds):
        block = random.choices(tools, k=BLOCK)
        begin = time.perf_counter()
        for tool in block:
            if not decide(tool):
                raise RuntimeError(f"{tool} is allowed")
        took.append((time.perf_counter() - begin) / BLOCK * 1e6)
    return took


def decisions(rounds: int) -> dict[str, Any]:
    said = {}
    for count in TOOLS:
        tools = [f"tool{number}" for number in range(count)]
        evaluator = PolicyEvaluator(policies=[document(tools)])
        lite = govern(allow=tools)
        if evaluator.evaluate({"tool_name": "other"}).allowed or lite.is_allowed("other"):
            raise RuntimeError("what no rule allows is denied")
        said[str(count)] = {
            "policy": blocks(lambda tool, one=evaluator: one.evaluate({"tool_name": tool, "agent_id": "a"}).allowed,  # type: ignore[misc]
                             tools, rounds if count <= 100 else max(2, rounds // 10)),
            "lite": blocks(lite.is_allowed, tools, rounds),
        }  # fmt: skip
    return said


def record(log: Any, number: int) -> None:
    log.log("tool_call", "did:mesh:agent", f"call {number}", data={"text": TEXT}, approver_did="did:human:approver")


def appends(log: Any, count: int) -> dict[str, Any]:
    synced = {"calls": 0}
    real = {name: getattr(os, name) for name in ("fsync", "fdatasync")}

    def counting(name: str) -> Callable[[Any], None]:
        def call(descriptor: Any) -> None:
            synced["calls"] += 1
            real[name](descriptor)

        return call

    took = []
    try:
        for name in real:
            setattr(os, name, counting(name))
        for number in range(count):
            begin = time.perf_counter()
            record(log, number)
            took.append((time.perf_counter() - begin) * 1e3)
    finally:
        for name, function in real.items():
            setattr(os, name, function)
    return {"ms": took, "synced": synced["calls"]}


def exported(count: int) -> dict[str, int]:
    log = AuditLog()
    for number in range(count):
        record(log, number)
    made = log.export()
    return {"logged": count, "exported": len(made["entries"]), "events": len(log.export_cloudevents())}


def holds(path: Path) -> bool:
    """What its own verifier says of a file, with the key."""
    return bool(HashChainVerifier().verify_file(path, KEY)[0])


def changed(folder: Path) -> dict[str, bool]:
    """True: its verifier takes the file."""
    right = folder / "right.jsonl"
    log = AuditLog(sink=FileAuditSink(right, KEY))
    for number in range(100):
        record(log, number)
    lines = right.read_text().splitlines(keepends=True)
    said = {"untouched": holds(right), "approver kept": "did:human:approver" in right.read_text()}
    for name, kept in {
        "one removed": lines[:50] + lines[51:],
        "one changed": [*lines[:50], lines[50].replace("call 50", "call 51"), *lines[51:]],
        "last removed": lines[:90],
    }.items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(kept))
        said[name] = holds(file)
    # What the process that writes the log can do, since it holds the key: another history.
    forged = folder / "forged.jsonl"
    log = AuditLog(sink=FileAuditSink(forged, KEY))
    for number in range(100):
        record(log, number + 1000)
    said["another history"] = holds(forged)
    return said


def grants_itself() -> dict[str, Any]:
    """An agent that was handed one function and nothing else, in the process in which its calls are decided."""
    audit = AuditLog()
    evaluator = PolicyEvaluator(policies=[document(["read"])])

    def governed(tool: str) -> bool:
        decision = evaluator.evaluate({"tool_name": tool, "agent_id": "agent"})
        audit.log("policy", "did:mesh:agent", tool, policy_decision=decision.action)
        return bool(decision.allowed)

    def agent(call: Callable[[str], bool]) -> bool:
        for found in gc.get_objects():
            if isinstance(found, PolicyEvaluator):
                found.policies.insert(0, document(["delete"]))
        return call("delete")

    before = governed("delete")
    after = agent(governed)
    entries = [one["action"] for one in audit.export()["entries"]]
    return {"before": before, "after": after, "entries": entries}


def main() -> None:
    entries, count, rounds = map(int, sys.argv[1:4])
    folder = Path(sys.argv[4])
    said = {
        "version": importlib.metadata.version("agent-governance-toolkit-core"),
        "decisions": decisions(rounds),
        "memory": appends(AuditLog(), count),
        "file": appends(AuditLog(sink=FileAuditSink(folder / "timed.jsonl", KEY)), count),
        "export": exported(entries),
        "changed": changed(folder),
        "grants": grants_itself(),
    }
    print(json.dumps(said))


main()
