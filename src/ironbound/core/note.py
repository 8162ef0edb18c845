"""Signed notes: text with signature lines, and the keys that sign them (C2SP signed-note, tlog-cosignature).

Decides whether bytes are a note, and which of the known keys signed it. It does not decide which keys have
to: that is the policy's. It reads two types of signature: 01 (Ed25519 over the text) and 04 (Ed25519
cosignature with a time, in seconds since 1970).

    text, ending in LF
    LF
    — name base64(key id[4] ‖ signature) LF

Rule 1: the note ends with its last signature line; the last empty line parts text and signatures.
Rule 2: a line by an unknown name or key id is ignored; a line by a known key that does not verify, or that
stands twice, makes the whole note invalid.
Rule 3: a note that no known key signed is invalid.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from .canonical import MAX_DECIMAL, FormatError, b64decode, b64encode, hex_bytes, require_same
from .keys import ED25519, PrivateKey, PublicKey, SignatureInvalid, verify_signature

NOTE_SIGNATURE = 0x01
COSIGNATURE = 0x04

MAX_NOTE = 262_144
"""Bytes of a note. The text is small; post-quantum signatures of others, which we ignore, are not."""
MAX_LINES = 64
"""Signature lines of a note."""
MAX_NAME = 255
"""Bytes of a key's name."""
MAX_VKEY = 1024
"""Characters of a verifier key."""

_DASH = "\N{EM DASH} "


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "strict")
    except UnicodeEncodeError:
        raise FormatError("not-utf8", "the text holds half of a surrogate pair") from None


def check_name(name: str) -> None:
    """Raise FormatError unless this can be a key's name: not empty, no space, plus or control character."""
    if not name or "+" in name or any(one.isspace() or one < " " for one in name):
        raise FormatError("note-name", f"not a key name: {name[:80]!a}")
    if len(_utf8(name)) > MAX_NAME:
        raise FormatError("note-name", f"expected a name of at most {MAX_NAME} bytes")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under a name and for one type of signature, as a vkey spells it."""

    name: str
    kind: int
    key: PublicKey
    key_id: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.kind not in (NOTE_SIGNATURE, COSIGNATURE):
            raise FormatError("vkey", f"expected the signature type 01 or 04, got {self.kind:02x}")
        material = self.name.encode("utf-8") + b"\n" + bytes([self.kind]) + self.key.raw
        object.__setattr__(self, "key_id", sha256(material).digest()[:4])

    @property
    def vkey(self) -> str:
        """`name+key id+base64(type ‖ key)`."""
        return f"{self.name}+{self.key_id.hex()}+{b64encode(bytes([self.kind]) + self.key.raw)}"


def parse_vkey(text: str) -> VerifierKey:
    """The verifier key of a vkey; its key id must be the one that name, type and key give."""
    if len(text) > MAX_VKEY:
        raise FormatError("vkey", f"expected at most {MAX_VKEY} characters")
    parts = text.split("+", 2)  # base64 may hold a plus too
    if len(parts) != 3:
        raise FormatError("vkey", "expected name+id+key")
    name, key_id, material = parts[0], hex_bytes(parts[1], 4), b64decode(parts[2])
    if len(material) != 33:
        raise FormatError("vkey", f"expected a type and a key of 32 bytes, got {len(material)} bytes")
    key = VerifierKey(name, material[0], PublicKey(ED25519, material[1:]))
    if key.key_id != key_id:
        raise FormatError("vkey", f"expected the key id {key.key_id.hex()}, got {key_id.hex()}")
    return key


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature line, not verified. `blob` is what follows the key id."""

    name: str
    key_id: bytes
    blob: bytes

    def encode(self) -> str:
        """The line with its LF."""
        return f"{_DASH}{self.name} {b64encode(self.key_id + self.blob)}\n"


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """A verified signature. `time` is that of a cosignature, in seconds since 1970, else None."""

    key: VerifierKey
    time: int | None


@dataclass(frozen=True, slots=True)
class UnverifiedNote:
    """A note taken apart: its text, which nobody vouches for yet, and its signature lines."""

    text: str
    lines: tuple[SignatureLine, ...]

    def encode(self) -> bytes:
        """The note's bytes."""
        return (self.text + "\n" + "".join(line.encode() for line in self.lines)).encode("utf-8")


@dataclass(frozen=True, slots=True)
class Note:
    """A note that at least one known key signed. `signatures` holds every signature by a known key."""

    text: str
    signatures: tuple[NoteSignature, ...]


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise FormatError("note-text", "the text does not end in a newline")
    if any(character < " " and character != "\n" for character in text):
        raise FormatError("note-text", "the text holds a control character")


def _signature_line(line: str) -> SignatureLine:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise FormatError("note-signature", f"not a signature line: {line[:80]!a}")
    check_name(name)
    blob = b64decode(encoded)
    if len(blob) < 5:
        raise FormatError("note-signature", "a signature is shorter than its key id")
    return SignatureLine(name, blob[:4], blob[4:])


