"""A service's side of the log: says statements, follows what everybody said, and folds it.

Decides that nothing is acted on before it stands under a checkpoint that the log signed and the witness
quorum cosigned, and whose root is that of the very entries folded here. What an entry means, `core.replay`
decides. Source: 3-formats, "Log before act".

Rule 1: `append` returns only when the statement came back in the followed log, under a witnessed checkpoint.
Rule 2: entries are handed on in order, each once, and only after Rule 1 holds for them.
Rule 3: a log that contradicts what was folded ends the service (`LogBroken`); there is no going on. A stream that
        ends is no contradiction: it is followed again from where it ended, within a batch too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from ironbound.core.canonical import FormatError, b64decode, b64encode
from ironbound.core.checkpoint import Checkpoint
from ironbound.core.envelope import Envelope, sign_envelope
from ironbound.core.keys import PrivateKey, SignatureInvalid
from ironbound.core.policy import PolicyUnmet
from ironbound.core.replay import Entry, Replay
from ironbound.core.statement import Subject, encode_statement

from .deployment import Deployment
from .frames import Frame, receive_frame, send_frame
from .snapshots import Beginning, SnapshotRefused, kept, require_vouched, resumed

#: How long an append keeps trying while the ledger or the witness is away.
APPEND_TIMEOUT_S: Final = 30.0
RETRY_S: Final = 0.05
#: Seconds to hear at the start that a snapshot was vouched for.
VOUCHED_S: Final = 30.0
#: Bytes of one frame of the follow stream: 256 entries of at most 65,535 bytes, in base64.
MAX_FOLLOW_FRAME: Final = 32 << 20
_AGAIN: Final = frozenset({"not-witnessed", "disk-full"})


class LogUnavailable(Exception):
    """The statement is not known to be in the log: whoever wanted to act on it must not."""


class AppendRefused(Exception):
    """The ledger refused the statement for good; `code` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class LogBroken(Exception):
    """The log contradicts itself, its signatures or what was folded before."""


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def fresh_id() -> str:
    """128 random bits in hexadecimal: a statement's id."""
    return os.urandom(16).hex()


