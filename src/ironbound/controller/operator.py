"""The operator channel: takes signed requests, refuses or admits them, and logs which.

Decides nothing that anybody relies on: `core.replay` decides, and node, gateway, monitor and verifier decide
again for themselves from the humans' signatures. A controller that lies can only be slow or silent.

Rule 1: the signatures on the request are the authority; there is no session, no login, no token.
Rule 2: every refusal is an entry in the log before it is an answer, a path or method that is none included. Only a
        flood is counted instead (`pace`). Bytes that are no HTTP are no request, and are answered 400 without an entry.
Rule 3: bytes are kept only if an admitted request names their digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ironbound.core.authority import Refused
from ironbound.core.canonical import FormatError, b64decode, parse_json, sha256_hex
from ironbound.core.envelope import Envelope, envelope_from_value
from ironbound.core.native import is_manifest, parse_manifest
from ironbound.core.profile import ProfileRefused, parse_configuration, require_provenance
from ironbound.core.reasons import REASONS
from ironbound.core.request import Consent
from ironbound.core.statement import ACTS, MAX_STATEMENT, Subject, parse_statement
from ironbound.core.surface import parse_surface, surface_digest
from ironbound.core.tree import parse_tree
from ironbound.wire.archive import Archive
from ironbound.wire.deployment import MAX_ARTIFACT, Deployment, DeploymentError
from ironbound.wire.log import AppendRefused, Log, LogUnavailable, now_ms

from .openapi import DESCRIPTION
from .pace import WINDOW_S, Paced

#: Bytes of one submission: an artifact in base64 and the signed envelopes.
MAX_SUBMISSION: Final = MAX_ARTIFACT * 4 // 3 + 4 * MAX_STATEMENT
#: Bytes of a request's and its approvals' envelopes together. As a statement in an envelope they grow by a third, and
#: an entry has at most 65,535 bytes.
MAX_CONSENT: Final = 47_000
#: Seconds that a submission's body may take to arrive.
BODY_TIMEOUT_S: Final = 30.0
#: What a request's and an approval's validity must exceed when they arrive.
MARGIN_MS: Final = 2_000
#: Refusals answered at once; more wait, so that a flood is slow instead of lost.
REFUSALS_AT_ONCE: Final = 4


class Malformed(Exception):
    """The submission is not what the channel takes."""


class Operators:
    """The routes of the operator channel over one log."""

    def __init__(self, deployment: Deployment, log: Log, archive: Archive) -> None:
        self._deployment = deployment
        self._log = log
        self._archive = archive
        self._refusing = asyncio.Semaphore(REFUSALS_AT_ONCE)

    def app(self) -> Paced:
        """The ASGI application."""
        routes = Starlette(
            routes=[
                Route("/openapi.json", self._describe, methods=["GET"]),
                Route("/status", self._status, methods=["GET"]),
                Route("/requests", self._submit, methods=["POST"]),
            ],
            exception_handlers={404: self._no_route, 405: self._no_route},
        )
        routes.router.redirect_slashes = False
        return Paced(routes, self._too_many, self._tell_flood)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        verb = printable_part(f"{request.method} {request.url.path}")
        answer = await self._refuse(error.status_code, b"", "route-unknown", "", verb)
        answer.headers.update(error.headers or {})
        return answer

    async def _too_many(self, scope: Scope, receive: Receive, send: Send, wait_s: int, peer: str | None) -> None:
        text = f"come again in {wait_s} s"
        if peer is None:
            answer = _problem(429, "peer-too-fast", text, None)
        else:
            answer = await self._refuse(429, b"", "peer-too-fast", f"{text}, {peer}", None)
        answer.headers["retry-after"] = str(wait_s)
        await answer(scope, receive, send)

    async def _tell_flood(self, peer: str, count: int) -> None:
        text = f"{count} more requests of {peer} were refused unread within {WINDOW_S:.0f} s"
        await self._refuse(429, b"", "peer-too-fast", text, None)

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(DESCRIPTION)

    async def _status(self, request: Request) -> Response:
        trust = self._deployment.trust
        return JSONResponse({"deployment": trust.deployment, "size": self._log.size, "quorum": dict(trust.quorum)})

    async def _submit(self, request: Request) -> Response:
        body = b""
        try:
            body = await _body(request)
            asked, approvals, artifacts = _submission(body)
        except Malformed as error:
            return await self._refuse(400, body, "submission-malformed", str(error), None)
        try:
            consent = await self._consider(asked, approvals)
            _still_valid(consent, approvals, now_ms() + MARGIN_MS)
            _check_size(asked, approvals)
            self._check_artifacts(consent, artifacts)
        except Refused as refusal:
            return await self._refuse(403, body, refusal.reason, "", None)
        except FormatError as error:
            return await self._refuse(403, body, "body-malformed", str(error), None)
        statement = consent.statement
        try:
            for data in artifacts:
                self._deployment.keep_artifact("controller", data)
            entry = await self._log.append(
                "admitted",
                (Subject("request", consent.digest),),
                {"request": asked.as_value(), "approvals": [one.as_value() for one in approvals]},
            )
        except (LogUnavailable, AppendRefused, OSError) as error:
            # An entry on its way may still arrive, once the log is back; only the log can tell.
            text = f"not known to be admitted; look at the log before you ask again: {error}"
            return _problem(503, "log-unavailable", text, None)
        if entry.void is not None:  # the log changed between the look and the entry
            return _problem(409, entry.void, REASONS.get(entry.void, ""), entry.index)
        return JSONResponse({"index": entry.index, "id": statement.predicate["id"], "humans": list(consent.humans)})

    async def _consider(self, asked: Envelope, approvals: list[Envelope]) -> Consent:
        """What the log says of it. A token by a key that the log lacks is looked at again after the provider was."""
        try:
            return self._log.replay.consider(asked, approvals, now_ms())
        except Refused as refusal:
            if refusal.reason not in ("issuer-key-unknown", "issuer-key-unconfirmed"):
                raise
        await self._archive.catch_up()
        return self._log.replay.consider(asked, approvals, now_ms())

    def _check_artifacts(self, consent: Consent, artifacts: list[bytes]) -> None:
        """The bytes that the request names are here and are what they should be."""
        asked, kind = consent.statement.predicate, consent.statement.kind
        given = {sha256_hex(data): data for data in artifacts}
        field = {"module-approval": "module_sha256", "profile-approval": "config_sha256"}.get(kind)
        if set(given) != ({asked[field]} if field else set()):
            raise Refused("artifact-differs")
        if kind == "module-approval":
            data = given[asked["module_sha256"]]
            if len(data) != asked["body"]["size"]:
                raise Refused("artifact-differs")
            if asked["body"]["surface_sha256"] != surface_digest(data):
                raise Refused("surface-differs")
            if asked["body"]["kind"] == "agent":  # a canary may be anything: it is there to be refused by the sandbox
                self._check_module(data)
        elif kind == "profile-approval":
            try:
                config = parse_configuration(given[asked["config_sha256"]])
                require_provenance(config, asked["body"])
            except (ProfileRefused, FormatError) as error:
                raise Refused("profile-malformed") from error

    def _check_module(self, data: bytes) -> None:
        """An agent's module is one that the parser accepts, and imports nothing; a native agent's image is loaded."""
        try:
            if is_manifest(data):
                parse_tree(self._deployment.artifact(parse_manifest(data).rootfs))
                return
            surface = parse_surface(data)
        except FormatError as error:
            raise Refused("module-malformed") from error
        except DeploymentError as error:
            raise Refused("image-unknown") from error
        if surface.imports:
            raise Refused("module-imports")

    async def _refuse(self, status: int, body: bytes, reason: str, detail: str, verb: str | None) -> Response:
        digest = sha256_hex(body)
        fields: Mapping[str, Any] = {
            "submission_sha256": digest,
            "reason": reason,
            "detail": detail[:1000],
            "verb": verb,
        }
        async with self._refusing:
            try:
                entry = await self._log.append("refused", (Subject("submission", digest),), fields)
            except (LogUnavailable, AppendRefused) as error:
                text = f"refused ({reason}), and not known to be logged: {error}"
                return _problem(503, "log-unavailable", text, None)
        return _problem(status, reason, detail or REASONS.get(reason, ""), entry.index)


def printable_part(text: str) -> str:
    """What of a text can stand in a `refused` entry's `verb`."""
    return "".join(one if " " <= one <= "~" else "?" for one in text[:200])


