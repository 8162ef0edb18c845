"""The files that sandboxes run from, as they lie on disk: a change to one while a sandbox uses it is drift.

Decides whether a file or an image is still what was measured. Which sandboxes use it, the watch says. Follows
inotify(7), proc(5).

Rule 1: a Wasm worker's files are those that it maps executable, by name; each must hold on disk what is mapped. A
        container's are the runtime's program, the libraries of all that build it, and the whole image; a virtual
        machine's is the hypervisor.
Rule 2: an event of the kernel only says when to look; what is looked at is the file, by its stat key and then its
        bytes. What cannot be watched is looked at in every round, as everything is.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ironbound.core.canonical import Digest
from ironbound.core.posture import NOT_SEEN, Difference
from ironbound.wire.images import ImageRefused, Images

from .observe import Baseline, cached_digest, digest_of, executable_mappings

_CHANGES: Final = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
"""Modified, attributes, written and closed, moved from and to, created, deleted, itself deleted or moved."""
_INIT: Final = os.O_NONBLOCK | os.O_CLOEXEC
#: Folders of one image that are watched, at most.
MAX_FOLDERS: Final = 4096

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _Used:
    """What a file or an image must be, and by which launches it is used."""

    digest: Digest
    by: set[int] = field(default_factory=set)


class Files:
    """Everything on disk that is in use. `fileno` is readable when something may have changed."""

    def __init__(self, images: Images, baseline: Baseline) -> None:
        """Raises OSError."""
        self._images = images
        self._baseline = baseline
        self._files: dict[str, _Used] = {}
        self._roots: dict[Digest, _Used] = {}
        self._descriptor = int(_libc.inotify_init1(_INIT))
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")

    def fileno(self) -> int:
        return self._descriptor

    def drain(self) -> None:
        """Take the events away; each only says that something is to be looked at."""
        try:
            while os.read(self._descriptor, 65536):
                pass
        except BlockingIOError:
            return

    def _watch(self, path: str) -> None:
        _libc.inotify_add_watch(self._descriptor, ctypes.c_char_p(os.fsencode(path)), ctypes.c_uint32(_CHANGES))

    def use(self, launch: int, path: str, digest: Digest) -> None:
        """A launch runs this file, which was measured so."""
        used = self._files.get(path)
        if used is None or used.digest != digest:
            used = self._files[path] = _Used(digest)
            self._watch(path)
        used.by.add(launch)

    def use_mapped(self, launch: int, pid: int, mapped: frozenset[str]) -> list[Difference]:
        """A launch's process runs the files that it maps, whose digests are `mapped`; those that lie there no more."""
        found = []
        for path in _mapped_files(pid):
            lies = digest_of(path, self._baseline)
            if lies is None or lies not in mapped:
                found.append(_changed(path, None, lies))
            else:
                self.use(launch, path, lies)
        return found

    def use_image(self, launch: int, rootfs: Digest) -> None:
        """A launch runs from this image."""
        used = self._roots.setdefault(rootfs, _Used(rootfs))
        if not used.by:
            for number, (folder, _, _) in enumerate(os.walk(self._images.path(rootfs))):
                if number >= MAX_FOLDERS:
                    break
                self._watch(folder)
        used.by.add(launch)

    def forget(self, launch: int) -> None:
        """The launch is over."""
        for used in (*self._files.values(), *self._roots.values()):
            used.by.discard(launch)
        self._files = {path: used for path, used in self._files.items() if used.by}
        self._roots = {rootfs: used for rootfs, used in self._roots.items() if used.by}

    def changed_files(self) -> dict[int, list[Difference]]:
        """By launch, the files that lie on disk as something else by now."""
        found: dict[int, list[Difference]] = {}
        for path, used in list(self._files.items()):
            lies = cached_digest(path, self._baseline) or digest_of(path, self._baseline)
            if lies != used.digest:
                for launch in used.by:
                    found.setdefault(launch, []).append(_changed(path, used.digest, lies))
        return found

    def changed_images(self) -> dict[int, list[Difference]]:
        """By launch, the images that are not what their digest names any more. Looks at every file."""
        found: dict[int, list[Difference]] = {}
        for rootfs, used in list(self._roots.items()):
            try:
                self._images.verify(rootfs)
            except ImageRefused as error:
                for launch in list(used.by):
                    found.setdefault(launch, []).append(Difference("files.image", rootfs, error.cause[:1000]))
        return found


def _changed(path: str, digest: Digest | None, lies: Digest | None) -> Difference:
    if lies is None and Path(path).exists():
        return Difference(f"files.{path}"[:200], digest, NOT_SEEN)
    return Difference(f"files.{path}"[:200], digest, lies)


def _mapped_files(pid: int) -> list[str]:
    """The names of the files that a process maps executable; memory files have no place on disk."""
    places = {one.path for one in executable_mappings(f"/proc/{pid}") if one.path.startswith("/")}
    return sorted(place for place in places if not place.startswith("/memfd:"))
