"""What an install manifest says of the installation that this runs of: `python -I -B -m ironbound.supply.installed`.

Decides which native libraries belong to it: those that any extension module, the interpreter or libffi's callers load,
as the loader itself resolves them (`ld.so --list`, which runs nothing of them), libgcc, which is loaded late, and the
name services' modules beside libc. It signs nothing, and what is odd it refuses.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from ironbound import __version__
from ironbound.core.canonical import FormatError, canonical
from ironbound.wire.measure import Installation, installation, mapped, measure_files
from ironbound.wire.service import installed_release

_ELF: Final = b"\x7fELF"
_LOADER: Final = ("ld-linux", "ld-musl", "ld.so", "ld64")
LIST_S: Final = 20.0
"""Seconds that the loader has for one file."""


def manifest() -> dict[str, Any]:
    """The predicate of `install-manifest/v1`. FormatError (`installation`) if something is odd, OSError."""
    where = installation()
    found = measure_files(Installation(where.python, where.stdlib, where.site, libraries(where)))
    if found.odd:
        name, why = next(iter(found.odd.items()))
        raise FormatError("installation", f"{name}: {why}")
    return {
        "version": __version__,
        "package_sha256": installed_release(),
        "python": {
            "version": "{}.{}.{}".format(*sys.version_info[:3]),
            "implementation": sys.implementation.name,
        },
        "files": dict(found.files),
    }


def libraries(where: Installation) -> tuple[str, ...]:
    """The native libraries of an installation, by real paths."""
    here = {one.path for one in mapped(Path("/proc/self/maps").read_text("utf-8", "surrogateescape"))}
    loader = next((one for one in here if Path(one).name.startswith(_LOADER)), None)
    libc = next((one for one in here if Path(one).name.startswith(("libc.so", "libc-", "libc.musl"))), None)
    if loader is None or libc is None:
        raise FormatError("installation", "no loader or no libc is mapped here: a static interpreter is not measured")
    beside = Path(libc).parent
    late = [str(one) for pattern in ("libnss_*.so*", "libgcc_s.so*") for one in beside.glob(pattern) if one.is_file()]
    asked = [where.python, *_elf_files((where.stdlib, where.site)), *late]
    found = {os.path.realpath(one) for one in (loader, libc, *late)}
    for path in asked:
        found |= _needed(loader, path)
    return tuple(sorted(one for one in found if where.name(one).startswith("lib/")))


def _elf_files(folders: Iterable[str]) -> list[str]:
    found = []
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)
                if ".so" in name and os.path.isfile(path):
                    with open(path, "rb") as file:
                        if file.read(4) == _ELF:
                            found.append(path)
    return found


def _needed(loader: str, path: str) -> set[str]:
    """The libraries that the loader would load for a file, those that are there."""
    done = subprocess.run([loader, "--list", path], capture_output=True, env={}, timeout=LIST_S, check=False)
    found = set()
    for line in done.stdout.decode("utf-8", "surrogateescape").splitlines():
        _, arrow, place = line.strip().partition(" => ")
        place = (place if arrow else line.strip()).rpartition(" (0x")[0]
        if place.startswith("/") and os.path.isfile(place):
            found.add(os.path.realpath(place))
    return found


def main() -> None:
    """Print the predicate as canonical JSON."""
    try:
        sys.stdout.buffer.write(canonical(manifest()))
    except (FormatError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"ironbound: the installation can't be measured: {error}")


if __name__ == "__main__":
    main()
