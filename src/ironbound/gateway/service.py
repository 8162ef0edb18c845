"""The gateway's process: takes agents' pipes from the node, serves MCP on them, mediates every effect.

Decides that a pipe belongs to the launch that the node names: only the node's user can hand one over, and the launch
must stand in the log as started, for that agent. An agent is never asked who it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from ironbound.core.authority import STARTED
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
#: Seconds between two looks whether an agent's input changed.
INPUT_S: Final = 0.25
#: Seconds that sessions have to end when the gateway stops.
CLOSE_S: Final = 5.0


class AttachRefused(Exception):
    """The pipe is not taken; the text says why."""


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
        self._tasks: set[asyncio.Task[None]] = set()
        self.intents = Intents(log)

    def entered(self, entry: Entry) -> None:
        """Pass on what concerns an agent: its grants changed, it is to stop, it is over."""
        if entry.void is not None:
            return
        self.intents.entered(entry)
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
        pipe: socket.socket | None = None
        try:
            with link:
                try:
                    pipe, attached = await self._attach(link)
                    answer: dict[str, Value] = {"ok": True}
                except (AttachRefused, FormatError, LogUnavailable, DeploymentError) as error:
                    answer = {"ok": False, "code": "attach-refused", "message": str(error)[:500]}
                body = canonical(answer)
                await asyncio.get_running_loop().sock_sendall(link, len(body).to_bytes(4, "big") + body)
            if answer["ok"] is True and pipe is not None:
                await self._serve(pipe, attached)
        except OSError:
            return  # the node went away in the middle; the agent's pipe closes with it
        finally:
            if pipe is not None:
                pipe.close()

    async def _attach(self, link: socket.socket) -> tuple[socket.socket, Launch]:
        peer = struct.unpack("iII", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if peer != self._deployment.uid("node"):
            raise AttachRefused(f"only the node hands over pipes, not user {peer}")
        link.settimeout(ATTACH_TIMEOUT_S)
        data, descriptors = await asyncio.to_thread(_receive, link)
        link.setblocking(False)
        pipes = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        try:
            if len(pipes) != 1:
                raise AttachRefused(f"expected one pipe, got {len(pipes)}")
            asked = decode_body(data, limit=MAX_ATTACH)
            if asked.keys() != {"op", "launch", "started", "agent"} or asked["op"] != "attach":
                raise AttachRefused("expected op, launch, started and agent")
            started, index = asked["started"], asked["launch"]
            if type(started) is not int or type(index) is not int:
                raise AttachRefused("launch and started are indexes")
            await self._log.caught_up(started + 1, ATTACH_TIMEOUT_S)
            launch = self._log.replay.books.launches.get(index)
            state = self._log.replay.authority.read("launch_state", index)
            if launch is None or state != STARTED or launch.started != started or launch.agent != asked["agent"]:
                raise AttachRefused("the log has no such started launch")
            if index in self._sessions:
                raise AttachRefused("this launch has its session already")
            return pipes.pop(), launch
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
        try:
            await session.run()
        finally:
            del self._sessions[launch.index]
            await mediator.close()


def _receive(link: socket.socket) -> tuple[bytes, list[int]]:
    """One frame with the descriptors that came along; blocking, with the socket's timeout."""
    data, descriptors, _, _ = socket.recv_fds(link, MAX_ATTACH + 4, 4)
    try:
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            if len(data) > MAX_ATTACH:
                raise AttachRefused("too long")
            more = link.recv(MAX_ATTACH)
            if not more:
                raise AttachRefused("ended too early")
            data += more
    except (AttachRefused, OSError):
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return data[4 : 4 + int.from_bytes(data[:4], "big")], list(descriptors)


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
