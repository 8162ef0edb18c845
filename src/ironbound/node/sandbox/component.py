"""A component as an agent: compiled, linked against nothing, and given one message at a time.

Decides which components are taken: those without imports whose one interface is `ironbound:agent/messages`, exactly
(sdk/wit/ironbound-agent.wit). The limits are those of modules, in the same store.

Rule 1: the linker is empty and stays so, and a component with any import is refused before the release.
Rule 2: only components whose surface our own parser reads are compiled, and the runtime must see the same one.
Rule 3: all instances of a component share one memory, so the limit of a memory is the limit of the agent.
"""

from __future__ import annotations

from typing import Any, Final

import wasmtime
from wasmtime import component as model

from ironbound.core.canonical import FormatError
from ironbound.core.surface import COMPONENT_EXPORT
from ironbound.core.wasm_component import ComponentSurface, parse_component
from ironbound.node.sandbox import engine as runtime
from ironbound.node.sandbox.agent import AgentEnded, as_line, check_size

HANDLE: Final = "handle"
_CASES: Final = [("silence", None), ("send", model.String()), ("report", model.String())]

View = tuple[dict[str, str], dict[str, str]]


def compile_component(engine: wasmtime.Engine, data: bytes, limit: int) -> model.Component:
    """The component compiled. Raises ModuleRefused."""
    try:
        surface = parse_component(data, limit=limit)
    except FormatError as error:
        raise runtime.ModuleRefused("module", str(error)) from None
    try:
        component = model.Component(engine, data)
    except wasmtime.WasmtimeError as error:
        raise runtime.ModuleRefused("compile", runtime.error_text(error)) from None
    if runtime_view(engine, component) != parser_view(surface):
        raise runtime.ModuleRefused("module", "the runtime sees another surface in these bytes than the parser")
    if surface.imports:
        raise runtime.ModuleRefused("imports", _why_not_linked(engine, component, surface))
    _check_interface(engine, component)
    return component


def parser_view(surface: ComponentSurface) -> View:
    """Names and kinds of imports and exports, as the parser sees them, in the runtime's terms: a resource is a type,
    and an import that only names a known type is none."""
    imports = {one.name: one.kind for one in surface.imports if one.kind != "type"}
    imports |= {name: "type" for name, kind in imports.items() if kind == "resource"}
    return imports, {one.name: one.kind for one in surface.exports}


def runtime_view(engine: wasmtime.Engine, component: model.Component) -> View:
    """The same, as the runtime sees them."""
    imports, exports = component.type.imports(engine), component.type.exports(engine)
    return ({name: _kind(one.ty) for name, one in imports.items()},
            {name: _kind(one.ty) for name, one in exports.items()})  # fmt: skip


def _kind(item: object) -> str:
    if isinstance(item, model.FuncType):
        return "func"
    if isinstance(item, model.ComponentInstanceType):
        return "instance"
    if isinstance(item, model.ComponentType):
        return "component"
    if isinstance(item, model.ModuleType):
        return "core module"
    return "type"


def _why_not_linked(engine: wasmtime.Engine, component: model.Component, surface: ComponentSurface) -> str:
    """The runtime's own words. The store has no fuel, so that no instruction could run even if it linked."""
    store = wasmtime.Store(engine)
    store.set_fuel(0)
    try:
        model.Linker(engine).instantiate(store, component)
    except wasmtime.WasmtimeError as error:
        return runtime.error_text(error)
    return f"import {surface.imports[0].name}: nothing is defined"


def _check_interface(engine: wasmtime.Engine, component: model.Component) -> None:
    messages = component.type.exports(engine).get(COMPONENT_EXPORT)
    instance = None if messages is None else messages.ty
    if not isinstance(instance, model.ComponentInstanceType):
        raise runtime.ModuleRefused("module", f"export {COMPONENT_EXPORT}: expected an instance")
    handle = instance.exports(engine).get(HANDLE)
    function = None if handle is None else handle.ty
    if not isinstance(function, model.FuncType):
        raise runtime.ModuleRefused("module", f"export {HANDLE}: expected a function")
    answer = function.result
    if [kind for _, kind in function.params] != [model.String()] or not (
        isinstance(answer, model.VariantType) and answer.cases == _CASES
    ):
        raise runtime.ModuleRefused("module", f"export {HANDLE}: expected func(message: string) -> answer")


class ComponentAgent:
    """A component's instance."""

    def __init__(self, component: model.Component, engine: wasmtime.Engine, config: runtime.WorkerConfig) -> None:
        self._component = component
        self._linker = model.Linker(engine)
        self._config = config
        self._store = runtime.bounded_store(engine, config)
        self._handle: model.Func | None = None
        self.messages = 0
        self.fuel = 0

    def instantiate(self) -> None:
        """Runs the start functions of the modules inside. Raises AgentEnded."""
        try:
            instance = self._linker.instantiate(self._store, self._component)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise AgentEnded(*runtime.ending(error)) from None
        finally:
            self.fuel += self._config.max_fuel - self._store.get_fuel()
        messages = instance.get_export_index(self._store, COMPONENT_EXPORT)
        handle = None if messages is None else instance.get_export_index(self._store, HANDLE, messages)
        self._handle = None if handle is None else instance.get_func(self._store, handle)

    def _call(self, message: str) -> Any:
        if self._handle is None:
            raise AgentEnded("protocol", f"expected the export {HANDLE}")
        self._store.set_fuel(self._config.max_fuel)
        try:
            answer = self._handle(self._store, message)
            self._handle.post_return(self._store)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            reason, text = runtime.ending(error)
            # No limit of the store ends a call: what is no trap is an answer that can't be read.
            raise AgentEnded("protocol" if reason == "limit" else reason, text) from None
        finally:
            self.fuel += self._config.max_fuel - self._store.get_fuel()
        return answer

    def take(self, message: bytes) -> bytes:
        """Hands over one message; returns what is to be sent. Raises AgentEnded, also with the report."""
        try:
            text = message.decode("utf-8", "strict")
        except UnicodeDecodeError:
            raise AgentEnded("protocol", "a message that is not UTF-8") from None
        answer = self._call(text)
        if answer.tag == "silence":
            return b""
        data = str(answer.payload).encode("utf-8")
        final = answer.tag == "report"
        check_size(len(data), final=final, most=self._config.max_message)
        if final:
            raise AgentEnded("finished", "", str(answer.payload))
        return as_line(data)
