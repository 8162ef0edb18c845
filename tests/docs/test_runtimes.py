"""docs/runtimes.md can't say more than there is: each name in its data is held against the code that it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import doc_tables
import pytest

from ironbound.canary.probes import CONTROL, UNCONTROLLED, UNTRIED, biting, load_probes, probes_for
from ironbound.core import enclosure
from ironbound.core.cage import INSIDE, expected_cage
from ironbound.core.canary import applies
from ironbound.core.canonical import Digest, canonical, parse_canonical, sha256_hex
from ironbound.core.enforcement import ABOUT, ALWAYS, REFUSALS, Wall, code, kernel, matches, served, walls
from ironbound.core.microvm import MIN_MEMORY
from ironbound.core.native import Manifest
from ironbound.core.posture import NAMESPACES
from ironbound.core.profile import (
    LIMITS,
    MEMORY_SHARE,
    MICROVM,
    NATIVE,
    RUNTIMES,
    WASM,
    Layer,
    ProfileRefused,
    keys_of,
    merge,
)
from ironbound.evidence.oscal import controls as oscal
from ironbound.node.microvm import firecracker, qemu
from ironbound.node.native.container import Container
from ironbound.node.sandbox import probe

ROOT = Path(__file__).resolve().parents[2]
PROFILES = ROOT / "src" / "ironbound" / "data" / "profiles"
ATTEMPTS = ROOT / "src" / "ironbound" / "node" / "native" / "guard" / "attempts.h"
MODULE = Manifest(Digest(sha256_hex(b"tree")), ("/agent",)).encode()
EVERY = [(runtime, wall) for runtime in RUNTIMES for wall in walls(runtime)]
A = "a" * 64


def layer(text: str) -> Layer:
    return Layer("site", text.encode())


def configuration(runtime: str, *more: Layer) -> Any:
    names = ["strict"] if runtime == "wasmtime" else ["native", runtime]
    layers = [Layer(name, (PROFILES / f"{name}.toml").read_bytes()) for name in names]
    return parse_canonical(merge([*layers, *more]).encoded, limit=32_768)


def postures(runtime: str, *more: Layer) -> list[Any]:
    """What is expected of a runtime's sandbox where the node is root, and for QEMU where it is not."""
    config = configuration(runtime, *more)
    facts: dict[str, Any] = {
        "uid": 71001, "gid": 71001, "module_sha256": A, "config_sha256": sha256_hex(canonical(config)),
        "filters_visible": True,
    }  # fmt: skip
    if RUNTIMES[runtime] == WASM:
        facts |= {"exe": A, "mappings": [A], "namespaces": dict.fromkeys(NAMESPACES, "private")}
        return [expected_cage(config, facts)]
    group = "" if runtime == "bubblewrap" else "/ironbound-x/7"
    facts |= {"runtime_sha256": A, "cgroup": group}
    if RUNTIMES[runtime] == NATIVE:
        return [expected_cage(config, facts | {"guard": A, "rootfs_sha256": A, "masks": [], "variables": []})]
    if runtime == "firecracker":
        return [expected_cage(config, facts)]
    facts |= {"accelerator": "kvm", "libraries": [A], "system": ["usr"], "initrd": A, "kernel": A, "firmware": A}
    ordinary = {"separated": False, "cgroup": ""}
    return [expected_cage(config, facts | {"separated": True}), expected_cage(config, facts | ordinary)]


def at(posture: Any, path: str) -> Any:
    for name in path.split("."):
        posture = posture.get(name) if isinstance(posture, dict) else None
    return posture


def inside_probes(runtime: str) -> set[str]:
    """The attempts that a runtime's own first process makes, from the code that makes them."""
    if RUNTIMES[runtime] == WASM:
        return {one.name for one in (*probe.probes_before_filter(99), *probe.probes_behind_filter())}
    found = set(re.findall(r'^    \{"([a-z0-9-]+)",', ATTEMPTS.read_text("utf-8"), re.MULTILINE))
    assert len(found) > 30
    return {one for one in found if not one.startswith("landlock-")} if runtime == "gvisor" else found


