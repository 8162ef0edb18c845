"""Frames on Unix sockets: u32be length, then that many bytes of canonical JSON holding one object.

Decides where a frame begins and ends and that its body is canonical; not what it means, nor who may send
it. For sockets (`read_frame`, `write_frame`), asyncio streams (`receive_frame`, `send_frame`) and
protocols that are fed bytes (`FrameSplitter`).

Rule 1: a length over the limit is refused when its four bytes are there, before anything is kept for it.
Rule 2: every malformed frame raises FormatError('frame-invalid'), and nothing else.
Rule 3: a stream that ends inside a frame is malformed; one that ends between two frames is over (None).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from ironbound.core.canonical import FormatError, Value, canonical, parse_canonical

#: Bytes in the body of a frame, unless the protocol names a smaller limit.
MAX_FRAME: Final = 1 << 20
_HEADER: Final = 4

Frame = dict[str, Value]


def encode_frame(frame: Frame, *, limit: int = MAX_FRAME) -> bytes:
    """The frame's bytes on the wire; FormatError if its body is over `limit` bytes."""
    return frame_of(canonical(frame), limit=limit)


def frame_of(body: bytes, *, limit: int = MAX_FRAME) -> bytes:
    """The same of a body that is encoded already."""
    if len(body) > limit:
        raise FormatError("frame-invalid", f"a frame has at most {limit} bytes, this one would have {len(body)}")
    return len(body).to_bytes(_HEADER, "big") + body


def decode_body(body: bytes, *, limit: int = MAX_FRAME) -> Frame:
    """The object in a frame's body; FormatError('frame-invalid') if it isn't canonical JSON of an object."""
    try:
        value = parse_canonical(body, limit=limit)
    except FormatError as error:
        raise FormatError("frame-invalid", f"frame body: {error}") from error
    if not isinstance(value, dict):
        raise FormatError("frame-invalid", f"frame body: expected an object, got {type(value).__name__}")
    return value


def _body_size(header: bytes | bytearray, limit: int) -> int:
    size = int.from_bytes(header[:_HEADER], "big")
    if not 0 < size <= limit:
        raise FormatError("frame-invalid", f"a frame has 1 to {limit} bytes, this one says {size}")
    return size


class FrameSplitter:
    """Cuts a stream of bytes into frame bodies; keeps at most one unfinished frame."""

    __slots__ = ("_kept", "_limit")

    def __init__(self, *, limit: int = MAX_FRAME) -> None:
        self._kept = bytearray()
        self._limit = limit

    @property
    def unfinished(self) -> bool:
        """True while the bytes fed so far end inside a frame."""
        return bool(self._kept)

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that `data` completes, in order; FormatError once a length is out of bounds."""
        kept = self._kept
        kept += data
        bodies: list[bytes] = []
        start = 0
        while len(kept) - start >= _HEADER:
            end = start + _HEADER + _body_size(kept[start : start + _HEADER], self._limit)
            if len(kept) < end:
                break
            bodies.append(bytes(kept[start + _HEADER : end]))
            start = end
        del kept[:start]
        return bodies


def _read_exactly(sock: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    missing = size
    while missing:
        part = sock.recv(min(missing, 1 << 16))
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def read_frame(sock: socket.socket, *, limit: int = MAX_FRAME) -> Frame | None:
    """The next frame, or None if the peer has closed; OSError as the socket raises it."""
    header = _read_exactly(sock, _HEADER)
    if not header:
        return None
    if len(header) < _HEADER:
        raise FormatError("frame-invalid", "the stream ended inside a frame's length")
    size = _body_size(header, limit)
    body = _read_exactly(sock, size)
    if len(body) < size:
        raise FormatError("frame-invalid", f"the stream ended after {len(body)} of a frame's {size} bytes")
    return decode_body(body, limit=limit)


def write_frame(sock: socket.socket, frame: Frame, *, limit: int = MAX_FRAME) -> None:
    """Sends one frame whole."""
    sock.sendall(encode_frame(frame, limit=limit))


async def receive_frame(reader: asyncio.StreamReader, *, limit: int = MAX_FRAME) -> Frame | None:
    """The next frame of an asyncio stream, or None if the peer has closed."""
    try:
        header = await reader.readexactly(_HEADER)
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise FormatError("frame-invalid", "the stream ended inside a frame's length") from error
    size = _body_size(header, limit)
    try:
        body = await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        got = len(error.partial)
        raise FormatError("frame-invalid", f"the stream ended after {got} of a frame's {size} bytes") from error
    return decode_body(body, limit=limit)


async def send_frame(writer: asyncio.StreamWriter, frame: Frame, *, limit: int = MAX_FRAME) -> None:
    """Sends one frame and waits until the transport has room again."""
    writer.write(encode_frame(frame, limit=limit))
    await writer.drain()
