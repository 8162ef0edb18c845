"""An operator's passkey, through the approval page: to sign with it, and to enrol it.

Decides nothing; every signature is checked here as everybody else will check it, before the page says that it is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from ironbound.core.canonical import FormatError, base64url_decode, parse_json
from ironbound.core.envelope import SigningKey
from ironbound.core.webauthn import Passkey, base64url, challenge_of, encode_assertion, verify_assertion
from ironbound.terminal.consent import Screen
from ironbound.terminal.enrol import passkey
from ironbound.terminal.login import WithLogin
from ironbound.terminal.voice import Stop

from .page import Content
from .server import PATIENCE_S, PageServer

#: Where passkeys are enrolled, and so where they sign, unless the operator names another port.
PORT: Final = 8790
RP_ID: Final = "localhost"


def origin_of(port: int) -> str:
    """The origin of pages on a port of this machine."""
    return f"http://{RP_ID}:{port}"


class PageSigner:
    """Signs with a passkey by showing each screen on a page. `facing` gives the key for one screen."""

    def __init__(self, name: str, public: Passkey, pages: PageServer) -> None:
        self.name, self.public, self._pages = name, public, pages

    def facing(self, screen: Screen, more: bool) -> SigningKey:
        """The key for the one signature that this screen is about; `more`: other screens of theirs follow."""
        return _Facing(self, screen, more)

    def sign(self, message: bytes) -> bytes:
        """Never: nothing is signed with a passkey that no screen shows."""
        raise Stop(f"{self.name}: a passkey signs on its page only")

    def close(self) -> None:
        """End the page's server."""
        self._pages.close()

    def assertion(self, screen: Screen, message: bytes, more: bool) -> bytes:
        """The passkey's signature of a message whose rows the screen shows."""
        challenge = base64url(challenge_of(message))

        def judge(answer: Mapping[str, Any]) -> bytes:
            if answer.keys() != {"authenticatorData", "clientDataJSON", "signature"}:
                raise FormatError("signature-malformed", "not an assertion")
            names = ("authenticatorData", "clientDataJSON", "signature")
            signature = encode_assertion(*(base64url_decode(str(answer[name])) for name in names))
            verify_assertion(self.public, signature, message)
            return signature

        heading = screen.signed[0].value
        words = next(row.value for row in screen.around if row.label == "words")
        content = Content(
            who=self.name,
            eyebrow=f"Ironbound · {screen.signed[1].value}",
            heading=heading[:1].upper() + heading[1:],
            lead=f"{self.name}, this is all that you sign, to the letter. Your terminal shows the same text and words.",
            ask=f"Your terminal says: {words}",
            button="Decline with passkey" if screen.declines else "Sign with passkey",
            quiet="Don't sign" if screen.declines else "Decline",
            unsigned=f"{self.name} signed no decline; the request is as it was"
            if screen.declines
            else f"{self.name} declined; nothing was signed",
            sections=(("What is signed", screen.signed), ("You and the others", screen.around)),
            options={
                "challengeFor": "get",
                "challenge": challenge,
                "rpId": self.public.rp_id,
                "credentials": [base64url(self.public.credential)],
                "timeout": int(PATIENCE_S * 1000),
            },
        )
        signature: bytes = self._pages.ask(content, judge, more)
        return signature


class _Facing:
    def __init__(self, signer: PageSigner, screen: Screen, more: bool) -> None:
        self._signer, self._screen, self._more = signer, screen, more
        self.public = signer.public

    def sign(self, message: bytes) -> bytes:
        """The passkey's assertion over a message."""
        return self._signer.assertion(self._screen, message, self._more)


def facing(key: SigningKey, screen: Screen, more: bool) -> SigningKey:
    """The key that signs what the screen shows: a page's passkey for this screen, or the key as it is."""
    if isinstance(key, WithLogin):
        return WithLogin(facing(key.device, screen, more), key.login)
    return key.facing(screen, more) if isinstance(key, PageSigner) else key


def enrol(
    name: str, party: str, port: int, tell: Callable[[str], None], patience_s: float = PATIENCE_S
) -> tuple[Passkey, dict[str, Any]]:
    """A new passkey of an operator, made on a page, and its registration as a file has it.

    `party`: what authenticators show as the place, such as a deployment's id.
    """
    challenge = base64url(os.urandom(32))
    made: dict[str, Any] = {}

    def judge(answer: Mapping[str, Any]) -> Passkey:
        key = passkey(dict(answer))
        client: Any = parse_json(base64url_decode(str(answer["response"]["clientDataJSON"])), limit=4096, depth=8)
        if client.get("challenge") != challenge:
            raise FormatError("challenge-differs", "the registration answers another page")
        if key.origin != origin_of(port) or key.rp_id != RP_ID or client.get("crossOrigin", False) is not False:
            raise FormatError("origin-differs", f"made at {key.origin}")
        if not base64url_decode(str(answer["response"]["authenticatorData"]))[32] & 0x04:
            raise FormatError("user-verification-missing", "the authenticator did not verify its user")
        made.update(answer)
        return key

    content = Content(
        who=name,
        eyebrow=f"Ironbound · {party}",
        heading=f"Make a passkey for {name}",
        lead="It will sign what you approve. It stays in your authenticator; only its public key is enrolled.",
        ask="Your device asks for your PIN, fingerprint or face.",
        button="Make passkey",
        quiet="Decline",
        unsigned=f"{name} declined; nothing was signed",
        sections=(),
        options={
            "challengeFor": "create",
            "challenge": challenge,
            "rpId": RP_ID,
            "party": f"Ironbound {party}",
            "user": base64url(os.urandom(32)),
            "name": name,
            "timeout": int(PATIENCE_S * 1000),
        },
    )
    with PageServer(origin_of(port), tell, patience_s) as pages:
        key: Passkey = pages.ask(content, judge, more=False)
    return key, made


def page_signer(name: str, key: Passkey, tell: Callable[[str], None], patience_s: float = PATIENCE_S) -> PageSigner:
    """The signer of an enrolled passkey; Stop if it was enrolled where no page of ours can be."""
    return PageSigner(name, key, PageServer(key.origin, tell, patience_s))
