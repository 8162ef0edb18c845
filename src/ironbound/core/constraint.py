"""Constraints on an action's arguments, and the order ⊑ between them.

Decides whether a grant's `where` covers the arguments of a call, whether one `where` is narrower than
another, and how arguments appear in the log. It knows no action and performs nothing.

    {"ARG": {"equals": scalar} | {"one_of": [scalar, ...]} | {"range": {"min": int, "max": int}}
          | {"prefix": {"value": "/a/b", "separator": "/"}} | {"any": true}}

Rule 1: closed world. An argument that `where` doesn't name is refused; a named one must be there, unless
        its constraint is `any`.
Rule 2: scalars are equal only if their types are: 1, true and "1" are three values.
Rule 3: a prefix ends at a separator. What could be read as a way out of it (dot segments, empty segments,
        encoded dots, slashes or percent signs, bytes that are no UTF-8, backslashes, what passes for a dot or a slash)
        never matches, whatever stands before it.
Rule 4: a ⊑ b exactly if every call that a covers, b covers.
Rule 5: no table of Python's decides that changes with its version: all who fold the log must decide alike.
Rule 6: what the constraint is `any` for goes into the log by digest; the rest verbatim.
"""

import re
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from ironbound.core.canonical import MAX_INTEGER, FormatError, Value, canonical, hex_bytes, sha256_hex
from ironbound.core.legible import LOOKALIKE, danger_of

MAX_ARGUMENTS: Final = 32
MAX_ALTERNATIVES: Final = 256
MAX_TEXT: Final = 2_048
"""Characters of a string in a constraint."""
MAX_MATCH: Final = 4_096
"""Characters of the longest string that a prefix matches: it stands verbatim in the log, which has room for so much."""

_ARGUMENT = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SEPARATORS: Final = "/.:,-_|#"
# Encoded dots, slashes and percent signs, and what is no encoding of one byte.
_BYTE = re.compile(rb"%([0-9A-Fa-f]{2})")
_ENCODED = re.compile(r"%(?:2e|2f|5c|25|00|(?![0-9a-f]{2}))", re.IGNORECASE)

Scalar: TypeAlias = "str | int | bool"


@dataclass(frozen=True, slots=True)
class OneOf:
    """Any of these scalars; one alone is written `equals`."""

    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """The string `value` itself, or `value`, `separator` and one or more clean segments."""

    value: str
    separator: str


