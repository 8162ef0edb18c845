"""A real identity provider for the tests: npm's `oidc-provider`, installed by `npm ci` from `provider/`'s lock file.

    place = install(folder)                       # once: npm ci, a few seconds, nothing outside the folder
    provider = IdentityProvider(place).start()    # serves on loopback until `stop()`, or until this process ends
    provider.issuer, provider.client, provider.acr
    provider.browser().visit(url, "ada")          # what a person does with the URL that a login prints
    provider.rotate(ProviderKey("k2", "ES256"))   # other keys from now on

`init --identity` takes `provider.enrolment("ada")`. For a browser of your own: the login page has the fields `#name`
and `#password` and the button `#login`; each account's password is in `provider.accounts`. Started by hand, it is
`node provider.mjs` in the folder, with its settings as JSON in the first line of its input (see there).
"""

from __future__ import annotations

import html.parser
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx

from identities import ProviderKey

SOURCE = Path(__file__).resolve().parent / "provider"
#: Seconds in which npm has fetched and unpacked a hundred small packages, on a busy machine too.
INSTALL_S = 240
START_S = 60
NEEDED = ("node", "npm")


def missing() -> list[str]:
    """The programs that this machine lacks for a provider."""
    return [one for one in NEEDED if shutil.which(one) is None]


def install(place: Path) -> Path:
    """The provider with its packages in `place`, which is made. RuntimeError with npm's words if it can't be had."""
    place.mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json", "provider.mjs"):
        shutil.copy(SOURCE / file, place)
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(place / "cache")]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"npm ci: {done.stderr[-2000:]}")
    return place


class IdentityProvider:
    """One provider on loopback. Its port stays the same over restarts, so its issuer does."""

    client = "ironbound"
    #: Another client of the same provider, whose tokens are not for us.
    other_client = "payroll"
    acr = "urn:test:phishing-resistant"

    def __init__(self, place: Path, *keys: ProviderKey, token_s: int = 3600) -> None:
        self.place, self.token_s = place, token_s
        self.keys = keys or (ProviderKey("first"),)
        self.accounts = {name: f"password of {name}" for name in ("ada", "bo", "cy", "eve")}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[str] | None = None

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def enrolment(self, name: str) -> str:
        """An account as `init --identity` takes it."""
        return f"{name}={self.issuer},{self.client},{name},{self.acr}"

    def start(self) -> IdentityProvider:
        settings: dict[str, Any] = {
            "port": self.port,
            "jwks": {"keys": [key.private_jwk() for key in self.keys]},
            "accounts": self.accounts,
            "acr": self.acr,
            "clients": [self.client, self.other_client],
            "token_s": self.token_s,
        }
        with open(self.place / f"{self.port}.log", "a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                ["node", "provider.mjs"], cwd=self.place, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log,
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(settings) + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "ready\n":
            self.stop()
            raise RuntimeError((self.place / f"{self.port}.log").read_text("utf-8")[-2000:])
        return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def rotate(self, *keys: ProviderKey) -> None:
        """Serve with other keys. Sessions end with the process, so everybody logs in anew."""
        self.stop()
        self.keys = keys
        self.start()

    def browser(self) -> Browser:
        """A browser with cookies of its own."""
        return Browser(self.accounts)


class _Forms(html.parser.HTMLParser):
    """The first form of a page: where it goes, and what its fields hold."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = found.get("action") or ""
        elif tag == "input" and found.get("name"):
            self.fields[str(found["name"])] = found.get("value") or ""


class Browser:
    """What a person's browser does at a provider: keeps cookies, follows redirects, fills in forms."""

    def __init__(self, accounts: dict[str, str]) -> None:
        self._accounts = accounts
        self._client = httpx.Client(trust_env=False, timeout=30)

    def visit(self, url: str, name: str, **fields: str) -> httpx.Response:
        """Open a URL and log in as `name` wherever that is asked; the page where it ends. `fields` go into forms too.

        The last page of a login is the one that the waiting command shows on loopback.
        """
        answer = self._follow(self._client.get(url))
        for _ in range(5):
            form = _Forms()
            form.feed(answer.text)
            if form.action is None or answer.status_code >= 400:
                return answer
            filled = form.fields | fields
            if "password" in form.fields:
                filled |= {"name": name, "password": self._accounts[name]}
            answer = self._follow(self._client.post(urljoin(str(answer.url), form.action), data=filled))
        return answer

    def _follow(self, answer: httpx.Response) -> httpx.Response:
        while answer.is_redirect:
            answer = self._client.get(urljoin(str(answer.url), answer.headers["location"]))
        return answer

    def close(self) -> None:
        self._client.close()


class Person:
    """Somebody who opens the URL that a login prints. `before` may change it; what they see last is in `seen`."""

    def __init__(
        self, browser: Browser, name: str, before: Callable[[str], str] = lambda url: url, **fields: str
    ) -> None:
        self._browser, self._name, self._before, self._fields = browser, name, before, fields
        self.lines: list[str] = []
        self.seen: httpx.Response | None = None
        self._thread: threading.Thread | None = None

    def told(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("http"):
            self._thread = threading.Thread(target=self._visit, args=(self._before(line),))
            self._thread.start()

    def _visit(self, url: str) -> None:
        with suppress(httpx.HTTPError):
            self.seen = self._browser.visit(url, self._name, **self._fields)

    def done(self) -> None:
        if self._thread is not None:
            self._thread.join(60)
        self._browser.close()
