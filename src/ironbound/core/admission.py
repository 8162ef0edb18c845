"""What people's requests do: from their signatures to the kernel's rule, and to the trust root and the books.

It decides which rule and which message a request is for the kernel, and what else must be so for it: that its subjects
are whole, that the capability it shows is the agent's, that what it changes is what its signers saw. The signatures
`request` checks, and whether it may happen the kernel's table.

Rule 1: no entry's word for it: every request is admitted by the humans' signatures, checked here, each time.
Rule 2: a key that counts for nothing takes with it what rests on it, for good, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from .authority import FIELDS, LIVE, Authority, Refused
from .books import Act, Approved, Books, BrokenGlass, Grant, Launch, Release, approved_as
from .canonical import FormatError, b64decode, canonical, sha256_hex
from .constraint import Where, parse_where
from .envelope import Envelope, envelope_from_value
from .proposal import MAX_OPEN, Proposal
from .request import BREAK_GLASS, Consent, Signatory, standing, verify_consent, verify_decline
from .roster import changed, counted, flagged
from .snapshot import Resumable
from .statement import QUORUMS
from .trust import Human, Roster, TrustRoot

#: Tools of the gateway itself; no grant's tool is called so.
RESERVED_TOOLS: Final = "ironbound."
#: More humans than any roster has.
EVERYBODY: Final = 1 << 20


class Admission(Resumable):
    """What a fold does with requests; `replay.Replay` is one. `size`, `tree`, `authority` and `books` are its state."""

    books: Books

    @property
    def size(self) -> int:
        """How many entries have been folded."""
        return self.tree.size

    @property
    def authority(self) -> Authority:
        """The kernel's state, as of all entries folded."""
        return self._authority

    @property
    def trust(self) -> TrustRoot:
        """The trust root in the version that is in force now; FormatError before entry 0."""
        if self._trust is None:
            raise FormatError("trust-root-missing", "the log has no trust root yet")
        return self._trust

    def consider(self, request: Envelope, approvals: Sequence[Envelope], now_ms: int) -> Consent:
        """Would this request be admitted as the next entry? The consent if so, else Refused. Changes nothing."""
        consent = verify_consent(self.trust, request, approvals, self._latest(now_ms), self.books.issuers)
        rule, message = self._asked(consent, self.size, now_ms)
        reason = self._authority.check(rule, message)
        if reason is not None:
            raise Refused(reason)
        return consent

    def prospect(self, request: Envelope, now_ms: int) -> str | None:
        """Why this request could not be admitted now, however many humans agreed; None if only they are missing."""
        try:
            consent = verify_consent(self.trust, request, [], self._latest(now_ms), self.books.issuers)
            rule, message = self._asked(consent, self.size, now_ms)
        except Refused as refusal:
            return refusal.reason
        return self._authority.check(rule, message | {"consents": EVERYBODY, "consents_after": EVERYBODY})

    def holds(self, agent: str) -> list[str]:
        """The ids of the agent's grants from humans that are not revoked, sorted: what a request calls `before`.

        What other agents handed on to it lies within what humans signed for those, and would let an agent make every
        request about another stale.
        """
        return [
            one
            for one in sorted(self.books.grants_of.get(agent, {}))
            if self._authority.read("grant_state", one) == LIVE and self.books.grants[one].parent is None
        ]

    def counting(self, proposal: Proposal, now_ms: int) -> list[tuple[Envelope, Human]]:
        """The approvals of a proposal that count now: who was removed, or whose key was flagged, approves no more."""
        found = []
        asked, now_ms = proposal.asked, self._latest(now_ms)
        for value, human in proposal.approvals:
            one = envelope_from_value(dict(value))
            try:
                verify_consent(self.trust, asked, [one], now_ms, self.books.issuers)
            except Refused:
                continue
            found.append((one, human))
        return found

    def stands(self, index: int) -> bool:
        """True unless what this entry gave rests on a key that was compromised then, as far as is known by now."""
        bars = self.books.acts[index].bars
        return all(len(standing(self.trust, index, people)) >= needed for needed, people in bars)

    def _admitted(self, index: int, said: Mapping[str, Any]) -> Consent:
        request = envelope_from_value(said["request"])
        approvals = [envelope_from_value(one) for one in said["approvals"]]
        consent = verify_consent(self.trust, request, approvals, self._latest(said["at_ms"]), self.books.issuers)
        rule, message = self._asked(consent, index, said["at_ms"])
        bars = self._bars(consent)
        self._authority.apply(rule, message)
        self._remember(consent, message)
        if bars:
            kind, asked = consent.statement.kind, consent.statement.predicate
            about = {
                "module-approval": message["module"],
                "profile-approval": message["config"],
                "release-approval": message.get("release"),
                "call-approval": message.get("grant"),
            }
            self.books.acts[index] = Act(kind, str(about.get(kind, asked["id"])), bars)
        self._reform(consent, message)
        if consent.digest in self.books.proposals:
            proposal = self.books.proposals[consent.digest]
            self.books.proposals[consent.digest] = replace(proposal, applied=index)
        return consent

    def _proposed(self, index: int, said: Mapping[str, Any]) -> None:
        request = envelope_from_value(said["request"])
        consent = verify_consent(self.trust, request, [], self._latest(said["at_ms"]), self.books.issuers)
        asked, kind = consent.statement.predicate, consent.statement.kind
        if consent.act is None:
            raise Refused("one-is-enough")
        if request.digest in self.books.proposals or self._authority.read("used", asked["id"]):
            raise Refused("request-replayed")
        self.require_room(request, said["at_ms"])
        self.books.proposals[request.digest] = Proposal(
            index,
            request.digest,
            said["request"],
            kind,
            asked["id"],
            asked["agent"],
            consent.initiator,
            asked["expires_ms"],
        )

    def _seconded(self, index: int, said: Mapping[str, Any]) -> None:
        proposal = self.books.proposals.get(said["request_sha256"])
        if proposal is None:
            raise Refused("proposal-unknown")
        self.require_open(proposal)
        approvals = [one for one, _ in self.counting(proposal, said["at_ms"])] + [envelope_from_value(said["approval"])]
        now_ms = self._latest(said["at_ms"])
        consent = verify_consent(self.trust, proposal.asked, approvals, now_ms, self.books.issuers)
        last = (said["approval"], consent.signatories[-1].human)
        made = replace(proposal, approvals=(*proposal.approvals, last))
        self.books.proposals[proposal.digest] = made

    def _declined(self, index: int, said: Mapping[str, Any]) -> None:
        proposal = self.books.proposals.get(said["request_sha256"])
        if proposal is None:
            raise Refused("proposal-unknown")
        human = self.declines(proposal, envelope_from_value(said["decline"]), said["at_ms"])
        self.books.proposals[proposal.digest] = replace(proposal, declined=index, declined_by=human)

    def declines(self, proposal: Proposal, decline: Envelope, now_ms: int) -> Human:
        """Who declines a proposal, if this were the next entry; else Refused. Changes nothing."""
        self.require_open(proposal)
        return verify_decline(self.trust, proposal.asked, decline, self._latest(now_ms), self.books.issuers)

    def require_room(self, request: Envelope, now_ms: int) -> None:
        """Who asks has fewer requests waiting than anybody can have."""
        people, now_ms = {**self.trust.sealed, **self.trust.humans}, self._latest(now_ms)
        askers = {people.get(one.keyid) for one in request.signatures}
        waiting = (one for one in self.books.proposals.values() if one.initiator in askers and one.is_open(now_ms))
        if sum(1 for _ in waiting) >= MAX_OPEN:
            raise Refused("too-many-proposals")

    def require_open(self, proposal: Proposal) -> None:
        """It was neither applied nor declined, so that it can still be answered."""
        if proposal.applied >= 0:
            raise Refused("request-replayed")
        if proposal.declined >= 0:
            raise Refused("request-declined")

    def _bars(self, consent: Consent) -> tuple[tuple[int, tuple[Signatory, ...]], ...]:
        """The quorums that a request meets, with who counted for each; none for what takes away."""
        if consent.act is None:
            return ()
        if consent.people is not None:
            return tuple(
                (people.quorum["reconfigure"], tuple(one for one in consent.signatories if one.keyid in people.humans))
                for people in (self.trust, consent.people)
            )
        needed = self._authority.read("quorum", consent.act)
        if consent.statement.kind == "call-approval":
            needed = self._authority.read("grant_approvals", consent.statement.predicate["body"]["grant"])
        return ((max(1, needed), consent.signatories),)

    def _reform(self, consent: Consent, message: Mapping[str, Any]) -> None:
        """What a request does to the trust root, and what a key that counts for nothing takes with it."""
        body = consent.statement.predicate["body"]
        if consent.people is not None:
            self._trust = changed(self.trust, body["root"], consent.people)
        elif consent.statement.kind == "key-compromised":
            stood = [index for index in self.books.acts if self.stands(index)]
            self._trust = flagged(self.trust, body["key"], body["since"])
            for index in stood:
                if not self.stands(index):
                    self._undo(index, message)
        elif consent.statement.kind == "review":
            glass = self.books.broken_glass[body["grant"]]
            self.books.broken_glass[body["grant"]] = replace(glass, reviews=(*glass.reviews, message["index"]))
            if body["finding"] == "misused":
                self._authority.apply("revoke", message)

    def _undo(self, index: int, message: Mapping[str, Any]) -> None:
        """Take away what this act gave, for good. What another act gives, or gives anew, stays."""
        act = self.books.acts[index]
        if act.kind in ("grant", "call-approval"):
            self._authority.apply("revoke", {**message, "grant": act.about})
        elif act.kind == "launch-request":
            self._authority.apply("order-stop", {**message, "launch": index})
        elif act.kind in ("module-approval", "profile-approval", "release-approval"):
            same = [at for at, one in self.books.acts.items() if (one.kind, one.about) == (act.kind, act.about)]
            if any(self.stands(at) for at in same):
                return
            if act.kind == "release-approval":
                self._authority.apply("withdraw-release", {**message, "release": act.about})
                for launch in self.books.launches.values():
                    if launch.ended < 0 and self.books.release == act.about:
                        self._authority.apply("order-stop", {**message, "launch": launch.index})
                return
            code = act.kind == "module-approval"
            field, rule = ("module", "withdraw-module") if code else ("config", "withdraw-profile")
            self._authority.apply(rule, {**message, field: act.about})
            for grant in self.books.grants.values():
                if getattr(grant, field) == act.about:
                    self._authority.apply("revoke", {**message, "grant": grant.id})
            for launch in self.books.launches.values():
                if getattr(launch, field) == act.about and launch.ended < 0:
                    self._authority.apply("order-stop", {**message, "launch": launch.index})

    def _latest(self, now_ms: int) -> int:
        """As the kernel's clock: a controller that dates its word back can't revive an approval."""
        return max(now_ms, int(self._authority.read("clock", "")))

    def _asked(self, consent: Consent, index: int, now_ms: int) -> tuple[str, dict[str, Any]]:
        """The kernel's rule and message for a request that humans consent to, and that none of them declined."""
        proposal = self.books.proposals.get(consent.digest)
        if proposal is not None and proposal.declined >= 0:
            raise Refused("request-declined")
        asked, statement = consent.statement.predicate, consent.statement
        body = asked["body"]
        message: dict[str, Any] = {
            "index": index,
            "now": now_ms,
            "id": asked["id"],
            "consents": self._consents(consent),
            "not_before": asked["not_before_ms"],
            "expires": asked["expires_ms"],
            "head": asked["log_head"]["size"],
            "head_known": self._head_known(asked["log_head"]),
            "agent": asked["agent"],
            "module": asked["module_sha256"],
            "config": asked["config_sha256"],
        }
        about_agent = ("launch-request", "grant", "call-approval")
        needs_module = statement.kind in ("module-approval", *about_agent)
        needs_config = statement.kind in ("profile-approval", *about_agent)
        if needs_module != (asked["module_sha256"] is not None) and statement.kind not in ("revocation", "stop"):
            raise Refused("body-malformed")
        if needs_config != (asked["config_sha256"] is not None) and statement.kind not in ("revocation", "stop"):
            raise Refused("body-malformed")
        if statement.kind not in ("revocation", "stop"):  # what takes away is never refused
            before = [] if asked["agent"] is None else self.holds(asked["agent"])
            gained = [asked["id"]] if statement.kind == "grant" else []
            if asked["capability"] != {"before": before, "after": sorted(before + gained)}:
                raise Refused("head-stale" if self._seen_less(message) else "capability-differs")
        if statement.kind == "grant":
            message |= {
                "tool": body["tool"],
                "action": body["action"],
                "where": where_of(body["where"]),
                "calls": body["calls"],
                "grant_expires": body["expires_ms"],
                "approvals": body["approvals"],
                "delegable": body["delegable"],
                **limits_of(body["rate"], body["budget"]),
            }
            if body["tool"].startswith(RESERVED_TOOLS):
                raise Refused("body-malformed")
        elif statement.kind == "call-approval":
            grant = self.books.grants.get(body["grant"])
            if grant is not None and (asked["module_sha256"], asked["config_sha256"]) != (grant.module, grant.config):
                raise Refused("subject-differs")
            digest = sha256_hex(canonical(body["args"]))
            message |= {"grant": body["grant"], "tool": body["tool"], "args_digest": digest}
        elif statement.kind == "module-approval":
            if (body["kind"] == "canary") != (body["probe"] is not None):
                raise Refused("body-malformed")
            message["canary"] = body["kind"] == "canary"
        elif statement.kind == "release-approval":
            message["release"] = approved_as(
                body["release_sha256"], body["settings_sha256"], body["statements"]["install"]
            )
        elif statement.kind == "quota":
            message |= {"agent": asked["agent"] or "", **limits_of(body["after"], None)}
            if body["before"] != self.books.quotas.get(message["agent"]):
                raise Refused("head-stale" if self._seen_less(message) else "capability-differs")
        elif statement.kind == "revocation":
            message["grant"] = body["grant"]
        elif consent.people is not None:
            message |= {"version": body["root"]["version"], "consents_after": self._consents(consent, consent.people)}
            for act in (*QUORUMS, BREAK_GLASS):
                quorum = consent.people.quorum.get(act, FIELDS["quorum"])
                message[f"quorum_{act.replace('-', '_')}"] = quorum
        elif statement.kind == "key-compromised":
            if body["key"] not in {**self.trust.humans, **self.trust.sealed, **self.trust.former}:
                raise Refused("key-unknown")
            message |= {"key": body["key"], "since": body["since"]}
        elif statement.kind == "review":
            glass = self.books.broken_glass.get(body["grant"])
            if glass is None or glass.request != body["request_sha256"]:
                raise Refused("nothing-to-review")
            message["grant"] = body["grant"]
        return BREAK_GLASS if consent.act == BREAK_GLASS else _RULE_OF[statement.kind], message

    def _consents(self, consent: Consent, people: Roster | None = None) -> int:
        """How many humans consent; to a change of the trust root, by the keys of one version."""
        if consent.people is None:
            return len(consent.humans)
        return len(counted(people or self.trust, [one.keyid for one in consent.signatories]))

    def _seen_less(self, message: Mapping[str, Any]) -> bool:
        return bool(message["head"] < self._authority.read("agent_changed", message["agent"]))

    def _head_known(self, head: Mapping[str, Any]) -> bool:
        size = head["size"]
        return 0 < size <= self.tree.size and b64decode(head["root"]) == self.tree.root_at(size)

    def _remember(self, consent: Consent, message: Mapping[str, Any]) -> None:
        asked, kind, index = consent.statement.predicate, consent.statement.kind, message["index"]
        self.books.signed[index] = consent.signatories
        humans = tuple(str(human) for human in consent.humans)
        body = asked["body"]
        if kind == "module-approval":
            name = body["probe"].get("probe", "") if body["kind"] == "canary" else "agent"
            approved = Approved(index, str(name), humans, body["probe"], body["surface_sha256"])
            self.books.modules[asked["module_sha256"]] = approved
        elif kind == "profile-approval":
            self.books.profiles[asked["config_sha256"]] = Approved(index, body["profile"], humans)
        elif kind == "release-approval":
            self.books.releases[message["release"]] = Release(
                index, body["release_sha256"], body["settings_sha256"], body["statements"], humans
            )
        elif kind == "launch-request":
            self.books.launches[index] = Launch(
                index,
                asked["agent"],
                asked["module_sha256"],
                asked["config_sha256"],
                None,
                humans,
                asked["expires_ms"],
            )
        elif kind == "grant":
            self.books.grants[asked["id"]] = Grant(
                index,
                asked["id"],
                asked["agent"],
                asked["module_sha256"],
                asked["config_sha256"],
                body["tool"],
                body["action"],
                message["where"],
                body["where"],
                body["calls"],
                body["expires_ms"],
                body["credential"],
                humans,
                body["rate"],
                body["budget"],
                body["approvals"],
                body["delegable"],
            )
            self.books.grants_of.setdefault(asked["agent"], {})[asked["id"]] = None
            if consent.act == BREAK_GLASS:
                self.books.broken_glass[asked["id"]] = BrokenGlass(index, consent.digest)
        elif kind == "quota":
            self.books.quotas[message["agent"]] = body["after"]
        elif kind == "call-approval":
            self.books.approved_calls.setdefault((body["grant"], message["args_digest"]), []).append(asked["id"])


def where_of(value: Any) -> Where:
    try:
        return parse_where(value)
    except FormatError as error:
        raise Refused("body-malformed") from error


def limits_of(rate: Mapping[str, int] | None, budget: Mapping[str, int] | None) -> dict[str, int]:
    """A grant's rate and budget as the kernel counts them."""
    every = slack = total = cost = 0
    if rate is not None:
        every = -(-rate["window_ms"] // rate["calls"])
        slack = every * (rate["calls"] - 1)
    if budget is not None:
        total, cost = budget["total"], budget["call"]
    return {"every": every, "slack": slack, "budget": total, "cost": cost}


_RULE_OF: Final[Mapping[str, str]] = {
    "module-approval": "approve-module",
    "profile-approval": "approve-profile",
    "release-approval": "approve-release",
    "launch-request": "launch",
    "grant": "grant",
    "call-approval": "approve-call",
    "quota": "set-quota",
    "revocation": "revoke",
    "stop": "stop",
    "trust-root-change": "reconfigure",
    "key-compromised": "flag-key",
    "review": "review",
}
