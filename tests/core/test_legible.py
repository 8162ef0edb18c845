"""Text that people sign is what it looks like: a corpus of what would deceive, and of what people really write."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.canonical import FormatError
from ironbound.core.legible import (
    BIDI,
    CODES,
    CONTROL,
    INVISIBLE,
    LOOKALIKE,
    reason_of_id,
    verify_all_legible,
    verify_legible,
)
from ironbound.core.reasons import REASONS

DECEPTIVE = {
    CONTROL: ["a\nb", "a\rb", "\x00", "\x1b[31m", "tab\there", "del\x7f", "\x85", "line\u2028break", "\u2029",
              "private\ue000", "\ufffd", "\uffff", "\U0010fffd"],
    BIDI: ["gpj.\u202eexe", "\u202aabc\u202c", "\u2066x\u2069", "\u200fabc", "\u200eabc", "\u061cabc", "a\u202db"],
    INVISIBLE: ["pay\u200bpal", "a\u200cb", "a\u200db", "\ufeffstart", "soft\xadhyphen", "no\xa0break", "wide\u3000gap",
                "hangul\u3164", "tag\U000e0041", "variant\ufe0f", "a\u2060b", "em\u2003space", "braille\u2800",
                "\u180e"],
    LOOKALIKE: [
        # one script inside another
        "p\u0430ypal", "\u0440aypal", "g\u043e\u043egle", "\u0391pple", "micros\u03bfft", "\u0585range", "\u13aamazon",
        "admin\u0456strator", "te\u0455t", "\u0501ev", "\u03c1roduction", "deploy\u0443",
        # a whole word in letters that pass for Latin ones
        "\u0430\u0440\u0440\u04cf\u0435", "\u0440\u0430\u0443\u0440\u0430\u04cf", "\u0441\u0435\u043e",
        "\u0391\u0392\u0395",
        "\u13da\u13a2", "\u0440\u0430\u0443.com", "ok \u0430\u0441\u0441\u0435\u0455\u0455",
        # the same letter in a dress
        "\uff41\uff44\uff4d\uff49\uff4e", "\U0001d41a\U0001d41d\U0001d426\U0001d422\U0001d427", "\u24d0\u24d3",
        "\u1d43dmin",
        "ad\u2098in", "\ufb01le", "\u2170\u2171", "adm\u0131n", "\u017fystem", "\u0261o", "\u2102ity", "\U0001f170",
        # marks that sit on a letter, signs that pass for others
        "a\u0301dmin", "a\u0338", "x\u20dd", "example.com\u2215evil", "example.com\u2044evil", "a\u2024b", "a\uff0eb",
        "http\ua789//x", "http\u2236//x", "a\u3002b", "x\uff0fy", "O\u2032Neil", "\u201asql\u2019", "5\u2212 3",
    ],
}  # fmt: skip
HONEST = [
    "", "report.md", "OPS-1432: rotate, please (see #7)", "/records/2026/*", "Müller & Søn", "Łódź", "naïve café",
    "Zürich – Genève", "fünf €", "日本語の報告", "データ2026", "한국어", "Отчёт за июнь", "мир", "Αθήνα", "Ελλάδα",
    "שלום", "مرحبا", "नमस्ते", "สวัสดี", "Привет, world", "größe=10", "a → b", "✓ done", "Tiếng Việt",
]  # fmt: skip


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in DECEPTIVE.items() for text in texts])
def test_deceptive_text_is_refused_for_what_it_does(code: str, text: str) -> None:
    with pytest.raises(FormatError) as caught:
        verify_legible(text, "here")
    assert caught.value.code == code
    assert str(caught.value).isascii() and str(caught.value).isprintable()
    assert code in CODES and code in REASONS
    assert reason_of_id(text) == code
    for value in ({"a": [text]}, {text: 1}, [{"x": {"y": text}}]):
        with pytest.raises(FormatError):
            verify_all_legible(value, "here")


@pytest.mark.parametrize("text", HONEST)
def test_what_people_write_is_not_refused(text: str) -> None:
    assert verify_legible(unicodedata.normalize("NFC", text), "here") == unicodedata.normalize("NFC", text)
    verify_all_legible({"a": [text, 1, None, True]}, "here")


def test_in_an_id_every_letter_beyond_ascii_passes_for_another() -> None:
    for text in HONEST:
        assert reason_of_id(text) == (None if text.isascii() else LOOKALIKE)


@given(st.text(max_size=20))
def test_any_text_is_returned_or_refused_with_one_of_the_codes(text: str) -> None:
    try:
        assert verify_legible(text, "here") is text
    except FormatError as error:
        assert error.code in CODES


@given(st.characters())
def test_what_unicode_calls_a_control_a_format_mark_or_a_separator_never_passes(char: str) -> None:
    if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Co", "Cn") and ord(char) in (*range(0xA0), 0x2028, 0x2029):
        with pytest.raises(FormatError):
            verify_legible(char, "here")


def test_no_format_mark_of_unicode_passes() -> None:
    """All of category Cf that a renderer hides or obeys; those that show as a sign of their own script are left."""
    shown = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13460),
             *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B)}  # fmt: skip
    for code in range(0x110000):
        if unicodedata.category(chr(code)) == "Cf" and code not in shown:
            with pytest.raises(FormatError):
                verify_legible(chr(code), "here")
