"""Layers of an image, one over the other, as a tree in memory: no member of an archive ever names a path on disk.

Decides what each member of a layer's tar archive does to the tree: add, replace, remove. It writes nothing; a file is
a place in a layer's bytes, and `oci.py` hands them to `image_load.py`. Follows the OCI Image Format Specification
1.1 (layer: whiteouts, opaque whiteouts) and POSIX pax.

Rule 1: a member lies in a folder of the tree. A name through a link, a file, `..` or from `/` on is refused.
Rule 2: a whiteout removes what lower layers brought, whatever its place in its own layer.
Rule 3: what an archive holds behind its last member is zeros: half an archive is not taken for a whole one.
Rule 4: headers, members and sizes are bounded before they are believed.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ironbound.core.canonical import FormatError
from ironbound.core.tree import MAX_ENTRIES, MAX_FILE_SIZE, require_path

from .image_load import Piece
from .images import CHUNK, ImageRefused, no_such_kind

#: Bytes of one extended header; members in all layers together.
MAX_HEADER: Final = 1 << 20
MAX_MEMBERS: Final = 2 * MAX_ENTRIES
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_CAPABILITY: Final = "SCHILY.xattr.security.capability"
_KINDS: Final = {
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


@dataclass(slots=True)
class _Node:
    """What lies at a path: a folder if it has `children`, a link if it has a `target`, else a file."""

    layer: int
    mode: int
    children: dict[str, _Node] | None = None
    target: str | None = None
    source: int = -1
    offset: int = 0
    size: int = 0
    raised: bool = False


class _Headers:
    """A layer's bytes for the archive's reader, which needs headers only, and gets no more than a header's bytes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise ImageRefused(f"a header of {size} bytes; at most {MAX_HEADER} are read")
        data = os.pread(self._descriptor, size, self._at)
        self._at += len(data)
        return data

    def seek(self, at: int) -> int:
        self._at = at
        return at

    def tell(self) -> int:
        return self._at


