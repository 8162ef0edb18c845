"""What the kernel must never do, as formulas. `docs/proof.md` says the same in plain language.

Each formula is a pure function over the small logic of `core.logic`, as the kernel's rules are: read symbolically it
becomes an obligation for the solvers, read plainly the exhaustive search evaluates it on the running interpreter.

Rule 1: a *mark* (ghost variable) is driven by what was validly signed, by what was asked and by the kernel's yes or
        no, which everybody sees; never by what the kernel wrote down for itself.
Rule 2: an *invariant* ties what the kernel wrote down to the marks. It holds at the beginning and is kept by every
        message, accepted or refused.
Rule 3: a *promise* is about one message that was let through, or about the powers before and after it. A power is
        what the guard of `invoke` would really let through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from .terms import NUMBER, TRUTH, Field

#: The sorts of the kernel's fields. A field that is missing here can't be proved about, and a test says so.
SORTS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "quorum": (("Act",), NUMBER),
    "clock": ((), NUMBER),
    "used": (("Id",), TRUTH),
    "module": (("Module",), NUMBER),
    "profile": (("Config",), TRUTH),
    "launch_state": ((NUMBER,), NUMBER),
    "launch_agent": ((NUMBER,), "Agent"),
    "launch_module": ((NUMBER,), "Module"),
    "launch_config": ((NUMBER,), "Config"),
    "launch_expires": ((NUMBER,), NUMBER),
    "launch_canary": ((NUMBER,), TRUTH),
    "launch_stopped": ((NUMBER,), TRUTH),
    "agent_launch": (("Agent",), NUMBER),
    "agent_changed": (("Agent",), NUMBER),
    "agent_grants": (("Agent",), NUMBER),
    "grant_state": (("Id",), NUMBER),
    "grant_agent": (("Id",), "Agent"),
    "grant_module": (("Id",), "Module"),
    "grant_config": (("Id",), "Config"),
    "grant_tool": (("Id",), "Tool"),
    "grant_action": (("Id",), "Action"),
    "grant_where": (("Id",), "Where"),
    "grant_left": (("Id",), NUMBER),
    "grant_expires": (("Id",), NUMBER),
    "tool_grant": (("Agent", "Tool"), "Id"),
}
#: What the trust root fixes before the first message.
GIVEN: Final = frozenset({"quorum"})

#: The sorts of a message's fields.
MESSAGE: Final[Mapping[str, str]] = {
    "index": NUMBER, "now": NUMBER, "id": "Id", "consents": NUMBER, "not_before": NUMBER, "expires": NUMBER,
    "head": NUMBER, "head_known": TRUTH, "agent": "Agent", "module": "Module", "config": "Config", "canary": TRUTH,
    "tool": "Tool", "action": "Action", "where": "Where", "calls": NUMBER, "grant_expires": NUMBER, "grant": "Id",
    "launch": NUMBER, "args": "Args",
}  # fmt: skip

#: What a grant says, in the order in which it is marked.
_CONTENT: Final = ("Agent", "Module", "Config", "Tool", "Action", "Where")

#: The marks: sorts of the key, sort of the value, and what nothing was marked with.
MARKS: Final[Mapping[str, Field]] = {
    "said_module": Field(("Module", TRUTH), TRUTH, False),  # (digest, as a canary): its quorum signed it
    "said_profile": Field(("Config",), TRUTH, False),
    "said_launch": Field((NUMBER, "Agent", "Module", "Config", NUMBER), TRUTH, False),  # by index; until when
    "said_grant": Field(("Id", *_CONTENT, NUMBER, NUMBER), TRUTH, False),  # calls, until when
    "taken": Field(("Id",), TRUTH, False),  # some human signed its revocation, and it was delivered
    "stopped_at": Field(("Agent",), NUMBER, 0),  # entries before the latest delivered stop of this agent
    "ordered": Field((NUMBER,), TRUTH, False),  # the monitor ordered this launch to stop
    "happened": Field(("Id",), TRUTH, False),  # a giving request of this id took effect
    "owner": Field(("Id",), "Agent", ""),  # whom the grant of this id was admitted for
    "given": Field(("Id",), TRUTH, False),
    "spent": Field(("Id",), NUMBER, 0),  # calls let through under this grant
    "moved": Field(("Agent",), NUMBER, 0),  # log size just after the latest change to this agent that took effect
    "time": Field((), NUMBER, 0),  # the latest time of what took effect
    "began": Field((NUMBER,), TRUTH, False),  # the node said that this launch runs
    "over": Field((NUMBER,), TRUTH, False),  # the node said that this launch ended
    "hostile": Field((NUMBER,), TRUTH, False),  # the monitor's challenge: a canary
    "length": Field((), NUMBER, 0),  # entries so far, as far as messages tell
}

#: The requests that give power, with the act whose quorum they take.
GIVING: Final[Mapping[str, str]] = {
    "approve-module": "module", "approve-profile": "profile", "launch": "launch", "grant": "grant",
}  # fmt: skip
#: The requests that take power away: one human's, or the monitor's, is always heard.
TAKING: Final = ("revoke", "stop", "order-stop")
DAY_MS: Final = 86_400_000
#: The spec's own spelling of the kernel's states.
_ABSENT, _ADMITTED, _STARTED, _ENDED = 0, 1, 2, 3
_AGENT, _CANARY, _LIVE, _REVOKED = 1, 2, 1, 2

Message = Mapping[str, Any]
Write = tuple[str, Any, Any]


class Specification:
    """The formulas in one reading of the logic. `defaults` holds what each field of the kernel starts as."""

    def __init__(self, logic: Any, defaults: Mapping[str, Any]) -> None:
        self.logic = logic
        self._defaults = {**defaults, **{name: field.default for name, field in MARKS.items()}}

    def get(self, s: Any, field: str, *key: Any) -> Any:
        """The value of a field or mark."""
        packed = "" if not key else key[0] if len(key) == 1 else key
        return self.logic.read(s, field, packed, self._defaults[field])

    def implies(self, when: Any, then: Any) -> Any:
        """If `when`, then `then`."""
        return self.logic.disj(self.logic.neg(when), then)

    def late(self, s: Any, m: Message) -> Any:
        """The time that counts: the entry's own, but never before what took effect earlier."""
        time = self.get(s, "time")
        return self.logic.when(self.logic.less(time, m["now"]), m["now"], time)

    def signed(self, s: Any, m: Message, act: str) -> Any:
        """As many humans as the trust root asks for stand behind this message."""
        return self.logic.at_most(self.get(s, "quorum", act), m["consents"])

    def active(self, s: Any, launch: Any) -> Any:
        """The kernel takes the launch for admitted or started."""
        state = self.get(s, "launch_state", launch)
        return self.logic.disj(self.logic.same(state, _ADMITTED), self.logic.same(state, _STARTED))

    def live(self, s: Any, grant: Any) -> Any:
        """The kernel takes the grant for live."""
        return self.logic.same(self.get(s, "grant_state", grant), _LIVE)

    def content(self, s: Any, grant: Any) -> tuple[Any, ...]:
        """What the kernel wrote down that a grant says, as far as arguments."""
        return tuple(self.get(s, f"grant_{one.lower()}", grant) for one in _CONTENT)

    # Rule 1: the marks

    def marks(self, rule: str, s: Any, m: Message, accepted: bool) -> Iterable[Write]:
        """What a message leaves behind. `accepted`: the kernel said yes to it."""
        logic = self.logic
        if rule in GIVING:
            signed = self.signed(s, m, GIVING[rule])
            key: tuple[Any, ...]
            if rule == "approve-module":
                key = (m["module"], m["canary"])
                yield ("said_module", key, logic.disj(self.get(s, "said_module", *key), signed))
            elif rule == "approve-profile":
                yield ("said_profile", m["config"], logic.disj(self.get(s, "said_profile", m["config"]), signed))
            elif rule == "launch":
                key = (m["index"], m["agent"], m["module"], m["config"], m["expires"])
                yield ("said_launch", key, logic.disj(self.get(s, "said_launch", *key), signed))
            else:
                key = (m["id"], *(m[one.lower()] for one in _CONTENT), m["calls"], m["grant_expires"])
                yield ("said_grant", key, logic.disj(self.get(s, "said_grant", *key), signed))
            if accepted:
                yield ("happened", m["id"], True)
                if rule in ("launch", "grant"):
                    yield ("moved", m["agent"], logic.plus(m["index"], 1))
                if rule == "grant":
                    yield ("given", m["id"], True)
                    yield ("owner", m["id"], m["agent"])
        elif rule == "revoke":
            heard = logic.at_most(1, m["consents"])
            taken, owner = self.get(s, "taken", m["grant"]), self.get(s, "owner", m["grant"])
            first = logic.conj(heard, self.get(s, "given", m["grant"]), logic.neg(taken))
            moved = self.get(s, "moved", owner)
            yield ("moved", owner, logic.when(first, logic.plus(m["index"], 1), moved))
            yield ("taken", m["grant"], logic.disj(taken, heard))
        elif rule == "stop":
            heard, before = logic.at_most(1, m["consents"]), self.get(s, "stopped_at", m["agent"])
            yield ("stopped_at", m["agent"], logic.when(heard, m["index"], before))
            moved = self.get(s, "moved", m["agent"])
            yield ("moved", m["agent"], logic.when(heard, logic.plus(m["index"], 1), moved))
        elif rule == "order-stop":
            yield ("ordered", m["launch"], True)
        elif accepted and rule == "challenge":
            yield ("happened", m["id"], True)
            yield ("hostile", m["index"], True)
        elif accepted and rule == "start":
            yield ("began", m["launch"], True)
        elif accepted and rule in ("exit", "refuse-launch"):
            yield ("over", m["launch"], True)
        elif accepted and rule == "invoke":
            yield ("spent", m["grant"], logic.plus(self.get(s, "spent", m["grant"]), 1))
        if accepted:
            yield ("time", "", self.late(s, m))
        if rule in _NUMBERED:
            yield ("length", "", logic.plus(m["index"], 1))

    def assumed(self, rule: str, s: Any, m: Message) -> Iterable[Any]:
        """What replay guarantees about a message and the proof takes for granted: an entry's index is its own."""
        if rule in _NUMBERED:
            yield self.logic.at_most(self.get(s, "length"), m["index"])
            yield self.logic.at_most(0, m["index"])

    # Rule 3: the promises about one message that was let through

    def lawful(self, s: Any, m: Message) -> Iterable[tuple[str, Any]]:
        """A call is let through only if humans signed all of it, and none of it was taken away."""
        logic, grant, launch = self.logic, m["grant"], m["launch"]
        agent, module, config, tool, action, where = self.content(s, grant)
        until, left = self.get(s, "grant_expires", grant), self.get(s, "grant_left", grant)
        spent = self.get(s, "spent", grant)
        calls = logic.plus(left, spent)
        expires = self.get(s, "launch_expires", launch)
        key = (agent, module, config, tool, action, where, calls, until)
        yield "a quorum signed this grant, in exactly this form", self.get(s, "said_grant", grant, *key)
        yield "to this agent", logic.same(agent, m["agent"])
        yield "for this tool", logic.same(tool, m["tool"])
        yield "for this action", logic.same(action, m["action"])
        yield "its constraints cover the arguments", logic.covers(where, m["args"])
        yield "it has not expired", logic.less(self.late(s, m), until)
        yield "fewer calls went through than were signed", logic.less(spent, calls)
        yield "nobody revoked it", logic.neg(self.get(s, "taken", grant))
        yield (
            "a quorum signed this launch of this agent, with the grant's code and cage",
            self.get(s, "said_launch", launch, m["agent"], module, config, expires),
        )
        yield "a quorum signed the code, as an agent's", self.get(s, "said_module", module, False)
        yield "a quorum signed the cage", self.get(s, "said_profile", config)
        yield "the node said that it runs", self.get(s, "began", launch)
        yield "and not that it ended", logic.neg(self.get(s, "over", launch))
        yield "it is no canary", logic.neg(self.get(s, "hostile", launch))
        yield "nobody stopped it", logic.neg(self.halted(s, m))

    def halted(self, s: Any, m: Message) -> Any:
        """A human stopped the agent since this launch was admitted, or the monitor ordered it. m: launch, agent."""
        before = self.logic.less(m["launch"], self.get(s, "stopped_at", m["agent"]))
        return self.logic.disj(self.get(s, "ordered", m["launch"]), before)

    def accepted(self, rule: str, s: Any, m: Message) -> Iterable[tuple[str, Any]]:
        """What must have been so before a message was let through."""
        logic = self.logic
        if rule in GIVING:
            late = self.late(s, m)
            yield "the quorum consents", self.signed(s, m, GIVING[rule])
            yield "at least one human consents", logic.at_most(1, m["consents"])
            yield "it never took effect before", logic.neg(self.get(s, "happened", m["id"]))
            yield "it is valid already", logic.at_most(m["not_before"], late)
            yield "it is still valid", logic.less(late, m["expires"])
            yield "it was valid for a day at most", logic.at_most(m["expires"], logic.plus(m["not_before"], DAY_MS))
            yield "its signer saw this log", m["head_known"]
        if rule in ("launch", "grant"):
            yield "its signer saw every earlier change", logic.at_most(self.get(s, "moved", m["agent"]), m["head"])
            yield "a quorum signed the code, as an agent's", self.get(s, "said_module", m["module"], False)
            yield "a quorum signed the cage", self.get(s, "said_profile", m["config"])
        if rule == "grant":
            yield "it is no revoked grant again", logic.neg(self.get(s, "taken", m["id"]))
            yield "it is no earlier grant again", logic.neg(self.get(s, "given", m["id"]))
            yield "it has not expired", logic.less(self.late(s, m), m["grant_expires"])
        if rule == "challenge":
            yield "a quorum signed the code, as a canary", self.get(s, "said_module", m["module"], True)
            yield "a quorum signed the cage", self.get(s, "said_profile", m["config"])
        if rule == "start":
            launch = m["launch"]
            key = (m["agent"], m["module"], m["config"], self.get(s, "launch_expires", launch))
            admitted = self.get(s, "said_launch", launch, *key)
            yield "humans or the monitor asked for it", logic.disj(self.get(s, "hostile", launch), admitted)
            yield "in time", logic.less(self.late(s, m), self.get(s, "launch_expires", launch))
            yield "nobody stopped it", logic.neg(self.halted(s, m))
            yield "it had not begun", logic.neg(self.get(s, "began", launch))
            yield "it had not ended", logic.neg(self.get(s, "over", launch))
        if rule == "invoke":
            yield from self.lawful(s, m)

    def heard(self, rule: str, s: Any, m: Message) -> Any:
        """Whether this message must be accepted, whatever the state: taking away is never refused."""
        return self.logic.at_most(1, m["consents"]) if rule in ("revoke", "stop") else rule == "order-stop"

    def gained(self, rule: str, m: Message, call: Message) -> Any:
        """The powers that a message may add: those under the grant, or of the launch, that it is about."""
        if rule == "grant":
            return self.logic.same(call["grant"], m["id"])
        if rule == "start":
            return self.logic.same(call["launch"], m["launch"])
        return False

    def steps(self, rule: str, s: Any, after: Any, m: Message, v: Message) -> Iterable[tuple[str, Any]]:
        """What a message that was let through may change; `v` are arbitrary values of each sort."""
        logic = self.logic
        grant, launch, one = v["grant"], v["launch"], v["id"]
        left, then = self.get(s, "grant_left", grant), self.get(after, "grant_left", grant)
        content = logic.conj(
            *(logic.same(x, y) for x, y in zip(self.content(s, grant), self.content(after, grant), strict=True)),
            logic.same(self.get(s, "grant_expires", grant), self.get(after, "grant_expires", grant)),
        )
        known = logic.neg(logic.same(self.get(s, "grant_state", grant), _ABSENT))
        yield "what a grant says never changes", self.implies(known, content)
        yield "calls never come back", self.implies(known, logic.at_most(then, left))
        if rule == "invoke":
            mine = logic.conj(logic.same(grant, m["grant"]), logic.same(self.get(s, "owner", grant), m["agent"]))
            same = logic.same(then, left)
            yield (
                "a call burns one call of the caller's own grant, no other",
                logic.disj(
                    logic.conj(mine, logic.same(logic.plus(then, 1), left)),
                    logic.conj(logic.neg(logic.same(grant, m["grant"])), same),
                ),
            )
        else:
            yield "only calls burn calls", self.implies(known, logic.same(then, left))
        gone = logic.same(self.get(s, "grant_state", grant), _REVOKED)
        yield "revoked stays revoked", self.implies(gone, logic.same(self.get(after, "grant_state", grant), _REVOKED))
        over = logic.same(self.get(s, "launch_state", launch), _ENDED)
        yield "ended stays ended", self.implies(over, logic.same(self.get(after, "launch_state", launch), _ENDED))
        was = self.get(s, "launch_stopped", launch)
        yield "stopped stays stopped", self.implies(was, self.get(after, "launch_stopped", launch))
        yield "used stays used", self.implies(self.get(s, "used", one), self.get(after, "used", one))
        yield "time does not go back", logic.at_most(self.get(s, "clock"), self.get(after, "clock"))
        kind = self.get(s, "module", v["module"])
        yield (
            "an approved module stays what it is",
            self.implies(
                logic.neg(logic.same(kind, _ABSENT)), logic.same(kind, self.get(after, "module", v["module"]))
            ),
        )
        for act in GIVING.values():
            same = logic.same(self.get(s, "quorum", act), self.get(after, "quorum", act))
            yield f"no message changes the quorum of {act}", same


