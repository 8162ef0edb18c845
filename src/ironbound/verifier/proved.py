"""Claim C4: the proof of non-escalation was made for the kernel that ran, and holds.

Decides from the replayed log and from the kernel beside it: the questions are made anew here, byte for byte, so the
log's word is taken for one thing only, that solvers answered them. Whoever doubts that asks a solver of their own:
`ironbound prove --out` writes the files, and their digest is the one in the log.

Rule 1: a proof counts for one kernel, by the digest of its sources, and for the very questions of that kernel.
Rule 2: one answer that is not the expected one refutes, whoever gave the others.
"""

from __future__ import annotations

from functools import cache

from ironbound.core import authority
from ironbound.core.canonical import Digest

from .claims import Case, Claim
from .history import History, Said
from .kernel import kernel_digest
from .proof.obligations import UNSAT, scripts, scripts_digest


@cache
def questions() -> tuple[Digest, int]:
    """The digest of this kernel's questions, and how many of them are obligations."""
    made = list(scripts(authority))
    return scripts_digest(made), sum(len(one.asks) for one in made if one.expects == UNSAT)


def claim_c4(history: History) -> Claim:
    """The proof was made for this very kernel, and holds."""
    case = Case("C4")
    here = kernel_digest()
    starts: dict[str, int] = {}
    for said in history.services:
        case.count("service starts")
        starts.setdefault(said.says["kernel_sha256"], said.index)
    case.counts["kernels that ran"] = len(starts)
    proofs: dict[str, list[Said]] = {}
    for said in history.proofs:
        case.count("proofs")
        proofs.setdefault(said.says["kernel_sha256"], []).append(said)
    for kernel, index in starts.items():
        if kernel not in proofs:
            case.found("proof-missing", index, f"kernel {kernel[:16]}")
        elif kernel != here:
            case.found("kernel-not-here", index, f"kernel {kernel[:16]} ran, this verifier has {here[:16]}")
    for said in history.proofs:
        _check(case, said, here)
    case.population("service starts")
    return case.close()


def _check(case: Case, said: Said, here: Digest) -> None:
    says = said.says
    verdicts = says["verdicts"]
    for one in verdicts:
        if one["failed"] or one["held"] != says["obligations"]:
            named = "; ".join(one["named"][:3]) or f"{one['held']} of {says['obligations']} hold"
            case.found("proof-fails", said.index, f"{one['solver']}: {named}"[:300])
    if not any(one["solver"] == "z3" and one["possible"] == says["rules"] for one in verdicts):
        case.found("proof-fails", said.index, "nobody showed that every rule can happen, so it may prove nothing")
    if says["kernel_sha256"] != here:
        return
    digest, obligations = questions()
    if (says["scripts_sha256"], says["obligations"], says["rules"]) != (digest, obligations, len(authority.RULES)):
        case.found("proof-differs", said.index, f"the kernel's questions are {digest[:16]}, {obligations} obligations")
        return
    case.counts["obligations"] = obligations
    solvers = " and ".join(f"{one['solver']} {one['version']}" for one in verdicts)
    case.remark(f"entry {said.index}: answered by {solvers}; the questions were made anew and are the same")
