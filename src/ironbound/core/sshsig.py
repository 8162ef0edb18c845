"""OpenSSH's signatures: the SSHSIG blob, by software keys and by security keys.

Decides whether a blob is an enrolled key's signature over a message, for this deployment, and how strong. Formats:
PROTOCOL.sshsig, PROTOCOL.u2f and PROTOCOL.key of OpenSSH; RFC 8709 for `ssh-ed25519`.

Rule 1: key, application and namespace are the enrolled ones, byte for byte; the blob chooses nothing but its hash.
Rule 2: a security key's flags are checked here: somebody touched it, and verified themselves if the key's entry
asks for that. `ssh-keygen -Y verify` accepts less.
Rule 3: a blob is read to its last byte; one signature has one spelling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256, sha512
from typing import Final

from .canonical import FormatError, b64decode
from .keys import ED25519, KeyId, PublicKey, SignatureInvalid, verify_signature
from .strength import Assurance, Strength

SSHSIG: Final = "sshsig"
SOFTWARE: Final = b"ssh-ed25519"
SECURITY_KEY: Final = b"sk-ssh-ed25519@openssh.com"
#: A signature names what it is for; ours are for one deployment's operators.
NAMESPACE_PREFIX: Final = "ironbound-operator@"
MAX_APPLICATION: Final = 256
"""Bytes of a security key's application string."""
MAX_BLOB: Final = 2048
"""Bytes of a public key's blob or of a signature's."""

_MAGIC: Final = b"SSHSIG"
_VERSION: Final = 1
_HASHES: Final = {b"sha256": sha256, b"sha512": sha512}
#: Flags of an authenticator (WebAuthn §6.1): touched, verified; those that say something else about its key.
_PRESENT: Final = 0x01
_VERIFIED: Final = 0x04
_KNOWN: Final = _PRESENT | _VERIFIED | 0x18


class _Reader:
    """Fields of an SSH message, in order (RFC 4251 §5). FormatError at the first that is not there."""

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_BLOB:
            raise FormatError("ssh-blob", f"expected at most {MAX_BLOB} bytes, got {len(data)}")
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise FormatError("ssh-blob", f"ends after {len(self._data)} bytes, inside a field")
        part, self._at = self._data[self._at : end], end
        return part

    def number(self) -> int:
        """A uint32."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """A string: its length and its bytes."""
        return self.take(self.number())

    def end(self) -> None:
        """Nothing is left."""
        if self._at != len(self._data):
            raise FormatError("ssh-blob", f"{len(self._data) - self._at} bytes too many")


def ssh_string(data: bytes) -> bytes:
    """A string as SSH spells it: a uint32 length and the bytes."""
    return len(data).to_bytes(4, "big") + data


@dataclass(frozen=True, slots=True)
class SshKey:
    """An enrolled SSH key. `blob` is its public key as in a `.pub` file, `application` None for a software key.

    `user_verification`: each signature needs a PIN or a fingerprint, not a touch alone. `keyid` is that of the bare
    Ed25519 key: enrolling it once more in another dress is enrolling it twice.
    """

    blob: bytes
    namespace: str
    user_verification: bool
    application: bytes | None = field(init=False, compare=False)
    key: PublicKey = field(init=False, compare=False)

    def __post_init__(self) -> None:
        reader = _Reader(self.blob)
        kind = reader.string()
        if kind not in (SOFTWARE, SECURITY_KEY):
            raise FormatError("key-scheme", f"expected {SOFTWARE!r} or {SECURITY_KEY!r}, got {kind[:40]!a}")
        raw = reader.string()
        application = reader.string() if kind == SECURITY_KEY else None
        reader.end()
        if application is None and self.user_verification:
            raise FormatError("key-invalid", "a software key can't verify its user")
        if application is not None and not (
            application.startswith(b"ssh:") and len(application) <= MAX_APPLICATION and application.isascii()
        ):
            raise FormatError("key-invalid", "a security key's application begins with ssh:")
        object.__setattr__(self, "application", application)
        object.__setattr__(self, "key", PublicKey(ED25519, raw))

    @property
    def keyid(self) -> KeyId:
        """The bare key's id: SHA-256 of its SPKI."""
        return self.key.keyid

    @property
    def scheme(self) -> str:
        """`sshsig`."""
        return SSHSIG


def namespace_of(deployment: str) -> str:
    """What the operators of a deployment sign for, as `ssh-keygen -n` takes it."""
    return NAMESPACE_PREFIX + deployment


def parse_public_line(line: str) -> bytes:
    """The key blob of a `.pub` file's one line: type, base64, and a comment that nobody reads."""
    words = line.strip("\n").split(" ", 2)
    if len(words) < 2 or "\n" in line.strip("\n"):
        raise FormatError("ssh-public-key", "expected one line of type, key and comment")
    blob = b64decode(words[1])
    if _Reader(blob).string() != words[0].encode():
        raise FormatError("ssh-public-key", "the line's type is not its key's")
    return blob


def signed_data(namespace: str, message: bytes, algorithm: bytes = b"sha512") -> bytes:
    """The bytes that an SSH key signs for a message."""
    digest = _HASHES[algorithm](message).digest()
    return _MAGIC + b"".join(ssh_string(one) for one in (namespace.encode(), b"", algorithm, digest))


def verify_sshsig(key: SshKey, signature: bytes, message: bytes) -> Assurance:
    """What this SSHSIG blob proves. SignatureInvalid, with its reason, if it is not the key's over the message."""
    try:
        reader = _Reader(signature)
        if reader.take(len(_MAGIC)) != _MAGIC or reader.number() != _VERSION:
            raise FormatError("ssh-blob", "not an SSHSIG of version 1")
        blob, namespace, reserved, algorithm = (reader.string() for _ in range(4))
        inner = _Reader(reader.string())
        reader.end()
        kind, raw = inner.string(), inner.string()
        flags, counter = (inner.take(1)[0], inner.number()) if kind == SECURITY_KEY else (0, None)
        inner.end()
    except FormatError as error:
        raise SignatureInvalid(f"the SSHSIG: {error.message}", "signature-malformed") from None
    if blob != key.blob:
        raise SignatureInvalid("the SSHSIG names another key than the enrolled one", "signing-key-differs")
    if kind != (SOFTWARE if key.application is None else SECURITY_KEY):
        raise SignatureInvalid("the signature is of another kind than the key", "signature-malformed")
    if reserved or algorithm not in _HASHES or flags & ~_KNOWN:
        raise SignatureInvalid("the SSHSIG asks for what we don't know", "signature-malformed")
    if namespace != key.namespace.encode():
        raise SignatureInvalid(f"signed for {namespace[:80]!a}, not {key.namespace}", "namespace-differs")
    covered = signed_data(key.namespace, message, algorithm)
    if key.application is None or counter is None:
        verify_signature(key.key, raw, covered)
        return Assurance(Strength.SOFTWARE)
    authenticated = sha256(key.application).digest() + bytes([flags]) + counter.to_bytes(4, "big")
    verify_signature(key.key, raw, authenticated + sha256(covered).digest())
    if not flags & _PRESENT:
        raise SignatureInvalid("nobody touched the security key", "user-presence-missing")
    if not flags & _VERIFIED:
        if key.user_verification:
            raise SignatureInvalid("the security key did not verify its user", "user-verification-missing")
        return Assurance(Strength.HARDWARE_TOUCHED, counter)
    return Assurance(Strength.HARDWARE_VERIFIED, counter)
