"""What can be said in the log: in-toto Statements v1, one closed shape per predicate type.

Parses and builds; decides nothing. A payload is accepted only as its own canonical JSON, with exactly
the fields of its kind's shape, each within its named limit. Who may say which kind stands in `VOICES`,
and which kinds an operator signs in `ACTS`. Source: in-toto attestation v1, statement layer.

Times are Unix milliseconds (`*_ms`), digests lower-case hexadecimal SHA-256, ids 32 hexadecimal digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NewType

from .canonical import Digest, FormatError, Value, canonical, parse_canonical
from .legible import reason_of_id

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
TYPE_PREFIX: Final = "https://ironbound.dev/"
MAX_STATEMENT: Final = 65_535
MAX_TIME_MS: Final = 1 << 52
MAX_TEXT: Final = 4096

#: The name of a kind of statement, such as `grant`; its predicate type is a URI made of it.
Kind = NewType("Kind", str)
Shape = Callable[[Value, str], None]

#: The acts for which the trust root names how many humans they take.
QUORUMS: Final = ("module", "profile", "launch", "grant", "release", "reconfigure")
#: How many humans an act can take: an entry holds this many approvals.
MAX_CONSENTS: Final = 16
#: What a release key signs of a release, each an envelope of its own.
RELEASE: Final = ("provenance", "tests", "surface", "install")

_HASH = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_AGENT = re.compile(r"(canary:[0-9a-f]{32}|[a-z0-9][a-z0-9._-]{0,63})")
_TOOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_QUALIFIED = re.compile(r"000b[0-9a-f]{64}")
_PRINTABLE = re.compile(r"[\x20-\x7e]{0,200}")


def _refuse(path: str, expected: str, got: Value, code: str = "statement-shape") -> FormatError:
    return FormatError(code, f"{path}: expected {expected}, got {str(got)[:80]!a}")


def _matches(pattern: re.Pattern[str], expected: str) -> Shape:
    def shape(value: Value, path: str) -> None:
        if type(value) is not str or not pattern.fullmatch(value):
            code = reason_of_id(value) if type(value) is str else None
            raise _refuse(path, expected, value, code or "statement-shape")

    return shape


def text(limit: int = MAX_TEXT) -> Shape:
    """Any string of at most `limit` characters."""

    def shape(value: Value, path: str) -> None:
        if type(value) is not str or len(value) > limit:
            raise _refuse(path, f"text of at most {limit} characters", value)

    return shape


def integer(low: int, high: int) -> Shape:
    """An integer from `low` to `high`; a boolean is none."""

    def shape(value: Value, path: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise _refuse(path, f"an integer from {low} to {high}", value)

    return shape


def choice(*values: str) -> Shape:
    """One of a few words."""

    def shape(value: Value, path: str) -> None:
        if type(value) is not str or value not in values:
            raise _refuse(path, "one of " + ", ".join(values), value)

    return shape


def maybe(inner: Shape) -> Shape:
    """Null or the inner shape."""

    def shape(value: Value, path: str) -> None:
        if value is not None:
            inner(value, path)

    return shape


def each(inner: Shape, most: int, least: int = 0) -> Shape:
    """A list of `least` to `most` items of one shape."""

    def shape(value: Value, path: str) -> None:
        if type(value) is not list or not least <= len(value) <= most:
            raise _refuse(path, f"a list of {least} to {most}", value)
        for position, item in enumerate(value):
            inner(item, f"{path}[{position}]")

    return shape


def record(**fields: Shape) -> Shape:
    """An object with exactly these fields."""
    names = frozenset(fields)

    def shape(value: Value, path: str) -> None:
        if type(value) is not dict or value.keys() != names:
            raise _refuse(path, "exactly the fields " + ", ".join(sorted(names)), _keys(value))
        for name, inner in fields.items():
            inner(value[name], f"{path}.{name}")

    return shape


def tagged(tag: str, **shapes: Shape) -> Shape:
    """An object of the shape that its field `tag` names."""

    def shape(value: Value, path: str) -> None:
        named = value.get(tag) if type(value) is dict else None
        inner = shapes.get(named) if type(named) is str else None
        if inner is None:
            raise _refuse(path, f"an object whose {tag} is one of " + ", ".join(shapes), named)
        inner(value, path)

    return shape


def mapping(inner: Shape, most: int) -> Shape:
    """An object from names to one shape."""

    def shape(value: Value, path: str) -> None:
        if type(value) is not dict or len(value) > most:
            raise _refuse(path, f"an object of at most {most} fields", _keys(value))
        for name, item in value.items():
            inner(item, f"{path}.{name}")

    return shape


def _keys(value: Value) -> Value:
    return ", ".join(sorted(value)) if type(value) is dict else value


def anything(value: Value, path: str) -> None:
    """Any JSON; its own parser looks at it later, and the statement's size bounds it."""


