"""The surface of a core WebAssembly module, read from its bytes.

Decides what a module imports, exports, which memories it declares and whether it has a start function. It validates
no code and runs nothing; whatever the runtime would refuse later is not refused here, but nothing is read in two
ways. Follows the WebAssembly core specification 2.0, section 5 (binary format); components and the text format are
refused.

Rule 1: every length is exact. A section, vector or name that is shorter or longer than it says is an error.
Rule 2: integers are LEB128 of at most five bytes without bits beyond 32 (section 5.2.2).
Rule 3: sections appear once and in the specification's order (section 5.5.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ironbound.core.canonical import FormatError

MAGIC: Final = b"\x00asm"
CORE_VERSION: Final = b"\x01\x00\x00\x00"
COMPONENT_LAYER: Final = b"\x01\x00"

_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _START = range(9)
_ELEMENT, _CODE, _DATA, _DATA_COUNT, _TAG = range(9, 14)
_ORDER: Final = (
    _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _TAG, _GLOBAL, _EXPORT, _START, _ELEMENT, _DATA_COUNT, _CODE, _DATA,
)  # fmt: skip

KINDS: Final = ("func", "table", "memory", "global", "tag")
_VALUE_TYPES: Final = frozenset((0x7F, 0x7E, 0x7D, 0x7C, 0x7B, 0x70, 0x6F))
_REFERENCE_TYPES: Final = frozenset((0x70, 0x6F))


@dataclass(frozen=True, slots=True)
class Import:
    module: str
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Export:
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Sizes in pages of 64 KiB; `maximum` is None where the module names none."""

    minimum: int
    maximum: int | None


@dataclass(frozen=True, slots=True)
class ModuleSurface:
    """`memories` are those that the module defines itself; an imported one is in `imports`."""

    imports: tuple[Import, ...]
    exports: tuple[Export, ...]
    memories: tuple[MemoryLimits, ...]
    has_start: bool


class _Reader:
    """A cursor over `data[at:end]` that never reads beyond its end."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    @property
    def left(self) -> int:
        return self.end - self.at

    def byte(self) -> int:
        if self.at >= self.end:
            raise FormatError("wasm-truncated", f"expected a byte at offset {self.at}, got the end")
        value = self.data[self.at]
        self.at += 1
        return value

    def u32(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21, 28):
            byte = self.byte()
            if shift == 28 and byte > 0x0F:
                raise FormatError("wasm-integer", f"LEB128 beyond 32 bits at offset {self.at - 1}")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        return value

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise FormatError("wasm-truncated", f"expected {size} bytes at offset {self.at}, got {self.left}")
        self.at += size
        return self.data[self.at - size : self.at]

    def count(self) -> int:
        """A vector's length; every element has at least one byte, so more than are left cannot be."""
        count = self.u32()
        if count > self.left:
            raise FormatError("wasm-truncated", f"a vector of {count} elements in {self.left} bytes")
        return count

    def name(self) -> str:
        raw = self.take(self.u32())
        try:
            return raw.decode("utf-8", "strict")
        except UnicodeDecodeError:
            raise FormatError("wasm-name", f"a name that is not UTF-8 before offset {self.at}") from None

    def part(self, size: int) -> _Reader:
        start = self.at
        self.take(size)
        return _Reader(self.data, start, start + size)

    def finish(self, what: str) -> None:
        if self.left:
            raise FormatError("wasm-length", f"{what}: {self.left} bytes too many")


def _limits(reader: _Reader) -> MemoryLimits:
    flags = reader.byte()
    if flags not in (0, 1):
        raise FormatError("wasm-limits", f"expected plain 32-bit limits, got flags {flags:#04x}")
    minimum = reader.u32()
    maximum = reader.u32() if flags else None
    if maximum is not None and maximum < minimum:
        raise FormatError("wasm-limits", f"a maximum of {maximum} below the minimum of {minimum}")
    return MemoryLimits(minimum, maximum)


