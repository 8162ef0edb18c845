"""Asks SMT solvers the proof's questions, and says what they answered.

Decides nothing: a solver is a program that reads an SMT-LIB file and prints an answer for each question. Both read the
very same bytes. z3 comes with Ironbound; cvc5's wheel carries libraries under the LGPL, so it is not part of it, and
is asked where somebody installed it.

Rule 1: whatever is not the expected answer, word for word, is reported: no answer, an error, `unknown`.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from ironbound.verifier.proof.obligations import Script

#: Milliseconds that one question may take, on a busy machine too; all of them together take seconds.
LIMIT_MS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a solver said: how many questions were answered as expected, and the others, as (script, question, answer).

    `held` counts obligations (unsat), `possible` rules that can happen (sat); `took_ms` is wall-clock time.
    """

    solver: str
    version: str
    held: int
    possible: int
    failed: tuple[tuple[str, str, str], ...]
    took_ms: int


def _z3() -> tuple[str, Callable[[str], str]]:
    z3: Any = importlib.import_module("z3")

    def ask(text: str) -> str:
        settings = z3.Z3_mk_config()
        z3.Z3_set_param_value(settings, "timeout", str(LIMIT_MS))
        context = z3.Z3_mk_context(settings)
        try:
            return str(z3.Z3_eval_smtlib2_string(context, text))
        except z3.Z3Exception as error:
            return f"error\n{error}\n"
        finally:
            z3.Z3_del_context(context)
            z3.Z3_del_config(settings)

    return str(z3.get_version_string()), ask


def _cvc5() -> tuple[str, Callable[[str], str]]:
    cvc5: Any = importlib.import_module("cvc5")

    def ask(text: str) -> str:
        solver = cvc5.Solver(cvc5.TermManager())
        for name, value in (("incremental", "true"), ("sat-solver", "cadical"), ("tlimit-per", str(LIMIT_MS))):
            solver.setOption(name, value)
        parser = cvc5.InputParser(solver)
        parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "obligations")
        answers: list[str] = []
        try:
            while not (command := parser.nextCommand()).isNull():
                answers.append(str(command.invoke(solver, parser.getSymbolManager())))
        except RuntimeError as error:
            answers.append(f"error\n{error}\n")
        return "".join(answers)

    return str(cvc5.__version__), ask


SOLVERS: Final[dict[str, Callable[[], tuple[str, Callable[[str], str]]]]] = {"z3": _z3, "cvc5": _cvc5}


def installed() -> list[str]:
    """The solvers that are here, in the order in which they are asked."""
    return [name for name in SOLVERS if importlib.util.find_spec(name) is not None]


def solve(name: str, scripts: Iterable[Script]) -> Verdict:
    """A solver's verdict on all scripts. ModuleNotFoundError if it isn't installed."""
    began = time.monotonic()
    version, ask = SOLVERS[name]()
    counts, failed = {"unsat": 0, "sat": 0}, []
    for script in scripts:
        if script.expects == "sat" and name != "z3":
            continue  # a model of quantified formulas is z3's business; the search shows that rules can happen too
        answers = _answers(ask(script.text))
        for title in script.asks:
            answer = answers.get(title, "no answer")
            if answer == script.expects:
                counts[answer] += 1
            else:
                failed.append((script.name, title, answer))
    took = round((time.monotonic() - began) * 1000)
    return Verdict(name, version, counts["unsat"], counts["sat"], tuple(failed), took)


def _answers(output: str) -> dict[str, str]:
    """Each question's echo with the line after it."""
    lines = [line.strip().strip('"') for line in output.splitlines()]
    return dict(zip(lines[::2], lines[1::2], strict=False))
