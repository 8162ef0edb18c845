"""The worker's limits as the node sets and the monitor expects them."""

from __future__ import annotations

import pytest

from ironbound.core.canonical import FormatError, Value
from ironbound.core.limits import (
    RLIMIT_NAMES,
    RLIMIT_NUMBERS,
    STACK_FLOOR,
    STACK_RESERVE,
    native_rlimits,
    worker_rlimits,
)


def config(max_stack: Value) -> Value:
    return {"runtime": {"max_stack": max_stack}}


def test_soft_is_hard_for_every_name_and_nothing_can_be_forked_or_written() -> None:
    limits = worker_rlimits(config(512))
    assert tuple(limits) == RLIMIT_NAMES
    assert all(soft == hard for soft, hard in limits.values())
    none = dict.fromkeys(("nproc", "core", "fsize", "memlock", "msgqueue"), (0, 0))
    assert limits == none | {"nofile": (7, 7), "stack": (STACK_FLOOR, STACK_FLOOR)}


def test_the_stack_leaves_room_above_that_of_the_module() -> None:
    assert worker_rlimits(config(512))["stack"][0] == STACK_FLOOR
    assert worker_rlimits(config(16384))["stack"][0] == 16384 * 1024 + STACK_RESERVE
    assert worker_rlimits(config(1))["stack"][0] == STACK_FLOOR


@pytest.mark.parametrize("value", [{}, None, [], {"runtime": 1}, config(0), config(-1), config(True), config("512")])
def test_a_configuration_without_a_stack_limit_is_refused(value: Value) -> None:
    with pytest.raises(FormatError, match=r"runtime\.max_stack: expected a positive integer of KiB") as refused:
        worker_rlimits(value)
    assert refused.value.code == "config-invalid"


@pytest.mark.parametrize("runtime", ["bubblewrap", "runc", "gvisor"])
def test_a_native_process_has_the_limits_of_its_configuration_by_the_kernel_s_order(runtime: str) -> None:
    numbers = {"type": runtime, "max_processes": 3, "max_open_files": 64, "max_memory": 100}
    limits = native_rlimits({"runtime": numbers, "scratch": {"max_bytes": 4096}})
    expected = {"fsize": 4096, "stack": 8 << 20, "core": 0, "nproc": 3, "nofile": 64, "memlock": 0}
    if runtime != "gvisor":
        expected |= dict.fromkeys(("msgqueue", "nice", "rtprio"), 0)
    if runtime == "bubblewrap":
        expected["as"] = (100 << 20) // 3
    assert limits == expected
    assert list(limits) == [name for name in RLIMIT_NUMBERS if name in expected]
