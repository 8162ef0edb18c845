"""Constraints: closed world, exact types, and an order that means inclusion."""

import ast
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core import constraint
from ironbound.core.canonical import FormatError, canonical, parse_canonical, sha256_hex
from ironbound.core.constraint import covers, covers_rendered, narrower, parse_where, render_args, rendered_alike
from ironbound.core.reasons import REASONS

TEXTS = ["", "a", "/a", "/a/b", "/ab", "/a/../b", "/a/b/c", "/a//b", "1", "a:b", "/a:b", "/a/b:c", ":a", "/"]
SCALARS = [*TEXTS, 0, 1, 2, 3, True, False]
VALUES = [
    *SCALARS,
    None,
    [],
    {},
    "/ab/c",
    "a/b",
    "/a:b/",
    "/a/%2e%2e/x",
    "/a/%2Fb",
    "/a/.",
    "/a\\b",
    "/a/..;x",
    "/a/b\n",
    {"sha256": "0" * 64},
]

CONSTRAINTS = [
    {"any": True},
    *({"equals": scalar} for scalar in ("/a", "/a/b", "/ab", 0, 1, True, False, "1", "/a/../b", "a:b")),
    {"one_of": ["/a", "/a/b"]},
    {"one_of": [1, 2, 3]},
    {"one_of": [0, 1]},
    {"one_of": [True, False]},
    {"one_of": [1, True, "1"]},
    *({"prefix": {"value": value, "separator": "/"}} for value in ("", "/a", "/a/b", "/ab", "a")),
    *({"prefix": {"value": value, "separator": ":"}} for value in ("", "/a", "a")),
    *({"range": {"min": low, "max": high}} for low, high in ((0, 0), (0, 1), (1, 3), (0, 3), (1, 1))),
]

scalars = st.sampled_from(SCALARS) | st.integers(-3, 5) | st.booleans() | st.text(alphabet="/a.b:%2eF;", max_size=9)
segments = st.lists(st.text(alphabet="ab.", min_size=1, max_size=2), max_size=3)


@st.composite
def single(draw: st.DrawFn) -> dict[str, object]:
    return draw(
        st.sampled_from(CONSTRAINTS)
        | scalars.map(lambda scalar: {"equals": scalar})
        | st.lists(scalars, min_size=1, max_size=4).map(lambda values: {"one_of": values})
        | segments.map(lambda parts: {"prefix": {"value": "".join("/" + part for part in parts), "separator": "/"}})
        | st.tuples(st.integers(-2, 4), st.integers(0, 4)).map(
            lambda pair: {"range": {"min": pair[0], "max": pair[0] + pair[1]}}
        )
    )


wheres = st.dictionaries(st.sampled_from(["x", "y", "z"]), single(), max_size=3)
arguments = st.dictionaries(st.sampled_from(["x", "y", "z"]), scalars | st.sampled_from(VALUES), max_size=3)


@contextmanager
def refused() -> Iterator[None]:
    """Raises a FormatError of a reason that is known."""
    with pytest.raises(FormatError) as caught:
        yield
    assert caught.value.code in REASONS


def parsed(value: object) -> constraint.Where | None:
    try:
        return parse_where(value)
    except FormatError:
        return None


def universe() -> list[constraint.Where]:
    return [parse_where({"x": one}) for one in CONSTRAINTS]


#: Constraints of one argument, and of two.
PAIRED = [
    *(parse_where({"x": one}) for one in CONSTRAINTS),
    parse_where({}),
    *(
        parse_where({"x": one, "y": other})
        for one in ({"any": True}, {"equals": 1}, {"prefix": {"value": "/a", "separator": "/"}})
        for other in ({"any": True}, {"equals": "a"}, {"range": {"min": 1, "max": 3}})
    ),
]


def violations() -> tuple[int, list[tuple[constraint.Where, constraint.Where, object]]]:
    """How many pairs are ordered, and every call that the narrower one covers and the wider one doesn't."""
    calls = [{}, *({"x": value} for value in VALUES), {"y": 1}, {"x": 1, "y": 1}]
    ordered = [(a, b) for a, b in product(universe(), repeat=2) if narrower(a, b)]
    broken = [
        (a, b, call) for a, b in ordered for call in calls if covers(a, call) is None and covers(b, call) is not None
    ]
    return len(ordered), broken


def test_one_constraint_below_another_covers_no_more_in_an_exhausted_small_universe() -> None:
    ordered, broken = violations()
    assert broken == []
    assert ordered > len(CONSTRAINTS)


