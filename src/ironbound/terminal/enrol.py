"""An operator's own key: an SSH public key or a passkey's registration, from the file that their tool made, or an
identity at a provider, in a word.

Decides whether the file says what it seems to; what a signature of that key proves, each signature shows anew. No
attestation is asked for: a registration proves nothing about the device, so nothing is taken from it but the key.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import FormatError, base64url_decode, parse_json
from ironbound.core.oidc import Identity
from ironbound.core.scheme import OperatorKey
from ironbound.core.sshsig import SshKey, namespace_of, parse_public_line
from ironbound.core.webauthn import Passkey, cose_key
from ironbound.wire.deployment import DeploymentError, read_file

from .voice import Stop

#: Before an SSH security key's file: a touch is enough, where else a PIN or a fingerprint is needed as well.
TOUCH: Final = "touch:"
#: Instead of a file: a passkey, made or used on the approval page; behind a colon at init the port, later the key's id.
PASSKEY: Final = "passkey"
MAX_REGISTRATION: Final = 32_768
_ELIGIBLE, _ATTESTED, _EXTENSIONS = 0x08, 0x40, 0x80


def is_passkey(word: str) -> bool:
    """Whether an operator's key is named as `passkey` or `passkey:…`; a file of that name is `./passkey`."""
    return word.partition(":")[0] == PASSKEY


def enrolled(word: str, deployment: str) -> OperatorKey:
    """The key in `FILE` or `touch:FILE`, or the identity in `ISSUER,CLIENT,SUBJECT,ACR`, as a trust root will hold it.

    Stop if there is none.
    """
    if word.startswith(("https://", "http://")):
        return identity(word, deployment)
    path = Path(word.removeprefix(TOUCH))
    try:
        data = read_file(path, MAX_REGISTRATION)
        if data.lstrip()[:1] == b"{":
            return passkey(parse_json(data, limit=MAX_REGISTRATION, depth=8))
        blob = parse_public_line(data.decode("ascii"))
        security_key = SshKey(blob, namespace_of(deployment), False).application is not None
        if word.startswith(TOUCH) and not security_key:
            raise FormatError("key-invalid", "a software key can't be touched")
        return SshKey(blob, namespace_of(deployment), security_key and not word.startswith(TOUCH))
    except (FormatError, DeploymentError, UnicodeDecodeError) as error:
        raise Stop(
            f"{path}: {str(error).removeprefix(f'{path}: ')}",
            "give a public key of ssh-keygen (ed25519 or ed25519-sk), or what credential.toJSON() gave",
        ) from error


def identity(word: str, deployment: str) -> Identity:
    """The identity in `ISSUER,CLIENT,SUBJECT,ACR`; Stop if it isn't one."""
    parts = word.split(",")
    try:
        if len(parts) != 4:
            raise FormatError("key-invalid", f"expected four parts, got {len(parts)}")
        issuer, client, subject, acr = parts
        return Identity(issuer, client, subject, acr, namespace_of(deployment))
    except FormatError as error:
        raise Stop(f"{word!a}: {error}", "write ISSUER,CLIENT,SUBJECT,ACR, as the provider knows them") from error


def passkey(value: Any) -> Passkey:
    """The passkey of a RegistrationResponseJSON (WebAuthn level 3 §5.1), whose parts must tell the same key."""
    try:
        response = value["response"]
        client = parse_json(base64url_decode(str(response["clientDataJSON"])), limit=4096, depth=8)
        data, spki = base64url_decode(str(response["authenticatorData"])), base64url_decode(str(response["publicKey"]))
        credential = base64url_decode(str(value["id"]))
    except (KeyError, TypeError) as error:
        raise FormatError("registration", f"{error} is missing") from None
    if type(client) is not dict or client.get("type") != "webauthn.create":
        raise FormatError("registration", "the client data is not that of a registration")
    origin = str(client.get("origin"))
    host = origin.partition("://")[2].partition(":")[0]
    rp_id = _party(data[:32], host)
    attested = bytes(16) if len(data) < 55 else data[37:53]
    expected = attested + len(credential).to_bytes(2, "big") + credential + cose_key(spki)
    if len(data) < 37 or not data[32] & _ATTESTED or data[32] & _EXTENSIONS or data[37:] != expected:
        raise FormatError("registration", "the authenticator's data tells another key, or more than a key")
    return Passkey(spki, credential, rp_id, origin, bool(data[32] & _ELIGIBLE))


def _party(digest: bytes, host: str) -> str:
    """The rpId with this SHA-256: the origin's host or a domain above it."""
    parts = host.split(".")
    for at in range(len(parts)):
        candidate = ".".join(parts[at:])
        if sha256(candidate.encode()).digest() == digest:
            return candidate
    raise FormatError("registration", f"the passkey belongs to another party than {host[:80]!a}")
