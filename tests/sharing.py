"""How `./dev test -n auto` shares the tests among two processes: what stays together, and what goes first.

A unit is what one process runs in one piece: a file, or all of `MACHINE`. A process that is done takes the next unit,
so the longest come first and the short ones even it out at the end.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

#: Files and folders whose tests are one unit: they start sandboxes and look at all of the machine's processes.
MACHINE = ("tests/system/", "tests/node/", "tests/monitor/", "tests/canary/", "tests/sdk/")
#: The units that take longest, in this order.
FIRST = (
    "machine",
    "tests/proof/test_search.py",
    "tests/core/test_mutants.py",
    "tests/core/test_identity_mutants.py",
    "tests/verifier/test_bundle.py",
)
#: More than two contend for the processors, and the memory that they take adds up.
PROCESSES = 2


def processes(config: pytest.Config) -> int:
    """Two for the whole suite on two processors or more; none beside this one for what somebody names, or on one."""
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    available = min(PROCESSES, len(os.sched_getaffinity(0)))
    return available if whole and available > 1 else 0


def unit(nodeid: str) -> str:
    """The unit of a test."""
    return "machine" if nodeid.startswith(MACHINE) else nodeid.partition("::")[0]


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
