"""Canonical bytes: the one place where untrusted text becomes values.

Decides whether bytes are strict JSON (RFC 8259), whether they are their own canonical form (RFC 8785, JCS),
and whether base64, hexadecimal and decimal strings are the single spelling of what they mean. It gives no
meaning to the values and knows no schema.

Ironbound's documents hold integers only. RFC 8785 would serialise fractions as ECMAScript does; we refuse
them instead, so that no two implementations can disagree about a number.

Rule 1: one value has one spelling. Whatever does not re-encode to the bytes that came in is refused.
Rule 2: a parser raises FormatError and nothing else, and refuses input above its limit before it looks
inside.
Rule 3: no duplicate keys, no lone surrogates, no NaN or infinity, nesting is bounded.
"""

import binascii
import hashlib
import json
import re
from typing import Any, NewType, NoReturn, TypeAlias

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"

Digest = NewType("Digest", str)
"""A SHA-256 digest as 64 lower-case hexadecimal digits."""

MAX_DEPTH = 64
"""Containers within containers, in anything that is parsed or encoded."""
MAX_INTEGER = 2**53 - 1
"""Greatest magnitude of an integer in canonical JSON (RFC 8785 §3.1, I-JSON)."""
MAX_DECIMAL = 2**63 - 1
"""Greatest number that `parse_decimal` returns: sizes and times fit a signed 64-bit integer."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_TO_URL, _FROM_URL = str.maketrans("+/", "-_"), str.maketrans("-_", "+/")
_HEX = re.compile(r"(?:[0-9a-f]{2})*")
# A string matches as far as it goes, closed or not, so that the scan stays linear; the decoder judges it.
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class FormatError(Exception):
    """Input lacks the form that its specification gives it. `code` is stable; the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def require_same(again: str | bytes, came: str | bytes, what: str) -> None:
    """Raise FormatError unless what was written again is what came in: the net below every parser of Rule 1."""
    if again != came:
        raise FormatError("not-canonical", f"the {what} is not spelled as it would be written")


def sha256_hex(data: bytes) -> Digest:
    """SHA-256 of data in lower-case hexadecimal."""
    return Digest(hashlib.sha256(data).hexdigest())


# Reading JSON


def _refuse_constant(name: str) -> NoReturn:
    raise FormatError("number-not-finite", f"{name} is not a JSON number")


def _refuse_fraction(text: str) -> NoReturn:
    raise FormatError("number-not-integer", f"expected an integer, got {text[:40]}")


def _read_fraction(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise FormatError("number-not-finite", f"{text[:40]} is out of range")
    return number


def _read_integer(text: str) -> int:
    if len(text) > 400:
        raise FormatError("number-out-of-range", f"an integer of {len(text)} digits")
    return int(text)


def _read_safe_integer(text: str) -> int:
    if len(text) > 17 or not -MAX_INTEGER <= (number := int(text)) <= MAX_INTEGER:
        raise FormatError("number-out-of-range", f"expected at most 2^53 - 1 in magnitude, got {text[:40]}")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise FormatError("duplicate-key", f"a key stands twice in one object: {', '.join(members)[:200]!a}")
    return members


# The decoder of the standard library is RFC 8259 but for what the hooks refuse.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_read_integer,
    parse_float=_read_fraction,
    parse_constant=_refuse_constant,
)
_CANONICAL_DECODER = json.JSONDecoder(
    parse_int=_read_safe_integer, parse_float=_refuse_fraction, parse_constant=_refuse_constant
)


def _text(data: bytes, limit: int, depth: int) -> str:
    if len(data) > limit:
        raise FormatError("too-large", f"expected at most {limit} bytes, got {len(data)}")
    try:
        text = str(data, "utf-8", "strict")
    except UnicodeDecodeError as error:
        raise FormatError("not-utf8", f"invalid UTF-8 at byte {error.start}") from None
    if text.count("[") + text.count("{") > depth:
        _check_depth(text, depth)
    return text


def _check_depth(text: str, depth: int) -> None:
    level = 0
    for match in _BRACKETS.finditer(text):
        token = match.group()
        if token in "[{":
            level += 1
            if level > depth:
                raise FormatError("too-deep", f"expected at most {depth} levels of nesting")
        elif token in "]}":
            level -= 1


def _decode(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        return decoder.decode(text)
    except RecursionError:
        raise FormatError("too-deep", "nesting exhausts the parser") from None
    except ValueError as error:
        raise FormatError("not-json", str(error)[:200]) from None


def _has_lone_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, list):
        return any(_has_lone_surrogate(item) for item in value)
    if isinstance(value, dict):
        return any(_has_lone_surrogate(name) or _has_lone_surrogate(item) for name, item in value.items())
    return False


