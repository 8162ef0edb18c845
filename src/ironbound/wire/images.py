"""Root file systems of native agents, on disk: measured, and checked before each launch.

Decides whether a folder is exactly the tree that a digest names. What a listing is, and what an image has to hold, is
for `core/tree.py`; whether the digest was approved is for the log. Follows openat(2), statx(2), proc(5) (mountinfo).

An image lies in `DEPLOYMENT/images/<tree digest>/`. Its folders have mode 0555, its files 0444, or 0555 if anybody
could execute them; all belong to root, or to the deployment's user. The listing records what is on disk. What
nobody but root could read in the source is readable in the sandbox: an image is no place for secrets.

Rule 1: no name is followed. Each is opened below its folder's descriptor with O_NOFOLLOW, and looked at once open.
Rule 2: `verify` reads every byte, unless no stat key (device, inode, mode, owner, links, size, mtime, ctime) changed
        since it did, and the newest of them was old by then: a change within the clock's tick can't hide.
Rule 3: nothing is mounted in an image or on it, each file has one name, and no file carries capabilities or an ACL.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Final, TypeAlias

from ironbound.core.canonical import Digest, FormatError
from ironbound.core.tree import (
    FOLDER_MODE,
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_FILE_SIZE,
    MOUNT_POINTS,
    Entry,
    File,
    Folder,
    Link,
    differences,
    in_order,
    parse_tree,
    require_image,
    tree_digest,
)

from .deployment import Deployment, DeploymentError

FOLDER: Final = "images"
CHUNK: Final = 1 << 20
#: A stat key whose ctime is younger than this, in ns, doesn't prove that nothing changed since.
SETTLED_NS: Final = 2_000_000_000
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
REGULAR: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
CAPABILITY: Final = "security.capability"
_ATTRIBUTES: Final = (CAPABILITY, "system.posix_acl_access", "system.posix_acl_default")
_NAMES: Final = {
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}

Keys: TypeAlias = dict[str, tuple[int, ...]]


def shipped_guard() -> bytes:
    """The guard that this installation puts into images, and that its node starts."""
    return (resources.files("ironbound") / "node" / "native" / "guard" / "guard").read_bytes()


class ImageRefused(Exception):
    """A source can't become an image, or an image is not what its digest names; with a hint."""

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause)
        self.cause, self.hint = cause, hint


# Reading a tree


def _key(of: os.stat_result) -> tuple[int, ...]:
    return (
        of.st_dev, of.st_ino, of.st_mode, of.st_uid, of.st_gid, of.st_nlink, of.st_size, of.st_mtime_ns, of.st_ctime_ns,
    )  # fmt: skip


@contextmanager
def opened(name: str, flags: int, folder: int | None = None) -> Iterator[int]:
    """The descriptor of a name below an open folder, closed at the end."""
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def walk(folder: int, prefix: str = "", depth: int = 1) -> Iterator[tuple[str, int, str, os.stat_result]]:
    """Path, folder's descriptor, name and status of everything below a folder, parents first, never following."""
    if depth > MAX_DEPTH:
        raise ImageRefused(f"{prefix[:80]!a}: more than {MAX_DEPTH} folders within each other")
    with os.scandir(folder) as found:
        names = sorted(one.name for one in found)
    for name in names:
        path = prefix + name
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        yield path, folder, name, status
        if stat.S_ISDIR(status.st_mode):
            with opened(name, DIRECTORY, folder) as inner:
                if not os.path.samestat(os.fstat(inner), status):
                    raise ImageRefused(f"{path!a} was exchanged while it was read")
                yield from walk(inner, path + "/", depth + 1)


@contextmanager
def reading(path: str, folder: int, name: str, status: os.stat_result) -> Iterator[Iterator[bytes]]:
    """The bytes of a regular file; ImageRefused if it is not the one looked at, or changes meanwhile."""
    with opened(name, REGULAR, folder) as descriptor:
        if _key(os.fstat(descriptor)) != _key(status):
            raise ImageRefused(f"{path!a} was exchanged while it was read")
        if status.st_size > MAX_FILE_SIZE:
            raise ImageRefused(f"{path!a}: larger than {MAX_FILE_SIZE} bytes")

        def chunks() -> Iterator[bytes]:
            done = 0
            while data := os.read(descriptor, CHUNK):
                done += len(data)
                if done > status.st_size:
                    break
                yield data
            if done != status.st_size or _key(os.fstat(descriptor)) != _key(status):
                raise ImageRefused(f"{path!a} changed while it was read", "let nothing write there, and try again")

        yield chunks()


def no_such_kind(path: str, mode: int) -> ImageRefused:
    """The refusal of what is neither folder, file nor link."""
    kind = _NAMES.get(stat.S_IFMT(mode), "of an unknown kind")
    return ImageRefused(
        f"{path!a} is {kind}; an image has folders, files and symbolic links only",
        f"leave it out: a sandbox gets its own {', '.join(MOUNT_POINTS)}",
    )


def attributes(descriptor: int) -> list[str]:
    """The names of an open file's extended attributes; none where the file system has none."""
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []


