"""Firecracker's API, spoken to a stand-in that judges by the published description. No machine is started: this host
has no Firecracker.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from firecracker_api import description, serving
from ironbound.core import firecracker
from ironbound.core.firecracker import Request
from ironbound.node.microvm import api as api_client
from ironbound.node.microvm.api import ApiRefused, configure


def config() -> dict[str, Any]:
    return {"runtime": {"type": "firecracker", "max_memory": 128, "max_cpu": 100}, "scratch": {}}


@pytest.fixture
def api(shared_data: Path) -> dict[str, Any]:
    return description(shared_data)


def test_every_request_is_taken_in_its_order_by_an_api_that_keeps_to_the_description(
    api: dict[str, Any], tmp_path: Path
) -> None:
    with serving(api, tmp_path / "api") as taken:
        asyncio.run(configure(str(tmp_path / "api"), firecracker.requests(config())))
    assert taken == [("/machine-config", ""), ("/boot-source", ""), ("/vsock", ""), ("/actions", "")]


def test_after_a_request_that_is_refused_nothing_is_sent_and_the_machine_does_not_start(
    api: dict[str, Any], tmp_path: Path
) -> None:
    with serving(api, tmp_path / "api", refusing="/boot-source") as taken, pytest.raises(ApiRefused) as refused:
        asyncio.run(configure(str(tmp_path / "api"), firecracker.requests(config())))
    assert [path for path, _ in taken] == ["/machine-config", "/boot-source"]
    assert str(refused.value) == "/boot-source: 400: The kernel file cannot be opened: [2J no."


def test_the_stand_in_refuses_what_the_description_does_not_allow(api: dict[str, Any], tmp_path: Path) -> None:
    wrong = Request("PUT", "/machine-config", b'{"vcpu_count":0,"mem_size_mib":128,"unknown":1}')
    with serving(api, tmp_path / "api"), pytest.raises(ApiRefused, match="minimum.*unknown: not in the description"):
        asyncio.run(configure(str(tmp_path / "api"), [wrong]))


def test_an_api_that_appears_late_is_waited_for_and_one_that_never_does_is_a_refusal(
    api: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late() -> list[tuple[str, str]]:
        asking = asyncio.create_task(configure(str(tmp_path / "late"), firecracker.requests(config())))
        await asyncio.sleep(0.05)
        with serving(api, tmp_path / "late") as taken:
            await asking
        return taken

    assert len(asyncio.run(late())) == 4
    monkeypatch.setattr(api_client, "APPEAR_S", 0.05)
    with pytest.raises(ApiRefused, match="no API"):
        asyncio.run(configure(str(tmp_path / "never"), firecracker.requests(config())))


def test_an_answer_that_is_no_http_is_a_refusal(tmp_path: Path) -> None:
    async def garbage() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"SSH-2.0-x\r\n\r\n")
            writer.close()

        async with await asyncio.start_unix_server(answer, str(tmp_path / "api")):
            await configure(str(tmp_path / "api"), firecracker.requests(config()))

    with pytest.raises(ApiRefused, match="RemoteProtocolError"):
        asyncio.run(garbage())