def parse_json(data: bytes, *, limit: int, depth: int = MAX_DEPTH) -> Value:
    """Parse strict RFC 8259 JSON of at most `limit` bytes and `depth` levels, in any spelling."""
    text = _text(data, limit, depth)
    value: Value = _decode(_DECODER, text)
    if ("\\ud" in text or "\\uD" in text) and _has_lone_surrogate(value):
        raise FormatError("lone-surrogate", "a string holds half of a surrogate pair")
    return value


def parse_canonical(data: bytes, *, limit: int) -> Value:
    """Parse JSON that is its own RFC 8785 form; refuses every other spelling ('not-canonical')."""
    text = _text(data, limit, MAX_DEPTH)
    # No hook for duplicate keys here: one of them gets lost, so the re-encoding is shorter and differs.
    value: Value = _decode(_CANONICAL_DECODER, text)
    if _encode(value, _has_astral(text)) != text:
        parse_json(data, limit=limit)
        raise FormatError("not-canonical", "the document is not its own RFC 8785 form")
    return value


# Writing JSON

_SORTING_ENCODER = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), sort_keys=True
)
_ORDERED_ENCODER = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), sort_keys=False
)


def _encode(value: Value, astral: bool) -> str:
    # Sorting by code point is sorting by UTF-16 code units, unless a character beyond U+FFFF takes part.
    if astral:
        return _ORDERED_ENCODER.encode(_in_utf16_order(value))
    return _SORTING_ENCODER.encode(value)


def _has_astral(text: str) -> bool:
    # A character beyond U+FFFF takes two UTF-16 code units. A proof or a checkpoint is never ASCII: "—" is in it.
    return not text.isascii() and len(text.encode("utf-16-le", "surrogatepass")) != 2 * len(text)


def _in_utf16_order(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_utf16_order(item) for item in value]
    if isinstance(value, dict):
        # A lone surrogate can only come from an escape, which never survives the comparison with the input.
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return {name: _in_utf16_order(value[name]) for name in names}
    return value


def _check(value: Any, depth: int) -> None:
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise FormatError("number-out-of-range", "expected at most 2^53 - 1 in magnitude")
        return
    if isinstance(value, float):
        raise FormatError("number-not-integer", f"expected an integer, got {value}")
    if depth == 0:
        raise FormatError("too-deep", f"expected at most {MAX_DEPTH} levels of nesting")
    if isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise FormatError("not-a-value", f"expected a string as key, got {type(name).__name__}")
            _check(item, depth - 1)
    else:
        raise FormatError("not-a-value", f"{type(value).__name__} has no JSON form")


def canonical(value: Value) -> bytes:
    """The RFC 8785 form of a value. Fractions, integers beyond 2^53 - 1 and lone surrogates are refused."""
    _check(value, MAX_DEPTH)
    text = _SORTING_ENCODER.encode(value)
    if _has_astral(text):
        text = _encode(value, True)
    try:
        return text.encode("utf-8", "strict")
    except UnicodeEncodeError:
        raise FormatError("lone-surrogate", "a string holds half of a surrogate pair") from None


# Small spellings


def b64encode(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 §4)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def b64decode(text: str) -> bytes:
    """The bytes of standard, padded base64; no other alphabet, white space or non-zero trailing bits."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise FormatError("base64", "not standard base64") from None
    if b64encode(data) != text:
        raise FormatError("base64", "not the one spelling of these bytes")
    return data


def base64url(data: bytes) -> str:
    """base64url without padding (RFC 4648 §5), as browsers and JOSE spell it."""
    return b64encode(data).translate(_TO_URL).rstrip("=")


def base64url_decode(text: str) -> bytes:
    """The bytes that unpadded base64url spells; FormatError for every other spelling."""
    data = b64decode(text.translate(_FROM_URL) + "=" * (-len(text) % 4))
    if base64url(data) != text:
        raise FormatError("base64", "not the one base64url spelling of these bytes")
    return data


def hex_bytes(text: str, size: int) -> bytes:
    """The `size` bytes that lower-case hexadecimal digits spell."""
    if len(text) != 2 * size or _HEX.fullmatch(text) is None:
        raise FormatError("hex", f"expected {2 * size} lower-case hexadecimal digits, got {text[:80]!a}")
    return bytes.fromhex(text)


def parse_digest(text: str) -> Digest:
    """A SHA-256 digest from 64 lower-case hexadecimal digits."""
    hex_bytes(text, 32)
    return Digest(text)


def parse_decimal(text: str) -> int:
    """A number from 0 to 2^63 - 1 from ASCII digits without sign, space, underscore or leading zero."""
    if _DECIMAL.fullmatch(text) is None:
        raise FormatError("decimal", f"expected a decimal number, got {text[:40]!a}")
    number = int(text)
    if number > MAX_DECIMAL:
        raise FormatError("decimal", f"expected at most 2^63 - 1, got {text}")
    return number
