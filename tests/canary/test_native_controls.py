"""The positive control of every native probe: without just its wall, the same program gets out and says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from native_walls import NONCE, NOT_ON_THIS_HOST, WALLS, Without, needs_root, start_weakened

from ironbound.canary.probes import UNCONTROLLED, load_probes
from ironbound.core.canary import verdict
from native_stand import PROBE, ROOT, folder_for_all, make_rootfs

ROWS = {shipped.name: shipped.document for shipped in load_probes("native")}


@pytest.fixture
def image() -> Iterator[Path]:
    with folder_for_all() as folder:
        (folder / "files").mkdir()
        root = make_rootfs(folder, [PROBE])
        for name in ("etc", "run", "sys", "var"):
            (root / name).mkdir()
        yield root


def outcome(name: str, image: Path, walls: Without) -> tuple[str, dict[str, Any]]:
    with start_weakened(name, image, image.parent / "files", walls) as started:
        report = started.rest().decode()
        started.end()
    decided, text = verdict(ROWS[name], NONCE, "finished", "", report)
    try:
        said: dict[str, Any] = json.loads(report)
    except ValueError:
        pytest.fail(f"expected a report, got {report!r}")
    said["text"] = text
    return decided, said


def controls(chosen: set[str], of_root: set[str]) -> list[Any]:
    root_only = [pytest.mark.root, pytest.mark.skipif(not ROOT, reason="needs root")]
    return [pytest.param(name, marks=root_only if name in of_root else []) for name in ROWS if name in chosen]


OF_ROOT = {name for name, walls in WALLS.items() if needs_root(walls)}


def test_every_probe_has_a_row_that_names_its_wall() -> None:
    assert set(WALLS) == set(ROWS)
    assert all(replace(walls, size="") != Without() for walls in WALLS.values())
    assert set(UNCONTROLLED["bubblewrap"]) <= set(NOT_ON_THIS_HOST) <= set(ROWS)


@pytest.mark.parametrize("name", controls(set(WALLS) - set(NOT_ON_THIS_HOST), OF_ROOT))
def test_without_its_wall_the_probe_escapes_with_every_attempt(name: str, image: Path) -> None:
    decided, said = outcome(name, image, WALLS[name])
    assert decided == "ESCAPED", said
    assert said["refused"] == 0, said


@pytest.mark.parametrize("name", controls(set(NOT_ON_THIS_HOST), OF_ROOT))
def test_where_this_kernel_lets_nothing_through_the_list_says_why(name: str, image: Path) -> None:
    ends_in, _ = NOT_ON_THIS_HOST[name]
    decided, said = outcome(name, image, WALLS[name])
    assert decided in (ends_in, "ESCAPED"), said  # another kernel may have what this one lacks


def refused_here() -> list[Any]:
    """Those whose wall stands in this sandbox without the guard, without a gateway and without a mount of root's."""
    chosen = {name for name, walls in WALLS.items() if not walls.landlock and walls.channel is None}
    return controls(chosen - {"limit-inodes", "limit-cpu"}, {"limit-processes"})


@pytest.mark.parametrize("name", refused_here())
def test_with_its_wall_the_probe_is_refused_in_the_very_same_sandbox(name: str, image: Path) -> None:
    decided, said = outcome(name, image, Without(size=WALLS[name].size))
    assert decided == "REFUSED", said
