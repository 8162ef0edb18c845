"""The monitor: what it costs beside idle agents, and how long a drift lives.

A real deployment, with agents that wait for a message. The monitor's processor time is that of its process, from
/proc/PID/stat, over half a minute without a launch or a stop. The witness runs in the same process and is counted in.
The floor, in the same run: one bare sample of one such process (a thread's status, the limits, the namespaces), read
by name as a first monitor would, once a second for each agent.

A drift's life is the time from the injection's return to the kernel's word that the process is over (its pidfd). With
events: a debugger is attached. Sampled: a limit is changed from outside, of which the kernel tells nobody.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "system"))

from puppet import WAIT, puppet
from stand import Stand, folder

from bench.floor import percentile
from ironbound.core.posture import NAMESPACES

SHARE, EVENTS_MS, SAMPLED_MS = 0.01, 200.0, 1500.0
"""Aims: percent of a core for each agent looked at once a second, and milliseconds from a drift to its stop."""

_SEIZE = 0x4206
_WALL = 0x40000000


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _bare_us(pid: int, rounds: int = 2000) -> float:
    """Processor time of one sample of one process with nothing kept open."""
    begin = time.process_time()
    for _ in range(rounds):
        for name in ("stat", "status", "limits"):
            descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
            os.read(descriptor, 65536)
            os.close(descriptor)
        for kind in NAMESPACES:
            os.readlink(f"/proc/{pid}/ns/{kind}")
    return (time.process_time() - begin) / rounds * 1e6


def _attach(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(ctypes.c_long(_SEIZE), ctypes.c_long(pid), None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, _WALL)
    except ChildProcessError:
        pass


def _limit(pid: int) -> None:
    """As the sandbox's own user, since root may lack CAP_SYS_RESOURCE; so a limit is lowered, which is a change too."""
    uid = os.stat(f"/proc/{pid}").st_uid or int(_status(pid)["Uid"].split()[0])
    child = os.fork()
    if child == 0:
        try:
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            resource.prlimit(pid, resource.RLIMIT_MSGQUEUE, (0, 0))
            resource.prlimit(pid, resource.RLIMIT_STACK, (4 << 20, 4 << 20))
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _status(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def _life_ms(stand: Stand, agent: str, module: Any, inject: Callable[[int], None]) -> float:
    entry = stand.started(agent, module)
    pid = entry.predicate["pid"]
    held = os.pidfd_open(pid)
    try:
        inject(pid)
        begin = time.perf_counter()
        ready, _, _ = select.select([held], [], [], 20)
        took = (time.perf_counter() - begin) * 1e3
    finally:
        os.close(held)
    _reap(pid)
    if not ready:
        raise RuntimeError("the drift was not stopped")
    stand.await_entry("exited", entry.index, started=entry.index)
    return took


def _row(name: str, took: list[float], aim: float) -> dict[str, Any]:
    return {
        "name": name,
        "unit": "ms",
        "p50": round(percentile(took, 0.5), 1),
        "p99": round(percentile(took, 0.99), 1),
        "aim": f"p99 {aim:g}",
        "met": percentile(took, 0.99) <= aim,
        "rounds": len(took),
    }


def run(quick: bool) -> list[dict[str, Any]]:
    """Rows for the processor's share beside its floor, and for the lives of drifts."""
    agents, seconds, rounds = (20, 10, 10) if quick else (100, 30, 60)
    with tempfile.TemporaryDirectory(prefix="ironbound-bench-") as name:
        os.chmod(name, 0o711)
        stand = Stand(folder(Path(name), "d"))
        try:
            stand.start()
            stand.config = stand.approve_profile()
            module = stand.approve_module(puppet(WAIT))
            traced = [_life_ms(stand, f"traced{one}", module, _attach) for one in range(rounds)]
            limited = [_life_ms(stand, f"limited{one}", module, _limit) for one in range(rounds)]
            monitor = stand.pid("monitor")
            idle = _share(monitor, seconds)
            started = [stand.started(f"idle{one}", module) for one in range(agents)]
            first = stand.sync()
            share = _share(monitor, seconds)
            beats = [one.predicate for one in stand.entries("heartbeat", first)]
            bare = _bare_us(started[0].predicate["pid"]) * agents / 1e6 * 100
        finally:
            stand.stop()
    rate = sum(one["samples"] for one in beats) / max(1, sum(one["interval_ms"] for one in beats)) * 1000 / agents
    return [
        {"name": f"monitor and witness, {agents} idle agents", "unit": "% of a core", "p50": round(share, 2),
         "floor": round(bare, 2), "ratio": round(share / bare, 2), "looks/s": round(rate, 2)},
        {"name": "the same without an agent", "unit": "% of a core", "p50": round(idle, 2)},
        {"name": f"what {agents} agents add", "unit": "% of a core", "p50": round(share - idle, 2),
         "aim": f"p50 {SHARE * agents:g}", "met": share - idle <= SHARE * agents},
        _row("drift to stop with events: a debugger", traced, EVENTS_MS),
        _row("drift to stop, sampled: a limit", limited, SAMPLED_MS),
    ]  # fmt: skip


def _share(pid: int, seconds: int) -> float:
    time.sleep(2)
    begin, cpu = time.perf_counter(), _cpu_s(pid)
    time.sleep(seconds)
    return (_cpu_s(pid) - cpu) / (time.perf_counter() - begin) * 100
