"""The gateway's process: takes agents' pipes from the node, serves MCP on them, mediates every effect.

Decides that a pipe belongs to the launch that the node names: only the node's user can hand one over, for a launch
that the log admits, and nothing is read from it before the launch stands in the log as started, for that agent. An
agent is never asked who it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from ironbound.core.authority import ADMITTED, STARTED
from ironbound.core.canonical import FormatError, Value, canonical
from ironbound.core.keys import PrivateKey
from ironbound.core.replay import Entry, Launch
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.frames import decode_body
from ironbound.wire.keeping import Keeper
from ironbound.wire.log import Log, LogUnavailable
from ironbound.wire.service import announce, ready, until_stopped

from .credentials import Credential, read_credentials
from .mcp import ChannelLimits, Session
from .mediate import Intents, Mediator, input_path
from .surface import announced

ATTACH_TIMEOUT_S: Final = 5.0
MAX_ATTACH: Final = 4096
#: Seconds for which a pipe is kept until its launch has started.
START_TIMEOUT_S: Final = 60.0
#: Seconds between two looks whether an agent's input changed.
INPUT_S: Final = 0.25
#: Seconds that sessions have to end when the gateway stops.
CLOSE_S: Final = 5.0


_DECIDED: Final = frozenset({"started", "launch-refused", "exited"})


class AttachRefused(Exception):
    """The pipe is not taken; the text says why."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A pipe whose launch has not started yet; `started`: whether it did."""

    launch: Launch
    pipe: socket.socket
    started: asyncio.Future[bool]


@dataclass(frozen=True, slots=True)
class Attached:
    """A live session with what it serves."""

    launch: Launch
    session: Session
    mediator: Mediator


