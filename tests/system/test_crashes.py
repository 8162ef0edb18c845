"""Every service is killed while an agent runs; what was acknowledged stays, and work goes on."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from puppet import WAIT, call, puppet
from stand import Stand, descendants, is_alive, process_state, running, until
from world import World

from ironbound.core.canonical import sha256_hex
from ironbound.core.malformed import attempts, once_more
from ironbound.evidence.export import export
from ironbound.terminal.operators import Refusal
from ironbound.verifier.claims import HOLDS, Claim
from ironbound.verifier.verify import verify_bundle

IDLE = puppet(WAIT)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World("a token")
    yield made
    made.close()


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A deployment whose services are killed; each test leaves it running."""
    yield from running(tmp_path_factory.mktemp("crashes"))


def verified(stand: Stand, tmp_path: Path, claim: str) -> Claim:
    """A claim, as the verifier judges it over an export."""
    out = tmp_path / "evidence.ironbound"
    export(stand.deployment, out, at_least=stand.sync())
    with open(out, "rb") as file:
        return next(one for one in verify_bundle(file, stand.deployment.trust.pin).claims if one.id == claim)


def _end(stand: Stand, agent: str, started: int) -> None:
    stand.stop_agent(agent)
    assert stand.await_entry("exited", started, started=started).predicate["reason"] == "stopped"


def _goes_on(stand: Stand, agent: str = "next") -> None:
    """The proof that the deployment works: an agent runs, is seen, and stops."""
    _end(stand, agent, stand.started(agent, IDLE).index)


def test_a_killed_ledger_loses_nothing_that_it_acknowledged_and_says_nothing_twice(crashing: Stand) -> None:
    entry = crashing.started("steady", IDLE)
    asked: set[str] = set()
    acknowledged: dict[str, int] = {}
    done = threading.Event()

    def write(name: int) -> None:
        number = 0
        while not done.is_set():
            number += 1
            body = b"noise %d %d" % (name, number)
            asked.add(sha256_hex(body))
            answer = crashing.post(body)
            if answer.status_code == 400:
                acknowledged[sha256_hex(body)] = int(answer.json()["index"])

    writers = [threading.Thread(target=write, args=(name,)) for name in range(6)]
    for writer in writers:
        writer.start()
    for _ in range(3):
        size = len(acknowledged)
        until("writes go on", lambda size=size: len(acknowledged) > size + 10)  # type: ignore[misc]
        crashing.kill("ledger")
    done.set()
    for writer in writers:
        writer.join()
    refusals = [one for one in crashing.entries("refused") if one.predicate["submission_sha256"] in asked]
    found = {one.predicate["submission_sha256"]: one.index for one in refusals}
    assert len(found) == len(refusals), "an entry came twice"
    assert all(one.void is None for one in refusals)
    assert {digest: found.get(digest) for digest in acknowledged} == acknowledged
    assert is_alive(entry.predicate["pid"], entry.predicate["pid_start"]), "the agent outlives the ledger"
    _end(crashing, "steady", entry.index)
    _goes_on(crashing)


def test_a_killed_controller_comes_back_and_takes_requests_again(crashing: Stand) -> None:
    entry = crashing.started("steady", IDLE)
    crashing.kill("controller")
    assert is_alive(entry.predicate["pid"], entry.predicate["pid_start"])
    with pytest.raises(Refusal) as refusal:
        crashing.launch("steady", IDLE)
    assert refusal.value.reason == "agent-already-running"
    _end(crashing, "steady", entry.index)


def test_a_controller_is_asked_at_its_start_for_what_it_refuses_for_the_reasons_that_are_expected(
    crashing: Stand, tmp_path: Path
) -> None:
    start = crashing.sync()
    crashing.kill("controller")
    probed = crashing.await_entry("channel-probed", start)
    drawn, trust = probed.predicate, crashing.deployment.trust
    known = [once_more(one) for one in crashing.entries("admitted") if one.index < drawn["checkpoint"]["size"]]
    latest = [body for body in known if body is not None][-1]
    sent = attempts(trust, drawn, sha256_hex(latest))
    refusals = crashing.entries("refused", drawn["checkpoint"]["size"])
    for one in sent:
        said = [
            (entry.index < probed.index, entry.predicate["reason"])
            for entry in refusals
            if (entry.predicate["submission_sha256"], entry.predicate["verb"]) == (one.digest, one.verb)
        ]
        assert said and all(before and reason in one.reasons for before, reason in said), (one.name, said)
    assert len(sent) == 15 and probed.void is None
    claim = verified(crashing, tmp_path, "C5")
    assert claim.status == HOLDS, claim
    assert claim.counts["requests refused"] == claim.counts["requests sent"] >= 2 * len(sent) - 1


