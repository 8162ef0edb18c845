"""The agent channel: a closed table on a real socket pair, and limits on everything."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp_types import methods
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from ironbound.core.canonical import Value
from ironbound.core.constraint import parse_where
from ironbound.gateway import mcp
from ironbound.gateway.mcp import AuthorityUnavailable, CallOutcome, ChannelLimits, Denied, Session, SessionEnd
from ironbound.gateway.tools import ACTIONS, ToolGrant, describe, input_schema

REQUESTS = {name for name, one in mcp.METHODS.items() if one.is_request}
NOTIFICATIONS = mcp.METHODS.keys() - REQUESTS
LIMITS = ChannelLimits(max_message=65_536, max_messages_per_second=10_000, line_timeout_s=5, write_timeout_s=5)

OPERATOR_VERBS = [
    "grant", "grants", "grant/create", "grant-network-permission", "permissions/grant", "revoke", "approve",
    "approve/module", "approve/profile", "module-approval", "profile-approval", "launch", "launch-request", "run",
    "spawn", "start", "stop", "load", "module/load", "reconfigure", "config/set", "config/update", "policy/push",
    "profile/set", "trust-root", "admit", "admitted", "append", "started", "operator", "approval", "revocation",
    "init", "up", "canary/run", "evidence/export", "sandbox/disable", "sudo", "elevate", "delegate", "tools/register",
    "tools/add", "rpc.discover", "admin", "exec", "shell", "debug", "reload", "shutdown",
]  # fmt: skip
"""What an agent that wants more would try: every operator verb, and what other products were asked for."""


def grant(tool: str = "echo", **changes: Any) -> ToolGrant:
    where = parse_where({"name": {"one_of": ["a", "b"]}, "text": {"any": True}})
    return ToolGrant(**{
        "tool": tool, "action": "scratch.write", "where": where, "calls_left": 3, "expires_ms": 10**12, **changes,
    })  # fmt: skip


@dataclass
class Stand:
    """An authority that answers like the service: one tool that echoes, everything else denied."""

    grants: list[ToolGrant] = field(default_factory=lambda: [grant()])
    denials: list[tuple[str, str, str]] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Value]]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    running: int = 0
    most: int = 0
    ended: int = 0
    log_lost: bool = False
    fails: bool = False

    def tools(self, agent: str) -> Sequence[ToolGrant]:
        return self.grants

    async def call(
        self, agent: str, tool: str, arguments: dict[str, Value], client: str | None
    ) -> CallOutcome | Denied:
        if self.log_lost:
            raise AuthorityUnavailable("the log can't be reached; nothing was done")
        if self.fails:
            raise ZeroDivisionError
        self.calls.append((tool, arguments))
        if tool not in [one.tool for one in self.grants]:
            await self.deny(agent, tool, "no-such-grant", "no live grant has this name")
            return Denied("no-such-grant", "no live grant has this name")
        self.running += 1
        self.most = max(self.most, self.running)
        if self.gate is not None:
            await self.gate.wait()
        self.running -= 1
        self.ended += 1
        if arguments.get("size"):
            return CallOutcome("x" * int(str(arguments["size"])))
        return CallOutcome("done", {"arguments": arguments, "nothing": None})

    async def deny(self, agent: str, what: str, reason: str, text: str) -> None:
        if self.log_lost:
            raise AuthorityUnavailable("the log can't be reached")
        self.denials.append((what, reason, text))

    def status(self, agent: str) -> Value:
        return {"agent": agent}

    def metrics(self, agent: str) -> Value:
        return {"calls": len(self.calls)}

    def input(self, agent: str) -> Value:
        return {"records": [1, None, 0.5]}

    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.denials]


class Agent:
    """The agent's end of the pipe."""

    def __init__(self, stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], session: Session) -> None:
        self.reader, self.writer = stream
        self.session = session
        self.task: asyncio.Task[SessionEnd]

    async def send(self, message: object) -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.writer.write(data + b"\n")
        await self.writer.drain()

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            line = await self.reader.readline()
        assert line.endswith(b"\n"), "the channel is closed"
        return json.loads(line)

    async def ask(self, method: str, params: object = None, request_id: object = 1) -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "id": request_id, "method": method}
        await self.send(message if params is None else {**message, "params": params})
        return await self.receive()

    async def begin(self, version: str = "2025-11-25") -> dict[str, Any]:
        answer = await self.ask("initialize", hello(version), "hello")
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    async def end(self) -> SessionEnd:
        self.writer.close()
        return await self.over()

    async def over(self) -> SessionEnd:
        async with asyncio.timeout(10):
            return await self.task


