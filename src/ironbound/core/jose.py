"""An identity provider's signatures: JWS in compact form, by keys of its JWK set (RFC 7515, 7517, 7518, 8037).

Decides whether a text is a JWS that one of the given keys signed, and which keys a JWK set holds for that. What a
payload says is `oidc`'s to judge. Three algorithms: RS256, ES256, EdDSA with Ed25519.

Rule 1: the key is found by its `kid` among those given, and the algorithm is the key's: the header can only agree.
Rule 2: a header holds alg, kid, typ and thumbprints. An embedded key, the address of one or `crit` is refused.
Rule 3: base64url has one spelling, without padding; no JSON object holds a key twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from .canonical import FormatError, Value, base64url_decode, parse_json
from .keys import ED25519, PublicKey, SignatureInvalid, verify_signature

MAX_TOKEN: Final = 10_000
"""Characters of a JWS in compact form."""
MAX_HEADER: Final = 2048
"""Bytes of its header."""
MAX_KEY_SET: Final = 131_072
"""Bytes of a JWK set as it is served, certificates included."""
MAX_KEYS: Final = 32
"""Keys of a set that we can use; MAX_LISTED that it lists."""
MAX_LISTED: Final = 64
MAX_KID: Final = 200

_RSA_BITS: Final = (2048, 8192)
_HEADER: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
_SECRET: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
#: Algorithm → the JWK members that make its public key; RSA's exponent is always 65537.
MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {"RS256": ("n",), "ES256": ("x", "y"), "EdDSA": ("x",)}
_ALGORITHM: Final = {("RSA", ""): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}

_Loaded = RSAPublicKey | EllipticCurvePublicKey | PublicKey


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A provider's public key. `members` are those of its JWK, in the order of `MEMBERS[alg]`."""

    kid: str
    alg: str
    members: tuple[str, ...]
    _loaded: _Loaded = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.kid) <= MAX_KID or len(self.members) != len(MEMBERS.get(self.alg, ())):
            raise FormatError("jwk", f"a key has a kid of 1 to {MAX_KID} characters and the members of its algorithm")
        object.__setattr__(self, "_loaded", _load(self.alg, [base64url_decode(one) for one in self.members]))

    def entry(self) -> dict[str, Value]:
        """The key as statements hold it; `issuer_key` reads it."""
        named: dict[str, Value] = dict(zip(MEMBERS[self.alg], self.members, strict=True))
        return {"kid": self.kid, "alg": self.alg, **named}

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise SignatureInvalid unless the signature is this key's over the message, by its own algorithm."""
        loaded = self._loaded
        try:
            if isinstance(loaded, PublicKey):
                verify_signature(loaded, signature, message)
            elif isinstance(loaded, RSAPublicKey):
                loaded.verify(signature, message, PKCS1v15(), SHA256())
            else:
                if len(signature) != 64:
                    raise InvalidSignature
                pair = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
                loaded.verify(encode_dss_signature(*pair), message, ECDSA(SHA256()))
        except (InvalidSignature, SignatureInvalid):
            text = f"not a signature of the provider's key {self.kid[:80]!a}"
            raise SignatureInvalid(text, "token-signature-invalid") from None


def issuer_key(entry: Mapping[str, Any]) -> IssuerKey:
    """The key of an entry that `IssuerKey.entry` made."""
    return IssuerKey(entry["kid"], entry["alg"], tuple(entry[name] for name in MEMBERS[entry["alg"]]))


def _load(alg: str, parts: list[bytes]) -> _Loaded:
    if alg == "EdDSA":
        return PublicKey(ED25519, parts[0])
    numbers = [int.from_bytes(part, "big") for part in parts]
    if alg == "ES256":
        if any(len(part) != 32 for part in parts):
            raise FormatError("jwk", "a coordinate of P-256 has 32 bytes")
        try:
            return EllipticCurvePublicNumbers(numbers[0], numbers[1], SECP256R1()).public_key()
        except ValueError:
            raise FormatError("jwk", "not a point of P-256") from None
    low, high = _RSA_BITS
    if not low <= numbers[0].bit_length() <= high or parts[0][0] == 0 or numbers[0] % 2 == 0:
        raise FormatError("jwk", f"an RSA key has {low} to {high} bits, got {numbers[0].bit_length()}")
    return RSAPublicNumbers(65537, numbers[0]).public_key()


