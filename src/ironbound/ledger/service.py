"""A ledger's birth (`create`) and life (`serve`).

Decides whether the state that is found may be gone on from, in this order: (1) the database is there and
whole: no gap, and its root is that of its entries; (2) its checkpoint is signed by the log's key; (3) it is
not behind the high-water mark, nor behind the checkpoint that was published last, and both are prefixes of
it; (4) the witness, asked by the sequencer before anything is committed, knows of no tree beyond it.

Rule 1: nothing that is missing is made; only `create` makes, and only where nothing is.
Rule 2: (1) to (4) hold, or the ledger ends with LedgerRefused (exit status 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ironbound.core.canonical import FormatError
from ironbound.core.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ironbound.core.envelope import parse_envelope
from ironbound.core.keys import SignatureInvalid
from ironbound.core.merkle import Tree, leaf_hash
from ironbound.core.note import Signer, VerifierKey
from ironbound.wire.cosigner import CosignerClient
from ironbound.wire.durable import DurableRecord, RecordLost, sync_directory
from ironbound.wire.loopback import LoopbackServer

from .checker import Checker, CheckerLost
from .intake import Intake
from .publish import Publisher
from .readside import read_app
from .sequencer import Sequencer
from .server import WriteServer
from .settings import DiskFailed, LedgerRefused, LedgerSettings
from .store import Head, Store

#: Processes that check what arrives, at most; one core is left to the sequencer.
MAX_CHECKERS: Final = 4


def create(settings: LedgerSettings, genesis_entry: bytes) -> None:
    """A new log whose entry 0 is the trust root's envelope; LedgerRefused if one is there.

    The entry's signatures are the operators', and for the caller to verify; here it must be an envelope.
    """
    parse_envelope(genesis_entry)
    tree = Tree()
    tree.append(leaf_hash(genesis_entry))
    checkpoint = Checkpoint(settings.origin, 1, tree.root())
    note = sign_checkpoint(checkpoint, Signer(settings.origin, settings.log_key))
    for directory in (settings.state_dir, settings.public_dir, os.path.dirname(settings.socket_path) or "."):
        os.makedirs(directory, exist_ok=True)
    try:
        Store.create(settings.database, genesis_entry, Head(1, checkpoint.root, note))
        DurableRecord.create(settings.high_water, note)
        sync_directory(settings.state_dir)
    except FileExistsError as error:
        raise LedgerRefused("exists", f"{error.filename} is there already") from error


def _signed(data: bytes, log: VerifierKey, what: str) -> Checkpoint:
    try:
        checkpoint, _ = open_checkpoint(data, log)
    except (FormatError, SignatureInvalid) as error:
        raise LedgerRefused("damaged", f"{what}: {error}") from error
    return checkpoint


def _not_behind(tree: Tree, known: Checkpoint, what: str) -> None:
    if known.size > tree.size:
        raise LedgerRefused("rollback", f"{what} is at {known.size} entries, the database has {tree.size}")
    if tree.root_at(known.size) != known.root:
        raise LedgerRefused("fork", f"{what}, at {known.size} entries, is not a prefix of the database")


def recover(settings: LedgerSettings, store: Store, mark: DurableRecord, publisher: Publisher) -> Tree:
    """The tree of the database's entries, once (1) to (3) hold; brings the tiles to what it says."""
    log = Signer(settings.origin, settings.log_key).verifier()
    head = store.head()
    tree = Tree()

    def leaves() -> Iterator[bytes]:
        for entry in store.scan():
            tree.append(leaf_hash(entry))
            yield entry

    for _ in leaves():  # (1), before a single file is touched
        pass
    if (tree.size, tree.root()) != (head.size, head.root):
        raise LedgerRefused("damaged", f"the head says {head.size} entries, the {tree.size} found have another root")
    checkpoint = _signed(head.note, log, "the head's checkpoint")  # (2)
    if (checkpoint.size, checkpoint.root) != (head.size, head.root):
        raise LedgerRefused("damaged", "the head's checkpoint is for another tree")
    _not_behind(tree, _signed(mark.record, log, "the high-water mark"), "the high-water mark")  # (3)
    published = publisher.found()
    if published:
        _not_behind(tree, _signed(published, log, "the published checkpoint"), "the published checkpoint")
    publisher.restore(tree, store.scan())
    return tree


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # the disk with the service's log may be the one that is full
        print(f"ledger: {message}", file=sys.stderr, flush=True)


async def serve(
    settings: LedgerSettings,
    *,
    ready: Callable[[int], None] | None = None,
    stop: asyncio.Event | None = None,
    say: Callable[[str], None] = _say,
) -> None:
    """Runs the ledger until `stop` is set; raises LedgerRefused or DiskFailed when it must not go on.

    `ready` is called with the read side's port once both sides listen. That the witness has confirmed the
    head is not waited for: until then, appends are answered not-witnessed. Call it before any thread is
    started: it forks.
    """
    intake = Intake(settings)
    checkers = [Checker(intake) for _ in range(max(1, min(MAX_CHECKERS, (os.cpu_count() or 1) - 1)))]
    try:
        await _serve(settings, intake, checkers, ready, stop, say)
    finally:
        for checker in checkers:
            await checker.close()


async def _serve(
    settings: LedgerSettings,
    intake: Intake,
    checkers: Sequence[Checker],
    ready: Callable[[int], None] | None,
    stop: asyncio.Event | None,
    say: Callable[[str], None],
) -> None:
    for checker in checkers:
        await checker.start()
    try:
        mark = DurableRecord.open(settings.high_water)
    except RecordLost as error:
        raise LedgerRefused("missing", str(error)) from error
    store = Store.open(settings.database)
    publisher = Publisher(settings.public_dir)
    tree = await asyncio.to_thread(recover, settings, store, mark, publisher)
    sequencer = Sequencer(
        settings,
        store=store,
        tree=tree,
        mark=mark,
        publisher=publisher,
        cosigner=CosignerClient(settings.witness, settings.witness_uid),
        say=say,
    )
    roles = {voice.uid: voice.role for voice in settings.voices.values()}
    server = WriteServer(intake, checkers, sequencer, roles, time.monotonic)
    reading: LoopbackServer | None = None
    tasks: list[asyncio.Future[None]] = []
    try:
        reading = await LoopbackServer.start(read_app(settings.public_dir), settings.read_port)
        await server.listen(settings.socket_path)
        lost = (asyncio.ensure_future(checker.lost()) for checker in checkers)
        tasks = [asyncio.ensure_future(sequencer.run()), server.failed, *lost]
        if stop is not None:
            tasks.append(asyncio.ensure_future(_until(stop)))
        if ready is not None:
            ready(reading.port)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()
        if reading is not None:
            await reading.close()
        sequencer.close()


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


__all__ = ["CheckerLost", "DiskFailed", "LedgerRefused", "create", "recover", "serve"]
