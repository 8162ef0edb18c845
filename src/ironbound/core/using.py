"""What an agent does with what it was given: call, settle, hand on, give up. One part of the kernel's table.

Rule 1: `invoke` lets a call through only under a live grant for that agent, that code and that cage.
Rule 2: a grant lives and can pay only as long as every grant that it was narrowed from (its *line*, itself included),
        and every call is charged to all of them: calls, rate and budget. So handing on multiplies nothing.
Rule 3: `delegate` hands on a narrower part of what the humans made delegable, and hinders no human's request. It comes
        under no name that a human's grant to the receiver has or had: a call means what it meant.
Rule 4: a call that needs approval uses up one that was signed for this very agent, grant, tool and arguments.
Rule 5: who names a client's grant does what the client could do now by itself, and spends nothing of it.
Rule 6: every call is charged to its agent's quota and to the quota of all agents together, whatever grants there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .logic import Across
from .rule import (
    ABSENT,
    LIVE,
    MAX_DELEGATED_PER_AGENT,
    READY,
    STARTED,
    USED,
    Guard,
    Message,
    Rule,
    Write,
    get,
    grant_named,
    latest,
    line_of,
    lives,
    made,
    revoked,
    tick,
    timely,
)


def _acting(L: Any, s: Any, m: Message) -> Guard:
    """Who acts is a running agent that may hold grants. m: launch, agent."""
    launch = m["launch"]
    yield "agent-not-running", L.same(get(L, s, "launch_state", launch), STARTED)
    yield "launch-stopped", L.neg(get(L, s, "launch_stopped", launch))
    yield "canary-holds-nothing", L.neg(get(L, s, "launch_canary", launch))
    yield "agent-differs", L.same(get(L, s, "launch_agent", launch), m["agent"])


def _holding(L: Any, s: Any, m: Message, now: Any) -> Guard:
    """The acting agent holds this grant, with the code and the cage that it is for, and it is not over. m: grant."""
    grant, launch = m["grant"], m["launch"]
    line = line_of(L, s, grant)
    yield "no-such-grant", L.neg(L.same(get(L, s, "grant_state", grant), ABSENT))
    yield "grant-of-another-agent", L.same(get(L, s, "grant_agent", grant), m["agent"])
    whole = L.forall(line, lambda one: L.same(get(L, s, "grant_state", one), LIVE))
    yield "grant-revoked", L.conj(L.same(get(L, s, "grant_state", grant), LIVE), whole)
    yield from _fitting(L, s, grant, launch)
    yield "grant-expired", L.forall(line, lambda one: L.less(now, get(L, s, "grant_expires", one)))


def _fitting(L: Any, s: Any, grant: Any, launch: Any) -> Guard:
    yield (
        "grant-for-another-module",
        L.same(get(L, s, "grant_module", grant), get(L, s, "launch_module", launch)),
    )
    yield (
        "grant-for-another-profile",
        L.same(get(L, s, "grant_config", grant), get(L, s, "launch_config", launch)),
    )


def _guard_invoke(L: Any, s: Any, m: Message) -> Guard:
    """m: launch, agent, grant, tool, action, args (as the log shows them) with their digest, approval, client."""
    grant, line, now = m["grant"], line_of(L, s, m["grant"]), latest(L, s, m)
    yield from _acting(L, s, m)
    yield from _holding(L, s, m, now)
    yield "tool-differs", L.same(get(L, s, "grant_tool", grant), m["tool"])
    yield "action-differs", L.same(get(L, s, "grant_action", grant), m["action"])
    yield "calls-exhausted", L.forall(line, lambda one: L.less(0, get(L, s, "grant_left", one)))
    yield "rate-exceeded", L.forall(line, lambda one: _rested(L, s, one, now))
    yield "quota-exceeded", L.conj(_within_quota(L, s, m["agent"], now), _within_quota(L, s, "", now))
    cost = get(L, s, "grant_cost", grant)
    yield "budget-exhausted", L.forall(line, lambda one: L.at_most(cost, get(L, s, "grant_budget", one)))
    yield "arguments-not-covered", L.covers(get(L, s, "grant_where", grant), m["args"])
    yield from _approved(L, s, m, now)
    yield from _for_client(L, s, m, now)


def _rested(L: Any, s: Any, grant: Any, now: Any) -> Any:
    """The grant's own rate lets a call through."""
    return L.at_most(get(L, s, "grant_full", grant), L.plus(now, get(L, s, "grant_slack", grant)))


def _within_quota(L: Any, s: Any, agent: Any, now: Any) -> Any:
    return L.at_most(get(L, s, "quota_full", agent), L.plus(now, get(L, s, "quota_slack", agent)))


