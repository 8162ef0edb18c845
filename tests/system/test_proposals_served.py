"""Requests proposed on one machine and approved on another, through the real controller: what becomes of each."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from puppet import WAIT, puppet
from stand import Stand

from ironbound.core.canonical import b64encode, canonical, sha256_hex
from ironbound.core.envelope import Envelope, envelope_from_value, sign_envelope
from ironbound.core.request import encode_approval, encode_request
from ironbound.core.statement import parse_statement
from ironbound.core.surface import approval_body

IDLE = puppet(*[WAIT] * 5)


def proposed(stand: Stand, payload: bytes, who: str = "ada", *artifacts: bytes) -> tuple[Envelope, dict[str, Any]]:
    request = sign_envelope(payload, [stand.keys[who]])
    body = {"request": request.as_value(), "approvals": [], "artifacts": [b64encode(one) for one in artifacts]}
    answer = stand.post(canonical(body), path="/proposals")
    assert answer.status_code == 200, answer.text
    return request, answer.json()


def approval(stand: Stand, request: Envelope, who: str) -> bytes:
    expires = parse_statement(request.payload).predicate["expires_ms"]
    deployment = stand.deployment.trust.deployment
    payload = encode_approval(request, deployment=deployment, approval_id=os.urandom(16).hex(), expires_ms=expires)
    return canonical({"approval": sign_envelope(payload, [stand.keys[who]]).as_value()})


def approve(stand: Stand, request: Envelope, who: str) -> Any:
    return stand.post(approval(stand, request, who), path=f"/proposals/{request.digest}/approvals")


def listed(stand: Stand) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stand.post(b"", "GET", "/proposals").json()["proposals"]
    return found


def refused(stand: Stand, answer: Any, status: int, reason: str) -> None:
    said = answer.json()
    assert (answer.status_code, said["reason"]) == (status, reason), said
    stand.sync()
    assert stand.log.entries[said["index"]].predicate["reason"] == reason


def test_a_module_is_proposed_by_one_and_applied_with_the_second_approval(stand: Stand) -> None:
    data = puppet(WAIT, f"proposed {os.getpid()}\n".encode())
    digest = sha256_hex(data)
    payload = stand.build("module-approval", module=digest, body=approval_body(data))
    before = stand.snapshot()
    request, said = proposed(stand, payload, "ada", data)
    assert (said["state"], said["initiator"], said["approvers"], said["needed"]) == ("waiting", "ada", [], 2)
    assert stand.snapshot() == before, "a proposal gives nothing"
    there = stand.post(b"", "GET", f"/proposals/{request.digest}").json()
    assert envelope_from_value(there["request"]) == request, "another machine gets the very bytes"
    refused(stand, approve(stand, request, "ada"), 403, "initiator-approves")
    answer = approve(stand, request, "cy")
    assert answer.status_code == 200, answer.text
    done = answer.json()
    assert (done["state"], done["approvers"]) == ("applied", ["cy"])
    stand.sync()
    entry = stand.log.entries[done["applied"]]
    assert entry.kind == "admitted" and entry.void is None and entry.consent is not None
    assert entry.consent.humans == ("ada", "cy")
    assert digest in stand.log.with_state(lambda replay: set(replay.books.modules))
    assert listed(stand)[0]["state"] == "applied"
    refused(stand, approve(stand, request, "bo"), 403, "request-replayed")


def test_what_can_not_be_is_refused_at_once_and_kept_nowhere(stand: Stand) -> None:
    payload = stand.build("module-approval", module="0" * 64, body=approval_body(IDLE))
    request = sign_envelope(payload, [stand.keys["ada"]])
    for artifacts in ([], [b64encode(IDLE)]):
        body = {"request": request.as_value(), "approvals": [], "artifacts": artifacts}
        refused(stand, stand.post(canonical(body), path="/proposals"), 403, "artifact-differs")
    launch = stand.build("launch-request", agent="x", module="1" * 64, config=stand.config)
    asked = sign_envelope(launch, [stand.keys["ada"]])
    body = {"request": asked.as_value(), "approvals": [], "artifacts": []}
    refused(stand, stand.post(canonical(body), path="/proposals"), 403, "module-not-approved")
    refused(stand, stand.post(b"{}", path="/proposals"), 400, "submission-malformed")
    refused(stand, stand.post(b"", "GET", f"/proposals/{'a' * 64}"), 404, "proposal-unknown")
    refused(stand, stand.post(b"{}", path=f"/proposals/{'a' * 64}/approvals"), 404, "proposal-unknown")


def test_taking_away_needs_nobody_else_so_it_is_not_proposed(stand: Stand) -> None:
    stand.started("taken", IDLE)
    launch = stand.latest("taken")
    payload = stand.build("stop", agent="taken", module=launch.module, config=launch.config)
    body = {"request": sign_envelope(payload, [stand.keys["bo"]]).as_value(), "approvals": [], "artifacts": []}
    refused(stand, stand.post(canonical(body), path="/proposals"), 403, "one-is-enough")
    stand.stop_agent("taken")


def test_an_agent_that_changed_since_makes_a_waiting_request_stale(stand: Stand) -> None:
    stand.started("moving", IDLE)
    launch = stand.latest("moving")
    body = {
        "tool": "scratch.list", "action": "scratch.list", "where": {}, "calls": 1, "credential": None, "rate": None,
        "budget": None, "approvals": 0, "delegable": 0, "expires_ms": time.time_ns() // 1_000_000 + 600_000,
    }  # fmt: skip
    payload = stand.build("grant", agent="moving", module=launch.module, config=launch.config, body=body)
    request, _ = proposed(stand, payload)
    stand.grant("moving", "scratch.read", where={"name": {"any": True}})
    assert (listed(stand)[0]["state"], listed(stand)[0]["reason"]) == ("refused", "head-stale")
    refused(stand, approve(stand, request, "bo"), 403, "head-stale")
    stand.stop_agent("moving")


def test_a_request_expires_unapproved(stand: Stand) -> None:
    payload = stand.build("profile-approval", config=stand.config, body={"profile": "strict", "layers": []})
    said = dict(parse_statement(payload).predicate)
    data = stand.deployment.artifact(stand.config)
    short = said | {"body": _body(stand), "expires_ms": said["not_before_ms"] + 4_000}
    request, _ = proposed(stand, encode_request("profile-approval", short), "ada", data)
    end = time.monotonic() + 30
    while listed(stand)[0]["state"] != "expired":
        assert time.monotonic() < end
        time.sleep(0.1)
    refused(stand, approve(stand, request, "bo"), 403, "approval-expired")


def _body(stand: Stand) -> Any:
    entry = stand.entries("admitted")[0]
    assert entry.consent is not None and entry.consent.statement.kind == "profile-approval"
    return entry.consent.statement.predicate["body"]


def test_proposals_outlive_the_controller(fresh: Callable[..., Stand]) -> None:
    stand = fresh()
    stand.start()
    stand.config = stand.approve_profile()
    module = stand.approve_module(IDLE)
    request, _ = proposed(stand, stand.build("launch-request", agent="later", module=module, config=stand.config))
    stand.kill("controller")
    assert listed(stand)[0]["state"] == "waiting"
    assert approve(stand, request, "cy").json()["state"] == "applied"
    stand.await_entry("started", agent="later")


def test_the_trust_root_in_force_is_there_for_everybody(stand: Stand) -> None:
    body = stand.post(b"", "GET", "/trust-root").json()
    assert body == json.loads(json.dumps(dict(stand.log.with_state(lambda replay: replay.trust.body))))


@pytest.mark.parametrize("path", ["/proposals/", "/proposals/x/approvals/", "/trust-root/", "/proposals/x/refuse"])
def test_paths_beside_them_are_none(stand: Stand, path: str) -> None:
    answer = stand.post(b"", "GET", path)
    assert (answer.status_code, answer.json()["reason"]) == (404, "route-unknown")
