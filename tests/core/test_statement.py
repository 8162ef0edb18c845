"""Statements: each kind has one closed shape, and whatever differs from it is refused with FormatError alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identities import ProviderKey
from ironbound.core.canonical import FormatError, canonical
from ironbound.core.envelope import envelope_from_value, parse_envelope
from ironbound.core.statement import (
    ABOUT_AGENTS,
    ACTS,
    MAX_STATEMENT,
    MAX_TIME_MS,
    SHAPES,
    VOICES,
    Subject,
    encode_statement,
    parse_statement,
    predicate_type,
)
from verifier.lab import Honest, Lab, digest_of, honest

SUBJECT = (Subject("it", digest_of("it")),)  # type: ignore[arg-type]
#: The records inside predicates that are closed too, as paths from the predicate.
NESTED: Mapping[str, list[tuple[str | int, ...]]] = {
    "trust-root": [
        ("operators", 0), ("operators", 0, "keys", 0), ("quorum",), ("services",), ("services", "node"), ("log",),
        ("separation",), ("bounds",), ("tpm",), ("release",), ("break_glass",), ("break_glass", "holders", 0),
    ],
    "started": [("probes", 0), ("quote",)],
    "canary-challenge": [("checkpoint",)],
    "canary-result": [("checkpoint",), ("quote",)],
    "exited": [("usage",)],
    "action-denied": [("wants",)],
    "action-intent": [("client",)],
    "drift": [("differences", 0)],
    "host-measured": [("measured",), ("measured", "differences", 0)],
    "service-started": [("measured",)],
    "issuer-keys": [("keys", 0), ("keys", 1)],
    "issuer-keys-seen": [("keys", 0), ("keys", 1)],
} | {kind: [("capability",), ("log_head",), ("body",)] for kind in ACTS}  # fmt: skip
NULLABLE = {
    "agent", "module_sha256", "config_sha256", "proposal", "probe", "credential", "verb", "result_sha256",
    "args_sha256", "started", "launch", "tpm", "quote", "surface_sha256", "release", "measured",
    "approval", "client", "spent", "wants", "rate", "budget", "before", "after", "break_glass",
}  # fmt: skip
#: Fields that take any JSON: another parser looks at them.
OPEN = {"expected", "got"}


def _predicates(scene: Honest) -> Iterator[tuple[str, dict[str, Any]]]:
    lab = scene.lab
    drift = lab.expect(lab.drift(scene.started))
    lab.stop_order(drift, scene.launch)
    lab.witness_end(drift)
    lab.beat(1)
    lab.revoke("clerk", scene.module, scene.cage, scene.grant)
    stop = lab.request("stop", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage)
    lab.expect(lab.admit(stop, []))
    lab.say("controller", "refused", submission_sha256=digest_of("s"), reason="request-expired", detail="", verb=None)
    lab.say("gateway", "action-denied", agent="clerk", launch=scene.launch, tool="t", reason="no-such-grant", text="",
            args_sha256=None, wants={"grant": scene.grant, "args": {}})  # fmt: skip
    lab.say("gateway", "delegated", agent="clerk", launch=scene.launch, grant=scene.grant, to="x", child=scene.launch,
            tool="t", where={}, calls=1, expires_ms=1, budget=0, delegable=0)  # fmt: skip
    lab.say("monitor", "snapshot", size=4096, root="", state_sha256=digest_of("state"))
    lab.say("gateway", "dropped", agent="clerk", launch=scene.launch, grant=scene.grant)
    call = lab.request("call-approval", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage,
                       body={"grant": scene.grant, "tool": "write", "args": {}})  # fmt: skip
    lab.admit(call, [])
    lab.ask("quota", agent="clerk", body={"before": None, "after": {"calls": 1, "window_ms": 1}})
    request = lab.change(lab.next_root())
    lab.say("controller", "proposed", request=request.as_value())
    approval = lab.approval(request, "bob").as_value()
    lab.say("controller", "seconded", request_sha256=request.digest, approval=approval)
    lab.say("controller", "declined", request_sha256=request.digest, decline=lab.decline(request, "bob").as_value())
    lab.reform(lab.next_root())
    lab.flag("cy", 1, "bob")
    review = {"grant": scene.grant, "request_sha256": digest_of("r"), "finding": "misused", "text": ""}
    lab.admit(lab.request("review", body=review), [])
    lab.say("node", "launch-refused", launch=scene.launch, agent="clerk", stage="imports", reason="sandbox-refused",
            text="unknown import", module_sha256=scene.module, config_sha256=None)  # fmt: skip
    lab.approve_release()
    lab.measure("ledger", differences=[{"path": "site/x.py", "expected": None, "got": "0"}])
    listed = [ProviderKey(alg, alg).public.entry() for alg in ("RS256", "ES256", "EdDSA")]
    lab.say("controller", "issuer-keys", issuer="https://idp.example", keys=listed)
    lab.say("monitor", "issuer-keys-seen", issuer="https://idp.example", keys=listed)
    for data in lab.entries:
        statement = parse_statement(parse_envelope(data).payload)
        yield statement.kind, statement.predicate
        signed = [statement.predicate["held"]] if statement.kind == "started" else []
        if statement.kind == "admitted":
            signed = [statement.predicate["request"], *statement.predicate["approvals"]]
        elif statement.kind == "declined":
            signed = [statement.predicate["decline"]]
        for inner in (parse_statement(envelope_from_value(one).payload) for one in signed):
            yield inner.kind, inner.predicate


HOLDERS = [Lab().holder(name) for name in ("ada", "eli", "fay")]
EXAMPLES: dict[str, dict[str, Any]] = dict(_predicates(honest(break_glass={"quorum": 2, "holders": HOLDERS})))
for _kind in ("started", "canary-result"):
    EXAMPLES[_kind]["quote"] = {"attest": "AAAA", "signature": "AAAA", "before": "0" * 64}
EXAMPLES["action-intent"]["client"] = {"grant": "0" * 32, "args": {}}
EXAMPLES["grant"]["body"] |= {
    "rate": {"calls": 1, "window_ms": 1}, "budget": {"unit": "tokens", "total": 1, "call": 1},
}  # fmt: skip
EXAMPLES["quota"]["body"]["before"] = {"calls": 2, "window_ms": 1}
NESTED["quota"].extend([("body", "before"), ("body", "after")])
NESTED["release-approval"].append(("body", "statements"))
NESTED["grant"].extend([("body", "rate"), ("body", "budget")])
EXAMPLES["trust-root"]["release"] = EXAMPLES["trust-root"]["services"]["node"]
EXAMPLES["service-started"]["measured"] = EXAMPLES["host-measured"]["measured"] | {"differences": []}
EXAMPLES["trust-root"]["tpm"] = {"root": "software", "public": "AAAA", "qualified_name": "000b" + "0" * 64}


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _records(kind: str) -> list[tuple[str | int, ...]]:
    return [(), *NESTED.get(kind, [])]


def _broken(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The example with one thing wrong, and what is wrong."""
    for path in _records(kind):
        for field in _at(EXAMPLES[kind], path):
            made = copy.deepcopy(EXAMPLES[kind])
            del _at(made, path)[field]
            yield f"{path} without {field}", made
        made = copy.deepcopy(EXAMPLES[kind])
        _at(made, path)["and_more"] = 1
        yield f"{path} with another field", made
        for field, value in _at(EXAMPLES[kind], path).items():
            for wrong in _wrong(field, value):
                made = copy.deepcopy(EXAMPLES[kind])
                _at(made, path)[field] = wrong
                yield f"{path}.{field} = {str(wrong)[:30]!r}", made


