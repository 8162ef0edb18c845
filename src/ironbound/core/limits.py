"""The kernel limits of a sandbox worker, as data that the node sets and the monitor expects.

Decides which RLIMIT_* values a worker of a given effective configuration has, and how many threads it has. It sets
nothing and reads nothing: `node/sandbox/lockdown.py` applies the table, `core/posture.py` expects it.

Rule 1: soft equals hard, so that nothing can be raised again.
Rule 2: there is no RLIMIT_AS: the runtime reserves 4 GiB of address space per memory. Linear memory is bounded by the
        store's own limiter.
Rule 3: nproc is 0 in every separation. The kernel counts processes per uid but compares only when a task is made, so 0
        refuses every new thread and process however many the uid has; the worker's own second thread exists before
        it is set.
"""

from __future__ import annotations

from typing import Final

from ironbound.core.canonical import FormatError, Value

WORKER_THREADS: Final = 2
"""Threads of a worker, held and running alike: the main one, and the one that moves the epoch at the wall-clock
limit."""

WORKER_FDS: Final = 7
"""Descriptors 0 to 6 are open and no eighth can be had."""

STACK_FLOOR: Final = 8 * 1024 * 1024
"""Bytes of native stack that compilation may use; the configured stack of the module comes out of the same."""

STACK_RESERVE: Final = 2 * 1024 * 1024
"""Bytes kept for the interpreter and the runtime above the module's own stack."""

RLIMIT_NAMES: Final = ("nofile", "nproc", "core", "fsize", "stack", "memlock", "msgqueue")

WORKER_RLIMITS: Final[dict[str, int]] = {
    "nofile": WORKER_FDS,
    "nproc": 0,
    "core": 0,
    "fsize": 0,
    "stack": STACK_FLOOR,
    "memlock": 0,
    "msgqueue": 0,
}


def worker_rlimits(config: Value) -> dict[str, tuple[int, int]]:
    """The (soft, hard) limits of a worker with this effective configuration, by the names of RLIMIT_NAMES, in bytes
    or counts.

    Raises FormatError ('config-invalid') where `runtime.max_stack` (KiB) is missing or not a positive integer.
    """
    runtime = config.get("runtime") if isinstance(config, dict) else None
    max_stack = runtime.get("max_stack") if isinstance(runtime, dict) else None
    if type(max_stack) is not int or max_stack <= 0:
        raise FormatError("config-invalid", "runtime.max_stack: expected a positive integer of KiB")
    limits = dict(WORKER_RLIMITS)
    limits["stack"] = max(STACK_FLOOR, max_stack * 1024 + STACK_RESERVE)
    return {name: (limits[name], limits[name]) for name in RLIMIT_NAMES}
