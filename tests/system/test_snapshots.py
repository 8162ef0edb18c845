"""Real services say, keep and start from snapshots of their state, and a forged one changes nothing but the start.

Their log begins with a random history, which they find when they start: controller, gateway, node and monitor, each
with all that it does with entries besides folding them, a stranger and the verifier reach one state.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from puppet import WAIT, puppet
from stand import Stand, until

from ironbound.core.canonical import sha256_hex
from ironbound.core.checkpoint import Checkpoint, sign_checkpoint
from ironbound.core.keys import PrivateKey
from ironbound.core.merkle import Tree, leaf_hash
from ironbound.core.note import Signer
from ironbound.core.replay import Entry, Replay
from ironbound.core.request import encode_request
from ironbound.core.snapshot import SNAPSHOT_EVERY
from ironbound.core.statement import Subject, parse_statement
from ironbound.ledger.store import Head, Store
from ironbound.terminal import operators
from ironbound.verifier.verify import verify_bundle
from ironbound.wire import log as wire
from ironbound.wire.log import Log, now_ms
from verifier.lab import ROLES, Lab

sys.path.append(str(Path(__file__).resolve().parents[1] / "core"))

import ghost

KEEPERS = ("controller", "gateway", "node")
AT_ONCE = 256


def in_place_of(stand: Stand, role: str, work: Callable[[Log], Awaitable[None]], ahead_ms: int = 0) -> None:
    """Do something with a service's key, in a process of its user, since the ledger looks at who sends."""
    pem, uid = (stand.root / "keys" / f"{role}.pem").read_bytes(), stand.deployment.uid(role)

    async def speak() -> None:
        log = Log(stand.deployment, PrivateKey.from_pem(pem, None))
        await log.start()
        await work(log)
        await log.close()

    child = os.fork()
    if child == 0:
        status = 1
        try:
            if uid != os.getuid():
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            wire.now_ms = lambda: time.time_ns() // 1_000_000 + ahead_ms
            asyncio.run(speak())
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def grow(stand: Stand, entries: int) -> None:
    """Say so many denials in the gateway's place."""

    async def say(log: Log, number: int) -> None:
        fields = {"agent": "a", "launch": 0, "tool": "t", "reason": "no-such-grant", "text": "", "args_sha256": None}
        await log.append("action-denied", (Subject("x", sha256_hex(b"x")),), {**fields, "wants": None}, timeout_s=60)

    async def work(log: Log) -> None:
        for first in range(0, entries, AT_ONCE):
            await asyncio.gather(*(say(log, one) for one in range(first, min(entries, first + AT_ONCE))))

    in_place_of(stand, "gateway", work)


