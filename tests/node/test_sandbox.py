"""The Wasm sandbox as real processes: what runs, what is refused, which limit ends what."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import wasmtime
from agents import ECHO, ROOT, Bench, agent, config, in_bench, report_of, says

from ironbound.core.canonical import FormatError, canonical, sha256_hex
from ironbound.core.limits import WORKER_THREADS, worker_rlimits
from ironbound.core.seccomp import filter_digest, worker_filter
from ironbound.node.sandbox import engine as runtime
from ironbound.node.sandbox.launcher import Ready, ZygoteLost, parse_first_word, parse_last_word
from ironbound.node.sandbox.memfd import SealMissing, read_sealed, sealed_memfd

LOOP = "(loop $l (br $l)) (i64.const 0)"


@in_bench
async def test_a_module_answers_over_its_channel_and_its_fuel_is_counted(bench: Bench) -> None:
    launched = await bench.launch(ECHO)
    assert isinstance(launched.answer, Ready)
    await launched.worker.release()
    await launched.say(b'{"id":1}\n{"id":2}\n')
    heard = b""
    while heard.count(b"\n") < 2:
        heard += await launched.hear()
    assert heard == b'{"id":1}\n{"id":2}\n'
    launched.channel.shutdown(socket.SHUT_RDWR)
    ended = await launched.ended()
    assert (ended.reason, ended.messages, ended.status, ended.report) == ("eof", 2, 0, "")
    assert ended.fuel > 0 and ended.max_rss > 0


@in_bench
async def test_the_start_message_reaches_the_agent_first(bench: Bench) -> None:
    launched = await bench.launch(ECHO, start='{"nonce":"00ff"}')
    await launched.worker.release()
    assert await launched.hear() == b'{"nonce":"00ff"}\n'


@in_bench
async def test_a_final_answer_is_the_report_and_is_not_sent(bench: Bench) -> None:
    launched = await bench.launch(says("done", final=True))
    await launched.worker.release()
    ended = await launched.ended()
    assert (ended.reason, ended.report) == ("finished", "done")
    assert await launched.hear() == b""


@in_bench
async def test_the_consumed_digests_are_those_of_the_bytes_handed_over(bench: Bench) -> None:
    settings = config(max_fuel=12345)
    answer = (await bench.launch(ECHO, settings)).answer
    assert isinstance(answer, Ready)
    assert (answer.config_sha256, answer.module_sha256) == (sha256_hex(settings), sha256_hex(ECHO))


def test_a_sealed_memory_file_can_not_be_changed_through_any_call() -> None:
    descriptor = sealed_memfd("config", b"approved")
    try:
        for attempt in (
            lambda: os.write(descriptor, b"x"),
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: os.ftruncate(descriptor, 0),
            lambda: os.ftruncate(descriptor, 100),
        ):
            with pytest.raises(PermissionError):
                attempt()
        assert read_sealed(descriptor, 8) == b"approved"
        with pytest.raises(SealMissing):
            read_sealed(descriptor, 7)
    finally:
        os.close(descriptor)


def test_an_unsealed_memory_file_is_not_read() -> None:
    descriptor = os.memfd_create("config", os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, b"approved")
        with pytest.raises(SealMissing):
            read_sealed(descriptor, 100)
    finally:
        os.close(descriptor)


@in_bench
async def test_an_endless_loop_ends_by_its_fuel(bench: Bench) -> None:
    ended = await bench.live(agent(LOOP))
    assert ended.reason == "fuel" and "all fuel consumed by WebAssembly" in ended.text
    assert ended.fuel == 2_000_000


@in_bench
async def test_fuel_is_per_message_not_per_life(bench: Bench) -> None:
    spin = "(local $i i32) (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))"
    launched = await bench.launch(agent(spin + " (i32.const 150000)))) (i64.const 21474836496)"))
    await launched.worker.release()
    heard = b""
    for _ in range(3):
        await launched.say(b"x\n")
    while heard.count(b"\n") < 4:
        heard += await launched.hear()
    launched.channel.shutdown(socket.SHUT_RDWR)
    ended = await launched.ended()
    assert ended.reason == "eof" and ended.fuel > 2_000_000


@in_bench
async def test_the_wall_clock_interrupts_running_code(bench: Bench) -> None:
    ended = await bench.live(agent(LOOP), config(max_wall_clock=1, max_fuel=2**53 - 1))
    assert ended.reason == "wall-clock" and "interrupt" in ended.text
    assert 900 <= ended.wall_ms < 2500


@in_bench
async def test_the_wall_clock_ends_an_agent_that_waits_for_a_message(bench: Bench) -> None:
    ended = await bench.live(ECHO, config(max_wall_clock=1))
    assert (ended.reason, ended.status) == ("wall-clock", 0) and 900 <= ended.wall_ms < 2500


@in_bench
async def test_the_node_kills_what_outlives_its_wall_clock(bench: Bench) -> None:
    launched = await bench.launch(ECHO, config(max_wall_clock=1))
    os.kill(launched.worker.pid, signal.SIGSTOP)
    await launched.worker.release()
    ended = await launched.ended()
    assert (ended.reason, ended.status) == ("wall-clock", -9) and "killed by the node" in ended.text


@in_bench
async def test_endless_recursion_ends_by_the_stack_limit(bench: Bench) -> None:
    module = agent("(call $f) (i64.const 0)", more="(func $f (call $f))")
    ended = await bench.live(module, config(max_fuel=10**12))
    assert ended.reason == "stack" and "call stack exhausted" in ended.text


@in_bench
async def test_memory_grows_to_its_limit_and_not_beyond(bench: Bench) -> None:
    grow = "(i32.ne (memory.grow (i32.const {})) (i32.const -1))"
    assert (await bench.live(report_of(grow.format(31)))).report == "1"
    assert (await bench.live(report_of(grow.format(32)))).report == "0"


@in_bench
async def test_a_memory_that_starts_over_its_limit_is_not_made(bench: Bench) -> None:
    ended = await bench.live(report_of("(i32.const 1)", memory='(memory (export "memory") 33)'))
    assert ended.reason == "limit" and "memory minimum size of 33 pages exceeds memory limits" in ended.text


@in_bench
async def test_a_table_grows_to_its_limit_and_not_beyond(bench: Bench) -> None:
    grow = "(i32.ne (table.grow $t (ref.null func) (i32.const {})) (i32.const -1))"
    assert (await bench.live(report_of(grow.format(9), more="(table $t 1 funcref)"))).report == "1"
    assert (await bench.live(report_of(grow.format(10), more="(table $t 1 funcref)"))).report == "0"


@in_bench
async def test_tables_over_the_limits_are_not_made(bench: Bench) -> None:
    ended = await bench.live(report_of("(i32.const 1)", more="(table 11 funcref)"))
    assert ended.reason == "limit" and "table minimum size of 11 elements exceeds table limits" in ended.text
    ended = await bench.live(report_of("(i32.const 1)", more="(table 1 funcref) (table 1 funcref)"))
    assert ended.reason == "limit" and "table count too high at 2" in ended.text


def test_a_second_instance_is_refused_by_the_store() -> None:
    settings = runtime.parse_config(config())
    engine = runtime.make_engine(settings.max_stack)
    linked = runtime.compile_module(engine, ECHO, settings.max_module_size)
    store = runtime.bounded_store(engine, settings)
    linked.instantiate(store)
    with pytest.raises(wasmtime.WasmtimeError, match="resource limit exceeded: instance count too high at 2"):
        linked.instantiate(store)


@in_bench
async def test_an_answer_over_the_message_limit_ends_the_agent(bench: Bench) -> None:
    ended = await bench.live(agent(f"(i64.const {4097 << 32})"))
    assert ended.reason == "limit" and "at most 4096 bytes, got 4097" in ended.text
    ended = await bench.live(agent(f"(i64.const {(4097 << 32 | 1 << 63) - (1 << 64)})"))
    assert ended.reason == "limit"


@in_bench
async def test_an_answer_outside_the_memory_ends_the_agent(bench: Bench) -> None:
    ended = await bench.live(agent(f"(i64.const {8 << 32 | 65536 - 7})"))
    assert (ended.reason, ended.text) == ("protocol", "8 bytes at 65529 lie outside the memory")


@in_bench
async def test_a_line_over_the_message_limit_ends_the_agent_before_it_is_complete(bench: Bench) -> None:
    launched = await bench.launch(ECHO)
    await launched.worker.release()
    await launched.say(b"x" * 4096 + b"\n")
    assert await launched.hear() == b"x" * 4096 + b"\n"
    await launched.say(b"x" * 4097)
    assert (await launched.ended()).reason == "protocol"


@in_bench
async def test_a_trap_ends_the_agent_with_the_runtimes_own_text(bench: Bench) -> None:
    ended = await bench.live(agent("unreachable"))
    assert ended.reason == "trap" and "wasm `unreachable` instruction executed" in ended.text
    ended = await bench.live(agent("(i64.load (i32.const 65536))"))
    assert ended.reason == "trap" and "out of bounds memory access" in ended.text


@pytest.mark.parametrize(
    ("module", "name"),
    [("wasi_snapshot_preview1", "path_open"), ("agent", "exec"), ("env", "spawn")],
)
def test_a_module_with_an_import_is_refused_in_the_runtimes_words(module: str, name: str) -> None:
    @in_bench
    async def run(bench: Bench) -> None:
        refused = await bench.refusal(agent("(i64.const 0)", memory=IMPORTING.format(module, name)))
        assert refused.stage == "imports"
        assert f"unknown import: `{module}::{name}` has not been defined" in refused.text

    run()


IMPORTING = '(import "{}" "{}" (func)) (memory (export "memory") 1)'


@in_bench
async def test_a_module_that_is_too_large_is_refused(bench: Bench) -> None:
    assert isinstance((await bench.launch(ECHO, config(max_module_size=len(ECHO)))).answer, Ready)
    refused = await bench.refusal(ECHO, config(max_module_size=len(ECHO) - 1))
    assert refused.stage == "module" and "expected at most" in refused.text


@in_bench
async def test_text_components_and_other_bytes_are_refused_as_modules(bench: Bench) -> None:
    for data in (b"(module)", b"", b"\x7fELF", b"\x00asm\x0d\x00\x01\x00"):
        assert (await bench.refusal(data)).stage == "module"
    for data in (ECHO[:-1], ECHO + b"\x00"):  # no reader takes these, and the runtime says why
        assert (await bench.refusal(data)).stage == "compile"


@in_bench
async def test_a_module_with_other_exports_is_refused(bench: Bench) -> None:
    for text in (
        "(module)",
        '(module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) i32.const 0))',
        '(module (memory (export "memory") 1) (func (export "alloc")) (func (export "handle")))',
    ):
        assert (await bench.refusal(bytes(wasmtime.wat2wasm(text)))).stage == "module"


@in_bench
async def test_code_that_does_not_validate_is_refused_by_the_compiler(bench: Bench) -> None:
    broken = ECHO.replace(b"\x41\x80\x20", b"\x42\x80\x20")
    assert broken != ECHO
    refused = await bench.refusal(broken)
    assert refused.stage == "compile" and "type mismatch" in refused.text


LIMITS = ("max_memory", "max_fuel", "max_wall_clock", "max_stack", "max_instances", "max_tables", "max_table_elements",
          "max_module_size", "max_message")  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_is_no_positive_integer_is_refused(limit: str) -> None:
    for value in (0, -1, True, "1", None):
        with pytest.raises(FormatError):
            runtime.parse_config(config(**{limit: value}))


def test_a_limit_that_would_overflow_is_refused() -> None:
    for limit, greatest in (("max_memory", 4096), ("max_wall_clock", 315_360_000), ("max_stack", 65536)):
        assert runtime.parse_config(config(**{limit: greatest}))
        for value in (greatest + 1, 2**53 - 1):
            with pytest.raises(FormatError):
                runtime.parse_config(config(**{limit: value}))


@in_bench
async def test_a_spawn_that_the_zygote_would_not_take_is_refused_before_it_sees_it(bench: Bench) -> None:
    with pytest.raises(FormatError):
        await bench.launch(ECHO, start="x" * 16385)
    assert isinstance((await bench.launch(ECHO, start="x" * 4096)).answer, Ready)


@in_bench
async def test_a_worker_refuses_a_configuration_that_it_can_not_take(bench: Bench) -> None:
    for settings in (
        config(max_fuel=0), config(max_memory=-1), config(strict_security=False), config(relaxed=True), b"{}", b"",
        config() + b"\n", canonical({"version": 2}),
    ):  # fmt: skip
        launched = await bench.launch(ECHO, settings or b" ")
        assert getattr(launched.answer, "stage", None) == "config", settings
        await launched.ended()


@in_bench
async def test_no_instruction_runs_before_the_release_and_the_start_function_runs_after_it(bench: Bench) -> None:
    module = agent("(i64.const 0)", more="(func $go (loop $l (br $l))) (start $go)")
    held = await bench.launch(module)
    assert isinstance(held.answer, Ready)
    held.worker.kill()
    ended = await held.ended()
    assert (ended.reason, ended.fuel, ended.status) == ("killed", 0, -9)
    ended = await bench.live(module)
    assert (ended.reason, ended.fuel, ended.messages) == ("fuel", 2_000_000, 0)


@in_bench
async def test_anything_but_the_release_ends_a_held_worker_without_running_it(bench: Bench) -> None:
    held = await bench.launch(says("ran"))
    assert held.worker._writer is not None
    held.worker._writer.write(b"releasX\n")
    held.worker._released_at = asyncio.get_running_loop().time()
    ended = await held.ended()
    assert (ended.reason, ended.fuel) == ("refused", 0)
    assert await held.hear() == b""


@in_bench
async def test_all_probes_are_refused_in_the_kernels_words(bench: Bench) -> None:
    answer = (await bench.launch(ECHO)).answer
    assert isinstance(answer, Ready)
    assert {probe.verdict for probe in answer.probes} == {"REFUSED"}
    assert len(answer.probes) == 8 + 34 or bench.facts.landlock_abi < 6
    assert all(probe.refusal[0] == "E" for probe in answer.probes)


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@in_bench
async def test_a_worker_looks_from_outside_as_it_should_held_and_running(bench: Bench) -> None:
    launched = await bench.launch(ECHO)
    pid = launched.worker.pid
    for running in (False, True):
        if running:
            await launched.worker.release()
            await launched.say(b"x\n")
            assert await launched.hear() == b"x\n"
        status = _status(pid)
        assert int(status["Threads"]) == WORKER_THREADS
        for task in os.listdir(f"/proc/{pid}/task"):
            of_task = _status(int(task))
            assert (of_task["NoNewPrivs"], of_task["Seccomp"], of_task["Seccomp_filters"]) == ("1", "2", "1")
            assert {of_task[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
            assert of_task["CapBnd"] == bench.facts.bounding
        assert len(set(status["Uid"].split())) == 1 and (not ROOT or status["Groups"] == "")
        links = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        assert sorted(links) == list("0123456")
        assert {links[name] for name in "012"} == {"/dev/null"}
        assert [links[name] for name in "34"] == [f"/memfd:ironbound-{name} (deleted)" for name in ("config", "module")]
        assert links["5"].startswith("socket:") and links["6"].startswith("socket:")
        maps = [line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        assert not [fields for fields in maps if "w" in fields[1] and "x" in fields[1]]
        files = {fields[5] for fields in maps if "x" in fields[1] and fields[4] != "0"}
        assert sorted({sha256_hex(Path(file).read_bytes()) for file in files}) == list(bench.facts.mappings)
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""


def _installed_filter(pid: int) -> bytes:
    """What PTRACE_SECCOMP_GET_FILTER reads back; the tracee is stopped and let go on."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    assert libc.ptrace(0x4206, pid, None, None) == 0, os.strerror(ctypes.get_errno())
    assert libc.ptrace(0x4207, pid, None, None) == 0
    # __WALL: the worker is the zygote's child, but its tracer may wait for it.
    os.waitpid(pid, 0x40000000)
    count = libc.ptrace(0x420C, pid, None, None)
    assert count > 0, os.strerror(ctypes.get_errno())
    program = ctypes.create_string_buffer(count * 8)
    assert libc.ptrace(0x420C, pid, None, program) == count
    assert libc.ptrace(17, pid, None, None) == 0
    return program.raw


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="reading a filter back needs CAP_SYS_ADMIN")
def test_the_filter_read_back_from_the_kernel_is_the_one_that_the_verifier_assembles() -> None:
    @in_bench
    async def run(bench: Bench) -> None:
        launched = await bench.launch(ECHO)
        program = _installed_filter(launched.worker.pid)
        assert program == worker_filter(platform.machine())
        assert filter_digest(program) == filter_digest(worker_filter())
        await launched.worker.release()
        await launched.say(b"still alive\n")
        assert await launched.hear() == b"still alive\n"

    run()


