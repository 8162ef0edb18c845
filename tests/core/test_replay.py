"""The fold: same bytes, same state; void words change nothing; no bytes make it raise; a second opinion on power."""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import fields as fields_of
from typing import Any

import ghost
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.authority import FIELDS
from ironbound.core.canonical import FormatError, canonical, sha256_hex
from ironbound.core.envelope import parse_envelope, sign_envelope
from ironbound.core.merkle import EMPTY_ROOT
from ironbound.core.reasons import REASONS
from ironbound.core.replay import AHEAD_MS, CHECKPOINT_LAG, CHECKPOINT_LAG_MS, Entry, Replay
from ironbound.core.request import NO_LIMITS, head_of
from ironbound.core.statement import parse_statement
from ironbound.core.surface import approval_body
from verifier.lab import DAY, ROLES, Honest, Lab, digest_of, honest, key, wasm

SCENE = honest()
ENTRIES = tuple(SCENE.lab.entries)


def state(replay: Replay) -> Any:
    """Everything that later entries can depend on, but the tree, the record of kinds and used ids."""
    books = {one.name: getattr(replay.books, one.name) for one in fields_of(replay.books)}
    kept = {name: value for name, value in books.items() if name not in ("kinds", "void")}
    return copy.deepcopy((replay.authority._state, kept))


def folded(entries: Any) -> Replay:
    replay = Replay()
    for data in entries:
        replay.apply(data)
    return replay


def after_everything() -> Replay:
    return folded(ENTRIES)


def test_two_folds_of_the_same_bytes_are_the_same() -> None:
    one, two = after_everything(), after_everything()
    assert state(one) == state(two)
    assert one.books == two.books
    assert one.tree.root() == two.tree.root()


def test_the_kernel_keeps_nothing_that_is_as_if_never_written() -> None:
    """Else equal states would have unequal bytes, and a snapshot would say where its history went through."""
    kept = after_everything().authority._state
    assert not [(field, key) for field, values in kept.items() for key in values if values[key] == FIELDS[field]]


def test_the_order_of_entries_decides() -> None:
    swapped = list(ENTRIES)
    kinds = [json.loads(parse_envelope(one).payload)["predicateType"] for one in ENTRIES]
    started = next(at for at, kind in enumerate(kinds) if "/started/" in kind)
    swapped[started], swapped[started - 1] = swapped[started - 1], swapped[started]
    other = folded(swapped)
    assert state(other) != state(after_everything())
    assert other.books.void[started - 1] == "reference-unknown"


def test_the_first_entry_is_the_operators_own() -> None:
    lab = Lab()
    said = parse_statement(parse_envelope(lab.entries[0]).payload).predicate
    assert lab.said[0] == Entry(0, lab.entries[0], "trust-root", "operators", said)
    assert lab.replay.books.kinds == ["trust-root"]
    with pytest.raises(FormatError) as refused:
        _ = Replay().trust
    assert refused.value.code == "trust-root-missing"


#: Reasons of what was never read as a statement; of what no entitled voice said for the first time; with a text.
UNREAD = {"entry-malformed", "voice-unknown", "signature-invalid"}
UNVOICED = UNREAD | {"voice-not-entitled", "other-deployment", "said-twice"}
EXPLAINED = {"entry-malformed", "signature-invalid", "body-malformed"}


