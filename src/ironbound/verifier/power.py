"""Claims C1, C2 and C3: power came from humans, and nothing acted without it.

Decides from the replayed log: the kernel and the humans' signatures were checked for every entry there, so
what is left is to look at what the services said and the kernel did not accept.
"""

from __future__ import annotations

from .claims import Case, Claim
from .history import History
from .probes import Run, channel_probed


def claim_c1(history: History) -> Claim:
    """Every grant, load, launch and reconfiguration traces to the humans the trust root asks for."""
    case = Case("C1")
    case.counts["admitted"] = sum(history.admitted.values())
    case.counts |= {f"admitted {kind}": count for kind, count in sorted(history.admitted.items())}
    case.counts |= {f"asked by {human}": count for human, count in sorted(history.initiators.items())}
    case.counts["refused"] = history.said.get("refused", 0)
    for said in history.void.get("admitted", ()):
        case.found("request-not-authorised", said.index, f"{said.void}")
    case.population("admitted")
    return case.close()


def claim_c2(history: History, runs: list[Run]) -> Claim:
    """None was initiated by an agent; the agent channel has no route for it."""
    case = Case("C2")
    case.counts["initiated by humans"] = sum(history.initiators.values())
    probed = channel_probed(runs)
    case.counts["refusals of every operator verb on the agent channel"] = len(probed)
    if not probed:
        case.found("channel-not-probed", None, "no canary named operator-verbs was refused")
    case.population("initiated by humans")
    return case.close()


def claim_c3(history: History) -> Claim:
    """No action took effect without a live grant."""
    case = Case("C3")
    case.counts["intents"] = history.intents
    case.counts |= {f"outcomes {status}": count for status, count in sorted(history.outcomes.items())}
    case.counts["denied"] = history.said.get("action-denied", 0)
    case.counts["intents without effect"] = len(history.void_intents)
    for said in history.void.get("action-outcome", ()):
        if said.says["status"] == "not-performed":
            continue
        index, status = said.says["intent"], said.says["status"]
        reason = history.void_intents.get(index, "no such intent")
        text = f"outcome {status} for entry {index}: {said.void}, {reason}"
        code = "outcome-unknown" if status == "unknown" else "acted-without-intent"
        case.found(code, said.index, text)
    case.population("intents")
    return case.close()