@dataclass(slots=True)
class Overlay:
    """The tree that the layers make. `sources`: an open file with each layer's uncompressed bytes."""

    sources: list[int] = field(default_factory=list)
    members: int = 0
    _tree: dict[str, _Node] = field(default_factory=dict)

    def apply(self, source: int) -> None:
        """Puts one layer, an open file of uncompressed tar, over those before. ImageRefused says which member not."""
        self.sources.append(source)
        size = os.fstat(source).st_size
        try:
            end = self._members(source, size)
        except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
            raise ImageRefused(f"layer {len(self.sources)} is no tar archive: {str(error)[:200]}") from error
        while chunk := os.pread(source, CHUNK, end):
            end += len(chunk)
            if chunk.count(0) != len(chunk):
                raise ImageRefused(f"layer {len(self.sources)} goes on behind its last member, or is cut off")

    def _members(self, source: int, size: int) -> int:
        with tarfile.TarFile(
            fileobj=_Headers(source),  # type: ignore[arg-type]
            encoding="utf-8",
            errors="strict",
            errorlevel=2,
        ) as archive:
            before = 0
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]
                self.members += 1
                if self.members > MAX_MEMBERS:
                    raise ImageRefused(f"more than {MAX_MEMBERS} members in the layers")
                if not 0 <= member.size <= MAX_FILE_SIZE or not before < archive.offset <= size:
                    raise ImageRefused(f"{member.name[:80]!a}: its size of {member.size} bytes is beyond the layer's")
                before = archive.offset
                self._add(member)
            return before

    def _add(self, member: tarfile.TarInfo) -> None:
        name = member.name
        while name.startswith("./"):
            name = name.removeprefix("./").lstrip("/")
        name = name.rstrip("/")
        if name in ("", "."):
            if member.name.startswith("/") or not member.isdir():
                raise ImageRefused(f"{member.name[:80]!a} is no name of a member")
            return
        try:
            require_path(name)
        except FormatError as error:
            raise ImageRefused(
                f"layer {len(self.sources)}: {error.message}", "a member has a relative path of plain names"
            ) from error
        folder, _, last = name.rpartition("/")
        siblings = self._folder(folder, name)
        if last.startswith(_WHITEOUT):
            self._whiteout(member, last, siblings)
        else:
            siblings[last] = self._node(member, name, siblings.get(last))

    def _folder(self, path: str, member: str) -> dict[str, _Node]:
        """What lies in a folder, which is made if it is not there; ImageRefused if it is no folder (Rule 1)."""
        layer = len(self.sources) - 1
        inside = self._tree
        for part in path.split("/") if path else ():
            node = inside.setdefault(part, _Node(layer, 0o755, children={}))
            if node.children is None:
                raise ImageRefused(
                    f"layer {layer + 1}: {member!a} lies below {part!a}, which is no folder",
                    "unpack the image with a tool that follows its links, look at what it did, and load the folder",
                )
            inside = node.children
        return inside

    def _node(self, member: tarfile.TarInfo, name: str, before: _Node | None) -> _Node:
        layer, mode = len(self.sources) - 1, member.mode & 0o7777
        if member.isdir():
            kept = before.children if before is not None and before.children is not None else {}
            return _Node(layer, mode, children=kept)
        if member.issym():
            return _Node(layer, mode, target=member.linkname)
        if member.islnk():
            first = self._linked(member.linkname, name)
            return _Node(layer, first.mode, None, first.target, first.source, first.offset, first.size, first.raised)
        if member.type in _KINDS:
            raise no_such_kind(name, _KINDS[member.type])
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise ImageRefused(f"{name!a} is a member of a kind that is not unpacked: {member.type!a}")
        raised = bool(mode & (stat.S_ISUID | stat.S_ISGID)) or _CAPABILITY in member.pax_headers
        return _Node(
            layer, mode, source=layer, offset=member.offset_data, size=member.size, raised=raised
        )  # fmt: skip

    def _linked(self, target: str, name: str) -> _Node:
        """The file that a hard link is another name of."""
        found, inside = None, self._tree
        for part in target.removeprefix("./").split("/"):
            found = inside.get(part)
            if found is None:
                raise ImageRefused(f"{name!a} is a hard link to {target[:80]!a}, which is not in the image")
            inside = found.children or {}
        if found is None or found.children is not None:
            raise ImageRefused(f"{name!a} is a hard link to a folder")
        return found

    def _whiteout(self, member: tarfile.TarInfo, last: str, siblings: dict[str, _Node]) -> None:
        layer = len(self.sources) - 1
        target = last.removeprefix(_WHITEOUT)
        if last == _OPAQUE:
            _remove_lower(siblings, layer)
        elif target in ("", ".", "..") or target.startswith(_WHITEOUT) or not member.isreg():
            raise ImageRefused(f"layer {layer + 1}: {member.name[:80]!a} is no whiteout that is known")
        elif target in siblings:
            one = {target: siblings[target]}
            _remove_lower(one, layer)
            if not one:
                del siblings[target]

    def pieces(self) -> Iterator[Piece]:
        """The tree, parents before children, with each file's bytes from its layer."""
        yield from self._below(self._tree, "")

    def _below(self, inside: dict[str, _Node], prefix: str) -> Iterator[Piece]:
        for name, node in sorted(inside.items(), key=lambda one: one[0]):
            path = prefix + name
            if node.children is not None:
                yield Piece(path, node.mode)
                yield from self._below(node.children, path + "/")
            elif node.target is not None:
                yield Piece(path, node.mode, target=node.target)
            else:
                yield Piece(path, node.mode, chunks=self._bytes(node), raised=node.raised)

    def _bytes(self, node: _Node) -> Iterator[bytes]:
        at, end = node.offset, node.offset + node.size
        while at < end:
            chunk = os.pread(self.sources[node.source], min(CHUNK, end - at), at)
            if not chunk:
                raise ImageRefused("a layer became shorter while it was read")
            at += len(chunk)
            yield chunk


def _remove_lower(nodes: dict[str, _Node], layer: int) -> None:
    """Takes away what layers below `layer` brought; a folder stays while something of this layer is in it."""
    for name, node in list(nodes.items()):
        if node.children is not None:
            _remove_lower(node.children, layer)
        if node.layer < layer and not node.children:
            del nodes[name]
