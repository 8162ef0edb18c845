"""Whoever folds a log reaches the same state, by the digest of its bytes: services that follow it, and the verifier.

Here by the fold that each of them runs, over many histories; `system/test_snapshots.py` lets the real processes live
with one, and compares their states.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ghost
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironbound.core import snapshot
from ironbound.core.canonical import b64encode, sha256_hex
from ironbound.core.replay import Replay
from ironbound.core.trust import parse_trust_root
from ironbound.verifier.bundle import Bundle
from ironbound.verifier.verify import _check_names, _replay
from ironbound.wire.log import Log
from verifier.lab import Lab

#: Whatever a service asks of the state between two entries; none of it may change anything.
ASKS = (
    lambda replay: replay.holds("ant"),
    lambda replay: replay.grant_named("bee", "read"),
    lambda replay: replay.approval_of("ab" * 16, {}),
    lambda replay: [replay.lives(one, 0) for one in replay.books.grants],
    lambda replay: replay.authority.digest(),
)


def state(replay: Replay) -> str:
    """The digest of everything that a later entry's effect depends on: the kernel's state, the books, the tree, ids."""
    return sha256_hex(replay.snapshot())


def followed(entries: list[bytes], chance: random.Random, resumes: bool) -> str:
    """As a service does it: in batches of any size, asking on the way; some start anew from their own snapshots."""
    log = Log(SimpleNamespace(trust=parse_trust_root(entries[0])), None)  # type: ignore[arg-type]
    at = 0
    while at < len(entries):
        batch = entries[at : at + chance.randint(1, 40)]
        log._fold({"first": at, "entries": [b64encode(one) for one in batch]})
        at += len(batch)
        chance.choice(ASKS)(log.replay)
        mark = log.replay.mark
        if resumes and mark is not None and chance.random() < 0.3:
            log.replay, at = Replay.resumed(mark.data), mark.size
    return state(log.replay)


def audited(lab: Lab) -> str:
    """As the verifier does it: from the tiles of a bundle."""
    bundle = Bundle(io.BytesIO(lab.bundle()))
    return state(_replay(bundle, _check_names(bundle, lab.replay.size), None).replay)


#: Who follows the log, and whether it may start from a snapshot.
FOLLOWERS = {"controller": True, "gateway": True, "node": True, "monitor": False}


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 32), messages=st.integers(10, 150), every=st.integers(16, 64))
def test_in_any_history_services_and_verifier_reach_the_same_state(seed: int, messages: int, every: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "SNAPSHOT_EVERY", every)
        patch.setattr(Replay, "_due", every)
        lab = ghost.played(seed, messages).lab
        told = state(lab.replay)
        for role, resumes in FOLLOWERS.items():
            assert followed(lab.entries, random.Random(f"{seed} {role}"), resumes) == told, role
        assert audited(lab) == told


def test_one_entry_more_or_less_is_seen_in_the_digest() -> None:
    """The positive control: a digest that all have in common says something."""
    history = ghost.played(7, 60)
    replay, seen = Replay(), []
    for data in history.lab.entries:
        before = replay.authority.digest()
        entry = replay.apply(data)
        seen.append(replay.authority.digest() != before)
        assert entry.void is None or not seen[-1], "a void entry changed the state"
    assert sum(seen) > 10


def test_the_digest_depends_on_no_process() -> None:
    """Python orders sets by a seed that each process draws; the state's bytes must not show it."""
    here = Path(__file__).resolve().parent
    program = "import ghost; print(ghost.played(3, 80).lab.replay.authority.digest())"
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1
