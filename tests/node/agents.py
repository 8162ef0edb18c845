"""Small agents in the text format, and a way to run them in real workers."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime

from ironbound.core.canonical import canonical
from ironbound.node.sandbox.launcher import Ended, Ready, Refused, Worker, Zygote, ZygoteFacts

DEADLINE = 20.0
# Not the sandbox users of a deployment: its monitor, where one runs on this host, stops whatever no entry accounts for.
FIRST_ID = 71100
ROOT = os.getuid() == 0

CONFIG: dict[str, Any] = {
    "version": 1,
    "profile": "strict",
    "runtime": {
        "type": "wasmtime",
        "strict_security": True,
        "disallowed_imports": ["wasi_snapshot_preview1", "*"],
        "max_memory": 2,
        "max_fuel": 2_000_000,
        "max_wall_clock": 10,
        "max_stack": 256,
        "max_instances": 1,
        "max_tables": 1,
        "max_table_elements": 10,
        "max_module_size": 65536,
    },
    "channel": {"max_message": 4096, "max_messages_per_second": 100},
    "scratch": {"max_bytes": 1, "max_files": 1},
}


def config(**changes: object) -> bytes:
    """The configuration above with changes to the runtime's or the channel's limits."""
    value = copy.deepcopy(CONFIG)
    for name, change in changes.items():
        value["channel" if name in value["channel"] else "runtime"][name] = change
    return canonical(value)


def agent(handle: str, *, more: str = "", memory: str = '(memory (export "memory") 1)') -> bytes:
    """A module whose `handle` has this body; `more` are further fields."""
    return bytes(
        wasmtime.wat2wasm(
            f"""(module {memory} {more}
            (func (export "alloc") (param i32) (result i32) i32.const 4096)
            (func (export "handle") (param $at i32) (param $size i32) (result i64) {handle}))"""
        )
    )


ECHO = agent("""(i64.or (i64.extend_i32_u (local.get $at))
                        (i64.shl (i64.extend_i32_u (local.get $size)) (i64.const 32)))""")


def says(text: str, *, final: bool = False, more: str = "") -> bytes:
    """Answers every message with this text, kept at address 16."""
    word = 16 | len(text) << 32 | (1 << 63 if final else 0)
    return agent(f"(i64.const {word - (1 << 64) if final else word})", more=f'(data (i32.const 16) "{text}") {more}')


def report_of(expression: str, *, more: str = "", memory: str = '(memory (export "memory") 1)') -> bytes:
    """Ends with a report of one character: '0' plus the value of an i32 expression."""
    final = 16 | 1 << 32 | 1 << 63
    return agent(
        f"(i32.store8 (i32.const 16) (i32.add (i32.const 48) {expression})) (i64.const {final - (1 << 64)})",
        more=more,
        memory=memory,
    )


@dataclass
class Launched:
    worker: Worker
    answer: Ready | Refused
    channel: socket.socket

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.channel, data)

    async def hear(self, size: int = 65536) -> bytes:
        async with asyncio.timeout(DEADLINE):
            return await asyncio.get_running_loop().sock_recv(self.channel, size)

    async def ended(self) -> Ended:
        async with asyncio.timeout(DEADLINE):
            return await self.worker.ended()


class Bench:
    """A zygote with workers of distinct users where that is possible."""

    def __init__(self, zygote: Zygote, facts: ZygoteFacts) -> None:
        self.zygote = zygote
        self.facts = facts
        self._launches = 0
        self._channels: list[socket.socket] = []

    async def launch(self, module: bytes, settings: bytes | None = None, start: str = "") -> Launched:
        self._launches += 1
        uid = FIRST_ID + self._launches if ROOT else os.getuid()
        gid = FIRST_ID + self._launches if ROOT else os.getgid()
        mine, its = socket.socketpair()
        self._channels.append(mine)
        with its:
            worker = await self.zygote.spawn(
                self._launches, uid, gid, settings or config(), module, its.fileno(), start
            )
        mine.setblocking(False)
        return Launched(worker, await worker.ready(), mine)

    async def live(self, module: bytes, settings: bytes | None = None, start: str = "") -> Ended:
        """Launches, releases and waits for the end."""
        launched = await self.launch(module, settings, start)
        assert isinstance(launched.answer, Ready), launched.answer
        await launched.worker.release()
        return await launched.ended()

    async def refusal(self, module: bytes, settings: bytes | None = None) -> Refused:
        launched = await self.launch(module, settings)
        assert isinstance(launched.answer, Refused)
        assert (await launched.ended()).messages == 0
        return launched.answer

    def children(self) -> tuple[list[int], list[int]]:
        """The zygote's children: the workers, and as root who stands by, which has the zygote's user."""
        workers, standing = [], []
        for word in Path(f"/proc/{self.facts.pid}/task/{self.facts.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                (standing if ROOT and os.stat(f"/proc/{word}").st_uid == 0 else workers).append(int(word))
        return workers, standing

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


@asynccontextmanager
async def bench(*, stands_by: bool = True) -> AsyncIterator[Bench]:
    zygote = Zygote(stands_by=stands_by)
    made = Bench(zygote, await zygote.start())
    try:
        yield made
    finally:
        made.close()
        await zygote.close()


def in_bench(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that gets a bench of its own, under a deadline."""

    async def run() -> None:
        async with asyncio.timeout(2 * DEADLINE), bench() as made:
            await test(made)

    def wrapper() -> None:
        asyncio.run(run())

    wrapper.__name__ = test.__name__
    wrapper.__doc__ = test.__doc__
    return wrapper
