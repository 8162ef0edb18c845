"""Tries seeded bugs: a copy of the package with one of them, and the tests that have to turn red on it.

`killers.json` names for each bug the test that caught it when somebody last looked (`python tests/core/mutation.py`).
It is tried first and alone, which saves time and decides nothing: a bug is caught by a red test only, and one that its
test no longer catches, or whose test is gone, meets the whole suite.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory

import ironbound

PACKAGE = Path(ironbound.__file__).parent
HERE = Path(__file__).resolve().parent
KILLERS = HERE / "killers.json"

#: File, what stands there, what a careless hand could have written instead.
Mutants = Mapping[str, tuple[str, str, str]]
UNCHANGED = ("rule", "ABSENT", "ABSENT")


def _copy(name: str, folder: Path, mutants: Mutants) -> None:
    file, old, new = mutants.get(name, UNCHANGED)
    package = folder / "ironbound"
    shutil.copytree(PACKAGE / "core", package / "core", ignore=shutil.ignore_patterns("__pycache__"))
    for child in PACKAGE.iterdir():
        if child.name not in ("core", "__pycache__"):
            (package / child.name).symlink_to(child)
    source = package / "core" / f"{file}.py"
    text = source.read_text()
    assert text.count(old) >= 1, f"{name}: the line that it changes is no longer there"
    source.write_text(text.replace(old, new))


def _red(folder: Path, tests: Sequence[str]) -> str | None:
    """The first of these tests that is red on the copy in this folder, or None; "" if there is no such test."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    files = [str(HERE / one) for one in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1, 2, 4), done.stdout[-2000:] + done.stderr[-2000:]
    if done.returncode == 4:
        return ""
    if done.returncode == 2:  # the mutant already breaks the honest history that the tests begin with
        assert "AssertionError" in done.stdout or "Refused" in done.stdout, done.stdout[-2000:]
    found = re.search(r"^(?:FAILED|ERROR) \S*?(test_\w+\.py(?:::\w+)*)", done.stdout, re.MULTILINE)
    if done.returncode == 0:
        return None
    return found[1] if found else tests[0]


def killer(name: str, folder: Path, mutants: Mutants, suite: Sequence[str], first: str | None = None) -> str | None:
    """The test that catches the mutant, or None if the suite stays green with it."""
    _copy(name, folder, mutants)
    return (_red(folder, [first]) if first else None) or _red(folder, suite)


def killers(
    mutants: Mutants, suite: Sequence[str], hints: Mapping[str, str]
) -> Generator[tuple[str, str | None], None, None]:
    """Each mutant with what catches it, as many at a time as there are processors."""
    with TemporaryDirectory() as place, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        tried = {
            pool.submit(killer, name, Path(place) / str(number), mutants, suite, hints.get(name)): name
            for number, name in enumerate(mutants)
        }
        for one in as_completed(tried):
            yield tried[one], one.result()


def hints() -> dict[str, str]:
    """What `killers.json` says."""
    return dict(json.loads(KILLERS.read_text("utf-8"))) if KILLERS.exists() else {}


if __name__ == "__main__":
    import test_identity_mutants
    import test_mutants

    known = hints()
    for table in (test_mutants, test_identity_mutants):
        fresh = {name: row for name, row in table.MUTANTS.items() if name not in known}
        for mutant, test in killers(fresh, table.SUITE, {}):
            known |= {mutant: test} if test else {}
            KILLERS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")
