"""Tries seeded bugs: a copy of the package with one of them, and the tests that have to turn red on it.

`killers.json` names for each bug the test that caught it when somebody last looked (`python tests/core/mutation.py`).
It is tried first and alone, which saves time and decides nothing: a bug is caught by a red test only, and one that its
test no longer catches, or whose test is gone, meets the whole suite.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
KILLERS = HERE / "killers.json"

#: File, what stands there, what a careless hand could have written instead.
Mutants = Mapping[str, tuple[str, str, str]]
UNCHANGED = ("rule", "ABSENT", "ABSENT")
#: What every process of tests begins with: imported once, before any of them. Nothing of the package is.
BEGIN = ["pytest", "hypothesis", "_pytest.main", "cryptography.hazmat.primitives.serialization", "xdist.scheduler"]


def _copy(name: str, folder: Path, mutants: Mutants) -> None:
    file, old, new = mutants.get(name, UNCHANGED)
    spec = find_spec("ironbound")
    assert spec is not None and spec.origin is not None
    whole, package = Path(spec.origin).parent, folder / "ironbound"
    # The compiled files that come along are those of the unchanged sources.
    shutil.copytree(whole / "core", package / "core", ignore=shutil.ignore_patterns(f"{file}.*.pyc"))
    for child in whole.iterdir():
        if child.name not in ("core", "__pycache__"):
            (package / child.name).symlink_to(child)
    source = package / "core" / f"{file}.py"
    text = source.read_text()
    assert text.count(old) >= 1, f"{name}: the line that it changes is no longer there"
    source.write_text(text.replace(old, new))


class _Reds:
    """Keeps the first test, or file of tests, that is red."""

    def __init__(self) -> None:
        self.first: str | None = None

    def _see(self, report: Any) -> None:
        if report.failed and self.first is None:
            self.first = report.nodeid.rpartition("/")[2].partition("[")[0]

    pytest_runtest_logreport = pytest_collectreport = _see


def _run(folder: Path, tests: Sequence[str]) -> tuple[int, str | None, str]:
    """In a process of its own: pytest's exit code on the copy in this folder, the first red test, and what it said."""
    assert not [name for name in sys.modules if name.partition(".")[0] == "ironbound"]
    path = os.environ["PATH"]
    os.environ.clear()
    os.environ.update(PATH=path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    reds, said = _Reds(), io.StringIO()
    files = [str(HERE / one) for one in tests]
    with redirect_stdout(said), redirect_stderr(said):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", *files], plugins=[reds])
    assert sys.modules["ironbound.core"].__path__ == [str(folder / "ironbound" / "core")]
    return int(code), reds.first, said.getvalue()[-2000:]


def _red(pool: ProcessPoolExecutor, folder: Path, tests: Sequence[str]) -> str | None:
    """The first of these tests that is red on the copy in this folder, or None; "" if there is no such test."""
    code, first, said = pool.submit(_run, folder, tests).result()
    assert code in (0, 1, 2, 4), said
    if code == 4:
        return ""
    if code == 2:  # the mutant already breaks the honest history that the tests begin with
        assert "AssertionError" in said or "Refused" in said, said
    return (first or tests[0]) if code else None


def _processes() -> ProcessPoolExecutor:
    """As many at a time as there are processors, or one where the suite is shared among processes already.

    Each is a fork of one that has only imported BEGIN, and ends after its task.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(BEGIN)
    count = 1 if "PYTEST_XDIST_WORKER" in os.environ else min(8, os.cpu_count() or 1)
    return ProcessPoolExecutor(count, mp_context=context, max_tasks_per_child=1)


def killer(
    name: str,
    folder: Path,
    mutants: Mutants,
    suite: Sequence[str],
    first: str | None = None,
    pool: ProcessPoolExecutor | None = None,
) -> str | None:
    """The test that catches the mutant, or None if the suite stays green with it."""
    _copy(name, folder, mutants)
    with nullcontext(pool) if pool is not None else _processes() as pool:
        return (_red(pool, folder, [first]) if first else None) or _red(pool, folder, suite)


def killers(
    mutants: Mutants, suite: Sequence[str], hints: Mapping[str, str]
) -> Generator[tuple[str, str | None], None, None]:
    """Each mutant with what catches it."""
    with TemporaryDirectory() as place, _processes() as pool, ThreadPoolExecutor(4) as tasks:
        tried = {
            tasks.submit(killer, name, Path(place) / str(number), mutants, suite, hints.get(name), pool): name
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
