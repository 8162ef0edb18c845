"""The ledger as a process: what it promises to those who append, and that it keeps it when it is killed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from ironbound.core.canonical import b64decode
from ironbound.core.checkpoint import Checkpoint, sign_checkpoint
from ironbound.core.merkle import Tree, leaf_hash
from ironbound.core.note import Signer
from ironbound.core.tile import ENTRIES, encode_entries, tiles_for
from ironbound.core.tlogproof import parse_proof, verify_proof
from ironbound.ledger.service import create
from ironbound.ledger.settings import EXIT_DISK, EXIT_REFUSED, LedgerRefused
from ironbound.wire.frames import Frame
from ledger_stand import GENESIS, LOG_KEY, ORIGIN, Stand, append_frame, entry, policy, settings


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    it = Stand(tmp_path)
    it.create()
    yield it
    it.stop()


def proven(answer: Frame, data: bytes) -> int:
    """The index of an answer whose proof holds under the policy for exactly this entry."""
    assert answer["ok"] is True, answer
    proof = str(answer["proof"]).encode()
    checkpoint = verify_proof(proof, leaf_hash(data), policy())
    index = answer["index"]
    assert isinstance(index, int) and parse_proof(proof).index == index < checkpoint.size
    return index


def until(promise: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not promise():
        assert time.monotonic() < deadline, f"{what} in {seconds} s"
        time.sleep(0.01)


def entries_of(stand: Stand) -> list[bytes]:
    with contextlib.closing(sqlite3.connect(stand.directory / "ledger/ledger.db")) as database:
        rows = database.execute("SELECT body FROM entry ORDER BY idx").fetchall()
    return [row[0] for row in rows]


def test_sixty_four_writers_at_once_each_get_their_own_index_and_a_proof_that_holds(stand: Stand) -> None:
    stand.start()
    stand.append(entry(1))
    indexes: list[int] = []
    lock = threading.Lock()

    def write(writer: int) -> None:
        with stand.connect() as peer:
            for number in range(5):
                data = entry(1000 + writer * 10 + number, ("node", "gateway", "monitor")[writer % 3])
                index = proven(peer.ask(append_frame(number, data)), data)
                with lock:
                    indexes.append(index)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(indexes) == list(range(2, 2 + 320))


def test_many_appends_in_flight_on_one_connection_are_logged_in_their_order(stand: Stand) -> None:
    stand.start()
    stand.append(entry(1))
    data = [entry(10 + number) for number in range(300)]
    with stand.connect() as peer:
        sender = threading.Thread(target=lambda: [peer.send(append_frame(at, one)) for at, one in enumerate(data)])
        sender.start()
        answers: dict[int, Frame] = {}
        while len(answers) < len(data):
            answer = peer.receive()
            assert answer is not None and isinstance(answer["seq"], int)
            answers[answer["seq"]] = answer
        sender.join(30)
    assert [proven(answers[at], one) for at, one in enumerate(data)] == list(range(2, 302))


def test_the_same_statement_again_gets_the_same_index_and_a_fresh_proof(stand: Stand) -> None:
    stand.start()
    first = proven(stand.append(entry(7)), entry(7))
    proven(stand.append(entry(8)), entry(8))
    again = stand.append(entry(7))
    assert proven(again, entry(7)) == first
    assert b"\n4\n" not in str(again["proof"]).encode() and len(entries_of(stand)) == 3


def test_another_content_under_the_same_id_is_refused_and_nothing_is_logged(stand: Stand) -> None:
    stand.start()
    proven(stand.append(entry(7)), entry(7))
    answer = stand.append(entry(7, text="other"))
    assert (answer["ok"], answer["code"]) == (False, "id-conflict")
    assert len(entries_of(stand)) == 2
    proven(stand.append(entry(7, role="node")), entry(7, role="node"))  # another submitter's ids are its own


def test_two_different_contents_under_one_id_in_one_batch_leave_one(stand: Stand) -> None:
    stand.start()
    stand.append(entry(1))
    with stand.connect() as peer:
        for seq, text in enumerate(("a", "b", "a")):
            peer.send(append_frame(seq, entry(7, text=text)))
        answers = sorted((answer for _ in range(3) if (answer := peer.receive())), key=lambda one: str(one["seq"]))
    assert [answer.get("code", answer.get("index")) for answer in answers] == [2, "id-conflict", 2]


def test_a_follower_gets_every_entry_in_order_under_checkpoints_that_cover_them(stand: Stand) -> None:
    stand.start()
    for number in range(1, 4):
        stand.append(entry(number))
    with stand.connect() as peer, stand.connect() as writer:
        peer.send({"op": "follow", "seq": 5, "from": 0})
        for number in range(4, 300):
            writer.send(append_frame(number, entry(number)))
        tree = Tree()
        got: list[bytes] = []
        while len(got) < 300:
            frame = peer.receive()
            assert frame is not None and frame["first"] == len(got) and isinstance(frame["entries"], list)
            for text in frame["entries"]:
                got.append(b64decode(str(text)))
                tree.append(leaf_hash(got[-1]))
            checkpoint = policy().verify(str(frame["checkpoint"]).encode()).checkpoint
            assert len(got) <= checkpoint.size
            if checkpoint.size == len(got):
                assert checkpoint.root == tree.root()
        assert got[0] == GENESIS and got[1:] == entries_of(stand)[1:300]


def test_head_is_the_published_checkpoint(stand: Stand) -> None:
    stand.start()
    stand.append(entry(1))
    with stand.connect() as peer:
        head = peer.ask({"op": "head", "seq": 9})
    assert policy().verify(str(head["checkpoint"]).encode()).checkpoint.size == head["size"] == 2
    assert (stand.directory / "public/checkpoint").read_bytes() == str(head["checkpoint"]).encode()


def test_tiles_are_those_that_the_entries_give_and_the_read_side_serves_them(stand: Stand) -> None:
    stand.start()
    stand.append(entry(1))
    with stand.connect() as peer:
        for number in range(2, 600):
            peer.send(append_frame(number, entry(number)))
            if number % 100 == 0:
                for _ in range(100 if number > 100 else 99):
                    assert peer.receive()
        for _ in range(99):
            assert peer.receive()
    entries = entries_of(stand)
    tree = Tree()
    for one in entries:
        tree.append(leaf_hash(one))
    base = f"http://127.0.0.1:{stand.read_port}/"
    for tile in tiles_for(len(entries)):
        with urllib.request.urlopen(base + tile.path, timeout=10) as response:
            served = response.read()
            assert response.headers["Content-Type"] == "application/octet-stream"
            assert response.headers["Cache-Control"] == "max-age=31536000, immutable"
        if tile.level == ENTRIES:
            assert served == encode_entries(entries[tile.begin : tile.end])
        else:
            assert served == tree.nodes(8 * tile.level, tile.begin, tile.end)
    with urllib.request.urlopen(base + "checkpoint", timeout=10) as response:
        checkpoint = policy().verify(response.read()).checkpoint
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache"
    assert (checkpoint.size, checkpoint.root) == (len(entries), tree.root())
    for path in ("tile/../checkpoint", "tile/0/000.p/0", "../ledger/ledger.db", "tile/0/0", "", "tile/9/000"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(base + path, timeout=10)
        assert refusal.value.code == 404
        refusal.value.close()


def test_a_web_page_whose_name_was_made_to_mean_loopback_reads_nothing(stand: Stand) -> None:
    """DNS rebinding: read side and witness answer to loopback's own names, at any port, as through a tunnel."""
    stand.start()
    stand.append(entry(0))
    for port, path, status in ((stand.read_port, "/checkpoint", 200), (stand.witness_port, "/add-checkpoint", 405)):
        url = f"http://127.0.0.1:{port}{path}"
        with httpx.Client(trust_env=False) as client:
            for host in ("127.0.0.1", "localhost", "[::1]", "localhost:9999", f"127.0.0.1:{port}"):
                assert client.get(url, headers={"host": host}).status_code == status, host
            for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.evil.example",
                         "127.0.0.2", "evil.localhost", f"127.0.0.1:{port}@evil.example", ""):  # fmt: skip
                assert client.get(url, headers={"host": host}).status_code in (400, 421), host


