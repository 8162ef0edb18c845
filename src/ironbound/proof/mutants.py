"""What catches seeded bugs: each is what a careless or hostile hand could have written, and each must be caught.

A patch (`seeded`) is applied to the source in memory and loaded as a kernel of its own. It is caught if a solver can't
prove the table any more, or if a search finds a counterexample on the running interpreter or in the order of
constraints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ironbound.verifier.proof.obligations import scripts
from ironbound.verifier.proof.terms import SortError

from .lattice import explore
from .load import load_kernel, sources
from .search import USUAL, search
from .seeded import MUTANTS, Mutant
from .solvers import solve


@dataclass(frozen=True, slots=True)
class Caught:
    """What caught a mutant: `by` is z3, search, order or "" (nothing did), `what` the first thing that it broke."""

    name: str
    by: str
    what: str
    lesson: int


def catch(mutant: Mutant) -> Caught:
    """What catches this one. A kernel that can't be loaded or read as formulas counts as caught by nothing."""
    kernel = load_kernel(mutant.apply(sources()))
    if mutant.module in ("authority", "logic"):
        try:
            failed = solve("z3", scripts(kernel.authority)).failed
        except SortError as error:
            failed = (("", str(error), ""),)
        if failed:
            return Caught(mutant.name, "z3", f"{failed[0][0]}: {failed[0][1]}", mutant.lesson)
    if mutant.module == "constraint":
        _, wrong = explore(kernel)
        if wrong is not None:
            return Caught(mutant.name, "order", wrong, mutant.lesson)
    found = search(kernel, USUAL).found
    return Caught(mutant.name, "search" if found else "", found[0] if found else "", mutant.lesson)


def catch_all() -> Iterator[Caught]:
    """Every mutant in the order of the table."""
    for mutant in MUTANTS:
        yield catch(mutant)
