"""The proof as a person gets it: every part is waited for, and none can be missing without a word."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ironbound.core import authority
from ironbound.proof import prove


def test_the_search_beside_the_solvers_sees_every_rule_let_something_through() -> None:
    searched = prove.ask(prove.SEARCH)
    assert prove.fine(searched)
    assert searched["fired"].keys() == authority.RULES.keys() and searched["states"] > 1_000


@pytest.mark.parametrize("wrong", [{"found": ("a promise", ("grant",))}, {"exhausted": False}, {"fired": {"grant": 1}}])
def test_a_search_that_found_missed_or_left_out_something_is_no_proof(wrong: dict[str, object]) -> None:
    searched = {"exhausted": True, "found": None, "fired": dict.fromkeys(authority.RULES, 1)}
    verdicts = {"verdicts": [{"failed": 0}]}
    assert prove.Proof(verdicts, searched, ()).holds
    assert not prove.Proof(verdicts, searched | wrong, ()).holds
    assert not prove.Proof({"verdicts": [{"failed": 1}]}, searched, ()).holds


ASKER = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-I", "-B", "-m", "ironbound.proof"]).pid, flush=True)
sys.stdin.read()
"""


def family(of: int) -> set[int]:
    """The processes that run and have this one as their parent, as proc(5) shows them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == of and state != "Z":
            found.add(int(stat.parent.name))
    return found


def await_true(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether it is a process that still computes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_solver_computes_on_once_whoever_asked_is_killed() -> None:
    asker = subprocess.Popen([sys.executable, "-c", ASKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert asker.stdin is not None and asker.stdout is not None
    with asker.stdin, asker.stdout:
        whole = int(asker.stdout.readline())
        await_true(lambda: prove.SEARCH.encode() in b"".join(_words(one) for one in family(whole)))
        parts = family(whole)
        assert len(parts) >= 2 and all(runs(one) for one in (whole, *parts))
        asker.kill()
        asker.wait()
        await_true(lambda: not any(runs(one) for one in (whole, *parts)))


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