def own_canaries(runtime: str) -> set[str]:
    return {
        one.name for family in ("wasm", "native") for one in load_probes(family) if applies(family, RUNTIMES[runtime])
    }


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_setting_of_every_runtime_has_a_row_and_so_has_what_is_always_on(runtime: str) -> None:
    assert [one.name for one in walls(runtime)] == [*keys_of(runtime), *ALWAYS]
    assert ABOUT[runtime] and INSIDE[runtime] and runtime in REFUSALS


def test_no_runtime_is_described_that_there_is_not() -> None:
    assert set(ABOUT) == set(REFUSALS) == set(INSIDE) == set(RUNTIMES)
    with pytest.raises(KeyError):
        walls("podman")


def unseen(runtime: str, rows: Sequence[Wall]) -> list[tuple[str, str]]:
    """What rows say of the posture that isn't so: expected of no sandbox of the runtime, or for no look to find."""
    expected = postures(runtime)
    inside = enclosure._INSIDE if RUNTIMES[runtime] == MICROVM else ()
    return [
        (row.name, path)
        for row in rows
        for path in row.seen
        if path in inside or not any(at(one, path) is not None for one in expected)
    ]


#: Where the scratch area is empty and read-only, whatever its size.
NOTHING_WRITABLE = {("bubblewrap", "mounts"), ("gvisor", "mounts")}


def unmoved(runtime: str, rows: Sequence[Wall]) -> list[tuple[str, str]]:
    """What rows say of the posture that would be the same with another value of the setting."""
    found = []
    before = postures(runtime)
    for row in rows:
        table, _, name = row.name.partition(".")
        if row.name not in LIMITS:
            continue
        now = configuration(runtime)[table][name]
        other = now // 2 if row.name.startswith(("scratch.", "runtime.max_p")) else 2 * now
        after = postures(runtime, layer(f"[agent.{table}]\n{name} = {other}"))
        for path in row.seen:
            if (runtime, path) in NOTHING_WRITABLE:
                continue
            pairs = [(at(one, path), at(two, path)) for one, two in zip(before, after, strict=True)]
            if all(one == two for one, two in pairs) and all(one != A for one, _ in pairs):
                found.append((row.name, path))
    return found


def unknown(patterns: Sequence[str], have: set[str]) -> list[str]:
    """Names that mean nothing that there is, and what there is that no name means."""
    nothing = [pattern for pattern in patterns if not any(matches(pattern, one) for one in have)]
    return [*nothing, *(one for one in have if not any(matches(pattern, one) for pattern in patterns))]


def probes_of(rows: Sequence[Wall]) -> list[str]:
    return [pattern for row in rows for pattern in row.inside]


def canaries_of(rows: Sequence[Wall]) -> list[str]:
    return [pattern for row in rows for pattern in row.canaries]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_the_monitor_is_said_to_see_is_expected_of_that_very_runtime(runtime: str) -> None:
    assert unseen(runtime, walls(runtime)) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_the_monitor_is_said_to_see_of_a_setting_changes_with_it(runtime: str) -> None:
    assert unmoved(runtime, walls(runtime)) == []


WRONG: dict[str, Callable[[str, Sequence[Wall]], object]] = {
    "seen": unseen,
    "inside": lambda runtime, rows: unknown(probes_of(rows), inside_probes(runtime)),
    "canaries": lambda runtime, rows: unknown(canaries_of(rows), own_canaries(runtime)),
}


@pytest.mark.parametrize("part", WRONG)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_row_that_names_what_there_is_not_is_found_in_each_place_and_in_every_runtime(
    runtime: str, part: str
) -> None:
    rows = walls(runtime)
    assert not WRONG[part](runtime, rows)
    for at_row, row in enumerate(rows):
        wrong = replace(row, **{part: (*getattr(row, part), "made-up")})
        assert WRONG[part](runtime, [*rows[:at_row], wrong, *rows[at_row + 1 :]]), row.name


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_row_that_names_another_settings_field_is_found(runtime: str) -> None:
    other = {WASM: "rlimits.nproc", NATIVE: "no_new_privs", MICROVM: "no_new_privs"}[RUNTIMES[runtime]]
    for row in walls(runtime):
        if row.name in LIMITS:
            wrong = replace(row, seen=(other,))
            assert unseen(runtime, [wrong]) == []  # it is seen, but of something else
            assert unmoved(runtime, [wrong]) == [(row.name, other)]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_row_less_for_a_probe_or_a_canary_is_found(runtime: str) -> None:
    rows = [replace(row, inside=(), canaries=()) for row in walls(runtime)]
    assert set(unknown(probes_of(rows), inside_probes(runtime))) == inside_probes(runtime)
    assert set(unknown(canaries_of(rows), own_canaries(runtime))) == own_canaries(runtime)


