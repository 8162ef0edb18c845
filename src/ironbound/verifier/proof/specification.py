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

from ironbound.core.logic import Across

from .terms import NUMBER, SET, TRUTH, Field

#: The sorts of the kernel's fields. A field that is missing here can't be proved about, and a test says so.
SORTS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "quorum": (("Act",), NUMBER),
    "version": ((), NUMBER),
    "flagged": (("Key",), NUMBER),
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
    "agent_delegated": (("Agent",), NUMBER),
    "grant_every": (("Id",), NUMBER),
    "grant_slack": (("Id",), NUMBER),
    "grant_full": (("Id",), NUMBER),
    "grant_budget": (("Id",), NUMBER),
    "grant_cost": (("Id",), NUMBER),
    "grant_approvals": (("Id",), NUMBER),
    "grant_delegable": (("Id",), NUMBER),
    "grant_parent": (("Id",), "Id"),
    "grant_line": (("Id",), SET),
    "call_state": (("Id",), NUMBER),
    "call_agent": (("Id",), "Agent"),
    "call_grant": (("Id",), "Id"),
    "call_tool": (("Id",), "Tool"),
    "call_args": (("Id",), "Digest"),
    "call_expires": (("Id",), NUMBER),
    "quota_every": (("Agent",), NUMBER),
    "quota_slack": (("Agent",), NUMBER),
    "quota_full": (("Agent",), NUMBER),
    "open_grant": ((NUMBER,), "Id"),
    "open_cost": ((NUMBER,), NUMBER),
}
#: What the first trust root fixes before the first message.
GIVEN: Final = frozenset({"quorum"})

#: The sorts of a message's fields.
MESSAGE: Final[Mapping[str, str]] = {
    "index": NUMBER, "now": NUMBER, "id": "Id", "consents": NUMBER, "not_before": NUMBER, "expires": NUMBER,
    "head": NUMBER, "head_known": TRUTH, "agent": "Agent", "module": "Module", "config": "Config", "canary": TRUTH,
    "tool": "Tool", "action": "Action", "where": "Where", "calls": NUMBER, "grant_expires": NUMBER, "grant": "Id",
    "launch": NUMBER, "args": "Args", "every": NUMBER, "slack": NUMBER, "cost": NUMBER, "approvals": NUMBER,
    "budget": NUMBER, "delegable": NUMBER, "args_digest": "Digest", "approval": "Id", "client": "Id",
    "client_args": "Args", "intent": NUMBER, "spent": NUMBER, "child": NUMBER, "to": "Agent",
    "version": NUMBER, "consents_after": NUMBER, "quorum_module": NUMBER, "quorum_profile": NUMBER,
    "quorum_launch": NUMBER, "quorum_grant": NUMBER, "quorum_reconfigure": NUMBER, "quorum_break_glass": NUMBER,
    "key": "Key", "since": NUMBER,
}  # fmt: skip

#: What a grant says, in the order in which it is marked.
_CONTENT: Final = ("Agent", "Module", "Config", "Tool", "Action", "Where")

