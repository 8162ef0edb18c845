"""One virtual machine with an agent in it: held, running, ended.

Decides when the machine's word counts, and how its end is named. Until the release the guest's first process and the
guard speak on the control channel, one strict line; afterwards it is the agent's own standard error, of which the end
is kept and nothing believed. How the agent ended is told by the guest's first process on a channel that no agent can
reach; a machine that ends without that word was killed.

Rule 1: a machine that is not ready in READY_SECONDS, or outlives its wall clock, is killed.
Rule 2: it is over when the hypervisor's process is, which is the only one and the node's own child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ironbound.core.canonical import FormatError
from ironbound.node.processes import Status, describe, kill, readable, reap
from ironbound.node.runtime import MAX_REPORT, Ended, Ready, Refused
from ironbound.node.sandbox.launcher import MAX_CONTROL_LINE, parse_first_word
from ironbound.wire.service import start_time

READY_SECONDS: Final = 90.0
"""An emulated machine takes some three seconds of computing time to come up: on a busy host a while."""
REAP_SECONDS: Final = 5.0
END_SECONDS: Final = 5.0
"""How long a machine may take to stop after its last word."""
RELEASE: Final = b"release\n"
MAX_WORD: Final = 128
MAX_CONSOLE: Final = 1000

_NUMBER: Final = rb"(0|[1-9][0-9]{0,12})"
_WORD: Final = re.compile(rb"ended (0|-?[1-9][0-9]{0,2}) %b %b (-1|0|[1-9][0-9]{0,6})\n" % (_NUMBER, _NUMBER))


@dataclass(frozen=True, slots=True)
class LastWord:
    """The guest's word of the guard's end: exit code or minus the signal, computing time, memory, and how often the
    guest's kernel killed for memory (-1 where it didn't say)."""

    status: int
    cpu_ms: int
    max_rss: int
    memory_kills: int


def parse_last_word(data: bytes) -> LastWord:
    """Raises FormatError."""
    match = _WORD.fullmatch(data)
    if match is None:
        raise FormatError("control-invalid", "expected the word of a virtual machine's end")
    status, cpu, memory, kills = (int(word) for word in match.groups())
    return LastWord(status, cpu, memory * 1024, kills)


class _Tail:
    """The last bytes that somebody says, of whom nothing is believed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.data = b""

    async def follow(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionResetError):
            while part := await reader.read(65536):
                self.data = (self.data + part)[-self._most :]

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Lines:
    """Our ends of a machine's ports."""

    control: socket.socket
    status: socket.socket
    console: socket.socket


class Machine:
    """`ready`, then `release` once the start is in the log, then `ended`; or `kill` and `ended`."""

    def __init__(self, pid: int, lines: Lines, wall_clock: float, sweep: Callable[[], None]) -> None:
        """`sweep` removes what the machine leaves on the host. ProcessLookupError if it has ended."""
        self.pidfd = os.pidfd_open(pid)
        self.pid = pid
        self.pid_start = start_time(pid)
        self.envelope: Mapping[str, Any] = {}
        self.facts: Mapping[str, Any] = {}
        self._lines = lines
        self._wall_clock = wall_clock
        self._sweep = sweep
        self._readers: dict[str, asyncio.StreamReader] = {}
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._console, self._report = _Tail(MAX_CONSOLE), _Tail(MAX_REPORT)
        self._released_at: float | None = None
        self._killed = False
        self._ended: Ended | None = None

    async def attach(self) -> None:
        """Begin to listen; once, before anything else."""
        for name, line in (("control", self._lines.control), ("status", self._lines.status),
                           ("console", self._lines.console)):  # fmt: skip
            reader, writer = await asyncio.open_connection(sock=line, limit=MAX_CONTROL_LINE)
            self._readers[name] = reader
            self._writers.append(writer)
        self._tasks.append(asyncio.create_task(self._console.follow(self._readers["console"])))

    async def ready(self) -> Ready | Refused:
        """The guard's word, or the refusal of whoever in the guest came before it."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = await self._readers["control"].readline()
            if line.endswith(b"\n"):
                return parse_first_word(line[:-1])
            text = await self._early_end()
        except TimeoutError:
            text = f"expected the guard in the virtual machine to be ready within {READY_SECONDS:.0f} s"
        except (FormatError, ValueError) as error:
            text = f"the virtual machine's first word: {error}"
        except ConnectionResetError:
            text = await self._early_end()
        self.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._tasks[0]), REAP_SECONDS)
        said = "".join(char for char in " ".join(self._console.text.split()) if char.isprintable())
        return Refused("lockdown", f"{text}: {said}" if said else text)

    async def _early_end(self) -> str:
        """How a machine ended that closed its channel before it was ready. Its status stays to be taken."""
        how = "it goes on, and has closed its channel"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(readable(self.pidfd), REAP_SECONDS)
            how = "nobody has a status of it"
            with contextlib.suppress(ChildProcessError):
                found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is not None:
                    how = describe(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)
        return f"the virtual machine ended before its guard was ready: {how}"

    async def release(self) -> None:
        """Let the guard become the agent."""
        self._released_at = asyncio.get_running_loop().time()
        self._tasks.append(asyncio.create_task(self._report.follow(self._readers["control"])))
        writer = self._writers[0]
        writer.write(RELEASE)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await writer.drain()

    async def ended(self) -> Ended:
        """Wait for the end, enforcing the wall clock."""
        if self._ended is None:
            self._ended = await self._end()
        return self._ended

    async def _last_word(self) -> LastWord | None:
        """The guest's word, None where the machine ended without it. Raises TimeoutError, FormatError."""
        if self._released_at is None:
            self.kill()
            return None
        left = self._released_at + self._wall_clock - asyncio.get_running_loop().time()
        async with asyncio.timeout(max(left, 0.0)):
            data = await self._readers["status"].readline()
        return parse_last_word(data) if data and not self._killed else None

    async def _end(self) -> Ended:
        loop = asyncio.get_running_loop()
        word: LastWord | None = None
        reason, text = "", ""
        try:
            word = await self._last_word()
        except TimeoutError:
            reason, text = "wall-clock", f"{self._wall_clock:.0f} seconds are over"
            self.kill()
        except (FormatError, ValueError, ConnectionResetError) as error:
            reason, text = "protocol", f"the virtual machine's last word: {error}"
            self.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(readable(self.pidfd), END_SECONDS)
        self.kill()
        await readable(self.pidfd)
        wall_ms = 0 if self._released_at is None else int((loop.time() - self._released_at) * 1000)
        status = reap(self.pid)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=REAP_SECONDS)
        await asyncio.to_thread(self._sweep)
        self._close()
        if not reason:
            reason, text = _reason(word, status)
        code = status.code if word is None and status is not None else None if word is None else word.status
        cpu, memory = (0, 0) if status is None else (status.cpu_ms, status.max_rss)
        return Ended(reason, text, self._report.text[-MAX_REPORT:], 0, 0, code, cpu, memory, wall_ms)

    def kill(self) -> None:
        """SIGKILL to the hypervisor; nothing where it has ended."""
        self._killed = True
        kill(self.pidfd)

    def _close(self) -> None:
        for writer in self._writers:
            writer.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _reason(word: LastWord | None, status: Status | None) -> tuple[str, str]:
    if word is None:
        what = "nobody has a status of it" if status is None else describe(status.code)
        return "killed", f"the virtual machine ended without a word: {what}"
    if word.status == 0:
        return "finished", ""
    if word.memory_kills > 0:
        return "limit", "the guest's kernel killed for memory: it is used up"
    return ("killed" if word.status < 0 else "exit"), describe(word.status)
