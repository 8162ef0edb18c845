"""Text that people are asked to sign: whether it is what it looks like.

Decides whether a string could be read as another one than it is: by control characters, by marks that reorder or hide
text, by letters that look like others (UTS #39 names the danger; the tables are our own, so that every version of
Python decides alike). It does not decide what a string means.

Rule 1: an id is ASCII by its shape; what is refused there for being something else is named by what it would do.
Rule 2: elsewhere a word is written in one script, and not only in letters that pass for Latin ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from .canonical import FormatError

CONTROL: Final = "text-control-character"
BIDI: Final = "text-bidirectional"
INVISIBLE: Final = "text-invisible"
LOOKALIKE: Final = "text-look-alike"
CODES: Final = frozenset({CONTROL, BIDI, INVISIBLE, LOOKALIKE})

_FORBIDDEN: Final = (
    (
        CONTROL,
        re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufff9-\uffff\ue000-\uf8ff\U000f0000-\U0010ffff]"),
    ),
    (BIDI, re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")),
    (
        INVISIBLE,
        re.compile(
            "[\xa0\xad\u034f\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200d\u202f\u205f-\u2065\u206a-\u206f"
            "\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
        ),
    ),
    # Letters in a dress (superscript, circled, mathematical, full width), marks that sit on others, signs that pass
    # for a dot, a colon, a slash or a quotation mark of ASCII.
    (
        LOOKALIKE,
        re.compile(
            "[\xaa\xb2\xb3\xb4\xb7-\xba\u0131\u0138\u017f\u0180-\u036f\u1ab0-\u1aff\u1c80-\u1c8f\u1d00-\u1dff"
            "\u2016-\u201b\u2024\u2025\u2032-\u203a\u2044\u204e\u2070-\u209f\u20d0-\u20ff\u2100-\u218f\u2212\u2215-\u2219"
            "\u2223\u2236\u223c\u2460-\u24ff\u2571-\u2573\u29f5-\u29f9\u2c60-\u2cff\u3002\u3003\u3033-\u3035\u303b"
            "\u30fb\u3200-\u33ff\ua640-\ua69f\ua720-\ua7ff\uab30-\uabbf\ufb00-\ufb4f\ufe10-\ufe6f\uff01-\uff9f"
            "\U00010400-\U0001044f\U0001d400-\U0001d7ff\U0001f100-\U0001f1ff]"
        ),
    ),
)
#: Ranges of letters by script; what stands in none of them is a script of its own and mixes with nothing.
_SCRIPTS: Final = (
    ("latin", 0x41, 0x24F),
    ("latin", 0x1E00, 0x1EFF),
    ("greek", 0x370, 0x3FF),
    ("greek", 0x1F00, 0x1FFF),
    ("cyrillic", 0x400, 0x52F),
    ("armenian", 0x530, 0x58F),
    ("hebrew", 0x590, 0x5FF),
    ("arabic", 0x600, 0x77F),
    ("devanagari", 0x900, 0x97F),
    ("thai", 0xE00, 0xE7F),
    ("georgian", 0x10A0, 0x10FF),
    ("east-asian", 0x1100, 0x11FF),
    ("cherokee", 0x13A0, 0x13FF),
    ("east-asian", 0x3005, 0x30FF),
    ("east-asian", 0x3400, 0x9FFF),
    ("lisu", 0xA4D0, 0xA4FF),
    ("east-asian", 0xAC00, 0xD7A3),
    ("east-asian", 0x20000, 0x3134F),
)
#: Letters of other scripts that are drawn as a Latin letter or digit is.
_LATIN_TWINS: Final = frozenset(
    "АВЕКМНОРСТХаеорсухіјѕԁԛԝһӏЅІЈҮүԌԍѵѴ"  # Cyrillic
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαγηικνορτυχϲϳωσ"  # Greek
    "օսոցհՕՍԼաոքյ"  # Armenian
)
_WHOLE_TWINS: Final = frozenset({"cherokee", "lisu"})
#: Letters and digits, by ranges and not by Python's tables, which change with its version.
_WORD: Final = re.compile(
    "[0-9A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\u1fff\u2c00-\u2dff\u3005-\u3007\u3021-\ufdff\U00010000-\U0003ffff]+"
)


def verify_legible(text: str, where: str) -> str:
    """The text, if people read it as it is; FormatError with one of CODES if it could be taken for another."""
    if text.isascii() and text.isprintable():
        return text
    for code, pattern in _FORBIDDEN:
        found = pattern.search(text)
        if found:
            raise FormatError(code, f"{where} holds U+{ord(found[0]):04X}")
    for word in _WORD.findall(text):
        scripts = {_script(char) for char in word if char not in "0123456789"}
        if len(scripts) > 1:
            raise FormatError(LOOKALIKE, f"{where}: {word[:40]!a} mixes {' and '.join(sorted(scripts))} letters")
        if scripts <= _WHOLE_TWINS and scripts or (scripts != {"latin"} and word and set(word) <= _LATIN_TWINS):
            raise FormatError(LOOKALIKE, f"{where}: {word[:40]!a} passes for a Latin word")
    return text


def danger_of(text: str) -> str | None:
    """The first of CODES for which some character of the text is one; None if none is, whatever words it makes."""
    if text.isascii() and text.isprintable():
        return None
    return next((code for code, pattern in _FORBIDDEN if pattern.search(text)), None)


def reason_of_id(text: str) -> str | None:
    """Why a string that should be an id is a danger and not only misspelled; None if it is only that."""
    for code, pattern in _FORBIDDEN:
        if pattern.search(text):
            return code
    return None if text.isascii() else LOOKALIKE


def verify_all_legible(value: Any, where: str) -> None:
    """Every string of a JSON value, names of members included, is legible; FormatError as `verify_legible`."""
    for text, place in _strings(value, where):
        verify_legible(text, place)


def _strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield value, where
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name, f"a name in {where}"
            yield from _strings(item, f"{where}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, where)


def _script(char: str) -> str:
    code = ord(char)
    return next((name for name, low, high in _SCRIPTS if low <= code <= high), f"U+{code >> 8:02X}xx")
