"""Requests on their way: what was proposed in the log, and who approved it so far.

Decides nothing, and gives nothing: a proposal has an effect only once it is admitted, with the very same bytes, by the
quorum. It is in the log so that operators on several machines see the same, and so that nobody can lose it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .envelope import Envelope
from .statement import Kind
from .trust import Human


@dataclass(frozen=True, slots=True)
class Proposal:
    """A request that was proposed at `index`, with the approvals that came since; `applied`: where it was admitted."""

    index: int
    request: Envelope
    kind: Kind
    id: str
    agent: str | None
    initiator: Human
    expires_ms: int
    approvals: tuple[tuple[Envelope, Human], ...] = ()
    applied: int = -1
