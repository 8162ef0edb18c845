"""The filters of a program that filters itself, read from live processes, and what ends meanwhile."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from specimen import ALLOW_ALL, specimen

from ironbound.core.own_filters import OwnFilters
from ironbound.monitor.enclosure import observe_enclosure
from ironbound.monitor.observe import (
    Baseline,
    ProcessGone,
    filter_counts,
    filters_and_threads,
    start_time,
    thread_states,
)
from ironbound.monitor.tracing import read_filters

SAID: Any = {"runtime": "qemu-microvm", "boot_id": "b", "posture": {"exe": "a program", "mappings": []}}


def look(pid: int, *, filters: bool = True) -> Any:
    return observe_enclosure(pid, start_time(pid), Baseline.of_self(), (), filters=filters)


@pytest.mark.root
def test_the_same_program_behind_another_filter_in_its_next_life_is_a_difference() -> None:
    known = OwnFilters()
    with specimen("plain") as pid:
        first = look(pid)
        assert filter_counts(pid) == {("2", "1")}
    known.started(SAID, first)
    with specimen("plain") as pid:
        assert known.compare(SAID, look(pid)) == []
    with specimen("filter") as pid:
        (found,) = known.compare(SAID, look(pid))
        assert filter_counts(pid) == {("2", "2")}
    assert (found.path, found.expected) == ("filters", first["filters"])
    assert found.got == [hashlib.sha256(ALLOW_ALL).hexdigest(), *first["filters"]]


@pytest.mark.root
def test_a_thread_that_is_not_behind_the_filter_is_a_difference_and_changes_the_count() -> None:
    with specimen("thread") as pid:
        counts = filter_counts(pid)
        (found,) = OwnFilters().compare(SAID, look(pid))
    assert counts == {("2", "1"), ("0", "0")} and found.path == "threads.filters"


def test_a_filter_that_was_not_read_is_a_difference() -> None:
    with specimen("plain") as pid:
        assert [one.path for one in OwnFilters().compare(SAID, look(pid, filters=False))] == ["filters"]


@pytest.mark.root
def test_a_thread_that_ends_while_filters_are_read_is_left_out_and_the_first_one_s_end_is_the_process_s() -> None:
    with specimen("plain") as pid:
        threads = thread_states(pid)
        (second,) = threads.keys() - {pid}
        gone = 2**22 + 1  # no thread has such a number
        assert read_filters([pid, gone]).keys() == {pid}
        threads[gone] = threads.pop(second)
        filters, summary = filters_and_threads(pid, threads, True)
        assert isinstance(filters, list) and len(filters) == 1 and summary == {"count": 2, "uniform": True}
        with pytest.raises(ProcessLookupError):
            filters_and_threads(gone, {gone: threads[gone], pid: threads[pid]}, True)
    with pytest.raises(ProcessGone):
        filter_counts(pid)
