"""How often a peer may speak on the operator channel: one token bucket for each.

Decides whether a request is let through, and keeps count of those that are not. A peer is a user on the Unix socket, an
address elsewhere; all of loopback is one, and so is an IPv6 network of 64 bits. It doesn't read what is asked.

Rule 1: whoever goes over the rate is answered 429 and told when to come again; nothing of the request is read.
Rule 2: a flood costs the log one entry a minute and peer: the first refusal is an entry before it is an answer, the
        others are counted, and their number is an entry at the minute's end.
Rule 3: what is kept is bounded: MAX_PEERS peers, and one bucket for all that come on top.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from ironbound.wire.loopback import peer_named

#: Requests that a peer can make at once, and how many it gets back each second.
BURST: Final = 512
PER_SECOND: Final = 8
#: Seconds within which a peer's refusals become one entry.
WINDOW_S: Final = 60.0
MAX_PEERS: Final = 1024
OTHERS: Final = "others"

#: Answers a request that is over the rate: (scope, receive, send, seconds to wait, peer or None if it is only counted).
Refuse = Callable[[Scope, Receive, Send, int, str | None], Awaitable[None]]
#: Says in the log that so many requests of a peer were refused within the window.
Tell = Callable[[str, int], Awaitable[None]]


def peer_of(scope: Scope) -> str:
    """Who speaks: `user 1000`, an address, `loopback`, or an IPv6 network."""
    client = scope.get("client")
    return peer_named(str(client[0])) if client else OTHERS


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float


class Pace:
    """The buckets. Times are seconds of one clock that never goes back."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def wait_s(self, peer: str, now_s: float) -> float:
        """Take a token: 0 if there was one, else the seconds until there is."""
        bucket = self._bucket(peer, now_s)
        bucket.tokens = min(float(BURST), bucket.tokens + (now_s - bucket.at_s) * PER_SECOND)
        bucket.at_s = now_s
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / PER_SECOND
        bucket.tokens -= 1
        return 0

    def _bucket(self, peer: str, now_s: float) -> _Bucket:
        if peer not in self._buckets and len(self._buckets) >= MAX_PEERS:
            full = [name for name, one in self._buckets.items() if (now_s - one.at_s) * PER_SECOND >= BURST]
            for name in full:
                del self._buckets[name]
            if not full:
                peer = OTHERS
        return self._buckets.setdefault(peer, _Bucket(float(BURST), now_s))


class Paced:
    """An application that each peer can ask at its pace. `close` says what was still only counted."""

    def __init__(self, app: ASGIApp, refuse: Refuse, tell: Tell) -> None:
        self._app = app
        self._refuse = refuse
        self._tell = tell
        self._pace = Pace()
        self._counted: dict[str, int] = {}
        self._windows: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        peer = peer_of(scope)
        wait = self._pace.wait_s(peer, asyncio.get_running_loop().time())
        if not wait:
            await self._app(scope, receive, send)
            return
        if peer not in self._counted and len(self._counted) >= MAX_PEERS:
            peer = OTHERS
        first = peer not in self._counted
        if first:
            self._counted[peer] = 0
            window = asyncio.create_task(self._window(peer))
            self._windows.add(window)
            window.add_done_callback(self._windows.discard)
        else:
            self._counted[peer] += 1
        await self._refuse(scope, receive, send, int(wait) + 1, peer if first else None)

    async def close(self) -> None:
        """End the windows now."""
        for window in list(self._windows):
            window.cancel()
        await asyncio.gather(*self._windows, return_exceptions=True)
        for peer, count in list(self._counted.items()):
            if count:
                await self._tell(peer, count)

    async def _window(self, peer: str) -> None:
        """Until a minute passes without a refusal."""
        while True:
            await asyncio.sleep(WINDOW_S)
            if not self._counted[peer]:
                del self._counted[peer]
                return
            count, self._counted[peer] = self._counted[peer], 0
            await self._tell(peer, count)
