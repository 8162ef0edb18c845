"""The expected posture and the comparison: nothing that was not seen, or not asked for, passes as equal."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.canonical import FormatError, canonical, sha256_hex
from ironbound.core.limits import RLIMIT_NAMES, WORKER_THREADS, worker_rlimits
from ironbound.core.posture import (
    FIELDS,
    NAMESPACES,
    NOT_SEEN,
    Difference,
    compare_postures,
    expected_posture,
    unseen,
)
from ironbound.core.seccomp import filter_digest, worker_filter

CONFIG: Any = {"version": 1, "runtime": {"max_stack": 512}}
A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def facts(**changes: Any) -> Any:
    base = {
        "uid": 61100,
        "gid": 61100,
        "exe": A,
        "mappings": [B, A],
        "namespaces": dict.fromkeys(NAMESPACES, "shared"),
        "module_sha256": C,
        "config_sha256": sha256_hex(canonical(CONFIG)),
        "filters_visible": True,
    }
    return {**base, **changes}


def posture(**changes: Any) -> Any:
    return expected_posture(CONFIG, facts(**changes))


def test_a_worker_is_expected_with_the_limits_and_the_filter_of_its_configuration() -> None:
    expected = posture()
    assert set(expected) == set(FIELDS)
    assert expected["rlimits"] == {name: list(pair) for name, pair in worker_rlimits(CONFIG).items()}
    assert set(expected["rlimits"]) == set(RLIMIT_NAMES)
    assert expected["filters"] == [filter_digest(worker_filter())]
    assert expected["threads"] == {"count": WORKER_THREADS, "uniform": True}
    assert expected["uid"] == [61100] * 4
    assert expected["mappings"] == [A, B]
    assert set(expected["caps"].values()) == {"0" * 16}


def test_the_host_facts_of_an_ordinary_user_are_expected() -> None:
    expected = posture(groups=[7, 4], bounding="000001ffffffffff")
    assert expected["groups"] == [4, 7]
    assert expected["caps"]["bnd"] == "000001ffffffffff"
    assert expected["caps"]["eff"] == "0" * 16


def _paths(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in _paths(item, (*path, name))]
    return [path]


def _with(value: Any, path: tuple[str, ...], item: Any) -> Any:
    changed = copy.deepcopy(value)
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = item
    return changed


PATHS = [path for path in _paths(posture()) if path != ("version",)]


def test_equal_postures_do_not_differ() -> None:
    assert compare_postures(posture(), posture()) == ()
    assert unseen(posture()) == ()


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_field_that_differs_is_reported_at_its_path_alone(path: tuple[str, ...]) -> None:
    (found,) = compare_postures(posture(), _with(posture(), path, "strange"))
    assert (found.path, found.got, found.kind) == (".".join(path), "strange", "differs")


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_field_that_was_not_seen_is_never_equal(path: tuple[str, ...]) -> None:
    observed = _with(posture(), path, None)
    (found,) = compare_postures(posture(), observed)
    assert (found.path, found.got, found.kind) == (".".join(path), NOT_SEEN, "not-seen")
    assert unseen(observed) == (".".join(path),)


def test_a_filter_that_may_not_be_read_is_no_difference_but_is_told() -> None:
    observed = _with(posture(), ("filters",), None)
    assert compare_postures(posture(filters_visible=False), observed) == ()
    assert unseen(observed) == ("filters",)


def test_a_filter_that_was_read_after_all_must_be_the_workers() -> None:
    expected = posture(filters_visible=False)
    assert compare_postures(expected, posture()) == ()
    (found,) = compare_postures(expected, _with(posture(), ("filters",), []))
    assert found == Difference("filters", [filter_digest(worker_filter())], [])


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in ("filters", "version")])
def test_an_expectation_that_leaves_out_anything_else_is_refused(field: str) -> None:
    with pytest.raises(FormatError) as caught:
        compare_postures(_with(posture(), (field,), None), posture())
    assert caught.value.code == "posture-invalid"


def test_what_nobody_expected_is_reported() -> None:
    more = _with(posture(), ("fds", "7"), "socket")
    assert compare_postures(posture(), more) == (Difference("fds.7", None, "socket"),)
    hidden = _with(posture(), ("fds", "7"), None)
    assert compare_postures(posture(), hidden) == (Difference("fds.7", None, NOT_SEEN),)
    less = posture()
    del less["fds"]["6"]
    assert compare_postures(posture(), less) == (Difference("fds.6", "socket", None),)


def test_mappings_tell_what_is_missing_and_what_is_strange() -> None:
    observed = _with(posture(), ("mappings",), [A, C])
    assert compare_postures(posture(), observed) == (Difference("mappings", [B], [C]),)
    doubled = _with(posture(), ("mappings",), [A, A, B])
    assert compare_postures(posture(), doubled) == (Difference("mappings", [A, B], [A, A, B]),)


def test_true_is_not_one() -> None:
    (found,) = compare_postures(posture(), _with(posture(), ("no_new_privs",), True))
    assert found.path == "no_new_privs"
    (found,) = compare_postures(posture(), _with(posture(), ("threads", "uniform"), 1))
    assert found.path == "threads.uniform"


def test_a_difference_has_the_form_of_the_statement() -> None:
    assert Difference("tracer", 0, 7).as_value() == {"path": "tracer", "expected": 0, "got": 7}


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": -1},
        {"uid": True},
        {"gid": 2**32},
        {"exe": "A" * 64},
        {"exe": None},
        {"mappings": "a" * 64},
        {"mappings": [1]},
        {"mappings": [A] * 513},
        {"namespaces": {"net": "private"}},
        {"namespaces": dict.fromkeys(NAMESPACES, "other")},
        {"namespaces": []},
        {"module_sha256": "c" * 63},
        {"config_sha256": A},
        {"filters_visible": 1},
        {"groups": [-1]},
        {"groups": 4},
        {"bounding": "0"},
        {"bounding": 0},
        {"other": 1},
    ],
)
def test_malformed_facts_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        posture(**changes)
    assert caught.value.code == "facts-invalid"


@pytest.mark.parametrize("value", [None, [], "facts", {}])
def test_facts_that_are_missing_are_refused(value: Any) -> None:
    with pytest.raises(FormatError):
        expected_posture(CONFIG, value)


@pytest.mark.parametrize("config", [None, {}, {"runtime": {"max_stack": "512"}}])
def test_a_malformed_configuration_is_refused(config: Any) -> None:
    with pytest.raises(FormatError) as caught:
        expected_posture(config, facts(config_sha256=sha256_hex(canonical(config))))
    assert caught.value.code == "config-invalid"


@pytest.mark.parametrize("version", [None, True, 2, "1"])
def test_another_version_of_posture_is_refused(version: Any) -> None:
    with pytest.raises(FormatError):
        compare_postures(posture(), _with(posture(), ("version",), version))


def test_a_posture_without_a_field_is_refused() -> None:
    observed = posture()
    del observed["tracer"]
    with pytest.raises(FormatError, match="tracer"):
        compare_postures(posture(), observed)


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_garbage_raises_one_error_type(value: Any) -> None:
    for call in (lambda: expected_posture(CONFIG, value), lambda: compare_postures(posture(), value)):
        with pytest.raises(FormatError):
            call()


@given(st.sampled_from(FIELDS), values)
def test_garbage_in_a_field_is_a_difference_or_the_one_error(field: str, value: Any) -> None:
    try:
        found = compare_postures(posture(), {**posture(), field: value})
    except FormatError:
        return
    same = value == posture()[field] and type(value) is type(posture()[field])
    assert {item.path.partition(".")[0] for item in found} == (set() if same else {field})
