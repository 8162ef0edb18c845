"""The witness at its Unix socket: the answers of HTTP, to the log's user only; and a log whose witness lies."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_cosigner import FORK, LOG, MALFORMED, body, signed

from ironbound.core.canonical import FormatError
from ironbound.core.checkpoint import cosign_checkpoint, open_checkpoint
from ironbound.core.keys import PrivateKey
from ironbound.core.merkle import leaf_hash
from ironbound.core.note import Signer
from ironbound.core.tlogproof import verify_proof
from ironbound.wire import cosigner as client
from ironbound.wire.cosigner import LENGTH, STATUS, CosignerClient, WitnessAhead, WitnessAway, WitnessRefused
from ironbound.witness.app import MAX_BODY
from ironbound.witness.local import MAX_CONNECTIONS, LocalWitness
from ironbound.witness.state import Cosigner
from ledger_stand import Stand, append_frame, cosigner_signer, entry, policy

Opened = Callable[..., tuple[Cosigner, str]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Makes a witness on a Unix socket, for the log's user `uid`; its failures are raised at the end."""
    made: list[LocalWitness] = []
    failures: list[OSError] = []

    def make(uid: int = os.getuid()) -> tuple[Cosigner, str]:
        state, path = str(tmp_path / f"state-{len(made)}"), str(tmp_path / f"socket-{len(made)}")
        Cosigner.create(state)
        it = Cosigner.open(state, cosigner_signer(), LOG.verifier(), lambda: int(time.time()))
        made.append(LocalWitness(it, path, uid, failures.append))
        return it, path

    yield make
    for one in made:
        one.close()
    assert failures == []


