"""A native agent for tests: one static program that waits on its channel, in an image with nothing else."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from stand import Stand

import ironbound
from ironbound.core.canonical import Digest
from ironbound.core.native import Manifest
from ironbound.core.profile import Layer, merge
from ironbound.wire.image_load import load_directory
from ironbound.wire.images import shipped_guard

PROFILES = Path(ironbound.__file__).parent / "data" / "profiles"
#: Forks as often as its first argument says (a digit, none without one), then each process reads descriptor 0, byte
#: by byte, and exits at its end. x86-64, as GNU as assembles it from those system calls: 57, 0, 231.
_CODE = bytes.fromhex(
    "4889e74883e4f0e8000000004531c048833f017e0f488b4710440fbe004183e8304d63c041b93900000031d24d85c07e134c89c84889d7"
    "4889d60f0549ffc84885c075e831ff488d7424ffba010000004889f80f054885c07ff6b8e70000004889fe4889fa0f05c3"
)
_BASE, _HEADERS = 0x400000, 64 + 56


SPIN = bytes.fromhex("f390ebfc")
"""Does nothing, and no system call."""


def program(code: bytes = _CODE) -> bytes:
    """A static ELF with one segment, which can't be written to."""
    size = _HEADERS + len(code)
    head = b"\x7fELF\2\1\1" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096) + code


def image(stand: Stand, folder: Path, more: str = "") -> Digest:
    """Loads the image into a deployment; its tree digest. `more` makes another image."""
    folder.mkdir()
    (folder / "name").write_text(more)
    (folder / "idle").write_bytes(program())
    (folder / "idle").chmod(0o755)
    return load_directory(folder, stand.deployment, shipped_guard(), lambda entries, size: None).digest


def manifest(rootfs: Digest, children: int = 0) -> bytes:
    """The agent that forks so many children."""
    return Manifest(rootfs, ("/idle", *([str(children)] if children else []))).encode()


def approve_profile(stand: Stand, runtime: str, override: str = "") -> Digest:
    """Approve the shipped profile of a runtime, with an override if there is one."""
    layers = [Layer(f"{name}.toml", (PROFILES / f"{name}.toml").read_bytes()) for name in ("native", runtime)]
    if override:
        layers.append(Layer("site.toml", override.encode()))
    effective = merge(layers)
    body = effective.approval_body()
    stand.submit(stand.build("profile-approval", config=effective.digest, body=body), artifacts=(effective.encoded,))
    return effective.digest


def has(binary: str) -> bool:
    """Whether a runtime's program is installed."""
    return shutil.which(binary, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") is not None
