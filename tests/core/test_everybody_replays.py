"""Whoever folds a log reaches the same state, by the digest of its bytes: services that follow it, and the verifier."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ghost
import pytest

from ironbound.core.canonical import b64encode
from ironbound.core.replay import Replay
from ironbound.verifier.bundle import Bundle
from ironbound.verifier.verify import _check_names, _replay
from ironbound.wire.log import Log

#: Whatever a service asks of the state between two entries; none of it may change anything.
ASKS = (
    lambda replay: replay.holds("ant"),
    lambda replay: replay.grant_named("bee", "read"),
    lambda replay: replay.approval_of("ab" * 16, {}),
    lambda replay: [replay.lives(one, 0) for one in replay.books.grants],
    lambda replay: replay.authority.digest(),
)


def followed(history: Any, chance: random.Random) -> str:
    """As controller, gateway, node and monitor do it: in batches of any size, asking on the way."""
    log = Log(SimpleNamespace(trust=history.lab.replay.trust), None)  # type: ignore[arg-type]
    at = 0
    while at < len(history.lab.entries):
        batch = history.lab.entries[at : at + chance.randint(1, 40)]
        log._fold({"first": at, "entries": [b64encode(one) for one in batch]})
        at += len(batch)
        chance.choice(ASKS)(log.replay)
    return log.replay.authority.digest()


def audited(history: Any) -> str:
    """As the verifier does it: from the tiles of a bundle."""
    bundle = Bundle(io.BytesIO(history.lab.bundle()))
    return _replay(bundle, _check_names(bundle, history.lab.replay.size), None).replay.authority.digest()


@pytest.mark.parametrize("seed", range(4))
def test_services_and_verifier_reach_the_same_state(seed: int) -> None:
    history = ghost.played(100 + seed, 120)
    chance = random.Random(seed)
    told = history.lab.replay.authority.digest()
    assert {followed(history, chance) for _ in ("controller", "gateway", "node", "monitor")} == {told}
    assert audited(history) == told


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
