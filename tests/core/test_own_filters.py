"""The filters of gVisor's kernel and of QEMU are those of the first look at the same program, or it is a difference."""

from __future__ import annotations

from typing import Any

import pytest

from ironbound.core.canonical import sha256_hex
from ironbound.core.own_filters import READ, OwnFilters
from ironbound.core.posture import NOT_SEEN

FIRST, OTHER = (sha256_hex(name.encode()) for name in ("first", "other"))
UNIFORM = {"count": 9, "uniform": True}


def start(runtime: str = "gvisor", **posture: Any) -> dict[str, Any]:
    return {"runtime": runtime, "boot_id": "b", "posture": {"exe": "runsc", **posture}}


def look(*filters: str, threads: Any = None) -> dict[str, Any]:
    return {"filters": [*filters], "threads": UNIFORM if threads is None else threads}


def found(known: OwnFilters, said: Any, seen: Any) -> dict[str, Any]:
    return {one.path: one.got for one in known.compare(said, seen)}


@pytest.fixture
def known() -> OwnFilters:
    one = OwnFilters()
    one.started(start(), look(FIRST))
    return one


@pytest.mark.parametrize("filters", [(OTHER,), (FIRST, OTHER), (FIRST, FIRST), ()])
def test_another_filter_one_more_or_none_in_this_life_or_the_next_is_a_difference(
    known: OwnFilters, filters: tuple[str, ...]
) -> None:
    assert found(known, start(), look(FIRST)) == {}
    assert found(known, start(), look(*filters)) == {"filters": [*filters]}
    known.started(start(), look(*filters))  # a later start measures nothing
    assert found(known, start(), look(FIRST)) == {}


@pytest.mark.parametrize("change", [{"exe": "another"}, {"mappings": [OTHER]}])
def test_another_program_or_library_is_measured_anew_and_so_is_one_after_a_boot(
    known: OwnFilters, change: dict[str, Any]
) -> None:
    another = start(**change)
    assert found(known, another, look(OTHER)) == {} and found(known, start() | {"boot_id": "c"}, look(OTHER)) == {}
    known.started(another, look(OTHER))
    assert found(known, another, look(FIRST)) == {"filters": [FIRST]}
    assert found(known, start(), look(FIRST)) == {}


@pytest.mark.parametrize("runtime", READ)
def test_at_the_first_look_already_no_filter_and_none_that_was_seen_are_differences(runtime: str) -> None:
    one = OwnFilters()
    assert found(one, start(runtime), look()) == {"filters": []}
    assert found(one, start(runtime), {"filters": None, "threads": UNIFORM}) == {"filters": NOT_SEEN}
    assert found(one, start(runtime), look(FIRST) | {"threads": None}) == {"threads.filters": NOT_SEEN}
    one.started(start(runtime), look())
    assert found(one, start(runtime), look(FIRST)) == {}  # what had no filter is no measure


@pytest.mark.parametrize("odd", [{"filters": [OTHER]}, {"Seccomp": "0"}, {"Seccomp_filters": "2"}])
def test_a_thread_behind_another_filter_or_behind_none_is_a_difference(known: OwnFilters, odd: dict[str, Any]) -> None:
    others = [{"tid": 7, "state": "Z (zombie)"}, {"tid": 8, **odd}]
    seen = look(FIRST, threads={"count": 9, "uniform": False, "differing": others})
    assert found(known, start(), seen) == {"threads.filters": others[1:]}


@pytest.mark.parametrize("runtime", ["wasmtime", "bubblewrap", "runc", "crun", "firecracker"])
def test_of_other_runtimes_nothing_is_learned_and_nothing_said(runtime: str) -> None:
    one = OwnFilters()
    one.started(start(runtime), look(FIRST))
    assert found(one, start(runtime), look(OTHER)) == {}