class Log:
    """One service's connection to the log. Without a key it only follows."""

    def __init__(self, deployment: Deployment, key: PrivateKey | None) -> None:
        self.deployment = deployment
        self.replay = Replay()
        #: Where the fold began: from the log's first entry, or from a snapshot.
        self.beginning = Beginning()
        self._key = key
        self._listeners: list[Callable[[Entry], None]] = []
        self._waiting: dict[bytes, asyncio.Future[Entry]] = {}
        self._verified = 0
        self._fresh: list[Entry] = []  # folded, but not yet under a checkpoint
        self.checkpoint: Checkpoint | None = None
        self._grown = asyncio.Condition()
        self._link: _Link | None = None
        self._follower: asyncio.Task[None] | None = None

    @property
    def size(self) -> int:
        """Entries folded under a witnessed checkpoint."""
        return self._verified

    def listen(self, listener: Callable[[Entry], None]) -> None:
        """Call `listener` with each entry from now on, in order; it must not block."""
        self._listeners.append(listener)

    async def start(self, timeout_s: float = 60.0, answer_s: float = 60.0, own: str | None = None) -> None:
        """Follow the log and return once everything that it holds now is folded.

        `own`: the service whose own snapshot may stand in for the entries before it (`snapshots`); listeners hear of
        later ones only. LogUnavailable if no ledger answers within `answer_s`, or all is not folded after `timeout_s`.
        """
        began = asyncio.get_running_loop().time()
        deadline = began + timeout_s
        while True:
            try:
                answer = await self._ask({"op": "head"}, deadline)
                if answer.get("ok") is True:
                    size = answer["size"]
                    break
            except ConnectionError:
                pass
            if asyncio.get_running_loop().time() > min(deadline, began + answer_s):
                raise LogUnavailable("no ledger answers; is it running?")
            await asyncio.sleep(RETRY_S)
        if type(size) is not int:
            raise LogBroken("the head has no size")
        if own is not None:
            await self._resume(own, size)
        self._follower = asyncio.create_task(self._follow_always())
        await self.caught_up(size, deadline - asyncio.get_running_loop().time())

    async def caught_up(self, size: int, timeout_s: float = APPEND_TIMEOUT_S) -> None:
        """Wait until `size` entries are folded and verified."""
        try:
            async with asyncio.timeout(timeout_s), self._grown:
                while self._verified < size:
                    self._check_follower()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._grown.wait(), 0.5)
        except TimeoutError as error:
            raise LogUnavailable(f"the log did not reach size {size} in {timeout_s:.0f} s") from error

    async def refresh(self, timeout_s: float = APPEND_TIMEOUT_S) -> None:
        """Fold everything that the log holds by now. LogUnavailable if the ledger is away."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        try:
            answer = await self._ask({"op": "head"}, deadline)
        except ConnectionError as error:
            raise LogUnavailable(str(error)) from error
        size = answer.get("size")
        if answer.get("ok") is not True or type(size) is not int:
            raise LogUnavailable(f"no head: {str(answer.get('code'))[:50]}")
        await self.caught_up(size, deadline - loop.time())

    def signed(
        self, kind: str, subjects: tuple[Subject, ...], fields: Mapping[str, Any], *, statement_id: str | None = None
    ) -> Envelope:
        """A statement of this service's, with an id and the time, signed; it is not said by that.

        LogUnavailable without a key, FormatError if it isn't of its kind's shape.
        """
        if self._key is None:
            raise LogUnavailable("this follower has no voice")
        predicate = dict(fields)
        predicate["id"] = statement_id or fresh_id()
        predicate["deployment"] = self.deployment.trust.deployment
        predicate["at_ms"] = now_ms()
        return sign_envelope(encode_statement(kind, subjects, predicate), [self._key])

    async def append(
        self,
        kind: str,
        subjects: tuple[Subject, ...],
        fields: Mapping[str, Any],
        *,
        statement_id: str | None = None,
        timeout_s: float = APPEND_TIMEOUT_S,
    ) -> Entry:
        """Say it, and return the entry as folded: `void` tells whether it has an effect.

        LogUnavailable if it isn't durable and witnessed in time, AppendRefused if the ledger won't take it,
        FormatError if it isn't of its kind's shape. The same id is sent again on a retry, so nothing is said twice.
        """
        data = self.signed(kind, subjects, fields, statement_id=statement_id).encode()
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[Entry] = loop.create_future()
        self._waiting[data] = arrived
        deadline = loop.time() + timeout_s
        try:
            while not arrived.done():
                self._check_follower()
                refused = await self._submit(data, arrived, deadline)
                if arrived.done():
                    break
                if refused is None:
                    raise LogUnavailable(f"{kind} was taken but did not come back in time")
                if loop.time() > deadline:
                    raise LogUnavailable(f"{kind} could not be logged in {timeout_s:.0f} s: {refused}")
                await asyncio.sleep(RETRY_S)
            return arrived.result()
        finally:
            self._waiting.pop(data, None)

    async def close(self) -> None:
        """Stop following."""
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError, LogBroken):
                await self._follower
        if self._link is not None:
            self._link.close()

    async def broken(self) -> None:
        """Wait until the follower fails, and raise that."""
        if self._follower is not None:
            await asyncio.shield(self._follower)

    def _check_follower(self) -> None:
        if self._follower is not None and self._follower.done() and not self._follower.cancelled():
            self._follower.result()

    async def _submit(self, data: bytes, arrived: asyncio.Future[Entry], deadline: float) -> str | None:
        """Returns once it has arrived. Else None if the ledger took it in time, or why it should be tried again."""
        asked = asyncio.ensure_future(self._ask({"op": "append", "envelope": b64encode(data)}, deadline))
        try:  # whichever comes first: what came back in the log needs no answer
            await asyncio.wait((asked, arrived), return_when=asyncio.FIRST_COMPLETED)
            if arrived.done():
                return None
            try:
                answer = asked.result()
            except ConnectionError as error:
                return str(error) or type(error).__name__
            if answer.get("ok") is True:
                await asyncio.wait((arrived,), timeout=deadline - asyncio.get_running_loop().time())
                return None
        finally:
            if not asked.cancel() and not asked.cancelled():
                asked.exception()  # looked at, so that nobody complains that it wasn't
        code, message = str(answer.get("code")), str(answer.get("message"))
        if code in _AGAIN:
            return f"{code}: {message}"
        raise AppendRefused(code, message)

    async def _ask(self, question: Frame, deadline: float) -> Frame:
        if self._link is None or self._link.lost:
            self._link = await _Link.connect(self.deployment.socket("ledger"))
        return await self._link.ask(question, deadline)

    async def _follow_always(self) -> None:
        while True:
            try:
                await self._follow_once()
            except (OSError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(RETRY_S)  # the ledger was restarted: connect again, go on where we were

    async def _resume(self, own: str, size: int) -> None:
        """Begin from the service's own snapshot if there is one that was vouched for."""
        try:
            found = await asyncio.to_thread(kept, self.deployment, own, size)
            if found is None:
                return
            head, data = found
            async with asyncio.timeout(VOUCHED_S), contextlib.aclosing(self._entries(head.size, size)) as entries:
                await require_vouched(self.deployment.trust, head, entries)
            self.replay = await asyncio.to_thread(resumed, data)
            self.beginning = Beginning(head.size, head.digest)
        except SnapshotRefused as refusal:
            self.beginning = Beginning(refused=refusal.code)
        except (OSError, FormatError, TimeoutError, asyncio.IncompleteReadError):
            self.beginning = Beginning(refused="snapshot-unsaid")

    async def _entries(self, first: int, size: int) -> AsyncGenerator[bytes, None]:
        """The entries from `first` up to `size`, as the ledger sends them: nothing of them is verified here."""
        reader, writer = await asyncio.open_unix_connection(self.deployment.socket("ledger"), limit=MAX_FOLLOW_FRAME)
        try:
            await send_frame(writer, {"op": "follow", "seq": 1, "from": first})
            while first < size:
                frame = await receive_frame(reader, limit=MAX_FOLLOW_FRAME)
                entries = None if frame is None else frame.get("entries")
                if type(entries) is not list:
                    return
                for encoded in entries:
                    yield b64decode(str(encoded))
                first += len(entries)
        finally:
            writer.close()

    async def _follow_once(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self.deployment.socket("ledger"), limit=MAX_FOLLOW_FRAME)
        try:
            await send_frame(writer, {"op": "follow", "seq": 1, "from": self.replay.size})
            while True:
                try:
                    frame = await receive_frame(reader, limit=MAX_FOLLOW_FRAME)
                except FormatError:
                    return  # cut within a frame, as a killed ledger does
                if frame is None or "entries" not in frame:
                    return
                self._fresh += self._fold(frame)
                if await self._verify(frame):
                    fresh, self._fresh = self._fresh, []
                    await self._hand_on(fresh)
        finally:
            writer.close()

    def _fold(self, frame: Frame) -> list[Entry]:
        entries = frame["entries"]
        if type(entries) is not list or frame.get("first") != self.replay.size:
            raise LogBroken(f"expected entries from {self.replay.size}, got {str(frame.get('first'))[:20]}")
        folded = []
        for encoded in entries:
            data = b64decode(str(encoded))
            if self.replay.size == 0 and data != self.deployment.trust.envelope.encode():
                raise LogBroken("the log starts with another trust root than this deployment's")
            folded.append(self.replay.apply(data))
        return folded

    async def _verify(self, frame: Frame) -> bool:
        """True if the frame's checkpoint, verified, is about exactly what has been folded."""
        try:
            verified = self.deployment.trust.policy.verify(str(frame.get("checkpoint")).encode())
        except (FormatError, PolicyUnmet, SignatureInvalid) as error:
            raise LogBroken(f"checkpoint: {error}") from error
        checkpoint = verified.checkpoint
        if checkpoint.size < self.replay.size:
            raise LogBroken(f"checkpoint of size {checkpoint.size} under {self.replay.size} entries")
        if checkpoint.size > self.replay.size:
            return False
        if checkpoint.root != self.replay.tree.root():
            raise LogBroken(f"the root at size {checkpoint.size} is not that of the entries")
        self.checkpoint = checkpoint
        self._verified = checkpoint.size
        return True

    async def _hand_on(self, fresh: list[Entry]) -> None:
        for entry in fresh:
            for listener in self._listeners:
                listener(entry)
            waiting = self._waiting.get(entry.data)
            if waiting is not None and not waiting.done():
                waiting.set_result(entry)
        async with self._grown:
            self._grown.notify_all()


