"""What the code of a WebAssembly function calls, operator by operator.

Decides which functions a body calls or takes a reference of, and through which types it calls indirectly. It checks no
types and no stack: the runtime's validation does. Every operator of the features that agents may use is read here
exactly (core specification 2.0, section 5.4, with extended constant expressions); any other byte is an error.

Rule 1: the operators stand in one table, `_OPERATORS`, by what follows the opcode. What is not in it is refused:
        tail calls, exceptions, threads, GC, relaxed SIMD, 64-bit and several memories.
Rule 2: a body's blocks close exactly at its last byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ironbound.core.canonical import FormatError
from ironbound.core.wasm_reader import Reader

VALUE_TYPES: Final = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref"}
"""The types that agents may use, each in its one-byte form. externref needs a garbage collector and is off."""

# LEB128 (section 5.2.2) as regular expressions. Possessive, so that no input makes them try twice.
_U32 = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,3}+[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x0f])"
_S32 = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,3}+[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x07\x78-\x7f])"
_S64 = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,8}+[\x00-\x7f]|[\x80-\xff]{9}[\x00\x7f])"
_TYPE = rb"[\x70\x7b-\x7f]"
_INDEX_S33 = rb"(?:[\x00-\x3f]|[\x80-\xff]{1,3}+[\x00-\x3f]|[\x80-\xff]{4}[\x00-\x0f])"
_BLOCK = rb"(?:\x40|" + _TYPE + rb"|" + _INDEX_S33 + rb")"
_ALIGN = rb"(?:[\x00-\x3f]|[\x80-\xbf]\x80{0,3}+\x00)"  # bit 6 would name another memory
_MEMARG = _ALIGN + _U32
_ONE = rb"(?:\x01|\x81\x80{0,3}+\x00)"


def _numbers(*ranges: tuple[int, int]) -> list[int]:
    return [number for low, high in ranges for number in range(low, high + 1)]


def _class(numbers: Iterable[int]) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % number for number in numbers) + b"]"


def _sub(prefix: bytes, numbers: list[int]) -> bytes:
    """A prefixed opcode: its number is an unsigned LEB128, so it may be padded."""
    low, high = [n for n in numbers if n < 128], [n for n in numbers if n >= 128]
    ways = [_class(low), _class(n | 0x80 for n in low) + rb"\x80{0,3}+\x00"]
    if high:
        ways.append(_class(high) + rb"(?:\x01|\x81\x80{0,2}+\x00)")
    return prefix + rb"(?:" + rb"|".join(ways) + rb")"


_UNUSED_SIMD: Final = frozenset(
    (154, 162, 165, 166, 175, 176, 178, 179, 180, 187, 194, 197, 198, 207, 208, 210, 211, 212, 226, 238)
)
_SIMD_PLAIN: Final = [n for n in _numbers((14, 20), (35, 83), (94, 255)) if n not in _UNUSED_SIMD]

#: Opcodes and what follows them. What a call graph needs is not here but in `_STEP`.
_OPERATORS: Final = (
    (_class(_numbers((0x0C, 0x0D), (0x20, 0x26))), _U32),  # br, br_if, variables, table.get and set
    (rb"\x41", _S32),
    (_class(_numbers((0x28, 0x3E))), _MEMARG),
    (_class([0x00, 0x01, 0x05, 0x0F, 0x1A, 0x1B, *_numbers((0x45, 0xC4)), 0xD1]), b""),
    (rb"\x42", _S64),
    (rb"\x43", rb".{4}"),
    (rb"\x44", rb".{8}"),
    (rb"[\x3f\x40]", rb"\x00"),  # memory.size, memory.grow
    (rb"\x1c", _ONE + _TYPE),  # select with its type
    (rb"\xd0", rb"\x70"),  # ref.null func
    (_sub(rb"\xfc", _numbers((0, 7))), b""),  # saturating truncation
    (_sub(rb"\xfc", [9, 11, 13, 15, 16, 17]), _U32),  # drop, memory.fill, table.grow, size, fill
    (_sub(rb"\xfc", [8, 10, 12, 14]), _U32 + _U32),  # init and copy
    (_sub(rb"\xfd", [*_numbers((0, 11)), 92, 93]), _MEMARG),
    (_sub(rb"\xfd", [12, 13]), rb".{16}"),  # v128.const, i8x16.shuffle
    (_sub(rb"\xfd", _numbers((21, 34))), rb"."),  # lanes
    (_sub(rb"\xfd", _numbers((84, 91))), _MEMARG + rb"."),
    (_sub(rb"\xfd", _SIMD_PLAIN), b""),
)
_PLAIN = rb"(?:" + rb"|".join(opcode + rest for opcode, rest in _OPERATORS) + rb")"

_OPEN, _END, _CALL, _INDIRECT, _BRANCHES = range(1, 6)
#: Any run of plain operators, and one that matters: a block, its end, call or ref.func, call_indirect, br_table.
_STEP = re.compile(
    _PLAIN + rb"*+(?:([\x02-\x04])" + _BLOCK + rb"|(\x0b)|[\x10\xd2](" + _U32 + rb")|\x11(" + _U32 + rb")" + _U32
    + rb"|\x0e(" + _U32 + rb"))",
    re.DOTALL,
)  # fmt: skip
_CONSTANT = re.compile(
    rb"(?:\x41" + _S32 + rb"|\x42" + _S64 + rb"|\x43.{4}|\x44.{8}|" + _sub(rb"\xfd", [12]) + rb".{16}|\xd0\x70|"
    rb"[\x23\xd2]" + _U32 + rb"|[\x6a-\x6c\x7c-\x7e])*+\x0b",
    re.DOTALL,
)
_LOCALS = re.compile(_U32 + _TYPE)
_TARGETS = re.compile(_U32)


@dataclass(frozen=True, slots=True)
class Body:
    """What one function uses: functions by their index (`call`, `ref.func`), and types of indirect calls."""

    calls: frozenset[int]
    indirect: frozenset[int]


def _leb(raw: bytes) -> int:
    value = 0
    for byte in reversed(raw):
        value = value << 7 | byte & 0x7F
    return value


def _skip(pattern: re.Pattern[bytes], reader: Reader, what: str) -> None:
    found = pattern.match(reader.data, reader.at, reader.end)
    if found is None:
        raise FormatError("wasm-code", f"{what} expected at offset {reader.at}")
    reader.at = found.end()


def read_constant(reader: Reader) -> None:
    """A constant expression, with its end."""
    _skip(_CONSTANT, reader, "a constant expression")


def read_body(reader: Reader, functions: int, types: int) -> Body:
    """One function's body, all of `reader`. Raises FormatError."""
    for _ in range(reader.count()):
        _skip(_LOCALS, reader, "locals")
    calls: set[bytes] = set()
    indirect: set[bytes] = set()
    depth = 1
    while depth:
        found = _STEP.match(reader.data, reader.at, reader.end)
        if found is None:
            raise FormatError("wasm-code", f"an operator that agents may not use, after offset {reader.at}")
        reader.at = found.end()
        kind = found.lastindex
        if kind == _END:
            depth -= 1
        elif kind == _OPEN:
            depth += 1
        elif kind == _CALL:
            calls.add(found[_CALL])
        elif kind == _INDIRECT:
            indirect.add(found[_INDIRECT])
        else:
            for _ in range(_leb(found[_BRANCHES]) + 1):
                _skip(_TARGETS, reader, "a branch target")
    reader.finish("function body")
    return Body(_indexes(calls, functions, "function"), _indexes(indirect, types, "type"))


def _indexes(found: set[bytes], count: int, what: str) -> frozenset[int]:
    indexes = frozenset(map(_leb, found))
    if indexes and max(indexes) >= count:
        raise FormatError("wasm-index", f"{what} {max(indexes)} of {count}")
    return indexes
