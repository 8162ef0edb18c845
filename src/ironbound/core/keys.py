"""Keys and signatures: Ed25519 (RFC 8032), SPKI and PKCS#8 (RFC 8410).

Decides whether bytes are a sound public key, and whether a signature over a message is that key's. It does
not decide whose key it is or what the key may say: that is the trust root's.

Rule 1: a key has one name: the SHA-256 of its SubjectPublicKeyInfo in DER, which bare OpenSSL can recompute.
Rule 2: a public key is canonical, on the curve and not of small order; a signature has S < L. Otherwise one
signature could stand for several messages or several signatures for one.
Rule 3: verify_signature returns nothing or raises.
"""

from dataclasses import dataclass, field
from typing import NewType

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from .canonical import FormatError, b64decode, b64encode, sha256_hex

KeyId = NewType("KeyId", str)
"""Lower-case hexadecimal SHA-256 of a key's SPKI DER."""

ED25519 = "ed25519"
MAX_PEM = 4096
"""Bytes of a PEM file that is read."""

_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
_PEM_HEAD = "-----BEGIN PUBLIC KEY-----\n"
_PEM_TAIL = "\n-----END PUBLIC KEY-----\n"

# The curve -x^2 + y^2 = 1 + d x^2 y^2 mod P, with a subgroup of prime order L (RFC 8032 §5.1).
_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303021202
_SMALL_ORDER = frozenset({0, 1, _P - 1, _Y_OF_ORDER_8, _P - _Y_OF_ORDER_8})


class SignatureInvalid(Exception):
    """A signature is not this key's signature over this message. `code` is one of `reasons.REASONS`."""

    def __init__(self, message: str, code: str = "signature-invalid") -> None:
        super().__init__(message)
        self.code = code


def _check_point(raw: bytes) -> None:
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _P:
        raise FormatError("key-invalid", "the public key is not the canonical encoding of a point")
    if y in _SMALL_ORDER:
        raise FormatError("key-invalid", "the public key is a point of small order")
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if pow(x_squared, (_P - 1) // 2, _P) != 1:
        raise FormatError("key-invalid", "the public key is not a point of the curve")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that was checked when it was made. `raw` is the 32-byte encoding of RFC 8032."""

    scheme: str
    raw: bytes
    keyid: KeyId = field(init=False, compare=False)
    _loaded: Ed25519PublicKey = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.scheme != ED25519:
            raise FormatError("key-scheme", f"expected {ED25519}, got {self.scheme[:40]!a}")
        if len(self.raw) != 32:
            raise FormatError("key-invalid", f"expected 32 bytes, got {len(self.raw)}")
        _check_point(self.raw)
        object.__setattr__(self, "keyid", KeyId(sha256_hex(_SPKI_PREFIX + self.raw)))
        object.__setattr__(self, "_loaded", Ed25519PublicKey.from_public_bytes(self.raw))

    @classmethod
    def from_spki(cls, der: bytes) -> "PublicKey":
        """The key of a SubjectPublicKeyInfo in DER (44 bytes for Ed25519)."""
        if len(der) != 44 or not der.startswith(_SPKI_PREFIX):
            raise FormatError("key-invalid", "expected the SubjectPublicKeyInfo of an Ed25519 key")
        return cls(ED25519, der[12:])

    @classmethod
    def from_pem(cls, pem: bytes) -> "PublicKey":
        """The key of a `PUBLIC KEY` PEM file that is spelled exactly as `pem` spells it."""
        try:
            text = pem.decode("ascii")
        except UnicodeDecodeError:
            raise FormatError("key-pem", "a PEM file is ASCII") from None
        if not (len(text) <= MAX_PEM and text.startswith(_PEM_HEAD) and text.endswith(_PEM_TAIL)):
            raise FormatError("key-pem", "expected one PUBLIC KEY block and nothing else")
        return cls.from_spki(b64decode(text[len(_PEM_HEAD) : -len(_PEM_TAIL)]))

    def spki(self) -> bytes:
        """SubjectPublicKeyInfo in DER (RFC 8410 §4)."""
        return _SPKI_PREFIX + self.raw

    def pem(self) -> bytes:
        """The same as PEM, as `openssl pkey -pubout` writes it."""
        return (_PEM_HEAD + b64encode(self.spki()) + _PEM_TAIL).encode("ascii")


class PrivateKey:
    """An Ed25519 private key. Its representation shows the public key's id only."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(ED25519, key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"PrivateKey(keyid={self.public.keyid})"

    @classmethod
    def generate(cls, seed: bytes) -> "PrivateKey":
        """The key of a 32-byte seed, which the caller draws from the system's randomness."""
        if len(seed) != 32:
            raise FormatError("key-invalid", f"expected a seed of 32 bytes, got {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None) -> "PrivateKey":
        """The key of a PKCS#8 PEM file; `passphrase` is None exactly when the file is not encrypted."""
        if len(pem) > MAX_PEM:
            raise FormatError("too-large", f"expected at most {MAX_PEM} bytes, got {len(pem)}")
        try:
            key = load_pem_private_key(pem, passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise FormatError("key-pem", f"cannot read the private key: {str(error)[:200]}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise FormatError("key-scheme", f"expected an {ED25519} key, got {type(key).__name__}")
        return cls(key)

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """PKCS#8 in PEM, encrypted when there is a passphrase."""
        encryption: KeySerializationEncryption = NoEncryption()
        if passphrase is not None:
            if not passphrase:
                raise FormatError("key-pem", "the passphrase is empty")
            encryption = BestAvailableEncryption(passphrase)
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of RFC 8032 over a message."""
        return self._key.sign(message)


def verify_signature(key: PublicKey, signature: bytes, message: bytes) -> None:
    """Raise SignatureInvalid unless `signature` is this key's over `message` (RFC 8032 §5.1.7)."""
    if len(signature) != 64:
        raise SignatureInvalid(f"expected a signature of 64 bytes, got {len(signature)}")
    if int.from_bytes(signature[32:], "little") >= _L:
        raise SignatureInvalid("the signature's scalar is not reduced")
    try:
        key._loaded.verify(signature, message)
    except InvalidSignature:
        raise SignatureInvalid(f"not a signature of {key.keyid} over this message") from None
