"""Real injections into running Wasm sandboxes: each is seen, named, and ended in time, whoever is in the way."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from idle_agent import SPIN, program
from puppet import WAIT, puppet
from stand import COMMAND, ROOT, Stand, children, folder, is_alive, running, until
from test_drift_and_voices import STRAY, TRACER, first_line, helper, let_go, put

from ironbound.core.envelope import sign_envelope
from ironbound.core.replay import Entry
from ironbound.core.statement import Subject, encode_statement
from ironbound.wire.frames import read_frame, write_frame

IDLE = puppet(WAIT)
HERE = Path(__file__).resolve().parent
SPECIMEN = HERE.parent / "monitor" / "specimen.py"
#: Rounds of the monitor, all of which have passed after this many seconds.
ROUNDS_S = 3.0
#: The environment of whoever is made to load a library of somebody's.
PRELOADED = ("LD_PRELOAD=/tmp/library.so",)


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A deployment whose sandboxes and services are tampered with; each test leaves it running."""
    yield from running(tmp_path_factory.mktemp("drifting"))


def traces(pid: int) -> bool:
    """Whether some process has this one as its tracer."""
    mine = f"TracerPid:\t{pid}\n"
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            if mine in status.read_text():
                return True
    return False


@contextmanager
def halted(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile, though it lives; not halted while it reads another one's filters."""
    for _ in range(200):
        os.kill(pid, signal.SIGSTOP)
        if not traces(pid):
            break
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def as_user(uid: int, code: str, *words: str) -> None:
    """Run code as that user, where we are root; else as ourselves."""
    become = f"import os\nif os.getuid() == 0: os.setgid({uid}); os.setuid({uid})\n"
    subprocess.run([sys.executable, "-I", "-c", become + code, *words], check=True, cwd="/", timeout=60)


def inject(pid: int, *what: int | str) -> int:
    """Make a process do a call, or become a program (see injector.py)."""
    words = [sys.executable, "-I", str(HERE / "injector.py"), *map(str, (pid, *what))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def paths(drift: Entry) -> set[str]:
    return {one["path"] for one in drift.predicate["differences"]}


def ended_in_time(stand: Stand, entry: Entry, since_ms: int) -> Entry:
    """The drift of a launch, whose stop was ordered and whose process ended within the trust root's bound."""
    drift = stand.await_entry("drift", entry.index, started=entry.index)
    order = stand.await_entry("stop-order", drift.index, drift=drift.index)
    assert order.predicate["launch"] == entry.predicate["launch"]
    until("it is dead", lambda: not is_alive(entry.predicate["pid"], entry.predicate["pid_start"]))
    end = stand.await_entry("end-witnessed", drift.index, drift=drift.index)
    assert drift.predicate["detected_ms"] + end.predicate["took_ms"] - since_ms < stand.deployment.trust.drift_stop_ms
    return drift


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def rounds_pass() -> None:
    end = time.monotonic() + ROUNDS_S
    until("rounds have passed", lambda: time.monotonic() > end)


# What is done to a sandbox


def test_nothing_is_found_in_many_rounds_where_nothing_was_injected(drifting: Stand) -> None:
    entry = drifting.started("untouched", IDLE)
    start = drifting.sync()
    rounds_pass()
    assert not drifting.entries("drift", start) and not drifting.entries("stop-order", start)
    assert is_alive(entry.predicate["pid"], entry.predicate["pid_start"])
    beat = drifting.await_entry("heartbeat", start, agents=1)  # not the one that was due when it started
    assert beat.predicate["samples"] > 1 and beat.predicate["findings"] == 0
    drifting.stop_agent("untouched")
    drifting.await_entry("exited", entry.index, started=entry.index)


def test_a_limit_changed_from_outside_is_drift(drifting: Stand) -> None:
    entry = drifting.started("limited", IDLE)
    since = now_ms()
    code = "import resource, sys\nresource.prlimit(int(sys.argv[1]), resource.RLIMIT_STACK, (1 << 20, 1 << 20))\n"
    as_user(entry.predicate["uid"], code, str(entry.predicate["pid"]))
    assert paths(ended_in_time(drifting, entry, since)) == {"rlimits.stack"}


def raised(pid: int, limit: int) -> bool:
    """Set a limit of another process to 1 GiB, soft and hard. False where the kernel lets even this root raise none: it
    lacks CAP_SYS_RESOURCE, and the wall stands."""
    before = Path(f"/proc/{pid}/limits").read_text()
    try:
        resource.prlimit(pid, limit, (1 << 30, 1 << 30))
    except PermissionError:
        assert Path(f"/proc/{pid}/limits").read_text() == before
        return False
    return True


@pytest.mark.root
def test_a_limit_raised_from_outside_is_drift(drifting: Stand) -> None:
    entry = drifting.started("raised", IDLE)
    since = now_ms()
    if raised(entry.predicate["pid"], resource.RLIMIT_STACK):
        assert paths(ended_in_time(drifting, entry, since)) == {"rlimits.stack"}
    else:
        drifting.stop_agent("raised")
        drifting.await_entry("exited", entry.index, started=entry.index)


@pytest.mark.root
def test_a_descriptor_slipped_into_a_sandbox_is_drift(drifting: Stand) -> None:
    entry = drifting.started("inherited", IDLE)
    since = now_ms()
    with halted(drifting.pid("monitor")):  # so that the debugger is gone when it looks
        assert inject(entry.predicate["pid"], 33, 5, 0) == 0  # dup2
    assert paths(ended_in_time(drifting, entry, since)) == {"fds.0"}


@pytest.mark.root
def test_who_stands_by_for_a_launch_is_let_be_until_it_holds_something_else(drifting: Stand) -> None:
    zygote = drifting.zygote()
    pid = until("one stands by", lambda: next((one for one in children(zygote) if one not in drifting.workers()), None))
    start = drifting.sync()
    rounds_pass()
    assert not drifting.entries("drift", start)
    with halted(drifting.pid("monitor")):
        assert inject(pid, 291, 0) > 2  # epoll_create1
    drift = drifting.await_entry("drift", start, kind="process-without-entry", pid=pid)
    drifting.await_entry("stop-order", drift.index, pid=pid, launch=None)
    until("it is dead", lambda: pid not in children(zygote))
    entry = drifting.started("after-it", IDLE)
    drifting.stop_agent("after-it")
    drifting.await_entry("exited", entry.index, started=entry.index)


@pytest.mark.root
@pytest.mark.parametrize(("variables", "seen"), [((), set()), (PRELOADED, {"environment.LD_PRELOAD"})])
def test_a_worker_made_another_program_with_a_preloaded_library_is_drift_and_so_is_the_library(
    drifting: Stand, variables: tuple[str, ...], seen: set[str], tmp_path: Path
) -> None:
    entry = drifting.started("preloaded", IDLE)
    since = now_ms()
    (tmp_path / "idle").write_bytes(program(SPIN))
    with halted(drifting.pid("monitor")):
        assert inject(entry.predicate["pid"], str(tmp_path / "idle"), *variables) == 0
    found = paths(ended_in_time(drifting, entry, since))
    assert "exe" in found and {one for one in found if one.startswith("environment")} == seen


@pytest.mark.root
def test_a_page_both_writable_and_executable_is_drift(drifting: Stand) -> None:
    entry = drifting.started("writable", IDLE)
    since = now_ms()
    with halted(drifting.pid("monitor")):
        assert inject(entry.predicate["pid"], 9, 0, 4096, 7, 0x22, (1 << 64) - 1, 0) > 0  # mmap
    assert "writable_executable" in paths(ended_in_time(drifting, entry, since))


@pytest.mark.root
def test_a_stranger_who_joins_a_sandbox_s_namespace_is_drift_and_is_ended(drifting: Stand) -> None:
    entry = drifting.started("joined", IDLE)
    start = drifting.sync()
    code = (
        "import ctypes, os, sys\n"
        "if len(sys.argv) > 1 and ctypes.CDLL(None).setns(os.open(f'/proc/{sys.argv[1]}/ns/net', 0), 0x40000000):\n"
        "    sys.exit('refused')\n"
        "print('here', flush=True); sys.stdin.read()\n"
    )
    outside, inside = helper(code), helper(code, str(entry.predicate["pid"]))
    try:
        assert first_line(outside) == first_line(inside) == b"here\n"
        drift = drifting.await_entry("drift", start, kind="process-without-entry", pid=inside.pid)
        drifting.await_entry("stop-order", drift.index, pid=inside.pid, launch=None)
        assert inside.wait(10) == -signal.SIGKILL
        assert drifting.await_entry("end-witnessed", drift.index, drift=drift.index).predicate["by"] == "monitor"
        assert outside.poll() is None  # the same process that joined nothing is nobody's business
    finally:
        let_go(inside)
        let_go(outside)
    drifting.stop_agent("joined")
    drifting.await_entry("exited", entry.index, started=entry.index)


class Apart(Stand):
    """A deployment whose services see a copy of the Wasm runtime's folder in its place, for the test to change."""

    def start(self) -> None:
        place = Path(wasmtime.__file__).parent
        self.copy = self.root.parent / "runtime"
        shutil.copytree(place, self.copy)
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        words = ["unshare", "--mount", "sh", "-c", script, "sh", str(self.copy), str(place)]
        with open(self.root / "up.log", "ab") as output:
            self.up = subprocess.Popen([*words, *COMMAND, "up", "-d", str(self.root)], stderr=output, stdout=output)
        until("every service is ready", lambda: self._is_up(0))


@pytest.mark.root
@pytest.mark.parametrize("how", ["written", "replaced"])
def test_a_runtime_changed_on_disk_after_it_was_measured_is_drift_and_starts_nothing_more(
    tmp_path: Path, how: str
) -> None:
    stand = Apart(folder(tmp_path, "d"))
    try:
        stand.start()
        stand.config = stand.approve_profile()
        entry = stand.started("before", IDLE)
        start = stand.sync()
        rounds_pass()
        assert not stand.entries("drift", start)
        (library,) = stand.copy.rglob("_libwasmtime.so")
        since = now_ms()
        if how == "written":
            with open(library, "ab") as file:
                file.write(b"\0")
        else:
            shutil.copy(library, library.with_suffix(".draft"))
            with open(library.with_suffix(".draft"), "ab") as file:
                file.write(b"\0")
            os.replace(library.with_suffix(".draft"), library)
        found = paths(ended_in_time(stand, entry, since))
        assert any(path.endswith("_libwasmtime.so") for path in found) or "mappings" in found
        launch = stand.launch("after", IDLE)
        refused = stand.await_entry("launch-refused", launch, launch=launch).predicate
        assert (refused["stage"], refused["reason"]) == ("look", "observed-differs")
        assert "_libwasmtime.so" in refused["text"] or "mappings" in refused["text"]
        drift = stand.await_entry("drift", launch, started=None)
        assert drift.predicate["kind"] == "posture-differs" and drift.predicate["differences"]
        stand.await_entry("end-witnessed", drift.index, drift=drift.index)
        assert not stand.entries("started", launch, launch=launch)  # it never ran
    finally:
        stand.stop()


# A node that names something else as its sandbox


def _claims(stand: Stand, agent: str, launch: int, like: Entry, pid: int, uid: int) -> Entry:
    """As the node, which is halted: this process is the agent of a launch that waits. The drift that the monitor says
    at its look; and a start that is said all the same has no effect."""
    start = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    head = ("id", "at_ms", "deployment", "held", "quote")
    account = {name: value for name, value in like.predicate.items() if name not in head}
    posture = like.predicate["posture"] | {"uid": [uid] * 4, "gid": [uid] * 4}
    account |= {"launch": launch, "agent": agent, "pid": pid, "pid_start": start, "uid": uid, "posture": posture}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(30.0)
        link.connect(stand.deployment.socket("monitor"))
        write_frame(link, {"op": "look", "said": account})
        answer = read_frame(link)
    assert answer is not None and answer["ok"] is True, answer
    said = account | {"id": os.urandom(16).hex(), "deployment": stand.deployment.trust.deployment, "at_ms": now_ms()}
    said |= {"held": answer["held"], "quote": None}
    payload = encode_statement("started", (Subject("module", stand.latest(agent).module),), said)
    told = put(stand, "node", sign_envelope(payload, [stand.deployment.key("node")]).encode())
    assert told["ok"] is True, told
    assert stand.await_entry("started", int(str(told["index"])), launch=launch).void == "seen-differs"
    return stand.await_entry("drift", launch, started=None, pid=pid, pid_start=start)


@contextmanager
def specimen(mode: str, uid: int) -> Iterator[int]:
    """A process as bare as a worker but for one thing, which waits (see tests/monitor/specimen.py)."""
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:3]; import specimen\n"
        "with specimen.specimen(sys.argv[3]) as pid: print(pid, flush=True); sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", code, str(SPECIMEN.parent), str(HERE.parent), mode]
    environment = {**os.environ, "SPECIMEN_UID": str(uid)}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield int(first_line(process))
        finally:
            process.kill()


