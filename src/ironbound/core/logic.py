"""The logic in which the kernel's rules are written, read plainly: Python values in, Python values out.

The rules in `authority` call nothing but these operations. Read with `Plain` they decide; read with
an object of the same names over solver terms they become the transition relation that a proof is
about. So what runs is what is proved. This module decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .constraint import covers_rendered


class Plain:
    """The deciding reading: every operation on ordinary values, O(1)."""

    @staticmethod
    def conj(*terms: bool) -> bool:
        """True if every term is."""
        return all(terms)

    @staticmethod
    def disj(*terms: bool) -> bool:
        """True if some term is."""
        return any(terms)

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
        return covers_rendered(where, args) is None
