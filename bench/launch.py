"""An evidenced launch in each runtime of the machine: from the signed request to the agent's first instruction.

In a real deployment, beside the bare runtime in the same run, in turn. The clock starts just before the signed request
is sent to the controller's socket (everything that the operator does before is not measured). When the first
instruction ran, is known

- from a container's agent, a program that says the host's time and ends (`bare` runs the same one);
- from `exited.at_ms` less the wall time that the node measured between release and end, for a Wasm agent, which has
  no clock, and a virtual machine, whose clock is another. It is of whole milliseconds, and late, never early.

Beside it, as ratios of p50 and of p99: for a container its bare runtime up to the same program's word; for a virtual
machine a bare boot (see `microvm`); for a Wasm agent the fork of a zygote up to the locked-down worker's word, and a
bare `runc run`. That fork is made on order; as root the agent meets a worker that stands by, as it does some time after
the launch before. `added` is the launch less what stands beside it, at p50 and at p99; `aim` is what may be added: two
appends and 5 ms, by the same run's p50 and p99 of a durable, witnessed append. `met` says whether p50 does.

That append is one that a service waits for, in the same deployment and in turn with the launches: from the statement,
not signed yet, to its own entry, folded from the stream under a witnessed checkpoint. It is said with the node's key,
and void, as it speaks of no launch. The measuring process is one follower more than a deployment has.

The stages are cut at the times at which services signed their statements: `checked` by the controller; `seen` by the
monitor, after the append of the admission, built and locked down; `said` by the node; `released`, after the append of
the start.

Floors, in the same run and on the same disk: the writes of an append are what their order demands: one SQLite commit
(WAL, FULL) of an entry, then side by side the fdatasync of the ledger's high-water mark and that of the witness. A
launch has two appends before its first instruction (admitted, started). And a cold worker:
`python -c "import wasmtime"`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "system"))

import httpx
import native
import wasmtime
from stand import Stand, folder, until

from bench.bare import PROGRAM, Bare, compile_program
from bench.floor import percentile
from bench.microvm import bare as bare_boot
from ironbound.core.canonical import Digest
from ironbound.core.held import read_held
from ironbound.core.microvm import FIRECRACKER, QEMU
from ironbound.node.microvm import kernel as kernels
from ironbound.node.native.container import BINARIES
from ironbound.node.sandbox.launcher import Ready, Zygote
from ironbound.wire.durable import DurableRecord

APPENDS = 2
ENTRY = bytes(2500)
#: Ends in its first call, with an empty report.
MODULE = bytes(
    wasmtime.wat2wasm(
        """(module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "handle") (param i32 i32) (result i64) (i64.const 0x8000000000000000)))"""
    )
)


#: What may be added to the bare runtime, beside two appends.
AIM_MS = 5.0
WASM = "wasmtime"

Took = list[float]


def _row(name: str, took: Took, floor: Took | None = None, appends: Took | None = None) -> dict[str, Any]:
    middle, last = percentile(took, 0.5), percentile(took, 0.99)
    row: dict[str, Any] = {"name": name, "unit": "ms", "p50": round(middle, 2), "p99": round(last, 2)}
    if floor is not None:
        base, late = percentile(floor, 0.5), percentile(floor, 0.99)
        row |= {"floor": round(base, 2), "its p99": round(late, 2)}
        row |= {"ratio": round(middle / base, 2), "of p99": round(last / late, 2)}
        if appends is not None:
            aim, late_aim = (2 * percentile(appends, share) + AIM_MS for share in (0.5, 0.99))
            row |= {
                "added": round(middle - base, 2),
                "aim": round(aim, 2),
                "added/aim": round((middle - base) / aim, 2),
                "added p99": round(last - late, 2),
                "aim p99": round(late_aim, 2),
                "met": "yes" if middle - base <= aim else "no",
            }
    return row


class NotFinishedError(RuntimeError):
    """The launch was refused, or ended otherwise than by the agent's own word."""


