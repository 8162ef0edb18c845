"""How `./dev test` shares the tests among two processes: a unit is a file, and which come first.

A process that is done takes the next unit, so the longest come first and the short ones even it out at the end. Two
deployments on one machine never meet: each has control groups of its own, and as root users of its own.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

#: The files that take longest, in this order.
FIRST = (
    "tests/system/test_native_canaries.py",
    "tests/system/test_monitor_endures.py",
    "tests/system/test_demo.py",
    "tests/system/test_native_launches.py",
    "tests/proof/test_search.py",
    "tests/system/test_drift_containers.py",
    "tests/system/test_crashes.py",
    "tests/system/test_command_line.py",
    "tests/core/test_mutants.py",
    "tests/system/test_drift_injections.py",
    "tests/node/test_microvm_node.py",
    "tests/system/test_identity_operators.py",
    "tests/sdk/test_python_component.py",
    "tests/core/test_identity_mutants.py",
    "tests/verifier/test_bundle.py",
)
#: More than two contend for the processors, and the memory that they take adds up.
PROCESSES = 2


def processes(config: pytest.Config) -> int:
    """Two for the whole suite on two processors or more; none beside this one for what somebody names or debugs."""
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    available = min(PROCESSES, len(os.sched_getaffinity(0)))
    return available if whole and available > 1 and not config.option.usepdb else 0


def unit(nodeid: str) -> str:
    """The unit of a test."""
    return nodeid.partition("::")[0]


def rank(nodeid: str) -> int:
    """Where the unit of a test comes in the order."""
    name = unit(nodeid)
    return FIRST.index(name) if name in FIRST else len(FIRST)


class Scheduler(LoadScopeScheduling):
    """Hands out units in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
