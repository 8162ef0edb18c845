"""What Firecracker is told: only what its published description allows, and no device but the agent's own way out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firecracker_api import description, problems
from ironbound.core import firecracker
from ironbound.core.canonical import FormatError
from ironbound.core.firecracker import Jail, Request

JAIL = Jail(
    "/usr/bin/jailer", "/usr/bin/firecracker", "/var/lib/site/jails", "launch-7", 70001, 70001, "ironbound-x", True
)  # fmt: skip


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    data = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("no published description beside the checkout (../shared/data)")
    return description(data)


def config(**limits: int) -> dict[str, Any]:
    values = {"max_memory": 128, "max_cpu": 100, "max_processes": 8, "max_open_files": 64, "max_wall_clock": 10}
    return {
        "runtime": {"type": "firecracker", **values, **limits},
        "scratch": {"max_bytes": 4096, "max_files": 3},
    }


@pytest.mark.parametrize("limits", [{}, {"max_cpu": 1}, {"max_cpu": 3200, "max_memory": 4096}, {"max_cpu": 250}])
def test_each_request_is_one_that_the_published_description_allows(api: dict[str, Any], limits: dict[str, int]) -> None:
    said = firecracker.requests(config(**limits))
    assert [problems(api, one.method, one.path, one.body) for one in said] == [[]] * 4


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("/machine-config", b'"vcpu_count":1', b'"vcpu_count":33'),
        ("/machine-config", b'"mem_size_mib":128', b'"mem_size_mib":"128"'),
        ("/boot-source", b"kernel_image_path", b"kernel"),
        ("/vsock", b'"guest_cid":3', b'"guest_cid":2'),
        ("/vsock", b"uds_path", b"path"),
        ("/actions", b"InstanceStart", b"Start"),
    ],
)
def test_a_request_that_is_wrong_in_one_place_is_seen_by_the_same_judge(
    api: dict[str, Any], path: str, old: bytes, new: bytes
) -> None:
    (said,) = [one for one in firecracker.requests(config()) if one.path == path]
    assert old in said.body
    assert problems(api, said.method, path, said.body.replace(old, new)) != []


def test_the_machine_starts_last_and_has_no_device_but_its_vsock() -> None:
    said = firecracker.requests(config())
    assert [one.path for one in said] == ["/machine-config", "/boot-source", "/vsock", "/actions"]
    assert json.loads(said[1].body)["boot_args"].split()[-1] == "rdinit=/.ironbound-vm/init"
    assert said[3] == Request("PUT", "/actions", b'{"action_type":"InstanceStart"}')


@pytest.mark.parametrize(("share", "processors"), [(1, 1), (100, 1), (101, 2), (201, 4), (399, 4), (3101, 32)])
def test_the_guest_has_one_or_an_even_number_of_processors(share: int, processors: int) -> None:
    assert firecracker.processors(config(max_cpu=share)) == processors


def test_more_computing_time_than_firecracker_has_processors_is_refused_by_name() -> None:
    assert (firecracker.unenforced(config(max_cpu=3201)) or "").startswith("runtime.max_cpu: ")
    with pytest.raises(FormatError, match="max_cpu"):
        firecracker.requests(config(max_cpu=3201))
    assert firecracker.unenforced(config(max_cpu=3200)) is None


def pairs(argv: tuple[str, ...], name: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == name]


@pytest.mark.parametrize("unified", [True, False])
def test_the_jailer_gives_firecracker_a_user_a_root_a_pid_namespace_and_limits(unified: bool) -> None:
    argv = firecracker.jailer_argv(config(max_cpu=150), replace(JAIL, unified=unified))
    assert argv[0] == "/usr/bin/jailer" and "--new-pid-ns" in argv
    assert pairs(argv, "--uid") == pairs(argv, "--gid") == ["70001"]
    assert pairs(argv, "--chroot-base-dir") == ["/var/lib/site/jails"]
    groups = dict(one.split("=") for one in pairs(argv, "--cgroup"))
    memory = str((128 + 64) << 20)
    if unified:
        assert groups == {
            "memory.max": memory, "memory.swap.max": "0", "cpu.max": "150000 100000", "pids.max": "10",
        }  # fmt: skip
    else:
        assert groups == {
            "memory.limit_in_bytes": memory, "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000",
            "pids.max": "10",
        }  # fmt: skip
    assert argv[-3:] == ("--", "--api-sock", "/api.socket")


def test_no_argument_turns_firecrackers_own_filters_off_or_gives_it_a_network() -> None:
    paths = [one.path for one in firecracker.requests(config())]
    said = " ".join((*firecracker.jailer_argv(config(), JAIL), *paths))
    assert not [word for word in ("seccomp", "netns", "network", "mmds", "daemonize", "config-file") if word in said]


@pytest.mark.parametrize(
    "wrong",
    [
        {"uid": 0},
        {"gid": 0},
        {"name": "../x"},
        {"name": ""},
        {"name": "a" * 65},
        {"name": "launch 7"},
        {"parent": ".."},
        {"parent": "a/b"},
        {"base": "relative"},
        {"base": "/with space"},
        {"base": "/" + "a" * 600},
        {"binary": "/usr/bin/qemu"},
        {"jailer": "/a\nb"},
    ],
)
def test_a_jail_that_could_be_misread_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="jail-invalid"):
        firecracker.jailer_argv(config(), replace(JAIL, **wrong))


def test_files_and_sockets_lie_where_the_jailer_puts_the_root() -> None:
    assert firecracker.jail_root(JAIL) == "/var/lib/site/jails/firecracker/launch-7/root"
    assert firecracker.pid_file(JAIL) == "firecracker.pid"
    assert [firecracker.listening(port) for port in ("channel", "control", "status")] == [
        "v.sock_1", "v.sock_2", "v.sock_3",
    ]  # fmt: skip
