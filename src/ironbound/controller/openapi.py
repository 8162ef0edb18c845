"""The operator channel, described in OpenAPI 3.1: data only, served at /openapi.json."""

from __future__ import annotations

from typing import Any, Final

_ENVELOPE: Final = {"$ref": "#/components/schemas/Envelope"}


def _answer(text: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": text, "content": content}


def _exactly(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": sorted(properties),
        "properties": properties,
    }


_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}

DESCRIPTION: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Ironbound operator channel",
        "version": "1",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        "description": "Signed requests go in; the signature is the authority. Agents can't reach it.",
    },
    "paths": {
        "/requests": {
            "post": {
                "operationId": "submit",
                "summary": "Submit a signed request with its approvals",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Submission"}}},
                },
                "responses": {
                    "200": _answer("Admitted; it stands in the log at `index`.", "Admitted"),
                    "400": _answer("Malformed; the refusal is logged.", "Problem"),
                    "403": _answer("Refused; the refusal is logged.", "Problem"),
                    "409": _answer("The log changed in between; ask anew.", "Problem"),
                    "503": _answer("The log is away; only the log can tell what became of it.", "Problem"),
                },
            }
        },
        "/status": {
            "get": {
                "operationId": "status",
                "summary": "Deployment, log size and quorum",
                "responses": {"200": _answer("The state of the channel.", "Status")},
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
                    }
                },
            }
        },
    },
    "components": {
        "schemas": {
            "Envelope": {
                **_exactly(
                    payload=_TEXT,
                    payloadType={"const": "application/vnd.in-toto+json"},
                    signatures={"type": "array", "items": _exactly(keyid=_TEXT, sig=_TEXT), "minItems": 1},
                ),
                "description": "A DSSE envelope around an in-toto Statement v1.",
            },
            "Submission": _exactly(
                request=_ENVELOPE,
                approvals={"type": "array", "items": _ENVELOPE, "maxItems": 16},
                artifacts={"type": "array", "items": _TEXT, "maxItems": 1},
            ),
            "Admitted": _exactly(index=_COUNT, id=_TEXT, humans={"type": "array", "items": _TEXT}),
            "Problem": _exactly(reason=_TEXT, text=_TEXT, index={"type": ["integer", "null"]}),
            "Status": _exactly(
                deployment=_TEXT,
                size=_COUNT,
                quorum={"type": "object", "additionalProperties": _COUNT},
            ),
        }
    },
}
