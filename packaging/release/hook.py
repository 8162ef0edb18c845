"""Hatchling's hook: puts the bill of materials into every wheel, whoever builds it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from release.sbom import FILE, bill


class Bill(BuildHookInterface):  # type: ignore[type-arg]
    """Writes the bill where hatchling takes it from."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is written."""
        self.place = tempfile.TemporaryDirectory(prefix="ironbound-sbom-")
        file = Path(self.place.name) / FILE
        lock = (Path(self.root) / "requirements" / "runtime.txt").read_text("utf-8")
        file.write_bytes(bill(lock, self.metadata.version))
        file.chmod(0o644)
        build_data["sbom_files"].append(str(file))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called after it."""
        self.place.cleanup()
