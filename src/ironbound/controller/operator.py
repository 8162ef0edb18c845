"""The operator channel: takes signed requests, refuses or admits them, and logs which.

Decides nothing that anybody relies on: `core.replay` decides, and node, gateway, monitor and verifier decide
again for themselves from the humans' signatures. A controller that lies can only be slow or silent.

Rule 1: the signatures on the request are the authority; there is no session, no login, no token.
Rule 2: every refusal is an entry in the log before it is an answer, a path or method that is none included. Only a
        flood is counted instead (`pace`). Bytes that are no HTTP are no request, and are answered 400 without an entry.
Rule 3: bytes are kept only if a request names their digest that an operator on the roster signed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ironbound.core.authority import Refused
from ironbound.core.canonical import FormatError, sha256_hex
from ironbound.core.envelope import Envelope
from ironbound.core.keys import SignatureInvalid
from ironbound.core.native import is_manifest, parse_manifest
from ironbound.core.profile import ProfileRefused, parse_configuration, require_provenance
from ironbound.core.reasons import REASONS
from ironbound.core.release import read_signed
from ironbound.core.request import Consent
from ironbound.core.statement import Statement, Subject
from ironbound.core.surface import parse_surface, surface_digest
from ironbound.core.tree import parse_tree
from ironbound.wire.archive import Archive
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.log import AppendRefused, Log, LogUnavailable, now_ms

from .openapi import DESCRIPTION
from .pace import WINDOW_S, Paced
from .proposals import Proposals
from .submission import Malformed, check_size, parse_submission, problem, read_body, still_valid

T = TypeVar("T")

#: Refusals answered at once; more wait, so that a flood is slow instead of lost.
REFUSALS_AT_ONCE: Final = 4


class Operators:
    """The routes of the operator channel over one log."""

    def __init__(self, deployment: Deployment, log: Log, archive: Archive) -> None:
        self._deployment = deployment
        self.log = log
        self._archive = archive
        self.proposals = Proposals(self)
        self._refusing = asyncio.Semaphore(REFUSALS_AT_ONCE)

    def app(self) -> Paced:
        """The ASGI application."""
        routes = Starlette(
            routes=[
                Route("/openapi.json", self._describe, methods=["GET"]),
                Route("/status", self._status, methods=["GET"]),
                Route("/requests", self._submit, methods=["POST"]),
                *self.proposals.routes(),
            ],
            exception_handlers={404: self._no_route, 405: self._no_route},
        )
        routes.router.redirect_slashes = False
        return Paced(routes, self._too_many, self._tell_flood)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        verb = printable_part(f"{request.method} {request.url.path}")
        answer = await self.refuse(error.status_code, b"", "route-unknown", "", verb)
        answer.headers.update(error.headers or {})
        return answer

    async def _too_many(self, scope: Scope, receive: Receive, send: Send, wait_s: int, peer: str | None) -> None:
        text = f"come again in {wait_s} s"
        if peer is None:
            answer = problem(429, "peer-too-fast", text, None)
        else:
            answer = await self.refuse(429, b"", "peer-too-fast", f"{text}, {peer}", None)
        answer.headers["retry-after"] = str(wait_s)
        await answer(scope, receive, send)

    async def _tell_flood(self, peer: str, count: int) -> None:
        text = f"{count} more requests of {peer} were refused unread within {WINDOW_S:.0f} s"
        await self.refuse(429, b"", "peer-too-fast", text, None)

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(DESCRIPTION)

    async def _status(self, request: Request) -> Response:
        trust = self.log.replay.trust
        return JSONResponse({"deployment": trust.deployment, "size": self.log.size, "quorum": dict(trust.quorum)})

    async def _submit(self, request: Request) -> Response:
        body = b""
        try:
            body = await read_body(request)
            asked, approvals, artifacts = parse_submission(body)
        except Malformed as error:
            return await self.refuse(error.status, body, error.reason, str(error), None)
        return await self.admit(body, asked, approvals, artifacts)

    async def admit(
        self, body: bytes, asked: Envelope, approvals: list[Envelope], artifacts: list[bytes] | None
    ) -> Response:
        """Judge a request and put it into the log. `artifacts` None: those that it names were kept when proposed."""
        try:
            consent = await self.consider(asked, approvals)
            still_valid(consent, approvals, now_ms())
            check_size(asked, approvals)
            self.check_artifacts(consent.statement, artifacts)
        except Refused as refusal:
            return await self.refuse(403, body, refusal.reason, "", None)
        except FormatError as error:
            return await self.refuse(403, body, "body-malformed", str(error), None)
        statement = consent.statement
        try:
            self.keep(artifacts or [])
            entry = await self.log.append(
                "admitted",
                (Subject("request", consent.digest),),
                {"request": asked.as_value(), "approvals": [one.as_value() for one in approvals]},
            )
        except (LogUnavailable, AppendRefused, OSError) as error:
            # An entry on its way may still arrive, once the log is back; only the log can tell.
            text = f"not known to be admitted; look at the log before you ask again: {error}"
            return problem(503, "log-unavailable", text, None)
        if entry.void is not None:  # the log changed between the look and the entry
            return problem(409, entry.void, REASONS.get(entry.void, ""), entry.index)
        return JSONResponse({"index": entry.index, "id": statement.predicate["id"], "humans": list(consent.humans)})

    async def consider(self, asked: Envelope, approvals: list[Envelope]) -> Consent:
        """What the log says of it."""
        return await self.fresh_keys(lambda: self.log.replay.consider(asked, approvals, now_ms()))

    async def fresh_keys(self, look: Callable[[], T]) -> T:
        """What a look gives. At a token by a key that the log lacks we look again after the provider was asked."""
        try:
            return look()
        except Refused as refusal:
            if refusal.reason not in ("issuer-key-unknown", "issuer-key-unconfirmed"):
                raise
        await self._archive.catch_up()
        return look()

    async def prospect(self, asked: Envelope) -> str | None:
        """Why more humans would not help it. A token by a key that the log lacks is looked at again, as above."""
        reason = self.log.replay.prospect(asked, now_ms())
        if reason in ("issuer-key-unknown", "issuer-key-unconfirmed"):
            await self._archive.catch_up()
            reason = self.log.replay.prospect(asked, now_ms())
        return reason

    def check_artifacts(self, statement: Statement, artifacts: list[bytes] | None) -> None:
        """The bytes that the request names are here and are what they should be."""
        asked, kind = statement.predicate, statement.kind
        field = {"module-approval": "module_sha256", "profile-approval": "config_sha256"}.get(kind)
        if artifacts is None:
            try:
                artifacts = [self._deployment.artifact(asked[field])] if field else []
            except DeploymentError as error:
                raise Refused("artifact-differs") from error
        given = {sha256_hex(data): data for data in artifacts}
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
        elif kind == "release-approval":
            self._check_release(asked["body"])

    def _check_release(self, body: Mapping[str, Any]) -> None:
        """The release key signed each statement that the request names, and they are here and about one wheel."""
        key = self._deployment.trust.release
        if key is None:
            raise Refused("release-key-missing")
        try:
            signed = {
                kind: read_signed(self._deployment.artifact(digest), key) for kind, digest in body["statements"].items()
            }
        except (DeploymentError, FormatError, SignatureInvalid) as error:
            raise Refused("release-statements") from error
        whole = (
            all(one.kind == kind for kind, one in signed.items()) and len({one.wheel for one in signed.values()}) == 1
        )
        if not whole or signed["install"].predicate["package_sha256"] != body["release_sha256"]:
            raise Refused("release-statements")

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

    def keep(self, artifacts: list[bytes]) -> None:
        """Keep the bytes that a signed request names. OSError where the disk is full."""
        for data in artifacts:
            self._deployment.keep_artifact("controller", data)

    async def refuse(self, status: int, body: bytes, reason: str, detail: str, verb: str | None) -> Response:
        digest = sha256_hex(body)
        fields: Mapping[str, Any] = {
            "submission_sha256": digest,
            "reason": reason,
            "detail": detail[:1000],
            "verb": verb,
        }
        async with self._refusing:
            try:
                entry = await self.log.append("refused", (Subject("submission", digest),), fields)
            except (LogUnavailable, AppendRefused) as error:
                text = f"refused ({reason}), and not known to be logged: {error}"
                return problem(503, "log-unavailable", text, None)
        return problem(status, reason, detail or REASONS.get(reason, ""), entry.index)


def printable_part(text: str) -> str:
    """What of a text can stand in a `refused` entry's `verb`."""
    return "".join(one if " " <= one <= "~" else "?" for one in text[:200])
