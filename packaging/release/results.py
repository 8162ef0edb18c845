"""Runs pytest on the package that is installed here and keeps what became of each test. Started as a program:

    python -I -B results.py TOOLS RESULTS ARGS...

TOOLS is a folder of packages, pytest among them, which comes after everything that is installed; RESULTS the file to
write. Decides nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


class Results:
    """Keeps for each test the worst that was said of it."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """pytest's hook: called for setup, call and teardown of each test."""
        worst = ("passed", "skipped", "failed")
        before = self.said.get(report.nodeid, "passed")
        self.said[report.nodeid] = max(before, report.outcome, key=worst.index)

    def pytest_collectreport(self, report: Any) -> None:
        """pytest's hook: what can't be collected failed."""
        if report.outcome == "failed":
            self.said[report.nodeid] = "failed"


def main() -> int:
    """Exits with pytest's own code."""
    tools, file, *words = sys.argv[1:]
    sys.path.append(tools)
    import pytest

    import ironbound

    results = Results()
    code = pytest.main(words, plugins=[results])
    package = str(Path(ironbound.__file__).parent)
    Path(file).write_text(json.dumps({"code": int(code), "package": package, "said": results.said}), "utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
