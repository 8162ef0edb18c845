"""A stand for agents: the worker's ABI and limits without its process, and scripted peers for the channel.

The engine, the compilation and the store's limits are the worker's own code; only what it takes from the kernel
(lockdown, descriptors, clock) is missing. A weakened stand lifts one limit or defines one import: that is how the
positive controls make a canary's attempt succeed.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import mcp_types
import wasmtime
from wasmtime import _ffi
from wasmtime import component as model

from ironbound.core.canonical import Digest
from ironbound.node.sandbox import component
from ironbound.node.sandbox import engine as runtime
from ironbound.node.sandbox.agent import AgentEnded

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = CHECKOUT / "sdk" / "c" / "examples"
CANARY = CHECKOUT / "src" / "ironbound" / "canary"
MODULES = CANARY / "modules"

MIB = 1024 * 1024
LIMITS = runtime.WorkerConfig(
    digest=Digest("0" * 64),
    value=None,
    max_memory=64 * MIB,
    max_fuel=200_000_000,
    max_wall_clock=60,
    max_stack=512 * 1024,
    max_instances=1,
    max_tables=1,
    max_table_elements=1000,
    max_module_size=MIB,
    max_message=256 * 1024,
)
NONCE = "00112233445566778899aabbccddeeff"
START = json.dumps({"nonce": NONCE}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Ended:
    reason: str
    text: str
    report: str = ""


class Stopped(Exception):
    """The agent's life is over."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.reason)
        self.ended = ended


@dataclass(slots=True)
class Weakening:
    """What a weakened sandbox leaves open. The default leaves nothing open."""

    limits: runtime.WorkerConfig = LIMITS
    imports: tuple[tuple[str, str], ...] = ()
    features: tuple[str, ...] = ()
    unparsed: bool = False
    memories: int = 1
    whole_memory: bool = False


class _RoomyConfig(wasmtime.Config):
    """A configuration that may give Wasm more than two MiB of stack; Python's API has no setting for that."""

    def __init__(self) -> None:
        super().__init__()
        setter = _ffi.dll.wasmtime_config_async_stack_size_set
        setter.restype, setter.argtypes = None, [ctypes.c_void_p, ctypes.c_size_t]
        setter(self.ptr(), 256 * MIB)


def _featured(features: tuple[str, ...]) -> type[wasmtime.Config]:
    """A configuration in which these proposals can't be switched off."""

    class Featured(wasmtime.Config):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, True if name in features else value)

    return Featured


def _engine(max_stack: int, features: tuple[str, ...]) -> wasmtime.Engine:
    made = _featured(features) if max_stack <= 2 * MIB else _RoomyConfig
    with mock.patch.object(wasmtime, "Config", made):
        return runtime.make_engine(max_stack)


def _defined(
    store: wasmtime.Store, engine: wasmtime.Engine, data: bytes, imports: Iterable[tuple[str, str | None]]
) -> wasmtime.InstancePre:
    """Compiled without our parser before it, and linked with what is asked for."""
    module, linker = wasmtime.Module(engine, data), wasmtime.Linker(engine)
    for item in module.imports:
        if (item.module, item.name) not in imports:
            continue
        assert item.name is not None
        if isinstance(item.type, wasmtime.FuncType):
            linker.define_func(item.module, item.name, item.type, lambda *_: 0)
        elif isinstance(item.type, wasmtime.MemoryType):
            linker.define(store, item.module, item.name, wasmtime.Memory(store, item.type))
        elif isinstance(item.type, wasmtime.TableType):
            linker.define(store, item.module, item.name, wasmtime.Table(store, item.type, None))
        else:
            assert isinstance(item.type, wasmtime.GlobalType)
            linker.define(store, item.module, item.name, wasmtime.Global(store, item.type, wasmtime.Val.i32(0)))
    return linker.instantiate_pre(module)


