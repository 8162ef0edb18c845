"""An agent in Python as a component: built from source, and at work in a real worker on the real agent channel."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from agent_stand import CHECKOUT
from agents import Bench, bench
from test_whole_road import STRICT, Scripted, serve

from ironbound.core.profile import Layer, merge
from ironbound.core.surface import first_import, missing_exports, parse_surface, surface_digest
from ironbound.core.wasm_component import ComponentSurface
from ironbound.node.runtime import Ready
from ironbound.node.sandbox import launcher

#: Compiling takes 12 s of one core; other tests compete for it.
DEADLINE_S = 400.0
PYTHON = CHECKOUT / "sdk" / "python"
OVER = STRICT.with_name("component.toml")
SETTINGS = merge([Layer("strict.toml", STRICT.read_bytes()), Layer("component.toml", OVER.read_bytes())]).encoded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("python_build", PYTHON / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    target = tmp_path_factory.mktemp("python") / "hello.wasm"
    builder().build(PYTHON / "hello.py", target)
    return target.read_bytes()


def test_an_agent_in_python_imports_nothing_and_has_the_one_export(hello: bytes) -> None:
    surface = parse_surface(hello)
    assert isinstance(surface, ComponentSurface) and len(surface.parts) > 20
    assert surface.imports == () and missing_exports(surface) == []


def test_the_same_agent_with_wasi_imports_it_and_the_surface_says_so(tmp_path: Path) -> None:
    builder().build(PYTHON / "hello.py", tmp_path / "wasi.wasm", ())
    reached = first_import(parse_surface((tmp_path / "wasi.wasm").read_bytes()))
    assert reached is not None and reached.startswith("wasi:")


def test_an_agent_in_python_does_its_work_in_a_worker(hello: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "COMPILE_SECONDS", 12.0)  # other tests compile beside it

    async def run() -> None:
        async with asyncio.timeout(DEADLINE_S), bench() as made:
            await work(made)

    async def work(made: Bench) -> None:
        launched = await made.launch(hello, SETTINGS)
        assert isinstance(launched.answer, Ready), launched.answer
        assert launched.answer.surface_sha256 == surface_digest(hello)
        session = await serve(launched.channel, Scripted({"records.fetch", "report.post"}))
        await launched.worker.release()
        await session.run()
        ended = await launched.ended()
        assert ended.reason == "finished", ended
        assert json.loads(ended.report) == {
            "hello": "from Python without imports",
            "tools": ["records.fetch", "report.post"],
        }
        assert ended.messages == 2 and ended.max_rss < 1 << 30

    asyncio.run(run())
