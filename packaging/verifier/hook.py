"""Hatchling's hook: puts into the wheel what the verifier's command imports, and nothing else."""

from __future__ import annotations

from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Imported(BuildHookInterface):  # type: ignore[type-arg]
    """Names the sources to hatchling, one by one. An import by a computed name would not be found: there is none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is written."""
        sources = Path(self.root).resolve().parents[1] / "src"
        finder = ModuleFinder(path=[str(sources)])
        finder.import_hook("ironbound.verifier.__main__")
        files = [Path(one.__file__) for one in finder.modules.values() if one.__file__]
        build_data["force_include"] |= {str(one): str(one.relative_to(sources)) for one in files}
