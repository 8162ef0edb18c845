"""Native agents, for real: each runtime holds them, the monitor sees them, limits end them, and nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from native import EACH, ROOT, RUNTIMES, agent, cgroup_folders, has, image, missing, profile
from stand import Stand, folder, is_alive, until

from ironbound.core.canonical import Digest, canonical, sha256_hex
from ironbound.evidence.export import export
from ironbound.terminal import operators
from ironbound.verifier.verify import Report, verify_bundle

SHELL = ("sh", "cat", "sleep", "dd")


def with_programs(source: Path) -> Path:
    """A folder with a shell and a few programs of the machine's own, and the libraries that they need."""
    for name in SHELL:
        program = Path(shutil.which(name) or "").resolve()
        listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
        libraries = [word for word in listed.split() if word.startswith("/")]
        for path, target in [(program, f"bin/{name}"), *((Path(one), one.lstrip("/")) for one in libraries)]:
            (source / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / target)
    return source


@pytest.fixture(scope="module")
def rootfs(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Digest:
    """An image with a shell."""
    return image(stand, with_programs(tmp_path_factory.mktemp("image") / "source"))


@pytest.fixture(scope="module", params=EACH)
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def shell(stand: Stand, rootfs: Digest, script: str) -> Digest:
    return agent(stand, rootfs, "/bin/sh", "-c", script)


def test_an_agent_is_seen_as_approved_runs_and_leaves_nothing(stand: Stand, rootfs: Digest, runtime: str) -> None:
    entry = stand.started(f"idle-{runtime}", shell(stand, rootfs, "echo ready >&2; read x"), profile(stand, runtime))
    said = entry.predicate
    assert said["runtime"] == runtime
    assert said["envelope"]["fds"]["3"] == said["config_sha256"] and said["envelope"]["rootfs_sha256"] == rootfs
    assert said["probes"] and {one["verdict"] for one in said["probes"]} == {"REFUSED"}
    rounds = len(stand.entries("heartbeat"))
    until("some looks have passed", lambda: len(stand.entries("heartbeat")) > rounds + 1)
    assert not stand.entries("drift", entry.index, started=entry.index)
    stand.stop_agent(f"idle-{runtime}")
    ended = stand.await_entry("exited", entry.index, started=entry.index).predicate
    assert (ended["reason"], ended["report"]) == ("stopped", "ready\n")
    assert not is_alive(said["pid"], said["pid_start"])
    assert not [one for one in cgroup_folders(stand) if one.name == str(said["launch"])]


def test_its_exit_status_and_its_last_words_are_in_the_log(stand: Stand, rootfs: Digest, runtime: str) -> None:
    script = "echo some words >&2; exit 7"
    entry = stand.started(f"exit-{runtime}", shell(stand, rootfs, script), profile(stand, runtime))
    ended = stand.await_entry("exited", entry.index, started=entry.index).predicate
    assert (ended["reason"], ended["text"], ended["report"]) == ("exit", "exit status 7", "some words\n")


def test_its_time_is_up_when_the_profile_says_so(stand: Stand, rootfs: Digest, runtime: str) -> None:
    config = profile(stand, runtime, "[agent.runtime]\nmax_wall_clock = 1\n")
    entry = stand.started(f"late-{runtime}", shell(stand, rootfs, "sleep 600 & sleep 600"), config)
    ended = stand.await_entry("exited", entry.index, started=entry.index).predicate
    assert ended["reason"] == "wall-clock"
    assert not is_alive(entry.predicate["pid"], entry.predicate["pid_start"])


def test_memory_beyond_the_profile_s_is_not_to_be_had(stand: Stand, rootfs: Digest, runtime: str) -> None:
    config = profile(stand, runtime, "[agent.runtime]\nmax_memory = 256\n")
    script = "dd if=/dev/zero of=/dev/null bs=400M count=1 && echo had it >&2"
    entry = stand.started(f"hungry-{runtime}", shell(stand, rootfs, script), config)
    ended = stand.await_entry("exited", entry.index, started=entry.index).predicate
    assert ended["reason"] in ("exit", "limit", "killed") and "had it" not in ended["report"]
    # The control: the same under the shipped profile, which allows it in one process; bubblewrap's share doesn't.
    wide = profile(stand, runtime, "[agent.runtime]\nmax_memory = 1024\nmax_processes = 2\n")
    entry = stand.started(f"fed-{runtime}", shell(stand, rootfs, script), wide)
    assert "had it" in stand.await_entry("exited", entry.index, started=entry.index).predicate["report"]


@pytest.mark.skipif(ROOT, reason="as root the host has cgroups")
@pytest.mark.parametrize("name", ["runc", "crun", "gvisor"])
def test_without_cgroups_a_profile_is_refused_and_the_setting_named(stand: Stand, rootfs: Digest, name: str) -> None:
    index = stand.launch(f"none-{name}", shell(stand, rootfs, "exit 0"), profile(stand, name))
    said = stand.await_entry("launch-refused", index, launch=index).predicate
    assert said["reason"] in ("setting-unenforced", "runtime-unavailable")
    assert "runtime.max_memory" in said["text"] or "no " in said["text"]


CHANGES: dict[str, Callable[[Path], None]] = {
    "content": lambda tree: (tree / "bin/sh").write_bytes(b"#!other"),
    "mode": lambda tree: (tree / "bin/cat").chmod(0o755),
    "added": lambda tree: (tree / "bin/added").write_bytes(b""),
    "removed": lambda tree: (tree / "bin/cat").unlink(),
    "guard": lambda tree: (tree / ".ironbound/guard").write_bytes(b"\x7fELF"),
}


needs_bubblewrap = pytest.mark.skipif(not has("bubblewrap"), reason=missing("bubblewrap"))
needs_some = pytest.mark.skipif(not RUNTIMES, reason=missing("bubblewrap"))


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A deployment whose images may be spoilt."""
    made = Stand(folder(tmp_path_factory.mktemp("spoilt"), "d"))
    made.start()
    yield made
    made.stop()


@needs_bubblewrap
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_changed_between_approval_and_launch_stops_the_launch(
    spoilt: Stand, tmp_path: Path, change: str
) -> None:
    source = with_programs(tmp_path / "source")
    (source / "name").write_text(change)
    rootfs = image(spoilt, source)
    module = shell(spoilt, rootfs, "exit 0")
    config = profile(spoilt, "bubblewrap")
    tree = spoilt.deployment.root / "images" / rootfs
    entry = spoilt.started(f"before-{change}", module, config)  # the legitimate step
    spoilt.await_entry("exited", entry.index, started=entry.index)
    for path in (tree, tree / "bin", tree / ".ironbound", tree / "bin/sh", tree / ".ironbound/guard"):
        path.chmod(0o755)
    CHANGES[change](tree)
    index = spoilt.launch(f"after-{change}", module, config)
    said = spoilt.await_entry("launch-refused", index, launch=index).predicate
    assert said["reason"] == "image-differs"
    assert not spoilt.entries("started", index, launch=index)


def test_an_image_that_nobody_loaded_can_t_be_approved(stand: Stand) -> None:
    with pytest.raises(operators.Refusal, match="image-unknown"):
        agent(stand, Digest(sha256_hex(b"nowhere")), "/bin/sh")


@needs_some
@pytest.mark.root
def test_a_node_that_died_leaves_no_container_behind(fresh: Callable[[], Stand], tmp_path: Path) -> None:
    stand = fresh()
    stand.start()
    rootfs = image(stand, with_programs(tmp_path / "source"))
    module = shell(stand, rootfs, "read x")
    entries = [stand.started(f"orphan-{name}", module, profile(stand, name)) for name in RUNTIMES]
    os.kill(stand.pid("node"), signal.SIGSTOP)  # so that it can't clean up
    stand.kill("node")
    for entry in entries:
        ended = stand.await_entry("exited", entry.index, started=entry.index).predicate
        assert ended["reason"] == "node-lost"
        until("it is dead", lambda entry=entry: not is_alive(entry.predicate["pid"], entry.predicate["pid_start"]))
    assert not cgroup_folders(stand)


def report_of(stand: Stand, path: Path) -> Report:
    export(stand.deployment, path, at_least=stand.sync())
    with open(path, "rb") as file:
        return verify_bundle(file, stand.deployment.trust.pin)


@needs_some
def test_the_evidence_of_every_runtime_holds_and_the_exact_call_is_recomputed(
    fresh: Callable[[], Stand], tmp_path: Path
) -> None:
    stand = fresh()  # what other tests leave open on purpose would be in the evidence
    stand.start()
    rootfs = image(stand, with_programs(tmp_path / "source"))
    for name in RUNTIMES:
        entry = stand.started(f"proof-{name}", shell(stand, rootfs, "exit 0"), profile(stand, name))
        stand.await_entry("exited", entry.index, started=entry.index)
    report = report_of(stand, tmp_path / "native.ironbound")
    claims = {claim.id: claim for claim in report.claims}
    for name in ("A1", "A2", "B1", "F1"):
        assert claims[name].status == "holds", claims[name]
    assert claims["A2"].counts["native agents, contained and not analysed"] >= 1
    assert {f"launches in {name}" for name in RUNTIMES} <= set(claims["B1"].counts)


@needs_bubblewrap
def test_a_container_s_call_is_canonical_and_names_what_it_hands_over(stand: Stand, rootfs: Digest) -> None:
    entry = stand.started("call", shell(stand, rootfs, "exit 0"), profile(stand, "bubblewrap"))
    said = entry.predicate["envelope"]
    assert json.loads(canonical(said)) == said
    assert said["argv"][-1] == "/.ironbound/guard" and set(said["fds"]) == {"3", "4", "5", "6"}