def document(value: Value, path: str) -> None:
    """Any JSON object."""
    if type(value) is not dict:
        raise _refuse(path, "an object", value)


def boolean(value: Value, path: str) -> None:
    """True or false."""
    if type(value) is not bool:
        raise _refuse(path, "true or false", value)


digest = _matches(_HASH, "a SHA-256 in lower-case hexadecimal")
identifier = _matches(_ID, "32 hexadecimal digits")
name = _matches(_NAME, "a name of a-z 0-9 . _ -")
agent = _matches(_AGENT, "an agent's id")
tool = _matches(_TOOL, "a tool's name")
printable = _matches(_PRINTABLE, "at most 200 printable ASCII characters")
moment = integer(0, MAX_TIME_MS)
index = integer(0, 1 << 52)
count = integer(0, 1 << 52)
pid = integer(1, 1 << 22)

_qualified = _matches(_QUALIFIED, "a TPM name in hexadecimal")
#: A node's TPM: its attestation key as TPMT_PUBLIC in base64, and the name that it signs quotes with.
_attestation_key = record(root=choice("hardware", "software"), public=text(2048), qualified_name=_qualified)
_difference = record(path=text(200), expected=anything, got=anything)
#: An installation as it was found: the signed manifest that it was compared with (its envelope's SHA-256), how many
#: files, the digest of all of them, and where they, or the process that runs of them, are not as they should be.
_measured = record(manifest_sha256=digest, files=count, root=digest, differences=each(_difference, 64))
_probe_result = record(name=printable, verdict=choice("REFUSED", "ESCAPED", "INCONCLUSIVE"), refusal=text(1000))
_key = record(scheme=choice("ed25519"), public=text(64))
#: An operator's key, by the scheme in which it signs; `core.scheme` reads it.
_operator_key = tagged(
    "scheme",
    ed25519=_key,
    sshsig=record(scheme=choice("sshsig"), public=text(1024), user_verification=boolean),
    webauthn=record(
        scheme=choice("webauthn"),
        public=text(128),
        credential=text(1364),
        rp_id=text(253),
        origin=text(270),
        synced=boolean,
    ),
    oidc=record(scheme=choice("oidc"), issuer=text(255), client=text(255), subject=text(255), acr=text(255)),
)
#: An identity provider's public key, with the members of its JWK; `core.jose` reads it.
_issuer_key = tagged(
    "alg",
    RS256=record(alg=choice("RS256"), kid=text(200), n=text(1400)),
    ES256=record(alg=choice("ES256"), kid=text(200), x=text(43), y=text(43)),
    EdDSA=record(alg=choice("EdDSA"), kid=text(200), x=text(43)),
)
#: A checkpoint of this log, by its size and its root in base64.
_head = record(size=index, root=text(64))
#: A TPM's quote: TPMS_ATTEST and TPMT_SIGNATURE in base64, and the PCR's value before it was extended.
_quote = record(attest=text(2048), signature=text(2048), before=digest)
_rate = record(calls=integer(1, 1 << 20), window_ms=integer(1, 1 << 40))
_roles = ("controller", "node", "gateway", "monitor")
_keyed = each(_operator_key, 8, 1)


def _said(**fields: Shape) -> Shape:
    """A service's statement: every one has an id, the deployment and a time."""
    return record(id=identifier, deployment=name, at_ms=moment, **fields)


