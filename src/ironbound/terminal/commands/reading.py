"""`ironbound status`, `agents`, `grants` and `log`: what the log says now."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from typing import Any, Final

from ironbound.core.replay import Entry, Replay
from ironbound.terminal import operators, show
from ironbound.terminal.arguments import PLACED, Command, count, deployment_of, option
from ironbound.terminal.voice import OK


def _shower(printer: Callable[[Replay, bool], None]) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        printer(operators.replayed(deployment_of(arguments)), arguments.json)
        return OK

    return run


def _status(arguments: argparse.Namespace) -> int:
    said: dict[int, int] = {}

    def take(entry: Entry) -> None:
        if entry.kind == "admitted" and entry.void is None:
            said[entry.index] = entry.predicate["at_ms"]

    show.print_status(operators.replayed(deployment_of(arguments), take), said, arguments.json)
    return OK


def _log(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    lines: list[dict[str, Any]] = []

    async def collect() -> None:
        log = await operators.folded(deployment, lambda entry: lines.append(show.entry_line(entry)))
        await log.close()

    asyncio.run(collect())
    show.print_log(lines[-arguments.last :] if arguments.last else lines, arguments.json)
    return OK


COMMANDS: Final = (
    Command("status", _status, "The deployment in a few numbers.", "ironbound status -d prod", PLACED),
    *(
        Command(name, _shower(printer), about, f"ironbound {name} -d prod", PLACED)
        for name, about, printer in (
            ("agents", "Every launch and its state.", show.print_agents),
            ("grants", "Every grant and what is left of it.", show.print_grants),
        )
    ),
    Command(
        "log",
        _log,
        "The log's entries.",
        "ironbound log -d prod --last 20",
        (*PLACED, option("--last", type=count, default=50, metavar="N", help="how many (default 50; 0: all)")),
    ),
)
