"""What a signer reads: every signed field in words, nothing else, and the same on every screen."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.canonical import sha256_hex
from ironbound.core.request import NO_LIMITS
from ironbound.core.shown import as_text, clock, shown_rows, shown_text, span
from ironbound.core.statement import ACTS, parse_statement
from ironbound.core.words import COUNT, WORDS, words_of
from verifier.lab import DAY, digest_of, honest

SCENE = honest()
LAB = SCENE.lab
LAUNCH: dict[str, Any] = {"agent": "newcomer", "module_sha256": SCENE.module, "config_sha256": SCENE.cage}
WHERE: dict[str, Any] = {
    "host": {"equals": "127.0.0.1"}, "method": {"one_of": ["GET", "HEAD"]}, "port": {"range": {"min": 1, "max": 9}},
    "path": {"prefix": {"value": "/records", "separator": "/"}}, "query": {"any": True},
}  # fmt: skip
GRANT: dict[str, Any] = {
    "tool": "records.fetch", "action": "http.request", "where": WHERE, "calls": 50, "expires_ms": LAB.now + DAY,
    "credential": None, **NO_LIMITS,
}  # fmt: skip


def predicate(**fields: Any) -> dict[str, Any]:
    return parse_statement(LAB.request("grant", **LAUNCH, body=GRANT).payload).predicate | fields


def test_every_signed_field_changes_the_text() -> None:
    said = predicate()
    text = shown_text("grant", said)
    assert all(" " <= char <= "~" or char == "\n" for char in text)
    for field, other in {
        "deployment": "other", "id": "ab" * 16, "agent": "other", "module_sha256": digest_of("1"),
        "config_sha256": digest_of("2"), "capability": {"before": ["ab" * 16], "after": []}, "not_before_ms": 1,
        "expires_ms": 2, "log_head": {"size": 1, "root": "x"}, "proposal": digest_of("3"), "ticket": "T",
        "body": said["body"] | {"calls": 2},
    }.items():  # fmt: skip
        assert shown_text("grant", said | {field: other}) != text, f"{field} is not shown"
    assert len(said.keys() - {"version", "shown_sha256"}) == 12
    assert len({shown_text(kind, said) for kind in ACTS}) == len(ACTS)
    for field, other in {
        "tool": "x", "action": "x", "where": WHERE | {"query": {"equals": ""}}, "calls": 51, "expires_ms": 5,
        "credential": "c", "rate": {"calls": 5, "window_ms": 60000}, "approvals": 1, "delegable": 1,
        "budget": {"unit": "bytes", "total": 9, "call": 3}, "something new": 1,
    }.items():  # fmt: skip
        changed = predicate(body=GRANT | {field: other})
        assert shown_text("grant", changed) != text, f"{field} is not shown"


def test_words_say_what_is_open() -> None:
    asked = predicate()
    rows = shown_rows("grant", asked)
    said = {row.label: (row.value, row.wide) for row in rows if row.part}
    assert said["host"] == ('exactly "127.0.0.1"', False)
    assert said["method"] == ('one of "GET" or "HEAD"', False)
    assert said["port"] == ("a number from 1 to 9", True)
    assert said["path"] == ('"/records" itself, or ANYTHING below it, behind a "/"', True)
    assert said["query"] == ("ANYTHING, or nothing", True)
    assert said["all others"] == ("refused", False)
    text = shown_text("grant", asked)
    assert text == as_text(rows)
    assert re.search(r"^request {8}grant a capability$", text, re.MULTILINE)
    assert re.search(r"^calls {10}at most 50 times$", text, re.MULTILINE)
    assert "UTC (" in text


def test_no_value_can_be_laid_out_as_rows_of_its_own() -> None:
    """Where a terminal breaks the line, the rest would stand there as a row: label, spaces, value."""
    forged = "OPS-7" + " " * 60 + "calls          at most once"
    args = {"text": forged, f"a{' ' * 20}b": 1}
    for text in (
        shown_text("grant", predicate(ticket=forged)),
        shown_text("grant", predicate(body=GRANT | {"where": {"text": {"equals": forged}}})),
        shown_text("call-approval", predicate(body={"grant": "ab" * 16, "tool": "t", "args": args})),
    ):
        assert not re.search("[^ ] {2,}at most once", text) and "calls \\u0020\\u0020" in text
        assert all(not re.search(" {2}", line[15:]) for line in text.splitlines() if not line.startswith("  a "))
    assert shown_text("grant", predicate(ticket="a  b")) != shown_text("grant", predicate(ticket="a b"))
    assert shown_text("grant", predicate(ticket="a  b")) != shown_text("grant", predicate(ticket="a \\u0020b"))


def test_before_and_after_are_told_apart() -> None:
    one, two = "ab" * 16, "cd" * 16
    gained = shown_text("grant", predicate(capability={"before": [one], "after": [one, two]}))
    assert f"holds before   1 grant: {one}\nholds after    2 grants: {one} {two}\n  gains        {two}\n" in gained
    lost = shown_text("revocation", predicate(capability={"before": [one], "after": []}))
    assert f"  loses        {one}\n" in lost and "gains" not in lost
    assert "  changes      no grant\n" in shown_text("stop", predicate(capability={"before": [one], "after": [one]}))


@pytest.mark.parametrize("strange", [{"any": False}, {"like": "x"}, {"equals": 1, "any": True}, 7, [], {}, None,
                                     {"prefix": "x"}, {"range": []}, {"one_of": 3}])  # fmt: skip
def test_a_constraint_that_is_none_is_shown_as_it_is_and_marked(strange: Any) -> None:
    rows = shown_rows("grant", predicate(body=GRANT | {"where": {"host": strange}}))
    assert next(row.wide for row in rows if row.label == "host")


@given(st.integers(0, 253_402_300_799_999))
def test_a_moment_is_the_one_that_the_calendar_says(at_ms: int) -> None:
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    assert clock(at_ms) == f"{moment:%Y-%m-%d %H:%M:%S}".rjust(19, "0") + f" UTC ({at_ms})"


def test_a_moment_beyond_four_digits_is_a_number() -> None:
    assert clock(253_402_300_800_000) == "253402300800000 ms"
    assert clock(1 << 52) == f"{1 << 52} ms"
    assert (span(60_000), span(86_400_000), span(1500), span(0)) == (
        "1 minutes", "1 days", "1500 milliseconds", "0 milliseconds")  # fmt: skip


def test_a_digest_has_the_same_words_everywhere() -> None:
    assert len(WORDS) == len(set(WORDS)) == 256 and len({word[:3] for word in WORDS}) == 256
    assert all(re.fullmatch("[a-z]{4,7}", word) for word in WORDS)
    assert words_of(sha256_hex(b"")) == " ".join(WORDS[one] for one in bytes.fromhex("e3b0c44298fc1c14"))
    assert words_of(sha256_hex(b"")) == "tuxedo polar scarf dinner nutmeg yogurt bronze berry"


@given(st.binary(min_size=COUNT, max_size=COUNT), st.binary(min_size=COUNT, max_size=COUNT))
def test_other_words_for_other_bytes(one: bytes, other: bytes) -> None:
    tail = "00" * (32 - COUNT)
    assert (words_of(one.hex() + tail) == words_of(other.hex() + tail)) == (one == other)  # type: ignore[arg-type]


def test_every_kind_that_is_signed_has_a_title_in_words() -> None:
    titles = {shown_rows(kind, predicate())[0].value for kind in ACTS}
    assert len(titles) == len(ACTS) and all(" " in title for title in titles)
