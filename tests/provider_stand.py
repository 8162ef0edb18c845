"""A real identity provider for the tests: the demo's own (`terminal/demo/provider.py`), with the keys of `identities`.

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
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin

import httpx

from identities import ProviderKey
from ironbound.terminal.demo import provider
from ironbound.terminal.demo.provider import install, missing

__all__ = ["IdentityProvider", "Person", "install", "missing"]


class IdentityProvider(provider.IdentityProvider):
    """One provider on loopback, whose keys a test knows."""

    #: Another client of the same provider, whose tokens are not for us.
    other_client = "payroll"
    clients = (provider.IdentityProvider.client, other_client)

    def __init__(self, place: Path, *keys: ProviderKey, token_s: int = 3600) -> None:
        self.keys = keys or (ProviderKey("first"),)
        accounts = {name: f"password of {name}" for name in ("ada", "bo", "cy", "eve")}
        super().__init__(place, accounts, [key.private_jwk() for key in self.keys], token_s)

    def enrolment(self, name: str) -> str:
        """An account as `init --identity` takes it."""
        return f"{name}={self.issuer},{self.client},{name},{self.acr}"

    def start(self) -> IdentityProvider:
        self.serve()
        return self

    def rotate(self, *keys: ProviderKey) -> None:
        """Serve with other keys. Sessions end with the process, so everybody logs in anew."""
        self.stop()
        self.keys = keys
        self.jwks = [key.private_jwk() for key in keys]
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
