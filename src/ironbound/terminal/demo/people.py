"""The demo's operators: three with key files; or an organisation: two passkeys, a key file and a security key.

Decides nothing. The organisation knows its people by a real identity provider too. Each passkey is a virtual
authenticator of Chromium, in a browser of its own, the security key is a program too, and nobody sits there: everything
else, from the enrolment page to each signature's check, is what real operators use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

from ironbound.core.canonical import base64url, base64url_decode
from ironbound.core.envelope import PAYLOAD_TYPE, Envelope, Signature, SigningKey, pae, sign_envelope
from ironbound.core.keys import PrivateKey
from ironbound.core.oidc import Identity
from ironbound.core.request import encode_approval
from ironbound.core.sshsig import namespace_of
from ironbound.core.statement import parse_statement
from ironbound.core.webauthn import Passkey, challenge_of, encode_assertion
from ironbound.terminal import operators
from ironbound.terminal.approval.signer import enrol, facing, page_signer
from ironbound.terminal.consent import Screen, approval_screen
from ironbound.terminal.init import free_ports, initialise
from ironbound.terminal.login import Login, WithLogin
from ironbound.terminal.voice import Stop
from ironbound.wire.deployment import Deployment
from ironbound.wire.log import fresh_id

from .browser import Browser, Driver, Refused
from .provider import IdentityProvider, install
from .security_key import TouchedKey

QUORUM: Final = 2
#: Seconds that a page waits for its browser.
PATIENCE_S: Final = 60.0
#: What the organisation's people log in for, beside their passkey's signature.
WITH_LOGIN: Final = frozenset({"grant", "launch-request"})


class People(Protocol):
    """Who asks and approves in the demo. `unshown`: what this machine could not show of it, and what is for later."""

    title: str
    unshown: list[str]
    #: Whether the other boundaries are a part of the play.
    beyond_wasm: bool

    def found(self, root: Path, name: str, release: Path | None) -> Deployment:
        """A deployment of theirs, for the releases of one key, or for any."""

    def sign(
        self, deployment: Deployment, payloads: Sequence[tuple[bytes, Sequence[bytes]]], names: Sequence[str]
    ) -> list[operators.Submission]:
        """Requests of the first, each with its artifacts, approved by the others."""

    def speak(self, deployment: Deployment, payload: bytes) -> list[str]:
        """What is to be said of how they sign, having tried it with a request. Stop if it does not go as it has to."""

    def close(self) -> None:
        """They go home."""


class KeyFiles:
    """ada, bo and cy, each with a key file and a passphrase."""

    title = "A deployment: three operators, two of whom must agree; the trust root is entry 0 of the log"
    beyond_wasm = True

    def __init__(self) -> None:
        self._keys: dict[str, PrivateKey] = {}
        self.unshown: list[str] = []

    def found(self, root: Path, name: str, release: Path | None) -> Deployment:
        """Their key files lie in the deployment."""
        phrases = _phrases("ada", "bo", "cy")
        deployment = initialise(root, name, phrases, QUORUM, environment="demo", release=release)
        self._keys = _opened(root, phrases)
        return deployment

    def sign(
        self, deployment: Deployment, payloads: Sequence[tuple[bytes, Sequence[bytes]]], names: Sequence[str]
    ) -> list[operators.Submission]:
        """By their key files."""
        return _sign(deployment, payloads, [self._keys[name] for name in names])

    def speak(self, deployment: Deployment, payload: bytes) -> list[str]:
        """Nothing."""
        return []

    def close(self) -> None:
        """Nothing is left of them."""


def _phrases(*people: str) -> list[tuple[str, bytes]]:
    return [(person, os.urandom(16).hex().encode()) for person in people]


def _opened(root: Path, phrases: Sequence[tuple[str, bytes]]) -> dict[str, PrivateKey]:
    files = {person: (root / "operators" / f"{person}.key").read_bytes() for person, _ in phrases}
    return {person: PrivateKey.from_pem(files[person], phrase) for person, phrase in phrases}


def _sign(
    deployment: Deployment, payloads: Sequence[tuple[bytes, Sequence[bytes]]], keys: Sequence[SigningKey]
) -> list[operators.Submission]:
    return [operators.sign(payload, deployment.trust.deployment, keys, artifacts) for payload, artifacts in payloads]


class Organisation:
    """ada and bo, each with a passkey in a headless browser; cy with a key file, and di with a security key that is
    touched and verifies nobody, for many requests at once.

    Where this machine can have an identity provider, ada and bo have an identity at it as well. Where the demo asks for
    cy about one request, the other of the first two is asked.
    """

    title = "An organisation: ada and bo have passkeys, cy a key file, di a security key to touch; two must agree"
    beyond_wasm = False

    def __init__(self) -> None:
        self.unshown = ["other boundaries than Wasm: `ironbound demo` without --org shows them"]
        self._home = Path(tempfile.mkdtemp(prefix="ironbound-provider-"))
        self._driver = Driver()
        self._pool = ThreadPoolExecutor(3)
        self._installing = self._pool.submit(install, self._home / "p")
        try:
            self._browsers = {name: Browser(self._driver) for name in ("ada", "bo")}
        except Refused as error:
            self.close()
            raise Stop(f"Chromium did not start: {error}") from error
        self._provider: IdentityProvider | None = None
        self._passwords = {name: os.urandom(12).hex() for name in self._browsers}
        self._keys: dict[str, Passkey] = {}
        self._others: dict[str, SigningKey] = {}
        self._identities: dict[str, Identity] = {}
        self._shown: dict[str, list[str]] = defaultdict(list)
        self._sitting: tuple[str, Future[list[str]]] | None = None

    def found(self, root: Path, name: str, release: Path | None) -> Deployment:
        """Each makes a passkey, and signs the trust root with it; their provider is enrolled if there is one."""
        for person, port in zip(self._browsers, free_ports(len(self._browsers)), strict=True):
            self._keys[person], _ = enrol(person, name, port, self._at_browser(person), PATIENCE_S)
            self._done()
        try:
            provider = IdentityProvider(self._installing.result(), self._passwords)
            provider.serve()
        except Stop as lacking:
            self.unshown.append(
                f"the identity provider: {lacking.cause}" + (f" ({lacking.hint})" if lacking.hint else "")
            )
        else:
            self._provider = provider
            role = namespace_of(name)
            for person in self._browsers:
                self._identities[person] = Identity(provider.issuer, provider.client, person, provider.acr, role)
        signers = [(person, page_signer(person, key, self._at_browser(person), PATIENCE_S))
                   for person, key in self._keys.items()]  # fmt: skip
        phrases, touched = _phrases("cy"), TouchedKey(name)
        deployment = initialise(
            root,
            name,
            [*signers, *phrases, ("di", touched)],
            QUORUM,
            environment="demo",
            identities=self._identities,
            release=release,
            tell=self._compared,
        )
        self._done()
        self._others = {**_opened(root, phrases), "di": touched}
        return deployment

    def sign(
        self, deployment: Deployment, payloads: Sequence[tuple[bytes, Sequence[bytes]]], names: Sequence[str]
    ) -> list[operators.Submission]:
        """On their pages, one after the other, and for grants and launches with a login; many at once by cy and di."""
        if len(payloads) > 1:
            return _sign(deployment, payloads, list(self._others.values()))
        others = {name: ("ada" if "ada" not in names else "bo") if name == "cy" else name for name in names}
        logs_in = bool(self._identities) and all(parse_statement(one).kind in WITH_LOGIN for one, _ in payloads)
        signers = [self._signer(person, logs_in) for person in dict.fromkeys(others.values())]
        issuers = operators.replayed(deployment).books.issuers if logs_in else None
        submissions = operators.collect(deployment, payloads, signers, self._compared, issuers)
        self._done()
        return submissions

    def speak(self, deployment: Deployment, payload: bytes) -> list[str]:
        """ada asks; bo's device can't verify bo, then bo's passkey or identity alone approves: nothing comes of it."""
        asked = operators.collect(deployment, [(payload, ())], [self._signer("ada", False)], self._compared, None)[0]
        lines = [f"✓ ada's terminal and page both say: {self._shown['ada'][-1]}"]
        self._done()
        self._browsers["bo"].verify_user(False)
        try:
            signer = self._signer("bo", False)
            operators.collect_approvals(deployment, [(asked.request, ())], [signer], self._compared, None)
        except Stop as declined:
            lines.append(f"✗ bo's device can't verify bo: {declined.cause}")
        else:
            raise Stop("a passkey signed without verifying its user")
        finally:
            self._done()
        try:
            approval = self._touched(deployment, asked.request)
        finally:
            self._browsers["bo"].verify_user(True)
        said = _refusal(deployment, asked.request, approval, "user-verification-missing")
        lines.append(f"✗ bo's passkey without user verification, for a page that asks for none: {said}")
        if self._provider is not None:
            approval = sign_envelope(_approval(deployment, asked.request), [self._login("bo")])
            self._done()
            said = _refusal(deployment, asked.request, approval, "identity-alone")
            lines.append(f"✗ bo's login at the identity provider alone: {said}")
        return lines

    def close(self) -> None:
        """The browsers end, and the provider."""
        self._driver.close()
        self._pool.shutdown()
        provider = getattr(self, "_provider", None)
        if provider is not None:
            provider.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _signer(self, person: str, logs_in: bool) -> operators.Signer:
        key = page_signer(person, self._keys[person], self._at_browser(person), PATIENCE_S)
        if logs_in:
            return operators.Signer(person, WithLogin(key, self._login(person)))
        return operators.Signer(person, key)

    def _login(self, person: str) -> Login:
        return Login(person, self._identities[person], self._at_browser(person), patience_s=PATIENCE_S)

    def _touched(self, deployment: Deployment, request: Envelope) -> Envelope:
        """bo's approval as a page gets it that does not ask for user verification, on the origin of bo's own."""
        payload, key = _approval(deployment, request), self._keys["bo"]
        screen = approval_screen(deployment.trust, request, (), "bo", None)
        said: dict[str, str] = {}

        def tell(line: str) -> None:
            self._sitting = "bo", self._pool.submit(touch, line.partition(": open ")[2])

        def touch(url: str) -> list[str]:
            browser = self._browsers["bo"]
            browser.open(url)
            challenge = base64url(challenge_of(pae(PAYLOAD_TYPE, payload)))
            said.update(browser.assertion(challenge, base64url(key.credential), "discouraged"))
            browser.click("#decline")
            return []

        signer = page_signer("bo", key, tell, PATIENCE_S)
        try:
            facing(signer, screen, False).sign(payload)
        except Stop:
            self._done()
        finally:
            signer.close()
        names = ("authenticatorData", "clientDataJSON", "signature")
        signature = encode_assertion(*(base64url_decode(said[name]) for name in names))
        return Envelope(payload, (Signature(key.keyid, signature),))

    def _at_browser(self, person: str) -> Callable[[str], None]:
        """What the terminal says to a person: they open the address that it names, and sign, or log in."""

        def tell(line: str) -> None:
            _, found, url = line.partition(": open ")
            if found or line.startswith("http"):
                self._done()
                work = self._at_page if found else self._at_provider
                self._sitting = person, self._pool.submit(work, person, url or line)

        return tell

    def _at_page(self, person: str, url: str) -> list[str]:
        """Sign each page; decline what the device could not do. What the pages showed as words."""
        browser, seen = self._browsers[person], list[str]()
        browser.open(url)
        if browser.finish(".words dd", seen) == "failed":
            browser.click("#decline")
        return seen

    def _at_provider(self, person: str, url: str) -> list[str]:
        """Log in."""
        browser = self._browsers[person]
        browser.open(url)
        browser.fill("#name", person)
        browser.fill("#password", self._passwords[person])
        browser.click("#login")
        return []

    def _compared(self, screen: Screen) -> None:
        """What the terminal shows; the page has to show the same words."""
        self._shown[screen.human].append(next(row.value for row in screen.around if row.label == "words"))

    def _done(self) -> None:
        """Wait for the person at the browser, and hold the pages' words against the terminal's."""
        sitting, self._sitting = self._sitting, None
        if sitting is None:
            return
        person, work = sitting
        try:
            words = work.result(PATIENCE_S)
        except (Refused, TimeoutError) as error:
            raise Stop(f"the browser: {error}") from error
        if words and words != self._shown.pop(person):
            raise Stop(f"{person}'s pages do not say the words that the terminal says")


def _approval(deployment: Deployment, request: Envelope) -> bytes:
    expires = parse_statement(request.payload).predicate["expires_ms"]
    return encode_approval(request, deployment=deployment.trust.deployment, approval_id=fresh_id(), expires_ms=expires)


def _refusal(deployment: Deployment, request: Envelope, approval: Envelope, reason: str) -> str:
    """What the controller says to a request with this approval: it has to refuse it for this reason."""
    try:
        operators.submit(deployment, operators.Submission(request, (approval,), ()))
    except operators.Refusal as refusal:
        if refusal.reason != reason:
            raise Stop(f"refused for {refusal.reason}, and it should be for {reason}") from refusal
        return refusal.cause
    raise Stop(f"an approval counted that should be refused: {reason}")
