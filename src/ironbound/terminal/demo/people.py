"""The demo's operators: three with key files, or an organisation's two with passkeys, each in a browser of their own.

Decides nothing. The passkeys are Chromium's virtual authenticators, and nobody sits at the browsers: everything else,
from the enrolment page to each signature's check, is what real operators use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

from ironbound.core.keys import PrivateKey
from ironbound.core.oidc import IssuerKeys
from ironbound.core.webauthn import Passkey
from ironbound.terminal import operators
from ironbound.terminal.approval.signer import enrol, page_signer
from ironbound.terminal.consent import Screen
from ironbound.terminal.init import free_ports, initialise
from ironbound.terminal.voice import Stop
from ironbound.wire.deployment import Deployment

from .browser import Browser, Driver, Refused

QUORUM: Final = 2
#: Seconds that a page waits for its browser.
PATIENCE_S: Final = 60.0


class People(Protocol):
    """Who asks and approves in the demo."""

    title: str

    def found(self, root: Path, name: str) -> Deployment:
        """A deployment of theirs."""

    def sign(
        self, deployment: Deployment, payload: bytes, names: Sequence[str], artifacts: Sequence[bytes]
    ) -> operators.Submission:
        """A request of the first, approved by the others."""

    def speak(self, deployment: Deployment, payload: bytes) -> list[str]:
        """What is to be said of how they sign, having tried it with a request."""

    def close(self) -> None:
        """They go home."""


class KeyFiles:
    """ada, bo and cy, each with a key file and a passphrase."""

    title = "A deployment: three operators, two of whom must agree; the trust root is entry 0 of the log"

    def __init__(self) -> None:
        self._keys: dict[str, PrivateKey] = {}

    def found(self, root: Path, name: str) -> Deployment:
        """Their key files lie in the deployment."""
        phrases = [(person, os.urandom(16).hex().encode()) for person in ("ada", "bo", "cy")]
        deployment = initialise(root, name, phrases, QUORUM, environment="demo")
        for person, phrase in phrases:
            pem = (root / "operators" / f"{person}.key").read_bytes()
            self._keys[person] = PrivateKey.from_pem(pem, phrase)
        return deployment

    def sign(
        self, deployment: Deployment, payload: bytes, names: Sequence[str], artifacts: Sequence[bytes]
    ) -> operators.Submission:
        """By their key files."""
        keys = [self._keys[name] for name in names]
        return operators.sign(payload, deployment.trust.deployment, keys, artifacts)

    def speak(self, deployment: Deployment, payload: bytes) -> list[str]:
        """Nothing."""
        return []

    def close(self) -> None:
        """Nothing is left of them."""


class Passkeys:
    """ada and bo, each with a passkey in a headless browser; where the demo asks for cy, the other of them is asked."""

    title = "A deployment: two operators, each with a passkey made on their own page, who must agree on everything"

    def __init__(self) -> None:
        self._driver = Driver()
        try:
            self._browsers = {name: Browser(self._driver) for name in ("ada", "bo")}
        except Refused as error:
            self._driver.close()
            raise Stop(f"Chromium did not start: {error}") from error
        self._pool = ThreadPoolExecutor(2)
        self._keys: dict[str, Passkey] = {}
        self._words: list[str] = []
        self._sitting: Future[str] | None = None

    def found(self, root: Path, name: str) -> Deployment:
        """Each makes a passkey, and signs the trust root with it."""
        for person, port in zip(self._browsers, free_ports(len(self._browsers)), strict=True):
            self._keys[person], _ = enrol(person, name, port, self._at_browser(person), PATIENCE_S)
            self._done()
        signers = [(person, page_signer(person, key, self._at_browser(person), PATIENCE_S))
                   for person, key in self._keys.items()]  # fmt: skip
        deployment = initialise(root, name, signers, QUORUM, environment="demo", tell=self._compared)
        self._done()
        return deployment

    def sign(
        self, deployment: Deployment, payload: bytes, names: Sequence[str], artifacts: Sequence[bytes]
    ) -> operators.Submission:
        """On their pages, one after the other."""
        others = {name: ("ada" if "ada" not in names else "bo") if name == "cy" else name for name in names}
        signers = [self._signer(person) for person in dict.fromkeys(others.values())]
        issuers: dict[str, IssuerKeys] = {}
        (submission,) = operators.collect(deployment, [(payload, artifacts)], signers, self._compared, issuers)
        self._done()
        return submission

    def speak(self, deployment: Deployment, payload: bytes) -> list[str]:
        """ada signs the request; bo's device can't verify bo, and nothing comes of it."""
        self._words.clear()
        self._browsers["bo"].verify_user(False)
        try:
            self.sign(deployment, payload, ("ada", "bo"), ())
        except Stop as refused:
            said = refused.cause
        else:
            raise Stop("a passkey signed without verifying its user")
        finally:
            self._browsers["bo"].verify_user(True)
        return [
            f"✓ ada's terminal and page both say: {self._words[0]}",
            f"✗ bo's device can't verify bo: {said}",
            "not in this demo: their identity provider (`init --identity`, `--login`)",
        ]

    def close(self) -> None:
        """The browsers end."""
        self._driver.close()
        self._pool.shutdown()

    def _signer(self, person: str) -> operators.Signer:
        return operators.Signer(person, page_signer(person, self._keys[person], self._at_browser(person), PATIENCE_S))

    def _at_browser(self, person: str) -> Callable[[str], None]:
        """What the terminal says to a person: they open the page that it names, and sign."""

        def tell(line: str) -> None:
            _, found, url = line.partition(": open ")
            if found:
                self._done()
                self._sitting = self._pool.submit(self._at_page, self._browsers[person], url)

        return tell

    def _at_page(self, browser: Browser, url: str) -> str:
        """Compare the words, sign; decline what the device could not do. What the page showed as words."""
        browser.open(url)
        words = browser.text(".words dd")
        if browser.finish() == "failed":
            browser.click("#decline")
        return words

    def _compared(self, screen: Screen) -> None:
        """What the terminal shows; the page has to show the same words."""
        self._done()
        self._words.append(next(row.value for row in screen.around if row.label == "words"))

    def _done(self) -> None:
        """Wait for the person at the browser, and hold the page's words against the terminal's."""
        sitting, self._sitting = self._sitting, None
        if sitting is None:
            return
        try:
            words = sitting.result(PATIENCE_S)
        except (Refused, TimeoutError) as error:
            raise Stop(f"the browser: {error}") from error
        if words and words != self._words[-1]:
            raise Stop(f"the page says {words!r}, the terminal {self._words[-1]!r}")
