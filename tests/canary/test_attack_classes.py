"""Every class of attack that is known has a canary or a test here, by its name; and every canary is of some class."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from attack_classes import ESCAPES, FACTS, INCIDENTS

from ironbound.canary.probes import load_probes
from ironbound.core.enforcement import matches

TESTS = Path(__file__).resolve().parents[1]
CANARIES = {one.name for family in ("wasm", "native") for one in load_probes(family)}
ROWS = [(table, row) for table in (INCIDENTS, ESCAPES, FACTS) for row in table.items()]


@cache
def functions_in(file: str) -> frozenset[str]:
    path = TESTS / file
    text = path.read_text("utf-8") if path.is_file() else ""
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE))


def meaningless(names: tuple[str, ...]) -> list[str]:
    """Names that mean no shipped canary and no test."""
    found = []
    for name in names:
        file, _, function = name.partition("::")
        known = function in functions_in(file) if function else any(matches(name, one) for one in CANARIES)
        found += [] if known else [name]
    return found


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda one: one[0] if isinstance(one, tuple) else "")
def test_each_class_of_attack_is_tried_by_what_there_is(table: object, row: tuple[str, tuple[str, ...]]) -> None:
    name, tried_by = row
    assert tried_by, name
    assert meaningless(tried_by) == []


def test_each_class_of_escape_has_a_canary_in_production() -> None:
    assert [name for name, tried_by in ESCAPES.items() if all("::" in one for one in tried_by)] == []


def test_each_canary_is_of_some_class() -> None:
    named = [one for table in (INCIDENTS, ESCAPES, FACTS) for tried_by in table.values() for one in tried_by]
    assert {one for one in CANARIES if not any(matches(name, one) for name in named)} == set()


@pytest.mark.parametrize(
    "name", ["call-x33", "call-", "canary/test_attack_classes.py::test_nothing", "canary/test_no.py::test_x", ""]
)
def test_a_name_that_means_nothing_is_found(name: str) -> None:
    assert meaningless(("call-x32", name)) == [name]
