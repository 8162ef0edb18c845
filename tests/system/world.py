"""The outside: an HTTP service on loopback that demands a token and keeps what it was asked."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class World:
    """`seen` holds method, path and whether the token was right; `gate` holds answers back while it is cleared."""

    def __init__(self, token: str) -> None:
        self.seen: list[tuple[str, str, bool]] = []
        self.gate = threading.Event()
        self.gate.set()
        world = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def log_message(self, format: str, *args: Any) -> None:
                return

            def _serve(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                allowed = self.headers.get("authorization") == f"Bearer {token}"
                world.seen.append((self.command, self.path, allowed))
                world.gate.wait(30)
                body = f"hello, {self.headers.get('authorization', 'nobody')}".encode()
                self.send_response(200 if allowed else 401)
                self.send_header("content-length", str(len(body)))
                self.send_header("x-echo", token)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _serve

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
