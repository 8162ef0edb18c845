"""A TPM's quote over a launch: parsed strictly and verified against the enrolled attestation key.

Decides whether a quote was made by that key, in that TPM, about PCR 14 as this launch left it, and for these very
words. It talks to no TPM (`node/tpm.py` does) and decides nothing about what was measured before. A software TPM
verifies like any other; that it is a software root stands in its enrolment.
Follows TPM 2.0 Library, part 2 (structures): 10.12 (TPMS_ATTEST), 11.3 (TPMT_SIGNATURE), 12.2 (TPMT_PUBLIC).

Rule 1: every length is exact and nothing follows; an unknown algorithm is an error.
Rule 2: only a restricted signing key that never left its TPM can be enrolled: such a key signs nothing that begins
        with the TPM's magic unless the TPM made it.
Rule 3: what was measured is the statement itself, without its quote; what is signed binds the nonce and the log's
        root at the admission too, so a quote can't be older than what it answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from .canonical import Digest, FormatError, b64decode, canonical, sha256_hex
from .keys import SignatureInvalid

#: The register that launches are measured into: nothing but a reset of the machine clears it.
PCR: Final = 14
RESET_PCR: Final = bytes(32)
MAX_STRUCTURE: Final = 1024
"""Bytes of any structure that is parsed here."""

_MAGIC: Final = 0xFF544347
_QUOTE: Final = 0x8018
_RSA, _SHA256, _NULL, _RSASSA, _ECDSA, _ECC = 0x0001, 0x000B, 0x0010, 0x0014, 0x0018, 0x0023
_P256: Final = 0x0003
_SELECTION: Final = b"\x00\x00\x00\x01\x00\x0b\x03" + (1 << PCR).to_bytes(3, "little")
#: fixedTPM, fixedParent, sensitiveDataOrigin, restricted, sign; and decrypt, which must not be there.
_NEEDED: Final = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18
_DECRYPT: Final = 1 << 17
#: What is said of every statement and measured of none: they are not known when the quote is made.
_UNMEASURED: Final = frozenset({"id", "deployment", "at_ms", "quote"})


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """The enrolled key. `root` says whether its TPM is hardware or software."""

    root: str
    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    qualified_name: bytes


@dataclass(frozen=True, slots=True)
class Attested:
    """What a verified quote says beyond its signature: the TPM's own clock (ms) and counts, and PCR 14 around it."""

    clock: int
    resets: int
    restarts: int
    is_safe: bool
    before: bytes
    after: bytes


class _Reader:
    """A cursor over big-endian fields that never reads beyond the end."""

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        if len(data) > MAX_STRUCTURE:
            raise FormatError("tpm-malformed", f"{what}: {len(data)} bytes, at most {MAX_STRUCTURE}")
        self._data, self._at, self._what = data, 0, what

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise FormatError("tpm-malformed", f"{self._what}: ends within a field")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))

    def expect(self, size: int, value: int, field: str) -> None:
        if (got := self.number(size)) != value:
            raise FormatError("tpm-malformed", f"{self._what}: {field}: expected {value:#x}, got {got:#x}")

    def finish(self) -> None:
        if self._at != len(self._data):
            raise FormatError("tpm-malformed", f"{self._what}: {len(self._data) - self._at} bytes too many")


def name_of(public: bytes) -> bytes:
    """A key's TPM name: the algorithm and SHA-256 of its public area (TPM 2.0 Library, part 1, 16)."""
    return _SHA256.to_bytes(2, "big") + hashlib.sha256(public).digest()


