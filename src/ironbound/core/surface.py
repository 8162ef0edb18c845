"""The surface document: what an agent's code could reach, as canonical JSON that humans approve by its digest.

Decides how the surface of a module or component is written down. It judges nothing: that an agent imports nothing is
the controller's, the sandbox's and the verifier's to demand. A pure function of the bytes, so that all of them, and an
auditor, come to the same digest.

Rule 1: bytes that the parsers can't read have no document, and so can't be approved as an agent.
Rule 2: a native agent's manifest has none either: its code is contained, not analysed.
"""

from __future__ import annotations

from typing import Final

from ironbound.core.canonical import Digest, FormatError, Value, canonical, sha256_hex
from ironbound.core.native import is_manifest
from ironbound.core.wasm import Custom, Limits, ModuleSurface, parse_module
from ironbound.core.wasm_component import COMPONENT_VERSION, ComponentSurface, Part, parse_component

FORMAT: Final = "ironbound-surface/v1"
MAX_MODULE: Final = 64 << 20
"""Bytes of a module or component."""
COMPONENT_EXPORT: Final = "ironbound:agent/messages@1.0.0"
"""The one export that an agent's component must have: an instance with `handle` (sdk/wit/ironbound-agent.wit)."""
MODULE_EXPORTS: Final = (("memory", "memory"), ("alloc", "func"), ("handle", "func"))
"""What an agent's module must export, by name and kind."""

Surface = ModuleSurface | ComponentSurface


def is_component(data: bytes) -> bool:
    """Whether the preamble says component."""
    return data[4:8] == COMPONENT_VERSION


def parse_surface(data: bytes, *, limit: int = MAX_MODULE) -> Surface:
    """The surface of a module or component of at most `limit` bytes. Raises FormatError."""
    return parse_component(data, limit=limit) if is_component(data) else parse_module(data, limit=limit)


def missing_exports(surface: Surface) -> list[str]:
    """The exports that the sandbox calls and that are not there."""
    if isinstance(surface, ComponentSurface):
        has = any(one.name == COMPONENT_EXPORT and one.kind == "instance" for one in surface.exports)
        return [] if has else [COMPONENT_EXPORT]
    exports = {(one.name, one.kind) for one in surface.exports}
    return [name for name, kind in MODULE_EXPORTS if (name, kind) not in exports]


def memory_pages(surface: Surface) -> int:
    """The pages that the memories of the module, or of any one module in the component, demand at least."""
    if isinstance(surface, ModuleSurface):
        return sum(memory.minimum for memory in surface.memories)
    return max((memory_pages(part.surface) for part in surface.parts), default=0)


def first_import(surface: Surface) -> str | None:
    """The first import, for a message; None without one."""
    if isinstance(surface, ComponentSurface):
        return next((one.name for one in surface.imports), None)
    return next((f"{one.module}::{one.name}" for one in surface.imports), None)


def _limits(all_limits: tuple[Limits, ...]) -> Value:
    return [{"minimum": one.minimum, "maximum": one.maximum} for one in all_limits]


def _custom(sections: tuple[Custom, ...]) -> Value:
    return [{"name": one.name, "size": one.size, "sha256": one.sha256} for one in sections]


def _module(surface: ModuleSurface) -> dict[str, Value]:
    return {
        "kind": "module",
        "imports": [
            {"module": one.module, "name": one.name, "kind": one.kind, "type": one.type} for one in surface.imports
        ],
        "exports": [
            {"name": one.name, "kind": one.kind, "type": one.type, "reaches": list(one.reaches)}
            for one in surface.exports
        ],
        "memories": _limits(surface.memories),
        "tables": _limits(surface.tables),
        "start": None if surface.start is None else {"reaches": list(surface.start)},
        "functions": surface.functions,
        "globals": surface.globals,
        "elements": surface.elements,
        "data": surface.data,
        "custom": _custom(surface.custom),
    }


def _component(surface: ComponentSurface) -> dict[str, Value]:
    everything: list[Value] = list(range(len(surface.imports)))
    return {
        "kind": "component",
        "imports": [{"name": one.name, "kind": one.kind} for one in surface.imports],
        "exports": [{"name": one.name, "kind": one.kind, "reaches": everything} for one in surface.exports],
        "parts": [_part(part) for part in surface.parts],
        "instances": surface.instances,
        "canons": dict(surface.canons),
        "custom": _custom(surface.custom),
    }


def _part(part: Part) -> Value:
    return {"offset": part.offset, "size": part.size, "sha256": part.sha256, **_describe(part.surface)}


def _describe(surface: Surface) -> dict[str, Value]:
    return _component(surface) if isinstance(surface, ComponentSurface) else _module(surface)


def document(surface: Surface, digest: Digest, size: int) -> dict[str, Value]:
    """The document of an already parsed surface; `digest` and `size` are those of the bytes."""
    return {"format": FORMAT, "sha256": digest, "size": size, **_describe(surface)}


def surface_document(data: bytes, *, limit: int = MAX_MODULE) -> dict[str, Value]:
    """The surface document of a module or component of at most `limit` bytes. Raises FormatError."""
    return document(parse_surface(data, limit=limit), sha256_hex(data), len(data))


def surface_digest(data: bytes) -> Digest | None:
    """What an approval of these bytes says of their surface: SHA-256 of the document's canonical form, or None where
    there is none: a native agent's manifest, or bytes that no parser reads, which only a canary may be."""
    if is_manifest(data):
        return None
    try:
        return sha256_hex(canonical(surface_document(data)))
    except FormatError:
        return None


def approval_body(data: bytes, probe: Value = None) -> dict[str, Value]:
    """The body of a request to approve these bytes: as an agent's module, or as the canary of this probe."""
    return {
        "kind": "agent" if probe is None else "canary",
        "size": len(data),
        "surface_sha256": surface_digest(data),
        "probe": probe,
    }
