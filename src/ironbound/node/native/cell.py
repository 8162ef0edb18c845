"""One container with an agent in it: held, running, ended.

Decides when the container's word counts, and how its end is named. Until the release the guard alone speaks, one
strict line; afterwards descriptor 2 is the agent's own standard error, of which the end is kept and nothing believed.

Rule 1: a container that is not ready in READY_SECONDS, or outlives its wall clock, is killed.
Rule 2: it is over when its first process is, and everything else of it is killed before that is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Mapping
from typing import Any, Final

from ironbound.core.canonical import FormatError
from ironbound.core.container import Place
from ironbound.node.processes import Status, describe, kill, readable, reap
from ironbound.node.runtime import MAX_REPORT, Ended, Ready, Refused
from ironbound.node.sandbox.launcher import MAX_CONTROL_LINE, parse_first_word
from ironbound.wire.service import start_time

from . import cgroup

READY_SECONDS: Final = 30.0
REAP_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 0.5
"""Between two looks whether the container's memory was used up."""
RELEASE: Final = b"release\n"


class ContainerCell:
    """`ready`, then `release` once the start is in the log, then `ended`; or `kill` and `ended`."""

    def __init__(
        self, pid: int, helper: int | None, control: socket.socket, wall_clock: float, place: Place, runtime: str
    ) -> None:
        """`helper` is our own child where the first process isn't (bubblewrap). ProcessLookupError if it has ended."""
        self.pidfd = os.pidfd_open(pid)
        self.pid = pid
        self.pid_start = start_time(pid)
        self.envelope: Mapping[str, Any] = {}
        self.facts: Mapping[str, Any] = {}
        self._child = pid if helper is None else helper
        self._helper_fd = -1 if helper is None else os.pidfd_open(helper)
        self._control = control
        self._wall_clock = wall_clock
        self._place = place
        self._runtime = runtime
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._report = b""
        self._drain: asyncio.Task[None] | None = None
        self._released_at: float | None = None
        self._ended: Ended | None = None

    async def ready(self) -> Ready | Refused:
        """The guard's word; whatever else is said counts as a refusal, with the speaker's own words."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._control, limit=MAX_CONTROL_LINE)
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = await self._reader.readline()
            if line.endswith(b"\n"):
                return parse_first_word(line[:-1])
            text = f"{self._runtime} ended before the guard was ready: {line[-1000:].decode('utf-8', 'replace')}"
        except TimeoutError:
            text = f"expected the guard to be ready within {READY_SECONDS:.0f} s"
        except (FormatError, ValueError) as error:
            text = f"{self._runtime}, before the guard: {line[:1000].decode('utf-8', 'replace')} ({error})"
        except ConnectionResetError:
            text = f"{self._runtime} ended before the guard was ready"
        self.kill()
        return Refused("lockdown", text)

    async def release(self) -> None:
        """Let the guard become the agent."""
        if self._writer is None or self._reader is None:
            raise ConnectionError("the container has not spoken yet")
        self._released_at = asyncio.get_running_loop().time()
        self._drain = asyncio.create_task(self._collect(self._reader))
        self._writer.write(RELEASE)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await self._writer.drain()

    async def _collect(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionResetError):
            while part := await reader.read(65536):
                self._report = (self._report + part)[-MAX_REPORT:]

    async def ended(self) -> Ended:
        """Wait for the end, enforcing the wall clock."""
        if self._ended is None:
            self._ended = await self._end()
        return self._ended

    async def _end(self) -> Ended:
        loop = asyncio.get_running_loop()
        late = memory = False
        if self._released_at is None:
            self.kill()
        deadline = None if self._released_at is None else self._released_at + self._wall_clock
        dead = asyncio.ensure_future(readable(self.pidfd))
        try:
            while not dead.done():
                left = WATCH_SECONDS if deadline is None else min(WATCH_SECONDS, deadline - loop.time())
                await asyncio.wait([dead], timeout=max(0.0, left))
                late = late or (not dead.done() and deadline is not None and loop.time() >= deadline)
                # Who goes on after a part of it was killed is no whole agent; gVisor's kernel would wait for ever.
                memory = await self._memory_ran_out()
                if late or memory:
                    self.kill()
                    await dead
        finally:
            dead.cancel()
        wall_ms = 0 if self._released_at is None else int((loop.time() - self._released_at) * 1000)
        await asyncio.to_thread(self._sweep)
        status = await self._status()
        if self._drain is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drain, REAP_SECONDS)
        if self._writer is not None:
            self._writer.close()
        self._close()
        reason, text = self._reason(status, late, memory)
        report = self._report.decode("utf-8", "replace")[-MAX_REPORT:]
        code, cpu, rss = (None, 0, 0) if status is None else (status.code, status.cpu_ms, status.max_rss)
        return Ended(reason, text, report, 0, 0, code, cpu, rss, wall_ms)

    async def _memory_ran_out(self) -> bool:
        return bool(self._place.cgroup) and await asyncio.to_thread(cgroup.memory_ran_out, self._place.cgroup)

    def _reason(self, status: Status | None, late: bool, memory: bool) -> tuple[str, str]:
        if late:
            return "wall-clock", f"{self._wall_clock:.0f} seconds are over"
        code = None if status is None else status.code
        if code == 0:
            return "finished", ""
        if memory:
            return "limit", "the kernel killed it: its memory is used up"
        if code is None:
            return "killed", "dead; nobody has a status of it"
        # bubblewrap tells its child's signal as a shell does.
        signalled = code - 128 if self._runtime == "bubblewrap" and code > 128 else -code
        return ("killed", describe(-signalled)) if signalled > 0 else ("exit", describe(code))

    async def _status(self) -> Status | None:
        deadline = asyncio.get_running_loop().time() + REAP_SECONDS
        while True:
            status = reap(self._child)
            if status is not None or asyncio.get_running_loop().time() > deadline:
                return status
            if self._helper_fd >= 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(readable(self._helper_fd), 0.5)
            else:
                await asyncio.sleep(0.005)

    def _sweep(self) -> None:
        """Rule 2, and the traces on disk."""
        if self._place.cgroup:
            cgroup.empty(self._place.cgroup)
        shutil.rmtree(self._place.cell, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL to the first process; the pid namespace, or gVisor's kernel, ends with it."""
        kill(self.pidfd)

    def _close(self) -> None:
        kill(self._helper_fd)
        for descriptor in (self.pidfd, self._helper_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self.pidfd = self._helper_fd = -1
