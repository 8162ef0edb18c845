"""Serves one operator's screens on loopback, each behind a path that is used once, and takes their passkey's answers.

Decides who may ask for a screen and who may answer it; whether an answer is a signature is the judge's, which the
caller gives along. Runs in a thread of its own, since the command waits. Source: Fetch metadata (W3C), CSP level 3.

Rule 1: the Host is `localhost` and our port, by which a name that somebody else rebinds to 127.0.0.1 is refused.
Rule 2: a screen is handed out once, to a navigation that no other site began and that is no browser's guess ahead.
Rule 3: an answer comes from the page that was handed out: its origin, its secret, JSON and nothing else.
Rule 4: the page loads nothing, and runs only the script and style that are in it, by their digests.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ironbound.core.canonical import FormatError, parse_json
from ironbound.core.keys import SignatureInvalid
from ironbound.core.reasons import REASONS
from ironbound.terminal.voice import Stop
from ironbound.wire.loopback import LoopbackServer

from .page import POLICY, Content, render

MAX_ANSWER: Final = 32_768
"""Bytes of a passkey's answer."""
TRIES: Final = 5
"""Answers that can be refused before the command ends."""
#: Seconds in which a human has read and signed a screen.
PATIENCE_S: Final = 300.0
#: Seconds that a browser waits for the next screen of the same command.
NEXT_S: Final = 20.0

_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "publickey-credentials-get=(self), publickey-credentials-create=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

#: Turns an answer into what was asked for; FormatError or SignatureInvalid if it is not that.
Judge = Callable[[Mapping[str, Any]], Any]


def _drawn() -> str:
    return urlsafe_b64encode(os.urandom(24)).decode()


@dataclass(slots=True)
class _Screen:
    """A screen while it waits for its answer."""

    content: Content
    judge: Judge
    next: str | None
    secret: str = field(default_factory=_drawn)
    answered: Future[Any] = field(default_factory=Future)
    opened: bool = False
    refused: int = 0


class PageServer:
    """The server of one command at one origin, such as http://localhost:8790. `tell` speaks to the terminal."""

    def __init__(self, origin: str, tell: Callable[[str], None], patience_s: float = PATIENCE_S) -> None:
        parts = urlsplit(origin)
        if parts.scheme != "http" or parts.hostname != "localhost" or parts.port is None:
            raise Stop(
                f"the passkey is enrolled at {origin}, where this command can't open a page",
                "sign with a passkey of http://localhost:PORT, made by `ironbound operator passkey`",
            )
        self._origin, self._port = origin, parts.port
        self._tell, self._patience = tell, patience_s
        self._path = f"/{_drawn()}"
        self._screens: dict[str, _Screen] = {}
        self._arrived = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="approval-page", daemon=True)
        self._server: LoopbackServer | None = None
        self._told = False

    def __enter__(self) -> PageServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, content: Content, judge: Judge, more: bool) -> Any:
        """Show a screen and wait: what the judge made of the answer. Stop if there is none.

        `more`: another screen follows in this command, to which the browser goes by itself.
        """
        self._start()
        path, following = self._path, f"/{_drawn()}"
        screen = _Screen(content, judge, following if more else None)
        self._loop.call_soon_threadsafe(self._show, path, screen, following)
        if not self._told:
            self._tell(f"{content.who}: open {self._origin}{path}")
        self._told = more
        try:
            return screen.answered.result(self._patience)
        except TimeoutError:
            raise Stop(
                f"{content.who}: nothing was signed in {self._patience:.0f} s", "start the command again"
            ) from None
        finally:
            self._loop.call_soon_threadsafe(self._screens.pop, path, None)

    def close(self) -> None:
        """End the server; what it is answering is finished first."""
        if self._thread.is_alive():
            if self._server is not None:
                asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _start(self) -> None:
        if self._thread.is_alive():
            return
        self._thread.start()
        starting = LoopbackServer.start_localhost(self._serve, self._port)
        try:
            self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        except OSError as error:
            raise Stop(
                f"{self._origin} is not free: {error.strerror}",
                f"end what listens there: ss -ltnp sport = {self._port}",
            ) from error

    def _show(self, path: str, screen: _Screen, following: str) -> None:
        self._screens[path], self._path = screen, following
        self._arrived.set()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        answer.headers.update(_HEADERS)
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.headers.get("host") != f"localhost:{self._port}":
            return _no(421, "this page is at localhost only")
        path = request.url.path
        if path == self._path:  # the browser is here before the command has made the screen
            await self._next(path)
        screen = self._screens.get(path)
        if screen is None or request.url.query:
            return _no(404, "no such page: it was signed, declined or never there")
        if request.method == "GET":
            return self._hand_out(request, screen)
        if request.method == "POST":
            return await self._take(request, screen)
        return _no(405, "a page is read once and answered")

    async def _next(self, path: str) -> None:
        deadline = self._loop.time() + NEXT_S
        while path not in self._screens and self._loop.time() < deadline:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), deadline - self._loop.time())
            except TimeoutError:
                return

    def _hand_out(self, request: Request, screen: _Screen) -> Response:
        head = request.headers
        if (
            head.get("sec-fetch-site", "none") not in ("none", "same-origin")
            or head.get("sec-fetch-mode", "navigate") != "navigate"
            or head.get("sec-fetch-dest", "document") != "document"
        ):
            return _no(403, "another site asked for this page")
        if "sec-purpose" in head:
            return _no(403, "this page is for whoever opens it")
        if screen.opened:
            self._tell(f"{screen.content.who}: the page was opened a second time, and not shown. Was it you?")
            return _no(410, "this page was opened already: end the command with Ctrl-C, and start it again")
        screen.opened = True
        return Response(render(screen.content, screen.secret), media_type="text/html")

    async def _take(self, request: Request, screen: _Screen) -> Response:
        head = request.headers
        if head.get("origin") != self._origin or head.get("sec-fetch-site", "same-origin") != "same-origin":
            return _no(403, "another site sent this answer")
        if not hmac.compare_digest(head.get("ironbound-page", "").encode(), screen.secret.encode()):
            return _no(403, "not from the page that was handed out")
        if head.get("content-type") != "application/json":
            return _no(415, "an answer is JSON")
        if screen.answered.done():
            return _no(410, "answered already")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_ANSWER:
                return _no(413, "an answer is smaller")
        return self._judged(screen, bytes(body))

    def _judged(self, screen: _Screen, body: bytes) -> Response:
        try:
            said = parse_json(body, limit=MAX_ANSWER, depth=8)
            if type(said) is not dict:
                raise FormatError("answer-malformed", "expected an object")
            if said.keys() == {"declined"} and said["declined"] is True:
                screen.answered.set_exception(Stop(screen.content.unsigned))
                return JSONResponse({"declined": True})
            value = screen.judge(said)
        except (FormatError, SignatureInvalid) as error:
            return self._refuse(screen, error)
        screen.answered.set_result(value)
        return JSONResponse({"accepted": True, "next": screen.next})

    def _refuse(self, screen: _Screen, error: FormatError | SignatureInvalid) -> Response:
        screen.refused += 1
        again = screen.refused < TRIES
        self._tell(f"{screen.content.who}: refused: {error.code}: {REASONS.get(error.code, error)}")
        if not again:
            screen.answered.set_exception(
                Stop(f"{screen.content.who}: {error.code}: {error}", REASONS.get(error.code, "start the command again"))
            )
        value = {"accepted": False, "reason": error.code, "text": REASONS.get(error.code, str(error)), "again": again}
        return JSONResponse(value, 422)


def _no(status: int, text: str) -> Response:
    return Response(f"{text}\n", status, media_type="text/plain")
