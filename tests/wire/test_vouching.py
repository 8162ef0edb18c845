"""What a service doesn't start from: a snapshot that isn't its own log's, or that two voices didn't say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from ironbound.core import snapshot as snapshots
from ironbound.core.canonical import b64encode
from ironbound.core.replay import Replay
from ironbound.core.snapshot import Head, read_head
from ironbound.terminal.init import initialise
from ironbound.wire.deployment import Deployment
from ironbound.wire.snapshots import SnapshotRefused, keep, kept, require_vouched
from verifier.lab import Lab, digest_of, honest

BOTH = ("controller", "monitor")
FORGED: dict[str, Any] = {"state_sha256": digest_of("forged")}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A log in which a snapshot is due."""
    monkeypatch.setattr(snapshots, "SNAPSHOT_EVERY", 16)
    monkeypatch.setattr(Replay, "_due", 16)
    made = honest().lab
    while made.replay.mark is None:
        made.say("controller", "refused", submission_sha256=digest_of("s"), reason="x", detail="", verb=None)
    return made


def due(lab: Lab) -> tuple[Head, dict[str, Any]]:
    mark = lab.replay.mark
    assert mark is not None
    said = {"size": mark.size, "root": b64encode(mark.root), "state_sha256": mark.digest}
    return read_head(mark.data), said


def vouched(lab: Lab, head: Head, entries: Iterable[bytes] | None = None) -> None:
    async def later() -> AsyncIterator[bytes]:
        for data in lab.entries[head.size :] if entries is None else entries:
            yield data

    asyncio.run(require_vouched(lab.replay.trust, head, later()))


def test_a_snapshot_that_both_voices_said_is_started_from(lab: Lab) -> None:
    head, said = due(lab)
    for role in BOTH:
        lab.say(role, "snapshot", **said)
    vouched(lab, head)


def test_a_snapshot_that_nobody_said_is_not_started_from(lab: Lab) -> None:
    head, _ = due(lab)
    with pytest.raises(SnapshotRefused, match="snapshot-unsaid"):
        vouched(lab, head)


@pytest.mark.parametrize("role", BOTH)
def test_one_voice_is_not_enough_however_often_it_says_it(lab: Lab, role: str) -> None:
    head, said = due(lab)
    for _ in range(2):
        lab.say(role, "snapshot", **said)
    with pytest.raises(SnapshotRefused, match="snapshot-of-one-voice"):
        vouched(lab, head)


@pytest.mark.parametrize("role", ["gateway", "node"])
def test_a_voice_that_vouches_for_nothing_stands_in_for_none_that_does(lab: Lab, role: str) -> None:
    head, said = due(lab)
    lab.say("controller", "snapshot", **said)
    lab.say(role, "snapshot", **said)
    with pytest.raises(SnapshotRefused, match="snapshot-of-one-voice"):
        vouched(lab, head)


def test_a_word_under_a_signature_that_is_not_its_own_counts_for_nothing(lab: Lab) -> None:
    head, said = due(lab)
    begin = len(lab.entries)
    for role in BOTH:
        lab.say(role, "snapshot", **said)
    before, mark, after = zip(*(one.partition(b'"sig":"') for one in lab.entries[begin:]), strict=True)
    forged = [a + b + (b"B" if c[:1] == b"A" else b"A") + c[1:] for a, b, c in zip(before, mark, after, strict=True)]
    with pytest.raises(SnapshotRefused, match="snapshot-unsaid"):
        vouched(lab, head, forged)


@pytest.mark.parametrize("liar", BOTH)
def test_voices_that_say_two_states_vouch_for_none(lab: Lab, liar: str) -> None:
    head, said = due(lab)
    for role in BOTH:
        lab.say(role, "snapshot", **said | (FORGED if role == liar else {}))
    with pytest.raises(SnapshotRefused, match="snapshot-not-that-said"):
        vouched(lab, head)


def snapshot_of(deployment: Deployment) -> bytes:
    """The state after the first entry of its log."""
    replay = Replay()
    replay.apply(deployment.trust.envelope.encode())
    return replay.snapshot()


def test_a_snapshot_of_this_log_is_kept_and_found_and_one_ahead_of_it_refused(deployment: Deployment) -> None:
    data = snapshot_of(deployment)
    keep(deployment, "node", data)
    found = kept(deployment, "node", 1)
    assert found is not None and found[1] == data
    with pytest.raises(SnapshotRefused, match="snapshot-ahead-of-log"):
        kept(deployment, "node", 0)


def test_a_snapshot_of_another_deployment_is_refused_also_of_one_with_the_same_name(
    deployment: Deployment, lab: Lab, tmp_path: Path
) -> None:
    tmp_path.chmod(0o711)
    twin = initialise(tmp_path / "d", deployment.trust.deployment, [("ada", b"phrase")], 1)
    assert twin.trust.deployment == deployment.trust.deployment
    for data in (lab.replay.snapshot(), snapshot_of(twin)):
        keep(deployment, "node", data)
        with pytest.raises(SnapshotRefused, match="snapshot-of-another-deployment"):
            kept(deployment, "node", 1000)
