"""The running interpreter keeps the specification in every history of a small world, and each seeded bug is caught."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from ironbound.core import authority
from ironbound.proof.lattice import explore
from ironbound.proof.load import load_kernel, sources
from ironbound.proof.mutants import Caught, catch
from ironbound.proof.scenes import DEEP, SCENES, USUAL
from ironbound.proof.search import Search, search
from ironbound.proof.seeded import MUTANTS, Mutant

#: `IRONBOUND_NIGHTLY=1` searches one entry deeper in each scene, for some minutes.
DEPTHS = DEEP if os.environ.get("IRONBOUND_NIGHTLY") else USUAL
#: The lessons of the design that a bug can be about.
LESSONS = {1, 2, 3, 4, 5, 6, 7, 8}
#: More bugs come with more rules; fewer would be a hole.
AT_LEAST = 130


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_history_breaks_a_promise_and_every_rule_fired() -> None:
    result = search(load_kernel(sources()), DEPTHS)
    assert result.found is None
    assert result.exhausted
    assert set(result.fired) == set(authority.RULES)
    assert result.states > 5_000


def test_a_world_that_is_left_early_is_not_called_exhausted() -> None:
    assert not Search(load_kernel(sources()), "power", USUAL["power"]).run(most_states=10).exhausted


def test_each_scene_is_searched_at_each_depth() -> None:
    assert SCENES.keys() == USUAL.keys() == DEEP.keys()


def test_constraints_cover_what_they_mean_and_narrower_is_narrower() -> None:
    tried, wrong = explore(load_kernel(sources()))
    assert wrong is None
    assert tried > 5_000


def _catch(number: int) -> Caught:
    return catch(MUTANTS[number])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_seeded_bug_is_caught() -> None:
    assert len(MUTANTS) >= AT_LEAST
    assert len({one.name for one in MUTANTS}) == len(MUTANTS)
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        caught = list(pool.map(_catch, range(len(MUTANTS))))
    assert [one.name for one in caught if not one.by] == []
    print(f"{len(caught)} seeded bugs caught:", Counter(one.by for one in caught))
    assert {one.by for one in caught} == {"z3", "search", "order"}
    assert {one.lesson for one in caught} >= LESSONS


@pytest.mark.slow
def test_nothing_catches_a_change_that_is_none_so_a_bug_that_is_not_caught_would_be_seen() -> None:
    same = Mutant("none", "authority", "RULES: Final", "RULES: Final")
    assert catch(same).by == ""


def test_a_patch_that_no_longer_fits_is_an_error_and_not_a_pass() -> None:
    with pytest.raises(ValueError, match="fits 0 places"):
        catch(Mutant("gone", "authority", "no such line", ""))
