"""Builds wheel and sdist from a copy of the source, and installs the wheel. Standard library only.

Decides nothing. Two builds of the same source, on any path, are byte-identical, as long as Python's zlib is the same.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from .source import copied

BUILT: Final = "built.json"
#: What an installer writes about itself and its way into a `.dist-info` (PyPA "Recording installed projects").
RECORDS: Final = frozenset(("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"))


class Stop(Exception):
    """There will be no release; the message says why."""


def build(checkout: Path, work: Path) -> None:
    """Leaves `source/`, `dist/` with wheel and sdist, and BUILT with what was built from what, in `work`."""
    copy = work / "source"
    copy.mkdir(parents=True)
    try:
        source = copied(checkout, copy)
    except (OSError, ValueError) as error:
        raise Stop(f"the source can't be copied: {error}") from error
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "SOURCE_DATE_EPOCH": str(source.epoch)}
    done = subprocess.run(
        [sys.executable, "-I", "-m", "hatchling", "build", "-d", str(work / "dist")],
        cwd=copy, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Stop(f"hatchling failed: {done.stderr[-2000:]}")
    said: dict[str, Any] = {**asdict(source), "python": platform.python_version()}
    (work / BUILT).write_text(json.dumps(said), "utf-8")


def wheel_of(folder: Path) -> Path:
    """The one wheel in a folder."""
    wheels = sorted(folder.glob("ironbound-*.whl"))
    if len(wheels) != 1:
        raise Stop(f"{folder} has {len(wheels)} wheels")
    return wheels[0]


def install(work: Path) -> None:
    """Puts the wheel into this environment, in place of one that was there (PyPA binary distribution format).

    What installers recorded goes: RECORD has the digests of commands that name this environment's path, so that with it
    the same release would be other files in each place.
    """
    site = Path(sysconfig.get_path("purelib"))
    for old in (site / "ironbound", *site.glob("ironbound-*.dist-info")):
        shutil.rmtree(old, ignore_errors=True)
    with zipfile.ZipFile(wheel_of(work / "dist")) as wheel:
        for one in wheel.infolist():
            top, _, rest = one.filename.partition("/")
            if not rest or not (top == "ironbound" or (top.startswith("ironbound-") and top.endswith(".dist-info"))):
                raise Stop(f"the wheel has {one.filename}, which is no part of the package")
            file = Path(wheel.extract(one, site))
            if not one.is_dir():
                file.chmod(0o755 if one.external_attr >> 16 & 0o100 else 0o644)
    for record in site.glob("*.dist-info/*"):
        if record.name in RECORDS:
            record.unlink()
