"""The static files that the read side serves: tiles, entry bundles and the `checkpoint` file.

Decides how files come into being; what they hold follows from the entries (C2SP tlog-tiles).

Rule 1: a file appears whole, by rename; a reader sees the old one or the new one.
Rule 2: the checkpoint is renamed into place last, after every file that it covers.
Rule 3: nothing here is fsynced: the database is what is durable. After a crash of the machine a file may be
missing or empty, so `restore` compares every file with the entries at each start, and writes it anew.
Partial tiles of a tile that is full are removed once the next one is full too, so that a reader with the
last checkpoint still finds what it was told about; C2SP readers go on to the full tile.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from typing import Final

from ironbound.core.merkle import Tree
from ironbound.core.tile import ENTRIES, WIDTH, Tile, encode_entries, tiles_between, tiles_for

from .settings import DiskFailed

CHECKPOINT: Final = "checkpoint"
_FULL_ERRNOS: Final = frozenset({27, 28, 122})  # EFBIG, ENOSPC, EDQUOT


def disk_failure(error: OSError) -> DiskFailed:
    """The failure that ends the ledger, by the kind of error."""
    code = "disk-full" if error.errno in _FULL_ERRNOS else "disk-error"
    return DiskFailed(code, f"{error.filename or 'write'}: {error.strerror or error}")


def _replace(path: str, data: bytes) -> None:
    temporary = path + ".new"
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError as error:
        raise disk_failure(error) from error


def _holds(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(data) + 1) == data
    except OSError:
        return False


class Publisher:
    """Writes the files of one log under `directory`. One thread at a time."""

    __slots__ = ("_bundle", "_directory", "_size")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._size = 0
        self._bundle: list[bytes] = []  # the entries of the last, unfinished bundle

    def restore(self, tree: Tree, entries: Iterable[bytes]) -> None:
        """Brings every file to what the entries say; leaves those alone that are right."""
        index = 0
        for entry in entries:
            self._bundle.append(entry)
            index += 1
            if index % WIDTH == 0:
                self._ensure(Tile(ENTRIES, index // WIDTH - 1), encode_entries(self._bundle))
                self._bundle = []
        for tile in tiles_for(index):
            if tile.level != ENTRIES:
                self._ensure(tile, tree.nodes(8 * tile.level, tile.begin, tile.end))
            elif tile.width != WIDTH:
                self._ensure(tile, encode_entries(self._bundle))
        self._size = index

    def _ensure(self, tile: Tile, data: bytes) -> None:
        path = self._path(tile.path)
        if not _holds(path, data):
            _replace(path, data)
        if tile.width == WIDTH:
            shutil.rmtree(path + ".p", ignore_errors=True)

    def extend(self, tree: Tree, size: int, entries: Sequence[bytes]) -> None:
        """Writes what grew when `entries` were added and made the tree this `size`."""
        if self._size + len(entries) != size:
            raise ValueError(f"expected {size - self._size} entries to reach {size}, got {len(entries)}")
        start = self._size - self._size % WIDTH
        window = [*self._bundle, *entries]
        for tile in tiles_between(self._size, size):
            if tile.level == ENTRIES:
                data = encode_entries(window[tile.begin - start : tile.end - start])
            else:
                data = tree.nodes(8 * tile.level, tile.begin, tile.end)
            _replace(self._path(tile.path), data)
            if tile.width == WIDTH and tile.index:
                shutil.rmtree(self._path(Tile(tile.level, tile.index - 1).path) + ".p", ignore_errors=True)
        self._bundle = window[size - size % WIDTH - start :]
        self._size = size

    def checkpoint(self, signed: bytes) -> None:
        """Puts the signed and cosigned checkpoint in place."""
        _replace(self._path(CHECKPOINT), signed)

    def found(self) -> bytes | None:
        """The checkpoint that was published last, if there is one."""
        try:
            with open(self._path(CHECKPOINT), "rb") as file:
                return file.read(1 << 20)
        except FileNotFoundError:
            return None

    def _path(self, path: str) -> str:
        return f"{self._directory}/{path}"
