"""Durable entries a second with a witnessed proof in the answer, against its floors in the same run.

A ledger and a witness as real processes on the file system of the temporary directory. The writers are one
process that has signed everything beforehand; each writer has one entry in flight. All proofs are verified
afterwards, outside the measured time. Floors: fdatasync, bare SQLite batches (WAL, FULL), Ed25519 verify.
"""

from __future__ import annotations

import os
import select
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from nacl.signing import VerifyKey

from ironbound.core.envelope import PAYLOAD_TYPE, pae, parse_envelope
from ironbound.core.merkle import leaf_hash
from ironbound.core.tlogproof import verify_proof
from ironbound.wire.frames import decode_body, encode_frame
from ledger_stand import KEYS, Stand, append_frame, entry, policy

WRITERS = (1, 64, 256)
TEXT = "x" * 600  # makes an entry of about 1.4 kB, as the service's own statements are


class Writer:
    """One connection with one entry in flight."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.buffer = b""
        self.number = -1
        self.sent_at = 0.0

    def send(self, number: int, frame: bytes) -> None:
        self.number = number
        self.sent_at = time.perf_counter()
        self.socket.sendall(frame)

    def receive(self) -> bytes | None:
        self.buffer += self.socket.recv(1 << 16)
        if len(self.buffer) < 4 or len(self.buffer) < 4 + int.from_bytes(self.buffer[:4], "big"):
            return None
        body, self.buffer = self.buffer[4:], b""
        return body


def write(path: str, writers: int, frames: list[bytes]) -> tuple[float, list[float], list[tuple[int, bytes]]]:
    """Sends all frames; wall time, latency of each, and the answers."""
    peers = {one.socket.fileno(): one for one in (Writer(path) for _ in range(writers))}
    poll = select.epoll()
    for descriptor in peers:
        poll.register(descriptor, select.EPOLLIN)
    latencies: list[float] = []
    answers: list[tuple[int, bytes]] = []
    todo = iter(enumerate(frames))
    begin = time.perf_counter()
    for peer in peers.values():
        number, frame = next(todo)
        peer.send(number, frame)
    while len(answers) < len(frames):
        for descriptor, _ in poll.poll(30):
            peer = peers[descriptor]
            body = peer.receive()
            if body is None:
                continue
            latencies.append(time.perf_counter() - peer.sent_at)
            answers.append((peer.number, body))
            for number, frame in todo:
                peer.send(number, frame)
                break
    took = time.perf_counter() - begin
    for peer in peers.values():
        peer.socket.close()
    return took, latencies, answers


@contextmanager
def stand() -> Iterator[Stand]:
    with tempfile.TemporaryDirectory(prefix="ironbound-bench-") as name:
        it = Stand(Path(name))
        it.create()
        it.start()
        try:
            it.append(entry(1 << 60, text=TEXT))  # the witness has answered once
            yield it
        finally:
            it.stop()


def _fdatasync() -> float:
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(8192))
        os.fsync(file.fileno())
        took = []
        for at in range(100):
            begin = time.perf_counter()
            os.pwrite(file.fileno(), bytes([at]) * 4096, 4096 * (at & 1))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begin)
    return sorted(took)[50]


def _sqlite(entries: list[bytes], batch: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        connection = sqlite3.connect(f"{name}/bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE entry (idx INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        begin = time.perf_counter()
        for at in range(0, len(entries), batch):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO entry VALUES (?, ?)", enumerate(entries[at : at + batch], at))
            connection.execute("COMMIT")
        took = time.perf_counter() - begin
        connection.close()
    return len(entries) / took


def _verify(entries: list[bytes]) -> float:
    key = VerifyKey(KEYS["gateway"].public.raw)
    signed = [(pae(PAYLOAD_TYPE, one.payload), one.signatures[0].sig) for one in map(parse_envelope, entries)]
    begin = time.perf_counter()
    for message, signature in signed:
        key.verify(message, signature)
    return len(signed) / (time.perf_counter() - begin)


def run(quick: bool) -> list[dict[str, object]]:
    count = {1: 200, 64: 4000, 256: 6000} if quick else {1: 1500, 64: 25_000, 256: 25_000}
    rows: list[dict[str, object]] = []
    sync = _fdatasync()
    for writers in WRITERS:
        entries = [entry(number + 1, text=TEXT) for number in range(count[writers])]
        frames = [encode_frame(append_frame(number, data)) for number, data in enumerate(entries)]
        with stand() as it:
            took, latencies, answers = write(it.socket_path, writers, frames)
        rule = policy()
        for number, body in answers:
            answer = decode_body(body)
            verify_proof(str(answer["proof"]).encode(), leaf_hash(entries[number]), rule)
        latencies.sort()
        rate = len(frames) / took
        floor, verify = _sqlite(entries, writers), _verify(entries[:2000])
        rows.append(
            {
                "writers": writers,
                "entries/s": round(rate),
                "p50 ms": round(latencies[len(latencies) // 2] * 1e3, 2),
                "p99 ms": round(latencies[len(latencies) * 99 // 100] * 1e3, 2),
                "max ms": round(latencies[-1] * 1e3, 1),
                "bare sqlite/s": round(floor),
                "of sqlite": round(rate / floor, 3),
                "ed25519 verify/s": round(verify),
                "of verify": round(rate / verify, 3),
                "fdatasync ms": round(sync * 1e3, 3),
                "entry bytes": len(entries[0]),
            }
        )
    return rows