def _wrong(field: str, value: Any) -> Iterator[Any]:
    if field in OPEN:
        return
    for other in (None, True, 7, "\u0000 no name", [1], {"and_more": 1}):
        if type(other) is type(value) and not isinstance(other, str | list):
            continue
        if isinstance(other, str) and (value is None or isinstance(value, str)):
            continue
        if other is None and field in NULLABLE or value is None and type(other) is int:
            continue
        if isinstance(other, dict) and field == "probe":
            continue
        yield other
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield from (-1, MAX_TIME_MS * 2, str(value))
    elif isinstance(value, str):
        yield from ("z" * 9000, [value])
    elif isinstance(value, list):
        yield from ([[]], [None], ["x"] * 300, [value])


@pytest.mark.parametrize("kind", SHAPES)
def test_every_kind_has_an_example_that_comes_back_as_it_was(kind: str) -> None:
    payload = encode_statement(kind, SUBJECT, EXAMPLES[kind])
    statement = parse_statement(payload)
    assert (statement.kind, statement.subjects, statement.predicate) == (kind, SUBJECT, EXAMPLES[kind])
    assert encode_statement(kind, statement.subjects, statement.predicate) == payload


@pytest.mark.parametrize("kind", SHAPES)
def test_nothing_can_be_left_out_added_mistyped_or_too_large(kind: str) -> None:
    whole = json.loads(encode_statement(kind, SUBJECT, EXAMPLES[kind]))
    tried = 0
    for what, predicate in _broken(kind):
        for attempt in (
            lambda predicate=predicate: encode_statement(kind, SUBJECT, predicate),
            lambda predicate=predicate: parse_statement(canonical(whole | {"predicate": predicate})),
        ):
            with pytest.raises(FormatError):
                attempt()
                pytest.fail(f"{kind}: {what} was taken")
        tried += 1
    assert tried > 10