def parse_public(data: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """The key in a TPMT_PUBLIC of a restricted signing key. FormatError for anything else."""
    reader = _Reader(data, "public area")
    kind = reader.number(2)
    reader.expect(2, _SHA256, "name algorithm")
    attributes = reader.number(4)
    if attributes & _NEEDED != _NEEDED or attributes & _DECRYPT:
        raise FormatError("tpm-key", "expected a restricted signing key that is fixed to its TPM")
    reader.sized()  # the policy by which the key is used
    reader.expect(2, _NULL, "symmetric algorithm")
    try:
        if kind == _ECC:
            return _elliptic(reader)
        if kind == _RSA:
            return _rivest(reader)
    except ValueError as error:
        raise FormatError("tpm-key", str(error)[:200]) from None
    raise FormatError("tpm-key", f"an attestation key of type {kind:#06x}")


def _elliptic(reader: _Reader) -> ec.EllipticCurvePublicKey:
    reader.expect(2, _ECDSA, "scheme")
    reader.expect(2, _SHA256, "hash")
    reader.expect(2, _P256, "curve")
    reader.expect(2, _NULL, "key derivation")
    x, y = int.from_bytes(reader.sized(), "big"), int.from_bytes(reader.sized(), "big")
    reader.finish()
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _rivest(reader: _Reader) -> rsa.RSAPublicKey:
    reader.expect(2, _RSASSA, "scheme")
    reader.expect(2, _SHA256, "hash")
    bits, exponent, modulus = reader.number(2), reader.number(4), reader.sized()
    reader.finish()
    if bits < 2048 or len(modulus) * 8 != bits:
        raise FormatError("tpm-key", f"an RSA key of {bits} bits")
    return rsa.RSAPublicNumbers(exponent or 65537, int.from_bytes(modulus, "big")).public_key()


def enrolled_key(value: Mapping[str, Any]) -> AttestationKey:
    """The attestation key as the trust root holds it. FormatError if it is none."""
    public = b64decode(value["public"])
    return AttestationKey(value["root"], parse_public(public), bytes.fromhex(value["qualified_name"]))


def measured(kind: str, predicate: Mapping[str, Any]) -> Digest:
    """What a statement extends PCR 14 with: SHA-256 of its kind and its words, without its quote."""
    words = {name: value for name, value in predicate.items() if name not in _UNMEASURED}
    return sha256_hex(canonical({"kind": kind, "words": words}))


def qualifying(nonce: str | None, root: bytes, measurement: Digest) -> bytes:
    """What the quote is made for: SHA-256 of the nonce (none for an agent), the log's root just after the admission
    or the challenge, and the measurement."""
    return hashlib.sha256(bytes.fromhex(nonce or "") + root + bytes.fromhex(measurement)).digest()


def extended(before: bytes, measurement: Digest) -> bytes:
    """PCR 14 after it was extended."""
    return hashlib.sha256(before + bytes.fromhex(measurement)).digest()


def verify_quote(key: AttestationKey, quote: Mapping[str, Any], expected: bytes, measurement: Digest) -> Attested:
    """The quote in a statement, verified. FormatError or SignatureInvalid says what is wrong with it.

    `expected` is what `qualifying` gives, `measurement` what `measured` gives, both computed by the caller.
    """
    attest = b64decode(quote["attest"])
    _verify_signature(key, attest, b64decode(quote["signature"]))
    before = bytes.fromhex(quote["before"])
    after = extended(before, measurement)
    reader = _Reader(attest, "quote")
    reader.expect(4, _MAGIC, "magic")
    reader.expect(2, _QUOTE, "type")
    if reader.sized() != key.qualified_name:
        raise SignatureInvalid("the quote names another key than the enrolled one")
    if reader.sized() != expected:
        raise SignatureInvalid("the quote was made for another nonce or other words")
    clock, resets, restarts, safe = reader.number(8), reader.number(4), reader.number(4), reader.number(1)
    reader.take(8)  # the firmware's version, which a key of the owner's hierarchy sees obfuscated
    if reader.take(len(_SELECTION)) != _SELECTION:
        raise SignatureInvalid(f"the quote is about other registers than PCR {PCR}")
    if reader.sized() != hashlib.sha256(after).digest():
        raise SignatureInvalid(f"PCR {PCR} is not what this launch leaves it at")
    reader.finish()
    if safe > 1:
        raise FormatError("tpm-malformed", f"quote: safe: expected 0 or 1, got {safe}")
    return Attested(clock, resets, restarts, safe == 1, before, after)


def _verify_signature(key: AttestationKey, attest: bytes, signature: bytes) -> None:
    reader = _Reader(signature, "signature")
    try:
        if isinstance(key.public, rsa.RSAPublicKey):
            reader.expect(2, _RSASSA, "algorithm")
            reader.expect(2, _SHA256, "hash")
            raw = reader.sized()
            reader.finish()
            key.public.verify(raw, attest, padding.PKCS1v15(), SHA256())
        else:
            reader.expect(2, _ECDSA, "algorithm")
            reader.expect(2, _SHA256, "hash")
            r, s = int.from_bytes(reader.sized(), "big"), int.from_bytes(reader.sized(), "big")
            reader.finish()
            key.public.verify(encode_dss_signature(r, s), attest, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise SignatureInvalid("the quote is not signed by the enrolled attestation key") from None


__all__ = [
    "PCR",
    "RESET_PCR",
    "AttestationKey",
    "Attested",
    "enrolled_key",
    "extended",
    "measured",
    "name_of",
    "parse_public",
    "qualifying",
    "verify_quote",
]
