"""The surface of a WebAssembly component, read from its bytes.

Decides what a component imports and exports, which canonical built-ins it uses, and which core modules and components
lie inside it, each with its own surface. It doesn't follow how the inner parts are linked: a component can reach out
only by its own imports, since the inner parts are linked to each other and to those, and to nothing else. So without
imports nothing can be reached, and with any every export counts as reaching each. Follows the Component Model's binary
format (`Binary.md`), layer 1, version 13.

Rule 1: every section that can bring in or hand on something is read in full: core modules, components, instances,
        aliases, canonical functions, imports, exports. Types only describe; they are bounded by their length.
Rule 2: the only built-ins are those that touch nothing outside: resources. Threads, tasks, streams, start functions
        and values are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ironbound.core.canonical import Digest, FormatError, sha256_hex
from ironbound.core.wasm import CORE_VERSION, Custom, ModuleSurface, read_custom, read_module
from ironbound.core.wasm_reader import MAGIC, Reader, preamble

COMPONENT_VERSION: Final = b"\x0d\x00\x01\x00"
MAX_NESTING: Final = 8
"""Components within components."""
MAX_WEIGHT: Final = 8_000_000
"""What all parts may weigh: the lengths of their imports' and exports' types, and how many imports are reached."""
_PART_WEIGHT: Final = 1_000

_CUSTOM, _CORE_MODULE, _CORE_INSTANCE, _CORE_TYPE, _COMPONENT, _INSTANCE, _ALIAS, _TYPE, _CANON = range(9)
_IMPORT, _EXPORT = 10, 11

#: Sorts of what is imported, exported, aliased and handed on.
SORTS: Final = ("core", "func", "value", "type", "component", "instance")
_CORE_SORTS: Final = frozenset((0x00, 0x01, 0x02, 0x03, 0x10, 0x11, 0x12))
_CORE_MODULE_SORT: Final = 0x11

CANONS: Final = ("lift", "lower", "resource.new", "resource.drop", "resource.rep")
_OPTIONS_WITH_INDEX: Final = (0x03, 0x04, 0x05)  # memory, realloc, post-return
_ENCODINGS: Final = (0x00, 0x01, 0x02)  # UTF-8, UTF-16, latin1+UTF-16


@dataclass(frozen=True, slots=True)
class Named:
    """A component's import or export: its name, and its kind as the format calls it."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Part:
    """A core module or component inside a component: its place in the file, and what is in it."""

    offset: int
    size: int
    sha256: Digest
    surface: ModuleSurface | ComponentSurface


@dataclass(frozen=True, slots=True)
class ComponentSurface:
    """`instances` counts core instances and instances; `canons` is how often each canonical function is used."""

    imports: tuple[Named, ...]
    exports: tuple[Named, ...]
    parts: tuple[Part, ...]
    instances: int
    canons: tuple[tuple[str, int], ...]
    custom: tuple[Custom, ...]


def _refuse(code: str, what: str, reader: Reader) -> FormatError:
    return FormatError(code, f"{what} before offset {reader.at}")


def _extern_name(reader: Reader) -> str:
    if (form := reader.byte()) > 1:
        raise _refuse("component-name", f"a name of form {form}", reader)
    return reader.name()


def _extern_kind(reader: Reader) -> str:
    """An `externdesc`: what is imported, or what an export claims to be."""
    if (sort := reader.byte()) >= len(SORTS):
        raise _refuse("component-sort", f"sort {sort}", reader)
    if sort == 0 and reader.byte() != _CORE_MODULE_SORT:
        raise _refuse("component-sort", "a core thing that is no module", reader)
    if SORTS[sort] == "value":
        raise _refuse("component-value", "values are not used", reader)
    if SORTS[sort] == "type":
        bound = reader.byte()
        if bound == 1:
            return "resource"
        if bound != 0:
            raise _refuse("component-type", f"a type with bound {bound}", reader)
    reader.u32()
    return "core module" if sort == 0 else SORTS[sort]


def _sort(reader: Reader) -> str:
    if (sort := reader.byte()) >= len(SORTS):
        raise _refuse("component-sort", f"sort {sort}", reader)
    if sort == 0:
        if (core := reader.byte()) not in _CORE_SORTS:
            raise _refuse("component-sort", f"core sort {core:#04x}", reader)
        return "core module" if core == _CORE_MODULE_SORT else "core"
    return SORTS[sort]


def _read_import(reader: Reader) -> Named:
    return Named(_extern_name(reader), _extern_kind(reader))


def _read_export(reader: Reader) -> Named:
    name, sort = _extern_name(reader), _sort(reader)
    if sort in ("core", "value"):
        raise _refuse("component-sort", f"an export of sort {sort}", reader)
    reader.u32()
    if (claimed := reader.byte()) == 1:
        _extern_kind(reader)
    elif claimed != 0:
        raise _refuse("component-sort", f"an export's description of form {claimed}", reader)
    return Named(name, sort)


def _read_core_instance(reader: Reader) -> None:
    if (form := reader.byte()) == 0:
        reader.u32()  # the module
        for _ in range(reader.count()):
            reader.name()
            if reader.byte() != 0x12:
                raise _refuse("component-sort", "a core module's argument that is no instance", reader)
            reader.u32()
    elif form == 1:
        for _ in range(reader.count()):
            reader.name()
            if (sort := reader.byte()) not in _CORE_SORTS:
                raise _refuse("component-sort", f"core sort {sort:#04x}", reader)
            reader.u32()
    else:
        raise _refuse("component-instance", f"a core instance of form {form}", reader)


