"""A controller that lies to an operator on another machine: what they sign is what they named."""

from __future__ import annotations

import io
import json
import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from stand import Stand, folder

from ironbound.core.canonical import b64encode
from ironbound.core.envelope import Envelope, envelope_from_value, sign_envelope
from ironbound.core.keys import PrivateKey
from ironbound.core.request import encode_approval, encode_request
from ironbound.core.statement import parse_statement
from ironbound.terminal.init import free_ports
from ironbound.terminal.main import main
from ironbound.terminal.operators import Submission

ESCAPES = "\x1b[2J\x1b]0;x\x07\x1b(0\u202eada\nironbound: signed by  ada"


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Liar:
    """The controller's certificate and key, and any answer: `says` is path → status and value."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.says: dict[str, tuple[int, Any]] = {}
        self.heard: list[dict[str, Any]] = []
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, value = liar.says.get(self.path, (404, {"reason": "proposal-unknown", "text": ""}))
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                liar.heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.do_GET()

            def log_message(self, format: str, *values: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", free_ports(1)[0]), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(stand.root / "operator-channel.crt", stand.root / "keys" / "operator-channel.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def request(self, key: PrivateKey, **fields: Any) -> Envelope:
        """A request that this key signed."""
        now = time.time_ns() // 1_000_000
        asked = {
            "version": 1, "deployment": self.stand.deployment.trust.deployment, "id": "ab" * 16, "agent": None,
            "module_sha256": None, "config_sha256": "c" * 64, "capability": {"before": [], "after": []},
            "not_before_ms": now, "expires_ms": now + 600_000, "log_head": {"size": 1, "root": b64encode(bytes(32))},
            "proposal": None, "ticket": "", "body": {"profile": "strict", "layers": []},
        } | fields  # fmt: skip
        return sign_envelope(encode_request("profile-approval", asked), [key])

    def propose(self, request: Envelope, handed_out: Envelope | None = None, **said: Any) -> None:
        """Say that this is proposed; `handed_out` is what an approver gets in its place."""
        asked = parse_statement(request.payload).predicate
        listed = {
            "request_sha256": request.digest, "id": asked["id"], "index": 7, "kind": "profile-approval", "agent": None,
            "state": "waiting", "reason": "quorum-not-met", "initiator": "ada", "approvers": [], "needed": 2,
            "expires_ms": asked["expires_ms"], "applied": None, "declined": None, "declined_by": None,
        } | said  # fmt: skip
        path = f"/proposals/{listed['request_sha256']}"
        self.says["/proposals"] = 200, {"proposals": [listed]}
        self.says[path] = 200, listed | {"request": (handed_out or request).as_value(), "approvals": []}
        self.says[f"{path}/approvals"] = 200, listed | {"state": "applied", "applied": 9, "approvers": ["bo"]}
        self.says[f"{path}/declines"] = 200, listed | {"state": "declined", "declined": 9, "declined_by": "bo"}

    def asked(self, verb: str, *words: str) -> Done:
        """`ironbound requests VERB` of bo, on a machine that has the first trust root and no log."""
        way = ("--to", f"127.0.0.1:{self.server.server_address[1]}", "-d", str(self.stand.root), "--certificate")
        certificate = str(self.stand.root / "operator-channel.crt")
        return self.ran("requests", verb, *words, *way, certificate, signs=verb != "show")

    def ran(self, *words: str, signs: bool = True) -> Done:
        """A command of bo's."""
        reading, writing = os.pipe()
        os.write(writing, f"{self.stand.phrases['bo']}\n".encode())
        os.close(writing)
        signing = ("--sign", "bo", "--passphrase-fd", str(reading)) if signs else ()
        output, errors = io.StringIO(), io.StringIO()
        try:
            with redirect_stdout(output), redirect_stderr(errors):
                code = main([*words, *signing])
        finally:
            os.close(reading)
        return Done(code, output.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Liar]:
    made = Liar(Stand(folder(tmp_path_factory.mktemp("liar"), "d")))
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def honest(liar: Liar) -> None:
    """What an honest controller would say, for each test to spoil."""
    liar.says = {"/trust-root": (200, json.loads(json.dumps(dict(liar.stand.deployment.trust.body))))}
    liar.heard.clear()
    liar.propose(liar.request(liar.stand.keys["ada"]))


def test_the_honest_one_gets_an_approval_of_the_very_bytes(liar: Liar) -> None:
    """The positive control: by the same way, from the same server."""
    done = liar.asked("approve", "abab")
    assert done.returncode == 0 and "signed by      ada (sw-pass)" in done.stderr, done.stderr
    (heard,) = liar.heard
    said = parse_statement(envelope_from_value(heard["approval"]).payload).predicate
    assert said["request_sha256"] == liar.says["/proposals"][1]["proposals"][0]["request_sha256"]
    assert liar.asked("decline", "abab").returncode == 0
    assert liar.asked("show", "abab").returncode == 0


