"""The install manifest's predicate: every file that decides what code runs, of the installation that runs this.

Decides which native libraries belong to it: those that are mapped once everything has been loaded that a service may
load, of Ironbound, of the standard library and of name resolution: every name services' module beside the C library,
as the host's configuration decides only later which are asked. `wire.measure` reads the files; who signs is
another's business. Started by the interpreter that is to be measured: `python -I -B -m ironbound.supply.manifest`
prints canonical JSON.

Rule 1: an installation with anything odd (a link to a folder, what is no file) gets no manifest.
"""

from __future__ import annotations

import ctypes
import importlib
import pkgutil
import platform
import pwd
import socket
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import ironbound
from ironbound.core.canonical import canonical
from ironbound.verifier.release import read_release, release_digest
from ironbound.wire.measure import installation, mapped, measure_files

#: What no service loads: tests of the interpreter, and windows.
_NEVER: Final = ("_test", "_xx", "xx", "_ctypes_test", "_tkinter")
_MAIN: Final = "__main__"


class ManifestError(Exception):
    """This installation has no manifest; the message says why."""


def install_manifest() -> dict[str, Any]:
    """The predicate of this installation; ManifestError."""
    if not (sys.flags.isolated and sys.flags.dont_write_bytecode):
        raise ManifestError("measuring must add nothing: start it with -I -B")
    _load_all()
    where = installation()
    found = measure_files(installation(sorted(one for one in _mapped() if where.name(one).startswith("lib/"))))
    if found.odd:
        raise ManifestError("; ".join(f"{path}: {why}" for path, why in sorted(found.odd.items())[:20]))
    return {
        "version": ironbound.__version__,
        "package_sha256": release_digest(read_release(Path(ironbound.__file__).parent)),
        "python": {"version": platform.python_version(), "implementation": sys.implementation.name},
        "files": {**found.files},
    }


def _load_all() -> None:
    for name in _modules():
        importlib.import_module(name)
    pwd.getpwall()
    socket.getaddrinfo("localhost", 0)
    for library in _mapped():
        if Path(library).name.startswith("libc."):
            for module in sorted(Path(library).parent.glob("libnss_*.so.2")):
                ctypes.CDLL(str(module))


def _mapped() -> set[str]:
    return {one.path for one in mapped(Path("/proc/self/maps").read_text("utf-8", "surrogateescape"))}


def _modules() -> Iterator[str]:
    for one in pkgutil.walk_packages(ironbound.__path__, "ironbound."):
        if one.name.rpartition(".")[2] != _MAIN:
            yield one.name
    folder = Path(sysconfig.get_path("platstdlib")) / "lib-dynload"
    for file in sorted(folder.glob("*.so")):
        if not file.name.startswith(_NEVER):
            yield file.name.partition(".")[0]


def main() -> int:
    """Prints the predicate. Exit code 1: there is none."""
    try:
        predicate = install_manifest()
    except ManifestError as error:
        print(f"no install manifest: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(canonical(predicate) + b"\n")
    return 0


if __name__ == _MAIN:
    sys.exit(main())