def _read_instance(reader: Reader) -> None:
    if (form := reader.byte()) == 0:
        reader.u32()  # the component
        for _ in range(reader.count()):
            reader.name()
            _sort(reader)
            reader.u32()
    elif form == 1:
        for _ in range(reader.count()):
            _extern_name(reader)
            _sort(reader)
            reader.u32()
    else:
        raise _refuse("component-instance", f"an instance of form {form}", reader)


def _read_alias(reader: Reader) -> None:
    _sort(reader)
    if (target := reader.byte()) in (0, 1):  # an export of an instance, of a core instance
        reader.u32()
        reader.name()
    elif target == 2:  # something of an enclosing component: types, modules and components only, says validation
        reader.u32()
        reader.u32()
    else:
        raise _refuse("component-alias", f"an alias of form {target}", reader)


def _read_options(reader: Reader) -> None:
    for _ in range(reader.count()):
        option = reader.byte()
        if option in _OPTIONS_WITH_INDEX:
            reader.u32()
        elif option not in _ENCODINGS:
            raise _refuse("component-canon", f"canonical option {option:#04x}", reader)


def _read_canon(reader: Reader) -> str:
    if (form := reader.byte()) >= len(CANONS):
        raise _refuse("component-canon", f"canonical built-in {form:#04x}", reader)
    name = CANONS[form]
    if name in ("lift", "lower"):
        if reader.byte() != 0:
            raise _refuse("component-canon", f"a {name} of an unknown form", reader)
        reader.u32()
        _read_options(reader)
    if name != "lower":
        reader.u32()  # the type of what is lifted, or the resource's
    return name


class _Weight:
    """What the parts weigh so far: it bounds the surface of a small file that holds many large ones."""

    def __init__(self) -> None:
        self.sum = 0

    def add(self, surface: ModuleSurface | ComponentSurface) -> None:
        self.sum += _PART_WEIGHT
        if isinstance(surface, ModuleSurface):
            self.sum += sum(len(one.type) for one in surface.imports)
            self.sum += sum(len(one.type) + len(one.reaches) for one in surface.exports)
        if self.sum > MAX_WEIGHT:
            raise FormatError("wasm-too-large", "the parts' surfaces together")


class _Component:
    def __init__(self) -> None:
        self.imports: list[Named] = []
        self.exports: list[Named] = []
        self.parts: list[Part] = []
        self.instances = 0
        self.canons = dict.fromkeys(CANONS, 0)
        self.custom: list[Custom] = []


def _read_vector(component: _Component, kind: int, section: Reader) -> None:
    for _ in range(section.count()):
        if kind == _IMPORT:
            component.imports.append(_read_import(section))
        elif kind == _EXPORT:
            component.exports.append(_read_export(section))
        elif kind == _CANON:
            component.canons[_read_canon(section)] += 1
        elif kind == _ALIAS:
            _read_alias(section)
        else:
            (_read_core_instance if kind == _CORE_INSTANCE else _read_instance)(section)
            component.instances += 1
    section.finish(f"component section {kind}")


def _read_part(kind: int, section: Reader, depth: int, weight: _Weight) -> Part:
    offset, size = section.at, section.left
    digest = sha256_hex(section.data[offset : section.end])
    if section.take(4) != MAGIC:
        raise _refuse("wasm-magic", "something inside that is no WebAssembly", section)
    version = section.take(4)
    if kind == _CORE_MODULE:
        if version != CORE_VERSION:
            raise _refuse("wasm-version", f"a core module of version {version.hex()}", section)
        module = read_module(section)
        weight.add(module)
        return Part(offset, size, digest, module)
    if version != COMPONENT_VERSION:
        raise _refuse("wasm-version", f"a component of version {version.hex()}", section)
    inner = _read(section, depth + 1, weight)
    weight.add(inner)
    return Part(offset, size, digest, inner)


def _read(reader: Reader, depth: int, weight: _Weight) -> ComponentSurface:
    if depth > MAX_NESTING:
        raise _refuse("component-nesting", f"more than {MAX_NESTING} components within each other", reader)
    component = _Component()
    while reader.left:
        kind = reader.byte()
        section = reader.part(reader.u32())
        if kind == _CUSTOM:
            component.custom.append(read_custom(section))
        elif kind in (_CORE_MODULE, _COMPONENT):
            component.parts.append(_read_part(kind, section, depth, weight))
        elif kind in (_CORE_INSTANCE, _INSTANCE, _ALIAS, _CANON, _IMPORT, _EXPORT):
            _read_vector(component, kind, section)
        elif kind not in (_CORE_TYPE, _TYPE):
            raise _refuse("component-section", f"a section of kind {kind}", section)
    for names in (component.imports, component.exports):
        if len({one.name for one in names}) != len(names):
            raise _refuse("component-name", "two imports or two exports of one name", reader)
    used = tuple((name, count) for name, count in component.canons.items() if count)
    return ComponentSurface(
        tuple(component.imports),
        tuple(component.exports),
        tuple(component.parts),
        component.instances,
        used,
        tuple(component.custom),
    )


def parse_component(data: bytes, *, limit: int) -> ComponentSurface:
    """The surface of the component in `data`, of at most `limit` bytes. Raises FormatError."""
    version = preamble(data, limit)
    if version != COMPONENT_VERSION:
        raise FormatError("wasm-version", f"expected a component of version 13, got {version.hex()}")
    return _read(Reader(data, 8, len(data)), 0, _Weight())
