"""What a peer asked for, checked before the ledger spends anything durable on it.

Decides whether a frame is a well-formed request and whether its entry was signed by a voice that is
entitled to say it, from the user that it must come from. Does not decide whether what it says is true or
allowed: that is for those who replay the log. Pure: bytes in, a request out. libsodium accepts no signature
that `core.keys` refuses; a test holds that.

Rule 1: the checks run in the order of the numbers below; the first that fails names the refusal.
Rule 2: an entry is exactly the bytes that were received, and holds exactly one signature.
Rule 3: the signature is verified over those bytes before the payload is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from ironbound.core.canonical import FormatError, Value, b64decode, parse_canonical
from ironbound.core.envelope import PAYLOAD_TYPE, Envelope, pae, parse_envelope
from ironbound.core.keys import KeyId
from ironbound.core.merkle import leaf_hash
from ironbound.wire.frames import Frame, decode_body

from .settings import LedgerSettings

#: Bytes in one entry (C2SP tlog-tiles: its length is a u16).
MAX_ENTRY: Final = 65_535
#: Bytes in a frame from a peer: an entry in base64 with room to answer a larger one by name.
MAX_REQUEST: Final = 256 * 1024
_ID: Final = re.compile(r"[0-9a-f]{32}")
_MAX_SEQ: Final = 2**53 - 1


class Refused(Exception):
    """A request that is answered with an error. `seq` is None where the frame itself could not be read."""

    def __init__(self, seq: int | None, code: str, message: str) -> None:
        super().__init__(message)
        self.seq = seq
        self.code = code
        self.message = message

    def frame(self) -> Frame:
        """The answer."""
        return {"seq": self.seq, "ok": False, "code": self.code, "message": self.message[:500]}


@dataclass(frozen=True, slots=True)
class Append:
    """An entry that may be logged; `key` is the submitter's key id (32 bytes) ‖ the statement id (16)."""

    seq: int
    entry: bytes
    leaf: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Follow:
    """A wish for all entries from index `first` on, as they are published."""

    seq: int
    first: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A wish for the published head."""

    seq: int


Request = Append | Follow | Ask


class Intake:
    """The rules of one deployment, ready to be applied."""

    __slots__ = ("_deployment", "_entitlements", "_verifiers", "_voices")

    def __init__(self, settings: LedgerSettings) -> None:
        self._deployment = settings.deployment
        self._voices = dict(settings.voices)
        self._entitlements: Mapping[str, frozenset[str]] = settings.entitlements
        self._verifiers: dict[KeyId, VerifyKey] = {}
        for keyid, voice in self._voices.items():
            if voice.key.scheme != "ed25519":
                raise FormatError("voice-scheme", f"a service signs with ed25519, {voice.role} has {voice.key.scheme}")
            self._verifiers[keyid] = VerifyKey(voice.key.raw)

    def read(self, body: bytes, peer_uid: int) -> Request:
        """The request in a frame's body from a process of user `peer_uid`; Refused if any check fails."""
        try:  # (1) the frame
            frame = decode_body(body, limit=MAX_REQUEST)
        except FormatError as error:
            raise Refused(None, "frame-invalid", str(error)) from error
        seq = frame.get("seq")
        if type(seq) is not int or not 0 <= seq <= _MAX_SEQ:
            raise Refused(None, "frame-invalid", f"seq: expected an integer from 0 to 2^53-1, got {str(seq)[:40]!r}")
        match frame:
            case {"op": "append", "envelope": str(text)} if len(frame) == 3:
                return self._append(seq, text, peer_uid)
            case {"op": "follow", "from": int(first)} if len(frame) == 3 and type(first) is int and first >= 0:
                return Follow(seq, first)
            case {"op": "head"} if len(frame) == 2:
                return Ask(seq)
        raise Refused(seq, "frame-invalid", "expected op append {envelope}, follow {from} or head, and nothing else")

    def _append(self, seq: int, text: str, peer_uid: int) -> Append:
        try:  # (2) the envelope
            entry = b64decode(text)
            if len(entry) > MAX_ENTRY:
                message = f"an entry has at most {MAX_ENTRY} bytes, this one has {len(entry)}; log it by digest"
                raise Refused(seq, "entry-too-large", message)
            envelope = parse_envelope(entry)
        except FormatError as error:
            raise Refused(seq, "envelope-invalid", str(error)) from error
        if len(envelope.signatures) != 1:
            count = len(envelope.signatures)
            raise Refused(seq, "envelope-invalid", f"expected exactly one signature, got {count}")
        signature = envelope.signatures[0]
        voice = self._voices.get(signature.keyid)  # (3) the voice
        if voice is None:
            raise Refused(seq, "voice-unknown", f"no service of this deployment has the key {signature.keyid[:16]}…")
        if peer_uid != voice.uid:  # (4) the peer
            message = f"the {voice.role} runs as user {voice.uid}, this connection is from user {peer_uid}"
            raise Refused(seq, "peer-mismatch", message)
        try:  # (5) the signature, over the bytes received
            self._verifiers[signature.keyid].verify(pae(PAYLOAD_TYPE, envelope.payload), signature.sig)
        except (BadSignatureError, ValueError) as error:
            raise Refused(seq, "signature-invalid", f"the {voice.role}'s signature does not verify") from error
        kind, statement = self._statement(seq, envelope)  # (6) the payload
        if kind not in self._entitlements.get(voice.role, frozenset()):  # (7) the entitlement
            raise Refused(seq, "voice-not-entitled", f"the {voice.role} may not say {kind[:100]!r}")
        return Append(seq, entry, leaf_hash(entry), bytes.fromhex(signature.keyid) + bytes.fromhex(statement))

    def _statement(self, seq: int, envelope: Envelope) -> tuple[str, str]:
        try:
            payload: Value = parse_canonical(envelope.payload, limit=MAX_ENTRY)
        except FormatError as error:
            raise Refused(seq, "envelope-invalid", f"payload: {error}") from error
        match payload:
            case {
                "predicateType": str(kind),
                "predicate": {"id": str(statement), "deployment": str(deployment)},
            }:
                if not _ID.fullmatch(statement):
                    raise Refused(seq, "envelope-invalid", "payload: predicate.id: expected 32 lower hex digits")
                if deployment != self._deployment:
                    message = f"payload: deployment: expected {self._deployment!r}, got {deployment[:64]!r}"
                    raise Refused(seq, "envelope-invalid", message)
                return kind, statement
        raise Refused(
            seq,
            "envelope-invalid",
            "payload: expected predicateType, predicate.id and predicate.deployment",
        )
