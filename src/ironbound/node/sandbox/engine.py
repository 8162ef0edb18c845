"""The Wasm runtime under the limits of an effective configuration.

Decides how the runtime is configured, which module it takes and how its errors are named. It reads no descriptor and
takes no power away. Follows the WebAssembly core specification 2.0 and wasmtime's documentation of fuel, epochs and
store limits.

Rule 1: a limit that is missing, zero or negative is a refusal; no limit has a default.
Rule 2: the linker is empty and stays so: a module with any import is refused in the runtime's own words.
Rule 3: proposals beyond what agents are compiled to (threads, 64-bit and several memories, exceptions, GC) are off.
Rule 4: only bytes whose surface our own parser reads are compiled, and the runtime must see the same surface in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import wasmtime
from wasmtime import _bindings as bindings

from ironbound.core.canonical import Digest, FormatError, Value, canonical, parse_canonical, sha256_hex
from ironbound.core.surface import MODULE_EXPORTS
from ironbound.core.wasm import ModuleSurface, parse_module
from ironbound.core.wasm_reader import MAGIC

MAX_CONFIG: Final = 64 * 1024
"""Bytes of an effective configuration."""

MAX_TEXT: Final = 2048
"""Characters of a runtime error that are kept."""

_RUNTIME_LIMITS: Final = (
    "max_memory", "max_fuel", "max_wall_clock", "max_stack", "max_instances", "max_tables", "max_table_elements",
    "max_module_size",
)  # fmt: skip
_GREATEST: Final = {"max_memory": 4096, "max_wall_clock": 10 * 365 * 86400, "max_stack": 65536}
"""Beyond these a number would no longer mean what it says: 4 GiB of 32-bit memory, ten years, 64 MiB of stack."""

_CHANNEL_LIMITS: Final = ("max_message", "max_messages_per_second")
_TRAP_REASONS: Final = {
    wasmtime.TrapCode.OUT_OF_FUEL: "fuel",
    wasmtime.TrapCode.INTERRUPT: "wall-clock",
    wasmtime.TrapCode.STACK_OVERFLOW: "stack",
}
#: The last line of an error in a component, which has no trap code; a number may stand before it.
_TRAP_LINE: Final = re.compile(r"\n\s*(?:[0-9]+: )?(wasm trap: [^\n]*)\s*\Z")
_TRAP_TEXTS: Final = {
    "wasm trap: all fuel consumed by WebAssembly": "fuel",
    "wasm trap: interrupt": "wall-clock",
    "wasm trap: call stack exhausted": "stack",
}


_OFF: Final = (
    bindings.wasmtime_config_wasm_compact_imports_set,
    bindings.wasmtime_config_wasm_branch_hinting_set,
    bindings.wasmtime_config_concurrency_support_set,
    bindings.wasmtime_config_wasm_component_model_async_set,
    bindings.wasmtime_config_wasm_component_model_async_stackful_set,
    bindings.wasmtime_config_wasm_component_model_more_async_builtins_set,
    bindings.wasmtime_config_wasm_component_model_map_set,
    bindings.wasmtime_config_wasm_component_model_implements_set,
    # Copy-on-write images need memfd_create, which the filter refuses.
    bindings.wasmtime_config_memory_init_cow_set,
)


class ModuleRefused(Exception):
    """The module is not taken. `stage` is module, compile or imports; the text is the refuser's own."""

    def __init__(self, stage: str, text: str) -> None:
        super().__init__(text)
        self.stage = stage
        self.text = text


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What the worker consumes of the effective configuration. Sizes in bytes, fuel per message, times in seconds."""

    digest: Digest
    value: Value
    max_memory: int
    max_fuel: int
    max_wall_clock: int
    max_stack: int
    max_instances: int
    max_tables: int
    max_table_elements: int
    max_module_size: int
    max_message: int


def _part(value: Value, name: str) -> Mapping[str, Value]:
    part = value.get(name) if isinstance(value, dict) else None
    if not isinstance(part, dict):
        raise FormatError("config-invalid", f"{name}: expected an object")
    return part


def _limit(part: Mapping[str, Value], name: str) -> int:
    limit = part.get(name)
    if type(limit) is not int or limit <= 0:
        raise FormatError("config-invalid", f"{name}: expected a positive integer, got {limit!r}")
    if limit > _GREATEST.get(name, limit):
        raise FormatError("config-invalid", f"{name}: expected at most {_GREATEST[name]}, got {limit}")
    return limit


def parse_config(data: bytes) -> WorkerConfig:
    """The configuration behind descriptor 3; its digest is that of what was parsed. Raises FormatError."""
    value = parse_canonical(data, limit=MAX_CONFIG)
    runtime, channel = _part(value, "runtime"), _part(value, "channel")
    if not isinstance(value, dict) or value.get("version") != 1:
        raise FormatError("config-invalid", "version: expected 1")
    if runtime.get("type") != "wasmtime" or runtime.get("strict_security") is not True:
        raise FormatError("config-invalid", "runtime: expected type wasmtime with strict_security")
    known = {"type", "strict_security", "disallowed_imports", *_RUNTIME_LIMITS}
    if unknown := (set(runtime) - known) | (set(channel) - set(_CHANNEL_LIMITS)):
        raise FormatError("config-invalid", f"unknown: {', '.join(sorted(unknown))}")
    limits = {name: _limit(runtime, name) for name in _RUNTIME_LIMITS}
    limits |= {name: _limit(channel, name) for name in _CHANNEL_LIMITS}
    return WorkerConfig(
        digest=sha256_hex(canonical(value)),
        value=value,
        max_memory=limits["max_memory"] * 1024 * 1024,
        max_fuel=limits["max_fuel"],
        max_wall_clock=limits["max_wall_clock"],
        max_stack=limits["max_stack"] * 1024,
        max_instances=limits["max_instances"],
        max_tables=limits["max_tables"],
        max_table_elements=limits["max_table_elements"],
        max_module_size=limits["max_module_size"],
        max_message=limits["max_message"],
    )


def make_engine(max_stack: int, *, components: bool = False) -> wasmtime.Engine:
    """An engine for modules, or for components, with `max_stack` bytes of stack for Wasm code. An impossible
    combination ends the process, so engines are only made in a zygote that has no worker yet, or in a worker."""
    config = wasmtime.Config()
    config.strategy = "cranelift"
    config.cranelift_opt_level = "speed"
    config.cranelift_debug_verifier = False
    config.profiler = "none"
    config.consume_fuel = True
    config.epoch_interruption = True
    config.max_wasm_stack = max_stack
    config.parallel_compilation = False
    config.debug_info = False
    config.wasm_threads = False
    config.shared_memory = False
    config.wasm_memory64 = False
    config.wasm_multi_memory = False
    config.wasm_tail_call = False
    config.wasm_relaxed_simd = False
    config.wasm_component_model = components
    config.wasm_exceptions = False
    config.wasm_function_references = False
    config.wasm_gc = False
    config.gc_support = False
    config.wasm_wide_arithmetic = False
    config.wasm_custom_page_sizes = False
    config.wasm_stack_switching = False
    # The runtime's Python package has no names for these.
    for switch in _OFF:
        switch(config.ptr(), False)
    return wasmtime.Engine(config)


def compile_module(engine: wasmtime.Engine, data: bytes, limit: int) -> wasmtime.InstancePre:
    """The module compiled and linked against nothing. Raises ModuleRefused."""
    surface = _read(engine, data, limit)
    try:
        module = wasmtime.Module(engine, data)
    except wasmtime.WasmtimeError as error:
        raise ModuleRefused("compile", error_text(error)) from None
    if runtime_view(module) != parser_view(surface):
        raise ModuleRefused("module", "the runtime sees another surface in these bytes than the parser")
    try:
        linked = wasmtime.Linker(engine).instantiate_pre(module)
    except wasmtime.WasmtimeError as error:
        raise ModuleRefused("imports", error_text(error)) from None
    exports = {export.name: export.kind for export in surface.exports}
    for name, kind in MODULE_EXPORTS:
        if exports.get(name) != kind:
            raise ModuleRefused("module", f"export {name}: expected a {kind}, got {exports.get(name)}")
    _check_types(surface)
    return linked


def _read(engine: wasmtime.Engine, data: bytes, limit: int) -> ModuleSurface:
    """The surface that our parser sees. What it can't read is refused, in the runtime's words where that refuses it
    too: those are what evidence about the runtime is made of."""
    try:
        return parse_module(data, limit=limit)
    except FormatError as refusal:
        if data[:4] == MAGIC and len(data) <= limit:
            try:
                wasmtime.Module.validate(engine, data)
            except wasmtime.WasmtimeError as error:
                raise ModuleRefused("compile", error_text(error)) from None
        raise ModuleRefused("module", str(refusal)) from None


View = tuple[list[tuple[str, str, str, str]], list[tuple[str, str, str]]]


def parser_view(surface: ModuleSurface) -> View:
    """Imports and exports with their kinds and types, as the parser sees them."""
    return (
        [(one.module, one.name, one.kind, one.type) for one in surface.imports],
        [(one.name, one.kind, one.type) for one in surface.exports],
    )


def runtime_view(module: wasmtime.Module) -> View:
    """The same, as the runtime sees them."""
    return (
        [(one.module, one.name or "", *_type(one.type)) for one in module.imports],
        [(one.name, *_type(one.type)) for one in module.exports],
    )


def _type(of: object) -> tuple[str, str]:
    if isinstance(of, wasmtime.FuncType):
        sides = [" ".join(map(str, side)) for side in (of.params, of.results)]
        return "func", f"({sides[0]}) -> ({sides[1]})"
    if isinstance(of, wasmtime.GlobalType):
        return "global", f"mut {of.content}" if of.mutable else str(of.content)
    if not isinstance(of, wasmtime.TableType | wasmtime.MemoryType):
        return type(of).__name__, ""
    limits = f"{of.limits.min}..{'' if of.limits.max is None else of.limits.max}"
    return ("memory", limits) if isinstance(of, wasmtime.MemoryType) else ("table", f"{of.element} {limits}")


def _check_types(surface: ModuleSurface) -> None:
    signatures = {"alloc": "(i32) -> (i32)", "handle": "(i32 i32) -> (i64)"}
    for export in surface.exports:
        if (wanted := signatures.get(export.name, export.type)) != export.type:
            raise ModuleRefused("module", f"export {export.name}: expected {wanted}, got {export.type}")


def bounded_store(engine: wasmtime.Engine, config: WorkerConfig) -> wasmtime.Store:
    """A store in which every limit of the configuration bites, with fuel for one message and one epoch to live."""
    store = wasmtime.Store(engine)
    store.set_limits(
        memory_size=config.max_memory,
        table_elements=config.max_table_elements,
        instances=config.max_instances,
        tables=config.max_tables,
        memories=1,
    )
    store.set_fuel(config.max_fuel)
    store.set_epoch_deadline(1)
    return store


def error_text(error: Exception) -> str:
    """The runtime's own text, at most MAX_TEXT characters."""
    return str(error)[:MAX_TEXT]


def ending(error: wasmtime.Trap | wasmtime.WasmtimeError) -> tuple[str, str]:
    """Exit reason and text for an error while the agent ran; what is no trap is a limit of the store."""
    if isinstance(error, wasmtime.Trap):
        code = error.trap_code
        return ("trap" if code is None else _TRAP_REASONS.get(code, "trap")), error_text(error)
    trap = _TRAP_LINE.search(str(error))
    if trap is not None:
        return _TRAP_TEXTS.get(trap[1], "trap"), trap[1]
    return "limit", error_text(error)
