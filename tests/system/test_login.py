"""A login at a real identity provider gives a signature for one content, and what is not that login gives none."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from authenticators import DEPLOYMENT
from identities import ProviderKey
from ironbound.core.canonical import base64url, base64url_decode
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
from ironbound.core.sshsig import namespace_of
from ironbound.core.strength import Strength
from ironbound.terminal.login import Login
from ironbound.terminal.voice import Stop
from ironbound.wire.issuer import IssuerUnavailable, discover, published_keys, speak
from provider_stand import IdentityProvider, Person

MESSAGE = b"DSSEv1 28 application/vnd.in-toto+json 2 {}"
OTHER = b"DSSEv1 28 application/vnd.in-toto+json 4 {  }"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


@pytest.fixture
def provider(provider_place: Path) -> Iterator[IdentityProvider]:
    running = IdentityProvider(provider_place).start()
    yield running
    running.stop()


def identity(provider: IdentityProvider, subject: str = "ada", **other: str) -> Identity:
    words = {"issuer": provider.issuer, "client": provider.client, "acr": provider.acr} | other
    return Identity(subject=subject, role=namespace_of(DEPLOYMENT), **words)


def judge(provider: IdentityProvider, signature: bytes, message: bytes = MESSAGE, **changed: Any) -> Any:
    """What everybody else says of the signature, with the keys that the provider publishes now."""
    keys = {key.kid: key for key in published_keys(provider.issuer)}
    now_ms = changed.pop("now_ms", time.time_ns() // 1_000_000)
    known = changed.pop("keys", IssuerKeys(keys, keys))
    return verify_identity(PresentIdentity(identity(provider, **changed), known, now_ms), signature, message)


def refused(provider: IdentityProvider, signature: bytes, message: bytes = MESSAGE, **changed: Any) -> str:
    with pytest.raises(SignatureInvalid) as caught:
        judge(provider, signature, message, **changed)
    return caught.value.code


def logged_in(who: Identity, person: Person, message: bytes = MESSAGE, patience_s: float = 60.0) -> bytes:
    try:
        return Login("ada", who, person.told, patience_s=patience_s).sign(message)
    finally:
        person.done()


def asked(url: str, **changes: str | None) -> str:
    """The URL with some of its query changed, or taken out (None)."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), **changes}
    return parts._replace(query=urlencode({name: value for name, value in query.items() if value is not None})).geturl()


def stopped(who: Identity, person: Person, match: str, patience_s: float = 60.0) -> None:
    with pytest.raises(Stop, match=match):
        logged_in(who, person, patience_s=patience_s)


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_a_login_signs_one_content(provider_place: Path, alg: str) -> None:
    provider = IdentityProvider(provider_place, ProviderKey("k", alg)).start()
    try:
        person = Person(provider.browser(), "ada")
        signature = logged_in(identity(provider), person)
        assert judge(provider, signature).strength is Strength.PROVIDER
        assert person.seen is not None and "close this page" in person.seen.text
        assert refused(provider, signature, OTHER) == "token-for-another-request"
        assert refused(provider, signature, issuer="https://idp.example") == "token-issuer-differs"
        assert refused(provider, signature, client=provider.other_client) == "token-audience-differs"
        assert refused(provider, signature, subject="bo") == "token-subject-differs"
        assert refused(provider, signature, acr="urn:test:stronger") == "token-acr-differs"
        later = time.time_ns() // 1_000_000 + provider.token_s * 1000
        assert refused(provider, signature, now_ms=later) == "token-expired"
        # The person is asked anew, although their browser has a session now.
        claims = json.loads(base64url_decode(json.loads(signature)["token"].split(".")[1]))
        assert abs(claims["auth_time"] - claims["iat"]) <= 2
        needed = {"iss", "sub", "aud", "nonce", "acr", "auth_time", "iat", "exp"}
        assert set(claims) - {"at_hash"} == needed, "no name, no address"
    finally:
        provider.stop()


def test_what_is_asked_of_the_provider_binds_the_login(provider: IdentityProvider) -> None:
    person = Person(provider.browser(), "ada")
    logged_in(identity(provider), person)
    url = next(line for line in person.lines if line.startswith("http"))
    query = dict(parse_qsl(urlsplit(url).query))
    assert query["prompt"] == "login" and query["max_age"] == "0" and query["scope"] == "openid"
    assert query["code_challenge_method"] == "S256" and query["response_type"] == "code"
    assert urlsplit(query["redirect_uri"]).hostname == "127.0.0.1" and urlsplit(query["redirect_uri"]).scheme == "http"
    again = Person(provider.browser(), "ada")
    logged_in(identity(provider), again)
    other = dict(parse_qsl(urlsplit(next(line for line in again.lines if line.startswith("http"))).query))
    assert all(query[name] != other[name] for name in ("state", "nonce", "code_challenge"))


def test_a_taken_session_is_not_a_login(provider: IdentityProvider) -> None:
    """The thief has the browser's cookies, and asks without `prompt`: the provider gives a token without a question."""
    browser = provider.browser()
    first = Person(browser, "ada", ago="7200")
    stopped(identity(provider), first, "login-not-fresh")
    thief = Person(provider.browser(), "nobody", lambda url: asked(url, prompt=None, max_age="86400"))
    thief._browser._client.cookies = browser._client.cookies
    stopped(identity(provider), thief, "login-not-fresh")
    assert thief.seen is not None and "close this page" in thief.seen.text, "the provider did give a token"