#: The marks: sorts of the key, sort of the value, and what nothing was marked with.
MARKS: Final[Mapping[str, Field]] = {
    "said_module": Field(("Module", TRUTH), TRUTH, False),  # (digest, as a canary): its quorum signed it
    "said_profile": Field(("Config",), TRUTH, False),
    "said_launch": Field((NUMBER, "Agent", "Module", "Config", NUMBER), TRUTH, False),  # by index; until when
    # calls, until when; ms between calls, slack, cost of a call, humans for each call, budget
    "said_grant": Field(("Id", *_CONTENT, *(NUMBER,) * 7), TRUTH, False),
    "said_call": Field(("Id", "Agent", "Id", "Tool", "Digest", NUMBER), TRUTH, False),  # by enough humans; until when
    "burned": Field(("Id",), TRUTH, False),  # the approval let a call through
    "above": Field(("Id",), SET, frozenset()),  # the grants that this one was handed on from, itself included
    "root": Field(("Id",), "Id", ""),  # the humans' grant that it is a part of
    "charged": Field(("Id",), NUMBER, 0),  # budget spent under this grant and its parts
    "owing": Field((NUMBER,), "Id", ""),  # intent -> the grant that paid for it, until it is settled
    "owed": Field((NUMBER,), NUMBER, 0),
    # the quota of an agent, or of all together (no name), as the latest request says that took effect, and its bucket
    "pace": Field(("Agent",), NUMBER, 0),
    "lead": Field(("Agent",), NUMBER, 0),
    "next": Field(("Agent",), NUMBER, 0),
    "taken": Field(("Id",), TRUTH, False),  # some human signed its revocation, and it was delivered
    "stopped_at": Field(("Agent",), NUMBER, 0),  # entries before the latest delivered stop of this agent
    "ordered": Field((NUMBER,), TRUTH, False),  # the monitor ordered this launch to stop
    "happened": Field(("Id",), TRUTH, False),  # a giving request of this id took effect
    "owner": Field(("Id",), "Agent", ""),  # whom the grant of this id was admitted for
    "given": Field(("Id",), TRUTH, False),
    "spent": Field(("Id",), NUMBER, 0),  # calls let through under this grant and its parts
    "moved": Field(("Agent",), NUMBER, 0),  # log size just after the latest change to this agent that took effect
    "time": Field((), NUMBER, 0),  # the latest time of what took effect
    "began": Field((NUMBER,), TRUTH, False),  # the node said that this launch runs
    "over": Field((NUMBER,), TRUTH, False),  # the node said that this launch ended
    "hostile": Field((NUMBER,), TRUTH, False),  # the monitor's challenge: a canary
    "edition": Field((), NUMBER, 1),  # the version of the trust root that took effect last
    "length": Field((), NUMBER, 0),  # entries so far, as far as messages tell
}

