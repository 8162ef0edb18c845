"""Passkeys: what an authenticator asserts, by WebAuthn level 3 §7.2.

Decides whether an assertion is an enrolled passkey's answer to this very message, at the place where it was enrolled,
by a user who was there and verified. It does not register: what was enrolled is in the trust root. Why this is our
own check and not a library's stands in docs/decisions.

Rule 1: the challenge is the SHA-256 of what is signed; rpId and origin are the enrolled ones.
Rule 2: user presence and user verification are both required.
Rule 3: nothing that we did not ask for: no extension, no attested key, no byte more; DER is its one spelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from .canonical import FormatError, b64decode, b64encode, canonical, parse_canonical, parse_json, sha256_hex
from .canonical import base64url as base64url
from .keys import KeyId, PublicKey, SignatureInvalid, verify_signature
from .strength import Assurance, Strength

WEBAUTHN: Final = "webauthn"
MAX_CLIENT_DATA: Final = 4096
"""Bytes of the client data that a browser makes."""
MAX_CREDENTIAL: Final = 1023
"""Bytes of a credential's id (WebAuthn §4)."""

_P256_PREFIX: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_P256_SIZE: Final = len(_P256_PREFIX) + 64
_PRESENT, _VERIFIED, _ELIGIBLE, _BACKED_UP = 0x01, 0x04, 0x08, 0x10
_KNOWN: Final = _PRESENT | _VERIFIED | _ELIGIBLE | _BACKED_UP
#: rpIdHash, flags, signCount: authenticator data without extensions (WebAuthn §6.1).
_DATA_SIZE: Final = 37
_RP_ID = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_ORIGIN = re.compile(r"(https://([a-z0-9.-]{1,253})|http://(localhost))(:[1-9][0-9]{0,4})?")
_FIELDS: Final = {"authenticator_data", "client_data", "signature"}


@dataclass(frozen=True, slots=True)
class Passkey:
    """An enrolled passkey. `spki` is its public key in DER: P-256 (91 bytes, ES256) or Ed25519 (44 bytes).

    `credential` is the id by which its authenticator finds it; `synced`: it can leave the device that made it
    (its backup-eligible flag, which never changes).
    """

    spki: bytes
    credential: bytes
    rp_id: str
    origin: str
    synced: bool
    keyid: KeyId = field(init=False, compare=False)
    _loaded: EllipticCurvePublicKey | PublicKey = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        origin = _ORIGIN.fullmatch(self.origin)
        host = (origin[2] or origin[3]) if origin else ""
        if not _RP_ID.fullmatch(self.rp_id) or not (host == self.rp_id or host.endswith(f".{self.rp_id}")):
            raise FormatError("key-invalid", "the origin is https (or http on localhost), within the rpId")
        if not 1 <= len(self.credential) <= MAX_CREDENTIAL:
            raise FormatError("key-invalid", f"a credential's id has 1 to {MAX_CREDENTIAL} bytes")
        object.__setattr__(self, "_loaded", _load(self.spki))
        object.__setattr__(self, "keyid", KeyId(sha256_hex(self.spki)))

    @property
    def scheme(self) -> str:
        """`webauthn`."""
        return WEBAUTHN


def _load(spki: bytes) -> EllipticCurvePublicKey | PublicKey:
    if len(spki) != _P256_SIZE or not spki.startswith(_P256_PREFIX):
        return PublicKey.from_spki(spki)
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("key-invalid", "the public key is not a point of P-256") from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise FormatError("key-invalid", "expected a key of P-256")
    return key


def cose_key(spki: bytes) -> bytes:
    """The same public key as authenticators spell it: COSE_Key in CTAP2's canonical CBOR (RFC 9053 §7)."""
    if isinstance(_load(spki), PublicKey):
        return bytes.fromhex("a4010103272006215820") + spki[-32:]
    return bytes.fromhex("a5010203262001215820") + spki[-64:-32] + bytes.fromhex("225820") + spki[-32:]


