"""The assurance case: why the claims together would show the one thing that was asked, and what would defeat that.

Decides only how far a goal is supported, from the verifier's claims; the case itself is data (`assurance.json`), in the
terms of GSN: goals, a strategy, evidence, assumptions, defeaters.

Rule 1: a goal holds only if all its evidence holds and each defeater is answered by claims that hold.
Rule 2: a goal without evidence is undeveloped. It is shown like the others, and the whole is no better than its worst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any, Final

from ironbound.core.canonical import parse_json
from ironbound.verifier.claims import HOLDS, REFUTED, UNPROVEN, Claim

UNDEVELOPED: Final = "undeveloped"
MAX_CASE: Final = 1 << 16
"""Bytes of `assurance.json`."""
#: From the worst to the best.
_ORDER: Final = (REFUTED, UNDEVELOPED, UNPROVEN, HOLDS)
_WORDS: Final = {REFUTED: "refuted", UNDEVELOPED: "undeveloped", UNPROVEN: "not shown", HOLDS: "supported"}
#: Which of the page's colours each has.
_CLASSES: Final = {UNDEVELOPED: UNPROVEN}


@dataclass(frozen=True, slots=True)
class Defeater:
    """What would defeat a goal, and the claims that answer it; without any it stays open."""

    says: str
    answered_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Goal:
    """A part of the case, with the claims that are its evidence and what it takes for granted."""

    id: str
    says: str
    evidence: tuple[str, ...]
    assumptions: tuple[str, ...]
    defeaters: tuple[Defeater, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """The whole."""

    goal: str
    strategy: str
    goals: tuple[Goal, ...]


def load_case() -> Case:
    """The case that ships."""
    data = (resources.files("ironbound.evidence.report") / "assurance.json").read_bytes()
    value: Any = parse_json(data, limit=MAX_CASE)
    goals = tuple(
        Goal(
            one["id"],
            one["says"],
            tuple(one["evidence"]),
            tuple(one["assumptions"]),
            tuple(Defeater(each["says"], tuple(each["answered_by"])) for each in one["defeaters"]),
        )
        for one in value["goals"]
    )
    return Case(value["goal"], value["strategy"], goals)


def standing(goal: Goal, statuses: Mapping[str, str]) -> str:
    """How far a goal is supported, by the claims' statuses; a claim that is not there is unproven."""
    if not goal.evidence:
        return UNDEVELOPED
    return worst(
        [
            *(statuses.get(one, UNPROVEN) for one in goal.evidence),
            *(answer(one, statuses) for one in goal.defeaters),
        ]
    )


def answer(defeater: Defeater, statuses: Mapping[str, str]) -> str:
    """Whether a defeater is answered: as well as its worst claim."""
    return worst([statuses.get(one, UNPROVEN) for one in defeater.answered_by] or [UNPROVEN])


def worst(standings: Iterable[str]) -> str:
    """The worst of them."""
    return min(standings, key=_ORDER.index)


def case_section(claims: Iterable[Claim], case: Case) -> Iterator[str]:
    """The case as a section of the page."""
    statuses = {claim.id: claim.status for claim in claims}
    whole = worst(standing(one, statuses) for one in case.goals)
    yield '<section id="case"><h2>The case, and what would defeat it</h2><p class="about">'
    yield f"{escape(case.strategy)} A goal is supported only if all its evidence holds and each defeater is answered."
    yield f'</p>\n<p>{_standing(whole)} <strong>{escape(case.goal)}</strong></p>\n<ul class="case">\n'
    for goal in case.goals:
        chip = _standing(standing(goal, statuses))
        yield f'<li id="case-{goal.id}"><p>{chip} {goal.id} {escape(goal.says)}</p><ul>\n'
        if goal.evidence:
            yield f"<li>Evidence: {_chips(goal.evidence, statuses)}</li>\n"
        else:
            yield "<li>No evidence is gathered for this goal. Whoever relies on the whole has to argue it.</li>\n"
        yield "".join(f"<li>Assumed: {escape(one)}</li>\n" for one in goal.assumptions)
        for defeater in goal.defeaters:
            chips = _chips(defeater.answered_by, statuses) or "nothing answers it"
            yield f"<li>Defeater: {escape(defeater.says)} Answered by {chips}</li>\n"
        yield "</ul></li>\n"
    yield "</ul></section>\n"


def _standing(status: str) -> str:
    return f'<span class="chip {_CLASSES.get(status, status)}">{_WORDS[status]}</span>'


def _chips(claims: Iterable[str], statuses: Mapping[str, str]) -> str:
    return " ".join(
        f'<a class="chip {statuses.get(one, UNPROVEN)}" href="#claim-{one}">{one} {statuses.get(one, UNPROVEN)}</a>'
        for one in claims
    )
