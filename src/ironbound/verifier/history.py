"""What the claims ask about, gathered from the entries in one pass.

Decides nothing: `core.replay` has decided for each entry whether it has an effect; here it is only filed
under what it concerns. Actions, which are many, are counted; everything else is kept.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from ironbound.core.books import approved_as
from ironbound.core.canonical import Digest, FormatError, sha256_hex
from ironbound.core.coverage import Usage
from ironbound.core.envelope import envelope_from_value
from ironbound.core.held import read_held
from ironbound.core.malformed import once_more
from ironbound.core.own_filters import OwnFilters
from ironbound.core.replay import AHEAD_MS, Entry, Launch, Replay
from ironbound.core.request import Consent
from ironbound.core.statement import ACTS
from ironbound.core.strength import Strength
from ironbound.core.trust import TrustRoot

#: How long after a human signed a revocation or a stop, by their own clock, an action that it was to end is no haste.
TAKEN_MS: Final = 60_000
#: What is said within half a minute of its own time or never; other words may have waited for the log.
_AT_ONCE: Final = frozenset({"action-intent", "action-denied", "delegated", "dropped", "started", "launch-refused"})


@dataclass(frozen=True, slots=True)
class Said:
    """One entry's index, predicate, and the reason if it is void."""

    index: int
    says: Mapping[str, Any]
    void: str | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """When a module was approved by the quorum, as what (`agent` or `canary`), and with which surface."""

    index: int
    kind: str
    at_ms: int
    surface: str | None


@dataclass(slots=True)
class Given:
    """What humans gave at an entry: who, how many it took then, and the entry since which it rests on too few of them.

    `asked` are the request's own fields.
    """

    index: int
    kind: str
    asked: Mapping[str, Any]
    humans: tuple[str, ...]
    needed: int
    withdrawn: int | None = None

    def holds_at(self, index: int) -> bool:
        """True if by the entry `index` it was given, by enough humans, and not withdrawn."""
        withdrawn = self.withdrawn is not None and self.withdrawn < index
        return self.index < index and len(self.humans) >= self.needed and not withdrawn


@dataclass(slots=True)
class Life:
    """A service from its start on. `last` is the last entry that its voice said before another start of it."""

    started: Said
    last: int

    @property
    def build(self) -> tuple[str, str, str]:
        """The release, the services' configuration and the install manifest that it names; "" for none."""
        says, measured = self.started.says, self.started.says["measured"]
        return says["release_sha256"], says["settings_sha256"], measured["manifest_sha256"] if measured else ""


