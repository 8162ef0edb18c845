"""Each field of a sample has its control: a real process in which just that is different."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import specimen as specimens
from specimen import ALLOW_ALL, STRANGE_FILE, expectation, file_digests, sample, specimen, tell_with

from ironbound.core.posture import Difference, compare_postures, unseen
from ironbound.core.seccomp import filter_digest, worker_filter
from ironbound.monitor.observe import OBSERVER_CAPABILITIES, Baseline, ProcessGone, observe, start_time
from ironbound.monitor.processes import read_process

ROOT = os.geteuid() == 0
VISIBLE = ROOT

TRACER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(ctypes.c_long(0x4206), ctypes.c_long(int(sys.argv[1])), None, None) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
print("attached", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def mappings() -> list[str]:
    with specimen("plain") as pid:
        return file_digests(pid)


def differences(mode: str, mappings: list[str]) -> dict[str, Difference]:
    with specimen(mode) as pid:
        observed = sample(pid)
    found = compare_postures(expectation(mappings, filters_visible=VISIBLE), observed)
    return {difference.path: difference for difference in found}


def test_a_locked_down_process_is_exactly_as_expected(mappings: list[str]) -> None:
    with specimen("plain") as pid:
        observed = sample(pid)
    assert compare_postures(expectation(mappings, filters_visible=VISIBLE), observed) == ()
    assert unseen(observed) == (() if VISIBLE else ("filters",))


@pytest.mark.parametrize(
    ("mode", "path", "got"),
    [
        ("descriptor-7", "fds.7", "/dev/null"),
        ("descriptor-0", "fds.0", "/dev/zero"),
        ("unsealed", "fds.3", "memfd:config"),
        ("mapping-wx", "writable_executable", 1),
        ("rlimit", "rlimits.nofile", [64, 64]),
        ("thread-more", "threads.count", 3),
        ("environment", "environment.LD_PRELOAD", hashlib.sha256(b"LD_PRELOAD=/nowhere/library.so").hexdigest()),
        ("module", "module_sha256", hashlib.sha256(specimens.MODULE + b"\0").hexdigest()),
        ("mapping", "mappings", [hashlib.sha256(STRANGE_FILE.read_bytes()).hexdigest()]),
    ],
)
def test_one_thing_that_differs_is_reported_at_its_path_alone(
    mode: str, path: str, got: Any, mappings: list[str]
) -> None:
    found = differences(mode, mappings)
    assert set(found) == {path}
    assert found[path].got == got
    assert found[path].kind == "differs"


@pytest.mark.root
@pytest.mark.parametrize(
    ("mode", "path", "got"),
    [
        ("group", "groups", [4242]),
        ("uid", "uid", [specimens.UID + 1] * 4),
        ("capability", "caps.prm", "0000000000000001"),
        ("namespace", "namespaces.uts", "private"),
    ],
)
def test_power_that_was_kept_is_reported_at_its_path_alone(mode: str, path: str, got: Any, mappings: list[str]) -> None:
    found = differences(mode, mappings)
    assert set(found) == {path}
    assert found[path].got == got


@pytest.mark.root
def test_a_bounding_set_that_was_left_is_reported(mappings: list[str]) -> None:
    assert set(differences("bounding", mappings)) == {"caps.bnd"}


def test_another_configuration_is_reported(mappings: list[str]) -> None:
    assert set(differences("config", mappings)) == {"config_sha256"}


def test_a_process_without_no_new_privs_and_filter_is_reported(mappings: list[str]) -> None:
    found = differences("bare", mappings)
    assert set(found) == {"no_new_privs", "seccomp", "filters"}
    assert found["filters"].got == []


def test_one_thread_outside_the_filter_is_reported_by_its_number(mappings: list[str]) -> None:
    found = differences("thread", mappings)
    assert set(found) == {"threads.uniform", "threads.differing"}
    (differing,) = found["threads.differing"].got  # type: ignore[misc]
    assert (differing["Seccomp"], differing["NoNewPrivs"]) == ("0", "0")  # type: ignore[call-overload,index]


def test_a_main_thread_that_ended_does_not_hide_the_rest(mappings: list[str]) -> None:
    with specimen("leader") as pid:
        deadline = time.monotonic() + 10
        while "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        observed = sample(pid)
    found = compare_postures(expectation(mappings, filters_visible=VISIBLE), observed)
    assert {item.path for item in found} == {"threads.uniform", "threads.differing"}


@pytest.mark.root
def test_the_digest_of_a_filter_is_that_of_the_bytes_installed(mappings: list[str]) -> None:
    found = differences("filter", mappings)
    assert set(found) == {"filters"}
    assert found["filters"].got == [hashlib.sha256(ALLOW_ALL).hexdigest(), filter_digest(worker_filter())]


@pytest.mark.root
def test_filters_that_were_not_asked_for_are_not_seen(mappings: list[str]) -> None:
    with specimen("plain") as pid:
        observed = sample(pid, filters=False)
    (found,) = compare_postures(expectation(mappings), observed)
    assert (found.path, found.kind) == ("filters", "not-seen")


@pytest.fixture
def traced() -> Iterator[tuple[int, int]]:
    with specimen("plain") as pid:
        arguments = [sys.executable, "-c", TRACER, str(pid)]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:
            assert tracer.stdout is not None
            assert tracer.stdout.readline() == b"attached\n"
            yield pid, tracer.pid
            tracer.kill()


def test_another_tracer_is_reported_and_hides_the_filters(traced: tuple[int, int], mappings: list[str]) -> None:
    pid, tracer = traced
    unasked = compare_postures(expectation(mappings, filters_visible=False), sample(pid, filters=False))
    assert unasked == (Difference("tracer", 0, tracer),)
    asked = compare_postures(expectation(mappings), sample(pid))
    assert {(item.path, item.kind) for item in asked} == {("filters", "not-seen"), ("tracer", "differs")}


def test_the_observer_never_reports_itself_and_leaves_the_process_running() -> None:
    with specimen("plain") as pid:
        start, baseline = start_time(pid), Baseline.of_self()
        samples = [observe(pid, start, baseline, filters=True) for _ in range(50)]
        assert all(one == samples[0] for one in samples)
        status = Path(f"/proc/{pid}/status").read_text()
        assert "TracerPid:\t0\n" in status
        assert "State:\tt" not in status and "State:\tT" not in status


def test_a_reused_number_gives_no_sample() -> None:
    with specimen("plain") as pid, pytest.raises(ProcessGone, match="expected the one started at"):
        observe(pid, start_time(pid) - 1, Baseline.of_self(), filters=True)


def test_a_process_that_ended_gives_no_sample() -> None:
    with specimen("plain") as pid:
        start = start_time(pid)
    with pytest.raises(ProcessGone):
        observe(pid, start, Baseline.of_self(), filters=True)


def test_a_zombie_gives_no_sample() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        start = start_time(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessGone):
            observe(process.pid, start, Baseline.of_self(), filters=False)
        assert read_process(process.pid) is None


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    digests = []
    baseline = Baseline.of_self()
    for tail in (b"", b"x"):
        program.unlink(missing_ok=True)
        program.write_bytes(Path("/bin/sleep").read_bytes() + tail)
        program.chmod(0o755)
        with subprocess.Popen([program, "60"]) as process:
            observed: Any = observe(process.pid, start_time(process.pid), baseline, filters=False)
            digests.append(observed["exe"])
            assert observed["exe"] == hashlib.sha256(program.read_bytes()).hexdigest()
            process.kill()
    assert digests[0] != digests[1]


@pytest.mark.root
def test_an_ordinary_user_sees_everything_but_the_filters() -> None:
    modes = ["plain", "descriptor-7", "mapping-wx", "mapping", "rlimit", "thread", "unsealed", "environment"]
    answer = subprocess.run(
        [sys.executable, specimens.__file__, *modes],
        user=65534, group=65534, extra_groups=[], stdout=subprocess.PIPE, check=True, timeout=120,
    )  # fmt: skip
    told = json.loads(answer.stdout)
    paths = {mode: [item["path"] for item in told[mode]["differences"]] for mode in modes}
    assert paths == {
        "plain": [],
        "descriptor-7": ["fds.7"],
        "mapping-wx": ["writable_executable"],
        "mapping": ["mappings"],
        "rlimit": ["rlimits.nofile"],
        "thread": ["threads.differing", "threads.uniform"],
        "unsealed": ["fds.3"],
        "environment": ["environment.LD_PRELOAD"],
    }
    assert all(told[mode]["unseen"] == ["filters"] for mode in modes)


@pytest.mark.root
def test_a_monitor_of_its_own_user_needs_each_of_its_capabilities() -> None:
    with specimen("plain") as pid:
        assert tell_with(OBSERVER_CAPABILITIES, pid) == []
        for capability in OBSERVER_CAPABILITIES:
            assert tell_with(OBSERVER_CAPABILITIES - {capability}, pid) != []
        without = tell_with(frozenset(), pid)
    assert {"filters", "fds", "exe", "environment", "mappings", "config_sha256", "module_sha256"} < set(without)
