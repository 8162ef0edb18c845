"""The system call filters that a runtime's own program puts on itself: gVisor's kernel and QEMU.

Decides what a sample's filters are held against where no expectation follows from the configuration, because code of
others assembles them: against the first look at the same program. It looks at nothing; monitor and verifier fold the
same starts and ask the same question. The agent's own filter is ours (`seccomp`, `cage`).

Rule 1: a program is named by the digests of everything that it executes, and by the boot: with another version or
        library, or on another kernel, it is measured anew.
Rule 2: the measurement is the first start's look, which the monitor signed. Every later look at that program, in the
        same sandbox or the next one, shows the same filters, byte for byte and in their order, on each thread.
Rule 3: no filter, or none that was seen, is a difference, at the first look too.

So a filter that somebody added, or a launch whose program filtered itself otherwise than before, is seen. Whether the
first one was what its authors meant, nobody says here: it stands in the log with the program's digest. Firecracker is
not read: nobody has measured that reading leaves it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ironbound.core.canonical import Digest, Value, canonical, sha256_hex
from ironbound.core.microvm import QEMU
from ironbound.core.posture import NOT_SEEN, Difference

GVISOR: Final = "gvisor"
READ: Final = (GVISOR, QEMU)
"""Runtimes whose program filters itself, and is read."""
_FILTERED: Final = frozenset({"filters", "Seccomp", "Seccomp_filters"})


def program_of(said: Mapping[str, Any]) -> Digest:
    """What names the program of a start (Rule 1), from the node's account, which was held against the approval."""
    posture = said["posture"]
    return sha256_hex(canonical([said["runtime"], said["boot_id"], posture["exe"], posture.get("mappings")]))


class OwnFilters:
    """What the first look at each program showed. `started` takes the accepted starts in their order."""

    def __init__(self) -> None:
        self._known: dict[Digest, Value] = {}

    def started(self, said: Mapping[str, Any], seen: Value) -> None:
        """Take notice of a start, and of the sample in the monitor's look that it carries."""
        if said["runtime"] in READ and isinstance(said["posture"], dict) and isinstance(seen, dict):
            if filters := seen.get("filters"):
                self._known.setdefault(program_of(said), filters)

    def compare(self, said: Mapping[str, Any], seen: Value) -> list[Difference]:
        """How a sample of a start's program differs from what was measured, where filters can be read at all."""
        if said["runtime"] not in READ or not isinstance(said["posture"], dict) or not isinstance(seen, dict):
            return []
        known, filters, threads = self._known.get(program_of(said)), seen.get("filters"), seen.get("threads")
        found = []
        if filters is None:
            found.append(Difference("filters", known, NOT_SEEN))
        elif not filters or (known is not None and filters != known):
            found.append(Difference("filters", known, filters))
        odd = threads.get("differing", []) if isinstance(threads, dict) else None
        if not isinstance(odd, list):
            return [*found, Difference("threads.filters", filters, NOT_SEEN)]
        others: list[Value] = [one for one in odd if isinstance(one, dict) and not one.keys().isdisjoint(_FILTERED)]
        return [*found, Difference("threads.filters", filters, others)] if others else found
