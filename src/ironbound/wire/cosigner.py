"""The log's side of C2SP tlog-witness `add-checkpoint`: one witness, one kept connection.

Sends a checkpoint with the consistency proof from the size that the witness holds, and hands back its
answer. Decides nothing about signatures: the caller checks the cosignature against its witness policy.

Two ways lead to a witness, with the same bodies and the same answers: HTTP, as the specification has it, to any
witness at `http://host:port[/prefix]`; and to the witness of this deployment a Unix socket at `unix:PATH`, where a
request is u32be length ‖ body, and an answer u32be length ‖ u16be status ‖ body.

Rule 1: every answer is one of cosignature lines, WitnessAhead, WitnessRefused; everything else, timeouts
included, is WitnessAway, which says nothing about the log.
Rule 2: who listens on a Unix socket is told by the kernel (SO_PEERCRED); another user than the witness's is not asked.
Rule 3: the methods block, for a few times `TIMEOUT_S` at most, and belong to one thread; only `interrupt` may come from
another one.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import h11

from ironbound.core.canonical import FormatError, parse_decimal

#: Seconds that a witness has for one answer.
TIMEOUT_S: Final = 3.0
#: Bytes of an answer's body that are read.
MAX_ANSWER: Final = 16 * 1024
#: Before a request and before an answer on a Unix socket; an answer's length counts its status.
LENGTH: Final = struct.Struct(">I")
STATUS: Final = struct.Struct(">H")

_CREDENTIALS: Final = struct.Struct("3i")
_READ: Final = 1 << 16


class WitnessAway(Exception):
    """No usable answer: not reachable, too slow, not of the protocol, or an error of its own."""


class WitnessAhead(Exception):
    """409: the witness holds another size (`size`) for this log than the request assumed."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the witness holds size {size}")
        self.size = size


class WitnessRefused(Exception):
    """The witness understood and said no: `status` is 400, 403, 404 or 422."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the witness answered {status}: {text}")
        self.status = status


def peer_of(peer: socket.socket) -> tuple[int, int]:
    """Process and user at the other end of a Unix socket, as the kernel noted them when it listened or connected."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return int(pid), int(uid)


def peer_uid(peer: socket.socket) -> int:
    """The user alone."""
    return peer_of(peer)[1]


