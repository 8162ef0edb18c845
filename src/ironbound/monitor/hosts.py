"""The monitor's look at the services themselves, its own process included, and its word about each: `host-measured`.

Decides what of a service is not as the signed release has it: the installed files, which are measured once for all,
and of each process what can be seen from outside. What follows, the log's fold decides: no launch starts. It does
nothing where the trust root names no release key. Follows proc(5), unix(7) "SO_PEERCRED".

Rule 1: a service is looked at when it says that it started, and in every round; its word is said at first sight, when
        what is found changes, and again at least twice in an interval of the canaries.
Rule 2: what can't be read is said as not seen, which is a difference.
Rule 3: a process that speaks for a service is the one that the service said; the ledger, which says nothing, is
        whoever holds its socket. The interpreter and libraries that the node says its workers have, by which each is
        judged, are the release's.
Rule 4: a service that was traced stays so until another process is in its place.
Rule 5: a service that has ended is silent for GONE_S, in which it is started again; then it is said as missing. Of
        a process that differs is said so at the second look that finds it different, be it by something else: one that
        is just ending has lost what it is looked at for. One that never stays the same is said every FILES_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ironbound.core.canonical import Digest
from ironbound.core.posture import NOT_SEEN
from ironbound.core.replay import Entry
from ironbound.core.statement import Subject
from ironbound.wire.cosigner import peer_of
from ironbound.wire.deployment import ROLES, Deployment
from ironbound.wire.log import Log
from ironbound.wire.measure import (
    Difference,
    Found,
    Key,
    Mapped,
    environment_differences,
    file_differences,
    mapped,
    mapping_differences,
    measure_files,
    words_of,
)
from ironbound.wire.measured import Manifest, signed_manifest

from .environment import environment_of
from .observe import ProcessGone, start_time, thread_states
from .outbox import Outbox
from .proc import read_proc

#: Seconds between two looks at all services, give or take the jitter, and after which the files are looked at again.
LOOK_S: Final = 1.0
JITTER: Final = 0.2
FILES_S: Final = 5.0
#: Seconds that a service may be gone before that is said.
GONE_S: Final = 30.0
CONNECT_S: Final = 2.0
#: Services that listen, and are met once; the node asks here itself.
_LISTENERS: Final = ("controller", "gateway")


@dataclass(slots=True)
class _Service:
    """A service's process as it is said, and what was found of it so far."""

    pid: int
    pid_start: int
    #: Whether it must be there: it spoke since this monitor runs, or was seen.
    expected: bool
    #: What the node says that its workers run of: the interpreter and what it maps.
    workers: tuple[str, ...] = ()
    gone_since: float | None = None
    peer: int | None = None
    tracers: set[int] = field(default_factory=set)
    mapped: frozenset[Mapped] | None = None
    mapping: list[Difference] = field(default_factory=list)
    differing: list[Difference] = field(default_factory=list)
    said: Any = None
    said_at: float = 0.0
    saying: bool = False


def workers_of(host: Mapping[str, Any]) -> tuple[str, ...]:
    """The digests of what the node says that its workers run of; where it says none, something that no manifest has."""
    try:
        measured = host["runtimes"]["wasmtime"]
        return str(measured["exe"]), *map(str, measured["mappings"])
    except (KeyError, TypeError):
        return ("not said",)


