"""Authenticators in software: a passkey and an SSH security key whose every field a test can set.

The keys are drawn from a name, so that failures repeat. What they sign follows WebAuthn §6 and OpenSSH's PROTOCOL.u2f.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, derive_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ironbound.core.keys import PrivateKey
from ironbound.core.sshsig import SECURITY_KEY, SOFTWARE, SshKey, namespace_of, signed_data, ssh_string
from ironbound.core.webauthn import Passkey, base64url, challenge_of, encode_assertion

UP, UV, BE, BS, AT, ED = 0x01, 0x04, 0x08, 0x10, 0x40, 0x80
DEPLOYMENT = "lab"


def seed(name: str) -> bytes:
    return sha256(name.encode()).digest()


@dataclass
class SshDevice:
    """An SSH key, of software, or of a security key if it has an application."""

    name: str
    application: bytes | None = b"ssh:"
    flags: int = UP | UV
    counter: int = 7
    demands_verification: bool = True
    namespace: str = namespace_of(DEPLOYMENT)
    algorithm: bytes = b"sha512"
    reserved: bytes = b""

    def __post_init__(self) -> None:
        self.key = PrivateKey.generate(seed(self.name))

    @property
    def kind(self) -> bytes:
        return SOFTWARE if self.application is None else SECURITY_KEY

    @property
    def blob(self) -> bytes:
        end = b"" if self.application is None else ssh_string(self.application)
        return ssh_string(self.kind) + ssh_string(self.key.public.raw) + end

    @property
    def public(self) -> SshKey:
        verified = self.demands_verification and self.application is not None
        return SshKey(self.blob, namespace_of(DEPLOYMENT), verified)

    def inner(self, covered: bytes) -> bytes:
        """The signature over SSHSIG's data, in the key's own format."""
        if self.application is None:
            return ssh_string(SOFTWARE) + ssh_string(self.key.sign(covered))
        end = bytes([self.flags]) + self.counter.to_bytes(4, "big")
        raw = self.key.sign(sha256(self.application).digest() + end + sha256(covered).digest())
        return ssh_string(SECURITY_KEY) + ssh_string(raw) + end

    def wrap(self, inner: bytes) -> bytes:
        """The SSHSIG blob around a signature."""
        parts = (self.blob, self.namespace.encode(), self.reserved, self.algorithm, inner)
        return b"SSHSIG" + (1).to_bytes(4, "big") + b"".join(ssh_string(one) for one in parts)

    def sign(self, message: bytes) -> bytes:
        algorithm = self.algorithm if self.algorithm in (b"sha256", b"sha512") else b"sha512"
        covered = signed_data(self.namespace, message, algorithm)
        if self.reserved:
            covered = covered.replace(ssh_string(b"") + ssh_string(algorithm),
                                      ssh_string(self.reserved) + ssh_string(algorithm))  # fmt: skip
        return self.wrap(self.inner(covered))


@dataclass
class PasskeyDevice:
    """A passkey: ES256 by default, else Ed25519."""

    name: str
    ed25519: bool = False
    flags: int = UP | UV
    counter: int = 5
    rp_id: str = "localhost"
    origin: str = "http://localhost:8790"
    client: dict[str, Any] = field(default_factory=dict)
    more: bytes = b""
    challenge: bytes | None = None

    def __post_init__(self) -> None:
        self.ec = derive_private_key(int.from_bytes(seed(self.name), "big") >> 1, SECP256R1())
        self.ed = PrivateKey.generate(seed(self.name))

    @property
    def spki(self) -> bytes:
        if self.ed25519:
            return self.ed.public.spki()
        return self.ec.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def credential(self) -> bytes:
        return seed(f"credential of {self.name}")

    @property
    def public(self) -> Passkey:
        return Passkey(self.spki, self.credential, "localhost", "http://localhost:8790", bool(self.flags & BE))

    def cose(self) -> bytes:
        """The public key as COSE_Key in CTAP2's canonical CBOR (RFC 9053)."""
        if self.ed25519:
            return bytes.fromhex("a4010103272006215820") + self.ed.public.raw
        return bytes.fromhex("a5010203262001215820") + self.spki[-64:-32] + bytes.fromhex("225820") + self.spki[-32:]

    def raw(self, covered: bytes) -> bytes:
        return self.ed.sign(covered) if self.ed25519 else self.ec.sign(covered, ECDSA(SHA256()))

    def parts(self, message: bytes) -> tuple[bytes, bytes, bytes]:
        """Authenticator data, client data and signature of an assertion over a message."""
        challenge = challenge_of(message) if self.challenge is None else self.challenge
        said: dict[str, Any] = {
            "type": "webauthn.get",
            "challenge": base64url(challenge),
            "origin": self.origin,
            "crossOrigin": False,
        }
        said = {key: value for key, value in (said | self.client).items() if value is not None}
        client = json.dumps(said, separators=(",", ":")).encode()
        data = sha256(self.rp_id.encode()).digest() + bytes([self.flags]) + self.counter.to_bytes(4, "big") + self.more
        return data, client, self.raw(data + sha256(client).digest())

    def sign(self, message: bytes) -> bytes:
        return encode_assertion(*self.parts(message))

    def registration(self, challenge: bytes = b"c" * 32, **response: Any) -> dict[str, Any]:
        """What a browser's `credential.toJSON()` gives after a registration without attestation."""
        client = {"type": "webauthn.create", "challenge": base64url(challenge), "origin": self.origin,
                  "crossOrigin": False}  # fmt: skip
        data = (
            sha256(self.rp_id.encode()).digest()
            + bytes([self.flags | AT])
            + self.counter.to_bytes(4, "big")
            + bytes(16)
            + len(self.credential).to_bytes(2, "big")
            + self.credential
            + self.cose()
        )
        form = bytes.fromhex("a363666d74646e6f6e656761747453746d74a068617574684461746158")
        attested = form + bytes([len(data)]) + data
        return {
            "id": base64url(self.credential),
            "rawId": base64url(self.credential),
            "type": "public-key",
            "clientExtensionResults": {},
            "response": {
                "clientDataJSON": base64url(json.dumps(client, separators=(",", ":")).encode()),
                "attestationObject": base64url(attested),
                "authenticatorData": base64url(data),
                "publicKey": base64url(self.spki),
                "publicKeyAlgorithm": -8 if self.ed25519 else -7,
                "transports": ["internal"],
            }
            | response,
        }