def _void(scene: Honest) -> list[tuple[str, bytes]]:
    """Entries that may have no effect, each with its reason."""
    lab = scene.lab
    intent = scene.act()
    size = lab.replay.size

    def said(role: str, type_: str, signer: Any = None, **fields: Any) -> bytes:
        return sign_envelope(lab.statement(type_, fields), [signer or lab.services[role]]).encode()

    request = lab.request("launch-request", agent="x", module_sha256=scene.module, config_sha256=scene.cage)
    admitted = {"request": request.as_value(), "approvals": []}
    outcome = {"status": "performed", "detail": "", "result_sha256": None, "result_bytes": 0, "spent": None}
    usage = dict.fromkeys(("messages", "fuel", "wall_ms", "cpu_ms", "max_rss"), 0)
    exited = {"launch": scene.launch, "agent": "clerk", "reason": "r", "text": "", "report": "", "usage": usage}
    drift = {"kind": "k", "pid": 1, "pid_start": 1, "differences": [], "detected_ms": 1}
    order = {"pid": 1, "pid_start": 1, "reason": "r"}
    answered = max(lab.replay.books.challenges)
    asked = lab.replay.books.challenges[answered]
    ended = lab.replay.books.launches[answered].ended
    here = {"environment": "production", "node": lab.services["node"].public.keyid}
    canary = {
        "challenge": answered, "nonce": asked["nonce"], "evidence": ended, "checkpoint": asked["checkpoint"],
        "probe": "p", "verdict": "REFUSED", "refusal": "", "boot_id": "b", "runtime": "wasmtime",
        "runtime_sha256": digest_of("r"), "release_sha256": digest_of("r"), "quote": None,
    } | here  # fmt: skip
    challenge = {
        "nonce": "ab" * 16, "probe": "p", "module_sha256": scene.canary, "config_sha256": scene.cage,
        "checkpoint": lab.head(),
    } | here  # fmt: skip
    other_head = lab.head() | {"size": lab.replay.size - 1}
    empty = head_of(0, EMPTY_ROOT)
    elsewhere = {"node": key("another node").public.keyid}
    tampered = json.loads(said("gateway", "action-outcome", intent=intent, **outcome))
    tampered["payload"] = json.loads(said("gateway", "action-outcome", intent=intent, **outcome))["payload"]
    valid = said("gateway", "action-outcome", intent=intent, **outcome)
    return [
        ("entry-malformed", b""),
        ("entry-malformed", b"\xff" * 70_000),
        ("entry-malformed", sign_envelope(b"{}", [lab.services["node"]]).encode()),
        ("voice-unknown", said("node", "refused", key("stranger"), submission_sha256=digest_of("s"), reason="r",
                               detail="", verb=None)),
        ("voice-unknown", sign_envelope(lab.statement("admitted", admitted), [lab.humans["ada"]]).encode()),
        ("voice-unknown", sign_envelope(parse_envelope(valid).payload, list(lab.services.values())).encode()),
        ("voice-unknown", request.encode()),
        ("voice-unknown", ENTRIES[0]),
        ("signature-invalid", canonical(tampered)),
        ("voice-not-entitled", said("gateway", "admitted", **admitted)),
        ("voice-not-entitled", said("controller", "action-outcome", intent=intent, **outcome)),
        ("other-deployment", said("gateway", "action-outcome", intent=intent, **outcome, deployment="other")),
        ("said-twice", ENTRIES[3]),
        ("quorum-not-met", said("controller", "admitted", **admitted)),
        ("body-malformed", said("controller", "admitted", request={}, approvals=[])),
        ("reference-unknown", said("node", "exited", started=1, **exited)),
        ("reference-unknown", said("node", "exited", started=scene.started, **exited | {"launch": size + 9})),
        ("reference-unknown", said("monitor", "drift", started=1, **drift)),
        ("reference-unknown", said("monitor", "drift", started=size + 9, **drift)),
        ("reference-unknown", said("monitor", "stop-order", launch=scene.launch, drift=1, **order)),
        ("reference-unknown", said("monitor", "end-witnessed", drift=1, pid=1, pid_start=1, by="other", took_ms=1)),
        ("reference-unknown", said("monitor", "observed", started=scene.launch, agent="clerk", pid=1, posture={},
                                   differences=[])),
        ("reference-unknown", said("node", "canary-result", **canary | {"challenge": scene.launch})),
        ("reference-unknown", said("node", "canary-result", **canary | {"evidence": 1})),
        ("nonce-differs", said("node", "canary-result", **canary | {"nonce": "ab" * 16})),
        ("checkpoint-differs", said("node", "canary-result", **canary | {"checkpoint": lab.head()})),
        ("environment-differs", said("node", "canary-result", **canary | {"environment": "test"})),
        ("node-differs", said("node", "canary-result", **canary | elsewhere)),
        ("challenge-answered", said("node", "canary-result", **canary)),
        ("environment-differs", said("monitor", "canary-challenge", **challenge | {"environment": "test"})),
        ("node-differs", said("monitor", "canary-challenge", **challenge | elsewhere)),
        ("checkpoint-unknown", said("monitor", "canary-challenge", **challenge | {"checkpoint": other_head})),
        ("checkpoint-unknown", said("monitor", "canary-challenge", **challenge | {"checkpoint": empty})),
        ("intent-closed", said("gateway", "action-outcome", intent=intent, **outcome)),
        ("intent-unknown", said("gateway", "action-outcome", intent=scene.launch, **outcome)),
        ("intent-unknown", said("gateway", "action-outcome", intent=size + 9, **outcome)),
        ("agent-not-running", said("gateway", "action-intent", agent="clerk", launch=size + 9, grant=scene.grant,
                                   tool="write", action="scratch.write", args={}, args_sha256=digest_of("a"),
                                   approval=None, client=None)),
    ]  # fmt: skip