class Gateway:
    """All agents' sessions. `entered` takes the log's entries, `accept` the node's hand-overs."""

    def __init__(self, deployment: Deployment, log: Log, credentials: dict[str, Credential]) -> None:
        self._deployment = deployment
        self._log = log
        self._credentials = credentials
        self._sessions: dict[int, Attached] = {}
        self._kept: dict[int, Kept] = {}  # by launch
        self._tasks: set[asyncio.Task[None]] = set()
        self.intents = Intents(log)

    def entered(self, entry: Entry) -> None:
        """Pass on what concerns an agent: its grants changed, it is to stop, it is over."""
        if entry.void is not None:
            return
        self.intents.entered(entry)
        kept = self._kept.get(entry.predicate.get("launch", -1)) if entry.kind in _DECIDED else None
        if kept is not None and not kept.started.done():
            kept.started.set_result(entry.kind == "started")
        if entry.kind in ("delegated", "dropped"):
            self._tools_changed()
        elif entry.kind == "admitted" and entry.consent is not None:
            asked = entry.consent.statement
            agent = asked.predicate["agent"]
            if asked.kind in ("revocation", "key-compromised", "review"):  # it may end what others were handed
                self._tools_changed()
            for one in list(self._sessions.values()):
                if one.launch.agent == agent and asked.kind in ("grant", "call-approval"):
                    one.session.tools_changed()
                elif one.launch.agent == agent and asked.kind == "stop":
                    one.session.close("stopped", "an operator stopped the agent")
                elif self._log.replay.authority.read("launch_stopped", one.launch.index):
                    one.session.close("stopped", "the launch rests on a key that was compromised")
        elif entry.kind == "stop-order" and entry.predicate["launch"] in self._sessions:
            self._sessions[entry.predicate["launch"]].session.close("stop-order", "the monitor ordered a stop")

    def _tools_changed(self) -> None:
        for one in list(self._sessions.values()):
            one.session.tools_changed()

    async def listen(self, listener: socket.socket) -> None:
        """Take hand-overs for ever."""
        loop = asyncio.get_running_loop()
        while True:
            link, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(self._accept(link))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def watch_inputs(self) -> None:
        """Tell agents when the input that they were given changes."""
        seen: dict[int, int] = {}
        while True:
            await asyncio.sleep(INPUT_S)
            for index, one in list(self._sessions.items()):
                try:
                    changed = os.stat(input_path(self._deployment, one.launch.agent)).st_mtime_ns
                except OSError:
                    changed = 0
                if seen.setdefault(index, changed) != changed:
                    seen[index] = changed
                    one.session.input_changed()

    async def close(self) -> None:
        """End every session; each call that began gets its outcome."""
        for one in list(self._sessions.values()):
            one.session.close("gateway-stopping", "the gateway stops")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)

    async def _accept(self, link: socket.socket) -> None:
        kept: Kept | None = None
        try:
            with link:
                try:
                    kept = await self._attach(link)
                    answer: dict[str, Value] = {"ok": True}
                except (AttachRefused, FormatError, LogUnavailable, DeploymentError) as error:
                    answer = {"ok": False, "code": "attach-refused", "message": str(error)[:500]}
                body = canonical(answer)
                await asyncio.get_running_loop().sock_sendall(link, len(body).to_bytes(4, "big") + body)
            if kept is not None and await self._started(kept):
                await self._serve(kept.pipe, kept.launch)
        except OSError:
            return  # the node went away in the middle; the agent's pipe closes with it
        finally:
            if kept is not None:
                self._forget(kept)
                kept.pipe.close()

    async def _started(self, kept: Kept) -> bool:
        """Wait until the log says that the launch started; False if it says that it will not, or nothing in time."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                return await kept.started
        except TimeoutError:
            return False

    def _forget(self, kept: Kept) -> None:
        if self._kept.get(kept.launch.index) is kept:
            del self._kept[kept.launch.index]

    async def _attach(self, link: socket.socket) -> Kept:
        peer = struct.unpack("iII", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if peer != self._deployment.uid("node"):
            raise AttachRefused(f"only the node hands over pipes, not user {peer}")
        link.setblocking(False)
        try:
            async with asyncio.timeout(ATTACH_TIMEOUT_S):
                data, descriptors = await _receive(link)
        except TimeoutError:
            raise AttachRefused("nothing came in time") from None
        pipes = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        try:
            if len(pipes) != 1:
                raise AttachRefused(f"expected one pipe, got {len(pipes)}")
            asked = decode_body(data, limit=MAX_ATTACH)
            if asked.keys() != {"op", "launch", "agent"} or asked["op"] != "attach":
                raise AttachRefused("expected op, launch and agent")
            index = asked["launch"]
            if type(index) is not int:
                raise AttachRefused("a launch is an index")
            await self._log.caught_up(index + 1, ATTACH_TIMEOUT_S)
            launch = self._log.replay.books.launches.get(index)
            state = self._log.replay.authority.read("launch_state", index)
            if launch is None or state not in (ADMITTED, STARTED) or launch.agent != asked["agent"]:
                raise AttachRefused("the log has no such launch that waits or runs")
            if index in self._sessions or index in self._kept:
                raise AttachRefused("this launch has its pipe already")
            kept = self._kept[index] = Kept(launch, pipes.pop(), asyncio.get_running_loop().create_future())
            if state == STARTED:
                kept.started.set_result(True)
            return kept
        finally:
            for one in pipes:
                one.close()

    async def _serve(self, pipe: socket.socket, launch: Launch) -> None:
        mediator = Mediator(self._deployment, self._log, launch, self._credentials, self.intents)
        limits = ChannelLimits(mediator.channel["max_message"], mediator.channel["max_messages_per_second"])
        pipe.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=pipe)
        session = Session(reader, writer, launch.agent, mediator, limits)
        self._sessions[launch.index] = Attached(launch, session, mediator)
        self._kept.pop(launch.index, None)
        try:
            await session.run()
        finally:
            del self._sessions[launch.index]
            await mediator.close()


async def _receive(link: socket.socket) -> tuple[bytes, list[int]]:
    """One frame with the descriptors that came along; the link does not block."""
    loop = asyncio.get_running_loop()
    await _readable(link)
    data, descriptors, _, _ = socket.recv_fds(link, MAX_ATTACH + 4, 4)
    try:
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            if len(data) > MAX_ATTACH:
                raise AttachRefused("too long")
            more = await loop.sock_recv(link, MAX_ATTACH)
            if not more:
                raise AttachRefused("ended too early")
            data += more
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return data[4 : 4 + int.from_bytes(data[:4], "big")], list(descriptors)


async def _readable(link: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(link.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(link.fileno())


async def main(deployment: Deployment, key: PrivateKey) -> None:
    """Serve until stopped."""
    document, digest = announced()
    credentials = read_credentials(str(deployment.root / "credentials.json"))
    log = Log(deployment, key)
    gateway = Gateway(deployment, log, credentials)
    log.listen(gateway.entered)
    await log.start(own="gateway")
    Keeper(log, "gateway")
    deployment.keep_artifact("gateway", document)
    await announce(log, "gateway", {"credentials": sorted(credentials)}, digest)
    await gateway.intents.begin()
    path = deployment.socket("gateway")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen(64)
        ready()
        try:
            await until_stopped(log.broken(), gateway.listen(listener), gateway.watch_inputs(), gateway.intents.failed)
        finally:
            await gateway.close()
            await log.close()