def lived(stand: Stand, seed: int, steps: int) -> ghost.History:
    """A random history under the deployment's own keys, put into its log as whoever owns the ledger could."""
    lab = Lab(now=time.time_ns() // 1_000_000 - 6 * 3_600_000, environment="test")
    lab.humans = {"ada": stand.keys["ada"], "bob": stand.keys["bo"]}
    lab.services = {role: stand.deployment.key(role) for role in ROLES}
    lab.entries, lab.said, lab.replay = [], [], Replay()
    lab.append(stand.deployment.trust.envelope.encode())
    history = ghost.played(seed, steps, lab)
    write(stand, lab.entries)
    return history


def write(stand: Stand, entries: Iterable[bytes]) -> None:
    """The whole log, in the database of a ledger that does not run; nobody looks at what its entries say."""
    tree, rows = Tree(), []
    for index, entry in enumerate(entries):
        tree.append(leaf_hash(entry))
        rows.append((index.to_bytes(8, "big"), entry))
    origin = stand.deployment.trust.origin
    note = sign_checkpoint(Checkpoint(origin, tree.size, tree.root()), Signer(origin, stand.deployment.key("ledger")))
    store = Store.open(str(stand.root / "ledger" / "ledger.db"))
    try:
        with store.transaction() as transaction:
            transaction.insert(1, rows[1:])
            transaction.advance(store.head(), Head(tree.size, tree.root(), note))
    finally:
        store.close()


def named(stand: Stand, role: str) -> str:
    path = stand.root / "artifacts" / role / "snapshot"
    return path.read_text().strip() if path.exists() else ""


def beginnings(stand: Stand, start: int) -> dict[str, Any]:
    """Where each service's fold began, as it said at its start since that entry."""
    roles = (*KEEPERS, "monitor")
    said = {role: stand.await_entry("service-started", start, role=role).predicate["host"]["log"] for role in roles}
    return {role: (one["size"], one["digest"], one["refused"]) for role, one in said.items()}


def again(stand: Stand, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Stop all, do something, start all: where they began."""
    size = stand.sync()
    stand.stop()
    meanwhile()
    stand.start()
    return beginnings(stand, size)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_services_have_one_state_and_start_from_it_unless_it_is_forged(
    fresh: Callable[..., Stand], tmp_path: Path
) -> None:
    stand = fresh(name="lab")
    happened = lived(stand, 5, 200).happened
    assert len(happened) > 20, "little happened"
    stand.start()
    stand.config = stand.approve_profile()
    rate = {"calls": 5, "window_ms": 60_000}
    payload = stand.build("quota", agent="ant", body={"before": None, "after": rate})
    asked = stand.sign(payload)
    operators.submit(stand.deployment, asked)
    grow(stand, SNAPSHOT_EVERY)
    words = {one.role: one for one in until_both(stand)}
    assert words.keys() == {"controller", "monitor"}
    digest = words["controller"].predicate["state_sha256"]
    assert {one.predicate["state_sha256"] for one in words.values()} == {digest}
    assert all(one.void is None and one.predicate["size"] == SNAPSHOT_EVERY for one in words.values())
    for role in KEEPERS:
        until(f"the {role} keeps its snapshot", lambda role=role: named(stand, role) == digest)  # type: ignore[misc]
    mark = stand.log.with_state(lambda replay: replay.mark)
    assert mark is not None and mark.digest == digest, "a stranger who folds every entry has another state"

    bundle = tmp_path / "bundle"
    assert stand.command("evidence", "export", "-o", str(bundle)).returncode == 0
    with bundle.open("rb") as file:
        claim = next(one for one in verify_bundle(file, stand.deployment.trust.pin).claims if one.id == "C1")
    assert claim.counts["snapshots said"] == 2, "the verifier has another state"

    begun = again(stand)
    for role in KEEPERS:
        assert begun[role] == (SNAPSHOT_EVERY, digest, None)
    assert begun["monitor"] == (0, None, None), "the monitor folds every entry"
    with pytest.raises(operators.Refusal, match="head-stale"):
        operators.submit(stand.deployment, asked)
    other = {"before": rate, "after": None}
    operators.submit(stand.deployment, stand.sign(stand.build("quota", agent="ant", body=other)))

    begun = again(stand, lambda: forge(stand, digest, mark.data))
    assert begun["controller"] == (0, None, "snapshot-damaged")
    assert begun["gateway"] == (0, None, "snapshot-not-that-said")
    assert begun["node"] == (0, None, "snapshot-damaged")
    with pytest.raises(operators.Refusal, match="request-replayed"):
        operators.submit(stand.deployment, asked)


@pytest.mark.slow
def test_a_controller_that_dates_its_word_ahead_starts_nothing_before_its_time(fresh: Callable[..., Stand]) -> None:
    stand = fresh()
    stand.start()
    stand.config = stand.approve_profile()
    module = stand.approve_module(puppet(WAIT))
    about = {"agent": "ant", "module": module, "config": stand.config}
    said = dict(parse_statement(stand.build("launch-request", **about)).predicate)
    later = {"not_before_ms": now_ms() + 600_000, "expires_ms": now_ms() + 1_200_000}
    asked = stand.sign(encode_request("launch-request", said | later))
    with pytest.raises(operators.Refusal, match="request-too-early"):
        operators.submit(stand.deployment, asked)

    async def admit(log: Log) -> None:
        fields = {"request": asked.request.as_value(), "approvals": [one.as_value() for one in asked.approvals]}
        entry = await log.append("admitted", (Subject("request", asked.request.digest),), fields)
        assert entry.void is None, "the log alone can't know"

    in_place_of(stand, "controller", admit, ahead_ms=601_000)
    refused = stand.await_entry("launch-refused", agent="ant")
    assert (refused.void, refused.predicate["reason"]) == (None, "clock-ahead")
    assert not stand.entries("started", agent="ant")


def until_both(stand: Stand) -> list[Entry]:
    return until("both voices say it", lambda: found if len(found := stand.entries("snapshot")) >= 2 else None)


def forge(stand: Stand, digest: str, data: bytes) -> None:
    """A quota lifted in the gateway's whole state, under its own right digest; the node's under the digest that was
    said; the controller's cut."""
    forged = Replay.resumed(data)
    forged._authority._state["quota_every"].clear()
    lie = forged.snapshot()
    assert sha256_hex(lie) != digest
    folder = stand.root / "artifacts"
    place(folder / "gateway" / "sha256" / sha256_hex(lie), lie)
    place(folder / "gateway" / "snapshot", sha256_hex(lie).encode() + b"\n")
    place(folder / "node" / "sha256" / digest, lie)
    place(folder / "controller" / "sha256" / digest, data[:-1])


def place(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o644)