def _check_size(asked: Envelope, approvals: list[Envelope]) -> None:
    """A request stands in the log whole, with its approvals, so they must fit in one entry together."""
    if sum(len(one.encode()) for one in (asked, *approvals)) > MAX_CONSENT:
        raise Refused("request-too-large")


def _still_valid(consent: Consent, approvals: list[Envelope], at_ms: int) -> None:
    """What gives power must outlive its way into the log: an admission that expired on the way would be void."""
    if ACTS[consent.statement.kind] is None:
        return
    if consent.statement.predicate["expires_ms"] <= at_ms:
        raise Refused("request-expired")
    if any(parse_statement(one.payload).predicate["expires_ms"] <= at_ms for one in approvals):
        raise Refused("approval-expired")


def _problem(status: int, reason: str, text: str, index: int | None) -> Response:
    return JSONResponse({"reason": reason, "text": text, "index": index}, status_code=status)


async def _body(request: Request) -> bytes:
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


def _submission(body: bytes) -> tuple[Envelope, list[Envelope], list[bytes]]:
    try:
        value = parse_json(body, limit=MAX_SUBMISSION, depth=16)
        if type(value) is not dict or value.keys() != {"request", "approvals", "artifacts"}:
            raise Malformed("expected an object of request, approvals and artifacts")
        approvals, artifacts = value["approvals"], value["artifacts"]
        if type(approvals) is not list or len(approvals) > 16:
            raise Malformed("approvals: expected a list of at most 16")
        if type(artifacts) is not list or len(artifacts) > 1:
            raise Malformed("artifacts: expected a list of at most one")
        return (
            envelope_from_value(value["request"]),
            [envelope_from_value(one) for one in approvals],
            [b64decode(one) if isinstance(one, str) else _not_text() for one in artifacts],
        )
    except FormatError as error:
        raise Malformed(str(error)) from error


def _not_text() -> bytes:
    raise Malformed("artifacts: expected base64 text")
