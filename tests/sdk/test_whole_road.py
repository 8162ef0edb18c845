"""Agents and canaries in real workers, with the real agent channel at the other end of the pipe.

Only the gateway's authority is scripted: it has no log, and grants nothing or what the test says.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent_stand import CANARY, EXAMPLES, MODULES, NONCE, START
from agents import Bench, in_bench
from test_agents import expected_summary, make_records

import ironbound
from ironbound.core.canary import verdict
from ironbound.core.canonical import Value
from ironbound.core.constraint import Where
from ironbound.core.profile import Layer, merge
from ironbound.gateway.mcp import CallOutcome, ChannelLimits, Denied, Session
from ironbound.gateway.tools import ToolGrant
from ironbound.node.sandbox.launcher import Ended, Ready, Refused

ROWS: dict[str, Any] = {
    row["probe"]: row for row in json.loads((CANARY / "probes.json").read_bytes()) if row["family"] == "wasm"
}
STRICT = Path(ironbound.__file__).parent / "data" / "profiles" / "strict.toml"
SETTINGS = merge([Layer("strict.toml", STRICT.read_bytes())]).encoded
INPUT: dict[str, Value] = {
    "records_url": "http://127.0.0.1:8801/records",
    "report_url": "http://127.0.0.1:8801/reports",
    "rounds": 1,
}


class Scripted:
    """An authority with a fixed set of tools, and a world behind them. Keeps what it denied."""

    def __init__(self, granted: set[str], records: list[dict[str, Any]] | None = None) -> None:
        self.granted = granted
        self.records = records or []
        self.denied: list[tuple[str, str]] = []
        self.posts: list[Any] = []
        self.files: dict[str, str] = {}

    def tools(self, agent: str) -> Sequence[ToolGrant]:
        return [ToolGrant(name, "http.request", Where(()), 10, 2**50) for name in sorted(self.granted)]

    async def call(
        self, agent: str, tool: str, arguments: dict[str, Value], client: str | None
    ) -> CallOutcome | Denied:
        if tool not in self.granted:
            self.denied.append((tool, "no-such-grant"))
            return Denied("no-such-grant", f"no live grant named {tool[:64]!r}")
        if tool == "scratch.write":
            self.files[str(arguments["name"])] = str(arguments["text"])
            return CallOutcome("written", {"bytes": len(str(arguments["text"]).encode())})
        facts: dict[str, Value] = {"status": 200, "headers": {}}
        if tool == "report.post":
            self.posts.append(json.loads(str(arguments["body"])))
            return CallOutcome("{}", facts)
        page = int(str(arguments["url"]).removeprefix(f"{INPUT['records_url']}?page="))
        return CallOutcome(json.dumps(self.records[25 * page - 25 : 25 * page]), facts)

    async def deny(self, agent: str, what: str, reason: str, text: str) -> None:
        self.denied.append((what, reason))

    def status(self, agent: str) -> Value:
        return {}

    def metrics(self, agent: str) -> Value:
        return {}

    def input(self, agent: str) -> Value:
        return dict(INPUT)


async def serve(channel: socket.socket, authority: Scripted) -> Session:
    reader, writer = await asyncio.open_connection(sock=channel)
    return Session(reader, writer, "canary", authority, ChannelLimits(1_048_576, 200))


async def run(bench: Bench, module: bytes, authority: Scripted, start: bytes) -> Ended | Refused:
    launched = await bench.launch(module, SETTINGS, start.decode())
    if not isinstance(launched.answer, Ready):
        return launched.answer
    session = asyncio.create_task((await serve(launched.channel, authority)).run())
    await launched.worker.release()
    ended = await launched.ended()
    await session
    return ended


def judge(name: str, ended: Ended | Refused) -> tuple[str, str]:
    if isinstance(ended, Refused):
        return verdict(ROWS[name], NONCE, ended.stage, ended.text, "")
    return verdict(ROWS[name], NONCE, ended.reason, ended.text, ended.report)


@in_bench
async def test_every_canary_is_refused_in_a_real_worker_on_the_strict_profile(bench: Bench) -> None:
    for name, row in ROWS.items():
        authority = Scripted(set())
        ended = await run(bench, (MODULES / row["module"]).read_bytes(), authority, START)
        assert judge(name, ended)[0] == "REFUSED", (name, ended)
        if row["stage"] == "channel" and name != "malformed-messages":
            assert len(authority.denied) >= row["attempts"] - 2, name


@in_bench
async def test_a_grant_that_a_canary_should_not_have_turns_its_result_red(bench: Bench) -> None:
    for name, tool in (("borrowed-identity", "records.fetch"), ("path-traversal", "scratch.write")):
        authority = Scripted({tool})
        ended = await run(bench, (MODULES / ROWS[name]["module"]).read_bytes(), authority, START)
        assert judge(name, ended)[0] == "ESCAPED", (name, ended)


@in_bench
async def test_triage_does_its_work_over_the_real_channel(bench: Bench) -> None:
    records = make_records(300)
    authority = Scripted({"records.fetch", "scratch.write", "report.post"}, records)
    ended = await run(bench, (EXAMPLES / "triage.wasm").read_bytes(), authority, b"")
    assert isinstance(ended, Ended) and ended.reason == "finished"
    expected = expected_summary(records)
    assert {key: authority.posts[0][key] for key in expected} == expected
    assert authority.files["report.md"].startswith("# Triage report")
    assert authority.denied == []
