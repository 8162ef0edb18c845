"""The ledger's write socket: connections, their limits, and the way from a frame to an answer.

Decides who may keep a connection and how much of the ledger's memory one may hold; not what may be logged
(`intake`), nor in which order (`sequencer`).

Rule 1: the peer's user is what the kernel says (SO_PEERCRED), read once when it connects.
Rule 2: what all peers together can make the ledger hold is bounded: connections × (one unfinished frame +
MAX_IN_FLIGHT answers), and INTAKE_BYTES of requests that wait.
Rule 3: a peer that breaks the framing, stalls inside a frame or doesn't read its answers is cut off; no
other peer waits for it.
Rule 4: those who act on entries hear of them first (`HEAR_FIRST`): the others' share of the machine comes after.
A small frame of a service that comes alone, while nothing else is being checked, is checked here: another process would
take longer to wake than to check it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from ironbound.core.canonical import FormatError, b64encode, canonical
from ironbound.wire.frames import Frame, FrameSplitter, encode_frame, frame_of

from .checker import Checker, answer
from .intake import MAX_REQUEST, Append, Ask, Follow, Intake, Refused, Request
from .sequencer import Published, Sequencer

#: Connections at once, and how many of them from users that are no service's.
MAX_CONNECTIONS: Final = 512
MAX_STRANGERS: Final = 32
#: Requests of one connection that wait for their answer, before it is not read any more.
MAX_IN_FLIGHT: Final = 256
#: Bytes of requests that wait, of all connections, before none is read any more.
INTAKE_BYTES: Final = 64 << 20
#: Streams that one connection may follow.
MAX_FOLLOWS: Final = 4
#: The same of a user that is no service's, who can only read, and bytes of its frames: what it asks for is checked in
#: turn with what services say.
STRANGER_IN_FLIGHT: Final = 4
STRANGER_FOLLOWS: Final = 1
STRANGER_REQUEST: Final = 4096
#: Seconds inside one frame; without reading answers; and for a stranger without saying anything.
FRAME_TIMEOUT_S: Final = 10.0
WRITE_TIMEOUT_S: Final = 30.0
STRANGER_IDLE_S: Final = 60.0
#: Entries, and bytes of entries in base64, in one frame of a stream.
FOLLOW_ENTRIES: Final = 256
FOLLOW_BYTES: Final = 900 * 1024
#: Who acts on what it hears, and so hears it first; then the other services, then strangers.
HEAR_FIRST: Final = ("node", "monitor", "gateway")
#: Bytes of a frame that may be checked in the ledger's own process.
CHECKED_HERE: Final = 32 * 1024
#: Frames that one process checks at a time.
CHUNK: Final = 32
_BACKLOG: Final = 256


class Connection(asyncio.Protocol):
    """One peer. `uid` is its user."""

    def __init__(self, server: WriteServer) -> None:
        self._server = server
        self._splitter = FrameSplitter(limit=MAX_REQUEST)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.uid = -1
        self.in_flight = 0
        self.held = False
        self.heard = self.frame_since = self.stuck_since = 0.0
        self.follows: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks the kernel who it is, and whether there is room."""
        self._transport = cast(asyncio.Transport, transport)
        peer: socket.socket = transport.get_extra_info("socket")
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.uid = struct.unpack("3i", credentials)[1]
        self.heard = self._server.now()
        if self._server.is_stranger(self.uid):
            self._splitter = FrameSplitter(limit=STRANGER_REQUEST)
        self._server.admit(self)

    def data_received(self, data: bytes) -> None:
        """Cuts frames and hands them on; a broken frame ends the connection with a reason."""
        self.heard = self._server.now()
        started = self._splitter.unfinished
        try:
            bodies = self._splitter.feed(data)
        except FormatError as error:
            self.dismiss("frame-invalid", error.args[-1])
            return
        if self.in_flight + len(bodies) > STRANGER_IN_FLIGHT and self._server.is_stranger(self.uid):
            text = f"a user that is no service's waits for its answers, at most {STRANGER_IN_FLIGHT} at once"
            self.dismiss("frame-invalid", text)
            return
        if bodies or not started:
            self.frame_since = self.heard
        for body in bodies:
            self._server.arrived(self, body)
        self.balance()

    @property
    def inside_frame(self) -> bool:
        """True while the peer has sent a part of a frame only."""
        return self._splitter.unfinished

    def balance(self) -> None:
        """Stops reading while this peer, or all together, wait for too much; reads again when they don't."""
        if self._transport is None or self._transport.is_closing():
            return
        full = self.in_flight >= MAX_IN_FLIGHT or self._server.is_full or not self._writable.is_set()
        if full and not self.held:
            self._transport.pause_reading()
            self.held = True
        elif self.held and not full:
            self._transport.resume_reading()
            self.held = False
            self.frame_since = self._server.now()

    def pause_writing(self) -> None:
        """The peer doesn't read its answers: it is not read either."""
        self.stuck_since = self._server.now()
        self._writable.clear()
        self.balance()

    def resume_writing(self) -> None:
        """The peer has read its answers."""
        self._writable.set()
        self.balance()

    @property
    def is_stuck(self) -> bool:
        """True while answers wait that the peer doesn't read."""
        return not self._writable.is_set()

    async def send_when_read(self, data: bytes) -> None:
        """Sends once the peer has read what was sent before."""
        await self._writable.wait()
        self.send(data)

    def send(self, data: bytes) -> None:
        """Sends one encoded frame, unless the peer has gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def dismiss(self, code: str, message: str) -> None:
        """Says why, and ends the connection."""
        self.send(encode_frame(Refused(None, code, message).frame()))
        self.close()

    def close(self) -> None:
        """Ends the connection after what was sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Ends the connection at once; what the peer hasn't read is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer has gone: its streams end. What it has asked to be logged is logged all the same."""
        self._writable.set()
        for task in self.follows:
            task.cancel()
        self._server.forget(self)


