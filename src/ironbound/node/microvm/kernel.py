"""The guest's kernel and its modules: placed into the deployment once, measured, and read again for each launch.

Decides which files a virtual machine boots from. They lie in `DEPLOYMENT/runtimes/microvm/`: `vmlinuz`, and the modules
that the devices need, uncompressed. They come from a package of the host's own distribution; whether that kernel is
good is the platform engineer's judgement, its digests are in every launch's envelope.

Rule 1: a launch reads the files' bytes once, into memory, and refuses where one is not what the node measured at start.
Rule 2: the set is placed whole or not at all.
"""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.microvm import MODULES

FOLDER: Final = "runtimes/microvm"
KERNEL: Final = "vmlinuz"
MAX_KERNEL: Final = 128 << 20
MAX_MODULE: Final = 4 << 20
BOOT: Final = Path("/boot")
LIBRARY: Final = Path("/lib/modules")


class KernelMissing(Exception):
    """There is no kernel for virtual machines here; the message says what to do."""


class MeasurementDiffers(Exception):
    """A file that a machine is made of is not what was measured."""


def module_names() -> tuple[str, ...]:
    """Every module that some machine needs, once."""
    return tuple(dict.fromkeys(name for names in MODULES.values() for name in names))


def _read(path: Path, limit: int) -> bytes:
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise MeasurementDiffers(f"{path}: expected at most {limit} bytes")
    return data


def installed() -> tuple[Path, Path]:
    """The newest cloud kernel of this host, and the folder of its modules. KernelMissing if there is none."""
    for kernel in sorted(BOOT.glob("vmlinuz-*-cloud-amd64"), reverse=True):
        modules = LIBRARY / kernel.name.removeprefix("vmlinuz-")
        if modules.is_dir():
            return kernel, modules
    raise KernelMissing("no kernel for virtual machines on this host; install Debian's linux-image-cloud-amd64")


def _module(folder: Path, name: str) -> bytes:
    """A module's bytes, decompressed. What the modules' folder holds twice is no one's choice."""
    found = [path for path in folder.rglob(f"{name}.ko*") if path.suffix in (".ko", ".xz")]
    if len(found) != 1:
        raise KernelMissing(f"expected one module {name} in {folder}, found {len(found)}")
    data = _read(found[0], MAX_MODULE)
    if found[0].suffix == ".ko":
        return data
    try:
        return lzma.LZMADecompressor(memlimit=64 << 20).decompress(data, MAX_MODULE)
    except lzma.LZMAError as error:
        raise KernelMissing(f"{found[0]}: {error}") from error


def place(deployment: Path, kernel: Path, modules: Path) -> dict[str, Digest]:
    """Copies a kernel and its modules into the deployment, in place of those that lay there. Their digests by name."""
    files = {KERNEL: _read(kernel, MAX_KERNEL)}
    files |= {f"{name}.ko": _module(modules, name) for name in module_names()}
    final = deployment / FOLDER
    draft = final.with_name(f".{final.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o755)
    for name, data in files.items():
        with open(draft / name, "xb") as file:
            os.fchmod(file.fileno(), 0o444)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    if final.exists():
        shutil.rmtree(final)
    os.rename(draft, final)
    return {name: sha256_hex(data) for name, data in files.items()}


class Kernel:
    """The files of one machine's kernel, as the node measured them when it started."""

    __slots__ = ("_folder", "digests")

    def __init__(self, deployment: Path, runtime: str) -> None:
        """KernelMissing where the deployment has none."""
        self._folder = deployment / FOLDER
        if not (self._folder / KERNEL).is_file():
            raise KernelMissing("no kernel in this deployment; place one with `ironbound image kernel`")
        names = (KERNEL, *(f"{name}.ko" for name in MODULES[runtime]))
        try:
            files = {name: self._file(name) for name in names}
        except OSError as error:
            raise KernelMissing(f"the kernel in this deployment: {error}") from error
        self.digests: Mapping[str, Digest] = {name: sha256_hex(data) for name, data in files.items()}

    def _file(self, name: str) -> bytes:
        return _read(self._folder / name, MAX_KERNEL if name == KERNEL else MAX_MODULE)

    def read(self) -> tuple[bytes, tuple[bytes, ...]]:
        """The kernel and its modules in the order of loading. MeasurementDiffers (Rule 1)."""
        try:
            files = [self._file(name) for name in self.digests]
        except OSError as error:
            raise MeasurementDiffers(f"{error.filename}: {error.strerror}, since the node started") from error
        for (name, digest), data in zip(self.digests.items(), files, strict=True):
            if sha256_hex(data) != digest:
                raise MeasurementDiffers(f"{name} changed since the node started")
        return files[0], tuple(files[1:])
