"""The worker's limits as the node sets and the monitor expects them."""

from __future__ import annotations

import pytest

from ironbound.core.canonical import FormatError, Value
from ironbound.core.limits import RLIMIT_NAMES, STACK_FLOOR, worker_rlimits


def config(max_stack: Value) -> Value:
    return {"runtime": {"max_stack": max_stack}}


def test_soft_is_hard_for_every_name_and_nothing_can_be_forked_or_written() -> None:
    limits = worker_rlimits(config(512))
    assert tuple(limits) == RLIMIT_NAMES
    assert all(soft == hard for soft, hard in limits.values())
    assert limits["nproc"] == limits["fsize"] == limits["core"] == (0, 0)
    assert limits["nofile"] == (7, 7)


def test_the_stack_leaves_room_above_that_of_the_module() -> None:
    assert worker_rlimits(config(512))["stack"][0] == STACK_FLOOR
    assert worker_rlimits(config(16384))["stack"][0] > 16384 * 1024


@pytest.mark.parametrize("value", [{}, None, [], {"runtime": 1}, config(0), config(-1), config(True), config("512")])
def test_a_configuration_without_a_stack_limit_is_refused(value: Value) -> None:
    with pytest.raises(FormatError):
        worker_rlimits(value)