@pytest.mark.root
@pytest.mark.parametrize(
    ("mode", "path"),
    [
        ("plain", None),
        ("capability", "caps.prm"),
        ("thread", "threads.uniform"),
        ("descriptor-7", "fds.7"),
        ("bare", "seccomp"),
        ("uid", "uid"),
        ("environment", "environment.LD_PRELOAD"),
        ("rlimit", "rlimits.nofile"),  # more than a worker may have
    ],
)
def test_a_node_that_passes_off_another_process_is_seen_and_the_process_ended_without_the_node(
    drifting: Stand, mode: str, path: str | None
) -> None:
    uids = drifting.deployment.sandbox_uids
    assert uids is not None
    like = drifting.started("model", IDLE)
    with halted(drifting.pid("node")):
        launch = drifting.launch(f"double-{mode}", IDLE)  # a launch on its way may have a process
        with specimen(mode, uids[700]) as pid:
            since = now_ms()
            drift = _claims(drifting, f"double-{mode}", launch, like, pid, uids[700])
            found = paths(drift)
            assert drifting.await_entry("stop-order", drift.index, drift=drift.index).predicate["launch"] == launch
            until("it is dead", lambda: not is_alive(pid, drift.predicate["pid_start"]))
            end = drifting.await_entry("end-witnessed", drift.index, drift=drift.index)
            assert end.predicate["by"] == "monitor"
            took = drift.predicate["detected_ms"] + end.predicate["took_ms"] - since
            assert took < drifting.deployment.trust.drift_stop_ms
    bare = {"caps.prm", "threads.uniform", "fds.7", "seccomp", "uid", "rlimits.nofile", "environment.LD_PRELOAD"}
    assert found & bare == ({path} if path is not None and mode != "bare" else found & bare if path else set())
    assert path is None or path in found
    drifting.stop_agent("model")
    drifting.await_entry("exited", like.index, started=like.index)


