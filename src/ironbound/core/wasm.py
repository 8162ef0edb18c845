"""The surface of a core WebAssembly module, read from its bytes.

Decides what a module imports, exports, declares and starts with, and which imports each export can reach through the
call graph. It runs nothing and checks no types; the runtime's validation does, and what it refuses never runs. Follows
the WebAssembly core specification 2.0, section 5 (binary format); the text format is refused.

Rule 1: every length is exact, and every index that the surface rests on lies in its space.
Rule 2: sections appear once and in the specification's order (section 5.5.2).
Rule 3: reach is an upper bound. A reference to a function counts as a call of it. An indirect call reaches every
        function of its type, and every import that can hand in a function: tables, funcref globals, and functions
        with a funcref among their results. An export that hands functions out reaches every import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ironbound.core.canonical import Digest, FormatError, sha256_hex
from ironbound.core.wasm_code import VALUE_TYPES, Body, read_body, read_constant
from ironbound.core.wasm_reach import reach
from ironbound.core.wasm_reader import Reader, preamble

CORE_VERSION: Final = b"\x01\x00\x00\x00"
MAX_PAGES: Final = 65536
"""Pages of 64 KiB in a 32-bit memory."""
MAX_IMPORTS: Final = 2_048
MAX_EXPORTS: Final = 16_384
MAX_FUNCTIONS: Final = 200_000
MAX_TYPES: Final = 16_384
MAX_PARAMETERS: Final = 255
MAX_REACHES: Final = 1_000_000
"""Pairs of an export and an import that it reaches. These bound what a surface costs; the runtime allows more."""

_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _START = range(9)
_ELEMENT, _CODE, _DATA, _DATA_COUNT = range(9, 13)
_ORDER: Final = (
    _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _START, _ELEMENT, _DATA_COUNT, _CODE, _DATA,
)  # fmt: skip

_MOST: Final = {_TYPE: MAX_TYPES, _IMPORT: MAX_IMPORTS, _FUNCTION: MAX_FUNCTIONS, _EXPORT: MAX_EXPORTS}

KINDS: Final = ("func", "table", "memory", "global")


@dataclass(frozen=True, slots=True)
class Import:
    """`type` is written for people: `(i32 i32) -> (i64)`, `funcref 1..10`, `1..`, `mut i32`."""

    module: str
    name: str
    kind: str
    type: str


@dataclass(frozen=True, slots=True)
class Export:
    """`reaches` are indexes of imports, ascending."""

    name: str
    kind: str
    type: str
    reaches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in pages of 64 KiB for a memory, in elements for a table; `maximum` is None where none is named."""

    minimum: int
    maximum: int | None

    def __str__(self) -> str:
        return f"{self.minimum}..{'' if self.maximum is None else self.maximum}"


@dataclass(frozen=True, slots=True)
class Custom:
    """A custom section: the size and digest of what follows its name."""

    name: str
    size: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class ModuleSurface:
    """`memories` and `tables` are those that the module defines itself; imported ones are in `imports`. `start` are
    the imports that the start function reaches, None without one. The rest are counts of what is defined."""

    imports: tuple[Import, ...]
    exports: tuple[Export, ...]
    memories: tuple[Limits, ...]
    tables: tuple[Limits, ...]
    start: tuple[int, ...] | None
    functions: int
    globals: int
    elements: int
    data: int
    custom: tuple[Custom, ...]

    @property
    def has_start(self) -> bool:
        return self.start is not None


class _Module:
    """The index spaces while the sections are read in order."""

    def __init__(self) -> None:
        self.types: list[str] = []
        self.imports: list[Import] = []
        self.spaces: dict[str, list[str]] = {kind: [] for kind in KINDS}  # kind → type of each
        self.imported: dict[str, list[int]] = {kind: [] for kind in KINDS}  # kind → indexes of imports
        self.memories: list[Limits] = []
        self.tables: list[Limits] = []
        self.exports: list[tuple[str, str, int]] = []
        self.start: int | None = None
        self.elements = 0
        self.data = 0
        self.data_count: int | None = None
        self.bodies: list[Body] = []
        self.custom: list[Custom] = []

    def function(self, reader: Reader) -> int:
        return reader.index(len(self.spaces["func"]), "function")


def _value_type(reader: Reader) -> str:
    if (byte := reader.byte()) not in VALUE_TYPES:
        raise FormatError("wasm-type", f"type {byte:#04x} before offset {reader.at}")
    return VALUE_TYPES[byte]


def _bounded(count: int, most: int, what: str) -> int:
    if count > most:
        raise FormatError("wasm-too-large", f"{count} {what}, at most {most}")
    return count


