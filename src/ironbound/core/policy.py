"""Witness policies: which log, and which of the witnesses make a quorum (C2SP tlog-policy).

Decides whether a signed checkpoint meets a policy. It does not decide who chose the policy: the trust root
binds it.

    log ledger.example+…
    witness local monitor.example+…
    witness other witness.example+… https://witness.example/
    group both all local other
    quorum both

Rule 1: exactly one log line and exactly one quorum line; a name is defined before it is used, once.
Rule 2: one public key is one party: no two lines hold the same key, under whatever name.
Rule 3: a name is a member of one group at most, so that no witness counts twice.
Rule 4: a checkpoint that the log did not sign, or on which a known signature is bad, meets no policy.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .canonical import FormatError, parse_decimal
from .checkpoint import Checkpoint, open_checkpoint
from .note import COSIGNATURE, NOTE_SIGNATURE, VerifierKey, parse_vkey

MAX_POLICY = 65_536
"""Bytes of a policy."""
MAX_WITNESSES = 64
MAX_GROUPS = 64
NONE = "none"


class PolicyUnmet(Exception):
    """The log signed the checkpoint, but the witnesses that cosigned it are no quorum."""


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness under its name in the policy; `url` is where to submit checkpoints, if given."""

    name: str
    key: VerifierKey
    url: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """A group that has witnessed a checkpoint when at least `threshold` of its members have."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A checkpoint that meets a policy. `times[i]` is when `witnesses[i]` cosigned, in seconds since 1970.

    `witnesses` are the policy's names of all that cosigned, in the policy's order.
    """

    checkpoint: Checkpoint
    witnesses: tuple[str, ...]
    times: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as it was read; groups stand in the order of their definition."""

    log: VerifierKey
    log_url: str | None
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    def verify(self, signed: bytes) -> VerifiedCheckpoint:
        """The checkpoint, signed by the log and cosigned by a quorum.

        Raises FormatError, SignatureInvalid or PolicyUnmet.
        """
        verified = self.verify_log_only(signed)
        if not self.is_quorum(verified.witnesses):
            got = ", ".join(verified.witnesses) or "nobody"
            raise PolicyUnmet(f"expected the quorum {self.quorum}, got cosignatures of {got}")
        return verified

    def verify_log_only(self, signed: bytes) -> VerifiedCheckpoint:
        """The checkpoint, signed by the log and cosigned by anyone or no one (assurance T0)."""
        checkpoint, signatures = open_checkpoint(signed, self.log, [one.key for one in self.witnesses])
        times = {one.key: one.time for one in signatures if one.time is not None}
        present = [one for one in self.witnesses if one.key in times]
        return VerifiedCheckpoint(
            checkpoint, tuple(one.name for one in present), tuple(times[one.key] for one in present)
        )

    def is_quorum(self, names: tuple[str, ...]) -> bool:
        """Whether cosignatures of the witnesses of these names are enough."""
        met = {NONE, *names}
        for group in self.groups:
            if sum(member in met for member in group.members) >= group.threshold:
                met.add(group.name)
        return self.quorum in met


class _Reader:
    """The lines read so far."""

    def __init__(self) -> None:
        self.logs: list[tuple[VerifierKey, str | None]] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.quorums: list[str] = []
        self.defined: set[str] = set()
        self.members: set[str] = set()
        self.keys: set[bytes] = set()

    def read(self, words: list[str]) -> None:
        kinds: dict[str, Callable[[list[str]], None]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._quorum,
        }
        if words[0] not in kinds:
            raise FormatError("policy-line", f"expected log, witness, group or quorum, got {words[0][:40]!a}")
        kinds[words[0]](words[1:])

    def _key(self, text: str, kind: int) -> VerifierKey:
        key = parse_vkey(text)
        if key.kind != kind:
            raise FormatError("policy-key", f"expected a key of type {kind:02x}, got {key.kind:02x}")
        if key.key.raw in self.keys:
            raise FormatError("policy-key", f"the key of {key.name} stands twice")
        self.keys.add(key.key.raw)
        return key

    def _define(self, name: str) -> None:
        if name == NONE or name in self.defined:
            raise FormatError("policy-name", f"{name[:80]!a} is taken")
        self.defined.add(name)

    def _log(self, words: list[str]) -> None:
        if len(words) not in (1, 2):
            raise FormatError("policy-line", "expected: log vkey [url]")
        if self.logs:
            raise FormatError("policy-log", "expected one log, got two")
        self.logs.append((self._key(words[0], NOTE_SIGNATURE), words[1] if len(words) == 2 else None))

    def _witness(self, words: list[str]) -> None:
        if len(words) not in (2, 3):
            raise FormatError("policy-line", "expected: witness name vkey [url]")
        if len(self.witnesses) == MAX_WITNESSES:
            raise FormatError("too-large", f"expected at most {MAX_WITNESSES} witnesses")
        self._define(words[0])
        key = self._key(words[1], COSIGNATURE)
        self.witnesses.append(Witness(words[0], key, words[2] if len(words) == 3 else None))

    def _group(self, words: list[str]) -> None:
        if len(words) < 3:
            raise FormatError("policy-line", "expected: group name all|any|k member…")
        if len(self.groups) == MAX_GROUPS:
            raise FormatError("too-large", f"expected at most {MAX_GROUPS} groups")
        name, rule, *members = words
        for member in members:
            if member not in self.defined:
                raise FormatError("policy-name", f"{member[:80]!a} is not defined before it is used")
            if member in self.members:
                raise FormatError("policy-name", f"{member[:80]!a} is a member twice")
            self.members.add(member)
        self._define(name)
        threshold = {"all": len(members), "any": 1}.get(rule)
        if threshold is None:
            threshold = parse_decimal(rule)
        if not 1 <= threshold <= len(members):
            raise FormatError("policy-group", f"expected a threshold of 1 to {len(members)}, got {threshold}")
        self.groups.append(Group(name, threshold, tuple(members)))

    def _quorum(self, words: list[str]) -> None:
        if len(words) != 1:
            raise FormatError("policy-line", "expected: quorum name|none")
        if self.quorums:
            raise FormatError("policy-quorum", "expected one quorum, got two")
        if words[0] != NONE and words[0] not in self.defined:
            raise FormatError("policy-name", f"{words[0][:80]!a} is not defined before it is used")
        self.quorums.append(words[0])

    def policy(self) -> Policy:
        if not self.logs:
            raise FormatError("policy-log", "expected one log, got none")
        if not self.quorums:
            raise FormatError("policy-quorum", "expected one quorum, got none")
        log, url = self.logs[0]
        return Policy(log, url, tuple(self.witnesses), tuple(self.groups), self.quorums[0])


def parse_policy(text: str) -> Policy:
    """The policy of a file's text."""
    if len(text) > MAX_POLICY:
        raise FormatError("too-large", f"expected at most {MAX_POLICY} characters, got {len(text)}")
    if any((one < " " and one not in "\t\n") or one == "\x7f" for one in text):
        raise FormatError("policy-text", "the policy holds a control character")
    if not text.endswith("\n"):
        raise FormatError("policy-text", "the last line does not end in a newline")
    reader = _Reader()
    for line in text[:-1].split("\n"):
        # Words are parted by spaces and tabs only; str.split() alone would take other white space too.
        words = [word for word in line.replace("\t", " ").split(" ") if word]
        if words and not words[0].startswith("#"):
            reader.read(words)
    return reader.policy()
