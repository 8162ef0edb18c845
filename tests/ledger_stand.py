"""A ledger and a witness as real processes, on real sockets and files, for tests and the benchmark.

`python ledger_stand.py ledger|witness PORT PORT UIDS WAY` runs one of them; `Stand` starts, kills and restarts them.
"""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ironbound.core.canonical import Value, b64encode, canonical
from ironbound.core.envelope import sign_envelope
from ironbound.core.keys import PrivateKey
from ironbound.core.note import COSIGNATURE, Signer
from ironbound.core.policy import Policy, parse_policy
from ironbound.core.statement import TYPE_PREFIX, VOICES
from ironbound.ledger.service import create, serve
from ironbound.ledger.settings import EXIT_DISK, EXIT_REFUSED, DiskFailed, LedgerRefused, LedgerSettings, Voice
from ironbound.wire.frames import Frame, read_frame, write_frame
from ironbound.wire.loopback import LoopbackServer
from ironbound.witness.app import witness_app
from ironbound.witness.local import LocalWitness
from ironbound.witness.state import Cosigner, WitnessStateLost

DEPLOYMENT = "test-deployment"
ORIGIN = "ledger.test.example/log"
LOG_SEED = b"log key, only for these tests..."
LOG_KEY = PrivateKey.generate(LOG_SEED)
WITNESS_KEY = PrivateKey.generate(b"witness key, only for this test.")
OPERATOR = PrivateKey.generate(b"operator's key, only for tests..")
ROLES = ("controller", "node", "gateway", "monitor")
KEYS = {role: PrivateKey.generate(role.encode().ljust(32, b".")) for role in ROLES}
STARTED = TYPE_PREFIX + "service-started/v1"


def cosigner_signer() -> Signer:
    return Signer("witness.test.example", WITNESS_KEY)


def policy() -> Policy:
    log = Signer(ORIGIN, LOG_KEY).verifier().vkey
    return parse_policy(f"log {log}\nwitness local {cosigner_signer().verifier(COSIGNATURE).vkey}\nquorum local\n")


def settings(
    witness_port: int, uids: dict[str, int] | None = None, read_port: int = 0, *, over_http: bool = False
) -> LedgerSettings:
    """Settings relative to the stand's directory; `uids` says otherwise than that all roles are this user.

    The witness is asked at its Unix socket, as in a deployment, or over HTTP, as any other one.
    """
    owner = uids or {}
    return LedgerSettings(
        origin=ORIGIN,
        deployment=DEPLOYMENT,
        log_key=LOG_KEY,
        voices={key.public.keyid: Voice(role, key.public, owner.get(role, os.getuid())) for role, key in KEYS.items()},
        entitlements={role: frozenset(f"{TYPE_PREFIX}{kind}/v1" for kind in kinds) for role, kinds in VOICES.items()},
        policy=policy(),
        witness=f"http://127.0.0.1:{witness_port}" if over_http else f"unix:{os.getcwd()}/run/witness",
        witness_uid=os.getuid(),
        read_port=read_port,
    )


def payload(statement_id: str, text: str = "", kind: str = STARTED, deployment: str = DEPLOYMENT) -> bytes:
    predicate: dict[str, Value] = {"id": statement_id, "deployment": deployment, "at_ms": 1, "text": text}
    return canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "x", "digest": {"sha256": "00" * 32}}],
            "predicateType": kind,
            "predicate": predicate,
        }
    )


def entry(number: int, role: str = "gateway", text: str = "", kind: str = STARTED) -> bytes:
    """A signed envelope whose statement id is `number`."""
    return sign_envelope(payload(f"{number:032x}", text, kind), [KEYS[role]]).encode()


GENESIS = sign_envelope(payload("0" * 32, "genesis"), [OPERATOR]).encode()


