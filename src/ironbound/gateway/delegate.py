"""The two tools with which an agent passes a part of its power on, or gives it up.

Decides nothing: reads the agent's arguments and makes the statement that the kernel judges. They stand in `tools/list`
only for an agent that holds something to pass on, or that was passed something.

Rule 1: what is handed on defaults to the whole of what is held; the kernel refuses whatever is more.
"""

from collections.abc import Mapping
from typing import Any, Final

from ironbound.core.canonical import MAX_INTEGER, FormatError, Value
from ironbound.core.constraint import Where, parse_where
from ironbound.gateway.action import ArgumentsRefused, members

DELEGATE: Final = "ironbound.delegate"
DROP: Final = "ironbound.drop"
SAYS: Final = {
    DELEGATE: "Hands a part of one of your tools to another running agent. It can't be more than you hold, every call"
    " counts against yours too, and it ends when yours does.",
    DROP: "Gives up one of your tools, for good.",
}
_COUNT: Final = {"type": "integer", "minimum": 0}
SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    DELEGATE: {
        "type": "object",
        "properties": {
            "tool": {"type": "string", "description": "your tool"},
            "to": {"type": "string", "description": "the other agent's id"},
            "name": {"type": "string", "description": "what it calls the tool (default: as you do)"},
            "where": {"type": "object", "description": "constraints, within yours (default: yours)"},
            "calls": {"type": "integer", "minimum": 1, "description": "at most (default: what you have left)"},
            "expires_ms": {**_COUNT, "description": "Unix milliseconds (default: when yours ends)"},
            "budget": {**_COUNT, "description": "at most (default: what you have left)"},
            "delegable": {**_COUNT, "description": "how often it may be handed on in turn (default 0)"},
        },
        "required": ["tool", "to"],
        "additionalProperties": False,
    },
    DROP: {
        "type": "object",
        "properties": {"tool": {"type": "string", "description": "your tool"}},
        "required": ["tool"],
        "additionalProperties": False,
    },
}


def tool_of(verb: str, arguments: Value) -> str:
    """The agent's own tool that a call of one of the two is about; ArgumentsRefused if the arguments are none."""
    optional: dict[str, type] = {}
    if verb == DELEGATE:
        optional = {"name": str, "where": dict, "calls": int, "expires_ms": int, "budget": int, "delegable": int}
    required = {"tool": str, "to": str} if verb == DELEGATE else {"tool": str}
    return str(members(arguments, required, optional)["tool"])


def part_of(held: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What of `held` (tool, where, calls, expires_ms, budget) is handed on; whole where the arguments don't say.

    ArgumentsRefused where something is no constraint or no number of its kind.
    """
    part = {name: arguments.get(name, whole) for name, whole in held.items()}
    part |= {"tool": arguments.get("name", held["tool"]), "delegable": arguments.get("delegable", 0)}
    try:
        where: Where = parse_where(part["where"])
    except FormatError as error:
        raise ArgumentsRefused("where-invalid", str(error)) from error
    for name in ("calls", "expires_ms", "budget", "delegable"):
        if not 0 <= part[name] <= MAX_INTEGER:
            raise ArgumentsRefused("argument-out-of-range", f"{name}: expected 0 to {MAX_INTEGER}")
    return part | {"where": where.as_value()}
