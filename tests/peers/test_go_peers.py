"""Our log with a real litewitness, our log read by Go's C2SP libraries, and our witness asked by a log of Tessera's."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ironbound.core.canonical import FormatError
from ironbound.core.keys import SignatureInvalid
from ironbound.core.merkle import ProofInvalid, Tree, leaf_hash
from ironbound.core.note import COSIGNATURE, Signer
from ironbound.core.tile import Tile, decode_entries, tiles_for
from ironbound.core.tlogproof import verify_entry
from ironbound.ledger.settings import EXIT_REFUSED
from ledger_stand import GENESIS, LOG_KEY, LOG_SEED, ORIGIN, Stand, append_frame, cosigner_signer, entry, policy

sys.path.insert(0, str(Path(__file__).resolve().parent))

from go_peers import GoPeers, Litewitness, NotHere, PeerSaysNo, asks, build, litewitness, signing_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the peers are compiled, a minute the first time

LOG = Signer(ORIGIN, LOG_KEY).verifier()
OURS = cosigner_signer().verifier(COSIGNATURE)
#: More than a tile's width, so that there is a second level.
ENTRIES = 300


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> GoPeers:
    if os.environ.get("CI") == "true" and os.geteuid() != 0:
        pytest.skip("root's part of this run has asked them already")
    try:
        return build(tmp_path_factory.mktemp("go"))
    except NotHere as reason:
        pytest.skip(str(reason))


class Witnessed:
    """A log of `ENTRIES` entries that a litewitness cosigned, with its proofs and its first checkpoint."""

    def __init__(self, stand: Stand, witness: Litewitness) -> None:
        self.stand, self.witness = stand, witness
        self.policy = asks(stand, witness)
        self.vkeys = (LOG.vkey, witness.key.vkey)
        stand.create()
        stand.start("ledger")
        self.entries = [GENESIS, entry(1)]
        self.proofs = [str(stand.append(self.entries[1])["proof"])]
        self.first = stand.directory / "first"
        self.first.write_text(self.proofs[0].partition("\n\n")[2])
        fresh = [entry(number) for number in range(2, ENTRIES)]
        with stand.connect() as peer:
            for number, data in enumerate(fresh):
                peer.send(append_frame(number, data))
            answers = [peer.receive() for _ in fresh]
        assert all(one is not None and one["ok"] is True for one in answers), answers[0]
        self.proofs += [str(one["proof"]) for one in sorted(answers, key=lambda one: int(str(one["index"]))) if one]  # type: ignore[index]
        self.entries += fresh

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.stand.read_port}"


@pytest.fixture(scope="module")
def witnessed(peers: GoPeers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witnessed]:
    folder = tmp_path_factory.mktemp("w")
    (folder / "s").mkdir()
    stand = Stand(folder / "s")
    with litewitness(peers, folder / "l") as witness:
        try:
            yield Witnessed(stand, witness)
        finally:
            stand.stop()


def flipped(text: str, at: int) -> str:
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


def test_a_litewitness_cosigns_our_log_and_our_policy_takes_its_word(witnessed: Witnessed) -> None:
    for index, proof in enumerate(witnessed.proofs, start=1):
        found = verify_entry(proof.encode(), leaf_hash(witnessed.entries[index]), witnessed.policy)
        assert found.index == index
    proof, leaf = witnessed.proofs[-1], leaf_hash(witnessed.entries[-1])
    cosignature = proof.rindex(" ") + 40
    with pytest.raises(SignatureInvalid):
        verify_entry(flipped(proof, cosignature).encode(), leaf, witnessed.policy)
    with pytest.raises((ProofInvalid, FormatError)):
        verify_entry(flipped(proof, proof.index("\n", 40) + 5).encode(), leaf, witnessed.policy)


def test_go_reads_our_log_and_finds_the_entries_that_we_put_there(peers: GoPeers, witnessed: Witnessed) -> None:
    said = peers.client("read", witnessed.url, *witnessed.vkeys, witnessed.first)
    assert said["origin"] == ORIGIN and said["size"] == len(witnessed.entries) == ENTRIES
    assert said["entries"] == [sha256(one).hexdigest() for one in witnessed.entries]
    assert said["consistent_from"] == 2


def test_go_verifies_our_tlog_proof_and_refuses_it_for_another_entry_or_with_a_byte_flipped(
    peers: GoPeers, witnessed: Witnessed, tmp_path: Path
) -> None:
    data, proof = tmp_path / "entry", tmp_path / "proof"
    data.write_bytes(witnessed.entries[-1])
    proof.write_text(witnessed.proofs[-1])
    assert peers.client("prove", *witnessed.vkeys, data, proof)["index"] == ENTRIES - 1
    data.write_bytes(witnessed.entries[-2])
    with pytest.raises(PeerSaysNo, match="inclusion"):
        peers.client("prove", *witnessed.vkeys, data, proof)
    data.write_bytes(witnessed.entries[-1])
    text = witnessed.proofs[-1]
    for at, reason in ((text.index("\n", 40) + 5, "inclusion"), (text.rindex(" ") + 40, "checkpoint")):
        proof.write_text(flipped(text, at))
        with pytest.raises(PeerSaysNo, match=reason):
            peers.client("prove", *witnessed.vkeys, data, proof)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_go_reads_our_files_as_they_lie_and_refuses_each_of_them_with_a_byte_flipped(
    peers: GoPeers, witnessed: Witnessed, tmp_path: Path
) -> None:
    public = tmp_path / "public"
    shutil.copytree(witnessed.stand.directory / "public", public)
    text = (public / "checkpoint").read_bytes()
    root, log, cosignature = text.index(b"=\n") - 5, text.index(b"\n\n") + len(ORIGIN) + 30, text.rindex(b" ") + 40
    places = [("checkpoint", at) for at in (root, log, cosignature)]
    tiles = [one for one in tiles_for(ENTRIES) if one.path != Tile(1, 0, 1).path]
    places += [(one.path, 0 if one.level >= 0 else 70) for one in tiles]
    assert len(places) == 7, "a full and a partial tile of hashes and of entries"
    with served(public) as url:
        assert peers.client("read", url, *witnessed.vkeys)["size"] == ENTRIES
        for path, at in places:
            right = (public / path).read_bytes()
            wrong = b"A" if right[at : at + 1] != b"A" else b"B"
            (public / path).write_bytes(right[:at] + wrong + right[at + 1 :])
            with pytest.raises(PeerSaysNo):
                peers.client("read", url, *witnessed.vkeys)
            (public / path).write_bytes(right)
        assert peers.client("read", url, *witnessed.vkeys)["size"] == ENTRIES


def test_without_its_litewitness_our_log_answers_for_nothing_and_goes_on_when_it_is_back(
    peers: GoPeers, tmp_path: Path
) -> None:
    stand = Stand(tmp_path)
    with litewitness(peers, tmp_path / "l") as witness:
        rule = asks(stand, witness)
        stand.create()
        try:
            stand.start("ledger")
            assert stand.append(entry(1))["index"] == 1
            witness.kill()
            with stand.connect() as peer:
                assert peer.ask(append_frame(1, entry(2)))["code"] == "not-witnessed"
            witness.start()
            proof = str(stand.append(entry(2))["proof"])
            assert verify_entry(proof.encode(), leaf_hash(entry(2)), rule).index == 2
            assert "the witness is away" in stand.log() and "the witness is back" in stand.log()
        finally:
            stand.stop()


def test_a_litewitness_cosigns_no_fork_and_no_rollback_of_ours_and_our_ledger_ends_with_the_reason(
    peers: GoPeers, tmp_path: Path
) -> None:
    right, old = tmp_path / "r", tmp_path / "o"
    forks = {name: tmp_path / name for name in ("s", "l")}
    right.mkdir()
    stand = Stand(right)
    stands = [stand]
    with litewitness(peers, tmp_path / "w") as witness:
        try:
            asks(stand, witness)
            stand.create()
            stand.start("ledger")
            for number in range(1, 4):
                stand.append(entry(number))
            stand.kill("ledger")
            shutil.copytree(right, old, ignore=shutil.ignore_patterns("run"))
            (old / "run").mkdir()
            stand.start("ledger")
            for number in range(4, 6):
                assert stand.append(entry(number))["index"] == number
            for name, size in (("s", 6), ("l", 9)):  # the same number of entries, and more
                forks[name].mkdir()
                other = Stand(forks[name])
                stands.append(other)
                other.create()
                other.start()
                for number in range(1, size):
                    assert other.append(entry(number, text="another"))["index"] == number
                other.stop()
            for folder, reason in (
                (old, "refused: rollback: the witness has cosigned 6 entries, the database has 4"),
                (forks["s"], "refused: fork: the witness holds a tree of 6 entries that is no prefix of ours"),
                (forks["l"], "refused: fork: the witness holds a tree of 6 entries that is no prefix of ours"),
            ):
                other = Stand(folder)
                stands.append(other)
                asks(other, witness)
                other.start("ledger", ready=False)
                assert other.end("ledger") == EXIT_REFUSED
                assert reason in other.log()
            assert stand.append(entry(6))["index"] == 6  # the honest one goes on
        finally:
            for one in stands:
                one.stop()


def test_our_witness_answers_a_go_log_as_the_specification_says(peers: GoPeers, tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.create()
    try:
        stand.start("witness")
        url = f"http://127.0.0.1:{stand.witness_port}"
        said = peers.client("ask", url, signing_key(ORIGIN, LOG_SEED), OURS.vkey)
    finally:
        stand.stop()
    assert {name: one["status"] for name, one in said.items()} == {
        "unknown log": 404,
        "another's signature": 403,
        "first": 200,
        "again": 200,
        "grown": 200,
        "stale": 409,
        "rolled back": 400,
        "forked": 422,
        "forked, same size": 409,
        "a flipped proof": 422,
        "no number": 400,
        "right after all": 200,
    }
    assert (said["stale"]["type"], said["stale"]["body"]) == ("text/x.tlog.size", "8\n")


def test_a_go_log_that_knows_our_witness_by_another_key_does_not_take_its_cosignature(
    peers: GoPeers, tmp_path: Path
) -> None:
    stand = Stand(tmp_path)
    stand.create()
    try:
        stand.start("witness")
        other = Signer(OURS.name, LOG_KEY).verifier(COSIGNATURE)
        with pytest.raises(PeerSaysNo, match="first: the cosignature"):
            url = f"http://127.0.0.1:{stand.witness_port}"
            peers.client("ask", url, signing_key(ORIGIN, LOG_SEED), other.vkey)
    finally:
        stand.stop()


def test_our_witness_cosigns_a_log_of_tessera_and_we_read_what_it_wrote(peers: GoPeers, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    stand = Stand(tmp_path / "s")
    stand.create()
    theirs = tmp_path / "t"
    rule = f"log {LOG.vkey}\nwitness ours {OURS.vkey} http://127.0.0.1:{stand.witness_port}\nquorum ours\n"
    (tmp_path / "policy").write_text(rule)
    try:
        stand.start("witness")
        said = peers.client("log", theirs, signing_key(ORIGIN, LOG_SEED), tmp_path / "policy", 20, 4, 100)
    finally:
        stand.stop()
    checkpoint = policy().verify(said["checkpoint"].encode()).checkpoint
    assert checkpoint.size == 20 and len(said["proved_ms"]) == 20
    bundle = [one for one in tiles_for(20) if one.level < 0]
    assert [one.width for one in bundle] == [20]
    entries = decode_entries((theirs / bundle[0].path).read_bytes(), 20)
    assert root(entries) == checkpoint.root
    assert root([*entries[:-1], b"another"]) != checkpoint.root


def root(entries: Sequence[bytes]) -> bytes:
    tree = Tree()
    for data in entries:
        tree.append(leaf_hash(data))
    return tree.root()