def append_frame(seq: int, data: bytes) -> Frame:
    return {"op": "append", "seq": seq, "envelope": b64encode(data)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Stand:
    """A directory with a ledger and a witness in it. Processes that it started end with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.logs = directory  # not on the disk that a test fills
        self.witness_port = free_port()
        self.read_port = free_port()
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.prefix: Sequence[str] = ()
        self.fsize: int | None = None
        self.uids = ""
        self.over_http = False
        self.script = __file__

    @property
    def socket_path(self) -> str:
        return str(self.directory / "run/ledger.sock")

    def create(self) -> None:
        here = os.getcwd()
        os.chdir(self.directory)
        try:
            create(settings(self.witness_port), GENESIS)
            (self.directory / "witness").mkdir()
            Cosigner.create("witness/state")
        finally:
            os.chdir(here)

    def start(self, *roles: str, ready: bool = True) -> None:
        for role in roles or ("witness", "ledger"):
            limit = self.fsize if role == "ledger" else None

            def bound(limit: int | None = limit) -> None:
                if limit is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

            with open(self.logs / f"{role}.log", "a") as log:
                self.processes[role] = subprocess.Popen(
                    [
                        sys.executable,
                        self.script,
                        role,
                        str(self.witness_port),
                        str(self.read_port),
                        self.uids,
                        "http" if self.over_http else "unix",
                    ],
                    cwd=self.directory,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    preexec_fn=bound,
                )
            if ready:
                self.wait_ready(role)

    def wait_ready(self, role: str) -> None:
        process = self.processes[role]
        output: IO[str] | None = process.stdout
        assert output is not None
        assert select.select([output], [], [], 30)[0], f"{role} is not ready in 30 s"
        line = output.readline()
        assert line == "ready\n", f"{role}: {line!r} {self.log(role)}"

    def log(self, role: str = "ledger") -> str:
        return (self.logs / f"{role}.log").read_text()

    def end(self, role: str) -> int:
        """The exit status of a process that ends by itself."""
        process = self.processes.pop(role)
        code = process.wait(timeout=30)
        assert process.stdout is not None
        process.stdout.close()
        return code

    def kill(self, role: str, number: int = signal.SIGKILL) -> int:
        self.processes[role].send_signal(number)
        return self.end(role)

    def stop(self) -> None:
        for role in [*self.processes]:
            self.kill(role, signal.SIGKILL)

    def connect(self) -> Peer:
        return Peer(self.socket_path)

    def append(self, data: bytes, seq: int = 1) -> Frame:
        """One entry on a connection of its own; tried again while the answer is not-witnessed."""
        deadline = time.monotonic() + 30
        while True:
            with self.connect() as peer:
                answer = peer.ask(append_frame(seq, data))
            if answer.get("code") != "not-witnessed" or time.monotonic() > deadline:
                return answer
            time.sleep(0.02)


class Peer:
    """A blocking client."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.connect(path)  # blocking: with a timeout a full backlog would be an error at once
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(30)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, frame: Frame) -> None:
        write_frame(self.socket, frame)

    def receive(self) -> Frame | None:
        return read_frame(self.socket)

    def ask(self, frame: Frame) -> Frame:
        self.send(frame)
        answer = self.receive()
        assert answer is not None, "the ledger hung up"
        return answer


async def _run_ledger(witness_port: int, read_port: int, uids: dict[str, int], over_http: bool) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    it = settings(witness_port, uids, read_port, over_http=over_http)
    await serve(it, ready=lambda _: print("ready", flush=True), stop=stop)


async def _run_witness(port: int) -> None:
    log = Signer(ORIGIN, LOG_KEY).verifier()
    cosigner = Cosigner.open("witness/state", cosigner_signer(), log, lambda: int(time.time()))
    failure: asyncio.Future[OSError] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def fail(error: OSError) -> None:
        loop.call_soon_threadsafe(failure.set_result, error)

    LocalWitness(cosigner, "run/witness", os.getuid(), fail)
    await LoopbackServer.start(witness_app(cosigner, fail), port)
    print("ready", flush=True)
    raise await failure


def main(role: str, witness_port: str, read_port: str, uids: str, way: str) -> int:
    try:
        if role == "witness":
            asyncio.run(_run_witness(int(witness_port)))
        else:
            owners = {pair.split("=")[0]: int(pair.split("=")[1]) for pair in uids.split(",") if pair}
            asyncio.run(_run_ledger(int(witness_port), int(read_port), owners, way == "http"))
    except (LedgerRefused, WitnessStateLost) as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return EXIT_REFUSED
    except DiskFailed as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return EXIT_DISK
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