def hello(version: str = "2025-11-25") -> dict[str, Any]:
    return {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "agent", "version": "1"}}


@asynccontextmanager
async def channel(stand: Stand, limits: ChannelLimits = LIMITS) -> AsyncIterator[Agent]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    session = Session(reader, writer, "clerk", stand, limits)
    agent = Agent(await asyncio.open_connection(sock=theirs, limit=1 << 24), session)
    agent.task = asyncio.create_task(session.run())
    try:
        yield agent
    finally:
        if stand.gate is not None:
            stand.gate.set()
        agent.writer.transport.abort()
        await agent.over()


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scene()

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


Script = Callable[[Agent], Awaitable[None]]


def test_a_session_lists_its_tools_calls_one_and_reads_its_resources() -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            assert (await agent.begin())["result"]["protocolVersion"] == "2025-11-25"
            (tool,) = (await agent.ask("tools/list"))["result"]["tools"]
            assert tool["name"] == "echo"
            assert tool["inputSchema"]["properties"]["name"] == {"type": "string", "enum": ["a", "b"]}
            answer = await agent.ask("tools/call", {"name": "echo", "arguments": {"name": "a", "x": {"y": None}}})
            result = answer["result"]
            assert result["content"] == [{"type": "text", "text": "done"}]
            assert result["structuredContent"]["arguments"] == {"name": "a", "x": {"y": None}}
            assert stand.calls == [("echo", {"name": "a", "x": {"y": None}})]
            uris = [one["uri"] for one in (await agent.ask("resources/list"))["result"]["resources"]]
            assert uris == list(mcp.RESOURCES)
            (contents,) = (await agent.ask("resources/read", {"uri": "ironbound://agent/input"}))["result"]["contents"]
            assert json.loads(contents["text"]) == {"records": [1, None, 0.5]}
            assert (await agent.ask("ping"))["result"] == {}
            assert (await agent.end()).reason == "eof"
        assert stand.denials == []

    play(scene)


@pytest.mark.parametrize("version", [*HANDSHAKE_PROTOCOL_VERSIONS, "2026-07-28", "1999-01-01", "zzz"])
def test_the_version_is_negotiated_as_the_protocol_says(version: str) -> None:
    async def scene() -> None:
        async with channel(Stand()) as agent:
            got = (await agent.begin(version))["result"]["protocolVersion"]
            assert got == (version if version in HANDSHAKE_PROTOCOL_VERSIONS else "2025-11-25")
            assert len((await agent.ask("tools/list"))["result"]["tools"]) == 1

    play(scene)


def test_no_operator_verb_is_a_method_and_each_try_is_logged() -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            for number, verb in enumerate(OPERATOR_VERBS):
                answer = await agent.ask(verb, {}, number)
                assert answer["id"] == number
                assert answer["error"] == {"code": -32601, "message": f"{verb} is not a method of the agent channel"}
                assert stand.denials[-1] == (verb, "method-unknown", answer["error"]["message"])
            assert len(stand.denials) == len(OPERATOR_VERBS)
            assert stand.calls == []
            assert "result" in await agent.ask("ping")  # control: the channel still works

    play(scene)


def test_every_operator_verb_as_a_tool_is_denied_by_the_authority() -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            for number, verb in enumerate(OPERATOR_VERBS):
                result = (await agent.ask("tools/call", {"name": verb}, number))["result"]
                assert result["isError"] is True
                assert result["structuredContent"] == {"refused": "no-such-grant"}
            assert stand.reasons() == ["no-such-grant"] * len(OPERATOR_VERBS)
            assert stand.ended == 0
            assert not (await agent.ask("tools/call", {"name": "echo"}))["result"]["isError"]  # control

    play(scene)