def connect(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(20)
    peer.connect(path)
    return peer


def exchange(peer: socket.socket, data: bytes) -> tuple[int, bytes]:
    peer.sendall(LENGTH.pack(len(data)) + data)
    got = b""
    while len(got) < LENGTH.size or len(got) < LENGTH.size + LENGTH.unpack_from(got)[0]:
        part = peer.recv(65536)
        assert part, "the witness hung up"
        got += part
    return STATUS.unpack_from(got, LENGTH.size)[0], got[LENGTH.size + STATUS.size :]


def test_each_request_gets_the_answer_that_http_gives_and_the_connection_stays(opened: Opened) -> None:
    with connect(opened()[1]) as peer:
        assert exchange(peer, body(0, 17))[0] == 200
        assert exchange(peer, body(16, 20)) == (409, b"17\n")
        assert exchange(peer, b"old 17\n\n" + signed(17, FORK)) == (409, b"17\n")
        assert exchange(peer, body(17, 20, FORK))[0] == 422
        assert exchange(peer, b"old 17\n\n" + signed(5))[0] == 400
        for data in MALFORMED.values():
            if len(data) <= MAX_BODY:
                assert exchange(peer, data)[0] == 400
        status, lines = exchange(peer, body(17, 20))
        assert status == 200
        assert policy().verify(signed(20) + lines).checkpoint.size == 20


def test_a_user_who_is_not_the_logs_gets_no_answer_and_nothing_is_cosigned(opened: Opened) -> None:
    state, path = opened(os.getuid() + 1)
    with connect(path) as peer, contextlib.suppress(ConnectionError):
        peer.sendall(LENGTH.pack(len(body(0, 3))) + body(0, 3))
        assert peer.recv(1) == b""
    assert state.size == 0


def test_a_stalled_peer_and_too_many_peers_hinder_nobody(opened: Opened) -> None:
    _, path = opened()
    with connect(path) as good, connect(path) as stalled, contextlib.ExitStack() as others:
        assert exchange(good, body(0, 3))[0] == 200
        stalled.sendall(LENGTH.pack(100) + b"old 3\n")
        crowd = [others.enter_context(connect(path)) for _ in range(MAX_CONNECTIONS)]
        assert exchange(good, body(3, 17))[0] == 200
        assert crowd[-1].recv(1) == b""  # no room for that one, and it is told at once


@pytest.mark.parametrize("data", [LENGTH.pack(MAX_BODY + 1), LENGTH.pack(1) + b"xy", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_peer_that_breaks_the_framing_is_cut_off_and_the_next_is_answered(opened: Opened, data: bytes) -> None:
    state, path = opened()
    with connect(path) as peer:
        peer.sendall(data)
        with contextlib.suppress(ConnectionError):
            assert peer.recv(1) == b""
    with connect(path) as peer:
        assert exchange(peer, body(0, 3))[0] == 200
    assert state.size == 3


@contextlib.contextmanager
def witness_that(path: str, answers: Callable[[bytes], bytes | None]) -> Iterator[list[bytes]]:
    """A stand-in at a Unix socket, which answers each request by `answers` (None: not at all); what it was asked."""
    asked: list[bytes] = []
    ends: list[socket.socket] = []
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(8)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                ends.append(peer)
                threading.Thread(target=talk, args=(peer,), daemon=True).start()

    def talk(peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while head := peer.recv(LENGTH.size):
                asked.append(peer.recv(LENGTH.unpack(head)[0], socket.MSG_WAITALL))
                answer = answers(asked[-1])
                if answer is not None:
                    peer.sendall(answer)
                    if answer == b"":
                        peer.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield asked
    finally:
        for end in (listener, *ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def framed(status: int, content: bytes) -> bytes:
    return LENGTH.pack(STATUS.size + len(content)) + STATUS.pack(status) + content


def _by_another_key(question: bytes) -> bytes:
    checkpoint, _ = open_checkpoint(question.partition(b"\n\n")[2], LOG.verifier())
    forger = Signer(cosigner_signer().name, PrivateKey.generate(b"another key, only for this test."))
    return framed(200, cosign_checkpoint(checkpoint, forger, int(time.time())).encode().encode())


def _for_another_checkpoint(_: bytes) -> bytes:
    checkpoint, _ = open_checkpoint(signed(3), LOG.verifier())
    return framed(200, cosign_checkpoint(checkpoint, cosigner_signer(), int(time.time())).encode().encode())


LIES: dict[str, Callable[[bytes], bytes | None]] = {
    "a cosignature by another key": _by_another_key,
    "a cosignature for another checkpoint": _for_another_checkpoint,
    "nothing that it says": lambda _: framed(200, b""),
    "garbage": lambda _: framed(200, b"\xff\n\n"),
    "a status of its own": lambda _: framed(299, b"fine\n"),
    "a size that is none": lambda _: framed(409, b"1e3\n"),
    "an answer without end": lambda _: LENGTH.pack(1 << 31),
    "an answer of one byte": lambda _: LENGTH.pack(1) + b"x",
    "two answers": lambda _: 2 * framed(200, b"x"),
    "hanging up": lambda _: b"",
    "silence": lambda _: None,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    it = Stand(tmp_path_factory.mktemp("log"))
    it.create()
    it.start()
    it.append(entry(1))
    yield it
    it.stop()


@pytest.mark.parametrize("lie", LIES)
def test_a_witness_that_lies_or_hangs_publishes_nothing_and_the_true_one_then_does(running: Stand, lie: str) -> None:
    data = entry(time.time_ns())
    running.kill("witness")
    published = (running.directory / "public/checkpoint").read_bytes()
    with witness_that(str(running.directory / "run/witness"), LIES[lie]) as asked, running.connect() as peer:
        answer = peer.ask(append_frame(1, data))
        assert (answer["ok"], answer["code"]) == (False, "not-witnessed"), answer
        assert peer.ask({"op": "head", "seq": 2})["checkpoint"] == published.decode()
        assert asked, "the stand-in was asked"
    assert (running.directory / "public/checkpoint").read_bytes() == published
    running.start("witness")
    proven = running.append(data)
    assert proven["ok"] is True, proven
    verify_proof(str(proven["proof"]).encode(), leaf_hash(data), policy())


def test_another_users_socket_in_the_witnesss_place_is_not_even_asked(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with witness_that(path, lambda _: framed(200, b"x")) as asked:
        it = CosignerClient(f"unix:{path}", os.getuid() + 1)
        it.ask(0, [], signed(3))
        with pytest.raises(WitnessAway, match=f"runs as user {os.getuid() + 1}, at its socket listens user"):
            it.answer()
        assert asked == []
        it = CosignerClient(f"unix:{path}", os.getuid())  # the positive control
        it.ask(0, [], signed(3))
        assert it.answer() == b"x"
        it.close()


def test_the_client_tells_what_the_witness_means(opened: Opened) -> None:
    state, path = opened()
    it = CosignerClient(f"unix:{path}", os.getuid())
    it.ask(0, [], signed(17))
    assert it.answer().startswith("— witness.test.example ".encode())
    it.ask(16, [], signed(20))
    with pytest.raises(WitnessAhead) as ahead:
        it.answer()
    assert ahead.value.size == state.size == 17
    it.ask(17, [b"\7" * 32], signed(20))
    with pytest.raises(WitnessRefused) as refusal:
        it.answer()
    assert refusal.value.status == 422
    it.close()


def test_a_kept_connection_that_died_is_made_anew_and_the_request_is_sent_again(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    it = CosignerClient(f"unix:{path}", os.getuid())
    for _ in range(2):  # the second stand-in finds the connection to the first one dead
        with witness_that(path, lambda _: framed(200, b"x")) as asked:
            it.ask(0, [], signed(3))
            assert it.answer() == b"x" and len(asked) == 1
    it.ask(0, [], signed(3))
    with pytest.raises(WitnessAway):
        it.answer()


def test_who_waits_for_a_hanging_witness_can_be_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 600.0)
    path = str(tmp_path / "socket")
    with witness_that(path, lambda _: None):
        it = CosignerClient(f"unix:{path}", os.getuid())
        it.ask(0, [], signed(3))
        threading.Timer(0.05, it.interrupt).start()
        with pytest.raises(WitnessAway):
            it.answer()


def test_any_other_witness_is_asked_over_http(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.over_http = True
    stand.create()
    try:
        stand.start()
        for number in (1, 2, 3):
            assert stand.append(entry(number))["index"] == number
        stand.kill("witness")
        with stand.connect() as peer:
            assert peer.ask(append_frame(1, entry(4)))["code"] == "not-witnessed"
        stand.start("witness")
        assert stand.append(entry(4))["index"] == 4
    finally:
        stand.stop()
    for address in ("https://127.0.0.1:1", "run/witness", ""):
        with pytest.raises(FormatError, match="witness-address"):
            CosignerClient(address, os.getuid())
