"""Firecracker's expected posture and envelope: derived again by anyone, and each deviation is a difference."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ironbound.core import firecracker, jailed
from ironbound.core.cage import compare_cage, expected_cage
from ironbound.core.canonical import Digest, FormatError, canonical, sha256_hex
from ironbound.core.firecracker import Jail
from ironbound.core.jailed import expected_jailed, jailed_envelope, require_jailed_envelope
from ironbound.core.microvm import FIRECRACKER, MODULES
from ironbound.core.native import Manifest

ROOTFS = Digest("1" * 64)
MODULE = Manifest(ROOTFS, ("/agent",)).encode()
JAIL = Jail("/usr/bin/jailer", "/usr/bin/firecracker", "/var/lib/site/jails", "7", 70001, 70001, "ironbound-x", True)
CONFIG: dict[str, Any] = {
    "version": 1,
    "profile": "fire",
    "runtime": {
        "type": "firecracker", "strict_security": True, "max_memory": 128, "max_cpu": 150, "max_processes": 8,
        "max_open_files": 64, "max_wall_clock": 60,
    },
    "channel": {"max_message": 65536, "max_messages_per_second": 100},
    "scratch": {"max_bytes": 1 << 20, "max_files": 32},
}  # fmt: skip
FACTS: dict[str, Any] = {
    "uid": 70001,
    "gid": 70001,
    "module_sha256": sha256_hex(MODULE),
    "config_sha256": sha256_hex(canonical(CONFIG)),
    "filters_visible": True,
    "groups": [],
    "runtime_sha256": "2" * 64,
    "cgroup": "/ironbound-x/7",
}


def sample() -> dict[str, Any]:
    """What an observer of a right one would see."""
    seen: dict[str, Any] = copy.deepcopy(expected_jailed(CONFIG, FACTS))  # type: ignore[assignment]
    seen["caps"]["bnd"] = "000001ffffffffff"
    seen["groups"], seen["fds"], seen["files"], seen["cpus"] = [], {"0": "/dev/null", "9": "socket"}, {}, 2
    seen["mounts"] = ["/ ext4:/var/lib/site/jails/firecracker/7/root -"]
    seen["threads"] = {"count": 4, "uniform": True}
    seen["config_sha256"] = seen["module_sha256"] = None
    return seen


def test_a_process_as_the_documents_have_it_is_no_difference_held_and_running() -> None:
    wanted = expected_cage(CONFIG, FACTS)
    assert wanted == expected_jailed(CONFIG, FACTS)
    assert compare_cage(wanted, sample()) == compare_cage(wanted, sample(), running=True) == ()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("uid", [0] * 4),
        ("caps", {**dict.fromkeys(("inh", "prm", "amb"), "0" * 16), "eff": "0000000000200000", "bnd": "0" * 16}),
        ("no_new_privs", 0),
        ("seccomp", 0),
        ("threads", {"count": 11, "uniform": True}),
        ("threads", {"count": 4, "uniform": False}),
        ("namespaces", {**dict.fromkeys(("net", "ipc", "uts", "pid", "mnt"), "private"), "user": "shared"}),
        ("exe", "3" * 64),
        ("mappings", ["2" * 64, "3" * 64]),
        ("writable_executable", 1),
        ("rlimits", {"fsize": [4096, 4096], "nofile": [64, 1 << 20]}),
        ("tracer", 9),
        ("cgroup", None),
        ("cgroup", {"path": "/ironbound-x/7", "memory": 1 << 40, "cpu": [150000, 100000], "pids": 10}),
        ("processes", {"count": 2}),
        ("config_sha256", "4" * 64),
    ],
)
def test_each_deviation_from_it_is_a_difference(path: str, value: Any) -> None:
    differences = compare_cage(expected_cage(CONFIG, FACTS), {**sample(), path: value})
    assert differences and {one.path.partition(".")[0] for one in differences} == {path}


@pytest.mark.parametrize(
    "wrong",
    [
        {"config_sha256": "0" * 64},
        {"runtime_sha256": "x"},
        {"cgroup": ""},
        {"uid": "70001"},
        {"groups": [4]},
        {"accelerator": "kvm"},
    ],
)
def test_facts_that_are_not_a_jails_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        expected_jailed(CONFIG, {**FACTS, **wrong})


def envelope(nonce: str | None = None) -> dict[str, Any]:
    return jailed_envelope(
        CONFIG,
        MODULE,
        nonce,
        unshare="/usr/bin/unshare",
        jail=JAIL,
        digests=dict.fromkeys(("runtime_sha256", "jailer_sha256", "guard_sha256", "init_sha256"), "5" * 64),
        files={firecracker.KERNEL: "6" * 64, firecracker.INITRD: "7" * 64},
        modules=dict.fromkeys(MODULES[FIRECRACKER], "8" * 64),
    )


def test_the_envelope_is_derived_again_from_configuration_module_and_the_jails_own_facts() -> None:
    require_jailed_envelope(envelope(), CONFIG, MODULE, None)
    require_jailed_envelope(envelope("a" * 32), CONFIG, MODULE, "a" * 32)
    assert envelope()["argv"][:6] == ["/usr/bin/unshare", "--net", "--ipc", "--uts", "--", "/usr/bin/jailer"]


@pytest.mark.parametrize(
    "change",
    [
        {"argv": None},
        {"argv": []},
        {"jail": {}},
        {"jail": {**jailed.jail_value(JAIL), "uid": True}},
        {"jail": {**jailed.jail_value(JAIL), "uid": 70002}},
        {"jail": {**jailed.jail_value(JAIL), "more": 1}},
        {"files": {}},
        {"files": {firecracker.KERNEL: "6" * 64, firecracker.INITRD: "no digest"}},
        {"modules": {}},
        {"modules": 1},
        {"requests": []},
        {"inside": {}},
        {"more": 1},
        {"runtime": "qemu-microvm"},
        {"rootfs_sha256": "9" * 64},
    ],
)
def test_an_envelope_that_is_changed_anywhere_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        require_jailed_envelope({**envelope(), **change}, CONFIG, MODULE, None)


def test_an_argument_more_or_another_nonce_is_refused() -> None:
    more = envelope()
    more["argv"].insert(-3, "--daemonize")
    for value, nonce in ((more, None), (envelope("a" * 32), "b" * 32), (envelope(), "a" * 32)):
        with pytest.raises(FormatError, match="envelope-differs"):
            require_jailed_envelope(value, CONFIG, MODULE, nonce)
    with pytest.raises(FormatError, match="envelope-invalid"):
        require_jailed_envelope(["x"], CONFIG, MODULE, None)
