"""Tools: how a live grant looks to the agent, in plain language and as a JSON Schema.

Decides nothing: what a grant allows, the kernel says on each call. Shows constraints only, never a
credential, never another agent's grants.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, assert_never

from mcp_types import Tool

from ironbound.core.canonical import canonical
from ironbound.core.constraint import Anything, Constraint, OneOf, Prefix, Range, Where
from ironbound.gateway import delegate
from ironbound.gateway.providers import http, scratch

ACTIONS: Final = {
    http.ACTION: "Makes one HTTP request.",
    "scratch.write": "Writes a text file into your scratch area, replacing one of that name.",
    "scratch.read": "Reads a text file of your scratch area.",
    "scratch.list": "Lists the files of your scratch area.",
    "scratch.delete": "Deletes a file of your scratch area.",
}
"""Every action that the gateway can perform, as an agent is told of it."""


@dataclass(frozen=True, slots=True)
class ToolGrant:
    """A live grant as the agent may see it. `expires_ms` in Unix milliseconds."""

    tool: str
    action: str
    where: Where
    calls_left: int
    expires_ms: int
    with_credential: bool = False
    with_approval: bool = False


def render_tool(grant: ToolGrant) -> Tool:
    """The tool of `tools/list`."""
    return Tool(name=grant.tool, description=describe(grant), input_schema=input_schema(grant))


def describe(grant: ToolGrant) -> str:
    """What the tool does and what its grant allows, as sentences."""
    if grant.action in delegate.SAYS:
        return delegate.SAYS[grant.action]
    sentences = [ACTIONS.get(grant.action, f"Performs {grant.action}.")]
    sentences += [f"{name}: {_in_words(constraint)}." for name, constraint in grant.where.members]
    if grant.with_credential:
        sentences.append("The credential is added on the way out; leave it out.")
    if grant.with_approval:
        sentences.append("An operator approves each call; if it is refused as approval-needed, call again later.")
    sentences.append(f"Calls left: {grant.calls_left}.")
    return " ".join(sentences)


def _in_words(constraint: Constraint) -> str:
    match constraint:
        case OneOf(values):
            shown = [canonical(value).decode() for value in values]
            return shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}"
        case Prefix(value, separator):
            return f"{canonical(value).decode()}, or what lies below it after {canonical(separator).decode()}"
        case Range(minimum, maximum):
            return f"{minimum} to {maximum}"
        case Anything():
            return "anything"
        case _ as unreachable:
            assert_never(unreachable)


def input_schema(grant: ToolGrant) -> dict[str, Any]:
    """The JSON Schema of the tool's arguments: those of the action, as the constraints narrow them."""
    if grant.action in delegate.SCHEMAS:
        return delegate.SCHEMAS[grant.action]
    constraints = grant.where.constraints()
    if grant.action != http.ACTION:
        names = scratch.ACTIONS.get(grant.action, tuple(constraints))
        return _object({name: {"type": "string", **_narrowed(constraints.get(name))} for name in names}, list(names))
    properties: dict[str, Any] = {
        "method": {"enum": list(http.METHODS), **_narrowed(constraints.get("method"))},
        "url": {"type": "string", "description": _url_in_words(constraints)},
        "headers": {
            "type": "object",
            "properties": {name: {"enum": list(values)} for name, values in http.HEADERS.items()},
            "additionalProperties": False,
        },
    }
    required = ["method", "url"]
    if "body" in constraints:
        properties["body"] = {"type": "string", **_narrowed(constraints["body"])}
        if not isinstance(constraints["body"], Anything):
            required.append("body")
    return _object(properties, required)


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _url_in_words(constraints: dict[str, Constraint]) -> str:
    parts = [f"{name} {_in_words(constraints[name])}" for name in http.ARGUMENTS[:5] if name in constraints]
    if "query" not in constraints:
        parts.append("no query")
    return "; ".join(parts)


def _narrowed(constraint: Constraint | None) -> dict[str, Any]:
    match constraint:
        case None | Anything():
            return {}
        case OneOf(values):
            return {"const": values[0]} if len(values) == 1 else {"enum": list(values)}
        case Prefix(value, separator):
            return {"pattern": f"^{re.escape(value)}(?:{re.escape(separator)}.+)?$"}
        case Range(minimum, maximum):
            return {"type": "integer", "minimum": minimum, "maximum": maximum}
        case _ as unreachable:
            assert_never(unreachable)
