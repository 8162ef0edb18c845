"""The tables in the documents that are made from the code; run as a program it writes them where they stand.

A document holds a table between `<!-- table NAME -->` and `<!-- end -->`. `tests/docs/test_docs.py` compares.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ironbound.canary.probes import CONTROL, UNCONTROLLED, UNTRIED, biting, probes_for
from ironbound.core import authority, statement
from ironbound.core.cage import INSIDE
from ironbound.core.enforcement import ABOUT, REFUSALS, Wall, walls
from ironbound.core.profile import LIMITS, RUNTIMES, SETTINGS, keys_of
from ironbound.core.reasons import REASONS
from ironbound.core.statement import ACTS, SHAPES, VOICES, predicate_type
from ironbound.verifier.claims import CLAIMS
from ironbound.verifier.codes import INTEGRITY, OPEN, REFUTING
from ironbound.verifier.proof.obligations import BEGINNING, POWER, UNSAT, scripts

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "canary"))  # the walls of each probe, as its controls take them away
BLOCK = re.compile(r"<!-- table ([a-z-]+) -->\n(.*?)<!-- end -->", re.DOTALL)

NAMED = {
    statement.digest: "SHA-256",
    statement.identifier: "id",
    statement.name: "name",
    statement.agent: "agent's id",
    statement.tool: "tool's name",
    statement.printable: "printable ASCII ≤ 200",
    statement.moment: "time (ms)",
    statement.index: "index",
    statement.count: "count",
    statement.pid: "pid",
    statement.document: "object",
    statement.boolean: "true or false",
    statement.anything: "any JSON",
}


def inside(shape: Callable[..., None]) -> dict[str, Any]:
    """What a shape was made with."""
    return dict(inspect.getclosurevars(shape).nonlocals)


def fields(shape: Callable[..., None]) -> dict[str, Callable[..., None]]:
    """The fields of a record's shape."""
    return dict(inside(shape)["fields"])


def describe(shape: Callable[..., None]) -> str:
    """A field's shape in a few words."""
    if shape in NAMED:
        return NAMED[shape]
    made = inside(shape)
    maker = shape.__qualname__.partition(".")[0]
    if maker == "text":
        return f"text ≤ {made['limit']}"
    if maker == "integer":
        return f"{made['low']}" if made["low"] == made["high"] else f"{made['low']} to {made['high']}"
    if maker == "choice":
        return " / ".join(made["values"])
    if maker == "maybe":
        return f"{describe(made['inner'])}, or null"
    if maker == "each":
        return f"list of {made['least']} to {made['most']}: {describe(made['inner'])}"
    if maker == "mapping":
        return f"object of ≤ {made['most']}: {describe(made['inner'])}"
    if maker == "tagged":
        return " or ".join(describe(one) for one in made["shapes"].values())
    if maker == "record":
        return "{" + ", ".join(f"{key}: {describe(one)}" for key, one in made["fields"].items()) + "}"
    if maker == "_matches":
        return str(made["expected"])
    raise AssertionError(f"a shape without a description: {maker}")


#: Who may say what is no service's word and takes no single quorum.
SPOKEN = {
    "trust-root": "operators: its own quorum `reconfigure`",
    "trust-root-change": "operators: quorum `reconfigure`, of the version before and of its own",
    "approval": "an operator, inside `admitted`",
    "decline": "an operator, inside `declined`",
    "held": "monitor, inside `started`",
}


def speaker(kind: str) -> str:
    """Who may say a kind."""
    services = sorted(role for role, kinds in VOICES.items() if kind in kinds)
    if services:
        return ", ".join(services)
    if kind in SPOKEN:
        return SPOKEN[kind]
    act = ACTS[kind]
    return f"operators: quorum `{act}`" if act else "operators: one human"


def kinds() -> Iterable[str]:
    yield "| kind | who may say it |\n|---|---|\n"
    for kind in SHAPES:
        yield f"| [`{kind}`](#{kind}) | {speaker(kind)} |\n"


def shapes() -> Iterable[str]:
    for kind, shape in SHAPES.items():
        yield f"#### {kind}\n`{predicate_type(kind)}`, said by {speaker(kind)}\n\n| field | what |\n|---|---|\n"
        for key, one in fields(shape).items():
            yield f"| `{key}` | {describe(one)} |\n"
        yield "\n"


def codes(table: dict[str, str]) -> Callable[[], Iterable[str]]:
    def rows() -> Iterable[str]:
        yield "| code | what it means |\n|---|---|\n"
        for code, text in table.items():
            yield f"| `{code}` | {text} |\n"

    return rows


def claims() -> Iterable[str]:
    yield "| claim | says | controls (NIST SP 800-53 rev 5) |\n|---|---|---|\n"
    for claim, (says, controls) in CLAIMS.items():
        yield f"| {claim} | {says} | {', '.join(controls)} |\n"


def limits() -> Iterable[str]:
    yield "| key | unit | least | most | what it limits |\n|---|---|---|---|---|\n"
    for key, one in LIMITS.items():
        yield f"| `{key}` | {one.unit} | {one.minimum:,} | {one.maximum:,} | {one.meaning} |\n"


def settings() -> Iterable[str]:
    yield "| key | what it says |\n|---|---|\n"
    for key, text in SETTINGS.items():
        yield f"| `{key}` | {text} |\n"


