"""A deployment without its services, and a small root file system to load into it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ironbound.terminal.init import initialise
from ironbound.wire.deployment import Deployment

GUARD = b"\x7fELF the guard"


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    place = tmp_path_factory.mktemp("images")
    for one in (place, *place.parents):
        if one == place or one.name.startswith("pytest-"):
            one.chmod(one.stat().st_mode | 0o711)
    return initialise(place / "d", "images-test", [("ada", b"phrase")], 1)


@pytest.fixture
def deployment(_made: Deployment) -> Iterator[Deployment]:
    """A deployment that has no image yet."""
    yield _made
    images = _made.root / "images"
    for folder, _, _ in os.walk(images):
        os.chmod(folder, 0o755)
    subprocess.run(["rm", "-rf", *images.iterdir()], check=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A root file system: a program, a library behind a link, an empty file."""
    root = tmp_path / "rootfs"
    for folder in ("bin", "usr/lib", "etc"):
        (root / folder).mkdir(parents=True)
    (root / "bin" / "agent").write_bytes(b"#!/bin/sh\n" * 1000)
    (root / "bin" / "agent").chmod(0o750)
    (root / "usr" / "lib" / "libc.so").write_bytes(b"library")
    (root / "etc" / "empty").write_bytes(b"")
    (root / "lib").symlink_to("usr/lib")
    (root / "etc" / "outside").symlink_to("/../../etc/passwd")
    return root
