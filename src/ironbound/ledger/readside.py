"""The ledger's read side: its public directory over HTTP, exactly as C2SP tlog-tiles wants it.

Decides paths and headers; the files themselves are the publisher's, and anything that serves static files
could take this one's place. Only `checkpoint` and well-formed tile paths exist; nothing else is looked up.
"""

from __future__ import annotations

import os
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from ironbound.core.canonical import FormatError
from ironbound.core.tile import parse_tile_path

_MAX_CHECKPOINT: Final = 1 << 20


def read_app(public_dir: str) -> Starlette:
    """The ASGI application for `public_dir`."""

    async def checkpoint(_: Request) -> Response:
        try:
            with open(f"{public_dir}/checkpoint", "rb") as file:
                data = file.read(_MAX_CHECKPOINT)
        except FileNotFoundError:
            return PlainTextResponse("no checkpoint is published yet\n", status_code=404)
        return Response(data, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-cache"})

    async def tile(request: Request) -> Response:
        try:
            path = parse_tile_path(request.url.path.removeprefix("/")).path
        except FormatError:
            return PlainTextResponse("not a tile's path\n", status_code=404)
        name = f"{public_dir}/{path}"
        if not os.path.isfile(name):
            return PlainTextResponse("no such tile\n", status_code=404)
        return FileResponse(
            name,
            media_type="application/octet-stream",
            headers={"Cache-Control": "max-age=31536000, immutable"},
        )

    return Starlette(
        routes=[
            Route("/checkpoint", checkpoint, methods=["GET"]),
            Route("/tile/{rest:path}", tile, methods=["GET"]),
        ]
    )
