"""An evidenced launch: from the signed request to the agent's first instruction, in a real deployment.

The clock starts just before the signed request is sent to the controller's socket (everything that the operator does
before is not measured). The agent is a module that ends in its first call; two moments bound its first instruction:

- *released*: `exited.at_ms` less the wall time that the node measured between release and end, which is before it;
- *over*: `exited.at_ms`, when the agent has run, died and been reaped, which is after it.

Both are of whole milliseconds. The stages are cut at the times at which services signed their statements, so each
holds the durable, witnessed append of the statement before it.

Floors, in the same run and on the same disk: what the order of writes demands, three times (admitted, started,
observed): one SQLite commit (WAL, FULL) of an entry, then side by side the fdatasync of the ledger's high-water mark
and that of the witness; and one fork of a zygote up to the locked-down, probed worker's word that it is ready. And a
cold worker: `python -c "import wasmtime"`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "system"))

import httpx
import wasmtime
from stand import Stand, folder

from bench.floor import percentile
from ironbound.core.canonical import Digest
from ironbound.node.sandbox.launcher import Ready, Zygote
from ironbound.wire.durable import DurableRecord

APPENDS = 3
ENTRY = bytes(2500)
#: Ends in its first call, with an empty report.
MODULE = bytes(
    wasmtime.wat2wasm(
        """(module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "handle") (param i32 i32) (result i64) (i64.const 0x8000000000000000)))"""
    )
)


def _row(name: str, took: list[float], floor: list[float] | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "unit": "ms",
        "p50": round(percentile(took, 0.5), 2),
        "p99": round(percentile(took, 0.99), 2),
    }
    if floor is not None:
        base = percentile(floor, 0.5)
        row |= {"floor": round(base, 2), "ratio": round(percentile(took, 0.5) / base, 2)}
    return row


def _one_launch(stand: Stand, number: int, module: Digest) -> dict[str, float]:
    """One launch from sending to the end; milliseconds of each stage."""
    payload = stand.build("launch-request", agent=f"bench{number}", module=module, config=stand.config)
    body = stand.sign(payload).encode()
    transport = httpx.HTTPTransport(uds=stand.deployment.socket("controller"))
    with httpx.Client(transport=transport, timeout=60, trust_env=False) as client:
        client.get("http://controller/status").raise_for_status()  # connected
        sent = time.time_ns() / 1e6
        answer = client.post("http://controller/requests", content=body)
    answer.raise_for_status()
    launch = int(answer.json()["index"])
    ended = stand.await_entry("exited", launch, launch=launch)
    said = {one.kind: one.predicate for one in stand.log.entries[launch:] if one.kind in ("started", "observed")}
    admitted = stand.log.entries[launch].predicate["at_ms"]
    if ended.predicate["reason"] != "finished":
        raise RuntimeError(f"the agent should have finished: {ended.predicate}")
    over = ended.predicate["at_ms"]
    released = over - ended.predicate["usage"]["wall_ms"]
    return {
        "released": released - sent,
        "over": over - sent,
        "controller checks and signs": admitted - sent,
        "admitted is logged, sandbox is ready": said["started"]["at_ms"] - admitted,
        "started is logged, monitor looks": said["observed"]["at_ms"] - said["started"]["at_ms"],
        "observed is logged, gateway attaches": released - said["observed"]["at_ms"],
    }


def _appends(where: Path, rounds: int) -> list[float]:
    """Milliseconds of the writes that one evidenced launch demands."""
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
            for _ in range(APPENDS):
                database.execute("INSERT INTO entry (data) VALUES (?)", (ENTRY,))
                list(pool.map(lambda mark: mark.replace(bytes(300)), marks))
            took.append((time.perf_counter() - begin) * 1e3)
        for mark in marks:
            mark.close()
        database.close()
    return took


async def _forks(config: bytes, rounds: int) -> list[float]:
    """Milliseconds from the request to the zygote to the locked-down worker's word."""
    took = []
    zygote = Zygote()
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


def _cold(rounds: int) -> list[float]:
    took = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", "import wasmtime"], check=True)
        took.append((time.perf_counter() - begin) * 1e3)
    return took


def run(quick: bool) -> list[dict[str, Any]]:
    """Rows for the whole launch against its floors, for the floor's parts, and for where the time goes."""
    rounds = 10 if quick else 30
    with tempfile.TemporaryDirectory(prefix="ironbound-bench-") as name:
        os.chmod(name, 0o711)
        stand = Stand(folder(Path(name), "d"))
        try:
            stand.start()
            stand.config = stand.approve_profile()
            module = stand.approve_module(MODULE)
            _one_launch(stand, 0, module)  # everything has run once
            launches = [_one_launch(stand, number + 1, module) for number in range(rounds)]
            config = stand.deployment.artifact(stand.config)
        finally:
            stand.stop()
        appends = _appends(Path(name), rounds)
    forks = asyncio.run(_forks(config, rounds))
    cold = _cold(max(5, rounds // 3))
    floor = [one + other for one, other in zip(appends, forks, strict=True)]
    stages = {stage: [one[stage] for one in launches] for stage in launches[0]}
    return [
        _row("evidenced launch, to the release; floor: writes + fork", stages["released"], floor),
        _row("evidenced launch, agent run and over; floor: writes + fork", stages["over"], floor),
        _row("evidenced launch, to the release; floor: a cold worker", stages["released"], cold),
        _row(f"floor: the writes of {APPENDS} witnessed appends", appends),
        _row("floor: a fork of the zygote, locked down", forks),
        *(_row(f"stage: {stage}", took) for stage, took in list(stages.items())[2:]),
    ]
