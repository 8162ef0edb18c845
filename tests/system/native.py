"""Native agents for the system's tests: an image of one static program, profiles for each runtime."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from stand import Stand

import ironbound
from ironbound.core.canonical import Digest
from ironbound.core.native import Manifest
from ironbound.core.profile import Layer, merge
from ironbound.node.native.container import BINARIES, SEARCH, guard_bytes
from ironbound.wire.image_load import load_directory

PROFILES = Path(ironbound.__file__).parent / "data" / "profiles"
PROBE = Path(ironbound.__file__).parent / "canary" / "native" / "probe"
ROOT = os.getuid() == 0


def has(name: str) -> bool:
    """Whether the host has the runtime."""
    return shutil.which(BINARIES[name], path=SEARCH) is not None


def missing(name: str) -> str:
    """Why a test of that runtime can't be run here; on CI that is a failure."""
    return f"not tested: no {BINARIES[name]} on this machine; as root on Debian ./dev test installs it"


#: What whoever runs the tests can use: as root all of them, an ordinary user bubblewrap, which needs no cgroup.
USABLE = [name for name in BINARIES if ROOT or name == "bubblewrap"]
RUNTIMES = [name for name in USABLE if has(name)]
EACH = [pytest.param(one, marks=[] if has(one) else pytest.mark.skip(reason=missing(one))) for one in USABLE]


def profile(stand: Stand, runtime: str, more: str = "") -> Digest:
    """Approve the shipped profile of a runtime, with a layer on top, once."""
    layers = [Layer(f"{name}.toml", (PROFILES / f"{name}.toml").read_bytes()) for name in ("native", runtime)]
    effective = merge([*layers, Layer("test.toml", more.encode())])
    if not stand.log.with_state(lambda replay: effective.digest in replay.books.profiles):
        payload = stand.build("profile-approval", config=effective.digest, body=effective.approval_body())
        stand.submit(payload, artifacts=(effective.encoded,))
    return effective.digest


def image(stand: Stand, source: Path) -> Digest:
    """Load a folder with the program `probe` in it, and with whatever else lies there."""
    source.mkdir(exist_ok=True)
    shutil.copy(PROBE, source / "probe")
    return load_directory(source, stand.deployment, guard_bytes()).digest


def agent(stand: Stand, rootfs: Digest, *argv: str) -> Digest:
    """Approve a program of an image."""
    return stand.approve_module(Manifest(rootfs, argv).encode())


def cgroup_folders(stand: Stand) -> Sequence[Path]:
    """What this deployment's launches have left in any cgroup tree."""
    name = stand.deployment.trust.control_group[1:]
    return [*Path("/sys/fs/cgroup").glob(f"*/{name}/*/"), *Path("/sys/fs/cgroup").glob(f"{name}/*/")]
