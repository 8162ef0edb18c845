"""What an operator signs: requests and approvals, and how consent is counted; what is shown of them is in `shown`.

Decides which humans consent to a request's exact content. Whether that is enough, and whether it may
happen at all, the kernel decides (`authority`). Source: 3-formats, "What an operator signs".

Rule 1: an approval binds the SHA-256 of the request's payload, never its id.
Rule 2: consent counts humans, not keys; the initiator is not an approver.
Rule 3: what a signer saw is a pure function of what was signed, and its digest is part of it.
Rule 4: one human signs by one key. Only an identity stands beside another key, which has to be a device's of the same
human; alone it is nothing.
Rule 5: who signs is on the roster for the act. A key that was removed or flagged counts for nothing any more.
Rule 6: sealed keys sign grants, and only each other's; who signs a change of the trust root is in the old or the new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from .authority import Refused
from .canonical import Digest, FormatError, b64encode, canonical, sha256_hex
from .envelope import Envelope, verify_envelope
from .keys import KeyId, SignatureInvalid
from .legible import CODES, verify_all_legible
from .oidc import Identity, IssuerKeys, PresentIdentity
from .roster import body_digest, counted, read_change
from .scheme import OperatorKey, VerifyingKey, is_device
from .shown import shown_text
from .statement import ABOUT_AGENTS, ACTS, QUORUMS, Statement, Subject, encode_statement, parse_statement
from .strength import Strength
from .trust import Human, Roster, TrustRoot

Keys: TypeAlias = Mapping[KeyId, OperatorKey]
Present: TypeAlias = Callable[[Identity], PresentIdentity]

#: The act that sealed keys consent to.
BREAK_GLASS: Final = "break-glass"
#: What a grant says that has calls and an end, and no other limit; nobody can hand it on.
NO_LIMITS: Final[Mapping[str, Any]] = {"rate": None, "budget": None, "approvals": 0, "delegable": 0}
#: What agents or attackers wrote, and documents with a parser of their own; all of it is shown escaped.
_FOREIGN: Final = frozenset({"args", "probe", "root"})

_NOBODY: Final[Mapping[str, IssuerKeys]] = {}


@dataclass(frozen=True, slots=True)
class Signatory:
    """A human who signed, with which key, how strongly, and what the key's counter said (None: it has none).

    `identity`: the one that their provider vouched for beside it, if any.
    """

    human: Human
    keyid: KeyId
    strength: Strength
    counter: int | None
    identity: KeyId | None = None


@dataclass(frozen=True, slots=True)
class Consent:
    """A request with the humans who stand behind its exact content, the initiator first.

    `act` is the act that they consent to (None: taking away); `people` the roster that they ask for, if they do.
    """

    statement: Statement
    digest: Digest
    signatories: tuple[Signatory, ...]
    act: str | None
    people: Roster | None = None

    @property
    def initiator(self) -> Human:
        """Who asked."""
        return self.signatories[0].human

    @property
    def humans(self) -> tuple[Human, ...]:
        """Who asked, then who approved, each once."""
        return tuple(dict.fromkeys(one.human for one in self.signatories))


def verify_request_legible(predicate: Mapping[str, Any]) -> None:
    """Nothing in a request looks like something else; FormatError with a code of `legible` if it does."""
    body = {name: value for name, value in predicate["body"].items() if name not in _FOREIGN}
    verify_all_legible({**predicate, "body": body}, "the request")


def _subjects(kind: str, predicate: Mapping[str, Any]) -> tuple[Subject, ...]:
    """What a request is about: the module and the configuration that it names, or what its kind changes."""
    body = predicate["body"]
    if kind == "quota":
        return (Subject("quota", sha256_hex(canonical({"agent": predicate["agent"], "body": body}))),)
    if kind == "trust-root-change":
        return (Subject("trust-root", body_digest(body["root"])),)
    if kind == "key-compromised":
        return (Subject("key", body["key"]),)
    if kind == "review":
        return (Subject("request", body["request_sha256"]),)
    if kind == "release-approval":
        return (Subject("release", body["release_sha256"]), Subject("settings", body["settings_sha256"]))
    named = (("module", predicate["module_sha256"]), ("profile", predicate["config_sha256"]))
    found = tuple(Subject(role, digest) for role, digest in named if digest is not None)
    if not found:
        raise FormatError("body-malformed", f"a {kind} names a module or a profile")
    return found


def encode_request(kind: str, predicate: Mapping[str, Any]) -> bytes:
    """The payload of a request; `shown_sha256` is filled in from what will be shown."""
    if kind not in ACTS:
        raise FormatError("not-a-request", kind)
    complete = dict(predicate)
    verify_request_legible(complete)
    complete["shown_sha256"] = sha256_hex(shown_text(kind, complete).encode())
    return encode_statement(kind, _subjects(kind, complete), complete)


def encode_approval(request: Envelope, *, deployment: str, approval_id: str, expires_ms: int) -> bytes:
    """The payload of an approval of a request's exact content."""
    return _encode_answer("approval", request, deployment, approval_id, expires_ms)


