"""Who may ask the monitor what, by the kernel's word for the peer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ironbound.monitor.asked import Asked
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
