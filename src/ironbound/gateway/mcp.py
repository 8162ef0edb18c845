"""The agent channel: an MCP session on one pipe, newline-delimited JSON-RPC.

Decides whether a line is a message of the closed table of methods, in the right order and within limits.
It does not decide whether a call is allowed: its `Authority` does, and logs. The types are those of the
official MCP SDK (`mcp_types`); revisions 2024-11-05 to 2025-11-25, whose sessions begin with `initialize`.

Rule 1: the tables `METHODS`, `TELLS`, `RESOURCES` and `ERRORS` are closed, and nothing in them grants, loads, launches
        or reconfigures. What is served is looked up there and nowhere else; `surface` makes the document of them. A
        tool can hand on a part of what the agent holds, where the humans who signed it made it delegable (`delegate`).
Rule 2: whatever isn't in a table is answered with an error and told to the authority, which logs it.
Rule 3: every line is parsed by the core's strict parser before any model sees it.
Rule 4: nothing is unbounded: size, depth, rate, calls in flight, malformed lines, unfinished lines, answers
        that the agent doesn't read. Above the rate the channel waits; above the rest it closes, and says so.
Rule 5: a call that has begun is finished, also if the agent cancels it or goes away, or the gateway fails at another.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import mcp_types as types
from mcp_types import methods
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION
from pydantic import BaseModel, ValidationError

from ironbound.core.canonical import FormatError, Value, parse_json
from ironbound.gateway.tools import ToolGrant, render_tool

#: The protocol's revisions that a session can have; another one is answered with the last.
VERSIONS: Final = HANDSHAKE_PROTOCOL_VERSIONS
#: JSON-RPC's error codes that the channel answers with, and when.
ERRORS: Final[Mapping[int, str]] = {
    types.jsonrpc.PARSE_ERROR: "the line is no strict JSON, or longer than the profile allows",
    types.jsonrpc.INVALID_REQUEST: "the line is no request of JSON-RPC, or out of order",
    types.jsonrpc.METHOD_NOT_FOUND: "the table has no such method",
    types.jsonrpc.INVALID_PARAMS: "the parameters are not those of the method, or name no resource",
    types.jsonrpc.INTERNAL_ERROR: "the log can't be reached, so nothing is done; or the answer is too large",
}
#: The member of a call's `_meta` that names the grant of whom the agent acts for.
CLIENT: Final = "ironbound.dev/client"
DEPTH: Final = 32
MAX_ID: Final = 128
_READ: Final = 65_536
_TOOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MEMBERS: Final = frozenset(("jsonrpc", "id", "method", "params"))


@dataclass(frozen=True, slots=True)
class Denied:
    """The authority's no: a reason code and a sentence for the agent. It is in the log already."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What came of a call: text and facts for the agent."""

    text: str
    facts: Mapping[str, Value] = field(default_factory=dict)
    is_error: bool = False


class AuthorityUnavailable(Exception):
    """The log can't be reached, so nothing is done. The message is for the agent."""


class Authority(Protocol):
    """What the session asks; the gateway's service answers with kernel, log and providers."""

    def tools(self, agent: str) -> Sequence[ToolGrant]:
        """The agent's live grants."""

    async def call(
        self, agent: str, tool: str, arguments: dict[str, Value], client: str | None
    ) -> CallOutcome | Denied:
        """Decide, log, act, log. `client` is the grant of whom the agent acts for, if it says so.

        Raises AuthorityUnavailable if it can't be logged.
        """

    async def deny(self, agent: str, what: str, reason: str, text: str) -> None:
        """Log a denial that the session itself decided. Raises AuthorityUnavailable."""

    def status(self, agent: str) -> Value:
        """The status resource."""

    def metrics(self, agent: str) -> Value:
        """The metrics resource."""

    def input(self, agent: str) -> Value:
        """The input resource."""


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """The first two come from the effective configuration. Sizes in bytes, times in seconds."""

    max_message: int
    max_messages_per_second: int
    max_malformed: int = 16
    max_in_flight: int = 8
    line_timeout_s: float = 10.0
    write_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """Why the session is over, and how many lines it took. 'eof' is the agent's own end."""

    reason: str
    text: str
    messages: int


