"""An identity provider in software, whose tokens' every field a test can set; the keys are drawn from names.

For what a real provider does see `provider_stand`; here tokens are forged that none would make.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from authenticators import DEPLOYMENT, seed
from ironbound.core.canonical import base64url
from ironbound.core.jose import IssuerKey
from ironbound.core.keys import PrivateKey
from ironbound.core.oidc import Identity, IssuerKeys, commitment, encode_identity, nonce_of
from ironbound.core.sshsig import namespace_of

ISSUER = "https://idp.example/tenant"
CLIENT = "ironbound"
ACR = "urn:example:phishing-resistant"


@cache
def rsa(name: str) -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


@dataclass
class ProviderKey:
    """A provider's signing key; `alg` is what it signs by."""

    kid: str = "k1"
    alg: str = "RS256"

    def jwk(self) -> dict[str, Any]:
        if self.alg == "RS256":
            modulus = rsa(self.kid).public_key().public_numbers().n
            named = {"kty": "RSA", "n": base64url(modulus.to_bytes(256, "big")), "e": "AQAB"}
        elif self.alg == "ES256":
            point = self._ec().public_key().public_numbers()
            named = {"kty": "EC", "crv": "P-256", "x": base64url(point.x.to_bytes(32, "big")),
                     "y": base64url(point.y.to_bytes(32, "big"))}  # fmt: skip
        else:
            named = {"kty": "OKP", "crv": "Ed25519", "x": base64url(PrivateKey.generate(seed(self.kid)).public.raw)}
        return {"kid": self.kid, "use": "sig", "alg": self.alg, **named}

    def private_jwk(self) -> dict[str, Any]:
        """With its secret, as a provider keeps it."""
        if self.alg == "RS256":
            numbers = rsa(self.kid).private_numbers()
            secret = {"d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1,
                      "qi": numbers.iqmp}  # fmt: skip
            named = {name: base64url(one.to_bytes(-(-one.bit_length() // 8), "big")) for name, one in secret.items()}
        elif self.alg == "ES256":
            named = {"d": base64url(self._ec().private_numbers().private_value.to_bytes(32, "big"))}
        else:
            named = {"d": base64url(seed(self.kid))}
        return self.jwk() | named

    @property
    def public(self) -> IssuerKey:
        jwk = self.jwk()
        return IssuerKey(self.kid, self.alg, tuple(jwk[name] for name in ("n", "x", "y") if name in jwk))

    def _ec(self) -> Any:
        return derive_private_key(int.from_bytes(seed(self.kid), "big") >> 1, SECP256R1())

    def sign(self, message: bytes) -> bytes:
        if self.alg == "RS256":
            return rsa(self.kid).sign(message, PKCS1v15(), SHA256())
        if self.alg == "ES256":
            r, s = decode_dss_signature(self._ec().sign(message, ECDSA(SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return PrivateKey.generate(seed(self.kid)).sign(message)

    def jws(self, header: Any, payload: bytes) -> str:
        head = header if isinstance(header, bytes) else json.dumps(header).encode()
        covered = f"{base64url(head)}.{base64url(payload)}"
        return f"{covered}.{base64url(self.sign(covered.encode()))}"

    def hmac_jws(self, header: Any, payload: bytes, secret: bytes) -> str:
        """Signed as HS256 with what everybody knows: the public key's own bytes."""
        covered = f"{base64url(json.dumps(header).encode())}.{base64url(payload)}"
        return f"{covered}.{base64url(hmac.digest(secret, covered.encode(), sha256))}"


def archive(*keys: ProviderKey, unseen: tuple[ProviderKey, ...] = ()) -> IssuerKeys:
    """A provider's keys that both voices said, and those that the controller alone said."""
    said = {one.kid: one.public for one in (*keys, *unseen)}
    return IssuerKeys(said, {one.kid: one.public for one in keys})


@dataclass
class Login:
    """A person's login at the provider, and the signature that it gives. `claims` and `header` are laid over."""

    name: str = "ada"
    at_s: int = 1_800_000_000
    key: ProviderKey = field(default_factory=ProviderKey)
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    cic: dict[str, Any] = field(default_factory=dict)
    ephemeral: str = "ephemeral"
    message: bytes | None = None

    @property
    def public(self) -> Identity:
        return Identity(ISSUER, CLIENT, f"sub-{self.name}", ACR, namespace_of(DEPLOYMENT))

    def commitment(self, message: bytes) -> dict[str, Any]:
        upk = PrivateKey.generate(seed("ephemeral")).public
        return commitment(upk, self.message or message, namespace_of(DEPLOYMENT), seed("rz")) | self.cic

    def payload(self, message: bytes) -> bytes:
        said = {
            "iss": ISSUER,
            "sub": f"sub-{self.name}",
            "aud": CLIENT,
            "nonce": nonce_of(self.commitment(message)),
            "acr": ACR,
            "auth_time": self.at_s,
            "iat": self.at_s,
            "exp": self.at_s + 3600,
        } | self.claims
        return json.dumps({name: value for name, value in said.items() if value is not None}).encode()

    def token(self, message: bytes) -> str:
        head = {"alg": self.key.alg, "kid": self.key.kid, "typ": "JWT"} | self.header
        return self.key.jws({name: value for name, value in head.items() if value is not None}, self.payload(message))

    def sign(self, message: bytes, token: str | None = None) -> bytes:
        """The whole signature over a message."""
        signature = PrivateKey.generate(seed(self.ephemeral)).sign(message)
        return encode_identity(token or self.token(message), self.commitment(message), signature)
