"""Identities: what an ID token of an enrolled provider proves about who approved, in OpenPubkey's form.

A signature is an ID token and an ephemeral key's signature. The token's nonce is the hash of a document (CIC) that
holds the ephemeral key and the SHA-256 of what is signed, so that the provider's word is about this very content.
Sources: OpenID Connect Core 1.0 §2 and §3.1.3.7; OpenPubkey, "PK Token"; RFC 8785.

Decides whether a token is the enrolled provider's word, for the enrolled client, about the enrolled person, who had
just logged in as strongly as the trust root asks. It does not decide which keys the provider has: `IssuerKeys`.

Rule 1: an identity alone never counts (`request` asks for a device key of the same human beside it), and never where
the trust root is signed: there it has no keys to be judged by.
Rule 2: a provider's key counts while controller and monitor both say it: each fetched it by itself.
Rule 3: issuer, audience, authorised party, subject and acr are the enrolled ones, as returned, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha3_256, sha256
from typing import Any, Final

from .canonical import (
    FormatError,
    Value,
    b64decode,
    b64encode,
    base64url,
    base64url_decode,
    canonical,
    parse_canonical,
    parse_json,
    sha256_hex,
)
from .jose import IssuerKey, verify_jws
from .keys import ED25519, KeyId, PublicKey, SignatureInvalid, verify_signature
from .strength import Assurance, Strength

OIDC: Final = "oidc"
#: How long before its token was made a login may have been: longer ago it is a session that somebody may have taken.
FRESH_LOGIN_S: Final = 300
#: How far the provider's clock may run before ours.
SKEW_S: Final = 60
MAX_SIGNATURE: Final = 16_384
"""Bytes of a whole signature: token, CIC and the ephemeral key's own."""

_ISSUER = re.compile(
    r"(https://[a-z0-9.-]{1,253}|http://(127\.0\.0\.1|localhost))(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._~/-]*)?"
)
_WORD = re.compile(r"[\x21-\x7e]{1,255}")
_PARTS: Final = {"cic", "signature", "token"}
_CIC: Final = {"typ", "alg", "rz", "upk", "att", "role"}


@dataclass(frozen=True, slots=True)
class Identity:
    """A person at an identity provider: issuer (its exact URL), client id, subject, and the acr that a login must have.

    `role` is what they sign for: a deployment's operators. `keyid` names the person, whatever the client.
    An issuer is https; http only on loopback, which no other machine can speak for.
    """

    issuer: str
    client: str
    subject: str
    acr: str
    role: str
    keyid: KeyId = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.issuer) > 255 or not _ISSUER.fullmatch(self.issuer):
            raise FormatError("key-invalid", "an issuer is its https URL, without query or fragment")
        if not all(_WORD.fullmatch(one) for one in (self.client, self.subject, self.acr)):
            raise FormatError("key-invalid", "client, subject and acr have 1 to 255 printable ASCII characters each")
        named: Value = {"issuer": self.issuer, "subject": self.subject}
        object.__setattr__(self, "keyid", KeyId(sha256_hex(canonical(named))))

    @property
    def scheme(self) -> str:
        """`oidc`."""
        return OIDC


@dataclass(frozen=True, slots=True)
class IssuerKeys:
    """A provider's keys by kid, as the controller said them last and as the monitor saw them last."""

    said: Mapping[str, IssuerKey] = field(default_factory=dict)
    seen: Mapping[str, IssuerKey] = field(default_factory=dict)

    def confirmed(self) -> dict[str, IssuerKey]:
        """Those that count: both said the very same."""
        return {kid: key for kid, key in self.said.items() if self.seen.get(kid) == key}

    def unconfirmed(self) -> dict[str, IssuerKey]:
        """Those that the controller alone said."""
        return {kid: key for kid, key in self.said.items() if self.seen.get(kid) != key}


@dataclass(frozen=True, slots=True)
class PresentIdentity:
    """An identity at one moment of the log: with its provider's keys and the time, so that it can be judged."""

    identity: Identity
    keys: IssuerKeys
    now_ms: int

    @property
    def keyid(self) -> KeyId:
        """The identity's."""
        return self.identity.keyid


def commitment(upk: PublicKey, message: bytes, role: str, rz: bytes) -> dict[str, Value]:
    """The CIC: ephemeral key, SHA-256 of the message, what for, and 32 random bytes that hide it from the provider."""
    key: dict[str, Value] = {"crv": "Ed25519", "kty": "OKP", "x": base64url(upk.raw)}
    att = sha256(message).hexdigest()
    return {"typ": "CIC", "alg": "EdDSA", "rz": base64url(rz), "upk": key, "att": att, "role": role}


def nonce_of(cic: Mapping[str, Value]) -> str:
    """The nonce that a login is asked to carry for a CIC."""
    return base64url(sha3_256(canonical(dict(cic))).digest())


def encode_identity(token: str, cic: Mapping[str, Value], signature: bytes) -> bytes:
    """The bytes of one signature in an envelope."""
    return canonical({"token": token, "cic": dict(cic), "signature": b64encode(signature)})