def _asked(**body: Shape) -> Shape:
    """An operator's request: what 3-formats calls the exact bytes that are signed."""
    return record(
        version=integer(1, 1),
        deployment=name,
        id=identifier,
        agent=maybe(_matches(_NAME, "an agent's id")),
        module_sha256=maybe(digest),
        config_sha256=maybe(digest),
        capability=record(before=each(identifier, 256), after=each(identifier, 256)),
        not_before_ms=moment,
        expires_ms=moment,
        log_head=_head,
        proposal=maybe(digest),
        shown_sha256=digest,
        ticket=text(200),
        body=record(**body),
    )


#: What another operator answers to a request: it binds its exact content.
_answer = record(
    version=integer(1, 1),
    deployment=name,
    id=identifier,
    request_sha256=digest,
    shown_sha256=digest,
    expires_ms=moment,
)

#: The shape of each kind's predicate.
SHAPES: Final[Mapping[str, Shape]] = {
    "trust-root": record(
        version=integer(1, 1 << 20),
        deployment=name,
        environment=name,
        created_ms=moment,
        operators=each(record(name=name, keys=_keyed, acts=each(choice(*QUORUMS), len(QUORUMS))), 64, 1),
        quorum=record(**dict.fromkeys(QUORUMS, integer(1, MAX_CONSENTS))),
        break_glass=maybe(record(quorum=integer(2, 8), holders=each(record(name=name, keys=_keyed), 8, 3))),
        services=record(**dict.fromkeys(_roles, _key)),
        log=record(origin=text(200), vkey=text(300)),
        witness_policy=text(8192),
        separation=record(mode=choice("user", "process"), users=mapping(integer(0, 1 << 31), 8)),
        bounds=record(
            drift_stop_ms=integer(1, 3_600_000),
            canary_interval_ms=integer(1000, 1 << 40),
            heartbeat_ms=integer(1000, 1 << 40),
        ),
        tpm=maybe(_attestation_key),
        release=maybe(_key),
    ),
    "module-approval": _asked(
        kind=choice("agent", "canary"), size=count, surface_sha256=maybe(digest), probe=maybe(document)
    ),
    "profile-approval": _asked(
        profile=name, layers=each(record(name=text(64), sha256=digest, sets=each(text(64), 64)), 16)
    ),
    "release-approval": _asked(
        release_sha256=digest, settings_sha256=digest, statements=record(**dict.fromkeys(RELEASE, digest))
    ),
    "launch-request": _asked(),
    "grant": _asked(
        tool=tool,
        action=name,
        where=document,
        calls=integer(1, 1 << 40),
        expires_ms=moment,
        credential=maybe(name),
        rate=maybe(_rate),
        budget=maybe(record(unit=name, total=integer(1, 1 << 50), call=integer(1, 1 << 50))),
        approvals=integer(0, MAX_CONSENTS),
        delegable=integer(0, 4),
    ),
    "call-approval": _asked(grant=identifier, tool=tool, args=document),
    "quota": _asked(before=maybe(_rate), after=maybe(_rate)),
    "revocation": _asked(grant=identifier),
    "stop": _asked(),
    "trust-root-change": _asked(previous_sha256=digest, root=document),
    "key-compromised": _asked(key=digest, since=index),
    "review": _asked(grant=identifier, request_sha256=digest, finding=choice("justified", "misused"), text=text(1000)),
    "approval": _answer,
    "decline": _answer,
    "admitted": _said(request=document, approvals=each(document, MAX_CONSENTS)),
    "refused": _said(submission_sha256=digest, reason=printable, detail=text(1000), verb=maybe(printable)),
    "proposed": _said(request=document),
    "seconded": _said(request_sha256=digest, approval=document),
    "declined": _said(request_sha256=digest, decline=document),
    "issuer-keys": _said(issuer=text(255), keys=each(_issuer_key, 32)),
    "issuer-keys-seen": _said(issuer=text(255), keys=each(_issuer_key, 32)),
    "started": _said(
        launch=index,
        agent=agent,
        module_sha256=digest,
        config_sha256=digest,
        runtime=name,
        runtime_sha256=digest,
        envelope=document,
        pid=pid,
        pid_start=count,
        boot_id=text(64),
        uid=count,
        posture=document,
        probes=each(_probe_result, 128),
        held=document,
        quote=maybe(_quote),
    ),
    "held": _said(
        launch=index,
        agent=agent,
        account_sha256=digest,
        pid=pid,
        posture=document,
        differences=each(_difference, 64),
    ),
    "launch-refused": _said(
        launch=index,
        agent=agent,
        stage=printable,
        reason=printable,
        text=text(),
        module_sha256=digest,
        config_sha256=maybe(digest),
    ),
    "exited": _said(
        launch=index,
        agent=agent,
        started=index,
        reason=printable,
        text=text(),
        report=text(),
        usage=record(messages=count, fuel=count, wall_ms=count, cpu_ms=count, max_rss=count),
    ),
    "canary-result": _said(
        challenge=index,
        nonce=identifier,
        probe=printable,
        verdict=choice("REFUSED", "ESCAPED", "INCONCLUSIVE"),
        refusal=text(),
        evidence=index,
        environment=name,
        node=digest,
        checkpoint=_head,
        boot_id=text(64),
        runtime=name,
        runtime_sha256=digest,
        release_sha256=digest,
        quote=maybe(_quote),
    ),
    "action-intent": _said(
        agent=agent,
        launch=index,
        grant=identifier,
        tool=tool,
        action=name,
        args=document,
        args_sha256=digest,
        approval=maybe(identifier),
        client=maybe(record(grant=identifier, args=document)),
    ),
    "action-outcome": _said(
        intent=index,
        status=choice("performed", "failed", "not-performed", "unknown"),
        detail=text(1000),
        result_sha256=maybe(digest),
        result_bytes=count,
        spent=maybe(count),
    ),
    "action-denied": _said(
        agent=agent,
        launch=index,
        tool=text(200),
        reason=printable,
        text=text(1000),
        args_sha256=maybe(digest),
        wants=maybe(record(grant=identifier, args=document)),
    ),
    "delegated": _said(
        agent=agent,
        launch=index,
        grant=identifier,
        to=agent,
        child=index,
        tool=tool,
        where=document,
        calls=integer(1, 1 << 40),
        expires_ms=moment,
        budget=count,
        delegable=integer(0, 4),
    ),
    "dropped": _said(agent=agent, launch=index, grant=identifier),
    "observed": _said(started=index, agent=agent, pid=pid, posture=document, differences=each(_difference, 64)),
    "drift": _said(
        kind=printable,
        started=maybe(index),
        pid=pid,
        pid_start=count,
        differences=each(_difference, 64),
        detected_ms=moment,
    ),
    "stop-order": _said(launch=maybe(index), pid=pid, pid_start=count, drift=index, reason=printable),
    "end-witnessed": _said(drift=index, pid=pid, pid_start=count, by=choice("monitor", "other"), took_ms=count),
    "heartbeat": _said(
        sequence=integer(1, 1 << 52),
        interval_ms=count,
        mode=choice("events", "sampled"),
        agents=count,
        processes=count,
        samples=count,
        root=text(64),
        events=count,
        lost=count,
        findings=count,
        leftovers=count,
    ),
    "kernel-proof": _said(
        kernel_sha256=digest,
        scripts_sha256=digest,
        obligations=count,
        rules=count,
        verdicts=each(
            record(
                solver=name,
                version=text(64),
                held=count,
                possible=count,
                failed=count,
                named=each(text(200), 16),
                took_ms=count,
            ),
            4,
        ),
    ),
    "snapshot": _said(size=index, root=text(64), state_sha256=digest),
    "canary-challenge": _said(
        nonce=identifier,
        probe=printable,
        module_sha256=digest,
        config_sha256=digest,
        environment=name,
        node=digest,
        checkpoint=_head,
    ),
    "channel-probed": _said(nonce=identifier, checkpoint=_head, began_ms=moment),
    "service-started": _said(
        role=choice(*_roles),
        pid=pid,
        pid_start=count,
        boot_id=text(64),
        uid=count,
        gid=count,
        separation=choice("user", "process"),
        version=printable,
        kernel_sha256=digest,
        surface_sha256=maybe(digest),
        release_sha256=digest,
        settings_sha256=digest,
        measured=maybe(_measured),
        host=document,
    ),
    "host-measured": _said(
        role=choice(*_roles, "ledger"),
        pid=pid,
        pid_start=count,
        measured=_measured,
    ),
}