class _Way(ABC):
    """A connection to the witness: `send` one body, then `receive` status and body of its answer."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer

    @abstractmethod
    def send(self, body: bytes) -> None:
        """Sends one request."""

    @abstractmethod
    def receive(self, deadline: float) -> tuple[int, bytes]:
        """The answer to it. OSError (TimeoutError), EOFError, h11.RemoteProtocolError."""

    @property
    def is_over(self) -> bool:
        """True once the connection can't take another request."""
        return False

    def _read(self, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        self._peer.settimeout(left)
        return self._peer.recv(_READ)

    def interrupt(self) -> None:
        """Ends what is waited for."""
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the connection."""
        self._peer.close()


class _Plain(_Way):
    """The Unix socket."""

    def __init__(self, path: str, uid: int) -> None:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            peer.settimeout(TIMEOUT_S)
            peer.connect(path)
            if (found := peer_uid(peer)) != uid:  # Rule 2
                raise PermissionError(f"the witness runs as user {uid}, at its socket listens user {found}")
        except OSError:
            peer.close()
            raise
        super().__init__(peer)

    def send(self, body: bytes) -> None:
        self._peer.settimeout(TIMEOUT_S)
        self._peer.sendall(LENGTH.pack(len(body)) + body)

    def receive(self, deadline: float) -> tuple[int, bytes]:
        data = bytearray()
        size = LENGTH.size
        while len(data) < size:
            part = self._read(deadline)
            if not part:
                raise EOFError("connection closed before an answer")
            data += part
            if len(data) >= LENGTH.size and size == LENGTH.size:
                size += LENGTH.unpack_from(data)[0]
                if not LENGTH.size + STATUS.size <= size <= LENGTH.size + STATUS.size + MAX_ANSWER:
                    raise EOFError(f"an answer of {size} bytes")
        if len(data) > size:
            raise EOFError("more than one answer")
        return STATUS.unpack_from(data, LENGTH.size)[0], bytes(data[LENGTH.size + STATUS.size :])


class _Http(_Way):
    """HTTP/1.1."""

    def __init__(self, host: str, port: int, target: str) -> None:
        super().__init__(socket.create_connection((host, port), TIMEOUT_S))
        self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host, self._port, self._target = host, port, target
        self._http = h11.Connection(h11.CLIENT)

    def send(self, body: bytes) -> None:
        http = self._http
        head = h11.Request(
            method="POST",
            target=self._target,
            headers=[("Host", f"{self._host}:{self._port}"), ("Content-Length", str(len(body)))],
        )
        sent = [http.send(head), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
        self._peer.settimeout(TIMEOUT_S)
        self._peer.sendall(b"".join(part for part in sent if part))

    def receive(self, deadline: float) -> tuple[int, bytes]:
        http = self._http
        status, answer = 0, bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(self._read(deadline))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                answer += event.data
                if len(answer) > MAX_ANSWER:
                    raise EOFError(f"an answer of more than {MAX_ANSWER} bytes")
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError("connection closed before an answer")
        if not self.is_over:
            http.start_next_cycle()
        return status, bytes(answer)

    @property
    def is_over(self) -> bool:
        return self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE


class CosignerClient:
    """add-checkpoint at `address`; `uid` is the user that a witness on a Unix socket must run as."""

    def __init__(self, address: str, uid: int) -> None:
        self._address, self._uid = address, uid
        self._path = address.removeprefix("unix:") if address.startswith("unix:") else None
        parts = urlsplit(address)
        if self._path is None and (parts.scheme != "http" or parts.hostname is None):
            raise FormatError("witness-address", f"expected http://host:port[/prefix] or unix:PATH, got {address!r}")
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._target = parts.path.rstrip("/") + "/add-checkpoint"
        self._way: _Way | None = None
        self._body = b""
        self._fresh = False  # whether the connection was made for this very request
        self._unsent: Exception | None = None
        self._deadline = 0.0
        self._interrupted = False

    def ask(self, old: int, proof: Sequence[bytes], checkpoint: bytes) -> None:
        """Sends a request; raises nothing, `answer` tells. There may be other work between the two."""
        lines = [f"old {old}".encode(), *(base64.b64encode(node) for node in proof), b"", checkpoint]
        self._body = b"\n".join(lines)
        self._deadline = time.monotonic() + TIMEOUT_S
        self._fresh, self._unsent = self._way is None, None
        try:
            self._send()
        except (OSError, EOFError, h11.ProtocolError) as error:
            self._unsent = error

    def answer(self) -> bytes:
        """The cosignature lines for the checkpoint that was sent; raises as Rule 1 says."""
        try:
            try:
                status, answer = self._receive()
            except (OSError, EOFError, h11.RemoteProtocolError) as error:
                self.close()
                if self._fresh or isinstance(error, TimeoutError) or self._interrupted:
                    raise
                self._unsent = None
                self._send()  # the kept connection had died: once more, anew
                status, answer = self._receive()
        except (OSError, EOFError, h11.ProtocolError) as error:
            self.close()
            raise WitnessAway(f"{self._address}: {error or type(error).__name__}") from error
        if status == 200:
            return answer
        if status == 409:
            raise WitnessAhead(self._size(answer))
        if status in (400, 403, 404, 422):
            raise WitnessRefused(status, answer[:200].decode("ascii", "replace").strip())
        raise WitnessAway(f"the witness answered {status}")

    def _send(self) -> None:
        if self._interrupted:
            raise EOFError("interrupted")
        if self._way is None:
            path = self._path
            self._way = _Http(self._host, self._port, self._target) if path is None else _Plain(path, self._uid)
        self._way.send(self._body)

    def _receive(self) -> tuple[int, bytes]:
        if self._unsent is not None:
            raise self._unsent
        if self._way is None:
            raise EOFError("nothing was asked")
        status, answer = self._way.receive(self._deadline)
        if self._way.is_over:
            self.close()
        return status, answer

    @staticmethod
    def _size(answer: bytes) -> int:
        try:
            text = answer.decode("ascii")
            if not text.endswith("\n"):
                raise FormatError("tlog-size", "no newline at the end")
            return parse_decimal(text[:-1])
        except (UnicodeDecodeError, FormatError) as error:
            raise WitnessAway(f"409 with a malformed size: {error}") from error

    def interrupt(self) -> None:
        """From another thread: what is waited for ends now, as WitnessAway."""
        self._interrupted = True
        if (way := self._way) is not None:
            way.interrupt()

    def close(self) -> None:
        """Drops the kept connection; the next call makes a new one."""
        if self._way is not None:
            self._way.close()
            self._way = None
