"""The agent surface: the document is the tables, the tables are what is served, and nothing in them is an operator's.

Nothing here searches in text: the tables are walked, the imports are those that Python's own parser finds.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from mcp_types import EmptyResult
from test_mcp_session import Stand, channel, play

import ironbound
from ironbound.controller.openapi import DESCRIPTION
from ironbound.core.canonical import FormatError, canonical, sha256_hex
from ironbound.core.channel import HARMLESS, MAX_SURFACE, parse_agent_surface, routes
from ironbound.core.statement import ACTS, SHAPES, VOICES
from ironbound.gateway import mcp, tools
from ironbound.gateway.action import ArgumentsRefused
from ironbound.gateway.mediate import _normalise
from ironbound.gateway.surface import announced, shipped, surface
from ironbound.terminal.main import COMMANDS

PACKAGE = Path(ironbound.__file__).parent


def test_the_file_that_ships_is_the_document_of_the_tables() -> None:
    assert surface() == shipped(), "write it anew: python -m ironbound.gateway.surface > .../gateway/agent-channel.json"
    assert announced() == (shipped(), sha256_hex(shipped()))
    assert parse_agent_surface(shipped())["methods"].keys() == mcp.METHODS.keys()


def test_a_gateway_with_one_more_method_has_another_document_a_route_and_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def grant(session: mcp.Session, request: Any) -> EmptyResult:
        return EmptyResult()

    monkeypatch.setattr(mcp, "METHODS", {**mcp.METHODS, "ping": mcp.Method("Grants.", "always", grant)})
    with pytest.raises(FormatError, match="agent-channel.json"):
        announced()  # another sentence is enough
    monkeypatch.setattr(mcp, "METHODS", {**mcp.METHODS, "grant": mcp.Method("Grants.", "always", grant)})
    with pytest.raises(FormatError, match="agent-channel.json"):
        announced()
    assert routes(json.loads(surface())) == ["methods: grant"]


def test_each_row_of_the_table_is_what_is_served_and_a_row_less_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        for method in mcp.METHODS:
            rest = {name: one for name, one in mcp.METHODS.items() if name != method}
            monkeypatch.setattr(mcp, "METHODS", rest)
            stand = Stand()
            async with channel(stand) as agent:
                assert (await agent.ask(method, {}))["error"]["code"] == -32601
                assert stand.reasons() == ["method-unknown"]
            monkeypatch.undo()

    play(scene)


def test_the_actions_of_the_document_are_those_that_the_gateway_performs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ironbound.gateway.mediate.ACTIONS", {})
    for action in tools.ACTIONS:
        with pytest.raises(ArgumentsRefused, match="action-unknown"):
            _normalise(action, {})
    monkeypatch.undo()
    for action in tools.ACTIONS:
        reasons = set()
        for arguments in ({}, {"unknown": 1}):
            try:
                _normalise(action, arguments)
            except ArgumentsRefused as error:
                reasons.add(str(error).partition(":")[0])
        assert "argument-unknown" in reasons and "action-unknown" not in reasons, action


READING = {"status", "agents", "grants", "log", "image list", "surface", "scan", "verify", "evidence export"}
"""Commands that only look."""


def operator_words() -> set[str]:
    """Whatever an operator can say: kinds of requests, acts, commands, routes and their operations."""
    words = set(ACTS) | {act for act in ACTS.values() if act} | {"approval", "trust-root", "admitted"}
    words |= {word for command in COMMANDS if command.words not in READING for word in command.words.split()}
    for path, operations in DESCRIPTION["paths"].items():
        words |= {path, path.strip("/")} - {"/status", "status"}  # reading one's own state is no power
        words |= {one["operationId"] for one in operations.values()} - {"status", "describe"}
    return words


def test_no_method_action_or_resource_is_an_operators_verb() -> None:
    document = parse_agent_surface(shipped())
    assert routes(document) == []
    words = operator_words() - {"call"}  # `approve call`: the operator's word for what an agent's `tools/call` is
    assert {"grant", "launch-request", "approve", "/requests", "submit", "revocation", "run"} <= words
    for part in ("methods", "actions", "tells", "resources"):
        for name in document[part]:
            pieces = {name, *name.replace("://", "/").replace(".", "/").split("/")}
            assert not pieces & words, name
            assert not pieces & SHAPES.keys(), name
    assert HARMLESS.keys() == {"methods", "actions", "tells", "resources"}


@pytest.mark.parametrize("verb", sorted(operator_words()))
@pytest.mark.parametrize("part", sorted(HARMLESS))
def test_an_operators_verb_in_any_part_is_seen(part: str, verb: str) -> None:
    document = json.loads(shipped())
    row: Any = next(iter(document[part].values()))
    document[part][verb] = row
    assert routes(parse_agent_surface(canonical(document))) == [f"{part}: {verb}"]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{}",
        b"[]",
        b'{"version":1}',
        lambda text: text + b"\n",
        lambda text: text.replace(b'"version":1', b'"version":2'),
        lambda text: text.replace(b'{"about":"Is answered.",', b"{"),
        lambda text: text.replace(b'"tells":{', b'"tells":{"x":1,"x":2,'),
        lambda text: text.replace(b'"about":"Is answered."', b'"about":"Is answered.","also":"grant"'),
        lambda text: b" " * MAX_SURFACE + text,
    ],
)
def test_what_is_no_surface_in_its_one_spelling_is_a_format_error(broken: Any) -> None:
    with pytest.raises(FormatError):
        parse_agent_surface(broken if isinstance(broken, bytes) else broken(shipped()))


# Nobody to ask: what the agent's end of the pipe can reach in our code


def imports_of(module: str) -> Iterable[tuple[str, str]]:
    """(module, name) of every import in a module of the package, wherever in it the import stands."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield from ((whole, alias.name) for alias in node.names)


