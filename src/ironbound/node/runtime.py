"""What the node needs of a runtime: hold an agent, let it go, see its end. One way for all of them.

Decides nothing; the launches' order stands in `launches`. A runtime takes an effective configuration and a module,
seals what it hands over, starts the sandbox with the agent held before its first instruction, and tells what the
sandbox says that it consumed.

Rule 1: a runtime that can't be had here, or can't enforce a setting here, says so by name and holds nothing.
Rule 2: whatever `hold` returns is one process tree that `kill` ends for certain.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ironbound.core.canonical import Digest

VERDICTS: Final = ("REFUSED", "ESCAPED", "INCONCLUSIVE")
MAX_REPORT: Final = 4096
"""Bytes that a launch's report keeps, from the end."""


class HoldFailed(Exception):
    """No sandbox came to be. `stage` and `reason` go into the log, `text` is the enforcer's own."""

    def __init__(self, stage: str, reason: str, text: str) -> None:
        super().__init__(f"{stage}: {reason}: {text}")
        self.stage, self.reason, self.text = stage, reason, text


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt of the sandbox's own, made before the agent runs."""

    name: str
    verdict: str
    refusal: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The sandbox is locked down and holds the agent; none of the agent's instructions has run."""

    config_sha256: str
    module_sha256: str
    probes: tuple[Probe, ...]
    #: Of the surface that the sandbox read from the module's bytes; None where nothing can read one.
    surface_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The sandbox refused the launch, in the enforcer's own words."""

    stage: str
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How the agent ended. `status` is the exit code or minus the signal, None where nobody knows it. Times in
    milliseconds, `max_rss` in bytes. `messages` and `fuel` are 0 where the runtime doesn't count them."""

    reason: str
    text: str
    report: str
    messages: int
    fuel: int
    status: int | None
    cpu_ms: int
    max_rss: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Order:
    """One launch: `config` and `module` are the approved bytes, `channel` the agent's end of its pipe, which stays
    the caller's to close. `nonce` is a canary's."""

    launch: int
    uid: int
    gid: int
    config: bytes
    module: bytes
    channel: socket.socket
    nonce: str | None


class Cell(Protocol):
    """A held, running or ended sandbox. `pid` is the process that the monitor is to look at."""

    pid: int
    pid_start: int
    #: What the started statement says of the sandbox besides the posture: the launch envelope's canonical value.
    envelope: Mapping[str, Any]
    #: Host facts of this very sandbox from which its expected posture follows, beside the runtime's.
    facts: Mapping[str, Any]

    async def ready(self) -> Ready | Refused:
        """The sandbox's first word. One that says none in time is killed and counts as refused."""

    async def release(self) -> None:
        """Let the agent's first instruction run. Only after its start is in the log under a witnessed checkpoint."""

    async def ended(self) -> Ended:
        """Wait for the end, the wall clock's included. A sandbox that was never released is killed."""

    def kill(self) -> None:
        """End every process of it, for certain; nothing where it has ended."""


class Runtime(Protocol):
    """One kind of sandbox on this node."""

    name: str
    #: SHA-256 of the program that enforces: the shared library, or the binary.
    digest: Digest

    def facts(self) -> Mapping[str, Any]:
        """What the node says of this runtime when it starts."""

    def unenforced(self, config: Mapping[str, Any]) -> str | None:
        """The setting that this host can't enforce, with the reason; None if it enforces all of them."""

    async def hold(self, order: Order) -> Cell:
        """A sandbox with the agent held. Raises HoldFailed."""

    async def close(self) -> None:
        """End every sandbox of this runtime."""