@pytest.mark.parametrize("kind", SHAPES)
def test_one_kind_does_not_pass_for_another(kind: str) -> None:
    whole = json.loads(encode_statement(kind, SUBJECT, EXAMPLES[kind]))
    # Two are about an agent and ask with an empty body, two are voices' word about one thing, two answer a request.
    same = [{"launch-request", "stop"}, {"issuer-keys", "issuer-keys-seen"}, {"approval", "decline"}]
    for other in SHAPES.keys() - {kind}:
        if {kind, other} in same:
            continue
        with pytest.raises(FormatError):
            parse_statement(canonical(whole | {"predicateType": predicate_type(other)}))


def test_the_statement_around_the_predicate_is_closed_too() -> None:
    whole = json.loads(encode_statement("stop", SUBJECT, EXAMPLES["stop"]))
    good = whole["subject"][0]
    for changed in (
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"more": 1},
        {"subject": []},
        {"subject": [good] * 9},
        {"subject": [good | {"uri": "x"}]},
        {"subject": [good | {"digest": {"sha256": "AB" * 32}}]},
        {"subject": [good | {"digest": {"sha512": "ab" * 32}}]},
        {"predicateType": 1},
        {"predicateType": predicate_type("stop") + "/"},
        {"predicateType": "https://ironbound.dev/stop/v2"},
        {"predicate": None},
    ):
        with pytest.raises(FormatError):
            parse_statement(canonical(whole | changed))
    for missing in whole:
        with pytest.raises(FormatError):
            parse_statement(canonical({key: value for key, value in whole.items() if key != missing}))


def test_other_spellings_of_the_same_statement_are_refused() -> None:
    payload = encode_statement("stop", SUBJECT, EXAMPLES["stop"])
    value = json.loads(payload)
    for spelled in (
        json.dumps(value).encode(),
        payload + b"\n",
        b" " + payload,
        b"\xef\xbb\xbf" + payload,
        payload.replace(b'"version":1', b'"version":1.0'),
        payload.replace(b'"version":1', b'"version":1,"version":1'),
        payload[:-1],
        b"",
    ):
        with pytest.raises(FormatError):
            parse_statement(spelled)


def test_a_statement_over_its_size_is_refused_on_both_sides() -> None:
    large = dict(EXAMPLES["observed"], posture={"x": "y" * MAX_STATEMENT})
    with pytest.raises(FormatError) as refused:
        encode_statement("observed", SUBJECT, large)
    assert refused.value.code == "statement-too-large"
    with pytest.raises(FormatError):
        parse_statement(b"1" * (MAX_STATEMENT + 1))


def test_an_unknown_kind_can_neither_be_said_nor_read() -> None:
    with pytest.raises(FormatError):
        encode_statement("grant-myself", SUBJECT, {})


def test_what_gives_power_is_no_service_s_to_say() -> None:
    said = [kind for kinds in VOICES.values() for kind in kinds]
    inner = {"trust-root", "approval", "decline", "held"}
    assert not set(said) & (ACTS.keys() | inner)
    assert set(said) | ACTS.keys() | inner == SHAPES.keys()
    shared = {kind for kind in said if said.count(kind) > 1}
    assert shared == {"service-started", "snapshot"}, "two roles may say the same thing"
    assert {kind for kind, act in ACTS.items() if act is None} == {"revocation", "stop"}
    assert ABOUT_AGENTS <= ACTS.keys()


_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(sorted(SHAPES)), st.data())
def test_any_value_in_any_field_parses_or_is_a_format_error(kind: str, data: st.DataObject) -> None:
    predicate = copy.deepcopy(EXAMPLES[kind])
    path = data.draw(st.sampled_from(_records(kind)))
    field = data.draw(st.sampled_from(sorted(_at(predicate, path)) or ["none"]))
    _at(predicate, path)[field] = data.draw(_json)
    try:
        payload = encode_statement(kind, SUBJECT, predicate)
    except FormatError:
        return
    assert parse_statement(payload).predicate == predicate


@given(st.binary(max_size=200))
def test_garbage_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_statement(data)


@given(st.sampled_from(sorted(SHAPES)), st.integers(0, 5000), st.integers(0, 255))
def test_a_changed_byte_parses_or_is_a_format_error(kind: str, at: int, byte: int) -> None:
    payload = bytearray(encode_statement(kind, SUBJECT, EXAMPLES[kind]))
    payload[at % len(payload)] = byte
    try:
        statement = parse_statement(bytes(payload))
    except FormatError:
        return
    assert encode_statement(statement.kind, statement.subjects, statement.predicate) == bytes(payload)