def test_a_field_that_a_posture_leaves_open_would_be_seen() -> None:
    (expected,) = postures("gvisor")
    assert at(expected, "rlimits.nofile") is None and at(expected, "rootfs_sha256") is None
    assert at(expected, "cgroup.memory") is not None and at(expected, "cgroup.swap") is None


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_probe_inside_exists_and_each_that_exists_stands_in_some_row(runtime: str) -> None:
    assert unknown(probes_of(walls(runtime)), inside_probes(runtime)) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_canary_is_of_the_right_family_and_each_shipped_one_stands_in_some_row(runtime: str) -> None:
    assert unknown(canaries_of(walls(runtime)), own_canaries(runtime)) == []


def test_what_is_said_of_positive_controls_is_said_of_shipped_probes_and_of_every_runtime() -> None:
    assert set(CONTROL) == set(UNCONTROLLED) == set(RUNTIMES)
    for runtime, without in UNCONTROLLED.items():
        assert set(without) <= {one.name for one in probes_for(runtime)}
        assert all(answer and reason for answer, reason in without.values())


def test_each_limit_is_tried_by_a_canary_in_every_runtime_or_it_is_said_why_not() -> None:
    untried = {wall.name for _, wall in EVERY if wall.name in LIMITS and not wall.canaries}
    assert untried == set(UNTRIED) and all(UNTRIED.values())


def test_each_native_probe_stands_once_in_the_table_of_the_walls_of_each_runtime() -> None:
    for runtime in ("runc", "gvisor"):
        rows = [line.split(" | ")[1] for line in doc_tables.made(f"walls-{runtime}").splitlines()[2:]]
        named = [one for row in rows for one in re.findall(r"`([a-z0-9-]+)`", row)]
        assert len(named) == len({*named}) and {*named} == own_canaries(runtime) - set(UNCONTROLLED[runtime])


@pytest.mark.parametrize(("runtime", "wall"), EVERY, ids=lambda one: getattr(one, "name", one))
def test_no_row_is_without_evidence(runtime: str, wall: Any) -> None:
    assert wall.enforcer
    assert wall.seen or wall.inside or wall.canaries or wall.otherwise
    assert bool(biting(wall, runtime)) is bool(wall.canaries)


@pytest.mark.parametrize(("runtime", "wall"), EVERY, ids=lambda one: getattr(one, "name", one))
def test_each_row_names_the_files_that_enforce_it(runtime: str, wall: Any) -> None:
    files = code(runtime, wall.name)
    assert files and [file for file in files if not (ROOT / "src" / "ironbound" / file).is_file()] == []


#: How the code that uses a feature of the kernel speaks of it.
FEATURES = {
    "capabilities(7)": "capabilit|capset", "cgroups(7)": "cgroup", "close_range(2)": "close_range|fds|descriptor",
    "execve(2)": "environ|variable", "landlock(7)": "landlock", "memfd_create(2)": "memfd|seal",
    "mount_namespaces(7)": "mount|ro-bind|namespace", "namespaces(7)": "namespace|unshare",
    "network_namespaces(7)": "newnet|namespace|unshare", "pid_namespaces(7)": "namespace|unshare",
    "pidfd_open(2)": "pidfd", "pivot_root(2)": "root", "prctl(2)": "no_new_privs", "prlimit(2)": "rlimit",
    "sched_setaffinity(2)": "affinity|taskset", "seccomp(2)": "seccomp", "setgroups(2)": "groups|gid|uid",
    "setresuid(2)": "uid", "setrlimit(2)": "rlimit", "tmpfs(5)": "tmpfs", "unix(7)": "gateway|channel",
}  # fmt: skip


def unused(features: str, files: Sequence[str]) -> list[str]:
    """What is said of the kernel that no page of its manual is about, or the code doesn't speak of."""
    held = "\n".join((ROOT / "src" / "ironbound" / file).read_text("utf-8") for file in files).lower()
    named = re.findall(r"[a-z_]+\(\d\)", features)
    return [one for one in named if one not in FEATURES or not re.search(FEATURES[one], held)]


