"""What the kernel says of a process is read as it says it, whatever name the process gives itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ironbound.monitor.observe import ProcessGone, require_alive, require_start, start_time, thread_states
from ironbound.monitor.proc import is_ending, read_proc, stat_fields
from ironbound.monitor.processes import is_alive, read_process

NAMED = (
    "import ctypes, sys\n"
    "ctypes.CDLL(None).prctl(15, sys.argv[1].encode('utf-8', 'surrogateescape'), 0, 0, 0)\n"
    "print(flush=True); sys.stdin.read()"
)
"""prctl(PR_SET_NAME)"""


@contextmanager
def named(name: str) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", NAMED, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.communicate()


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\n"])
def test_no_name_of_a_process_writes_a_line_of_its_status(end: str) -> None:
    with named(f"{end}Uid:\t9 9 9 9") as pid:
        process = read_process(pid)
        assert process is not None and process.uids == os.getresuid()[:1] * 4
        assert {state["Uid"].split()[0] for state in thread_states(pid).values()} == {str(os.getuid())}
    with named(f"x) Z 1 1{end}") as pid:
        process = read_process(pid)
        assert process is not None and process.ppid == os.getpid()
        assert is_alive(pid, process.start)


def test_a_number_that_another_process_has_by_now_is_not_the_one_that_was_meant() -> None:
    with named("plain") as pid:
        start = start_time(pid)
        assert is_alive(pid, start) and not is_alive(pid, start - 1)
        with pytest.raises(ProcessGone, match="expected the one started at"):
            require_start(pid, start - 1)
    assert read_process(pid) is None and not is_alive(pid, start)


LEFT = (
    "import ctypes, sys, threading\n"
    "def rest(): print(flush=True); sys.stdin.read()\n"
    "threading.Thread(target=rest).start(); ctypes.CDLL(None).syscall(60, 0)"
)
"""exit(2): the first thread ends, the other one runs on."""


def test_a_process_is_ending_only_when_all_its_threads_are() -> None:
    with subprocess.Popen([sys.executable, "-c", LEFT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        start = start_time(process.pid)
        while process_flags(process.pid) & 4 == 0:  # the first thread is told to end after the second began
            time.sleep(0.001)
        assert not is_ending(process.pid)
        require_alive(process.pid, start)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_ending(process.pid)
        with pytest.raises(ProcessGone):
            require_alive(process.pid, start)
    assert is_ending(process.pid)


def process_flags(pid: int) -> int:
    return int(stat_fields(read_proc(f"/proc/{pid}/stat"))[6])
