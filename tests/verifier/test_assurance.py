"""The assurance case: no goal is better than its evidence, and what nobody argued stays visible."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from ironbound.evidence.report.assurance import (
    UNDEVELOPED,
    Case,
    Defeater,
    Goal,
    case_section,
    load_case,
    standing,
    worst,
)
from ironbound.evidence.report.build import report_html
from ironbound.verifier.claims import CLAIMS, HOLDS, REFUTED, UNPROVEN

from .lab import honest

EVERY = dict.fromkeys(CLAIMS, HOLDS)


def test_every_claim_is_evidence_in_the_case_and_every_name_in_it_is_a_claim() -> None:
    case = load_case()
    used = [one for goal in case.goals for one in goal.evidence]
    answers = {one for goal in case.goals for defeater in goal.defeaters for one in defeater.answered_by}
    assert set(used) == set(CLAIMS) and answers <= set(CLAIMS)
    assert len({goal.id for goal in case.goals}) == len(case.goals)


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("status", [REFUTED, UNPROVEN])
def test_one_claim_that_falls_takes_its_goals_with_it(claim: str, status: str) -> None:
    for goal in load_case().goals:
        rests = claim in goal.evidence or any(claim in one.answered_by for one in goal.defeaters)
        before = standing(goal, EVERY)
        assert before in (HOLDS, UNDEVELOPED)
        assert standing(goal, EVERY | {claim: status}) == (status if rests else before)


def test_a_goal_without_evidence_and_a_defeater_without_an_answer_are_never_rounded_up() -> None:
    empty = Goal("G", "x", (), (), ())
    assert standing(empty, EVERY) == UNDEVELOPED
    assert standing(replace(empty, evidence=("A1",), defeaters=(Defeater("y", ()),)), EVERY) == UNPROVEN
    assert standing(replace(empty, evidence=("A1",)), EVERY) == HOLDS
    assert standing(replace(empty, evidence=("none",)), EVERY) == UNPROVEN
    assert worst([HOLDS, UNPROVEN, UNDEVELOPED]) == UNDEVELOPED


def test_the_page_shows_every_goal_the_undeveloped_one_too_as_text() -> None:
    lab = honest().lab
    text = report_html(io.BytesIO(lab.bundle()), lab.pin)[0].decode()
    section = text.split('<section id="case">')[1].split("</section>")[0]
    for goal in load_case().goals:
        assert f'id="case-{goal.id}"' in section
    open_goal = section.split('id="case-G7"')[1]
    assert "undeveloped" in open_goal and "No evidence is gathered for this goal" in open_goal
    assert 'href="#case"' in text
    evil = Case("<b>", "<i>", (Goal("G1", "<img src=x>", ("A1",), ("<u>",), (Defeater("<s>", ()),)),))
    made = "".join(case_section(lab.verify().claims, evil))
    assert not any(one in made for one in ("<b>", "<i>", "<img", "<u>", "<s>"))
