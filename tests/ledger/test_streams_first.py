"""Streams go on as soon as an entry is durable and witnessed; the checkpoint's file follows, and answers after it."""

from __future__ import annotations

import signal
from pathlib import Path

from ironbound.core.canonical import b64decode
from ironbound.core.merkle import leaf_hash
from ironbound.core.tlogproof import verify_proof
from ledger_stand import Stand, append_frame, entry, policy

#: A ledger that dies when it is about to put the checkpoint of four entries in place.
DIES = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import ledger_stand
from ironbound.core.checkpoint import parse_checkpoint
from ironbound.core.note import parse_note
from ironbound.ledger.publish import Publisher
rename = Publisher.checkpoint
def checkpoint(self, signed):
    if parse_checkpoint(parse_note(signed).text).size == 4:
        import time
        time.sleep(1)  # the stream's turn
        os.kill(os.getpid(), signal.SIGKILL)
    rename(self, signed)
Publisher.checkpoint = checkpoint
sys.exit(ledger_stand.main(*sys.argv[1:]))
"""


def published(stand: Stand) -> int:
    return policy().verify((stand.directory / "public/checkpoint").read_bytes()).checkpoint.size


def test_a_crash_between_stream_and_file_loses_nothing_and_nobody_was_answered_too_early(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.create()
    right = stand.script
    try:
        stand.script = str(tmp_path / "dies.py")
        Path(stand.script).write_text(DIES.format(tests=str(Path(right).parent)))
        stand.start()
        for number in (1, 2):
            assert stand.append(entry(number))["index"] == number
        with stand.connect() as follower, stand.connect() as writer:
            follower.send({"op": "follow", "seq": 7, "from": 3})
            writer.send(append_frame(1, entry(3)))
            frame = follower.receive()
            assert frame is not None and frame["seq"] == 7 and frame["first"] == 3
            assert [b64decode(str(one)) for one in frame["entries"]] == [entry(3)]  # type: ignore[union-attr]
            assert policy().verify(str(frame["checkpoint"]).encode()).checkpoint.size == 4
            assert writer.receive() is None  # it died before it answered
        assert stand.end("ledger") == -signal.SIGKILL
        assert published(stand) == 3
        stand.script = right
        stand.start("ledger")
        again = stand.append(entry(3))
        assert again["index"] == 3  # what was acted on stands where the stream had it
        verify_proof(str(again["proof"]).encode(), leaf_hash(entry(3)), policy())
        assert published(stand) == 4
    finally:
        stand.stop()


def test_whoever_has_an_answer_finds_its_checkpoint_in_the_file(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.create()
    try:
        stand.start()
        for number in range(1, 60):
            assert stand.append(entry(number))["index"] == number
            assert published(stand) > number
    finally:
        stand.stop()
