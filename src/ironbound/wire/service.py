"""The life of a service process: load, drop privileges, say who it is, serve, stop cleanly.

Started by `ironbound up` with the deployment as working directory, as root or as the user. Everything that
needs a right of root (its key, its sockets' folder) is opened before the right is given up.

Rule 1: as root each service becomes its own numeric user before it reads anything from outside.
Rule 2: it says `ready` on its standard output only when it serves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, Final

from ironbound import __version__
from ironbound.core.canonical import Digest, FormatError
from ironbound.core.replay import Entry
from ironbound.core.statement import Subject
from ironbound.verifier.kernel import kernel_digest
from ironbound.verifier.release import read_release, release_digest

from .deployment import DeploymentError, load
from .log import AppendRefused, Log, LogBroken, LogUnavailable
from .measured import measured
from .privilege import PrivilegeError, die_with_parent, drop, no_new_privileges

#: Exit codes of a service: it stopped as told; it can't serve; the log contradicts itself.
STOPPED, UNABLE, BROKEN = 0, 1, 3

#: A service's main coroutine: it gets the deployment and the keys that are its own, in `OWN_KEYS`' order.
Main = Callable[..., Coroutine[Any, Any, None]]
#: The private keys of each service. The monitor cosigns with a second one.
OWN_KEYS: Final = {"monitor": ("monitor", "witness")}

#: What this process found of itself before it began to serve.
_found: Mapping[str, Any] | None = None


def installed_release() -> Digest:
    """The digest of the release that is installed here, as `service-started` says it."""
    return release_digest(read_release(Path(str(resources.files("ironbound")))))


def boot_id() -> str:
    """The kernel's random id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat).

    ProcessLookupError if it is gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ProcessLookupError(f"no process {pid}") from error
    return int(stat.rpartition(")")[2].split()[19])


async def announce(log: Log, role: str, host: Mapping[str, Any], surface: Digest | None = None) -> Entry:
    """Say who this service is: user, process, version, kernel. The first thing that it says.

    `surface`: the digest of the surface that it shows to agents, if it shows one.
    """
    pid = os.getpid()
    kernel = kernel_digest()
    return await log.append(
        "service-started",
        (Subject("kernel", kernel),),
        {
            "role": role,
            "pid": pid,
            "pid_start": start_time(pid),
            "boot_id": boot_id(),
            "uid": os.getuid(),
            "gid": os.getgid(),
            "separation": "user" if log.deployment.separated else "process",
            "version": __version__,
            "kernel_sha256": kernel,
            "surface_sha256": surface,
            "release_sha256": await asyncio.to_thread(installed_release),
            "settings_sha256": log.deployment.settings,
            "measured": _found,
            "host": {**host, "log": asdict(log.beginning)},
        },
    )


def ready() -> None:
    """Tell whoever started this service that it serves."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


async def until_stopped(*work: Awaitable[None]) -> None:
    """Run until SIGTERM or SIGINT, or until one of `work` ends, whose failure is raised."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.ensure_future(one) for one in work]
    waiter = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait([waiter, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not waiter:
                task.result()
    finally:
        for task in [waiter, *tasks]:
            task.cancel()
        await asyncio.gather(waiter, *tasks, return_exceptions=True)


def run(role: str, main: Main, keep: Iterable[int] = (), first: Callable[[], Any] | None = None) -> None:
    """The whole life of the service `role` in the current directory; exits the process.

    `keep`: the capabilities that it keeps as root. `first` opens what takes more than those, before they are given
    up; `main` gets it after the keys.
    """
    global _found
    try:
        deployment = load(Path("."))
        _found = measured(deployment, role)
        keys = [deployment.key(name) for name in OWN_KEYS.get(role, (role,))]
        uid = deployment.uid(role)
        if deployment.separated and os.getuid() != 0:
            raise DeploymentError("this deployment separates by user: start it as root")
        if not deployment.separated and os.getuid() == 0:
            raise DeploymentError("this deployment separates by process: start it as the user who made it")
        opened = [] if first is None else [first()]
        if uid != os.getuid():
            drop(uid, uid, keep)
        elif role != "node":
            no_new_privileges()
        die_with_parent(signal.SIGTERM)
        os.umask(0o022)
        asyncio.run(main(deployment, *keys, *opened))
    except (LogBroken, FormatError) as error:
        print(f"ironbound {role}: {error}", file=sys.stderr, flush=True)
        sys.exit(BROKEN)
    except (DeploymentError, PrivilegeError, LogUnavailable, AppendRefused, OSError) as error:
        print(f"ironbound {role}: {error}", file=sys.stderr, flush=True)
        sys.exit(UNABLE)
    sys.exit(STOPPED)
