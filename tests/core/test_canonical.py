"""Untrusted bytes become a value in one way only, or a FormatError."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironbound.core import canonical as c
from ironbound.core.canonical import FormatError

# JSONTestSuite lets duplicate keys pass, since RFC 8259 only advises against them. We refuse them.
REFUSED_THOUGH_VALID = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-c.MAX_INTEGER, c.MAX_INTEGER) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=25,
)


def refused(code: str, data: bytes, limit: int = 1000) -> None:
    with pytest.raises(FormatError) as caught:
        c.parse_canonical(data, limit=limit)
    assert caught.value.code == code


def test_the_reader_accepts_and_refuses_what_jsontestsuite_says(shared_data: Path) -> None:
    cases = json.loads((shared_data / "json-parsing" / "test_parsing.json").read_bytes())
    counted = {"y": 0, "n": 0, "i": 0}
    for name, encoded in cases.items():
        data = base64.b64decode(encoded)
        counted[name[0]] += 1
        try:
            c.parse_json(data, limit=1 << 20)
            parsed = True
        except FormatError:
            parsed = False
        if name[0] == "y":
            assert parsed == (name not in REFUSED_THOUGH_VALID), name
        elif name[0] == "n":
            assert not parsed, name
    assert counted["y"] > 90 and counted["n"] > 180 and counted["i"] > 30


def test_strings_and_literals_are_written_as_rfc_8785_shows() -> None:
    data = rb"""{"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
    expected = '{"literals":[null,true,false],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    assert c.canonical(c.parse_json(data, limit=1000)) == expected.encode()


def test_keys_are_sorted_by_utf16_code_units_as_rfc_8785_shows() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\u00f6"]
    expected = ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    data = c.canonical(dict.fromkeys(names))
    assert list(json.loads(data)) == expected
    parsed = c.parse_canonical(data, limit=1000)
    assert isinstance(parsed, dict) and set(parsed) == set(names)
    by_code_point = json.dumps(dict.fromkeys(sorted(names)), ensure_ascii=False, separators=(",", ":"))
    refused("not-canonical", by_code_point.encode())


@settings(deadline=None)
@given(values)
def test_parsing_what_was_written_gives_the_value_and_writing_it_again_the_bytes(value: Any) -> None:
    data = c.canonical(value)
    assert c.parse_canonical(data, limit=len(data)) == value
    assert c.parse_json(data, limit=len(data)) == value
    assert c.canonical(c.parse_canonical(data, limit=len(data))) == data


@settings(deadline=None)
@given(values, st.data())
def test_no_changed_byte_leaves_a_canonical_document_with_the_same_value(value: Any, data: st.DataObject) -> None:
    document = bytearray(c.canonical(value))
    at = data.draw(st.integers(0, len(document) - 1))
    document[at] ^= data.draw(st.integers(1, 255))
    try:
        # 1 == True in Python, so values are compared by what they are written as.
        assert c.canonical(c.parse_canonical(bytes(document), limit=len(document))) == bytes(document)
    except FormatError:
        pass


@settings(deadline=None)
@given(st.binary() | st.text('[]{}",:\\ud80ntrefals0123456789.-+eE \n').map(str.encode))
def test_garbage_is_a_value_or_a_format_error(data: bytes) -> None:
    for parse in (c.parse_json, c.parse_canonical):
        try:
            parse(data, limit=100)
        except FormatError as error:
            assert error.code and str(error).startswith(error.code)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',
        b'{"a":1}\n',
        b' {"a":1}',
        b'{"b":1,"a":2}',
        b'{"a":-0}',
        b'"\\u0041"',
        b'"\\/"',
        b'"\\u001F"',
        b'"\\u000a"',
        b'"\\u00e9"',
        b'"\\ud83d\\ude00"',
    ],
)
def test_a_second_spelling_is_refused(data: bytes) -> None:
    assert c.parse_canonical(c.canonical(c.parse_json(data, limit=1000)), limit=1000) is not None
    refused("not-canonical", data)


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("duplicate-key", b'{"a":1,"a":1}'),
        ("duplicate-key", b'{"a":{"b":1,"b":2}}'),
        ("number-not-integer", b"1.0"),
        ("number-not-integer", b"1e2"),
        ("number-out-of-range", b"9007199254740992"),
        ("number-out-of-range", b"-9007199254740992"),
        ("number-out-of-range", b"1" * 900),
        ("number-not-finite", b"NaN"),
        ("number-not-finite", b"-Infinity"),
        ("lone-surrogate", b'"\\ud800"'),
        ("lone-surrogate", b'{"\\uDFFF":1}'),
        ("not-utf8", b'"\xff"'),
        ("not-utf8", b'"\xed\xa0\x80"'),
        ("not-json", b'\xef\xbb\xbf"a"'),
        ("not-json", b""),
        ("not-json", b"1_0"),
        ("not-json", "\u0661".encode()),
        ("too-deep", b"[" * 65 + b"]" * 65),
        ("too-large", b'"' + b"a" * 1000 + b'"'),
    ],
)
def test_each_failure_has_its_code(code: str, data: bytes) -> None:
    refused(code, data)


