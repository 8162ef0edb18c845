"""Every native probe behind every wall: bubblewrap, the guard, and the product's own filter. All are REFUSED."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ironbound.canary
from ironbound.canary.probes import load_probes
from ironbound.controller.openapi import DESCRIPTION
from ironbound.core.canary import verdict
from native_channel import LIMITS, closed_table, overheard
from native_stand import DROP_ALL, PROBE, ROOT, bubblewrap, folder_for_all, make_rootfs, plan, start

NONCE = "0123456789abcdef0123456789abcdef"
ROWS = {shipped.name: shipped.document for shipped in load_probes("native")}
RESOURCES = {1: 4 << 20, 3: 8 << 20, 4: 0, 6: 64, 7: 64, 8: 0, 9: 64 << 20, 12: 0, 13: 0, 14: 0}
SCRATCH_FILES = 256
RATE = 50
CONFIG = json.dumps({"channel": {"max_messages_per_second": RATE}, "runtime": {"max_cpu": 100}}).encode()


@pytest.fixture(scope="module")
def rootfs() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield make_rootfs(folder, [PROBE])


def each_probe() -> Iterator[Any]:
    """bubblewrap cannot bound a tmpfs's inodes, and only root can mount one for it."""
    for name in ROWS:
        marks = [pytest.mark.root, pytest.mark.skipif(not ROOT, reason="needs root")] if name == "limit-inodes" else []
        yield pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", list(each_probe()))
def test_behind_every_wall_the_probe_is_refused(name: str, rootfs: Path) -> None:
    bytes_of_plan = plan("/probe", name, limits=RESOURCES, variables=[f"IRONBOUND_NONCE={NONCE}"])
    command, before = bubblewrap(rootfs), list(DROP_ALL[:-2]) if ROOT else []
    if name == "limit-inodes":
        scratch = rootfs.parent / "scratch"
        scratch.mkdir()
        script = 'mount -t tmpfs -o mode=1777,nr_inodes="$1" none "$2"; shift 2; exec "$@"'
        before = ["unshare", "--mount", "sh", "-c", script, "sh", str(SCRATCH_FILES), str(scratch), *before]
        command = bubblewrap(rootfs, "--bind", str(scratch), "/tmp", without=["--size"])
    if name == "limit-cpu":
        before = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *before]
    with start(bytes_of_plan, config=CONFIG, command=command, before=before) as guard:
        assert guard.word()["type"] == "ready"
        if name.startswith("channel-"):
            slow = replace(LIMITS, max_messages_per_second=RATE)
            closed_table(guard.channel, slow if name == "channel-rate" else LIMITS)
        guard.release()
        report = guard.rest().decode()
        assert guard.end() == 0
    decided, refusal = verdict(ROWS[name], NONCE, "finished", "", report)
    assert decided == "REFUSED", refusal
    assert len(json.loads(report)["refusal"]) < 512


def test_a_native_agent_says_the_whole_dictionary_and_every_route_of_the_operator_channel(rootfs: Path) -> None:
    """What the probe really sends, as the gateway takes it: nothing less than the Wasm canary of the same words."""
    heard: list[bytes] = []
    bytes_of_plan = plan("/probe", "channel-operator", limits=RESOURCES, variables=[f"IRONBOUND_NONCE={NONCE}"])
    before = list(DROP_ALL[:-2]) if ROOT else []
    with start(bytes_of_plan, config=CONFIG, command=bubblewrap(rootfs), before=before) as guard:
        assert guard.word()["type"] == "ready"
        overheard(guard.channel, heard)
        guard.release()
        report = guard.rest().decode()
    assert verdict(ROWS["channel-operator"], NONCE, "finished", "", report)[0] == "REFUSED", report
    lines = [line.decode().rstrip("\n") for line in heard]
    said = [json.loads(line) for line in lines if line.startswith("{")]
    methods = {one["method"] for one in said}
    source = (Path(ironbound.canary.__file__).parent / "modules" / "operator-words.h").read_text("ascii")
    words = [line[6:-2] for line in source.splitlines() if line.startswith('WORD("')]
    assert len(words) > 300 and set(words) <= methods
    addresses = {one["params"].get("uri") for one in said if one["method"] == "resources/read"}
    for path, item in DESCRIPTION["paths"].items():
        assert f"http://controller{path}" in addresses
        for verb in item:
            assert f"{verb.upper()} {path}" in methods
            assert f"{verb.upper()} {path} HTTP/1.1" in lines


def test_there_are_sixty_probes_and_more_each_with_a_sentence_and_controls() -> None:
    assert len(ROWS) >= 60
    assert all(row["about"].endswith(".") and row["controls"] for row in ROWS.values())