#: The rules whose message carries the index of its entry.
_NUMBERED: Final = ("approve-module", "approve-profile", "launch", "grant", "revoke", "stop", "challenge")


# Rule 2: the invariants


def _clock(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.same(q.get(s, "clock"), q.get(s, "time"))


def _quorum(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.at_most(1, q.get(s, "quorum", v["act"]))


def _module(q: Specification, s: Any, v: Message) -> Any:
    kind = q.get(s, "module", v["module"])
    return q.logic.conj(
        q.implies(q.logic.same(kind, _AGENT), q.get(s, "said_module", v["module"], False)),
        q.implies(q.logic.same(kind, _CANARY), q.get(s, "said_module", v["module"], True)),
        q.logic.disj(*(q.logic.same(kind, one) for one in (_ABSENT, _AGENT, _CANARY))),
    )


def _profile(q: Specification, s: Any, v: Message) -> Any:
    return q.implies(q.get(s, "profile", v["config"]), q.get(s, "said_profile", v["config"]))


def _launch_signed(q: Specification, s: Any, v: Message) -> Any:
    launch, logic = v["launch"], q.logic
    fields = tuple(q.get(s, f"launch_{one}", launch) for one in ("agent", "module", "config", "expires"))
    absent = logic.same(q.get(s, "launch_state", launch), _ABSENT)
    return logic.disj(absent, q.get(s, "launch_canary", launch), q.get(s, "said_launch", launch, *fields))


def _launch_approved(q: Specification, s: Any, v: Message) -> Any:
    launch, logic = v["launch"], q.logic
    known = logic.neg(logic.same(q.get(s, "launch_state", launch), _ABSENT))
    kind = q.get(s, "module", q.get(s, "launch_module", launch))
    wanted = logic.when(q.get(s, "launch_canary", launch), _CANARY, _AGENT)
    cage = q.get(s, "profile", q.get(s, "launch_config", launch))
    return q.implies(known, logic.conj(logic.same(kind, wanted), cage))


def _launch_canary(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.same(q.get(s, "launch_canary", v["launch"]), q.get(s, "hostile", v["launch"]))


def _launch_index(q: Specification, s: Any, v: Message) -> Any:
    launch, logic = v["launch"], q.logic
    state, canary = q.get(s, "launch_state", launch), q.get(s, "launch_canary", launch)
    past = logic.conj(logic.less(launch, q.get(s, "length")), logic.at_most(0, launch))
    known = logic.disj(logic.neg(logic.same(state, _ABSENT)), canary)
    return logic.conj(
        q.implies(known, past),
        logic.disj(*(logic.same(state, one) for one in (_ABSENT, _ADMITTED, _STARTED, _ENDED))),
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
        q.implies(logic.same(state, _STARTED), began),
        q.implies(logic.disj(logic.same(state, _ADMITTED), logic.same(state, _ABSENT)), logic.neg(began)),
        logic.same(over, logic.same(state, _ENDED)),
    )


def _grant_signed(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    left, spent = q.get(s, "grant_left", grant), q.get(s, "spent", grant)
    key = (*q.content(s, grant), logic.plus(left, spent), q.get(s, "grant_expires", grant))
    return q.implies(q.live(s, grant), q.get(s, "said_grant", grant, *key))


def _grant_counts(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    left, spent = q.get(s, "grant_left", grant), q.get(s, "spent", grant)
    absent = logic.same(q.get(s, "grant_state", grant), _ABSENT)
    return logic.conj(logic.at_most(0, left), q.implies(absent, logic.same(spent, 0)), logic.at_most(0, spent))


def _grant_approved(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    kind = q.get(s, "module", q.get(s, "grant_module", grant))
    cage = q.get(s, "profile", q.get(s, "grant_config", grant))
    return q.implies(q.live(s, grant), logic.conj(logic.same(kind, _AGENT), cage))


def _grant_state(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    state, taken, given = q.get(s, "grant_state", grant), q.get(s, "taken", grant), q.get(s, "given", grant)
    return logic.conj(
        logic.same(taken, logic.same(state, _REVOKED)),
        logic.same(logic.same(state, _LIVE), logic.conj(given, logic.neg(taken))),
        logic.disj(*(logic.same(state, one) for one in (_ABSENT, _LIVE, _REVOKED))),
    )


def _grant_owner(q: Specification, s: Any, v: Message) -> Any:
    owner = q.get(s, "owner", v["grant"])
    return q.implies(q.live(s, v["grant"]), q.logic.same(owner, q.get(s, "grant_agent", v["grant"])))


def _used(q: Specification, s: Any, v: Message) -> Any:
    return q.implies(q.get(s, "happened", v["id"]), q.get(s, "used", v["id"]))


def _moved(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.at_most(q.get(s, "moved", v["agent"]), q.get(s, "agent_changed", v["agent"]))


def _tool_name(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    lets = logic.conj(
        q.live(s, grant),
        logic.less(q.get(s, "clock"), q.get(s, "grant_expires", grant)),
        logic.less(0, q.get(s, "grant_left", grant)),
    )
    name = q.get(s, "tool_grant", q.get(s, "grant_agent", grant), q.get(s, "grant_tool", grant))
    return q.implies(lets, logic.same(name, grant))


#: Name → (the values that it is about, the formula). All of them together are the hypothesis of every obligation.
INVARIANTS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Specification, Any, Message], Any]]]] = {
    "the clock is the latest time": ((), _clock),
    "every act takes a human": (("act",), _quorum),
    "an approved module was signed by its quorum": (("module",), _module),
    "an approved profile was signed by its quorum": (("config",), _profile),
    "a launch was signed by its quorum, in exactly this form": (("launch",), _launch_signed),
    "a launch has approved code in an approved cage": (("launch",), _launch_approved),
    "a launch is a canary exactly if it was a challenge": (("launch",), _launch_canary),
    "a launch has an index of the past": (("launch",), _launch_index),
    "an agent has one active launch": (("launch",), _launch_latest),
    "a stop reaches every earlier launch of its agent": (("launch",), _stop_reaches),
    "a stop is in the past": (("agent",), _stop_past),
    "an order reaches its launch": (("launch",), _order_reaches),
    "a launch runs exactly if the node said so": (("launch",), _node_said),
    "a live grant was signed by its quorum, in exactly this form": (("grant",), _grant_signed),
    "calls left and calls spent are conserved": (("grant",), _grant_counts),
    "a live grant is for approved code in an approved cage": (("grant",), _grant_approved),
    "a grant is live exactly if it was given and not taken": (("grant",), _grant_state),
    "a live grant belongs to whom it was given": (("grant",), _grant_owner),
    "what took effect is used": (("id",), _used),
    "the kernel knows every change": (("agent",), _moved),
    "a tool's name stands for the one grant that lets something through": (("grant",), _tool_name),
}

#: The sorts of the values that invariants and steps are about.
VALUES: Final[Mapping[str, str]] = {
    "act": "Act", "agent": "Agent", "module": "Module", "config": "Config", "grant": "Id", "id": "Id", "launch": NUMBER,
}  # fmt: skip
