"""The order of entries: commit, mark, witness, stream, publish, answer.

Decides which index an entry gets and when its proof may leave; not who may say what (`intake`).

Rule 1: (1) entries, statement ids and the log-signed checkpoint are committed in one transaction;
(2) then the witness is asked, and while it thinks the high-water mark is made durable and tiles are written;
(3) then streams go on; (4) then the cosigned checkpoint is put in place; (5) then proofs are answered.
No signature leaves the process before (1), and none goes to anybody but the witness before all of (2).
What is durable after (2) is all that anybody may rely on: the file of (4) is for readers, and whoever has an answer
finds it there. The next batch is committed while the last ones are published; what was committed meanwhile is
published together. Both stages handle one thing at a time, in order.
Rule 2: the high-water mark is written after the commit: a crash between the two leaves a database that is
ahead of the mark, which is no alarm; whatever has left the process is at or below the mark or, if the crash
came within (2), at or below what the witness holds. A restored backup is behind one of the two.
Rule 3: nothing is committed before the witness has confirmed, once since the start, that it knows of no
tree beyond ours. While it is away after that, entries are durable, but answered not-witnessed.
Rule 4: a statement key that is there already gets its first index, if the bytes are the same.
Rule 5: any failure to write ends the ledger; the next start recovers by the same steps (2) to (5).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from ironbound.core.canonical import FormatError
from ironbound.core.checkpoint import Checkpoint, sign_checkpoint
from ironbound.core.keys import SignatureInvalid
from ironbound.core.merkle import Tree
from ironbound.core.note import Signer, add_lines, parse_signature_lines
from ironbound.core.policy import PolicyUnmet
from ironbound.core.tlogproof import encode_proof
from ironbound.wire.cosigner import CosignerClient, WitnessAhead, WitnessAway, WitnessRefused
from ironbound.wire.durable import DurableRecord
from ironbound.wire.frames import encode_frame

from .intake import Append, Refused
from .publish import Publisher, disk_failure
from .settings import DiskFailed, LedgerRefused, LedgerSettings
from .store import Head, Store

#: Entries in one batch at most.
MAX_BATCH: Final = 512
#: Seconds between two questions to a witness that is away: first and longest.
RETRY_FIRST_S: Final = 0.05
RETRY_LONGEST_S: Final = 1.0
#: Entries after which the WAL (two pages of 4 KiB each, about) is copied into the database.
TIDY_ENTRIES: Final = 4096
#: Bytes of recent entries kept in memory for streams.
RECENT_BYTES: Final = 16 << 20

Answer = Callable[[bytes], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint that meets the witness policy, with its size. What it covers is durable."""

    size: int
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class _Waiting:
    append: Append
    answer: Answer

    def refuse(self, code: str, message: str) -> None:
        self.answer(encode_frame(Refused(self.append.seq, code, message).frame()))


@dataclass(frozen=True, slots=True)
class _Committed:
    """A batch that is durable: each entry's index or refusal, the new entries, and the head after them."""

    waiting: Sequence[_Waiting]
    places: Sequence[int | Refused]
    fresh: Sequence[bytes]
    head: Head