@dataclass(frozen=True, slots=True)
class Range:
    """An integer from `minimum` to `maximum`, both included."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Anything:
    """Whatever has a canonical form, or nothing at all."""


Constraint: TypeAlias = OneOf | Prefix | Range | Anything


@dataclass(frozen=True, slots=True)
class Where:
    """What a grant says about arguments: a constraint for each name, sorted by name."""

    members: tuple[tuple[str, Constraint], ...]

    def constraints(self) -> dict[str, Constraint]:
        """The constraints by argument name."""
        return dict(self.members)

    def as_value(self) -> dict[str, Value]:
        """The form that `parse_where` reads."""
        return {name: _as_value(constraint) for name, constraint in self.members}

    def encode(self) -> bytes:
        """Canonical bytes."""
        return canonical(self.as_value())


# Reading


def parse_where(value: Value) -> Where:
    """A `where` from its value. Raises FormatError and nothing else."""
    if not isinstance(value, dict):
        raise FormatError("where-invalid", "expected an object of constraints")
    if len(value) > MAX_ARGUMENTS:
        raise FormatError("where-invalid", f"expected at most {MAX_ARGUMENTS} arguments, got {len(value)}")
    members = []
    for name in sorted(value):
        if _ARGUMENT.fullmatch(name) is None:
            raise FormatError("where-invalid", f"{name[:80]!a} is no argument's name")
        members.append((name, _parse_constraint(name, value[name])))
    return Where(tuple(members))


def _parse_constraint(name: str, value: Value) -> Constraint:
    if not isinstance(value, dict) or len(value) != 1:
        raise FormatError("where-invalid", f"{name}: expected one constraint")
    ((kind, body),) = value.items()
    if kind == "equals":
        return OneOf((_scalar(name, body),))
    if kind == "one_of":
        return _parse_one_of(name, body)
    if kind == "prefix":
        return _parse_prefix(name, body)
    if kind == "range":
        return _parse_range(name, body)
    if kind == "any":
        if body is not True:
            raise FormatError("where-invalid", f"{name}: expected any to be true")
        return Anything()
    raise FormatError("where-invalid", f"{name}: {kind[:40]!a} is no constraint")


def _scalar(name: str, value: Value) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _integer(name, value)
    if isinstance(value, str):
        return _text(name, value)
    raise FormatError("where-invalid", f"{name}: expected a string, an integer or a boolean")


def _integer(name: str, value: Value) -> int:
    if type(value) is not int or not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise FormatError("where-invalid", f"{name}: expected an integer of at most 2^53 - 1")
    return value


def _text(name: str, value: Value) -> str:
    # Humans sign what they are shown: nothing invisible, reordering or half a character.
    if not isinstance(value, str) or len(value) > MAX_TEXT or danger_of(value) not in (None, LOOKALIKE):
        raise FormatError("where-invalid", f"{name}: expected at most {MAX_TEXT} printable characters")
    return value


def _parse_one_of(name: str, value: Value) -> OneOf:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_ALTERNATIVES:
        raise FormatError("where-invalid", f"{name}: expected 1 to {MAX_ALTERNATIVES} alternatives")
    scalars = tuple(_scalar(name, item) for item in value)
    if len({(type(scalar), scalar) for scalar in scalars}) != len(scalars):
        raise FormatError("where-invalid", f"{name}: an alternative stands twice")
    return OneOf(scalars)


def _parse_prefix(name: str, value: Value) -> Prefix:
    if not isinstance(value, dict) or set(value) != {"value", "separator"}:
        raise FormatError("where-invalid", f"{name}: expected a prefix's value and separator")
    text, separator = _text(name, value["value"]), _text(name, value["separator"])
    if len(separator) != 1 or separator not in _SEPARATORS:
        raise FormatError("where-invalid", f"{name}: expected one of {_SEPARATORS} as separator")
    segments = text.split(separator)
    if any(not _clean(segment) for segment in (segments if segments[0] else segments[1:])):
        raise FormatError("where-invalid", f"{name}: the prefix has an empty, dotted or encoded segment")
    return Prefix(text, separator)


def _parse_range(name: str, value: Value) -> Range:
    if not isinstance(value, dict) or set(value) != {"min", "max"}:
        raise FormatError("where-invalid", f"{name}: expected a range's min and max")
    minimum, maximum = _integer(name, value["min"]), _integer(name, value["max"])
    if minimum > maximum:
        raise FormatError("where-invalid", f"{name}: the range is empty")
    return Range(minimum, maximum)


def _as_value(constraint: Constraint) -> Value:
    match constraint:
        case OneOf(values):
            return {"equals": values[0]} if len(values) == 1 else {"one_of": list(values)}
        case Prefix(value, separator):
            return {"prefix": {"value": value, "separator": separator}}
        case Range(minimum, maximum):
            return {"range": {"min": minimum, "max": maximum}}
        case Anything():
            return {"any": True}
        case _ as unreachable:
            assert_never(unreachable)


# Deciding


def covers(where: Where, args: Value) -> str | None:
    """None if `where` allows these arguments, else the reason's code."""
    return _covers(where, args, rendered=False)


def covers_rendered(where: Where, args: Value) -> str | None:
    """As `covers`, for arguments as `render_args` puts them into the log."""
    return _covers(where, args, rendered=True)


def render_args(where: Where, args: Value) -> dict[str, Value]:
    """The arguments as the log shows them. They must be covered: FormatError otherwise."""
    reason = covers(where, args)
    if reason is not None or not isinstance(args, dict):
        raise FormatError(reason or "arguments-not-an-object", "only covered arguments are rendered")
    constraints = where.constraints()
    return {
        name: {"sha256": sha256_hex(canonical(value))} if isinstance(constraints[name], Anything) else value
        for name, value in args.items()
    }


def rendered_alike(one: Value, other: Value) -> bool:
    """True if two renderings are of the same arguments: each shows them verbatim or by digest."""
    if not isinstance(one, dict) or not isinstance(other, dict) or one.keys() != other.keys():
        return False
    return all(_digest_of(one[name]) == _digest_of(other[name]) for name in one)