class _Invalid(Exception):
    """A line that is no message; `code` is JSON-RPC's. It counts as malformed."""

    def __init__(self, code: int, message: str, request_id: int | str | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.request_id = request_id


class _Closed(Exception):
    """The channel has to close: reason and text."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason, text)
        self.reason = reason
        self.text = text


@dataclass(frozen=True, slots=True)
class _Message:
    method: str
    request_id: int | str | None
    params: dict[str, Value] | None


class Session:
    """One agent's channel. `run` returns when it is over and every call that began has ended."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        agent: str,
        authority: Authority,
        limits: ChannelLimits,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._agent = agent
        self._authority = authority
        self._limits = limits
        self._version = ""
        self._ready = False
        self._messages = 0
        self._malformed = 0
        self._buffer = bytearray()
        self._tokens = float(limits.max_messages_per_second)
        self._refilled = 0.0
        self._open_ids: set[int | str] = set()
        self._slots = asyncio.Semaphore(limits.max_in_flight)
        self._write_lock = asyncio.Lock()
        self._end: _Closed | None = None
        self._changed = asyncio.Event()
        self._changes: dict[str, Mapping[str, Value] | None] = {}

    def tools_changed(self) -> None:
        """Tell the agent that its grants changed. Several changes may become one notification."""
        self._changes["notifications/tools/list_changed"] = None
        self._changed.set()

    def input_changed(self) -> None:
        """Tell the agent that its input changed."""
        self._changes["notifications/resources/updated"] = {"uri": "ironbound://agent/input"}
        self._changed.set()

    def close(self, reason: str, text: str) -> None:
        """End the session from outside, for a stop or a shutdown. Calls in flight are finished."""
        if self._end is None:
            self._end = _Closed(reason, text)
        self._writer.transport.abort()

    async def run(self) -> SessionEnd:
        """Serve until the agent, a limit or `close` ends it."""
        self._refilled = asyncio.get_running_loop().time()
        self._writer.transport.set_write_buffer_limits(high=_READ)
        async with asyncio.TaskGroup() as group:
            notifier = group.create_task(self._notify())
            try:
                await self._serve(group)
                end = self._end or _Closed("eof", "the agent closed the channel")
            except _Closed as closed:
                end = self._end = self._end or closed
            except ConnectionError:
                end = self._end or _Closed("eof", "the agent's end is gone")
            notifier.cancel()
        end = self._end or end
        try:
            if end.reason not in ("eof", "log-unavailable"):
                await self._tell("channel", end.reason, end.text)
        except _Closed as closed:
            end = closed
        finally:
            await self._hang_up()
        return SessionEnd(end.reason, end.text, self._messages)

    async def _hang_up(self) -> None:
        """Close, with a little time for what is written to be read."""
        self._writer.close()
        try:
            async with asyncio.timeout(self._limits.write_timeout_s):
                await self._writer.wait_closed()
        except (TimeoutError, ConnectionError):
            self._writer.transport.abort()

    # Lines in

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        while (line := await self._line()) is not None:
            await self._token()
            self._messages += 1
            try:
                message = self._parse(line)
                await self._dispatch(message, group)
            except _Invalid as invalid:
                self._malformed += 1
                await self._tell("channel", "message-malformed", invalid.message)
                await self._send_error(invalid.request_id, invalid.code, invalid.message)
                if self._malformed >= self._limits.max_malformed:
                    raise _Closed("too-many-malformed", f"{self._malformed} malformed messages") from None

    async def _line(self) -> bytes | None:
        """The next line without its end, or None at the end of the stream. Raises _Closed."""
        searched = 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.line_timeout_s
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > self._limits.max_message:
                break
            try:
                async with asyncio.timeout_at(deadline if searched else None):
                    data = await self._reader.read(_READ)
            except TimeoutError:
                text = f"a line was left unfinished for {self._limits.line_timeout_s:g} s"
                raise _Closed("line-timeout", text) from None
            if not data:
                if searched:
                    raise _Closed("line-unfinished", "the channel ended within a line")
                return None
            if not searched:
                deadline = loop.time() + self._limits.line_timeout_s
            self._buffer += data
        if end < 0 or end > self._limits.max_message:
            text = f"expected at most {self._limits.max_message} bytes in a line"
            await self._send_error(None, types.jsonrpc.PARSE_ERROR, text)
            raise _Closed("message-too-large", text)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    async def _token(self) -> None:
        """Wait until the rate allows one more line; meanwhile nothing is read."""
        rate = self._limits.max_messages_per_second
        now = asyncio.get_running_loop().time()
        self._tokens = min(float(rate), self._tokens + (now - self._refilled) * rate) - 1.0
        self._refilled = now
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / rate)

    def _parse(self, line: bytes) -> _Message:
        try:
            value = parse_json(line, limit=self._limits.max_message, depth=DEPTH)
        except FormatError as error:
            raise _Invalid(types.jsonrpc.PARSE_ERROR, f"not strict JSON: {error.code}") from None
        if not isinstance(value, dict):
            raise _Invalid(types.jsonrpc.INVALID_REQUEST, "expected one JSON-RPC object; batches are refused")
        request_id = value.get("id")
        if "id" in value and not _is_id(request_id):
            raise _Invalid(types.jsonrpc.INVALID_REQUEST, "expected an integer or a short string as id")
        known = request_id if isinstance(request_id, int | str) else None
        kind = types.jsonrpc.JSONRPCRequest if known is not None else types.jsonrpc.JSONRPCNotification
        if not set(value) <= _MEMBERS:
            raise _Invalid(types.jsonrpc.INVALID_REQUEST, "expected jsonrpc, id, method and params only", known)
        try:
            envelope = kind.model_validate(value, strict=True)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
            raise _Invalid(types.jsonrpc.INVALID_REQUEST, f"not a JSON-RPC request: {where[:80]}", known) from None
        return _Message(envelope.method, known, envelope.params)

    # Messages

    async def _dispatch(self, message: _Message, group: asyncio.TaskGroup) -> None:
        method = METHODS.get(message.method)
        if method is None or method.is_request != (message.request_id is not None):
            await self._refuse_method(message)
            return
        if message.request_id is not None and message.request_id in self._open_ids:
            raise _Invalid(types.jsonrpc.INVALID_REQUEST, "the id belongs to a request that is still open")
        if method.when == "session" and not self._ready:
            raise _Invalid(types.jsonrpc.INVALID_REQUEST, "expected initialize first", message.request_id)
        if method.when == "opening" and self._ready:
            raise _Invalid(types.jsonrpc.INVALID_REQUEST, "the session is initialized", message.request_id)
        params = self._validated(message, method)
        if method.when == "opening" or message.request_id is None:
            try:
                result = await method.serve(self, params)  # before the next line is looked at
            except _Invalid as invalid:
                raise _Invalid(invalid.code, invalid.message, message.request_id) from None
            if result is not None:
                await self._send_result(message, result)
            return
        # The slot is taken here, so that a full house stops the reading.
        await self._slots.acquire()
        self._open_ids.add(message.request_id)
        group.create_task(self._answer(message, method, params))

    async def _refuse_method(self, message: _Message) -> None:
        name = ascii(message.method[:150])[1:-1]
        text = f"{name} is not a method of the agent channel"
        await self._tell(name[:200], "method-unknown", text)
        if message.request_id is not None:
            await self._send_error(message.request_id, types.jsonrpc.METHOD_NOT_FOUND, text)

    def _validated(self, message: _Message, method: Method) -> Any:
        version = self._version or LATEST_HANDSHAKE_VERSION
        parse = methods.parse_client_request if method.is_request else methods.parse_client_notification
        try:
            return parse(message.method, version, message.params)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
            text = f"invalid parameters of {message.method}: {where[:80]}"
            raise _Invalid(types.jsonrpc.INVALID_PARAMS, text, message.request_id) from None

    async def _initialize(self, request: types.InitializeRequest) -> types.Result:
        if self._version:
            raise _Invalid(types.jsonrpc.INVALID_REQUEST, "the session is initialized")
        offered = request.params.protocol_version
        self._version = offered if offered in VERSIONS else LATEST_HANDSHAKE_VERSION
        return types.InitializeResult(
            protocol_version=self._version,
            capabilities=types.ServerCapabilities(
                tools=types.ToolsCapability(list_changed=True), resources=types.ResourcesCapability()
            ),
            server_info=types.Implementation(name="ironbound", version="1"),
        )

    async def _initialized(self, notification: Any) -> None:
        if not self._version:
            raise _Invalid(types.jsonrpc.INVALID_REQUEST, "initialized is said once, after initialize")
        self._ready = True
        self._changed.set()

    async def _cancelled(self, notification: Any) -> None:
        """A cancelled call runs to its end all the same: its intent is in the log (Rule 5)."""

    async def _answer(self, message: _Message, method: Method, params: Any) -> None:
        """One request in its own task, whose failure would cancel the calls in flight beside it (Rule 5)."""
        (failure,) = await asyncio.gather(self._served(message, method, params), return_exceptions=True)
        if failure is not None:
            self.close("answer-failed", f"the gateway failed at a request ({type(failure).__name__})")

    async def _served(self, message: _Message, method: Method, params: Any) -> None:
        """One request; whatever happens, its id and its slot come free."""
        try:
            result = await method.serve(self, params)
            if result is not None:
                await self._send_result(message, result)
        except _Invalid as invalid:
            await self._send_error(message.request_id, invalid.code, invalid.message)
        except AuthorityUnavailable as error:
            await self._send_error(message.request_id, types.jsonrpc.INTERNAL_ERROR, str(error))
        finally:
            if message.request_id is not None:
                self._open_ids.discard(message.request_id)
            self._slots.release()

    async def _ping(self, request: types.Request[Any, Any]) -> types.Result:
        return types.EmptyResult()

    async def _list_tools(self, request: types.Request[Any, Any]) -> types.Result:
        cursor = "" if request.params is None else request.params.cursor or ""
        grants = sorted(self._authority.tools(self._agent), key=lambda grant: grant.tool)
        page: list[types.Tool] = []
        room = self._limits.max_message // 2
        for grant in grants:
            if grant.tool <= cursor:
                continue
            tool = render_tool(grant)
            room -= len(_dump(tool))
            if page and room < 0:
                return types.ListToolsResult(tools=page, next_cursor=page[-1].name)
            page.append(tool)
        return types.ListToolsResult(tools=page)

    async def _call_tool(self, request: types.Request[Any, Any]) -> types.Result:
        name, arguments = request.params.name, dict(request.params.arguments or {})
        if _TOOL.fullmatch(name) is None:
            outcome: CallOutcome | Denied = Denied("no-such-grant", "that is no tool's name")
            await self._authority.deny(self._agent, ascii(name[:150])[1:-1][:200], "no-such-grant", "no tool's name")
        else:
            client = (request.params.meta or {}).get(CLIENT)
            outcome = await self._authority.call(self._agent, name, arguments, None if client is None else str(client))
        if isinstance(outcome, Denied):
            facts: dict[str, Value] = {"refused": outcome.reason}
            return _tool_result(f"refused: {outcome.reason}: {outcome.text}", facts, True)
        result = _tool_result(outcome.text, outcome.facts, outcome.is_error)
        if len(_dump(result)) + 512 > self._limits.max_message:
            text = f"it is done, but the answer is over the channel's {self._limits.max_message} bytes"
            return _tool_result(text, {"withheld": "result-too-large"}, True)
        return result

    async def _list_resources(self, request: types.Request[Any, Any]) -> types.Result:
        return types.ListResourcesResult(
            resources=[
                types.Resource(name=one.name, uri=uri, description=one.about, mime_type="application/json")
                for uri, one in RESOURCES.items()
            ]
        )

    async def _read_resource(self, request: types.Request[Any, Any]) -> types.Result:
        uri = str(request.params.uri)
        if uri not in RESOURCES:
            name = ascii(uri[:150])[1:-1]
            text = f"{name} is not a resource of the agent channel"
            await self._authority.deny(self._agent, name[:200], "resource-unknown", text)
            raise _Invalid(types.jsonrpc.INVALID_PARAMS, text)
        # Not in canonical form: an operator's input may hold fractions.
        text = _encode(RESOURCES[uri].read(self._authority, self._agent)).decode()
        contents = types.TextResourceContents(uri=uri, mime_type="application/json", text=text)
        return types.ReadResourceResult(contents=[contents])

    # Lines out

    async def _notify(self) -> None:
        """Sends what changed; nothing before the agent said that it is ready."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self._ready:
                continue
            changes, self._changes = self._changes, {}
            for method, params in changes.items():
                body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
                if params is not None:
                    body["params"] = dict(params)
                await self._send(body)

    async def _send_result(self, message: _Message, result: types.Result) -> None:
        body = methods.serialize_server_result(
            message.method,
            self._version or LATEST_HANDSHAKE_VERSION,
            result.model_dump(by_alias=True, exclude_none=True),
        )
        await self._send({"jsonrpc": "2.0", "id": message.request_id, "result": body}, message.request_id)

    async def _send_error(self, request_id: int | str | None, code: int, text: str) -> None:
        await self._send({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": text}})

    async def _send(self, body: dict[str, Any], request_id: int | str | None = None) -> None:
        line = _encode(body)
        if len(line) > self._limits.max_message:
            error = {"code": types.jsonrpc.INTERNAL_ERROR, "message": "the answer is over the channel's limit"}
            line = _encode({"jsonrpc": "2.0", "id": request_id, "error": error})
        try:
            async with self._write_lock:
                if self._end is not None or self._writer.is_closing():
                    return
                self._writer.write(line + b"\n")
                async with asyncio.timeout(self._limits.write_timeout_s):
                    await self._writer.drain()
        except TimeoutError:
            self.close("not-read", f"the agent read nothing for {self._limits.write_timeout_s:g} s")
        except ConnectionError:
            # The agent is gone: the reader sees the end of the stream and ends the session.
            return

    async def _tell(self, what: str, reason: str, text: str) -> None:
        """Have a denial logged. If it can't be, the session ends: nothing goes on unlogged."""
        try:
            await self._authority.deny(self._agent, what, reason, text)
        except AuthorityUnavailable as error:
            raise _Closed("log-unavailable", str(error)) from error