def test_nesting_is_counted_outside_strings_only() -> None:
    deepest = b"[" * 64 + b"]" * 64
    assert c.canonical(c.parse_canonical(deepest, limit=1000)) == deepest
    brackets = c.canonical(["[{" * 100, '\\"[' * 100, {}])
    assert c.canonical(c.parse_canonical(brackets, limit=1000)) == brackets
    wide = c.canonical([[]] * 200)
    assert c.canonical(c.parse_canonical(wide, limit=1000)) == wide


def test_a_million_brackets_or_escapes_are_refused_and_not_a_crash() -> None:
    for data in (b"[" * 1_000_000, b'{"a":' * 200_000, b"[" * 70 + b'"' + b'\\"' * 400_000):
        with pytest.raises(FormatError):
            c.parse_json(data, limit=1_000_000)


def test_a_caller_who_allows_any_depth_gets_a_format_error_too() -> None:
    with pytest.raises(FormatError) as caught:
        c.parse_json(b"[" * 500_000, limit=1_000_000, depth=1_000_000)
    assert caught.value.code == "too-deep"


def test_an_integer_of_a_thousand_digits_is_refused_where_any_integer_is_allowed() -> None:
    assert c.parse_json(b"9" * 400, limit=1000) == int("9" * 400)
    with pytest.raises(FormatError) as caught:
        c.parse_json(b"9" * 401, limit=1000)
    assert caught.value.code == "number-out-of-range"


def test_half_a_surrogate_pair_is_found_wherever_it_stands_and_a_whole_one_is_read() -> None:
    assert c.parse_json(b'[1,{"a":["\\ud83d\\ude00"]},null]', limit=100) == [1, {"a": ["\U0001f600"]}, None]
    for data in (b'[1,{"a":["\\ude00"]}]', b'[null,{"a":2,"\\uD83D":1}]'):
        with pytest.raises(FormatError) as caught:
            c.parse_json(data, limit=100)
        assert caught.value.code == "lone-surrogate"


def test_the_net_below_the_parsers_holds() -> None:
    c.require_same(b"a", b"a", "thing")
    with pytest.raises(FormatError):
        c.require_same("a", "b", "thing")


def test_an_infinite_number_is_refused_where_fractions_are_allowed() -> None:
    assert c.parse_json(b"[1.5,-2E+1]", limit=100) == [1.5, -20.0]
    with pytest.raises(FormatError) as caught:
        c.parse_json(b"1e999", limit=100)
    assert caught.value.code == "number-not-finite"


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("number-not-integer", 1.0),
        ("number-not-integer", [float("nan")]),
        ("number-out-of-range", 2**53),
        ("not-a-value", {1: 2}),
        ("not-a-value", b"bytes"),
        ("not-a-value", (1, 2)),
        ("lone-surrogate", "\ud800"),
        ("lone-surrogate", {"\udfff": 1}),
        ("lone-surrogate", ["\U0001f600", {"\udfff": 1}]),
    ],
)
def test_what_has_no_canonical_form_cannot_be_written(code: str, value: Any) -> None:
    with pytest.raises(FormatError) as caught:
        c.canonical(value)
    assert caught.value.code == code


def test_a_value_that_holds_itself_cannot_be_written() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(FormatError) as caught:
        c.canonical(loop)
    assert caught.value.code == "too-deep"


@given(st.binary())
def test_base64_and_hex_give_back_their_bytes(data: bytes) -> None:
    assert c.b64decode(c.b64encode(data)) == data
    assert c.b64encode(data) == base64.b64encode(data).decode()
    assert c.hex_bytes(data.hex(), len(data)) == data


@pytest.mark.parametrize(
    "text",
    [
        "QQ",
        "QQ=",
        "QR==",
        "QQ==\n",
        " QQ==",
        "Q Q==",
        "QU!JD",
        "QQ==QQ==",
        "-_8=",
        "=",
        "QQ===",
        "\u0661\u0661\u0661\u0661",
    ],
)
def test_lax_base64_is_refused(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        c.b64decode(text)
    assert caught.value.code == "base64"


@given(st.text())
def test_any_text_is_base64_or_a_format_error(text: str) -> None:
    try:
        assert c.b64encode(c.b64decode(text)) == text
    except FormatError:
        pass


@pytest.mark.parametrize("text", ["AB", "0x", "a", "abc", "ab\n", " ab", "a b", "", "\u0661\u0661"])
def test_lax_hexadecimal_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        c.hex_bytes(text, 1)


def test_a_digest_is_sixty_four_lower_case_digits() -> None:
    assert c.parse_digest(c.sha256_hex(b"")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(FormatError):
        c.parse_digest(c.sha256_hex(b"").upper())


@given(st.integers(0, c.MAX_DECIMAL))
def test_decimals_give_back_their_number(number: int) -> None:
    assert c.parse_decimal(str(number)) == number


@pytest.mark.parametrize(
    "text", ["", "00", "01", "+1", "-0", "-1", " 7", "7 ", "7\n", "1_0", "0x1", "1.0", "\u0661", str(2**63), "9" * 5000]
)
def test_lax_decimals_are_refused(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        c.parse_decimal(text)
    assert caught.value.code == "decimal"
