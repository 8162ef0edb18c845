"""The witness: add-checkpoint's answers as C2SP tlog-witness has them, and what it never does."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.canonical import FormatError, b64encode
from ironbound.core.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint, verify_cosignature
from ironbound.core.merkle import EMPTY_ROOT, Tree, leaf_hash
from ironbound.core.note import COSIGNATURE, Signer, add_lines, parse_note, parse_signature_lines
from ironbound.wire.durable import SLOT_SIZE, DurableRecord
from ironbound.witness.app import parse_request
from ironbound.witness.state import Conflict, Cosigner, Refusal, WitnessStateLost
from ledger_stand import LOG_KEY, ORIGIN, WITNESS_KEY, Stand, cosigner_signer, policy

LOG = Signer(ORIGIN, LOG_KEY)
TREE = Tree()
for _number in range(40):
    TREE.append(leaf_hash(b"%d" % _number))
FORK = Tree()
for _number in range(40):
    FORK.append(leaf_hash(b"%d" % (_number if _number != 3 else 99)))


def signed(size: int, tree: Tree = TREE, signer: Signer = LOG) -> bytes:
    return sign_checkpoint(Checkpoint(signer.name, size, tree.root_at(size)), signer)


def body(old: int, size: int, tree: Tree = TREE) -> bytes:
    lines = [f"old {old}", *(b64encode(node) for node in tree.consistency_proof(old, size)), "", ""]
    return "\n".join(lines).encode() + signed(size, tree)


Answer = tuple[int, str, bytes]


class Witness:
    def __init__(self, stand: Stand) -> None:
        self.stand = stand

    def post(self, data: bytes, path: str = "/add-checkpoint", method: str = "POST") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.stand.witness_port, timeout=20)
        try:
            connection.request(method, path, data)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"] or "", answer.read()
        finally:
            connection.close()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    it = Stand(tmp_path)
    it.create()
    it.start("witness")
    yield Witness(it)
    it.stop()


def cosigned(answer: Answer, size: int, tree: Tree = TREE) -> None:
    assert answer[0] == 200, answer
    note = add_lines(signed(size, tree), parse_signature_lines(answer[2]))
    assert policy().verify(note).checkpoint == Checkpoint(ORIGIN, size, tree.root_at(size))


def test_a_growing_log_is_cosigned_step_by_step_and_the_same_size_again(witness: Witness) -> None:
    cosigned(witness.post(body(0, 3)), 3)
    cosigned(witness.post(body(3, 17)), 17)
    cosigned(witness.post(body(17, 17)), 17)
    cosigned(witness.post(body(17, 40)), 40)


def test_a_wrong_old_size_is_409_with_the_size_that_is_held(witness: Witness) -> None:
    cosigned(witness.post(body(0, 17)), 17)
    for old, size in ((0, 20), (16, 20), (18, 20)):
        assert witness.post(body(old, size)) == (409, "text/x.tlog.size", b"17\n")
    cosigned(witness.post(body(17, 20)), 20)


def test_a_rollback_is_refused_and_the_state_stays(witness: Witness) -> None:
    cosigned(witness.post(body(0, 17)), 17)
    assert witness.post(b"old 17\n\n" + signed(5))[0] == 400
    assert witness.post(body(0, 5)) == (409, "text/x.tlog.size", b"17\n")
    cosigned(witness.post(body(17, 20)), 20)


def test_a_fork_is_refused_at_the_same_size_and_beyond_it(witness: Witness) -> None:
    cosigned(witness.post(body(0, 17)), 17)
    assert witness.post(b"old 17\n\n" + signed(17, FORK)) == (409, "text/x.tlog.size", b"17\n")
    assert witness.post(body(17, 20, FORK))[0] == 422
    cosigned(witness.post(body(17, 20)), 20)


@pytest.mark.parametrize("spoil", ["drop", "add", "change"])
def test_a_wrong_consistency_proof_is_422(witness: Witness, spoil: str) -> None:
    cosigned(witness.post(body(0, 17)), 17)
    first, *proof = body(17, 20).split(b"\n\n")[0].split(b"\n")
    another = b64encode(b"\x07" * 32).encode()
    proof = {"drop": proof[:-1], "add": [*proof, another], "change": [another, *proof[1:]]}[spoil]
    assert witness.post(b"\n".join([first, *proof, b"", b""]) + signed(20))[0] == 422
    cosigned(witness.post(body(17, 20)), 20)


def test_from_size_zero_a_proof_is_422(witness: Witness) -> None:
    line = b64encode(b"\x07" * 32).encode()
    assert witness.post(b"old 0\n" + line + b"\n\n" + signed(3))[0] == 422


def test_an_unknown_log_is_404_and_a_bad_signature_403(witness: Witness) -> None:
    assert witness.post(b"old 0\n\n" + signed(3, signer=Signer("other.example/log", LOG_KEY)))[0] == 404
    assert witness.post(b"old 0\n\n" + signed(3, signer=Signer(ORIGIN, WITNESS_KEY)))[0] == 403
    right = signed(3)
    note = parse_note(right)
    line = note.lines[0]
    bad = add_lines(sign_checkpoint(Checkpoint(ORIGIN, 3, TREE.root_at(3)), Signer(ORIGIN, WITNESS_KEY)), ())
    assert line.encode().encode() in right
    forged = right.replace(line.encode().encode(), _flipped(line.encode()).encode())
    assert witness.post(b"old 0\n\n" + forged)[0] == 403
    assert witness.post(b"old 0\n\n" + bad)[0] == 403
    cosigned(witness.post(body(0, 3)), 3)


def _flipped(line: str) -> str:
    at = len(line) - 20
    return line[:at] + ("A" if line[at] != "A" else "B") + line[at + 1 :]


MALFORMED = {
    "nothing": b"",
    "no old line": b"\n\n" + signed(3),
    "a padded size": b"old 00\n\n" + signed(3),
    "a signed size": b"old +0\n\n" + signed(3),
    "carriage returns": b"old 0\r\n\r\n" + signed(3),
    "a proof line of 31 bytes": b"old 1\n" + b64encode(bytes(31)).encode() + b"\n\n" + signed(3),
    "lax base64": b"old 1\n" + b64encode(bytes(32)).replace("=", "").encode() + b"\n\n" + signed(3),
    "64 proof lines": b"old 1\n" + (b64encode(bytes(32)) + "\n").encode() * 64 + b"\n" + signed(3),
    "no checkpoint": b"old 0\n\n",
    "garbage for a checkpoint": b"old 0\n\n\xff\xfe\n\nx",
    "an extension line": b"old 0\n\n" + signed(3).replace(b"\n\n", b"\nextra\n\n", 1),
    "100 kB": b"old 0\n\n" + b"x" * 100_000,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_400_and_changes_nothing(witness: Witness, name: str) -> None:
    assert witness.post(MALFORMED[name])[0] == 400
    cosigned(witness.post(body(0, 3)), 3)


def test_other_paths_and_methods_do_nothing(witness: Witness) -> None:
    assert witness.post(body(0, 3), path="/")[0] == 404
    assert witness.post(b"", method="GET")[0] == 405
    cosigned(witness.post(body(0, 3)), 3)


def test_concurrent_requests_never_cosign_two_trees_of_one_size(witness: Witness) -> None:
    answers: list[Answer] = []
    requests = [b"old 0\n\n" + signed(size, tree) for tree in (TREE, FORK) for size in range(5, 13)]
    threads = [threading.Thread(target=lambda data=data: answers.append(witness.post(data))) for data in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answer[0] for answer in answers) == [200] + [409] * 15


def test_what_was_cosigned_survives_a_kill_and_a_missing_state_is_not_made_anew(witness: Witness) -> None:
    stand = witness.stand
    cosigned(witness.post(body(0, 17)), 17)
    stand.kill("witness", signal.SIGKILL)
    stand.start("witness")
    assert witness.post(body(0, 20)) == (409, "text/x.tlog.size", b"17\n")
    assert witness.post(body(17, 20, FORK))[0] == 422
    cosigned(witness.post(body(17, 20)), 20)
    stand.kill("witness")
    (stand.directory / "witness/state").unlink()
    stand.start("witness", ready=False)
    assert stand.end("witness") == 3
    assert "witness/state is missing" in stand.log("witness")


def test_only_the_logs_own_line_is_kept_and_others_do_not_hinder(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    Cosigner.create(path)
    cosigner = Cosigner.open(path, cosigner_signer(), LOG.verifier(), lambda: 1_700_000_000)
    others = [Signer(f"other{at}.example", WITNESS_KEY).sign_text(parse_note(signed(3)).text) for at in range(40)]
    line = cosigner.add(0, [], add_lines(signed(3), others))
    checkpoint = parse_checkpoint(parse_note(signed(3)).text)
    key = cosigner_signer().verifier(COSIGNATURE)
    assert verify_cosignature(checkpoint, parse_signature_lines(line)[0], key) == 1_700_000_000
    cosigner.close()
    again = Cosigner.open(path, cosigner_signer(), LOG.verifier(), lambda: 1)
    assert again.size == 3
    again.close()


def test_a_cosignature_is_given_only_after_the_state_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "state")
    Cosigner.create(path)
    cosigner = Cosigner.open(path, cosigner_signer(), LOG.verifier(), lambda: 1)

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError):
        cosigner.add(0, [], signed(3))
    assert cosigner.size == 0
    cosigner.close()


def test_a_torn_write_leaves_the_state_before_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    DurableRecord.create(str(path), b"first")
    record = DurableRecord.open(str(path))
    record.replace(b"second")
    record.replace(b"third")
    record.close()
    data = path.read_bytes()
    path.write_bytes(b"\xee" * 100 + data[100:])  # 'third' is in slot 0
    record = DurableRecord.open(str(path))
    assert record.record == b"second"
    record.replace(b"fourth")
    record.close()
    record = DurableRecord.open(str(path))
    assert record.record == b"fourth"
    record.close()
    path.write_bytes(bytes(2 * SLOT_SIZE))
    with pytest.raises(WitnessStateLost, match="no whole record"):
        Cosigner.open(str(path), cosigner_signer(), LOG.verifier(), lambda: 1)


def test_the_state_of_another_log_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    DurableRecord.create(path, signed(3, signer=Signer(ORIGIN, WITNESS_KEY)))
    with pytest.raises(WitnessStateLost, match="not a checkpoint of"):
        Cosigner.open(path, cosigner_signer(), LOG.verifier(), lambda: 1)


@given(st.binary(max_size=300))
def test_whatever_a_body_holds_it_parses_or_is_a_format_error(data: bytes) -> None:
    for one in (data, b"old 0\n\n" + data, b"old 1\n" + data):
        try:
            parse_request(one)
        except FormatError as error:
            assert error.code == "add-checkpoint"


def test_the_empty_tree_has_the_empty_root(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    Cosigner.create(path)
    cosigner = Cosigner.open(path, cosigner_signer(), LOG.verifier(), lambda: 1)
    assert cosigner.add(0, [], sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), LOG))
    with pytest.raises(Conflict):
        cosigner.add(1, [], signed(3))
    with pytest.raises(Refusal):
        cosigner.add(4, [], signed(3))
    cosigner.close()
