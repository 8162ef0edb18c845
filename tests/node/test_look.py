"""Asking for a look: what does not count, and that nothing goes on without one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ironbound.node.look import look
from ironbound.node.runtime import HoldFailed
from ironbound.wire.frames import receive_frame, send_frame
from verifier.lab import Honest, honest

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]


@pytest.fixture(scope="module")
def scene() -> Honest:
    return honest()


def asked(path: Path, scene: Honest, answer: Answer | None, uid: int | None = None) -> tuple[Any, list[Any]]:
    """Asks whoever answers so at that socket; what came of it, and the questions."""
    account, questions = scene.lab.account(scene.launch), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question: Any = await receive_frame(reader)
        if question is not None:
            questions.append(question)
        said = None if answer is None or question is None else answer(question["said"])
        if said is not None:
            await send_frame(writer, said)
        writer.close()

    async def work() -> Any:
        server = None if answer is None else await asyncio.start_unix_server(serve, str(path))
        try:
            return await look(str(path), os.getuid() if uid is None else uid, scene.lab.replay.trust, account, 0.5)
        finally:
            if server is not None:
                server.close()

    return asyncio.run(work()), questions


def refused(path: Path, scene: Honest, answer: Answer | None, uid: int | None = None) -> HoldFailed:
    with pytest.raises(HoldFailed) as failure:
        asked(path, scene, answer, uid)
    assert failure.value.stage == "look"
    return failure.value


def test_a_look_without_a_difference_is_what_the_start_will_carry(tmp_path: Path, scene: Honest) -> None:
    held, (question,) = asked(tmp_path / "m", scene, lambda said: {"ok": True, "held": scene.lab.held(said)})
    assert question["op"] == "look" and held["signatures"]


@pytest.mark.parametrize("fields", [{"differences": [{"path": "seccomp", "expected": 2, "got": 0}]}, {"launch": 999},
                                    {"pid": 1}, {"account_sha256": "0" * 64}])  # fmt: skip
def test_a_look_at_something_else_or_with_a_difference_holds_the_launch(
    tmp_path: Path, scene: Honest, fields: dict[str, Any]
) -> None:
    failure = refused(tmp_path / "m", scene, lambda said: {"ok": True, "held": scene.lab.held(said, **fields)})
    assert failure.reason == "observed-differs"
    assert failure.text == ("seccomp: expected 2, got 0" if "differences" in fields else "seen-differs")


def test_a_look_that_the_monitor_did_not_sign_is_none(tmp_path: Path, scene: Honest) -> None:
    node = scene.lab.services["node"]
    for held in (scene.lab.held(scene.lab.account(scene.launch), signer=node), {}, "x"):
        failure = refused(tmp_path / "m", scene, lambda said, held=held: {"ok": True, "held": held})
        assert (failure.reason, failure.text) == ("observed-differs", "not-seen")
        os.unlink(tmp_path / "m")


def test_a_monitor_that_is_away_silent_or_refuses_holds_the_launch(tmp_path: Path, scene: Honest) -> None:
    assert refused(tmp_path / "away", scene, None).reason == "not-observed"
    silent = refused(tmp_path / "silent", scene, lambda said: None)
    assert silent.reason == "not-observed" and "closed the connection" in silent.text
    no = refused(tmp_path / "no", scene, lambda said: {"ok": False, "code": "not-held", "message": "it has ended"})
    assert no.reason == "not-observed" and "it has ended" in no.text


def test_another_user_at_the_monitor_s_socket_is_not_asked(tmp_path: Path, scene: Honest) -> None:
    answer = {"ok": True, "held": scene.lab.held(scene.lab.account(scene.launch))}
    failure = refused(tmp_path / "m", scene, lambda said: answer, os.getuid() + 1)
    assert failure.reason == "not-observed" and "another than the monitor's user" in failure.text
