"""Claims A1 and A2: what ran was approved, and its code can't reach out.

Decides from the replayed log and the modules' bytes. A1 counts every accepted `started`; a void one (the
kernel's no) refutes it, unless what differs is the configuration, which is B1's. A2 reads each module that
started, again, from its bytes (`core/surface.py`), and compares it with what was approved. A native agent's code
is contained, not analysed: its boundary is B1's to show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ironbound.core.canonical import FormatError
from ironbound.core.native import is_manifest, parse_manifest
from ironbound.core.surface import Surface, first_import, memory_pages, missing_exports, parse_surface, surface_digest
from ironbound.core.tree import parse_tree, require_image

from .claims import Case, Claim
from .history import History

_PAGES_PER_MIB: Final = 16

#: The bytes with a digest, or None if the bundle lacks them.
Artifact = Callable[[str], bytes | None]


def claim_a1(history: History) -> Claim:
    """Every module that ran was approved by digest by the quorum."""
    case = Case("A1")
    for index, start in history.starts.items():
        case.count("launches")
        module = start.says["module_sha256"]
        approved = history.modules.get(module)
        wanted = "canary" if history.launch(start.says["launch"]).nonce is not None else "agent"
        if approved is None or approved.index >= index or approved.kind != wanted:
            case.found("module-unapproved", index, f"module {module} was not approved as {wanted}")
    for start in history.void.get("started", ()):
        if start.void == "launch-stopped" and start.says["launch"] in history.refused_launches:
            case.count("starts that a stop overtook")  # held, never released, and its refusal is logged
        elif start.void != "config-differs":
            case.found("start-void", start.index, f"agent {start.says['agent']}: {start.void}")
    case.counts["modules"] = len({start.says["module_sha256"] for start in history.starts.values()})
    case.population("launches")
    return case.close()


def claim_a2(history: History, artifact: Artifact, configs: Callable[[str], Any]) -> Claim:
    """Each module that started: its surface lies within what its profile allows, which is no import at all."""
    case = Case("A2")
    seen: set[tuple[str, str]] = set()
    for index, start in history.starts.items():
        module, config = start.says["module_sha256"], start.says["config_sha256"]
        if (module, config) in seen:
            continue
        seen.add((module, config))
        case.count("modules under a profile")
        data = artifact(module)
        if data is None:
            case.found("artifact-missing", index, f"module {module}")
            continue
        approved = history.modules.get(module)
        if approved is not None and approved.surface != surface_digest(data):
            case.found("surface-differs", index, f"module {module}: approved with the surface {approved.surface}")
        try:
            if is_manifest(data):
                _check_image(case, index, data, artifact)
                continue
            surface = parse_surface(data)
        except FormatError as error:
            case.found("surface-unreadable", index, f"module {module}: {error}")
            continue
        # A canary that demands more memory than it may have is there to be refused it: that is B2's to show.
        is_canary = history.launch(start.says["launch"]).nonce is not None
        _check_surface(case, index, module, surface, configs(config), is_canary)
    if case.counts.get("native agents, contained and not analysed"):
        case.remark("the code of native agents is contained, not analysed: B1 and B2 say by what, and what it met")
    case.population("modules under a profile")
    return case.close()


def _check_image(case: Case, index: int, manifest: bytes, artifact: Artifact) -> None:
    """A native agent's surface is its root file system, by tree digest, and the installed filter, which B1 compares.
    Its code is contained, not analysed. Raises FormatError."""
    rootfs = parse_manifest(manifest).rootfs
    listing = artifact(rootfs)
    if listing is None:
        case.found("artifact-missing", index, f"the listing of the root file system {rootfs}")
        return
    require_image(parse_tree(listing))
    case.count("native agents, contained and not analysed")


def _check_surface(case: Case, index: int, module: str, surface: Surface, config: Any, is_canary: bool) -> None:
    first = first_import(surface)
    if first is not None:
        case.found("module-imports", index, f"module {module} imports {first[:80]!a}")
    missing = missing_exports(surface)
    if missing:
        case.found("module-exports", index, f"module {module} exports no {', '.join(missing)}")
    if is_canary:
        return
    if config is None:
        case.found("artifact-missing", index, "the configuration that says how much memory it may have")
        return
    pages, demanded = config["runtime"]["max_memory"] * _PAGES_PER_MIB, memory_pages(surface)
    if demanded > pages:
        case.found("module-memory", index, f"module {module}: {demanded} pages, at most {pages}")
