"""A release as it lies there: a wheel, or a folder with the package; read, never run.

Decides nothing: it gives the digests by which the services name themselves in `service-started`, and the agent surface
that shipped. The digest is over the package's files, so it is the same for the wheel and for what is installed of it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ironbound.core.canonical import Digest, FormatError, sha256_hex
from ironbound.core.channel import SURFACE_FILE

#: Bytes of all of a release's files together, and how many there can be.
MAX_RELEASE: Final = 256 << 20
MAX_FILES: Final = 20_000
PACKAGE: Final = "ironbound"
#: The closed list of what the release shows to the outside, by its path in the package.
LIST_FILE: Final = "supply/surface-list.json"


@dataclass(frozen=True, slots=True)
class Shipped:
    """What a release says of itself by its bytes: its digest, and those of the agent surface and the closed list in it.

    `wheel` is SHA-256 of the file; None for a folder. `listed` is None if the release has no list.
    """

    release: Digest
    surface: Digest
    listed: Digest | None = None
    wheel: Digest | None = None


def shipped(path: Path) -> Shipped:
    """The digests of a wheel or folder; FormatError (`release`), OSError."""
    files = read_release(path)
    listed = files.get(LIST_FILE)
    wheel = None if path.is_dir() else sha256_hex(path.read_bytes())
    surface = sha256_hex(surface_of(files))
    return Shipped(release_digest(files), surface, None if listed is None else sha256_hex(listed), wheel)


def read_release(path: Path) -> dict[str, bytes]:
    """The package's files by their path in it; FormatError (`release`) if `path` is no release, OSError if unreadable.

    What the interpreter compiles for itself is left out.
    """
    files = _from_folder(path) if path.is_dir() else _from_wheel(path)
    if "__init__.py" not in files:
        raise FormatError("release", f"{path} is neither a wheel of {PACKAGE} nor a folder that holds the package")
    return files


def release_digest(files: Mapping[str, bytes]) -> Digest:
    """SHA-256 over the digests of every file of the package, one `sha256  path` line each, by path."""
    lines = [f"{sha256_hex(files[name])}  {name}\n" for name in sorted(files, key=lambda name: name.split("/"))]
    return sha256_hex("".join(lines).encode())


def surface_of(files: Mapping[str, bytes]) -> bytes:
    """The agent surface that shipped in the release; FormatError if there is none."""
    try:
        return files[SURFACE_FILE]
    except KeyError:
        raise FormatError("release", f"the release has no {PACKAGE}/{SURFACE_FILE}") from None


def counts(name: str) -> bool:
    """True for a file of the package that its digest is over."""
    return "__pycache__" not in name.split("/")


def _from_folder(path: Path) -> dict[str, bytes]:
    root = path / PACKAGE if (path / PACKAGE / "__init__.py").is_file() else path
    files: dict[str, bytes] = {}
    size = 0
    for one in sorted(root.rglob("*")) if (root / SURFACE_FILE).parent.is_dir() else ():
        name = one.relative_to(root).as_posix()
        if not one.is_file() or not counts(name):
            continue
        size += one.stat().st_size
        if size > MAX_RELEASE or len(files) >= MAX_FILES:
            raise FormatError("release", f"{path}: more than {MAX_RELEASE} bytes or {MAX_FILES} files")
        files[name] = one.read_bytes()
    return files


def _from_wheel(path: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    size = 0
    try:
        with zipfile.ZipFile(path) as wheel:
            for one in wheel.infolist():
                name = one.filename.removeprefix(f"{PACKAGE}/")
                if one.is_dir() or name == one.filename or not counts(name):
                    continue
                size += one.file_size
                if name in files or size > MAX_RELEASE or len(files) >= MAX_FILES:
                    raise FormatError("release", f"{path}: a file twice, or more than {MAX_RELEASE} bytes")
                files[name] = wheel.read(one)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise FormatError("release", f"{path} is no wheel: {error}") from error
    return files
