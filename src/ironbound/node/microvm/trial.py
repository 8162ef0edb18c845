"""The machine that boots once when the node starts, with the guard and no agent in it. Decides nothing."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from ironbound.core import microvm
from ironbound.core.canonical import Digest, canonical, sha256_hex
from ironbound.core.native import GUARD_PATH, Manifest, plan
from ironbound.core.tree import MOUNT_POINTS, File, Folder, in_order

from . import ramdisk

MEMORY_MIB: Final = 128
CONFIG: Final[dict[str, Any]] = {
    "runtime": {"type": microvm.QEMU, "max_memory": MEMORY_MIB, "max_cpu": 100, "max_processes": 1,
                "max_open_files": 64, "max_wall_clock": 1},
    "scratch": {"max_bytes": 1, "max_files": 1},
}  # fmt: skip


def disk(guard: bytes, init: bytes, modules: tuple[bytes, ...]) -> tuple[int, Digest]:
    """The sealed descriptor of its RAM disk, and the digest. OSError, FormatError."""
    manifest = Manifest(sha256_hex(b""), (f"/{GUARD_PATH}",))
    own = microvm.own_files(
        CONFIG,
        encoded=canonical(CONFIG),
        module=manifest.encode(),
        plan=plan(CONFIG, manifest, None),
        init=init,
        modules=modules,
    )
    names = (GUARD_PATH.partition("/")[0], *MOUNT_POINTS)
    entries = in_order(
        [*(Folder(name, 0o555) for name in names), File(GUARD_PATH, 0o555, len(guard), sha256_hex(guard))]
    )
    with tempfile.TemporaryDirectory(prefix="ironbound-trial-") as folder:
        place = Path(folder, GUARD_PATH)
        place.parent.mkdir()
        place.write_bytes(guard)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return ramdisk.build(descriptor, entries, own)
        finally:
            os.close(descriptor)


def libraries_of(pid: int) -> tuple[Digest, ...]:
    """The digests of every file that a process of ours has mapped to execute. OSError."""
    found: dict[str, Digest] = {}
    for line in Path(f"/proc/{pid}/maps").read_text("utf-8", "surrogateescape").splitlines():
        words = line.split(None, 5)
        if "x" in words[1] and words[4] != "0" and len(words) == 6 and os.path.isfile(words[5]):
            with open(words[5], "rb") as file:
                found[words[5]] = Digest(hashlib.file_digest(file, "sha256").hexdigest())
    return tuple(sorted(set(found.values())))
