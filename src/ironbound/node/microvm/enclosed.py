"""Starts a hypervisor through the wall, and waits until it runs behind it. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Final

from ironbound.core.canonical import Value, canonical, parse_json
from ironbound.core.microvm import DESCRIPTORS
from ironbound.node.processes import readable, reap, spawn

from .wall import REPORT_FD

START_S: Final = 20.0


async def start_enclosed(order: Value, targets: Mapping[int, int]) -> int:
    """The pid of the hypervisor, our own child, once it is started behind its walls. `order` is the wall's; `targets`
    are all of its descriptors but 0 to 2 and the report. Raises OSError, ValueError, FormatError, TimeoutError."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    read, write = os.pipe()
    argv = [sys.executable, "-I", "-B", "-m", "ironbound.node.microvm.wall", canonical(order).decode()]
    try:
        try:
            helper = spawn(argv, {0: null, 1: null, 2: targets[DESCRIPTORS["console"]], REPORT_FD: write,
                                  **targets})  # fmt: skip
        finally:
            os.close(null)
            os.close(write)
        said = await _report(read)
    finally:
        os.close(read)
    await _reaped(helper)
    lines = [parse_json(line, limit=4096) for line in said.splitlines()]
    pids = [line["pid"] for line in lines if isinstance(line, dict) and type(line.get("pid")) is int]
    failed = [str(line["failed"]) for line in lines if isinstance(line, dict) and "failed" in line]
    if failed or len(pids) != 1:
        for pid in pids:
            await _reaped(int(str(pid)))
        raise ValueError("; ".join(failed) or "the wall named no process")
    return int(str(pids[0]))


async def _report(read: int) -> bytes:
    """Everything that the wall says until its program has become the hypervisor."""
    data = b""
    os.set_blocking(read, False)
    async with asyncio.timeout(START_S):
        while True:
            await readable(read)
            part = os.read(read, 4096)
            data += part
            if not part:
                return data


async def _reaped(pid: int) -> None:
    """Our own child that has ended or is about to."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            async with asyncio.timeout(START_S):
                await readable(pidfd)
        finally:
            os.close(pidfd)
        reap(pid)
