"""Other people's C2SP tools for the tests and the benchmark: a litewitness, and a Go client of our log and witness.

    peers = build(folder)          # by go.mod's versions and go.sum's hashes; a minute the first time, then seconds
    peers.client("read", URL, LOGVKEY, WITNESSVKEY)
    witness = Litewitness(peers, folder, log).start()

Go keeps what it compiled in its own cache. Nothing of it is installed, and nothing of it goes into the product.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ironbound.core.canonical import b64decode, b64encode
from ironbound.core.keys import ED25519, PrivateKey, PublicKey
from ironbound.core.merkle import EMPTY_ROOT
from ironbound.core.note import COSIGNATURE, Signer, VerifierKey
from ironbound.core.policy import Policy, parse_policy
from ledger_stand import LOG_KEY, ORIGIN, Stand, free_port

#: The stand's ledger with the witness policy of the file `policy`.
ASKS = """
import sys
sys.path.insert(0, {tests!r})
import ledger_stand
from ironbound.core.policy import parse_policy
ledger_stand.policy = lambda: parse_policy(open("policy").read())
sys.exit(ledger_stand.main(*sys.argv[1:]))
"""
HERE = Path(__file__).resolve().parent
NEEDED = ("go", "ssh-agent", "ssh-add", "ssh-keygen")
GO = (1, 25)
LITEWITNESS = "filippo.io/torchwood/cmd/litewitness"
#: Seconds for the modules to be fetched, and for them to be compiled, on a busy machine too.
FETCH_S, BUILD_S, CLIENT_S = 240, 900, 120


class NotHere(Exception):
    """This machine can't have the peers; the text says why."""


class PeerSaysNo(Exception):
    """What the Go client says does not verify."""


def _go(words: list[str], seconds: int) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    try:
        return subprocess.run(
            ["go", *words], cwd=HERE, env=environment, capture_output=True, text=True, timeout=seconds,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotHere(f"go {words[0]} took more than {seconds} s") from None


def missing() -> str:
    """What this machine lacks for the peers, or nothing."""
    lacking = [one for one in NEEDED if shutil.which(one) is None]
    if lacking:
        return f"needs {' and '.join(lacking)}"
    said = _go(["env", "GOVERSION"], 60).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < GO:
        return f"needs Go {GO[0]}.{GO[1]}, got {said or 'none that runs'}"
    return ""


@dataclass(frozen=True, slots=True)
class GoPeers:
    """The built programs."""

    folder: Path

    def client(self, *words: object) -> dict[str, Any]:
        """What the Go client says; PeerSaysNo with its reason if something does not verify."""
        done = subprocess.run(
            [self.folder / "gopeer", *map(str, words)], capture_output=True, text=True, timeout=CLIENT_S, check=False
        )
        if done.returncode:
            raise PeerSaysNo(done.stderr.strip())
        said: dict[str, Any] = json.loads(done.stdout)
        return said


def build(folder: Path) -> GoPeers:
    """The programs in `folder`; NotHere if the machine has no Go or can't fetch the modules."""
    if lacking := missing():
        raise NotHere(lacking)
    fetched = _go(["list", "-deps", "./gopeer", LITEWITNESS], FETCH_S)  # what `build` needs and no more
    if fetched.returncode:
        raise NotHere(f"the modules of go.sum can't be fetched: {fetched.stderr.strip()[-300:]}")
    built = _go(["build", "-o", f"{folder}{os.sep}", "./gopeer", LITEWITNESS], BUILD_S)
    if built.returncode:
        raise RuntimeError(f"the peers don't compile: {built.stderr[-2000:]}")
    return GoPeers(folder)


def signing_key(name: str, seed: bytes) -> str:
    """The signer of this name and Ed25519 seed, as Go's `note` reads it."""
    verifier = Signer(name, PrivateKey.generate(seed)).verifier()
    return f"PRIVATE+KEY+{name}+{verifier.key_id.hex()}+{b64encode(bytes([verifier.kind]) + seed)}"


class Litewitness:
    """A litewitness on loopback with a key in an ssh-agent of its own, that knows one log. Ends with `stop`."""

    name = "litewitness.test.example"

    def __init__(self, peers: GoPeers, folder: Path, log: VerifierKey) -> None:
        self._peers, self._folder, self._log = peers, folder, log
        self.port = free_port()
        self._agent: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        key = folder / "key"
        self._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key))
        public = (folder / "key.pub").read_text().split()[1]
        self.key = VerifierKey(self.name, COSIGNATURE, PublicKey(ED25519, b64decode(public)[-32:]))
        self._fingerprint = self._run("ssh-keygen", "-l", "-f", str(key)).split()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def policy(self) -> str:
        """A policy file in which it alone is the quorum."""
        return f"log {self._log.vkey}\nwitness lite {self.key.vkey} {self.url}\nquorum lite\n"

    def _run(self, *words: str) -> str:
        environment = os.environ | {"SSH_AUTH_SOCK": str(self._folder / "agent")}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False,
                              stdin=subprocess.DEVNULL)  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{words[0]}: {done.stderr.strip()}")
        return done.stdout

    def start(self) -> Litewitness:
        agent = self._folder / "agent"
        if self._agent is None:
            with open(self._folder / "agent.log", "ab") as said:
                self._agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=said, stderr=said)
            self._until(agent.exists, "ssh-agent")
            self._run("ssh-add", "-q", str(self._folder / "key"))
        with open(self._folder / "litewitness.log", "ab") as said:
            self._process = subprocess.Popen(
                [self._peers.folder / "litewitness", f"-ssh-agent={agent}", f"-name={self.name}",
                 f"-key={self._fingerprint}", f"-db={self._folder / 'db'}", f"-listen=127.0.0.1:{self.port}"],
                stdout=said, stderr=said,
            )  # fmt: skip
        self._until(self._listens, "litewitness")
        # As `witnessctl add-log` and `add-key` do; that program's own modules are not to be had everywhere.
        with closing(sqlite3.connect(self._folder / "db", timeout=30)) as database, database:
            known = database.execute("SELECT 1 FROM log WHERE origin = ?", (self._log.name,)).fetchone()
            if known is None:
                database.execute("INSERT INTO log VALUES (?, 0, ?)", (self._log.name, b64encode(EMPTY_ROOT)))
                database.execute("INSERT INTO key VALUES (?, ?)", (self._log.name, self._log.vkey))
        return self

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        except OSError:
            return False
        return True

    def _until(self, ready: Any, what: str) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not start: {self.log()[-500:]}")
            time.sleep(0.02)

    def log(self) -> str:
        path = self._folder / "litewitness.log"
        return path.read_text() if path.exists() else ""

    def kill(self) -> None:
        """Ends it, not its agent; `start` has it go on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        self.kill()
        if self._agent is not None:
            self._agent.terminate()
            self._agent.wait()
            self._agent = None


@contextmanager
def litewitness(peers: GoPeers, folder: Path) -> Iterator[Litewitness]:
    """A litewitness for the stands' log, in a new folder, until the end of the block."""
    folder.mkdir()
    it = Litewitness(peers, folder, Signer(ORIGIN, LOG_KEY).verifier())
    try:
        yield it.start()
    finally:
        it.stop()


def asks(stand: Stand, witness: Litewitness) -> Policy:
    """Has the stand's ledger ask this witness, the only one of its policy, from its next start on."""
    (stand.directory / "policy").write_text(witness.policy)
    (stand.directory / "asks.py").write_text(ASKS.format(tests=str(HERE.parent)))
    stand.script, stand.over_http, stand.witness_port = str(stand.directory / "asks.py"), True, witness.port
    return parse_policy(witness.policy)
