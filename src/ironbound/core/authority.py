"""The authority kernel: who may do what, as a table of pure rules. Nothing else decides that.

A rule has a *guard* (named conditions, all of which must hold) and *writes* (what changes). Both are
pure functions over the small logic in `logic`, written once: the plain reading decides, a symbolic
reading can be proved. The state is a handful of total maps and has no other home: every process folds
the same log through this table and arrives at the same state.

Rule 1: only `grant` makes a capability, and its guard demands the quorum of humans.
Rule 2: `invoke` lets a call through only under a live grant for that agent, that code and that cage.
Rule 3: taking away (`revoke`, `stop`, `order-stop`) has no precondition but one human's, or the
        monitor's, signature; it is never refused and it is final.
Rule 4: a refusal changes nothing.

It does not check signatures, parse or read a clock: `replay` does that and hands over plain messages.
A message's fields are named in each rule; times are Unix milliseconds; ids are opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .logic import Plain

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
#: The longest time between a request's not-before and its expiry: one day.
MAX_REQUEST_LIFE_MS: Final = 86_400_000
#: The most grants an agent can hold, so that the capability before and after fits in one request.
MAX_GRANTS_PER_AGENT: Final = 256

#: Every map of the state with the value it has where nothing was written.
FIELDS: Final[Mapping[str, Any]] = {
    "quorum": 1 << 30,  # act -> humans needed; an act that the trust root does not name needs more than exist
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
    "agent_grants": 0,  # agent -> grants that are not revoked
    "grant_state": ABSENT,  # grant -> LIVE | REVOKED
    "grant_agent": "",
    "grant_module": "",
    "grant_config": "",
    "grant_tool": "",
    "grant_action": "",
    "grant_where": None,
    "grant_left": 0,  # calls left
    "grant_expires": 0,
    "tool_grant": "",  # (agent, tool) -> the grant that the name stands for
}

State = dict[str, dict[Any, Any]]
Message = Mapping[str, Any]
Guard = Iterable[tuple[str, Any]]
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
    now = _now(L, s, m)
    yield "quorum-not-met", L.at_most(_get(L, s, "quorum", act), m["consents"])
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


def _named(L: Any, s: Any, m: Message) -> Any:
    """True if the tool's name stands for a grant that still lets something through."""
    return _holds(L, s, m, _get(L, s, "tool_grant", (m["agent"], m["tool"])))


def _holds(L: Any, s: Any, m: Message, grant: Any) -> Any:
    return L.conj(
        L.same(_get(L, s, "grant_state", grant), LIVE),
        L.less(_now(L, s, m), _get(L, s, "grant_expires", grant)),
        L.less(0, _get(L, s, "grant_left", grant)),
    )


def _guard_grant(L: Any, s: Any, m: Message) -> Guard:
    yield from _giving(L, s, m, "grant")
    yield from _unchanged(L, s, m)
    yield "module-not-approved", L.same(_get(L, s, "module", m["module"]), AGENT_MODULE)
    yield "profile-not-approved", _get(L, s, "profile", m["config"])
    yield "grant-id-used", L.same(_get(L, s, "grant_state", m["id"]), ABSENT)
    yield "grant-without-calls", L.less(0, m["calls"])
    yield "grant-expired", L.less(_now(L, s, m), m["grant_expires"])
    yield "tool-name-taken", L.neg(_named(L, s, m))
    yield "too-many-grants", L.less(_get(L, s, "agent_grants", m["agent"]), MAX_GRANTS_PER_AGENT)