def test_every_method_of_every_revision_but_ours_is_refused_and_logged() -> None:
    known = {method for method, _ in [*methods.CLIENT_REQUESTS, *methods.CLIENT_NOTIFICATIONS]}
    known |= {method for method, _ in [*methods.SERVER_REQUESTS, *methods.SERVER_NOTIFICATIONS]}
    others = sorted(known - REQUESTS)
    assert {"server/discover", "sampling/createMessage", "logging/setLevel", "resources/subscribe"} <= set(others)

    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            for method in others:
                assert (await agent.ask(method, {}))["error"]["code"] == -32601
            assert [what for what, _, _ in stand.denials] == others
            for method in sorted(known - NOTIFICATIONS):
                await agent.send({"jsonrpc": "2.0", "method": method})
            assert (await agent.ask("ping"))["result"] == {}
            assert len(stand.denials) == len(others) + len(known) - len(NOTIFICATIONS)

    play(scene)


def test_the_table_of_methods_is_exactly_this() -> None:
    assert mcp.METHODS.keys() == {
        "initialize", "ping", "tools/list", "tools/call", "resources/list", "resources/read",
        "notifications/initialized", "notifications/cancelled",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", -32700),
        (b"garbage", -32700),
        (b"\xff\xfe", -32700),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', -32700),
        (b"[" * 60_000, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 40 + b"1" + b"}" * 41, -32700),
        (b"[]", -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b"null", -32600),
        (b'"ping"', -32600),
        (b"{}", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":99999999999999999999,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":"' + b"x" * 200 + b'","method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","as":"operator"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":5}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":[]}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}', -32600),
        (b'{"jsonrpc":"2.0","method":"notifications/initialized"}', -32600),
        (b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[]}}', -32602),
    ],
)
def test_a_malformed_line_is_answered_logged_and_survived(line: bytes, code: int) -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            await agent.send(line)
            assert (await agent.receive())["error"]["code"] == code
            assert stand.reasons() == ["message-malformed"]
            assert (await agent.ask("ping", None, 7)) == {"jsonrpc": "2.0", "id": 7, "result": {}}
            assert stand.calls == []

    play(scene)


def test_too_many_malformed_lines_close_the_channel_with_a_logged_denial() -> None:
    async def scene() -> None:
        stand = Stand()
        limits = ChannelLimits(max_message=1000, max_messages_per_second=10_000, max_malformed=5)
        async with channel(stand, limits) as agent:
            await agent.begin()
            for number in range(5):
                assert (await agent.ask("ping", None, number))["id"] == number  # control: good ones don't count
            for _ in range(5):
                await agent.send(b"{")
                assert (await agent.receive())["error"]["code"] == -32700
            end = await agent.over()
            assert end.reason == "too-many-malformed"
            assert stand.reasons() == ["message-malformed"] * 5 + ["too-many-malformed"]
            assert await agent.reader.read() == b""

    play(scene)


def test_a_hundred_megabytes_without_a_line_end_are_not_kept() -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            sent = 0
            try:
                while sent < 100_000_000:
                    agent.writer.write(b"x" * 1_000_000)
                    sent += 1_000_000
                    await agent.writer.drain()
            except ConnectionError:
                pass
            end = await agent.over()
            assert end.reason == "message-too-large"
            assert stand.reasons() == ["message-too-large"]
            assert len(agent.session._buffer) <= LIMITS.max_message + 65_536
            assert sent < 100_000_000

    play(scene)


def test_a_line_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    async def scene() -> None:
        start, close = b'{"jsonrpc":"2.0","id":1,"method":"ping"', b"}"
        for extra, accepted in ((0, True), (1, False)):
            stand = Stand()
            async with channel(stand) as agent:
                await agent.begin()
                padding = b" " * (LIMITS.max_message - len(start) - len(close) + extra)
                await agent.send(start + padding + close)
                assert ("result" in await agent.receive()) is accepted
                assert (await agent.end()).reason == ("eof" if accepted else "message-too-large")
                assert stand.reasons() == ([] if accepted else ["message-too-large"])

    play(scene)


