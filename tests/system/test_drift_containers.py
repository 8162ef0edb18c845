"""Real injections into running containers: each is seen, named, and ended in time."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from idle_agent import SPIN, approve_profile, has, image, manifest, program
from injector import ALLOW_ALL
from stand import Stand, children, is_alive, process_state, running, until
from test_drift_and_voices import TRACER, first_line, helper, let_go
from test_drift_injections import PRELOADED, as_user, ended_in_time, halted, inject, now_ms, paths, raised, rounds_pass

from ironbound.core.canonical import Digest
from ironbound.core.held import read_held
from ironbound.core.replay import Entry

CGROUPS = Path("/sys/fs/cgroup")
UNIFIED = (CGROUPS / "cgroup.controllers").exists()

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Scene:
    """A deployment with an image and the profiles of the runtimes that are here."""

    stand: Stand
    rootfs: Digest
    profiles: dict[str, Digest]

    def started(self, agent: str, runtime: str, forks: int = 0) -> Entry:
        module = manifest(self.rootfs, forks)
        return self.stand.started(agent, module, self.profiles[runtime])

    def over(self, agent: str, entry: Entry) -> None:
        self.stand.stop_agent(agent)
        self.stand.await_entry("exited", entry.index, started=entry.index)

    def groups(self, entry: Entry, *trees: str) -> list[Path]:
        name = f"{self.stand.deployment.trust.control_group[1:]}/{entry.predicate['launch']}"
        return [CGROUPS / name] if UNIFIED else [CGROUPS / tree / name for tree in trees]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    base = tmp_path_factory.mktemp("containers")
    for stand in running(base):
        rootfs = image(stand, base / "source")
        binaries = {"bubblewrap": "bwrap", "runc": "runc", "crun": "crun", "gvisor": "runsc"}
        names = [name for name, binary in binaries.items() if has(binary)]
        yield Scene(stand, rootfs, {name: approve_profile(stand, name) for name in names})


def need(scene: Scene, runtime: str) -> None:
    if runtime not in scene.profiles:
        pytest.skip(f"{runtime} is not installed")


@pytest.mark.parametrize("runtime", ["bubblewrap", "runc", "crun", "gvisor"])
def test_a_container_with_children_of_its_own_is_left_alone(scene: Scene, runtime: str) -> None:
    need(scene, runtime)
    entry = scene.started(f"calm-{runtime}", runtime, forks=2)
    if runtime != "gvisor":  # whose children nobody outside can count
        until("it has its children", lambda: len(children(entry.predicate["pid"])) == 2)
    start = scene.stand.sync()
    rounds_pass()
    assert not scene.stand.entries("drift", start)
    assert is_alive(entry.predicate["pid"], entry.predicate["pid_start"]), scene.stand.entries("exited", start)
    scene.over(f"calm-{runtime}", entry)


def test_a_restarted_monitor_takes_a_running_container_for_what_it_is(scene: Scene) -> None:
    need(scene, "runc")
    entry = scene.started("outlived", "runc", forks=1)
    until("it has its child", lambda: len(children(entry.predicate["pid"])) == 1)
    start = scene.stand.sync()
    scene.stand.kill("monitor")
    seen = scene.stand.await_entry("observed", start, started=entry.index)
    assert not seen.predicate["differences"]
    rounds_pass()
    assert not scene.stand.entries("drift", start)
    scene.over("outlived", entry)


@pytest.mark.parametrize("runtime", ["bubblewrap", "runc", "crun"])
def test_an_extra_mount_in_a_container_is_drift(scene: Scene, runtime: str) -> None:
    need(scene, runtime)
    entry = scene.started(f"mounted-{runtime}", runtime)
    since = now_ms()
    code = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "user = os.open(f'/proc/{sys.argv[1]}/ns/user', 0); mounts = os.open(f'/proc/{sys.argv[1]}/ns/mnt', 0)\n"
        "if os.readlink(f'/proc/{sys.argv[1]}/ns/user') != os.readlink('/proc/self/ns/user'):\n"
        "    assert libc.setns(user, 0x10000000) == 0, os.strerror(ctypes.get_errno())\n"
        "assert libc.setns(mounts, 0x20000) == 0, os.strerror(ctypes.get_errno())\n"
        "assert libc.mount(b'none', b'/tmp', b'tmpfs', 6, None) == 0, os.strerror(ctypes.get_errno())\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code, str(entry.predicate["pid"])], capture_output=True, cwd="/")
    assert done.returncode == 0, done.stderr.decode()
    assert "mounts" in paths(ended_in_time(scene.stand, entry, since))


@pytest.mark.parametrize(
    ("tree", "name", "value", "path"),
    [
        ("memory", "memory.max" if UNIFIED else "memory.limit_in_bytes", str(2 << 30), "cgroup.memory"),
        ("pids", "pids.max", "1000", "cgroup.pids"),
        ("cpu", "cpu.max" if UNIFIED else "cpu.cfs_quota_us", "200000 100000" if UNIFIED else "200000", "cgroup.cpu"),
    ],
)
def test_a_raised_limit_of_the_control_group_is_drift(
    scene: Scene, tree: str, name: str, value: str, path: str
) -> None:
    need(scene, "runc")
    entry = scene.started(f"raised-{tree}", "runc")
    since = now_ms()
    group = scene.groups(entry, tree)[0]
    swap = group / "memory.memsw.limit_in_bytes"
    if tree == "memory" and swap.exists():  # which is never below the memory's
        swap.write_text(value)
    (group / name).write_text(value)
    assert paths(ended_in_time(scene.stand, entry, since)) == {path}


def test_a_process_moved_out_of_its_control_group_is_drift(scene: Scene) -> None:
    need(scene, "runc")
    entry = scene.started("moved", "runc")
    since = now_ms()
    (scene.groups(entry, "memory")[0].parents[1] / "cgroup.procs").write_text(str(entry.predicate["pid"]))
    assert any(one.startswith("cgroup") for one in paths(ended_in_time(scene.stand, entry, since)))


@pytest.mark.parametrize("runtime", ["runc", "crun", "gvisor"])
def test_a_stranger_put_into_a_sandbox_s_control_group_is_drift_and_is_ended(scene: Scene, runtime: str) -> None:
    need(scene, runtime)
    entry = scene.started(f"visited-{runtime}", runtime)
    start = scene.stand.sync()
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdin=subprocess.PIPE) as stranger:
        (scene.groups(entry, "pids")[0] / "cgroup.procs").write_text(str(stranger.pid))
        drift = scene.stand.await_entry("drift", start, kind="process-without-entry", pid=stranger.pid)
        assert stranger.wait(10) < 0
    assert scene.stand.await_entry("end-witnessed", drift.index, drift=drift.index).predicate["by"] == "monitor"
    assert [one.index for one in scene.stand.entries("drift", start)] == [drift.index]
    assert is_alive(entry.predicate["pid"], entry.predicate["pid_start"])
    scene.over(f"visited-{runtime}", entry)


def test_capabilities_gained_in_a_container_are_drift(scene: Scene) -> None:
    need(scene, "runc")
    entry = scene.started("capable", "runc")
    since = now_ms()
    with halted(scene.stand.pid("monitor")):
        assert inject(entry.predicate["pid"], 272, 0x10000000) == 0  # unshare(CLONE_NEWUSER): all capabilities in it
    found = paths(ended_in_time(scene.stand, entry, since))
    assert {"caps.eff", "namespaces.user"} <= found


def test_more_processes_than_approved_are_drift(scene: Scene) -> None:
    need(scene, "bubblewrap")
    scene.profiles["few"] = approve_profile(
        scene.stand, "bubblewrap", 'profile = "few"\n[agent.runtime]\nmax_processes = 4\n'
    )
    entry = scene.started("many", "few", forks=2)
    since = now_ms()
    with halted(scene.stand.pid("monitor")):
        # The kernel counts a user's processes only for those without power: as root's they are not in the way.
        for _ in range(3):
            inject(entry.predicate["pid"], 57)
    alive = 1 + len(children(entry.predicate["pid"]))
    if alive <= 4:
        scene.over("many", entry)  # the limit held: that wall stands, and there is nothing to see
        return
    assert "processes.count" in paths(ended_in_time(scene.stand, entry, since))


def test_an_agent_with_as_many_processes_as_approved_that_asks_for_more_is_left_alone(scene: Scene) -> None:
    need(scene, "runc")
    scene.profiles["full"] = approve_profile(
        scene.stand, "runc", 'profile = "full"\n[agent.runtime]\nmax_processes = 4\n'
    )
    entry = scene.started("full", "full", forks=9)
    until("it has all that it may have", lambda: len(children(entry.predicate["pid"])) == 3)
    start = scene.stand.sync()
    rounds_pass()
    assert not scene.stand.entries("drift", start)
    assert is_alive(entry.predicate["pid"], entry.predicate["pid_start"])
    scene.over("full", entry)


# What is done to a child of the sandbox's first process


def child_of(entry: Entry) -> int:
    (child,) = until("it has its child", lambda: children(entry.predicate["pid"]) or None)
    return child


def odd(drift: Entry, child: int) -> str:
    """What the drift says of the child among the processes that differ."""
    (found,) = (one["got"] for one in drift.predicate["differences"] if one["path"] == "processes.uniform")
    (said,) = (one for one in found if one.startswith(f"{child}: "))
    return str(said)


@pytest.mark.parametrize("runtime", ["bubblewrap", "runc", "crun"])
def test_a_debugger_on_a_child_is_drift(scene: Scene, runtime: str) -> None:
    need(scene, runtime)
    entry = scene.started(f"traced-{runtime}", runtime, forks=1)
    child = child_of(entry)
    since = now_ms()
    tracer = helper(TRACER, str(child))
    try:
        assert first_line(tracer) == b"attached\n"
        drift = scene.stand.await_entry("drift", entry.index, started=entry.index)
        assert [(one["path"], one["got"]) for one in drift.predicate["differences"]] == [("tracer", tracer.pid)]
        # The kernel lists the first process until the debugger lets its child go; neither executes anything any more.
        end = scene.stand.await_entry("end-witnessed", drift.index, drift=drift.index)
        took_ms = drift.predicate["detected_ms"] + end.predicate["took_ms"] - since
        assert took_ms < scene.stand.deployment.trust.drift_stop_ms
        until("the child is over", lambda: (process_state(child) or "Z")[0] == "Z")
    finally:
        let_go(tracer)
    scene.stand.await_entry("exited", entry.index, started=entry.index)


def test_capabilities_that_a_child_gained_are_drift(scene: Scene) -> None:
    need(scene, "runc")
    entry = scene.started("capable-child", "runc", forks=1)
    child, since = child_of(entry), now_ms()
    with halted(scene.stand.pid("monitor")):
        assert inject(child, 272, 0x10000000) == 0  # unshare(CLONE_NEWUSER)
    found = odd(ended_in_time(scene.stand, entry, since), child)
    assert "CapEff" in found and "namespaces" in found


@pytest.mark.parametrize("runtime", ["bubblewrap", "runc", "crun"])
def test_a_page_of_a_child_both_writable_and_executable_is_drift(scene: Scene, runtime: str) -> None:
    need(scene, runtime)
    entry = scene.started(f"written-{runtime}", runtime, forks=1)
    child, since = child_of(entry), now_ms()
    with halted(scene.stand.pid("monitor")):
        assert inject(child, 9, 0, 4096, 7, 0x22, (1 << 64) - 1, 0) > 0  # mmap
    assert paths(ended_in_time(scene.stand, entry, since)) == {"writable_executable"}


def test_a_child_moved_out_of_the_control_group_is_drift(scene: Scene) -> None:
    need(scene, "runc")
    entry = scene.started("moved-child", "runc", forks=1)
    child, since = child_of(entry), now_ms()
    (scene.groups(entry, "memory")[0].parents[1] / "cgroup.procs").write_text(str(child))
    assert odd(ended_in_time(scene.stand, entry, since), child) == f"{child}: cgroup"


@pytest.mark.parametrize("who", ["first", "child"])
def test_a_limit_raised_from_outside_is_drift(scene: Scene, who: str) -> None:
    need(scene, "runc")
    entry = scene.started(f"raised-{who}", "runc", forks=1)
    child, since = child_of(entry), now_ms()
    if not raised(entry.predicate["pid"] if who == "first" else child, resource.RLIMIT_STACK):
        scene.over(f"raised-{who}", entry)
        return
    drift = ended_in_time(scene.stand, entry, since)
    if who == "first":
        assert "rlimits.stack" in paths(drift)
    else:
        assert odd(drift, child) == f"{child}: rlimits.stack"


def test_a_child_that_lowers_its_own_limit_is_left_alone(scene: Scene) -> None:
    need(scene, "runc")
    entry = scene.started("modest", "runc", forks=1)
    child, start = child_of(entry), scene.stand.sync()
    lower = "import resource, sys; resource.prlimit(int(sys.argv[1]), resource.RLIMIT_STACK, (4096, 4096))"
    as_user(entry.predicate["uid"], lower, str(child))
    rounds_pass()
    assert not scene.stand.entries("drift", start)
    scene.over("modest", entry)


def test_code_from_outside_the_image_is_drift(scene: Scene) -> None:
    """What a preloaded library leads to: a file mapped executable that the image does not hold."""
    need(scene, "runc")
    entry = scene.started("preloaded", "runc")
    pid, since = entry.predicate["pid"], now_ms()
    with halted(scene.stand.pid("monitor")):
        stack = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[25]) & ~7
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(stack - 4096)
            memory.write(b"library.so\0")
        library = inject(pid, 319, stack - 4096, 0)  # memfd_create
        assert library > 0
        assert inject(pid, 77, library, 4096) == 0  # ftruncate
        assert inject(pid, 9, 0, 4096, 5, 2, library, 0) > 0  # mmap
    assert "foreign" in paths(ended_in_time(scene.stand, entry, since))


@pytest.mark.parametrize("who", ["first", "child"])
@pytest.mark.parametrize("runtime", ["bubblewrap", "runc", "crun"])
def test_a_preloaded_library_in_the_environment_of_a_container_s_process_is_drift(
    scene: Scene, runtime: str, who: str, tmp_path: Path
) -> None:
    need(scene, runtime)
    entry = scene.started(f"loaded-{runtime}-{who}", runtime, forks=1)
    child = child_of(entry)
    since = now_ms()
    (tmp_path / "idle").write_bytes(program())
    with halted(scene.stand.pid("monitor")):
        assert inject(child if who == "child" else entry.predicate["pid"], str(tmp_path / "idle"), *PRELOADED) == 0
    assert paths(ended_in_time(scene.stand, entry, since)) == {"environment.LD_PRELOAD"}


@pytest.mark.parametrize("runtime", ["bubblewrap", "runc", "crun"])
def test_an_agent_that_starts_a_program_with_variables_of_its_own_is_left_alone(
    scene: Scene, runtime: str, tmp_path: Path
) -> None:
    need(scene, runtime)
    entry = scene.started(f"own-{runtime}", runtime, forks=1)
    child = child_of(entry)
    start = scene.stand.sync()
    (tmp_path / "idle").write_bytes(program())
    with halted(scene.stand.pid("monitor")):
        assert inject(child, str(tmp_path / "idle"), "PATH=/bin", "PRELOAD=/tmp/library.so") == 0
    rounds_pass()
    assert not scene.stand.entries("drift", start)
    scene.over(f"own-{runtime}", entry)


def test_a_gvisor_kernel_made_another_program_with_a_preloaded_library_is_drift_and_so_is_the_library(
    scene: Scene, tmp_path: Path
) -> None:
    need(scene, "gvisor")
    (tmp_path / "idle").write_bytes(program(SPIN))
    for number, variables in enumerate(((), PRELOADED)):
        entry = scene.started(f"kernel-{number}", "gvisor")
        since = now_ms()
        with halted(scene.stand.pid("monitor")):
            assert inject(entry.predicate["pid"], str(tmp_path / "idle"), *variables) == 0
        found = paths(ended_in_time(scene.stand, entry, since))
        assert "foreign" in found
        assert {one for one in found if one.startswith("environment")} == {
            f"environment.{one.partition('=')[0]}" for one in variables
        }


def test_the_filter_of_gvisors_own_kernel_is_read_is_the_same_in_the_next_life_and_one_more_is_drift(
    scene: Scene,
) -> None:
    need(scene, "gvisor")
    looks: list[Any] = []
    for agent in ("filtered", "again"):
        entry = scene.started(agent, "gvisor", forks=2)
        looks.append(read_held(entry.predicate["held"])["posture"])
        if agent == "filtered":
            rounds_pass()
            assert is_alive(entry.predicate["pid"], entry.predicate["pid_start"])
            scene.over(agent, entry)
    assert looks[0]["filters"] == looks[1]["filters"] and len(looks[0]["filters"]) == 1
    assert all(one["threads"]["uniform"] and one["threads"]["count"] > 1 for one in looks)
    since = now_ms()
    with halted(scene.stand.pid("monitor")):
        assert inject(entry.predicate["pid"], "filter") == 0
    found = {one["path"]: one for one in ended_in_time(scene.stand, entry, since).predicate["differences"]}
    assert found["filters"]["expected"] == looks[0]["filters"]
    assert found["filters"]["got"] == [*looks[0]["filters"], hashlib.sha256(ALLOW_ALL).hexdigest()]
    assert "threads.filters" in found  # the others have one less


@pytest.mark.parametrize("how", ["replaced", "added"])
def test_a_file_of_the_image_changed_on_disk_is_drift_for_whoever_runs_from_it(
    scene: Scene, how: str, tmp_path: Path
) -> None:
    need(scene, "runc")
    source = tmp_path / "source"
    rootfs = image(scene.stand, source, more=how)
    entry = scene.stand.started(f"changed-{how}", manifest(rootfs), scene.profiles["runc"])
    other = scene.started(f"unchanged-{how}", "runc")
    folder = scene.stand.root / "images" / rootfs
    since = now_ms()
    if how == "replaced":
        draft = folder / ".draft"
        draft.write_bytes((folder / "idle").read_bytes() + b"\0")
        draft.chmod(0o555)
        os.replace(draft, folder / "idle")
    else:
        (folder / "added").write_text("more")
    assert paths(ended_in_time(scene.stand, entry, since)) == {"files.image"}
    assert is_alive(other.predicate["pid"], other.predicate["pid_start"])
    scene.over(f"unchanged-{how}", other)


def test_an_entry_without_a_process_and_no_group_left_behind(scene: Scene) -> None:
    need(scene, "runc")
    entry = scene.started("vanished", "runc")
    with halted(scene.stand.pid("node")):
        os.kill(entry.predicate["pid"], 9)
        drift = scene.stand.await_entry("drift", entry.index, started=entry.index)
        assert drift.predicate["kind"] == "entry-without-process"
    scene.stand.await_entry("exited", entry.index, started=entry.index)
    assert not [one for one in scene.groups(entry, "pids", "memory", "cpu") if one.exists()]


def test_an_empty_group_that_nobody_removed_is_counted_in_the_heartbeat(scene: Scene) -> None:
    need(scene, "runc")
    calm = scene.stand.await_entry("heartbeat", scene.stand.sync())
    assert calm.predicate["leftovers"] == 0
    name = f"{scene.stand.deployment.trust.control_group[1:]}/999999"
    left = CGROUPS / name if UNIFIED else CGROUPS / "pids" / name
    left.mkdir(parents=True)
    try:
        scene.stand.await_entry("heartbeat", calm.index, leftovers=1)
    finally:
        left.rmdir()
