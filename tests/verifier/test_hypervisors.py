"""Launches in virtual machines: the verifier derives call and posture again, for QEMU and for Firecracker."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ironbound.core import firecracker
from ironbound.core.cage import expected_cage
from ironbound.core.canonical import Digest, canonical, sha256_hex
from ironbound.core.enclosure import envelope
from ironbound.core.firecracker import Jail
from ironbound.core.jailed import jailed_envelope
from ironbound.core.microvm import DESCRIPTORS, MODULES
from ironbound.core.native import Manifest

from .lab import Honest, digest_of, honest

UID = 61_100
MODULE = Manifest(Digest(digest_of("a tree")), ("/bin/agent",)).encode()
NAMES = ("firecracker", "qemu-microvm")
OWN, OTHER = digest_of("QEMU's filter"), digest_of("another filter")


def configuration(runtime: str) -> dict[str, Any]:
    limits = {"max_memory": 128, "max_cpu": 100, "max_processes": 8, "max_open_files": 64, "max_wall_clock": 60}
    return {
        "version": 1,
        "profile": "machine",
        "runtime": {"type": runtime, "strict_security": True, **limits},
        "channel": {"max_message": 65536, "max_messages_per_second": 100},
        "scratch": {"max_bytes": 1 << 20, "max_files": 32},
    }


def call(runtime: str, config: dict[str, Any], group: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the node says of the sandbox, and the facts beside the common ones."""
    modules = {name: digest_of(name) for name in MODULES[runtime]}
    digests = {f"{name}_sha256": digest_of(name) for name in ("runtime", "guard", "init")}
    if runtime == "firecracker":
        _, parent, name = group.split("/")
        jail = Jail("/usr/bin/jailer", "/usr/bin/firecracker", "/site/jails", name, UID, UID, parent, True)
        said = jailed_envelope(
            config,
            MODULE,
            None,
            unshare="/usr/bin/unshare",
            jail=jail,
            digests=digests | {"jailer_sha256": digest_of("jailer")},
            files={one: digest_of(one) for one in (firecracker.KERNEL, firecracker.INITRD)},
            modules=modules,
        )
        return said, {"cgroup": group}
    files = {name: digest_of(name) for name in ("kernel", "initrd", "firmware")}
    said = envelope(config, MODULE, None, accelerator="tcg", files=files, modules=modules, **digests)
    host = {"accelerator": "tcg", "libraries": [digest_of("libc")], "system": ["lib", "usr"], "separated": True}
    return said, {"cgroup": group, **files, **host}


def launched(
    runtime: str,
    change: Callable[[dict[str, Any]], None] = lambda said: None,
    filters: list[Any] | None = None,
    later: list[Any] | None = None,
    before: list[Any] | None = None,
) -> dict[str, set[str]]:
    """Why claims fall for a history with one launch in a machine, whose start was changed before it was said.

    `filters`: those of its first look, `later` of the next one; `before`: those of another launch before it.
    """
    scene = honest()
    if before is not None:
        launch_one(scene, runtime, "first", lambda said: None, before, before)
    launch_one(scene, runtime, "second", change, [OWN] if filters is None else filters, later)
    scene.lab.now += scene.lab.drift_stop_ms
    scene.act()
    return {name: why for name, why in scene.lab.falling().items() if name in ("B1", "B3")}


def launch_one(
    scene: Honest,
    runtime: str,
    agent: str,
    change: Callable[[dict[str, Any]], None],
    filters: list[Any] | None,
    later: list[Any] | None,
) -> None:
    lab, config = scene.lab, configuration(runtime)
    module, cage = sha256_hex(MODULE), sha256_hex(canonical(config))
    if cage not in lab.replay.books.profiles:
        lab.approve_module(MODULE)
        lab.approve_profile(config)
    launch = lab.expect(lab.ask_launch(agent, module, cage))
    group = f"{lab.replay.trust.control_group}/{launch}"
    says, facts = call(runtime, config, group)
    common = {"uid": UID, "gid": UID, "module_sha256": module, "config_sha256": cage, "filters_visible": False}
    posture = expected_cage(config, {**common, **facts, "runtime_sha256": digest_of("runtime")})
    start = copy.deepcopy(
        {"runtime": runtime, "runtime_sha256": digest_of("runtime"), "envelope": says, "posture": posture}
    )
    assert cage == sha256_hex(canonical(config))
    change(start)
    looks = [start["posture"], start["posture"]]
    if runtime == "qemu-microvm":
        seen = start["posture"] | {"threads": {"count": 3, "uniform": True}}
        looks = [seen | {"filters": one} for one in (filters, filters if later is None else later)]
    started = lab.expect(lab.start(launch, seen={"posture": looks[0]}, **start))
    lab.expect(lab.observe(started, posture=looks[1]))


@pytest.mark.parametrize("runtime", NAMES)
def test_a_launch_whose_call_and_posture_follow_from_what_was_approved_holds(runtime: str) -> None:
    assert launched(runtime) == {}


def test_a_filter_of_qemus_that_is_not_the_one_it_had_before_refutes_b1() -> None:
    assert launched("qemu-microvm", before=[OWN]) == {}
    for filters in ([OTHER], [OWN, OTHER], []):
        assert launched("qemu-microvm", filters=filters, before=[OWN])["B1"] == {"observed-posture-differs"}
    assert launched("qemu-microvm", filters=[])["B1"] == {"observed-posture-differs"}  # the first one too has one


def test_a_filter_of_qemus_that_changes_while_it_runs_and_is_left_alone_refutes_b3() -> None:
    assert launched("qemu-microvm", later=[OWN, OTHER]) == {"B3": {"difference-unheeded"}}


def _grow(said: dict[str, Any]) -> None:
    said["envelope"]["argv"].insert(-2, "-netdev")


def _memory(said: dict[str, Any]) -> None:
    said["posture"]["cgroup"]["memory"] *= 2


def _capable(said: dict[str, Any]) -> None:
    said["posture"]["caps"]["eff"] = "0000000000200000"


def _other(said: dict[str, Any]) -> None:
    said["envelope"]["runtime_sha256"] = digest_of("another")


def _unlooked(said: dict[str, Any]) -> None:
    said["posture"]["threads"] = None


@pytest.mark.parametrize("change", [_grow, _memory, _capable, _other, _unlooked])
@pytest.mark.parametrize("runtime", NAMES)
def test_a_call_or_a_posture_that_does_not_follow_refutes_it(
    runtime: str, change: Callable[[dict[str, Any]], None]
) -> None:
    assert launched(runtime, change)["B1"] == {"posture-not-expected"}


def _another_jail(said: dict[str, Any]) -> None:
    jail = said["envelope"]["jail"]
    config = configuration("firecracker")
    wrong, _ = call("firecracker", config, f"/{jail['parent']}/other")
    said["envelope"] = wrong


def _another_user(said: dict[str, Any]) -> None:
    said["envelope"]["jail"]["uid"] += 1
    argv = said["envelope"]["argv"]
    argv[argv.index("--uid") + 1] = str(UID + 1)


@pytest.mark.parametrize("change", [_another_jail, _another_user])
def test_a_jail_that_is_not_this_launchs_refutes_it(change: Callable[[dict[str, Any]], None]) -> None:
    assert launched("firecracker", change)["B1"] == {"posture-not-expected"}


def test_a_ram_disk_that_is_not_the_one_in_the_posture_refutes_it() -> None:
    def change(said: dict[str, Any]) -> None:
        said["envelope"]["fds"][str(DESCRIPTORS["initrd"])] = digest_of("another")

    assert launched("qemu-microvm", change)["B1"] == {"posture-not-expected"}