def _write_grant(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("grant_state", m["id"], LIVE)
    yield ("grant_agent", m["id"], m["agent"])
    yield ("grant_module", m["id"], m["module"])
    yield ("grant_config", m["id"], m["config"])
    yield ("grant_tool", m["id"], m["tool"])
    yield ("grant_action", m["id"], m["action"])
    yield ("grant_where", m["id"], m["where"])
    yield ("grant_left", m["id"], m["calls"])
    yield ("grant_expires", m["id"], m["grant_expires"])
    yield ("tool_grant", (m["agent"], m["tool"]), m["id"])
    yield ("agent_grants", m["agent"], L.plus(_get(L, s, "agent_grants", m["agent"]), 1))
    yield _changed(L, m)


def _guard_consent(L: Any, s: Any, m: Message) -> Guard:
    """Taking away: one human is enough, whatever the state."""
    yield "quorum-not-met", L.at_most(1, m["consents"])


def _write_revoke(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    live = L.same(_get(L, s, "grant_state", m["grant"]), LIVE)
    owner = _get(L, s, "grant_agent", m["grant"])
    held = _get(L, s, "agent_grants", owner)
    yield ("agent_grants", owner, L.when(live, L.plus(held, -1), held))
    yield ("grant_state", m["grant"], REVOKED)
    changed = _get(L, s, "agent_changed", owner)
    yield ("agent_changed", owner, L.when(live, L.plus(m["index"], 1), changed))


def _write_stop(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("launch_stopped", _get(L, s, "agent_launch", m["agent"]), True)
    yield _changed(L, m)


def _guard_always(L: Any, s: Any, m: Message) -> Guard:
    return iter(())


def _write_order_stop(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("launch_stopped", m["launch"], True)


def _guard_invoke(L: Any, s: Any, m: Message) -> Guard:
    grant, launch = m["grant"], m["launch"]
    now = _now(L, s, m)
    yield "agent-not-running", L.same(_get(L, s, "launch_state", launch), STARTED)
    yield "launch-stopped", L.neg(_get(L, s, "launch_stopped", launch))
    yield "canary-holds-nothing", L.neg(_get(L, s, "launch_canary", launch))
    yield "agent-differs", L.same(_get(L, s, "launch_agent", launch), m["agent"])
    yield "no-such-grant", L.neg(L.same(_get(L, s, "grant_state", grant), ABSENT))
    yield "grant-of-another-agent", L.same(_get(L, s, "grant_agent", grant), m["agent"])
    yield "grant-revoked", L.same(_get(L, s, "grant_state", grant), LIVE)
    yield "grant-for-another-module", L.same(_get(L, s, "grant_module", grant), _get(L, s, "launch_module", launch))
    yield "grant-for-another-profile", L.same(_get(L, s, "grant_config", grant), _get(L, s, "launch_config", launch))
    yield "tool-differs", L.same(_get(L, s, "grant_tool", grant), m["tool"])
    yield "action-differs", L.same(_get(L, s, "grant_action", grant), m["action"])
    yield "grant-expired", L.less(now, _get(L, s, "grant_expires", grant))
    yield "calls-exhausted", L.less(0, _get(L, s, "grant_left", grant))
    yield "arguments-not-covered", L.covers(_get(L, s, "grant_where", grant), m["args"])


def _write_invoke(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield _tick(L, s, m)
    yield ("grant_left", m["grant"], L.plus(_get(L, s, "grant_left", m["grant"]), -1))


RULES: Final[Mapping[str, Rule]] = {
    rule.name: rule
    for rule in (
        Rule("approve-module", "operator", _guard_approve_module, _write_approve_module),
        Rule("approve-profile", "operator", _guard_approve_profile, _write_approve_profile),
        Rule("launch", "operator", _guard_launch, _write_launch),
        Rule("grant", "operator", _guard_grant, _write_grant),
        Rule("revoke", "operator", _guard_consent, _write_revoke),
        Rule("stop", "operator", _guard_consent, _write_stop),
        Rule("challenge", "monitor", _guard_challenge, _write_challenge),
        Rule("order-stop", "monitor", _guard_always, _write_order_stop),
        Rule("start", "node", _guard_start, _write_start),
        Rule("refuse-launch", "node", _guard_refuse_launch, _write_end),
        Rule("exit", "node", _guard_exit, _write_end),
        Rule("invoke", "gateway", _guard_invoke, _write_invoke),
    )
}


class Authority:
    """The interpreter of the table: one state, `check` to ask, `apply` to act. O(1) per decision."""

    __slots__ = ("_state",)

    def __init__(self, quorum: Mapping[str, int]) -> None:
        """quorum: act (module, profile, launch, grant) → how many humans it takes, at least 1."""
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
        for field, key, value in list(RULES[rule].writes(Plain, self._state, message)):
            self._state[field][key] = value

    def read(self, field: str, key: Any) -> Any:
        """One value of the state; for showing, never for deciding."""
        return self._state[field].get(key, FIELDS[field])
