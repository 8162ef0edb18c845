"""Pages in a headless Chromium that nobody steers: what they make of themselves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = shutil.which("chromium")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not on this host")


def dump(page: Path, profile: Path) -> str:
    """The page's DOM as a headless Chromium leaves it."""
    words = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={profile}", "--virtual-time-budget=120000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(profile)}
    shown = subprocess.run(words, capture_output=True, text=True, timeout=240, env=environment)
    assert shown.returncode == 0, shown.stderr[-2000:]
    return shown.stdout


def state(dom: str) -> str:
    found = re.search(r'<html[^>]* data-self="([a-z]+)"', dom)
    return found[1] if found else "unchecked"
