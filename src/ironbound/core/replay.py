"""Folds the log's entries, one after another, into the state that everybody shares.

Controller, node, gateway, monitor and verifier run this very code over the same entries. It decides,
for each entry, whether its voice may say it and whether the kernel lets it have an effect. An entry
that may not has none: it is *void*, with a reason, and stays visible. No I/O; the entries come as bytes.

Rule 1: an entry's effect depends on the entries before it and on nothing else.
Rule 2: a service's word admits nothing by itself: the humans' signatures are checked here, each time.
Rule 3: a void entry changes nothing but the tree and, if its voice was entitled, uses up its id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from .authority import FIELDS, LIVE, Authority, Refused
from .canonical import Digest, FormatError, Value, b64decode, canonical, sha256_hex
from .constraint import Where, parse_where
from .envelope import Envelope, envelope_from_value, parse_envelope, verify_envelope
from .held import require_seen
from .jose import IssuerKey, issuer_key
from .keys import SignatureInvalid
from .merkle import Tree, leaf_hash
from .oidc import IssuerKeys
from .proposal import Proposal
from .request import BREAK_GLASS, Consent, Signatory, standing, verify_consent
from .roster import changed, counted, flagged
from .snapshot import Resumable, used_id
from .statement import QUORUMS, VOICES, parse_statement
from .trust import Human, Roster, TrustRoot, parse_trust_root

CANARY_PREFIX: Final = "canary:"
#: Tools of the gateway itself; no grant's tool is called so.
RESERVED_TOOLS: Final = "ironbound."
#: How long after its challenge a canary may be started.
CHALLENGE_LIFE_MS: Final = 60_000
#: A challenge's checkpoint may lack this many entries, the oldest of which was said this long before the challenge.
CHECKPOINT_LAG: Final = 4096
CHECKPOINT_LAG_MS: Final = 60_000
#: More humans than any roster has.
EVERYBODY: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as replayed. `void` is the reason why it has no effect, or None if it has.

    `role` is the service that signed it ("operators" for the trust root, "" if nobody known did); `voiced` is true if
    that service may say this, here, for the first time: what is void then is so for what it says.
    """

    index: int
    data: bytes
    kind: str
    role: str
    predicate: Mapping[str, Any]
    consent: Consent | None = None
    void: str | None = None
    detail: str = ""
    voiced: bool = True


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch that was admitted at `index`, with the indexes of what became of it (-1: not yet)."""

    index: int
    agent: str
    module: Digest
    config: Digest
    nonce: str | None
    humans: tuple[str, ...]
    expires_ms: int
    started: int = -1
    ended: int = -1


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as its request, or the agent that handed it on, says it; whether it still holds, only the kernel knows.

    `humans` signed it, or that which it is a part of; `parent` is the grant that an agent took it from.
    """

    index: int
    id: str
    agent: str
    module: Digest
    config: Digest
    tool: str
    action: str
    where: Where
    where_value: Any
    calls: int
    expires_ms: int
    credential: str | None
    humans: tuple[str, ...]
    rate: Mapping[str, int] | None
    budget: Mapping[str, Any] | None
    approvals: int
    delegable: int
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Approved:
    """A module or a profile that the quorum approved by digest; `surface` is that of the module's document."""

    index: int
    name: str
    humans: tuple[str, ...]
    probe: Any = None
    surface: str | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """What gave power: a request of this kind, the id or digest that it is about, the quorums that it had to meet."""

    kind: str
    about: str
    bars: tuple[tuple[int, tuple[Signatory, ...]], ...]


@dataclass(frozen=True, slots=True)
class BrokenGlass:
    """A grant by sealed keys: its entry, its request's digest, and the entries in which the quorum reviewed it."""

    index: int
    request: Digest
    reviews: tuple[int, ...] = ()


@dataclass(slots=True)
class Books:
    """What was said, indexed for reading. The authority decides; these only remember.

    `started` holds what the node said of the launches that run now, by the index of that entry; `challenges` what the
    monitor asked, by the index of the challenge, and `answered` which of them have a result; `signed` who stands behind
    what was admitted, by its index, and `acts` what of it gave power; `broken_glass` the grants by sealed keys;
    `issuers` the identity providers' keys, as controller and monitor said them last.
    """

    launches: dict[int, Launch] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    grants_of: dict[str, dict[str, None]] = field(default_factory=dict)
    modules: dict[str, Approved] = field(default_factory=dict)
    profiles: dict[str, Approved] = field(default_factory=dict)
    started: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    challenges: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    open_intents: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    signed: dict[int, tuple[Signatory, ...]] = field(default_factory=dict)
    acts: dict[int, Act] = field(default_factory=dict)
    broken_glass: dict[str, BrokenGlass] = field(default_factory=dict)
    approved_calls: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    quotas: dict[str, Mapping[str, int] | None] = field(default_factory=dict)  # by agent; "" for all together
    proposals: dict[Digest, Proposal] = field(default_factory=dict)  # by the request's digest
    kinds: list[str] = field(default_factory=list)
    void: dict[int, str] = field(default_factory=dict)
    issuers: dict[str, IssuerKeys] = field(default_factory=dict)