class Hosts:
    """The services of one deployment. `entered` takes the log's entries; `run` looks until cancelled."""

    def __init__(self, deployment: Deployment, log: Log) -> None:
        """DeploymentError where the signed manifest can't be read."""
        self._deployment, self._log = deployment, log
        self._manifest = signed_manifest(deployment)
        self._outbox = Outbox(log)
        self._services: dict[str, _Service] = {}
        self._repeat_s = deployment.trust.canary_interval_ms / 2000
        self._found = Found()
        self._files: list[Difference] = []
        self._cache: dict[Key, Digest] = {}
        self._running = False
        self._due = asyncio.Event()
        self._sockets = {role: deployment.socket(role) for role in ("ledger", *_LISTENERS)}

    def entered(self, entry: Entry) -> None:
        """Take notice of an entry; never blocks."""
        if entry.void is None and entry.kind == "service-started" and self._manifest is not None:
            said = entry.predicate
            workers: tuple[str, ...] = ()
            if said["role"] == "node":
                workers = workers_of(said["host"])
            self._services[said["role"]] = _Service(said["pid"], said["pid_start"], self._running, workers)
            self._due.set()

    def traced(self, pid: int, by: int) -> None:
        """The kernel told that a process attached to another one."""
        for one in self._services.values():
            if one.pid == pid:
                one.tracers.add(by)

    def asked(self, role: str, pid: int) -> None:
        """A process asked something as this service."""
        one = self._services.get(role)
        if one is not None:
            one.peer = pid

    async def run(self) -> None:
        """Look for ever."""
        manifest, self._running = self._manifest, True
        if manifest is None:
            await asyncio.Event().wait()
            return
        await asyncio.gather(self._outbox.run(), self._rounds(manifest))

    async def _rounds(self, manifest: Manifest) -> None:
        loop = asyncio.get_running_loop()
        files_at = -FILES_S
        while True:
            if loop.time() - files_at >= FILES_S:
                files_at = loop.time()
                self._found = await asyncio.to_thread(measure_files, manifest.where, self._cache)
                self._files = file_differences(manifest.files, self._found)
                await asyncio.to_thread(self._meet)
            for role in ROLES:
                self._look(manifest, role, loop.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), LOOK_S * (1 + JITTER * (2 * random.random() - 1)))
            self._due.clear()

    def _meet(self) -> None:
        """Rule 3."""
        for role in _LISTENERS:
            one = self._services.get(role)
            if one is not None and one.peer is None:
                one.peer = listening(self._sockets[role])
        pid = listening(self._sockets["ledger"])
        known = self._services.get("ledger")
        if pid is None or (known is not None and known.pid == pid and _starts(pid) == known.pid_start):
            return
        start = _starts(pid)
        if start is not None:
            self._services["ledger"] = _Service(pid, start, True)

    def _look(self, manifest: Manifest, role: str, now: float) -> None:
        one = self._services.get(role)
        if one is None or one.saying:
            return
        if _starts(one.pid) != one.pid_start:
            differences = self._missing(one, now)
        else:
            one.expected, one.gone_since = True, None
            differences, before = self._differences(manifest, role, one), one.differing
            one.differing = differences
            if differences and not before:
                return
        if differences is None:
            return
        result = manifest.result(self._found, self._files + differences)
        restless = one.said is not None and one.said["differences"] and differences
        if now - one.said_at >= self._repeat_s or (
            result != one.said and not (restless and now - one.said_at < FILES_S)
        ):
            one.saying = True
            self._outbox.begin(self._say(role, one, result, now))

    def _missing(self, one: _Service, now: float) -> list[Difference] | None:
        if not one.expected:
            return None
        one.gone_since = one.gone_since or now
        if now - one.gone_since < GONE_S:
            return None
        return [{"path": "process/start", "expected": one.pid_start, "got": _starts(one.pid)}]

    async def _say(self, role: str, one: _Service, result: dict[str, Any], now: float) -> None:
        fields = {"role": role, "pid": one.pid, "pid_start": one.pid_start, "measured": result}
        await self._outbox.say("host-measured", (Subject("install-manifest", result["manifest_sha256"]),), fields)
        one.said, one.said_at, one.saying = result, now, False

    def _differences(self, manifest: Manifest, role: str, one: _Service) -> list[Difference]:
        found: list[Difference] = []

        def fact(name: str, expected: Any, got: Any) -> None:
            if expected != got:
                found.append({"path": f"process/{name}", "expected": expected, "got": got})

        try:
            threads = thread_states(one.pid)
            users = sorted({int(word) for state in threads.values() for word in state["Uid"].split()})
            fact("users", [self._deployment.uid(role)], users)
            tracers = {int(state["TracerPid"]) for state in threads.values()} | one.tracers
            fact("tracers", [], sorted(tracers - {0}))
            words = read_proc(f"/proc/{one.pid}/cmdline").split("\0")[:-1]
            fact("words", list(words_of(sys.executable, role)), words)
            fact("interpreter", True, _seen(_is_file, f"/proc/{one.pid}/exe", manifest.where.python))
            fact("workers", [], [digest for digest in one.workers if digest not in manifest.files.values()])
            fact("peer", one.pid, one.pid if one.peer is None else one.peer)
            environment = environment_of(one.pid)
            if environment is None:
                fact("environment", None, NOT_SEEN)
            else:
                found += environment_differences({name: Digest(str(value)) for name, value in environment.items()})
            maps = _seen(read_proc, f"/proc/{one.pid}/maps")
            if maps == NOT_SEEN:
                fact("mapped", None, NOT_SEEN)
            else:
                found += self._mapping(manifest, one, maps)
        except (OSError, ProcessGone):
            return [{"path": "process", "expected": None, "got": NOT_SEEN}]
        return found

    def _mapping(self, manifest: Manifest, one: _Service, maps: str) -> list[Difference]:
        now = frozenset(mapped(maps))
        if now != one.mapped or one.mapping:
            one.mapping = mapping_differences(manifest.files, manifest.where, now)
            one.mapped = now
        return one.mapping


def listening(path: str) -> int | None:
    """The process that listens on a Unix socket; None if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as link:
        link.settimeout(CONNECT_S)
        try:
            link.connect(path)
            return peer_of(link)[0]
        except OSError:
            return None


def _starts(pid: int) -> int | None:
    try:
        return start_time(pid)
    except ProcessGone:
        return None


def _is_file(one: str, other: str) -> bool:
    return os.path.samefile(one, other)


def _seen(look: Any, *words: Any) -> Any:
    """What a look gives, or NOT_SEEN where it is not allowed."""
    try:
        return look(*words)
    except PermissionError:
        return NOT_SEEN
