"""The trust root: who may speak, which humans it takes for what, and the pin that names it.

Decides whether a trust root is sound; the pin, which reaches an auditor by another road, decides
whether it is the right one. Version 1 is the log's entry 0. How one follows another, `roster` decides.

Rule 1: a key belongs to exactly one human, one service, the log, one witness or the releases.
Rule 2: the root is signed by as many of its own humans as a change of it takes, and no other act takes more.
Rule 3: no checkpoint is enough without a witness.
Rule 4: a human with an identity has a device key too, since the identity alone never counts.
Rule 5: an act's quorum can be met by the humans who are on the roster for that act.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NewType

from .canonical import Digest, FormatError
from .envelope import Envelope, parse_envelope, verify_envelope
from .keys import KeyId, PublicKey, SignatureInvalid
from .oidc import Identity
from .policy import Policy, parse_policy
from .scheme import OperatorKey, is_device, parse_key, public_key
from .statement import parse_statement
from .tpm import AttestationKey, enrolled_key

#: A human's name on the roster; thresholds count these, never keys.
Human = NewType("Human", str)
MAX_PIN: Final = 1024
#: The environment whose evidence is about real agents; evidence from any other says so first.
PRODUCTION: Final = "production"
#: The interval of a new deployment: every canary bites once in each, on every profile in use.
CANARY_INTERVAL_MS: Final = 15 * 60_000


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """A verified trust root. `humans` maps each operator key to its human, `voices` each service key to its role.

    `environment` is what this deployment is for, such as production; `tpm` the node's attestation key, if it has one.
    `digest` and `envelope` are version 1's, whose words `body` are in later versions. `acts` are what each human is on
    the roster for; `sealed` are the holders of break-glass keys, of whom `quorum["break-glass"]` together open one.
    `former` are the keys of earlier versions that are on the roster no more, `compromised` those that a quorum flagged,
    with the index of the log since when. `release` is the key that signs releases; None: any release may run here.
    """

    deployment: str
    environment: str
    version: int
    body: Mapping[str, Any]
    digest: Digest
    envelope: Envelope
    keys: Mapping[KeyId, OperatorKey]
    humans: Mapping[KeyId, Human]
    acts: Mapping[Human, frozenset[str]]
    sealed: Mapping[KeyId, Human]
    former: Mapping[KeyId, Human]
    compromised: Mapping[KeyId, int]
    services: Mapping[str, PublicKey]
    voices: Mapping[KeyId, str]
    quorum: Mapping[str, int]
    origin: str
    log_vkey: str
    policy_text: str
    policy: Policy
    separation: str
    users: Mapping[str, int]
    drift_stop_ms: int
    canary_interval_ms: int
    heartbeat_ms: int
    tpm: AttestationKey | None
    release: PublicKey | None

    @property
    def issuers(self) -> frozenset[str]:
        """The identity providers of this roster."""
        return frozenset(key.issuer for key in self.keys.values() if isinstance(key, Identity))

    @property
    def control_group(self) -> str:
        """Below which a node keeps its sandboxes' control groups: another for each log, also of one name."""
        return f"/ironbound-{self.deployment}-{self.digest[:8]}"

    @property
    def pin(self) -> Pin:
        """What to hand to an auditor by another road."""
        return Pin(self.deployment, self.digest, self.log_vkey)


@dataclass(frozen=True, slots=True)
class Pin:
    """Deployment id, SHA-256 of the first trust root's payload, and the log's key; as text `id:digest:vkey`."""

    deployment: str
    root: Digest
    log_vkey: str

    def __str__(self) -> str:
        return f"{self.deployment}:{self.root}:{self.log_vkey}"


def parse_pin(line: str) -> Pin:
    """The pin in one line; FormatError if it isn't exactly one."""
    parts = line.strip().split(":")
    if len(line) > MAX_PIN or len(parts) != 3 or len(parts[1]) != 64 or not all(parts):
        raise FormatError("pin-malformed", "a pin is DEPLOYMENT:SHA256:LOG-KEY on one line")
    return Pin(parts[0], Digest(parts[1]), parts[2])


def _check_identity(name: str, keys: Sequence[OperatorKey]) -> None:
    if any(isinstance(key, Identity) for key in keys) and not any(map(is_device, keys)):
        raise FormatError("trust-root-identity", f"{name} has an identity, and no passkey or security key beside it")


@dataclass(frozen=True, slots=True)
class Roster:
    """The people of a trust root: their keys (the sealed ones too), whose they are, and what it takes of them."""

    keys: Mapping[KeyId, OperatorKey]
    humans: Mapping[KeyId, Human]
    acts: Mapping[Human, frozenset[str]]
    sealed: Mapping[KeyId, Human]
    quorum: Mapping[str, int]


