"""The log's side of C2SP tlog-witness `add-checkpoint`: one witness, one kept connection.

Sends a checkpoint with the consistency proof from the size that the witness holds, and hands back its
answer. Decides nothing about signatures: the caller checks the cosignature against its witness policy.

Rule 1: every answer is one of cosignature lines, WitnessAhead, WitnessRefused; everything else, timeouts
included, is WitnessAway, which says nothing about the log.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import h11

from ironbound.core.canonical import FormatError, parse_decimal

#: Seconds that a witness has for one answer.
TIMEOUT_S: Final = 3.0
#: Bytes of an answer's body that are read.
MAX_ANSWER: Final = 16 * 1024


class WitnessAway(Exception):
    """No usable answer: not reachable, too slow, not HTTP, or an error of its own."""


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


class CosignerClient:
    """add-checkpoint at `url` (http only: the local cosigner is on loopback)."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise FormatError("witness-url", f"expected http://host:port[/prefix], got {url!r}")
        self._host = parts.hostname
        self._port = parts.port or 80
        self._target = parts.path.rstrip("/") + "/add-checkpoint"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._http = h11.Connection(h11.CLIENT)

    async def add_checkpoint(self, old: int, proof: Sequence[bytes], checkpoint: bytes) -> bytes:
        """The cosignature lines for `checkpoint`; raises as Rule 1 says."""
        lines = [f"old {old}".encode(), *(base64.b64encode(node) for node in proof), b"", checkpoint]
        body = b"\n".join(lines)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                kept = self._writer is not None
                try:
                    status, answer = await self._ask(body)
                except (OSError, EOFError, h11.RemoteProtocolError):
                    self.close()
                    if not kept:
                        raise
                    status, answer = await self._ask(body)  # the kept connection had died: once more, anew
        except (OSError, EOFError, TimeoutError, h11.ProtocolError) as error:
            self.close()
            raise WitnessAway(f"http://{self._host}:{self._port}: {error or type(error).__name__}") from error
        if status == 200:
            return answer
        if status == 409:
            raise WitnessAhead(self._size(answer))
        if status in (400, 403, 404, 422):
            raise WitnessRefused(status, answer[:200].decode("ascii", "replace").strip())
        raise WitnessAway(f"the witness answered {status}")

    @staticmethod
    def _size(answer: bytes) -> int:
        try:
            text = answer.decode("ascii")
            if not text.endswith("\n"):
                raise FormatError("tlog-size", "no newline at the end")
            return parse_decimal(text[:-1])
        except (UnicodeDecodeError, FormatError) as error:
            raise WitnessAway(f"409 with a malformed size: {error}") from error

    async def _ask(self, body: bytes) -> tuple[int, bytes]:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
            self._http = h11.Connection(h11.CLIENT)
        http, reader, writer = self._http, self._reader, self._writer
        head = h11.Request(
            method="POST",
            target=self._target,
            headers=[("Host", f"{self._host}:{self._port}"), ("Content-Length", str(len(body)))],
        )
        sent = [http.send(head), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
        writer.write(b"".join(part for part in sent if part))
        await writer.drain()
        status, answer = 0, bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(1 << 16)
                http.receive_data(data)
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
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
        else:
            self.close()
        return status, bytes(answer)

    def close(self) -> None:
        """Drops the kept connection; the next call makes a new one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