def _function_type(reader: Reader) -> str:
    if (form := reader.byte()) != 0x60:
        raise FormatError("wasm-type", f"expected a function type, got form {form:#04x}")
    sides = []
    for _ in range(2):
        count = _bounded(reader.count(), MAX_PARAMETERS, "parameters or results")
        sides.append(" ".join(_value_type(reader) for _ in range(count)))
    return f"({sides[0]}) -> ({sides[1]})"


def _limits(reader: Reader) -> Limits:
    flags = reader.byte()
    if flags not in (0, 1):
        raise FormatError("wasm-limits", f"expected plain 32-bit limits, got flags {flags:#04x}")
    minimum = reader.u32()
    maximum = reader.u32() if flags else None
    if maximum is not None and maximum < minimum:
        raise FormatError("wasm-limits", f"a maximum of {maximum} below the minimum of {minimum}")
    return Limits(minimum, maximum)


def _memory(reader: Reader) -> Limits:
    limits = _limits(reader)
    if max(limits.minimum, limits.maximum or 0) > MAX_PAGES:
        raise FormatError("wasm-limits", f"a memory of more than {MAX_PAGES} pages")
    return limits


def _table(reader: Reader) -> Limits:
    if _value_type(reader) != "funcref":
        raise FormatError("wasm-type", f"a table of other things than functions before offset {reader.at}")
    return _limits(reader)


def _global(reader: Reader) -> str:
    kind = _value_type(reader)
    if (mutable := reader.byte()) > 1:
        raise FormatError("wasm-type", f"mutability {mutable} before offset {reader.at}")
    return f"mut {kind}" if mutable else kind


def _read_import(module: _Module, reader: Reader) -> None:
    origin, name, number = reader.name(), reader.name(), reader.byte()
    if number >= len(KINDS):
        raise FormatError("wasm-kind", f"an import of kind {number}")
    kind = KINDS[number]
    if kind == "func":
        what = module.types[reader.index(len(module.types), "type")]
    elif kind == "table":
        what = f"funcref {_table(reader)}"
    elif kind == "memory":
        what = str(_memory(reader))
    else:
        what = _global(reader)
    module.spaces[kind].append(what)
    module.imported[kind].append(len(module.imports))
    module.imports.append(Import(origin, name, kind, what))


def _read_export(module: _Module, reader: Reader) -> None:
    name, number = reader.name(), reader.byte()
    if number >= len(KINDS):
        raise FormatError("wasm-kind", f"an export of kind {number}")
    kind = KINDS[number]
    module.exports.append((name, kind, reader.index(len(module.spaces[kind]), kind)))


def _read_element(module: _Module, reader: Reader) -> None:
    """Section 5.5.12: bit 0 passive or declarative, bit 1 an explicit table or declarative, bit 2 expressions."""
    if (flags := reader.u32()) > 7:
        raise FormatError("wasm-element", f"an element segment with flags {flags}")
    if not flags & 1:
        if flags & 2:
            reader.index(len(module.spaces["table"]), "table")
        read_constant(reader)
    if flags & 3:
        if flags & 4:
            if _value_type(reader) != "funcref":
                raise FormatError("wasm-element", "elements that are no functions")
        elif reader.byte() != 0:
            raise FormatError("wasm-element", "elements of an unknown kind")
    for _ in range(reader.count()):
        if flags & 4:
            read_constant(reader)
        else:
            module.function(reader)
    module.elements += 1


def _read_data(module: _Module, reader: Reader) -> None:
    if (flags := reader.u32()) > 2:
        raise FormatError("wasm-data", f"a data segment with flags {flags}")
    if flags == 2:
        reader.index(len(module.spaces["memory"]), "memory")
    if flags != 1:
        read_constant(reader)
    reader.skip(reader.u32())
    module.data += 1


def _read_body(module: _Module, reader: Reader) -> None:
    part = reader.part(reader.u32())
    module.bodies.append(read_body(part, len(module.spaces["func"]), len(module.types)))


def _read_item(module: _Module, kind: int, reader: Reader) -> None:
    """One element of a section that is a vector."""
    if kind == _TYPE:
        module.types.append(_function_type(reader))
    elif kind == _IMPORT:
        _read_import(module, reader)
    elif kind == _FUNCTION:
        module.spaces["func"].append(module.types[reader.index(len(module.types), "type")])
    elif kind == _TABLE:
        module.tables.append(_table(reader))
        module.spaces["table"].append(f"funcref {module.tables[-1]}")
    elif kind == _MEMORY:
        module.memories.append(_memory(reader))
        module.spaces["memory"].append(str(module.memories[-1]))
    elif kind == _GLOBAL:
        module.spaces["global"].append(_global(reader))
        read_constant(reader)
    elif kind == _EXPORT:
        _read_export(module, reader)
    elif kind == _ELEMENT:
        _read_element(module, reader)
    elif kind == _CODE:
        _read_body(module, reader)
    else:
        _read_data(module, reader)