def test_killed_at_any_moment_no_acknowledged_entry_is_lost_and_a_retry_gets_the_same_index(stand: Stand) -> None:
    stand.start("witness")
    chance = random.Random(20)
    acknowledged: dict[int, int] = {}
    number = 1
    for _ in range(6):
        stand.start("ledger")
        stand.append(entry(1))
        killer = threading.Timer(chance.uniform(0.01, 0.25), stand.processes["ledger"].kill)
        killer.start()
        sent: list[int] = []
        try:
            with stand.connect() as peer:
                while True:
                    for _ in range(8):
                        number += 1
                        sent.append(number)
                        peer.send(append_frame(number, entry(number)))
                    for _ in range(8):
                        answer = peer.receive()
                        if answer is None:
                            raise ConnectionError
                        if answer["ok"]:
                            assert isinstance(answer["seq"], int)
                            acknowledged[answer["seq"]] = proven(answer, entry(answer["seq"]))
        except OSError:
            pass
        killer.join()
        assert stand.end("ledger") == -signal.SIGKILL
        stand.start("ledger")
        for one in sent:
            index = proven(stand.append(entry(one)), entry(one))
            assert acknowledged.setdefault(one, index) == index
        stand.kill("ledger")
    assert len(acknowledged) > 20
    entries = entries_of(stand)
    assert all(entries[index] == entry(one) for one, index in acknowledged.items())


