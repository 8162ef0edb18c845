"""Writes a source's files as an image into the deployment: a folder here, a layout of layers in `oci.py`.

Decides which bits and owners stay (docs/operating.md), and that an image is written whole or not at all. What may
stand in a listing is for `core/tree.py`.

Rule 1: a draft is written through descriptors of folders that it made itself; no name of the source is followed.
Rule 2: an image has a draft's name until it is whole and on disk; then it gets its digest's by one rename.
Rule 3: nothing of the source's owners, times, extended attributes, setuid and setgid bits goes over; what loses such a
        bit is named.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ironbound.core.canonical import Digest, FormatError
from ironbound.core.tree import (
    FOLDER_MODE,
    GUARD,
    MAX_ENTRIES,
    MAX_FILE_SIZE,
    MAX_TOTAL_SIZE,
    MOUNT_POINTS,
    PLAIN_MODE,
    PROGRAM_MODE,
    Entry,
    File,
    Folder,
    Link,
    encode_tree,
    in_order,
    require_path,
    require_target,
    tree_digest,
)

from .deployment import Deployment, DeploymentError
from .images import (
    CAPABILITY,
    DIRECTORY,
    FOLDER,
    REGULAR,
    ImageRefused,
    Images,
    attributes,
    no_such_kind,
    opened,
    reading,
    walk,
)

_DRAFT: Final = ".draft."
OWN: Final = GUARD.partition("/")[0]

Tell: TypeAlias = Callable[[int, int], None]
"""Progress: entries and bytes written so far."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing of a source, parents before children: a file has `chunks`, a link a `target`, a folder neither.

    `raised`: a file with a setuid or setgid bit, or with capabilities.
    """

    path: str
    mode: int
    chunks: Iterable[bytes] | None = None
    target: str | None = None
    raised: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image in the deployment. `dropped`: files that lost a setuid or setgid bit or capabilities. `fresh`: new."""

    digest: Digest
    entries: tuple[Entry, ...]
    dropped: tuple[str, ...]
    fresh: bool


# Writing an image


class _Draft:
    """A tree in the making: everything goes through descriptors of folders that it made itself."""

    def __init__(self, images: int, name: str) -> None:
        self.name = name
        self.entries: list[Entry] = []
        self.size = 0
        os.mkdir(name, 0o700, dir_fd=images)
        self._stack = [("", os.open(name, DIRECTORY, dir_fd=images))]

    def _into(self, path: str) -> tuple[int, str]:
        """The descriptor of the folder that a path lies in, and its name there."""
        folder, _, name = path.rpartition("/")
        while (top := self._stack[-1][0]) and top != folder and not folder.startswith(top + "/"):
            os.close(self._stack.pop()[1])
        while (top := self._stack[-1][0]) != folder:
            step = folder.removeprefix(top + "/" if top else "").partition("/")[0]
            self._stack.append((f"{top}/{step}" if top else step, os.open(step, DIRECTORY, dir_fd=self._stack[-1][1])))
        return self._stack[-1][1], name

    def folder(self, path: str) -> None:
        """An empty folder."""
        into, name = self._into(path)
        os.mkdir(name, 0o700, dir_fd=into)
        self.entries.append(Folder(path, FOLDER_MODE))

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        into, name = self._into(path)
        os.symlink(target, name, dir_fd=into)
        self.entries.append(Link(path, target))

    def file(self, path: str, mode: int, chunks: Iterable[bytes]) -> None:
        """A file, within the limits; programs are those that anybody could execute."""
        into, name = self._into(path)
        digest, size = hashlib.sha256(), 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=into)
        with open(descriptor, "wb", buffering=0) as file:
            for chunk in chunks:
                size += len(chunk)
                self.size += len(chunk)
                if size > MAX_FILE_SIZE or self.size > MAX_TOTAL_SIZE:
                    raise ImageRefused(f"{path!a}: over {MAX_FILE_SIZE} bytes, or {MAX_TOTAL_SIZE} bytes in all")
                digest.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
            kept = PROGRAM_MODE if mode & 0o111 else PLAIN_MODE
            os.fchmod(descriptor, kept)
        self.entries.append(File(path, kept, size, Digest(digest.hexdigest())))

    def seal(self) -> None:
        """Takes write permission from every folder and puts all on disk."""
        while len(self._stack) > 1:
            os.close(self._stack.pop()[1])
        root = self._stack[0][1]
        for entry in reversed(in_order(self.entries)):
            if isinstance(entry, Folder):
                into, name = self._into(entry.path)
                with opened(name, DIRECTORY, into) as descriptor:
                    os.fchmod(descriptor, FOLDER_MODE)
        os.fchmod(root, FOLDER_MODE)
        # One call for thousands of files; an error in any of them is an error here (syncfs(2), Linux 5.8 on).
        if _libc.syncfs(root) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")

    def close(self) -> None:
        """Closes the descriptors."""
        while self._stack:
            os.close(self._stack.pop()[1])