class WriteServer:
    """All connections of the write socket. `failed` holds the error that ends the ledger."""

    def __init__(
        self,
        intake: Intake,
        checkers: Sequence[Checker],
        sequencer: Sequencer,
        roles: Mapping[int, str],
        now: Callable[[], float],
    ) -> None:
        """`roles`: the services' roles by their users."""
        self._intake = intake
        self._checkers = checkers
        self._sequencer = sequencer
        self._roles = roles
        self.now = now
        self._connections: set[Connection] = set()
        self._strangers = 0
        self._arrived: list[tuple[Connection, bytes]] = []
        self._checking: deque[tuple[asyncio.Future[list[Request | Refused]], list[tuple[Connection, bytes]]]] = deque()
        self._waiting_bytes = 0
        self._encoded = (-1, -1, 0, b"")  # the stream's frame that was sent last: most followers are at one position
        self._turn = 0
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def listen(self, path: str) -> None:
        """Binds the socket, mode 0666: authority is the peer's user and the signature, not the file's mode."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # left by a crash; the lock on the high-water mark says that no other ledger runs
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        listener.bind(path)
        os.chmod(path, 0o666)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_unix_server(lambda: Connection(self), sock=listener, backlog=_BACKLOG)
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Stops listening and ends all connections after what was sent to them."""
        if self._listener is not None:
            self._listener.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._connections):
            connection.close()

    def admit(self, connection: Connection) -> None:
        """Room for one more, or a reason why not."""
        self._connections.add(connection)
        stranger = self.is_stranger(connection.uid)
        self._strangers += stranger
        if len(self._connections) > MAX_CONNECTIONS or (stranger and self._strangers > MAX_STRANGERS):
            connection.dismiss("too-many-connections", "no room for another connection; try again later")

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._strangers -= self.is_stranger(connection.uid)

    def is_stranger(self, uid: int) -> bool:
        """True for a user that is no service's."""
        return uid not in self._roles

    @property
    def is_full(self) -> bool:
        """True while more requests wait than the ledger wants to hold."""
        return self._waiting_bytes > INTAKE_BYTES

    def arrived(self, connection: Connection, body: bytes) -> None:
        """Takes a frame's body; it is checked together with what arrives in the same turn of the loop."""
        connection.in_flight += 1
        self._waiting_bytes += len(body)
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._dispatch)
        self._arrived.append((connection, body))

    def _dispatch(self) -> None:
        arrived, self._arrived = self._arrived, []
        (connection, body), *others = arrived
        if not others and not self._checking and len(body) <= CHECKED_HERE and connection.uid in self._roles:
            (result,) = answer(self._intake, [(connection.uid, body)])
            self._handle(connection, len(body), result)
            return
        for at in range(0, len(arrived), CHUNK):
            chunk = arrived[at : at + CHUNK]
            checker = self._checkers[self._turn % len(self._checkers)]
            self._turn += 1
            future = checker.ask([(connection.uid, body) for connection, body in chunk])
            self._checking.append((future, chunk))
            future.add_done_callback(self._deliver)

    def _deliver(self, _: object) -> None:
        # In the order of arrival, whichever process was done first: a peer's requests keep their order.
        while self._checking and self._checking[0][0].done():
            future, chunk = self._checking.popleft()
            if future.cancelled():
                continue
            error = future.exception()
            if error is not None:
                if not self.failed.done():
                    self.failed.set_exception(error)
                return
            for (connection, body), result in zip(chunk, future.result(), strict=True):
                self._handle(connection, len(body), result)

    def _handle(self, connection: Connection, size: int, request: Request | Refused) -> None:
        match request:
            case Append():
                self._sequencer.submit(request, lambda data: self._answer(connection, size, data))
            case Ask(seq):
                self._answer(connection, size, encode_frame(self._head(seq)))
            case Follow():
                self._settle(connection, size)
                self._follow(connection, request)
            case Refused():
                self._answer(connection, size, encode_frame(request.frame()))
                if request.seq is None:
                    connection.close()

    def _answer(self, connection: Connection, size: int, data: bytes) -> None:
        connection.send(data)
        self._settle(connection, size)

    def _settle(self, connection: Connection, size: int) -> None:
        was_full = self.is_full
        connection.in_flight -= 1
        self._waiting_bytes -= size
        if was_full and not self.is_full:
            for other in tuple(self._connections):
                other.balance()
        else:
            connection.balance()

    def _head(self, seq: int) -> Frame:
        published = self._sequencer.published
        if published is None:
            return Refused(seq, "not-witnessed", "no checkpoint yet: the witness has not answered").frame()
        text = published.checkpoint.decode()
        return {"seq": seq, "ok": True, "size": published.size, "checkpoint": text}

    def _follow(self, connection: Connection, request: Follow) -> None:
        most = STRANGER_FOLLOWS if self.is_stranger(connection.uid) else MAX_FOLLOWS
        if len(connection.follows) >= most:
            refusal = Refused(request.seq, "frame-invalid", f"a connection follows at most {most} streams")
            connection.send(encode_frame(refusal.frame()))
            return
        task = asyncio.create_task(self._stream(connection, request))
        connection.follows.add(task)
        task.add_done_callback(connection.follows.discard)

    async def _stream(self, connection: Connection, request: Follow) -> None:
        position = request.first
        role = self._roles.get(connection.uid, "")
        rank = HEAR_FIRST.index(role) if role in HEAR_FIRST else len(HEAR_FIRST)
        while True:
            published = await self._sequencer.published_beyond(position, rank)
            while position < published.size:
                if self._encoded[:2] != (position, published.size):
                    self._encoded = await self._encode(position, published)
                _, _, count, frame = self._encoded
                position += count
                await connection.send_when_read(frame_of(frame + b"%d}" % request.seq))

    async def _encode(self, position: int, published: Published) -> tuple[int, int, int, bytes]:
        """A stream's frame for whoever is at `position`: its body up to the follower's own `seq`, which sorts last."""
        wanted = min(FOLLOW_ENTRIES, published.size - position)
        encoded: list[str] = []
        room = FOLLOW_BYTES
        for entry in await self._sequencer.read(position, wanted):
            text = b64encode(entry)
            if encoded and len(text) > room:
                break
            encoded.append(text)
            room -= len(text)
        checkpoint = published.checkpoint.decode()
        body = canonical({"checkpoint": checkpoint, "entries": [*encoded], "first": position, "seq": 0})
        return position, published.size, len(encoded), body.removesuffix(b"0}")

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = self.now()
            for connection in tuple(self._connections):
                if connection.is_stuck:
                    if now - connection.stuck_since > WRITE_TIMEOUT_S:
                        connection.abort()
                elif connection.inside_frame and not connection.held:
                    if now - connection.frame_since > FRAME_TIMEOUT_S:
                        connection.dismiss("frame-invalid", f"a frame was not finished within {FRAME_TIMEOUT_S:.0f} s")
                elif self.is_stranger(connection.uid) and not connection.follows and not connection.in_flight:
                    if now - connection.heard > STRANGER_IDLE_S:
                        connection.close()