#: Which kinds each service may say in the log. The ledger itself has no voice.
VOICES: Final[Mapping[str, frozenset[str]]] = {
    "controller": frozenset(
        {"service-started", "proposed", "seconded", "declined", "admitted", "refused", "issuer-keys", "snapshot"}
    ),
    "node": frozenset({"service-started", "started", "launch-refused", "exited", "canary-result"}),
    "gateway": frozenset(
        {"service-started", "action-intent", "action-outcome", "action-denied", "delegated", "dropped"}
    ),
    "monitor": frozenset(
        {
            "service-started",
            "observed",
            "drift",
            "stop-order",
            "end-witnessed",
            "heartbeat",
            "canary-challenge",
            "channel-probed",
            "issuer-keys-seen",
            "kernel-proof",
            "host-measured",
            "snapshot",
        }
    ),
}

#: Which kinds an operator signs as a request, with the act whose quorum it takes (None: one human).
ACTS: Final[Mapping[str, str | None]] = {
    "module-approval": "module",
    "profile-approval": "profile",
    "release-approval": "release",
    "launch-request": "launch",
    "grant": "grant",
    "call-approval": "grant",
    "quota": "reconfigure",
    "revocation": None,
    "stop": None,
    "trust-root-change": "reconfigure",
    "key-compromised": "reconfigure",
    "review": "grant",
}

