"""The monitor goes on through what befalls it: a jump of the clock, lost events, a number used again, its own end.

Each test has its control in it: the clock did jump, events were lost, the number is another process's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from puppet import WAIT, puppet
from stand import COMMAND, Stand, folder, is_alive, process_state, running, until
from test_drift_and_voices import first_line, helper, let_go
from test_drift_injections import attach, ended_in_time, halted, inject, now_ms, paths, rounds_pass

import ironbound
from ironbound.core.replay import Entry

IDLE = puppet(WAIT)
DAYS_MS = 10 * 86_400_000

pytestmark = pytest.mark.root

#: What a service reads as the time of day, moved by as many milliseconds as a file says.
_SHIFTED = """
import time as _time
_real = _time.time_ns
def _moved():
    with open({path!r}) as file:
        return _real() + int(file.read() or "0") * 1_000_000
_time.time_ns, _time.time = _moved, lambda: _moved() / 1e9
"""
#: Starts threads, each of which is two events, without a pause.
_STORM = """
import threading
for _ in range(20000):
    one = threading.Thread(target=int); one.start(); one.join()
"""


@pytest.fixture(scope="module")
def enduring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    yield from running(tmp_path_factory.mktemp("enduring"))


def over(stand: Stand, agent: str, entry: Entry) -> None:
    stand.stop_agent(agent)
    stand.await_entry("exited", entry.index, started=entry.index)


class Jumping(Stand):
    """A deployment whose monitor's clock the test moves: its services run a copy of the package."""

    def start(self) -> None:
        place = Path(ironbound.__file__).parent
        copy = self.root.parent / "package"
        shutil.copytree(place, copy, ignore=shutil.ignore_patterns("__pycache__"))
        self.offset = self.root.parent / "offset"
        self.jump(0)
        with open(copy / "monitor" / "service.py", "a", encoding="utf-8") as file:
            file.write(_SHIFTED.format(path=str(self.offset)))
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        words = ["unshare", "--mount", "sh", "-c", script, "sh", str(copy), str(place)]
        with open(self.root / "up.log", "ab") as output:
            self.up = subprocess.Popen([*words, *COMMAND, "up", "-d", str(self.root)], stderr=output, stdout=output)
        until("every service is ready", lambda: self._is_up(0))

    def jump(self, ms: int) -> None:
        draft = self.offset.with_suffix(".draft")
        draft.write_text(str(ms))
        draft.chmod(0o644)
        os.replace(draft, self.offset)


def test_a_clock_that_jumps_either_way_makes_the_monitor_neither_flag_nor_miss(tmp_path: Path) -> None:
    stand = Jumping(folder(tmp_path, "d"))
    try:
        stand.start()
        stand.config = stand.approve_profile()
        calm = stand.started("calm", IDLE)
        victims = {ms: stand.started(f"victim-{number}", IDLE) for number, ms in enumerate((-DAYS_MS, DAYS_MS))}
        # Ahead comes last: a log with a time to come in it takes no approval of today's any more.
        for ms, victim in victims.items():
            start = stand.sync()
            stand.jump(ms)
            rounds_pass()
            beat = stand.await_entry("heartbeat", start)
            later = stand.await_entry("heartbeat", beat.index + 1)
            assert abs(later.predicate["at_ms"] - now_ms() - ms) < DAYS_MS // 10  # the control: it did jump
            assert later.predicate["sequence"] == beat.predicate["sequence"] + 1
            assert 0 < later.predicate["interval_ms"] < 60_000 and later.predicate["samples"] > 1
            assert not stand.entries("drift", start) and not stand.entries("stop-order", start)
            pid, pid_start = victim.predicate["pid"], victim.predicate["pid_start"]
            tracer, since = attach(victim), time.monotonic()
            try:
                while is_alive(pid, pid_start):
                    assert (time.monotonic() - since) * 1000 < stand.deployment.trust.drift_stop_ms
                    time.sleep(0.01)
            finally:
                let_go(tracer)
            drift = stand.await_entry("drift", victim.index, started=victim.index)
            stand.await_entry("end-witnessed", drift.index, drift=drift.index)
            assert is_alive(calm.predicate["pid"], calm.predicate["pid_start"])
    finally:
        stand.stop()


