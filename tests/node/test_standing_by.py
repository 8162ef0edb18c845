"""Who is forked ahead of an order: what it holds, what it becomes, and that it is used once or not at all."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from agents import ECHO, ROOT, Bench, bench, in_bench

from ironbound.monitor.observe import Baseline, observe
from ironbound.node.processes import readable
from ironbound.node.sandbox.launcher import Ready

pytestmark = [pytest.mark.root, pytest.mark.skipif(not ROOT, reason="an ordinary user's workers are forked on order")]
NULL_AND_ONE_SOCKET = ["/dev/null", "/dev/null", "/dev/null", "socket"]


def held(pid: int) -> list[str]:
    """What its descriptors lead to; nothing once it has ended."""
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{number}") for number in sorted(os.listdir(f"/proc/{pid}/fd"))]
    except FileNotFoundError:
        return []
    return [link.partition(":")[0] for link in links]


async def standing(bench: Bench, *others: int) -> int:
    """The one that stands by, once it has let go of what the fork gave it."""
    async with asyncio.timeout(10):
        while True:
            for pid in bench.children()[1]:
                if pid not in others and held(pid) == NULL_AND_ONE_SOCKET:
                    return pid
            await asyncio.sleep(0.01)


async def ended(pidfd: int) -> None:
    async with asyncio.timeout(10):
        await readable(pidfd)
    os.close(pidfd)


@in_bench
async def test_one_stands_by_with_the_null_device_and_one_socket_and_is_the_next_launch_s_alone(bench: Bench) -> None:
    first = await standing(bench)
    assert bench.children() == ([], [first])
    launched, other = await bench.launch(ECHO), await bench.launch(ECHO)
    assert isinstance(launched.answer, Ready) and isinstance(other.answer, Ready)
    assert launched.worker.pid == first != other.worker.pid
    second = await standing(bench, first)
    assert second not in (first, other.worker.pid)
    again = await bench.launch(ECHO)
    assert again.worker.pid == second
    for one in (launched, other, again):
        await one.worker.release()
        await one.say(b"x\n")
        assert await one.hear() == b"x\n"


def test_a_worker_that_stood_by_looks_from_outside_like_one_that_was_forked_on_order() -> None:
    async def look(*, stands_by: bool) -> object:
        async with asyncio.timeout(60), bench(stands_by=stands_by) as made:
            first = await standing(made) if stands_by else None
            worker = (await made.launch(ECHO)).worker
            assert (worker.pid == first) is stands_by
            return observe(worker.pid, worker.pid_start, Baseline.of_self(), filters=True)

    async def both() -> None:
        assert await look(stands_by=True) == await look(stands_by=False)

    asyncio.run(both())


@in_bench
async def test_one_that_ended_while_it_stood_by_is_missed_by_nobody(bench: Bench) -> None:
    first = await standing(bench)
    pidfd = os.pidfd_open(first)
    os.kill(first, signal.SIGKILL)
    await ended(pidfd)
    launched = await bench.launch(ECHO)
    assert isinstance(launched.answer, Ready)
    await launched.worker.release()
    await launched.say(b"x\n")
    assert await launched.hear() == b"x\n"
    assert await standing(bench, first) != launched.worker.pid


@in_bench
async def test_one_that_stands_by_dies_with_the_zygote(bench: Bench) -> None:
    pidfd = os.pidfd_open(await standing(bench))
    os.kill(bench.facts.pid, signal.SIGKILL)
    await ended(pidfd)