def test_nothing_but_ping_works_before_the_session_is_initialized() -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            assert (await agent.ask("ping"))["result"] == {}
            assert (await agent.ask("tools/call", {"name": "echo"}))["error"]["code"] == -32600
            await agent.ask("initialize", hello())
            assert (await agent.ask("tools/list"))["error"]["code"] == -32600
            assert stand.calls == []
            await agent.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
            assert "result" in await agent.ask("tools/call", {"name": "echo"})

    play(scene)


def test_a_flood_waits_at_the_rate_and_nothing_of_it_is_lost() -> None:
    async def scene() -> None:
        stand = Stand()
        limits = ChannelLimits(max_message=65_536, max_messages_per_second=50)
        async with channel(stand, limits) as agent:
            await agent.begin()
            started = time.monotonic()
            for number in range(100):
                await agent.send({"jsonrpc": "2.0", "id": number, "method": "ping"})
            answers = [await agent.receive() for _ in range(100)]
            # 102 lines, 50 of them at once, the others at 50 a second.
            assert time.monotonic() - started >= 0.9
            assert sorted(answer["id"] for answer in answers) == list(range(100))
            assert stand.denials == []

    play(scene)


def test_calls_in_flight_are_bounded_and_the_rest_waits() -> None:
    async def scene() -> None:
        stand = Stand(gate=asyncio.Event())
        limits = ChannelLimits(max_message=65_536, max_messages_per_second=10_000, max_in_flight=3)
        async with channel(stand, limits) as agent:
            await agent.begin()
            for number in range(9):
                await agent.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "echo"}})
            await until(lambda: stand.running == 3)
            assert stand.gate is not None
            stand.gate.set()
            answers = [await agent.receive() for _ in range(9)]
            assert sorted(answer["id"] for answer in answers) == list(range(9))
            assert stand.most == 3

    play(scene)


def test_an_open_request_s_id_cannot_be_used_again() -> None:
    async def scene() -> None:
        stand = Stand(gate=asyncio.Event())
        async with channel(stand) as agent:
            await agent.begin()
            call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}
            await agent.send(call)
            await until(lambda: stand.running == 1)
            await agent.send(call)
            refused = await agent.receive()
            assert (refused["id"], refused["error"]["code"]) == (None, -32600)
            assert stand.gate is not None
            stand.gate.set()
            assert (await agent.receive())["id"] == 1
            assert len(stand.calls) == 1
            assert "result" in await agent.ask("tools/call", {"name": "echo"}, 1)  # control: free again

    play(scene)


def test_a_half_written_line_times_out_but_a_silent_agent_does_not() -> None:
    async def scene() -> None:
        stand = Stand()
        limits = ChannelLimits(max_message=65_536, max_messages_per_second=10_000, line_timeout_s=0.2)
        async with channel(stand, limits) as agent:
            await agent.begin()
            silent = asyncio.Event()
            asyncio.get_running_loop().call_later(0.5, silent.set)
            await silent.wait()
            assert (await agent.ask("ping"))["result"] == {}  # control
            agent.writer.write(b'{"jsonrpc":')
            assert (await agent.over()).reason == "line-timeout"
            assert stand.reasons() == ["line-timeout"]

    play(scene)


def test_a_line_that_drips_does_not_keep_the_channel_open() -> None:
    async def scene() -> None:
        stand = Stand()
        limits = ChannelLimits(max_message=65_536, max_messages_per_second=10_000, line_timeout_s=0.2)
        async with channel(stand, limits) as agent:
            await agent.begin()
            async with asyncio.timeout(10):
                while not agent.task.done():
                    agent.writer.write(b" ")
                    await asyncio.sleep(0.01)
            assert (await agent.over()).reason == "line-timeout"

    play(scene)


def test_a_channel_that_ends_within_a_line_is_logged() -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            agent.writer.write(b'{"jsonrpc":')
            assert (await agent.end()).reason == "line-unfinished"
            assert stand.reasons() == ["line-unfinished"]

    play(scene)