def read_custom(section: Reader) -> Custom:
    """A custom section's name, and what follows it by size and digest."""
    name = section.name()
    rest = section.take(section.left)
    return Custom(name, len(rest), sha256_hex(rest))


def _read_sections(module: _Module, reader: Reader) -> None:
    last = -1
    while reader.left:
        kind = reader.byte()
        section = reader.part(reader.u32())
        if kind == _CUSTOM:
            module.custom.append(read_custom(section))
            continue
        if kind not in _ORDER:
            raise FormatError("wasm-section", f"a section of kind {kind}")
        if _ORDER.index(kind) <= last:
            raise FormatError("wasm-section", f"section {kind} twice or out of order")
        last = _ORDER.index(kind)
        if kind == _START:
            module.start = module.function(section)
        elif kind == _DATA_COUNT:
            module.data_count = section.u32()
        else:
            for _ in range(_bounded(section.count(), _MOST.get(kind, section.left), f"items in section {kind}")):
                _read_item(module, kind, section)
        section.finish(f"section {kind}")


def _check(module: _Module) -> None:
    defined = len(module.spaces["func"]) - len(module.imported["func"])
    if len(module.bodies) != defined:
        raise FormatError("wasm-count", f"{defined} functions with {len(module.bodies)} bodies")
    if module.data_count not in (None, module.data):
        raise FormatError("wasm-count", f"{module.data} data segments, announced as {module.data_count}")
    if len({name for name, _, _ in module.exports}) != len(module.exports):
        raise FormatError("wasm-export", "two exports of one name")


def _bits(module: _Module) -> list[int]:
    """For each function, as bits, the imports that it can reach (Rule 3)."""
    types = module.spaces["func"]
    own = [1 << index for index in module.imported["func"]]
    edges: list[list[int]] = [[] for _ in own]
    own += [0] * len(module.bodies)
    numbers = {text: len(types) + number for number, text in enumerate(dict.fromkeys(module.types))}
    for body in module.bodies:
        edges.append([*body.calls, *{numbers[module.types[index]] for index in body.indirect}])
    # One more node for each type: an indirect call leads to it, and it leads to all functions of the type.
    members: dict[str, list[int]] = {text: [] for text in numbers}
    for index, text in enumerate(types):
        members[text].append(index)
    edges += members.values()
    own += [_sources(module)] * len(numbers)
    return reach(edges, own)


def _sources(module: _Module) -> int:
    """The imports that can hand in functions, as bits."""
    bits = 0
    for index, one in enumerate(module.imports):
        results = one.type.rpartition("-> ")[2]
        if one.kind == "table" or (one.kind != "memory" and "funcref" in results):
            bits |= 1 << index
    return bits


def _indexes(bits: int) -> tuple[int, ...]:
    return tuple(index for index in range(bits.bit_length()) if bits >> index & 1)


def _exports(module: _Module, bits: list[int]) -> tuple[Export, ...]:
    everything = (1 << len(module.imports)) - 1
    known: dict[int, tuple[int, ...]] = {}
    exports = []
    total = 0
    for name, kind, index in module.exports:
        what = module.spaces[kind][index]
        reached = bits[index] if kind == "func" else 0
        if kind != "func" and index < len(module.imported[kind]):
            reached = 1 << module.imported[kind][index]  # an import, handed on
        if "funcref" in what.rpartition("-> ")[2]:
            reached = everything
        if reached not in known:
            known[reached] = _indexes(reached)
        total = _bounded(total + len(known[reached]), MAX_REACHES, "reached imports")
        exports.append(Export(name, kind, what, known[reached]))
    return tuple(exports)


def read_module(reader: Reader) -> ModuleSurface:
    """The surface of the core module after its preamble, all of `reader`. Raises FormatError."""
    module = _Module()
    _read_sections(module, reader)
    _check(module)
    bits = _bits(module) if module.imports else [0] * len(module.spaces["func"])
    return ModuleSurface(
        tuple(module.imports),
        _exports(module, bits),
        tuple(module.memories),
        tuple(module.tables),
        None if module.start is None else _indexes(bits[module.start]),
        len(module.bodies),
        len(module.spaces["global"]) - len(module.imported["global"]),
        module.elements,
        module.data,
        tuple(module.custom),
    )


def parse_module(data: bytes, *, limit: int) -> ModuleSurface:
    """The surface of the core module in `data`, of at most `limit` bytes. Raises FormatError."""
    version = preamble(data, limit)
    if version != CORE_VERSION:
        raise FormatError("wasm-version", f"expected a core module of version 1, got {version.hex()}")
    return read_module(Reader(data, 8, len(data)))
