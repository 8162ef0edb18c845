"""The trust root changes by both quorums, one version at a time, and by nothing else; keys that go take their word."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ironbound.core.authority import FIELDS, LIVE, MAX_BREAK_GLASS_MS, REVOKED, Refused
from ironbound.core.canonical import FormatError, canonical
from ironbound.core.envelope import Envelope, sign_envelope
from ironbound.core.reasons import REASONS
from ironbound.core.replay import Replay
from ironbound.core.request import NO_LIMITS
from ironbound.core.roster import body_digest, differences
from ironbound.core.statement import QUORUMS
from ironbound.core.strength import Strength
from ironbound.core.trust import parse_trust_root
from verifier.lab import DAY, Honest, Lab, config, honest, key, wasm


@pytest.fixture
def lab() -> Lab:
    """Ada, bob and cy, quorum two, and dora, who is not on the roster yet."""
    made = Lab()
    made.announce()
    made.approve_module(wasm())
    made.approve_profile(config())
    made.humans["dora"] = key("dora")
    return made


def refused(lab: Lab, request: Envelope, *approvals: Envelope) -> str:
    """Why the request is not admitted, whoever considers it; and nothing changes when it is put into the log."""
    with pytest.raises(Refused) as caught:
        lab.replay.consider(request, approvals, lab.now)
    trust, state = lab.replay.trust, lab.replay.authority.digest()
    entry = lab.admit(request, approvals)
    assert entry.void == caught.value.reason in REASONS
    assert lab.replay.trust is trust
    assert lab.replay.authority.digest() == state
    return entry.void


def operators(lab: Lab, *names: str) -> list[dict[str, Any]]:
    return [lab.person(name) for name in names]


def launch(lab: Lab, who: str, *approvers: str, agent: str = "") -> Any:
    module, cage = next(iter(lab.replay.books.modules)), next(iter(lab.replay.books.profiles))
    about = {"agent": agent or f"agent-{lab.replay.size}", "module_sha256": module, "config_sha256": cage}
    request = lab.request("launch-request", who, **about)
    return lab.admit(request, [lab.approval(request, one) for one in approvers])


# A change that both quorums signed


def test_a_change_is_in_force_from_its_entry_on(lab: Lab) -> None:
    first = lab.replay.trust
    entry = lab.reform(lab.next_root(operators=operators(lab, "ada", "bob", "dora")))
    lab.expect(entry)
    now = lab.replay.trust
    assert (now.version, set(now.humans.values())) == (2, {"ada", "bob", "dora"})
    assert lab.replay.authority.read("version", "") == 2
    assert now.pin == first.pin, "the pin names the first trust root, for ever"
    assert lab.replay.books.signed[entry.index][0].strength is Strength.SOFTWARE
    lab.expect(launch(lab, "dora", "ada"))


def test_an_operator_who_was_removed_consents_to_nothing_more_and_what_they_signed_stays(lab: Lab) -> None:
    before = lab.expect(launch(lab, "cy", "ada", agent="early"))
    held = lab.request("launch-request", "ada", agent="x", module_sha256="0" * 64, config_sha256="0" * 64)
    late = lab.approval(held, "cy")  # signed before the removal, delivered after
    lab.expect(lab.reform(lab.next_root(operators=operators(lab, "ada", "bob"))))
    assert lab.replay.books.launches[before].humans == ("cy", "ada")
    assert lab.replay.stands(before)
    assert launch(lab, "ada", "cy").void == "signer-removed"
    assert launch(lab, "cy", "ada").void == "signer-removed"
    assert refused(lab, held, late) == "signer-removed"
    stop = lab.request("stop", "cy", agent="early", module_sha256="0" * 64, config_sha256="0" * 64)
    assert refused(lab, stop) == "signer-removed"
    lab.expect(launch(lab, "ada", "bob"))


def test_somebody_new_consents_to_nothing_before_the_change(lab: Lab) -> None:
    assert launch(lab, "ada", "dora").void == "signer-unknown"


def test_a_removed_operator_can_come_back_with_the_same_key(lab: Lab) -> None:
    everybody = lab.replay.trust.body["operators"]
    lab.expect(lab.reform(lab.next_root(operators=operators(lab, "ada", "bob"))))
    lab.expect(lab.reform(lab.next_root(operators=everybody)))
    assert lab.replay.trust.version == 3
    lab.expect(launch(lab, "ada", "cy"))


def test_a_person_alone_changes_their_own_key_by_signing_with_both(lab: Lab) -> None:
    quorum = dict.fromkeys(QUORUMS, 1)
    lab.expect(lab.reform(lab.next_root(operators=operators(lab, "ada"), quorum=quorum)))
    lab.humans["ada anew"] = key("ada anew")
    root = lab.next_root(operators=[lab.person("ada", lab.humans["ada anew"])])
    request = lab.change(root)
    assert refused(lab, request) == "new-quorum-not-met"
    request = lab.change(root)
    entry = lab.admit(request, [lab.approval(request, "ada anew")])
    lab.expect(entry)
    assert entry.consent is not None
    assert entry.consent.humans == ("ada",)
    assert launch(lab, "ada").void == "signer-removed"
    lab.expect(launch(lab, "ada anew"))


# A change that they did not


def test_one_human_is_not_the_quorum_of_the_version_before(lab: Lab) -> None:
    assert refused(lab, lab.change(lab.next_root())) == "quorum-not-met"
    root = lab.next_root(operators=operators(lab, "ada", "dora", "bob"))
    request = lab.change(root)
    assert refused(lab, request, lab.approval(request, "dora")) == "quorum-not-met"


def test_the_quorum_of_the_version_before_is_not_that_of_the_version_after(lab: Lab) -> None:
    root = lab.next_root(operators=operators(lab, "ada", "dora"))
    request = lab.change(root)
    assert refused(lab, request, lab.approval(request, "bob")) == "new-quorum-not-met"
    request = lab.change(root)
    lab.expect(lab.admit(request, [lab.approval(request, "bob"), lab.approval(request, "dora")]))


def test_a_higher_quorum_is_met_by_the_change_that_asks_for_it(lab: Lab) -> None:
    root = lab.next_root(quorum=dict.fromkeys(QUORUMS, 3))
    assert lab.reform(root).void == "new-quorum-not-met"
    lab.expect(lab.reform(root, "bob", "cy"))
    assert launch(lab, "ada", "bob").void == "quorum-not-met"
    assert lab.reform(lab.next_root(quorum=dict.fromkeys(QUORUMS, 2))).void == "quorum-not-met"


def test_one_human_with_two_keys_is_one_human(lab: Lab) -> None:
    lab.humans["ada's other"] = key("ada's other")
    both = [lab.person("ada", lab.humans["ada"], lab.humans["ada's other"]), *operators(lab, "bob", "cy")]
    request = lab.change(lab.next_root(operators=both))
    assert refused(lab, request, lab.approval(request, "ada's other")) == "same-human-twice"
    request = lab.change(lab.next_root(operators=both))
    assert refused(lab, request, lab.approval(request, "ada")) == "same-human-twice"
    lab.expect(lab.reform(lab.next_root(operators=both)))
    request = lab.change(lab.next_root())
    assert refused(lab, request, lab.approval(request, "ada's other")) == "same-human-twice"


def test_a_change_forged_by_a_stranger_a_service_or_an_agents_gateway_has_no_effect(lab: Lab) -> None:
    lab.humans |= {"eve": key("eve"), "gateway": lab.services["gateway"]}
    for forger in ("eve", "gateway", "dora"):
        request = lab.change(lab.next_root(operators=operators(lab, "ada", "bob", "dora")), forger)
        assert refused(lab, request, lab.approval(request, "bob")) == "signer-unknown"
        request = lab.change(lab.next_root())
        assert refused(lab, request, lab.approval(request, "eve")) == "signer-unknown"


def test_a_change_that_was_tampered_with_after_it_was_signed_has_no_effect(lab: Lab) -> None:
    request = lab.change(lab.next_root())
    approval = lab.approval(request, "bob")
    other = lab.change(lab.next_root(operators=operators(lab, "ada", "bob", "dora")))
    assert refused(lab, Envelope(other.payload, request.signatures), approval) == "signature-invalid"
    assert refused(lab, other, approval) == "approval-for-another-request"


def test_versions_are_not_skipped_and_do_not_go_back(lab: Lab) -> None:
    first = dict(lab.replay.trust.body)
    for version in (1, 3, 7):
        assert lab.reform({**lab.next_root(), "version": version}).void == "trust-root-version"
    lab.expect(lab.reform(lab.next_root(operators=operators(lab, "ada", "bob"))))
    for version in (1, 2):
        assert lab.reform({**first, "version": version}).void == "trust-root-version"
    assert lab.replay.trust.version == 2


def test_a_change_is_replayed_neither_later_nor_elsewhere(lab: Lab) -> None:
    request = lab.change(lab.next_root())
    approvals = [lab.approval(request, "bob")]
    lab.expect(lab.admit(request, approvals))
    assert refused(lab, request, *approvals) == "trust-root-version"
    other = Lab()
    other.announce()
    body = {"previous_sha256": body_digest(other.replay.trust.body), "root": {**other.next_root(), "deployment": "x"}}
    foreign = other.request("trust-root-change", body=body, deployment="x")
    assert refused(lab, foreign, other.approval(foreign, "bob")) == "other-deployment"
    within = lab.change({**lab.next_root(), "deployment": "x"})
    assert refused(lab, within, lab.approval(within, "bob")) == "other-deployment"


def test_a_change_names_what_it_replaces(lab: Lab) -> None:
    for other in ("0" * 64, body_digest(lab.next_root())):
        request = lab.change(lab.next_root(), previous_sha256=other)
        assert refused(lab, request, lab.approval(request, "bob")) == "trust-root-previous"


@pytest.mark.parametrize(
    "field", ["environment", "created_ms", "services", "log", "witness_policy", "separation", "bounds", "tpm"]
)
def test_what_is_not_people_does_not_change(lab: Lab, field: str) -> None:
    body: dict[str, Any] = copy.deepcopy(dict(lab.replay.trust.body))
    other: dict[str, Any] = {
        "environment": "test",
        "created_ms": body["created_ms"] + 1,
        "services": {**body["services"], "node": lab.person("dora")["keys"][0]},
        "log": {**body["log"], "origin": "other.example/log"},
        "witness_policy": body["witness_policy"] + "\n",
        "separation": {"mode": "process", "users": {}},
        "bounds": {**body["bounds"], "drift_stop_ms": 1},
        "tpm": {"root": "software", "public": "AAAA", "qualified_name": "000b" + "0" * 64},
    }
    assert lab.reform(lab.next_root(**{field: other[field]})).void == "trust-root-fixed"


def _no_such_field(lab: Lab, body: dict[str, Any]) -> None:
    body["more"] = 1


def _quorum_beyond(lab: Lab, body: dict[str, Any]) -> None:
    body["quorum"] = {**body["quorum"], "grant": 4, "reconfigure": 4}


def _fewer_change_it(lab: Lab, body: dict[str, Any]) -> None:
    body["quorum"] = {**body["quorum"], "reconfigure": 1}


def _nobody_for_an_act(lab: Lab, body: dict[str, Any]) -> None:
    body["operators"] = [lab.person(name, acts=("module",)) for name in ("ada", "bob", "cy")]


def _twice(lab: Lab, body: dict[str, Any]) -> None:
    body["operators"] = operators(lab, "ada", "bob", "cy", "ada")


def _shared(lab: Lab, body: dict[str, Any]) -> None:
    body["operators"] = [*operators(lab, "ada", "bob"), lab.person("cy", lab.humans["bob"])]


def _two_holders(lab: Lab, body: dict[str, Any]) -> None:
    body["break_glass"] = {"quorum": 2, "holders": [lab.holder("ada"), lab.holder("bob")]}


def _holders_few(lab: Lab, body: dict[str, Any]) -> None:
    body["break_glass"] = {"quorum": 4, "holders": [lab.holder(one) for one in ("ada", "bob", "cy")]}


def _sealed_and_not(lab: Lab, body: dict[str, Any]) -> None:
    holders = [lab.holder(one) for one in ("ada", "bob")]
    holders.append({"name": "cy", "keys": lab.person("cy")["keys"]})
    body["break_glass"] = {"quorum": 2, "holders": holders}


@pytest.mark.parametrize(
    "spoil",
    [
        _no_such_field, _quorum_beyond, _fewer_change_it, _nobody_for_an_act, _twice, _shared, _two_holders,
        _holders_few, _sealed_and_not,
    ],
)  # fmt: skip
def test_an_unsound_roster_takes_no_effect(lab: Lab, spoil: Callable[[Lab, dict[str, Any]], None]) -> None:
    body = lab.next_root()
    spoil(lab, body)
    assert lab.reform(body, "bob", "cy").void == "trust-root-unsound"


def test_no_log_begins_with_a_later_version_or_an_unsound_roster() -> None:
    lab = Lab()
    with pytest.raises(FormatError) as refusal:
        parse_trust_root(_root(lab, version=2))
    assert refusal.value.code == "trust-root-version"
    few = {**lab.replay.trust.body["quorum"], "reconfigure": 1}
    with pytest.raises(FormatError) as refusal:
        parse_trust_root(_root(lab, quorum=few))
    assert refusal.value.code == "trust-root-quorum"


def _root(lab: Lab, **changes: Any) -> bytes:
    from ironbound.core.statement import Subject, encode_statement

    body = {**lab.replay.trust.body, **changes}
    payload = encode_statement("trust-root", (Subject("lab", "0" * 64),), body)  # type: ignore[arg-type]
    return sign_envelope(payload, [lab.humans[one] for one in ("ada", "bob", "cy")]).encode()


def test_a_key_never_goes_to_another_owner(lab: Lab) -> None:
    cy = lab.humans["cy"]
    lab.expect(lab.reform(lab.next_root(operators=operators(lab, "ada", "bob"))))
    taken = [*operators(lab, "ada", "bob"), lab.person("dora", cy)]
    assert lab.reform(lab.next_root(operators=taken)).void == "trust-root-roster"
    for owner in (lab.services["node"], lab.log.key, lab.witness.key):
        root = lab.next_root(operators=[*operators(lab, "ada", "bob"), lab.person("dora", owner)])
        assert lab.reform(root).void == "trust-root-roster"


def test_a_human_counts_for_the_acts_that_the_roster_names(lab: Lab) -> None:
    people = [*operators(lab, "ada", "bob"), lab.person("cy", acts=("launch",)), lab.person("dora", acts=())]
    lab.expect(lab.reform(lab.next_root(operators=people)))
    for who in ("cy", "dora"):
        request = lab.request("profile-approval", "ada", config_sha256="0" * 64, body={"profile": "p", "layers": []})
        assert refused(lab, request, lab.approval(request, who)) == "act-not-on-roster"
    request = lab.change(lab.next_root())
    assert refused(lab, request, lab.approval(request, "bob"), lab.approval(request, "cy")) == "act-not-on-roster"
    lab.expect(launch(lab, "ada", "cy"))
    stop = lab.request("stop", "dora", agent="clerk", module_sha256="0" * 64, config_sha256="0" * 64)
    lab.expect(lab.admit(stop, []))


def test_what_a_change_changes_is_said_before_and_after(lab: Lab) -> None:
    before = lab.replay.trust.body
    keys = {who: lab.humans[who].public.keyid for who in ("cy", "dora")}
    people = [*operators(lab, "ada"), lab.person("bob", acts=("grant", "module")), lab.person("dora")]
    after = lab.next_root(operators=people, quorum={**before["quorum"], "grant": 1})
    assert list(differences(before, before)) == []
    assert list(differences(before, after)) == [
        ("operator bob acts", "grant launch module profile reconfigure release", "grant module"),
        ("operator cy acts", "grant launch module profile reconfigure release", "-"),
        (f"operator cy key {keys['cy']}", "ed25519", "-"),
        ("operator dora acts", "-", "grant launch module profile reconfigure release"),
        (f"operator dora key {keys['dora']}", "-", "ed25519"),
        ("quorum grant", "2", "1"),
        ("version", "1", "2"),
    ]


# Keys that were stolen


@pytest.fixture
def scene() -> Honest:
    return honest()


def test_what_a_stolen_key_signed_since_goes_where_the_quorum_does_not_stand_without_it(scene: Honest) -> None:
    lab = scene.lab
    stolen = lab.replay.size
    request = lab.request(
        "grant", "ada", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage, body=_body(lab, "b")
    )
    bare = lab.expect(lab.admit(request, [lab.approval(request, "bob")]))
    request = lab.request(
        "grant", "ada", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage, body=_body(lab, "c")
    )
    backed = lab.expect(lab.admit(request, [lab.approval(request, "bob"), lab.approval(request, "cy")]))
    grants = {one.index: one.id for one in lab.replay.books.grants.values()}
    lab.expect(lab.flag("bob", stolen, "cy"))
    read = lab.replay.authority.read
    assert (lab.replay.stands(bare), lab.replay.stands(backed)) == (False, True)
    assert read("grant_state", grants[bare]) == REVOKED
    assert read("grant_state", grants[backed]) == LIVE
    assert read("grant_state", scene.grant) == LIVE, "signed before the key was stolen"
    intent = lab.intent("clerk", scene.launch, grants[bare], tool="b")
    assert intent.void == "grant-revoked"
    lab.expect(lab.intent("clerk", scene.launch, grants[backed], tool="c"))


def _body(lab: Lab, tool: str) -> dict[str, Any]:
    return {
        "tool": tool, "action": "scratch.write", "where": {"path": {"prefix": {"value": "out", "separator": "/"}}},
        "calls": 9, "expires_ms": lab.now + DAY, "credential": None, **NO_LIMITS,
    }  # fmt: skip


def test_a_module_and_a_profile_that_rest_on_a_stolen_key_take_launches_and_grants_with_them(scene: Honest) -> None:
    lab = scene.lab
    lab.expect(lab.flag("bob", 0, "cy"))
    read = lab.replay.authority.read
    assert read("module", scene.module) == read("profile", scene.cage) == 0
    assert read("launch_stopped", scene.launch)
    assert read("grant_state", scene.grant) == REVOKED
    assert lab.intent("clerk", scene.launch, scene.grant).void == "launch-stopped"
    request = lab.request("launch-request", agent="x", module_sha256=scene.module, config_sha256=scene.cage)
    assert refused(lab, request, lab.approval(request, "cy")) == "module-not-approved"


@pytest.mark.parametrize("stolen", ["module", "profile"])
def test_a_stolen_approval_takes_what_others_gave_to_that_code_or_cage_and_nothing_else(
    scene: Honest, stolen: str
) -> None:
    lab, read = scene.lab, scene.lab.replay.authority.read
    since, about = lab.replay.size, {"module_sha256": scene.module, "config_sha256": scene.cage}
    if stolen == "module":
        about["module_sha256"] = lab.approve_module(wasm("other"))
    else:
        about["config_sha256"] = lab.approve_profile(config(max_fuel=1))

    def by_cy(kind: str, **fields: Any) -> Any:
        request = lab.request(kind, agent="other", **about, **fields)
        return lab.admit(request, [lab.approval(request, "cy")])

    runs = lab.expect(by_cy("launch-request"))
    lab.expect(lab.start(runs))
    grant = by_cy("grant", body=_body(lab, "g")).consent.statement.predicate["id"]
    assert (read("launch_stopped", runs), read("grant_state", grant)) == (False, LIVE)
    lab.expect(lab.flag("bob", since, "cy"))
    assert read(stolen, about["module_sha256" if stolen == "module" else "config_sha256"]) == 0
    assert read("launch_stopped", runs) and read("grant_state", grant) == REVOKED
    assert read("module", scene.module) and read("profile", scene.cage)
    assert read("grant_state", scene.grant) == LIVE and not read("launch_stopped", scene.launch)


@pytest.mark.parametrize("humans", [1, 2])
def test_a_stolen_approval_of_a_call_takes_the_grant_that_it_is_of(scene: Honest, humans: int) -> None:
    lab, read = scene.lab, scene.lab.replay.authority.read
    about = {"agent": "clerk", "module_sha256": scene.module, "config_sha256": scene.cage}
    entry = lab.ask("grant", **about, body=_body(lab, "asks") | {"approvals": humans})
    assert entry.consent is not None
    grant = entry.consent.statement.predicate["id"]
    call = lab.request("call-approval", "cy", **about, body={"grant": grant, "tool": "asks", "args": {"path": "out/a"}})
    since = lab.expect(lab.admit(call, [lab.approval(call, "bob")][: humans - 1]))
    assert lab.replay.stands(since)
    lab.expect(lab.flag("cy", since, "bob"))
    assert (lab.replay.stands(entry.index), lab.replay.stands(since)) == (True, False)
    assert (read("grant_state", grant), read("grant_state", scene.grant)) == (REVOKED, LIVE)


def test_no_human_grants_under_the_name_of_the_gateway_s_own_tools(scene: Honest) -> None:
    lab = scene.lab
    about = {"agent": "clerk", "module_sha256": scene.module, "config_sha256": scene.cage}
    assert lab.ask("grant", **about, body=_body(lab, "ironbound.grants")).void == "body-malformed"


def test_what_another_quorum_approved_as_well_stays(scene: Honest) -> None:
    lab = scene.lab
    request = lab.request("profile-approval", config_sha256=scene.cage, body={"profile": "strict", "layers": []})
    since = lab.replay.books.profiles[scene.cage].index
    lab.expect(lab.admit(request, [lab.approval(request, "cy")]))
    lab.expect(lab.flag("bob", since, "cy"))
    assert not lab.replay.stands(since)
    assert lab.replay.authority.read("profile", scene.cage) is True


def test_what_is_approved_anew_stays_when_another_key_turns_out_to_be_stolen(scene: Honest) -> None:
    lab = scene.lab
    lab.expect(lab.reform(lab.next_root(operators=operators(lab, "ada", "bob", "cy") + [_dora(lab)]), "bob", "cy"))
    lab.expect(lab.flag("bob", 0, "cy"))
    request = lab.request("profile-approval", config_sha256=scene.cage, body={"profile": "strict", "layers": []})
    lab.expect(lab.admit(request, [lab.approval(request, "dora")]))
    lab.expect(lab.flag("cy", 0, "dora"))
    assert lab.replay.authority.read("profile", scene.cage) is True


def _dora(lab: Lab) -> dict[str, Any]:
    lab.humans["dora"] = key("dora")
    return lab.person("dora")


def test_a_flagged_key_signs_nothing_more_and_never_comes_back(lab: Lab) -> None:
    lab.expect(lab.flag("cy", lab.replay.size, "bob"))
    assert launch(lab, "ada", "cy").void == "key-compromised"
    assert launch(lab, "cy", "ada").void == "key-compromised"
    assert lab.reform(lab.next_root()).void == "key-compromised", "it still stands in the roster that is asked for"
    lab.expect(lab.reform(lab.next_root(operators=operators(lab, "ada", "bob"))))
    assert lab.reform(lab.next_root(operators=operators(lab, "ada", "bob", "cy"))).void == "key-compromised"


def test_a_flag_takes_the_quorum_and_a_known_key_and_is_never_about_the_future(lab: Lab) -> None:
    body = {"key": lab.humans["cy"].public.keyid, "since": 1}
    assert refused(lab, lab.request("key-compromised", body=body)) == "quorum-not-met"
    for wrong, reason in (({"key": "0" * 64}, "key-unknown"), ({"since": 99}, "flag-in-the-future")):
        request = lab.request("key-compromised", body=body | wrong)
        assert refused(lab, request, lab.approval(request, "bob")) == reason
    request = lab.request("key-compromised", body=body | {"key": lab.services["node"].public.keyid})
    assert refused(lab, request, lab.approval(request, "bob")) == "key-unknown"


def test_a_later_flag_moves_an_earlier_one_back_only(lab: Lab) -> None:
    keyid = lab.humans["cy"].public.keyid
    lab.expect(lab.flag("cy", 4, "bob"))
    lab.expect(lab.flag("cy", 6, "bob"))
    assert lab.replay.trust.compromised[keyid] == 4
    lab.expect(lab.flag("cy", 2, "bob"))
    assert lab.replay.trust.compromised[keyid] == 2
    assert lab.replay.authority.read("flagged", keyid) == 3


def test_a_removed_key_can_still_be_flagged(lab: Lab) -> None:
    act = lab.expect(launch(lab, "ada", "cy"))
    lab.expect(lab.reform(lab.next_root(operators=operators(lab, "ada", "bob"))))
    assert lab.replay.stands(act)
    lab.expect(lab.flag("cy", 0, "bob"))
    assert not lab.replay.stands(act)
    assert lab.replay.authority.read("launch_stopped", act)


# Sealed keys


def sealed(**fields: Any) -> Honest:
    """An honest history under a trust root with three sealed keys, of which two open the glass."""
    scene = honest()
    holders = [scene.lab.holder(one) for one in ("ada", "eli", "fay")]
    scene.lab.expect(scene.lab.reform(scene.lab.next_root(break_glass={"quorum": 2, "holders": holders})))
    return scene


def open_glass(scene: Honest, *who: str, minutes: int = 60, **fields: Any) -> tuple[Envelope, list[Envelope]]:
    lab = scene.lab
    body = _body(lab, "urgent") | {"expires_ms": lab.now + minutes * 60_000}
    request = lab.request(
        "grant", who[0], agent="clerk", module_sha256=scene.module, config_sha256=scene.cage, body=body, **fields
    )
    return request, [lab.approval(request, one) for one in who[1:]]


def review(scene: Honest, request: Envelope, *who: str, finding: str = "justified", **fields: Any) -> Any:
    lab = scene.lab
    grant = next(iter(lab.replay.books.broken_glass))
    body = {"grant": grant, "request_sha256": request.digest, "finding": finding, "text": "looked at it"} | fields
    asked = lab.request("review", who[0], body=body)
    return lab.admit(asked, [lab.approval(asked, one) for one in who[1:]])


def test_two_of_three_sealed_keys_grant_for_an_hour() -> None:
    scene = sealed()
    request, approvals = open_glass(scene, "ada, sealed", "fay, sealed")
    entry = scene.lab.admit(request, approvals)
    scene.lab.expect(entry)
    grant = next(iter(scene.lab.replay.books.broken_glass))
    scene.lab.expect(scene.lab.intent("clerk", scene.launch, grant, tool="urgent"))
    scene.lab.now += MAX_BREAK_GLASS_MS
    assert scene.lab.intent("clerk", scene.launch, grant, tool="urgent").void == "grant-expired"


def test_sealed_keys_grant_nothing_that_lasts_and_nothing_else() -> None:
    scene = sealed()
    lab = scene.lab
    request, approvals = open_glass(scene, "ada, sealed", "fay, sealed", minutes=61)
    assert refused(lab, request, *approvals) == "break-glass-too-long"
    request, approvals = open_glass(scene, "ada, sealed")
    assert refused(lab, request) == "quorum-not-met"
    request, approvals = open_glass(scene, "ada, sealed", "ada, sealed")
    assert refused(lab, request, *approvals) == "initiator-approves"
    launch = lab.request("launch-request", "ada, sealed", agent="x", module_sha256=scene.module,
                         config_sha256=scene.cage)  # fmt: skip
    assert refused(lab, launch, lab.approval(launch, "eli, sealed")) == "sealed-keys-apart"
    change = lab.change(lab.next_root(), "eli, sealed")
    assert refused(lab, change, lab.approval(change, "fay, sealed")) == "sealed-keys-apart"


def test_sealed_and_ordinary_keys_do_not_add_up() -> None:
    scene = sealed()
    for who in (("ada, sealed", "bob"), ("ada", "eli, sealed"), ("ada", "ada, sealed"), ("ada, sealed", "ada")):
        request, approvals = open_glass(scene, *who)
        assert refused(scene.lab, request, *approvals) == "sealed-keys-apart"


def test_without_sealed_keys_in_the_trust_root_there_is_no_glass_to_break(scene: Honest) -> None:
    scene.lab.holder("ada"), scene.lab.holder("eli")
    request, approvals = open_glass(scene, "ada, sealed", "eli, sealed")
    assert refused(scene.lab, request, *approvals) == "signer-unknown"
    scene = sealed()
    scene.lab.expect(scene.lab.reform(scene.lab.next_root(break_glass=None)))
    request, approvals = open_glass(scene, "ada, sealed", "eli, sealed")
    assert refused(scene.lab, request, *approvals) == "signer-removed"
    assert scene.lab.replay.authority.read("quorum", "break-glass") == FIELDS["quorum"], "as if it had never been"


def test_a_review_is_the_ordinary_quorums_and_about_that_very_grant() -> None:
    scene = sealed()
    lab = scene.lab
    request, approvals = open_glass(scene, "ada, sealed", "fay, sealed")
    lab.expect(lab.admit(request, approvals))
    assert review(scene, request, "ada").void == "quorum-not-met"
    assert review(scene, request, "ada, sealed", "fay, sealed").void == "sealed-keys-apart"
    assert review(scene, request, "ada", "bob", grant=scene.grant).void == "nothing-to-review"
    assert review(scene, request, "ada", "bob", request_sha256="0" * 64).void == "nothing-to-review"
    grant, glass = next(iter(lab.replay.books.broken_glass.items()))
    assert glass.reviews == ()
    entry = lab.expect(review(scene, request, "ada", "bob"))
    assert lab.replay.books.broken_glass[grant].reviews == (entry,)
    assert lab.replay.authority.read("grant_state", grant) == LIVE
    lab.expect(review(scene, request, "bob", "cy", finding="misused"))
    assert lab.replay.authority.read("grant_state", grant) == REVOKED


def test_everybody_who_folds_the_log_has_the_same_trust_root() -> None:
    scene = sealed()
    lab = scene.lab
    request, approvals = open_glass(scene, "ada, sealed", "fay, sealed")
    lab.expect(lab.admit(request, approvals))
    lab.expect(lab.flag("bob", 3, "cy"))
    replay = Replay()
    for data in lab.entries:
        replay.apply(data)
    assert replay.trust == lab.replay.trust
    assert replay.books == lab.replay.books
    assert replay.authority.digest() == lab.replay.authority.digest()
    assert canonical(dict(replay.trust.body)) == canonical(dict(lab.replay.trust.body))
