"""The agent surface: everything that an agent can send, read, call and be told, as one document.

Decides nothing: it writes down the very tables on which `mcp` and `mediate` dispatch. The file
`agent-channel.json` beside this module is the same document, for whoever has the package and won't run it.
What the document says is judged by `core/channel.py`, here and in the verifier.

Rule 1: a gateway whose tables say anything else than the file that shipped with it does not start.

    python -m ironbound.gateway.surface    prints the document of this package's tables, and writes nothing
"""

from __future__ import annotations

import sys
from importlib import resources
from typing import Any

from ironbound.core.canonical import Digest, FormatError, Value, canonical, sha256_hex
from ironbound.core.channel import SURFACE_FILE, parse_agent_surface
from ironbound.core.constraint import parse_where

from . import mcp
from .delegate import SAYS
from .providers import http, scratch
from .tools import ACTIONS, ToolGrant, input_schema


def surface() -> bytes:
    """The document, in its canonical form; FormatError if a table names something that gives power."""
    document: dict[str, Value] = {
        "version": 1,
        "protocol": {"name": "mcp", "revisions": list(mcp.VERSIONS), "framing": "newline-delimited JSON-RPC 2.0"},
        "methods": {
            name: {"about": one.about, "kind": "request" if one.is_request else "notification", "when": one.when}
            for name, one in mcp.METHODS.items()
        },
        "tells": dict(mcp.TELLS),
        "resources": {uri: {"name": one.name, "about": one.about} for uri, one in mcp.RESOURCES.items()},
        "actions": {name: {"about": about, "arguments": _widest(name)} for name, about in {**ACTIONS, **SAYS}.items()},
        "errors": {str(code): about for code, about in mcp.ERRORS.items()},
    }
    encoded = canonical(document)
    parse_agent_surface(encoded)
    return encoded


def _widest(action: str) -> Any:
    """The arguments of an action under a grant that constrains nothing."""
    names = scratch.ACTIONS.get(action, http.ARGUMENTS)
    where = parse_where({name: {"any": True} for name in names})
    return input_schema(ToolGrant(action, action, where, 1, 0))


def shipped() -> bytes:
    """The document as it lies in the installed package."""
    return (resources.files("ironbound") / SURFACE_FILE).read_bytes()


def announced() -> tuple[bytes, Digest]:
    """The document and its SHA-256, for the gateway's first word. FormatError (Rule 1)."""
    document = surface()
    if document != shipped():
        raise FormatError("agent-surface", f"the gateway's tables are not what ironbound/{SURFACE_FILE} says")
    return document, sha256_hex(document)


if __name__ == "__main__":
    sys.stdout.buffer.write(surface())