def _approved(L: Any, s: Any, m: Message, now: Any) -> Guard:
    """If the grant asks for it, humans approved this very call, and the approval was not used. m: approval."""
    grant, call = m["grant"], m["approval"]
    needed = get(L, s, "grant_approvals", grant)
    free = L.at_most(needed, 0)
    state = get(L, s, "call_state", call)
    none = L.same(state, ABSENT)
    yield "approval-needed", L.disj(free, L.neg(none))
    yield "approval-used", L.disj(free, L.neg(L.same(state, USED)))
    content = L.conj(
        L.same(get(L, s, "call_agent", call), m["agent"]),
        L.same(get(L, s, "call_grant", call), grant),
        L.same(get(L, s, "call_tool", call), m["tool"]),
        L.same(get(L, s, "call_args", call), m["args_digest"]),
    )
    yield "approval-for-another-call", L.disj(free, none, content)
    yield (
        "approval-expired",
        L.disj(free, none, L.less(now, get(L, s, "call_expires", call))),
    )


def _for_client(L: Any, s: Any, m: Message, now: Any) -> Guard:
    """Who acts for a client may do only what the client could do as well. m: client ("" for none), client_args.

    Where the client's grant asks for humans' approval, that of this call, by as many humans, stands for it."""
    client = m["client"]
    nobody = L.same(client, "")
    yield "client-grant-not-live", L.unless(nobody, lambda: lives(L, s, m, client))
    yield (
        "client-not-covered",
        L.unless(
            nobody,
            lambda: L.conj(
                L.same(get(L, s, "grant_action", client), m["action"]),
                L.covers(get(L, s, "grant_where", client), m["client_args"]),
                L.agree(m["args"], m["client_args"]),
            ),
        ),
    )
    yield "client-not-running", L.unless(nobody, lambda: _runs(L, s, client))
    yield "client-spent", L.unless(nobody, lambda: _affords(L, s, client, now))
    yield (
        "client-needs-approval",
        L.unless(
            nobody,
            lambda: L.at_most(get(L, s, "grant_approvals", client), get(L, s, "grant_approvals", m["grant"])),
        ),
    )


def _runs(L: Any, s: Any, grant: Any) -> Any:
    """Whose grant it is runs, with the code and the cage that it is for."""
    owner = get(L, s, "grant_agent", grant)
    launch = get(L, s, "agent_launch", owner)
    wanted = (*_acting(L, s, {"agent": owner, "launch": launch}), *_fitting(L, s, grant, launch))
    return L.conj(*(holds for _, holds in wanted))


def _affords(L: Any, s: Any, grant: Any, now: Any) -> Any:
    """Whose grant it is has rate, budget and quota left for a call under it."""
    cost = get(L, s, "grant_cost", grant)
    return L.conj(
        L.forall(
            line_of(L, s, grant),
            lambda one: L.conj(_rested(L, s, one, now), L.at_most(cost, get(L, s, "grant_budget", one))),
        ),
        _within_quota(L, s, get(L, s, "grant_agent", grant), now),
    )