@pytest.mark.parametrize("storm", [True, False])
def test_a_change_whose_event_the_kernel_lost_is_found_because_everything_is_looked_at(
    enduring: Stand, storm: bool
) -> None:
    entry = enduring.started(f"unannounced-{int(storm)}", IDLE)
    beat = enduring.await_entry("heartbeat", enduring.sync())
    with halted(enduring.pid("monitor")):
        if storm:
            subprocess.run([sys.executable, "-I", "-c", _STORM], check=True, timeout=120)
        since = now_ms()
        # The number of descriptors stays, so no glance sees it: an event or a whole look has to.
        assert inject(entry.predicate["pid"], 33, 5, 0) == 0  # dup2
    assert paths(ended_in_time(enduring, entry, since)) == {"fds.0"}
    after = enduring.await_entry("heartbeat", beat.index + 1)
    assert (after.predicate["lost"] > 0) is storm
    enduring.await_entry("exited", entry.index, started=entry.index)


def take_number(pid: int) -> subprocess.Popen[bytes]:
    """A process of ours under a number that has just become free (clone3, set_tid)."""
    code = (
        "import ctypes, os, struct, sys, time\n"
        "tid = ctypes.c_int(int(sys.argv[1]))\n"
        "words = struct.pack('11Q', 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(tid), 1, 0)\n"
        "libc = ctypes.CDLL(None, use_errno=True); libc.syscall.restype = ctypes.c_long\n"
        "child = libc.syscall(ctypes.c_long(435), words, ctypes.c_long(len(words)))\n"
        "if child == 0: os.execv('/bin/sleep', ['sleep', '60'])\n"
        "if child < 0: sys.exit(os.strerror(ctypes.get_errno()))\n"
        "print(child, flush=True); sys.stdin.read()\n"
        "os.kill(child, 9); os.waitpid(child, 0)\n"
    )
    return helper(code, str(pid))


def test_who_gets_the_number_of_a_sandbox_that_ended_is_left_alone_and_the_end_is_drift(enduring: Stand) -> None:
    entry = enduring.started("reused", IDLE)
    pid, pid_start = entry.predicate["pid"], entry.predicate["pid_start"]
    with halted(enduring.pid("node")):
        os.kill(pid, signal.SIGKILL)
        until("its number is free", lambda: process_state(pid) is None)
        other = take_number(pid)
        try:
            assert first_line(other) == f"{pid}\n".encode()
            state = process_state(pid)
            assert state is not None and state[2] != pid_start  # the control: another process, one number
            drift = enduring.await_entry("drift", entry.index, started=entry.index)
            assert drift.predicate["kind"] == "entry-without-process"
            enduring.await_entry("stop-order", drift.index, drift=drift.index)
            rounds_pass()
            assert is_alive(pid, state[2])
        finally:
            let_go(other)
    enduring.await_entry("exited", entry.index, started=entry.index)


def test_a_monitor_that_begins_beside_running_agents_leaves_them_and_finds_what_changed_without_one(
    enduring: Stand,
) -> None:
    calm, changed = enduring.started("met-calm", IDLE), enduring.started("met-changed", IDLE)
    start = enduring.sync()
    monitor, ready = enduring.pid("monitor"), enduring.said_ready("monitor")
    os.kill(monitor, signal.SIGSTOP)
    assert inject(changed.predicate["pid"], 33, 5, 0) == 0  # dup2; its event dies with the monitor
    os.kill(monitor, signal.SIGKILL)
    until("the monitor is back", lambda: enduring.said_ready("monitor") > ready)
    drift = enduring.await_entry("drift", start, started=changed.index)
    assert paths(drift) == {"fds.0"}
    enduring.await_entry("exited", changed.index, started=changed.index)
    assert not enduring.await_entry("observed", start, started=calm.index).predicate["differences"]
    rounds_pass()
    assert [one.predicate["started"] for one in enduring.entries("drift", start)] == [changed.index]
    assert is_alive(calm.predicate["pid"], calm.predicate["pid_start"])
    over(enduring, "met-calm", calm)