def test_a_login_without_its_time_is_refused(provider: IdentityProvider) -> None:
    browser = provider.browser()
    logged_in(identity(provider), Person(browser, "ada"))
    silent = Person(provider.browser(), "nobody", lambda url: asked(url, prompt=None, max_age=None))
    silent._browser._client.cookies = browser._client.cookies
    stopped(identity(provider), silent, "login-time-missing")


def test_a_weaker_login_or_another_person_is_refused(provider: IdentityProvider) -> None:
    who = identity(provider)
    stopped(who, Person(provider.browser(), "ada", acr="urn:test:password"), "token-acr-differs")
    stopped(who, Person(provider.browser(), "eve"), "token-subject-differs")
    stopped(who, Person(provider.browser(), "ada", lambda url: asked(url, nonce="n")), "token-nonce-differs")
    stopped(who, Person(provider.browser(), "ada", lambda url: asked(url, nonce=None)), "token-nonce-missing")


def test_an_answer_that_is_not_for_this_login_is_passed_over(provider: IdentityProvider) -> None:
    """Somebody else's page sends the browser to the port: without the state nothing comes of it."""

    def disturb(url: str) -> str:
        here = dict(parse_qsl(urlsplit(url).query))["redirect_uri"]
        state = dict(parse_qsl(urlsplit(url).query))["state"]
        with httpx.Client(trust_env=False, timeout=30) as client:
            twice = f"?code=x&state={state}&state={state}"
            for query in ("", "?code=x", "?code=x&state=y", twice, "?state=" + "x" * 9000):
                client.get(here + query)
            assert client.get(here.replace("/callback", "/other")).status_code == 404
            port = urlsplit(here).port
            wrong = {"host": f"evil.example:{port}"}
            assert client.get(f"{here}?error=x&state={state}", headers=wrong).status_code == 404
        return url

    assert judge(provider, logged_in(identity(provider), Person(provider.browser(), "ada", disturb)))


def test_a_provider_that_another_one_answers_for_is_noticed(provider: IdentityProvider) -> None:
    """The mix-up: the answer has the state and a code, and another issuer's name."""

    def mixed_up(url: str) -> str:
        query = dict(parse_qsl(urlsplit(url).query))
        return f"{query['redirect_uri']}?{urlencode({'state': query['state'], 'code': 'x', 'iss': 'https://evil.example'})}"

    stopped(identity(provider), Person(provider.browser(), "ada", mixed_up), "answered by")


def test_what_goes_wrong_is_said_with_its_cause(provider: IdentityProvider) -> None:
    stopped(identity(provider, client="unknown"), Person(provider.browser(), "ada"), "did not log in", patience_s=2)
    unasked = Person(provider.browser(), "ada", lambda url: asked(url, scope="profile"))
    stopped(identity(provider), unasked, "refused the login")
    swapped = Person(provider.browser(), "ada", lambda url: asked(url, code_challenge=base64url(bytes(32))))
    stopped(identity(provider), swapped, "invalid_grant")
    taken = httpx.URL(provider.issuer).port
    with pytest.raises(Stop, match=f"port {taken}"):
        Login("ada", identity(provider), lambda line: None, port=taken or 0).sign(MESSAGE)
    provider.stop()
    stopped(identity(provider), Person(provider.browser(), "ada"), "identity provider of ada")


def test_the_device_flow_gives_a_token_that_is_about_nothing(provider: IdentityProvider) -> None:
    """Its tokens carry no nonce, so whoever sends somebody a code could have anything signed: they are refused."""
    ephemeral = PrivateKey.generate(bytes(32))
    cic = commitment(ephemeral.public, MESSAGE, namespace_of(DEPLOYMENT), bytes(32))
    form = {"client_id": provider.client, "scope": "openid", "nonce": nonce_of(cic), "acr_values": provider.acr,
            "max_age": "0"}  # fmt: skip
    status, body = speak("POST", f"{provider.issuer}/device/auth", 65536, form)
    said = json.loads(body)
    assert status == 200, said
    browser = provider.browser()
    assert "error" not in browser.visit(said["verification_uri_complete"], "ada").text.lower()
    browser.close()
    form = {"grant_type": DEVICE, "client_id": provider.client, "device_code": said["device_code"]}
    status, body = speak("POST", f"{provider.issuer}/token", 65536, form)
    token = json.loads(body)["id_token"]
    reason = refused(provider, encode_identity(token, cic, ephemeral.sign(MESSAGE)))
    assert reason in ("token-nonce-missing",), json.loads(base64url_decode(token.split(".")[1]))


def test_only_the_pinned_provider_is_believed(provider: IdentityProvider) -> None:
    port = httpx.URL(provider.issuer).port
    assert discover(provider.issuer).issuer == provider.issuer
    for other in (f"http://localhost:{port}", f"{provider.issuer}/"):
        with pytest.raises(IssuerUnavailable, match="names the issuer"):
            discover(other)
    with pytest.raises(IssuerUnavailable):
        discover(f"{provider.issuer}/nothing/here")
    with pytest.raises(IssuerUnavailable, match="more than 10 bytes"):
        speak("GET", f"{provider.issuer}/jwks", 10)
    provider.stop()
    with pytest.raises(IssuerUnavailable):
        published_keys(provider.issuer)