def encode_decline(request: Envelope, *, deployment: str, decline_id: str, expires_ms: int) -> bytes:
    """The payload of a decline of a request's exact content."""
    return _encode_answer("decline", request, deployment, decline_id, expires_ms)


def _encode_answer(kind: str, request: Envelope, deployment: str, answer_id: str, expires_ms: int) -> bytes:
    shown = parse_statement(request.payload).predicate["shown_sha256"]
    return encode_statement(
        kind,
        (Subject("request", request.digest),),
        {
            "version": 1,
            "deployment": deployment,
            "id": answer_id,
            "request_sha256": request.digest,
            "shown_sha256": shown,
            "expires_ms": expires_ms,
        },
    )


def _one_human(
    trust: TrustRoot, envelope: Envelope, known: Mapping[KeyId, Human], enrolled: Keys, present: Present
) -> Signatory:
    """The human who signed: by exactly one key among those that may, and by an identity beside it if they have one."""
    keys: dict[KeyId, VerifyingKey] = {}
    device = identity = None
    for keyid in (one.keyid for one in envelope.signatures):
        if keyid in trust.compromised:
            raise Refused("key-compromised")
        if keyid not in known:
            if keyid in trust.sealed or keyid in trust.humans:
                raise Refused("sealed-keys-apart")
            raise Refused("signer-removed" if keyid in trust.former else "signer-unknown")
        key = enrolled[keyid]
        keys[keyid] = key
        if isinstance(key, Identity):
            identity, keys[keyid] = keyid, present(key)
        else:
            device = keyid
    if len(keys) != 1 + (identity is not None):
        raise Refused("identity-alone" if len(keys) == 1 else "signature-count")
    if device is None:
        raise Refused("signature-count")
    if identity is not None and known[identity] != known[device]:
        raise Refused("identity-of-another-human")
    if identity is not None and not is_device(enrolled[device]):
        raise Refused("identity-alone")
    signatures = {one.keyid: one for one in envelope.signatures}
    try:  # the device's first: what a stranger says of a provider has nobody ask that provider
        proven = verify_envelope(Envelope(envelope.payload, (signatures[device],)), keys)[device]
        if identity is not None:
            verify_envelope(Envelope(envelope.payload, (signatures[identity],)), keys)
    except SignatureInvalid as error:
        raise Refused(error.code) from error
    return Signatory(known[device], device, proven.strength, proven.counter, identity)


def _statement(envelope: Envelope, reason: str) -> Statement:
    try:
        return parse_statement(envelope.payload)
    except FormatError as error:
        raise Refused(error.code if error.code in CODES else reason) from error


