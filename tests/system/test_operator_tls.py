"""The operator channel as strangers meet it: schemathesis, TLS with the pinned certificate, and a flood.

One deployment for all of it, which listens on loopback too. The flood comes last: it uses up what a peer may ask.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import validate
from puppet import WAIT, puppet
from stand import Stand, folder, until

from ironbound.controller.openapi import DESCRIPTION
from ironbound.controller.pace import BURST, MAX_PEERS, OTHERS, PER_SECOND, Pace, peer_of
from ironbound.core.canonical import sha256_hex
from ironbound.core.surface import approval_body
from ironbound.terminal import operators
from ironbound.terminal.certificate import fingerprint_of, make_certificate, pinned_context
from ironbound.terminal.init import free_ports
from ironbound.terminal.voice import Stop
from ironbound.wire.deployment import DeploymentError, load


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    stand = Stand(folder(tmp_path_factory.mktemp("tls"), "d"), listen=f"127.0.0.1:{free_ports(1)[0]}")
    try:
        stand.start()
        yield stand
    finally:
        stand.stop()


def address(stand: Stand) -> str:
    assert stand.deployment.listen is not None
    return f"127.0.0.1:{stand.deployment.listen[1]}"


def certificate(stand: Stand) -> Path:
    return stand.root / "operator-channel.crt"


def test_the_description_is_valid_openapi() -> None:
    validate(DESCRIPTION)


@pytest.mark.slow
def test_schemathesis_finds_nothing_on_the_real_controller(made: Stand) -> None:
    before, start = made.snapshot(), made.sync()
    words = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"https://{address(made)}/openapi.json",
        "--tls-verify", str(certificate(made)), "--checks", "all", "--max-examples", "25", "--seed", "7",
        "--generation-database", "none", "--rate-limit", "auto", "--no-color", "--continue-on-failure",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(words, capture_output=True, text=True, timeout=280, env=environment, cwd=made.root.parent)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert made.snapshot() == before, "something was admitted"
    reasons = {entry.predicate["reason"] for entry in made.entries("refused", start)}
    assert {"submission-malformed", "route-unknown"} <= reasons, "it did not get through to the refusals"
    assert reasons - {"submission-malformed", "route-unknown", "peer-too-fast"}, "nothing well-formed was judged"


def test_what_two_humans_signed_is_admitted_over_tls_and_the_command_line_pins_the_certificate(
    made: Stand, tmp_path: Path
) -> None:
    data = puppet(WAIT, b"over tls\n")
    payload = made.build("module-approval", module=sha256_hex(data), body=approval_body(data))
    file = tmp_path / "request.json"
    file.write_bytes(made.sign(payload, artifacts=(data,)).encode())
    words = ["submit", str(file), "--to", address(made), "--certificate"]
    other = tmp_path / "other.crt"
    other.write_bytes(make_certificate(made.deployment.trust.deployment)[0])
    refused = made.command(*words, str(other), where=False)
    assert refused.returncode == 1 and "does not answer" in refused.stderr
    half = made.command("submit", str(file), "--to", address(made), where=False)
    assert half.returncode == 2
    sent = made.command(*words, str(certificate(made)), "--json", where=False)
    assert sent.returncode == 0, sent.stderr
    made.sync()
    assert made.log.entries[json.loads(sent.stdout)["index"]].kind == "admitted"


def test_plain_http_and_older_tls_get_no_answer_over_tcp(made: Stand) -> None:
    assert made.deployment.listen is not None
    with socket.create_connection(made.deployment.listen, timeout=10) as plain:
        plain.sendall(b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        try:
            while part := plain.recv(4096):
                answer += part
        except ConnectionError:
            pass
        assert b"HTTP/" not in answer
    old = pinned_context(certificate(made).read_bytes())
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    with socket.create_connection(made.deployment.listen, timeout=10) as raw, pytest.raises(ssl.SSLError):
        old.wrap_socket(raw)
    with socket.create_connection(made.deployment.listen, timeout=10) as raw:  # the control
        with pinned_context(certificate(made).read_bytes()).wrap_socket(raw) as good:
            shown = good.getpeercert(binary_form=True)
            assert good.version() == "TLSv1.3" and shown is not None
        assert sha256_hex(shown) == fingerprint_of(certificate(made).read_bytes())


def test_only_the_controller_can_read_the_certificates_key(made: Stand) -> None:
    key = made.root / "keys" / "operator-channel.pem"
    assert key.stat().st_mode & 0o777 == 0o400
    assert key.stat().st_uid == made.deployment.uid("controller")


@pytest.mark.parametrize("text", ["8443", "localhost:8443", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:8443",
                                  "[127.0.0.1]:8443", "127.0.0.1:+8443", "http://127.0.0.1:8443", ""])  # fmt: skip
def test_an_address_that_is_none_is_refused_when_the_deployment_is_read(made: Stand, tmp_path: Path, text: str) -> None:
    for name in ("deployment.json", "trust-root.json"):
        (tmp_path / name).write_bytes((made.root / name).read_bytes())
    assert load(tmp_path).listen == made.deployment.listen
    said = json.loads((tmp_path / "deployment.json").read_text())
    (tmp_path / "deployment.json").write_text(json.dumps(said | {"operator_listen": text}, separators=(",", ":")))
    with pytest.raises(DeploymentError):
        load(tmp_path)


def test_what_is_no_certificate_is_a_clear_error(made: Stand, tmp_path: Path) -> None:
    (tmp_path / "no.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(Stop, match="is no certificate"):
        operators.pinned_channel(address(made), tmp_path / "no.crt")


# Pace


def test_a_peer_gets_a_burst_then_its_rate_and_no_other_peer_pays_for_it() -> None:
    pace = Pace()
    assert [pace.wait_s("user 1", 0.0) for _ in range(BURST)] == [0] * BURST
    assert pace.wait_s("user 1", 0.0) == pytest.approx(1 / PER_SECOND)
    assert pace.wait_s("user 2", 0.0) == 0
    assert [pace.wait_s("user 1", 1.0) for _ in range(PER_SECOND)] == [0] * PER_SECOND
    assert pace.wait_s("user 1", 1.0) > 0


def test_a_crowd_of_peers_takes_no_more_room_than_the_limit_and_shares_one_bucket() -> None:
    pace = Pace()
    for number in range(MAX_PEERS):
        pace.wait_s(f"peer {number}", 0.0)
    waits = [pace.wait_s(f"late {number}", 0.0) for number in range(BURST + 1)]
    assert waits[-1] > 0 and len(pace._buckets) == MAX_PEERS + 1 and OTHERS in pace._buckets
    assert pace.wait_s("later", BURST / PER_SECOND) == 0 and len(pace._buckets) <= 3


def test_peers_are_users_addresses_and_networks() -> None:
    names = {"user 7": "user 7", "127.0.0.1": "loopback", "127.9.9.9": "loopback", "::1": "loopback",
             "192.0.2.7": "192.0.2.7", "2001:db8::1:2": "2001:db8::/64"}  # fmt: skip
    for host, name in names.items():
        assert peer_of({"client": (host, 1)}) == name
    assert peer_of({"client": None}) == OTHERS


@pytest.mark.slow
def test_a_flood_is_refused_with_a_time_to_come_again_and_costs_the_log_two_entries(made: Stand) -> None:
    before, start = made.snapshot(), made.sync()
    transport = httpx.HTTPTransport(uds=made.deployment.socket("controller"))
    with httpx.Client(transport=transport, timeout=60, trust_env=False) as client:
        limited: list[httpx.Response] = []
        for _ in range(4 * BURST):
            answer = client.get("http://controller/status")
            limited += [answer] if answer.status_code == 429 else []
            if len(limited) == 200:
                break
        assert len(limited) == 200
        assert all(int(one.headers["retry-after"]) >= 1 for one in limited)
        assert {one.json()["reason"] for one in limited} == {"peer-too-fast"}
    elsewhere = httpx.Client(verify=pinned_context(certificate(made).read_bytes()), trust_env=False)
    with elsewhere:  # the positive control: another peer is heard meanwhile
        assert elsewhere.get(f"https://{address(made)}/status").status_code in (200, 429)
    first = limited[0].json()["index"]
    assert isinstance(first, int) and {one.json()["index"] for one in limited[1:]} == {None}
    made.sync()
    entry = made.log.entries[first]
    assert entry.kind == "refused" and entry.predicate["reason"] == "peer-too-fast"
    assert f"user {os.getuid()}" in entry.predicate["detail"]
    made.stop()  # what was only counted is said at the end at the latest
    made.start()
    said = [one.predicate["detail"] for one in made.entries("refused", start, reason="peer-too-fast")]
    counts = [int(text.split()[0]) for text in said if "were refused unread" in text]
    assert sum(counts) >= 199 and len(said) <= 3, said
    assert made.snapshot() == before
    assert until("it is heard again", lambda: made.post(b"", "GET", "/status").status_code == 200)
