"""The other end of a native agent's channel, in a thread: the gateway's session, or one without its closed table."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

from ironbound.core.canonical import Value
from ironbound.gateway.mcp import CallOutcome, ChannelLimits, Denied, Session
from ironbound.gateway.tools import ToolGrant

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]
LIMITS = ChannelLimits(max_message=65_536, max_messages_per_second=10_000)


class NoGrants:
    """An authority for an agent without a single grant."""

    def tools(self, agent: str) -> Sequence[ToolGrant]:
        return ()

    async def call(
        self, agent: str, tool: str, arguments: dict[str, Value], client: str | None
    ) -> CallOutcome | Denied:
        return Denied("no-such-grant", "no live grant has this name")

    async def deny(self, agent: str, what: str, reason: str, text: str) -> None:
        return None

    def status(self, agent: str) -> Value:
        return {}

    def metrics(self, agent: str) -> Value:
        return {}

    def input(self, agent: str) -> Value:
        return None


def _serve(channel: socket.socket, talk: Talk) -> None:
    mine = channel.dup()

    async def run() -> None:
        reader, writer = await asyncio.open_connection(sock=mine)
        with contextlib.suppress(ConnectionError):
            await talk(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    channel.close()
    threading.Thread(target=asyncio.run, args=(run(),), daemon=True).start()


def closed_table(channel: socket.socket, limits: ChannelLimits = LIMITS) -> None:
    """The gateway's session, as in production. It takes the socket over."""
    _serve(channel, lambda reader, writer: Session(reader, writer, "canary", NoGrants(), limits).run())


def overheard(channel: socket.socket, heard: list[bytes]) -> None:
    """The gateway's session, as in production, by way of somebody who notes each line. It takes the socket over."""
    inner, outer = socket.socketpair()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(sock=outer)

        async def answers() -> None:
            while line := await there.readline():
                writer.write(line)
                await writer.drain()

        answering = asyncio.create_task(answers())
        while line := await reader.readline():
            heard.append(line)
            back.write(line)
            await back.drain()
        back.close()
        await answering

    closed_table(inner)
    _serve(channel, talk)


def open_table(channel: socket.socket) -> None:
    """A gateway that does whatever it is asked. It takes the socket over."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            try:
                asked = json.loads(line)
            except ValueError:  # whatever it is, here it is done
                asked = {"id": None}
            if "id" in asked:
                answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"done": True}}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()

    _serve(channel, talk)


def careless(channel: socket.socket) -> None:
    """A gateway that does whatever it is asked, and keeps whatever comes. It takes the socket over."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b""
        while part := await reader.read(65536):
            *whole, line = (line + part).split(b"\n")
            line = line[:65536]  # of a flood nothing is read
            for one in whole:
                try:
                    asked = json.loads(one)
                except ValueError:  # whatever it is, here it is done
                    asked = {"id": None}
                if "id" in asked:
                    answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"done": True}}
                    writer.write(json.dumps(answer).encode() + b"\n")
                    await writer.drain()

    _serve(channel, talk)


def boundless(channel: socket.socket) -> None:
    """A gateway that keeps whatever comes, without a bound. It takes the socket over."""
    _serve(channel, lambda reader, writer: reader.read())