#: The kinds that concern one agent and therefore carry its capability before and after.
ABOUT_AGENTS: Final = frozenset({"launch-request", "grant", "call-approval", "revocation", "stop"})


@dataclass(frozen=True, slots=True)
class Subject:
    """What a statement is about: a name and the SHA-256 of its bytes."""

    name: str
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Statement:
    """A parsed statement of a known kind whose predicate has that kind's shape."""

    kind: Kind
    subjects: tuple[Subject, ...]
    predicate: dict[str, Any]


def predicate_type(kind: str) -> str:
    """The predicate type URI of a kind."""
    return f"{TYPE_PREFIX}{kind}/v1"


_KIND_OF: Final[Mapping[str, str]] = {predicate_type(kind): kind for kind in SHAPES}
_FIELDS = {"_type", "subject", "predicateType", "predicate"}
_subjects = each(record(name=text(200), digest=record(sha256=digest)), 8, 1)


def encode_statement(kind: str, subjects: tuple[Subject, ...], predicate: Mapping[str, Any]) -> bytes:
    """The canonical payload of a statement; FormatError if it is not of its kind's shape."""
    if kind not in SHAPES:
        raise FormatError("statement-kind", f"no such kind: {kind}")
    body: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": subject.name, "digest": {"sha256": subject.sha256}} for subject in subjects],
        "predicateType": predicate_type(kind),
        "predicate": dict(predicate),
    }
    _subjects(body["subject"], "subject")
    SHAPES[kind](body["predicate"], kind)
    payload = canonical(body)
    if len(payload) > MAX_STATEMENT:
        raise FormatError("statement-too-large", f"{len(payload)} bytes, at most {MAX_STATEMENT}")
    return payload


def parse_statement(payload: bytes) -> Statement:
    """The statement in a payload; FormatError for anything but the canonical bytes of a known kind."""
    body = parse_canonical(payload, limit=MAX_STATEMENT)
    if type(body) is not dict or body.keys() != _FIELDS or body["_type"] != STATEMENT_TYPE:
        raise FormatError("statement-type", "not an in-toto Statement v1")
    uri = body["predicateType"]
    kind = _KIND_OF.get(uri) if type(uri) is str else None
    if kind is None:
        raise FormatError("statement-kind", f"unknown predicate type {str(uri)[:80]!r}")
    listed: Any = body["subject"]
    _subjects(listed, "subject")
    predicate: Any = body["predicate"]
    SHAPES[kind](predicate, kind)
    subjects = tuple(Subject(item["name"], item["digest"]["sha256"]) for item in listed)
    return Statement(Kind(kind), subjects, predicate)
