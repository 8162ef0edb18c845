"""Transparency log proofs: an entry's place in the log, to be checked offline (C2SP tlog-proof).

Decides whether an entry is in the log under a checkpoint that meets a policy. It does not decide what the
entry means, or whether a later checkpoint of the log is consistent with this one.

    c2sp.org/tlog-proof@v1
    index 73894
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=      (one line per hash, from the leaf's sibling upwards)

    ledger.example/deployment                         (the signed checkpoint, verbatim)

Rule 1: a proof has one spelling. An `extra` line, which nothing would authenticate, is refused.
Rule 2: nothing of a proof is used before the policy has accepted its checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .canonical import FormatError, b64decode, b64encode, parse_decimal, require_same
from .checkpoint import Checkpoint
from .merkle import HASH_SIZE, MAX_PROOF, verify_inclusion
from .note import MAX_NOTE, parse_note
from .policy import Policy, VerifiedCheckpoint

HEADER = b"c2sp.org/tlog-proof@v1\n"
MAX_TLOG_PROOF = MAX_NOTE + 4096
"""Bytes of a proof: a note, and up to 64 lines of 45 bytes."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof taken apart, not verified."""

    index: int
    hashes: tuple[bytes, ...]
    signed_checkpoint: bytes


@dataclass(frozen=True, slots=True)
class VerifiedEntry:
    """An entry's index in the log, and the checkpoint that covers it."""

    index: int
    verified: VerifiedCheckpoint


def encode_proof(index: int, hashes: Sequence[bytes], signed_checkpoint: bytes) -> bytes:
    """The proof's bytes."""
    lines = "".join(f"{b64encode(one)}\n" for one in hashes)
    return b"%bindex %d\n%b\n%b" % (HEADER, index, lines.encode("ascii"), signed_checkpoint)


def parse_proof(data: bytes) -> Proof:
    """Take a proof apart; the checkpoint in it is a well-formed note, but not verified."""
    if len(data) > MAX_TLOG_PROOF:
        raise FormatError("too-large", f"expected at most {MAX_TLOG_PROOF} bytes, got {len(data)}")
    end = data.find(b"\n\n")
    if not data.startswith(HEADER) or end < 0:
        raise FormatError("proof-shape", "expected the header of a tlog-proof, and an empty line")
    if not data[:end].isascii():
        raise FormatError("proof-shape", "the lines before the checkpoint are ASCII")
    first, *lines = data[len(HEADER) : end].decode("ascii").split("\n")
    word, _, number = first.partition(" ")
    if word != "index":
        raise FormatError("proof-shape", f"expected the index line, got {first[:40]!a}")
    if len(lines) > MAX_PROOF:
        raise FormatError("proof-shape", f"expected at most {MAX_PROOF} hashes, got {len(lines)}")
    proof = Proof(parse_decimal(number), tuple(b64decode(line) for line in lines), data[end + 2 :])
    if any(len(one) != HASH_SIZE for one in proof.hashes):
        raise FormatError("proof-shape", f"expected hashes of {HASH_SIZE} bytes")
    parse_note(proof.signed_checkpoint)
    require_same(encode_proof(proof.index, proof.hashes, proof.signed_checkpoint), data, "proof")
    return proof


def verify_entry(data: bytes, entry_hash: bytes, policy: Policy) -> VerifiedEntry:
    """The index and checkpoint of the entry whose leaf hash (merkle.leaf_hash) is `entry_hash`.

    Raises FormatError, SignatureInvalid, PolicyUnmet or ProofInvalid.
    """
    proof = parse_proof(data)
    verified = policy.verify(proof.signed_checkpoint)
    checkpoint = verified.checkpoint
    verify_inclusion(entry_hash, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return VerifiedEntry(proof.index, verified)


def verify_proof(data: bytes, entry_hash: bytes, policy: Policy) -> Checkpoint:
    """The checkpoint alone of `verify_entry`."""
    return verify_entry(data, entry_hash, policy).verified.checkpoint
