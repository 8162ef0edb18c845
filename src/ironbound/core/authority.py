"""The authority kernel: who may do what, as a table of pure rules. Nothing else decides that.

A rule has a *guard* (named conditions, all of which must hold) and *writes* (what changes). Both are
pure functions over the small logic in `logic`, written once: the plain reading decides, a symbolic
reading can be proved. The state is a handful of total maps and has no other home: every process folds
the same log through this table and arrives at the same state.

Rule 1: only `grant` and `break-glass` make a capability, and their guard demands the quorum of humans. `delegate` hands
        on a narrower part of one that the humans made delegable; nothing else that an agent can cause gives anybody
        anything. `reconfigure` alone changes a quorum, by the quorum before and the quorum after.
Rule 2: `invoke` lets a call through only under a live grant for that agent, that code and that cage.
Rule 3: a grant lives and can pay only as long as every grant that it was narrowed from (its *line*, itself included),
        and every call is charged to all of them: calls, rate and budget. So handing on multiplies nothing.
Rule 4: taking away (`revoke`, `stop`, `order-stop`, `withdraw-module`, `withdraw-profile`) has no precondition but one
        human's, or the monitor's, signature; it is never refused. A revocation is final. What an agent delegates
        hinders no human's request.
Rule 5: a call that needs approval uses up one that was signed for this very agent, grant, tool and arguments.
Rule 6: who names a client's grant must be covered by it too, and spends nothing of it.
Rule 7: every call is charged to its agent's quota and to the quota of all agents together, whatever grants there are;
        only humans set a quota (`set-quota`), and an agent's launches, grants and parts don't change it.
Rule 8: a refusal changes nothing.

It does not check signatures, parse or read a clock: `replay` does that and hands over plain messages.
A message's fields are named in each rule; times are Unix milliseconds; ids are opaque.

A rate of N calls in W ms is a bucket of N tokens, one of which comes back every ⌈W / N⌉ ms; `grant_full` is when it is
full again (the generic cell rate algorithm, in integers). A budget is charged at the intent with what the grant says
that a call may cost at most, and settled at the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .canonical import Digest, canonical, parse_canonical, sha256_hex
from .constraint import Where, parse_where
from .logic import Across, Plain

#: What a launch is in.
ABSENT: Final = 0
ADMITTED: Final = 1
STARTED: Final = 2
ENDED: Final = 3
#: What a module was approved as, and what a grant is in.
AGENT_MODULE: Final = 1
CANARY_MODULE: Final = 2
LIVE: Final = 1
REVOKED: Final = 2
#: What an approval of one call is in, once it was given.
READY: Final = 1
USED: Final = 2
#: The longest time between a request's not-before and its expiry: one day.
MAX_REQUEST_LIFE_MS: Final = 86_400_000
#: The longest life of a grant by sealed keys: one hour.
MAX_BREAK_GLASS_MS: Final = 3_600_000
#: The most grants an agent can hold, so that the capability before and after fits in one request.
MAX_GRANTS_PER_AGENT: Final = 256
#: The most grants that other agents can hand to one agent, and how often a grant can be handed on.
MAX_DELEGATED_PER_AGENT: Final = 64
MAX_DELEGATION: Final = 4

#: Every map of the state with the value it has where nothing was written.
FIELDS: Final[Mapping[str, Any]] = {
    "quorum": 1 << 30,  # act -> humans needed; an act that the trust root does not name needs more than exist
    "version": 1,  # "" -> the trust root's
    "flagged": 0,  # key -> one more than the index since when it is compromised; 0 is not
    "clock": 0,  # "" -> the latest time said in the log
    "used": False,  # request id -> was admitted before
    "module": ABSENT,  # digest -> AGENT_MODULE | CANARY_MODULE
    "profile": False,  # effective configuration's digest -> approved
    "launch_state": ABSENT,  # launch -> ADMITTED | STARTED | ENDED
    "launch_agent": "",
    "launch_module": "",
    "launch_config": "",
    "launch_expires": 0,  # when its admission ends: what has not started by then never does
    "launch_canary": False,
    "launch_stopped": False,
    "agent_launch": -1,  # agent -> its latest launch
    "agent_changed": 0,  # agent -> log size just after the latest admitted change to it
    "agent_grants": 0,  # agent -> humans' grants that are not revoked
    "agent_delegated": 0,  # agent -> grants from other agents that are not revoked
    "grant_state": ABSENT,  # grant -> LIVE | REVOKED
    "grant_agent": "",
    "grant_module": "",
    "grant_config": "",
    "grant_tool": "",
    "grant_action": "",
    "grant_where": None,
    "grant_left": 0,  # calls left
    "grant_expires": 0,
    "grant_every": 0,  # ms until a token of its rate comes back; 0 is no limit
    "grant_slack": 0,  # ms that its bucket may be away from full before a call
    "grant_full": 0,  # when its bucket is full again
    "grant_budget": 0,  # what is left of it
    "grant_cost": 0,  # what a call is charged
    "grant_approvals": 0,  # humans that each call needs
    "grant_delegable": 0,  # how often it can be handed on
    "grant_parent": "",  # the grant that it is a part of; "" for a human's
    "grant_line": frozenset(),  # the grants that must live for it to live, itself included
    "tool_grant": "",  # (agent, tool) -> the grant that the name stands for
    "call_state": ABSENT,  # approval of one call -> READY | USED
    "call_agent": "",
    "call_grant": "",
    "call_tool": "",
    "call_args": "",  # SHA-256 of the arguments as the log shows them
    "call_expires": 0,
    "quota_every": 0,  # agent ("": all together) -> ms until a call of its quota comes back; 0 is no limit
    "quota_slack": 0,
    "quota_full": 0,
    "open_grant": "",  # intent -> the grant that it was charged to, until its outcome
    "open_cost": 0,
}

State = dict[str, dict[Any, Any]]
Message = Mapping[str, Any]
Guard = Iterable[tuple[str, Any]]
#: A field, a key and the value; the key may be `Across` a set, with a function from each key to its value.
Write = tuple[str, Any, Any]


class Refused(Exception):
    """The kernel's no. `reason` is a code of `reasons.REASONS`; nothing has changed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table: who may say it, when it may happen, what it changes."""

    name: str
    voice: str
    guard: Callable[[Any, Any, Message], Guard]
    writes: Callable[[Any, Any, Message], Iterable[Write]]


