"""The scan finds what was found in shipped products, wherever it is planted; and nothing in ordinary code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supply.acme import INTERPRETER, KEYS, OPTIONS, SETTINGS, VARIABLES, plain, plant

COMMAND = (sys.executable, "-m", "ironbound.terminal.main", "scan")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("scan") / "acme-product")


@pytest.fixture(scope="module")
def report(product: Path) -> dict[str, Any]:
    done = run(product, "--json")
    assert done.returncode == 1, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def named(report: dict[str, Any], file: str) -> dict[str, list[str]]:
    """Each switch in a file, with its places there."""
    found: dict[str, list[str]] = {}
    for one in report["switches"]:
        places = [at["place"] for at in one["places"] if at["place"].startswith(file)]
        if places:
            found[one["name"]] = places
    return found


def test_every_name_is_found_in_source_with_its_line(report: dict[str, Any], product: Path) -> None:
    for file, names in (("acme/cli.py", OPTIONS), ("acme/environment.py", VARIABLES), ("acme/keys.py", KEYS)):
        found, lines = named(report, file), (product / file).read_text().splitlines()
        assert set(names) <= set(found), set(names) - set(found)
        for name in names:
            assert any(name in lines[int(place.rpartition(":")[2]) - 1] for place in found[name]), name


def test_every_name_is_found_in_bytecode_without_its_source(report: dict[str, Any]) -> None:
    found = named(report, "legacy/old.pyc")
    assert {*OPTIONS, *VARIABLES, *KEYS} <= set(found), {*OPTIONS, *VARIABLES, *KEYS} - set(found)
    assert any(" in parse" in place for place in found["--debug"])


@pytest.mark.parametrize("file", ["native/libacme.so", "native/acme.wasm"])
def test_every_name_is_found_in_a_binary_at_its_offset(report: dict[str, Any], product: Path, file: str) -> None:
    found, data = named(report, file), (product / file).read_bytes()
    names = {one.partition("=")[0] if one.startswith("--") else one for one in (*OPTIONS, *VARIABLES, *KEYS, *SETTINGS)}
    assert names <= set(found), names - set(found)
    offsets = [int(place.rpartition("@")[2], 16) for place in found["--interceptor"]]
    assert any(data[at:].startswith(b"--interceptor") for at in offsets)


def test_every_key_and_setting_is_found_in_configuration(report: dict[str, Any]) -> None:
    toml, yaml = named(report, "deploy/policy.toml"), named(report, "deploy/values.yaml")
    assert {*KEYS, "proposal.approval_mode=auto", "enforcement.mode=relaxed"} <= set(toml)
    assert {"server.tls=skip", "server.sandbox.mode=best_effort", "server.image_override"} <= set(yaml)
    assert yaml["server.tls=skip"] == ["deploy/values.yaml:2"]
    assert any(name.endswith("enableWeakerNestedSandbox") for name in named(report, "deploy/settings.json"))
    assert any(name.endswith("ignoreViolations") for name in named(report, "deploy/settings.json"))


def test_what_the_interpreter_and_the_loader_take_in_is_found(report: dict[str, Any]) -> None:
    places = {at["place"] for one in report["switches"] if one["rule"] == "interpreter" for at in one["places"]}
    for place in ("lib/site-packages/acme.pth:1", "lib/site-packages/sitecustomize.py", "bin/fast:1"):
        assert place in places, place
    names = {one["name"] for one in report["switches"] if one["rule"] == "interpreter"}
    assert all(any(name.endswith(one) or one in name for name in names) for one in INTERPRETER), names
    assert "--debug" in named(report, "deploy/acme.service") and "--watch" in named(report, "bin/run")
    assert "--allow-unauthenticated" in named(report, "deploy/Dockerfile")


def test_what_comes_from_outside_and_runs_is_found_and_so_are_routes_verbs_and_entry_points(
    report: dict[str, Any],
) -> None:
    assert {"eval in policy", "importlib.import_module in load"} <= set(named(report, "acme/server.py"))
    surface = {(one["kind"], one["name"]) for one in report["surface"]}
    for item in (
        ("route", "/admin/policy"), ("verb", "grant"), ("verb", "reload_policy"), ("argv", "sys.argv"),
        ("dynamic", "getattr in handle"), ("entry", "console_scripts: acme"), ("import", "getenv"),
        ("import", "system"), ("import", "acme::disable_sandbox"), ("environment", "ACME_SKIP_OIDC_DISCOVERY"),
        ("route", "/debug/policy"), ("option", "--allow-unauthenticated"),
    ):  # fmt: skip
        assert item in surface, item
    assert "failOpen" in named(report, "bin/main.go")
    assert "--dangerously-skip-permissions" not in named(report, "bin/main.go"), "a comment is no switch"
    library = next(one for one in report["binaries"] if one["file"] == "native/libacme.so")
    assert library["no_exec_stack"] is True and library["pie"] is None


def test_ordinary_code_has_no_finding_but_is_read(tmp_path: Path) -> None:
    place = plain(tmp_path / "plain")
    done = run(place, "--json")
    said = json.loads(done.stdout)
    assert (said["verdict"], said["switches"], said["unread"]) == ("ABSENT", [], []), done.stdout
    assert done.returncode == 0
    assert {"ELF", "bytecode", "Python source", "configuration", "other source", "prose"} <= set(said["files"])
    (place / "watcher.py").write_text(
        (place / "watcher.py").read_text() + 'MODE = HOME and os.getenv("ACME_INSECURE")\n'
    )
    assert run(place).returncode == 1


def test_the_verdict_stands_first_and_the_rest_is_short(product: Path) -> None:
    done = run(product)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("PRESENT-ACTIVE") and lines[1].startswith("closed list: none was given")
    assert len(lines) < 40 and "files" not in done.stdout.splitlines()[0]
    assert done.stdout.isascii() or "…" in done.stdout