def runtimes() -> Iterable[str]:
    yield "| runtime | family | what it is | refuses, naming the setting | from outside nobody sees |\n"
    yield "|---|---|---|---|---|\n"
    for name, family in RUNTIMES.items():
        refused = "; ".join(f"`{key}`: {what}" for key, what in REFUSALS[name]) or "nothing more"
        yield f"| [`{name}`](#{name}) | {family} | {ABOUT[name]} | {refused} | {'; '.join(INSIDE[name])} |\n"


def evidence(wall: Wall) -> str:
    """How a wall is seen: the posture's fields, the probes inside, or whose word it is."""
    parts = []
    if wall.seen:
        parts.append("posture: " + ", ".join(f"`{path}`" for path in wall.seen))
    if wall.inside:
        parts.append("probes inside: " + ", ".join(f"`{name}`" for name in wall.inside))
    return "; ".join((*parts, *([wall.otherwise] if wall.otherwise else [])))


def enforcement(runtime: str) -> Callable[[], Iterable[str]]:
    def rows() -> Iterable[str]:
        yield "| setting | what enforces it | how it is seen | canaries | controls |\n|---|---|---|---|---|\n"
        settings = keys_of(runtime)
        for wall in walls(runtime):
            name = f"`{wall.name}`" if wall.name in settings else wall.name
            bites = biting(wall, runtime)
            names = ", ".join(f"`{one}`" for one in wall.canaries)
            canaries = (
                f"{names} ({len(bites)})"
                if bites
                else f"none: {UNTRIED[wall.name]}"
                if wall.name in UNTRIED
                else "none"
            )
            controls = ", ".join(sorted({control for one in bites for control in one.controls}))
            yield f"| {name} | {wall.enforcer} | {evidence(wall)} | {canaries} | {controls or '-'} |\n"

    return rows


def canaries() -> Iterable[str]:
    yield "| runtime | refused | positive controls that escape | where | without one |\n|---|---|---|---|---|\n"
    for runtime in RUNTIMES:
        count, lacking = len(probes_for(runtime)), UNCONTROLLED[runtime]
        reasons: dict[str, list[str]] = {}
        for name, (_, reason) in lacking.items():
            reasons.setdefault(reason, []).append(f"`{name}`")
        without = "; ".join(f"{reason}: {', '.join(names)}" for reason, names in reasons.items()) or "none"
        held = f"{count - len(lacking)} of {count}"
        yield f"| `{runtime}` | {count} of {count} | {held} | {CONTROL[runtime]} | {without} |\n"


def walls_as_settings(runtime: str) -> Callable[[], Iterable[str]]:
    """Which settings make the wall of which probes: those that their positive controls are without."""

    def rows() -> Iterable[str]:
        from oci_walls import settings

        yield "| without | canaries that escape then |\n|---|---|\n"
        groups: dict[tuple[str, ...], list[str]] = {}
        for probe in probes_for(runtime):
            if probe.name not in UNCONTROLLED[runtime]:
                groups.setdefault(settings(runtime, probe.name), []).append(f"`{probe.name}`")
        for words, names in sorted(groups.items(), key=lambda row: -len(row[1])):
            said = ", ".join(word if " " in word or word == "Landlock" else f"`{word}`" for word in words)
            yield f"| {said} | {', '.join(names)} ({len(names)}) |\n"

    return rows


def commands() -> Iterable[str]:
    from ironbound.terminal.main import USAGE

    yield f"```\n{USAGE.rstrip()}\n```\n"


def obligations() -> Iterable[str]:
    """Every promise of the proof with the rules about which it is asked."""
    asked: dict[str, list[str]] = {}
    for script in scripts(authority):
        for title in script.asks if script.expects == UNSAT else ():
            kind, _, rest = title.partition(": ")
            if kind != "kept by a refusal":
                asked.setdefault(title if rest else f"always: {title}", []).append(script.name.removesuffix(POWER))
    yield "| the solvers are asked | about |\n|---|---|\n"
    for title, names in asked.items():
        if names == [BEGINNING]:
            continue  # what holds at the beginning is what every rule keeps
        about = "every rule" if len(names) == len(authority.RULES) else ", ".join(f"`{name}`" for name in names)
        yield f"| {title.removeprefix('always: ')} | {about} |\n"


TABLES: dict[str, Callable[[], Iterable[str]]] = {
    "kinds": kinds,
    "shapes": shapes,
    "reasons": codes(dict(REASONS)),
    "integrity": codes(dict(INTEGRITY)),
    "refuting": codes(dict(REFUTING)),
    "open": codes(dict(OPEN)),
    "claims": claims,
    "limits": limits,
    "settings": settings,
    "commands": commands,
    "runtimes": runtimes,
    "canaries": canaries,
    "walls-runc": walls_as_settings("runc"),
    "walls-gvisor": walls_as_settings("gvisor"),
    "obligations": obligations,
    **{f"enforcement-{name}": enforcement(name) for name in RUNTIMES},
}


def made(name: str) -> str:
    """The table of that name, as it should stand."""
    return "".join(TABLES[name]()).rstrip("\n") + "\n"


def refreshed(text: str) -> str:
    """A document with its tables made anew."""
    return BLOCK.sub(lambda found: f"<!-- table {found[1]} -->\n{made(found[1])}<!-- end -->", text)


def documents() -> list[Path]:
    """The documents that hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


if __name__ == "__main__":
    for document in documents():
        before = document.read_text("utf-8")
        after = refreshed(before)
        if after != before:
            document.write_text(after, "utf-8")
            sys.stdout.write(f"{document.relative_to(ROOT)}\n")