def test_an_agent_that_reads_nothing_is_cut_off() -> None:
    async def scene() -> None:
        stand = Stand()
        limits = ChannelLimits(max_message=65_536, max_messages_per_second=10_000, write_timeout_s=0.3)
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        session = Session(reader, writer, "clerk", stand, limits)
        task = asyncio.create_task(session.run())
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        begin = [
            {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello()},
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
        ]
        flood = [
            {
                "jsonrpc": "2.0",
                "id": n,
                "method": "tools/call",
                "params": {"name": "echo", "arguments": {"size": 60_000}},
            }
            for n in range(1, 60)
        ]
        data = b"".join(json.dumps(one).encode() + b"\n" for one in begin + flood)
        try:
            await loop.sock_sendall(theirs, data)
        except ConnectionError:
            pass
        async with asyncio.timeout(10):
            end = await task
        assert end.reason == "not-read"
        assert stand.reasons() == ["not-read"]
        assert stand.running == 0
        theirs.close()

    play(scene)


def test_a_call_that_began_ends_although_the_gateway_fails_at_the_next_one() -> None:
    async def scene() -> None:
        stand = Stand(gate=asyncio.Event())
        async with channel(stand) as agent:
            await agent.begin()
            await agent.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}})
            await until(lambda: stand.running == 1)
            stand.fails = True
            await agent.send({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo"}})
            assert await agent.reader.read() == b""
            assert stand.gate is not None and stand.ended == 0
            stand.gate.set()
            assert (await agent.over()).reason == "answer-failed"
            assert stand.ended == 1 and stand.reasons() == ["answer-failed"]

    play(scene)


def test_a_call_that_began_ends_although_the_agent_cancels_it_and_goes_away() -> None:
    async def scene() -> None:
        stand = Stand(gate=asyncio.Event())
        async with channel(stand) as agent:
            await agent.begin()
            await agent.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}})
            await until(lambda: stand.running == 1)
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
            await agent.send(cancel)
            agent.writer.close()
            assert stand.gate is not None
            stand.gate.set()
            assert (await agent.over()).reason == "eof"
            assert stand.ended == 1

    play(scene)


def test_a_session_that_is_stopped_from_outside_finishes_its_calls_and_says_why() -> None:
    async def scene() -> None:
        stand = Stand(gate=asyncio.Event())
        async with channel(stand) as agent:
            await agent.begin()
            await agent.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}})
            await until(lambda: stand.running == 1)
            agent.session.close("stopped", "an operator stopped the agent")
            assert stand.gate is not None
            stand.gate.set()
            end = await agent.over()
            assert (end.reason, end.text) == ("stopped", "an operator stopped the agent")
            assert stand.ended == 1

    play(scene)


def test_without_a_log_a_call_is_refused_and_an_unlogged_denial_closes_the_channel() -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            stand.log_lost = True
            answer = await agent.ask("tools/call", {"name": "echo"})
            assert answer["error"] == {"code": -32603, "message": "the log can't be reached; nothing was done"}
            assert stand.calls == []
            await agent.send({"jsonrpc": "2.0", "id": 2, "method": "grant"})
            assert (await agent.over()).reason == "log-unavailable"

    play(scene)


def test_changed_grants_are_announced_and_seen() -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            agent.session.tools_changed()  # before the agent is ready: held back
            await agent.begin()
            assert await agent.receive() == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            stand.grants.append(grant("fetch"))
            agent.session.tools_changed()
            assert (await agent.receive())["method"] == "notifications/tools/list_changed"
            names = [tool["name"] for tool in (await agent.ask("tools/list"))["result"]["tools"]]
            assert names == ["echo", "fetch"]
            agent.session.input_changed()
            assert await agent.receive() == {
                "jsonrpc": "2.0",
                "method": "notifications/resources/updated",
                "params": {"uri": "ironbound://agent/input"},
            }

    play(scene)


