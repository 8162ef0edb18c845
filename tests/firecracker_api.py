"""Firecracker's published OpenAPI description as a judge of requests, and a stand-in that serves it on a Unix socket.

The stand-in answers as the description says: 204 to a request that it allows, 400 and a fault message to any other. It
is no Firecracker: it starts no machine.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft4Validator


def description(shared_data: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((shared_data / "firecracker" / "firecracker.yaml").read_text("utf-8"))
    return loaded


def problems(api: dict[str, Any], method: str, path: str, body: bytes) -> list[str]:
    """What the description has against a request; empty where it allows it."""
    operation = api["paths"].get(path, {}).get(method.lower())
    if operation is None:
        return [f"no operation {method} {path}"]
    (parameter,) = [one for one in operation["parameters"] if one["in"] == "body"]
    value = json.loads(body)
    validator = Draft4Validator({**parameter["schema"], "definitions": api["definitions"]})
    found = [error.message for error in validator.iter_errors(value)]
    known = api["definitions"][parameter["schema"]["$ref"].rpartition("/")[2]]["properties"]
    return found + [f"{name}: not in the description" for name in value if name not in known]


class _Server(socketserver.ThreadingUnixStreamServer):
    api: dict[str, Any]
    taken: list[tuple[str, str]]
    refusing: str | None

    def get_request(self) -> tuple[Any, Any]:
        request, _ = super().get_request()
        return request, ("local", 0)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = problems(self.server.api, "PUT", self.path, body)
        if self.path == self.server.refusing:
            said = ["The kernel file cannot be opened:\x1b[2J no."]
        answer = b"" if not said else json.dumps({"fault_message": "; ".join(said)}).encode()
        self.server.taken.append((self.path, "; ".join(said)))
        self.send_response(400 if said else 204)
        if said:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        return


@contextmanager
def serving(api: dict[str, Any], path: Path, refusing: str | None = None) -> Iterator[list[tuple[str, str]]]:
    """The stand-in at a socket; gives the paths that were asked for, each with what was against it."""
    server = _Server(str(path), _Handler)
    server.api, server.taken, server.refusing = api, [], refusing
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