@pytest.mark.root
def test_a_node_that_names_a_process_of_somebody_else_gets_nobody_killed(drifting: Stand) -> None:
    uids = drifting.deployment.sandbox_uids
    assert uids is not None
    like = drifting.started("model", IDLE)
    other = helper(STRAY.format(uids.stop + 5))
    try:
        assert first_line(other) == b"here\n"
        with halted(drifting.pid("node")):
            launch = drifting.launch("foreign", IDLE)
            drift = _claims(drifting, "foreign", launch, like, other.pid, uids[701])
            drifting.await_entry("stop-order", drift.index, drift=drift.index)
            rounds_pass()
            assert other.poll() is None
    finally:
        let_go(other)
    drifting.stop_agent("model")
    drifting.await_entry("exited", like.index, started=like.index)


# Who is in the way


def attach(entry: Entry) -> subprocess.Popen[bytes]:
    tracer = helper(TRACER, str(entry.predicate["pid"]))
    if first_line(tracer) != b"attached\n":
        assert not ROOT
        pytest.fail("the kernel let nobody attach: there is nothing to see")
    return tracer


@pytest.mark.parametrize("roles", [("node",), ("controller", "gateway"), ("node", "controller", "gateway")])
def test_the_monitor_ends_a_drifted_sandbox_while_the_others_are_halted(
    drifting: Stand, roles: tuple[str, ...]
) -> None:
    entry = drifting.started("halted", IDLE)
    pids = [drifting.pid(role) for role in roles]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    since = now_ms()
    tracer = attach(entry)
    try:
        drift = ended_in_time(drifting, entry, since)
        end = drifting.await_entry("end-witnessed", drift.index, drift=drift.index)
        # The gateway alone ends an agent too: it closes the pipe.
        assert len(roles) < 3 or end.predicate["by"] == "monitor"
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        let_go(tracer)
    assert drifting.await_entry("exited", entry.index, started=entry.index).predicate["reason"] == "stop-order"