def _write_invoke(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    grant, line, now = m["grant"], Across(line_of(L, s, m["grant"])), latest(L, s, m)
    cost = get(L, s, "grant_cost", grant)

    def full(of: str, one: Any) -> Any:
        before = get(L, s, f"{of}_full", one)
        return L.plus(L.when(L.less(before, now), now, before), get(L, s, f"{of}_every", one))

    yield ("grant_left", line, lambda one: L.plus(get(L, s, "grant_left", one), -1))
    yield ("grant_full", line, lambda one: full("grant", one))
    for whose in (m["agent"], ""):
        yield ("quota_full", whose, full("quota", whose))
    yield ("grant_budget", line, lambda one: L.minus(get(L, s, "grant_budget", one), cost))
    state = get(L, s, "call_state", m["approval"])
    needed = L.less(0, get(L, s, "grant_approvals", grant))
    yield ("call_state", m["approval"], L.when(needed, USED, state))
    yield ("open_grant", m["index"], grant)
    yield ("open_cost", m["index"], cost)


def _guard_settle(L: Any, s: Any, m: Message) -> Guard:
    """m: intent, spent."""
    yield "intent-closed", L.neg(L.same(get(L, s, "open_grant", m["intent"]), ""))
    yield (
        "spent-out-of-bounds",
        L.conj(L.at_most(0, m["spent"]), L.at_most(m["spent"], get(L, s, "open_cost", m["intent"]))),
    )


def _write_settle(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    line = Across(line_of(L, s, get(L, s, "open_grant", m["intent"])))
    back = L.minus(get(L, s, "open_cost", m["intent"]), m["spent"])
    yield ("grant_budget", line, lambda one: L.plus(get(L, s, "grant_budget", one), back))
    yield ("open_grant", m["intent"], "")
    yield ("open_cost", m["intent"], 0)


def _guard_approve_call(L: Any, s: Any, m: Message) -> Guard:
    """m: agent, grant, tool, args_digest, and what every request has. How many humans it takes, the grant says."""
    yield "quorum-not-met", L.at_most(1, m["consents"])
    yield from timely(L, s, m)
    yield "no-such-grant", L.neg(L.same(get(L, s, "grant_state", m["grant"]), ABSENT))
    yield "grant-of-another-agent", L.same(get(L, s, "grant_agent", m["grant"]), m["agent"])
    yield (
        "approval-lacks-humans",
        L.at_most(get(L, s, "grant_approvals", m["grant"]), m["consents"]),
    )


def _write_approve_call(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("call_state", m["id"], READY)
    yield ("call_agent", m["id"], m["agent"])
    yield ("call_grant", m["id"], m["grant"])
    yield ("call_tool", m["id"], m["tool"])
    yield ("call_args", m["id"], m["args_digest"])
    yield ("call_expires", m["id"], m["expires"])


def _guard_delegate(L: Any, s: Any, m: Message) -> Guard:
    """An agent hands a part of its own grant to another that runs. m: launch, agent, grant; id, child (a launch), to
    (its agent), module, config (the child's); tool, where, calls, grant_expires, budget, delegable of the part."""
    yield from _acting(L, s, m)
    grant, child, now = m["grant"], m["child"], latest(L, s, m)
    yield from _holding(L, s, m, now)
    yield "grant-not-delegable", L.less(0, get(L, s, "grant_delegable", grant))
    yield "delegate-to-itself", L.neg(L.same(m["to"], m["agent"]))
    yield (
        "child-not-running",
        L.conj(
            L.same(get(L, s, "launch_state", child), STARTED),
            L.neg(get(L, s, "launch_stopped", child)),
            L.neg(get(L, s, "launch_canary", child)),
            L.same(get(L, s, "launch_agent", child), m["to"]),
            L.same(get(L, s, "launch_module", child), m["module"]),
            L.same(get(L, s, "launch_config", child), m["config"]),
        ),
    )
    yield "grant-id-used", L.same(get(L, s, "grant_state", m["id"]), ABSENT)
    yield "not-narrower", L.narrower(m["where"], get(L, s, "grant_where", grant))
    yield (
        "delegated-too-much",
        L.conj(
            L.less(0, m["calls"]),
            L.at_most(m["calls"], get(L, s, "grant_left", grant)),
            L.less(now, m["grant_expires"]),
            L.at_most(m["grant_expires"], get(L, s, "grant_expires", grant)),
            L.at_most(0, m["budget"]),
            L.at_most(m["budget"], get(L, s, "grant_budget", grant)),
            L.at_most(0, m["delegable"]),
            L.less(m["delegable"], get(L, s, "grant_delegable", grant)),
        ),
    )
    named = grant_named(L, s, m, m["to"])  # what humans once gave under a name is no other agent's to replace
    humans = L.conj(
        L.neg(L.same(get(L, s, "grant_state", named), ABSENT)), L.same(get(L, s, "grant_parent", named), "")
    )
    yield "tool-name-taken", L.neg(L.disj(humans, lives(L, s, m, named)))
    yield "too-many-grants", L.less(get(L, s, "agent_delegated", m["to"]), MAX_DELEGATED_PER_AGENT)


def _write_delegate(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield from made(L, m, m["to"])
    for field in ("grant_action", "grant_every", "grant_slack", "grant_cost", "grant_approvals"):
        yield (field, m["id"], get(L, s, field, m["grant"]))
    yield ("grant_parent", m["id"], m["grant"])
    yield ("grant_line", m["id"], L.joined(line_of(L, s, m["grant"]), m["id"]))
    yield ("agent_delegated", m["to"], L.plus(get(L, s, "agent_delegated", m["to"]), 1))


def _guard_drop(L: Any, s: Any, m: Message) -> Guard:
    """An agent gives up a grant of its own, for good. m: launch, agent, grant."""
    yield from _acting(L, s, m)
    yield "no-such-grant", L.neg(L.same(get(L, s, "grant_state", m["grant"]), ABSENT))
    yield "grant-of-another-agent", L.same(get(L, s, "grant_agent", m["grant"]), m["agent"])


#: The rules of this room, as rows of the table.
USING: Final = (
    Rule("approve-call", "operator", _guard_approve_call, _write_approve_call),
    Rule("invoke", "gateway", _guard_invoke, _write_invoke),
    Rule("settle", "gateway", _guard_settle, _write_settle),
    Rule("delegate", "gateway", _guard_delegate, _write_delegate),
    Rule("drop", "gateway", _guard_drop, revoked),
)
