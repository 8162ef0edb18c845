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
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from .admission import RESERVED_TOOLS, Admission, where_of
from .authority import Authority, Refused
from .books import Approved, Books, Entry, Grant, Host, Launch, approved_as
from .canonical import FormatError, Value, b64decode, canonical, sha256_hex
from .envelope import parse_envelope, verify_envelope
from .held import require_seen
from .jose import IssuerKey, issuer_key
from .keys import SignatureInvalid
from .merkle import Tree, leaf_hash
from .oidc import IssuerKeys
from .request import Consent
from .snapshot import used_id
from .statement import VOICES, parse_statement
from .trust import TrustRoot, parse_trust_root

CANARY_PREFIX: Final = "canary:"
#: How long after its challenge a canary may be started.
CHALLENGE_LIFE_MS: Final = 60_000
#: A challenge's checkpoint may lack this many entries, the oldest of which was said this long before the challenge.
CHECKPOINT_LAG: Final = 4096
CHECKPOINT_LAG_MS: Final = 60_000
#: How far the log's clock may be ahead of the clock of who would act.
AHEAD_MS: Final = 60_000


class Replay(Admission):
    """The fold. `apply` takes the next entry's bytes."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.books = Books()
        self._trust: TrustRoot | None = None
        self._authority = Authority({})
        self._ids: dict[bytes, None] = {}  # in order
        self._times: deque[int] = deque([0], maxlen=CHECKPOINT_LAG + 1)  # when each of the last entries was said

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

    def ahead(self, now_ms: int) -> str | None:
        """Why nobody whose own clock says this acts now: some voice dated its word ahead, so that what humans signed
        for later would count already. None if so it is not."""
        return "clock-ahead" if self._latest(now_ms) > now_ms + AHEAD_MS else None

    def call_refused(self, said: Mapping[str, Any], now_ms: int) -> str | None:
        """Why an intent of these fields would be void or too early now, or None. Changes nothing."""
        return self.ahead(now_ms) or self._authority.check("invoke", _call(said, -1, now_ms))

    def delegation_refused(self, said: Mapping[str, Any], now_ms: int) -> str | None:
        """Why a delegation of these fields would be void or too early now, or None. Changes nothing."""
        try:
            return self.ahead(now_ms) or self._authority.check("delegate", self._delegation(said, "", -1, now_ms))
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

    def _challenge(self, index: int, said: Mapping[str, Any]) -> None:
        self._enrolled(said)
        self._recent(index, said)
        agent = CANARY_PREFIX + said["nonce"]
        module, config = said["module_sha256"], said["config_sha256"]
        expires = said["at_ms"] + CHALLENGE_LIFE_MS
        # The agent's id, not the nonce alone: the monitor can't use up the id of a request that is on its way.
        message = {"id": agent, "agent": agent, "module": module, "config": config, "expires": expires}
        self._authority.apply("challenge", message | {"index": index, "now": said["at_ms"]})
        self.books.launches[index] = Launch(index, agent, module, config, said["nonce"], (), expires)
        self.books.challenges[index] = said

    def _probed(self, index: int, said: Mapping[str, Any]) -> None:
        self._recent(index, said)

    def _recent(self, index: int, said: Mapping[str, Any]) -> None:
        """The monitor names a checkpoint of this log, of a moment ago."""
        if not self._head_known(said["checkpoint"]):
            raise Refused("checkpoint-unknown")
        lacks = index - said["checkpoint"]["size"]
        if lacks > CHECKPOINT_LAG or (lacks and said["at_ms"] - self._times[-lacks] > CHECKPOINT_LAG_MS):
            raise Refused("checkpoint-stale")

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
        why = self.host_refused()
        if why is not None:
            raise Refused(why)
        message = {"launch": launch.index, "agent": said["agent"], "now": said["at_ms"]}
        message["release"] = "" if self.trust.release is None else self.books.release
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
            "where": where_of(said["where"]),
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

    def _service(self, index: int, said: Mapping[str, Any]) -> None:
        """A service says what it found itself to be; where releases are signed, nothing may differ."""
        self.books.hosts.pop(said["role"], None)  # another process: nobody has measured it yet
        measured = said["measured"]
        if self.trust.release is not None and (measured is None or measured["differences"]):
            raise Refused("host-differs")
        if said["role"] == "node":
            manifest = "" if measured is None else measured["manifest_sha256"]
            self.books.release = approved_as(said["release_sha256"], said["settings_sha256"], manifest)

    def _host_measured(self, index: int, said: Mapping[str, Any]) -> None:
        differences = len(said["measured"]["differences"])
        self.books.hosts[said["role"]] = Host(index, said["pid"], said["pid_start"], differences)

    def host_refused(self) -> str | None:
        """Why no launch may start on this host, by what the monitor found; None if it may."""
        if self.trust.release is None:
            return None
        if not {*self.trust.services, "ledger"} <= self.books.hosts.keys():
            return "host-not-measured"
        return "host-differs" if any(one.differences for one in self.books.hosts.values()) else None

    def _nothing(self, index: int, said: Mapping[str, Any]) -> None:
        """Said for the record; changes nothing."""


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


def delegated_id(statement_id: str) -> str:
    """The id of the grant that a delegation makes; the gateway can't make it one that humans are about to use."""
    return sha256_hex(b"delegated " + statement_id.encode())[:32]


_HANDLERS: Final[Mapping[str, Callable[[Replay, int, Mapping[str, Any]], Consent | None]]] = {
    "service-started": Replay._service,
    "host-measured": Replay._host_measured,
    "admitted": Replay._admitted,
    "proposed": Replay._proposed,
    "seconded": Replay._seconded,
    "declined": Replay._declined,
    "refused": Replay._nothing,
    "canary-challenge": Replay._challenge,
    "channel-probed": Replay._probed,
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
