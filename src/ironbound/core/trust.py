"""The trust root: who may speak, which humans it takes for what, and the pin that names it.

Decides whether a trust root is sound; the pin, which reaches an auditor by another road, decides
whether it is the right one. Version 1 is the log's entry 0.

Rule 1: a key belongs to exactly one human, one service, the log or one witness.
Rule 2: the root is signed by at least as many of its own humans as its highest quorum.
Rule 3: no checkpoint is enough without a witness.
Rule 4: a human with an identity has a device key too, since the identity alone never counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NewType

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
    """

    deployment: str
    environment: str
    digest: Digest
    envelope: Envelope
    keys: Mapping[KeyId, OperatorKey]
    humans: Mapping[KeyId, Human]
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

    @property
    def issuers(self) -> frozenset[str]:
        """The identity providers of this roster."""
        return frozenset(key.issuer for key in self.keys.values() if isinstance(key, Identity))

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


def parse_trust_root(data: bytes) -> TrustRoot:
    """The trust root in an envelope's bytes. FormatError or SignatureInvalid if it is not sound."""
    envelope = parse_envelope(data)
    statement = parse_statement(envelope.payload)
    if statement.kind != "trust-root":
        raise FormatError("trust-root-kind", f"expected a trust root, got {statement.kind}")
    body = statement.predicate
    humans: dict[KeyId, Human] = {}
    keys: dict[KeyId, OperatorKey] = {}
    names = [operator["name"] for operator in body["operators"]]
    if len(set(names)) != len(names):
        raise FormatError("trust-root-roster", "a human stands twice on the roster")
    for operator in body["operators"]:
        for value in operator["keys"]:
            key = parse_key(value, body["deployment"])
            if key.keyid in humans:
                raise FormatError("trust-root-roster", f"one key listed twice: {key.keyid}")
            humans[key.keyid] = Human(operator["name"])
            keys[key.keyid] = key
        _check_identity(operator["name"], [keys[keyid] for keyid, human in humans.items() if human == operator["name"]])
    operator_keys = dict(keys)
    services: dict[str, PublicKey] = {}
    voices: dict[KeyId, str] = {}
    for role, value in body["services"].items():
        voice = public_key(value)
        if voice.keyid in keys:
            raise FormatError("trust-root-roster", f"the {role}'s key has another owner too")
        services[role], voices[voice.keyid], keys[voice.keyid] = voice, role, voice
    highest = max(body["quorum"].values())
    if highest > len(names):
        raise FormatError("trust-root-quorum", f"a quorum of {highest} from {len(names)} humans can't be met")
    signers = {humans[keyid] for keyid in verify_envelope(envelope, operator_keys)}
    if len(signers) < highest:
        raise SignatureInvalid(f"the trust root is signed by {len(signers)} humans, its quorum is {highest}")
    policy = parse_policy(body["witness_policy"])
    if policy.log.vkey != body["log"]["vkey"] or policy.log.name != body["log"]["origin"]:
        raise FormatError("trust-root-log", "the witness policy names another log than the trust root")
    for party in (policy.log, *(witness.key for witness in policy.witnesses)):
        if party.key.keyid in keys:
            raise FormatError("trust-root-roster", f"the key of {party.name} has another owner too")
    if policy.is_quorum(()):
        raise FormatError("trust-root-witness", "the witness policy is met without any witness")
    return TrustRoot(
        deployment=body["deployment"],
        environment=body["environment"],
        digest=envelope.digest,
        envelope=envelope,
        keys=keys,
        humans=humans,
        services=services,
        voices=voices,
        quorum=body["quorum"],
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
    )
