"""What comes in on the operator channel, read strictly, and how it is answered.

Decides what a submission looks like, how large it is and how long it has to live; whether it is admitted, the log says.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ironbound.core.authority import Refused
from ironbound.core.canonical import FormatError, b64decode, parse_json
from ironbound.core.envelope import Envelope, envelope_from_value
from ironbound.core.request import Consent
from ironbound.core.statement import ACTS, MAX_STATEMENT, parse_statement
from ironbound.wire.deployment import MAX_ARTIFACT

#: Bytes of one submission: an artifact in base64 and the signed envelopes.
MAX_SUBMISSION: Final = MAX_ARTIFACT * 4 // 3 + 4 * MAX_STATEMENT
#: Bytes of a request's and its approvals' envelopes together. As a statement in an envelope they grow by a third, and
#: an entry has at most 65,535 bytes.
MAX_CONSENT: Final = 47_000
#: Seconds that a submission's body may take to arrive.
BODY_TIMEOUT_S: Final = 30.0
#: What a request's and an approval's validity must exceed when they arrive.
MARGIN_MS: Final = 2_000


class Malformed(Exception):
    """The submission is not what the channel takes: how it is answered, and why."""

    def __init__(self, text: str, status: int = 400, reason: str = "submission-malformed") -> None:
        super().__init__(text)
        self.status, self.reason = status, reason


def check_size(asked: Envelope, approvals: list[Envelope]) -> None:
    """A request stands in the log whole, with its approvals, so they must fit in one entry together."""
    if sum(len(one.encode()) for one in (asked, *approvals)) > MAX_CONSENT:
        raise Refused("request-too-large")


def still_valid(consent: Consent, approvals: list[Envelope], now_ms: int) -> None:
    """What gives power must outlive its way into the log: an admission that expired on the way would be void."""
    if ACTS[consent.statement.kind] is None:
        return
    at_ms = now_ms + MARGIN_MS
    if consent.statement.predicate["expires_ms"] <= at_ms:
        raise Refused("request-expired")
    if any(parse_statement(one.payload).predicate["expires_ms"] <= at_ms for one in approvals):
        raise Refused("approval-expired")


def problem(status: int, reason: str, text: str, index: int | None) -> Response:
    """An answer that says no, why, and where that stands in the log."""
    return JSONResponse({"reason": reason, "text": text, "index": index}, status_code=status)


async def read_body(request: Request) -> bytes:
    """The body; Malformed if it is too large, too slow or cut off."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                size += len(part)
                if size > MAX_SUBMISSION:
                    raise Malformed(f"a submission has at most {MAX_SUBMISSION} bytes")
                parts.append(part)
    except TimeoutError as error:
        raise Malformed(f"the submission did not arrive within {BODY_TIMEOUT_S:.0f} s") from error
    except ClientDisconnect as error:
        raise Malformed("the client went away before its submission was complete") from error
    return b"".join(parts)


def parse_object(body: bytes, *fields: str) -> dict[str, Any]:
    """The object with exactly these fields; Malformed for anything else."""
    try:
        value = parse_json(body, limit=MAX_SUBMISSION, depth=16)
    except FormatError as error:
        raise Malformed(str(error)) from error
    if type(value) is not dict or value.keys() != set(fields):
        raise Malformed(f"expected an object of {' and '.join(fields)}")
    return value


def parse_submission(body: bytes) -> tuple[Envelope, list[Envelope], list[bytes]]:
    """A request, its approvals and the bytes that it names; Malformed for anything else."""
    value = parse_object(body, "request", "approvals", "artifacts")
    try:
        approvals, artifacts = value["approvals"], value["artifacts"]
        if type(approvals) is not list or len(approvals) > 16:
            raise Malformed("approvals: expected a list of at most 16")
        if type(artifacts) is not list or len(artifacts) > 1:
            raise Malformed("artifacts: expected a list of at most one")
        return (
            parse_envelope_of(value["request"]),
            [parse_envelope_of(one) for one in approvals],
            [b64decode(one) if isinstance(one, str) else _not_text() for one in artifacts],
        )
    except FormatError as error:
        raise Malformed(str(error)) from error


def parse_envelope_of(value: Any) -> Envelope:
    """The envelope of a JSON value. One whose signatures are out of order, or twice the same, is read and refused."""
    try:
        return envelope_from_value(value)
    except FormatError as error:
        if error.code == "envelope-signatures":
            raise Malformed(str(error), 403, "signature-count") from error
        raise Malformed(str(error)) from error


def _not_text() -> bytes:
    raise Malformed("artifacts: expected base64 text")
