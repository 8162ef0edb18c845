"""What the kernel's rules are made of: the state's fields, a rule's form, and what several rules say.

A rule has a *guard* (named conditions, all of which must hold) and *writes* (what changes). Both are pure functions
over the small logic in `logic`, written once: the plain reading decides, a symbolic reading can be proved. The state is
a handful of total maps. It decides nothing: the rules stand in `giving` and `using`, their table in `authority`.

A message's fields are named in each rule; times are Unix milliseconds; ids are opaque.

A rate of N calls in W ms is a bucket of N tokens, one of which comes back every ⌈W / N⌉ ms; `grant_full` is when it is
full again (the generic cell rate algorithm, in integers). A budget is charged at the intent with what the grant says
that a call may cost at most, and settled at the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

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
    "release": False,  # digest of a release with the services' configuration -> approved
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


def get(L: Any, s: Any, field: str, key: Any) -> Any:
    """The value of a field at a key."""
    return L.read(s, field, key, FIELDS[field])


def latest(L: Any, s: Any, m: Message) -> Any:
    """The later of the entry's time and the log's clock: a voice that lies about the past gains nothing."""
    clock = get(L, s, "clock", "")
    return L.when(L.less(clock, m["now"]), m["now"], clock)


def tick(L: Any, s: Any, m: Message) -> Write:
    """Whatever happens, the clock goes on."""
    return ("clock", "", latest(L, s, m))


def timely(L: Any, s: Any, m: Message) -> Guard:
    """The request is asked once, in its time, by somebody who saw this log."""
    now = latest(L, s, m)
    yield "request-replayed", L.neg(get(L, s, "used", m["id"]))
    yield "request-too-early", L.at_most(m["not_before"], now)
    yield "request-expired", L.less(now, m["expires"])
    yield "request-life-too-long", L.at_most(m["expires"], L.plus(m["not_before"], MAX_REQUEST_LIFE_MS))
    yield "head-unknown", m["head_known"]


def changed(L: Any, m: Message) -> Write:
    """A later request about this agent has to have seen this one."""
    return ("agent_changed", m["agent"], L.plus(m["index"], 1))


def line_of(L: Any, s: Any, grant: Any) -> Any:
    """The grants that must live for this one to live, itself included."""
    return get(L, s, "grant_line", grant)


def lives(L: Any, s: Any, m: Message, grant: Any) -> Any:
    """True if the grant and all that it was narrowed from still let something through."""
    now = latest(L, s, m)
    return L.conj(
        L.same(get(L, s, "grant_state", grant), LIVE),
        L.forall(
            line_of(L, s, grant),
            lambda one: L.conj(
                L.same(get(L, s, "grant_state", one), LIVE),
                L.less(now, get(L, s, "grant_expires", one)),
                L.less(0, get(L, s, "grant_left", one)),
            ),
        ),
    )


def grant_named(L: Any, s: Any, m: Message, agent: Any) -> Any:
    """The grant that a tool's name stands for. m: tool."""
    return get(L, s, "tool_grant", (agent, m["tool"]))


def made(L: Any, m: Message, agent: Any) -> Iterable[Write]:
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


def revoked(L: Any, s: Any, m: Message) -> Iterable[Write]:
    """A grant is taken, for good, whatever it was in. m: grant."""
    yield tick(L, s, m)
    grant = m["grant"]
    live = L.same(get(L, s, "grant_state", grant), LIVE)
    given = L.conj(live, L.same(get(L, s, "grant_parent", grant), ""))
    owner = get(L, s, "grant_agent", grant)
    held, handed = get(L, s, "agent_grants", owner), get(L, s, "agent_delegated", owner)
    yield ("agent_grants", owner, L.when(given, L.plus(held, -1), held))
    yield ("agent_delegated", owner, L.when(L.conj(live, L.neg(given)), L.plus(handed, -1), handed))
    yield ("grant_state", grant, REVOKED)
    before = get(L, s, "agent_changed", owner)
    yield ("agent_changed", owner, L.when(given, L.plus(m["index"], 1), before))