def is_module(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return name.startswith("ironbound") and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def reachable(module: str) -> set[str]:
    """The modules of ours that a module can get at by imports, itself included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for target, name in imports_of(one):
            waiting += [found for found in (target, f"{target}.{name}") if is_module(found)]
    return seen


POWER = {"ironbound.core.request", "ironbound.core.envelope", "ironbound.core.keys", "ironbound.wire.log",
         "ironbound.core.statement", "ironbound.core.trust", "ironbound.core.replay",
         "ironbound.core.admission"}  # fmt: skip
"""Where statements are made, signed, folded and said."""


def test_the_handler_of_the_agents_pipe_cannot_make_sign_or_say_a_statement() -> None:
    session = reachable("ironbound.gateway.mcp")
    assert "ironbound.core.canonical" in session, "the walk sees nothing"
    assert not session & POWER
    assert not [one for one in session if one.startswith(("ironbound.controller", "ironbound.terminal"))]
    assert reachable("ironbound.gateway.service") >= POWER, "the walk would not see it"


def test_nothing_in_the_gateway_makes_an_operators_request_or_reaches_what_does() -> None:
    whole = reachable("ironbound.gateway.service") | reachable("ironbound.gateway.surface")
    assert not [one for one in whole if one.startswith(("ironbound.controller", "ironbound.terminal"))]
    makers = {"encode_request", "encode_approval"}
    taken = {(one, name) for one in whole for _, name in imports_of(one) if name in makers}
    assert taken == set()
    assert any(name in makers for _, name in imports_of("ironbound.terminal.operators")), "the walk would not see it"


def test_the_gateways_voice_can_say_nothing_that_gives_power() -> None:
    passing_on = {"delegated", "dropped"}  # narrower parts of what humans made delegable; the kernel checks each
    assert VOICES["gateway"] == {"service-started", "action-intent", "action-outcome", "action-denied"} | passing_on
    assert not VOICES["gateway"] & (ACTS.keys() | {"admitted", "approval", "trust-root"})
