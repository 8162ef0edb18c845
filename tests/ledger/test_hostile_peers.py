"""What a peer of the write socket can't do: each attack is answered by name, and the others don't notice."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from ironbound.core.canonical import Value, b64encode, canonical
from ironbound.core.envelope import Envelope, Signature, sign_envelope
from ironbound.core.keys import PublicKey, verify_signature
from ironbound.core.merkle import leaf_hash
from ironbound.core.statement import TYPE_PREFIX
from ironbound.core.tlogproof import verify_proof
from ironbound.ledger.intake import Append, Ask, Follow, Intake, Refused
from ironbound.ledger.server import STRANGER_IN_FLIGHT, STRANGER_REQUEST
from ironbound.wire.frames import Frame, encode_frame
from ledger_stand import (
    DEPLOYMENT,
    GENESIS,
    KEYS,
    OPERATOR,
    STARTED,
    Stand,
    append_frame,
    entry,
    payload,
    policy,
    settings,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    it = Stand(tmp_path_factory.mktemp("ledger"))
    it.create()
    it.start()
    it.append(entry(1))
    yield it
    it.stop()


@pytest.fixture
def stand(shared: Stand) -> Iterator[Stand]:
    """The ledger before and after an attack: same size, and it still takes what is right (positive control)."""
    with shared.connect() as peer:
        before = peer.ask({"op": "head", "seq": 1})["size"]
    yield shared
    with shared.connect() as peer:
        assert peer.ask({"op": "head", "seq": 1})["size"] == before
    data = entry(time.time_ns())
    answer = shared.append(data)
    assert answer["ok"] is True
    verify_proof(str(answer["proof"]).encode(), leaf_hash(data), policy())


def envelope(data: bytes, key: str = "gateway") -> bytes:
    return sign_envelope(data, [KEYS[key]]).encode()


def _flip(data: bytes) -> bytes:
    signed = sign_envelope(data, [KEYS["gateway"]])
    one = signed.signatures[0]
    return Envelope(data, (Signature(one.keyid, bytes([one.sig[0] ^ 1]) + one.sig[1:]),)).encode()


def _swapped(data: bytes) -> bytes:
    one = sign_envelope(data, [KEYS["gateway"]]).signatures[0]
    return Envelope(payload("ab" * 16), (one,)).encode()


def _short(data: bytes) -> bytes:
    one = sign_envelope(data, [KEYS["gateway"]]).signatures[0]
    return Envelope(data, (Signature(one.keyid, one.sig[:63]),)).encode()


ADMITTED, GRANT = TYPE_PREFIX + "admitted/v1", TYPE_PREFIX + "grant/v1"
RIGHT = payload("cd" * 16)
ATTACKS: dict[str, tuple[bytes, str]] = {
    "not base64 of an envelope": (b"{}", "envelope-invalid"),
    "unsigned": (
        canonical({"payload": b64encode(RIGHT), "payloadType": "application/vnd.in-toto+json", "signatures": []}),
        "envelope-invalid",
    ),
    "signed by nobody known": (sign_envelope(RIGHT, [OPERATOR]).encode(), "voice-unknown"),
    "the trust root again": (GENESIS, "voice-unknown"),
    "two signatures": (sign_envelope(RIGHT, [KEYS["gateway"], KEYS["node"]]).encode(), "envelope-invalid"),
    "a flipped bit in the signature": (_flip(RIGHT), "signature-invalid"),
    "the signature of another payload": (_swapped(RIGHT), "signature-invalid"),
    "a signature of 63 bytes": (_short(RIGHT), "signature-invalid"),
    "a role that may not say it": (
        envelope(payload("cd" * 16, kind=TYPE_PREFIX + "admitted/v1")),
        "voice-not-entitled",
    ),
    "a kind that nobody may say": (envelope(payload("cd" * 16, kind=TYPE_PREFIX + "grant/v1")), "voice-not-entitled"),
    "another deployment": (envelope(payload("cd" * 16, deployment="other")), "envelope-invalid"),
    "an id in capitals": (envelope(payload("CD" * 16)), "envelope-invalid"),
    "an id of 31 digits": (envelope(payload("c" * 31)), "envelope-invalid"),
    "a payload that isn't canonical": (envelope(RIGHT.replace(b":", b": ", 1)), "envelope-invalid"),
    "a payload that isn't JSON": (envelope(b"hello"), "envelope-invalid"),
    "a payload that nests 100 deep": (envelope(b"[" * 100 + b"]" * 100), "envelope-invalid"),
    "a payload without predicate": (envelope(canonical({"predicateType": STARTED})), "envelope-invalid"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_entry_that_no_entitled_voice_signed_whole_is_refused_by_name(stand: Stand, name: str) -> None:
    data, code = ATTACKS[name]
    with stand.connect() as peer:
        answer = peer.ask(append_frame(3, data))
        assert (answer["seq"], answer["ok"], answer["code"]) == (3, False, code), answer
        assert peer.ask({"op": "head", "seq": 4})["ok"] is True  # the connection is still good


def test_an_entry_of_65535_bytes_is_taken_and_one_of_65536_is_not(shared: Stand) -> None:
    spare = 65_535 - len(envelope(payload("ab" * 16)))
    largest = envelope(payload("ab" * 16, "x" * (spare * 3 // 4)))
    assert 65_531 <= len(largest) <= 65_535  # base64 grows by four
    assert shared.append(largest)["ok"] is True
    with shared.connect() as peer:
        too_large = KEYS["gateway"].sign(b"") * 1024 + b"x"  # 65,537 bytes of anything
        answer = peer.ask({"op": "append", "seq": 2, "envelope": b64encode(too_large[:65_536])})
        assert answer["code"] == "entry-too-large" and "65536" in str(answer["message"])


@pytest.mark.parametrize(
    "body",
    [b"garbage", b"\x00" * 64, b"[]", b'{"op":"head"}', b'{"op":"head","seq":-1}', b'{"op":"head","seq":true}',
     b'{"op":"head", "seq":1}', b'{"op":"grant","seq":1}', b'{"from":-1,"op":"follow","seq":1}',
     b'{"from":true,"op":"follow","seq":1}', b'{"extra":1,"op":"head","seq":1}', b"[" * 5000, b"\xff\xfe",
     b'{"a":' * 60_00 + b"1" + b"}" * 60_00],
)  # fmt: skip
def test_garbage_in_a_frame_is_answered_frame_invalid(stand: Stand, body: bytes) -> None:
    with stand.connect() as peer:
        peer.socket.sendall(len(body).to_bytes(4, "big") + body)
        answer = peer.receive()
        assert answer is not None and answer["code"] == "frame-invalid", answer


@pytest.mark.parametrize("header", [b"\x06\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"GET "])
def test_a_frame_of_100_megabytes_or_nothing_is_refused_at_its_length(stand: Stand, header: bytes) -> None:
    with stand.connect() as peer:
        peer.socket.sendall(header)
        answer = peer.receive()
        assert answer is not None and answer["code"] == "frame-invalid"
        assert peer.receive() is None


def _resident(stand: Stand) -> int:
    status = Path(f"/proc/{stand.processes['ledger'].pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_hundreds_of_half_open_connections_neither_block_others_nor_fill_the_memory(stand: Stand) -> None:
    before = _resident(stand)
    peers = [stand.connect() for _ in range(300)]
    try:
        for peer in peers:
            peer.socket.sendall((200_000).to_bytes(4, "big") + b"x" * 1000)
        with stand.connect() as good:
            begin = time.monotonic()
            assert good.ask({"op": "head", "seq": 1})["ok"] is True
            assert time.monotonic() - begin < 5
        assert _resident(stand) - before < 64 << 20
        answer = peers[0].receive()  # after ten seconds inside one frame
        assert answer is not None and answer["code"] == "frame-invalid" and "10 s" in str(answer["message"])
        assert peers[0].receive() is None
    finally:
        for peer in peers:
            peer.socket.close()


def test_a_peer_that_never_reads_is_not_read_from_and_others_go_on(stand: Stand) -> None:
    frame = encode_frame({"op": "head", "seq": 1})
    with stand.connect() as deaf, stand.connect() as good:
        deaf.socket.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 20
        quiet = 0
        while quiet < 20 and time.monotonic() < deadline:
            try:
                sent += deaf.socket.send(frame * 1000)
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.02)
        assert quiet == 20 and sent < 64 << 20  # backpressure reached the peer
        assert good.ask({"op": "head", "seq": 2})["ok"] is True


def test_when_all_connections_are_taken_the_next_is_told_so_and_there_is_room_again_later(stand: Stand) -> None:
    peers = []
    try:
        refusal: Frame | None = None
        for _ in range(600):
            peer = stand.connect()
            peers.append(peer)
            peer.socket.settimeout(0.001 if len(peers) < 510 else 1)
            try:
                refusal = peer.receive()
                break
            except TimeoutError:
                continue
        assert refusal is not None and refusal["code"] == "too-many-connections"
        assert len(peers) == 513
        peers[0].socket.settimeout(30)
        assert peers[0].ask({"op": "head", "seq": 1})["ok"] is True
    finally:
        for peer in peers:
            peer.socket.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            with stand.connect() as peer:
                if peer.ask({"op": "head", "seq": 1})["ok"] is True:
                    break
        except (AssertionError, OSError):
            pass
        assert time.monotonic() < deadline


_PEER = """
import os, socket, sys
from ironbound.wire.frames import read_frame
os.setgid(65534); os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as peer:
    peer.connect(sys.argv[1])
    peer.sendall(sys.stdin.buffer.read())
    print(read_frame(peer).get("code", "ok"))