def test_a_clean_stop_ends_with_status_0_and_the_next_start_goes_on(stand: Stand) -> None:
    stand.start()
    assert proven(stand.append(entry(1)), entry(1)) == 1
    assert stand.kill("ledger", signal.SIGTERM) == 0
    stand.start("ledger")
    assert proven(stand.append(entry(2)), entry(2)) == 2


def test_while_the_witness_is_away_nothing_is_acknowledged_and_afterwards_it_is_proven(stand: Stand) -> None:
    stand.start()
    proven(stand.append(entry(1)), entry(1))
    stand.kill("witness")
    with stand.connect() as peer:
        answer = peer.ask(append_frame(1, entry(2)))
        assert answer["code"] == "not-witnessed" and "proof" not in answer
        head = peer.ask({"op": "head", "seq": 2})
        assert head["size"] == 2  # what is published does not go ahead of the witness
    assert len(entries_of(stand)) == 3  # but the entry is durable
    stand.start("witness")
    assert proven(stand.append(entry(2)), entry(2)) == 2


def test_before_the_witness_has_answered_once_nothing_is_logged(stand: Stand) -> None:
    stand.start("ledger")
    with stand.connect() as peer:
        assert peer.ask(append_frame(1, entry(1)))["code"] == "not-witnessed"
        assert peer.ask({"op": "head", "seq": 2})["code"] == "not-witnessed"
    assert entries_of(stand) == [GENESIS]
    stand.start("witness")
    assert proven(stand.append(entry(1)), entry(1)) == 1


