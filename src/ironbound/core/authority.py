"""The authority kernel: who may do what, as a table of pure rules. Nothing else decides that.

The rules stand in `giving` and `using`, what they are made of in `rule`. The state has no other home: every process
folds the same log through this table and arrives at the same state.

Rule 1: a rule lets nothing through unless each of its conditions is true itself, not merely like true.
Rule 2: a refusal changes nothing.

It does not check signatures, parse or read a clock: `replay` does that and hands over plain messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .canonical import Digest, canonical, parse_canonical, sha256_hex
from .constraint import Where, parse_where
from .giving import GIVING
from .logic import Across, Plain
from .rule import (
    ABSENT,
    ADMITTED,
    AGENT_MODULE,
    CANARY_MODULE,
    ENDED,
    FIELDS,
    LIVE,
    MAX_BREAK_GLASS_MS,
    MAX_DELEGATED_PER_AGENT,
    MAX_DELEGATION,
    MAX_GRANTS_PER_AGENT,
    MAX_REQUEST_LIFE_MS,
    READY,
    REVOKED,
    STARTED,
    USED,
    Message,
    Refused,
    Rule,
    State,
    Write,
    lives,
)
from .using import USING

RULES: Final[Mapping[str, Rule]] = {rule.name: rule for rule in (*GIVING, *USING)}


class Authority:
    """The interpreter of the table: one state, `check` to ask, `apply` to act. O(depth of delegation) per decision."""

    __slots__ = ("_state",)

    def __init__(self, quorum: Mapping[str, int]) -> None:
        """quorum: act (`QUORUMS`, and `break-glass` if there is one) → how many humans it takes, at least 1."""
        self._state: State = {field: {} for field in FIELDS}
        self._state["quorum"].update(quorum)

    def check(self, rule: str, message: Message) -> str | None:
        """The first condition of the rule's guard that does not hold, or None if it may happen."""
        for reason, holds in RULES[rule].guard(Plain, self._state, message):
            if holds is not True:
                return reason
        return None

    def apply(self, rule: str, message: Message) -> None:
        """Do it, or raise Refused and change nothing."""
        reason = self.check(rule, message)
        if reason is not None:
            raise Refused(reason)
        changes: list[Write] = []
        for field, key, value in RULES[rule].writes(Plain, self._state, message):
            if isinstance(key, Across):
                changes += [(field, one, value(one)) for one in key.keys]
            else:
                changes.append((field, key, value))
        for field, key, value in changes:
            if Plain.same(value, FIELDS[field]):
                self._state[field].pop(key, None)  # a total map: what is as if never written is not kept
            else:
                self._state[field][key] = value

    def holds(self, grant: str, now_ms: int) -> bool:
        """True if a grant and its line live and have calls left; for showing, never for deciding."""
        return bool(lives(Plain, self._state, {"now": now_ms}, grant))

    def read(self, field: str, key: Any) -> Any:
        """One value of the state; for showing, never for deciding."""
        return self._state[field].get(key, FIELDS[field])

    def values(self) -> int:
        """How many values the state has."""
        return sum(len(values) for values in self._state.values())

    def encode(self) -> bytes:
        """The whole state as bytes, the same for equal states: a canonical JSON list of each value, sorted."""
        values = [
            canonical([field, list(key) if isinstance(key, tuple) else key, _plain(value)])
            for field, values in self._state.items()
            for key, value in values.items()
        ]
        return b"[" + b",".join(sorted(values)) + b"]"

    @classmethod
    def decode(cls, data: bytes, limit: int) -> Authority:
        """The state from its `encode` of at most `limit` bytes, taken as it stands. FormatError if it is not one."""
        made = cls({})
        said: Any = parse_canonical(data, limit=limit)
        for field, key, value in said:
            if field == "grant_where":
                value = parse_where(value)
            elif isinstance(FIELDS[field], frozenset):
                value = frozenset(value)
            made._state[field][tuple(key) if isinstance(key, list) else key] = value
        return made

    def digest(self) -> Digest:
        """SHA-256 of `encode`: two parties that folded the same log have the same."""
        return sha256_hex(self.encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Where):
        return value.as_value()
    return sorted(value) if isinstance(value, frozenset) else value


__all__ = [
    "ABSENT", "ADMITTED", "AGENT_MODULE", "CANARY_MODULE", "ENDED", "FIELDS", "LIVE", "MAX_BREAK_GLASS_MS",
    "MAX_DELEGATED_PER_AGENT", "MAX_DELEGATION", "MAX_GRANTS_PER_AGENT", "MAX_REQUEST_LIFE_MS", "READY", "REVOKED",
    "RULES", "STARTED", "USED", "Authority", "Refused", "Rule",
]  # fmt: skip