def test_void_entries_have_their_reason_and_change_nothing_but_the_tree() -> None:
    scene = honest()
    lab = scene.lab
    for reason, data in _void(scene):
        before, size = state(lab.replay), lab.replay.size
        entry = lab.append(data)
        assert entry.void == reason, (entry.kind, entry.void, entry.detail)
        assert reason in REASONS
        told = (entry.index, entry.data, entry.consent, entry.voiced)
        assert told == (size, data, None, reason not in UNVOICED), reason
        assert (entry.detail in ("", None, "None")) == (reason not in EXPLAINED), reason
        if reason in UNREAD:
            assert (entry.kind, entry.predicate) == ("", {}), reason
            read = {"voice-unknown": "", "signature-invalid": "gateway"}
            assert entry.role == read.get(reason, "node" if b"payload" in data else ""), reason
        else:
            envelope = parse_envelope(data)
            voice, statement = lab.replay.trust.voices[envelope.signatures[0].keyid], parse_statement(envelope.payload)
            assert (entry.role, entry.kind, entry.predicate) == (voice, statement.kind, statement.predicate), reason
        assert state(lab.replay) == before, reason
        assert lab.replay.size == size + 1
        assert lab.replay.books.void[size] == reason and lab.replay.books.kinds[size] == ""
    scene.act()


def test_an_intent_that_is_void_was_not_performed_and_nothing_else() -> None:
    scene = honest()
    lab = scene.lab
    void = lab.intent("clerk", scene.launch, scene.grant, tool="other")
    assert void.void is not None
    for status in ("performed", "failed", "unknown"):
        assert lab.outcome(void.index, status).void == "intent-unknown"
    lab.expect(lab.outcome(void.index, "not-performed"))
    assert lab.outcome(scene.launch, "not-performed").void == "intent-unknown"


def test_an_entry_about_itself_is_void() -> None:
    lab = honest().lab
    assert lab.outcome(lab.replay.size).void == "intent-unknown"
    assert lab.drift(lab.replay.size).void == "reference-unknown"


def test_what_the_monitor_saw_and_ordered_is_of_what_is_there() -> None:
    scene = honest()
    lab, pid = scene.lab, {"pid": 4242, "pid_start": 5}
    lab.expect(lab.drift(None))
    drift = lab.expect(lab.drift(scene.started))
    lab.expect(lab.say("monitor", "stop-order", launch=None, drift=drift, reason="r", **pid))
    assert not lab.replay.authority.read("launch_stopped", scene.launch)
    assert lab.say("monitor", "stop-order", launch=drift, drift=drift, reason="r", **pid).void == "reference-unknown"
    lab.expect(lab.say("monitor", "stop-order", launch=scene.launch, drift=drift, reason="r", **pid))
    assert lab.replay.authority.read("launch_stopped", scene.launch)
    assert lab.intent("clerk", scene.launch, scene.grant).void == "launch-stopped"
    lab.expect(lab.say("monitor", "end-witnessed", drift=drift, by="other", took_ms=1, **pid))


