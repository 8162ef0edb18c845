"""The agent channel as a transport of the MCP SDK: newline-delimited JSON-RPC on the process's own stdin and stdout.

`mcp.server.stdio.stdio_server` gives the same two streams and works here too. This one needs no thread, so it runs
under `max_processes = 1`, and ends when the agent or the gateway does, instead of waiting for one more line.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def channel(incoming: int = 0, outgoing: int = 1) -> AsyncIterator[Streams]:
    """The streams that a `ClientSession` takes. Raises EOFError, in a group, when the gateway closes the channel."""
    os.set_blocking(incoming, False)
    os.set_blocking(outgoing, False)
    heard, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, said = anyio.create_memory_object_stream[SessionMessage](0)

    async def receive() -> None:
        rest = b""
        async with heard:
            while True:
                await anyio.wait_readable(incoming)
                try:
                    data = os.read(incoming, 1 << 16)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    data = b""
                if not data:
                    raise EOFError
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    await heard.send(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))

    async def send() -> None:
        async with said:
            async for one in said:
                left = memoryview(one.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                while left:
                    try:
                        left = left[os.write(outgoing, left) :]
                    except BlockingIOError:
                        await anyio.wait_writable(outgoing)
                    except ConnectionError:
                        raise EOFError from None

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        group.start_soon(send)
        yield read, write
        group.cancel_scope.cancel()
