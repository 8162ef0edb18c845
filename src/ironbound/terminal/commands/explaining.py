"""`ironbound explain`: what a profile's lines do, who holds an agent to each, and how anybody would know."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ironbound.canary.probes import biting
from ironbound.core.enforcement import ABOUT, Wall, code, kernel, served, walls
from ironbound.core.profile import LIMITS, SETTINGS, Effective, Layer, merge
from ironbound.core.replay import Entry
from ironbound.terminal import operators, show
from ironbound.terminal.arguments import JSON, Command, deployment_of, option
from ironbound.terminal.voice import OK, emit, note, paint, say
from ironbound.wire.deployment import read_file

_ONLY_MODE: Final = "every protection is on, for every agent; it is the only mode, and any other value is refused"


def _tries(arguments: argparse.Namespace, config: str) -> tuple[dict[str, dict[str, Any]], int | None]:
    """The last result of each canary on a configuration, and the entry that approved it, as the log says."""
    if arguments.deployment is None:
        return {}, None
    challenges: set[int] = set()
    last: dict[str, dict[str, Any]] = {}

    def take(entry: Entry) -> None:
        said = entry.predicate
        if entry.void:
            return
        if entry.kind == "canary-challenge" and said["config_sha256"] == config:
            challenges.add(entry.index)
        elif entry.kind == "canary-result" and said["challenge"] in challenges:
            last[said["probe"]] = {"verdict": said["verdict"], "entry": entry.index, "at_ms": said["at_ms"]}

    replay = operators.replayed(deployment_of(arguments), take)
    profile = replay.books.profiles.get(config)
    return last, None if profile is None else profile.index


def _value(effective: Effective, key: str) -> Any:
    table, _, name = key.partition(".")
    section: Any = effective.config.get(table)
    return section.get(name) if isinstance(section, dict) else None


def _row(wall: Wall, runtime: str, effective: Effective, last: Mapping[str, Any]) -> dict[str, Any]:
    probes = biting(wall, runtime)
    limit = LIMITS.get(wall.name)
    means = _ONLY_MODE if wall.name == "runtime.strict_security" else limit.meaning if limit else ""
    return {
        "setting": wall.name,
        "value": _value(effective, wall.name),
        "unit": limit.unit if limit else "",
        "layer": effective.provenance.get(wall.name),
        "means": means or SETTINGS.get(wall.name, ""),
        "enforcer": wall.enforcer,
        "code": list(code(runtime, wall.name)),
        "kernel": kernel(runtime, wall.name),
        "seen": list(wall.seen),
        "inside": list(wall.inside),
        "word": wall.otherwise,
        "canaries": [{"name": one.name, "last": last.get(one.name)} for one in probes],
        "controls": sorted({control for one in probes for control in one.controls}) or list(served(wall)),
    }


def _explain(arguments: argparse.Namespace) -> int:
    effective = merge([Layer(path.name, read_file(path)) for path in arguments.files])
    last, approved = _tries(arguments, effective.digest)
    config: Any = effective.config
    runtime = config["runtime"]["type"]
    rows = [_row(wall, runtime, effective, last) for wall in walls(runtime)]
    if arguments.json:
        about = {"profile": config["profile"], "runtime": runtime, "config_sha256": effective.digest}
        emit(about | {"approved": approved, "rows": rows})
        return OK
    where = "" if arguments.deployment is None else f" · {_approval(approved)}"
    say(paint(f"{config['profile']} · {effective.digest[:12]} · {runtime}{where}", "bold"))
    say(f"  {ABOUT[runtime]}")
    for row in rows:
        _print(row, arguments.deployment is not None)
    if arguments.deployment is None:
        note("when each canary last bit, the log of a deployment says: -d DIR")
    return OK


def _approval(index: int | None) -> str:
    return "approved by nobody here" if index is None else f"approved in entry {index}"


def _print(row: Mapping[str, Any], logged: bool) -> None:
    say()
    if row["layer"] is None:
        say(paint(row["setting"], "bold") + paint("  always, whatever a profile says", "dim"))
    else:
        value = str(row["value"]).lower() if isinstance(row["value"], bool) else str(row["value"])
        unit = f" {row['unit']}" if row["unit"] else ""
        say(paint(f"{row['setting']} = {value}{unit}", "bold") + paint(f"  from {row['layer']}", "dim"))
    for name, text in (
        ("means", row["means"]),
        ("held by", row["enforcer"]),
        ("code", ", ".join(row["code"])),
        ("kernel", row["kernel"]),
        ("seen in", ", ".join(row["seen"])),
        ("tried inside", ", ".join(row["inside"])),
        ("word of", row["word"]),
        ("canaries", _bites(row["canaries"], logged)),
        ("controls", ", ".join(row["controls"])),
    ):
        if text:
            width = max(60, min(shutil.get_terminal_size().columns, 120))
            say(textwrap.fill(text, width, initial_indent=f"  {name:<13}", subsequent_indent=" " * 15))


def _bites(canaries: list[dict[str, Any]], logged: bool) -> str:
    if not canaries:
        return "none tries it in production; tests do"
    names = ", ".join(one["name"] for one in canaries)
    if not logged:
        return names
    tried = [one for one in canaries if one["last"] is not None]
    refused = sum(one["last"]["verdict"] == "REFUSED" for one in tried)
    said = f"{refused} of {len(canaries)} refused at their last try"
    if tried:
        ordered = sorted((one["last"] for one in tried), key=lambda one: int(one["entry"]))
        said += ", " + " to ".join(dict.fromkeys(_entry(one) for one in (ordered[0], ordered[-1])))
    for one in tried:
        if one["last"]["verdict"] != "REFUSED":
            said += f"; {one['name']} {one['last']['verdict']} {_entry(one['last'])}"
    untried = [one["name"] for one in canaries if one["last"] is None]
    if tried and untried:
        said += f"; not tried yet: {', '.join(untried)}"
    return f"{names}: {said}"


def _entry(last: Mapping[str, Any]) -> str:
    return f"at {show.clock(last['at_ms'])} UTC in entry {last['entry']}"


COMMANDS: Final = (
    Command(
        "explain",
        _explain,
        "What each line of a profile does, what enforces it, and which canary tries it.",
        "ironbound explain strict.toml site.toml -d prod",
        (
            option("files", type=Path, nargs="+", metavar="FILE", help="the base, then overrides"),
            option("-d", "--deployment", type=Path, metavar="DIR", help="whose log says when each canary last bit"),
            JSON,
        ),
    ),
)