def _get(L: Any, s: Any, field: str, key: Any) -> Any:
    return L.read(s, field, key, FIELDS[field])


def _now(L: Any, s: Any, m: Message) -> Any:
    """The later of the entry's time and the log's clock: a voice that lies about the past gains nothing."""
    clock = _get(L, s, "clock", "")
    return L.when(L.less(clock, m["now"]), m["now"], clock)


def _tick(L: Any, s: Any, m: Message) -> Write:
    return ("clock", "", _now(L, s, m))


def _giving(L: Any, s: Any, m: Message, act: str) -> Guard:
    """What every request that gives power must meet. m: id, consents, not_before, expires, head_known, now."""
    yield "quorum-not-met", L.at_most(_get(L, s, "quorum", act), m["consents"])
    yield from _timely(L, s, m)


def _timely(L: Any, s: Any, m: Message) -> Guard:
    """The request is asked once, in its time, by somebody who saw this log."""
    now = _now(L, s, m)
    yield "request-replayed", L.neg(_get(L, s, "used", m["id"]))
    yield "request-too-early", L.at_most(m["not_before"], now)
    yield "request-expired", L.less(now, m["expires"])
    yield "request-life-too-long", L.at_most(m["expires"], L.plus(m["not_before"], MAX_REQUEST_LIFE_MS))
    yield "head-unknown", m["head_known"]


def _unchanged(L: Any, s: Any, m: Message) -> Guard:
    """The signer saw every earlier change to this agent. m: agent, head."""
    yield "head-stale", L.at_most(_get(L, s, "agent_changed", m["agent"]), m["head"])


def _changed(L: Any, m: Message) -> Write:
    return ("agent_changed", m["agent"], L.plus(m["index"], 1))


def _guard_approve_module(L: Any, s: Any, m: Message) -> Guard:
    yield from _giving(L, s, m, "module")
    yield "module-already-approved", L.same(_get(L, s, "module", m["module"]), ABSENT)


