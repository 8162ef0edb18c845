"""The monitor's look at a held sandbox, which the node's `started` carries.

Decides whether a start carries it: signed by the monitor, about this very account of this very launch, and without a
difference. A start without it has no effect. What the monitor saw is compared with the node's account by the verifier
(B1). Pure.

Rule 1: the look covers every word of the account, by digest. It names the launch, so it serves for no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .authority import Refused
from .canonical import Digest, FormatError, Value, canonical, sha256_hex
from .envelope import envelope_from_value, verify_envelope
from .keys import PublicKey, SignatureInvalid
from .statement import SHAPES, parse_statement

KIND: Final = "held"
#: What of a start is no account of the sandbox: the statement's own head, and what is added after the look.
_UNSEEN: Final = frozenset({"id", "deployment", "at_ms", "held", "quote"})
_SAME: Final = ("launch", "agent", "pid", "deployment")


def account_digest(said: Mapping[str, Any]) -> Digest:
    """The digest of what a node says of a sandbox: a start's fields, or those that it will have."""
    return sha256_hex(canonical({name: value for name, value in said.items() if name not in _UNSEEN}))


def require_account(said: Value) -> dict[str, Any]:
    """An account, as a start's shape has it. FormatError if it is none."""
    if not isinstance(said, dict) or not said.keys().isdisjoint(_UNSEEN):
        raise FormatError("account-invalid", "expected a start's fields without its head, its look and its quote")
    head: dict[str, Value] = {"id": "0" * 32, "deployment": "d", "at_ms": 0, "held": {}, "quote": None}
    SHAPES["started"](said | head, "account")
    return dict(said)


def read_held(value: Value) -> Mapping[str, Any]:
    """The monitor's words in a start's `held`, whoever signed them. FormatError if they are none."""
    statement = parse_statement(envelope_from_value(value).payload)
    if statement.kind != KIND:
        raise FormatError("held-invalid", f"expected {KIND}, got {statement.kind}")
    return statement.predicate


def require_seen(said: Mapping[str, Any], monitor: PublicKey) -> None:
    """Refuse (`not-seen`, `seen-differs`) a start that the monitor's key has not signed a look for."""
    try:
        envelope = envelope_from_value(said["held"])
        if len(envelope.signatures) != 1:
            raise Refused("not-seen")
        verify_envelope(envelope, {monitor.keyid: monitor})
        seen = read_held(said["held"])
    except (FormatError, SignatureInvalid):
        raise Refused("not-seen") from None
    if any(seen[name] != said[name] for name in _SAME) or seen["account_sha256"] != account_digest(said):
        raise Refused("seen-differs")
    if seen["differences"]:
        raise Refused("seen-differs")
