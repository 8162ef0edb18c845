"""Quotes: the enrolled TPM's own words over this very launch count, and nothing else does."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.canonical import Digest, FormatError, b64decode, b64encode
from ironbound.core.keys import SignatureInvalid
from ironbound.core.tpm import (
    Attested,
    enrolled_key,
    measured,
    parse_public,
    qualifying,
    verify_quote,
)
from verifier.quoter import ATTRIBUTES, Quoter, sized

NONCE = "00112233445566778899aabbccddeeff"
WORDS = {"launch": 7, "agent": "clerk"}
MEASUREMENT = measured("started", WORDS)
EXPECTED = qualifying(NONCE, bytes(32), MEASUREMENT)


def check(
    quote: dict[str, Any], quoter: Quoter, expected: bytes = EXPECTED, measurement: Digest = MEASUREMENT
) -> Attested:
    return verify_quote(enrolled_key(quoter.enrolment), quote, expected, measurement)


def test_a_quote_over_this_launch_says_what_the_register_was_before_and_after() -> None:
    quoter = Quoter()
    first = check(quoter.quote(MEASUREMENT, EXPECTED), quoter)
    second = check(quoter.quote(MEASUREMENT, EXPECTED), quoter)
    assert first.before == bytes(32) and second.before == first.after and second.clock > first.clock
    assert first.after == sha256(bytes(32) + bytes.fromhex(MEASUREMENT)).digest()


def test_what_is_measured_is_every_word_but_those_that_come_later() -> None:
    said = WORDS | {"id": "1", "deployment": "d", "at_ms": 5, "quote": None}
    assert measured("started", said) == MEASUREMENT
    assert measured("started", said | {"launch": 8}) != MEASUREMENT
    assert measured("canary-result", said) != MEASUREMENT
    roots = (bytes(32), b"1" * 32)
    assert len({qualifying(nonce, root, MEASUREMENT) for nonce in (None, NONCE) for root in roots}) == 4


WRONG: dict[str, dict[str, bytes]] = {
    "another magic": {"magic": b"\xffTCH"},
    "a certification instead of a quote": {"type": b"\x80\x17"},
    "another key's name": {"signer": sized(b"\x00\x0b" + bytes(32))},
    "another nonce": {"extra": sized(qualifying("ff" * 16, bytes(32), MEASUREMENT))},
    "no nonce": {"extra": sized(b"")},
    "a safe flag that is none": {"safe": b"\x02"},
    "another register": {"selection": bytes.fromhex("00000001000b03008000")},
    "more registers": {"selection": bytes.fromhex("00000001000b03014000")},
    "the SHA-1 bank": {"selection": bytes.fromhex("00000001000403004000")},
    "no register": {"selection": bytes.fromhex("00000000")},
    "another value": {"digest": sized(sha256(b"another").digest())},
    "a byte too many": {"end": b"\x00"},
    "a byte too few": {"digest": sized(sha256(b"").digest())[:-1]},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_quote_with_one_thing_wrong_is_refused_though_its_signature_holds(name: str) -> None:
    quoter = Quoter(wrong=WRONG[name])
    with pytest.raises((FormatError, SignatureInvalid)):
        check(quoter.quote(MEASUREMENT, EXPECTED), quoter)


def test_a_quote_by_another_key_is_refused() -> None:
    other = Quoter(seed=2)
    other.name = Quoter().name
    with pytest.raises(SignatureInvalid):
        check(other.quote(MEASUREMENT, EXPECTED), Quoter())


def test_a_quote_for_another_launch_nonce_or_log_is_refused() -> None:
    quoter = Quoter()
    quote = quoter.quote(MEASUREMENT, EXPECTED)
    check(quote, quoter)
    for expected in (qualifying(None, bytes(32), MEASUREMENT), qualifying(NONCE, b"1" * 32, MEASUREMENT)):
        with pytest.raises(SignatureInvalid):
            check(quote, quoter, expected)
    with pytest.raises(SignatureInvalid):
        check(quote, quoter, EXPECTED, measured("started", WORDS | {"launch": 8}))
    with pytest.raises(SignatureInvalid):
        check(quote | {"before": "11" * 32}, quoter)


@given(st.data())
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject) -> None:
    quoter = Quoter()
    quote = quoter.quote(MEASUREMENT, EXPECTED)
    part = data.draw(st.sampled_from(["attest", "signature"]))
    raw = bytearray(b64decode(quote[part]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((FormatError, SignatureInvalid)):
        check(quote | {part: b64encode(bytes(raw))}, quoter)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_quote_or_one_of_two_errors(data: bytes) -> None:
    quoter = Quoter()
    quote = quoter.quote(MEASUREMENT, EXPECTED)
    for part in ("attest", "signature"):
        with pytest.raises((FormatError, SignatureInvalid)):
            check(quote | {part: b64encode(data)}, quoter)
    with pytest.raises(FormatError):
        parse_public(data)


@pytest.mark.parametrize("bit", [1, 4, 5, 16, 18, 17])
def test_a_key_that_could_sign_other_things_or_leave_its_tpm_can_not_be_enrolled(bit: int) -> None:
    with pytest.raises(FormatError, match="restricted signing key"):
        parse_public(Quoter().public(ATTRIBUTES ^ 1 << bit))


def test_a_public_area_with_anything_else_can_not_be_enrolled() -> None:
    public = Quoter().public()
    parse_public(public)
    for place, wrong in ((0, b"\x00\x08"), (2, b"\x00\x04"), (10, b"\x00\x06"), (12, b"\x00\x1a"), (16, b"\x00\x04")):
        with pytest.raises(FormatError):
            parse_public(public[:place] + wrong + public[place + 2 :])
    for other in (public + b"\x00", public[:-1], b"", public[:-1] + bytes([public[-1] ^ 1]), b"\x00" * 2000):
        with pytest.raises(FormatError):
            parse_public(other)
