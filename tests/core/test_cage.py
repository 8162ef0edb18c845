"""Containers from outside: each thing that is otherwise is a difference, and what was not seen is never equal."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from natives import MODULE, NATIVES, ROOTFS, configuration, digest

from ironbound.core.cage import CONTAINER_FIELDS, INSIDE, RUNNING_FREE, compare_cage, expected_cage
from ironbound.core.canonical import FormatError, canonical, sha256_hex
from ironbound.core.limits import native_rlimits
from ironbound.core.native import steers_loader
from ironbound.core.posture import NOT_SEEN
from ironbound.core.profile import RUNTIMES


def facts(runtime: str, **other: Any) -> dict[str, Any]:
    return {
        "uid": 71001, "gid": 71001, "module_sha256": sha256_hex(MODULE),
        "config_sha256": sha256_hex(canonical(configuration(runtime))), "filters_visible": True,
        "guard": digest("guard"), "runtime_sha256": digest("runtime"), "rootfs_sha256": ROOTFS,
        "cgroup": "" if runtime == "bubblewrap" else "/ironbound-site/7",
        "masks": ["/proc/keys", "/proc/sys"] if runtime in ("runc", "crun") else [],
        "variables": ["NAME=value"], **other,
    }  # fmt: skip


def expected(runtime: str, **other: Any) -> Any:
    return expected_cage(configuration(runtime), facts(runtime, **other))


def seen(runtime: str) -> Any:
    """The sample of a held container that is as it should be."""
    sample = copy.deepcopy(expected(runtime))
    sample["processes"] = {"count": 1, "uniform": True}
    sample["environment"] = {}
    sample["cpus"] = sample["cpus"] or 2
    return sample


def paths(runtime: str, sample: Any, *, running: bool = False) -> list[str]:
    return [one.path for one in compare_cage(expected(runtime), sample, running=running)]


@pytest.mark.parametrize("runtime", NATIVES)
def test_a_container_as_it_should_be_shows_no_difference(runtime: str) -> None:
    assert set(expected(runtime)) == set(CONTAINER_FIELDS)
    for running in (False, True):
        assert paths(runtime, seen(runtime), running=running) == []
        assert paths(runtime, expected(runtime), running=running) == []  # the node's own account


def otherwise(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, dict):
        return {**value, "another": 1}
    if isinstance(value, list):
        return [*value, "another"]
    return value + "x" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("runtime", NATIVES)
def test_each_field_otherwise_is_a_difference_and_each_null_is_not_seen(runtime: str) -> None:
    for field in CONTAINER_FIELDS[1:]:
        if expected(runtime)[field] is None or field == "processes":
            continue
        found = compare_cage(expected(runtime), {**seen(runtime), field: otherwise(seen(runtime)[field])})
        assert found and all(one.path.partition(".")[0] == field for one in found), field
        (one,) = compare_cage(expected(runtime), {**seen(runtime), field: None})
        assert (one.path, one.got) == (field, NOT_SEEN)
    for value in (None, 7):
        assert paths(runtime, {**seen(runtime), "processes": value}) == ["processes"]


@pytest.mark.parametrize("runtime", NATIVES)
def test_a_running_agent_may_change_what_is_its_own_and_nothing_else(runtime: str) -> None:
    for field in CONTAINER_FIELDS[1:]:
        wanted = expected(runtime)[field]
        if wanted is None or field == "processes":
            continue
        free = field in RUNNING_FREE
        gone = paths(runtime, {**seen(runtime), field: None}, running=True)
        other = paths(runtime, {**seen(runtime), field: otherwise(seen(runtime)[field])}, running=True)
        assert (gone == []) is free
        # A digest may be gone with its descriptor, but not be another one.
        assert (other == []) is (free and not field.endswith("sha256"))


@pytest.mark.parametrize("runtime", ["runc", "bubblewrap"])
def test_mounts_may_be_stricter_and_neither_looser_nor_more_nor_fewer(runtime: str) -> None:
    def with_mounts(mounts: list[str]) -> list[str]:
        return paths(runtime, {**seen(runtime), "mounts": mounts})

    mounts = seen(runtime)["mounts"]
    at = next(number for number, one in enumerate(mounts) if one.startswith("/proc "))
    assert with_mounts([*mounts[:at], mounts[at] + ",ro", *mounts[at + 1 :]]) == []
    assert with_mounts([*mounts[:at], "/proc proc nodev,noexec", *mounts[at + 1 :]]) == ["mounts"]
    assert with_mounts([*mounts[:at], "/proc", *mounts[at + 1 :]]) == ["mounts"]
    assert with_mounts(mounts[1:]) == with_mounts([*mounts, "/host ext4 ro"]) == ["mounts"]
    assert with_mounts([*mounts, mounts[at]]) == ["mounts"]  # one laid over another
    (one,) = compare_cage(expected(runtime), {**seen(runtime), "mounts": [*mounts, "/host ext4 ro"]})
    assert one.expected == [] and one.got == ["/host ext4 ro"]


def test_a_container_has_at_most_its_processes_and_all_of_them_alike() -> None:
    for count, wrong in ((1, False), (16, False), (17, True), (0, True), (True, True), (None, True)):
        sample = {**seen("runc"), "processes": {"count": count, "uniform": True}}
        assert paths("runc", sample) == (["processes.count"] if wrong else [])
    odd = {"count": 2, "uniform": False, "differing": ["9: CapEff"]}
    (one,) = compare_cage(expected("runc"), {**seen("runc"), "processes": odd}, running=True)
    assert (one.path, one.got) == ("processes.uniform", ["9: CapEff"])
    assert paths("runc", {**seen("runc"), "processes": {"count": 2}}) == ["processes.uniform"]


def test_bubblewrap_has_at_most_its_processors() -> None:
    for count, wrong in ((1, False), (2, False), (3, True), (0, True), (True, True)):
        assert paths("bubblewrap", {**seen("bubblewrap"), "cpus": count}) == (["cpus"] if wrong else [])


def test_what_is_expected_follows_from_the_configuration() -> None:
    for runtime in ("runc", "crun"):
        want = expected(runtime)
        assert want["cgroup"] == {"path": "/ironbound-site/7", "memory": 512 << 20, "cpu": [200_000, 100_000],
                                  "pids": 16}  # fmt: skip
        assert want["rlimits"] == {name: [one, one] for name, one in native_rlimits(configuration(runtime)).items()}
        assert any(one.startswith("/tmp tmpfs") and "nr_inodes=32" in one for one in want["mounts"])
    assert expected("bubblewrap")["rlimits"]["as"] == [(512 << 20) // 16] * 2
    assert expected("bubblewrap")["cgroup"] is None and expected("bubblewrap")["cpus"] == 2
    assert expected("bubblewrap", groups=[27, 4])["groups"] == [4, 27]
    assert expected("runc", filters_visible=False)["filters"] is None
    nested = expected("gvisor")
    assert [name for name in CONTAINER_FIELDS if nested[name] is None] == [
        "filters", "threads", "rlimits", "fds", "cpus", "rootfs_sha256",
    ]  # fmt: skip
    assert nested["exe"] == digest("runtime") and nested["cgroup"]["pids"] == 512
    assert set(INSIDE) == set(RUNTIMES)


def variable(entry: str) -> dict[str, str]:
    return {entry.partition("=")[0]: sha256_hex(entry.encode())}


def test_a_held_container_has_no_variable_but_the_runtime_s_own() -> None:
    for runtime, own in (("bubblewrap", "PWD=/"), ("runc", "HOME=/"), ("crun", "HOME=/")):
        for entry, differs in ((own, []), (own + "x", [own.partition("=")[0]]), ("NAME=value", ["NAME"])):
            sample = {**seen(runtime), "environment": variable(entry)}
            assert paths(runtime, sample) == [f"environment.{name}" for name in differs]
    for entry in ("PWD=/", "HOME=/", "NAME=value"):
        assert paths("gvisor", {**seen("gvisor"), "environment": variable(entry)}) != []


@pytest.mark.parametrize("runtime", ["bubblewrap", "runc", "crun"])
def test_a_running_agent_has_of_the_loader_s_variables_only_the_approved_ones(runtime: str) -> None:
    tuned = expected(runtime, variables=["GLIBC_TUNABLES=glibc.malloc.check=3", "NAME=value"])
    for entry, differs in (
        ("GLIBC_TUNABLES=glibc.malloc.check=3", False),
        ("GLIBC_TUNABLES=glibc.malloc.check=0", True),
        ("LD_PRELOAD=/evil.so", True),
    ):
        found = compare_cage(tuned, {**seen(runtime), "environment": variable(entry)}, running=True)
        name, digest = next(iter(variable(entry).items()))
        assert [(one.path, one.got) for one in found] == [(f"environment.{name}", digest)] * differs
    for nothing in (None, []):
        (one,) = compare_cage(tuned, {**seen(runtime), "environment": nothing}, running=True)
        assert (one.path, one.kind) == ("environment", "not-seen")


def test_what_steers_the_loader() -> None:
    for name in ("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "LD_", "GLIBC_TUNABLES", "GCONV_PATH"):
        assert steers_loader(name)
    for name in ("PATH", "HOME", "OLD_PRELOAD", "ld_preload", "PYTHONPATH"):
        assert not steers_loader(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"uid": -1}, {"gid": "0"}, {"uid": True}, {"guard": "x"}, {"runtime_sha256": None}, {"rootfs_sha256": "A" * 64},
        {"module_sha256": 1}, {"config_sha256": "a" * 64}, {"cgroup": ""}, {"cgroup": None}, {"cgroup": "/"},
        {"cgroup": "/a/../b"}, {"cgroup": "/a b/7"}, {"masks": None}, {"masks": ["/etc"]}, {"filters_visible": 1},
        {"variables": None}, {"variables": ["NAME"]}, {"variables": [1]},
        {"groups": None}, {"groups": [1, "a"]}, {"groups": [None]}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_facts_out_of_form_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        expected("runc", **wrong)


def test_what_is_no_configuration_and_no_facts_is_refused() -> None:
    less = {name: value for name, value in facts("runc").items() if name != "guard"}
    for given in (None, [], {}, less):
        with pytest.raises(FormatError):
            expected_cage(configuration("runc"), given)
    with pytest.raises(FormatError):
        expected_cage(None, facts("runc"))
    for runtime, wrong in (("bubblewrap", {"cgroup": "/a/7"}), ("gvisor", {"masks": ["/proc/keys"]})):
        with pytest.raises(FormatError):
            expected(runtime, **wrong)


def test_what_is_no_posture_is_refused() -> None:
    for sample in (None, {}, {**seen("runc"), "more": 1}, {**seen("runc"), "version": 1}):
        with pytest.raises(FormatError):
            compare_cage(expected("runc"), sample)
    with pytest.raises(FormatError):
        compare_cage(None, seen("runc"))
