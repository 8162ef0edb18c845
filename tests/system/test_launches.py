"""Launches from the signed request to the exit, and what must end them before the agent runs."""

from __future__ import annotations

import os

import pytest
from components import answers, component
from puppet import WAIT, puppet
from stand import ROOT, Stand, children, until

from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.held import read_held
from ironbound.terminal.operators import Refusal

IDLE = puppet(WAIT)


def _ended(stand: Stand, started: int) -> str:
    return str(stand.await_entry("exited", started, started=started).predicate["reason"])


def test_an_agent_runs_is_observed_and_stops_when_one_operator_says_so(stand: Stand) -> None:
    entry = stand.started("idle", IDLE)
    assert entry.predicate["pid"] in stand.workers()
    stand.stop_agent("idle")
    assert _ended(stand, entry.index) == "stopped"
    assert entry.predicate["pid"] not in stand.workers()


def test_a_stopped_agent_can_be_launched_anew_and_a_running_one_not_twice(stand: Stand) -> None:
    first = stand.started("again", IDLE)
    before, workers = stand.snapshot(), stand.workers()
    with pytest.raises(Refusal) as refusal:
        stand.launch("again", IDLE)
    assert refusal.value.reason == "agent-already-running"
    assert (stand.snapshot(), stand.workers()) == (before, workers)
    stand.stop_agent("again")
    assert _ended(stand, first.index) == "stopped"
    second = stand.started("again", IDLE)
    assert second.predicate["pid"] != first.predicate["pid"]
    stand.stop_agent("again")
    assert _ended(stand, second.index) == "stopped"


def test_a_stop_that_is_in_the_log_before_the_monitor_s_look_wins_and_the_agent_never_runs(stand: Stand) -> None:
    module = stand.approve_module(IDLE)
    launch = stand.launch("hasty", module)
    stopped = stand.stop_agent("hasty")
    end = until(
        "the launch is over",
        lambda: next((one for one in stand.entries(None, launch) if one.kind in ("exited", "launch-refused")), None),
        8.0,
    )
    assert end.predicate["reason"] in ("launch-stopped", "stopped")
    starts = [one.index for one in stand.entries("started", launch, launch=launch) if one.void is None]
    assert end.kind == "launch-refused" or starts and starts[0] < stopped  # on a busy machine the stop may come late
    assert not stand.workers()


def test_a_component_goes_the_whole_road_from_approval_to_its_report(stand: Stand) -> None:
    done = component(answers(2, "(i32.const 32)", "(i32.const 9)"), code='(data (i32.const 32) "all of it")')
    roomy = stand.approve_profile('profile = "roomy"\n[agent.runtime]\nmax_instances = 8\n')
    launch = stand.launch("whole", done, roomy)
    end = stand.await_entry("exited", launch, launch=launch)
    assert (end.predicate["reason"], end.predicate["report"]) == ("finished", "all of it"), end.predicate
    seen = read_held(stand.await_entry("started", launch, launch=launch).predicate["held"])
    assert seen["differences"] == [] and seen["posture"]["module_sha256"] == sha256_hex(done)


def test_a_module_that_nobody_approved_is_not_launched(stand: Stand) -> None:
    before, start = stand.snapshot(), stand.sync()
    with pytest.raises(Refusal) as refusal:
        stand.launch("stranger", Digest("ab" * 32))
    assert refusal.value.reason == "module-not-approved"
    assert stand.snapshot() == before
    assert stand.entries("refused", start, reason="module-not-approved")


def test_a_module_over_the_profile_s_limit_is_refused_by_the_sandbox(stand: Stand) -> None:
    small = stand.approve_profile('profile = "small"\n[agent.runtime]\nmax_module_size = 100\n')
    launch = stand.launch("large", IDLE, small)
    refused = stand.await_entry("launch-refused", launch, launch=launch)
    assert refused.predicate["stage"] == "module"
    assert "100" in refused.predicate["text"]
    assert not stand.entries("started", launch, launch=launch) and not stand.workers()


def test_a_launch_whose_module_is_gone_from_the_store_is_refused(stand: Stand) -> None:
    lost = puppet(WAIT, WAIT)
    digest = stand.approve_module(lost)
    path = stand.root / "artifacts" / "controller" / "sha256" / digest
    kept = path.read_bytes()
    os.unlink(path)
    launch = stand.launch("lost", digest)
    refused = stand.await_entry("launch-refused", launch, launch=launch)
    assert (refused.predicate["stage"], refused.predicate["reason"]) == ("artifacts", "artifact-missing")
    path.write_bytes(kept[:-1] + b"\x00")  # other bytes under that name are as good as none
    path.chmod(0o644)
    launch = stand.launch("lost", digest)
    refused = stand.await_entry("launch-refused", launch, launch=launch)
    assert refused.predicate["reason"] == "artifact-missing"
    path.write_bytes(kept)
    entry = stand.started("lost", digest)  # the positive control: with its bytes it runs
    stand.stop_agent("lost")
    assert _ended(stand, entry.index) == "stopped"
    assert sha256_hex(kept) == digest


def test_fifty_launches_leave_no_descriptor_and_no_zombie_behind(stand: Stand) -> None:
    module = stand.approve_module(puppet())  # ends at its first answer

    def once(number: int) -> None:
        launch = stand.launch(f"brief-{number % 4}", module)
        end = stand.await_entry("exited", launch, launch=launch)
        assert end.predicate["reason"] == "finished", end.predicate

    def open_descriptors() -> dict[str, int]:
        pids = {role: stand.pid(role) for role in ("node", "gateway", "controller", "monitor", "ledger")}
        return {role: len(os.listdir(f"/proc/{pid}/fd")) for role, pid in pids.items()} | {
            "zygote": len(os.listdir(f"/proc/{stand.zygote()}/fd"))
        }

    def nobody_but_who_stands_by() -> bool:
        return len(children(stand.zygote(), zombies=True)) == (1 if ROOT else 0)

    for number in range(5):
        once(number)
    until("the next one stands by", nobody_but_who_stands_by)
    before, start = open_descriptors(), stand.sync()
    roles = ("node", "gateway", "monitor", "controller")
    there = {role: set(children(stand.pid(role), zombies=True)) for role in roles}
    for number in range(50):
        once(number)
    assert not stand.entries("drift", start)
    until(
        "no descriptor more than before",
        lambda: all(after <= before[role] + 1 for role, after in open_descriptors().items()),
        10.0,
    )
    until("nobody is left but who stands by", nobody_but_who_stands_by)
    for role in roles:
        assert set(children(stand.pid(role), zombies=True)) <= there[role], role
