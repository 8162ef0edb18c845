"""Native agents for the system's tests: an image with one static program, and what it does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import ironbound
from stand import Stand

from ironbound.core.canonical import Digest
from ironbound.core.native import Manifest
from ironbound.core.profile import Layer, merge
from ironbound.node.native.container import BINARIES, SEARCH, guard_bytes
from ironbound.wire.image_load import load_directory

PROFILES = Path(ironbound.__file__).parent / "data" / "profiles"
PROBE = Path(ironbound.__file__).parent / "canary" / "native" / "probe"


def runtimes() -> list[str]:
    """The container runtimes that whoever runs the tests can use here: all as root, bubblewrap for anybody."""
    return [name for name in BINARIES if os.getuid() == 0 or name == "bubblewrap"]


def binary(name: str) -> str | None:
    return shutil.which(BINARIES[name], path=SEARCH)
