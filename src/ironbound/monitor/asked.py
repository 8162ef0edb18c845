"""What the monitor is asked on its Unix socket: the node asks for a look at what it holds, root for a run of canaries
or for the proof of the kernel.

Decides who may ask what, by the kernel's word for the peer's user. An answer gives nobody any power: a look is a word
about a sandbox, and without a difference only if there is none. Frames (`wire.frames`); one question a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Any, Final

from ironbound.core.canonical import FormatError, Value, parse_json
from ironbound.core.statement import Subject
from ironbound.wire.cosigner import peer_of
from ironbound.wire.deployment import Deployment
from ironbound.wire.frames import Frame, receive_frame, send_frame
from ironbound.wire.log import AppendRefused, Log, LogUnavailable
from ironbound.wire.measure import OPTIONS

from .challenge import Challenges
from .hosts import Hosts
from .watch import NotHeld, Watch

#: Seconds within which a question is there, and its bytes: the account of a sandbox fits in an entry.
QUESTION_S: Final = 5.0
MAX_QUESTION: Final = 96 * 1024
#: Connections at once of users who may ask nothing: their descriptors are the monitor's, with which it looks.
MAX_STRANGERS: Final = 16
MAX_PROOF: Final = 1 << 20
"""Bytes of what the prover prints."""


class Asked:
    """The socket's answers. `serve` listens."""

    def __init__(self, deployment: Deployment, log: Log, watch: Watch, challenges: Challenges, hosts: Hosts) -> None:
        self._log, self._watch, self._challenges, self._hosts = log, watch, challenges, hosts
        self._proving = asyncio.Lock()
        self._node = deployment.uid("node")
        self._strangers = 0

    async def serve(self, path: str) -> asyncio.Server:
        """Listen at a path; anybody may connect."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        server = await asyncio.start_unix_server(self._answer, path, limit=MAX_QUESTION)
        os.chmod(path, 0o666)
        return server

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, peer = peer_of(writer.get_extra_info("socket"))
        stranger = peer not in (0, self._node, os.getuid())
        self._strangers += stranger
        try:
            if stranger and self._strangers > MAX_STRANGERS:
                return
            async with asyncio.timeout(QUESTION_S):
                question: Any = await receive_frame(reader, limit=MAX_QUESTION)
            if isinstance(question, dict) and question.keys() == {"op", "said"} and question["op"] == "look":
                if peer == self._node:
                    self._hosts.asked("node", pid)
                    await send_frame(writer, await self._look(question["said"]))
                else:
                    await send_frame(writer, _refused("peer-mismatch"))
            elif not _asks_for_canaries(question) and question != {"op": "prove"}:
                await send_frame(writer, _refused("frame-invalid"))
            elif peer not in (0, os.getuid()):
                await send_frame(writer, _refused("peer-mismatch"))
            elif question == {"op": "prove"}:
                await send_frame(writer, await self._proved())
            else:
                await self._run_canaries(question, writer)
        except (OSError, FormatError, TimeoutError, LogUnavailable, AppendRefused) as error:
            # The asker sees the connection end before its answer, and is told to look here.
            sys.stderr.write(f"monitor: a question broken off: {type(error).__name__}: {error}\n")
        finally:
            self._strangers -= stranger
            writer.close()

    async def _look(self, said: Value) -> Frame:
        try:
            return {"ok": True, "held": (await self._watch.held(said)).as_value()}
        except NotHeld as error:
            return _refused("not-held", str(error))
        except FormatError as error:
            return _refused("account-invalid", str(error))

    async def _proved(self) -> Frame:
        """The kernel's proof, made by a process of our own from what is installed here, and said in the log."""
        async with self._proving:
            words = (sys.executable, *OPTIONS, "-m", "ironbound.proof")
            process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
            try:
                answer, _ = await process.communicate()
            finally:
                if process.returncode is None:  # cancelled: the monitor ends
                    process.kill()
        if process.returncode != 0:
            return _refused("proof-broken", "the solvers came to no answer; the monitor's own log says why")
        said: Any = parse_json(answer, limit=MAX_PROOF)
        entry = await self._log.append("kernel-proof", (Subject("kernel", said["kernel_sha256"]),), said)
        return {"ok": True, "index": entry.index, "said": said}

    async def _run_canaries(self, question: Any, writer: asyncio.StreamWriter) -> None:
        challenges = self._challenges
        work = challenges.canaries(challenges.chosen(question["every"], question["profile"]))
        await send_frame(writer, {"ok": True, "total": len(work)})
        async for result in challenges.everything(work):
            await send_frame(writer, {"ok": True, "result": dict(result)})
        await send_frame(writer, {"ok": True, "done": True})


def _refused(code: str, message: str = "") -> Frame:
    return {"ok": False, "code": code, "message": message[:500]}


def _asks_for_canaries(value: Any) -> bool:
    """Whether a frame asks for canaries: of the profiles in use, of every approved one, or of one by its name."""
    return (
        isinstance(value, dict)
        and value.keys() == {"op", "every", "profile"}
        and value["op"] == "canary-run"
        and isinstance(value["every"], bool)
        and (value["profile"] is None or isinstance(value["profile"], str))
    )
