"""What lives is held against the entries: real processes, control groups and namespaces that no entry accounts for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import specimen as specimens
from specimen import specimen

from ironbound.monitor.cages import zygote_of
from ironbound.monitor.container import CGROUPS
from ironbound.monitor.hosts import workers_of
from ironbound.monitor.observe import start_time
from ironbound.monitor.reconcile import Family, Reconciler

PARENT = (
    "import subprocess, sys; words = [sys.executable, '-c', 'import sys; sys.stdin.read()']\n"
    "child = subprocess.Popen(words); print(child.pid, flush=True); child.wait()"
)


def reconciler(uids: range | None = None, *, events: bool = False) -> Reconciler:
    return Reconciler(uids, f"/test-{os.getpid()}", events=events)


def found(one: Reconciler, *families: Family, coming: frozenset[int] = frozenset()) -> set[int]:
    return {process.pid for process in one.sweep(families, coming, whole=True)}


@contextmanager
def family(launch: int = 7, *, native: bool = True, nested: bool = False) -> Iterator[tuple[Family, int]]:
    """A process with a child, as a sandbox with an entry; and the child's number."""
    words = [sys.executable, "-c", PARENT]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            child = int(first.stdout.readline())
            yield Family(first.pid, start_time(first.pid), launch, native, nested), child
        finally:
            first.communicate()


def test_what_descends_from_the_zygote_without_an_entry_is_a_stray() -> None:
    one = reconciler()
    one.zygote = os.getpid(), start_time(os.getpid())
    with specimen("plain") as pid:
        start = start_time(pid)
        assert pid in found(one)
        assert pid not in found(one, Family(pid, start, 7, False, False))


def test_a_node_that_says_nonsense_of_its_host_has_no_zygote_and_workers_that_no_manifest_has() -> None:
    for said in ({}, *({"runtimes": one} for one in (None, [], {"wasmtime": 7}, {"wasmtime": {}}))):
        assert (zygote_of(said), workers_of(said)) == (None, ("not said",))
    for pid in ("7", True, 0, -1, None, {}):
        assert zygote_of({"runtimes": {"wasmtime": {"zygote_pid": pid, "zygote_start": 5}}}) is None
    measured = {"zygote_pid": 7, "zygote_start": 5, "exe": "e", "mappings": ["a", "b"]}
    whole = {"runtimes": {"wasmtime": measured}}
    assert (zygote_of(whole), workers_of(whole)) == ((7, 5), ("e", "a", "b"))


def test_a_number_that_was_reused_is_not_accounted_for() -> None:
    one = reconciler()
    one.zygote = os.getpid(), start_time(os.getpid())
    with specimen("plain") as pid:
        assert pid in found(one, Family(pid, start_time(pid) - 1, 7, False, False))


def test_a_zygote_that_has_ended_has_no_descendants() -> None:
    one = reconciler()
    one.zygote = os.getpid(), start_time(os.getpid()) - 1
    with specimen("plain") as pid:
        assert pid not in found(one)


@pytest.mark.root
def test_whoever_carries_a_sandbox_user_is_a_stray() -> None:
    with specimen("plain") as pid:
        assert pid in found(reconciler(range(specimens.UID, specimens.UID + 1)))
        assert pid not in found(reconciler(range(1, 2)))


def test_a_container_s_child_is_its_own_and_a_worker_s_is_a_stray() -> None:
    one = reconciler()
    with family(native=True) as (container, child):
        assert child not in found(one, container)
        assert one.members[child] == container.launch and one.beside[container.launch] == {child}
    with family(native=False) as (worker, child):
        assert child in found(one, worker)
        assert child not in one.members


ZYGOTE = """
import os, socket, sys, time
ours = []
for kind in sys.argv[1:]:
    mine, its = socket.socketpair()
    ours.append(mine)
    pid = os.fork()
    if pid == 0:
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(its.fileno(), 3)
        for number in range(3):
            os.dup2(null, number)
        os.closerange(4, 1024)
        if kind == "memory":
            os.memfd_create("ironbound-module")
        elif kind == "file":
            os.open("/etc/passwd", os.O_RDONLY)
        elif kind == "program":
            os.execv("/bin/sleep", ["/bin/sleep", "600"])
        socket.socket(fileno=3).recv(1)
        os._exit(0)
    print(pid, flush=True)
    time.sleep(0.05)  # another tick of the clock by which a start is told
sys.stdin.read()
"""


@contextmanager
def standing_by(*kinds: str) -> Iterator[tuple[Reconciler, list[int]]]:
    """A zygote's children, each of which stands by in its way; sandboxes have users of their own."""
    words = [sys.executable, "-c", ZYGOTE, *kinds]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as zygote:
        assert zygote.stdout is not None
        pids = [int(zygote.stdout.readline()) for _ in kinds]
        try:
            one = reconciler(range(1, 2))
            one.zygote = zygote.pid, start_time(zygote.pid)
            yield one, pids
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            zygote.communicate()


def _becomes(one: Reconciler, strays: set[int]) -> None:
    deadline = time.monotonic() + 10
    while found(one) != strays:
        assert time.monotonic() < deadline, found(one)
        time.sleep(0.01)


