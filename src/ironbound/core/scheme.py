"""The schemes in which an operator can sign, beside each other.

Decides which scheme judges a signature: the one of the key's entry in the trust root. What a signature must be like,
each scheme decides for itself: `keys` (a key file of our own), `sshsig`, `webauthn`, `oidc`.

Rule 1: nothing in an envelope chooses a scheme; bytes made in one are malformed in every other.
Rule 2: a key is named by its material: SHA-256 of its SPKI in DER, whatever the scheme. So no key gets two names. An
identity has no key of its own; it is named by issuer and subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from .canonical import FormatError, b64decode, b64encode
from .keys import ED25519, PublicKey, SignatureInvalid, verify_signature
from .oidc import OIDC, Identity, PresentIdentity, verify_identity
from .sshsig import SSHSIG, SshKey, namespace_of, verify_sshsig
from .strength import Assurance, Strength
from .webauthn import WEBAUTHN, Passkey, verify_assertion

#: A key that can sign for a human; `PublicKey` is the only kind that machines have.
OperatorKey: TypeAlias = PublicKey | SshKey | Passkey | Identity
#: What a signature can be judged by: an identity only at a moment of the log.
VerifyingKey: TypeAlias = OperatorKey | PresentIdentity

_FILE: Final = Assurance(Strength.SOFTWARE)


def public_key(value: Mapping[str, Any]) -> PublicKey:
    """The Ed25519 key of a key entry, as machines have one."""
    raw = b64decode(value["public"])
    if len(raw) != 32:
        raise FormatError("trust-root-key", f"an Ed25519 public key has 32 bytes, got {len(raw)}")
    return PublicKey(value["scheme"], raw)


def parse_key(value: Mapping[str, Any], deployment: str) -> OperatorKey:
    """The key of an operator's key entry in a deployment's trust root, which has the shape of its scheme."""
    match value["scheme"]:
        case "sshsig":
            return SshKey(b64decode(value["public"]), namespace_of(deployment), value["user_verification"])
        case "webauthn":
            spki, credential = b64decode(value["public"]), b64decode(value["credential"])
            return Passkey(spki, credential, value["rp_id"], value["origin"], value["synced"])
        case "oidc":
            role = namespace_of(deployment)
            return Identity(value["issuer"], value["client"], value["subject"], value["acr"], role)
        case _:
            return public_key(value)


def key_entry(key: OperatorKey) -> dict[str, Any]:
    """The entry of a key in a trust root; `parse_key` reads it."""
    match key:
        case SshKey():
            return {
                "scheme": SSHSIG,
                "public": b64encode(key.blob),
                "user_verification": key.user_verification,
            }
        case Passkey():
            return {
                "scheme": WEBAUTHN,
                "public": b64encode(key.spki),
                "credential": b64encode(key.credential),
                "rp_id": key.rp_id,
                "origin": key.origin,
                "synced": key.synced,
            }
        case Identity():
            return {
                "scheme": OIDC,
                "issuer": key.issuer,
                "client": key.client,
                "subject": key.subject,
                "acr": key.acr,
            }
        case PublicKey():
            return {"scheme": ED25519, "public": b64encode(key.raw)}


def is_device(key: OperatorKey) -> bool:
    """True for a passkey and for an SSH key in a security key: what an identity needs beside it."""
    return isinstance(key, Passkey) or (isinstance(key, SshKey) and key.application is not None)


def verify_scheme(key: VerifyingKey, signature: bytes, message: bytes) -> Assurance:
    """What this signature over a message (the PAE) proves; SignatureInvalid with its reason if it is not the key's."""
    match key:
        case SshKey():
            return verify_sshsig(key, signature, message)
        case Passkey():
            return verify_assertion(key, signature, message)
        case PresentIdentity():
            return verify_identity(key, signature, message)
        case Identity():
            raise SignatureInvalid("an identity proves nothing where its provider's keys are unknown", "identity-alone")
        case PublicKey():
            verify_signature(key, signature, message)
            return _FILE
