"""Hypervisors from outside: each thing that could be otherwise is a difference, and the envelope is the one call."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ironbound.core.cage import compare_cage, expected_cage
from ironbound.core.canonical import Digest, FormatError, canonical, sha256_hex
from ironbound.core.enclosure import (
    ENCLOSURE_FIELDS,
    compare_enclosure,
    envelope,
    expected_enclosure,
    require_enclosure_envelope,
)
from ironbound.core.microvm import DESCRIPTORS, MODULES, QEMU
from ironbound.core.native import Manifest
from ironbound.core.posture import NOT_SEEN

CONFIG: dict[str, Any] = {
    "version": 1,
    "profile": "vm",
    "runtime": {"type": QEMU, "strict_security": True, "max_memory": 128, "max_cpu": 150, "max_processes": 8,
                "max_open_files": 64, "max_wall_clock": 60},
    "channel": {"max_message": 65536, "max_messages_per_second": 100},
    "scratch": {"max_bytes": 1 << 20, "max_files": 32},
}  # fmt: skip
MODULE = Manifest(Digest(sha256_hex(b"tree")), ("/agent",)).encode()


def digest(text: str) -> str:
    return sha256_hex(text.encode())


def facts(**other: Any) -> dict[str, Any]:
    return {
        "uid": 71001, "gid": 71001, "module_sha256": sha256_hex(MODULE), "config_sha256": sha256_hex(canonical(CONFIG)),
        "filters_visible": True, "runtime_sha256": digest("qemu"), "cgroup": "/ironbound-x/7", "accelerator": "kvm",
        "separated": True, "libraries": [digest("libc"), digest("libz")], "system": ["usr"],
        "initrd": digest("initrd"), "kernel": digest("kernel"), "firmware": digest("firmware"), **other,
    }  # fmt: skip


def seen(expected: Any) -> dict[str, Any]:
    """The sample of a machine that is as it should be."""
    sample: dict[str, Any] = copy.deepcopy(expected)
    sample.update(filters=None, config_sha256=None, module_sha256=None, threads={"count": 3, "uniform": True})
    sample["cpus"] = sample["cpus"] or 2
    sample["writable_executable"] = sample["writable_executable"] or 0
    return sample


@pytest.mark.parametrize(
    "own", [{}, {"accelerator": "tcg"}, {"cgroup": "", "separated": False, "groups": [5, 4], "system": ["lib", "usr"]}]
)
def test_a_machine_as_it_should_be_shows_no_difference(own: dict[str, Any]) -> None:
    expected = expected_cage(CONFIG, facts(**own))
    assert compare_cage(expected, seen(expected)) == compare_cage(expected, seen(expected), running=True) == ()
    assert compare_cage(expected, expected) == ()  # the node's own account


CHANGES: dict[str, Any] = {
    "uid": [0] * 4, "gid": [0] * 4, "groups": [27], "no_new_privs": 0, "seccomp": 0, "exe": digest("other"),
    "mappings": [digest("preloaded")], "writable_executable": 1, "tracer": 7, "processes.count": 2,
    "caps.eff": "0000000000000001", "namespaces.net": "shared", "rlimits.nproc": [99, 99], "fds.11": "socket",
    "fds.3": "memfd:settings", "files.initrd": digest("other"), "files.settings": digest("other"),
    "cgroup.memory": 1 << 40, "cgroup.path": "/", "threads.count": 500, "threads.uniform": False,
    "mounts": ["/ tmpfs nodev,nosuid,ro"],
}  # fmt: skip


@pytest.mark.parametrize("path", CHANGES)
def test_whatever_is_otherwise_is_a_difference_held_and_running(path: str) -> None:
    expected = expected_enclosure(CONFIG, facts())
    sample = seen(expected)
    name, _, below = path.partition(".")
    if below:
        sample[name][below] = CHANGES[path]
    else:
        sample[name] = CHANGES[path]
    for running in (False, True):
        assert [one.path for one in compare_cage(expected, sample, running=running)] == [path]


def test_a_processor_more_than_an_ordinary_users_machine_may_have_is_a_difference() -> None:
    expected = expected_enclosure(CONFIG, facts(cgroup="", separated=False))
    for count, wrong in ((1, False), (2, False), (3, True), (0, True), (None, True)):
        assert bool(compare_enclosure(expected, {**seen(expected), "cpus": count})) is wrong


def test_what_was_not_seen_is_never_equal() -> None:
    expected = expected_enclosure(CONFIG, facts())
    free = {"version", "filters", "cpus", "config_sha256", "module_sha256"}
    for name in set(ENCLOSURE_FIELDS) - free:
        found = compare_enclosure(expected, {**seen(expected), name: None})
        assert [(one.path, one.got) for one in found] == [(name, NOT_SEEN)]


def test_a_library_that_is_not_loaded_yet_is_no_difference_and_a_mount_twice_is_one() -> None:
    expected = expected_enclosure(CONFIG, facts())
    assert compare_enclosure(expected, {**seen(expected), "mappings": [digest("qemu")]}) == ()
    twice = [*seen(expected)["mounts"], "/ tmpfs nodev,nosuid,ro"]
    assert [one.path for one in compare_enclosure(expected, {**seen(expected), "mounts": twice})] == ["mounts"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"config_sha256": digest("other")}, {"kernel": "no digest"}, {"uid": -1}, {"gid": True}, {"libraries": []},
        {"libraries": ["x"]}, {"system": []}, {"system": ["usr", "etc"]}, {"cgroup": 1}, {"accelerator": "hax"},
        {"separated": 1}, {"groups": 5}, {"more": 1},
    ],
)  # fmt: skip
def test_facts_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        expected_enclosure(CONFIG, facts(**wrong))


def test_the_facts_of_one_hypervisor_give_no_posture_of_another() -> None:
    config = {**CONFIG, "runtime": {**CONFIG["runtime"], "type": "firecracker"}}
    with pytest.raises(FormatError, match="facts-invalid"):
        expected_cage(config, facts(config_sha256=sha256_hex(canonical(config))))


# ---- the envelope


def made(**other: Any) -> dict[str, Any]:
    found: dict[str, Any] = envelope(
        CONFIG,
        MODULE,
        None,
        accelerator="tcg",
        runtime_sha256=digest("qemu"),
        guard_sha256=digest("guard"),
        init_sha256=digest("init"),
        files={name: digest(name) for name in ("kernel", "initrd", "firmware")},
        modules={name: digest(name) for name in MODULES[QEMU]},
    )
    return {**found, **other}


def test_the_envelope_of_a_launch_is_derived_again_from_configuration_and_module() -> None:
    require_enclosure_envelope(made(), CONFIG, MODULE, None)
    nonce = "0123456789abcdef0123456789abcdef"
    with pytest.raises(FormatError, match="envelope-differs|not the call"):
        require_enclosure_envelope(made(), CONFIG, MODULE, nonce)


@pytest.mark.parametrize(
    "wrong",
    [
        {"argv": ["qemu-system-x86_64", "-nic", "user"]}, {"version": 2}, {"more": 1}, {"accelerator": "hax"},
        {"fds": {}}, {"fds": []}, {"modules": {"virtio": digest("virtio")}}, {"modules": []}, {"guard_sha256": "x"},
        {"rootfs_sha256": digest("other")}, {"inside": {"3": digest("other")}},
        {"fds": {**made()["fds"], str(DESCRIPTORS["settings"]): digest("other")}},
    ],
)  # fmt: skip
def test_an_envelope_of_another_call_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        require_enclosure_envelope(made(**wrong), CONFIG, MODULE, None)


@pytest.mark.parametrize(("value", "module"), [(None, MODULE), (made(), b"\0asm")])
def test_what_is_no_envelope_or_no_manifest_is_refused(value: Any, module: bytes) -> None:
    with pytest.raises(FormatError):
        require_enclosure_envelope(value, CONFIG, module, None)
