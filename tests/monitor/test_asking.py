"""What the monitor sends to the operator channel, it says only after all of it was answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ironbound.core.checkpoint import Checkpoint
from ironbound.core.malformed import attempts
from ironbound.core.trust import parse_trust_root
from ironbound.monitor import channel
from verifier.lab import ORIGIN, honest

#: Answers a request by its method, path and body with a status, or None to hang up.
Answer = Callable[[str, str, bytes], int | None]


class Scene:
    """The monitor's half over a log in memory, and a controller that answers as it is told on a real socket."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        self.lab, self.answer = honest().lab, answer
        self.heard: list[tuple[str, str, bytes]] = []
        self.serving: list[Any] = []
        self.said: list[dict[str, Any]] = []
        self.path = str(folder / "c")
        root = parse_trust_root(self.lab.entries[0])
        self.deployment: Any = SimpleNamespace(trust=root, socket=lambda role: self.path)
        self.log: Any = SimpleNamespace(refresh=self._refresh, append=self._append, checkpoint=None)
        self.channel = channel.Channel(self.deployment, self.log)
        for entry in self.lab.said:
            self.channel.entered(entry)

    async def _refresh(self) -> None:
        self.log.checkpoint = Checkpoint(ORIGIN, self.lab.replay.size, self.lab.replay.tree.root())

    async def _append(self, kind: str, subjects: Any, fields: dict[str, Any]) -> Any:
        assert kind == "channel-probed" and len(self.heard) >= 15, "said before all was sent"
        self.said.append(fields)
        return SimpleNamespace(void=None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._answer(reader, writer)
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.decode().split("\r\n")[0].split(" ")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        body = await reader.readexactly(length)
        self.heard.append((method, path, body))
        status = self.answer(method, path, body)
        if status is not None:
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
            await reader.read()  # until the monitor hangs up

    def ask(self) -> None:
        async def work() -> None:
            async with await asyncio.start_unix_server(self._serve, self.path):
                try:
                    await self.channel.ask()
                finally:
                    await asyncio.gather(*self.serving, return_exceptions=True)
                    await asyncio.sleep(0)  # what was hung up is closed

        asyncio.run(work())


@pytest.mark.parametrize("status", [403, 200])
def test_what_was_drawn_makes_exactly_what_was_sent_whatever_the_answer(tmp_path: Path, status: int) -> None:
    scene = Scene(tmp_path, lambda *_: status)
    scene.ask()
    [drawn] = scene.said
    latest = scene.channel._latest
    made = attempts(scene.deployment.trust, drawn, "0" * 64)  # type: ignore[arg-type]
    assert scene.heard == [(one.method, one.path, latest if one.body is None else one.body) for one in made]


def test_what_was_too_fast_or_could_not_be_logged_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "AGAIN_S", 0.0)
    answers = [429, 503, None, *[403] * 15]
    scene = Scene(tmp_path, lambda *_: answers.pop(0))
    scene.ask()
    assert len(scene.said) == 1 and not answers
    assert len(set(scene.heard)) == 15 and len({scene.heard[at] for at in range(4)}) == 1


@pytest.mark.parametrize("status", [None, 503])
def test_a_controller_that_is_silent_or_answers_all_but_one_is_not_told_what_it_was(
    tmp_path: Path, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "AGAIN_S", 0.0)
    monkeypatch.setattr(channel, "WHOLE_S", 0.5)
    scene = Scene(tmp_path, lambda method, *_: status if method == "GET" else 403)
    with pytest.raises(channel.Unanswered):
        scene.ask()
    assert scene.heard and not scene.said