def test_more_tools_than_fit_one_message_come_in_pages() -> None:
    async def scene() -> None:
        stand = Stand(grants=[grant(f"tool-{number:03}") for number in range(256)])
        limits = ChannelLimits(max_message=8192, max_messages_per_second=10_000)
        async with channel(stand, limits) as agent:
            await agent.begin()
            names: list[str] = []
            params: dict[str, Any] = {}
            while True:
                result = (await agent.ask("tools/list", params))["result"]
                names += [tool["name"] for tool in result["tools"]]
                if "nextCursor" not in result:
                    break
                params = {"cursor": result["nextCursor"]}
            assert names == [f"tool-{number:03}" for number in range(256)]

    play(scene)


def test_an_answer_over_the_limit_is_withheld_and_says_that_it_is_done() -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            for size in (65_536, 200_000):
                result = (await agent.ask("tools/call", {"name": "echo", "arguments": {"size": size}}))["result"]
                assert result["structuredContent"] == {"withheld": "result-too-large"}
            result = (await agent.ask("tools/call", {"name": "echo", "arguments": {"size": 60_000}}))["result"]
            assert len(result["content"][0]["text"]) == 60_000  # control

    play(scene)


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "ironbound://agent/../log", "ironbound://agent/status?x", ""])
def test_no_other_resource_can_be_read(uri: str) -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            assert (await agent.ask("resources/read", {"uri": uri}))["error"]["code"] == -32602
            assert stand.reasons() == ["resource-unknown"]

    play(scene)


@pytest.mark.parametrize("name", ["", "a" * 65, "../echo", "echo\n", "\u202eecho", "a b"])
def test_what_is_no_tool_s_name_is_denied_before_the_authority_sees_it(name: str) -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            assert (await agent.ask("tools/call", {"name": name}))["result"]["isError"] is True
            assert stand.calls == []
            assert stand.reasons() == ["no-such-grant"]
            assert all(what.isascii() and len(what) <= 200 for what, _, _ in stand.denials)

    play(scene)


lines = st.binary(max_size=80) | st.sampled_from([*mcp.METHODS, "grant"]).flatmap(
    lambda method: st.fixed_dictionaries(
        {"jsonrpc": st.sampled_from(["2.0", "2.0", "2.0", "1.0", None]), "method": st.just(method)},
        optional={
            "id": st.none() | st.booleans() | st.integers(-2, 5) | st.floats(allow_nan=False) | st.text(max_size=3),
            "params": st.none()
            | st.lists(st.integers(), max_size=2)
            | st.dictionaries(
                st.sampled_from(["name", "arguments", "uri", "cursor", "_meta", "requestId", "protocolVersion"]),
                st.none() | st.integers() | st.text(max_size=5) | st.dictionaries(st.text(max_size=3), st.booleans()),
                max_size=3,
            ),
        },
    ).map(lambda message: json.dumps(message).encode())
)


@settings(max_examples=50)
@given(st.lists(lines, max_size=12))
def test_whatever_an_agent_sends_it_is_answered_or_refused_and_the_session_never_breaks(sent: list[bytes]) -> None:
    async def scene() -> None:
        stand = Stand()
        async with channel(stand) as agent:
            await agent.begin()
            agent.writer.write(b"".join(line + b"\n" for line in sent))
            end = await agent.end()
            assert end.reason in ("eof", "too-many-malformed")

    play(scene)


def test_every_action_has_words_and_a_schema() -> None:
    where = {
        "scheme": {"equals": "http"}, "host": {"equals": "127.0.0.1"}, "port": {"range": {"min": 1, "max": 9}},
        "path": {"prefix": {"value": "/api", "separator": "/"}}, "method": {"one_of": ["GET", "POST"]},
        "body": {"any": True},
    }  # fmt: skip
    http = grant(action="http.request", where=parse_where(where), with_credential=True)
    assert describe(http) == (
        'Makes one HTTP request. body: anything. host: "127.0.0.1". method: one of "GET", "POST". '
        'path: "/api", or what lies below it after "/". port: 1 to 9. scheme: "http". '
        "The credential is added on the way out; leave it out. Calls left: 3."
    )
    schema = input_schema(http)
    assert schema["properties"]["method"] == {"enum": ["GET", "POST"]}
    assert schema["required"] == ["method", "url"]
    for action in ACTIONS:
        one = grant(action=action)
        assert describe(one).endswith("Calls left: 3.")
        assert input_schema(one)["additionalProperties"] is False
