"""Who may be ended by the monitor's own hand, and who never is, whatever its number."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator

import pytest

from ironbound.monitor.observe import ProcessGone, start_time
from ironbound.monitor.processes import is_alive
from ironbound.monitor.stopper import End, Stopper


@pytest.fixture
def child() -> Iterator[tuple[int, int]]:
    """A process that waits, with its start."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process.pid, start_time(process.pid)
        process.kill()


@pytest.fixture
def stopper() -> Stopper:
    """Sandboxes are the children of this process."""
    one = Stopper(None, "/test")
    one.zygote = os.getpid(), start_time(os.getpid())
    return one


def test_a_sandbox_that_nobody_ended_in_time_is_killed(child: tuple[int, int], stopper: Stopper) -> None:
    end = asyncio.run(stopper.end(*child))
    assert end is not None and end.by == "monitor" and end.took_ms >= 150
    assert not is_alive(*child)


def test_whoever_is_no_sandbox_is_never_killed(child: tuple[int, int], stopper: Stopper) -> None:
    stopper.zygote = os.getpid(), start_time(os.getpid()) - 1  # another process had that number
    assert asyncio.run(stopper.end(*child)) is None
    assert asyncio.run(Stopper(range(1, 2), "/test").end(*child)) is None
    assert is_alive(*child)


def test_a_process_that_got_the_number_later_is_left_alone(child: tuple[int, int], stopper: Stopper) -> None:
    pid, start = child
    with pytest.raises(ProcessGone):
        stopper.hold(pid, start - 1)
    assert asyncio.run(stopper.end(pid, start - 1)) == End("other", 0)
    assert is_alive(*child)


def test_one_that_was_held_and_ended_is_not_looked_for_under_its_number(
    child: tuple[int, int], stopper: Stopper
) -> None:
    held = stopper.hold(*child)
    assert held.ours
    os.kill(child[0], 9)
    end = asyncio.run(stopper.end(*child))
    assert end is not None and end.by == "other"