class Replay(Resumable):
    """The fold. `apply` takes the next entry's bytes; `size`, `tree`, `authority` and `books` are its state."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.books: Books = Books()
        self._trust: TrustRoot | None = None
        self._authority = Authority({})
        self._ids: dict[bytes, None] = {}  # in order
        self._times: deque[int] = deque([0], maxlen=CHECKPOINT_LAG + 1)  # when each of the last entries was said

    @property
    def size(self) -> int:
        """How many entries have been folded."""
        return self.tree.size

    @property
    def trust(self) -> TrustRoot:
        """The trust root in the version that is in force now; FormatError before entry 0."""
        if self._trust is None:
            raise FormatError("trust-root-missing", "the log has no trust root yet")
        return self._trust

    @property
    def authority(self) -> Authority:
        """The kernel's state, as of all entries folded."""
        return self._authority

    def apply(self, data: bytes) -> Entry:
        """Fold the next entry. Never raises for what an entry says: what is wrong with it makes it void.

        Only a wrong entry 0 raises (FormatError, SignatureInvalid): without a trust root nothing has a meaning.
        """
        index = self.tree.size
        if index == 0:
            self._trust = parse_trust_root(data)
            self._authority = Authority(self._trust.quorum)
            body = parse_statement(self._trust.envelope.payload).predicate
            entry = Entry(0, data, "trust-root", "operators", body)
        else:
            entry = self._voiced(index, data)
        self.tree.append(leaf_hash(data))
        self._times.append(self._times[-1] if entry.void else entry.predicate.get("at_ms", 0))
        self.books.kinds.append("" if entry.void else entry.kind)
        if entry.void:
            self.books.void[index] = entry.void
        if self.tree.size == self._due:
            self._take()
        return entry

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

    def call_refused(self, said: Mapping[str, Any], now_ms: int) -> str | None:
        """Why an intent of these fields would be void now, or None. Changes nothing."""
        return self._authority.check("invoke", _call(said, -1, now_ms))

    def delegation_refused(self, said: Mapping[str, Any], now_ms: int) -> str | None:
        """Why a delegation of these fields would be void now, or None. Changes nothing."""
        try:
            return self._authority.check("delegate", self._delegation(said, "", -1, now_ms))
        except Refused as refusal:
            return refusal.reason

    def approval_of(self, grant: str, args: Value) -> str | None:
        """An unused approval of a call with these arguments (as the log shows them)."""
        found = self.books.approved_calls.get((grant, sha256_hex(canonical(args))), [])
        now = int(self._authority.read("clock", ""))
        return next((one for one in found if now < self._authority.read("call_expires", one)), None)

    def lives(self, grant: str, now_ms: int) -> bool:
        """True if the grant, and every one that it is a part of, lives and has calls left."""
        return self._authority.holds(grant, now_ms)

    def grant_named(self, agent: str, tool: str) -> Grant | None:
        """The grant that a tool's name stands for now; it may have expired or been used up."""
        return self.books.grants.get(self._authority.read("tool_grant", (agent, tool)))

    def _voiced(self, index: int, data: bytes) -> Entry:
        """(1) one enrolled service signed it  (2) it is a statement for here  (3) which that service may say
        (4) for the first time  (5) and the kernel or the books accept."""
        role = ""
        try:
            envelope = parse_envelope(data)
            role = self.trust.voices.get(envelope.signatures[0].keyid, "")  # (1)
            if not role or len(envelope.signatures) != 1:
                return Entry(index, data, "", "", {}, None, "voice-unknown", voiced=False)
            key = self.trust.services[role]
            verify_envelope(envelope, {key.keyid: key})
            statement = parse_statement(envelope.payload)  # (2)
        except FormatError as error:
            return Entry(index, data, "", role, {}, None, "entry-malformed", str(error), voiced=False)
        except SignatureInvalid as error:
            return Entry(index, data, "", role, {}, None, "signature-invalid", str(error), voiced=False)
        kind, said = statement.kind, statement.predicate
        if kind not in VOICES[role]:  # (3)
            return Entry(index, data, kind, role, said, None, "voice-not-entitled", voiced=False)
        if said["deployment"] != self.trust.deployment:
            return Entry(index, data, kind, role, said, None, "other-deployment", voiced=False)
        used = used_id(role, said["id"])
        if used in self._ids:  # (4)
            return Entry(index, data, kind, role, said, None, "said-twice", voiced=False)
        self._ids[used] = None  # void or not: else whoever runs the ledger could say it again later
        try:
            consent = _HANDLERS[kind](self, index, said)  # (5)
            if kind == "snapshot":
                self._vouched(said, role)
        except Refused as refusal:
            return Entry(index, data, kind, role, said, None, refusal.reason)
        except FormatError as error:
            return Entry(index, data, kind, role, said, None, "body-malformed", str(error))
        return Entry(index, data, kind, role, said, consent)

    # What each kind of entry does, after its voice was checked.

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
            about = {"module-approval": "module_sha256", "profile-approval": "config_sha256"}
            named = asked["body"]["grant"] if kind == "call-approval" else asked[about.get(kind, "id")]
            self.books.acts[index] = Act(kind, str(named), bars)
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
        if proposal.applied >= 0:
            raise Refused("request-replayed")
        approvals = [one for one, _ in self.counting(proposal, said["at_ms"])] + [envelope_from_value(said["approval"])]
        now_ms = self._latest(said["at_ms"])
        consent = verify_consent(self.trust, proposal.asked, approvals, now_ms, self.books.issuers)
        last = (said["approval"], consent.signatories[-1].human)
        made = replace(proposal, approvals=(*proposal.approvals, last))
        self.books.proposals[proposal.digest] = made

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
        elif act.kind in ("module-approval", "profile-approval"):
            same = [at for at, one in self.books.acts.items() if (one.kind, one.about) == (act.kind, act.about)]
            if any(self.stands(at) for at in same):
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
        """The kernel's rule and message for a request that humans consent to."""
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
        if statement.kind in about_agent:
            before = self.holds(asked["agent"])
            gained = [asked["id"]] if statement.kind == "grant" else []
            if asked["capability"] != {"before": before, "after": sorted(before + gained)}:
                raise Refused("head-stale" if self._seen_less(message) else "capability-differs")
        if statement.kind == "grant":
            message |= {
                "tool": body["tool"],
                "action": body["action"],
                "where": _where(body["where"]),
                "calls": body["calls"],
                "grant_expires": body["expires_ms"],
                "approvals": body["approvals"],
                "delegable": body["delegable"],
                **_limits(body["rate"], body["budget"]),
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
        elif statement.kind == "quota":
            message |= {"agent": asked["agent"] or "", **_limits(body["after"], None)}
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

    def _challenge(self, index: int, said: Mapping[str, Any]) -> None:
        self._enrolled(said)
        if not self._head_known(said["checkpoint"]):
            raise Refused("checkpoint-unknown")
        lacks = index - said["checkpoint"]["size"]
        if lacks > CHECKPOINT_LAG or (lacks and said["at_ms"] - self._times[-lacks] > CHECKPOINT_LAG_MS):
            raise Refused("checkpoint-stale")
        agent = CANARY_PREFIX + said["nonce"]
        module, config = said["module_sha256"], said["config_sha256"]
        expires = said["at_ms"] + CHALLENGE_LIFE_MS
        # The agent's id, not the nonce alone: the monitor can't use up the id of a request that is on its way.
        message = {"id": agent, "agent": agent, "module": module, "config": config, "expires": expires}
        self._authority.apply("challenge", message | {"index": index, "now": said["at_ms"]})
        self.books.launches[index] = Launch(index, agent, module, config, said["nonce"], (), expires)
        self.books.challenges[index] = said

    def _enrolled(self, said: Mapping[str, Any]) -> None:
        """Monitor and node both name the environment and the node that the trust root enrols."""
        if said["environment"] != self.trust.environment:
            raise Refused("environment-differs")
        if said["node"] != self.trust.services["node"].keyid:
            raise Refused("node-differs")

    def _launch(self, index: int) -> Launch:
        launch = self.books.launches.get(index)
        if launch is None:
            raise Refused("reference-unknown")
        return launch

    def _started(self, index: int, said: Mapping[str, Any]) -> None:
        launch = self._launch(said["launch"])
        require_seen(said, self.trust.services["monitor"])
        message = {"launch": launch.index, "agent": said["agent"], "now": said["at_ms"]}
        digests = {"module": said["module_sha256"], "config": said["config_sha256"]}
        self._authority.apply("start", message | digests)
        self.books.launches[launch.index] = replace(launch, started=index)
        self.books.started[index] = said

    def _launch_refused(self, index: int, said: Mapping[str, Any]) -> None:
        self._end("refuse-launch", index, said)

    def _exited(self, index: int, said: Mapping[str, Any]) -> None:
        if self._launch(said["launch"]).started != said["started"]:
            raise Refused("reference-unknown")
        self._end("exit", index, said)

    def _end(self, rule: str, index: int, said: Mapping[str, Any]) -> None:
        launch = self._launch(said["launch"])
        self._authority.apply(rule, {"launch": launch.index, "agent": said["agent"], "now": said["at_ms"]})
        self.books.started.pop(launch.started, None)
        self.books.launches[launch.index] = replace(launch, ended=index)

    def _intent(self, index: int, said: Mapping[str, Any]) -> None:
        message = _call(said, index, said["at_ms"])
        self._authority.apply("invoke", message)
        self.books.open_intents[index] = said
        key = (said["grant"], message["args_digest"])
        left = [one for one in self.books.approved_calls.get(key, ()) if one != said["approval"]]
        if left:
            self.books.approved_calls[key] = left
        else:
            self.books.approved_calls.pop(key, None)

    def _outcome(self, index: int, said: Mapping[str, Any]) -> None:
        intent = said["intent"]
        if intent in self.books.open_intents:
            charged = self._authority.read("open_cost", intent)
            spent = charged if said["spent"] is None else said["spent"]
            self._authority.apply("settle", {"intent": intent, "spent": spent, "now": said["at_ms"]})
            del self.books.open_intents[intent]
            return
        if not self._refers(intent, "action-intent"):
            void = self.books.void.get(intent)
            if void is None or said["status"] != "not-performed":
                raise Refused("intent-unknown")
            return
        raise Refused("intent-closed")

    def _delegated(self, index: int, said: Mapping[str, Any]) -> None:
        message = self._delegation(said, delegated_id(said["id"]), index, said["at_ms"])
        self._authority.apply("delegate", message)
        parent = self.books.grants[said["grant"]]
        self.books.grants[message["id"]] = replace(
            parent,
            index=index,
            id=message["id"],
            agent=said["to"],
            module=message["module"],
            config=message["config"],
            tool=said["tool"],
            where=message["where"],
            where_value=said["where"],
            calls=said["calls"],
            expires_ms=said["expires_ms"],
            budget=None if parent.budget is None else {**parent.budget, "total": said["budget"]},
            delegable=said["delegable"],
            parent=parent.id,
        )
        self.books.grants_of.setdefault(said["to"], {})[message["id"]] = None

    def _delegation(self, said: Mapping[str, Any], grant: str, index: int, now_ms: int) -> dict[str, Any]:
        child = self.books.launches.get(said["child"])
        if child is None:
            raise Refused("child-not-running")
        if said["tool"].startswith(RESERVED_TOOLS):
            raise Refused("body-malformed")
        taken = {name: said[name] for name in ("agent", "launch", "grant", "to", "child", "tool", "calls", "delegable")}
        return taken | {
            "index": index,
            "now": now_ms,
            "id": grant,
            "module": child.module,
            "config": child.config,
            "where": _where(said["where"]),
            "grant_expires": said["expires_ms"],
            "budget": said["budget"],
        }

    def _dropped(self, index: int, said: Mapping[str, Any]) -> None:
        taken = {name: said[name] for name in ("agent", "launch", "grant")}
        self._authority.apply("drop", taken | {"index": index, "now": said["at_ms"]})

    def _refers(self, index: int, *kinds: str) -> bool:
        return 0 <= index < len(self.books.kinds) and self.books.kinds[index] in kinds

    def _observed(self, index: int, said: Mapping[str, Any]) -> None:
        if not self._refers(said["started"], "started"):
            raise Refused("reference-unknown")

    def _drift(self, index: int, said: Mapping[str, Any]) -> None:
        if said["started"] is not None and not self._refers(said["started"], "started"):
            raise Refused("reference-unknown")

    def _stop_order(self, index: int, said: Mapping[str, Any]) -> None:
        if not self._refers(said["drift"], "drift"):
            raise Refused("reference-unknown")
        if said["launch"] is not None:
            launch = self._launch(said["launch"])
            self._authority.apply("order-stop", {"launch": launch.index, "now": said["at_ms"]})

    def _end_witnessed(self, index: int, said: Mapping[str, Any]) -> None:
        if not self._refers(said["drift"], "drift"):
            raise Refused("reference-unknown")

    def _canary_result(self, index: int, said: Mapping[str, Any]) -> None:
        launch = self._launch(said["challenge"])
        challenge = self.books.challenges.get(launch.index)
        if challenge is None or launch.ended != said["evidence"]:
            raise Refused("reference-unknown")
        self._enrolled(said)
        if launch.nonce != said["nonce"]:
            raise Refused("nonce-differs")
        if challenge["checkpoint"] != said["checkpoint"]:
            raise Refused("checkpoint-differs")
        if launch.index in self.books.answered:
            raise Refused("challenge-answered")
        self.books.answered.add(launch.index)

    def _issuer_keys(self, index: int, said: Mapping[str, Any]) -> None:
        issuer, keys = said["issuer"], self._keys_of(said)
        self.books.issuers[issuer] = replace(self.books.issuers.get(issuer, IssuerKeys()), said=keys)

    def _issuer_keys_seen(self, index: int, said: Mapping[str, Any]) -> None:
        issuer, keys = said["issuer"], self._keys_of(said)
        self.books.issuers[issuer] = replace(self.books.issuers.get(issuer, IssuerKeys()), seen=keys)

    def _keys_of(self, said: Mapping[str, Any]) -> dict[str, IssuerKey]:
        if said["issuer"] not in self.trust.issuers:
            raise Refused("issuer-unknown")
        keys = {one["kid"]: issuer_key(one) for one in said["keys"]}
        if len(keys) != len(said["keys"]):
            raise Refused("body-malformed")
        return keys

    def _vouched(self, said: Mapping[str, Any], role: str) -> None:
        """A voice says which state it has: the one that is had here, or its word is void."""
        mark = self.mark
        if mark is None or said["size"] != mark.size:
            raise Refused("snapshot-not-due")
        if b64decode(said["root"]) != mark.root or said["state_sha256"] != mark.digest:
            raise Refused("snapshot-differs")
        mark.voices.add(role)

    def _nothing(self, index: int, said: Mapping[str, Any]) -> None:
        """Said for the record; changes nothing."""


def _where(value: Any) -> Where:
    try:
        return parse_where(value)
    except FormatError as error:
        raise Refused("body-malformed") from error


def _call(said: Mapping[str, Any], index: int, now_ms: int) -> dict[str, Any]:
    """The kernel's message for an intent."""
    client = said["client"] or {"grant": "", "args": {}}
    taken = {name: said[name] for name in ("agent", "launch", "grant", "tool", "action", "args")}
    return taken | {
        "index": index,
        "now": now_ms,
        "args_digest": sha256_hex(canonical(said["args"])),
        "approval": said["approval"] or "",
        "client": client["grant"],
        "client_args": client["args"],
    }


def _limits(rate: Mapping[str, int] | None, budget: Mapping[str, int] | None) -> dict[str, int]:
    """A grant's rate and budget as the kernel counts them."""
    every = slack = total = cost = 0
    if rate is not None:
        every = -(-rate["window_ms"] // rate["calls"])
        slack = every * (rate["calls"] - 1)
    if budget is not None:
        total, cost = budget["total"], budget["call"]
    return {"every": every, "slack": slack, "budget": total, "cost": cost}


def delegated_id(statement_id: str) -> str:
    """The id of the grant that a delegation makes; the gateway can't make it one that humans are about to use."""
    return sha256_hex(b"delegated " + statement_id.encode())[:32]


_RULE_OF: Final[Mapping[str, str]] = {
    "module-approval": "approve-module",
    "profile-approval": "approve-profile",
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

_HANDLERS: Final[Mapping[str, Callable[[Replay, int, Mapping[str, Any]], Consent | None]]] = {
    "service-started": Replay._nothing,
    "admitted": Replay._admitted,
    "proposed": Replay._proposed,
    "seconded": Replay._seconded,
    "refused": Replay._nothing,
    "canary-challenge": Replay._challenge,
    "started": Replay._started,
    "launch-refused": Replay._launch_refused,
    "exited": Replay._exited,
    "canary-result": Replay._canary_result,
    "action-intent": Replay._intent,
    "action-outcome": Replay._outcome,
    "action-denied": Replay._nothing,
    "delegated": Replay._delegated,
    "dropped": Replay._dropped,
    "observed": Replay._observed,
    "drift": Replay._drift,
    "stop-order": Replay._stop_order,
    "end-witnessed": Replay._end_witnessed,
    "heartbeat": Replay._nothing,
    "kernel-proof": Replay._nothing,
    "issuer-keys": Replay._issuer_keys,
    "issuer-keys-seen": Replay._issuer_keys_seen,
    "snapshot": Replay._nothing,
}

__all__ = ["Approved", "Books", "Entry", "Grant", "Launch", "Replay", "delegated_id"]