def test_a_restored_backup_of_the_database_is_refused_and_the_true_one_starts(stand: Stand) -> None:
    stand.start()
    stand.append(entry(1))
    stand.kill("ledger", signal.SIGTERM)
    backup = stand.directory / "backup"
    shutil.copytree(stand.directory / "ledger", backup)
    stand.start("ledger")
    stand.append(entry(2))
    stand.kill("ledger", signal.SIGTERM)
    true = stand.directory / "true"
    shutil.copytree(stand.directory / "ledger", true)
    for name in os.listdir(stand.directory / "ledger"):
        if name.startswith("ledger.db"):
            os.unlink(stand.directory / "ledger" / name)
    shutil.copy(backup / "ledger.db", stand.directory / "ledger/ledger.db")
    stand.start("ledger", ready=False)
    assert stand.end("ledger") == EXIT_REFUSED
    assert "rollback: the high-water mark is at 3 entries, the database has 2" in stand.log()

    shutil.rmtree(stand.directory / "ledger")
    shutil.copytree(backup, stand.directory / "ledger")  # mark and all: the witness knows
    os.unlink(stand.directory / "public/checkpoint")
    stand.start("ledger", ready=False)
    assert stand.end("ledger") == EXIT_REFUSED
    assert "rollback: the witness has cosigned 3 entries, the database has 2" in stand.log()

    shutil.rmtree(stand.directory / "ledger")
    shutil.copytree(true, stand.directory / "ledger")
    stand.start("ledger")
    assert proven(stand.append(entry(3)), entry(3)) == 3


def _cut_tail(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM entry WHERE idx >= 4")
    database.execute("DELETE FROM statement WHERE idx >= 4")


def _cut_tail_with_old_head(database: sqlite3.Connection) -> None:
    _cut_tail(database)
    tree = Tree()
    for (body,) in database.execute("SELECT body FROM entry ORDER BY idx").fetchall():
        tree.append(leaf_hash(body))
    note = sign_checkpoint(Checkpoint(ORIGIN, 4, tree.root()), Signer(ORIGIN, LOG_KEY))
    database.execute("UPDATE head SET size = 4, root = ?, note = ?", (tree.root(), note))


def _cut_middle(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM entry WHERE idx = 2")
    database.execute("DELETE FROM statement WHERE idx = 2")


def _rewrite(database: sqlite3.Connection) -> None:
    database.execute("UPDATE entry SET body = ? WHERE idx = 2", (entry(2, text="rewritten"),))


def _rewrite_and_sign(database: sqlite3.Connection) -> None:
    _rewrite(database)
    tree = Tree()
    for (body,) in database.execute("SELECT body FROM entry ORDER BY idx").fetchall():
        tree.append(leaf_hash(body))
    note = sign_checkpoint(Checkpoint(ORIGIN, tree.size, tree.root()), Signer(ORIGIN, LOG_KEY))
    database.execute("UPDATE head SET root = ?, note = ?", (tree.root(), note))


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (_cut_tail, "damaged"),
        (_cut_tail_with_old_head, "rollback"),
        (_cut_middle, "damaged: entry 2 is missing"),
        (_rewrite, "damaged"),
        (_rewrite_and_sign, "fork"),
    ],
)
def test_a_cut_or_rewritten_database_is_refused_even_if_the_log_key_signed_it(
    stand: Stand, attack: Callable[[sqlite3.Connection], None], said: str
) -> None:
    stand.start()
    for number in range(1, 6):
        stand.append(entry(number))
    stand.kill("ledger", signal.SIGTERM)
    published = (stand.directory / "public/checkpoint").read_bytes()
    database = sqlite3.connect(stand.directory / "ledger/ledger.db")
    with database:
        attack(database)
    database.close()
    stand.start("ledger", ready=False)
    assert stand.end("ledger") == EXIT_REFUSED
    assert f"refused: {said}" in stand.log()
    assert (stand.directory / "public/checkpoint").read_bytes() == published


@pytest.mark.parametrize("name", ["ledger.db", "high-water"])
def test_a_missing_file_is_an_error_and_is_not_made_anew(stand: Stand, name: str) -> None:
    os.unlink(stand.directory / "ledger" / name)
    stand.start("ledger", ready=False)
    assert stand.end("ledger") == EXIT_REFUSED
    assert "refused: missing" in stand.log()
    assert not (stand.directory / "ledger" / name).exists()


def test_a_ledger_is_created_once_only(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stand.directory)
    before = (stand.directory / "ledger/ledger.db").read_bytes()
    with pytest.raises(LedgerRefused, match="exists"):
        create(settings(1), GENESIS)
    assert (stand.directory / "ledger/ledger.db").read_bytes() == before


