"""The proof's obligations, made from the kernel's own table: SMT-LIB scripts for each rule.

Decides which formulas must be unsatisfiable for the specification to hold of the table, and which must be satisfiable
for it to say anything. The scripts follow from the table and the specification alone, byte for byte, so whoever has
the same kernel makes the same scripts. It solves nothing. Source: SMT-LIB 2.6.

Rule 1: an obligation says: the invariants hold, the message is this rule's, and what is to be shown is false.
Rule 2: a hypothesis about all values is put in for every term that stands in the obligation. Leaving one out can only
        make an obligation fail, never hold.
Rule 3: vacuity is checked with the hypotheses in full, with their quantifiers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

from ironbound.core.canonical import Digest, sha256_hex

from .invariants import INVARIANTS
from .specification import Specification
from .terms import NUMBER, TRUTH, Field, SortError, State, Symbolic, Term, literal
from .vocabulary import GIVEN, MARKS, MESSAGE, SORTS, TAKING, VALUES

#: The script of the first state, and the suffixes of those about the power that a rule gives, and about vacuity.
BEGINNING: Final = "beginning"
POWER: Final = "-gives"
VACUITY: Final = "-can-happen"
#: What is shown of a call for a client, so that who acts for nobody stands for all.
ALONE: Final = "it would be for nobody as well"
#: What the solvers have to answer.
UNSAT, SAT = "unsat", "sat"


@dataclass(frozen=True, slots=True)
class Script:
    """One SMT-LIB file: the names of its questions in order, and what each must be answered with."""

    name: str
    asks: tuple[str, ...]
    expects: str
    text: str


class _Message(dict[str, Any]):
    """An arbitrary message: a constant for each field that is looked at."""

    def __init__(self, logic: Symbolic, name: str, values: Mapping[str, str]) -> None:
        super().__init__()
        self._logic, self._name, self._values = logic, name, values

    def __missing__(self, key: str) -> Term:
        if key not in self._values:
            raise SortError(f"a message has no field {key}")
        sort = self._values[key]
        made = self._logic.key(self._logic.constant(f"{self._name}.{key}", sort), sort)
        self[key] = made
        return made


@dataclass
class _Draft:
    """A script that is being written."""

    kernel: Any
    quantified: bool = False
    logic: Symbolic = field(init=False)

    def __post_init__(self) -> None:
        self.logic = Symbolic(GIVEN, self.quantified)
        if set(self.kernel.FIELDS) != set(SORTS):
            odd = ", ".join(sorted(set(self.kernel.FIELDS) ^ set(SORTS)))
            raise SortError(f"the specification and the kernel differ in the fields {odd}")
        fields = {name: Field(*SORTS[name], self.kernel.FIELDS[name]) for name in SORTS}
        self.fields: dict[str, Field] = {**fields, **MARKS}
        self.spec = Specification(self.logic, self.kernel.FIELDS)

    def state(self, base: str | None) -> State:
        return State(self.fields, base)

    def hypotheses(self, s: State) -> list[str]:
        """The invariants about a state, for every term that stands as a key so far."""
        found: dict[str, None] = {}
        self.logic.closed = True  # what hypotheses bring in is not a reason for more of them
        terms = {sort: list(seen) for sort, seen in self.logic.seen.items()}
        for number, (wanted, formula) in enumerate(INVARIANTS.values()):
            values = {one: Term(VALUES[one], f"q!{one}") for one in wanted}
            body = self.text(formula(self.spec, s, values))
            bound = " ".join(f"({term.text} {term.sort})" for term in values.values())
            self.logic.definitions[f"(define-fun invariant.{number} ({bound}) Bool {body})"] = None
            for chosen in product(*(terms.get(VALUES[one], []) for one in wanted)):
                found[f"(invariant.{number} {' '.join(chosen)})" if chosen else f"invariant.{number}"] = None
        found.pop("true", None)
        args = [Term("Args", text) for text in terms.get("Args", [])]
        for part, whole in self.logic.pairs:
            less = self.logic.narrower(part, whole)
            for one in args:
                wider = self.spec.implies(self.logic.covers(part, one), self.logic.covers(whole, one))
                found[self.text(self.spec.implies(less, wider))] = None
        return [*found, *self.logic.meanings()]

    def text(self, term: Any) -> str:
        return self.logic.lift(term, TRUTH).text

    def declarations(self, logic: str) -> list[str]:
        sorts = {one for keys, value in self.logic.functions.values() for one in (*keys, value)}
        sorts |= set(self.logic.literals)
        lines = [f"(set-logic {logic})"]
        lines += [f"(declare-sort {sort} 0)" for sort in sorted(sorts - {NUMBER, TRUTH})]
        lines += [
            f"(declare-fun {name} ({' '.join(keys)}) {value})"
            for name, (keys, value) in sorted(self.logic.functions.items())
        ]
        for sort, values in sorted(self.logic.literals.items()):
            names = sorted(literal(sort, value) for value in values)
            lines += [f"(declare-fun {name} () {sort})" for name in names]
            if len(names) > 1:
                lines.append(f"(assert (distinct {' '.join(names)}))")
        return lines


def scripts_digest(made: Iterable[Script]) -> Digest:
    """SHA-256 over the digests of all scripts, one `sha256  name.smt2` line each, in order."""
    lines = [f"{sha256_hex(one.text.encode())}  {one.name}.smt2\n" for one in made]
    return sha256_hex("".join(lines).encode())


def scripts(kernel: Any) -> Iterator[Script]:
    """Every script, from a module of the kernel's table (`core.authority`). SortError if it can't be read."""
    yield _beginning(kernel)
    for rule in kernel.RULES:
        yield _rule(kernel, rule)
        yield _power(kernel, rule)
        yield _vacuity(kernel, rule)


def _script(draft: _Draft, name: str, given: list[str], goals: Mapping[str, str]) -> Script:
    """Rule 1, and rule 2: the hypotheses `given` are about every term that stands in the goals."""
    lines = draft.declarations("QF_UFLIA") + list(draft.logic.definitions) + [f"(assert {one})" for one in given]
    for title, goal in goals.items():
        lines += [f'(echo "{title}")', "(push 1)", f"(assert (not {goal}))", "(check-sat)", "(pop 1)"]
    return Script(name, tuple(goals), UNSAT, "\n".join(lines) + "\n")


def _beginning(kernel: Any) -> Script:
    """The invariants hold before the first message, whatever quorum the trust root gives (at least one human)."""
    draft = _Draft(kernel)
    values = _Message(draft.logic, "any", VALUES)
    first = draft.state(None)
    goals = {
        name: draft.text(formula(draft.spec, first, {one: values[one] for one in wanted}))
        for name, (wanted, formula) in INVARIANTS.items()
    }
    given = [f"(<= 1 (given.quorum {values['act'].text}))", *draft.logic.meanings()]
    return _script(draft, BEGINNING, given, goals)


def _rule(kernel: Any, rule: str) -> Script:
    """Everything about one rule but whom it gives power: accepted, refused, and what it may change."""
    draft = _Draft(kernel)
    logic, spec, row = draft.logic, draft.spec, kernel.RULES[rule]
    s, m, v = draft.state("s"), _Message(logic, "m", MESSAGE), _Message(logic, "any", VALUES)
    guard = logic.conj(*(holds for _, holds in row.guard(logic, s, m)))
    assumed = list(spec.assumed(rule, s, m))
    marked = s.after(logic, list(spec.marks(rule, s, m, True)))
    after = marked.after(logic, list(row.writes(logic, s, m)))
    refused = s.after(logic, list(spec.marks(rule, s, m, False)))
    goals: dict[str, str] = {}

    def show(title: str, when: Any, then: Any) -> None:
        goals[title] = draft.text(spec.implies(when, then))

    for name, (wanted, formula) in INVARIANTS.items():
        values = {one: v[one] for one in wanted}
        show(f"kept: {name}", guard, formula(spec, after, values))
        show(f"kept by a refusal: {name}", logic.neg(guard), formula(spec, refused, values))
    for name, formula in spec.accepted(rule, s, m):
        show(f"let through only if: {name}", guard, formula)
    for name, formula in spec.steps(rule, s, after, m, v):
        show(f"changed only so: {name}", guard, formula)
    if rule == "invoke":
        alone = _Message(logic, "m", MESSAGE)
        alone["client"] = ""
        show(f"let through only if: {ALONE}", guard, logic.conj(*(holds for _, holds in row.guard(logic, s, alone))))
    if rule in TAKING:
        show("never refused", spec.heard(rule, s, m), guard)
    given = [draft.text(one) for one in assumed] + draft.hypotheses(s)
    return _script(draft, rule, given, goals)


def _power(kernel: Any, rule: str) -> Script:
    """Whom a rule may give power: what any call could do after it. Apart, as the call brings in many more terms."""
    draft = _Draft(kernel)
    logic, spec, row = draft.logic, draft.spec, kernel.RULES[rule]
    s, m = draft.state("s"), _Message(logic, "m", MESSAGE)
    guard = logic.conj(*(holds for _, holds in row.guard(logic, s, m)))
    assumed = list(spec.assumed(rule, s, m))
    marked = s.after(logic, list(spec.marks(rule, s, m, True)))
    after = marked.after(logic, list(row.writes(logic, s, m)))
    call = _Message(logic, "call", MESSAGE)
    call["client"] = ""  # of a call for a client it is shown that it would be let through for nobody
    invoke = kernel.RULES["invoke"].guard
    before = logic.conj(*(holds for _, holds in invoke(logic, s, call)))
    then = logic.conj(*(holds for _, holds in invoke(logic, after, call)))
    then = logic.conj(then, logic.at_most(spec.get(after, "time"), call["now"]))
    gained = spec.gained(rule, s, m, call)
    goal = draft.text(spec.implies(logic.conj(guard, then), logic.disj(before, gained)))
    given = [draft.text(one) for one in assumed] + draft.hypotheses(s)
    return _script(draft, rule + POWER, given, {"no power but what it may give": goal})


def _vacuity(kernel: Any, rule: str) -> Script:
    """Rule 3: the rule can happen in a state that meets every invariant."""
    draft = _Draft(kernel, quantified=True)
    logic, spec = draft.logic, draft.spec
    s, m = draft.state("s"), _Message(logic, "m", MESSAGE)
    guard = logic.conj(*(holds for _, holds in kernel.RULES[rule].guard(logic, s, m)))
    asserted = [draft.text(one) for one in (*spec.assumed(rule, s, m), guard)]
    for number, (wanted, formula) in enumerate(INVARIANTS.values()):
        values = {one: Term(VALUES[one], f"x{number}.{one}") for one in wanted}
        body = draft.text(formula(spec, s, values))
        bound = " ".join(f"({term.text} {term.sort})" for term in values.values())
        asserted.append(f"(forall ({bound}) {body})" if bound else body)
    lines = draft.declarations("UFLIA") + [f"(assert {one})" for one in asserted]
    title = f"{rule} can happen"
    lines += [f'(echo "{title}")', "(check-sat)"]
    return Script(rule + VACUITY, (title,), SAT, "\n".join(lines) + "\n")
