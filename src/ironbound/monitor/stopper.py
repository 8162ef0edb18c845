"""Ends a sandbox by the monitor's own hand, where whoever was told to did not.

Decides which processes are sandboxes and may be killed from here. Follows pidfd_open(2), pidfd_send_signal(2).

Rule 1: a process is held by a descriptor of the kernel's (pidfd) from the first look on, and its start time is checked
        after that: no other process can get under it, whatever its number becomes.
Rule 2: only sandboxes are killed: what carries a user that is for sandboxes or sits in a control group of this
        deployment or in a namespace that such a one has to itself, or, where there are no such users, a child of the
        zygote of our own user. Whatever the node says of it, nothing else is. What was a sandbox stays one, whoever
        it became since.
Rule 3: taking away waits for nobody's log. The node has GRACE_S to obey; then the process is killed.
Rule 4: a process that was killed is over when the kernel has begun to take it apart: it executes nothing any more. The
        first process of a pid namespace stays listed until a debugger on one of its children lets that one go.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import Final, Literal

from .observe import ProcessGone, require_start
from .proc import read_lines
from .processes import is_alive, is_exiting

#: Seconds that the node has to obey an order, from the moment at which the drift was seen.
GRACE_S: Final = 0.15
#: Seconds within which a process that was killed has ended, but for one that hangs in the kernel.
END_S: Final = 30.0
_AGAIN_S: Final = 0.05


@dataclass(slots=True)
class Held:
    """A process under our hand. `ours`: it was seen to be a sandbox, so it may be killed."""

    pid: int
    pid_start: int
    descriptor: int
    ours: bool


@dataclass(frozen=True, slots=True)
class End:
    """Who ended a process, and how long that took from the moment at which the drift was seen."""

    by: Literal["monitor", "other"]
    took_ms: int


class Stopper:
    """Holds and ends processes. `uids`: the users that are for sandboxes, None where there are none; `group`: the name
    of this deployment's control group."""

    def __init__(self, uids: range | None, group: str) -> None:
        self._uids = uids
        self._group = f":{group}/"
        self._held: dict[tuple[int, int], Held] = {}
        self.zygote: tuple[int, int] | None = None

    def hold(self, pid: int, pid_start: int) -> Held:
        """Take hold of a process, or look again at one that is held. Raises ProcessGone, OSError."""
        held = self._held.get((pid, pid_start))
        if held is None:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                raise ProcessGone(f"process {pid} has ended") from None
            try:
                require_start(pid, pid_start)
                held = Held(pid, pid_start, descriptor, False)
            except BaseException:
                os.close(descriptor)
                raise
            self._held[(pid, pid_start)] = held
        held.ours = held.ours or self._is_ours(pid)
        return held

    def let_go(self, pid: int, pid_start: int) -> None:
        """The process is over, or nobody's business any more."""
        held = self._held.pop((pid, pid_start), None)
        if held is not None:
            os.close(held.descriptor)

    def _is_ours(self, pid: int) -> bool:
        try:
            lines = dict(line.split(":", 1) for line in read_lines(f"/proc/{pid}/status") if ":" in line)
        except (FileNotFoundError, ProcessLookupError):
            return False
        uids = [int(word) for word in lines["Uid"].split()]
        if self._uids is not None:
            return any(uid in self._uids for uid in uids) or self._is_grouped(pid)
        zygote = self.zygote
        if zygote is None or int(lines["PPid"]) != zygote[0] or uids[0] != os.getuid():
            return False
        return is_alive(*zygote) and pid != os.getpid()

    def _is_grouped(self, pid: int) -> bool:
        try:
            return any(self._group in f"{line}/" for line in read_lines(f"/proc/{pid}/cgroup"))
        except OSError:
            return False

    async def end(self, pid: int, pid_start: int, *, joined: bool = False) -> End | None:
        """Wait for the process's end, and bring it about after GRACE_S. None if it is not ours and goes on.

        `joined`: it was seen in a sandbox's own namespace.
        """
        began = time.monotonic()
        try:
            held = self.hold(pid, pid_start)
            held.ours = held.ours or joined
        except ProcessGone:
            return End("other", 0)
        by: Literal["monitor", "other"] = "other"
        if not await _ended(held.descriptor, GRACE_S):
            held = self.hold(pid, pid_start)
            if not held.ours:
                return None
            try:
                signal.pidfd_send_signal(held.descriptor, signal.SIGKILL)
                by = "monitor"
            except ProcessLookupError:
                pass  # it ended by itself after all
            except PermissionError:
                return None
            if not await _over(held):
                return None
        took = int((time.monotonic() - began) * 1000)
        self.let_go(pid, pid_start)
        return End(by, took)


async def _over(held: Held) -> bool:
    """Rule 4, within END_S."""
    end = time.monotonic() + END_S
    while not await _ended(held.descriptor, _AGAIN_S):
        if is_exiting(held.pid, held.pid_start):
            return True
        if time.monotonic() > end:
            return False
    return True


async def _ended(descriptor: int, seconds: float) -> bool:
    """Whether the process behind a pidfd ends within that time."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    copy = os.dup(descriptor)  # the loop knows a descriptor only once

    def tell() -> None:
        if not over.done():
            over.set_result(None)

    loop.add_reader(copy, tell)
    try:
        async with asyncio.timeout(seconds):
            await over
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(copy)
        os.close(copy)
