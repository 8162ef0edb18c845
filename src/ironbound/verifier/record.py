"""Claims D1, D2, D3 and F1: the record itself, and the second voice.

Decides from the replayed log. That the log is complete and witnessed was decided before (`verify`, steps 2
to 4), else nobody would be here; D1 adds whether it is the right log.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from .boundary import stop_of
from .claims import Case, Claim
from .history import History, Said

_UNSEEN = ("not-seen", "seen-differs")
_UNMATCHED = ("process-without-entry", "entry-without-process")


def claim_d1(history: History, pinned: bool, witnesses: tuple[str, ...], tiles: int) -> Claim:
    """The log is append-only, complete and witnessed by the policy's quorum."""
    case = Case("D1")
    case.counts |= {"entries": history.replay.size, "tiles": tiles, "witnesses": len(witnesses)}
    if not pinned:
        case.found("no-pin", 0, "give the pin that you got by another road")
    if history.replay.trust.policy.quorum == "none":
        case.remark("the trust root asks for no witness: the log's operator alone vouches for its order")
    return case.close()


def claim_d2(history: History, end_ms: int) -> Claim:
    """Every act was logged before it happened; every intent has its outcome."""
    case = Case("D2")
    case.counts["intents"] = history.intents + len(history.void_intents)
    case.counts["launches"] = len(history.replay.books.launches)
    for index in history.replay.books.open_intents:
        case.found("outcome-missing", index, "the intent has no outcome")
    for index, reason in history.void_intents.items():
        if index not in history.void_answers:
            case.found("outcome-missing", index, f"the intent was refused ({reason}) and has no outcome")
    for launch in history.replay.books.launches.values():
        if launch.started < 0 and launch.ended < 0 and launch.expires_ms <= end_ms:
            case.found("launch-unanswered", launch.index, f"agent {launch.agent}")
    for kind in ("exited", "launch-refused"):
        for said in history.void.get(kind, ()):
            case.found("exit-without-start", said.index, f"{kind}: {said.void}")
    lost = history.outcomes.get("unknown", 0)
    if lost:
        case.remark(f"{lost} outcomes are closed as unknown: the gateway was interrupted while it acted")
    if not case.counts["intents"]:
        case.population("launches")
    return case.close()


def claim_d3(history: History) -> Claim:
    """Every entry was said by a voice entitled to say it."""
    case = Case("D3")
    case.counts["entries"] = history.replay.size
    for index, reason, text in history.wrong_voices:
        case.found(reason, index, text[:300])
    return case.close()


def claim_f1(history: History) -> Claim:
    """Launches and observations match one to one, told by two separate voices."""
    case = Case("F1")
    trust = history.replay.trust
    case.counts["launches"] = len(history.starts)
    case.counts["observations"] = sum(len(looks) for looks in history.observed.values())
    for index, start in history.starts.items():
        for look in history.observed[index]:
            if (look.says["pid"], look.says["agent"]) != (start.says["pid"], start.says["agent"]):
                text = f"observed {look.says['agent']} as process {look.says['pid']}"
                case.found("observation-differs", look.index, text)
    for start in history.void.get("started", ()):
        if start.void in _UNSEEN:
            case.found("start-unseen", start.index, f"agent {start.says['agent']}, process {start.says['pid']}")
    for look in history.void.get("observed", ()):
        case.found("observation-void", look.index, f"{look.void}")
    for drift in (*history.drifts, *history.void.get("drift", ())):
        if drift.says["kind"] in _UNMATCHED:
            case.count("unmatched processes or entries")
            if stop_of(history, drift) is None:
                case.found("process-unmatched", drift.index, f"{drift.says['kind']}, {drift.says['pid']}")
    if trust.separation == "user":
        _check_users(case, history.services, trust.users)
        _check_sandboxes(case, history)
    else:
        case.remark("separated by process only: the services ran as one user, so one could have read another's key")
    case.population("launches")
    return case.close()


def _check_sandboxes(case: Case, history: History) -> None:
    """No sandbox ran as a user that a service ran as."""
    users = {said.says["uid"]: said.says["role"] for said in history.services}
    for index, start in history.starts.items():
        role = users.get(start.says["uid"])
        if role is not None:
            case.found("users-not-separate", index, f"agent {start.says['agent']} ran as the {role}'s user")


def _check_users(case: Case, services: list[Said], promised: Mapping[str, int]) -> None:
    users: dict[str, set[int]] = {}
    for said in services:
        role, uid = said.says["role"], said.says["uid"]
        users.setdefault(role, set()).add(uid)
        if promised.get(role, uid) != uid:
            case.found("users-not-separate", said.index, f"the {role} ran as {uid}, expected {promised[role]}")
    for role in ("controller", "node", "gateway", "monitor"):
        if role not in users:
            case.found("service-not-announced", None, f"the {role}")
    for one, other in combinations(sorted(users), 2):
        if users[one] & users[other]:
            index = next(said.index for said in services if said.says["role"] == other)
            case.found("users-not-separate", index, f"{one} and {other} as user {min(users[one] & users[other])}")
