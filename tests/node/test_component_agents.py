"""Components in real workers: the same walls and limits as for modules, and nothing linked."""

from __future__ import annotations

import pytest
import wasmtime
from agents import Bench, agent, config, in_bench
from components import ECHO, answers, component

from ironbound.core.canonical import sha256_hex
from ironbound.core.surface import surface_digest
from ironbound.node.runtime import Ready
from ironbound.node.sandbox import component as components
from ironbound.node.sandbox import engine as runtime

ROOMY = config(max_instances=10)


def engine() -> wasmtime.Engine:
    return runtime.make_engine(256 * 1024, components=True)


@in_bench
async def test_a_component_gets_messages_sends_lines_and_ends_with_a_report(bench: Bench) -> None:
    launched = await bench.launch(ECHO, ROOMY)
    assert isinstance(launched.answer, Ready), launched.answer
    assert launched.answer.module_sha256 == sha256_hex(ECHO)
    assert launched.answer.surface_sha256 == surface_digest(ECHO)
    await launched.worker.release()
    await launched.say("zwölf\n".encode())
    assert await launched.hear() == "zwölf\n".encode()
    launched.channel.close()
    assert (await launched.ended()).reason == "eof"
    done = component(answers(2, "(i32.const 32)", "(i32.const 4)"), code='(data (i32.const 32) "done")')
    ended = await bench.live(done, ROOMY)
    assert (ended.reason, ended.report) == ("finished", "done")


@in_bench
async def test_silence_says_nothing(bench: Bench) -> None:
    launched = await bench.launch(component(answers(0)), ROOMY)
    await launched.worker.release()
    await launched.say(b"x\ny\n")
    launched.channel.shutdown(1)
    assert await launched.hear() == b""
    assert (await launched.ended()).messages == 2


@in_bench
async def test_a_modules_surface_is_told_too(bench: Bench) -> None:
    module = agent("(i64.const 0)")
    launched = await bench.launch(module)
    assert isinstance(launched.answer, Ready) and launched.answer.surface_sha256 == surface_digest(module)


@in_bench
async def test_a_component_with_an_import_is_refused_in_the_runtimes_words_before_it_is_ready(bench: Bench) -> None:
    for more, text in (
        ('(import "exec" (func))', "exec"),
        ('(import "wasi:cli/environment@0.2.0" (instance (export "get" (func))))', "wasi:cli/environment@0.2.0"),
        ('(import "plugin" (core module))', "plugin"),
        ('(type $small u8) (import "answer" (type (eq $small)))', "answer"),
        ('(import "file" (type (sub resource)))', "file"),
    ):
        refused = await bench.refusal(component(answers(0), more=more), ROOMY)
        assert refused.stage == "imports" and text in refused.text, refused


@in_bench
async def test_a_component_with_another_interface_is_refused(bench: Bench) -> None:
    for data in (
        component(answers(0), name="ironbound:agent/messages@2.0.0"),
        component(answers(0), answer='(variant (case "silence") (case "send" string) (case "reports" string))'),
        component(answers(0), answer='(variant (case "silence") (case "send" string))'),
        bytes(wasmtime.wat2wasm("(component)")),
    ):
        assert (await bench.refusal(data, ROOMY)).stage == "module"


@in_bench
async def test_threads_tasks_and_streams_between_components_are_refused(bench: Bench) -> None:
    built_in = "(core func (canon task.cancel))"
    refused = await bench.refusal(component(answers(0), more=built_in), ROOMY)
    assert refused.stage == "module" and "canonical built-in" in refused.text


@pytest.mark.parametrize(
    ("handle", "code", "reason", "text"),
    [
        ("unreachable", "", "trap", "unreachable"),
        ("(loop br 0) unreachable", "", "fuel", "all fuel consumed"),
        ("call $deep", "(func $deep (result i32) call $deep i32.const 1 i32.add)", "stack", "call stack exhausted"),
        ("(i32.load (i32.const 65536))", "", "trap", "out of bounds memory access"),
        (answers(1, "(i32.const 65530)", "(i32.const 100)"), "", "protocol", "out of bounds"),
        (answers(1, "(i32.const 32)", "(i32.const 1)"), '(data (i32.const 32) "\\ff")', "protocol", "utf-8"),
        (answers(3), "", "protocol", "discriminant"),
        (answers(1, "(i32.const 0)", "(i32.const 4097)"), "", "limit", "at most 4096 bytes, got 4097"),
        (answers(2, "(i32.const 0)", "(i32.const 4097)"), "", "limit", "at most 4096 bytes, got 4097"),
        ("(i32.div_u (memory.grow (i32.const 32)) (i32.const 0))", "", "trap", "divide by zero"),
    ],
)
def test_each_limit_ends_a_component_as_it_ends_a_module(handle: str, code: str, reason: str, text: str) -> None:
    @in_bench
    async def run(bench: Bench) -> None:
        ended = await bench.live(component(handle, code=code), ROOMY)
        assert (ended.reason, text in ended.text) == (reason, True), ended

    run()


@in_bench
async def test_memories_instances_and_start_functions_of_a_component_are_limited(bench: Bench) -> None:
    two = "(core module $other (memory 1)) (core instance (instantiate $other))"
    ended = await bench.live(component(answers(0), more=two), ROOMY)
    assert ended.reason == "limit" and "memory count too high at 2" in ended.text
    ended = await bench.live(component(answers(0), more="(core module $e) (core instance (instantiate $e))"), config())
    assert ended.reason == "limit" and "instance count too high at 2" in ended.text
    ended = await bench.live(component(answers(0), code="(func $go (loop br 0)) (start $go)"), ROOMY)
    assert ended.reason == "fuel"


@in_bench
async def test_the_wall_clock_ends_a_component_that_never_returns(bench: Bench) -> None:
    short = config(max_wall_clock=1, max_fuel=10**15, max_instances=10)
    ended = await bench.live(component("(loop br 0) unreachable"), short)
    assert ended.reason == "wall-clock"


@in_bench
async def test_a_message_that_is_not_utf8_ends_a_component(bench: Bench) -> None:
    launched = await bench.launch(component(answers(0)), ROOMY)
    await launched.worker.release()
    await launched.say(b"\xff\n")
    assert ((await launched.ended()).reason) == "protocol"


def test_a_component_whose_surface_the_runtime_sees_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    components.compile_component(engine(), ECHO, len(ECHO))
    monkeypatch.setattr(components, "runtime_view", lambda engine, component: ({}, {}))
    with pytest.raises(runtime.ModuleRefused, match="sees another surface"):
        components.compile_component(engine(), ECHO, len(ECHO))


def test_a_module_whose_surface_the_runtime_sees_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module, small = agent("(i64.const 0)"), runtime.make_engine(256 * 1024)
    runtime.compile_module(small, module, len(module))
    monkeypatch.setattr(runtime, "runtime_view", lambda module: ([], []))
    with pytest.raises(runtime.ModuleRefused, match="sees another surface"):
        runtime.compile_module(small, module, len(module))
