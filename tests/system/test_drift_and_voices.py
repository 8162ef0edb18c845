"""A running sandbox is tampered with, processes appear that nobody admitted, services lie: each is seen or void."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from puppet import WAIT, puppet
from stand import ROOT, Stand, is_alive, until

from ironbound.core.canonical import Digest, b64encode, parse_json, sha256_hex
from ironbound.core.envelope import Envelope, sign_envelope
from ironbound.core.keys import PrivateKey
from ironbound.core.statement import Subject, encode_statement
from ironbound.core.surface import approval_body, surface_digest
from ironbound.terminal import operators
from ironbound.wire.frames import read_frame, write_frame

IDLE = puppet(WAIT)
TRACER = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
sys.exit("refused") if libc.ptrace(0x4206, int(sys.argv[1]), None, None) else print("attached", flush=True)
sys.stdin.read()
"""
STRAY = "import os, sys; os.setgid({0}); os.setuid({0}); print('here', flush=True); sys.stdin.read()"


def helper(code: str, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
    )


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 20)
    assert ready
    return process.stdout.readline()


def let_go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait(20)


def test_a_debugger_on_a_running_sandbox_is_drift_and_the_agent_is_stopped_in_time(stand: Stand) -> None:
    entry = stand.started("traced", IDLE)
    tracer = helper(TRACER, str(entry.predicate["pid"]))
    try:
        if first_line(tracer) != b"attached\n":
            assert not ROOT
            pytest.fail("the kernel let nobody attach: there is nothing to see")
        attached = time.time_ns() // 1_000_000
        drift = stand.await_entry("drift", entry.index, started=entry.index)
        assert "tracer" in [one["path"] for one in drift.predicate["differences"]]
        order = stand.await_entry("stop-order", drift.index, drift=drift.index)
        assert order.predicate["launch"] == entry.predicate["launch"]
        end = stand.await_entry("exited", order.index, started=entry.index)
        assert end.predicate["reason"] == "stop-order"
        assert end.predicate["at_ms"] - attached < stand.deployment.trust.drift_stop_ms
    finally:
        let_go(tracer)
    until("it is dead", lambda: not is_alive(entry.predicate["pid"], entry.predicate["pid_start"]))


def test_nothing_drifts_while_nobody_does_anything(stand: Stand) -> None:
    entries = [stand.started(f"calm-{number}", IDLE) for number in range(3)]
    start = stand.sync()
    end = time.monotonic() + 3.0  # several rounds of looks
    until("rounds have passed", lambda: time.monotonic() > end)
    assert not stand.entries("drift", start) and not stand.entries("stop-order", start)
    for number, entry in enumerate(entries):
        assert is_alive(entry.predicate["pid"], entry.predicate["pid_start"])
        stand.stop_agent(f"calm-{number}")
        assert stand.await_entry("exited", entry.index, started=entry.index).predicate["reason"] == "stopped"


@pytest.mark.root
def test_a_process_of_a_sandbox_user_without_an_entry_is_drift_and_is_killed(stand: Stand) -> None:
    uids = stand.deployment.sandbox_uids
    assert uids is not None
    start = stand.sync()
    stray = helper(STRAY.format(uids[77]))
    try:
        assert first_line(stray) == b"here\n"
        drift = stand.await_entry("drift", start, kind="process-without-entry", pid=stray.pid)
        stand.await_entry("stop-order", drift.index, pid=stray.pid, launch=None)
        assert stray.wait(10) == -signal.SIGKILL
    finally:
        let_go(stray)


@pytest.mark.root
def test_a_process_of_another_user_is_nobody_s_business(stand: Stand) -> None:
    uids = stand.deployment.sandbox_uids
    assert uids is not None
    start = stand.sync()
    other = helper(STRAY.format(uids.stop + 5))
    try:
        assert first_line(other) == b"here\n"
        end = time.monotonic() + 2.5
        until("rounds have passed", lambda: time.monotonic() > end)
        assert not stand.entries("drift", start)
        assert other.poll() is None
    finally:
        let_go(other)


# Voices that lie


