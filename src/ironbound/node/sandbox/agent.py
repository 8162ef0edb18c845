"""An agent in a worker: one instance of a module, the messages that it takes, and what it has used.

Decides how a message gets in and an answer out (sdk/README.md, "The boundary"), and which limit ends the agent. It
reads no descriptor. The same for components stands in `component`.

Rule 1: whatever the instance returns is checked before it is used: it may be hostile.
Rule 2: each message has its own fuel.
"""

from __future__ import annotations

import ctypes
from typing import Final, Protocol

import wasmtime

from ironbound.node.sandbox import engine as runtime

MAX_REPORT: Final = 4096
"""Bytes of an agent's final report."""


class AgentEnded(Exception):
    """The agent's life is over, for this reason."""

    def __init__(self, reason: str, text: str, report: str = "") -> None:
        super().__init__(text)
        self.reason, self.text, self.report = reason, text, report


class Agent(Protocol):
    """What a worker runs. Made before the release, instantiated after it."""

    messages: int
    fuel: int

    def instantiate(self) -> None:
        """Runs the agent's first instructions. Raises AgentEnded."""

    def take(self, message: bytes) -> bytes:
        """Hands over one message; returns what is to be sent, with its newline. Raises AgentEnded, also with the
        report."""


def check_size(size: int, *, final: bool, most: int) -> None:
    """An answer's or report's bytes. Raises AgentEnded."""
    limit = MAX_REPORT if final else most
    if size > limit:
        raise AgentEnded("limit", f"expected an answer of at most {limit} bytes, got {size}")


def as_line(data: bytes) -> bytes:
    """What is sent: nothing, or lines."""
    return data if data.endswith(b"\n") or not data else data + b"\n"


class ModuleAgent:
    """A core module's instance."""

    def __init__(self, linked: wasmtime.InstancePre, engine: wasmtime.Engine, config: runtime.WorkerConfig) -> None:
        self._linked = linked
        self._config = config
        self._store = runtime.bounded_store(engine, config)
        self._memory: wasmtime.Memory | None = None
        self._alloc: wasmtime.Func | None = None
        self._handle: wasmtime.Func | None = None
        self.messages = 0
        self.fuel = 0

    def instantiate(self) -> None:
        """Runs the module's start function where it has one. Raises AgentEnded."""
        try:
            exports = self._linked.instantiate(self._store).exports(self._store)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise AgentEnded(*runtime.ending(error)) from None
        finally:
            self.fuel += self._config.max_fuel - self._store.get_fuel()
        memory, alloc, handle = exports["memory"], exports["alloc"], exports["handle"]
        if not (isinstance(memory, wasmtime.Memory) and isinstance(alloc, wasmtime.Func)):
            raise AgentEnded("protocol", "expected the exports memory and alloc")
        if not isinstance(handle, wasmtime.Func):
            raise AgentEnded("protocol", "expected the export handle")
        self._memory, self._alloc, self._handle = memory, alloc, handle

    def _range(self, start: int, size: int) -> int:
        """The address of a range of linear memory, checked against its size now (the agent may have grown it)."""
        if self._memory is None:
            raise AgentEnded("protocol", "there is no memory yet")
        if start + size > self._memory.data_len(self._store):
            raise AgentEnded("protocol", f"{size} bytes at {start} lie outside the memory")
        return ctypes.addressof(self._memory.data_ptr(self._store).contents) + start

    def _call(self, message: bytes) -> int:
        if self._alloc is None or self._handle is None:
            raise AgentEnded("protocol", "there is no instance yet")
        self._store.set_fuel(self._config.max_fuel)
        try:
            place = 0
            if message:
                place = int(self._alloc(self._store, len(message))) & 0xFFFFFFFF
                ctypes.memmove(self._range(place, len(message)), message, len(message))
            signed = place - (1 << 32) if place >= 1 << 31 else place
            return int(self._handle(self._store, signed, len(message))) & 0xFFFFFFFFFFFFFFFF
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise AgentEnded(*runtime.ending(error)) from None
        finally:
            self.fuel += self._config.max_fuel - self._store.get_fuel()

    def take(self, message: bytes) -> bytes:
        """Hands over one message; returns what is to be sent. Raises AgentEnded, also with the report."""
        answer = self._call(message)
        if answer == 0:
            return b""
        size = answer >> 32 & 0x7FFFFFFF
        final = bool(answer >> 63)
        check_size(size, final=final, most=self._config.max_message)
        data = ctypes.string_at(self._range(answer & 0xFFFFFFFF, size), size)
        if final:
            raise _finished(data)
        return as_line(data)


def _finished(data: bytes) -> AgentEnded:
    try:
        return AgentEnded("finished", "", data.decode("utf-8", "strict"))
    except UnicodeDecodeError:
        return AgentEnded("protocol", "a report that is not UTF-8")
