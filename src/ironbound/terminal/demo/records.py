"""The demo's records service: a small HTTP service on loopback that demands a bearer token.

Run as a process of its own: `python -I -m ironbound.terminal.demo.records`, the token on standard input; it prints its
port. GET /records?page=N gives fifty customer messages a page, made anew from a fixed seed; POST /reports takes a
summary, GET /reports shows what was posted. Belongs to the demo, not to the product.
"""

from __future__ import annotations

import hmac
import json
import random
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

RECORDS: Final = 300
PAGE: Final = 50
MAX_REPORT: Final = 1 << 20

_CUSTOMERS: Final = ("Aster Bank", "Borealis Air", "Cobalt Foods", "Dune Energy", "Elm & Sons", "Fjord Rail")
_SUBJECTS: Final = (
    ("Invoice charged twice", "Our invoice was charged twice, please refund the payment."),
    ("Service is down", "The dashboard is down since this morning, we see an outage and timeouts."),
    ("Password reset does not arrive", "A login from an unknown country and a phishing mail: is our account breached?"),
    ("Feature request: export", "We would like a feature to export everything as a spreadsheet."),
    ("A question about your office", "Where is your office, and may we come by for a coffee?"),
)


def make_records() -> list[dict[str, Any]]:
    """The same few hundred records every time."""
    draw = random.Random(20261123)  # a demo's data, no secret
    records = []
    for number in range(1, RECORDS + 1):
        subject, body = draw.choice(_SUBJECTS)
        records.append(
            {
                "id": number,
                "customer": draw.choice(_CUSTOMERS),
                "channel": draw.choice(("email", "web", "phone")),
                "subject": subject,
                "body": body,
                "amount_cents": draw.randrange(0, 50_000),
                "created": f"2026-11-{draw.randrange(1, 23):02d}",
            }
        )
    return records


def make_server(token: str) -> ThreadingHTTPServer:
    """The service on a free loopback port."""
    records = make_records()
    reports: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def log_message(self, format: str, *args: Any) -> None:
            return

        def _answer(self, status: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _is_allowed(self) -> bool:
            given = self.headers.get("authorization", "")
            if hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                return True
            self._answer(401, {"error": "a bearer token, please"})
            return False

        def do_GET(self) -> None:
            where = urlsplit(self.path)
            if not self._is_allowed():
                return
            if where.path == "/records":
                page = parse_qs(where.query).get("page", ["1"])[0]
                start = (int(page) - 1) * PAGE if page.isdecimal() and 0 < int(page) < 10_000 else RECORDS
                self._answer(200, records[start : start + PAGE])
            elif where.path == "/reports":
                self._answer(200, reports)
            else:
                self._answer(404, {"error": "no such thing"})

        def do_POST(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            if not self._is_allowed():
                return
            if urlsplit(self.path).path != "/reports" or not 0 < size <= MAX_REPORT:
                self._answer(404, {"error": "no such thing"})
                return
            reports.append(json.JSONDecoder().decode(self.rfile.read(size).decode()))
            self._answer(201, {"report": len(reports)})

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


if __name__ == "__main__":
    service = make_server(sys.stdin.readline().strip())
    print(service.server_address[1], flush=True)
    service.serve_forever()