def test_a_void_word_uses_up_its_id_so_that_nobody_can_play_it_again_later() -> None:
    scene = honest()
    lab = scene.lab
    early = sign_envelope(lab.statement("started", _start(scene, lab.replay.size + 1)), [lab.services["node"]]).encode()
    assert lab.append(early).void == "reference-unknown"
    launch = lab.expect(lab.ask_launch("late", scene.module, scene.cage))
    assert launch == lab.replay.size - 1
    assert lab.append(early).void == "said-twice"


def _start(scene: Honest, launch: int) -> dict[str, Any]:
    account = {
        "launch": launch, "agent": "late", "module_sha256": scene.module, "config_sha256": scene.cage, "uid": 1,
        "runtime": "wasmtime", "runtime_sha256": digest_of("r"), "envelope": {},
        "pid": 1, "pid_start": 1, "boot_id": "b", "posture": {}, "probes": [],
    }  # fmt: skip
    return account | {"quote": None, "held": scene.lab.held(account)}


def test_a_launch_whose_request_expired_can_no_longer_start() -> None:
    scene = honest()
    lab = scene.lab
    launch = lab.expect(lab.ask_launch("late", scene.module, scene.cage))
    lab.now += 600_000
    entry = lab.start(launch)
    assert entry.void == "request-expired"
    assert lab.ask_launch("late", scene.module, scene.cage).void == "agent-already-running"
    refused = lab.say("node", "launch-refused", launch=launch, agent="late", stage="admission",
                      reason="request-expired", text="", module_sha256=scene.module, config_sha256=None)  # fmt: skip
    assert lab.replay.books.launches[launch].ended == lab.expect(refused)
    lab.expect(lab.ask_launch("late", scene.module, scene.cage))


def test_the_monitor_can_not_use_up_the_id_of_a_request_on_its_way() -> None:
    scene = honest()
    lab = scene.lab
    request = lab.request("launch-request", agent="x", module_sha256=scene.module, config_sha256=scene.cage)
    nonce = json.loads(request.payload)["predicate"]["id"]
    lab.challenge(scene.canary, scene.cage, "p", nonce=nonce)
    assert lab.say_challenge(scene.canary, scene.cage, "p", nonce=nonce).void == "request-replayed"
    lab.expect(lab.admit(request, [lab.approval(request, "bob")]))


def test_who_asked_before_the_agent_got_more_is_told_so() -> None:
    scene = honest()
    lab = scene.lab
    request = lab.request("launch-request", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage)
    lab.expect(lab.ask_grant("clerk", scene.module, scene.cage, tool="more"))
    assert lab.admit(request, [lab.approval(request, "bob")]).void == "head-stale"


def test_a_challenge_is_bound_to_a_checkpoint_that_was_fresh() -> None:
    scene = honest()
    lab = scene.lab
    lab.now += 10 * CHECKPOINT_LAG_MS
    old = lab.head()
    lab.challenge(scene.canary, scene.cage, "p", checkpoint=old)  # old, but nothing was said since
    lab.now += CHECKPOINT_LAG_MS - lab.step_ms
    lab.challenge(scene.canary, scene.cage, "p", checkpoint=old)
    assert lab.say_challenge(scene.canary, scene.cage, "p", checkpoint=old).void == "checkpoint-stale"
    lab.challenge(scene.canary, scene.cage, "p")
    old = lab.head()
    lab.append(b"noise")  # as old as what was said before it
    lab.now += CHECKPOINT_LAG_MS - lab.step_ms
    lab.challenge(scene.canary, scene.cage, "p", checkpoint=old)