def test_a_second_ledger_on_the_same_files_is_refused_and_the_first_goes_on(stand: Stand) -> None:
    stand.start()
    first = stand.processes.pop("ledger")
    stand.start("ledger", ready=False)
    assert stand.end("ledger") == EXIT_REFUSED
    assert "in use by another process" in stand.log()
    stand.processes["ledger"] = first
    assert proven(stand.append(entry(1)), entry(1)) == 1


def test_files_of_the_read_side_that_a_crash_spoilt_are_written_anew_at_the_start(stand: Stand) -> None:
    stand.start()
    stand.append(entry(1))
    stand.kill("ledger")
    tile = stand.directory / "public/tile/0/000.p/2"
    right = tile.read_bytes()
    tile.write_bytes(b"")
    (stand.directory / "public/tile/entries/000.p/2").unlink()
    stand.start("ledger")
    assert tile.read_bytes() == right
    assert (stand.directory / "public/tile/entries/000.p/2").exists()


def _fill(stand: Stand, before: int) -> tuple[dict[int, int], str]:
    """Appends until the ledger says that the disk is full; the acknowledged, and what it said."""
    proven(stand.append(entry(before)), entry(before))
    acknowledged: dict[int, int] = {}
    number = before
    with stand.connect() as peer:
        while True:
            number += 1
            data = entry(number, text="y" * 20_000)
            try:
                peer.send(append_frame(number, data))
                answer = peer.receive()
            except OSError:
                answer = None
            if answer is None:
                return acknowledged, ""
            if not answer["ok"]:
                return acknowledged, str(answer["code"])
            acknowledged[number] = proven(answer, data)


def _recovers(stand: Stand, acknowledged: dict[int, int]) -> None:
    stand.start("ledger")
    for number, index in acknowledged.items():
        assert proven(stand.append(entry(number, text="y" * 20_000)), entry(number, text="y" * 20_000)) == index
    proven(stand.append(entry(1 << 40)), entry(1 << 40))


def test_at_a_file_size_limit_the_writer_gets_an_error_the_ledger_ends_and_nothing_is_lost(stand: Stand) -> None:
    stand.start("witness")
    stand.fsize = 400_000
    stand.start("ledger")
    acknowledged, said = _fill(stand, 1)
    assert acknowledged and said in ("disk-full", "disk-error")
    assert stand.end("ledger") == EXIT_DISK
    stand.fsize = None
    _recovers(stand, acknowledged)


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_on_a_full_disk_the_writer_gets_disk_full_the_ledger_ends_and_nothing_is_lost(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "ironbound", str(small)], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    stand = Stand(small)
    stand.logs = tmp_path
    try:
        stand.create()
        stand.start()
        acknowledged, said = _fill(stand, 1)
        assert acknowledged and said == "disk-full"
        assert stand.end("ledger") == EXIT_DISK
        subprocess.run(["mount", "-o", "remount,size=60m", str(small)], check=True)
        _recovers(stand, acknowledged)
    finally:
        stand.stop()
        subprocess.run(["umount", "-l", str(small)], check=True)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_killed_checking_process_ends_the_ledger_and_a_killed_ledger_leaves_no_process(stand: Stand) -> None:
    stand.start()
    proven(stand.append(entry(1)), entry(1))
    checkers = _children(stand.processes["ledger"].pid)
    assert checkers
    os.kill(checkers[0], signal.SIGKILL)
    with contextlib.suppress(OSError), stand.connect() as peer:  # it may have ended by now
        peer.send(append_frame(1, entry(2)))
        answer = peer.receive()  # one small request is checked by the ledger itself, until it hears of the death
        assert answer is None or answer["index"] == 2
    assert stand.end("ledger") not in (0, EXIT_REFUSED)
    stand.start("ledger")
    assert proven(stand.append(entry(2)), entry(2)) == 2
    checkers = _children(stand.processes["ledger"].pid)
    stand.kill("ledger")
    until(lambda: not any(Path(f"/proc/{one}/fd").exists() for one in checkers), "the checking processes end")