class Sequencer:
    """One log's only writer. `run` is its life; `published` what everybody may know."""

    def __init__(
        self,
        settings: LedgerSettings,
        *,
        store: Store,
        tree: Tree,
        mark: DurableRecord,
        publisher: Publisher,
        cosigner: CosignerClient,
        say: Callable[[str], None],
    ) -> None:
        self._policy = settings.policy
        self._known = {(one.key.name, one.key.key_id) for one in settings.policy.witnesses}
        self._signer = Signer(settings.origin, settings.log_key)
        self._store = store
        self._beside = store.beside()
        self._tidier = store.beside()
        self._tree = tree
        self._mark = mark
        self._publisher = publisher
        self._cosigner = cosigner
        self._say = say
        self._head = store.head()  # what is committed; the committing stage's
        self._tip = self._head  # what is being published; the publishing stage's
        self._marked = False  # whether the high-water mark is at the tip
        self._confirmed = False
        self._witness_size = 0
        self._away = ""  # why the witness's word is missing, while it is
        self._queue: deque[_Waiting] = deque()
        self._committing: Sequence[_Waiting] = ()
        self._committed: list[_Committed] = []
        self._publishing: list[_Committed] = []
        self._wake = asyncio.Event()
        self._ripe = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._growth: dict[int, asyncio.Future[None]] = {}  # by rank
        self._recent: list[bytes] = []
        self._recent_first = self._head.size
        self._recent_bytes = 0
        self._writer = ThreadPoolExecutor(1, "commit")
        self._publishers = ThreadPoolExecutor(1, "publish")
        self._reader = ThreadPoolExecutor(1, "read")
        self._tidiers = ThreadPoolExecutor(1, "tidy")
        self._tidying: asyncio.Task[None] | None = None
        self._untidy = 0
        self.published: Published | None = None

    def submit(self, append: Append, answer: Answer) -> None:
        """Queues an entry; `answer` is called once, in the event loop, with an encoded frame."""
        self._queue.append(_Waiting(append, answer))
        self._wake.set()

    async def published_beyond(self, size: int, rank: int) -> Published:
        """What is published, once it is more than `size` entries. Of those who wait, the lowest rank goes on first."""
        while self.published is None or self.published.size <= size:
            if rank not in self._growth:
                self._growth[rank] = self._loop.create_future()
            await asyncio.shield(self._growth[rank])
        return self.published

    async def read(self, first: int, limit: int) -> Sequence[bytes]:
        """At least one and at most `limit` entries from `first`, which must be published."""
        offset = first - self._recent_first
        if offset >= 0:
            return self._recent[offset : offset + limit]
        return await self._in(self._reader, lambda: self._beside.read(first, limit))

    async def run(self) -> None:
        """Sequences until it is cancelled; raises DiskFailed or LedgerRefused when it must not go on."""
        stages = [asyncio.ensure_future(self._commit_always()), asyncio.ensure_future(self._publish_always())]
        try:
            done, _ = await asyncio.wait(stages, return_when=asyncio.FIRST_COMPLETED)
            for stage in done:
                stage.result()
        except (DiskFailed, LedgerRefused) as error:
            code = error.code if isinstance(error, DiskFailed) else "not-witnessed"
            committed = [one for batch in (*self._publishing, *self._committed) for one in batch.waiting]
            for waiting in (*committed, *self._committing, *self._queue):
                waiting.refuse(code, str(error))
            raise
        finally:
            for stage in stages:
                stage.cancel()
            await asyncio.gather(*stages, return_exceptions=True)

    async def _commit_always(self) -> None:
        while True:
            await self._wake.wait()
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            if not self._queue:
                self._wake.clear()
            if not self._confirmed:  # Rule 3
                for waiting in batch:
                    waiting.refuse("not-witnessed", f"nothing is logged before the witness answers: {self._away}")
                continue
            self._committing = batch
            committed = await self._in(self._writer, partial(self._commit, batch))
            self._committed.append(committed)
            self._committing = []
            self._ripe.set()
            self._tidy(len(committed.fresh))

    async def _publish_always(self) -> None:
        # The first turn publishes what the database held at the start: the same steps as after a commit.
        delay = RETRY_FIRST_S
        while True:
            self._publishing, self._committed = self._committed, []
            fresh = [entry for batch in self._publishing for entry in batch.fresh]
            if self._publishing:
                self._tip = self._publishing[-1].head
                self._marked = self._marked and not fresh
            self._remember(fresh)
            if self.published is None or self.published.size != self._tip.size:
                await self._in(self._publishers, partial(self._publish, self._tip, fresh))
            for batch in self._publishing:
                self._answer(batch)
            self._publishing = []
            delay = min(2 * delay, RETRY_LONGEST_S) if self._away else RETRY_FIRST_S
            try:
                async with asyncio.timeout(delay if self._away else None):
                    await self._ripe.wait()
            except TimeoutError:
                continue
            self._ripe.clear()

    def close(self) -> None:
        """Waits for what is being written, and closes the files."""
        self._cosigner.interrupt()
        for pool in (self._writer, self._publishers, self._reader, self._tidiers):
            pool.shutdown(wait=True)
        for store in (self._tidier, self._beside, self._store):
            store.close()
        self._cosigner.close()
        self._mark.close()

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _commit(self, batch: Sequence[_Waiting]) -> _Committed:
        # (1). If we crash in here, nothing of the batch is there and nobody has been told otherwise.
        old, tree = self._head, self._tree
        places: list[int | Refused] = []
        fresh: list[bytes] = []
        new = old
        try:
            with self._store.transaction() as transaction:
                known = transaction.find([waiting.append.key for waiting in batch])
                added: list[tuple[bytes, bytes]] = []
                for waiting in batch:
                    append = waiting.append
                    found = known.get(append.key)
                    if found is None:
                        index = tree.append(append.leaf)
                        known[append.key] = (index, append.entry)
                        added.append((append.key, append.entry))
                        fresh.append(append.entry)
                        places.append(index)
                    elif found[1] == append.entry:  # Rule 4
                        places.append(found[0])
                    else:
                        message = f"this statement id was used for entry {found[0]}, which says something else"
                        places.append(Refused(append.seq, "id-conflict", message))
                if fresh:
                    transaction.insert(old.size, added)
                    checkpoint = Checkpoint(self._signer.name, tree.size, tree.root())
                    new = Head(tree.size, checkpoint.root, sign_checkpoint(checkpoint, self._signer))
                    transaction.advance(old, new)
        except (DiskFailed, LedgerRefused):
            tree.truncate(old.size)
            raise
        self._head = new
        return _Committed(batch, places, fresh, new)

    def _publish(self, head: Head, fresh: Sequence[bytes]) -> None:
        # (2) to (4), in the publishing thread. If we crash in here, the next start does it again from the database.
        self._ask(head)
        try:
            if not self._marked:
                self._mark.replace(head.note)
        except OSError as error:
            raise disk_failure(error) from error
        self._marked = True
        if fresh:
            self._publisher.extend(self._tree, head.size, fresh)
        signed = self._cosign(head)
        if signed is None:
            return
        self._loop.call_soon_threadsafe(self._stream, Published(head.size, signed))  # (3)
        self._publisher.checkpoint(signed)  # (4)

    def _stream(self, published: Published) -> None:
        self.published = published
        self._confirmed = True
        growth, self._growth = self._growth, {}
        for rank in sorted(growth):
            growth[rank].set_result(None)

    def _ask(self, head: Head) -> None:
        old = self._witness_size
        self._cosigner.ask(old, self._tree.consistency_proof(old, head.size), head.note)

    def _cosign(self, head: Head) -> bytes | None:
        for _ in range(3):
            old = self._witness_size
            try:
                lines = self._cosigner.answer()
            except WitnessAhead as held:
                if held.size > head.size:
                    message = f"the witness has cosigned {held.size} entries, the database has {head.size}"
                    raise LedgerRefused("rollback", message) from held
                if held.size == old == head.size:
                    message = f"the witness has cosigned another tree of {head.size} entries"
                    raise LedgerRefused("fork", message) from held
                self._witness_size = held.size
                self._ask(head)
            except WitnessRefused as refusal:
                if refusal.status == 422:
                    message = f"the witness holds a tree of {old} entries that is no prefix of ours"
                    raise LedgerRefused("fork", message) from refusal
                return self._lost(str(refusal))
            except WitnessAway as away:
                return self._lost(str(away))
            else:
                self._witness_size = head.size
                return self._cosigned(head, lines)
        return self._lost("the witness keeps changing its mind about its size")

    def _cosigned(self, head: Head, lines: bytes) -> bytes | None:
        try:
            wanted = [one for one in parse_signature_lines(lines) if (one.name, one.key_id) in self._known]
            signed = add_lines(head.note, wanted)
            self._policy.verify(signed)
        except (FormatError, SignatureInvalid, PolicyUnmet) as error:
            return self._lost(f"its answer doesn't meet the witness policy: {error}")
        if self._away:
            self._say("the witness is back")
            self._away = ""
        return signed

    def _lost(self, reason: str) -> bytes | None:
        if not self._away:
            self._say(f"the witness is away: {reason}")
        self._away = reason
        return None

    def _answer(self, batch: _Committed) -> None:
        published = self.published
        for waiting, place in zip(batch.waiting, batch.places, strict=True):
            seq = waiting.append.seq
            if isinstance(place, Refused):
                waiting.answer(encode_frame(place.frame()))
            elif published is None or place >= published.size:
                waiting.refuse("not-witnessed", f"the entry is durable, its checkpoint not witnessed: {self._away}")
            else:
                path = self._tree.inclusion_proof(place, published.size)
                proof = encode_proof(place, path, published.checkpoint).decode()
                waiting.answer(encode_frame({"seq": seq, "ok": True, "index": place, "proof": proof}))

    def _remember(self, fresh: Sequence[bytes]) -> None:
        self._recent += fresh
        self._recent_bytes += sum(map(len, fresh))
        if self._recent_bytes > RECENT_BYTES:
            half = len(self._recent) // 2
            self._recent_bytes -= sum(map(len, self._recent[:half]))
            self._recent_first += half
            del self._recent[:half]

    def _tidy(self, grown: int) -> None:
        self._untidy += grown
        if self._untidy < TIDY_ENTRIES or (self._tidying is not None and not self._tidying.done()):
            return
        self._untidy = 0
        self._tidying = asyncio.create_task(self._tidy_both())

    async def _tidy_both(self) -> None:
        # Most of the WAL is copied beside the commits; the rest between two of them, so that it starts over.
        await self._in(self._tidiers, self._tidier.tidy)
        await self._in(self._writer, self._store.tidy)