def test_one_child_of_the_zygote_that_holds_nothing_stands_by_and_a_second_is_a_stray() -> None:
    with standing_by("empty") as (one, _):
        _becomes(one, set())
    with standing_by("empty", "empty") as (one, (first, _)):
        _becomes(one, {first})


@pytest.mark.parametrize("kind", ["memory", "file", "program"])
def test_a_child_of_the_zygote_that_holds_a_file_or_runs_another_program_does_not_stand_by(kind: str) -> None:
    with standing_by(kind) as (one, (pid,)):
        _becomes(one, {pid})


@pytest.mark.root
def test_who_has_a_sandbox_s_user_does_not_stand_by() -> None:
    with standing_by("empty") as (one, (pid,)):
        _becomes(one, set())
        one._uids = range(1)
        assert pid in found(one)


@pytest.fixture
def group() -> Iterator[Path]:
    """A launch's control group, of a deployment named after this process."""
    top = (CGROUPS if (CGROUPS / "cgroup.controllers").exists() else CGROUPS / "pids") / f"test-{os.getpid()}"
    folder = top / "7"
    folder.mkdir(parents=True)
    yield folder
    folder.rmdir()
    top.rmdir()


@contextmanager
def visitor(group: Path) -> Iterator[int]:
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        try:
            (group / "cgroup.procs").write_text(str(process.pid))
            yield process.pid
        finally:
            process.kill()


@pytest.mark.root
def test_who_sits_in_a_launch_s_control_group_is_a_stray_but_while_it_is_being_built(group: Path) -> None:
    one = reconciler()
    with visitor(group) as pid:
        assert pid not in found(one, coming=frozenset({7}))
        assert pid in found(one, coming=frozenset({8}))
        with family() as (container, _):
            assert pid in found(one, container)


@pytest.mark.root
@pytest.mark.parametrize(
    ("which", "is_member"), [("server", True), ("younger", False), ("program", False), ("parent", False)]
)
def test_in_gvisor_s_control_group_only_its_own_file_server_is_no_stray(
    group: Path, which: str, is_member: bool
) -> None:
    one, wait = reconciler(), [sys.executable, "-c", "import sys; sys.stdin.read()"]

    def begin(words: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        running.append(process)
        return process

    running: list[subprocess.Popen[bytes]] = []
    try:
        if which == "parent":
            said = begin([sys.executable, "-c", PARENT]).stdout
            assert said is not None
            visitor = int(said.readline())
        elif which != "younger":
            visitor = begin(["/bin/sleep", "600"] if which == "program" else wait).pid
        kernel = begin(wait)
        if which == "younger":
            while True:
                visitor = begin(wait).pid
                if start_time(visitor) > start_time(kernel.pid):
                    break
        for pid in (visitor, kernel.pid):
            (group / "cgroup.procs").write_text(str(pid))
        known = Family(kernel.pid, start_time(kernel.pid), 7, True, True)
        assert (visitor not in found(one, known)) == (visitor in one.members) == is_member
        assert kernel.pid not in found(one, known)
    finally:
        for process in running:
            if which == "program":
                process.kill()
            process.communicate()


@pytest.mark.root
def test_a_control_group_of_no_launch_is_left_over(group: Path) -> None:
    one = reconciler()
    one.sweep((), set(), whole=True)
    assert one.leftovers({7}) == 0
    assert one.leftovers(set()) == 1


def elsewhere(pid: int) -> None:
    deadline = time.monotonic() + 10
    while os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.root
def test_who_joined_a_sandbox_s_own_namespace_is_a_stray() -> None:
    one = reconciler()
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as sandbox:
        try:
            elsewhere(sandbox.pid)
            one.namespaces[sandbox.pid] = frozenset({os.readlink(f"/proc/{sandbox.pid}/ns/net")})
            words = ["nsenter", "--net", "-t", str(sandbox.pid), "sleep", "600"]
            with subprocess.Popen(words) as stranger:
                try:
                    elsewhere(stranger.pid)
                    known = Family(sandbox.pid, start_time(sandbox.pid), 7, True, False)
                    assert stranger.pid in found(one, known)
                    assert one.joined == {stranger.pid}
                    sandbox.kill()
                    sandbox.wait()
                    assert stranger.pid in found(one), "it stays one when the sandbox is over"
                finally:
                    stranger.kill()
        finally:
            sandbox.kill()


@pytest.mark.root
def test_who_gets_the_number_of_a_namespace_whose_sandbox_is_over_joined_nobody() -> None:
    one = reconciler()
    with subprocess.Popen(["true"]) as sandbox:
        sandbox.wait()
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as later:
        try:
            elsewhere(later.pid)
            one.namespaces[sandbox.pid] = frozenset({os.readlink(f"/proc/{later.pid}/ns/net")})
            assert later.pid not in found(one) and not one.joined
        finally:
            later.kill()


def test_without_events_every_sweep_reads_everything_anew_and_with_events_what_was_told() -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        for events in (False, True):
            one = reconciler(events=events)
            one.sweep((), set(), whole=False)
            known = one._table[process.pid]
            one.sweep((), set(), whole=False)
            assert (one._table[process.pid] is known) == events
            one.forget((process.pid,))
            one.sweep((), set(), whole=False)
            assert one._table[process.pid] is not known
        process.communicate()