@in_bench
async def test_a_worker_has_the_limits_that_the_table_names(bench: Bench) -> None:
    pid = (await bench.launch(ECHO)).worker.pid
    rows = {
        "nofile": "Max open files", "nproc": "Max processes", "core": "Max core file size", "fsize": "Max file size",
        "stack": "Max stack size", "memlock": "Max locked memory", "msgqueue": "Max msgqueue size",
    }  # fmt: skip
    text = Path(f"/proc/{pid}/limits").read_text().splitlines()
    for name, pair in worker_rlimits(runtime.parse_config(config()).value).items():
        line = next(line for line in text if line.startswith(rows[name]))
        assert tuple(int(word) for word in line[len(rows[name]) :].split()[:2]) == pair


@in_bench
async def test_the_namespaces_are_what_the_zygote_says(bench: Bench) -> None:
    pid = (await bench.launch(ECHO)).worker.pid
    for kind, state in bench.facts.namespaces.items():
        differs = os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        assert differs == (state == "private")


@in_bench
async def test_a_stop_and_a_continue_do_not_disturb_the_clock(bench: Bench) -> None:
    launched = await bench.launch(ECHO, config(max_wall_clock=2))
    await launched.worker.release()
    for word in (b"a\n", b"b\n"):
        os.kill(launched.worker.pid, signal.SIGSTOP)
        while _status(launched.worker.pid)["State"][0] != "T":
            await asyncio.sleep(0.005)
        os.kill(launched.worker.pid, signal.SIGCONT)
        await launched.say(word)
        assert await launched.hear() == word
    assert (await launched.ended()).reason == "wall-clock"


