"""What is in a binary: the names in its bytes, an ELF file's structure, a Wasm module's surface. Nothing is run.

Decides which names of switches stand where, which dangerous functions an ELF file takes from libraries, how it was
hardened, and what a Wasm module imports and exports. The structure of ELF is read by LIEF, which is optional
(`ironbound[scan]`) and loaded here only; the structure of Wasm by the parser that the sandbox uses.

Rule 1: what can't be parsed is still searched, byte by byte, and said to be unread in its structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from ironbound.core.canonical import FormatError
from ironbound.core.surface import MAX_MODULE, parse_surface
from ironbound.core.wasm import CORE_VERSION, ModuleSurface
from ironbound.core.wasm_component import ComponentSurface
from ironbound.core.wasm_reader import Reader, preamble

from .scan_found import Binary, Sink
from .scan_words import in_bytes, switch

ELF: Final = b"\x7fELF"
WASM: Final = b"\x00asm"
#: Bytes that are searched at a time, and by which the pieces overlap, so that no name is cut.
PIECE: Final = 16 << 20
OVERLAP: Final = 256
_WIDE: Final = (re.compile(rb"\0(?:[ -~]\0){6,}"), re.compile(rb"\0\0\0(?:[ -~]\0\0\0){6,}"))
"""A text in UTF-16 or UTF-32, from behind its first letter: what begins with a zero byte is found fast."""
_FLAG: Final = re.compile(rb"--[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_BEFORE: Final = frozenset(b"\x00\n\t ,['\"(=|")
_AFTER: Final = frozenset(b"\x00\n\t =,]'\")|")
_CALLS: Final = frozenset(
    "getenv secure_getenv system popen execl execle execlp execv execve execvp execvpe execveat fexecve posix_spawn "
    "posix_spawnp dlopen dlmopen dlsym ptrace process_vm_writev setns unshare init_module finit_module "
    "PyRun_SimpleString PyRun_String Py_CompileString PyImport_Import".split()
)
"""Functions of a library through which a program reads its environment, or starts or takes in other code."""
_IMPORTS, _EXPORTS = 2, 7
_PLACES: Final = {_IMPORTS: "import", _EXPORTS: "export"}
_NO_LIEF: Final = "the structure of ELF files was not read: install the extra `ironbound[scan]`"


def pieces(data: memoryview | bytes) -> Iterator[tuple[int, bytes]]:
    """The bytes in pieces that overlap, each with its offset."""
    for at in range(0, max(len(data), 1), PIECE):
        yield at, bytes(data[at : at + PIECE + OVERLAP])


def scan_bytes(data: memoryview | bytes, sink: Sink) -> None:
    """Adds every name in the bytes that meets a rule, by offset; also where a letter takes two bytes or four."""
    for start, piece in pieces(data):
        for at, name, rule in in_bytes(piece):
            sink.add("option" if name.startswith("--") else "text", name, f"{start + at:#x}", rule)
        for hit in (hit for wide in _WIDE for hit in wide.finditer(piece)):
            begin = max(0, hit.start() - 1)
            for _, name, rule in in_bytes(piece[begin : hit.end()].replace(b"\0", b"")):
                sink.add("option" if name.startswith("--") else "text", name, f"{start + begin:#x}", rule)


def scan_options(data: memoryview | bytes, sink: Sink) -> None:
    """Adds what stands in the bytes as options do: with dashes before, and alone or followed by a value."""
    first: dict[str, int] = {}
    for start, piece in pieces(data):
        for hit in _FLAG.finditer(piece):
            before, after = hit.start() - 1, hit.end()
            if (before < 0 or piece[before] in _BEFORE) and (after == len(piece) or piece[after] in _AFTER):
                first.setdefault(hit[0].decode("ascii"), start + hit.start())
    for name, at in first.items():
        sink.add("option", name, f"{at:#x}", switch("option", name))


def scan_elf(data: bytes, sink: Sink) -> None:
    """Adds an ELF file's names, options, functions from libraries and hardening."""
    scan_bytes(data, sink)
    try:
        import lief
    except ImportError:
        sink.skip(_NO_LIEF)
    else:
        lief.logging.disable()
        parsed: Any = lief.ELF.parse(list(data) if len(data) < 64 else _stream(data))
        if parsed is None or not (len(parsed.segments) or len(parsed.sections)):
            sink.skip("an ELF file whose structure LIEF can't read")
            return
        _structure(parsed, lief, sink)
        if not parsed.has_interpreter and not _is_static(parsed, lief):
            return
    scan_options(data, sink)