@dataclass(slots=True)
class History:
    """The log, filed. `clock_ms` is the latest time said; `said` counts accepted entries by kind."""

    replay: Replay
    #: The trust root in its first version.
    root: TrustRoot = field(init=False)
    first_ms: int = 0
    clock_ms: int = 0
    said: dict[str, int] = field(default_factory=dict)
    voids: dict[int, str] = field(default_factory=dict)
    wrong_voices: list[tuple[int, str, str]] = field(default_factory=list)
    services: list[Said] = field(default_factory=list)
    admitted: dict[str, int] = field(default_factory=dict)
    initiators: dict[str, int] = field(default_factory=dict)
    #: The requests that the controller put into the log, by digest, with effect or without; and what it refused.
    requests: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    #: The requests that it proposed without effect.
    proposed: set[str] = field(default_factory=set)
    #: What was done long after a human had signed that it be taken away: the taking, and the last call before it.
    taken_late: list[tuple[int, int]] = field(default_factory=list)
    _called: dict[str, int] = field(default_factory=dict)
    #: What was admitted before its time: the admission, and the next word of node or gateway, by whose clock it was.
    hurried: list[tuple[int, int]] = field(default_factory=list)
    _fresh: list[tuple[int, int]] = field(default_factory=list)
    #: How many of the humans' signatures are how strong.
    strengths: dict[str, int] = field(default_factory=dict)
    modules: dict[str, Approval] = field(default_factory=dict)
    #: What humans gave, by what it is about: the digest of a module, a profile or a release as it is approved
    #: (`core.books.approved_as`), or a launch's entry.
    given: dict[Digest | int, list[Given]] = field(default_factory=dict)
    #: The services' lives by role, and what the monitor found of them.
    lives: dict[str, list[Life]] = field(default_factory=dict)
    measured: dict[str, list[Said]] = field(default_factory=dict)
    starts: dict[int, Said] = field(default_factory=dict)
    exits: dict[int, Said] = field(default_factory=dict)
    refused_launches: dict[int, Said] = field(default_factory=dict)
    #: By start, what the monitor saw: first the held sandbox, inside the start itself.
    observed: dict[int, list[Said]] = field(default_factory=dict)
    own_filters: OwnFilters = field(default_factory=OwnFilters)
    drifts: list[Said] = field(default_factory=list)
    stop_orders: dict[int, list[Said]] = field(default_factory=dict)
    ends: dict[int, list[Said]] = field(default_factory=dict)
    beats: list[Said] = field(default_factory=list)
    challenges: dict[int, Said] = field(default_factory=dict)
    proofs: list[Said] = field(default_factory=list)
    #: The monitor's askings of the operator channel; the refusals, by the submission's digest and the verb; and of each
    #: admitted request for power, by its index, the digest of the submission that asks for it once more.
    probed: list[Said] = field(default_factory=list)
    refusals: dict[tuple[str, str | None], list[Said]] = field(default_factory=dict)
    again: list[tuple[int, Digest]] = field(default_factory=list)
    results: list[Said] = field(default_factory=list)
    #: When each result was said at the earliest: the node's word, but not before what the monitor had said by then.
    result_ms: dict[int, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    #: The release of Ironbound that the node had announced when it said a result, by that entry's index.
    releases: dict[int, str] = field(default_factory=dict)
    #: The latest time said up to each entry, by its index.
    clocks: array[int] = field(default_factory=lambda: array("q"))
    _monitor_ms: int = 0
    intents: int = 0
    #: How many calls with effect each launch made under each grant.
    used: dict[int, dict[str, int]] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    void_intents: dict[int, str] = field(default_factory=dict)
    void_answers: dict[int, str] = field(default_factory=dict)
    #: Entries that a claim must look at although, or because, they are void: kind → them.
    void: dict[str, list[Said]] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """File the next entry."""
        at_ms = entry.predicate.get("at_ms", 0)
        if at_ms > self.clock_ms:
            self.clock_ms = at_ms
        if not self.first_ms:
            self.first_ms = at_ms
        self.clocks.append(self.clock_ms)
        if entry.index == 0:
            self.root = self.replay.trust
        if entry.voiced:
            self._lives(entry)
        if entry.void is None:
            if entry.role == "monitor":
                self._monitor_ms = max(self._monitor_ms, at_ms)
            launch = self.replay.books.launches.get(entry.predicate.get("launch", -1))
            self.usage.add(entry, launch, self.replay.trust.canary_interval_ms)
            self.said[entry.kind] = self.said.get(entry.kind, 0) + 1
            if entry.kind in _AT_ONCE:
                early = [one for one, begins in self._fresh if at_ms + AHEAD_MS < begins]
                self.hurried += [(one, entry.index) for one in early]
                self._fresh.clear()
            file = _FILE.get(entry.kind)
            if file is not None:
                file(self, entry)
        elif not entry.voiced:
            self.wrong_voices.append((entry.index, entry.void, entry.detail or f"{entry.role or '?'} {entry.kind}"))
        else:
            self._add_void(entry)

    def entries_in(self, begin_ms: int, end_ms: int) -> str:
        """The entries that were said in a time, for people to look at."""
        first, last = bisect_left(self.clocks, begin_ms), bisect_left(self.clocks, end_ms) - 1
        return f"entries {first} to {last}" if first <= last else "no entry"

    def launch(self, index: int) -> Launch:
        """An admitted launch or an accepted challenge."""
        return self.replay.books.launches[index]

    def launch_of(self, started: int | None) -> Launch | None:
        """The launch of an accepted start, by the start's index."""
        said = None if started is None else self.starts.get(started)
        return None if said is None else self.replay.books.launches.get(said.says["launch"])

    def _add_void(self, entry: Entry) -> None:
        said = Said(entry.index, entry.predicate, entry.void)
        self.voids[entry.index] = entry.void or ""
        if entry.kind in ("admitted", "proposed"):
            taken = self.requests if entry.kind == "admitted" else self.proposed
            with suppress(FormatError):
                taken.add(envelope_from_value(entry.predicate["request"]).digest)
        if entry.kind == "action-intent":
            self.void_intents[entry.index] = entry.void or ""
        elif entry.kind == "action-outcome" and entry.predicate["intent"] in self.void_intents:
            self.void_answers[entry.predicate["intent"]] = entry.predicate["status"]
            self.void.setdefault(entry.kind, []).append(said)
        else:
            self.void.setdefault(entry.kind, []).append(said)

    def _lives(self, entry: Entry) -> None:
        lives = self.lives.setdefault(entry.role, [])
        if entry.kind == "service-started" and entry.predicate["role"] == entry.role:
            lives.append(Life(Said(entry.index, entry.predicate, entry.void), entry.index))
        elif lives:
            lives[-1].last = entry.index

    def life_at(self, role: str, index: int) -> Life | None:
        """The life of a service in which an entry lies; None if it had not started by then."""
        lives = self.lives.get(role, [])
        at = bisect_left(lives, index, key=lambda life: life.started.index)
        return lives[at - 1] if at else None

    def measured_at(self, role: str, index: int) -> Said | None:
        """The monitor's last word about a service before an entry."""
        said = self.measured.get(role, [])
        at = bisect_left(said, index, key=lambda one: one.index)
        return said[at - 1] if at else None

    def given_at(self, about: Digest | int, index: int) -> Given | None:
        """What humans gave that held by an entry: the latest, or None."""
        return next((one for one in reversed(self.given.get(about, [])) if one.holds_at(index)), None)

    def _measured(self, entry: Entry) -> None:
        self.measured.setdefault(entry.predicate["role"], []).append(_said(entry))

    def _service(self, entry: Entry) -> None:
        if entry.predicate["role"] != entry.role:
            text = f"the {entry.role} announced itself as the {entry.predicate['role']}"
            self.wrong_voices.append((entry.index, "voice-not-entitled", text))
        else:
            self.services.append(_said(entry))

    def _admitted(self, entry: Entry) -> None:
        if entry.consent is None:
            return
        again = once_more(entry)
        if again is not None:
            self.again.append((entry.index, sha256_hex(again)))
        statement = entry.consent.statement
        if ACTS[statement.kind] is not None:
            self._fresh.append((entry.index, statement.predicate["not_before_ms"]))
        self.requests.add(entry.consent.digest)
        if statement.kind in ("revocation", "stop"):
            self._taken(entry, statement.kind, statement.predicate)
        self.admitted[statement.kind] = self.admitted.get(statement.kind, 0) + 1
        initiator = str(entry.consent.initiator)
        self.initiators[initiator] = self.initiators.get(initiator, 0) + 1
        for signatory in entry.consent.signatories:
            proofs = [signatory.strength] if signatory.identity is None else [signatory.strength, Strength.PROVIDER]
            for strength in proofs:
                self.strengths[strength] = self.strengths.get(strength, 0) + 1
        self._give(entry.index, entry.consent)
        if statement.kind == "module-approval":
            kind = statement.predicate["body"]["kind"]
            surface = statement.predicate["body"]["surface_sha256"]
            approval = Approval(entry.index, kind, entry.predicate["at_ms"], surface)
            self.modules[statement.predicate["module_sha256"]] = approval

    def _give(self, index: int, consent: Consent) -> None:
        kind, asked = consent.statement.kind, consent.statement.predicate
        about: Digest | int | None = None
        if kind == "release-approval":
            body = asked["body"]
            about = approved_as(body["release_sha256"], body["settings_sha256"], body["statements"]["install"])
        elif kind == "launch-request":
            about = index
        elif kind in ("module-approval", "profile-approval"):
            about = asked["module_sha256"] or asked["config_sha256"]
        elif kind == "key-compromised":
            for one in (one for gifts in self.given.values() for one in gifts):
                acted = one.index in self.replay.books.acts
                if acted and one.withdrawn is None and not self.replay.stands(one.index):
                    one.withdrawn = index
        if about is not None:
            needed = self.replay.trust.quorum[ACTS[kind] or ""]
            gift = Given(index, kind, asked, tuple(str(human) for human in consent.humans), needed)
            self.given.setdefault(about, []).append(gift)

    def _taken(self, entry: Entry, kind: str, asked: Mapping[str, Any]) -> None:
        what = asked["body"]["grant"] if kind == "revocation" else asked["agent"]
        last = self._called.get(what)
        if last is not None and self.clocks[last] > asked["not_before_ms"] + TAKEN_MS:
            self.taken_late.append((entry.index, last))

    def _refused(self, entry: Entry) -> None:
        said = _said(entry)
        self.refused.add(said.says["submission_sha256"])
        self.refusals.setdefault((said.says["submission_sha256"], said.says["verb"]), []).append(said)

    def _probed(self, entry: Entry) -> None:
        self.probed.append(_said(entry))

    def _started(self, entry: Entry) -> None:
        self.starts[entry.index] = _said(entry)
        look = Said(entry.index, read_held(entry.predicate["held"]))
        self.observed[entry.index] = [look]
        self.own_filters.started(entry.predicate, look.says["posture"])

    def _exited(self, entry: Entry) -> None:
        self.exits[entry.predicate["launch"]] = _said(entry)

    def _launch_refused(self, entry: Entry) -> None:
        self.refused_launches[entry.predicate["launch"]] = _said(entry)

    def _observed(self, entry: Entry) -> None:
        self.observed[entry.predicate["started"]].append(_said(entry))

    def _drift(self, entry: Entry) -> None:
        self.drifts.append(_said(entry))

    def _stop_order(self, entry: Entry) -> None:
        self.stop_orders.setdefault(entry.predicate["drift"], []).append(_said(entry))

    def _end_witnessed(self, entry: Entry) -> None:
        self.ends.setdefault(entry.predicate["drift"], []).append(_said(entry))

    def _beat(self, entry: Entry) -> None:
        self.beats.append(_said(entry))

    def _proof(self, entry: Entry) -> None:
        self.proofs.append(_said(entry))

    def _challenge(self, entry: Entry) -> None:
        self.challenges[entry.index] = _said(entry)

    def _result(self, entry: Entry) -> None:
        self.results.append(_said(entry))
        self.result_ms[entry.index] = max(entry.predicate["at_ms"], self._monitor_ms)
        self.releases[entry.index] = self.usage.release

    def _intent(self, entry: Entry) -> None:
        self.intents += 1
        said = entry.predicate
        used = self.used.setdefault(said["launch"], {})
        used[said["grant"]] = used.get(said["grant"], 0) + 1
        for one in (said["agent"], *self.replay.authority.read("grant_line", said["grant"])):
            self._called[one] = entry.index

    def _outcome(self, entry: Entry) -> None:
        status, intent = entry.predicate["status"], entry.predicate["intent"]
        if intent in self.void_intents:
            self.void_answers[intent] = status
        self.outcomes[status] = self.outcomes.get(status, 0) + 1


def _said(entry: Entry) -> Said:
    return Said(entry.index, entry.predicate)


_FILE: Final[Mapping[str, Callable[[History, Entry], None]]] = {
    "service-started": History._service,
    "host-measured": History._measured,
    "admitted": History._admitted,
    "refused": History._refused,
    "started": History._started,
    "exited": History._exited,
    "launch-refused": History._launch_refused,
    "observed": History._observed,
    "drift": History._drift,
    "stop-order": History._stop_order,
    "end-witnessed": History._end_witnessed,
    "heartbeat": History._beat,
    "kernel-proof": History._proof,
    "canary-challenge": History._challenge,
    "channel-probed": History._probed,
    "canary-result": History._result,
    "action-intent": History._intent,
    "action-outcome": History._outcome,
}