@in_bench
async def test_workers_die_with_the_zygote(bench: Bench) -> None:
    held, running = await bench.launch(ECHO), await bench.launch(ECHO)
    await running.worker.release()
    descriptors = [os.dup(item.worker.pidfd) for item in (held, running)]
    os.kill(bench.facts.pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        await bench.zygote.lost.wait()
    ended = await running.ended()
    assert (ended.reason, ended.status) == ("killed", None)
    for descriptor in descriptors:
        assert await _gone(descriptor)
        os.close(descriptor)
    with pytest.raises(ZygoteLost):
        await bench.launch(ECHO)


async def _gone(pidfd: int) -> bool:
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, gone.set)
    async with asyncio.timeout(5):
        await gone.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    return True


NODE = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from agents import ECHO, bench
async def main():
    async with bench() as made:
        worker = (await made.launch(ECHO)).worker
        print(made.facts.pid, worker.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def test_zygote_and_workers_die_with_the_node() -> None:
    async def run() -> None:
        folder = str(Path(__file__).parent)
        node = await asyncio.create_subprocess_exec(
            sys.executable, "-c", NODE, folder, stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]}
        )
        assert node.stdout is not None
        async with asyncio.timeout(20):
            pids = [int(word) for word in (await node.stdout.readline()).split()]
            descriptors = [os.pidfd_open(pid) for pid in pids]
            node.kill()
            await node.wait()
            for descriptor in descriptors:
                assert await _gone(descriptor)
                os.close(descriptor)

    asyncio.run(run())


