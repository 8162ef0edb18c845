"""What a witness remembers of one log, and when it cosigns (C2SP tlog-witness, tlog-cosignature).

Decides whether a checkpoint is one that this witness may cosign: signed by the log, and an extension of what
it cosigned last. Does not decide whether what the log says is true.

Rule 1: checking and persisting are one step under one lock, and a cosignature is returned only after the
checkpoint that it is for is durable. One fdatasync.
Rule 2: size never shrinks, and a size is never cosigned with two roots.
Rule 3: a missing state is an error; only `create` makes one. An old backup of it is not detected here: the
log refuses to go on when it is asked for a proof from a size at which its own roots differ.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ironbound.core.canonical import FormatError
from ironbound.core.checkpoint import Checkpoint, cosign_checkpoint, open_checkpoint, parse_checkpoint
from ironbound.core.keys import SignatureInvalid
from ironbound.core.merkle import EMPTY_ROOT, ProofInvalid, verify_consistency
from ironbound.core.note import Signer, UnverifiedNote, VerifierKey, parse_note
from ironbound.wire.durable import DurableRecord, RecordLost


class Refusal(Exception):
    """An add-checkpoint that is not cosigned, with the HTTP status that the protocol has for it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Conflict(Refusal):
    """409: `size` is what this witness cosigned last."""

    def __init__(self, size: int, message: str) -> None:
        super().__init__(409, message)
        self.size = size


class WitnessStateLost(Exception):
    """The state file is missing, in use or not this log's; the witness must not start."""


class Cosigner:
    """One witness for one log. Thread-safe; `add` blocks for the disk."""

    def __init__(self, state: DurableRecord, signer: Signer, log: VerifierKey, clock: Callable[[], int]) -> None:
        self._state = state
        self._signer = signer
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._size, self._root = self._remembered(state.record)

    @staticmethod
    def create(path: str) -> None:
        """A state in which nothing was cosigned yet; FileExistsError if there is one."""
        DurableRecord.create(path, b"")

    @classmethod
    def open(cls, path: str, signer: Signer, log: VerifierKey, clock: Callable[[], int]) -> Cosigner:
        """The witness with the state at `path`, or WitnessStateLost. `clock`: seconds since 1970."""
        try:
            return cls(DurableRecord.open(path), signer, log, clock)
        except RecordLost as error:
            raise WitnessStateLost(str(error)) from error

    def _remembered(self, record: bytes) -> tuple[int, bytes]:
        if not record:
            return 0, EMPTY_ROOT
        try:
            checkpoint, _ = open_checkpoint(record, self._log)
        except (FormatError, SignatureInvalid) as error:
            raise WitnessStateLost(f"the state is not a checkpoint of {self._log.name}: {error}") from error
        return checkpoint.size, checkpoint.root

    @property
    def origin(self) -> str:
        """The log that it cosigns for."""
        return self._log.name

    @property
    def size(self) -> int:
        """The size that it cosigned last; 0 if none."""
        return self._size

    def add(self, old: int, proof: Sequence[bytes], signed: bytes) -> bytes:
        """The cosignature line for a checkpoint that follows what was cosigned last; Refusal otherwise."""
        checkpoint = self._authentic(signed)
        if old > checkpoint.size:
            raise Refusal(400, f"the old size {old} is more than the checkpoint's {checkpoint.size}")
        with self._lock:  # Rule 1
            if old != self._size:
                raise Conflict(self._size, f"expected the old size {self._size}, got {old}")
            if checkpoint.size == self._size and checkpoint.root != self._root:
                raise Conflict(self._size, f"another tree of {self._size} entries was cosigned")
            try:
                if old == 0 and proof:
                    raise ProofInvalid("the proof from size 0 is empty")
                verify_consistency(old, checkpoint.size, proof, self._root, checkpoint.root)
            except ProofInvalid as error:
                raise Refusal(422, str(error)) from error
            if checkpoint.size != self._size:
                # Only the log's own line is kept: others' lines are of any size and say nothing to us.
                self._state.replace(self._kept(signed))
                self._size, self._root = checkpoint.size, checkpoint.root
            return cosign_checkpoint(checkpoint, self._signer, self._clock()).encode().encode()

    def _authentic(self, signed: bytes) -> Checkpoint:
        try:
            claimed = parse_checkpoint(parse_note(signed).text)
        except FormatError as error:
            raise Refusal(400, str(error)) from error
        if claimed.origin != self._log.name:
            raise Refusal(404, "this witness doesn't know that log")
        try:
            checkpoint, _ = open_checkpoint(signed, self._log)
        except (FormatError, SignatureInvalid) as error:
            raise Refusal(403, str(error)) from error
        return checkpoint

    def _kept(self, signed: bytes) -> bytes:
        mine = (self._log.name, self._log.key_id)
        note = parse_note(signed)
        return UnverifiedNote(note.text, tuple(one for one in note.lines if (one.name, one.key_id) == mine)).encode()

    def close(self) -> None:
        """Releases the state."""
        self._state.close()
