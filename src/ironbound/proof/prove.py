"""The whole proof of the installed kernel: every question to every solver that is here, and a search of small worlds.

Decides nothing: what a proof has to show, `ironbound.verifier.proof` says, and whether one stands in the log for the
kernel that ran, claim C4. Run as a program (`python -m ironbound.proof`) it prints a proof as JSON.

Rule 1: the proof names the kernel and the questions by digest, so that whoever has the same kernel can make the same
        questions and ask any solver.
Rule 2: what the solvers don't see, the interpreter, is searched beside them: each of its small worlds is exhausted, and
        each rule has let something through.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from ironbound.core import authority
from ironbound.core.canonical import FormatError, parse_json
from ironbound.verifier.kernel import kernel_digest
from ironbound.verifier.proof.obligations import UNSAT, Script, scripts, scripts_digest

from .load import load_kernel, sources
from .scenes import QUICK
from .search import search
from .solvers import installed, solve

#: What runs beside the solvers, under this name.
SEARCH: Final = "search"

MAX_ANSWER: Final = 1 << 20
#: Failed questions that a proof names; `failed` counts them all.
MAX_NAMED: Final = 16


class ProofBroken(Exception):
    """A solver's process did not come to an answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What the solvers said of this kernel's questions. `predicate` are the fields of a `kernel-proof` statement.

    `search` is what the search saw: `states`, messages `tried`, how many of each rule were let through (`fired`),
    whether it `exhausted` its worlds, and what is broken (`found`) with the history that breaks it, or None.
    """

    predicate: dict[str, Any]
    search: dict[str, Any]
    scripts: tuple[Script, ...]

    @property
    def holds(self) -> bool:
        """Whether every question was answered as it has to be, by every solver, and the search found nothing."""
        return not any(one["failed"] for one in self.predicate["verdicts"]) and fine(self.search)


def prove(told: Callable[[str], None] = lambda _: None) -> Proof:
    """Ask every solver that is here, and search, side by side. `told` hears of each that is done. ProofBroken if one
    breaks off."""
    made = tuple(scripts(authority))
    running = {
        name: subprocess.Popen(
            [sys.executable, "-I", "-B", "-m", "ironbound.proof", name, str(os.getpid())],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in (*installed(), SEARCH)
    }
    verdicts, searched = [], {}
    try:
        for name, process in running.items():
            answer, complaint = process.communicate()
            if process.returncode != 0:
                raise ProofBroken(f"{name}: {complaint.decode(errors='replace').strip()[-300:] or 'no answer'}")
            if name == SEARCH:
                searched = _answer(name, answer)
                told(f"{name}: {searched['states']} states, {searched['tried']} messages")
                continue
            verdicts.append(_answer(name, answer))
            told(f"{name}: {verdicts[-1]['held']} hold, {verdicts[-1]['failed']} fail, {verdicts[-1]['took_ms']} ms")
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()
    return Proof(
        {
            "kernel_sha256": kernel_digest(),
            "scripts_sha256": scripts_digest(made),
            "obligations": sum(len(one.asks) for one in made if one.expects == UNSAT),
            "rules": len(authority.RULES),
            "verdicts": verdicts,
        },
        searched,
        made,
    )


def fine(searched: Mapping[str, Any]) -> bool:
    """Whether a search exhausted its worlds, found nothing, and saw each rule let something through."""
    return (
        bool(searched["exhausted"]) and searched["found"] is None and searched["fired"].keys() == authority.RULES.keys()
    )


def _answer(name: str, answer: bytes) -> dict[str, Any]:
    try:
        value: Any = parse_json(answer, limit=MAX_ANSWER)
    except FormatError as error:
        raise ProofBroken(f"{name}: {error}") from error
    return dict(value)


def ask(name: str) -> dict[str, Any]:
    """One solver's verdict, here and now, as a `kernel-proof` statement holds it; or what the search saw."""
    if name == SEARCH:
        return vars(search(load_kernel(sources()), QUICK))
    said = asdict(solve(name, scripts(authority)))
    failed = said.pop("failed")
    named = [f"{script}: {title}: {answer}"[:200] for script, title, answer in failed[:MAX_NAMED]]
    return said | {"failed": len(failed), "named": named}
