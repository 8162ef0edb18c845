"""The witness over HTTP: POST /add-checkpoint (C2SP tlog-witness), as an ASGI application.

Decides whether a request's body is well-formed; whether its checkpoint is cosigned is `state`'s to decide.
Runs in the event loop of the process that holds the cosigning key; the check and its fdatasync run in one
thread of their own, so that the loop doesn't wait for the disk.

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


def witness_app(cosigner: Cosigner, failed: Callable[[OSError], None]) -> Starlette:
    """The ASGI application of a witness; `failed` is called when its state could not be written."""
    disk = ThreadPoolExecutor(1, "witness")

    async def add_checkpoint(request: Request) -> Response:
        try:
            old, proof, checkpoint = parse_request(await _body(request))
            loop = asyncio.get_running_loop()
            line = await loop.run_in_executor(disk, cosigner.add, old, proof, checkpoint)
        except FormatError as error:
            return PlainTextResponse(f"{error}\n", status_code=400)
        except (TimeoutError, ClientDisconnect):
            return PlainTextResponse("the body did not arrive in time\n", status_code=400)
        except Conflict as conflict:
            # As a header, since Starlette would add a charset to a text type, and clients compare the whole.
            return Response(f"{conflict.size}\n", 409, headers={"Content-Type": "text/x.tlog.size"})
        except Refusal as refusal:
            return PlainTextResponse(f"{refusal}\n", status_code=refusal.status)
        except OSError as error:
            failed(error)
            return PlainTextResponse("the witness cannot persist its state\n", status_code=500)
        return Response(line, media_type="text/plain; charset=utf-8")

    return Starlette(routes=[Route("/add-checkpoint", add_checkpoint, methods=["POST"])])