@dataclass(slots=True)
class Tried:
    """One runtime: what to launch in it, what stands beside it, and what both took."""

    name: str
    module: Digest
    config: Digest
    bare: Callable[[], float] | None
    most: int
    launches: list[dict[str, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    floor: Took = field(default_factory=list)


def _one_launch(stand: Stand, agent: str, tried: Tried) -> dict[str, float]:
    """One launch from sending to the end; milliseconds of each stage."""
    payload = stand.build("launch-request", agent=agent, module=tried.module, config=tried.config)
    body = stand.sign(payload).encode()
    transport = httpx.HTTPTransport(uds=stand.deployment.socket("controller"))
    with httpx.Client(transport=transport, timeout=60, trust_env=False) as client:
        client.get("http://controller/status").raise_for_status()  # connected
        sent = time.time_ns() / 1e6
        answer = client.post("http://controller/requests", content=body)
    answer.raise_for_status()
    launch = int(answer.json()["index"])
    ended = until(
        f"{agent} is over",
        lambda: next(iter([*stand._matching("exited", launch, {"launch": launch}),
                           *stand._matching("launch-refused", launch, {"launch": launch})]), None),
    )  # fmt: skip
    if ended.predicate["reason"] != "finished":
        raise NotFinishedError(f"{ended.predicate['reason']}: {ended.predicate['text']}")
    said = {one.kind: one.predicate for one in stand.log.entries[launch:] if one.predicate.get("agent") == agent}
    admitted = stand.log.entries[launch].predicate["at_ms"]
    over, seen = ended.predicate["at_ms"], read_held(said["started"]["held"])["at_ms"]
    word = ended.predicate["report"].strip()
    released = int(word) / 1e6 if word and tried.name in BINARIES else over - ended.predicate["usage"]["wall_ms"]
    return {
        "first": released - sent,
        "over": over - sent,
        "checked": admitted - sent,
        "seen": seen - admitted,
        "said": said["started"]["at_ms"] - seen,
        "released": released - said["started"]["at_ms"],
    }


def _append(stand: Stand) -> float:
    """Milliseconds of one durable, witnessed append, as a service waits for it."""
    nothing = Digest("0" * 64)
    said = {"launch": 0, "agent": "bench", "stage": "spawn", "reason": "sandbox-unavailable", "text": "x" * 1200}
    return stand.log.append("launch-refused", nothing, **said, module_sha256=nothing, config_sha256=nothing)


def _writes(where: Path, rounds: int) -> Took:
    """Milliseconds of the writes that one append demands."""
    took = []
    with tempfile.TemporaryDirectory(dir=where) as name, ThreadPoolExecutor(2) as pool:
        database = sqlite3.connect(f"{name}/floor.db", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE entry (i INTEGER PRIMARY KEY, data BLOB)")
        marks = []
        for one in ("mark", "witness"):
            DurableRecord.create(f"{name}/{one}", bytes(300))
            marks.append(DurableRecord.open(f"{name}/{one}"))
        for _ in range(rounds):
            begin = time.perf_counter()
            database.execute("INSERT INTO entry (data) VALUES (?)", (ENTRY,))
            list(pool.map(lambda mark: mark.replace(bytes(300)), marks))
            took.append((time.perf_counter() - begin) * 1e3)
        for mark in marks:
            mark.close()
        database.close()
    return took


async def _forks(config: bytes, rounds: int) -> Took:
    """Milliseconds from the request to the zygote to the locked-down worker's word, forked on order."""
    took = []
    zygote = Zygote(stands_by=False)
    await zygote.start()
    user, group = (61_100, 61_100) if os.getuid() == 0 else (os.getuid(), os.getgid())
    try:
        for number in range(rounds):
            here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with here, there:
                begin = time.perf_counter()
                worker = await zygote.spawn(number, user, group, config, MODULE, there.fileno(), "")
                word = await worker.ready()
                took.append((time.perf_counter() - begin) * 1e3)
                worker.kill()
                await worker.ended()
            if not isinstance(word, Ready):
                raise RuntimeError(f"the worker refused: {word}")
    finally:
        await zygote.close()
    return took


def _cold(rounds: int) -> Took:
    took = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", "import wasmtime"], check=True)
        took.append((time.perf_counter() - begin) * 1e3)
    return took


def _machine(stand: Stand) -> Callable[[], float]:
    """A bare boot of the machine that this deployment's node boots."""
    facts = _host(stand)["runtimes"][QEMU]
    kernel = kernels.Kernel(stand.deployment.root, QEMU)
    return lambda: bare_boot(str(facts["binary"]), kernel, str(facts["accelerator"]))


def _host(stand: Stand) -> Any:
    return stand.entries("service-started", role="node")[-1].predicate["host"]


def _all(stand: Stand, work: Path, rounds: int) -> tuple[list[Tried], list[dict[str, Any]]]:
    """Every runtime that this node has, and a row for each that it lacks."""
    source = work / "source"
    source.mkdir()
    compile_program(source)
    found = [Tried(WASM, stand.approve_module(MODULE), stand.config, None, rounds)]
    missing = [_lacks(FIRECRACKER, _host(stand))] if FIRECRACKER not in _host(stand)["runtimes"] else []
    program = native.agent(stand, native.image(stand, source), f"/{PROGRAM}")
    for name in (*BINARIES, QEMU):
        if name not in _host(stand)["runtimes"]:
            missing.append(_lacks(name, _host(stand)))
        elif name == QEMU:
            config = native.profile(stand, name, "[agent.runtime]\nmax_memory = 128\n")
            found.append(Tried(name, program, config, _machine(stand), max(3, rounds // 5)))
        elif name not in native.RUNTIMES:
            missing.append({"name": f"{name}: an ordinary user can't make its cgroup, so not tested"})
        else:
            bare = Bare(name, source, work).launch
            found.append(Tried(name, program, native.profile(stand, name), bare, rounds))
    return found, missing


def _lacks(name: str, host: Any) -> dict[str, Any]:
    why = str(host["unavailable"].get(name, "this node does not know it"))
    return {"name": f"{name}: {why.removeprefix(f'{name}: ').removeprefix('not tested ')}, so not tested"}


def _measure(stand: Stand, found: list[Tried], rounds: int) -> Took:
    """In turn, so that what the machine does besides falls on all of them; what the appends between them took."""
    appends: Took = []
    for number in range(-1, rounds):
        first = number % len(found)  # so that none is always the first
        for tried in (*found[first:], *found[:first]):
            if number >= tried.most:
                continue
            try:
                launch = _one_launch(stand, f"{tried.name}-{number + 1}", tried)
            except NotFinishedError as error:  # said in the table, which is then of the others
                tried.failed.append(str(error))
                continue
            beside = None if tried.bare is None else tried.bare()
            append = _append(stand)
            if number >= 0:  # everything has run once
                tried.launches.append(launch)
                appends.append(append)
                if beside is not None:
                    tried.floor.append(beside)
    return appends


def _rows(tried: Tried, appends: Took, forks: Took, cold: Took, runc: Took) -> list[dict[str, Any]]:
    took, middle = [one["first"] for one in tried.launches], percentile(appends, 0.5)
    if tried.name == WASM:
        rows = [
            _row(f"{WASM}; floor: a zygote's fork", took, forks, appends),
            _row(f"{WASM}; floor: {APPENDS} appends and a fork", took, [APPENDS * middle + one for one in forks]),
            _row(f"{WASM}; floor: a cold worker", took, cold),
        ]
        if not runc:
            return rows
        beats = {"met": "yes" if percentile(took, 0.5) < percentile(runc, 0.5) else "no"}
        return [*rows, _row(f"{WASM}, which should beat bare runc; floor: bare runc", took, runc) | beats]
    kind = "a bare boot" if tried.name == QEMU else f"bare {tried.name}"
    return [_row(f"{tried.name}; floor: {kind}", took, tried.floor, appends)]


def _stages(tried: Tried) -> dict[str, Any]:
    stages = {stage: [one[stage] for one in tried.launches] for stage in tried.launches[0]}
    middles = {stage: round(percentile(took, 0.5), 1) for stage, took in stages.items() if stage != "first"}
    return {"name": f"{tried.name}: stages, p50", "unit": "ms"} | middles


def run(quick: bool) -> list[dict[str, Any]]:
    """Rows for the launches beside their floors, for the floors' parts, and for where the time goes."""
    rounds = 10 if quick else 30
    with tempfile.TemporaryDirectory(prefix="ironbound-bench-") as name:
        os.chmod(name, 0o711)
        work = Path(name)
        stand = Stand(folder(work, "d"))
        try:
            with contextlib.suppress(kernels.KernelMissing):
                kernels.place(stand.root, *kernels.installed())
            stand.start()
            stand.speak_as("node")
            stand.config = stand.approve_profile()
            found, missing = _all(stand, work, rounds)
            appends = _measure(stand, found, rounds)
            config = stand.deployment.artifact(stand.config)
        finally:
            stand.stop()
        writes = _writes(work, 3 * rounds)
    forks = asyncio.run(_forks(config, rounds))
    cold = _cold(max(5, rounds // 3))
    failed = [tried for tried in found if tried.failed]
    found = [tried for tried in found if tried.launches]
    runc = next((tried.floor for tried in found if tried.name == "runc"), [])
    return [
        *(row for tried in found for row in _rows(tried, appends, forks, cold, runc)),
        *missing,
        *({"name": f"{tried.name}: {len(tried.failed)} launches failed: {tried.failed[0][:150]}"} for tried in failed),
        _row("a durable, witnessed append; floor: its writes", appends, writes),
        _row("floor: a fork of the zygote, locked down", forks),
        *(_stages(tried) for tried in found),
    ]
