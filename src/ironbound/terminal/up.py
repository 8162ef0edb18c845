"""Supervises the five services: starts them in order, restarts one that dies, stops them all on Ctrl-C.

Decides nothing about their work. A restarted service recovers from the log by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final

from ironbound.wire.deployment import ROLES, Deployment
from ironbound.wire.measure import ENVIRONMENT, words_of

from .voice import Stop

#: The monitor cosigns, so it is asked before the ledger can publish: both start together, the rest follow.
ORDER: Final = (("monitor", "ledger"), ("controller", "gateway"), ("node",))
#: The node boots a machine once, where it can have one, and on a busy host waits long for it.
READY_TIMEOUT_S: Final = 200.0
STOP_TIMEOUT_S: Final = 10.0
#: A service that dies this often within the window is not restarted again.
MOST_RESTARTS: Final = 8
RESTART_WINDOW_S: Final = 60.0

Report = Callable[[str, str], None]


class Supervisor:
    """The services of one deployment. `start`, then `watch` until cancelled, then `stop`."""

    def __init__(self, deployment: Deployment, report: Report) -> None:
        self._root: Path = deployment.root
        self._report = report
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._deaths: dict[str, list[float]] = {role: [] for role in ROLES}

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each running service."""
        return {role: process.pid for role, process in self._processes.items()}

    async def start(self) -> None:
        """Start all services; Stop if one doesn't get ready."""
        for group in ORDER:
            await _all(self._start(role) for role in group)

    async def watch(self) -> None:
        """Restart what dies; raises Stop when a service dies too often."""
        await _all(self._watch(role) for role in ROLES)

    async def stop(self) -> None:
        """Stop all, last started first; what doesn't stop in time is killed."""
        for group in reversed(ORDER):
            for role in group:
                process = self._processes.get(role)
                if process is not None and process.returncode is None:
                    process.send_signal(signal.SIGTERM)
            for role in group:
                process = self._processes.get(role)
                if process is None:
                    continue
                try:
                    await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
                except TimeoutError:
                    self._report(role, "did not stop in time: killed")
                    process.kill()
                    await process.wait()

    async def _start(self, role: str) -> None:
        journal = self._root / "logs" / f"{role}.log"
        with open(journal, "ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *words_of(sys.executable, role),
                cwd=self._root,
                env=dict(ENVIRONMENT),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self._processes[role] = process
        if process.stdout is None:
            raise Stop(f"{role} has no standard output")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), READY_TIMEOUT_S)
        except TimeoutError:
            line = b""
        if line != b"ready\n":
            try:  # what says nothing more is ending by itself, as a rule
                await asyncio.wait_for(process.wait(), 1.0)
            except TimeoutError:
                process.kill()
                await process.wait()
            raise Stop(f"{role} did not start", f"{_last_line(journal)} (see {journal})")
        self._report(role, f"ready (pid {process.pid})")

    async def _watch(self, role: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            code = await self._processes[role].wait()
            self._report(role, f"ended with {code}: starting it again")
            deaths = self._deaths[role]
            deaths.append(loop.time())
            if len([at for at in deaths if loop.time() - at < RESTART_WINDOW_S]) > MOST_RESTARTS:
                raise Stop(f"{role} keeps dying", f"see {self._root / 'logs' / (role + '.log')}")
            try:
                await self._start(role)
            except Stop as error:
                self._report(role, f"{error.cause}: {error.hint}")
                await asyncio.sleep(0.2 * len(deaths))


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first failure cancels the others and is raised once they have ended."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _last_line(journal: Path) -> str:
    with contextlib.suppress(OSError):
        lines = journal.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return lines[-1]
    return "it said nothing"


async def up(deployment: Deployment, report: Report) -> None:
    """Run the services until SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    supervisor = Supervisor(deployment, report)
    asked: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    work: asyncio.Future[Any] = asyncio.ensure_future(_run(supervisor))
    try:
        await asyncio.wait([asked, work], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, Stop):
            await work
        await supervisor.stop()
        report("all", f"stopped ({os.getpid()})")


async def _run(supervisor: Supervisor) -> None:
    await supervisor.start()
    await supervisor.watch()
