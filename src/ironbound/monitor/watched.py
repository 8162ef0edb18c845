"""What the monitor keeps of each launch that runs, between two looks. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from ironbound.core.canonical import Value

from .glance import Glance, Seen
from .observe import ProcessGone
from .reconcile import Family


@dataclass(slots=True)
class Watched:
    """A launch that is held or runs: what the node said of it, what it must look like, when it was last looked at and
    spoken of.

    `index`: its `started`, None while that is not in the log and the sandbox is held. `sample` is the latest whole
    look, `seen` the glance that belongs to it, and `leaf` its leaf in the heartbeat's tree. `native`: it may have
    processes of its own; `limit_files` are then those of its control groups. `glances` are kept by process, the first's
    and those beside it; whole looks, made in a thread, open them anew under `lock`. `filters` are those read last, and
    `counts` how many there were then, of a program that filters itself.
    """

    index: int | None
    said: Mapping[str, Any]
    expected: Value = None
    spoken: float | None = None
    looked: float = 0.0
    gone_since: float | None = None
    ending_since: float | None = None
    drifted: bool = False
    queued: bool = False
    glances: dict[int, Glance] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)
    sample: Value = None
    seen: Seen | None = None
    filters: Value = None
    counts: frozenset[tuple[str, str]] = frozenset()
    native: bool = False
    limit_files: tuple[str, ...] | None = None
    leaf: bytes = b""
    family: Family = field(init=False)

    def __post_init__(self) -> None:
        said = self.said
        self.family = Family(
            said["pid"], said["pid_start"], said["launch"], self.native, said["runtime"] == "gvisor"
        )

    def glanced(self, beside: Set[int], *, thorough: bool) -> Seen:
        """A glance with the threads that there are now, and at the processes beside. Raises ProcessGone, OSError."""
        self.close()
        pid, pid_start = self.said["pid"], self.said["pid_start"]
        with self.lock:
            self.glances[pid] = Glance(pid, pid_start, self.limit_files, thorough=thorough)
            for other in sorted(beside - {pid}):
                try:
                    self.glances[other] = Glance(other, None, thorough=thorough)
                except ProcessGone:
                    continue
            return self._look()

    def is_as_seen(self, beside: Set[int]) -> bool:
        """Whether another glance shows what the latest whole look's did, in the same processes."""
        with self.lock:
            if self.seen is None or self.glances.keys() != beside | {self.said["pid"]}:
                return False
            try:
                return self._look() == self.seen
            except (ProcessGone, OSError, ValueError):
                return False

    def _look(self) -> Seen:
        seen: Seen = ()
        for glance in self.glances.values():
            seen += glance.look()
        return seen

    def namespaces(self) -> frozenset[str]:
        """The namespaces of its first process, as the latest glances saw them."""
        first = self.glances.get(self.said["pid"])
        return frozenset() if first is None else first.links

    def keep(self, sample: Value, seen: Seen, *, asked: bool) -> None:
        """Keep what a whole look saw. Filters that were not read anew are those of the glance that still holds."""
        if isinstance(sample, dict):
            if asked:
                self.filters = sample["filters"]
            elif self.filters is not None:
                sample["filters"] = self.filters
        self.seen = seen

    def close(self) -> None:
        """Let go of the process's files."""
        with self.lock:
            for glance in self.glances.values():
                glance.close()
            self.glances = {}
