"""The claims, from the inside out: what each says, its controls, and how its verdict is reached.

Decides only how findings make a verdict; the findings themselves are gathered in `surface` (A), `boundary`
(B), `power` (C) and `record` (D, F). Source: 2-architecture, "The bundle and the claims"; controls are NIST
SP 800-53 rev 5, assigned as data.

Rule 1: a claim holds only if its population is not empty and nothing was found against it.
Rule 2: nothing is rounded up. One refuting finding refutes; else one open finding leaves it unproven.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .codes import OPEN, REFUTING

HOLDS: Final = "holds"
REFUTED: Final = "refuted"
UNPROVEN: Final = "unproven"
MAX_INDEXES: Final = 20
"""Indexes listed for one reason; `total` counts them all."""

#: id → (what it says, its controls), in the order in which claims are printed.
CLAIMS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "A1": ("every module that ran was approved by digest by the quorum", ("CM-7(5)", "SC-18", "CM-14")),
    "A2": (
        "its surface, recomputed from the bytes, is the approved one and lies within its profile",
        ("AC-6(8)", "CM-7", "SC-18", "SA-11(1)"),
    ),
    "B1": (
        "config approved = consumed = observed, for every launch",
        ("SC-39", "SC-3", "CM-6", "CM-6(1)", "CM-7(6)"),
    ),
    "B2": (
        "every escape probe was refused on every profile in use, fresh through the whole window",
        ("SC-39", "CM-7(6)", "SI-6", "SC-7(21)", "CA-8(2)"),
    ),
    "B3": (
        "no drift, or each drift ended in a stop within its bound",
        ("CA-7", "SI-4", "SI-7", "SI-7(5)", "SC-24"),
    ),
    "C1": (
        "every grant, load, launch and reconfiguration traces to the humans the trust root asks for",
        ("AC-3(2)", "AC-5", "AC-6(1)", "CM-5", "CM-5(1)"),
    ),
    "C2": (
        "none was initiated by an agent; the agent channel has no route for it",
        ("AC-6(10)", "AC-6(2)", "AC-5"),
    ),
    "C3": ("no action took effect without a live grant", ("AC-3", "AC-24", "AC-25", "AC-6(7)")),
    "C4": ("the non-escalation proof was made for this very kernel and holds", ("AC-25", "AC-6(10)")),
    "C5": ("malformed and unauthorised requests were refused", ("SI-10", "AC-3", "CM-5(4)")),
    "D1": (
        "the log is append-only, complete and witnessed by the policy's quorum",
        ("AU-9", "AU-9(2)", "AU-9(3)", "AU-10", "AU-11"),
    ),
    "D2": (
        "every act was logged before it happened; every intent has its outcome",
        ("AC-6(9)", "AU-3", "AU-5", "AU-12(1)"),
    ),
    "D3": (
        "every entry was said by a voice entitled to say it",
        ("AU-10", "AU-10(1)", "AU-9(4)", "IA-9"),
    ),
    "E1": ("the deployed files are those of a signed release with provenance", ("CM-14", "SI-7(15)", "SR-4")),
    "E2": ("the shipped surface is closed: no undeclared flag, variable, key or route", ("SI-7(12)", "SR-11")),
    "E3": ("one unbroken chain of signatures from the release to the launch", ("CM-14", "SC-12", "SA-10(1)")),
    "F1": (
        "launches and observations match one to one, told by two separate voices",
        ("CA-7(1)", "AU-6(3)", "CM-8(3)", "SI-4"),
    ),
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a claim does not hold: a code, the indexes of up to MAX_INDEXES entries out of `total`, and one case."""

    code: str
    indexes: tuple[int, ...]
    total: int
    text: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim with its verdict. `counts` is the population that was checked, `remarks` what limits it."""

    id: str
    says: str
    status: str
    counts: Mapping[str, int]
    reasons: tuple[Reason, ...]
    remarks: tuple[str, ...]
    controls: tuple[str, ...]


class Case:
    """The findings about one claim while it is examined."""

    __slots__ = ("_found", "_remarks", "counts", "id")

    def __init__(self, claim: str) -> None:
        self.id = claim
        self.counts: dict[str, int] = {}
        self._found: dict[str, tuple[list[int], str, list[int]]] = {}
        self._remarks: list[str] = []

    def found(self, code: str, index: int | None, text: str) -> None:
        """Something against the claim, at an entry if it has one; the first case of a code keeps its text."""
        if code not in REFUTING and code not in OPEN:
            raise KeyError(code)
        indexes, _, total = self._found.setdefault(code, ([], text, [0]))
        total[0] += 1
        if index is not None and len(indexes) < MAX_INDEXES and index not in indexes:
            indexes.append(index)

    def count(self, what: str, by: int = 1) -> None:
        """Add to the population."""
        self.counts[what] = self.counts.get(what, 0) + by

    def remark(self, text: str) -> None:
        """Something to know about the claim that does not change its verdict."""
        self._remarks.append(text)

    def population(self, what: str) -> None:
        """Rule 1: without any of these, the claim is unproven."""
        if not self.counts.setdefault(what, 0) and not self._found:
            self.found("empty-population", None, f"0 {what}")

    def close(self) -> Claim:
        """The claim with its verdict."""
        says, controls = CLAIMS[self.id]
        refuted = any(code in REFUTING for code in self._found)
        status = REFUTED if refuted else UNPROVEN if self._found else HOLDS
        reasons = tuple(
            Reason(code, tuple(indexes), total[0], text)
            for code, (indexes, text, total) in sorted(
                self._found.items(), key=lambda item: (item[0] not in REFUTING, item[0])
            )
        )
        return Claim(self.id, says, status, dict(self.counts), reasons, tuple(self._remarks), controls)
