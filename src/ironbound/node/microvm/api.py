"""The client of Firecracker's API: each request once, in order, over the socket in the jail.

Decides when an answer counts: 204 and nothing else. What is sent is for `core/firecracker.py`.

Rule 1: the first request that is answered otherwise, or not in time, is the last; nothing after it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import httpx

from ironbound.core.canonical import FormatError, parse_json
from ironbound.core.firecracker import Request

ANSWER_S: Final = 10.0
APPEAR_S: Final = 20.0
PAUSE_S: Final = 0.005
MAX_ANSWER: Final = 64 * 1024
MAX_SAID: Final = 500
_DONE: Final = 204
_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class ApiRefused(Exception):
    """Firecracker did not take a request; the message is its own."""


def _fault(data: bytes) -> str:
    """Firecracker's own words in an answer's body."""
    try:
        value = parse_json(data, limit=MAX_ANSWER)
    except FormatError:
        return "no reason given"
    said = value.get("fault_message") if isinstance(value, dict) else None
    if not isinstance(said, str):
        return "no reason given"
    return "".join(char if char.isprintable() else " " for char in said)[:MAX_SAID]


async def _answered(client: httpx.AsyncClient, request: Request, deadline: float) -> httpx.Response:
    """The answer to a request; until the deadline (of the loop's clock) somebody may still begin to listen.
    ApiRefused."""
    while True:
        try:
            return await client.request(request.method, request.path, content=request.body, headers=_HEADERS)
        except httpx.ConnectError as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise ApiRefused(f"{request.path}: no API at its socket: {error}"[:MAX_SAID]) from error
            await asyncio.sleep(PAUSE_S)
        except httpx.HTTPError as error:
            raise ApiRefused(f"{request.path}: {type(error).__name__}: {error}"[:MAX_SAID]) from error


async def configure(path: str, requests: Sequence[Request]) -> None:
    """Send the requests to the API that listens, or soon will, at this path. ApiRefused."""
    deadline = asyncio.get_running_loop().time() + APPEAR_S
    transport = httpx.AsyncHTTPTransport(uds=path)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=ANSWER_S) as client:
            for request in requests:
                answer = await _answered(client, request, deadline)
                if answer.status_code != _DONE:
                    raise ApiRefused(f"{request.path}: {answer.status_code}: {_fault(answer.content)}")
    finally:
        await asyncio.sleep(0)  # closed transports let go of their sockets in the next turn
