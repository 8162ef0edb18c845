"""The kernel limits of a sandbox, as data that the node sets and the monitor expects.

Decides which RLIMIT_* values a Wasm worker or a native agent of a given effective configuration has, and how many
threads a worker has. It sets nothing and reads nothing: `node/sandbox/lockdown.py` and the guard apply the tables,
`core/posture.py` and `core/cage.py` expect them. Numbers are those of <asm-generic/resource.h>.

Rule 1: soft equals hard, so that nothing can be raised again.
Rule 2: there is no RLIMIT_AS: the runtime reserves 4 GiB of address space per memory. Linear memory is bounded by the
        store's own limiter.
Rule 3: nproc is 0 in every separation. The kernel counts processes per uid but compares only when a task is made, so 0
        refuses every new thread and process however many the uid has; the worker's own second thread exists before
        it is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

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


RLIMIT_NUMBERS: Final[Mapping[str, int]] = {
    "fsize": 1,
    "stack": 3,
    "core": 4,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "as": 9,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
}
"""Every limit that a native agent has, by the kernel's number."""

NATIVE_STACK: Final = 8 * 1024 * 1024


def native_rlimits(config: Mapping[str, Any]) -> dict[str, int]:
    """The limits, soft and hard alike, of each process of a native agent, in bytes or counts.

    bubblewrap has no cgroup: there the memory of all processes together is bounded by giving each an equal share of
    the address space.
    """
    runtime, scratch = config["runtime"], config["scratch"]
    limits = {
        "fsize": scratch["max_bytes"],
        "stack": NATIVE_STACK,
        "core": 0,
        "nproc": runtime["max_processes"],
        "nofile": runtime["max_open_files"],
        "memlock": 0,
        "msgqueue": 0,
        "nice": 0,
        "rtprio": 0,
    }
    if runtime["type"] == "gvisor":  # its kernel has none of these, and lets nobody set them
        for name in ("msgqueue", "nice", "rtprio"):
            del limits[name]
    if runtime["type"] == "bubblewrap":
        limits["as"] = runtime["max_memory"] * 1024 * 1024 // runtime["max_processes"]
    return {name: limits[name] for name in RLIMIT_NUMBERS if name in limits}
