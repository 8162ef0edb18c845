"""Runtimes × settings: what a runtime holds an agent to, its profile has to say; what it can't, it refuses by name.

The whole table: every setting that there is, in every runtime, missing, of another runtime, out of bounds, of another
kind, and on hosts that lack what enforces it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ironbound.core.canonical import parse_canonical
from ironbound.core.enforcement import REFUSALS
from ironbound.core.profile import LIMITS, NATIVE, RUNTIMES, SETTINGS, Effective, Layer, ProfileRefused, keys_of, merge
from ironbound.node.microvm import firecracker, qemu
from ironbound.node.native import cgroup
from ironbound.node.native.container import Container

KEYS = (*SETTINGS, *LIMITS)
VALUES: dict[str, str] = {
    "runtime.strict_security": "true", "runtime.disallowed_imports": '["*"]', "runtime.max_memory": "512",
    "runtime.max_fuel": "1000", "runtime.max_wall_clock": "60", "runtime.max_stack": "64", "runtime.max_instances": "1",
    "runtime.max_tables": "1", "runtime.max_table_elements": "10", "runtime.max_module_size": "1000",
    "runtime.max_cpu": "100", "runtime.max_processes": "4", "runtime.max_open_files": "64",
    "channel.max_message": "1000", "channel.max_messages_per_second": "10", "scratch.max_bytes": "1000",
    "scratch.max_files": "2",
}  # fmt: skip
#: What nobody can be held to, whatever the runtime.
WRONG = ("0", "-1", "true", '"64"', "64.0", "[]", str(2**53))
IN_CGROUP = [name for name, family in RUNTIMES.items() if family == NATIVE and name != "bubblewrap"]


def profile(runtime: str, **changed: str | None) -> Effective:
    """A profile with exactly the runtime's settings, but for what is changed; None takes one away."""
    settings = {key: VALUES[key] for key in keys_of(runtime) if key != "runtime.type"}
    settings["runtime.type"] = f'"{runtime}"'
    settings |= {key: value for key, value in changed.items() if value is not None}
    lines = [f"agent.{key} = {value}" for key, value in settings.items() if changed.get(key, "") is not None]
    return merge([Layer("one", "\n".join(['profile = "one"', *lines]).encode())])


def refusal(runtime: str, **changed: str | None) -> ProfileRefused:
    with pytest.raises(ProfileRefused) as found:
        profile(runtime, **changed)
    return found.value


def configuration(runtime: str, **changed: str | None) -> Any:
    return parse_canonical(profile(runtime, **changed).encoded, limit=32_768)


def test_the_table_is_whole() -> None:
    assert set(VALUES) == set(KEYS) - {"runtime.type"}
    for runtime in RUNTIMES:  # the control: with just its settings each runtime has a profile
        assert set(profile(runtime).provenance) == {"profile", *keys_of(runtime)}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_wants_each_setting_that_it_holds_and_refuses_each_that_it_does_not(runtime: str, key: str) -> None:
    if key in keys_of(runtime):
        found = refusal(runtime, **{key: None})
        assert (found.code, found.key) == ("setting-missing", key)
    else:
        found = refusal(runtime, **{key: VALUES[key]})
        assert (found.code, found.key, found.layer) == ("setting-unenforced", key, "one")


def out_of_bounds() -> Iterator[Any]:
    for runtime in RUNTIMES:
        for key in keys_of(runtime):
            if key in LIMITS:
                yield from (pytest.param(runtime, key, value) for value in (*WRONG, str(LIMITS[key].maximum + 1)))


@pytest.mark.parametrize(("runtime", "key", "value"), list(out_of_bounds()))
def test_a_value_that_no_agent_can_be_held_to_is_refused_by_its_settings_name(
    runtime: str, key: str, value: str
) -> None:
    assert refusal(runtime, **{key: value}).key == key


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_runtime_has_another_mode(runtime: str) -> None:
    assert refusal(runtime, **{"runtime.strict_security": "false"}).key == "runtime.strict_security"


# What the host lacks


@pytest.fixture(params=["one tree", "a tree each"])
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a host with these cgroup controllers, of either version, on which the node is root."""

    def make(*controllers: str) -> None:
        if request.param == "one tree":
            (tmp_path / "cgroup.controllers").write_text(" ".join(controllers))
        for name in controllers:
            (tmp_path / name).mkdir()

    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    monkeypatch.setattr("os.getuid", lambda: 0)
    return make


def runtime_of(name: str) -> Any:
    """The node's runtime, as far as it says what it can't hold."""
    kinds: dict[str, type[Any]] = {"qemu-microvm": qemu.Qemu, "firecracker": firecracker.Firecracker}
    made = object.__new__(kinds.get(name, Container))
    if name not in kinds:
        made.name = name
    return made


@pytest.mark.parametrize("controller", cgroup.CONTROLLERS)
@pytest.mark.parametrize("runtime", [*IN_CGROUP, "firecracker"])
def test_a_host_without_a_controller_is_refused_the_setting_that_it_would_hold(
    host: Any, runtime: str, controller: str
) -> None:
    host(*(name for name in cgroup.CONTROLLERS if name != controller))
    found = runtime_of(runtime).unenforced(configuration(runtime))
    assert found is not None
    assert found.startswith(f"runtime.{cgroup.CONTROLLERS[controller]}: ") and controller in found


@pytest.mark.parametrize("runtime", [*IN_CGROUP, "bubblewrap", "qemu-microvm", "firecracker"])
def test_a_host_with_every_controller_is_refused_nothing(host: Any, runtime: str) -> None:
    host(*cgroup.CONTROLLERS)
    assert runtime_of(runtime).unenforced(configuration(runtime)) is None


def test_a_machine_without_a_cgroup_holds_whole_processors_only(host: Any) -> None:
    host("memory")
    machine = runtime_of("qemu-microvm")
    assert machine.unenforced(configuration("qemu-microvm")) is None
    found = machine.unenforced(configuration("qemu-microvm", **{"runtime.max_cpu": "50"}))
    assert found is not None and found.startswith("runtime.max_cpu: ")
    assert "runtime.max_cpu" in {key for key, _ in REFUSALS["qemu-microvm"]}
