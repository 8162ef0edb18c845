"""An operator's login at their identity provider: authorization code with PKCE, back to loopback, for one content.

Decides nothing: the token is checked here as everybody else will check it, so that what a provider leaves out is told
at once. Sources: OpenID Connect Core 1.0 §3.1, RFC 7636 (PKCE), RFC 8252 §7.3 (loopback redirect), RFC 9207 (iss).

Rule 1: the nonce stands for the content, so each signature takes a login of its own.
Rule 2: the login is fresh: `prompt=login` and `max_age=0` ask for it, and `auth_time` as returned has to show it.
Rule 3: an answer counts if it has the state that was sent, and the issuer if the provider names itself. No device flow:
its tokens have no nonce, and whoever sends somebody a code gets their login.
"""

from __future__ import annotations

import os
import queue
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from ironbound.core.canonical import FormatError, base64url, parse_json
from ironbound.core.envelope import SigningKey
from ironbound.core.keys import PrivateKey, SignatureInvalid
from ironbound.core.oidc import (
    Identity,
    IssuerKeys,
    PresentIdentity,
    commitment,
    encode_identity,
    nonce_of,
    verify_identity,
)
from ironbound.core.reasons import REASONS
from ironbound.core.scheme import OperatorKey
from ironbound.wire.issuer import MAX_DOCUMENT, Discovery, IssuerUnavailable, discover, published_keys, speak
from ironbound.wire.log import now_ms

from .voice import Stop, note

#: Seconds in which a human has logged in.
PATIENCE_S: Final = 300.0
#: Seconds that a browser's request may take to arrive.
REQUEST_S: Final = 5.0
MAX_ANSWER: Final = 8192
"""Characters of the path and query with which the provider sends the browser back."""
CALLBACK: Final = "/callback"

_HEADERS: Final = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
}
_PAGE: Final = '<!doctype html><html lang="en"><title>Ironbound</title><p>{}</p></html>\n'