def parse_signature_lines(data: bytes) -> tuple[SignatureLine, ...]:
    """Signature lines alone, at least one, each ending in LF: a note's tail, or a witness's answer."""
    if len(data) > MAX_NOTE:
        raise FormatError("too-large", f"expected at most {MAX_NOTE} bytes, got {len(data)}")
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise FormatError("not-utf8", f"invalid UTF-8 at byte {error.start}") from None
    if not text.endswith("\n"):
        raise FormatError("note-signature", "expected signature lines that end in a newline")
    encoded = text[:-1].split("\n")
    if len(encoded) > MAX_LINES:
        raise FormatError("note-signature", f"expected at most {MAX_LINES} signatures, got {len(encoded)}")
    lines = tuple(_signature_line(line) for line in encoded)
    if len({(line.name, line.key_id) for line in lines}) != len(lines):
        raise FormatError("note-signature", "two signatures by one key")
    return lines


def parse_note(data: bytes) -> UnverifiedNote:
    """Take a note apart without verifying anything."""
    if len(data) > MAX_NOTE:
        raise FormatError("too-large", f"expected at most {MAX_NOTE} bytes, got {len(data)}")
    end = data.rfind(b"\n\n")
    if end < 0:
        raise FormatError("note-shape", "no empty line parts text and signatures")
    try:
        text = data[: end + 1].decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise FormatError("not-utf8", f"invalid UTF-8 at byte {error.start}") from None
    _check_text(text)
    note = UnverifiedNote(text, parse_signature_lines(data[end + 2 :]))
    require_same(note.encode(), data, "note")
    return note


def cosignature_message(text: str, time: int) -> bytes:
    """What a cosignature of type 04 signs; `time` in seconds since 1970."""
    return _utf8(f"cosignature/v1\ntime {time}\n{text}")


def verify_line(text: str, line: SignatureLine, key: VerifierKey) -> NoteSignature:
    """The signature of a line over a text, or SignatureInvalid. The line must be by this key."""
    if (line.name, line.key_id) != (key.name, key.key_id):
        raise SignatureInvalid(f"expected a signature by {key.name}, got one by {line.name}")
    if key.kind == NOTE_SIGNATURE:
        verify_signature(key.key, line.blob, text.encode("utf-8"))
        return NoteSignature(key, None)
    time = int.from_bytes(line.blob[:8], "big")
    if time > MAX_DECIMAL:
        raise SignatureInvalid("the time of the cosignature is out of range")
    verify_signature(key.key, line.blob[8:], cosignature_message(text, time))
    return NoteSignature(key, time)


def verify_note(note: UnverifiedNote, known: Iterable[VerifierKey]) -> Note:
    """The note with its known signers. Raises SignatureInvalid by Rules 2 and 3."""
    keys: dict[tuple[str, bytes], VerifierKey] = {}
    for key in known:
        if keys.setdefault((key.name, key.key_id), key) != key:
            raise FormatError("vkey", f"two known keys share the name {key.name} and an id")
    signatures = tuple(
        verify_line(note.text, line, keys[line.name, line.key_id])
        for line in note.lines
        if (line.name, line.key_id) in keys
    )
    if not signatures:
        raise SignatureInvalid("no known key signed the note")
    return Note(note.text, signatures)


def open_note(data: bytes, known: Iterable[VerifierKey]) -> Note:
    """Parse and verify a note. Raises FormatError or SignatureInvalid."""
    return verify_note(parse_note(data), known)


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key under the name with which it signs notes."""

    name: str
    key: PrivateKey

    def __post_init__(self) -> None:
        check_name(self.name)

    def verifier(self, kind: int = NOTE_SIGNATURE) -> VerifierKey:
        """The verifier key for this type of signature."""
        return VerifierKey(self.name, kind, self.key.public)

    def sign_text(self, text: str) -> SignatureLine:
        """A signature line of type 01 over a text."""
        _check_text(text)
        return SignatureLine(self.name, self.verifier().key_id, self.key.sign(_utf8(text)))

    def cosign_text(self, text: str, time: int) -> SignatureLine:
        """A signature line of type 04 over a checkpoint's text; `time` in seconds since 1970."""
        _check_text(text)
        if not 0 <= time <= MAX_DECIMAL:
            raise FormatError("note-time", f"expected a time from 0 to 2^63 - 1, got {time}")
        signature = self.key.sign(cosignature_message(text, time))
        return SignatureLine(self.name, self.verifier(COSIGNATURE).key_id, time.to_bytes(8, "big") + signature)


def sign_note(text: str, signers: Sequence[Signer]) -> bytes:
    """A note of this text, signed by each signer with a signature of type 01."""
    return UnverifiedNote(text, tuple(signer.sign_text(text) for signer in signers)).encode()


def add_lines(data: bytes, lines: Sequence[SignatureLine]) -> bytes:
    """The note with these signature lines added after its own."""
    note = parse_note(data)
    return parse_note(UnverifiedNote(note.text, (*note.lines, *lines)).encode()).encode()
