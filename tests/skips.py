"""The list of tests that may be skipped on CI, tests/SKIPS.md, as data. conftest.py decides with it."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

PLACES = ("anywhere", "as root", "as an ordinary user")


@dataclass(frozen=True, slots=True)
class Allowed:
    """A row of tests/SKIPS.md: which tests may be skipped, where, and why."""

    pattern: str
    where: str
    reason: str

    def covers(self, nodeid: str, marks: set[str], *, root: bool) -> bool:
        if self.where == "as root" and not root or self.where == "as an ordinary user" and root:
            return False
        if self.pattern.startswith("@"):
            return self.pattern[1:] in marks
        return fnmatch.fnmatchcase(nodeid, self.pattern)


def parse_skips(text: str) -> list[Allowed]:
    """The rows of the table: `pattern` | where | reason. Raises ValueError for a row that says too little."""
    rows = []
    for line in text.splitlines():
        if not line.startswith("| `"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 3 or cells[1] not in PLACES or len(cells[2].split()) < 3:
            raise ValueError(f"SKIPS.md: want `pattern` | one of {', '.join(PLACES)} | a reason; got: {line}")
        rows.append(Allowed(cells[0].strip("`"), cells[1], cells[2]))
    return rows
