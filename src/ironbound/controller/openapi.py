"""The operator channel, described in OpenAPI 3.1: data only, served at /openapi.json.

The patterns are those of the parsers, so that what the description allows is never malformed: it is judged.
"""

from __future__ import annotations

from typing import Any, Final

from ironbound.core.envelope import MAX_SIGNATURE

_ENVELOPE: Final = {"$ref": "#/components/schemas/Envelope"}
_BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"


def _answer(text: str, schema: str, **headers: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": text, "content": content} | ({"headers": headers} if headers else {})


def _takes(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"required": True, "content": content}


def _exactly(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": sorted(properties),
        "properties": properties,
    }


_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
#: What any request can be answered with, be there such a path or not; each refusal is an entry at `index`.
_ALWAYS: Final = {
    "404": _answer("No such path; the refusal is logged.", "Problem"),
    "405": _answer("No such method; the refusal is logged.", "Problem", Allow={"schema": _TEXT}),
    "429": _answer(
        "Too many requests of one peer. The first refusal is logged at `index`, the others are counted.",
        "Problem",
        **{"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}}},
    ),
    "503": _answer("The log is away; only the log can tell what became of it.", "Problem"),
}
#: What a submission can be answered with.
_JUDGED: Final = {
    "400": _answer("Malformed; the refusal is logged.", "Problem"),
    "403": _answer("Refused; the refusal is logged.", "Problem"),
    "409": _answer("The log changed in between; ask anew.", "Problem"),
}
_REQUEST: Final = {
    "name": "request",
    "in": "path",
    "required": True,
    "description": "SHA-256 of the request's payload.",
    "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
_SHOWN: Final[dict[str, Any]] = {
    "request_sha256": _TEXT,
    "id": _TEXT,
    "index": _COUNT,
    "kind": _TEXT,
    "agent": {"type": ["string", "null"]},
    "state": {"enum": ["waiting", "complete", "applied", "declined", "expired", "refused"]},
    "reason": {"description": "A code of docs/formats.md.", "type": ["string", "null"]},
    "initiator": _TEXT,
    "approvers": {"type": "array", "items": _TEXT},
    "needed": {"description": "How many humans it takes, the initiator included.", **_COUNT},
    "expires_ms": _COUNT,
    "applied": {"description": "Where it was admitted.", "type": ["integer", "null"]},
    "declined": {"description": "Where a human declined it.", "type": ["integer", "null"]},
    "declined_by": {"type": ["string", "null"]},
}

DESCRIPTION: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Ironbound operator channel",
        "version": "1",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        "description": "Signed requests go in; the signature is the authority, so there is no login, session or token. "
        "Over HTTP in the clear it is served on a Unix socket only, elsewhere with TLS 1.3. Agents can't reach it.",
    },
    "paths": {
        "/requests": {
            "post": {
                "operationId": "submit",
                "summary": "Submit a signed request with its approvals",
                "requestBody": _takes("Submission"),
                "responses": {
                    "200": _answer("Admitted; it stands in the log at `index`.", "Admitted"),
                    **_JUDGED,
                    **_ALWAYS,
                },
            }
        },
        "/proposals": {
            "get": {
                "operationId": "proposals",
                "summary": "The latest proposed requests, and what became of each",
                "responses": {"200": _answer("The latest first.", "Proposals"), **_ALWAYS},
            },
            "post": {
                "operationId": "propose",
                "summary": "Propose a signed request, for others to approve",
                "requestBody": _takes("Proposed"),
                "responses": {
                    "200": _answer("It stands in the log and waits for approvals.", "Proposal"),
                    **_JUDGED,
                    **_ALWAYS,
                },
            },
        },
        "/proposals/{request}": {
            "get": {
                "parameters": [_REQUEST],
                "operationId": "proposal",
                "summary": "A proposed request, in the very bytes that are to be approved",
                "responses": {"200": _answer("With its approvals so far.", "ProposalInFull"), **_ALWAYS},
            },
        },
        "/proposals/{request}/approvals": {
            "post": {
                "parameters": [_REQUEST],
                "operationId": "approve",
                "summary": "Approve a proposed request; the approval that completes the quorum applies it",
                "requestBody": _takes("Approval"),
                "responses": {
                    "200": _answer("The approval stands in the log.", "Proposal"),
                    **_JUDGED,
                    **_ALWAYS,
                },
            },
        },
        "/proposals/{request}/declines": {
            "post": {
                "parameters": [_REQUEST],
                "operationId": "decline",
                "summary": "Decline a proposed request; it can't be applied any more",
                "requestBody": _takes("Decline"),
                "responses": {
                    "200": _answer("The decline stands in the log.", "Proposal"),
                    **_JUDGED,
                    **_ALWAYS,
                },
            },
        },
        "/trust-root": {
            "get": {
                "operationId": "trustRoot",
                "summary": "The body of the trust root in force",
                "responses": {
                    "200": {
                        "description": "As docs/formats.md says; a change of it names its SHA-256 in canonical JSON.",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    },
                    **_ALWAYS,
                },
            }
        },
        "/status": {
            "get": {
                "operationId": "status",
                "summary": "Deployment, log size and quorum",
                "responses": {"200": _answer("The state of the channel.", "Status"), **_ALWAYS},
            }
        },
        "/openapi.json": {
            "get": {
                "operationId": "describe",
                "summary": "This description",
                "responses": {
                    "200": {
                        "description": "OpenAPI 3.1",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    },
                    **_ALWAYS,
                },
            }
        },
    },
    "components": {
        "schemas": {
            "Envelope": {
                **_exactly(
                    payload={"type": "string", "pattern": _BASE64},
                    payloadType={"const": "application/vnd.in-toto+json"},
                    signatures={
                        "type": "array",
                        "items": _exactly(
                            keyid={"type": "string", "pattern": "^[0-9a-f]{64}$"},
                            sig={
                                "type": "string",
                                "pattern": _BASE64,
                                "minLength": 4,
                                "maxLength": MAX_SIGNATURE * 4 // 3 // 4 * 4,
                            },
                        ),
                        "description": "Each human signs an envelope of their own: by a key, or by a device's key and "
                        "an identity.",
                        "minItems": 1,
                        "maxItems": 2,
                    },
                ),
                "description": "A DSSE envelope around an in-toto Statement v1.",
            },
            "Submission": _exactly(
                request=_ENVELOPE,
                approvals={"type": "array", "items": _ENVELOPE, "maxItems": 16},
                artifacts={"type": "array", "items": {"type": "string", "pattern": _BASE64}, "maxItems": 1},
            ),
            "Proposed": _exactly(
                request=_ENVELOPE,
                approvals={"type": "array", "items": _ENVELOPE, "maxItems": 0},
                artifacts={"type": "array", "items": {"type": "string", "pattern": _BASE64}, "maxItems": 1},
            ),
            "Approval": _exactly(approval=_ENVELOPE),
            "Decline": _exactly(decline=_ENVELOPE),
            "Proposal": _exactly(**_SHOWN),
            "ProposalInFull": _exactly(
                **_SHOWN, request=_ENVELOPE, approvals={"type": "array", "items": _ENVELOPE, "maxItems": 16}
            ),
            "Proposals": _exactly(
                proposals={"type": "array", "items": {"$ref": "#/components/schemas/Proposal"}, "maxItems": 256}
            ),
            "Admitted": _exactly(index=_COUNT, id=_TEXT, humans={"type": "array", "items": _TEXT}),
            "Problem": _exactly(
                reason={"description": "A code of docs/formats.md.", "type": "string"},
                text=_TEXT,
                index={"description": "Of the refusal's entry in the log.", "type": ["integer", "null"]},
            ),
            "Status": _exactly(
                deployment=_TEXT,
                size=_COUNT,
                quorum={"type": "object", "additionalProperties": _COUNT},
            ),
        }
    },
}