def verify_consent(
    trust: TrustRoot,
    request: Envelope,
    approvals: Sequence[Envelope],
    now_ms: int,
    issuers: Mapping[str, IssuerKeys] = _NOBODY,
) -> Consent:
    """Who consents to this request. Raises Refused with the first reason why something is wrong.

    (1) one human on the roster signed the request  (2) it is a request, for this deployment, about its
    subject  (3) its text can't be misread, and is the one shown  (4) each approval is one other human's
    (5) and binds this content, for this deployment, unexpired  (6) all of them are on the roster for this act.
    `issuers`: the identity providers' keys at this moment of the log.
    """
    present = _present(issuers, now_ms)
    keys: Keys = trust.keys
    known: Mapping[KeyId, Human] = {**trust.humans, **trust.sealed}
    initiator = _one_human(trust, request, known, keys, present)  # (1)
    statement = _statement(request, "not-a-request")  # (2)
    if statement.kind not in ACTS:
        raise Refused("not-a-request")
    predicate, act = statement.predicate, ACTS[statement.kind]
    if predicate["deployment"] != trust.deployment:
        raise Refused("other-deployment")
    if statement.kind != "quota" and (statement.kind in ABOUT_AGENTS) != (predicate["agent"] is not None):
        raise Refused("body-malformed")
    try:
        expected = _subjects(statement.kind, predicate)
    except FormatError as error:
        raise Refused("body-malformed") from error
    if statement.subjects != expected:
        raise Refused("subject-differs")
    try:
        verify_request_legible(predicate)
    except FormatError as error:
        raise Refused(error.code) from error
    if predicate["shown_sha256"] != sha256_hex(shown_text(statement.kind, predicate).encode()):  # (3)
        raise Refused("shown-differs")
    people, known = None, trust.humans
    if initiator.keyid in trust.sealed:
        if statement.kind != "grant":
            raise Refused("sealed-keys-apart")
        act, known = BREAK_GLASS, trust.sealed
    elif statement.kind == "trust-root-change":
        people = read_change(trust, predicate["body"])
        known, keys = {**people.humans, **trust.humans}, {**people.keys, **trust.keys}
    signatories = [initiator]
    for envelope in approvals:
        signatory = _one_human(trust, envelope, known, keys, present)  # (4)
        approval = _statement(envelope, "not-an-approval")
        if approval.kind != "approval":
            raise Refused("not-an-approval")
        if people is None and signatory.human == initiator.human:
            raise Refused("initiator-approves")
        if people is None and signatory.human in {one.human for one in signatories}:
            raise Refused("same-human-twice")
        _require_about(trust, request, approval, now_ms)  # (5)
        signatories.append(signatory)
    if people is not None:
        for version in (trust, people):
            counted(version, [one.keyid for one in signatories])
    elif act in QUORUMS and any(act not in trust.acts[one.human] for one in signatories):  # (6)
        raise Refused("act-not-on-roster")
    return Consent(statement, request.digest, tuple(signatories), act, people)


def _require_about(trust: TrustRoot, request: Envelope, answer: Statement, now_ms: int) -> None:
    """An answer binds this request's content, for this deployment, unexpired; else Refused."""
    said = answer.predicate
    if said["deployment"] != trust.deployment:
        raise Refused("other-deployment")
    if said["request_sha256"] != request.digest or answer.subjects != (Subject("request", request.digest),):
        raise Refused("approval-for-another-request")
    if said["shown_sha256"] != parse_statement(request.payload).predicate["shown_sha256"]:
        raise Refused("shown-differs")
    if said["expires_ms"] <= now_ms:
        raise Refused("approval-expired")


def verify_decline(
    trust: TrustRoot,
    request: Envelope,
    decline: Envelope,
    now_ms: int,
    issuers: Mapping[str, IssuerKeys] = _NOBODY,
) -> Human:
    """Who declines this request: any one human on the roster, who asked included, whatever acts they are there for.

    Raises Refused with the first reason why it is no decline.
    """
    signatory = _one_human(trust, decline, trust.humans, trust.keys, _present(issuers, now_ms))
    answer = _statement(decline, "not-a-decline")
    if answer.kind != "decline":
        raise Refused("not-a-decline")
    _require_about(trust, request, answer, now_ms)
    return signatory.human


def _present(issuers: Mapping[str, IssuerKeys], now_ms: int) -> Present:
    def present(identity: Identity) -> PresentIdentity:
        return PresentIdentity(identity, issuers.get(identity.issuer, IssuerKeys()), now_ms)

    return present


def standing(trust: TrustRoot, index: int, signatories: Sequence[Signatory]) -> set[Human]:
    """Who still stands behind the entry at `index`: not those whose key was flagged as compromised by then."""
    return {one.human for one in signatories if not is_spoilt(trust, index, one)}


def is_spoilt(trust: TrustRoot, index: int, one: Signatory) -> bool:
    """True if a key with which they signed the entry at `index` was flagged as compromised by then."""
    return any(index >= trust.compromised.get(key, index + 1) for key in (one.keyid, one.identity) if key is not None)


def head_of(size: int, root: bytes) -> dict[str, Any]:
    """The log head that a request carries: tree size and root."""
    return {"size": size, "root": b64encode(root)}
