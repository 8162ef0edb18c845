"""Envelopes: DSSE v1 around one payload, signed by one key or several.

Decides whether bytes are an envelope and whether each signature in it is valid under a set of keys. It does
not decide what the payload means, whose the keys are, or how many signatures are enough.

Rule 1: a signature covers the pre-authentication encoding (PAE) of the exact payload bytes; parsing comes
after.
Rule 2: an envelope has one spelling: canonical JSON, standard base64, signatures in ascending order of key
id.
Rule 3: every signature counts: one that is unknown or invalid makes the whole envelope invalid.
Rule 4: the scheme of a signature comes from the key, never from the envelope.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from .canonical import (
    Digest,
    FormatError,
    Value,
    b64decode,
    b64encode,
    canonical,
    hex_bytes,
    parse_canonical,
    sha256_hex,
)
from .keys import KeyId, SignatureInvalid
from .scheme import OperatorKey, VerifyingKey, verify_scheme
from .strength import Assurance

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE = 65_535
"""Bytes of an envelope: an entry bundle has no room for more."""
MAX_SIGNATURES = 16
MAX_SIGNATURE = 16_384
"""Bytes of one signature."""

_ONE_SIGNATURE = re.compile(
    rb'\{"payload":"([A-Za-z0-9+/=]*)","payloadType":"application/vnd\.in-toto\+json",'
    rb'"signatures":\[\{"keyid":"([0-9a-f]{64})","sig":"([A-Za-z0-9+/=]*)"\}\]\}'
)


class SignerUnknown(SignatureInvalid):
    """A signature is by a key that is not among those given."""


def pae(payload_type: str, body: bytes) -> bytes:
    """The bytes that are signed (DSSE v1, "PAE")."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature and the id of the key that is said to have made it."""

    keyid: KeyId
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with its signatures, which stand in ascending order of key id."""

    payload: bytes
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        count = len(self.signatures)
        if not 1 <= count <= MAX_SIGNATURES:
            raise FormatError("envelope-signatures", f"expected 1 to {MAX_SIGNATURES}, got {count}")
        if count > 1:
            ordered = tuple(sorted(self.signatures, key=lambda signature: signature.keyid))
            object.__setattr__(self, "signatures", ordered)
            if any(one.keyid == other.keyid for one, other in pairwise(ordered)):
                raise FormatError("envelope-signatures", "two signatures by one key")

    @property
    def digest(self) -> Digest:
        """SHA-256 of the payload."""
        return sha256_hex(self.payload)

    def as_value(self) -> Value:
        """The envelope as a JSON value, to stand inside another document."""
        signatures: list[Value] = [{"keyid": one.keyid, "sig": b64encode(one.sig)} for one in self.signatures]
        return {"payload": b64encode(self.payload), "payloadType": PAYLOAD_TYPE, "signatures": signatures}

    def encode(self) -> bytes:
        """The envelope's bytes. Larger than MAX_ENVELOPE is a FormatError, since nobody would read it."""
        data = canonical(self.as_value())
        if len(data) > MAX_ENVELOPE:
            raise FormatError("too-large", f"expected at most {MAX_ENVELOPE} bytes, got {len(data)}")
        return data


def parse_envelope(data: bytes) -> Envelope:
    """The envelope of canonical bytes; says nothing about its signatures' validity."""
    match = _ONE_SIGNATURE.fullmatch(data) if len(data) <= MAX_ENVELOPE else None
    if match is not None:  # nearly every entry: spelled as `encode` spells it, so there is nothing else to check
        payload, keyid, sig = (str(part, "ascii") for part in match.groups())
        return Envelope(b64decode(payload), (_signature({"keyid": keyid, "sig": sig}),))
    return envelope_from_value(parse_canonical(data, limit=MAX_ENVELOPE))


def envelope_from_value(value: Value) -> Envelope:
    """The envelope of a JSON value, as `as_value` gives it."""
    if not isinstance(value, dict) or value.keys() != {"payload", "payloadType", "signatures"}:
        raise FormatError("envelope-shape", "expected an object of payload, payloadType and signatures")
    if value["payloadType"] != PAYLOAD_TYPE:
        raise FormatError("envelope-type", f"expected the payload type {PAYLOAD_TYPE}")
    payload, items = value["payload"], value["signatures"]
    if not isinstance(payload, str) or not isinstance(items, list):
        raise FormatError("envelope-shape", "expected a string as payload and a list of signatures")
    signatures = tuple(_signature(item) for item in items)
    envelope = Envelope(b64decode(payload), signatures)
    if envelope.signatures != signatures:
        raise FormatError("envelope-signatures", "signatures are not in ascending order of key id")
    return envelope


def _signature(item: Value) -> Signature:
    if not isinstance(item, dict) or item.keys() != {"keyid", "sig"}:
        raise FormatError("envelope-shape", "expected a signature of keyid and sig")
    keyid, text = item["keyid"], item["sig"]
    if not isinstance(keyid, str) or not isinstance(text, str):
        raise FormatError("envelope-shape", "expected strings as keyid and sig")
    hex_bytes(keyid, 32)
    sig = b64decode(text)
    if not 1 <= len(sig) <= MAX_SIGNATURE:
        raise FormatError("envelope-signatures", f"expected 1 to {MAX_SIGNATURE} bytes, got {len(sig)}")
    return Signature(KeyId(keyid), sig)


class SigningKey(Protocol):
    """What can sign: `PrivateKey`, or whatever gets a signature from an operator's device."""

    @property
    def public(self) -> OperatorKey:
        """The key under which the signature verifies."""

    def sign(self, message: bytes) -> bytes:
        """The signature over a message, in the bytes that the key's scheme gives it."""


def sign_envelope(payload: bytes, keys: Sequence[SigningKey]) -> Envelope:
    """An envelope of the payload, signed by each key."""
    message = pae(PAYLOAD_TYPE, payload)
    return Envelope(payload, tuple(Signature(key.public.keyid, key.sign(message)) for key in keys))


def verify_envelope(envelope: Envelope, keys: Mapping[KeyId, VerifyingKey]) -> dict[KeyId, Assurance]:
    """The keys that signed, with what each proves. Raises SignerUnknown or SignatureInvalid if any does not count."""
    message = pae(PAYLOAD_TYPE, envelope.payload)
    proven = {}
    for one in envelope.signatures:
        key = keys.get(one.keyid)
        if key is None or key.keyid != one.keyid:
            raise SignerUnknown(f"no known key has the id {one.keyid}", "signer-unknown")
        proven[one.keyid] = verify_scheme(key, one.sig, message)
    return proven