def test_the_monitor_ends_a_drifted_sandbox_while_the_controller_is_being_killed(drifting: Stand) -> None:
    entry = drifting.started("orphaned", IDLE)
    since = now_ms()
    ready = drifting.said_ready("controller")
    os.kill(drifting.pid("controller"), signal.SIGKILL)
    tracer = attach(entry)
    try:
        ended_in_time(drifting, entry, since)
    finally:
        let_go(tracer)
    drifting.await_entry("exited", entry.index, started=entry.index)
    until("the controller is back", lambda: drifting.said_ready("controller") > ready)


def test_a_sandbox_is_ended_while_the_log_is_away_and_the_stop_is_said_when_it_is_back(drifting: Stand) -> None:
    entry = drifting.started("unheard", IDLE)
    pid, pid_start = entry.predicate["pid"], entry.predicate["pid_start"]
    with halted(drifting.pid("ledger")):
        tracer = attach(entry)
        try:
            until("it is dead though nothing could be said", lambda: not is_alive(pid, pid_start), 10)
        finally:
            let_go(tracer)
    drift = drifting.await_entry("drift", entry.index, started=entry.index)
    drifting.await_entry("stop-order", drift.index, drift=drift.index)
    end = drifting.await_entry("end-witnessed", drift.index, drift=drift.index)
    assert end.predicate["by"] == "monitor"
    drifting.await_entry("exited", entry.index, started=entry.index)