def _parts(signature: bytes) -> tuple[str, dict[str, Any], PublicKey, bytes]:
    """Token, CIC, the ephemeral key in it and its signature. FormatError if they are not of their form."""
    value = parse_canonical(signature, limit=MAX_SIGNATURE)
    if type(value) is not dict or value.keys() != _PARTS:
        raise FormatError("identity", "expected token, cic and signature")
    token, cic = value["token"], value["cic"]
    if type(token) is not str or type(cic) is not dict or cic.keys() != _CIC:
        raise FormatError("identity", "expected a token and a CIC of typ, alg, rz, upk, att and role")
    upk: Any = cic["upk"]
    if type(upk) is not dict or upk.keys() != {"crv", "kty", "x"} or (upk["crv"], upk["kty"]) != ("Ed25519", "OKP"):
        raise FormatError("identity", "the ephemeral key is an Ed25519 key")
    if (cic["typ"], cic["alg"]) != ("CIC", "EdDSA") or len(base64url_decode(str(cic["rz"]))) != 32:
        raise FormatError("identity", "a CIC has its typ, its key's alg and 32 random bytes")
    return token, cic, PublicKey(ED25519, base64url_decode(str(upk["x"]))), b64decode(str(value["signature"]))


def verify_identity(present: PresentIdentity, signature: bytes, message: bytes) -> Assurance:
    """What this signature proves. SignatureInvalid, with its reason, if it is not the person's over the message.

    (1) token and CIC, spelled as we spell them  (2) the token is signed by a key that both voices said  (3) it is the
    enrolled provider's, for the enrolled client, about the enrolled person  (4) its nonce stands for the CIC
    (5) which is about this message, in this deployment  (6) after a fresh login of the strength that is asked
    (7) now  (8) and the ephemeral key signed.
    """
    identity = present.identity
    try:
        token, cic, ephemeral, sig = _parts(signature)  # (1)
    except FormatError as error:
        raise SignatureInvalid(f"the identity's signature: {error}", "signature-malformed") from None
    claims = _claims(token, present.keys)  # (2)
    _is(claims, "iss", identity.issuer, "token-issuer-differs")  # (3)
    if claims.get("aud") not in (identity.client, [identity.client]):
        raise _differs("aud", claims.get("aud"), identity.client, "token-audience-differs")
    if "azp" in claims:
        _is(claims, "azp", identity.client, "token-party-differs")
    _is(claims, "sub", identity.subject, "token-subject-differs")
    if "nonce" not in claims:  # (4)
        raise SignatureInvalid("the token carries no nonce, so it is about nothing", "token-nonce-missing")
    _is(claims, "nonce", nonce_of(cic), "token-nonce-differs")
    _is(cic, "att", sha256(message).hexdigest(), "token-for-another-request")  # (5)
    _is(cic, "role", identity.role, "token-for-another-deployment")
    _is(claims, "acr", identity.acr, "token-acr-differs")  # (6)
    _check_times(claims, present.now_ms)  # (6) (7)
    try:
        verify_signature(ephemeral, sig, message)  # (8)
    except SignatureInvalid:
        raise SignatureInvalid("not signed by the key that the token is about", "ephemeral-key-differs") from None
    return Assurance(Strength.PROVIDER)


def _payload(token: str, keys: IssuerKeys) -> bytes:
    try:
        return verify_jws(token, keys.confirmed())
    except SignatureInvalid as error:
        if error.code == "issuer-key-unknown":
            verify_jws(token, keys.unconfirmed())
            text = "the provider's key is the controller's word alone: the monitor does not see it"
            raise SignatureInvalid(text, "issuer-key-unconfirmed") from None
        raise


def _claims(token: str, keys: IssuerKeys) -> dict[str, Any]:
    payload = _payload(token, keys)
    try:
        claims = parse_json(payload, limit=len(payload), depth=8)
    except FormatError as error:
        raise SignatureInvalid(f"the token's claims: {error}", "token-malformed") from None
    if type(claims) is not dict:
        raise SignatureInvalid("the token's claims are no object", "token-malformed")
    return claims


def _is(claims: Mapping[str, Any], name: str, expected: str, code: str) -> None:
    if claims.get(name) != expected:
        raise _differs(name, claims.get(name), expected, code)


def _differs(name: str, got: Any, expected: str, code: str) -> SignatureInvalid:
    return SignatureInvalid(f"{name}: expected {expected[:80]!a}, got {str(got)[:80]!a}", code)


def _check_times(claims: Mapping[str, Any], now_ms: int) -> None:
    for name in ("iat", "exp", "auth_time"):
        if type(claims.get(name, 0)) is not int:
            raise SignatureInvalid(f"the token's {name} is no whole number of seconds", "token-malformed")
    if "iat" not in claims or "exp" not in claims:
        raise SignatureInvalid("the token does not say when it was made and until when it holds", "token-malformed")
    if "auth_time" not in claims:
        raise SignatureInvalid("the token does not say when its person logged in", "login-time-missing")
    made, login = claims["iat"], claims["auth_time"]
    if not made - FRESH_LOGIN_S <= login <= made + SKEW_S:
        raise SignatureInvalid(f"logged in {made - login} s before the token was made", "login-not-fresh")
    if (made - SKEW_S) * 1000 > now_ms:
        raise SignatureInvalid("the token is made in the future", "token-too-early")
    if claims["exp"] * 1000 <= now_ms:
        raise SignatureInvalid("the token has expired", "token-expired")