def _memory(reader: _Reader) -> MemoryLimits:
    limits = _limits(reader)
    if max(limits.minimum, limits.maximum or 0) > 65536:
        raise FormatError("wasm-limits", "a memory of more than 65536 pages")
    return limits


def _type_byte(reader: _Reader, known: frozenset[int], what: str) -> None:
    if (byte := reader.byte()) not in known:
        raise FormatError("wasm-type", f"{what}: unknown type {byte:#04x}")


def _import(reader: _Reader) -> Import:
    module, name, kind = reader.name(), reader.name(), reader.byte()
    if kind == 0:
        reader.u32()
    elif kind == 1:
        _type_byte(reader, _REFERENCE_TYPES, "imported table")
        _limits(reader)
    elif kind == 2:
        _memory(reader)
    elif kind == 3:
        _type_byte(reader, _VALUE_TYPES, "imported global")
        if reader.byte() > 1:
            raise FormatError("wasm-type", "imported global: unknown mutability")
    elif kind == 4:
        if reader.byte() != 0:
            raise FormatError("wasm-type", "imported tag: unknown attribute")
        reader.u32()
    else:
        raise FormatError("wasm-kind", f"an import of kind {kind}")
    return Import(module, name, KINDS[kind])


def _export(reader: _Reader) -> Export:
    name, kind = reader.name(), reader.byte()
    if kind >= len(KINDS):
        raise FormatError("wasm-kind", f"an export of kind {kind}")
    reader.u32()
    return Export(name, KINDS[kind])


def _exports(reader: _Reader) -> tuple[Export, ...]:
    exports = tuple(_export(reader) for _ in range(reader.count()))
    if len({export.name for export in exports}) != len(exports):
        raise FormatError("wasm-export", "two exports of one name")
    return exports


def _sections(data: bytes) -> dict[int, _Reader]:
    reader = _Reader(data, 8, len(data))
    sections: dict[int, _Reader] = {}
    last = -1
    while reader.left:
        kind = reader.byte()
        section = reader.part(reader.u32())
        if kind == _CUSTOM:
            section.name()
            continue
        if kind not in _ORDER:
            raise FormatError("wasm-section", f"a section of kind {kind}")
        place = _ORDER.index(kind)
        if place <= last:
            raise FormatError("wasm-section", f"section {kind} twice or out of order")
        last = place
        sections[kind] = section
    return sections


def _check_preamble(data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise FormatError("wasm-too-large", f"expected at most {limit} bytes, got {len(data)}")
    if data[:4] != MAGIC:
        raise FormatError("wasm-magic", f"expected a WebAssembly binary, got {data[:4]!r}")
    if data[6:8] == COMPONENT_LAYER:
        raise FormatError("component", "expected a core module, got a component")
    if data[4:8] != CORE_VERSION:
        raise FormatError("wasm-version", f"expected version 1, got {data[4:8].hex()}")


def parse_module(data: bytes, *, limit: int) -> ModuleSurface:
    """The surface of the core module in `data`, of at most `limit` bytes. Raises FormatError."""
    _check_preamble(data, limit)
    sections = _sections(data)
    imports: tuple[Import, ...] = ()
    exports: tuple[Export, ...] = ()
    memories: tuple[MemoryLimits, ...] = ()
    if (section := sections.get(_IMPORT)) is not None:
        imports = tuple(_import(section) for _ in range(section.count()))
        section.finish("import section")
    if (section := sections.get(_MEMORY)) is not None:
        memories = tuple(_memory(section) for _ in range(section.count()))
        section.finish("memory section")
    if (section := sections.get(_EXPORT)) is not None:
        exports = _exports(section)
        section.finish("export section")
    if (section := sections.get(_START)) is not None:
        section.u32()
        section.finish("start section")
    return ModuleSurface(imports, exports, memories, _START in sections)
