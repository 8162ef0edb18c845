"""Every pair of constraints of a small world, held against what they mean.

The solvers take for granted what `covers` and `narrower` say. This search holds the running `constraint` module against
a meaning that is written down here apart from it: which values a constraint allows, value by value.

Rule 1: `covers` lets through exactly the arguments that the constraints mean, verbatim and as the log shows them.
Rule 2: if `narrower(a, b)`, then whatever a allows, b allows. Transitive is not enough: a prefix that forgets its
        separator is transitive, and wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .load import Kernel

_SEGMENTS: Final = ("a", "b", "ab", "", ".", "..", "..;x", "%2e%2e", "%2F", "a\\b", "a\n", "%c0%ae", "..%20",
                    "\uff0e\uff0e", "%", "a%20b")
#: The segments that no reader takes for a way elsewhere.
_CLEAN: Final = frozenset({"a", "b", "ab", "a.b", "a-b", "a%20b"})
_DIGEST: Final = "ab" * 32
VALUES: Final[tuple[Any, ...]] = (
    *(f"/{one}" for one in _SEGMENTS),
    *(f"/a/{one}" for one in _SEGMENTS),
    *(f"/a/b/{one}" for one in _SEGMENTS),
    "/a.b", "/a-b", "a", "", 0, 1, 2, 3, True, False, "1", None, {"sha256": _DIGEST},
)  # fmt: skip


def _prefix(value: str, separator: str) -> tuple[Any, Callable[[Any], bool]]:
    def means(one: Any) -> bool:
        if not isinstance(one, str):
            return False
        rest = one.removeprefix(value)
        if one == value:
            return True
        return one.startswith(value + separator) and all(part in _CLEAN for part in rest[1:].split(separator))

    return {"prefix": {"value": value, "separator": separator}}, means


def _among(*values: Any) -> tuple[Any, Callable[[Any], bool]]:
    def means(one: Any) -> bool:
        return any(type(one) is type(value) and one == value for value in values)

    return ({"equals": values[0]} if len(values) == 1 else {"one_of": list(values)}), means


def _range(least: int, most: int) -> tuple[Any, Callable[[Any], bool]]:
    return {"range": {"min": least, "max": most}}, lambda one: type(one) is int and least <= one <= most


_MEANINGS: Final = (
    _prefix("/a", "/"), _prefix("/a/b", "/"), _prefix("/ab", "/"), _prefix("", "/"), _prefix("/a", "."),
    _prefix("/a", "-"), _among("/a"), _among("/a/b"), _among("/ab"), _among("/a/b", "/b"), _among("/a/.."),
    _among(1), _among(True), _among("1"), _among(1, 2), _among(0, 1, 2), _among(False, 1), _range(1, 1), _range(1, 2),
    _range(0, 2), _range(0, 3), ({"any": True}, lambda one: True),
)  # fmt: skip


def explore(kernel: Kernel) -> tuple[int, str | None]:
    """How many decisions were compared, and the first that was wrong."""
    module, tried = kernel.constraint, 0
    single = [(module.parse_where({"p": value}), means, "any" in value) for value, means in _MEANINGS]
    for where, means, free in single:
        name = where.as_value()
        for value in VALUES:
            tried += 4
            if (module.covers(where, {"p": value}) is None) is not means(value):
                return tried, f"{name} and the value {value!r}"
            shown = value == {"sha256": _DIGEST} if free else means(value)
            if (module.covers_rendered(where, {"p": value}) is None) is not shown:
                return tried, f"{name} and the shown value {value!r}"
            if module.covers(where, {"p": value, "q": 1}) is None:
                return tried, f"{name} and an argument that it does not name"
            if (module.covers(where, {}) is None) is not free:
                return tried, f"{name} and no argument"
    empty = module.parse_where({})
    allowed = [{number for number, value in enumerate(VALUES) if means(value)} for _, means, _ in single]
    for (part, _, free), inner in zip(single, allowed, strict=True):
        tried += 2
        if module.narrower(part, empty) or (module.narrower(empty, part) and not free):
            return tried, f"{part.as_value()} and no constraint at all"
        for (whole, _, _), outer in zip(single, allowed, strict=True):
            tried += 2
            if module.narrower(part, whole) and not inner <= outer:
                return tried, f"{part.as_value()} taken for narrower than {whole.as_value()}"
            both = module.parse_where({"p": part.as_value()["p"], "q": {"equals": 1}})
            if module.narrower(both, whole) or (module.narrower(whole, both)):
                return tried, f"{whole.as_value()} and another argument"
    return tried, None