@pytest.mark.parametrize(("runtime", "wall"), EVERY, ids=lambda one: getattr(one, "name", one))
def test_each_row_names_the_kernel_s_feature_behind_it_which_its_code_uses(runtime: str, wall: Any) -> None:
    said = kernel(runtime, wall.name)
    assert said and unused(said, code(runtime, wall.name)) == []
    assert re.search(r"\(\d\)", said) or "none" in said or "the machine's" in said or "gVisor" in said, said
    assert unused(said + ", io_uring(7)", code(runtime, wall.name)) == ["io_uring(7)"]


def test_a_feature_that_the_code_does_not_use_is_found() -> None:
    assert unused("landlock(7)", ("gateway/mcp.py",)) == ["landlock(7)"]
    assert unused("cgroups(7)", ("node/sandbox/memfd.py",)) == ["cgroups(7)"]
    with pytest.raises(KeyError):
        kernel("runc", "runtime.max_fuel")


@pytest.mark.parametrize(("runtime", "wall"), EVERY, ids=lambda one: getattr(one, "name", one))
def test_each_row_serves_a_control_and_where_no_canary_says_it_one_of_the_matrix(runtime: str, wall: Any) -> None:
    controls = {control for one in biting(wall, runtime) for control in one.controls} | {*served(wall)}
    assert controls and {*served(wall)} <= {one.name for one in oscal.controls().values()}, controls


def test_a_name_that_ends_in_a_star_means_a_whole_word() -> None:
    assert matches("call-*", "call-bpf") and not matches("call-*", "caller") and not matches("call", "call-bpf")


# What is refused


def refused(runtime: str, text: str) -> str:
    with pytest.raises(ProfileRefused) as found:
        configuration(runtime, layer(text))
    return found.value.key


def test_every_refusal_in_the_table_names_a_setting_of_the_runtime() -> None:
    assert all(key in keys_of(runtime) for runtime, rows in REFUSALS.items() for key, _ in rows)


def test_bubblewrap_refuses_what_the_table_says() -> None:
    assert refused("bubblewrap", "[agent.runtime]\nmax_cpu = 150") == "runtime.max_cpu"
    little = f"[agent.runtime]\nmax_memory = {2 * MEMORY_SHARE - 1}\nmax_processes = 2"
    assert refused("bubblewrap", little) == "runtime.max_memory"
    assert {key for key, _ in REFUSALS["bubblewrap"]} == {"runtime.max_cpu", "runtime.max_memory"}


@pytest.mark.parametrize("runtime", ["runc", "crun", "gvisor"])
def test_an_ordinary_user_is_refused_the_runtimes_that_need_a_cgroup(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = object.__new__(Container)
    container.name = runtime
    monkeypatch.setattr("os.getuid", lambda: 1000)
    setting = container.unenforced(configuration(runtime))
    assert setting is not None
    assert [setting.partition(":")[0]] == [key for key, _ in REFUSALS[runtime]]


@pytest.mark.parametrize(("runtime", "kind"), [("qemu-microvm", qemu.Qemu), ("firecracker", firecracker.Firecracker)])
def test_a_machine_refuses_what_the_table_says(runtime: str, kind: type[Any]) -> None:
    machine = object.__new__(kind)
    small = configuration(runtime, layer(f"[agent.runtime]\nmax_memory = {MIN_MEMORY - 1}"))
    large = configuration(runtime, layer("[agent.runtime]\nmax_cpu = 6400"))
    found = [machine.unenforced(one).partition(":")[0] for one in (small, large)]
    assert found == [key for key, _ in REFUSALS[runtime]]


# The document


def test_a_hand_in_the_table_is_seen() -> None:
    page = (ROOT / "docs" / "runtimes.md").read_text("utf-8")
    assert doc_tables.refreshed(page) == page
    assert doc_tables.refreshed(page.replace("`cgroup.memory`", "`cgroup.all`")) == page
    assert page.replace("`cgroup.memory`", "`cgroup.all`") != page


def test_every_runtime_has_a_chapter_with_its_table() -> None:
    page = (ROOT / "docs" / "runtimes.md").read_text("utf-8")
    for runtime in RUNTIMES:
        chapter = page.partition(f"\n## {runtime}\n")[2].partition("\n## ")[0]
        assert f"<!-- table enforcement-{runtime} -->" in chapter and "**Trusted:**" in chapter