def test_an_entry_whose_process_is_gone_while_the_node_says_nothing_is_drift(drifting: Stand) -> None:
    entry = drifting.started("vanished", IDLE)
    with halted(drifting.pid("node")):
        os.kill(entry.predicate["pid"], signal.SIGKILL)
        drift = drifting.await_entry("drift", entry.index, started=entry.index)
        assert drift.predicate["kind"] == "entry-without-process"
        drifting.await_entry("stop-order", drift.index, drift=drift.index)
    drifting.await_entry("exited", entry.index, started=entry.index)


def test_a_monitor_restarted_in_the_middle_of_a_drift_ends_it_and_orders_what_was_not_ordered(
    drifting: Stand,
) -> None:
    entry = drifting.started("interrupted", IDLE)
    pid, pid_start = entry.predicate["pid"], entry.predicate["pid_start"]
    with halted(drifting.pid("node")):  # who would obey the order
        monitor = drifting.pid("monitor")
        os.kill(monitor, signal.SIGSTOP)
        tracer = attach(entry)
        try:
            ready = drifting.said_ready("monitor")
            os.kill(monitor, signal.SIGKILL)  # with the event unread
            until("the monitor is back", lambda: drifting.said_ready("monitor") > ready)
            until("it is dead", lambda: not is_alive(pid, pid_start))
        finally:
            let_go(tracer)
    drift = drifting.await_entry("drift", entry.index, started=entry.index)
    drifting.await_entry("stop-order", drift.index, drift=drift.index)
    drifting.await_entry("exited", entry.index, started=entry.index)


def test_a_drift_whose_order_was_never_said_gets_it_from_the_next_monitor(drifting: Stand) -> None:
    entry = drifting.started("unordered", IDLE)
    said: dict[str, Any] = {
        "id": os.urandom(16).hex(),
        "deployment": drifting.deployment.trust.deployment,
        "at_ms": now_ms(),
        "kind": "posture-differs",
        "started": entry.index,
        "pid": entry.predicate["pid"],
        "pid_start": entry.predicate["pid_start"],
        "differences": [],
        "detected_ms": now_ms(),
    }
    trust = drifting.deployment.trust
    payload = encode_statement("drift", (Subject("trust-root", trust.digest),), said)
    answer = put(drifting, "monitor", sign_envelope(payload, [drifting.deployment.key("monitor")]).encode())
    assert answer["ok"] is True, answer
    drift = int(str(answer["index"]))
    drifting.kill("monitor")  # as if it had died right after its first word
    drifting.await_entry("stop-order", drift, drift=drift)
    end = drifting.await_entry("exited", entry.index, started=entry.index)
    assert end.predicate["reason"] == "stop-order"


def test_heartbeats_follow_each_other_and_begin_anew_with_the_monitor(drifting: Stand) -> None:
    start = drifting.sync()
    drifting.kill("monitor")
    first = drifting.await_entry("heartbeat", start, sequence=1)
    said = drifting.entries("service-started", start, role="monitor")[-1].predicate["host"]
    assert first.predicate["mode"] == ("events" if said["process_events"] else "sampled")
    assert said["process_events"] or not ROOT
