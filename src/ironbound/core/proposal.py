"""Requests on their way: what was proposed in the log, and who approved it so far.

Decides nothing, and gives nothing: a proposal has an effect only once it is admitted, with the very same bytes, by the
quorum. It is in the log so that operators on several machines see the same, and so that nobody can lose it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .canonical import Digest
from .envelope import Envelope, envelope_from_value
from .statement import Kind
from .trust import Human

#: What one human can have waiting at once: more would hide what the others asked.
MAX_OPEN: Final = 64


@dataclass(frozen=True, slots=True)
class Proposal:
    """A request that was proposed at `index`, with the approvals that came since; `applied`: where it was admitted.

    `declined`: where a human, `declined_by`, declined it, for good. Envelopes are kept as they stand in the entries.
    """

    index: int
    digest: Digest
    request: Mapping[str, Any]
    kind: Kind
    id: str
    agent: str | None
    initiator: Human
    expires_ms: int
    approvals: tuple[tuple[Mapping[str, Any], Human], ...] = ()
    applied: int = -1
    declined: int = -1
    declined_by: Human = Human("")

    def is_open(self, now_ms: int) -> bool:
        """It can still be approved: neither applied nor declined, nor expired by then."""
        return self.applied < 0 and self.declined < 0 and now_ms < self.expires_ms

    @property
    def asked(self) -> Envelope:
        """The request, in the bytes that were signed."""
        return envelope_from_value(dict(self.request))
