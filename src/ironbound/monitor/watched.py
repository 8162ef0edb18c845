"""What the monitor keeps of each launch that runs, between two looks. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ironbound.core.canonical import Value

from .glance import Glance, Seen


@dataclass(slots=True)
class Watched:
    """A launch that runs: what the node said of it, what it must look like, when it was last looked at and spoken of.

    `observed`: a look at it is in the log, also of an earlier monitor, so that the node may have released it. `seen`
    is the glance that belongs to the latest whole look, and `leaf` that look's leaf in the heartbeat's tree.
    `native`: it may have processes of its own; `limit_files` are then those of its control groups.
    """

    index: int
    said: Mapping[str, Any]
    expected: Value = None
    observed: bool = False
    spoken: float | None = None
    looked: float = 0.0
    gone_since: float | None = None
    drifted: bool = False
    queued: bool = False
    glance: Glance | None = None
    seen: Seen | None = None
    filters: Value = None
    native: bool = False
    limit_files: tuple[str, ...] | None = None
    leaf: bytes = b""

    def glanced(self) -> Seen:
        """A glance with the threads that there are now. Raises ProcessGone, OSError."""
        if self.glance is not None:
            self.glance.close()
            self.glance = None
        self.glance = Glance(self.said["pid"], self.said["pid_start"], self.limit_files)
        return self.glance.look()

    def namespaces(self) -> frozenset[str]:
        """The namespaces that the latest glance saw."""
        return frozenset() if self.glance is None else self.glance.links

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
        if self.glance is not None:
            self.glance.close()
            self.glance = None
