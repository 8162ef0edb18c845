"""Loads an OCI image layout into the deployment: each blob checked, each layer unpacked in memory, one tree written.

Decides that every byte used is one that a digest in the layout names. What the documents may say is for
`core/oci.py`; what a layer's members do for `layers.py`; how an image is written for `image_load.py`.

Rule 1: a blob's size and digest are checked before anything of it is used, and a layer's uncompressed bytes are hashed
        again against the configuration's diff_id.
Rule 2: no name in the layout is followed, and none is made from what a document says but 64 hexadecimal digits.
Rule 3: what unpacks to more than the limit is refused at the limit, not afterwards.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

from ironbound.core.canonical import Digest, FormatError, sha256_hex
from ironbound.core.oci import (
    INDEXES,
    MAX_DOCUMENT,
    Descriptor,
    ImageConfig,
    check_layout,
    choose,
    is_compressed,
    parse_config,
    parse_index,
    parse_manifest,
)
from ironbound.core.tree import MAX_TOTAL_SIZE

from .deployment import Deployment
from .image_load import Loaded, Piece, Tell, load
from .images import CHUNK, DIRECTORY, FOLDER, REGULAR, ImageRefused, opened
from .layers import Overlay

#: Bytes of all layers together, uncompressed.
MAX_UNPACKED: Final = 2 * MAX_TOTAL_SIZE
#: Indexes within indexes.
MAX_NESTING: Final = 4


def is_layout(source: Path) -> bool:
    """Whether a folder says that it is an OCI image layout."""
    return (source / "oci-layout").is_file()


@contextmanager
def _file(layout: int, *names: str) -> Iterator[int]:
    """A regular file in the layout, by its folders' names, none of them followed."""
    where = "/".join(names)
    try:
        with ExitStack() as stack:
            folder = layout
            for name in names[:-1]:
                folder = stack.enter_context(opened(name, DIRECTORY, folder))
            descriptor = stack.enter_context(opened(names[-1], REGULAR, folder))
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ImageRefused(f"{where} in the layout is no regular file")
            yield descriptor
    except OSError as error:
        raise ImageRefused(f"{where} in the layout can't be read: {error.strerror}") from error


def _whole(layout: int, *names: str) -> bytes:
    with _file(layout, *names) as descriptor, open(descriptor, "rb", closefd=False) as file:
        data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise ImageRefused(f"{'/'.join(names)} in the layout is larger than {MAX_DOCUMENT} bytes")
    return data


def _require_blob(descriptor: Descriptor, digest: Digest, size: int) -> None:
    if (digest, size) != (descriptor.digest, descriptor.size):
        raise ImageRefused(
            f"blob {descriptor.digest} is not what its digest and size say: {size} bytes with SHA-256 {digest}",
            "fetch the layout again",
        )


def _document(layout: int, descriptor: Descriptor) -> bytes:
    data = _whole(layout, "blobs", "sha256", descriptor.digest)
    _require_blob(descriptor, sha256_hex(data), len(data))
    return data


def _image(layout: int, tag: str | None) -> tuple[Descriptor, bytes]:
    """The descriptor and the bytes of the manifest that is meant."""
    check_layout(_whole(layout, "oci-layout"))
    found = choose(parse_index(_whole(layout, "index.json")), tag)
    for _ in range(MAX_NESTING):
        data = _document(layout, found)
        if found.media_type not in INDEXES:
            return found, data
        found = choose(parse_index(data), None)
    raise ImageRefused(f"more than {MAX_NESTING} indexes within each other")


def _unpack(layout: int, layer: Descriptor, diff_id: Digest, into: IO[bytes], budget: int) -> int:
    """Writes a layer's uncompressed bytes; returns how many. At most `budget`."""
    with _file(layout, "blobs", "sha256", layer.digest) as blob:
        with open(blob, "rb", closefd=False) as file:
            digest, size = hashlib.sha256(), 0
            while size <= layer.size and (chunk := file.read(CHUNK)):
                digest.update(chunk)
                size += len(chunk)
        _require_blob(layer, Digest(digest.hexdigest()), size)
        os.lseek(blob, 0, os.SEEK_SET)
        digest, size = hashlib.sha256(), 0
        with ExitStack() as stack:
            raw = stack.enter_context(open(blob, "rb", closefd=False))
            stream = stack.enter_context(gzip.GzipFile(fileobj=raw)) if is_compressed(layer) else raw
            try:
                while chunk := stream.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    if size > budget:
                        raise ImageRefused(f"the layers unpack to more than {MAX_UNPACKED} bytes")
                    into.write(chunk)
            except (gzip.BadGzipFile, zlib.error, EOFError) as error:
                raise ImageRefused(f"layer {layer.digest} is no whole gzip stream: {error}") from error
    into.flush()
    if digest.hexdigest() != diff_id:
        raise ImageRefused(
            f"layer {layer.digest} unpacks to other bytes than the image's configuration says (diff_id {diff_id})"
        )
    return size


@contextmanager
def opened_layout(
    source: Path, place: Path, tag: str | None = None, stage: Callable[[str], None] = lambda text: None
) -> Iterator[tuple[Iterator[Piece], ImageConfig]]:
    """The tree of the image for our platform, and with that tag if the layout holds several; with its author's wishes.

    The layers are unpacked into files without names, in the folder `place`.
    """
    with ExitStack() as stack:
        layout = stack.enter_context(opened(os.fspath(source), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            _, data = _image(layout, tag)
            manifest = parse_manifest(data)
            config = parse_config(_document(layout, manifest.config))
        except FormatError as error:
            raise ImageRefused(error.message, _HINTS.get(error.code, "")) from error
        if len(config.diff_ids) != len(manifest.layers):
            raise ImageRefused(f"{len(manifest.layers)} layers, but {len(config.diff_ids)} diff_ids")
        overlay, left = Overlay(), MAX_UNPACKED
        for number, (layer, diff_id) in enumerate(zip(manifest.layers, config.diff_ids, strict=True), 1):
            stage(f"layer {number} of {len(manifest.layers)}")
            into = stack.enter_context(tempfile.TemporaryFile(dir=place, prefix=".draft."))
            left -= _unpack(layout, layer, diff_id, into, left)
            overlay.apply(into.fileno())
        yield overlay.pieces(), config


def load_layout(
    source: Path,
    deployment: Deployment,
    guard: bytes,
    tag: str | None = None,
    tell: Tell = lambda done, size: None,
    stage: Callable[[str], None] = lambda text: None,
) -> tuple[Loaded, ImageConfig]:
    """Loads the image for our platform, and with that tag if the layout holds several; with its author's wishes."""
    with opened_layout(source, deployment.root / FOLDER, tag, stage) as (pieces, config):
        stage("writing")
        return load(deployment, pieces, guard, tell), config


_HINTS: Final = {
    "oci-tag": "name one of them with --tag",
    "oci-layer": "write the image anew with layers of tar+gzip",
    "oci-platform": "images for other platforms don't run here",
    "oci-media-type": "name an image that a container runtime starts",
}