#: The requests that give power, with the act whose quorum they take.
GIVING: Final[Mapping[str, str]] = {
    "approve-module": "module", "approve-profile": "profile", "launch": "launch", "grant": "grant",
    "break-glass": "break-glass", "set-quota": "reconfigure", "reconfigure": "reconfigure", "flag-key": "reconfigure",
    "review": "grant",
}  # fmt: skip
#: The requests that take power away: one human's, or the monitor's, is always heard.
TAKING: Final = ("revoke", "stop", "order-stop", "withdraw-module", "withdraw-profile")
#: The requests that make a grant.
GRANTS: Final = ("grant", "break-glass")
#: The acts that have a quorum, and the longest life of a grant by sealed keys.
ACTS: Final = ("module", "profile", "launch", "grant", "reconfigure", "break-glass")
HOUR_MS: Final = 3_600_000
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
            elif rule in GRANTS:
                key = (m["id"], *(m[one.lower()] for one in _CONTENT), m["calls"], m["grant_expires"])
                key += tuple(m[one] for one in ("every", "slack", "cost", "approvals", "budget"))
                yield ("said_grant", key, logic.disj(self.get(s, "said_grant", *key), signed))
            if accepted:
                yield ("happened", m["id"], True)
                if rule == "set-quota":
                    yield ("pace", m["agent"], m["every"])
                    yield ("lead", m["agent"], m["slack"])
                    yield ("next", m["agent"], 0)
                if rule == "reconfigure":
                    yield ("edition", "", m["version"])
                if rule in ("launch", *GRANTS, "set-quota"):
                    yield ("moved", m["agent"], logic.plus(m["index"], 1))
                if rule in GRANTS:
                    yield ("given", m["id"], True)
                    yield ("owner", m["id"], m["agent"])
                    yield ("root", m["id"], m["id"])
                    yield ("above", m["id"], logic.joined(frozenset(), m["id"]))
        elif rule == "approve-call":
            key = (m["id"], m["agent"], m["grant"], m["tool"], m["args_digest"], m["expires"])
            enough = logic.at_most(self.get(s, "grant_approvals", m["grant"]), m["consents"])
            signed = logic.conj(enough, logic.at_most(1, m["consents"]))
            yield ("said_call", key, logic.disj(self.get(s, "said_call", *key), signed))
            if accepted:
                yield ("happened", m["id"], True)
        elif rule == "revoke":
            heard = logic.at_most(1, m["consents"])
            taken, owner = self.get(s, "taken", m["grant"]), self.get(s, "owner", m["grant"])
            human = logic.same(self.get(s, "root", m["grant"]), m["grant"])
            first = logic.conj(heard, self.get(s, "given", m["grant"]), human, logic.neg(taken))
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
            above, cost = Across(self.get(s, "above", m["grant"])), self.get(s, "grant_cost", m["grant"])
            yield ("spent", above, lambda one: logic.plus(self.get(s, "spent", one), 1))
            yield ("charged", above, lambda one: logic.plus(self.get(s, "charged", one), cost))
            needed = logic.less(0, self.get(s, "grant_approvals", m["grant"]))
            burned = self.get(s, "burned", m["approval"])
            yield ("burned", m["approval"], logic.disj(burned, needed))
            yield ("owing", m["index"], m["grant"])
            yield ("owed", m["index"], cost)
            for whose in (m["agent"], ""):
                late, due = self.late(s, m), self.get(s, "next", whose)
                begins = logic.when(logic.less(due, late), late, due)
                yield ("next", whose, logic.plus(begins, self.get(s, "pace", whose)))
        elif accepted and rule == "settle":
            above = Across(self.get(s, "above", self.get(s, "owing", m["intent"])))
            back = logic.minus(self.get(s, "owed", m["intent"]), m["spent"])
            yield ("charged", above, lambda one: logic.minus(self.get(s, "charged", one), back))
            yield ("owing", m["intent"], "")
            yield ("owed", m["intent"], 0)
        elif accepted and rule == "delegate":
            yield ("given", m["id"], True)
            yield ("owner", m["id"], m["to"])
            yield ("root", m["id"], self.get(s, "root", m["grant"]))
            yield ("above", m["id"], logic.joined(self.get(s, "above", m["grant"]), m["id"]))
        elif accepted and rule == "drop":
            owner, taken = self.get(s, "owner", m["grant"]), self.get(s, "taken", m["grant"])
            human = logic.same(self.get(s, "root", m["grant"]), m["grant"])
            first = logic.conj(self.get(s, "given", m["grant"]), human, logic.neg(taken))
            yield ("moved", owner, logic.when(first, logic.plus(m["index"], 1), self.get(s, "moved", owner)))
            yield ("taken", m["grant"], True)
        if accepted:
            yield ("time", "", self.late(s, m))
        if rule in _NUMBERED:
            yield ("length", "", logic.plus(m["index"], 1))

    def assumed(self, rule: str, s: Any, m: Message) -> Iterable[Any]:
        """What replay guarantees about a message and the proof takes for granted: an entry's index is its own."""
        if rule in _NUMBERED:
            yield self.logic.at_most(self.get(s, "length"), m["index"])
            yield self.logic.at_most(0, m["index"])
        if rule == "flag-key":
            yield self.logic.at_most(0, m["since"])
        if rule == "reconfigure":
            for act in ACTS:
                yield self.logic.at_most(1, m[f"quorum_{act.replace('-', '_')}"])
        if rule in (*GRANTS, "delegate"):
            yield self.logic.neg(self.logic.same(m["id"], ""))
        if rule == "set-quota":
            yield self.logic.at_most(0, m["every"])
            yield self.logic.at_most(0, m["slack"])
        if rule in GRANTS:
            for one in ("every", "slack", "cost", "approvals", "budget"):
                yield self.logic.at_most(0, m[one])

    # Rule 3: the promises about one message that was let through

    def lawful(self, s: Any, m: Message) -> Iterable[tuple[str, Any]]:
        """A call is let through only if humans signed all of it, and none of it was taken away."""
        logic, grant, launch = self.logic, m["grant"], m["launch"]
        agent, module, config, tool, action, where = self.content(s, grant)
        expires, late = self.get(s, "launch_expires", launch), self.late(s, m)
        above, root = self.get(s, "above", grant), self.get(s, "root", grant)
        yield "it is, or is a part of, a grant that a quorum signed in exactly this form", self.human(s, root)
        yield "which is among those that it must keep to", logic.member(above, root)
        yield (
            "all of them cover the arguments, for the same action",
            logic.forall(
                above,
                lambda one: logic.conj(
                    logic.covers(self.get(s, "grant_where", one), m["args"]),
                    logic.same(self.get(s, "grant_action", one), m["action"]),
                ),
            ),
        )
        yield (
            "none of them was taken, has expired or is used up",
            logic.forall(
                above,
                lambda one: logic.conj(
                    logic.neg(self.get(s, "taken", one)),
                    logic.less(late, self.get(s, "grant_expires", one)),
                    logic.less(0, self.get(s, "grant_left", one)),
                ),
            ),
        )
        cost = self.get(s, "grant_cost", grant)
        yield (
            "each of them can pay for it, and none is used too often",
            logic.forall(
                above,
                lambda one: logic.conj(
                    logic.at_most(cost, self.get(s, "grant_budget", one)),
                    logic.at_most(self.get(s, "grant_full", one), logic.plus(late, self.get(s, "grant_slack", one))),
                ),
            ),
        )
        for whose, name in ((m["agent"], "its agent"), ("", "all agents together")):
            within = logic.plus(late, self.get(s, "lead", whose))
            yield f"it is within the quota of {name}", logic.at_most(self.get(s, "next", whose), within)
        call, needed = m["approval"], self.get(s, "grant_approvals", grant)
        free, until = logic.at_most(needed, 0), self.get(s, "call_expires", call)
        said = self.get(s, "said_call", call, m["agent"], grant, m["tool"], m["args_digest"], until)
        ready = logic.conj(said, logic.neg(self.get(s, "burned", call)), logic.less(late, until))
        yield "as many humans as it asks for approved this very call, once", logic.disj(free, ready)
        client = m["client"]
        nobody, over = logic.same(client, ""), self.get(s, "above", client)
        yield "who it acts for could do it as well", logic.disj(nobody, logic.conj(
            self.get(s, "given", client),
            logic.same(self.get(s, "grant_action", client), m["action"]),
            logic.covers(self.get(s, "grant_where", client), m["client_args"]),
            logic.agree(m["args"], m["client_args"]),
            logic.forall(over, lambda one: logic.neg(self.get(s, "taken", one))),
            logic.forall(over, lambda one: logic.less(late, self.get(s, "grant_expires", one))),
        ))  # fmt: skip
        yield "to this agent", logic.same(agent, m["agent"])
        yield "for this tool", logic.same(tool, m["tool"])
        yield "for this action", logic.same(action, m["action"])
        yield "its constraints cover the arguments", logic.covers(where, m["args"])
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

    def human(self, s: Any, grant: Any) -> Any:
        """What the kernel wrote down of a grant is what its quorum signed, less what was spent."""
        calls = self.logic.plus(self.get(s, "grant_left", grant), self.get(s, "spent", grant))
        budget = self.logic.plus(self.get(s, "grant_budget", grant), self.get(s, "charged", grant))
        rest = tuple(self.get(s, f"grant_{one}", grant) for one in ("every", "slack", "cost", "approvals"))
        until = self.get(s, "grant_expires", grant)
        return self.get(s, "said_grant", grant, *self.content(s, grant), calls, until, *rest, budget)

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
        if rule in ("launch", *GRANTS, "set-quota"):
            yield "its signer saw every earlier change", logic.at_most(self.get(s, "moved", m["agent"]), m["head"])
        if rule in ("launch", "grant"):
            yield "a quorum signed the code, as an agent's", self.get(s, "said_module", m["module"], False)
            yield "a quorum signed the cage", self.get(s, "said_profile", m["config"])
        if rule == "reconfigure":
            after = logic.at_most(m["quorum_reconfigure"], m["consents_after"])
            yield "the quorum of the version that it makes consents too", after
            yield "it makes the next version", logic.same(m["version"], logic.plus(self.get(s, "edition"), 1))
        if rule == "break-glass":
            yield "it lasts for an hour", logic.at_most(m["grant_expires"], logic.plus(self.late(s, m), HOUR_MS))
        if rule in GRANTS:
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
        if rule == "approve-call":
            late = self.late(s, m)
            yield "it never took effect before", logic.neg(self.get(s, "happened", m["id"]))
            yield "it is valid", logic.conj(logic.at_most(m["not_before"], late), logic.less(late, m["expires"]))
            needed = self.get(s, "grant_approvals", m["grant"])
            enough = logic.conj(logic.at_most(1, m["consents"]), logic.at_most(needed, m["consents"]))
            yield "as many humans as the grant asks for consent", enough
            given, owner = self.get(s, "given", m["grant"]), self.get(s, "owner", m["grant"])
            yield "to this agent's grant", self.implies(given, logic.same(owner, m["agent"]))
        if rule == "settle":
            owed = self.get(s, "owed", m["intent"])
            yield (
                "no more comes back than was charged",
                logic.conj(logic.at_most(0, m["spent"]), logic.at_most(m["spent"], owed)),
            )
        if rule == "drop":
            given, owner = self.get(s, "given", m["grant"]), self.get(s, "owner", m["grant"])
            yield "it is the agent's own", self.implies(given, logic.same(owner, m["agent"]))
        if rule == "delegate":
            grant, late = m["grant"], self.late(s, m)
            yield "the sender holds it", logic.same(self.get(s, "owner", grant), m["agent"])
            yield "the sender may hand it on", logic.less(0, self.get(s, "grant_delegable", grant))
            fewer = logic.less(m["delegable"], self.get(s, "grant_delegable", grant))
            yield "the part can be handed on less often", logic.conj(logic.at_most(0, m["delegable"]), fewer)
            yield (
                "nobody took it or what it came from",
                logic.forall(self.get(s, "above", grant), lambda one: logic.neg(self.get(s, "taken", one))),
            )
            yield (
                "the part covers no more",
                self.implies(
                    logic.covers(m["where"], m["args"]), logic.covers(self.get(s, "grant_where", grant), m["args"])
                ),
            )
            yield "the part allows no more calls", logic.at_most(m["calls"], self.get(s, "grant_left", grant))
            yield "the part lasts no longer", logic.at_most(m["grant_expires"], self.get(s, "grant_expires", grant))
            yield "the part costs no more", logic.at_most(m["budget"], self.get(s, "grant_budget", grant))
            yield (
                "its receiver runs",
                logic.conj(self.get(s, "began", m["child"]), logic.neg(self.get(s, "over", m["child"]))),
            )
            yield "its id is new", logic.neg(self.get(s, "given", m["id"]))
            yield "it has not expired", logic.less(late, m["grant_expires"])

    def heard(self, rule: str, s: Any, m: Message) -> Any:
        """Whether this message must be accepted, whatever the state: taking away is never refused."""
        return rule == "order-stop" or self.logic.at_most(1, m["consents"])

    def gained(self, rule: str, s: Any, m: Message, call: Message) -> Any:
        """The powers that a message may add: those under the grant, or of the launch, that it is about."""
        if rule in GRANTS:
            return self.logic.disj(self.logic.same(call["grant"], m["id"]), self.logic.same(call["client"], m["id"]))
        if rule == "start":
            return self.logic.same(call["launch"], m["launch"])
        if rule == "set-quota":
            return self.logic.disj(self.logic.same(m["agent"], call["agent"]), self.logic.same(m["agent"], ""))
        if rule == "approve-call":
            return self.logic.same(call["approval"], m["id"])
        if rule == "delegate":  # nothing that the sender's grant would not let through
            covered = self.logic.covers(self.get(s, "grant_where", m["grant"]), call["args"])
            mine = self.logic.conj(self.logic.same(call["agent"], m["to"]), covered)
            part = self.logic.conj(self.logic.same(call["grant"], m["id"]), mine)
            return self.logic.disj(part, self.logic.same(call["client"], m["id"]))
        return rule == "settle"  # what was charged and not spent comes back; conservation bounds it

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
            paid = self.get(s, "owner", m["grant"])
            yield "the caller pays", logic.same(paid, m["agent"])
            charged = logic.member(self.get(s, "above", m["grant"]), grant)
            yield (
                "a call burns one call of its grant and of each that it is a part of, and of no other",
                logic.same(then, logic.when(charged, logic.plus(left, -1), left)),
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
        if rule != "withdraw-module":
            yield (
                "an approved module stays what it is",
                self.implies(
                    logic.neg(logic.same(kind, _ABSENT)), logic.same(kind, self.get(after, "module", v["module"]))
                ),
            )
        for act in ACTS:
            new = m[f"quorum_{act.replace('-', '_')}"] if rule == "reconfigure" else self.get(s, "quorum", act)
            same = logic.same(new, self.get(after, "quorum", act))
            yield f"only a version of the trust root that both quorums signed changes the quorum of {act}", same
        was, then = self.get(s, "flagged", v["key"]), self.get(after, "flagged", v["key"])
        kept = logic.conj(logic.less(0, then), logic.at_most(then, was))
        yield "a flagged key stays flagged, since then or before", self.implies(logic.less(0, was), kept)


#: The rules whose message carries the index of its entry.
_NUMBERED: Final = (
    "approve-module", "approve-profile", "launch", "grant", "set-quota", "revoke", "stop", "challenge", "invoke",
    "drop", "break-glass", "reconfigure", "flag-key", "review", "withdraw-module", "withdraw-profile",
)  # fmt: skip


# Rule 2: the invariants


def _clock(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.same(q.get(s, "clock"), q.get(s, "time"))


def _quorum(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.at_most(1, q.get(s, "quorum", v["act"]))


def _edition(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.same(q.get(s, "version"), q.get(s, "edition"))


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
    code = q.get(s, "said_module", q.get(s, "launch_module", launch), q.get(s, "launch_canary", launch))
    cage = q.get(s, "said_profile", q.get(s, "launch_config", launch))
    return q.implies(known, logic.conj(code, cage))


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
    action = logic.same(q.get(s, "grant_action", grant), q.get(s, "grant_action", other))
    above = logic.member(q.get(s, "above", grant), other)
    alone = q.implies(logic.same(q.get(s, "root", grant), grant), logic.same(grant, other))
    return q.implies(above, logic.conj(q.get(s, "given", grant), q.get(s, "given", other), wider, action, alone))


def _nobody(q: Specification, s: Any, v: Message) -> Any:
    return q.logic.neg(q.get(s, "given", ""))


def _budget(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    absent = logic.same(q.get(s, "grant_state", grant), _ABSENT)
    positive = logic.conj(
        logic.at_most(0, q.get(s, "grant_budget", grant)), logic.at_most(0, q.get(s, "grant_cost", grant))
    )
    return logic.conj(positive, q.implies(absent, logic.same(q.get(s, "charged", grant), 0)))


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
        q.implies(logic.neg(logic.same(state, _ABSENT)), ready),
        logic.same(q.get(s, "burned", call), logic.same(state, 2)),
        logic.disj(*(logic.same(state, one) for one in (0, 1, 2))),
    )


def _grant_counts(q: Specification, s: Any, v: Message) -> Any:
    grant, logic = v["grant"], q.logic
    left, spent = q.get(s, "grant_left", grant), q.get(s, "spent", grant)
    absent = logic.same(q.get(s, "grant_state", grant), _ABSENT)
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
        logic.same(taken, logic.same(state, _REVOKED)),
        logic.same(logic.same(state, _LIVE), logic.conj(given, logic.neg(taken))),
        logic.disj(*(logic.same(state, one) for one in (_ABSENT, _LIVE, _REVOKED))),
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


#: Name → (the values that it is about, the formula). All of them together are the hypothesis of every obligation.
INVARIANTS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Specification, Any, Message], Any]]]] = {
    "the clock is the latest time": ((), _clock),
    "every act takes a human": (("act",), _quorum),
    "the version in force is the latest that took effect": ((), _edition),
    "an approved module was signed by its quorum": (("module",), _module),
    "an approved profile was signed by its quorum": (("config",), _profile),
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
    "a part covers nothing that what it is a part of doesn't": (("grant", "other", "args"), _within),
    "no grant has no name": ((), _nobody),
    "budget left and budget charged are conserved": (("grant",), _budget),
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

#: The sorts of the values that invariants and steps are about.
VALUES: Final[Mapping[str, str]] = {
    "act": "Act", "agent": "Agent", "module": "Module", "config": "Config", "grant": "Id", "id": "Id", "launch": NUMBER,
    "other": "Id", "args": "Args", "key": "Key",
}  # fmt: skip