def say(stand: Stand, role: str, kind: str, fields: dict[str, Any], uid: int | None = None) -> dict[str, Any]:
    """A service whose key is in the wrong hands says something, straight into the ledger's socket."""
    predicate = fields | {
        "id": os.urandom(16).hex(),
        "deployment": stand.deployment.trust.deployment,
        "at_ms": time.time_ns() // 1_000_000,
    }
    subject = Subject("module", stand.latest("victim").module)
    data = sign_envelope(encode_statement(kind, (subject,), predicate), [stand.deployment.key(role)]).encode()
    return put(stand, role, data)


def put(stand: Stand, role: str, data: bytes) -> dict[str, Any]:
    """Append as the role's own user, so that only what it says can be wrong."""
    code = (
        "import os, socket, sys\n"
        f"uid = {stand.deployment.uid(role)}\n"
        "if os.getuid() != uid: os.setgid(uid); os.setuid(uid)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1])\n"
        "from ironbound.wire.frames import read_frame, write_frame\n"
        "from ironbound.core.canonical import canonical\n"
        "write_frame(s, {'op': 'append', 'seq': 1, 'envelope': sys.stdin.read()})\n"
        "sys.stdout.write(canonical(read_frame(s)).decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, stand.deployment.socket("ledger")],
        input=b64encode(data),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    value = parse_json(done.stdout.encode(), limit=1 << 20)
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module")
def victim(stand: Stand) -> str:
    """An agent that is over and that a hostile service wants to run or to empower."""
    entry = stand.started("victim", IDLE)
    stand.stop_agent("victim")
    stand.await_entry("exited", entry.index, started=entry.index)
    return "victim"


def _launch_request(stand: Stand) -> bytes:
    launch = stand.latest("victim")
    return stand.build("launch-request", agent="victim", module=launch.module, config=launch.config)


def _admit(stand: Stand, request: Envelope, approvals: list[Envelope]) -> int:
    fields = {"request": request.as_value(), "approvals": [one.as_value() for one in approvals]}
    answer = say(stand, "controller", "admitted", fields)
    assert answer["ok"] is True, answer
    return int(answer["index"])


def test_a_controller_that_admits_what_no_human_signed_moves_nobody(stand: Stand, victim: str) -> None:
    before, workers = stand.snapshot(), stand.workers()
    deployment = stand.deployment.trust.deployment
    own = stand.deployment.key("controller")
    payload = _launch_request(stand)
    by_ada = sign_envelope(payload, [stand.keys["ada"]])
    forged = [
        (sign_envelope(payload, [own]), [], "signer-unknown"),
        (by_ada, [], "quorum-not-met"),
        (by_ada, [operators.approve(by_ada, deployment, own)], "signer-unknown"),
        (by_ada, [operators.approve(by_ada, deployment, stand.keys["ada"])], "initiator-approves"),
        (by_ada, [operators.approve(by_ada, deployment, PrivateKey.generate(bytes(32)))], "signer-unknown"),
    ]
    for request, approvals, reason in forged:
        index = _admit(stand, request, approvals)
        stand.sync()
        assert stand.log.entries[index].void == reason
    # A later, honest launch proves that the node has read all of that and launched none of it.
    assert stand.snapshot() == before
    entry = stand.started("honest", IDLE)
    assert sorted(stand.workers()) == sorted([*workers, entry.predicate["pid"]])
    assert not stand.entries("started", entry.index - 6, agent="victim")
    stand.stop_agent("honest")
    stand.await_entry("exited", entry.index, started=entry.index)


def test_an_honest_request_through_a_stolen_controller_key_is_only_what_the_humans_signed(
    stand: Stand, victim: str
) -> None:
    signed = stand.sign(_launch_request(stand))
    index = _admit(stand, signed.request, list(signed.approvals))  # the positive control of the forgeries above
    entry = stand.await_entry("started", index, launch=index)
    again = _admit(stand, signed.request, list(signed.approvals))
    stand.sync()
    assert stand.log.entries[again].void == "request-replayed"
    stand.stop_agent("victim")
    stand.await_entry("exited", entry.index, started=entry.index)


def test_a_module_whose_approved_surface_is_not_its_own_never_runs_whatever_the_controller_admits(
    stand: Stand, victim: str
) -> None:
    store = stand.root / "artifacts" / "controller" / "sha256"

    def approved(data: bytes, surface: str | None) -> Digest:
        digest = sha256_hex(data)
        (store / digest).write_bytes(data)
        (store / digest).chmod(0o644)
        body = approval_body(data) | {"surface_sha256": surface}
        signed = stand.sign(stand.build("module-approval", module=digest, body=body))
        index = _admit(stand, signed.request, list(signed.approvals))
        stand.sync()
        assert stand.log.entries[index].void is None
        return digest

    for name, surface in ((b"one\n", sha256_hex(b"another")), (b"two\n", None)):
        launch = stand.launch("disguised", approved(puppet(WAIT, name), surface))
        refused = stand.await_entry("launch-refused", launch, launch=launch)
        assert (refused.predicate["stage"], refused.predicate["reason"]) == ("module", "surface-differs")
        assert not stand.entries("started", launch, launch=launch)
    honest = puppet(WAIT, b"three\n")  # the positive control
    entry = stand.started("disguised", approved(honest, surface_digest(honest)))
    stand.stop_agent("disguised")
    stand.await_entry("exited", entry.index, started=entry.index)


@pytest.mark.parametrize("role", ["gateway", "node", "monitor"])
def test_other_services_cannot_admit_anything_at_all(stand: Stand, victim: str, role: str) -> None:
    before = stand.snapshot()
    signed = stand.sign(_launch_request(stand))
    fields = {"request": signed.request.as_value(), "approvals": [one.as_value() for one in signed.approvals]}
    answer = say(stand, role, "admitted", fields)
    assert (answer["ok"], answer["code"]) == (False, "voice-not-entitled")
    assert stand.snapshot() == before


def test_an_intent_without_a_grant_is_void_and_a_lying_outcome_too(stand: Stand, victim: str) -> None:
    launch = stand.latest("victim")
    fields: dict[str, Any] = {
        "agent": "victim",
        "launch": launch.index,
        "grant": "00" * 16,
        "tool": "ask",
        "action": "http.request",
        "args": {},
        "args_sha256": "00" * 32,
        "approval": None,
        "client": None,
    }
    index = int(say(stand, "gateway", "action-intent", fields)["index"])
    stand.sync()
    assert stand.log.entries[index].void == "agent-not-running"
    done = {"intent": index, "status": "performed", "detail": "", "result_sha256": None, "result_bytes": 0}
    done["spent"] = None
    index = int(say(stand, "gateway", "action-outcome", done)["index"])
    stand.sync()
    assert stand.log.entries[index].void == "intent-unknown"


def test_a_node_cannot_start_what_was_not_admitted(stand: Stand, victim: str) -> None:
    old = stand.latest("victim")
    said = stand.entries("exited", agent="victim")[-1]
    fields = {"launch": old.index, "agent": "victim", "started": said.predicate["started"], "reason": "finished",
              "text": "", "report": "", "usage": said.predicate["usage"]}  # fmt: skip
    index = int(say(stand, "node", "exited", fields)["index"])
    stand.sync()
    assert stand.log.entries[index].void == "launch-not-started"


@pytest.mark.root
def test_a_stolen_key_in_another_user_s_hands_is_refused_by_the_peer_s_user(stand: Stand, victim: str) -> None:
    data = stand.sign(_launch_request(stand)).request
    predicate = {
        "id": os.urandom(16).hex(),
        "deployment": stand.deployment.trust.deployment,
        "at_ms": time.time_ns() // 1_000_000,
        "request": data.as_value(),
        "approvals": [],
    }
    payload = encode_statement("admitted", (Subject("request", data.digest),), predicate)
    envelope = sign_envelope(payload, [stand.deployment.key("controller")]).encode()
    with socket.socket(socket.AF_UNIX) as link:  # as root, who is not the controller
        link.settimeout(20)
        link.connect(stand.deployment.socket("ledger"))
        write_frame(link, {"op": "append", "seq": 1, "envelope": b64encode(envelope)})
        answer = read_frame(link)
    assert answer is not None and (answer["ok"], answer["code"]) == (False, "peer-mismatch")