def _remove(images: int, name: str) -> None:
    """Removes a draft, whose folders may be read-only already, or a layer's file that was still to lose its name."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=images, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=images)
        return
    for _, _, _, folder in os.fwalk(name, dir_fd=images):
        os.fchmod(folder, 0o700)
    shutil.rmtree(name, dir_fd=images)


@contextmanager
def _images_folder(deployment: Deployment) -> Iterator[int]:
    """The images' folder, locked: one loads at a time. What an interrupted one left is removed."""
    try:
        folder = os.open(deployment.root / FOLDER, DIRECTORY)
    except OSError as error:
        raise DeploymentError(f"{deployment.root / FOLDER}: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for name in os.listdir(folder):
            if name.startswith(_DRAFT):
                _remove(folder, name)
        yield folder
    finally:
        os.close(folder)


def _own_things(guard: bytes) -> list[Piece]:
    own = [Piece(OWN, FOLDER_MODE), Piece(GUARD, PROGRAM_MODE, chunks=(guard,))]
    return [*own, *(Piece(path, FOLDER_MODE) for path in MOUNT_POINTS)]


def _are(chunks: Iterable[bytes], data: bytes) -> bool:
    at = 0
    for chunk in chunks:
        if data[at : at + len(chunk)] != chunk:
            return False
        at += len(chunk)
    return at == len(data)


def _is_ours(piece: Piece, guard: bytes) -> bool:
    """True if a source's piece is one that every image gets anyway; ImageRefused if it is in the way of one."""
    top = piece.path.partition("/")[0]
    if top in MOUNT_POINTS:
        if piece.path == top and piece.chunks is None and piece.target is None:
            return True
        raise ImageRefused(
            f"{piece.path!a} is in the image, but the sandbox mounts its own {top}", f"empty {top} in the source"
        )
    if top == OWN:
        if piece.path == OWN and piece.chunks is None and piece.target is None:
            return True
        if piece.path == GUARD and piece.chunks is not None and _are(piece.chunks, guard):
            return True
        raise ImageRefused(
            f"{piece.path!a} is in the image, but {OWN} is Ironbound's own", f"remove {OWN} from the source"
        )
    return False


def load(deployment: Deployment, pieces: Iterable[Piece], guard: bytes, tell: Tell = lambda done, size: None) -> Loaded:
    """Writes a source's pieces as an image; returns it, also if it was there already.

    Leaves nothing behind if it fails. Raises ImageRefused, DeploymentError, OSError (such as a full disk).
    """
    with _images_folder(deployment) as images:
        draft = _Draft(images, f"{_DRAFT}{os.urandom(8).hex()}")
        try:
            loaded = _write(draft, pieces, guard, tell)
            draft.seal()
            deployment.keep_artifact("terminal", encode_tree(loaded.entries))
            if Path(f"/proc/self/fd/{images}/{loaded.digest}").exists():
                Images(deployment).verify(loaded.digest)
                return loaded
            os.rename(draft.name, loaded.digest, src_dir_fd=images, dst_dir_fd=images)
            os.fsync(images)
            draft.name = ""
            return Loaded(loaded.digest, loaded.entries, loaded.dropped, fresh=True)
        except FormatError as error:
            raise ImageRefused(error.message) from error
        finally:
            draft.close()
            if draft.name:
                _remove(images, draft.name)


def _write(draft: _Draft, pieces: Iterable[Piece], guard: bytes, tell: Tell) -> Loaded:
    dropped: list[str] = []
    for piece in _own_things(guard):
        _write_piece(draft, piece)
    for piece in pieces:
        require_path(piece.path)
        if _is_ours(piece, guard):
            continue
        if len(draft.entries) >= MAX_ENTRIES:
            raise ImageRefused(f"more than {MAX_ENTRIES} entries")
        if piece.raised:
            dropped.append(piece.path)
        _write_piece(draft, piece)
        tell(len(draft.entries), draft.size)
    entries = in_order(draft.entries)
    return Loaded(tree_digest(entries), entries, tuple(dropped), fresh=False)


def _write_piece(draft: _Draft, piece: Piece) -> None:
    if piece.target is not None:
        draft.link(piece.path, require_target(piece.path, piece.target))
    elif piece.chunks is not None:
        draft.file(piece.path, piece.mode, piece.chunks)
    else:
        draft.folder(piece.path)


def _is_raised(folder: int, name: str, status: os.stat_result) -> bool:
    """Whether a file would give its caller another user or capabilities."""
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return True
    with opened(name, REGULAR, folder) as descriptor:
        return CAPABILITY in attributes(descriptor)


def _pieces(source: int) -> Iterator[Piece]:
    for path, parent, name, status in walk(source):
        if stat.S_ISDIR(status.st_mode):
            yield Piece(path, status.st_mode)
        elif stat.S_ISLNK(status.st_mode):
            yield Piece(path, status.st_mode, target=os.readlink(name, dir_fd=parent))
        elif stat.S_ISREG(status.st_mode):
            with reading(path, parent, name, status) as chunks:
                yield Piece(path, status.st_mode, chunks=chunks, raised=_is_raised(parent, name, status))
        else:
            raise no_such_kind(path, status.st_mode)


def load_directory(source: Path, deployment: Deployment, guard: bytes, tell: Tell = lambda done, size: None) -> Loaded:
    """Loads a folder, as it is now, into the deployment."""
    place = source.resolve()
    if (deployment.root / FOLDER).resolve().is_relative_to(place):
        raise ImageRefused(f"{place} holds the deployment itself", "load a folder that has only the agent's files")
    with opened(os.fspath(source), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as folder:
        return load(deployment, _pieces(folder), guard, tell)