"""


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="becoming other users needs root")
def test_a_role_key_in_the_hands_of_another_user_is_refused_for_the_user(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.create()
    stand.uids = "gateway=61004,controller=61002,monitor=61005,node=0"
    stand.start()
    try:
        stand.append(entry(1, role="node"))
        for folder in [tmp_path, *tmp_path.parents]:
            if folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)

        def said(uid: int, data: bytes) -> str:
            # The interpreter starts as root, since the checkout may be out of others' reach.
            done = subprocess.run(
                [sys.executable, "-c", _PEER, stand.socket_path, str(uid)],
                input=encode_frame(append_frame(1, data)), capture_output=True, check=False, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done.stdout.decode().strip()

        assert said(61004, entry(2)) == "ok"
        assert said(61002, entry(3)) == "peer-mismatch"
        assert said(0, entry(4)) == "peer-mismatch"
        assert said(65534, entry(5)) == "peer-mismatch"
        with stand.connect() as peer:
            assert peer.ask({"op": "head", "seq": 1})["size"] == 3
    finally:
        stand.stop()


def test_a_user_that_is_no_service_s_asks_little_at_once_and_nothing_large(tmp_path: Path) -> None:
    """What it asks is checked in turn with what services say: thousands of its frames held the log up for seconds."""
    stand = Stand(tmp_path)
    stand.create()
    other = os.getuid() + 1
    stand.uids = ",".join(f"{role}={other}" for role in KEYS)
    stand.start()
    try:
        for number in (STRANGER_IN_FLIGHT, STRANGER_IN_FLIGHT + 1):
            with stand.connect() as peer:
                peer.socket.sendall(b"".join(encode_frame({"op": "head", "seq": seq}) for seq in range(number)))
                codes = [(peer.receive() or {}).get("code") for _ in range(STRANGER_IN_FLIGHT)]
            assert ("frame-invalid" in codes) == (number > STRANGER_IN_FLIGHT), codes
        with stand.connect() as peer:
            peer.socket.sendall((STRANGER_REQUEST + 1).to_bytes(4, "big"))
            answer = peer.receive()
            assert answer is not None and answer["code"] == "frame-invalid"
            assert peer.receive() is None
        with stand.connect() as peer:
            for seq in (1, 2):
                peer.send({"op": "follow", "seq": seq, "from": 9})
            answer = peer.receive()
            assert answer is not None and (answer["seq"], answer["code"]) == (2, "frame-invalid")
    finally:
        stand.stop()


INTAKE = Intake(settings(1))


@given(st.binary(max_size=400))
def test_whatever_a_frame_holds_intake_gives_a_request_or_refuses(body: bytes) -> None:
    try:
        assert isinstance(INTAKE.read(body, os.getuid()), Append | Follow | Ask)
    except Refused as refusal:
        assert encode_frame(refusal.frame())


@given(st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
                    max_leaves=12))  # fmt: skip
def test_whatever_a_signed_payload_holds_intake_gives_a_request_or_refuses(value: Value) -> None:
    for document in (value, {"predicateType": STARTED, "predicate": value},
                     {"predicateType": value, "predicate": {"id": "ab" * 16, "deployment": DEPLOYMENT}}):  # fmt: skip
        body = encode_frame(append_frame(1, envelope(canonical(document))))[4:]
        with pytest.raises(Refused):
            INTAKE.read(body, os.getuid())


@given(st.binary(min_size=1, max_size=4), st.integers(min_value=0))
def test_any_change_in_a_signed_entry_is_refused(change: bytes, at: int) -> None:
    data = bytearray(entry(9))
    at %= len(data) - len(change)
    if bytes(data[at : at + len(change)]) == change:
        return
    data[at : at + len(change)] = change
    with pytest.raises(Refused):
        INTAKE.read(encode_frame(append_frame(1, bytes(data)))[4:], os.getuid())
    assert isinstance(INTAKE.read(encode_frame(append_frame(1, entry(9)))[4:], os.getuid()), Append)


def test_a_stream_socket_that_closes_at_once_leaves_no_trace(stand: Stand) -> None:
    for _ in range(200):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(stand.socket_path)


def test_libsodium_accepts_no_signature_that_the_core_refuses(shared_data: Path) -> None:
    groups = json.loads((shared_data / "wycheproof" / "ed25519_test.json").read_bytes())["testGroups"]
    accepted = refused = 0
    for group in groups:
        raw = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            message, signature = bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"])
            try:
                VerifyKey(raw).verify(message, signature)
            except (BadSignatureError, ValueError):
                refused += 1
                assert case["result"] != "valid"
                continue
            accepted += 1
            verify_signature(PublicKey("ed25519", raw), signature, message)
    assert accepted > 50 and refused > 50