@in_bench
async def test_a_launch_given_up_while_it_forks_leaves_no_worker_and_disturbs_no_other(bench: Bench) -> None:
    other = await bench.launch(ECHO)
    task = asyncio.ensure_future(bench.launch(ECHO))
    await asyncio.sleep(0)  # the request is out, its answer is not in
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await other.worker.release()
    await other.say(b"x\n")
    assert await other.hear() == b"x\n"
    async with asyncio.timeout(5):
        while bench.children()[0] != [other.worker.pid]:
            await asyncio.sleep(0.01)


@in_bench
async def test_garbage_on_the_control_channel_is_a_protocol_end_and_a_kill(bench: Bench) -> None:
    for garbage in (b"{}", b"[1]", b'{"type":"exited"}', b"\xff", b'{"type":"ready"}', b"x" * 40000):
        launched = await bench.launch(ECHO)
        await launched.worker.release()
        reader = launched.worker._reader
        assert reader is not None
        reader.feed_data(garbage + b"\n")
        ended = await launched.ended()
        assert (ended.reason, ended.status) == ("protocol", -9)


def test_control_messages_with_anything_else_in_them_are_refused() -> None:
    word = {"type": "exited", "reason": "eof", "text": "", "report": "", "messages": 1, "fuel": 2}
    assert parse_last_word(canonical(dict(word))).messages == 1
    for change in ({"reason": "granted"}, {"messages": -1}, {"fuel": True}, {"grant": "all"}, {"report": "x" * 4097}):
        with pytest.raises(FormatError):
            parse_last_word(canonical({**word, **change}))
    with pytest.raises(FormatError):
        digests = {"config_sha256": "0" * 63, "module_sha256": "0" * 64}
        parse_first_word(canonical({"type": "ready", **digests, "probes": []}))


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="an ordinary user has one uid only")
def test_a_worker_is_never_given_root() -> None:
    @in_bench
    async def run(bench: Bench) -> None:
        mine, its = socket.socketpair()
        with mine, its:
            worker = await bench.zygote.spawn(7, 0, 0, config(), ECHO, its.fileno(), "")
            answer = await worker.ready()
            assert getattr(answer, "stage", None) == "lockdown"
            await worker.ended()

    run()