def test_two_constraints_that_are_not_ordered_have_a_call_that_tells_them_apart() -> None:
    """The other half of "exactly if": the order refuses nothing that it could allow."""
    calls = [{}, *({"x": value} for value in VALUES), {"y": 1}, {"x": 1, "y": 1}]
    pairs = [(a, b) for a, b in product(PAIRED, repeat=2) if not narrower(a, b)]
    calls += [{"x": one, "y": other} for one in ("/a/b", 1, True) for other in ("a", 2)]
    unproven = [
        (a, b) for a, b in pairs if not any(covers(a, call) is None and covers(b, call) is not None for call in calls)
    ]
    assert unproven == []
    assert len(pairs) > len(PAIRED)


def test_the_order_is_reflexive_and_transitive_in_the_small_universe() -> None:
    below = {(i, j) for (i, a), (j, b) in product(enumerate(universe()), repeat=2) if narrower(a, b)}
    assert all((i, i) in below for i in range(len(CONSTRAINTS)))
    assert all((i, k) in below for i, j in below for j2, k in below if j == j2)


def test_the_check_catches_an_order_whose_prefix_forgets_its_separator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Positive control: plain startswith is reflexive and transitive, and wrong."""
    real = constraint._narrower

    def forgetful(a: constraint.Constraint, b: constraint.Constraint) -> bool:
        if isinstance(a, constraint.Prefix) and isinstance(b, constraint.Prefix):
            return a.value.startswith(b.value)
        return real(a, b)

    monkeypatch.setattr(constraint, "_narrower", forgetful)
    _, broken = violations()
    assert broken
    monkeypatch.undo()
    assert violations()[1] == []


@given(wheres, wheres, st.lists(arguments, max_size=6))
def test_narrower_means_that_covered_calls_stay_covered(a: object, b: object, calls: list[object]) -> None:
    first, second = parsed(a), parsed(b)
    if first is None or second is None:
        return
    assert narrower(first, first)
    if narrower(first, second):
        for call in calls:
            assert covers(first, call) is not None or covers(second, call) is None


@given(wheres, arguments)
def test_what_is_covered_is_covered_as_the_log_shows_it(where: object, call: dict[str, object]) -> None:
    known = parsed(where)
    if known is None or covers(known, call) is not None:
        return
    rendered = render_args(known, call)
    assert covers_rendered(known, rendered) is None
    assert set(rendered) == set(call)


@given(wheres)
def test_a_where_survives_its_own_encoding(where: object) -> None:
    known = parsed(where)
    if known is not None:
        assert parse_where(parse_canonical(known.encode(), limit=1 << 20)) == known


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["any", "equals", "one_of", "prefix", "range", "min", "max", "value", "separator", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(json_values, json_values)
def test_garbage_raises_format_error_and_nothing_else(value: object, call: object) -> None:
    try:
        where = parse_where(value)
    except FormatError:
        return
    covers(where, call)
    covers_rendered(where, call)


def test_types_are_exact() -> None:
    for kind in ({"equals": 1}, {"one_of": [1]}, {"range": {"min": 0, "max": 2}}):
        where = parse_where({"x": kind})
        assert covers(where, {"x": 1}) is None
        for other in (True, "1", 1.0, [1], None, {"sha256": "0" * 64}):
            assert covers(where, {"x": other}) is not None
    assert not narrower(parse_where({"x": {"equals": True}}), parse_where({"x": {"equals": 1}}))
    assert not narrower(parse_where({"x": {"equals": True}}), parse_where({"x": {"range": {"min": 0, "max": 2}}}))


def test_the_world_is_closed() -> None:
    where = parse_where({"x": {"equals": 1}, "y": {"any": True}})
    assert covers(where, {"x": 1}) is None
    assert covers(where, {"x": 1, "y": [1, {"a": None}]}) is None
    assert covers(where, {"x": 1, "z": 1}) == "argument-not-named"
    assert covers(where, {"y": 1}) == "argument-missing"
    assert covers(where, {"x": 1, "y": 0.5}) == "argument-not-canonical"
    assert covers(where, []) == "arguments-not-an-object"
    assert covers(parse_where({}), {}) is None
    assert covers(parse_where({}), {"x": 1}) == "argument-not-named"


def test_where_order_knows_missing_and_additional_arguments() -> None:
    one, both = parse_where({"x": {"equals": 1}}), parse_where({"x": {"equals": 1}, "y": {"any": True}})
    strict = parse_where({"x": {"equals": 1}, "y": {"equals": 2}})
    assert narrower(one, both) and not narrower(both, one)
    assert narrower(strict, both) and not narrower(strict, one) and not narrower(one, strict)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1x",
        "/api/v",
        "/api/v1/",
        "/api/v1//x",
        "/api/v1/../admin",
        "/api/v1/..",
        "/api/v1/.",
        "/api/v1/./x",
        "/api/v1/%2e%2e/admin",
        "/api/v1/%2E./admin",
        "/api/v1/x%2fy",
        "/api/v1/x%2Fy",
        "/api/v1/%252e%252e",
        "/api/v1/%5cx",
        "/api/v1/..\\x",
        "/api/v1/..;/x",
        "/api/v1/.. /x",
        "/api/v1/x\r\ny",
        "/api/v1/%c0%ae%c0%ae/admin",
        "/api/v1/%e0%80%ae%e0%80%ae/admin",
        "/api/v1/x%c0%af..",
        "/api/v1/%u002e%u002e/admin",
        "/api/v1/%%32%65/admin",
        "/api/v1/x%",
        "/api/v1/..%20/admin",
        "/api/v1/..%3bx/admin",
        "/api/v1/.%0d./admin",
        "/api/v1/\uff0e\uff0e/admin",
        "/api/v1/%ef%bc%8e%ef%bc%8e/admin",
        "/api/v1/\u2025/admin",
        "/api/v1/x\u2215y",
        "/api/v1/x\uff0fy",
        "/api/v1/x\ufffd",
        "/api/v1/\u202e",
        "/API/v1",
    ],
)
def test_no_spelling_leads_out_of_a_prefix(path: str) -> None:
    where = parse_where({"path": {"prefix": {"value": "/api/v1", "separator": "/"}}})
    assert covers(where, {"path": path}) == "argument-outside-prefix"


@pytest.mark.parametrize(
    "path",
    ["/api/v1", "/api/v1/x", "/api/v1/x/y.z", "/api/v1/..x", "/api/v1/a%20b", "/api/v1/b\xfccher",
     "/api/v1/b%C3%BCcher", "/api/v1/\u66f8", "/api/v1/x\U0001fabf"],
)  # fmt: skip
def test_ordinary_paths_lie_within_a_prefix(path: str) -> None:
    where = parse_where({"path": {"prefix": {"value": "/api/v1", "separator": "/"}}})
    assert covers(where, {"path": path}) is None


def test_no_version_of_python_decides_otherwise_than_another() -> None:
    """What a later Unicode assigns is printable to a later Python; an agent could part the gateway from its auditor."""
    where = parse_where({"path": {"prefix": {"value": "/a", "separator": "/"}}})
    unassigned = [chr(code) for code in (0x0378, 0x1CFB, 0x1FABE, 0x2FE0, 0x3FFFD)]
    assert not all(one.isprintable() for one in unassigned), "the control: Python's table would decide"
    for one in unassigned:
        assert covers(where, {"path": f"/a/{one}"}) is None
        assert parse_where({"x": {"equals": one}}).as_value() == {"x": {"equals": one}}
    source = ast.parse(inspect.getsource(constraint))
    called = {node.func.attr for node in ast.walk(source) if isinstance(node, ast.Call) and hasattr(node.func, "attr")}
    assert not called & {"isprintable", "isalpha", "isalnum", "isspace", "lower", "upper", "casefold"}


def test_any_goes_into_the_log_by_digest_and_the_rest_verbatim() -> None:
    where = parse_where({"path": {"equals": "/p"}, "body": {"any": True}})
    rendered = render_args(where, {"path": "/p", "body": "secret"})
    assert rendered == {"path": "/p", "body": {"sha256": sha256_hex(canonical("secret"))}}
    assert covers_rendered(where, {"path": "/p", "body": "secret"}) == "argument-not-rendered"
    assert covers_rendered(where, {"path": {"sha256": "0" * 64}}) == "argument-not-among"
    with pytest.raises(FormatError):
        render_args(where, {"path": "/q"})


@pytest.mark.parametrize(
    "where",
    [
        None,
        [],
        {"X": {"any": True}},
        {"x": {}},
        {"x": {"any": False}},
        {"x": {"any": 1}},
        {"x": {"equals": None}},
        {"x": {"equals": 1.0}},
        {"x": {"equals": 2**53}},
        {"x": {"equals": "a\nb"}},
        {"x": {"equals": "\u202e"}},
        {"x": {"one_of": []}},
        {"x": {"one_of": [1, 1]}},
        {"x": {"one_of": list(range(300))}},
        {"x": {"range": {"min": 2, "max": 1}}},
        {"x": {"range": {"min": True, "max": 2}}},
        {"x": {"range": {"min": 1}}},
        {"x": {"prefix": "/a"}},
        {"x": {"prefix": {"value": "/a"}}},
        {"x": {"prefix": {"value": "/a", "separator": "/", "more": 1}}},
        {"x": {"prefix": {"value": "/a/", "separator": "/"}}},
        {"x": {"prefix": {"value": "/a/../b", "separator": "/"}}},
        {"x": {"prefix": {"value": "/../b", "separator": "/"}}},
        {"x": {"prefix": {"value": "../b", "separator": "/"}}},
        {"x": {"prefix": {"value": "/a", "separator": ""}}},
        {"x": {"prefix": {"value": "/a", "separator": "a"}}},
        {"x": {"equals": 1, "any": True}},
        {"x": {"regex": "."}},
    ],
)
def test_a_constraint_that_says_nothing_clear_is_refused(where: object) -> None:
    with refused():
        parse_where(where)


def test_one_and_true_are_different_alternatives() -> None:
    where = parse_where({"x": {"one_of": [1, True]}})
    assert covers(where, {"x": 1}) is None and covers(where, {"x": True}) is None


def test_what_is_no_digest_is_not_taken_for_a_rendered_argument() -> None:
    where = parse_where({"x": {"any": True}})
    assert covers_rendered(where, {"x": {"sha256": "0" * 64}}) is None
    for other in ("0" * 64, {"sha256": 1}, {"sha256": "A" * 64}, {"sha256": "0" * 63}, {"sha256": "0" * 64, "y": 1}):
        assert covers_rendered(where, {"x": other}) == "argument-not-rendered"


def test_a_where_is_bounded_and_so_is_what_a_prefix_matches() -> None:
    with refused():
        parse_where({f"x{number}": {"any": True} for number in range(33)})
    where = parse_where({"x": {"prefix": {"value": "/a", "separator": "/"}}})
    assert covers(where, {"x": "/a/" + "b" * 4_093}) is None
    assert covers(where, {"x": "/a/" + "b" * 4_094}) == "argument-outside-prefix"


def test_both_ends_of_a_range_belong_to_it() -> None:
    where = parse_where({"x": {"range": {"min": 1, "max": 3}}})
    assert [covers(where, {"x": value}) for value in (1, 2, 3)] == [None] * 3
    for value in (0, 4, True, "2"):
        assert covers(where, {"x": value}) == "argument-outside-range"


@pytest.mark.parametrize(
    ("most", "more"),
    [
        ({"equals": 2**53 - 1}, {"equals": 2**53}),
        ({"equals": 1 - 2**53}, {"equals": -(2**53)}),
        ({"equals": "a" * 2_048}, {"equals": "a" * 2_049}),
        ({"one_of": list(range(256))}, {"one_of": list(range(257))}),
    ],
)
def test_a_limit_of_a_constraint_can_be_met_and_not_passed(most: object, more: object) -> None:
    assert parse_where({"x" * 32: most}).as_value() == {"x" * 32: most}
    for where in ({"x": more}, {"x" * 33: most}):
        with refused():
            parse_where(where)
    assert len(parse_where({f"x{number}": most for number in range(32)}).members) == 32


def test_whatever_separates_a_prefix_a_slash_leads_nowhere_else() -> None:
    where = parse_where({"x": {"prefix": {"value": "a", "separator": ":"}}})
    assert covers(where, {"x": "a:b/c.d"}) is None
    for path in ("a:b/../c", "a:b/..", "a:../b"):
        assert covers(where, {"x": path}) == "argument-outside-prefix"


def test_renderings_are_alike_exactly_if_their_arguments_are() -> None:
    shown = {"sha256": sha256_hex(canonical("secret"))}
    assert rendered_alike({"path": "/p", "body": shown}, {"path": "/p", "body": "secret"})
    assert rendered_alike({"body": shown}, {"body": shown})
    assert not rendered_alike({"body": shown}, {"body": "other"})
    assert not rendered_alike({"body": {"sha256": "0" * 64}}, {"body": shown})
    assert not rendered_alike({"path": "/p"}, {"path": "/q"})
    assert not rendered_alike({"path": "/p"}, {"path": "/p", "body": "secret"})
    assert not rendered_alike({"body": shown}, {"body": {"x": "secret"}})
    for one, other in (("/p", "/p"), (None, {}), ({}, None), ([], [])):
        assert not rendered_alike(one, other)


def test_a_constraint_of_one_value_is_said_as_equals_and_what_is_not_covered_is_not_rendered() -> None:
    assert parse_where({"p": {"equals": 1}}).as_value() == {"p": {"equals": 1}}
    assert parse_where({"p": {"one_of": [1, 2]}}).as_value() == {"p": {"one_of": [1, 2]}}
    for args, code in (({"p": 2}, "argument-not-among"), (None, "arguments-not-an-object")):
        with pytest.raises(FormatError) as caught:
            render_args(parse_where({"p": {"equals": 1}}), args)
        assert caught.value.code == code
