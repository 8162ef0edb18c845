"""What catches seeded bugs: each is what a careless or hostile hand could have written, and each must be caught.

A patch (`seeded`) is applied to the source in memory and loaded as a kernel of its own. It is caught if a solver can't
prove the table any more, or if a search finds a counterexample on the running interpreter or in the order of
constraints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ironbound.verifier.proof.obligations import Script, scripts

from .lattice import explore
from .load import load_kernel, sources
from .scenes import QUICK, USUAL
from .search import search
from .seeded import MUTANTS, Mutant
from .solvers import solve

#: The modules of the table that the solvers prove.
TABLE: Final = ("authority", "giving", "rule", "using")

_PROVED: Final[set[Script]] = set()


@dataclass(frozen=True, slots=True)
class Caught:
    """What caught a mutant: `by` is z3, search, order or "" (nothing did), `what` the first thing that it broke."""

    name: str
    by: str
    what: str
    lesson: int


def _failed(script: Script) -> tuple[tuple[str, str, str], ...]:
    """What z3 doesn't prove of a script. Most bugs leave most scripts as they are: one that it proved, it proves."""
    if script in _PROVED:
        return ()
    failed = solve("z3", (script,)).failed
    if not failed:
        _PROVED.add(script)
    return failed


def catch(mutant: Mutant) -> Caught:
    """What catches this one. A kernel that can't be loaded or read as formulas is an error."""
    kernel = load_kernel(mutant.apply(sources()))
    if mutant.module in TABLE:
        for script in scripts(kernel.authority):
            for name, title, _ in _failed(script):
                return Caught(mutant.name, "z3", f"{name}: {title}", mutant.lesson)
    if mutant.module == "constraint":
        _, wrong = explore(kernel)
        if wrong is not None:
            return Caught(mutant.name, "order", wrong, mutant.lesson)
    for depths in (QUICK, USUAL):
        found = search(kernel, depths).found
        if found is not None:
            return Caught(mutant.name, "search", found[0], mutant.lesson)
    return Caught(mutant.name, "", "", mutant.lesson)


def catch_all() -> Iterator[Caught]:
    """Every mutant in the order of the table."""
    for mutant in MUTANTS:
        yield catch(mutant)