def test_a_challenge_whose_checkpoint_lacks_too_many_entries_is_stale() -> None:
    scene = honest(step_ms=0)
    lab = scene.lab
    old = lab.head()
    for _ in range(CHECKPOINT_LAG):
        lab.append(b"noise")
    assert len(lab.replay._times) == CHECKPOINT_LAG + 1, "of the last entries only"
    lab.challenge(scene.canary, scene.cage, "p", checkpoint=old)
    assert lab.say_challenge(scene.canary, scene.cage, "p", checkpoint=old).void == "checkpoint-stale"
    lab.challenge(scene.canary, scene.cage, "p")


def test_what_humans_signed_for_later_is_not_done_because_a_voice_dates_its_word_ahead() -> None:
    scene = honest()
    lab, later = scene.lab, scene.lab.now + 600_000
    body = {
        "tool": "later", "action": "scratch.write", "where": {}, "calls": 1, "expires_ms": later + DAY,
        "credential": None, **NO_LIMITS,
    }  # fmt: skip
    about = {"agent": "clerk", "module_sha256": scene.module, "config_sha256": scene.cage, "body": body}
    request = lab.request("grant", not_before_ms=later, expires_ms=later + 60_000, **about)
    approvals = [lab.approval(request, "bob", expires_ms=later + 60_000)]
    assert lab.admit(request, approvals).void == "request-too-early"
    entry = lab.admit(request, approvals, at_ms=later)
    lab.expect(entry)
    assert entry.consent is not None
    call = {
        "agent": "clerk", "launch": scene.launch, "grant": entry.consent.statement.predicate["id"], "tool": "later",
        "action": "scratch.write", "args": {}, "client": None, "approval": None,
    }  # fmt: skip
    part = {
        "agent": "clerk", "launch": scene.launch, "grant": call["grant"], "to": "clerk", "child": scene.launch,
        "tool": "part", "where": {}, "calls": 1, "expires_ms": later + DAY, "budget": 0, "delegable": 0,
    }  # fmt: skip
    for now in (lab.now, later - AHEAD_MS - 1):
        assert lab.replay.call_refused(call, now) == lab.replay.delegation_refused(part, now) == "clock-ahead"
    assert lab.replay.call_refused(call, later - AHEAD_MS) is None
    assert lab.replay.delegation_refused(part, later - AHEAD_MS) == "grant-not-delegable"


def test_a_canary_holds_nothing_whatever_the_gateway_says() -> None:
    scene = honest()
    lab = scene.lab
    challenge = lab.challenge(scene.canary, scene.cage, "operator-verbs")
    lab.expect(lab.start(challenge))
    agent = lab.replay.books.launches[challenge].agent
    assert lab.intent(agent, challenge, scene.grant).void == "canary-holds-nothing"
    assert lab.intent("clerk", challenge, scene.grant).void == "canary-holds-nothing"
    scene.act()


@pytest.mark.parametrize("state_of_things", ["fresh", "revoked", "running", "ended", "unknown", "later"])
def test_a_signed_revocation_is_never_refused(state_of_things: str) -> None:
    scene = honest()
    lab = scene.lab
    grant = scene.grant
    if state_of_things == "revoked":
        lab.expect(lab.revoke("clerk", scene.module, scene.cage, grant))
    if state_of_things == "ended":
        lab.expect(lab.exit(scene.started))
    if state_of_things == "unknown":
        grant = "ab" * 16
    request = lab.request("revocation", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage,
                          body={"grant": grant})  # fmt: skip
    if state_of_things == "later":
        lab.now += 1 << 40
    lab.expect(lab.admit(request, []))
    lab.expect(lab.admit(request, []))
    entry = lab.intent("clerk", scene.launch, grant)
    assert entry.void is not None and lab.replay.authority.read("grant_state", grant) == 2
    assert lab.replay.holds("clerk") == ([scene.grant] if state_of_things == "unknown" else [])


def test_a_lone_kernel_state_is_reached_by_every_service_alike() -> None:
    """Reading on the way changes nothing: a follower that asks all the time stays with one that never does."""
    quiet, curious = Replay(), Replay()
    for data in ENTRIES:
        quiet.apply(data)
        curious.apply(data)
        curious.holds("clerk")
        curious.grant_named("clerk", "write")
        curious.authority.read("grant_left", "nothing")
    assert state(quiet) == state(curious)


