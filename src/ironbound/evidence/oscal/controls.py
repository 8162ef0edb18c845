"""The controls that Ironbound speaks to, as data, and an organisation's own map of claims to its security plan.

Decides which controls and statements a claim is evidence for; not whether a control is satisfied. The titles are NIST
SP 800-53 revision 5's, the assignment to layers is ours. Source: 6-controls.

Rule 1: an id that the organisation's own plan does not have is refused, with the nearest one that it has.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import FormatError, parse_json
from ironbound.verifier.claims import CLAIMS

MAX_MAP: Final = 1 << 20
"""Bytes of `controls.toml`."""
MAX_PLAN: Final = 64 << 20
"""Bytes of an organisation's security plan."""

_URI: Final = re.compile(r"https://[!-;=?-~]+")
_NAME: Final = re.compile(r"([A-Za-z]{2}-\d{1,2})(?:\((\d{1,2})\))?")


class MapRefused(Exception):
    """The organisation's map is not one, or names what is not there."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control: its id in OSCAL's spelling, NIST's name and title, its layer, and whether it is at the heart."""

    id: str
    name: str
    title: str
    layer: str
    core: bool


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the evidence, which OSCAL calls a component."""

    id: str
    title: str
    about: str


@dataclass(frozen=True, slots=True)
class Target:
    """What a finding is about: `objective-id` or `statement-id`, that id, and the control it belongs to."""

    kind: str
    id: str
    control: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which targets each claim is evidence for, and what the organisation named: its security plan's address and
    that of its FedRAMP Certification Package Overview, or None."""

    ssp: str | None
    targets: Mapping[str, tuple[Target, ...]]
    overview: str | None = None


def control_id(name: str) -> str:
    """`AC-6(10)` as OSCAL spells it: `ac-6.10`. Any other text stays as it is."""
    found = _NAME.fullmatch(name)
    if found is None:
        return name
    return found[1].lower() + (f".{found[2]}" if found[2] else "")


def _table() -> dict[str, Any]:
    data = (resources.files("ironbound.evidence.oscal") / "controls.json").read_bytes()
    value = parse_json(data, limit=MAX_MAP)
    if not isinstance(value, dict):
        raise TypeError("controls.json is not an object")
    return value


def controls() -> dict[str, Control]:
    """Every control by its OSCAL id, in the order of the layers."""
    return {
        control_id(name): Control(control_id(name), name, one["title"], one["layer"], one["core"])
        for name, one in _table()["controls"].items()
    }


def layers() -> tuple[Layer, ...]:
    """The layers, from the inside out."""
    return tuple(Layer(name, one["title"], one["about"]) for name, one in _table()["layers"].items())


def indicators() -> dict[str, tuple[str, tuple[str, ...]]]:
    """FedRAMP's Key Security Indicators that claims are evidence for: id, what of it, and the claims."""
    return {name: (one["title"], tuple(one["claims"])) for name, one in _table()["indicators"].items()}


def own_plan() -> Plan:
    """The map that ships: each claim to the objectives of the controls it serves."""
    return Plan(
        None,
        {claim: tuple(_objective(control_id(one)) for one in served) for claim, (_, served) in CLAIMS.items()},
    )


def _objective(control: str) -> Target:
    return Target("objective-id", f"{control}_obj", control)


def organisations_plan(path: Path) -> Plan:
    """The map in an organisation's `controls.toml`; what it does not name stays as it ships. MapRefused, OSError."""
    value = _toml(path)
    odd = sorted(set(value) - {"ssp", "claims", "package_overview"})
    if odd:
        raise MapRefused(f"{path}: {odd[0]!r} is no key of it; it has ssp, package_overview and claims")
    ssp, claims, overview = value.get("ssp"), value.get("claims"), value.get("package_overview")
    if not isinstance(ssp, str) or not isinstance(claims, dict):
        raise MapRefused(f'{path}: it needs ssp = "FILE" and a table [claims]')
    if overview is not None and (not isinstance(overview, str) or not _URI.fullmatch(overview)):
        raise MapRefused(f'{path}: package_overview needs the document\'s address, as "https://…"')
    having = _ids(path.parent / ssp)
    targets = dict(own_plan().targets)
    for claim, ids in claims.items():
        if claim not in CLAIMS:
            raise MapRefused(_wrong(path, f"claim {claim!r}", "no claim", claim, CLAIMS))
        if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
            raise MapRefused(f"{path}: claim {claim} needs a list of control or statement ids")
        if len(set(map(control_id, ids))) < len(ids):
            raise MapRefused(f"{path}: claim {claim} names an id twice")
        targets[claim] = tuple(_target(path, claim, one, having) for one in ids)
    return Plan(ssp, targets, overview)


def _toml(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(MAX_MAP + 1)
    if len(data) > MAX_MAP:
        raise MapRefused(f"{path}: larger than {MAX_MAP} bytes")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MapRefused(f"{path}: {error}") from None


def _ids(path: Path) -> dict[str, str]:
    """Every control and statement that a security plan says it implements, each with its control."""
    with path.open("rb") as file:
        data = file.read(MAX_PLAN + 1)
    try:
        value: Any = parse_json(data, limit=MAX_PLAN)
        wanted = value["system-security-plan"]["control-implementation"]["implemented-requirements"]
        return dict(_implemented(wanted))
    except FormatError as error:
        raise MapRefused(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise MapRefused(f"{path}: it is no OSCAL security plan with implemented requirements, as JSON") from None


def _implemented(requirements: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for one in requirements:
        control = str(one["control-id"])
        yield control, control
        for statement in one.get("statements", []):
            yield str(statement["statement-id"]), control


def _target(path: Path, claim: str, name: str, having: Mapping[str, str]) -> Target:
    one = control_id(name)
    if one not in having:
        raise MapRefused(_wrong(path, f"claim {claim}: {name!r}", "not in the security plan", one, having))
    return _objective(one) if having[one] == one else Target("statement-id", one, having[one])


def _wrong(path: Path, what: str, why: str, name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, list(known), 1, 0)
    return f"{path}: {what} is {why}" + (f"; the nearest is {near[0]}" if near else "")
