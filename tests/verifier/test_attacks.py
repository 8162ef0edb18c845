"""Each test: an honest history, one attack, and exactly the claim that must fall."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from ironbound.core.canonical import sha256_hex
from ironbound.core.envelope import sign_envelope
from ironbound.core.merkle import leaf_hash, node_hash
from ironbound.core.native import Manifest
from ironbound.core.note import Signer
from ironbound.core.request import NO_LIMITS, head_of
from ironbound.core.statement import Subject, encode_statement
from ironbound.core.surface import approval_body, surface_digest
from ironbound.core.tile import encode_entries, tiles_for
from ironbound.core.tree import FOLDER_MODE, GUARD, MOUNT_POINTS, PROGRAM_MODE, File, Folder, encode_tree, in_order
from ironbound.verifier.bundle import BundleBroken
from ironbound.verifier.kernel import kernel_digest
from ironbound.verifier.verify import EXIT_REFUTED, EXIT_UNPROVEN, verify_bundle

from .lab import DAY, Honest, Lab, config, digest_of, honest, key, pack, wasm


@pytest.fixture
def scene() -> Honest:
    made = honest()
    assert made.lab.falling() == {}
    return made


def broken(data: bytes, lab: Lab) -> str:
    with pytest.raises(BundleBroken) as caught:
        verify_bundle(io.BytesIO(data), lab.pin)
    return caught.value.code


def refuted(lab: Lab) -> dict[str, set[str]]:
    report = lab.verify()
    assert report.exit_code == EXIT_REFUTED
    return lab.falling()


def unproven(lab: Lab) -> dict[str, set[str]]:
    report = lab.verify()
    assert report.exit_code == EXIT_UNPROVEN
    return lab.falling()


# The log


def shortened(lab: Lab, entries: list[bytes]) -> dict[str, bytes]:
    """The bundle of other entries, with the hashes recomputed and the old checkpoint kept."""
    other = Lab()
    for data in entries[1:]:
        other.append(data)
    assert entries[0] == other.entries[0]
    return other.members() | {"checkpoint": lab.checkpoint()}


def test_a_tail_cut_off_is_a_gap(scene: Honest) -> None:
    members = shortened(scene.lab, scene.lab.entries[:-1])
    assert broken(pack(members), scene.lab) == "tile-missing"


def test_a_tail_cut_off_and_padded_to_the_size_is_seen_by_its_root(scene: Honest) -> None:
    entries = scene.lab.entries
    members = shortened(scene.lab, [*entries[:-1], entries[-2]])
    assert broken(pack(members), scene.lab) == "root-differs"


def test_an_entry_cut_out_of_the_middle_is_seen_by_its_tile(scene: Honest) -> None:
    entries = scene.lab.entries
    members = scene.lab.members()
    cut = [*entries[:5], *entries[6:], entries[-1]]
    members[tiles_for(len(entries))[0].path] = encode_entries(cut)
    assert broken(pack(members), scene.lab) == "tile-differs"


def test_a_chain_rewritten_with_its_hashes_lacks_the_witness(scene: Honest) -> None:
    entries = scene.lab.entries
    other = Lab()
    for data in entries[1:-1]:
        other.append(data)
    members = other.members() | {"checkpoint": other.checkpoint(witnesses=[])}
    assert broken(pack(members), scene.lab) == "checkpoint-unwitnessed"


def test_a_witness_that_nobody_named_is_no_witness(scene: Honest) -> None:
    stranger = Signer("witness.example", key("stranger"))
    members = scene.lab.members() | {"checkpoint": scene.lab.checkpoint(witnesses=[stranger])}
    assert broken(pack(members), scene.lab) == "checkpoint-unwitnessed"
    both = scene.lab.checkpoint(witnesses=[scene.lab.witness, stranger])
    assert broken(pack(members | {"checkpoint": both}), scene.lab) == "checkpoint-signature"


def test_an_old_backup_verifies_as_what_it_is_and_says_when_it_ends(scene: Honest) -> None:
    old, size = scene.lab.bundle(), scene.lab.replay.size
    scene.act()
    report = verify_bundle(io.BytesIO(old), scene.lab.pin)
    assert report.exit_code == EXIT_UNPROVEN
    assert (report.size, report.as_of_ms) == (size, report.as_of_ms)
    assert scene.lab.verify().size == size + 2


def test_an_interior_node_is_no_leaf(scene: Honest) -> None:
    lab = scene.lab
    members = lab.members()
    one, two = leaf_hash(lab.entries[1]), leaf_hash(lab.entries[2])
    node = b"\x01" + one + two
    assert node_hash(one, two) != leaf_hash(node)
    forged = [lab.entries[0], node, *lab.entries[3:], lab.entries[-1]]
    members[tiles_for(len(lab.entries))[0].path] = encode_entries(forged)
    assert broken(pack(members), lab) == "tile-differs"


def test_a_policy_without_witnesses_is_not_the_trust_roots(scene: Honest) -> None:
    members = scene.lab.members()
    members["witness-policy"] = f"log {scene.lab.log.verifier().vkey}\nquorum none\n".encode()
    members["checkpoint"] = scene.lab.checkpoint(witnesses=[])
    assert broken(pack(members), scene.lab) == "policy-differs"


def test_a_log_with_another_trust_root_is_not_the_pinned_one(scene: Honest) -> None:
    other = honest(drift_stop_ms=9_999)
    assert broken(other.lab.bundle(), scene.lab) == "pin-differs"


# Forged consent: a controller alone says `admitted`


def _no_approval(lab: Lab, **fields: object) -> None:
    lab.admit(lab.request("grant", **fields), [])


def _initiator_approves(lab: Lab, **fields: object) -> None:
    request = lab.request("grant", **fields)
    lab.admit(request, [lab.approval(request, "ada")])


def _same_human_twice(lab: Lab, **fields: object) -> None:
    request = lab.request("grant", **fields)
    lab.admit(request, [lab.approval(request, "bob"), lab.approval(request, "bob")])


def _controller_signs(lab: Lab, **fields: object) -> None:
    request = lab.request("grant", **fields)
    lab.admit(sign_envelope(request.payload, [lab.services["controller"]]), [lab.approval(request, "bob")])


def _widened(lab: Lab, **fields: object) -> None:
    shown = lab.request("grant", **fields)
    wider = dict(fields) | {"body": dict(fields["body"]) | {"where": {"path": {"any": True}}}}  # type: ignore[call-overload]
    lab.admit(lab.request("grant", **wider), [lab.approval(shown, "bob")])


def _expired(lab: Lab, **fields: object) -> None:
    request = lab.request("grant", expires_ms=lab.now + 1, **fields)
    lab.admit(request, [lab.approval(request, "bob")])


def _approval_expired(lab: Lab, **fields: object) -> None:
    request = lab.request("grant", **fields)
    lab.admit(request, [lab.approval(request, "bob", expires_ms=lab.now + 1)])


def _stale_head(lab: Lab, **fields: object) -> None:
    lab.admit(
        request := lab.request("grant", log_head=head_of(3, lab.replay.tree.root_at(3)), **fields),
        [lab.approval(request, "bob")],
    )


def _another_log(lab: Lab, **fields: object) -> None:
    request = lab.request("grant", log_head=head_of(3, bytes(32)), **fields)
    lab.admit(request, [lab.approval(request, "bob")])


@pytest.mark.parametrize(
    "forge",
    [
        _no_approval,
        _initiator_approves,
        _same_human_twice,
        _controller_signs,
        _widened,
        _expired,
        _approval_expired,
        _stale_head,
        _another_log,
    ],
)
def test_a_grant_that_the_humans_signatures_do_not_carry_refutes_c1(scene: Honest, forge: Callable[..., None]) -> None:
    body = {
        "tool": "other",
        "action": "scratch.write",
        "where": {"path": {"equals": "a"}},
        "calls": 1,
        "expires_ms": scene.lab.now + DAY,
        "credential": None,
        **NO_LIMITS,
    }
    forge(scene.lab, agent="clerk", module_sha256=scene.module, config_sha256=scene.cage, body=body)
    assert refuted(scene.lab) == {"C1": {"request-not-authorised"}}


def test_a_controller_that_dates_its_word_back_revives_no_approval(scene: Honest) -> None:
    lab = scene.lab
    body = approval_body(b"{")
    request = lab.request("module-approval", module_sha256=digest_of("x"), body=body)
    approval, then = lab.approval(request, "bob", expires_ms=lab.now + 5), lab.now
    scene.act()
    lab.admit(request, [approval], at_ms=then)
    assert refuted(lab) == {"C1": {"request-not-authorised"}}


def test_a_word_that_was_void_cannot_be_said_again_by_the_ledger(scene: Honest) -> None:
    lab = scene.lab
    body = approval_body(b"{")
    early = lab.now + 1_000
    request = lab.request("module-approval", module_sha256=digest_of("x"), body=body, not_before_ms=early)
    entry = lab.admit(request, [lab.approval(request, "bob")])
    assert entry.void == "request-too-early"
    lab.now = early
    scene.act()
    assert lab.append(entry.data).void == "said-twice"


def test_a_replayed_request_refutes_c1(scene: Honest) -> None:
    lab = scene.lab
    module = wasm("another")
    request = lab.request("module-approval", module_sha256=digest_of("x"), body=approval_body(b"{"))
    approvals = [lab.approval(request, "bob")]
    lab.expect(lab.admit(request, approvals))
    assert lab.falling() == {} and module
    lab.admit(request, approvals)
    assert refuted(lab) == {"C1": {"request-not-authorised"}}


# Acting


def test_an_action_after_the_revocation_refutes_c3(scene: Honest) -> None:
    lab = scene.lab
    lab.expect(lab.revoke("clerk", scene.module, scene.cage, scene.grant))
    assert lab.falling() == {}
    intent = lab.intent("clerk", scene.launch, scene.grant)
    assert intent.void == "grant-revoked"
    lab.outcome(intent.index, "performed")
    assert refuted(lab) == {"C3": {"acted-without-intent"}}


def test_an_intent_that_lost_the_race_and_was_not_performed_is_honest(scene: Honest) -> None:
    lab = scene.lab
    lab.expect(lab.revoke("clerk", scene.module, scene.cage, scene.grant))
    intent = lab.intent("clerk", scene.launch, scene.grant)
    lab.expect(lab.outcome(intent.index, "not-performed"))
    assert lab.falling() == {}


@pytest.mark.parametrize("status", ["performed", "failed"])
def test_an_outcome_without_an_intent_refutes_c3(scene: Honest, status: str) -> None:
    scene.lab.outcome(1, status)
    assert refuted(scene.lab) == {"C3": {"acted-without-intent"}}


def test_a_second_outcome_for_one_intent_refutes_c3(scene: Honest) -> None:
    scene.lab.outcome(scene.act(), "performed")
    assert refuted(scene.lab) == {"C3": {"acted-without-intent"}}


def test_arguments_beyond_the_grant_refute_c3(scene: Honest) -> None:
    intent = scene.lab.intent("clerk", scene.launch, scene.grant, args={"path": "out/../../etc/shadow"})
    assert intent.void == "arguments-not-covered"
    scene.lab.outcome(intent.index)
    assert refuted(scene.lab) == {"C3": {"acted-without-intent"}}


def test_an_intent_without_an_outcome_is_shown(scene: Honest) -> None:
    scene.lab.expect(scene.lab.intent("clerk", scene.launch, scene.grant))
    assert unproven(scene.lab) == {"D2": {"outcome-missing"}}


# Launching


def _second_launch(scene: Honest) -> int:
    return scene.lab.expect(scene.lab.ask_launch("second", scene.module, scene.cage))


def test_the_launch_of_an_unapproved_module_refutes_a1(scene: Honest) -> None:
    launch = _second_launch(scene)
    assert scene.lab.falling() == {}
    scene.lab.start(launch, module_sha256=digest_of("evil"))
    assert refuted(scene.lab) == {"A1": {"start-void"}}


def test_a_start_that_nobody_asked_for_refutes_a1(scene: Honest) -> None:
    scene.lab.start(scene.launch)
    assert refuted(scene.lab) == {"A1": {"start-void"}}


def test_a_start_that_a_stop_overtook_is_honest_if_its_refusal_is_logged(scene: Honest) -> None:
    lab = scene.lab
    launch = _second_launch(scene)
    lab.expect(lab.admit(lab.request("stop", agent="second", module_sha256=scene.module), []))
    assert lab.start(launch).void == "launch-stopped"
    assert refuted(lab) == {"A1": {"start-void"}}
    lab.expect(
        lab.say(
            "node",
            "launch-refused",
            launch=launch,
            agent="second",
            stage="admission",
            reason="launch-stopped",
            text="",
            module_sha256=scene.module,
            config_sha256=scene.cage,
        )
    )
    assert lab.falling() == {}


def test_a_consumed_configuration_that_was_not_approved_refutes_b1(scene: Honest) -> None:
    lab = scene.lab
    loose = lab.approve_profile(config(max_memory=4096))
    launch = _second_launch(scene)
    lab.start(launch, config_sha256=loose)
    assert refuted(lab) == {"B1": {"consumed-config-differs"}}


def _stopped(lab: Lab, started: int) -> None:
    """What the monitor and the node do about a posture that differs."""
    drift = lab.expect(lab.drift(started))
    lab.expect(lab.stop_order(drift, lab.started(started)["launch"]))
    lab.expect(lab.exit(started, "stopped"))


def test_another_configuration_in_the_monitors_eyes_refutes_b1(scene: Honest) -> None:
    lab = scene.lab
    posture = dict(lab.posture(scene.module, scene.cage)) | {"config_sha256": digest_of("loose")}
    started = lab.expect(lab.start(_second_launch(scene), seen={"posture": posture}))
    _stopped(lab, started)
    assert refuted(lab) == {"B1": {"observed-config-differs"}}


def test_a_weaker_posture_in_the_monitors_eyes_refutes_b1(scene: Honest) -> None:
    lab = scene.lab
    posture = dict(lab.posture(scene.module, scene.cage)) | {"no_new_privs": 0}
    started = lab.expect(lab.start(_second_launch(scene), seen={"posture": posture}))
    _stopped(lab, started)
    assert refuted(lab) == {"B1": {"observed-posture-differs"}}


def test_a_posture_that_node_and_monitor_agree_on_but_nobody_approved_refutes_b1(scene: Honest) -> None:
    lab = scene.lab
    weak = dict(lab.posture(scene.module, scene.cage)) | {"seccomp": 0}
    started = lab.expect(lab.start(_second_launch(scene), posture=weak))
    lab.expect(lab.observe(started))
    assert refuted(lab) == {"B1": {"posture-not-expected"}}


def test_what_the_monitor_could_not_see_is_not_proven(scene: Honest) -> None:
    lab = scene.lab
    posture = dict(lab.posture(scene.module, scene.cage)) | {"fds": None}
    lab.expect(lab.start(_second_launch(scene), seen={"posture": posture}))
    assert unproven(lab) == {"B1": {"posture-not-visible"}}


def test_an_observation_of_another_process_refutes_f1(scene: Honest) -> None:
    lab = scene.lab
    started = lab.expect(lab.start(_second_launch(scene)))
    lab.expect(lab.observe(started, pid=31_337))
    assert refuted(lab) == {"F1": {"observation-differs"}}


def test_a_module_that_imports_refutes_a2_from_its_bytes(scene: Honest) -> None:
    lab = scene.lab
    module = lab.approve_module(wasm("reaching", imports=[("wasi_snapshot_preview1", "fd_write")]))
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("second", module, scene.cage))))
    lab.expect(lab.observe(started))
    assert refuted(lab) == {"A2": {"module-imports"}}


def test_a_module_without_the_abi_refutes_a2(scene: Honest) -> None:
    lab = scene.lab
    module = lab.approve_module(wasm("mute", exports=["memory", "alloc"]))
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("second", module, scene.cage))))
    lab.expect(lab.observe(started))
    assert refuted(lab) == {"A2": {"module-exports"}}


def test_a_module_with_more_memory_than_its_profile_refutes_a2(scene: Honest) -> None:
    lab = scene.lab
    module = lab.approve_module(wasm("greedy", pages=16 * 16 + 1))
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("second", module, scene.cage))))
    lab.expect(lab.observe(started))
    assert refuted(lab) == {"A2": {"module-memory"}}


def test_missing_artifacts_leave_their_claims_open(scene: Honest) -> None:
    del scene.lab.artifacts[scene.module]
    assert unproven(scene.lab) == {"A2": {"artifact-missing"}}
    del scene.lab.artifacts[scene.cage]
    missing = {"artifact-missing"}
    assert unproven(scene.lab) == {"A2": missing, "B1": missing, "B2": missing}


def test_a_surface_approved_with_a_module_that_is_not_its_own_refutes_a2(scene: Honest) -> None:
    lab = scene.lab
    for number, other in enumerate((digest_of("another surface"), None)):
        data = wasm(f"other-{number}")
        assert surface_digest(data) != other
        module = lab.approve_module(data, surface_sha256=other)
        started = lab.expect(lab.start(lab.expect(lab.ask_launch(f"second{number}", module, scene.cage))))
        lab.expect(lab.observe(started))
    assert refuted(lab) == {"A2": {"surface-differs"}}


def test_a_native_agents_code_is_contained_and_not_analysed_and_a2_says_so(scene: Honest) -> None:
    lab = scene.lab
    folders = [Folder(path, FOLDER_MODE) for path in (".ironbound", *MOUNT_POINTS)]
    listing = encode_tree(in_order([*folders, File(GUARD, PROGRAM_MODE, 5, digest_of("guard"))]))
    lab.artifacts[sha256_hex(listing)] = listing
    manifest = Manifest(sha256_hex(listing), ("/bin/agent",)).encode()
    module = lab.approve_module(manifest)
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("second", module, scene.cage))))
    lab.expect(lab.observe(started))
    assert lab.falling() == {}
    claim = next(claim for claim in lab.verify().claims if claim.id == "A2")
    assert claim.counts["native agents, contained and not analysed"] == 1


def test_without_its_root_file_system_s_listing_a_native_agent_leaves_a2_open(scene: Honest) -> None:
    lab = scene.lab
    module = lab.approve_module(Manifest(digest_of("a tree"), ("/bin/agent",)).encode())
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("second", module, scene.cage))))
    lab.expect(lab.observe(started))
    assert unproven(lab) == {"A2": {"artifact-missing"}}


def test_a_malformed_manifest_leaves_a2_open(scene: Honest) -> None:
    lab = scene.lab
    module = lab.approve_module(b'{"argv":[]}')
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("second", module, scene.cage))))
    lab.expect(lab.observe(started))
    assert unproven(lab) == {"A2": {"surface-unreadable"}}


def test_a_component_is_judged_by_its_imports_and_exports_as_a_module_is(scene: Honest) -> None:
    lab = scene.lab
    module = lab.approve_module(b"\x00asm\x0d\x00\x01\x00")
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("second", module, scene.cage))))
    lab.expect(lab.observe(started))
    assert refuted(lab) == {"A2": {"module-exports"}}


# Drift


def test_a_drift_that_ended_in_a_stop_within_its_bound_is_honest(scene: Honest) -> None:
    lab = scene.lab
    drift = lab.expect(lab.drift(scene.started))
    lab.expect(lab.stop_order(drift, scene.launch))
    lab.expect(lab.exit(scene.started, "stopped"))
    assert lab.falling() == {}


def test_a_sandbox_weakened_later_is_drift_and_a_stop_in_time_keeps_every_claim(scene: Honest) -> None:
    lab = scene.lab
    weak = dict(lab.started(scene.started)["posture"]) | {"no_new_privs": 0}
    differences = [{"path": "no_new_privs", "expected": 1, "got": 0}]
    lab.expect(lab.observe(scene.started, posture=weak, differences=differences))
    _stopped(lab, scene.started)
    assert lab.falling() == {}


def test_a_look_that_is_said_after_its_drift_is_heeded_if_the_stop_came(scene: Honest) -> None:
    lab = scene.lab
    weak = dict(lab.started(scene.started)["posture"]) | {"no_new_privs": 0}
    drift = lab.expect(lab.drift(scene.started))
    lab.expect(lab.observe(scene.started, posture=weak))
    assert unproven(lab) == {"B3": {"drift-stop-pending"}}
    lab.expect(lab.stop_order(drift, scene.launch))
    lab.expect(lab.exit(scene.started, "stopped"))
    assert lab.falling() == {}


def test_a_sandbox_weakened_later_without_a_drift_refutes_b3(scene: Honest) -> None:
    lab = scene.lab
    weak = dict(lab.started(scene.started)["posture"]) | {"no_new_privs": 0}
    lab.expect(lab.observe(scene.started, posture=weak))
    assert unproven(lab) == {"B3": {"drift-stop-pending"}}
    lab.now += lab.drift_stop_ms
    scene.act()
    assert refuted(lab) == {"B3": {"difference-unheeded"}}


def test_a_drift_without_a_stop_order_refutes_b3(scene: Honest) -> None:
    lab = scene.lab
    lab.expect(lab.drift(scene.started))
    assert unproven(lab) == {"B3": {"drift-stop-pending"}}
    lab.now += lab.drift_stop_ms
    scene.act()
    assert refuted(lab) == {"B3": {"drift-not-stopped"}}


def test_a_stop_that_comes_late_refutes_b3(scene: Honest) -> None:
    lab = scene.lab
    drift = lab.expect(lab.drift(scene.started))
    lab.expect(lab.stop_order(drift, scene.launch))
    lab.now += lab.drift_stop_ms + 1
    lab.expect(lab.exit(scene.started, "stopped"))
    assert refuted(lab) == {"B3": {"drift-stop-late"}}


def test_an_end_dated_before_the_order_does_not_hide_that_it_was_late(scene: Honest) -> None:
    lab = scene.lab
    detected = lab.now
    lab.now += lab.drift_stop_ms + 1
    drift = lab.expect(lab.drift(scene.started, detected_ms=detected))
    lab.expect(lab.stop_order(drift, scene.launch))
    lab.expect(lab.exit(scene.started, "stopped", at_ms=detected))
    assert refuted(lab) == {"B3": {"drift-stop-late"}}


def test_a_process_without_an_entry_that_nobody_stopped_refutes_f1(scene: Honest) -> None:
    lab = scene.lab
    drift = lab.expect(lab.drift(None, "process-without-entry"))
    lab.now += lab.drift_stop_ms
    scene.act()
    assert refuted(lab) == {"B3": {"drift-not-stopped"}, "F1": {"process-unmatched"}}
    lab.expect(lab.stop_order(drift, None))
    assert refuted(lab) == {"B3": {"drift-stop-late"}}


def test_a_log_without_any_observation_proves_no_absence_of_drift() -> None:
    lab = Lab()
    lab.announce()
    assert lab.falling()["B3"] == {"no-observation"}


# Canaries


def test_a_canary_that_got_out_refutes_b2(scene: Honest) -> None:
    told = {"verdict": "ESCAPED", "refusal": "wrote outside"}
    scene.lab.canary(scene.canary, scene.cage, scene.probe, report=told, verdict="ESCAPED")
    assert refuted(scene.lab) == {"B2": {"canary-escaped"}}


def test_a_node_that_keeps_silent_about_an_escape_is_refuted_by_its_own_evidence(scene: Honest) -> None:
    told = {"verdict": "ESCAPED", "refusal": "wrote outside"}
    scene.lab.canary(scene.canary, scene.cage, scene.probe, report=told, say=False)
    assert refuted(scene.lab) == {"B2": {"canary-escaped"}}


def test_a_node_that_lies_about_a_verdict_refutes_b2(scene: Honest) -> None:
    scene.lab.canary(scene.canary, scene.cage, scene.probe, report={"refused": 1}, verdict="REFUSED")
    assert refuted(scene.lab) == {"B2": {"verdict-differs"}}


def test_a_canary_without_a_verdict_is_not_proven(scene: Honest) -> None:
    scene.lab.canary(scene.canary, scene.cage, scene.probe, report={"refused": 1}, verdict="INCONCLUSIVE")
    assert unproven(scene.lab) == {"B2": {"canary-inconclusive"}}
    scene.lab.canary(scene.canary, scene.cage, scene.probe)
    assert scene.lab.falling() == {}


def test_a_self_probe_that_got_out_refutes_b2(scene: Honest) -> None:
    lab = scene.lab
    probes = [{"name": "socket", "verdict": "ESCAPED", "refusal": ""}]
    started = lab.expect(lab.start(_second_launch(scene), probes=probes))
    lab.expect(lab.observe(started))
    assert refuted(lab) == {"B2": {"self-probe-escaped"}}


def test_a_report_of_another_run_proves_nothing(scene: Honest) -> None:
    scene.lab.canary(scene.canary, scene.cage, scene.probe, report={"nonce": "0" * 32}, verdict="INCONCLUSIVE")
    assert unproven(scene.lab) == {"B2": {"canary-inconclusive"}}


def test_a_canary_that_was_never_run_is_missed(scene: Honest) -> None:
    scene.lab.approve_module(wasm("new canary"), "path-traversal")
    assert unproven(scene.lab) == {"B2": {"canary-missing"}}


def test_a_configuration_in_use_that_no_canary_tried_is_missed(scene: Honest) -> None:
    lab = scene.lab
    cage = lab.approve_profile(config(max_memory=17))
    started = lab.expect(lab.start(lab.expect(lab.ask_launch("second", scene.module, cage))))
    lab.expect(lab.observe(started))
    assert unproven(lab) == {"B2": {"canary-missing"}}


def test_without_the_channel_canary_c2_is_not_proven() -> None:
    lab = Lab()
    lab.announce()
    module, cage = lab.approve_module(wasm()), lab.approve_profile(config())
    canary = lab.approve_module(wasm("canary"), "path-traversal")
    launch = lab.expect(lab.ask_launch("clerk", module, cage))
    started = lab.expect(lab.start(launch))
    lab.expect(lab.observe(started))
    lab.expect(lab.ask_grant("clerk", module, cage))
    lab.canary(canary, cage, "path-traversal")
    falling = lab.falling()
    assert falling["C2"] == {"channel-not-probed"} and "B2" not in falling


# Voices


def test_a_gateway_that_says_admitted_refutes_d3(scene: Honest) -> None:
    lab = scene.lab
    request = lab.request("module-approval", module_sha256=digest_of("x"), body=approval_body(b"{"))
    approvals = [lab.approval(request, "bob").as_value()]
    lab.say("gateway", "admitted", request=request.as_value(), approvals=approvals)
    assert refuted(lab) == {"D3": {"voice-not-entitled"}}


def test_a_service_that_announces_itself_as_another_refutes_d3(scene: Honest) -> None:
    scene.lab.say("node", "service-started", **_announcement(role="monitor"))
    assert refuted(scene.lab) == {"D3": {"voice-not-entitled"}}


def test_an_entry_by_an_unknown_key_refutes_d3(scene: Honest) -> None:
    scene.lab.say("node", "service-started", signer=key("agent"), **_announcement())
    assert refuted(scene.lab) == {"D3": {"voice-unknown"}}


def test_a_statement_said_twice_refutes_d3(scene: Honest) -> None:
    scene.lab.append(scene.lab.entries[1])
    assert refuted(scene.lab) == {"D3": {"said-twice"}}


def test_evidence_written_by_hand_refutes_d3(scene: Honest) -> None:
    scene.lab.append(b'{"approved_by":"ciso","grade":"A"}')
    assert refuted(scene.lab) == {"D3": {"entry-malformed"}}


def test_an_entry_of_another_deployment_refutes_d3(scene: Honest) -> None:
    scene.lab.say("node", "service-started", deployment="elsewhere", **_announcement())
    assert refuted(scene.lab) == {"D3": {"other-deployment"}}


def test_a_signature_that_does_not_verify_refutes_d3(scene: Honest) -> None:
    lab = scene.lab
    payload = lab.statement("service-started", _announcement())
    other = encode_statement(
        "service-started",
        (Subject("lab", digest_of("x")),),
        {"id": lab.fresh(), "deployment": "lab", "at_ms": 1} | _announcement(),
    )
    signed, forged = sign_envelope(payload, [lab.services["node"]]), sign_envelope(other, [lab.services["node"]])
    lab.append(type(signed)(signed.payload, forged.signatures).encode())
    assert refuted(lab) == {"D3": {"signature-invalid"}}


def _announcement(**fields: object) -> dict[str, object]:
    return {
        "role": "node",
        "pid": 1,
        "pid_start": 1,
        "boot_id": "b",
        "uid": 61_001,
        "gid": 61_001,
        "separation": "user",
        "version": "0.1.0",
        "kernel_sha256": kernel_digest(),
        "surface_sha256": None,
        "release_sha256": digest_of("release"),
        "settings_sha256": digest_of("settings"),
        "measured": None,
        "host": {},
    } | fields


def test_services_of_one_user_refute_f1_where_users_were_promised(scene: Honest) -> None:
    scene.lab.say("monitor", "service-started", **_announcement(role="monitor"))
    assert refuted(scene.lab) == {"F1": {"users-not-separate"}}


def test_a_sandbox_that_runs_as_a_services_user_refutes_f1(scene: Honest) -> None:
    lab = scene.lab
    posture = lab.posture(scene.module, scene.cage, uid=61_003)
    started = lab.expect(lab.start(_second_launch(scene), uid=61_003, posture=posture))
    lab.expect(lab.observe(started))
    assert refuted(lab) == {"F1": {"users-not-separate"}}


def test_separation_by_process_only_is_said_openly() -> None:
    scene = honest(separation="process")
    report = scene.lab.verify()
    assert report.exit_code == EXIT_UNPROVEN and scene.lab.falling() == {}
    remarks = next(claim.remarks for claim in report.claims if claim.id == "F1")
    assert any("by process only" in remark for remark in remarks)