@pytest.mark.slow
@in_bench
async def test_forty_launches_leave_no_descriptor_behind(bench: Bench) -> None:
    def open_descriptors(pid: int | str) -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    await bench.live(says("x", final=True))
    async with asyncio.timeout(5):
        while len(bench.children()[1]) < ROOT:
            await asyncio.sleep(0.01)
    before = open_descriptors("self") - 1, open_descriptors(bench.facts.pid)
    for _ in range(40):
        launched = await bench.launch(says("x", final=True))
        await launched.worker.release()
        await launched.ended()
        launched.channel.close()
    deadline = time.monotonic() + 5
    while open_descriptors("self") > before[0] + 1 and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert open_descriptors("self") <= before[0] + 1
    async with asyncio.timeout(5):  # the next one has to stand by
        while open_descriptors(bench.facts.pid) != before[1]:
            await asyncio.sleep(0.01)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(not ROOT, reason="this is how root runs the tests as somebody else")
def test_the_same_promises_hold_for_an_ordinary_user() -> None:
    folder = tempfile.mkdtemp(prefix="ironbound-user-")
    try:
        os.chmod(folder, 0o755)
        for name in ("agents.py", "test_sandbox.py"):
            shutil.copy(Path(__file__).with_name(name), folder)
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not clock and not leave",
            "-W", "error", "-W", "ignore::pytest.PytestUnknownMarkWarning", folder,
        ]  # fmt: skip
        done = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command],
            cwd=folder, env={"PATH": os.environ["PATH"], "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout.decode()[-4000:]
        assert b" passed" in done.stdout
    finally:
        shutil.rmtree(folder)
