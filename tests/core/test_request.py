"""Requests and approvals: consent binds content, counts humans, and every defect is refused with its reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ironbound.core.authority import Refused
from ironbound.core.canonical import FormatError, b64encode, canonical, sha256_hex
from ironbound.core.envelope import Envelope, envelope_from_value, sign_envelope
from ironbound.core.reasons import REASONS
from ironbound.core.replay import Replay
from ironbound.core.request import NO_LIMITS, encode_request, verify_consent
from ironbound.core.shown import shown_text
from ironbound.core.statement import Subject, encode_statement, parse_statement
from verifier.lab import DAY, Lab, digest_of, honest, key

SCENE = honest()
LAB = SCENE.lab
ADA, BOB, CY = (LAB.humans[name] for name in ("ada", "bob", "cy"))
BODY: dict[str, Any] = {"kind": "agent", "size": 1, "surface_sha256": None, "probe": None}
LAUNCH: dict[str, Any] = {"agent": "newcomer", "module_sha256": SCENE.module, "config_sha256": SCENE.cage}


def refused(request: Envelope, *approvals: Envelope, replay: Replay = LAB.replay) -> str:
    """The reason why the request is not admitted; nothing may have changed by asking."""
    size, root = replay.size, replay.tree.root()
    with pytest.raises(Refused) as caught:
        replay.consider(request, approvals, LAB.now)
    assert (replay.size, replay.tree.root()) == (size, root)
    assert caught.value.reason in REASONS
    return caught.value.reason


def tampered(request: Envelope, **fields: Any) -> Envelope:
    """Another predicate under the old signatures."""
    value = json.loads(request.payload)
    value["predicate"] |= fields
    return Envelope(canonical(value), request.signatures)


def resigned(request: Envelope, **fields: Any) -> Envelope:
    """The same, signed by ada: a program that shows one thing and signs another."""
    return sign_envelope(tampered(request, **fields).payload, [ADA])


def approval(request: Envelope, who: Any = BOB, **fields: Any) -> Envelope:
    value = json.loads(LAB.approval(request, "bob").payload)
    value["predicate"] |= fields
    return sign_envelope(canonical(value), [who])


def test_an_honest_request_is_admitted_by_whoever_considers_it() -> None:
    request = LAB.request("launch-request", **LAUNCH)
    for approvals in ([LAB.approval(request, "bob")], [LAB.approval(request, "cy"), LAB.approval(request, "bob")]):
        consent = LAB.replay.consider(request, approvals, LAB.now)
        assert (consent.initiator, consent.digest) == ("ada", request.digest)
        assert len(set(consent.humans)) == len(consent.humans) == 1 + len(approvals)


def test_who_signs_the_request() -> None:
    request = LAB.request("launch-request", **LAUNCH)
    yes = LAB.approval(request, "bob")
    assert refused(tampered(request, ticket="other"), yes) == "signature-invalid"
    assert refused(sign_envelope(request.payload, [key("stranger")]), yes) == "signer-unknown"
    for service in LAB.services.values():
        assert refused(sign_envelope(request.payload, [service]), yes) == "signer-unknown"
    assert refused(sign_envelope(request.payload, [ADA, BOB]), yes) == "signature-count"
    assert refused(request) == "quorum-not-met"


def test_what_the_request_is() -> None:
    request = LAB.request("launch-request", **LAUNCH)
    other = sign_envelope(LAB.approval(request, "bob").payload, [ADA])
    assert refused(other, LAB.approval(request, "bob")) == "not-a-request"
    assert refused(sign_envelope(b"{}", [ADA])) == "not-a-request"
    assert refused(sign_envelope(b"\xff", [ADA])) == "not-a-request"
    foreign = LAB.request("launch-request", **LAUNCH, deployment="elsewhere")
    assert refused(foreign, LAB.approval(foreign, "bob")) == "other-deployment"
    hidden = resigned(request, ticket="what nobody was shown")
    assert refused(hidden, LAB.approval(hidden, "bob")) == "shown-differs"
    value = json.loads(request.payload)
    value["subject"][0]["digest"]["sha256"] = digest_of("another module")
    about_another = sign_envelope(canonical(value), [ADA])
    assert refused(about_another, LAB.approval(about_another, "bob")) == "subject-differs"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("launch-request", LAUNCH | {"agent": None}),
        ("launch-request", LAUNCH | {"module_sha256": None}),
        ("launch-request", LAUNCH | {"config_sha256": None}),
        ("module-approval", {"module_sha256": digest_of("x"), "agent": "a",
                             "body": BODY}),
        ("module-approval", {"config_sha256": digest_of("x"), "body": BODY}),
        ("module-approval", {"module_sha256": digest_of("x"), "config_sha256": digest_of("y"),
                             "body": BODY}),
        ("module-approval", {"module_sha256": digest_of("x"), "body": BODY | {"probe": {}}}),
        ("module-approval", {"module_sha256": digest_of("x"), "body": BODY | {"kind": "canary"}}),
        ("profile-approval", {"module_sha256": digest_of("x"), "body": {"profile": "p", "layers": []}}),
        ("profile-approval", {"module_sha256": digest_of("x"), "config_sha256": digest_of("y"),
                              "body": {"profile": "p", "layers": []}}),
        ("grant", LAUNCH | {"body": {"tool": "t", "action": "a", "where": {"p": {"like": "x"}}, "calls": 1,
                                     "expires_ms": LAB.now + DAY, "credential": None, **NO_LIMITS}}),
    ],
)  # fmt: skip
def test_a_request_whose_fields_do_not_fit_its_kind_is_refused(kind: str, fields: dict[str, Any]) -> None:
    request = LAB.request(kind, **fields)
    assert refused(request, LAB.approval(request, "bob")) == "body-malformed"


def test_a_request_about_nothing_can_neither_be_built_nor_smuggled_in() -> None:
    with pytest.raises(FormatError):
        LAB.request("stop", agent="clerk")
    request = LAB.request("stop", agent="clerk", module_sha256=SCENE.module)
    predicate = json.loads(request.payload)["predicate"] | {"module_sha256": None}
    empty = resigned(request, module_sha256=None, shown_sha256=_sha(shown_text("stop", predicate)))
    assert refused(empty) == "body-malformed"


def _sha(text: str) -> str:
    return digest_of(text)


def test_approvals_count_other_humans_once_and_bind_this_content() -> None:
    request = LAB.request("launch-request", **LAUNCH)
    second = LAB.request("launch-request", **LAUNCH)
    assert refused(request, approval(request, ADA)) == "initiator-approves"
    assert refused(request, approval(request), approval(request)) == "same-human-twice"
    assert refused(request, approval(request, key("stranger"))) == "signer-unknown"
    assert refused(request, approval(request, LAB.services["controller"])) == "signer-unknown"
    assert refused(request, sign_envelope(approval(request).payload, [BOB, CY])) == "signature-count"
    good = approval(request)
    assert refused(request, Envelope(good.payload, approval(second).signatures)) == "signature-invalid"
    assert refused(request, sign_envelope(b"[]", [BOB])) == "not-an-approval"
    assert refused(request, sign_envelope(request.payload, [BOB])) == "not-an-approval"
    assert refused(request, approval(request, deployment="elsewhere")) == "other-deployment"
    assert refused(request, approval(second)) == "approval-for-another-request"
    assert refused(request, approval(request, request_sha256=second.digest)) == "approval-for-another-request"
    value = json.loads(good.payload)
    value["subject"][0]["digest"]["sha256"] = second.digest
    assert refused(request, sign_envelope(canonical(value), [BOB])) == "approval-for-another-request"
    assert refused(request, approval(request, shown_sha256=digest_of("other"))) == "shown-differs"
    assert refused(request, approval(request, expires_ms=LAB.now)) == "approval-expired"
    assert LAB.replay.consider(request, [approval(request, expires_ms=LAB.now + 1)], LAB.now).humans == ("ada", "bob")


def test_an_approval_binds_content_and_not_the_request_s_id() -> None:
    request = LAB.request("launch-request", **LAUNCH)
    yes = LAB.approval(request, "bob")
    same_id = json.loads(request.payload)["predicate"]["id"]
    wider = LAB.request("launch-request", **LAUNCH, id=same_id, ticket="more than was approved")
    assert refused(wider, yes) == "approval-for-another-request"


def test_two_keys_of_one_human_are_one_human() -> None:
    lab = Lab()
    spare = key("ada's spare key")
    value = json.loads(parse_root(lab))
    value["predicate"]["operators"][0]["keys"].append({"scheme": "ed25519", "public": b64encode(spare.public.raw)})
    root = sign_envelope(canonical(value), list(lab.humans.values()))
    lab.entries.clear()
    lab.replay = Replay()
    lab.append(root.encode())
    request = lab.request("profile-approval", config_sha256=digest_of("c"), body={"profile": "p", "layers": []})
    by_spare = sign_envelope(lab.approval(request, "bob").payload, [spare])
    assert refused(request, by_spare, replay=lab.replay) == "initiator-approves"
    by_bob = lab.request("profile-approval", "bob", config_sha256=digest_of("c"), body={"profile": "p", "layers": []})
    both = [lab.approval(by_bob, "ada"), sign_envelope(lab.approval(by_bob, "ada").payload, [spare])]
    assert refused(by_bob, *both, replay=lab.replay) == "same-human-twice"


def parse_root(lab: Lab) -> bytes:
    return lab.replay.trust.envelope.payload


def test_time_and_head_bind() -> None:
    def ask(**fields: Any) -> str:
        request = LAB.request("launch-request", **LAUNCH | fields)
        return refused(request, LAB.approval(request, "bob"))

    assert ask(not_before_ms=LAB.now + 1) == "request-too-early"
    assert ask(expires_ms=LAB.now) == "request-expired"
    assert ask(expires_ms=LAB.now + DAY + 1) == "request-life-too-long"
    assert ask(not_before_ms=LAB.now - DAY, expires_ms=LAB.now + 1) == "request-life-too-long"
    size, root = LAB.replay.size, LAB.replay.tree.root()
    for head in (
        {"size": 0, "root": b64encode(root)},
        {"size": size + 1, "root": b64encode(root)},
        {"size": 1 << 52, "root": b64encode(root)},
        {"size": size - 1, "root": b64encode(root)},
        {"size": size, "root": b64encode(bytes(32))},
        {"size": size, "root": ""},
    ):
        assert ask(log_head=head) == "head-unknown"
    early = LAB.replay.tree.root_at(3)
    assert ask(agent="clerk", log_head={"size": 3, "root": b64encode(early)}) == "head-stale"


def test_a_root_that_is_no_base64_is_a_format_error_before_it_is_compared() -> None:
    request = LAB.request("launch-request", **LAUNCH, log_head={"size": 1, "root": "%%"})
    with pytest.raises(FormatError):
        LAB.replay.consider(request, [LAB.approval(request, "bob")], LAB.now)


def test_capability_before_and_after_is_what_really_is_and_will_be() -> None:
    def ask(kind: str, capability: dict[str, Any], **fields: Any) -> str:
        request = LAB.request(kind, **LAUNCH | {"agent": "clerk"} | fields, capability=capability)
        return refused(request, LAB.approval(request, "bob"))

    held = LAB.replay.holds("clerk")
    assert held == [SCENE.grant]
    for wrong in ({"before": [], "after": []}, {"before": held, "after": []}, {"before": held, "after": ["ab" * 16]}):
        assert ask("launch-request", wrong) == "capability-differs"
    body = {"tool": "u", "action": "a", "where": {}, "calls": 1, "expires_ms": LAB.now + DAY, "credential": None}
    body |= NO_LIMITS
    assert ask("grant", {"before": held, "after": held}, body=body) == "capability-differs"
    # Nor does a request that gives or takes no grant say that it does: its signers would read it.
    quota = {"before": None, "after": {"calls": 1, "window_ms": 1000}}
    nothing: dict[str, Any] = {"agent": None, "module_sha256": None, "config_sha256": None}
    about_none: dict[str, dict[str, Any]] = {
        "quota": {"body": quota},
        "profile-approval": {"config_sha256": digest_of("c"), "body": {"profile": "p", "layers": []}},
        "key-compromised": {"body": {"key": LAB.humans["cy"].public.keyid, "since": 0}},
    }
    for wrong in ({"before": held, "after": []}, {"before": [], "after": held}):
        assert ask("quota", wrong, module_sha256=None, config_sha256=None, body=quota) == "capability-differs"
        for kind, fields in about_none.items():
            assert ask(kind, wrong, **nothing | fields) == "capability-differs", kind
    for kind, fields in about_none.items():
        request = LAB.request(kind, **nothing | fields)
        assert LAB.replay.consider(request, [LAB.approval(request, "bob")], LAB.now), kind
    stop = LAB.request("stop", **LAUNCH | {"agent": "clerk"}, capability={"before": [], "after": []})
    assert LAB.replay.consider(stop, [], LAB.now), "what takes away is never refused"


def test_an_approval_that_expired_by_the_log_s_clock_is_not_considered_alive() -> None:
    lab = honest().lab
    request = lab.request("profile-approval", config_sha256=digest_of("c"), body={"profile": "p", "layers": []})
    yes = lab.approval(request, "bob", expires_ms=lab.now + 50)
    lab.now += 100
    lab.challenge(SCENE.canary, SCENE.cage, "operator-verbs")
    with pytest.raises(Refused) as caught:
        lab.replay.consider(request, [yes], lab.now - 100)
    assert caught.value.reason == "approval-expired"
    assert lab.admit(request, [yes], at_ms=lab.now - 100).void == "approval-expired"


def test_text_that_looks_like_something_else_is_refused_with_a_reason_of_its_own() -> None:
    request = LAB.request("launch-request", **LAUNCH)
    for agent, reason in (
        ("new\x1bcomer", "text-control-character"), ("new\u202ecomer", "text-bidirectional"),
        ("new\u200bcomer", "text-invisible"), ("newc\u043emer", "text-look-alike"),
        ("\u0436\u0443\u043a", "text-look-alike"),
        ("newcomer\u00e9", "text-look-alike"), ("NEWCOMER", "not-a-request"), ("new comer", "not-a-request"),
    ):  # fmt: skip
        assert refused(resigned(request, agent=agent)) == reason, agent
        with pytest.raises(FormatError) as caught:
            LAB.request("launch-request", **LAUNCH | {"agent": agent})
        assert caught.value.code == ("statement-shape" if reason == "not-a-request" else reason)
    for ticket, reason in (("a\nb", "text-control-character"), ("\u2066OPS-1", "text-bidirectional")):
        assert refused(resigned(request, ticket=ticket)) == reason
    body = {"tool": "t", "action": "a", "where": {"host": {"equals": "p\u0430y.example"}}, "calls": 1,
            "expires_ms": LAB.now + DAY, "credential": None, **NO_LIMITS}  # fmt: skip
    good = LAB.request("grant", **LAUNCH, body=body | {"where": {"host": {"equals": "pay.example"}}})
    assert refused(resigned(good, body=body)) == "text-look-alike"


def test_what_an_agent_wrote_is_shown_escaped() -> None:
    body = {"grant": SCENE.grant, "tool": "t", "args": {"p": "\u202e\x1b[2J\n\u0430"}}
    request = LAB.request("call-approval", **LAUNCH | {"agent": "clerk"}, body=body)
    text = shown_text("call-approval", parse_statement(request.payload).predicate)
    assert all(" " <= char <= "~" or char == "\n" for char in text)
    assert 'p            "\\u202e\\u001b[2J\\n\\u0430"' in text


def test_only_requests_can_be_built_as_requests() -> None:
    with pytest.raises(FormatError):
        encode_request("approval", {})


def test_taking_away_takes_one_human_and_giving_the_quorum() -> None:
    for kind, body in (("revocation", {"grant": SCENE.grant}), ("stop", {})):
        request = LAB.request(kind, **LAUNCH | {"agent": "clerk"}, body=body)
        assert LAB.replay.consider(request, [], LAB.now).humans == ("ada",)
        old = LAB.request(kind, **LAUNCH | {"agent": "clerk"}, body=body, expires_ms=1, not_before_ms=0,
                          log_head={"size": 0, "root": ""}, capability={"before": [], "after": []})  # fmt: skip
        assert LAB.replay.consider(old, [], LAB.now).humans == ("ada",)


def test_consent_is_read_from_an_envelope_as_it_is_in_the_log() -> None:
    request = LAB.request("launch-request", **LAUNCH)
    again = envelope_from_value(request.as_value())
    consent = verify_consent(LAB.replay.trust, again, [LAB.approval(request, "cy")], LAB.now)
    assert consent.humans == ("ada", "cy")
    forged = encode_statement("approval", (Subject("request", digest_of("x")),),  # type: ignore[arg-type]
                              json.loads(LAB.approval(request, "bob").payload)["predicate"])  # fmt: skip
    assert refused(request, sign_envelope(forged, [BOB])) == "approval-for-another-request"


def test_what_a_request_is_about_stands_in_its_subjects_under_a_name_of_its_own() -> None:
    lab = Lab()
    rate = {"calls": 1, "window_ms": 1}
    statements = dict.fromkeys(("provenance", "tests", "surface", "install"), digest_of("s"))
    release = {"release_sha256": digest_of("r"), "settings_sha256": digest_of("c"), "statements": statements}
    review = {"grant": "0" * 32, "request_sha256": digest_of("q"), "finding": "misused", "text": ""}
    quota = {"before": None, "after": rate}
    root = lab.next_root()
    expected = {
        "quota": (quota, [("quota", sha256_hex(canonical({"agent": None, "body": quota})))]),
        "key-compromised": ({"key": digest_of("k"), "since": 1}, [("key", digest_of("k"))]),
        "review": (review, [("request", digest_of("q"))]),
        "release-approval": (release, [("release", digest_of("r")), ("settings", digest_of("c"))]),
        "trust-root-change": (
            {"previous_sha256": digest_of("p"), "root": root}, [("trust-root", sha256_hex(canonical(root)))],
        ),
    }  # fmt: skip
    for kind, (body, subjects) in expected.items():
        statement = parse_statement(lab.request(kind, body=body).payload)
        assert [(one.name, one.sha256) for one in statement.subjects] == subjects
