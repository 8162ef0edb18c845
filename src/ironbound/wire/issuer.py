"""What an identity provider publishes: its discovery document and its JWK set, fetched over HTTPS.

Decides that they are the pinned issuer's own and small enough to be read; what a key is worth, the log decides
(`core.oidc`). Source: OpenID Connect Discovery 1.0 §4.

Rule 1: the issuer is the URL in the trust root, and the document has to name the very same.
Rule 2: no redirect, no proxy of the environment, certificates by the machine's own store. Plain HTTP is spoken on
loopback alone, with an issuer that the trust root names so.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ironbound.core.canonical import FormatError, parse_json
from ironbound.core.jose import MAX_KEY_SET, IssuerKey, parse_key_set

MAX_DOCUMENT: Final = 65_536
"""Bytes of a discovery document, and of an answer to a login."""
ANSWER_S: Final = 10.0
"""Seconds in which a provider has answered in whole."""
DISCOVERY: Final = "/.well-known/openid-configuration"


class IssuerUnavailable(Exception):
    """The provider can't be reached, or what it says is not an OpenID provider's."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """Where a provider's endpoints are. `names_itself`: it adds `iss` to the answer of a login (RFC 9207)."""

    issuer: str
    authorization: str
    token: str
    key_set: str
    names_itself: bool


def speak(method: str, url: str, limit: int, form: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Status and body of one exchange. IssuerUnavailable if there is none, in time, within `limit` bytes."""
    import httpx  # who has no identities needs none of it

    deadline = time.monotonic() + ANSWER_S
    context = ssl.create_default_context() if url.startswith("https:") else False
    body = b""
    try:
        with (
            httpx.Client(verify=context, trust_env=False, timeout=ANSWER_S, follow_redirects=False) as client,
            client.stream(method, url, data=form, headers={"accept": "application/json"}) as answer,
        ):
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > limit:
                    raise IssuerUnavailable(f"{url}: more than {limit} bytes")
                if time.monotonic() > deadline:
                    raise IssuerUnavailable(f"{url}: not answered within {ANSWER_S:.0f} s")
            return answer.status_code, body
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise IssuerUnavailable(f"{url}: {error or type(error).__name__}") from error


def _document(url: str, limit: int) -> bytes:
    status, body = speak("GET", url, limit)
    if status != 200:
        raise IssuerUnavailable(f"{url}: answered {status}")
    return body


def discover(issuer: str) -> Discovery:
    """What the provider says about itself."""
    url = issuer.rstrip("/") + DISCOVERY
    try:
        said: Any = parse_json(_document(url, MAX_DOCUMENT), limit=MAX_DOCUMENT, depth=8)
    except FormatError as error:
        raise IssuerUnavailable(f"{url}: {error}") from error
    if type(said) is not dict or said.get("issuer") != issuer:
        got = said.get("issuer") if type(said) is dict else None
        raise IssuerUnavailable(f"{url}: names the issuer {str(got)[:200]!a}, the trust root {issuer!a}")
    scheme = issuer.partition("://")[0]
    found = [said.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
    if not all(type(one) is str and one.startswith(f"{scheme}://") for one in found):
        raise IssuerUnavailable(f"{url}: its endpoints are {scheme} URLs")
    if "S256" not in said.get("code_challenge_methods_supported", ["S256"]):
        raise IssuerUnavailable(f"{url}: the provider has no PKCE with S256")
    names_itself = said.get("authorization_response_iss_parameter_supported") is True
    return Discovery(issuer, str(found[0]), str(found[1]), str(found[2]), names_itself)


def published_keys(issuer: str) -> tuple[IssuerKey, ...]:
    """The provider's keys for signatures, as it publishes them now."""
    url = discover(issuer).key_set
    try:
        return parse_key_set(_document(url, MAX_KEY_SET))
    except FormatError as error:
        raise IssuerUnavailable(f"{url}: {error}") from error
