"""What the kernel must never do, as formulas. `docs/proof.md` says the same in plain language.

Each formula is a pure function over the small logic of `core.logic`, as the kernel's rules are: read symbolically it
becomes an obligation for the solvers, read plainly the exhaustive search evaluates it on the running interpreter.

Rule 1: marks are driven as `vocabulary` says.
Rule 2: a *promise* is about one message that was let through, or about the powers before and after it. A power is
        what the guard of `invoke` would really let through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ironbound.core.logic import Across

from .vocabulary import (
    ABSENT,
    ACTS,
    ADMITTED,
    CONTENT,
    DAY_MS,
    ENDED,
    GIVING,
    GRANTS,
    HOUR_MS,
    LIVE,
    MARKS,
    NUMBERED,
    REVOKED,
    STARTED,
    Message,
    Write,
)


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
        return self.logic.disj(self.logic.same(state, ADMITTED), self.logic.same(state, STARTED))

    def live(self, s: Any, grant: Any) -> Any:
        """The kernel takes the grant for live."""
        return self.logic.same(self.get(s, "grant_state", grant), LIVE)

    def content(self, s: Any, grant: Any) -> tuple[Any, ...]:
        """What the kernel wrote down that a grant says, as far as arguments."""
        return tuple(self.get(s, f"grant_{one.lower()}", grant) for one in CONTENT)

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
            elif rule == "approve-release":
                yield ("said_release", m["release"], logic.disj(self.get(s, "said_release", m["release"]), signed))
            elif rule == "launch":
                key = (m["index"], m["agent"], m["module"], m["config"], m["expires"])
                yield ("said_launch", key, logic.disj(self.get(s, "said_launch", *key), signed))
            elif rule in GRANTS:
                key = (m["id"], *(m[one.lower()] for one in CONTENT), m["calls"], m["grant_expires"])
                key += tuple(m[one] for one in ("every", "slack", "cost", "approvals", "budget"))
                yield ("said_grant", key, logic.disj(self.get(s, "said_grant", *key), signed))
            if accepted:
                yield ("happened", m["id"], True)
                if rule == "approve-module":
                    yield ("withdrawn", m["module"], False)
                if rule == "approve-profile":
                    yield ("shut", m["config"], False)
                if rule == "approve-release":
                    yield ("barred", m["release"], False)
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
        elif rule == "withdraw-module":
            heard = logic.at_most(1, m["consents"])
            yield ("withdrawn", m["module"], logic.disj(self.get(s, "withdrawn", m["module"]), heard))
        elif rule == "withdraw-profile":
            heard = logic.at_most(1, m["consents"])
            yield ("shut", m["config"], logic.disj(self.get(s, "shut", m["config"]), heard))
        elif rule == "withdraw-release":
            heard = logic.at_most(1, m["consents"])
            yield ("barred", m["release"], logic.disj(self.get(s, "barred", m["release"]), heard))
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
            yield ("busy", above, lambda one: logic.plus(self._rested(s, one, m), self.get(s, "grant_every", one)))
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
        if rule in NUMBERED:
            yield ("length", "", logic.plus(m["index"], 1))

    def _rested(self, s: Any, grant: Any, m: Message) -> Any:
        """When the bucket would be full if nothing were taken out: a full one stays full."""
        busy, late = self.get(s, "busy", grant), self.late(s, m)
        return self.logic.when(self.logic.less(busy, late), late, busy)

    def assumed(self, rule: str, s: Any, m: Message) -> Iterable[Any]:
        """What replay guarantees about a message and the proof takes for granted: an entry's index is its own."""
        if rule in NUMBERED:
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

    # Rule 2: the promises about one message that was let through

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
                    logic.at_most(self.get(s, "busy", one), logic.plus(late, self.get(s, "grant_slack", one))),
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
            self.able(s, client, late),
            logic.at_most(self.get(s, "grant_approvals", client), needed),
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

    def runs(self, s: Any, launch: Any, agent: Any, module: Any, config: Any) -> Any:
        """A quorum signed this launch of this agent with this code and cage, it runs, and nobody stopped it."""
        logic, expires = self.logic, self.get(s, "launch_expires", launch)
        return logic.conj(
            self.get(s, "said_launch", launch, agent, module, config, expires),
            self.get(s, "began", launch),
            logic.neg(self.get(s, "over", launch)),
            logic.neg(self.get(s, "hostile", launch)),
            logic.neg(self.halted(s, {"launch": launch, "agent": agent})),
        )

    def able(self, s: Any, grant: Any, late: Any) -> Any:
        """Whose grant it is runs, with its code and cage, and could pay for a call under it now."""
        logic, above = self.logic, self.get(s, "above", grant)
        owner, cost = self.get(s, "owner", grant), self.get(s, "grant_cost", grant)
        code = self.get(s, "grant_module", grant), self.get(s, "grant_config", grant)
        return logic.conj(
            self.runs(s, self.get(s, "agent_launch", owner), owner, *code),
            logic.forall(
                above,
                lambda one: logic.conj(
                    logic.less(0, self.get(s, "grant_left", one)),
                    logic.at_most(cost, self.get(s, "grant_budget", one)),
                    logic.at_most(self.get(s, "busy", one), logic.plus(late, self.get(s, "grant_slack", one))),
                ),
            ),
            logic.at_most(self.get(s, "next", owner), logic.plus(late, self.get(s, "lead", owner))),
        )

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
        if rule in ("launch", *GRANTS):
            yield "a quorum signed the code, as an agent's", self.get(s, "said_module", m["module"], False)
            yield "a quorum signed the cage", self.get(s, "said_profile", m["config"])
        if rule in ("launch", *GRANTS, "challenge"):
            yield "nobody withdrew the code", logic.neg(self.get(s, "withdrawn", m["module"]))
            yield "nobody withdrew the cage", logic.neg(self.get(s, "shut", m["config"]))
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
            free = logic.same(m["release"], "")
            signed = logic.conj(
                self.get(s, "said_release", m["release"]), logic.neg(self.get(s, "barred", m["release"]))
            )
            yield (
                "a quorum signed the release that holds it, where it must, and nobody withdrew it",
                logic.disj(free, signed),
            )
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
            launch = m["launch"]
            code = self.get(s, "launch_module", launch), self.get(s, "launch_config", launch)
            yield "the agent runs", self.runs(s, launch, m["agent"], *code)
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
            sender = self.get(s, "grant_module", grant), self.get(s, "grant_config", grant)
            yield "the sender runs", self.runs(s, m["launch"], m["agent"], *sender)
            yield "its receiver runs", self.runs(s, m["child"], m["to"], m["module"], m["config"])
            yield "its id is new", logic.neg(self.get(s, "given", m["id"]))
            yield "it has not expired", logic.less(late, m["grant_expires"])

    def heard(self, rule: str, s: Any, m: Message) -> Any:
        """Whether this message must be accepted, whatever the state: taking away is never refused."""
        return rule == "order-stop" or self.logic.at_most(1, m["consents"])

    def gained(self, rule: str, s: Any, m: Message, call: Message) -> Any:
        """The powers that a message may add: those under the grant, or of the launch, that it is about.

        A power is a call for nobody: to name a client only restricts."""
        if rule in GRANTS:
            return self.logic.same(call["grant"], m["id"])
        if rule == "start":
            return self.logic.same(call["launch"], m["launch"])
        if rule == "set-quota":
            return self.logic.disj(self.logic.same(m["agent"], call["agent"]), self.logic.same(m["agent"], ""))
        if rule == "approve-call":
            return self.logic.same(call["approval"], m["id"])
        if rule == "delegate":  # nothing that the sender's grant would not let through
            covered = self.logic.covers(self.get(s, "grant_where", m["grant"]), call["args"])
            mine = self.logic.conj(self.logic.same(call["agent"], m["to"]), covered)
            return self.logic.conj(self.logic.same(call["grant"], m["id"]), mine)
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
        known = logic.neg(logic.same(self.get(s, "grant_state", grant), ABSENT))
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
        gone = logic.same(self.get(s, "grant_state", grant), REVOKED)
        yield "revoked stays revoked", self.implies(gone, logic.same(self.get(after, "grant_state", grant), REVOKED))
        over = logic.same(self.get(s, "launch_state", launch), ENDED)
        yield "ended stays ended", self.implies(over, logic.same(self.get(after, "launch_state", launch), ENDED))
        was = self.get(s, "launch_stopped", launch)
        yield "stopped stays stopped", self.implies(was, self.get(after, "launch_stopped", launch))
        yield "used stays used", self.implies(self.get(s, "used", one), self.get(after, "used", one))
        yield "time does not go back", logic.at_most(self.get(s, "clock"), self.get(after, "clock"))
        kind = self.get(s, "module", v["module"])
        if rule != "withdraw-module":
            yield (
                "an approved module stays what it is",
                self.implies(
                    logic.neg(logic.same(kind, ABSENT)), logic.same(kind, self.get(after, "module", v["module"]))
                ),
            )
        for act in ACTS:
            new = m[f"quorum_{act.replace('-', '_')}"] if rule == "reconfigure" else self.get(s, "quorum", act)
            same = logic.same(new, self.get(after, "quorum", act))
            yield f"only a version of the trust root that both quorums signed changes the quorum of {act}", same
        was, then = self.get(s, "flagged", v["key"]), self.get(after, "flagged", v["key"])
        kept = logic.conj(logic.less(0, then), logic.at_most(then, was))
        yield "a flagged key stays flagged, since then or before", self.implies(logic.less(0, was), kept)
