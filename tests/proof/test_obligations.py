"""The table that runs is the table that is proved, and the proof says something."""

from __future__ import annotations

import pytest

from ironbound.core import authority
from ironbound.proof.load import load_kernel, sources
from ironbound.proof.solvers import SOLVERS, solve
from ironbound.verifier.proof.obligations import POWER, VACUITY, Script, scripts
from ironbound.verifier.proof.terms import SortError

#: More obligations come with more rules; fewer would be a hole.
AT_LEAST = 1_900


@pytest.fixture(scope="module")
def made() -> list[Script]:
    return list(scripts(authority))


@pytest.mark.parametrize("solver", SOLVERS)
def test_each_solver_proves_every_obligation_and_that_every_rule_can_happen(solver: str, made: list[Script]) -> None:
    verdict = solve(solver, made)
    assert verdict.failed == ()
    assert verdict.held == sum(len(one.asks) for one in made if one.expects == "unsat") >= AT_LEAST
    assert verdict.possible == (len(authority.RULES) if solver == "z3" else 0)


def test_every_rule_has_its_scripts_and_no_question_is_asked_twice(made: list[Script]) -> None:
    names = {one.name for one in made}
    assert names == {"beginning"} | {rule + of for rule in authority.RULES for of in ("", POWER, VACUITY)}
    assert all(len(one.asks) == len(set(one.asks)) == one.text.count("(check-sat)") for one in made)


def test_the_scripts_follow_from_the_source_alone(made: list[Script]) -> None:
    assert list(scripts(load_kernel(sources()).authority)) == made


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_weakened_rule_is_not_proved(solver: str) -> None:
    text = sources()
    row = '    yield "grant-of-another-agent", L.same(get(L, s, "grant_agent", grant), m["agent"])\n'
    assert row in text["using"]
    weak = load_kernel(text | {"using": text["using"].replace(row, "")})
    failed = solve(solver, scripts(weak.authority)).failed
    assert ("invoke", "let through only if: to this agent", "sat") in failed


def test_a_rule_that_can_never_happen_is_seen() -> None:
    text = sources()
    row = '    yield "grant-without-calls", L.less(0, m["calls"])\n'
    dead = load_kernel(text | {"giving": text["giving"].replace(row, row.replace("0", 'm["calls"]'))})
    failed = solve("z3", scripts(dead.authority)).failed
    assert ("grant-can-happen", "grant can happen", "unsat") in failed


def test_a_rule_that_branches_on_a_value_cannot_be_proved() -> None:
    text = sources()
    row = '    yield "head-unknown", m["head_known"]\n'
    assert row in text["rule"]
    branching = row.replace('m["head_known"]', 'True if m["head_known"] else False')
    with pytest.raises(SortError):
        list(scripts(load_kernel(text | {"rule": text["rule"].replace(row, branching)}).authority))


def test_a_field_that_the_specification_does_not_know_cannot_be_proved() -> None:
    text = sources()
    more = text["rule"].replace('    "clock": 0,', '    "backdoor": False,\n    "clock": 0,')
    with pytest.raises(SortError, match="backdoor"):
        list(scripts(load_kernel(text | {"rule": more}).authority))
