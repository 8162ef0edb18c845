"""The kernel's logic, read symbolically: terms of SMT-LIB in, terms of SMT-LIB out.

The rules in `core.authority` are written against the operations of `core.logic`. Read with `Symbolic` instead of
`Plain`, the very same functions become formulas over an arbitrary state and an arbitrary message: agents, grants,
digests and numbers are unbounded. Decides nothing. Source: SMT-LIB 2.6, logic QF_UFLIA.

Rule 1: every term has a sort, and an operation on wrong sorts raises SortError: what can't be read isn't proved.
Rule 2: a state is an uninterpreted function for each field, and what was written since.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: Where a field's key or value is a number, a truth value, or one of the opaque sorts.
NUMBER: Final = "Int"
TRUTH: Final = "Bool"
SET: Final = "Set"
"""A set of ids; only a field's value."""
_PLAIN = re.compile(r"[A-Za-z0-9-]*")


class SortError(TypeError):
    """A rule used a value where it makes no sense: it can't be read as a formula."""


@dataclass(frozen=True, slots=True)
class Term:
    """An SMT-LIB term with its sort."""

    sort: str
    text: str

    def __bool__(self) -> bool:
        raise SortError(f"a rule branches on {self.text[:60]}: write it with the logic's operations")


@dataclass(frozen=True, slots=True)
class Members:
    """A set, by what is in it."""

    has: Callable[[Term], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """A total map of the state: the sorts of its key's parts, the sort of its values, and where nothing was written."""

    keys: tuple[str, ...]
    value: str
    default: Any


class State:
    """A state: `base` is a name for the functions that it starts from (None: every field has its default)."""

    __slots__ = ("_fields", "_writes", "base")

    def __init__(self, fields: Mapping[str, Field], base: str | None) -> None:
        self.base = base
        self._fields = fields
        self._writes: dict[str, list[tuple[Any, Any]]] = {}

    def read(self, logic: Symbolic, field: str, key: Any) -> Any:
        """The value of a field at a key: the latest write to that key, else what the state started from."""
        shape = self._fields[field]
        parts = _parts(logic, field, shape, key)
        if shape.value == SET:
            return Members(lambda one: self._has(logic, field, parts, one))
        if self.base is None and field not in logic.given:
            value = logic.lift(shape.default, shape.value)
        else:
            value = logic.call(f"{self.base or 'given'}.{field}", parts, shape.value)
        for at, written in self._writes.get(field, ()):
            if isinstance(at, Members):
                value = logic.when(at.has(parts[0]), written(parts[0]), value)
            else:
                value = logic.when(_here(logic, at, parts), written, value)
        return logic.lift(value, shape.value)

    def _has(self, logic: Symbolic, field: str, parts: tuple[Term, ...], one: Term) -> Any:
        value: Any = False
        if self.base is not None:
            value = logic.call(f"{self.base}.{field}", (*parts, one), TRUTH)
        for at, written in self._writes.get(field, ()):
            value = logic.when(_here(logic, at, parts), written.has(one), value)
        return logic.lift(value, TRUTH)

    def after(self, logic: Symbolic, writes: Iterable[tuple[str, Any, Any]]) -> State:
        """The state once these writes are done in order, as the interpreter does them."""
        done = State(self._fields, self.base)
        done._writes = {field: list(made) for field, made in self._writes.items()}
        for field, key, value in writes:
            shape = self._fields[field]
            at: Any
            made: Any
            if hasattr(key, "keys"):
                at, made = logic.members(key.keys), value
            else:
                at = _parts(logic, field, shape, key)
                made = logic.members(value) if shape.value == SET else logic.lift(value, shape.value)
            done._writes.setdefault(field, []).append((at, made))
        return done


def _here(logic: Symbolic, at: tuple[Term, ...], parts: tuple[Term, ...]) -> Any:
    return logic.conj(*(logic.same(one, other) for one, other in zip(at, parts, strict=True)))


def _parts(logic: Symbolic, field: str, shape: Field, key: Any) -> tuple[Term, ...]:
    parts = (key,) if len(shape.keys) == 1 else () if key == "" else key
    if len(parts) != len(shape.keys):
        raise SortError(f"{field} has a key of {len(shape.keys)} parts")
    return tuple(logic.key(part, sort) for part, sort in zip(parts, shape.keys, strict=True))


class Symbolic:
    """The symbolic reading. It remembers what it named: functions, literals, and the terms that stood as keys.

    `given`: fields that the initial state doesn't fix, such as the quorum, which the trust root gives.
    """

    def __init__(self, given: frozenset[str] = frozenset(), quantified: bool = False) -> None:
        self.given = given
        self.functions: dict[str, tuple[tuple[str, ...], str]] = {}
        self.literals: dict[str, dict[Any, None]] = {}
        self.seen: dict[str, dict[str, None]] = {}
        self.pairs: dict[tuple[Term, Term], None] = {}
        self.foralls: dict[str, tuple[Term, Term, Callable[[Term], str]]] = {}
        self.definitions: dict[str, None] = {}
        self.quantified, self.closed, self._bound = quantified, False, 0

    # What the rules call; `core.logic.Plain` says what each means.

    def conj(self, *terms: Any) -> Any:
        return self._join("and", True, terms)

    def disj(self, *terms: Any) -> Any:
        return self._join("or", False, terms)

    def unless(self, term: Any, holds: Callable[[], Any]) -> Any:
        return True if self.lift(term, TRUTH).text == "true" else self.disj(term, holds())

    def neg(self, term: Any) -> Any:
        lifted = self.lift(term, TRUTH)
        return {"true": False, "false": True}.get(lifted.text, Term(TRUTH, f"(not {lifted.text})"))

    def same(self, left: Any, right: Any) -> Any:
        if not isinstance(left, Term) and not isinstance(right, Term):
            return type(left) is type(right) and left == right
        sort = left.sort if isinstance(left, Term) else right.sort
        one, other = self.lift(left, sort), self.lift(right, sort)
        return True if one == other else Term(TRUTH, f"(= {one.text} {other.text})")

    def at_most(self, left: Any, right: Any) -> Any:
        return self._numbers("<=", TRUTH, left, right)

    def less(self, left: Any, right: Any) -> Any:
        return self._numbers("<", TRUTH, left, right)

    def plus(self, left: Any, right: Any) -> Any:
        return self._numbers("+", NUMBER, left, right)

    def minus(self, left: Any, right: Any) -> Any:
        return self._numbers("-", NUMBER, left, right)

    def narrower(self, part: Any, whole: Any) -> Any:
        pair = (self.lift(part, "Where"), self.lift(whole, "Where"))
        self.pairs[pair] = None
        return self.call("narrower", pair, TRUTH)

    def agree(self, one: Any, other: Any) -> Any:
        return self.call("agree", (self.lift(one, "Args"), self.lift(other, "Args")), TRUTH)

    def joined(self, members: Any, item: Any) -> Members:
        before, one = self.members(members), self.key(item, "Id")
        return Members(lambda other: self.disj(before.has(other), self.same(other, one)))

    def member(self, members: Any, item: Any) -> Any:
        return self.members(members).has(self.lift(item, "Id"))

    def forall(self, members: Any, holds: Callable[[Any], Any]) -> Any:
        """A name for the truth of it; what the name means is an axiom of `meanings`."""
        whole = self.members(members)

        def body(one: Term) -> str:
            return self.lift(self.disj(self.neg(whole.has(one)), holds(one)), TRUTH).text

        if self.quantified:
            self._bound += 1
            bound = f"q!{self._bound}"
            return Term(TRUTH, f"(forall (({bound} Id)) {body(Term('Id', bound))})")
        shape = body(Term("Id", "q!0"))
        if shape not in self.foralls:
            number = len(self.foralls)
            self.foralls[shape] = (self.constant(f"all.{number}", TRUTH), self.constant(f"but.{number}", "Id"), body)
            if not self.closed:
                self.key(self.foralls[shape][1], "Id")
        return self.foralls[shape][0]

    def when(self, term: Any, then: Any, otherwise: Any) -> Any:
        condition = self.lift(term, TRUTH).text
        if condition in ("true", "false"):
            return then if condition == "true" else otherwise
        sorts = {one.sort for one in (then, otherwise) if isinstance(one, Term)}
        sort = sorts.pop() if sorts else {bool: TRUTH, int: NUMBER}.get(type(then))
        if sorts or sort is None:
            raise SortError("the two sides of a `when` differ in sort")
        one, other = self.lift(then, sort), self.lift(otherwise, sort)
        return one if one == other else Term(sort, f"(ite {condition} {one.text} {other.text})")

    def read(self, state: State, field: str, key: Any, default: Any) -> Any:
        return state.read(self, field, key)

    def covers(self, where: Any, args: Any) -> Any:
        return self.call("covers", (self.lift(where, "Where"), self.lift(args, "Args")), TRUTH)

    # What the reading itself needs.

    def lift(self, value: Any, sort: str) -> Term:
        """A value as a term of a sort; SortError if it isn't of it."""
        if isinstance(value, Term):
            if value.sort != sort:
                raise SortError(f"{value.text[:60]} is of sort {value.sort}, not {sort}")
            return value
        if sort == TRUTH and isinstance(value, bool):
            return Term(TRUTH, "true" if value else "false")
        if sort == NUMBER and type(value) is int:
            return Term(NUMBER, str(value) if value >= 0 else f"(- {-value})")
        if sort in (TRUTH, NUMBER) or not (value is None or (isinstance(value, str) and _PLAIN.fullmatch(value))):
            raise SortError(f"{value!r} is no {sort}")
        self.literals.setdefault(sort, {})[value] = None
        return Term(sort, literal(sort, value))

    def constant(self, name: str, sort: str) -> Term:
        """A free constant of that name."""
        return self.call(name, (), sort)

    def call(self, name: str, arguments: Sequence[Term], sort: str) -> Term:
        """An uninterpreted function's value."""
        shape = (tuple(one.sort for one in arguments), sort)
        if self.functions.setdefault(name, shape) != shape:
            raise SortError(f"{name} is used with two sorts")
        text = f"({name} {' '.join(one.text for one in arguments)})" if arguments else name
        return Term(sort, text)

    def members(self, value: Any) -> Members:
        """A set as its members; the kernel's own empty set is one."""
        if isinstance(value, Members):
            return value
        if value == frozenset():
            return Members(lambda one: False)
        raise SortError(f"{value!r} is no set that can be read")

    def meanings(self) -> list[str]:
        """What the names of `forall` mean: if it holds, for every term; if not, there is one for which it doesn't."""
        found: dict[str, None] = {}
        terms = [Term("Id", text) for text in self.seen.get("Id", {})]
        done = 0
        while done < len(self.foralls):
            for name, witness, body in list(self.foralls.values())[done:]:
                done += 1
                means = f"means.{name.text}"
                self.definitions[f"(define-fun {means} ((q!0 Id)) Bool {body(Term('Id', 'q!0'))})"] = None
                found[f"(=> (not {name.text}) (not ({means} {witness.text})))"] = None
                for one in terms:
                    found[f"(=> {name.text} ({means} {one.text}))"] = None
        return list(found)

    def key(self, value: Any, sort: str) -> Term:
        """As `lift`; remembered as a term that a hypothesis may have to be about."""
        term = self.lift(value, sort)
        if sort != TRUTH and "!" not in term.text and not self.closed:
            self.seen.setdefault(sort, {})[term.text] = None
        return term

    def _join(self, word: str, neutral: bool, terms: Sequence[Any]) -> Any:
        parts = [self.lift(one, TRUTH).text for one in terms]
        absorbing, unit = ("false", "true") if neutral else ("true", "false")
        if absorbing in parts:
            return not neutral
        parts = [one for one in dict.fromkeys(parts) if one != unit]
        if len(parts) < 2:
            return Term(TRUTH, parts[0]) if parts else neutral
        return Term(TRUTH, f"({word} {' '.join(parts)})")

    def _numbers(self, word: str, sort: str, left: Any, right: Any) -> Term:
        return Term(sort, f"({word} {self.lift(left, NUMBER).text} {self.lift(right, NUMBER).text})")


def literal(sort: str, value: Any) -> str:
    """The constant's name for a value that the source names: `Act.grant`, `Agent.`."""
    return f"{sort}.{'none' if value is None else value or 'empty'}"