def test_a_killed_monitor_is_back_as_witness_and_sees_the_running_agent_anew(crashing: Stand) -> None:
    entry = crashing.started("steady", IDLE)
    start = crashing.sync()
    crashing.kill("monitor")
    seen = crashing.await_entry("observed", start, started=entry.index)
    assert not seen.predicate["differences"]
    _end(crashing, "steady", entry.index)
    _goes_on(crashing)
    assert not crashing.entries("drift")


def test_a_killed_node_takes_its_agents_along_and_says_so_when_it_is_back(crashing: Stand) -> None:
    entries = [crashing.started(f"lost-{number}", IDLE) for number in range(3)]
    zygote = crashing.zygote()
    crashing.kill("node")
    for entry in entries:
        assert crashing.await_entry("exited", entry.index, started=entry.index).predicate["reason"] == "node-lost"
        assert not is_alive(entry.predicate["pid"], entry.predicate["pid_start"])
    state = process_state(zygote)
    assert state is None or state[0] == "Z" or zygote in descendants(crashing.pid("node"))
    _goes_on(crashing, "lost-0")
    assert not crashing.entries("drift")


def test_a_killed_zygote_ends_the_node_which_starts_anew(crashing: Stand) -> None:
    entry = crashing.started("orphan", IDLE)
    ready = crashing.said_ready("node")
    os.kill(crashing.zygote(), signal.SIGKILL)
    until("the node starts anew", lambda: crashing.said_ready("node") > ready)
    end = crashing.await_entry("exited", entry.index, started=entry.index)
    assert end.predicate["reason"] in ("node-lost", "killed", "node-stopping")
    assert not is_alive(entry.predicate["pid"], entry.predicate["pid_start"])
    _goes_on(crashing, "orphan")


def test_a_killed_gateway_ends_its_agents_and_closes_their_intents_as_unknown(crashing: Stand, world: World) -> None:
    request = call(1, "ask", method="GET", url=f"{world.url}/slow")
    entry = crashing.started("caller", puppet(WAIT, request, WAIT))
    world.gate.clear()
    crashing.grant("caller", "http.request", tool="ask", where=_anything())
    intent = crashing.await_entry("action-intent", entry.index)
    until("the world is asked", lambda: any(path == "/slow" for _, path, _ in world.seen))
    crashing.kill("gateway")
    outcome = crashing.await_entry("action-outcome", intent.index, intent=intent.index)
    assert outcome.predicate["status"] == "unknown"
    world.gate.set()
    end = crashing.await_entry("exited", entry.index, started=entry.index)
    assert end.predicate["reason"] == "eof"
    assert crashing.log.with_state(lambda replay: dict(replay.books.open_intents)) == {}
    _goes_on(crashing, "caller")


def _anything() -> dict[str, object]:
    return {name: {"any": True} for name in ("method", "scheme", "host", "port", "path")}


def test_without_a_gateway_no_agent_s_first_instruction_runs(crashing: Stand) -> None:
    gateway = crashing.pid("gateway")
    os.kill(gateway, signal.SIGSTOP)
    try:
        launch = crashing.launch("mute", IDLE)
        end = crashing.await_entry("exited", launch, launch=launch)
    finally:
        os.kill(gateway, signal.SIGCONT)
    assert end.predicate["reason"] in ("gateway-unreachable", "gateway-refused")
    assert end.predicate["usage"]["messages"] == 0
    _goes_on(crashing, "mute")


