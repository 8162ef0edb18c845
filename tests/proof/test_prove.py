"""The proof as a person gets it: every part is waited for, and none can be missing without a word."""

from __future__ import annotations

import pytest

from ironbound.core import authority
from ironbound.proof import prove


def test_the_search_beside_the_solvers_sees_every_rule_let_something_through() -> None:
    searched = prove.ask(prove.SEARCH)
    assert prove.fine(searched)
    assert searched["fired"].keys() == authority.RULES.keys() and searched["states"] > 1_000


@pytest.mark.parametrize("wrong", [{"found": ("a promise", ("grant",))}, {"exhausted": False}, {"fired": {"grant": 1}}])
def test_a_search_that_found_missed_or_left_out_something_is_no_proof(wrong: dict[str, object]) -> None:
    searched = {"exhausted": True, "found": None, "fired": dict.fromkeys(authority.RULES, 1)}
    verdicts = {"verdicts": [{"failed": 0}]}
    assert prove.Proof(verdicts, searched, ()).holds
    assert not prove.Proof(verdicts, searched | wrong, ()).holds
    assert not prove.Proof({"verdicts": [{"failed": 1}]}, searched, ()).holds
