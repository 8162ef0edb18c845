"""The witness over HTTP: POST /add-checkpoint (C2SP tlog-witness), as an ASGI application.

Decides whether a request's body is well-formed; whether its checkpoint is cosigned is `state`'s to decide.
Runs in the event loop of the process that holds the cosigning key; the check and its fdatasync run in one
thread of their own, so that the loop doesn't wait for the disk. `answer` is what every way to the witness answers.

Rule 1: a malformed body is 400, whatever it would have asked for.
Rule 2: an error in persisting is answered 500 and reported to `failed`: the process must end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ironbound.core.canonical import FormatError, b64decode, parse_decimal
from ironbound.core.merkle import HASH_SIZE

from .state import Conflict, Cosigner, Refusal

#: Bytes of a request's body: 63 proof lines and a checkpoint with room for many signatures.
MAX_BODY: Final = 64 * 1024
#: Lines of a consistency proof (C2SP).
MAX_PROOF: Final = 63
#: Seconds within which a body must be there.
BODY_TIMEOUT_S: Final = 10.0
_TEXT: Final = "text/plain; charset=utf-8"


def parse_request(body: bytes) -> tuple[int, list[bytes], bytes]:
    """Old size, proof and signed checkpoint of an add-checkpoint body; FormatError('add-checkpoint')."""
    head, blank, checkpoint = body.partition(b"\n\n")
    if not blank:
        raise FormatError("add-checkpoint", "no empty line before the checkpoint")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise FormatError("add-checkpoint", "the lines before the checkpoint are not ASCII") from None
    if not first.startswith("old "):
        raise FormatError("add-checkpoint", f"expected the line 'old SIZE', got {first[:40]!a}")
    if len(lines) > MAX_PROOF:
        raise FormatError("add-checkpoint", f"expected at most {MAX_PROOF} proof lines, got {len(lines)}")
    try:
        old = parse_decimal(first[4:])
        proof = [b64decode(line) for line in lines]
    except FormatError as error:
        raise FormatError("add-checkpoint", str(error)) from error
    if any(len(node) != HASH_SIZE for node in proof):
        raise FormatError("add-checkpoint", f"a proof line holds {HASH_SIZE} bytes")
    return old, proof, checkpoint


async def _body(request: Request) -> bytes:
    body = bytearray()
    async with asyncio.timeout(BODY_TIMEOUT_S):
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                raise FormatError("add-checkpoint", f"a request has at most {MAX_BODY} bytes")
    return bytes(body)


def answer(cosigner: Cosigner, body: bytes, failed: Callable[[OSError], None]) -> tuple[int, str, bytes]:
    """Status, content type and content for an add-checkpoint body; blocks for the disk."""
    try:
        return 200, _TEXT, cosigner.add(*parse_request(body))
    except FormatError as error:
        return 400, _TEXT, f"{error}\n".encode()
    except Conflict as conflict:
        return 409, "text/x.tlog.size", f"{conflict.size}\n".encode()
    except Refusal as refusal:
        return refusal.status, _TEXT, f"{refusal}\n".encode()
    except OSError as error:
        failed(error)
        return 500, _TEXT, b"the witness cannot persist its state\n"


def witness_app(cosigner: Cosigner, failed: Callable[[OSError], None]) -> Starlette:
    """The ASGI application of a witness; `failed` is called, in any thread, when its state could not be written."""
    disk = ThreadPoolExecutor(1, "witness")

    async def add_checkpoint(request: Request) -> Response:
        try:
            body = await _body(request)
        except FormatError as error:
            return PlainTextResponse(f"{error}\n", status_code=400)
        except (TimeoutError, ClientDisconnect):
            return PlainTextResponse("the body did not arrive in time\n", status_code=400)
        loop = asyncio.get_running_loop()
        status, kind, content = await loop.run_in_executor(disk, answer, cosigner, body, failed)
        # As a header, since Starlette would add a charset to a text type, and clients compare the whole.
        return Response(content, status, headers={"Content-Type": kind})

    return Starlette(routes=[Route("/add-checkpoint", add_checkpoint, methods=["POST"])])