class _Link:
    """One connection for questions; answers find their question by `seq`, so many can be in flight."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._asked: dict[int, asyncio.Future[Frame]] = {}
        self._next = 0
        self.lost = False
        self._task = asyncio.create_task(self._receive())

    @classmethod
    async def connect(cls, path: str) -> _Link:
        try:
            return cls(*await asyncio.open_unix_connection(path))
        except OSError as error:
            raise ConnectionError(f"{path}: {error.strerror}") from error

    async def ask(self, question: Frame, deadline: float) -> Frame:
        """The answer; ConnectionError if the connection is lost or the deadline passes first."""
        self._next += 1
        seq = self._next
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._asked[seq] = answer
        try:
            async with asyncio.timeout_at(deadline):
                await send_frame(self._writer, question | {"seq": seq})
                return await answer
        except TimeoutError as error:
            raise ConnectionError("no answer in time") from error
        except OSError as error:
            self.close()
            raise ConnectionError(str(error)) from error
        finally:
            self._asked.pop(seq, None)

    def close(self) -> None:
        """Drop the connection; questions in flight fail."""
        self.lost = True
        self._writer.close()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the connection to the ledger was lost"))

    async def _receive(self) -> None:
        try:
            while (frame := await receive_frame(self._reader)) is not None:
                seq = frame.get("seq")
                answer = self._asked.get(seq) if type(seq) is int else None
                if answer is not None and not answer.done():
                    answer.set_result(frame)
        except (OSError, FormatError):
            pass
        self.close()