@dataclass(frozen=True, slots=True)
class Method:
    """What the agent may send: when it is taken (in the "opening", in the "session", or "always"), what serves it.

    A request's result is its answer; a notification has none.
    """

    about: str
    when: str
    serve: Callable[[Session, Any], Awaitable[types.Result | None]]
    is_request: bool = True


@dataclass(frozen=True, slots=True)
class Resource:
    """What the agent may read, and who knows it."""

    name: str
    about: str
    read: Callable[[Authority, str], Value]


METHODS: Final[Mapping[str, Method]] = {
    "initialize": Method("Agrees on the protocol's revision.", "opening", Session._initialize),
    "notifications/initialized": Method("Opens the session.", "opening", Session._initialized, is_request=False),
    "notifications/cancelled": Method(
        "Says that an answer is no longer wanted; the call is finished all the same.",
        "always",
        Session._cancelled,
        is_request=False,
    ),
    "ping": Method("Is answered.", "always", Session._ping),
    "resources/list": Method("Lists the resources.", "session", Session._list_resources),
    "resources/read": Method("Reads a resource.", "session", Session._read_resource),
    "tools/call": Method(
        f"Asks for an action under a live grant of the agent's own. `_meta` may name in {CLIENT} the grant of whom it"
        " acts for, who must be able to do the same.",
        "session",
        Session._call_tool,
    ),
    "tools/list": Method("Lists the agent's live grants as tools.", "session", Session._list_tools),
}
"""All that an agent can send. The MCP server of one pipe has no other entrance."""

TELLS: Final[Mapping[str, str]] = {
    "notifications/resources/updated": "The input changed.",
    "notifications/tools/list_changed": "The grants changed.",
}
"""All that an agent is told unasked."""

RESOURCES: Final[Mapping[str, Resource]] = {
    "ironbound://agent/input": Resource("input", "What you were given to work on.", lambda who, id: who.input(id)),
    "ironbound://agent/metrics": Resource("metrics", "What you have used so far.", lambda who, id: who.metrics(id)),
    "ironbound://agent/status": Resource(
        "status", "Who you are, what runs you, what you may use.", lambda who, id: who.status(id)
    ),
}
"""Address → resource; all read-only."""


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_ID
    return type(value) is int and abs(value) < 2**53


def _tool_result(text: str, facts: Mapping[str, Value], is_error: bool) -> types.CallToolResult:
    content = [types.TextContent(type="text", text=text)]
    return types.CallToolResult(content=list(content), structured_content=dict(facts), is_error=is_error)


def _dump(model: BaseModel) -> bytes:
    return _encode(model.model_dump(by_alias=True, exclude_none=True, mode="json"))


def _encode(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
