"""The control matrix for spreadsheets: a row for each control and each claim that serves it.

Decides only how cells are written. RFC 4180, UTF-8.

Rule 1: no cell is a formula. What a spreadsheet would take for one gets an apostrophe before it; control characters
become spaces, so that no cell makes a row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Final

from ironbound.verifier.verify import Report

from .controls import Plan, controls, layers

COLUMNS: Final = (
    "control", "title", "layer", "core", "claim", "says", "status", "reasons", "counted", "first entry", "last entry",
)  # fmt: skip
_FORMULA: Final = tuple("=+-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}"
                        "\N{FULLWIDTH COMMERCIAL AT}|%")  # fmt: skip


def matrix_csv(report: Report, plan: Plan) -> bytes:
    """The matrix. Controls that no claim serves stand in it, as not assessed."""
    out = io.StringIO()
    table = csv.writer(out, quoting=csv.QUOTE_ALL)
    table.writerow(COLUMNS)
    table.writerows([cell(one) for one in row] for row in _rows(report, plan))
    return out.getvalue().encode("utf-8")


def cell(value: str) -> str:
    """A cell that no spreadsheet computes (rule 1)."""
    text = "".join(char if char.isprintable() else " " for char in value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _rows(report: Report, plan: Plan) -> Iterator[tuple[str, ...]]:
    titles = {one.id: one.title for one in layers()}
    known = controls()
    serving: dict[str, list[str]] = {one: [] for one in known}
    for claim, targets in plan.targets.items():
        for target in targets:
            serving.setdefault(target.control, []).append(claim)
    claims = {one.id: one for one in report.claims}
    for name, served_by in serving.items():
        control = known.get(name)
        head = (
            (control.name, control.title, titles[control.layer], "yes" if control.core else "no")
            if control
            else (name, "", "", "")
        )
        if not served_by:
            yield (*head, "", "", "not assessed", "", "", "", "")
        for claim in dict.fromkeys(served_by):
            one = claims[claim]
            yield (
                *head,
                claim,
                one.says,
                one.status,
                "; ".join(f"{reason.code}: {reason.text}" for reason in one.reasons),
                "; ".join(f"{count} {what}" for what, count in one.counts.items()),
                "0",
                str(report.size - 1),
            )