class Agent:
    """One instance of a module; raises Stopped where the worker would report an end."""

    def __init__(self, module: Path, weakening: Weakening | None = None) -> None:
        self._weak = weakening or Weakening()
        limits = self._weak.limits
        self.most_fuel = 0
        engine = _engine(limits.max_stack, self._weak.features)
        self._store = runtime.bounded_store(engine, limits)
        if self._weak.memories > 1:
            self._store.set_limits(memories=self._weak.memories)
        data = module.read_bytes()
        try:
            linked = runtime.compile_module(engine, data, limits.max_module_size)
        except runtime.ModuleRefused as error:
            if not (self._weak.imports or self._weak.unparsed):
                raise Stopped(Ended(error.stage, error.text)) from None
            linked = _defined(self._store, engine, data, self._weak.imports)
        try:
            exports = linked.instantiate(self._store).exports(self._store)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise Stopped(Ended(*runtime.ending(error))) from None
        memory, alloc, handle = exports["memory"], exports["alloc"], exports["handle"]
        assert isinstance(memory, wasmtime.Memory)
        assert isinstance(alloc, wasmtime.Func) and isinstance(handle, wasmtime.Func)
        self._memory, self._alloc, self._handle = memory, alloc, handle
        if self._weak.whole_memory:
            self._memory.grow(self._store, 65536 - self._memory.size(self._store))

    def take(self, message: bytes) -> list[bytes]:
        """What the agent says to one message, as lines."""
        limits = self._weak.limits
        self._store.set_fuel(limits.max_fuel)
        try:
            place = self._alloc(self._store, len(message)) & 0xFFFFFFFF if message else 0
            if message:
                ctypes.memmove(self._at(place, len(message)), message, len(message))
            answer = self._handle(self._store, place, len(message)) & 0xFFFFFFFFFFFFFFFF
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise Stopped(Ended(*runtime.ending(error))) from None
        self.most_fuel = max(self.most_fuel, limits.max_fuel - self._store.get_fuel())
        size, final = answer >> 32 & 0x7FFFFFFF, answer >> 63
        most = 4096 if final else limits.max_message
        if size > most:
            raise Stopped(Ended("limit", f"expected an answer of at most {most} bytes, got {size}"))
        data = ctypes.string_at(self._at(answer & 0xFFFFFFFF, size), size)
        if final:
            raise Stopped(Ended("finished", "", data.decode()))
        return data.split(b"\n")[:-1] if data else []

    def pages(self) -> int:
        return int(self._memory.size(self._store))

    def _at(self, place: int, size: int) -> int:
        if place + size > self._memory.data_len(self._store):
            raise Stopped(Ended("protocol", f"{size} bytes at {place} lie outside the memory"))
        return ctypes.addressof(self._memory.data_ptr(self._store).contents) + place


class Component:
    """One instance of a component, as the worker has it; a weakened one finds a function behind every import."""

    def __init__(self, data: bytes, weakening: Weakening | None = None) -> None:
        weak = weakening or Weakening()
        engine = runtime.make_engine(weak.limits.max_stack, components=True)
        try:
            made = component.compile_component(engine, data, weak.limits.max_module_size)
        except runtime.ModuleRefused as error:
            if not weak.imports:
                raise Stopped(Ended(error.stage, error.text)) from None
            made = model.Component(engine, data)
        self._agent = component.ComponentAgent(made, engine, weak.limits)
        for instance, function in weak.imports:
            with self._agent._linker.root() as root, root.add_instance(instance) as defined:
                defined.add_func(function, lambda *_: 7)
        self._alive(self._agent.instantiate)

    def take(self, message: bytes) -> list[bytes]:
        """What it says to one message, as lines."""
        data: bytes = self._alive(lambda: self._agent.take(message))
        return data.split(b"\n")[:-1]

    def _alive(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except AgentEnded as ended:
            raise Stopped(Ended(ended.reason, ended.text, ended.report)) from None


def agent_of(module: Path, weakening: Weakening | None = None) -> Agent | Component:
    """An instance of what is in the file."""
    data = module.read_bytes()
    return Component(data, weakening) if data[6:8] == b"\x01\x00" else Agent(module, weakening)


Peer = Callable[[bytes], list[bytes]]


def converse(agent: Agent | Component, peer: Peer, *lines: bytes) -> None:
    """Deliver the lines, and everything that the peer answers, until both are silent. Raises Stopped."""
    waiting = deque(lines)
    while waiting:
        for said in agent.take(waiting.popleft()):
            waiting.extend(peer(said))


def ending(module: Path, peer: Peer, start: bytes = START, weakening: Weakening | None = None) -> Ended:
    """How the agent ends, run on a thread with room for a deep stack."""
    found: list[Ended] = []

    def run() -> None:
        try:
            converse(agent_of(module, weakening), peer, start)
        except Stopped as stopped:
            found.append(stopped.ended)

    before = threading.stack_size(256 * MIB)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    return found[0] if found else Ended("eof", "the channel is closed")


def lifted(**limits: Any) -> Weakening:
    """A sandbox that lacks just these limits."""
    return Weakening(limits=replace(LIMITS, **limits))


# Peers


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def result(ident: Any, value: Any) -> list[bytes]:
    return [encode({"jsonrpc": "2.0", "id": ident, "result": value})]


def error(ident: Any, code: int, message: str) -> list[bytes]:
    return [encode({"jsonrpc": "2.0", "id": ident, "error": {"code": code, "message": message}})]


def notification(method: str, **params: Any) -> bytes:
    return encode({"jsonrpc": "2.0", "method": method, "params": params})


def initialized(ident: Any) -> list[bytes]:
    return result(ident, {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {"listChanged": True}, "resources": {}},
        "serverInfo": {"name": "stand", "version": "1"},
    })  # fmt: skip