def challenge_of(message: bytes) -> bytes:
    """The 32 bytes that an authenticator is asked to sign for a message: its SHA-256."""
    return sha256(message).digest()


def encode_assertion(authenticator_data: bytes, client_data: bytes, signature: bytes) -> bytes:
    """The three parts of an assertion as the bytes of one signature in an envelope."""
    parts = {"authenticator_data": authenticator_data, "client_data": client_data, "signature": signature}
    return canonical({name: b64encode(part) for name, part in parts.items()})


def _parts(signature: bytes) -> tuple[bytes, bytes, bytes]:
    value = parse_canonical(signature, limit=4 * MAX_CLIENT_DATA)
    if type(value) is not dict or value.keys() != _FIELDS:
        raise FormatError("assertion", "expected authenticator_data, client_data and signature")
    return (
        b64decode(str(value["authenticator_data"])),
        b64decode(str(value["client_data"])),
        b64decode(str(value["signature"])),
    )


def verify_assertion(key: Passkey, signature: bytes, message: bytes) -> Assurance:
    """What this assertion proves. SignatureInvalid, with its reason, if it is not the passkey's over the message.

    (1) an assertion, spelled as we spell it  (2) made for this message  (3) at the enrolled place  (4) signed by the
    enrolled key  (5) with its user there and verified.
    """
    try:
        data, client, sig = _parts(signature)  # (1)
        said: Any = parse_json(client, limit=MAX_CLIENT_DATA, depth=8)
    except FormatError as error:
        raise SignatureInvalid(f"the assertion: {error}", "signature-malformed") from None
    if len(data) != _DATA_SIZE or type(said) is not dict:
        raise SignatureInvalid(f"{len(data)} bytes of authenticator data, not {_DATA_SIZE}", "signature-malformed")
    flags, counter = data[32], int.from_bytes(data[33:], "big")
    if flags & ~_KNOWN or (flags & _BACKED_UP and not flags & _ELIGIBLE):
        raise SignatureInvalid(f"the authenticator's flags are {flags:#04x}", "signature-malformed")
    if said.get("type") != "webauthn.get":
        raise SignatureInvalid(f"made by a {str(said.get('type'))[:40]!a}", "ceremony-differs")
    if said.get("challenge") != base64url(challenge_of(message)):  # (2)
        raise SignatureInvalid("the challenge is that of other content", "challenge-differs")
    if said.get("origin") != key.origin or said.get("crossOrigin", False) is not False or "topOrigin" in said:  # (3)
        raise SignatureInvalid(f"made at {str(said.get('origin'))[:80]!a}, not {key.origin}", "origin-differs")
    if data[:32] != sha256(key.rp_id.encode()).digest():
        raise SignatureInvalid(f"made for another party than {key.rp_id}", "rp-id-differs")
    _verify(key, sig, data + sha256(client).digest())  # (4)
    if bool(flags & _ELIGIBLE) != key.synced:
        raise SignatureInvalid("the passkey's backup eligibility is not the enrolled one", "signing-key-differs")
    if not flags & _PRESENT:  # (5)
        raise SignatureInvalid("the authenticator saw nobody", "user-presence-missing")
    if not flags & _VERIFIED:
        raise SignatureInvalid("the authenticator did not verify its user", "user-verification-missing")
    return Assurance(Strength.SOFTWARE if key.synced else Strength.HARDWARE_VERIFIED, counter)


def _verify(key: Passkey, signature: bytes, covered: bytes) -> None:
    loaded = key._loaded
    if isinstance(loaded, PublicKey):
        verify_signature(loaded, signature, covered)
        return
    try:
        if encode_dss_signature(*decode_dss_signature(signature)) != signature:
            raise SignatureInvalid("the signature is not in DER", "signature-malformed")
    except ValueError:
        raise SignatureInvalid("the signature is not in DER", "signature-malformed") from None
    try:
        loaded.verify(signature, covered, ECDSA(SHA256()))
    except InvalidSignature:
        raise SignatureInvalid(f"not a signature of {key.keyid} over this message") from None
