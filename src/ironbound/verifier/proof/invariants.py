"""What holds in every state that the kernel can reach.

Rule 1: an *invariant* ties what the kernel wrote down to the marks. It holds at the beginning and is kept by every
        message, accepted or refused. All of them together are the hypothesis of every obligation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .specification import Specification
from .vocabulary import (
    ABSENT,
    ADMITTED,
    AGENT,
    CANARY,
    ENDED,
    LIVE,
    REVOKED,
    STARTED,
    Message,
)


def _clock(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.same(q.get(s, "clock"), q.get(s, "time"))


def _quorum(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.at_most(1, q.get(s, "quorum", v["act"]))


def _edition(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.same(q.get(s, "version"), q.get(s, "edition"))


def _module(q: Specification, s: Any, v: Message) -> Any:
    kind = q.get(s, "module", v["module"])
    return q.logic.conj(
        q.implies(q.logic.same(kind, AGENT), q.get(s, "said_module", v["module"], False)),
        q.implies(q.logic.same(kind, CANARY), q.get(s, "said_module", v["module"], True)),
        q.implies(q.get(s, "withdrawn", v["module"]), q.logic.same(kind, ABSENT)),
        q.logic.disj(*(q.logic.same(kind, one) for one in (ABSENT, AGENT, CANARY))),
    )


def _profile(q: Specification, s: Any, v: Message) -> Any:
    said, shut = q.get(s, "said_profile", v["config"]), q.get(s, "shut", v["config"])
    return q.implies(q.get(s, "profile", v["config"]), q.logic.conj(said, q.logic.neg(shut)))


def _release(q: Specification, s: Any, v: Message) -> Any:
    said, barred = q.get(s, "said_release", v["release"]), q.get(s, "barred", v["release"])
    return q.implies(q.get(s, "release", v["release"]), q.logic.conj(said, q.logic.neg(barred)))


def _launch_signed(q: Specification, s: Any, v: Message) -> Any:
    launch, logic = v["launch"], q.logic
    fields = tuple(q.get(s, f"launch_{one}", launch) for one in ("agent", "module", "config", "expires"))
    absent = logic.same(q.get(s, "launch_state", launch), ABSENT)
    return logic.disj(absent, q.get(s, "launch_canary", launch), q.get(s, "said_launch", launch, *fields))


def _launch_approved(q: Specification, s: Any, v: Message) -> Any:
    launch, logic = v["launch"], q.logic
    known = logic.neg(logic.same(q.get(s, "launch_state", launch), ABSENT))
    code = q.get(s, "said_module", q.get(s, "launch_module", launch), q.get(s, "launch_canary", launch))
    cage = q.get(s, "said_profile", q.get(s, "launch_config", launch))
    return q.implies(known, logic.conj(code, cage))


def _launch_canary(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.same(q.get(s, "launch_canary", v["launch"]), q.get(s, "hostile", v["launch"]))


def _launch_index(q: Specification, s: Any, v: Message) -> Any:
    launch, logic = v["launch"], q.logic
    state, canary = q.get(s, "launch_state", launch), q.get(s, "launch_canary", launch)
    past = logic.conj(logic.less(launch, q.get(s, "length")), logic.at_most(0, launch))
    known = logic.disj(logic.neg(logic.same(state, ABSENT)), canary)
    return logic.conj(
        q.implies(known, past),
        logic.disj(*(logic.same(state, one) for one in (ABSENT, ADMITTED, STARTED, ENDED))),
    )


def _launch_latest(q: Specification, s: Any, v: Message) -> Any:
    owner = q.get(s, "launch_agent", v["launch"])
    return q.implies(q.active(s, v["launch"]), q.logic.same(q.get(s, "agent_launch", owner), v["launch"]))


def _stop_reaches(q: Specification, s: Any, v: Message) -> Any:
    launch = v["launch"]
    late = q.logic.less(launch, q.get(s, "stopped_at", q.get(s, "launch_agent", launch)))
    return q.implies(q.logic.conj(q.active(s, launch), late), q.get(s, "launch_stopped", launch))


def _stop_past(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.at_most(q.get(s, "stopped_at", v["agent"]), q.get(s, "length"))


def _order_reaches(q: Specification, s: Any, v: Message) -> Any:
    return q.implies(q.get(s, "ordered", v["launch"]), q.get(s, "launch_stopped", v["launch"]))


def _node_said(q: Specification, s: Any, v: Message) -> Any:
    launch, logic = v["launch"], q.logic
    state = q.get(s, "launch_state", launch)
    began, over = q.get(s, "began", launch), q.get(s, "over", launch)
    return logic.conj(
        q.implies(logic.same(state, STARTED), began),
        q.implies(logic.disj(logic.same(state, ADMITTED), logic.same(state, ABSENT)), logic.neg(began)),
        logic.same(over, logic.same(state, ENDED)),
    )


def _grant_signed(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    human = logic.conj(q.get(s, "given", grant), logic.same(q.get(s, "root", grant), grant))
    return q.implies(human, q.human(s, grant))


def _line(q: Specification, s: Any, v: Message) -> Any:
    grant, other, logic = v["grant"], v["other"], q.logic
    above = logic.member(q.get(s, "above", grant), other)
    return logic.same(above, logic.member(q.get(s, "grant_line", grant), other))


def _root(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    root, above = q.get(s, "root", grant), q.get(s, "above", grant)
    human = logic.same(root, grant)
    fine = logic.conj(
        q.get(s, "given", root),
        logic.same(q.get(s, "root", root), root),
        logic.member(above, root),
        logic.member(above, grant),
        logic.same(human, logic.same(q.get(s, "grant_parent", grant), "")),
    )
    unknown = logic.same(q.get(s, "grant_parent", grant), "")
    return logic.when(q.get(s, "given", grant), fine, unknown)


def _within(q: Specification, s: Any, v: Message) -> Any:
    grant, other, args, logic = v["grant"], v["other"], v["args"], q.logic
    wider = q.implies(
        logic.covers(q.get(s, "grant_where", grant), args), logic.covers(q.get(s, "grant_where", other), args)
    )
    alike = ("action", "every", "slack", "cost", "approvals")
    terms = logic.conj(*(logic.same(q.get(s, f"grant_{one}", grant), q.get(s, f"grant_{one}", other)) for one in alike))
    above = logic.member(q.get(s, "above", grant), other)
    alone = q.implies(logic.same(q.get(s, "root", grant), grant), logic.same(grant, other))
    return q.implies(above, logic.conj(q.get(s, "given", grant), q.get(s, "given", other), wider, terms, alone))


def _nobody(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.neg(q.get(s, "given", ""))


def _budget(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    absent = logic.same(q.get(s, "grant_state", grant), ABSENT)
    positive = logic.conj(
        logic.at_most(0, q.get(s, "grant_budget", grant)), logic.at_most(0, q.get(s, "grant_cost", grant))
    )
    return logic.conj(positive, q.implies(absent, logic.same(q.get(s, "charged", grant), 0)))


def _rate(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    absent = logic.same(q.get(s, "grant_state", grant), ABSENT)
    busy = q.get(s, "busy", grant)
    return logic.conj(logic.same(q.get(s, "grant_full", grant), busy), q.implies(absent, logic.same(busy, 0)))


def _open(q: Specification, s: Any, v: Message) -> Any:
    intent, logic = v["launch"], q.logic
    return logic.conj(
        logic.same(q.get(s, "open_grant", intent), q.get(s, "owing", intent)),
        logic.same(q.get(s, "open_cost", intent), q.get(s, "owed", intent)),
    )


def _quota(q: Specification, s: Any, v: Message) -> Any:
    agent, logic = v["agent"], q.logic
    return logic.conj(
        logic.same(q.get(s, "quota_every", agent), q.get(s, "pace", agent)),
        logic.same(q.get(s, "quota_slack", agent), q.get(s, "lead", agent)),
        logic.same(q.get(s, "quota_full", agent), q.get(s, "next", agent)),
    )


def _call_signed(q: Specification, s: Any, v: Message) -> Any:
    call, logic = v["id"], q.logic
    state = q.get(s, "call_state", call)
    key = tuple(q.get(s, f"call_{one}", call) for one in ("agent", "grant", "tool", "args", "expires"))
    ready = logic.conj(q.get(s, "said_call", call, *key), q.get(s, "used", call))
    return logic.conj(
        q.implies(logic.neg(logic.same(state, ABSENT)), ready),
        logic.same(q.get(s, "burned", call), logic.same(state, 2)),
        logic.disj(*(logic.same(state, one) for one in (0, 1, 2))),
    )


def _grant_counts(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    left, spent = q.get(s, "grant_left", grant), q.get(s, "spent", grant)
    absent = logic.same(q.get(s, "grant_state", grant), ABSENT)
    return logic.conj(logic.at_most(0, left), q.implies(absent, logic.same(spent, 0)), logic.at_most(0, spent))


def _grant_approved(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    code = q.get(s, "said_module", q.get(s, "grant_module", grant), False)
    cage = q.get(s, "said_profile", q.get(s, "grant_config", grant))
    return q.implies(q.live(s, grant), logic.conj(code, cage))


def _grant_state(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    state, taken, given = q.get(s, "grant_state", grant), q.get(s, "taken", grant), q.get(s, "given", grant)
    return logic.conj(
        logic.same(taken, logic.same(state, REVOKED)),
        logic.same(logic.same(state, LIVE), logic.conj(given, logic.neg(taken))),
        logic.disj(*(logic.same(state, one) for one in (ABSENT, LIVE, REVOKED))),
    )


def _grant_owner(q: Specification, s: Any, v: Message) -> Any:
    owner = q.get(s, "owner", v["grant"])
    return q.implies(q.get(s, "given", v["grant"]), q.logic.same(owner, q.get(s, "grant_agent", v["grant"])))


def _used(q: Specification, s: Any, v: Message) -> Any:
    return q.implies(q.get(s, "happened", v["id"]), q.get(s, "used", v["id"]))


def _moved(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.at_most(q.get(s, "moved", v["agent"]), q.get(s, "agent_changed", v["agent"]))


def _tool_name(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    lets = logic.conj(
        q.live(s, grant),
        logic.same(q.get(s, "root", grant), grant),
        logic.less(q.get(s, "clock"), q.get(s, "grant_expires", grant)),
        logic.less(0, q.get(s, "grant_left", grant)),
    )
    name = q.get(s, "tool_grant", q.get(s, "grant_agent", grant), q.get(s, "grant_tool", grant))
    return q.implies(lets, logic.same(name, grant))


#: Name → (the values that it is about, the formula).
INVARIANTS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Specification, Any, Message], Any]]]] = {
    "the clock is the latest time": ((), _clock),
    "every act takes a human": (("act",), _quorum),
    "the version in force is the latest that took effect": ((), _edition),
    "an approved module was signed by its quorum, and nobody withdrew it": (("module",), _module),
    "an approved profile was signed by its quorum, and nobody withdrew it": (("config",), _profile),
    "an approved release was signed by its quorum, and nobody withdrew it": (("release",), _release),
    "a launch was signed by its quorum, in exactly this form": (("launch",), _launch_signed),
    "a launch has code and a cage that their quorums signed": (("launch",), _launch_approved),
    "a launch is a canary exactly if it was a challenge": (("launch",), _launch_canary),
    "a launch has an index of the past": (("launch",), _launch_index),
    "an agent has one active launch": (("launch",), _launch_latest),
    "a stop reaches every earlier launch of its agent": (("launch",), _stop_reaches),
    "a stop is in the past": (("agent",), _stop_past),
    "an order reaches its launch": (("launch",), _order_reaches),
    "a launch runs exactly if the node said so": (("launch",), _node_said),
    "a grant was signed by its quorum, in exactly this form": (("grant",), _grant_signed),
    "a grant keeps to those that it was handed on from": (("grant", "other"), _line),
    "each grant is a part of a human's": (("grant",), _root),
    "a part covers no more, under the same rate, cost and approvals": (("grant", "other", "args"), _within),
    "no grant has no name": ((), _nobody),
    "budget left and budget charged are conserved": (("grant",), _budget),
    "how often a grant was used is known": (("grant",), _rate),
    "what was charged for an intent is known": (("launch",), _open),
    "a quota is what its quorum set, less the calls since": (("agent",), _quota),
    "an approval of a call was signed by enough humans, in exactly this form": (("id",), _call_signed),
    "calls left and calls spent are conserved": (("grant",), _grant_counts),
    "a live grant is for code and a cage that their quorums signed": (("grant",), _grant_approved),
    "a grant is live exactly if it was given and not taken": (("grant",), _grant_state),
    "a live grant belongs to whom it was given": (("grant",), _grant_owner),
    "what took effect is used": (("id",), _used),
    "the kernel knows every change": (("agent",), _moved),
    "a tool's name stands for the one humans' grant that lets something through": (("grant",), _tool_name),
}