def text_result(ident: Any, text: str, *, is_error: bool = False) -> list[bytes]:
    return result(ident, {"content": [{"type": "text", "text": text}], "isError": is_error})


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a doubled key")
    return value


class StrictPeer:
    """A gateway that lets nothing through, with a gap where `lets` says so. Counts what it was asked."""

    def __init__(self, lets: Callable[[str, Any], bool] = lambda method, params: False) -> None:
        self.lets = lets
        self.requests = 0
        self.malformed = 0

    def __call__(self, line: bytes) -> list[bytes]:
        try:
            text = line.decode("utf-8", "strict")
            message = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_doubles)
            encode(message)  # no lone surrogates
        except (ValueError, RecursionError):
            return self._malformed(-32700, "not strict JSON: not-json")
        closed = {"jsonrpc", "id", "method", "params"}
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or "method" not in message:
            return self._malformed(-32600, "expected jsonrpc, id, method and params only")
        if not message.keys() <= closed:
            return self._malformed(-32600, "expected jsonrpc, id, method and params only")
        if "id" not in message:
            return []
        ident, method, params = message["id"], message["method"], message.get("params", {})
        whole = type(ident) is int and abs(ident) < 2**53
        if not whole and (not isinstance(ident, str) or len(ident) > 100):
            return self._malformed(-32600, "expected an integer or a short string as id")
        if method == "initialize" and self.requests == 0:
            self.requests += 1
            return initialized(ident)
        self.requests += 1
        if self.lets(method, params):
            return result(ident, {"content": [{"type": "text", "text": "done"}]})
        if method == "tools/call":
            return text_result(ident, f"refused: no-such-grant: {params['name'][:80]}", is_error=True)
        if method == "resources/read":
            return error(ident, -32002, f"{params['uri']} is not a resource of the agent channel")
        return error(ident, -32601, f"{method} is not a method of the agent channel")

    def _malformed(self, code: int, message: str) -> list[bytes]:
        self.malformed += 1
        return error(None, code, message)


@dataclass(slots=True)
class Office:
    """The triage agent's world: a records service of `pages`, a scratch area, and the grants of the moment."""

    pages: list[list[dict[str, Any]]]
    granted: set[str]
    rounds: int = 0
    files: dict[str, str] = field(default_factory=dict)
    posts: list[Any] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    status: int = 200
    as_tool_error: bool = False
    structured: bool = True
    methods: list[str] = field(default_factory=list)

    def __call__(self, line: bytes) -> list[bytes]:
        message = json.loads(line)
        self.methods.append(message["method"])
        if "id" not in message:
            mcp_types.client_notification_adapter.validate_python(message)
            return []
        mcp_types.client_request_adapter.validate_python(message)
        ident, params = message["id"], message["params"]
        match message["method"]:
            case "initialize":
                return initialized(ident)
            case "tools/list":
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in sorted(self.granted)]
                return result(ident, {"tools": tools})
            case "resources/read":
                assert params == {"uri": "ironbound://agent/input"}
                text = encode({
                    "records_url": "http://127.0.0.1:8801/records",
                    "report_url": "http://127.0.0.1:8801/reports",
                    "rounds": self.rounds,
                }).decode()  # fmt: skip
                return result(ident, {"contents": [{"uri": params["uri"], "text": text}]})
            case "tools/call":
                return self._call(ident, params["name"], params["arguments"])
        raise AssertionError(message)

    def _call(self, ident: int, name: str, arguments: Any) -> list[bytes]:
        if name not in self.granted:
            self.refused.append(name)
            words = f"no live grant covers the tool {name}"
            return text_result(ident, words, is_error=True) if self.as_tool_error else error(ident, -32602, words)
        match name:
            case "records.fetch":
                assert arguments.keys() == {"method", "url"} and arguments["method"] == "GET"
                self.fetched.append(arguments["url"])
                start, number = arguments["url"].split("?page=")
                assert start == "http://127.0.0.1:8801/records"
                page = self.pages[int(number) - 1] if int(number) <= len(self.pages) else []
                return self._http(ident, page)
            case "scratch.write":
                self.files[arguments["name"]] = arguments["text"]
                return text_result(ident, encode({"bytes": len(arguments["text"].encode())}).decode())
        assert name == "report.post" and arguments["method"] == "POST"
        assert arguments["url"] == "http://127.0.0.1:8801/reports"
        assert arguments["headers"] == {"content-type": "application/json"}
        if self.status < 300:
            self.posts.append(json.loads(arguments["body"]))
        return self._http(ident, {"received": True})

    def _http(self, ident: int, body: Any) -> list[bytes]:
        if self.structured:
            facts = {"status": self.status, "headers": {}}
            content = [{"type": "text", "text": json.dumps(body)}]
            return result(ident, {"content": content, "structuredContent": facts, "isError": self.status >= 400})
        answer = {"status": self.status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
        return text_result(ident, json.dumps(answer))