def _write_approve_module(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("module", m["module"], L.when(m["canary"], CANARY_MODULE, AGENT_MODULE))


def _guard_approve_profile(L: Any, s: Any, m: Message) -> Guard:
    yield from _giving(L, s, m, "profile")


def _write_approve_profile(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("profile", m["config"], True)


def _active(L: Any, s: Any, launch: Any) -> Any:
    state = _get(L, s, "launch_state", launch)
    return L.disj(L.same(state, ADMITTED), L.same(state, STARTED))


def _guard_launch(L: Any, s: Any, m: Message) -> Guard:
    yield from _giving(L, s, m, "launch")
    yield from _unchanged(L, s, m)
    yield "module-not-approved", L.same(_get(L, s, "module", m["module"]), AGENT_MODULE)
    yield "profile-not-approved", _get(L, s, "profile", m["config"])
    yield "agent-already-running", L.neg(_active(L, s, _get(L, s, "agent_launch", m["agent"])))


def _admit(L: Any, s: Any, m: Message, canary: bool) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("launch_state", m["index"], ADMITTED)
    yield ("launch_agent", m["index"], m["agent"])
    yield ("launch_module", m["index"], m["module"])
    yield ("launch_config", m["index"], m["config"])
    yield ("launch_expires", m["index"], m["expires"])
    yield ("launch_canary", m["index"], canary)
    yield ("agent_launch", m["agent"], m["index"])


def _write_launch(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield from _admit(L, s, m, False)
    yield _changed(L, m)


def _guard_challenge(L: Any, s: Any, m: Message) -> Guard:
    """The monitor may run a module that the quorum approved as a canary; it can never hold a grant."""
    yield "request-replayed", L.neg(_get(L, s, "used", m["id"]))
    yield "module-not-a-canary", L.same(_get(L, s, "module", m["module"]), CANARY_MODULE)
    yield "profile-not-approved", _get(L, s, "profile", m["config"])
    yield "agent-already-running", L.neg(_active(L, s, _get(L, s, "agent_launch", m["agent"])))


def _write_challenge(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield from _admit(L, s, m, True)


def _guard_start(L: Any, s: Any, m: Message) -> Guard:
    launch = m["launch"]
    yield "launch-not-admitted", L.same(_get(L, s, "launch_state", launch), ADMITTED)
    yield "launch-stopped", L.neg(_get(L, s, "launch_stopped", launch))
    yield "request-expired", L.less(_now(L, s, m), _get(L, s, "launch_expires", launch))
    yield "agent-differs", L.same(_get(L, s, "launch_agent", launch), m["agent"])
    yield "module-differs", L.same(_get(L, s, "launch_module", launch), m["module"])
    yield "config-differs", L.same(_get(L, s, "launch_config", launch), m["config"])


def _write_start(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("launch_state", m["launch"], STARTED)


def _guard_refuse_launch(L: Any, s: Any, m: Message) -> Guard:
    yield "launch-not-admitted", L.same(_get(L, s, "launch_state", m["launch"]), ADMITTED)
    yield "agent-differs", L.same(_get(L, s, "launch_agent", m["launch"]), m["agent"])


def _guard_exit(L: Any, s: Any, m: Message) -> Guard:
    yield "launch-not-started", L.same(_get(L, s, "launch_state", m["launch"]), STARTED)
    yield "agent-differs", L.same(_get(L, s, "launch_agent", m["launch"]), m["agent"])


def _write_end(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("launch_state", m["launch"], ENDED)


def _line(L: Any, s: Any, grant: Any) -> Any:
    return _get(L, s, "grant_line", grant)


def _lives(L: Any, s: Any, m: Message, grant: Any) -> Any:
    """True if the grant and all that it was narrowed from still let something through."""
    now = _now(L, s, m)
    return L.conj(
        L.same(_get(L, s, "grant_state", grant), LIVE),
        L.forall(
            _line(L, s, grant),
            lambda one: L.conj(
                L.same(_get(L, s, "grant_state", one), LIVE),
                L.less(now, _get(L, s, "grant_expires", one)),
                L.less(0, _get(L, s, "grant_left", one)),
            ),
        ),
    )


def _named(L: Any, s: Any, m: Message, agent: Any) -> Any:
    """The grant that a tool's name stands for. m: tool."""
    return _get(L, s, "tool_grant", (agent, m["tool"]))


def _guard_grant(L: Any, s: Any, m: Message) -> Guard:
    yield from _giving(L, s, m, "grant")
    yield from _grantable(L, s, m)


def _guard_break_glass(L: Any, s: Any, m: Message) -> Guard:
    """A grant by sealed keys: they have a quorum of their own, and give nothing that lasts."""
    yield from _giving(L, s, m, "break-glass")
    yield from _grantable(L, s, m)
    yield "break-glass-too-long", L.at_most(m["grant_expires"], L.plus(_now(L, s, m), MAX_BREAK_GLASS_MS))


def _grantable(L: Any, s: Any, m: Message) -> Guard:
    """What every grant must meet, whoever signs it."""
    yield from _unchanged(L, s, m)
    yield "module-not-approved", L.same(_get(L, s, "module", m["module"]), AGENT_MODULE)
    yield "profile-not-approved", _get(L, s, "profile", m["config"])
    yield "grant-id-used", L.same(_get(L, s, "grant_state", m["id"]), ABSENT)
    yield "grant-without-calls", L.less(0, m["calls"])
    yield "grant-expired", L.less(_now(L, s, m), m["grant_expires"])
    named = _named(L, s, m, m["agent"])  # a name that another agent gave away stands back
    yield (
        "tool-name-taken",
        L.neg(L.conj(_lives(L, s, m, named), L.same(_get(L, s, "grant_parent", named), ""))),
    )
    yield "too-many-grants", L.less(_get(L, s, "agent_grants", m["agent"]), MAX_GRANTS_PER_AGENT)


def _write_grant(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("used", m["id"], True)
    yield from _made(L, m, m["agent"])
    yield ("grant_action", m["id"], m["action"])
    yield ("grant_every", m["id"], m["every"])
    yield ("grant_slack", m["id"], m["slack"])
    yield ("grant_cost", m["id"], m["cost"])
    yield ("grant_approvals", m["id"], m["approvals"])
    yield ("grant_line", m["id"], L.joined(FIELDS["grant_line"], m["id"]))
    yield ("agent_grants", m["agent"], L.plus(_get(L, s, "agent_grants", m["agent"]), 1))
    yield _changed(L, m)


def _made(L: Any, m: Message, agent: Any) -> Iterable[Write]:
    """What a new grant has of its own, from a human or from another agent."""
    yield ("grant_state", m["id"], LIVE)
    yield ("grant_agent", m["id"], agent)
    yield ("grant_module", m["id"], m["module"])
    yield ("grant_config", m["id"], m["config"])
    yield ("grant_tool", m["id"], m["tool"])
    yield ("grant_where", m["id"], m["where"])
    yield ("grant_left", m["id"], m["calls"])
    yield ("grant_expires", m["id"], m["grant_expires"])
    yield ("grant_budget", m["id"], m["budget"])
    yield ("grant_delegable", m["id"], m["delegable"])
    yield ("tool_grant", (agent, m["tool"]), m["id"])


def _guard_set_quota(L: Any, s: Any, m: Message) -> Guard:
    """m: agent ("" for all of them together), every, slack; both 0 for no quota."""
    yield from _giving(L, s, m, "reconfigure")
    yield from _unchanged(L, s, m)


def _write_set_quota(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("quota_every", m["agent"], m["every"])
    yield ("quota_slack", m["agent"], m["slack"])
    yield ("quota_full", m["agent"], 0)
    yield _changed(L, m)


def _guard_reconfigure(L: Any, s: Any, m: Message) -> Guard:
    """The quorum before and the quorum after both consent to the next version. m: version, consents_after and the
    quorums of that version."""
    yield from _giving(L, s, m, "reconfigure")
    yield "new-quorum-not-met", L.at_most(m["quorum_reconfigure"], m["consents_after"])
    yield "trust-root-version", L.same(m["version"], L.plus(_get(L, s, "version", ""), 1))


def _write_reconfigure(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("version", "", m["version"])
    yield ("quorum", "module", m["quorum_module"])
    yield ("quorum", "profile", m["quorum_profile"])
    yield ("quorum", "launch", m["quorum_launch"])
    yield ("quorum", "grant", m["quorum_grant"])
    yield ("quorum", "reconfigure", m["quorum_reconfigure"])
    yield ("quorum", "break-glass", m["quorum_break_glass"])


def _guard_flag(L: Any, s: Any, m: Message) -> Guard:
    """A key counts for nothing from an entry on. m: key, since."""
    yield from _giving(L, s, m, "reconfigure")
    yield "flag-in-the-future", L.at_most(m["since"], m["index"])


def _write_flag(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("used", m["id"], True)
    flagged, since = _get(L, s, "flagged", m["key"]), L.plus(m["since"], 1)
    earlier = L.conj(L.less(0, flagged), L.less(flagged, since))
    yield ("flagged", m["key"], L.when(earlier, flagged, since))


def _guard_review(L: Any, s: Any, m: Message) -> Guard:
    """The ordinary quorum says what it thinks of a grant by sealed keys. m: grant."""
    yield from _giving(L, s, m, "grant")
    yield "no-such-grant", L.neg(L.same(_get(L, s, "grant_state", m["grant"]), ABSENT))


def _write_review(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("used", m["id"], True)


def _write_withdraw_module(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("module", m["module"], ABSENT)


def _write_withdraw_profile(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("profile", m["config"], False)


def _guard_consent(L: Any, s: Any, m: Message) -> Guard:
    """Taking away: one human is enough, whatever the state."""
    yield "quorum-not-met", L.at_most(1, m["consents"])


def _write_revoke(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    grant = m["grant"]
    live = L.same(_get(L, s, "grant_state", grant), LIVE)
    given = L.conj(live, L.same(_get(L, s, "grant_parent", grant), ""))
    owner = _get(L, s, "grant_agent", grant)
    held, handed = _get(L, s, "agent_grants", owner), _get(L, s, "agent_delegated", owner)
    yield ("agent_grants", owner, L.when(given, L.plus(held, -1), held))
    yield ("agent_delegated", owner, L.when(L.conj(live, L.neg(given)), L.plus(handed, -1), handed))
    yield ("grant_state", grant, REVOKED)
    changed = _get(L, s, "agent_changed", owner)
    yield ("agent_changed", owner, L.when(given, L.plus(m["index"], 1), changed))


def _write_stop(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("launch_stopped", _get(L, s, "agent_launch", m["agent"]), True)
    yield _changed(L, m)


def _guard_always(L: Any, s: Any, m: Message) -> Guard:
    return iter(())


def _write_order_stop(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("launch_stopped", m["launch"], True)


def _acting(L: Any, s: Any, m: Message) -> Guard:
    """Who acts is a running agent that may hold grants. m: launch, agent."""
    launch = m["launch"]
    yield "agent-not-running", L.same(_get(L, s, "launch_state", launch), STARTED)
    yield "launch-stopped", L.neg(_get(L, s, "launch_stopped", launch))
    yield "canary-holds-nothing", L.neg(_get(L, s, "launch_canary", launch))
    yield "agent-differs", L.same(_get(L, s, "launch_agent", launch), m["agent"])


def _holding(L: Any, s: Any, m: Message, now: Any) -> Guard:
    """The acting agent holds this grant, with the code and the cage that it is for, and it is not over. m: grant."""
    grant, launch = m["grant"], m["launch"]
    line = _line(L, s, grant)
    yield "no-such-grant", L.neg(L.same(_get(L, s, "grant_state", grant), ABSENT))
    yield "grant-of-another-agent", L.same(_get(L, s, "grant_agent", grant), m["agent"])
    revoked = L.forall(line, lambda one: L.same(_get(L, s, "grant_state", one), LIVE))
    yield "grant-revoked", L.conj(L.same(_get(L, s, "grant_state", grant), LIVE), revoked)
    yield (
        "grant-for-another-module",
        L.same(_get(L, s, "grant_module", grant), _get(L, s, "launch_module", launch)),
    )
    yield (
        "grant-for-another-profile",
        L.same(_get(L, s, "grant_config", grant), _get(L, s, "launch_config", launch)),
    )
    yield "grant-expired", L.forall(line, lambda one: L.less(now, _get(L, s, "grant_expires", one)))


def _guard_invoke(L: Any, s: Any, m: Message) -> Guard:
    """m: launch, agent, grant, tool, action, args (as the log shows them) with their digest, approval, client."""
    grant, line, now = m["grant"], _line(L, s, m["grant"]), _now(L, s, m)
    yield from _acting(L, s, m)
    yield from _holding(L, s, m, now)
    yield "tool-differs", L.same(_get(L, s, "grant_tool", grant), m["tool"])
    yield "action-differs", L.same(_get(L, s, "grant_action", grant), m["action"])
    yield "calls-exhausted", L.forall(line, lambda one: L.less(0, _get(L, s, "grant_left", one)))
    yield (
        "rate-exceeded",
        L.forall(
            line,
            lambda one: L.at_most(_get(L, s, "grant_full", one), L.plus(now, _get(L, s, "grant_slack", one))),
        ),
    )
    yield "quota-exceeded", L.conj(_within_quota(L, s, m["agent"], now), _within_quota(L, s, "", now))
    cost = _get(L, s, "grant_cost", grant)
    yield "budget-exhausted", L.forall(line, lambda one: L.at_most(cost, _get(L, s, "grant_budget", one)))
    yield "arguments-not-covered", L.covers(_get(L, s, "grant_where", grant), m["args"])
    yield from _approved(L, s, m, now)
    yield from _for_client(L, s, m)


def _within_quota(L: Any, s: Any, agent: Any, now: Any) -> Any:
    return L.at_most(_get(L, s, "quota_full", agent), L.plus(now, _get(L, s, "quota_slack", agent)))


def _approved(L: Any, s: Any, m: Message, now: Any) -> Guard:
    """If the grant asks for it, humans approved this very call, and the approval was not used. m: approval."""
    grant, call = m["grant"], m["approval"]
    needed = _get(L, s, "grant_approvals", grant)
    free = L.at_most(needed, 0)
    state = _get(L, s, "call_state", call)
    none = L.same(state, ABSENT)
    yield "approval-needed", L.disj(free, L.neg(none))
    yield "approval-used", L.disj(free, L.neg(L.same(state, USED)))
    content = L.conj(
        L.same(_get(L, s, "call_agent", call), m["agent"]),
        L.same(_get(L, s, "call_grant", call), grant),
        L.same(_get(L, s, "call_tool", call), m["tool"]),
        L.same(_get(L, s, "call_args", call), m["args_digest"]),
    )
    yield "approval-for-another-call", L.disj(free, none, content)
    yield (
        "approval-expired",
        L.disj(free, none, L.less(now, _get(L, s, "call_expires", call))),
    )


def _for_client(L: Any, s: Any, m: Message) -> Guard:
    """Who acts for a client may do only what the client could do as well. m: client ("" for none), client_args."""
    client = m["client"]
    nobody = L.same(client, "")
    yield "client-grant-not-live", L.disj(nobody, _lives(L, s, m, client))
    yield (
        "client-not-covered",
        L.disj(
            nobody,
            L.conj(
                L.same(_get(L, s, "grant_action", client), m["action"]),
                L.covers(_get(L, s, "grant_where", client), m["client_args"]),
                L.agree(m["args"], m["client_args"]),
            ),
        ),
    )


def _write_invoke(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    grant, line, now = m["grant"], Across(_line(L, s, m["grant"])), _now(L, s, m)
    cost = _get(L, s, "grant_cost", grant)

    def full(of: str, one: Any) -> Any:
        before = _get(L, s, f"{of}_full", one)
        return L.plus(L.when(L.less(before, now), now, before), _get(L, s, f"{of}_every", one))

    yield ("grant_left", line, lambda one: L.plus(_get(L, s, "grant_left", one), -1))
    yield ("grant_full", line, lambda one: full("grant", one))
    for whose in (m["agent"], ""):
        yield ("quota_full", whose, full("quota", whose))
    yield ("grant_budget", line, lambda one: L.minus(_get(L, s, "grant_budget", one), cost))
    state = _get(L, s, "call_state", m["approval"])
    needed = L.less(0, _get(L, s, "grant_approvals", grant))
    yield ("call_state", m["approval"], L.when(needed, USED, state))
    yield ("open_grant", m["index"], grant)
    yield ("open_cost", m["index"], cost)


def _guard_settle(L: Any, s: Any, m: Message) -> Guard:
    """m: intent, spent."""
    yield "intent-closed", L.neg(L.same(_get(L, s, "open_grant", m["intent"]), ""))
    yield (
        "spent-out-of-bounds",
        L.conj(L.at_most(0, m["spent"]), L.at_most(m["spent"], _get(L, s, "open_cost", m["intent"]))),
    )


def _write_settle(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    line = Across(_line(L, s, _get(L, s, "open_grant", m["intent"])))
    back = L.minus(_get(L, s, "open_cost", m["intent"]), m["spent"])
    yield ("grant_budget", line, lambda one: L.plus(_get(L, s, "grant_budget", one), back))
    yield ("open_grant", m["intent"], "")
    yield ("open_cost", m["intent"], 0)


def _guard_approve_call(L: Any, s: Any, m: Message) -> Guard:
    """m: agent, grant, tool, args_digest, and what every request has. How many humans it takes, the grant says."""
    yield "quorum-not-met", L.at_most(1, m["consents"])
    yield from _timely(L, s, m)
    yield "no-such-grant", L.neg(L.same(_get(L, s, "grant_state", m["grant"]), ABSENT))
    yield "grant-of-another-agent", L.same(_get(L, s, "grant_agent", m["grant"]), m["agent"])
    yield (
        "approval-lacks-humans",
        L.at_most(_get(L, s, "grant_approvals", m["grant"]), m["consents"]),
    )


def _write_approve_call(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
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
    grant, child, now = m["grant"], m["child"], _now(L, s, m)
    yield from _holding(L, s, m, now)
    yield "grant-not-delegable", L.less(0, _get(L, s, "grant_delegable", grant))
    yield "delegate-to-itself", L.neg(L.same(m["to"], m["agent"]))
    yield (
        "child-not-running",
        L.conj(
            L.same(_get(L, s, "launch_state", child), STARTED),
            L.neg(_get(L, s, "launch_stopped", child)),
            L.neg(_get(L, s, "launch_canary", child)),
            L.same(_get(L, s, "launch_agent", child), m["to"]),
            L.same(_get(L, s, "launch_module", child), m["module"]),
            L.same(_get(L, s, "launch_config", child), m["config"]),
        ),
    )
    yield "grant-id-used", L.same(_get(L, s, "grant_state", m["id"]), ABSENT)
    yield "not-narrower", L.narrower(m["where"], _get(L, s, "grant_where", grant))
    yield (
        "delegated-too-much",
        L.conj(
            L.less(0, m["calls"]),
            L.at_most(m["calls"], _get(L, s, "grant_left", grant)),
            L.less(now, m["grant_expires"]),
            L.at_most(m["grant_expires"], _get(L, s, "grant_expires", grant)),
            L.at_most(0, m["budget"]),
            L.at_most(m["budget"], _get(L, s, "grant_budget", grant)),
            L.at_most(0, m["delegable"]),
            L.less(m["delegable"], _get(L, s, "grant_delegable", grant)),
        ),
    )
    yield "tool-name-taken", L.neg(_lives(L, s, m, _named(L, s, m, m["to"])))
    yield "too-many-grants", L.less(_get(L, s, "agent_delegated", m["to"]), MAX_DELEGATED_PER_AGENT)


def _write_delegate(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield from _made(L, m, m["to"])
    for field in ("grant_action", "grant_every", "grant_slack", "grant_cost", "grant_approvals"):
        yield (field, m["id"], _get(L, s, field, m["grant"]))
    yield ("grant_parent", m["id"], m["grant"])
    yield ("grant_line", m["id"], L.joined(_line(L, s, m["grant"]), m["id"]))
    yield ("agent_delegated", m["to"], L.plus(_get(L, s, "agent_delegated", m["to"]), 1))


def _guard_drop(L: Any, s: Any, m: Message) -> Guard:
    """An agent gives up a grant of its own, for good. m: launch, agent, grant."""
    yield from _acting(L, s, m)
    yield "no-such-grant", L.neg(L.same(_get(L, s, "grant_state", m["grant"]), ABSENT))
    yield "grant-of-another-agent", L.same(_get(L, s, "grant_agent", m["grant"]), m["agent"])


RULES: Final[Mapping[str, Rule]] = {
    rule.name: rule
    for rule in (
        Rule("approve-module", "operator", _guard_approve_module, _write_approve_module),
        Rule("approve-profile", "operator", _guard_approve_profile, _write_approve_profile),
        Rule("launch", "operator", _guard_launch, _write_launch),
        Rule("grant", "operator", _guard_grant, _write_grant),
        Rule("break-glass", "operator", _guard_break_glass, _write_grant),
        Rule("approve-call", "operator", _guard_approve_call, _write_approve_call),
        Rule("set-quota", "operator", _guard_set_quota, _write_set_quota),
        Rule("reconfigure", "operator", _guard_reconfigure, _write_reconfigure),
        Rule("flag-key", "operator", _guard_flag, _write_flag),
        Rule("review", "operator", _guard_review, _write_review),
        Rule("revoke", "operator", _guard_consent, _write_revoke),
        Rule("stop", "operator", _guard_consent, _write_stop),
        Rule("withdraw-module", "operator", _guard_consent, _write_withdraw_module),
        Rule("withdraw-profile", "operator", _guard_consent, _write_withdraw_profile),
        Rule("challenge", "monitor", _guard_challenge, _write_challenge),
        Rule("order-stop", "monitor", _guard_always, _write_order_stop),
        Rule("start", "node", _guard_start, _write_start),
        Rule("refuse-launch", "node", _guard_refuse_launch, _write_end),
        Rule("exit", "node", _guard_exit, _write_end),
        Rule("invoke", "gateway", _guard_invoke, _write_invoke),
        Rule("settle", "gateway", _guard_settle, _write_settle),
        Rule("delegate", "gateway", _guard_delegate, _write_delegate),
        Rule("drop", "gateway", _guard_drop, _write_revoke),
    )
}


class Authority:
    """The interpreter of the table: one state, `check` to ask, `apply` to act. O(depth of delegation) per decision."""

    __slots__ = ("_state",)

    def __init__(self, quorum: Mapping[str, int]) -> None:
        """quorum: act (`QUORUMS`, and `break-glass` if there is one) → how many humans it takes, at least 1."""
        self._state: State = {field: {} for field in FIELDS}
        self._state["quorum"].update(quorum)

    def check(self, rule: str, message: Message) -> str | None:
        """The first condition of the rule's guard that does not hold, or None if it may happen."""
        for reason, holds in RULES[rule].guard(Plain, self._state, message):
            if holds is not True:
                return reason
        return None

    def apply(self, rule: str, message: Message) -> None:
        """Do it, or raise Refused and change nothing."""
        reason = self.check(rule, message)
        if reason is not None:
            raise Refused(reason)
        changes: list[Write] = []
        for field, key, value in RULES[rule].writes(Plain, self._state, message):
            if isinstance(key, Across):
                changes += [(field, one, value(one)) for one in key.keys]
            else:
                changes.append((field, key, value))
        for field, key, value in changes:
            if Plain.same(value, FIELDS[field]):
                self._state[field].pop(key, None)  # a total map: what is as if never written is not kept
            else:
                self._state[field][key] = value

    def holds(self, grant: str, now_ms: int) -> bool:
        """True if a grant and its line live and have calls left; for showing, never for deciding."""
        return bool(_lives(Plain, self._state, {"now": now_ms}, grant))

    def read(self, field: str, key: Any) -> Any:
        """One value of the state; for showing, never for deciding."""
        return self._state[field].get(key, FIELDS[field])

    def values(self) -> int:
        """How many values the state has."""
        return sum(len(values) for values in self._state.values())

    def encode(self) -> bytes:
        """The whole state as bytes, the same for equal states: a canonical JSON list of each value, sorted."""
        values = [
            canonical([field, list(key) if isinstance(key, tuple) else key, _plain(value)])
            for field, values in self._state.items()
            for key, value in values.items()
        ]
        return b"[" + b",".join(sorted(values)) + b"]"

    @classmethod
    def decode(cls, data: bytes, limit: int) -> Authority:
        """The state from its `encode` of at most `limit` bytes, taken as it stands. FormatError if it is not one."""
        made = cls({})
        said: Any = parse_canonical(data, limit=limit)
        for field, key, value in said:
            if field == "grant_where":
                value = parse_where(value)
            elif isinstance(FIELDS[field], frozenset):
                value = frozenset(value)
            made._state[field][tuple(key) if isinstance(key, list) else key] = value
        return made

    def digest(self) -> Digest:
        """SHA-256 of `encode`: two parties that folded the same log have the same."""
        return sha256_hex(self.encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Where):
        return value.as_value()
    return sorted(value) if isinstance(value, frozenset) else value