def _require_plain(path: str, folder: int, name: str, status: os.stat_result, owner: int) -> None:
    """Rule 4, and the owner, for one thing in an image."""
    if status.st_uid != owner:
        raise ImageRefused(f"{path!a} belongs to user {status.st_uid}, expected {owner}")
    if stat.S_ISLNK(status.st_mode):
        return
    if stat.S_ISREG(status.st_mode) and status.st_nlink != 1:
        raise ImageRefused(f"{path!a} has a second name, through which it could be written")
    with opened(name, DIRECTORY if stat.S_ISDIR(status.st_mode) else REGULAR, folder) as descriptor:
        carried = attributes(descriptor)
    for attribute in _ATTRIBUTES:
        if attribute in carried:
            raise ImageRefused(f"{path!a} carries {attribute}")


def measure(folder: int, owner: int | None = None) -> tuple[Entry, ...]:
    """The listing of what lies below an open folder. With `owner` it is held to Rule 3 as an image of that user."""
    entries: list[Entry] = []
    for path, parent, name, status in walk(folder):
        if len(entries) == MAX_ENTRIES:
            raise ImageRefused(f"more than {MAX_ENTRIES} entries")
        mode = stat.S_IMODE(status.st_mode)
        if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise no_such_kind(path, status.st_mode)
        if owner is not None:
            _require_plain(path, parent, name, status, owner)
        if stat.S_ISDIR(status.st_mode):
            entries.append(Folder(path, mode))
        elif stat.S_ISLNK(status.st_mode):
            entries.append(Link(path, os.readlink(name, dir_fd=parent)))
        else:
            digest = hashlib.sha256()
            with reading(path, parent, name, status) as chunks:
                for chunk in chunks:
                    digest.update(chunk)
            entries.append(File(path, mode, status.st_size, Digest(digest.hexdigest())))
    return in_order(entries)


# Checking an image


def _mounted_below(place: str) -> list[str]:
    """The mount points at a path or below it, as the kernel names them to this process."""
    with open("/proc/self/mountinfo", "rb") as file:
        points = [line.split(b" ")[4] for line in file]
    found = [re.sub(rb"\\([0-7]{3})", lambda one: bytes([int(one[1], 8)]), point) for point in points]
    here = os.fsencode(place)
    return [os.fsdecode(point) for point in found if point == here or point.startswith(here + b"/")]


class Images:
    """A deployment's images. Keeps the stat keys of what it verified, for as long as the process lives."""

    __slots__ = ("_known", "_owner", "_root", "deployment")

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self._root = deployment.root / FOLDER
        self._owner = 0 if deployment.separated else os.getuid()
        self._known: dict[Digest, tuple[Keys, Digest]] = {}

    def path(self, digest: Digest) -> Path:
        """Where an image lies, if it does."""
        return self._root / digest

    def digests(self) -> list[Digest]:
        """The images that lie there, verified or not."""
        return sorted(Digest(one.name) for one in self._root.iterdir() if re.fullmatch("[0-9a-f]{64}", one.name))

    def entries(self, digest: Digest) -> tuple[Entry, ...]:
        """An image's approved listing, from the artifacts. DeploymentError or FormatError if it can't be had."""
        return parse_tree(self.deployment.artifact(digest))

    def verify(self, digest: Digest) -> Digest:
        """The digest of the guard in the image, once the tree on disk is exactly the one with this digest.

        ImageRefused says what differs. Reads every file the first time and after any change, else looks only.
        """
        with self.opened(digest) as (_, guard):
            return guard

    @contextmanager
    def opened(self, digest: Digest) -> Iterator[tuple[int, Digest]]:
        """As `verify`; gives the folder's descriptor too, for whoever starts from that very folder."""
        try:
            descriptor = os.open(self.path(digest), DIRECTORY)
        except OSError as error:
            raise ImageRefused(
                f"no image {digest} in this deployment: {error.strerror}", "load it with `ironbound image load PATH`"
            ) from error
        try:
            guard = self._verify(digest, descriptor)
            yield descriptor, guard
        finally:
            os.close(descriptor)

    def _look(self, folder: int) -> Keys:
        keys = {"": _key(os.fstat(folder))}
        for path, _, _, status in walk(folder):
            keys[path] = _key(status)
        return keys

    def _verify(self, digest: Digest, folder: int) -> Digest:
        began = time.time_ns()
        try:
            keys = self._look(folder)
            known, guard = self._known.get(digest, ({}, digest))
            if known != keys:
                self._known.pop(digest, None)
                guard = self._read(digest, folder)
                if self._look(folder) != keys:
                    raise ImageRefused(f"the image {digest} changed while it was read")
                if max(one[-1] for one in keys.values()) < began - SETTLED_NS:
                    self._known[digest] = keys, guard
            if mounted := _mounted_below(os.readlink(f"/proc/self/fd/{folder}")):
                raise ImageRefused(f"something is mounted in the image {digest}: {', '.join(mounted)[:200]}")
            return guard
        except FormatError as error:
            raise ImageRefused(f"the image {digest}: {error.message}") from error
        except OSError as error:
            raise ImageRefused(f"the image {digest} can't be read: {error}") from error

    def _read(self, digest: Digest, folder: int) -> Digest:
        status = os.fstat(folder)
        if stat.S_IMODE(status.st_mode) != FOLDER_MODE or status.st_uid != self._owner:
            raise ImageRefused(f"the image {digest} is not a folder of user {self._owner} with mode {FOLDER_MODE:o}")
        found = measure(folder, self._owner)
        if tree_digest(found) == digest:
            return require_image(found)
        try:
            what = "; ".join(differences(self.entries(digest), found))
        except (FormatError, DeploymentError) as error:
            what = f"and its listing can't be had: {error}"
        raise ImageRefused(
            f"the image {digest} is not what was approved: {what}", "remove it, and load it again from its source"
        )
