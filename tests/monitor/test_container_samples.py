"""A container's processes beside the first: what the first may not have, none of them may have either."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ironbound.core.canonical import Digest
from ironbound.core.limits import RLIMIT_NUMBERS, native_rlimits
from ironbound.monitor.container import Approved, observe_container
from ironbound.monitor.observe import Baseline, start_time

CONFIG: Any = {
    "runtime": {"type": "runc", "max_memory": 64, "max_processes": 4000, "max_open_files": 64},
    "scratch": {"max_bytes": 1 << 20, "max_files": 16},
}
CHILD = """
import json, os, resource, subprocess, sys
for number, value in json.loads(sys.argv[1]).items():
    resource.setrlimit(int(number), (value, value))
words = [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()"]
child = subprocess.Popen(words, stdout=subprocess.PIPE)
child.stdout.readline()
for number, value in json.loads(sys.argv[2]).items():
    resource.setrlimit(int(number), (value, value))
if sys.argv[3] == "fewer":
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
print(child.pid, flush=True)
child.wait()
"""
#: Those that an ordinary process can have and still run Python.
LIMITS = {
    name: value
    for name, value in native_rlimits(CONFIG).items()
    if name in ("stack", "core", "nproc", "nofile", "memlock", "msgqueue")
}


@contextmanager
def family(first: dict[str, int], both: dict[str, int], processors: str = "all") -> Iterator[tuple[int, int]]:
    """A process with those limits, and its child, which has only those of `both`."""
    words = [json.dumps({RLIMIT_NUMBERS[name]: value for name, value in one.items()}) for one in (both, first)]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, *words, processors], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.communicate()


def sample(pid: int) -> Any:
    approved = Approved(CONFIG, Digest("0" * 64), Path("/"), frozenset())
    return observe_container(
        pid, start_time(pid), Baseline.of_self(), approved, Digest("0" * 64), filters=False, running=True
    )


def odd(first: int, pid: int) -> list[str]:
    """What the sample says of one process."""
    said = [one for one in sample(first)["processes"].get("differing", ()) if one.startswith(f"{pid}: ")]
    return said[0].partition(": ")[2].split(", ") if said else []


def test_a_child_within_the_approved_limits_is_not_odd() -> None:
    with family({}, LIMITS) as (first, child):
        assert not {one for one in odd(first, child) if one.partition(".")[2] in LIMITS}


@pytest.mark.parametrize("name", ["nofile", "stack"])
def test_a_child_with_a_higher_limit_than_approved_is_odd(name: str) -> None:
    others = {other: value for other, value in LIMITS.items() if other != name}
    with family(LIMITS, others | {name: min(LIMITS[name] + 1, resource.getrlimit(RLIMIT_NUMBERS[name])[1])}) as both:
        assert f"rlimits.{name}" in odd(*both)
        assert f"rlimits.{name}" not in odd(both[0], both[0])


def test_a_child_with_lower_limits_than_approved_is_not_odd() -> None:
    with family({}, LIMITS | {"nofile": LIMITS["nofile"] - 1, "stack": LIMITS["stack"] // 2}) as both:
        assert not {one for one in odd(*both) if one.partition(".")[2] in LIMITS}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one processor nobody has more")
def test_a_child_with_more_processors_than_the_first_is_odd() -> None:
    with family({}, LIMITS, "fewer") as both:
        assert "Cpus_allowed" in odd(*both)


def test_a_debugger_on_a_child_is_seen_as_one_on_the_first() -> None:
    code = (
        "import ctypes, sys; libc = ctypes.CDLL(None)\n"
        "assert libc.ptrace(ctypes.c_long(0x4206), ctypes.c_long(int(sys.argv[1])), None, None) == 0\n"
        "print(flush=True); sys.stdin.read()"
    )
    with family({}, LIMITS) as (first, child):
        assert sample(first)["tracer"] == 0
        words = [sys.executable, "-c", code, str(child)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
            assert tracer.stdout is not None
            tracer.stdout.readline()
            assert sample(first)["tracer"] == tracer.pid
            tracer.communicate()


@pytest.mark.root
def test_a_child_in_another_namespace_is_odd() -> None:
    code = (
        "import subprocess, sys; child = subprocess.Popen(['unshare', '--uts', sys.executable, '-c',"
        " 'print(flush=True); import sys; sys.stdin.read()'], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); child.wait()"
    )
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        child = int(first.stdout.readline())
        assert "namespaces" in odd(first.pid, child)
        assert "namespaces" not in odd(first.pid, first.pid)
        first.communicate()
