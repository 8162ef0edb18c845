"""Requests that wait for approvals: proposed by one operator, approved by others elsewhere, applied with the last one.

Decides nothing that anybody relies on, as `operator` doesn't: what was proposed and approved are entries of the log,
which the fold judges, and only an `admitted` entry has an effect, by the signatures in it.

Rule 1: what is approved is the very bytes that were proposed; nobody needs our word for what they say.
Rule 2: a proposal that could not be admitted if only enough humans agreed is refused at once.
Rule 3: with the approval that completes the quorum the request is applied, or refused for good reason, in one go.
Rule 4: any human on the roster can decline, and then these very bytes are never applied; they can be asked anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ironbound.core.authority import Refused
from ironbound.core.canonical import FormatError
from ironbound.core.envelope import Envelope
from ironbound.core.proposal import Proposal
from ironbound.core.reasons import REASONS
from ironbound.core.statement import ACTS, Subject, parse_statement
from ironbound.wire.log import AppendRefused, LogUnavailable, now_ms

from .submission import Malformed, check_size, parse_envelope_of, parse_object, parse_submission, problem, read_body

if TYPE_CHECKING:
    from .operator import Operators

#: What lacks but humans.
WAITING: Final = frozenset({"quorum-not-met", "new-quorum-not-met", "approval-lacks-humans"})
#: The most proposals that one answer lists, the latest first: those that wait, and the latest of the others.
MAX_LISTED: Final = 256


class Proposals:
    """The routes of proposals."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators
        self._applying = asyncio.Lock()

    def routes(self) -> list[Route]:
        """As Starlette takes them."""
        return [
            Route("/trust-root", self._trust_root, methods=["GET"]),
            Route("/proposals", self._proposals, methods=["GET", "POST"]),
            Route("/proposals/{request}", self._one, methods=["GET"]),
            Route("/proposals/{request}/approvals", self._approve, methods=["POST"]),
            Route("/proposals/{request}/declines", self._decline, methods=["POST"]),
        ]

    async def _trust_root(self, request: Request) -> Response:
        return JSONResponse(dict(self._operators.log.replay.trust.body))

    async def _proposals(self, request: Request) -> Response:
        return await self._propose(request) if request.method == "POST" else self._list()

    def _list(self) -> Response:
        now = now_ms()
        latest = list(self._operators.log.replay.books.proposals.values())[::-1]
        listed = sorted(latest, key=lambda one: not one.is_open(now))[:MAX_LISTED]
        listed.sort(key=lambda one: -one.index)
        return JSONResponse({"proposals": [self._shown(one) for one in listed]})

    async def _one(self, request: Request) -> Response:
        proposal = self._named(request)
        if proposal is None:
            return await self._unknown()
        envelopes = {"request": dict(proposal.request), "approvals": [dict(one) for one, _ in proposal.approvals]}
        return JSONResponse({**self._shown(proposal), **envelopes})

    async def _propose(self, request: Request) -> Response:
        operators, body = self._operators, b""
        try:
            body = await read_body(request)
            asked, approvals, artifacts = parse_submission(body)
            if approvals:
                raise Malformed("approvals come after the proposal")
        except Malformed as error:
            return await operators.refuse(error.status, body, error.reason, str(error), None)
        try:
            reason = await operators.prospect(asked)
            if reason is None and ACTS[parse_statement(asked.payload).kind] is None:
                reason = "one-is-enough"
            if reason is not None:
                raise Refused(reason)
            operators.log.replay.require_room(asked, now_ms())
            check_size(asked, [])
            operators.check_artifacts(parse_statement(asked.payload), artifacts)
        except Refused as refusal:
            return await operators.refuse(403, body, refusal.reason, "", None)
        except FormatError as error:
            return await operators.refuse(403, body, "body-malformed", str(error), None)
        try:
            operators.keep(artifacts)
            subject = (Subject("request", asked.digest),)
            entry = await operators.log.append("proposed", subject, {"request": asked.as_value()})
        except (LogUnavailable, AppendRefused, OSError) as error:
            return problem(503, "log-unavailable", f"not known to be proposed: {error}", None)
        if entry.void is not None:
            return problem(409, entry.void, REASONS.get(entry.void, ""), entry.index)
        shown = self._shown(operators.log.replay.books.proposals[asked.digest])
        if shown["state"] == "complete":  # a quorum of one
            applied = await operators.admit(body, asked, [], None)
            if applied.status_code != 200:
                return applied
            shown = self._shown(operators.log.replay.books.proposals[asked.digest])
        return JSONResponse(shown)

    async def _approve(self, request: Request) -> Response:
        return await self._answered(request, "approval", self._approved, self._seconded)

    async def _decline(self, request: Request) -> Response:
        replay = self._operators.log.replay

        def look(proposal: Proposal, decline: Envelope) -> None:
            replay.declines(proposal, decline, now_ms())

        return await self._answered(request, "decline", look, self._declined)

    def _approved(self, proposal: Proposal, approval: Envelope) -> None:
        """Would the request be admitted with this approval? Refused if not."""
        replay, now = self._operators.log.replay, now_ms()
        approvals = [*(one for one, _ in replay.counting(proposal, now)), approval]
        replay.consider(proposal.asked, approvals, now)

    async def _answered(
        self,
        request: Request,
        field: str,
        look: Callable[[Proposal, Envelope], None],
        entered: Callable[[bytes, Envelope, Envelope], Awaitable[Response]],
    ) -> Response:
        """An operator's answer to a proposal, one at a time; but for its provider's keys nobody else waits."""
        operators, body = self._operators, b""
        proposal = self._named(request)
        if proposal is None:
            return await self._unknown()
        try:
            body = await read_body(request)
            answer = _answer(body, field)
        except Malformed as error:
            return await operators.refuse(error.status, body, error.reason, str(error), None)
        with suppress(Refused, FormatError):  # it is judged when it is its turn
            await operators.fresh_keys(lambda: look(proposal, answer))
        async with self._applying:
            return await entered(body, proposal.asked, answer)

    async def _seconded(self, body: bytes, asked: Envelope, approval: Envelope) -> Response:
        """Log an approval, and apply what it completes."""
        operators, replay = self._operators, self._operators.log.replay
        proposal = replay.books.proposals[asked.digest]
        approvals = [*(one for one, _ in replay.counting(proposal, now_ms())), approval]
        try:
            replay.require_open(proposal)
            check_size(asked, approvals)
            replay.consider(asked, approvals, now_ms())
            complete = True
        except Refused as refusal:
            if refusal.reason not in WAITING:
                return await operators.refuse(403, body, refusal.reason, "", None)
            complete = False
        except FormatError as error:
            return await operators.refuse(403, body, "body-malformed", str(error), None)
        fields = {"request_sha256": asked.digest, "approval": approval.as_value()}
        try:
            entry = await operators.log.append("seconded", (Subject("request", asked.digest),), fields)
        except (LogUnavailable, AppendRefused) as error:
            return problem(503, "log-unavailable", f"not known to be approved: {error}", None)
        if entry.void is not None:
            return problem(409, entry.void, REASONS.get(entry.void, ""), entry.index)
        if complete:
            applied = await operators.admit(body, asked, approvals, None)
            if applied.status_code != 200:
                return applied
        return JSONResponse(self._shown(replay.books.proposals[asked.digest]))

    async def _declined(self, body: bytes, asked: Envelope, decline: Envelope) -> Response:
        """Log a decline; from that entry on the request can't be applied."""
        operators, replay = self._operators, self._operators.log.replay
        try:
            replay.declines(replay.books.proposals[asked.digest], decline, now_ms())
        except Refused as refusal:
            return await operators.refuse(403, body, refusal.reason, "", None)
        except FormatError as error:
            return await operators.refuse(403, body, "body-malformed", str(error), None)
        fields = {"request_sha256": asked.digest, "decline": decline.as_value()}
        try:
            entry = await operators.log.append("declined", (Subject("request", asked.digest),), fields)
        except (LogUnavailable, AppendRefused) as error:
            return problem(503, "log-unavailable", f"not known to be declined: {error}", None)
        if entry.void is not None:
            return problem(409, entry.void, REASONS.get(entry.void, ""), entry.index)
        return JSONResponse(self._shown(replay.books.proposals[asked.digest]))

    async def resume(self) -> None:
        """Apply what was complete when an earlier life of this process ended."""
        operators = self._operators
        for proposal in list(operators.log.replay.books.proposals.values()):
            if self._shown(proposal)["state"] == "complete":
                approvals = [one for one, _ in operators.log.replay.counting(proposal, now_ms())]
                await operators.admit(b"", proposal.asked, approvals, None)

    def _named(self, request: Request) -> Proposal | None:
        return self._operators.log.replay.books.proposals.get(request.path_params["request"])

    async def _unknown(self) -> Response:
        return await self._operators.refuse(404, b"", "proposal-unknown", "", None)

    def _shown(self, proposal: Proposal) -> dict[str, Any]:
        """What became of it: waiting, complete, applied, declined, expired or refused; who answered, of how many."""
        replay, now = self._operators.log.replay, now_ms()
        approvers = [human for _, human in proposal.approvals]
        act = ACTS[proposal.kind]
        needed = int(replay.authority.read("quorum", act))
        if proposal.kind == "call-approval":
            called = parse_statement(proposal.asked.payload).predicate["body"]
            needed = max(1, int(replay.authority.read("grant_approvals", called["grant"])))
        state, reason = "applied", None
        if proposal.declined >= 0:
            state, reason = "declined", "request-declined"
        elif proposal.applied < 0 and proposal.expires_ms <= now:
            state, reason = "expired", "request-expired"
        elif proposal.applied < 0:
            asked, counting = proposal.asked, replay.counting(proposal, now)
            approvers = [human for _, human in counting]
            try:
                replay.consider(asked, [one for one, _ in counting], now)
                state = "complete"
            except Refused as refusal:
                reason = replay.prospect(asked, now) or refusal.reason
                state = "waiting" if reason in WAITING else "refused"
        return {
            "request_sha256": proposal.digest,
            "id": proposal.id,
            "index": proposal.index,
            "kind": proposal.kind,
            "agent": proposal.agent,
            "state": state,
            "reason": reason,
            "initiator": str(proposal.initiator),
            "approvers": [str(human) for human in approvers],
            "needed": needed,
            "expires_ms": proposal.expires_ms,
            "applied": proposal.applied if proposal.applied >= 0 else None,
            "declined": proposal.declined if proposal.declined >= 0 else None,
            "declined_by": str(proposal.declined_by) or None,
        }


def _answer(body: bytes, name: str) -> Envelope:
    return parse_envelope_of(parse_object(body, name)[name])
