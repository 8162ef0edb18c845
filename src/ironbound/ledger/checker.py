"""Intake in processes of its own, so that checking signatures and parsing never hold up the sequencer.

Decides nothing: `intake` does, in a child that was forked before any thread was started, and before any file of
the ledger was opened. Forked and not executed, since the ledger's user need not be able to reach the
interpreter. Parent and child speak over a socket pair; a message is u32be length ‖ records.

Rule 1: answers come in the order of the questions.
Rule 2: a child that ends, or says what can't be read, ends the ledger (CheckerLost), asked or not.
Rule 3: a child ends with its parent: the pair is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Final, NoReturn

from .intake import Append, Ask, Follow, Intake, Refused, Request

_QUESTION: Final = struct.Struct(">II")  # user, length of the frame's body
_APPEND: Final = struct.Struct(">cQ48s32sI")
_PLAIN: Final = struct.Struct(">cQQ")
_REFUSED: Final = struct.Struct(">cqHH")
_LENGTH: Final = struct.Struct(">I")

Question = tuple[int, bytes]
Answers = list[Request | Refused]


class CheckerLost(ChildProcessError):
    """A checking process has ended or is not to be understood."""


def encode_questions(questions: Sequence[Question]) -> bytes:
    """Pairs of a peer's user and a frame's body."""
    return b"".join(part for uid, body in questions for part in (_QUESTION.pack(uid, len(body)), body))


def decode_questions(data: bytes) -> list[Question]:
    """What `encode_questions` encoded."""
    questions: list[Question] = []
    at = 0
    while at < len(data):
        uid, size = _QUESTION.unpack_from(data, at)
        at += _QUESTION.size + size
        questions.append((uid, data[at - size : at]))
    return questions


def encode_answers(answers: Sequence[Request | Refused]) -> bytes:
    """One record for each question."""
    parts: list[bytes] = []
    for one in answers:
        match one:
            case Append(seq, entry, leaf, key):
                parts += (_APPEND.pack(b"A", seq, key, leaf, len(entry)), entry)
            case Follow(seq, first):
                parts.append(_PLAIN.pack(b"F", seq, first))
            case Ask(seq):
                parts.append(_PLAIN.pack(b"H", seq, 0))
            case Refused():
                code, message = one.code.encode(), one.message[:500].encode("utf-8", "replace")
                number = -1 if one.seq is None else one.seq
                parts += (_REFUSED.pack(b"R", number, len(code), len(message)), code, message)
    return b"".join(parts)


def decode_answers(data: bytes) -> Answers:
    """What `encode_answers` encoded."""
    answers: Answers = []
    at = 0
    while at < len(data):
        kind = data[at : at + 1]
        if kind == b"A":
            _, seq, key, leaf, size = _APPEND.unpack_from(data, at)
            at += _APPEND.size + size
            answers.append(Append(seq, data[at - size : at], leaf, key))
        elif kind == b"R":
            _, seq, code, message = _REFUSED.unpack_from(data, at)
            at += _REFUSED.size
            middle, end = at + code, at + code + message
            words = data[at:middle].decode(), data[middle:end].decode()
            answers.append(Refused(None if seq < 0 else seq, *words))
            at = end
        else:
            _, seq, first = _PLAIN.unpack_from(data, at)
            at += _PLAIN.size
            answers.append(Follow(seq, first) if kind == b"F" else Ask(seq))
    return answers


def answer(intake: Intake, questions: Sequence[Question]) -> Answers:
    """Each question's request or refusal."""
    answers: Answers = []
    for uid, body in questions:
        try:
            answers.append(intake.read(body, uid))
        except Refused as refusal:
            answers.append(refusal)
    return answers


def _child(intake: Intake, pair: socket.socket) -> NoReturn:
    status = 1
    try:
        signal.set_wakeup_fd(-1)  # the parent's event loop listens to it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal it reaches the parent too, which ends us
        with pair, pair.makefile("rb") as questions:
            while header := questions.read(_LENGTH.size):
                data = questions.read(_LENGTH.unpack(header)[0])
                answers = encode_answers(answer(intake, decode_questions(data)))
                pair.sendall(_LENGTH.pack(len(answers)) + answers)
        status = 0
    except (OSError, struct.error):
        pass  # the parent has gone, in the middle of a message
    finally:
        os._exit(status)


class Checker:
    """One checking process. Make it before any thread, and before files are opened; then `start`."""

    def __init__(self, intake: Intake) -> None:
        self._pair, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            self._pair.close()
            _child(intake, theirs)
        theirs.close()
        self._asked: deque[asyncio.Future[Answers]] = deque()
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[NoReturn] | None = None

    async def start(self) -> None:
        """Connects the process with the running event loop."""
        reader, self._writer = await asyncio.open_connection(sock=self._pair)
        self._task = asyncio.create_task(self._receive(reader))

    def ask(self, questions: Sequence[Question]) -> asyncio.Future[Answers]:
        """The answers to these questions, some time later; CheckerLost if the process is lost."""
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        if self._writer is None or self._task is None or self._task.done():
            future.set_exception(CheckerLost("the checking process has ended"))
            return future
        data = encode_questions(questions)
        self._writer.write(_LENGTH.pack(len(data)) + data)
        self._asked.append(future)
        return future

    async def lost(self) -> None:
        """Waits until the process is lost, and raises CheckerLost."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _receive(self, reader: asyncio.StreamReader) -> NoReturn:
        try:
            while True:
                (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                answers = decode_answers(await reader.readexactly(size))
                future = self._asked.popleft()
                if not future.done():
                    future.set_result(answers)
        except (OSError, EOFError, struct.error, ValueError, IndexError) as error:
            lost = CheckerLost(f"the checking process is lost: {type(error).__name__}")
            for future in self._asked:
                if not future.done():
                    future.set_exception(lost)
            self._asked.clear()
            raise lost from error

    async def close(self) -> None:
        """Ends the process and waits for it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, CheckerLost):
                await self._task
        if self._writer is not None:
            self._writer.close()
        self._pair.close()
        with contextlib.suppress(ChildProcessError):
            await asyncio.to_thread(os.waitpid, self._pid, 0)
