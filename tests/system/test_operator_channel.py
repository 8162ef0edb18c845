"""Attacks on the operator channel, each with a proof that nothing changed but the log, which holds the refusal.

A refused submission: the kernel's state and the sandboxes are as before, and a `refused` entry names the reason and the
digest of the very bytes that were sent.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import wasmtime
from puppet import WAIT, puppet
from stand import DEADLINE_S, PEOPLE, STRICT, Stand

from ironbound.controller.submission import MAX_CONSENT, MAX_SUBMISSION
from ironbound.core.canonical import b64encode, canonical, sha256_hex
from ironbound.core.envelope import Envelope, Signature, sign_envelope
from ironbound.core.keys import PrivateKey
from ironbound.core.native import Manifest
from ironbound.core.profile import Layer, merge
from ironbound.core.request import NO_LIMITS, encode_approval, encode_request
from ironbound.core.statement import Subject, encode_statement, parse_statement
from ironbound.core.surface import approval_body, surface_digest
from ironbound.terminal import operators
from ironbound.terminal.operators import Refusal, Submission

IDLE = puppet(WAIT)
COMPONENT_WITH_IMPORT = bytes(wasmtime.wat2wasm('(component (import "exec" (func)))'))
WITH_IMPORT = bytes(wasmtime.wat2wasm('(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))))'))


def refused(stand: Stand, body: bytes, reason: str, status: int = 403) -> httpx.Response:
    """Send it; it is refused for that reason, the log says so, and nothing else changed."""
    before, workers = stand.snapshot(), stand.workers()
    answer = stand.post(body)
    said = answer.json()
    assert (answer.status_code, said["reason"]) == (status, reason), said
    stand.sync()
    entry = stand.log.entries[said["index"]]
    assert entry.kind == "refused" and entry.void is None
    assert entry.predicate["reason"] == reason
    assert entry.predicate["submission_sha256"] == sha256_hex(body)
    assert stand.snapshot() == before
    assert stand.workers() == workers
    return answer


@pytest.fixture(scope="module")
def agent(stand: Stand) -> str:
    """An agent that was launched once and is over, so that it can be granted things."""
    entry = stand.started("attacked", IDLE)
    stand.stop_agent("attacked")
    stand.await_entry("exited", entry.index, started=entry.index)
    return "attacked"


def a_request(stand: Stand, **changes: Any) -> bytes:
    """A launch request that would be admitted, but for the changes."""
    launch = stand.latest("attacked")
    payload = stand.build("launch-request", agent="attacked", module=launch.module, config=launch.config)
    if not changes:
        return payload
    return encode_request("launch-request", dict(parse_statement(payload).predicate) | changes)


def shape(request: Envelope, approvals: list[Envelope]) -> bytes:
    return Submission(request, tuple(approvals), ()).encode()


def approval(stand: Stand, request: Envelope, name: str, **changes: Any) -> Envelope:
    """An approval by `name`, but for the changes."""
    payload = encode_approval(
        request,
        deployment=stand.deployment.trust.deployment,
        approval_id=os.urandom(16).hex(),
        expires_ms=now() + 60_000,
    )
    if changes:
        said = dict(parse_statement(payload).predicate) | changes
        payload = encode_statement("approval", (Subject("request", said["request_sha256"]),), said)
    return sign_envelope(payload, [stand.keys[name]])


def now() -> int:
    return time.time_ns() // 1_000_000


def test_the_positive_control_two_humans_are_admitted_and_it_runs(stand: Stand, agent: str) -> None:
    answer = stand.post(stand.sign(a_request(stand)).encode())
    assert answer.status_code == 200 and answer.json()["humans"] == ["ada", "bo"]
    entry = stand.await_entry("started", launch=answer.json()["index"])
    stand.stop_agent("attacked")
    stand.await_entry("exited", entry.index, started=entry.index)


# Signatures and humans


def test_a_flipped_signature_is_refused(stand: Stand, agent: str) -> None:
    good = stand.sign(a_request(stand))
    signature = good.request.signatures[0]
    flipped = bytes([signature.sig[0] ^ 1]) + signature.sig[1:]
    request = Envelope(good.request.payload, (Signature(signature.keyid, flipped),))
    refused(stand, shape(request, list(good.approvals)), "signature-invalid")


def test_one_human_s_signature_under_another_s_name_is_refused(stand: Stand, agent: str) -> None:
    payload = a_request(stand)
    by_ada = sign_envelope(payload, [stand.keys["ada"]])
    forged = Envelope(payload, (Signature(stand.keys["bo"].public.keyid, by_ada.signatures[0].sig),))
    refused(stand, shape(forged, [approval(stand, forged, "cy")]), "signature-invalid")


def test_a_request_without_a_signature_is_refused(stand: Stand, agent: str) -> None:
    good = stand.sign(a_request(stand))
    value = json.loads(good.encode())
    value["request"]["signatures"] = []
    refused(stand, canonical(value), "signature-count")


def test_a_request_with_two_signatures_is_refused_be_they_twice_the_same(stand: Stand, agent: str) -> None:
    both = sign_envelope(a_request(stand), [stand.keys["ada"], stand.keys["bo"]])
    refused(stand, shape(both, []), "signature-count")
    good = stand.sign(a_request(stand))
    value = json.loads(good.encode())
    value["request"]["signatures"] *= 2
    refused(stand, canonical(value), "signature-count")


def test_a_signer_on_no_roster_is_refused_as_initiator_and_as_approver(stand: Stand, agent: str) -> None:
    stranger = PrivateKey.generate(bytes(32))
    request = sign_envelope(a_request(stand), [stranger])
    refused(stand, shape(request, [approval(stand, request, "ada"), approval(stand, request, "bo")]), "signer-unknown")
    request = sign_envelope(a_request(stand), [stand.keys["ada"]])
    approved = operators.approve(request, stand.deployment.trust.deployment, stranger)
    refused(stand, shape(request, [approved]), "signer-unknown")


def test_a_service_s_key_is_no_human_s(stand: Stand, agent: str) -> None:
    for role in ("controller", "node", "gateway", "monitor"):
        request = sign_envelope(a_request(stand), [stand.deployment.key(role)])
        refused(stand, shape(request, [approval(stand, request, "bo")]), "signer-unknown")


def test_one_human_twice_makes_no_quorum(stand: Stand, agent: str) -> None:
    request = sign_envelope(a_request(stand), [stand.keys["ada"]])
    refused(stand, shape(request, [approval(stand, request, "ada")]), "initiator-approves")
    twice = [approval(stand, request, "bo"), approval(stand, request, "bo")]
    refused(stand, shape(request, twice), "same-human-twice")


def test_too_few_humans_are_refused_however_the_request_is_sent(stand: Stand, agent: str) -> None:
    refused(stand, stand.sign(a_request(stand), "ada").encode(), "quorum-not-met")
    body = {"grant": "00" * 16}
    launch = stand.latest(agent)
    grant = stand.build(
        "grant",
        agent=agent,
        module=launch.module,
        config=launch.config,
        body={"tool": "t", "action": "http.request", "where": {}, "calls": 1, "expires_ms": now() + 60_000,
              "credential": None, **NO_LIMITS},
    )  # fmt: skip
    refused(stand, stand.sign(grant, "bo").encode(), "quorum-not-met")
    # Taking away takes one human, and that one must be one.
    revocation = stand.build("revocation", agent=agent, module=launch.module, config=launch.config, body=body)
    request = sign_envelope(revocation, [PrivateKey.generate(bytes(32))])
    refused(stand, shape(request, []), "signer-unknown")


# Content


def test_an_approval_of_another_request_does_not_count(stand: Stand, agent: str) -> None:
    one = sign_envelope(a_request(stand), [stand.keys["ada"]])
    other = sign_envelope(a_request(stand, ticket="wider"), [stand.keys["ada"]])
    refused(stand, shape(other, [approval(stand, one, "bo")]), "approval-for-another-request")


def test_an_edited_payload_is_refused(stand: Stand, agent: str) -> None:
    good = stand.sign(a_request(stand, ticket="small"))
    edited = Envelope(good.request.payload.replace(b'"small"', b'"large"'), good.request.signatures)
    refused(stand, shape(edited, list(good.approvals)), "signature-invalid")


def test_an_approval_that_was_shown_other_text_is_refused(stand: Stand, agent: str) -> None:
    request = sign_envelope(a_request(stand), [stand.keys["ada"]])
    refused(stand, shape(request, [approval(stand, request, "bo", shown_sha256="11" * 32)]), "shown-differs")
    said = dict(parse_statement(request.payload).predicate) | {"shown_sha256": "22" * 32}
    statement = parse_statement(request.payload)
    lying = sign_envelope(encode_statement("launch-request", statement.subjects, said), [stand.keys["ada"]])
    refused(stand, shape(lying, [approval(stand, lying, "bo")]), "shown-differs")


def test_a_request_for_another_deployment_is_refused(stand: Stand, agent: str) -> None:
    refused(stand, stand.sign(a_request(stand, deployment="elsewhere")).encode(), "other-deployment")
    request = sign_envelope(a_request(stand), [stand.keys["ada"]])
    elsewhere = approval(stand, request, "bo", deployment="elsewhere")
    refused(stand, shape(request, [elsewhere]), "other-deployment")


def test_a_capability_that_the_log_does_not_say_is_refused(stand: Stand, agent: str) -> None:
    held = {"before": [], "after": ["ab" * 16]}
    refused(stand, stand.sign(a_request(stand, capability=held)).encode(), "capability-differs")


def test_a_request_with_an_agent_s_name_for_a_canary_is_refused(stand: Stand, agent: str) -> None:
    good = stand.sign(a_request(stand))
    payload = good.request.payload.replace(b'"attacked"', b'"canary:' + b"0" * 32 + b'"')
    request = sign_envelope(payload, [stand.keys["ada"]])
    refused(stand, shape(request, []), "not-a-request")


# Time and order


def test_an_expired_a_too_early_and_a_too_long_request_are_refused(stand: Stand, agent: str) -> None:
    at = now()
    old = a_request(stand, not_before_ms=at - 10_000, expires_ms=at - 1)
    request = sign_envelope(old, [stand.keys["ada"]])
    refused(stand, shape(request, [approval(stand, request, "bo")]), "request-expired")
    refused(stand, stand.sign(a_request(stand, not_before_ms=at + 60_000)).encode(), "request-too-early")
    long = a_request(stand, expires_ms=at + 86_400_000 + 60_000)
    refused(stand, stand.sign(long).encode(), "request-life-too-long")
    request = sign_envelope(a_request(stand), [stand.keys["ada"]])
    late = approval(stand, request, "bo", expires_ms=at - 1)
    refused(stand, shape(request, [late]), "approval-expired")


def test_a_request_at_the_end_of_its_life_is_refused_as_it_might_expire_on_its_way_into_the_log(
    stand: Stand, agent: str
) -> None:
    refused(stand, stand.sign(a_request(stand, expires_ms=now() + 1_500)).encode(), "request-expired")


def test_a_request_that_is_too_large_to_stand_in_the_log_with_its_approvals_is_refused_and_logged(
    stand: Stand, agent: str
) -> None:
    def signed(alternatives: int) -> Submission:
        launch = stand.latest(agent)
        body = {
            "tool": "big",
            "action": "scratch.write",
            "where": {"name": {"one_of": [f"{number:03}" + "x" * 1000 for number in range(alternatives)]}},
            "calls": 1,
            "expires_ms": now() + 600_000,
            "credential": None,
            **NO_LIMITS,
        }
        payload = stand.build("grant", agent=agent, module=launch.module, config=launch.config, body=body)
        return stand.sign(payload)

    def size(submission: Submission) -> int:
        return sum(len(one.encode()) for one in (submission.request, *submission.approvals))

    least = next(count for count in range(20, 60) if size(signed(count)) > MAX_CONSENT)
    refused(stand, signed(least).encode(), "request-too-large")
    fits = signed(least - 1)  # the control: the largest that is let through does stand in the log
    assert size(fits) > MAX_CONSENT - 2_000
    index = operators.submit(stand.deployment, fits)["index"]
    stand.sync()
    assert stand.log.entries[index].void is None


def test_a_replayed_request_is_refused(stand: Stand, agent: str) -> None:
    data = puppet(WAIT, b"\n", WAIT)
    payload = stand.build("module-approval", module=sha256_hex(data), body=approval_body(data))
    sent = stand.sign(payload, artifacts=(data,)).encode()
    assert stand.post(sent).status_code == 200
    refused(stand, sent, "request-replayed")


def test_a_request_made_before_another_change_to_the_agent_is_stale(stand: Stand, agent: str) -> None:
    early = stand.sign(a_request(stand)).encode()
    entry = stand.started("attacked", IDLE)
    stand.stop_agent("attacked")
    stand.await_entry("exited", entry.index, started=entry.index)
    refused(stand, early, "head-stale")


def test_a_log_head_that_this_log_never_had_is_refused(stand: Stand, agent: str) -> None:
    size = stand.sync()
    for head in ({"size": size, "root": b64encode(bytes(32))}, {"size": size + 1000, "root": b64encode(bytes(32))}):
        refused(stand, stand.sign(a_request(stand, log_head=head)).encode(), "head-unknown")
    refused(stand, stand.sign(a_request(stand, log_head={"size": size, "root": "?"})).encode(), "body-malformed")


# Artifacts


def _module(stand: Stand, data: bytes, **body: Any) -> bytes:
    whole = approval_body(data) | body
    return stand.build("module-approval", module=sha256_hex(data), body=whole)


def test_bytes_that_the_request_does_not_name_are_refused_and_not_kept(stand: Stand) -> None:
    store = stand.root / "artifacts" / "controller" / "sha256"
    before = sorted(os.listdir(store))
    other = puppet(WAIT, b"never approved\n")
    payload = _module(stand, IDLE + b"\x00\x05\x04more")
    for artifacts in ((), (other,)):
        refused(stand, stand.sign(payload, artifacts=artifacts).encode(), "artifact-differs")
    refused(stand, stand.sign(_module(stand, other, size=1), artifacts=(other,)).encode(), "artifact-differs")
    assert sorted(os.listdir(store)) == before


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"#!/bin/sh\nexec sh\n", "module-malformed"),
        (b"", "module-malformed"),
        (b"\x00asm\x01\x00\x00", "module-malformed"),
        (b"(module)", "module-malformed"),
        (b"\x7fELF\x02\x01\x01\x00", "module-malformed"),
        (COMPONENT_WITH_IMPORT[:-1], "module-malformed"),
        (COMPONENT_WITH_IMPORT, "module-imports"),
        (b'{"argv":[]}', "module-malformed"),
        (IDLE[:-5], "module-malformed"),
        (WITH_IMPORT, "module-imports"),
    ],
)
def test_what_is_no_module_without_imports_is_not_approved(stand: Stand, data: bytes, reason: str) -> None:
    refused(stand, stand.sign(_module(stand, data), artifacts=(data,)).encode(), reason)


def test_a_module_is_not_approved_with_another_surface_than_its_own(stand: Stand) -> None:
    data = puppet(WAIT, b"a surface of its own\n")
    for other in (surface_digest(IDLE + b"\x00\x05\x04more"), sha256_hex(data), None):
        payload = _module(stand, data, surface_sha256=other)
        refused(stand, stand.sign(payload, artifacts=(data,)).encode(), "surface-differs")
    manifest = Manifest(sha256_hex(b"a tree"), ("/bin/agent",)).encode()
    payload = _module(stand, manifest, surface_sha256=surface_digest(data))
    refused(stand, stand.sign(payload, artifacts=(manifest,)).encode(), "surface-differs")
    assert stand.post(stand.sign(_module(stand, data), artifacts=(data,)).encode()).status_code == 200


def test_a_configuration_that_ironbound_would_not_make_is_not_approved(stand: Stand) -> None:
    config = json.loads((stand.root / "artifacts" / "controller" / "sha256" / stand.config).read_bytes())
    config["runtime"]["strict_security"] = False
    lax = canonical(config)
    config["runtime"]["strict_security"] = True
    config["runtime"]["max_fuel"] = 0
    for data in (lax, canonical(config), b"{}", b"not json"):
        payload = stand.build("profile-approval", config=sha256_hex(data), body={"profile": "strict", "layers": []})
        refused(stand, stand.sign(payload, artifacts=(data,)).encode(), "profile-malformed")
    good = (stand.root / "artifacts" / "controller" / "sha256" / stand.config).read_bytes()
    body = merge([Layer("strict.toml", STRICT.read_bytes())]).approval_body()
    (layer,) = [dict(one) for one in body["layers"]]
    for wrong in (
        body | {"profile": "another"},
        body | {"layers": []},
        body | {"layers": [layer | {"sets": layer["sets"][1:]}]},
        body | {"layers": [layer, layer]},
        body | {"layers": [layer | {"sets": [*layer["sets"], "runtime.max_cpu"]}]},
    ):
        payload = stand.build("profile-approval", config=stand.config, body=wrong)
        refused(stand, stand.sign(payload, artifacts=(good,)).encode(), "profile-malformed")


# R13: a malformed configuration, one kind at a time: signed by a quorum, and refused all the same


def _changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        *folders, name = path.split(".")
        place = config
        for folder in folders:
            place = place[folder]
        if value is ...:
            del place[name]
        else:
            place[name] = value

    return change


MALFORMED: dict[str, Callable[[dict[str, Any]], None]] = {
    "a switch that turns the policy off": _changed("ignore_policy", True),
    "a switch inside the runtime": _changed("runtime.skip_checks", True),
    "strict security off": _changed("runtime.strict_security", False),
    "strict security as a word": _changed("runtime.strict_security", "true"),
    "strict security missing": _changed("runtime.strict_security", ...),
    "no import disallowed": _changed("runtime.disallowed_imports", []),
    "one import less disallowed": _changed("runtime.disallowed_imports", ["wasi_snapshot_preview1"]),
    "an unknown runtime": _changed("runtime.type", "host"),
    "a runtime of another kind": _changed("runtime.type", "runc"),
    "no runtime": _changed("runtime", ...),
    "no channel": _changed("channel", ...),
    "a limit missing": _changed("runtime.max_memory", ...),
    "a limit of zero": _changed("runtime.max_wall_clock", 0),
    "a negative limit": _changed("runtime.max_memory", -1),
    "a limit beyond its range": _changed("runtime.max_memory", 2**52),
    "a limit as text": _changed("runtime.max_memory", "128"),
    "a limit as truth": _changed("runtime.max_memory", True),
    "a limit of null": _changed("runtime.max_fuel", None),
    "an unlimited rate": _changed("channel.max_messages_per_second", 10**12),
    "a list where an object is due": _changed("scratch", []),
    "a profile without a name": _changed("profile", ""),
    "a profile's name with a slash": _changed("profile", "../strict"),
    "another version": _changed("version", 99),
}


def _approval_of(stand: Stand, data: bytes) -> bytes:
    body = merge([Layer("strict.toml", STRICT.read_bytes())]).approval_body()
    payload = stand.build("profile-approval", config=sha256_hex(data), body=body)
    return stand.sign(payload, artifacts=(data,)).encode()


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_configuration_is_refused_and_logged_whoever_signed_it(stand: Stand, kind: str) -> None:
    good = merge([Layer("strict.toml", STRICT.read_bytes())]).encoded
    config = json.loads(good)
    MALFORMED[kind](config)
    data = canonical(config)
    assert data != good
    refused(stand, _approval_of(stand, data), "profile-malformed")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: b"",
        lambda good: good[:-1],
        lambda good: good + b"\n",
        lambda good: b" " + good,
        lambda good: good.replace(b'"channel":', b'"channel":{},"channel":', 1),
        lambda good: good.replace(b'"max_fuel":', b'"max_fuel":NaN,"x":', 1),
        lambda good: good.replace(b'"max_memory":128', b'"max_memory":128.0', 1),
        lambda good: good.replace(b'"max_memory":128', b'"max_memory":1e999', 1),
        lambda good: b"[" * 5000 + b"]" * 5000,
        lambda good: b"\xff\xfe" + good,
        lambda good: good.decode().encode("utf-16"),
        lambda good: b"[agent]\nstrict_security = true\n",
        lambda good: b"null",
    ],
    ids=range(13),
)
def test_bytes_that_are_no_configuration_in_its_one_spelling_are_refused_and_logged(
    stand: Stand, spoil: Callable[[bytes], bytes]
) -> None:
    data = spoil(merge([Layer("strict.toml", STRICT.read_bytes())]).encoded)
    refused(stand, _approval_of(stand, data), "profile-malformed")


# Garbage


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff" * 100,
        b"null",
        b"[]",
        b"{}",
        b'{"request":1,"approvals":[],"artifacts":[]}',
        b'{"request":{},"approvals":{},"artifacts":[]}',
        b'{"request":null,"approvals":[],"artifacts":[],"debug":true}',
        b'{"request":null,"request":null,"approvals":[],"artifacts":[]}',
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"request":NaN,"approvals":[],"artifacts":[]}',
        b'{"request":"\\ud800","approvals":[],"artifacts":[]}',
        b'{"request":1e999,"approvals":[],"artifacts":[7]}',
    ],
    ids=range(14),
)
def test_garbage_is_refused_and_logged(stand: Stand, body: bytes) -> None:
    refused(stand, body, "submission-malformed", 400)


def test_lists_that_are_too_long_are_refused(stand: Stand) -> None:
    payload = stand.build("profile-approval", config=stand.config, body={"profile": "x", "layers": []})
    good = json.loads(stand.sign(payload).encode())
    many = good | {"approvals": good["approvals"] * 17}
    refused(stand, canonical(many), "submission-malformed", 400)
    refused(stand, canonical(good | {"artifacts": ["", ""]}), "submission-malformed", 400)
    refused(stand, canonical(good | {"artifacts": ["QU!JD"]}), "submission-malformed", 400)
    refused(stand, canonical(good | {"artifacts": [7]}), "submission-malformed", 400)


def test_a_hundred_megabytes_are_refused_without_being_kept(stand: Stand) -> None:
    before, start = stand.snapshot(), stand.sync()
    left = MAX_SUBMISSION + 10_000_000
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as flood:
        flood.settimeout(DEADLINE_S)
        flood.connect(stand.deployment.socket("controller"))
        flood.sendall(f"POST /requests HTTP/1.1\r\nhost: x\r\ncontent-length: {left}\r\n\r\n".encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may hang up before everything was sent
            while left:
                left -= flood.send(b"[" * min(left, 1 << 20))
    entry = stand.await_entry("refused", start, reason="submission-malformed")
    assert str(MAX_SUBMISSION) in entry.predicate["detail"]
    assert stand.snapshot() == before
    status = Path(f"/proc/{stand.pid('controller')}/status").read_text("ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 600_000, peak


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/requests", 405),
        ("PUT", "/requests", 405),
        ("DELETE", "/requests", 405),
        ("PURGE", "/requests", 405),
        ("POST", "/status", 405),
        ("POST", "/", 404),
        ("POST", "/requests/", 404),
        ("GET", "/../trust-root.json", 404),
        ("GET", "/docs", 404),
        ("POST", "/grant", 404),
        ("POST", "//requests", 404),
        ("GET", "/%00", 404),
    ],
)
def test_other_methods_and_paths_do_not_exist_and_each_try_is_an_entry(
    stand: Stand, method: str, path: str, status: int
) -> None:
    before = stand.snapshot()
    answer = stand.post(b"{}", method, path)
    assert answer.status_code == status and answer.json()["reason"] == "route-unknown"
    assert ("allow" in answer.headers) == (status == 405)
    stand.sync()
    entry = stand.log.entries[answer.json()["index"]]
    assert entry.kind == "refused" and entry.predicate["reason"] == "route-unknown"
    assert entry.predicate["verb"].startswith(f"{method} /")
    assert stand.snapshot() == before
    assert stand.post(b"", "GET", "/status").json()["deployment"] == stand.deployment.trust.deployment


def test_half_open_and_broken_connections_keep_nobody_out(stand: Stand, agent: str) -> None:
    lines = (b"", b"POST /requests HTTP/1.1\r\n", b"POST /requests HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
             b"\x16\x03\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # fmt: skip
    held = []
    try:
        for line in lines * 5:
            half = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            half.connect(stand.deployment.socket("controller"))
            half.sendall(line)
            held.append(half)
        refused(stand, stand.sign(a_request(stand), "ada").encode(), "quorum-not-met")
    finally:
        for half in held:
            half.close()
    # Those that broke off inside a body are refused in the log as well.
    start = stand.sync()
    assert start
    refused(stand, stand.sign(a_request(stand), "ada").encode(), "quorum-not-met")


def test_hundreds_of_refusals_at_once_are_all_logged(stand: Stand) -> None:
    start = stand.sync()

    def one(number: int) -> str:
        return str(stand.post(b"nonsense %d" % number).json()["reason"])

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        reasons = list(pool.map(one, range(200)))
    assert set(reasons) == {"submission-malformed"}
    logged = {one.predicate["submission_sha256"] for one in stand.entries("refused", start)}
    assert logged == {sha256_hex(b"nonsense %d" % number) for number in range(200)}


def test_the_reason_reaches_the_operator_with_a_hint(stand: Stand, agent: str) -> None:
    with pytest.raises(Refusal) as refusal:
        stand.submit(a_request(stand), PEOPLE[0])
    assert refusal.value.reason == "quorum-not-met" and "fewer humans" in refusal.value.hint
