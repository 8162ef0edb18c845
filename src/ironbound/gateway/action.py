"""What every action provider takes and gives: arguments refused, or a result with an honest status.

Decides nothing; the records that providers, the gateway's service and the agent channel share.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ironbound.core.canonical import Digest, Value, sha256_hex

Status: TypeAlias = Literal["performed", "failed", "not-performed", "unknown"]
"""As `action-outcome` says it: *performed* took effect; *failed* was answered with an error by the far side;
*not-performed* surely had no effect; *unknown* may have had one."""


class ArgumentsRefused(Exception):
    """The agent's arguments are no call of this action. Nothing was done. `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class Performed:
    """What came of an action: `text` and `facts` go back to the agent, `detail` (≤ 1000 characters) into the log.

    `spent` is what it cost in each unit that the provider can count; a grant's budget is settled with it.
    """

    status: Status
    detail: str
    text: str
    facts: Mapping[str, Value] = field(default_factory=dict)
    spent: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_error(self) -> bool:
        """True if the agent should take it for a failure."""
        return self.status != "performed"

    @property
    def result_bytes(self) -> int:
        """Size of the text in bytes of UTF-8."""
        return len(self.text.encode())

    @property
    def result_sha256(self) -> Digest:
        """SHA-256 of the text in UTF-8."""
        return sha256_hex(self.text.encode())


def members(value: Value, required: Mapping[str, type], optional: Mapping[str, type]) -> dict[str, Value]:
    """The members of an object of arguments: all the required, none but the optional, each of its exact type."""
    if not isinstance(value, dict):
        raise ArgumentsRefused("arguments-invalid", "expected an object of arguments")
    for name in value:
        if name not in required and name not in optional:
            raise ArgumentsRefused("argument-unknown", f"{name[:80]!a} is no argument of this action")
    for name, kind in {**required, **optional}.items():
        if name not in value:
            if name in required:
                raise ArgumentsRefused("argument-missing", f"{name} is missing")
        elif type(value[name]) is not kind:
            raise ArgumentsRefused("argument-type", f"{name}: expected {_KINDS[kind]}")
    return value


_KINDS = {str: "a string", dict: "an object", int: "an integer", bool: "true or false"}
