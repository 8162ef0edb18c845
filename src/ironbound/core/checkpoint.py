"""Checkpoints: the state of a log in three lines (C2SP tlog-checkpoint, tlog-cosignature).

Decides whether text is a checkpoint and whether the log signed it. It does not decide whether enough
witnesses did (policy), nor whether it is consistent with another checkpoint (merkle).

    ledger.example/deployment
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

Rule 1: the origin is the name of the log's key; there are no extension lines.
Rule 2: size 0 has the root of the empty tree, and nothing else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .canonical import FormatError, b64decode, b64encode, parse_decimal, require_same
from .keys import SignatureInvalid
from .merkle import EMPTY_ROOT, HASH_SIZE, MAX_SIZE
from .note import (
    COSIGNATURE,
    NOTE_SIGNATURE,
    NoteSignature,
    SignatureLine,
    Signer,
    VerifierKey,
    check_name,
    open_note,
    sign_note,
    verify_line,
)

MAX_CHECKPOINT = 512
"""Characters of a checkpoint's text."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's name, its number of entries and the root of its tree."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 0 <= self.size <= MAX_SIZE:
            raise FormatError("checkpoint-size", f"expected a size of at most 2^63 - 1, got {self.size}")
        if len(self.root) != HASH_SIZE:
            raise FormatError("checkpoint-root", f"expected {HASH_SIZE} bytes, got {len(self.root)}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise FormatError("checkpoint-root", "size 0 with another root than that of the empty tree")

    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint of its text; says nothing about signatures."""
    if len(text) > MAX_CHECKPOINT:
        raise FormatError("too-large", f"expected at most {MAX_CHECKPOINT} characters, got {len(text)}")
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise FormatError("checkpoint-shape", "expected exactly three lines: origin, size and root")
    checkpoint = Checkpoint(lines[0], parse_decimal(lines[1]), b64decode(lines[2]))
    require_same(checkpoint.text(), text, "checkpoint")
    return checkpoint


def sign_checkpoint(checkpoint: Checkpoint, log: Signer) -> bytes:
    """The checkpoint as a note, signed by the log."""
    if log.name != checkpoint.origin:
        raise FormatError("checkpoint-origin", f"expected {checkpoint.origin}, got the log key {log.name}")
    return sign_note(checkpoint.text(), [log])


def cosign_checkpoint(checkpoint: Checkpoint, witness: Signer, time: int) -> SignatureLine:
    """A witness's cosignature (type 04); `time` in seconds since 1970."""
    return witness.cosign_text(checkpoint.text(), time)


def verify_cosignature(checkpoint: Checkpoint, line: SignatureLine, witness: VerifierKey) -> int:
    """The time of a cosignature, in seconds since 1970; SignatureInvalid if it is not this witness's."""
    signature = verify_line(checkpoint.text(), line, witness)
    if signature.time is None:
        raise SignatureInvalid(f"{witness.name} is not a cosigner's key")
    return signature.time


def open_checkpoint(
    signed: bytes, log: VerifierKey, witnesses: Iterable[VerifierKey] = ()
) -> tuple[Checkpoint, tuple[NoteSignature, ...]]:
    """The checkpoint and the cosignatures by these witnesses, if the log signed it.

    Raises FormatError or SignatureInvalid. How many witnesses are enough is for the caller to say.
    """
    known: Sequence[VerifierKey] = (log, *witnesses)
    if log.kind != NOTE_SIGNATURE or any(key.kind != COSIGNATURE for key in known[1:]):
        raise FormatError("vkey", "expected a log key of type 01 and witness keys of type 04")
    note = open_note(signed, known)
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != log.name:
        raise FormatError("checkpoint-origin", f"expected {log.name}, got {checkpoint.origin}")
    if all(signature.key != log for signature in note.signatures):
        raise SignatureInvalid(f"the log {log.name} did not sign the checkpoint")
    return checkpoint, tuple(one for one in note.signatures if one.key != log)