def test_another_request_under_the_name_of_the_one_that_was_asked_for(liar: Liar) -> None:
    """bo types the id that ada told. A co-operator's request is handed out under it."""
    wanted, other = liar.request(liar.stand.keys["ada"]), liar.request(liar.stand.keys["cy"], id="cd" * 16)
    for lie in (
        lambda: liar.propose(wanted, other),
        lambda: liar.propose(other, id="ab" * 16),
        lambda: liar.propose(wanted, kind="launch-request"),
        lambda: liar.propose(wanted, sign_envelope(wanted.payload.replace(b'"ticket":""', b'"ticket":"x"'),
                                                   [liar.stand.keys["ada"]])),
    ):  # fmt: skip
        lie()
        for verb in ("show", "approve", "decline"):
            done = liar.asked(verb, "abab")
            assert done.returncode == 1 and "another request than it named" in done.stderr, done.stderr
    assert liar.heard == []


def test_a_roster_on_which_a_key_has_another_owner(liar: Liar) -> None:
    """cy asks, and the controller shows bo that ada did: her name over his key, or over a service's."""
    first = liar.says["/trust-root"][1]
    keys = {one["name"]: one["keys"] for one in first["operators"]}
    liar.propose(liar.request(liar.stand.keys["cy"]))
    honest_names = liar.asked("approve", "abab")
    assert "signed by      cy (sw-pass)" in honest_names.stderr
    liar.heard.clear()
    for ada, cy in ((keys["cy"], keys["ada"]), (keys["ada"] + [first["services"]["controller"]], keys["cy"])):
        people = [{**one, "keys": {"ada": ada, "cy": cy}.get(one["name"], one["keys"])} for one in first["operators"]]
        for version in (1, 2):
            liar.says["/trust-root"] = 200, {**first, "operators": people, "version": version}
            for verb in ("show", "approve", "decline"):
                done = liar.asked(verb, "abab")
                assert done.returncode == 1 and "another roster than this folder's" in done.stderr, done.stderr
    fewer = {**first, "quorum": dict.fromkeys(first["quorum"], 1)}
    liar.says["/trust-root"] = 200, fewer
    assert "another roster" in liar.asked("approve", "abab").stderr
    assert liar.heard == []
    # A later version is for showing, and said to be the controller's word.
    liar.says["/trust-root"] = 200, {**fewer, "version": 2}
    done = liar.asked("approve", "abab")
    assert done.returncode == 0 and "version 2, as the controller says" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "said",
    [{"initiator": ESCAPES}, {"state": ESCAPES}, {"approvers": [ESCAPES]}, {"reason": ESCAPES}, {"agent": ESCAPES},
     {"declined_by": ESCAPES}, {"expires_ms": 1 << 70}, {"needed": "2"}, {"more": 1}],
)  # fmt: skip
def test_words_that_a_terminal_would_obey_are_not_taken(liar: Liar, said: dict[str, Any]) -> None:
    liar.propose(liar.request(liar.stand.keys["ada"]), **said)
    done = liar.asked("approve", "abab")
    assert done.returncode == 1 and "the controller's answer is malformed" in done.stderr, done.stderr
    assert "\x1b" not in done.stderr + done.stdout and "\u202e" not in done.stderr
    assert liar.heard == []


def test_a_refusal_s_text_is_shown_and_not_obeyed(liar: Liar) -> None:
    liar.says["/proposals"] = 403, {"reason": f"x{ESCAPES}", "text": ESCAPES, "index": ESCAPES}
    done = liar.asked("show", "abab")
    assert done.returncode == 1 and "\\u001b[2J" in done.stderr and "\\u202eada\\u000a" in done.stderr
    assert "\x1b" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_file_of_another_operator_that_holds_no_request_is_not_signed(liar: Liar, tmp_path: Path) -> None:
    request = liar.request(liar.stand.keys["ada"])
    deployment, file = liar.stand.deployment.trust.deployment, tmp_path / "request.json"
    approval = encode_approval(request, deployment=deployment, approval_id="ab" * 16, expires_ms=1)
    file.write_bytes(Submission(sign_envelope(approval, [liar.stand.keys["ada"]]), (), ()).encode())
    before = file.read_bytes()
    done = liar.ran("sign", str(file), "-d", str(liar.stand.root))
    assert done.returncode == 1 and "not-a-request" in done.stderr, done.stderr
    assert "its kind is approval" in done.stderr
    assert file.read_bytes() == before