def _stream(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


def _is_static(parsed: Any, lief: Any) -> bool:
    return bool(parsed.header.file_type == lief.ELF.Header.FILE_TYPE.EXEC)


def _structure(parsed: Any, lief: Any, sink: Sink) -> None:
    imported = {one.name for one in parsed.dynamic_symbols if one.shndx == 0}
    for name in sorted(imported & _CALLS):
        sink.add("import", name, name)
    tags = lief.ELF.DynamicEntry.TAG
    entries = {one.tag: one for one in parsed.dynamic_entries}
    relro = any(one.type == lief.ELF.Segment.TYPE.GNU_RELRO for one in parsed.segments)
    flags = entries.get(tags.FLAGS)
    flags_1 = entries.get(tags.FLAGS_1)
    now = tags.BIND_NOW in entries or bool(flags and flags.value & 8) or bool(flags_1 and flags_1.value & 1)
    rpath = next((str(_path(entries[tag])) for tag in (tags.RUNPATH, tags.RPATH) if tag in entries), "")
    program = parsed.has_interpreter or _is_static(parsed, lief)
    sink.binaries.append(
        Binary(
            sink.file,
            bool(parsed.is_pie) if program else None,
            bool(parsed.has_nx),
            "full" if relro and now else "partial" if relro else "none",
            "__stack_chk_fail" in imported or any(one.name == "__stack_chk_fail" for one in parsed.symtab_symbols),
            any(name.endswith("_chk") and name != "__stack_chk_fail" for name in imported),
            rpath,
            not any(True for _ in parsed.symtab_symbols),
        )
    )
    if rpath and any(not part.startswith("$ORIGIN") for part in rpath.split(":")):
        sink.add("hook", f"rpath {rpath}", "dynamic section")


def _path(entry: Any) -> str:
    return str(getattr(entry, "runpath", None) or getattr(entry, "rpath", ""))


def scan_wasm(data: bytes, sink: Sink) -> None:
    """Adds a module's or component's names, imports and exports."""
    scan_bytes(data, sink)
    try:
        surface = parse_surface(data, limit=MAX_MODULE)
    except FormatError:
        try:
            _names(data, sink)
        except FormatError as error:
            sink.skip(f"a Wasm binary whose structure can't be read: {error}")
        return
    _surface(surface, sink, "")


def _names(data: bytes, sink: Sink) -> None:
    """Imports and exports of a module with features that agents may not use, whose code is left unread."""
    if preamble(data, MAX_MODULE) != CORE_VERSION:
        raise FormatError("wasm-version", "no core module")
    reader = Reader(data, 8, len(data))
    while reader.left:
        kind, section = reader.byte(), reader.part(reader.u32())
        for _ in range(section.count() if kind in (_IMPORTS, _EXPORTS) else 0):
            if kind == _IMPORTS:
                name = f"{section.name()}::{section.name()}"
                _skip_type(section)
            else:
                name = section.name()
                section.byte()
                section.u32()
            sink.add(_PLACES[kind], name, _PLACES[kind], switch("key", name))


def _skip_type(section: Reader) -> None:
    kind = section.byte()
    if kind == 4:  # a tag
        section.byte()
    if kind in (0, 4):
        section.u32()
        return
    if kind in (1, 3):
        while section.byte() in (0x63, 0x64):  # a reference to a type, whose index or kind follows
            pass
    flags = section.byte()
    for _ in range(0 if kind == 3 else 1 + (flags & 1)):
        while section.byte() & 0x80:  # a limit, of 32 or 64 bits
            pass


def _surface(surface: ModuleSurface | ComponentSurface, sink: Sink, prefix: str) -> None:
    for one in surface.imports:
        name = f"{one.module}::{one.name}" if isinstance(surface, ModuleSurface) else one.name  # type: ignore[union-attr]
        sink.add("import", name, f"{prefix}import", switch("key", name))
    for export in surface.exports:
        sink.add("export", export.name, f"{prefix}export", switch("key", export.name))
    if isinstance(surface, ComponentSurface):
        for number, part in enumerate(surface.parts):
            _surface(part.surface, sink, f"{prefix}part {number} ")