def _digest_of(value: Value) -> Value:
    # Only what a constraint is `any` for is an object in a rendering; the rest are scalars.
    return value["sha256"] if isinstance(value, dict) and set(value) == {"sha256"} else sha256_hex(canonical(value))


def _covers(where: Where, args: Value, *, rendered: bool) -> str | None:
    if not isinstance(args, dict):
        return "arguments-not-an-object"
    named = 0
    for name, constraint in where.members:
        if name in args:
            named += 1
            reason = _refusal(constraint, args[name], rendered)
            if reason is not None:
                return reason
        elif not isinstance(constraint, Anything):
            return "argument-missing"
    return None if named == len(args) else "argument-not-named"


def _refusal(constraint: Constraint, value: Value, rendered: bool) -> str | None:
    match constraint:
        case OneOf(values):
            return None if _among(value, values) else "argument-not-among"
        case Prefix():
            return None if _under(constraint, value) else "argument-outside-prefix"
        case Range(minimum, maximum):
            inside = type(value) is int and minimum <= value <= maximum
            return None if inside else "argument-outside-range"
        case Anything():
            return _not_rendered(value) if rendered else _not_canonical(value)
        case _ as unreachable:
            assert_never(unreachable)


def _among(value: Value, values: tuple[Scalar, ...]) -> bool:
    for scalar in values:  # in the kernel's path: a plain loop
        if value == scalar and type(value) is type(scalar):
            return True
    return False


def _under(prefix: Prefix, value: Value) -> bool:
    if not isinstance(value, str) or len(value) > MAX_MATCH or not value.startswith(prefix.value):
        return False
    rest = value[len(prefix.value) :]
    if not rest:
        return True
    if not rest.startswith(prefix.separator):
        return False
    return all(_clean(segment) for segment in rest[1:].split(prefix.separator))


def _clean(segment: str) -> bool:
    """True if no reader, however lax, takes the segment for a way elsewhere."""
    if "%" in segment:
        if _ENCODED.search(segment):
            return False
        try:
            segment = _BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), segment.encode()).decode()
        except UnicodeError:  # lax readers take an overlong form for a dot or a slash
            return False
    if not segment or "\\" in segment or danger_of(segment) is not None:
        return False
    if "." not in segment:
        return True
    # Some servers cut parameters off a segment before they look at it: "..;x" is ".." to them.
    return all(part.split(";")[0].strip(" ") not in (".", "..") for part in segment.split("/"))


def _not_canonical(value: Value) -> str | None:
    try:
        canonical(value)
    except FormatError:
        return "argument-not-canonical"
    return None


def _not_rendered(value: Value) -> str | None:
    if not isinstance(value, dict) or set(value) != {"sha256"} or not isinstance(value["sha256"], str):
        return "argument-not-rendered"
    try:
        hex_bytes(value["sha256"], 32)
    except FormatError:
        return "argument-not-rendered"
    return None


def narrower(a: Where, b: Where) -> bool:
    """True if every call that `a` covers, `b` covers too (a ⊑ b)."""
    ours, theirs = a.constraints(), b.constraints()
    # An argument that only b names is always absent under a: fine for `any` alone.
    if any(name not in ours and not isinstance(theirs[name], Anything) for name in theirs):
        return False
    return all(name in theirs and _narrower(ours[name], theirs[name]) for name in ours)


def _narrower(a: Constraint, b: Constraint) -> bool:
    if isinstance(b, Anything):
        return True
    match a:
        case OneOf(values):
            return all(_refusal(b, value, False) is None for value in values)
        case Prefix(value, separator):
            # With another separator, some segment of a is unclean to b.
            return isinstance(b, Prefix) and separator == b.separator and _under(b, value)
        case Range(minimum, maximum):
            if isinstance(b, Range):
                return b.minimum <= minimum and maximum <= b.maximum
            if not isinstance(b, OneOf) or maximum - minimum >= len(b.values):
                return False
            return all(_among(number, b.values) for number in range(minimum, maximum + 1))
        case Anything():
            return False
        case _ as unreachable:
            assert_never(unreachable)