def read_roster(body: Mapping[str, Any]) -> Roster:
    """The roster in a trust root's body, of that kind's shape; FormatError if it is unsound (Rules 1, 2, 4 and 5)."""
    keys: dict[KeyId, OperatorKey] = {}
    sealed = body["break_glass"] or {"holders": [], "quorum": 0}

    def owners(people: Sequence[Mapping[str, Any]]) -> dict[KeyId, Human]:
        found: dict[KeyId, Human] = {}
        if len({one["name"] for one in people}) != len(people):
            raise FormatError("trust-root-roster", "a human stands twice on the roster")
        for one in people:
            for value in one["keys"]:
                key = parse_key(value, body["deployment"])
                if key.keyid in keys:
                    raise FormatError("trust-root-roster", f"one key listed twice: {key.keyid}")
                found[key.keyid], keys[key.keyid] = Human(one["name"]), key
            _check_identity(one["name"], [keys[keyid] for keyid, human in found.items() if human == one["name"]])
        return found

    humans, holders = owners(body["operators"]), owners(sealed["holders"])
    acts = {Human(one["name"]): frozenset(one["acts"]) for one in body["operators"]}
    quorum = dict(body["quorum"])
    for act, needed in quorum.items():
        able = sum(act in mine for mine in acts.values())
        if needed > able:
            raise FormatError("trust-root-quorum", f"a quorum of {needed} from {able} humans for {act} can't be met")
        if needed > quorum["reconfigure"]:
            raise FormatError("trust-root-quorum", f"fewer humans can change the trust root than {act} takes")
    if body["break_glass"] is not None:
        if sealed["quorum"] > len(sealed["holders"]):
            raise FormatError("trust-root-quorum", "the holders of sealed keys are fewer than it takes to use them")
        quorum["break-glass"] = sealed["quorum"]
    return Roster(keys, humans, acts, holders, quorum)


def parse_trust_root(data: bytes) -> TrustRoot:
    """The trust root in an envelope's bytes. FormatError or SignatureInvalid if it is not sound."""
    envelope = parse_envelope(data)
    statement = parse_statement(envelope.payload)
    if statement.kind != "trust-root":
        raise FormatError("trust-root-kind", f"expected a trust root, got {statement.kind}")
    body = statement.predicate
    if body["version"] != 1:
        raise FormatError("trust-root-version", "a log begins with version 1 of its trust root")
    people = read_roster(body)
    keys = dict(people.keys)
    services: dict[str, PublicKey] = {}
    voices: dict[KeyId, str] = {}
    for role, value in body["services"].items():
        voice = public_key(value)
        if voice.keyid in keys:
            raise FormatError("trust-root-roster", f"the {role}'s key has another owner too")
        services[role], voices[voice.keyid], keys[voice.keyid] = voice, role, voice
    signers = {people.humans.get(keyid) for keyid in verify_envelope(envelope, people.keys)}
    named = {human for human in signers if human is not None and "reconfigure" in people.acts[human]}
    if None in signers or len(named) < people.quorum["reconfigure"]:
        raise SignatureInvalid(
            f"the trust root is signed by {len(named)} humans, its quorum is {people.quorum['reconfigure']}"
        )
    release = None if body["release"] is None else public_key(body["release"])
    if release is not None and release.keyid in keys:
        raise FormatError("trust-root-roster", "the release key has another owner too")
    policy = parse_policy(body["witness_policy"])
    if policy.log.vkey != body["log"]["vkey"] or policy.log.name != body["log"]["origin"]:
        raise FormatError("trust-root-log", "the witness policy names another log than the trust root")
    for party in (policy.log, *(witness.key for witness in policy.witnesses)):
        if party.key.keyid in keys or party.key == release:
            raise FormatError("trust-root-roster", f"the key of {party.name} has another owner too")
    if policy.is_quorum(()):
        raise FormatError("trust-root-witness", "the witness policy is met without any witness")
    return TrustRoot(
        deployment=body["deployment"],
        environment=body["environment"],
        version=1,
        body=body,
        digest=envelope.digest,
        envelope=envelope,
        keys=keys,
        humans=people.humans,
        acts=people.acts,
        sealed=people.sealed,
        former={},
        compromised={},
        services=services,
        voices=voices,
        quorum=people.quorum,
        origin=body["log"]["origin"],
        log_vkey=body["log"]["vkey"],
        policy_text=body["witness_policy"],
        policy=policy,
        separation=body["separation"]["mode"],
        users=body["separation"]["users"],
        drift_stop_ms=body["bounds"]["drift_stop_ms"],
        canary_interval_ms=body["bounds"]["canary_interval_ms"],
        heartbeat_ms=body["bounds"]["heartbeat_ms"],
        tpm=None if body["tpm"] is None else enrolled_key(body["tpm"]),
        release=release,
    )
