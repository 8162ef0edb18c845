"""The logic in which the kernel's rules are written, read plainly: Python values in, Python values out.

The rules in `authority` call nothing but these operations. Read with `Plain` they decide; read with
an object of the same names over solver terms they become the transition relation that a proof is
about. So what runs is what is proved. This module decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .constraint import covers_rendered, narrower, rendered_alike


@dataclass(frozen=True, slots=True)
class Across:
    """The key of a write that goes to every member of a set; the write's value is then a function of the key."""

    keys: Any


class Plain:
    """The deciding reading: every operation on ordinary values; O(1), but for `forall`, which is O(members)."""

    @staticmethod
    def conj(*terms: bool) -> bool:
        """True if every term is."""
        return all(terms)

    @staticmethod
    def disj(*terms: bool) -> bool:
        """True if some term is."""
        return any(terms)

    @staticmethod
    def unless(term: bool, holds: Callable[[], bool]) -> bool:
        """`disj` of the term and what `holds` says, which is only asked where the term is not true."""
        return term or holds()

    @staticmethod
    def neg(term: bool) -> bool:
        """True if the term is not."""
        return not term

    @staticmethod
    def same(left: Any, right: Any) -> bool:
        """Equality of two values of one sort; values of different types are never equal."""
        return type(left) is type(right) and bool(left == right)

    @staticmethod
    def at_most(left: int, right: int) -> bool:
        """left ≤ right."""
        return left <= right

    @staticmethod
    def less(left: int, right: int) -> bool:
        """left < right."""
        return left < right

    @staticmethod
    def plus(left: int, right: int) -> int:
        """The sum."""
        return left + right

    @staticmethod
    def minus(left: int, right: int) -> int:
        """The difference."""
        return left - right

    @staticmethod
    def when(term: bool, then: Any, otherwise: Any) -> Any:
        """`then` if the term is true, else `otherwise`."""
        return then if term else otherwise

    @staticmethod
    def read(state: Mapping[str, Mapping[Any, Any]], field: str, key: Any, default: Any) -> Any:
        """The value of a total map at a key; what was never written is the field's default."""
        return state[field].get(key, default)

    @staticmethod
    def covers(where: Any, args: Any) -> bool:
        """True if a grant's constraints allow these arguments (as they are rendered in the log)."""
        return where is not None and covers_rendered(where, args) is None

    @staticmethod
    def narrower(part: Any, whole: Any) -> bool:
        """part ⊑ whole: every call that `part` covers, `whole` covers."""
        return narrower(part, whole)

    @staticmethod
    def agree(one: Any, other: Any) -> bool:
        """True if two renderings are of the same arguments, whatever each shows by digest."""
        return rendered_alike(one, other)

    @staticmethod
    def joined(members: frozenset[Any], item: Any) -> frozenset[Any]:
        """The set with one member more."""
        return members | {item}

    @staticmethod
    def forall(members: frozenset[Any], holds: Callable[[Any], bool]) -> bool:
        """True if it holds for every member of the set."""
        for one in members:  # in the kernel's path: a plain loop
            if holds(one) is not True:
                return False
        return True
