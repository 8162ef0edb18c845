"""The programs that build a container, and the shared libraries that they run from, as they were when the node started.

Decides whether one is still what was measured. Which libraries a program starts with, its loader says: it is asked to
list them instead of starting it (ld.so(8), LD_TRACE_LOADED_OBJECTS). A static program has none.

Rule 1: what is on disk is compared by its stat key, and by its bytes where that differs.
Rule 2: where the loader's own files changed (its cache, what it preloads), it is asked again, and has to name the same
        libraries.

What a program loads later, by a name of its own (dlopen), nobody here knows.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from ironbound.core.canonical import Digest
from ironbound.node.runtime import HoldFailed

LOADER_FILES: Final = ("/etc/ld.so.cache", "/etc/ld.so.preload")
LIST_S: Final = 20.0
_LISTED: Final = re.compile(rb"^\t(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)


def _key(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Program:
    """A file of the host as it was when the node started. OSError where there is none."""

    __slots__ = ("_key", "digest", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._key, self.digest = _key(path), self._hash()

    def _hash(self) -> Digest:
        with open(self.path, "rb") as file:
            return Digest(hashlib.file_digest(file, "sha256").hexdigest())

    def check(self) -> None:
        """Raises HoldFailed if it is another by now."""
        try:
            key = _key(self.path)
            same = key == self._key or self._hash() == self.digest
        except OSError as error:
            raise HoldFailed("runtime", "runtime-differs", f"{self.path}: {error.strerror}") from error
        if not same:
            raise HoldFailed("runtime", "runtime-differs", f"{self.path} changed since the node started")
        self._key = key


def libraries_of(path: str) -> frozenset[str]:
    """The files that the loader would start a program with, itself among them. OSError where it can't be asked."""
    try:
        said = subprocess.run(
            [path, "--version"],  # all that a static one does
            env={"LD_TRACE_LOADED_OBJECTS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LIST_S,
            check=False,
        ).stdout
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{path}: its loader names no libraries within {LIST_S:.0f} s") from error
    return frozenset(os.path.realpath(os.fsdecode(one)) for one in _LISTED.findall(said))


class Programs:
    """Some programs with all of their libraries. OSError where one can't be read."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        self._loader = [_key(one) for one in LOADER_FILES]
        self._names = self._listed()
        self._programs = [Program(one) for one in paths]
        self._libraries = [Program(one) for one in sorted(self._names)]

    def _listed(self) -> frozenset[str]:
        return frozenset().union(*map(libraries_of, self._paths))

    @property
    def digest(self) -> Digest:
        """Of the first program."""
        return self._programs[0].digest

    @property
    def libraries(self) -> Mapping[str, Digest]:
        """Every library by its place, with its digest."""
        return {one.path: one.digest for one in self._libraries}

    def check(self) -> None:
        """Raises HoldFailed if anything is another by now."""
        for one in (*self._programs, *self._libraries):
            one.check()
        loader = [_key(one) for one in LOADER_FILES]
        if loader == self._loader:
            return
        try:
            names = self._listed()
        except OSError as error:
            raise HoldFailed("runtime", "runtime-differs", str(error)) from error
        if names != self._names:
            raise HoldFailed("runtime", "runtime-differs", f"other libraries: {', '.join(sorted(names ^ self._names))}")
        self._loader = loader
