"""The agent channel's surface, as data: what the document looks like, and what may stand in it.

Decides whether a document is an agent surface in its one spelling, and whether anything in it could give power: a
method, a resource, an action or a notification outside these closed lists is a route that nobody has judged. It does
not decide whether a gateway serves what its document says: the gateway's own start, the canaries and the release do.

Rule 1: what the lists do not name is a route, however harmless its name sounds.
Rule 2: what operators sign (`statement.ACTS`) and what the log can be told (`SHAPES`) never stands in a surface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .canonical import FormatError, Value, parse_canonical
from .statement import ACTS, SHAPES

#: Bytes of the document.
MAX_SURFACE: Final = 1 << 18
#: Where the document lies in the package `ironbound`.
SURFACE_FILE: Final = "gateway/agent-channel.json"

#: What each part of a surface may name, and why that gives nothing.
HARMLESS: Final[Mapping[str, Mapping[str, str]]] = {
    "methods": {
        "initialize": "agrees on the protocol's revision",
        "notifications/initialized": "opens the session",
        "notifications/cancelled": "withdraws the wish for an answer",
        "ping": "is answered with nothing",
        "resources/list": "reads",
        "resources/read": "reads",
        "tools/call": "acts under a live grant, which humans signed; the kernel checks each call",
        "tools/list": "reads",
    },
    "tells": {
        "notifications/resources/updated": "is said to the agent",
        "notifications/tools/list_changed": "is said to the agent",
    },
    "resources": {
        "ironbound://agent/input": "reads what an operator laid there",
        "ironbound://agent/metrics": "reads the agent's own counts",
        "ironbound://agent/status": "reads the agent's own state",
    },
    "actions": {
        "http.request": "goes where the grant says; the operator channel, too, believes nothing but humans' signatures",
        "ironbound.delegate": "hands on a part of a live grant that humans signed as delegable; the kernel checks each",
        "ironbound.drop": "takes away from the agent itself",
        "scratch.delete": "stays in the agent's own area",
        "scratch.list": "stays in the agent's own area",
        "scratch.read": "stays in the agent's own area",
        "scratch.write": "stays in the agent's own area",
    },
}

_PARTS: Final[Mapping[str, frozenset[str]]] = {
    "methods": frozenset({"about", "kind", "when"}),
    "resources": frozenset({"name", "about"}),
    "actions": frozenset({"about", "arguments"}),
}
_FIELDS: Final = frozenset({"version", "protocol", "methods", "tells", "resources", "actions", "errors"})


def parse_agent_surface(data: bytes) -> dict[str, Any]:
    """The document; FormatError for anything but the canonical bytes of one (`agent-surface`)."""
    value = parse_canonical(data, limit=MAX_SURFACE)
    if type(value) is not dict or value.keys() != _FIELDS or value["version"] != 1:
        raise _malformed("expected version 1 and exactly " + ", ".join(sorted(_FIELDS)))
    for part in sorted(_FIELDS - {"version"}):
        if type(value[part]) is not dict:
            raise _malformed(f"{part}: expected an object")
    for part, fields in _PARTS.items():
        rows: Any = value[part]
        for name, row in rows.items():
            if type(row) is not dict or row.keys() != fields:
                raise _malformed(f"{part}, {name[:80]!a}: expected exactly {', '.join(sorted(fields))}")
    return value


def _malformed(text: str) -> FormatError:
    return FormatError("agent-surface", text)


def routes(document: Mapping[str, Value]) -> list[str]:
    """What in a surface nobody has judged harmless, as `part: name`, in order; nothing if it has no route to power."""
    found = []
    for part, known in HARMLESS.items():
        names: Any = document[part]
        found += [f"{part}: {name}" for name in sorted(names) if name not in known or name in ACTS or name in SHAPES]
    return found