class Login:
    """Signs with a human's identity: one login for each signature, in the browser of whoever sits here.

    `name` is the human's on the roster, `port` the loopback port to come back to (0: any free one), `tell` says a line.
    """

    def __init__(
        self, name: str, public: Identity, tell: Callable[[str], None], port: int = 0, patience_s: float = PATIENCE_S
    ) -> None:
        self.name, self.public = name, public
        self._tell, self._port, self._patience_s = tell, port, patience_s

    def sign(self, message: bytes) -> bytes:
        """The identity's signature over a message; Stop if the login fails or proves too little.

        (1) an ephemeral key and what commits to it  (2) the login  (3) its token  (4) checked as others will.
        """
        issuer = self.public.issuer
        ephemeral = PrivateKey.generate(os.urandom(32))
        cic = commitment(ephemeral.public, message, self.public.role, os.urandom(32))  # (1)
        verifier = base64url(os.urandom(32))
        try:
            provider = discover(issuer)
            with _callback(self._port) as (redirect, answers):
                code = self._code(provider, redirect, answers, nonce_of(cic), verifier)  # (2)
            token = self._token(provider, redirect, code, verifier)  # (3)
            signature = encode_identity(token, cic, ephemeral.sign(message))
            keys = {key.kid: key for key in published_keys(issuer)}
            self._check(PresentIdentity(self.public, IssuerKeys(keys, keys), now_ms()), signature, message)  # (4)
        except IssuerUnavailable as error:
            raise Stop(f"the identity provider of {self.name}: {error}", "is it reached from here?") from error
        return signature

    def _code(
        self, provider: Discovery, redirect: str, answers: queue.Queue[dict[str, str]], nonce: str, verifier: str
    ) -> str:
        state = base64url(os.urandom(32))
        asked = {
            "response_type": "code",
            "client_id": self.public.client,
            "redirect_uri": redirect,
            "scope": "openid",
            "state": state,
            "nonce": nonce,
            "code_challenge": base64url(sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
            "prompt": "login",
            "max_age": "0",
            "acr_values": self.public.acr,
        }
        joint = "&" if urlsplit(provider.authorization).query else "?"
        url = f"{provider.authorization}{joint}{urlencode(asked)}"
        self._tell(f"{self.name} logs in at {self.public.issuer}, in a browser on this machine:")
        self._tell(url)
        answer = self._answer(answers, state)
        if provider.names_itself and answer.get("iss") != provider.issuer:
            raise Stop(f"the login was answered by {answer.get('iss', 'nobody')[:200]!a}, not by {provider.issuer}")
        if "error" in answer:
            text = f"{answer['error'][:100]} {answer.get('error_description', '')[:300]}".strip()
            raise Stop(f"{provider.issuer} refused the login of {self.name}: {text!a}")
        if not answer.get("code"):
            raise Stop(f"{provider.issuer} answered the login of {self.name} without a code")
        return answer["code"]

    def _answer(self, answers: queue.Queue[dict[str, str]], state: str) -> dict[str, str]:
        """The first answer that knows the state: anybody's page can send a browser to this port."""
        deadline = now_ms() + self._patience_s * 1000
        while True:
            try:
                answer = answers.get(timeout=max(0.0, (deadline - now_ms()) / 1000))
            except queue.Empty:
                raise Stop(f"{self.name} did not log in within {self._patience_s:.0f} s", "ask again") from None
            if answer.get("state") == state:
                return answer

    def _token(self, provider: Discovery, redirect: str, code: str, verifier: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "client_id": self.public.client,
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect,
        }
        status, body = speak("POST", provider.token, MAX_DOCUMENT, form)
        try:
            said: Any = parse_json(body, limit=MAX_DOCUMENT, depth=8)
        except FormatError as error:
            raise IssuerUnavailable(f"{provider.token}: answered {status}, {error}") from error
        if status != 200 or type(said) is not dict or type(said.get("id_token")) is not str:
            told = said if type(said) is dict else {}
            text = f"{told.get('error', '')} {told.get('error_description', '')}".strip()
            raise IssuerUnavailable(f"{provider.token}: answered {status} without an ID token: {text[:300]!a}")
        token: str = said["id_token"]
        return token

    def _check(self, present: PresentIdentity, signature: bytes, message: bytes) -> None:
        try:
            verify_identity(present, signature, message)
        except SignatureInvalid as error:
            raise Stop(f"the login of {self.name}: {error.code}: {error}", REASONS[error.code]) from error


def in_browser(line: str) -> None:
    """Say a line in the terminal; an address is opened in the browser of a desktop too."""
    note(line)
    if line.startswith("http") and sys.stderr.isatty() and {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        webbrowser.open(line)


@dataclass(frozen=True, slots=True)
class WithLogin:
    """A device's key and a login of the same human, who signs with both."""

    device: SigningKey
    login: Login

    @property
    def public(self) -> OperatorKey:
        """The device's."""
        return self.device.public

    def sign(self, message: bytes) -> bytes:
        """The device's signature alone; `keys_of` gives both."""
        return self.device.sign(message)


def keys_of(key: SigningKey) -> list[SigningKey]:
    """What signs an envelope together."""
    return [key.device, key.login] if isinstance(key, WithLogin) else [key]


@contextmanager
def _callback(port: int) -> Iterator[tuple[str, queue.Queue[dict[str, str]]]]:
    """A place for the browser to come back to: the redirect URI, and what came to it."""
    answers: queue.Queue[dict[str, str]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_S

        def do_GET(self) -> None:
            """Take an answer at the callback, by the name that was given out; anything else is not here."""
            place = urlsplit(self.path)
            here = f"127.0.0.1:{self.connection.getsockname()[1]}"
            if place.path != CALLBACK or len(self.path) > MAX_ANSWER or self.headers.get("host") != here:
                self._say(404, "There is nothing here.")
                return
            pairs = parse_qsl(place.query)
            if len(dict(pairs)) == len(pairs):
                answers.put(dict(pairs))
            self._say(200, "Your terminal goes on. You can close this page.")

        def _say(self, status: int, text: str) -> None:
            body = _PAGE.format(text).encode()
            self.send_response(status)
            for name, value in {**_HEADERS, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:
            """The answer holds a code; nothing of it goes to a terminal."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise Stop(f"port {port} of this machine: {error.strerror}", "name another with --login NAME=PORT") from error
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{CALLBACK}", answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