def test_without_a_log_no_act_happens_and_callers_are_told(crashing: Stand, world: World) -> None:
    request = call(1, "ask", method="GET", url=f"{world.url}/unlogged")
    entry = crashing.started("unlogged", puppet(WAIT, WAIT, request))
    crashing.grant("unlogged", "http.request", tool="ask", where=_anything())
    crashing.sync()
    ledger, pid, start = crashing.pid("ledger"), entry.predicate["pid"], entry.predicate["pid_start"]
    paper = crashing.root / "inputs" / "unlogged.json"

    def ended() -> bool:
        paper.write_text(str(time.monotonic_ns()))  # its input changed: the notification makes it call
        return not is_alive(pid, start)

    os.kill(ledger, signal.SIGSTOP)
    try:
        until("the agent had its answer and ended", ended)
        answer = crashing.post_within(b"a refusal", 1.0)
        assert answer is None, "nobody is refused without a log either"
        assert not [path for _, path, _ in world.seen if path == "/unlogged"]
    finally:
        os.kill(ledger, signal.SIGCONT)
    end = crashing.await_entry("exited", entry.index, started=entry.index)
    assert "the intent could not be logged" in end.predicate["report"]
    # What was on its way arrives once the log is back; it is closed as not performed.
    intent = crashing.await_entry("action-intent", entry.index, agent="unlogged")
    outcome = crashing.await_entry("action-outcome", intent.index, intent=intent.index)
    assert outcome.predicate["status"] == "not-performed"
    assert not [path for _, path, _ in world.seen if path == "/unlogged"]
    assert crashing.log.with_state(lambda replay: dict(replay.books.open_intents)) == {}
    _goes_on(crashing, "unlogged")


def test_an_interrupt_ends_everything_with_exit_code_0(fresh: Callable[[], Stand]) -> None:
    stand = fresh()
    stand.start()
    stand.config = stand.approve_profile()
    entry = stand.started("running", IDLE)
    assert stand.up is not None
    below = [(pid, state[2]) for pid in descendants(stand.up.pid) if (state := process_state(pid)) is not None]
    assert any(pid == entry.predicate["pid"] for pid, _ in below)
    assert stand.stop(signal.SIGINT) == 0
    assert not [one for one in below if is_alive(*one)]
    stand.start()  # the exit was logged before the end; nothing is left to clean up
    end = stand.await_entry("exited", entry.index, started=entry.index)
    assert end.predicate["reason"] == "node-stopping"
    stand.config = next(iter(stand.log.with_state(lambda replay: list(replay.books.profiles))))  # type: ignore[assignment]
    _goes_on(stand, "running")

    # A second `up` fails loudly, and the first goes on.
    second = stand.command("up")
    assert second.returncode == 1
    assert "did not start" in second.stderr
    _goes_on(stand, "running")

    # An old database in place of the new one is refused.
    assert stand.stop() == 0
    files = stand.root / "ledger"
    old = stand.root / "old"
    shutil.copytree(files, old)
    stand.start()
    _goes_on(stand, "running")
    assert stand.stop() == 0
    shutil.copytree(files, stand.root / "new")
    for path in old.iterdir():
        if path.name.startswith("ledger.db"):
            _put(path.read_bytes(), files / path.name)
    for path in list(files.iterdir()):
        if path.name.startswith("ledger.db") and not (old / path.name).exists():
            path.unlink()
    refused = stand.command("up")
    assert refused.returncode == 1 and "ledger did not start" in refused.stderr
    assert "rollback" in (stand.root / "logs" / "ledger.log").read_text()
    for path in (stand.root / "new").iterdir():  # the positive control: with the right one it starts
        if path.name.startswith("ledger.db"):
            _put(path.read_bytes(), files / path.name)
    stand.start()
    _goes_on(stand, "running")


def _put(data: bytes, path: os.PathLike[str]) -> None:
    """Other bytes in a file that keeps its owner."""
    with open(path, "r+b" if os.path.exists(path) else "wb") as file:
        file.write(data)
        file.truncate()


def test_a_killed_up_leaves_no_process_behind(fresh: Callable[[], Stand]) -> None:
    stand = fresh()
    stand.start()
    stand.config = stand.approve_profile()
    stand.started("running", IDLE)
    assert stand.up is not None
    below = [(pid, state[2]) for pid in descendants(stand.up.pid) if (state := process_state(pid)) is not None]
    assert len(below) > 6
    stand.stop(signal.SIGKILL)
    until("all are gone", lambda: not [one for one in below if is_alive(*one)], 30.0)
