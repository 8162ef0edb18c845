"""Who may ask the monitor what, by the kernel's word for the peer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ironbound.monitor import asked as module
from ironbound.monitor.asked import MAX_STRANGERS, Asked
from ironbound.monitor.watch import NotHeld
from ironbound.wire.frames import receive_frame, send_frame

LOOK = {"op": "look", "said": {"a": "sandbox"}}
RUN = {"op": "canary-run", "every": True, "profile": None}


async def _asked(path: str, node: int, question: Any) -> Any:
    looked: list[Any] = []

    async def held(said: Any) -> Any:
        looked.append(said)
        raise NotHeld("nothing is held")

    deployment: Any = SimpleNamespace(uid=lambda role: node)
    challenges: Any = SimpleNamespace(canaries=lambda chosen: [], chosen=lambda every, profile: [])
    watch: Any = SimpleNamespace(held=held)
    hosts: Any = SimpleNamespace(asked=lambda role, pid: None)
    log: Any = SimpleNamespace()
    server = await Asked(deployment, log, watch, challenges, hosts).serve(path)
    try:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            await send_frame(writer, question)
            answer: Any = await receive_frame(reader, limit=1 << 16)
        finally:
            writer.close()
    finally:
        server.close()
    return answer.get("code", answer), looked


def asked(folder: Path, node: int, question: Any) -> Any:
    return asyncio.run(asyncio.wait_for(_asked(str(folder / "s"), node, question), 20))


def test_a_look_is_for_the_node_alone_also_where_root_asks(tmp_path: Path) -> None:
    assert asked(tmp_path, os.getuid() + 1, LOOK) == ("peer-mismatch", [])
    assert asked(tmp_path, os.getuid(), LOOK) == ("not-held", [LOOK["said"]])


@pytest.mark.parametrize(
    "question",
    [
        {},
        LOOK | {"more": 1},
        {"op": "look"},
        {"op": "prove", "said": {}},
        RUN | {"every": 1},
        RUN | {"profile": 7},
        RUN | {"op": "canary"},
        {"op": "stop"},
    ],
)
def test_any_other_question_is_refused_and_nobody_looks(tmp_path: Path, question: Any) -> None:
    assert asked(tmp_path, os.getuid(), question) == ("frame-invalid", [])
    answer, _ = asked(tmp_path, os.getuid() + 1, RUN)  # the control
    assert answer == {"ok": True, "total": 0}


@pytest.mark.parametrize("stranger", [True, False])
def test_strangers_who_ask_nothing_hold_few_of_the_monitor_s_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranger: bool
) -> None:
    """A user of the host opens one connection after another and says nothing; whoever may ask is not held to it."""
    kernel = module.peer_of
    monkeypatch.setattr(module, "peer_of", lambda sock: (kernel(sock)[0], 65_534) if stranger else kernel(sock))
    monkeypatch.setattr(module, "QUESTION_S", 60.0)

    async def scene() -> Any:
        deployment: Any = SimpleNamespace(uid=lambda role: os.getuid())
        nobody: Any = SimpleNamespace()
        path = str(tmp_path / "s")
        server = await Asked(deployment, nobody, nobody, nobody, nobody).serve(path)
        silent = [await asyncio.open_unix_connection(path) for _ in range(MAX_STRANGERS)]
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            await send_frame(writer, {})
            return await receive_frame(reader, limit=1 << 16)
        except ConnectionError:
            return None
        finally:
            for _, one in (*silent, (reader, writer)):
                one.close()
            server.close()

    answer = asyncio.run(asyncio.wait_for(scene(), 30))
    assert answer is None if stranger else answer["code"] == "frame-invalid"