_whole = after_everything()
_at = st.integers(1, len(ENTRIES) - 1)


@given(_at, st.integers(0, 10_000), st.binary(max_size=4), st.integers(0, 3))
def test_no_changed_entry_makes_the_fold_raise_or_change_anything(at: int, where: int, put: bytes, cut: int) -> None:
    data = ENTRIES[at]
    where %= len(data)
    changed = data[:where] + put + data[where + cut :]
    replay = copy.deepcopy(_whole)
    before = state(replay)
    entry = replay.apply(changed)
    assert entry.void is not None and entry.void in REASONS
    assert state(replay) == before


@given(st.binary(max_size=300))
def test_garbage_is_void(data: bytes) -> None:
    replay = copy.deepcopy(_whole)
    assert replay.apply(data).void == "entry-malformed"


_value: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(_at, st.data())
def test_an_entitled_voice_can_say_anything_and_the_fold_goes_on(at: int, data: st.DataObject) -> None:
    """Well-formed bytes under a good signature, with one field, at any depth, replaced."""
    whole = json.loads(parse_envelope(ENTRIES[at]).payload)
    keyid = parse_envelope(ENTRIES[at]).signatures[0].keyid
    signer = next(one for one in SCENE.lab.services.values() if one.public.keyid == keyid)
    target = whole["predicate"]
    while True:
        field = data.draw(st.sampled_from(sorted(target)))
        if isinstance(target[field], dict) and target[field] and data.draw(st.booleans()):
            target = target[field]
            continue
        target[field] = data.draw(_value | st.integers(0, len(ENTRIES) + 2))
        break
    try:
        payload = canonical(whole)
    except Exception as error:  # noqa: BLE001 - what can't be written can't be said
        assert type(error).__name__ == "FormatError"
        return
    replay = copy.deepcopy(_whole)
    entry = replay.apply(sign_envelope(payload, [signer]).encode())
    assert entry.void is None or entry.void in REASONS


@pytest.mark.parametrize("role", ROLES)
def test_no_service_alone_can_give_anything(role: str) -> None:
    scene = honest()
    lab = scene.lab
    before = state(lab.replay)[0]
    signer = lab.services[role]
    for kind in ("module-approval", "profile-approval", "launch-request", "grant"):
        fields: dict[str, Any] = {"agent": "clerk", "module_sha256": scene.module, "config_sha256": scene.cage}
        if kind == "module-approval":
            fields = {"module_sha256": sha256_hex(wasm("x")), "body": approval_body(b"{")}
        if kind == "profile-approval":
            fields = {"config_sha256": digest_of("x"), "body": {"profile": "p", "layers": []}}
        if kind == "grant":
            fields["body"] = {"tool": "t", "action": "a", "where": {}, "calls": 9, "expires_ms": lab.now + 1000,
                              "credential": None, **NO_LIMITS}  # fmt: skip
        request = sign_envelope(lab.request(kind, **fields).payload, [signer])
        approvals = [sign_envelope(lab.approval(request, "bob").payload, [signer])]
        assert lab.admit(request, approvals).void == "signer-unknown"
        assert lab.append(sign_envelope(request.payload, [signer]).encode()).void == "voice-not-entitled"
    assert state(lab.replay)[0] == before


def test_random_histories_agree_with_a_naive_second_opinion() -> None:
    seen: Counter[str] = Counter()
    for seed in range(12):
        seen += ghost.run(seed, 200)
    for what in ("launch-request", "grant", "start", "call", "end", "module-approval", "challenge"):
        assert seen[f"{what} yes"] > 3 and seen[f"{what} no"] > 3, (what, seen)
    assert seen["hand on yes"] > 1 and seen["hand on no"] > 3 and seen["drop yes"] and seen["drop no"]
    assert seen["revocation yes"] > 3 and seen["stop yes"] > 3 and seen["order yes"] > 3


def test_the_lab_s_history_is_honest() -> None:
    assert isinstance(SCENE.lab, Lab) and not after_everything().books.void