def parse_key_set(data: bytes) -> tuple[IssuerKey, ...]:
    """The keys of a JWK set with which ID tokens can be verified, by kid. Keys of other kinds are passed over.

    FormatError for no JSON, no usable key, a weak or malformed key, two keys of one kid, or a private key.
    """
    value = parse_json(data, limit=MAX_KEY_SET, depth=8)
    listed = value.get("keys") if type(value) is dict else None
    if type(listed) is not list or len(listed) > MAX_LISTED:
        raise FormatError("jwk-set", f"expected an object whose keys are a list of at most {MAX_LISTED}")
    keys = [key for key in map(_usable, listed) if key is not None]
    if not 1 <= len(keys) <= MAX_KEYS:
        raise FormatError("jwk-set", f"expected 1 to {MAX_KEYS} keys for signatures, got {len(keys)}")
    if len({key.kid for key in keys}) != len(keys):
        raise FormatError("jwk-set", "two keys have one kid")
    return tuple(sorted(keys, key=lambda key: key.kid))


def _usable(jwk: Any) -> IssuerKey | None:
    if type(jwk) is not dict:
        raise FormatError("jwk", "a key is an object")
    if _SECRET & jwk.keys():
        raise FormatError("jwk", "the set publishes a secret")
    kty, crv = str(jwk.get("kty")), str(jwk.get("crv", ""))
    alg = _ALGORITHM.get((kty, crv))
    if alg is None or jwk.get("alg", alg) != alg or jwk.get("use", "sig") != "sig" or "kid" not in jwk:
        return None
    if "key_ops" in jwk and jwk["key_ops"] != ["verify"]:
        return None
    parts: list[Any] = [jwk.get(name) for name in ("kid", *MEMBERS[alg])]
    if not all(type(part) is str for part in parts) or (alg == "RS256" and jwk.get("e") != "AQAB"):
        raise FormatError("jwk", f"a key for {alg} has text as its members, and 65537 as its exponent if it has one")
    return IssuerKey(parts[0], alg, tuple(parts[1:]))


def verify_jws(token: str, keys: Mapping[str, IssuerKey]) -> bytes:
    """The payload of a JWS in compact form that one of `keys` (by kid) signed. SignatureInvalid with its reason if not.

    (1) three parts, each in its one spelling  (2) a header of what we know  (3) signed at all  (4) by a key that was
    given  (5) with that key's algorithm  (6) and its signature.
    """
    try:
        parts = token.split(".")
        if len(token) > MAX_TOKEN or len(parts) != 3:
            raise FormatError("jws", f"expected three parts of at most {MAX_TOKEN} characters together")
        head, payload, signature = (base64url_decode(part) for part in parts)  # (1)
        header: Any = parse_json(head, limit=MAX_HEADER, depth=4)
    except FormatError as error:
        raise SignatureInvalid(f"the token: {error}", "token-malformed") from None
    if type(header) is not dict or not all(type(header.get(name, "")) is str for name in ("alg", "kid", "typ")):
        raise SignatureInvalid("the token's header is no object of text", "token-malformed")
    if header.keys() - _HEADER or header.get("typ", "JWT") != "JWT":  # (2)
        names = ", ".join(sorted(header.keys() - _HEADER)) or "typ"
        raise SignatureInvalid(f"the token's header holds {names[:100]!a}", "token-header-refused")
    if header.get("alg", "none").lower() == "none":  # (3)
        raise SignatureInvalid("the token is not signed", "token-unsigned")
    key = keys.get(header.get("kid", ""))  # (4)
    if key is None:
        text = f"no key of the provider has the kid {header.get('kid', '')[:80]!a}"
        raise SignatureInvalid(text, "issuer-key-unknown")
    if header["alg"] != key.alg:  # (5)
        raise SignatureInvalid(f"{header['alg'][:40]!a} with a key for {key.alg}", "token-algorithm-differs")
    key.verify(signature, f"{parts[0]}.{parts[1]}".encode())  # (6)
    return payload
