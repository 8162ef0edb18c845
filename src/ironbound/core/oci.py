"""The documents of an OCI image layout: which blobs an image is made of, and how its author starts it.

Decides whether the bytes of `oci-layout`, an index, a manifest and a configuration say something that we can hold to,
and which image of an index is meant. Reads no file and unpacks no layer. Follows the OCI Image Format Specification
1.1 (image-layout, image-index, manifest, config, descriptor); Docker's names for the same things are taken too.

Rule 1: a blob is named by SHA-256 and size, or refused; a layer's compression is one that we know, or refused by name.
Rule 2: nothing is guessed: several images that fit are an error that lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .canonical import Digest, FormatError, Value, parse_digest, parse_json

MAX_DOCUMENT: Final = 4 << 20
MAX_LAYERS: Final = 128
MAX_MANIFESTS: Final = 1000
MAX_BLOB: Final = 8 << 30
PLATFORM: Final = ("linux", "amd64")
LAYOUT_VERSION: Final = "1.0.0"
#: The annotation that holds an image's tag in a layout.
REF_NAME: Final = "org.opencontainers.image.ref.name"

INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
CONFIGS: Final = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
#: A layer's media type → whether it is compressed with gzip.
LAYERS: Final = {
    "application/vnd.oci.image.layer.v1.tar": False,
    "application/vnd.oci.image.layer.v1.tar+gzip": True,
    "application/vnd.docker.image.rootfs.diff.tar": False,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": True,
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob. `platform` and `name` where an index gives them."""

    media_type: str
    digest: Digest
    size: int
    platform: tuple[str, str] | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image's author wants: the layers' uncompressed digests, and how to start."""

    diff_ids: tuple[Digest, ...]
    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str


def _fail(code: str, message: str) -> FormatError:
    return FormatError(f"oci-{code}", message)


def _object(value: Value, what: str) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise _fail("shape", f"{what}: expected an object")
    return value


def _text(value: Value, what: str) -> str:
    if not isinstance(value, str):
        raise _fail("shape", f"{what}: expected a string")
    return value


def _texts(value: Value, what: str) -> tuple[str, ...]:
    """A list of strings; null and nothing are an empty one, as Docker writes them."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_MANIFESTS:
        raise _fail("shape", f"{what}: expected a list of at most {MAX_MANIFESTS} strings")
    return tuple(_text(one, what) for one in value)


def _digest(value: Value, what: str) -> Digest:
    text = _text(value, what)
    algorithm, _, digits = text.partition(":")
    if algorithm != "sha256":
        raise _fail("digest", f"{what}: only sha256 is taken, got {algorithm[:40]!a}")
    return parse_digest(digits)


def _document(data: bytes, what: str) -> dict[str, Value]:
    return _object(parse_json(data, limit=MAX_DOCUMENT), what)


def _versioned(document: dict[str, Value], what: str, types: tuple[str, ...]) -> None:
    if document.get("schemaVersion") != 2:
        raise _fail("version", f"{what}: expected schemaVersion 2")
    # The type is optional here; one that differs from what the descriptor said is a confusion attack.
    if document.get("mediaType", types[0]) not in types:
        raise _fail("media-type", f"{what}: not a document of this kind: {document['mediaType']!a}")


def _descriptor(value: Value, what: str) -> Descriptor:
    item = _object(value, what)
    size = item.get("size")
    if type(size) is not int or not 0 <= size <= MAX_BLOB:
        raise _fail("size", f"{what}: expected a size of at most {MAX_BLOB} bytes")
    platform = None
    if item.get("platform") is not None:
        of = _object(item["platform"], f"{what}: platform")
        platform = _text(of.get("os"), f"{what}: os"), _text(of.get("architecture"), f"{what}: architecture")
    annotations = _object(item.get("annotations") or {}, f"{what}: annotations")
    name = None if REF_NAME not in annotations else _text(annotations[REF_NAME], f"{what}: {REF_NAME}")
    return Descriptor(_text(item.get("mediaType"), what), _digest(item.get("digest"), what), size, platform, name)


def _descriptors(value: Value, what: str, most: int) -> tuple[Descriptor, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= most:
        raise _fail("shape", f"{what}: expected 1 to {most} of them")
    return tuple(_descriptor(one, what) for one in value)


def check_layout(data: bytes) -> None:
    """Raises FormatError unless `oci-layout` is of the version that we read."""
    version = _document(data, "oci-layout").get("imageLayoutVersion")
    if version != LAYOUT_VERSION:
        raise _fail("version", f"oci-layout: expected version {LAYOUT_VERSION}, got {str(version)[:40]!a}")


def parse_index(data: bytes) -> tuple[Descriptor, ...]:
    """What an index lists: manifests and further indexes."""
    document = _document(data, "index")
    _versioned(document, "index", INDEXES)
    return _descriptors(document.get("manifests"), "index: manifests", MAX_MANIFESTS)


def choose(listed: tuple[Descriptor, ...], tag: str | None) -> Descriptor:
    """The one descriptor for our platform, and with that tag if one is given; FormatError if none or several fit."""
    fitting = [
        one for one in listed if one.media_type in INDEXES + MANIFESTS and one.platform in (None, PLATFORM)
    ]  # fmt: skip
    if not fitting:
        there = ", ".join(sorted({"/".join(one.platform) for one in listed if one.platform})) or "none"
        raise _fail("platform", f"no image for {'/'.join(PLATFORM)} in the index; there: {there[:200]}")
    tags = ", ".join(sorted(one.name for one in fitting if one.name)) or "none"
    if tag is not None:
        fitting = [one for one in fitting if one.name == tag]
    if len({(one.media_type, one.digest, one.size) for one in fitting}) != 1:
        word = "no image" if not fitting else f"{len(fitting)} images"
        raise _fail("tag", f"{word} in the layout fit; tags: {tags[:500]}")
    return fitting[0]


def parse_manifest(data: bytes) -> Manifest:
    """An image's manifest."""
    document = _document(data, "manifest")
    _versioned(document, "manifest", MANIFESTS)
    config = _descriptor(document.get("config"), "manifest: config")
    if config.media_type not in CONFIGS:
        raise _fail("media-type", f"not an image to run: its configuration is {config.media_type[:80]!a}")
    layers = _descriptors(document.get("layers"), "manifest: layers", MAX_LAYERS)
    for one in layers:
        is_compressed(one)
    return Manifest(config, layers)


def is_compressed(layer: Descriptor) -> bool:
    """Whether a layer is compressed with gzip; FormatError names a kind that is not unpacked."""
    if layer.media_type not in LAYERS:
        raise _fail("layer", f"layers of the type {layer.media_type[:80]!a} are not unpacked: tar and tar+gzip are")
    return LAYERS[layer.media_type]


def parse_config(data: bytes) -> ImageConfig:
    """An image's configuration."""
    document = _document(data, "config")
    platform = document.get("os"), document.get("architecture")
    if platform != PLATFORM:
        raise _fail("platform", f"config: expected {'/'.join(PLATFORM)}, got {'/'.join(map(str, platform))[:80]!a}")
    rootfs = _object(document.get("rootfs"), "config: rootfs")
    if rootfs.get("type") != "layers":
        raise _fail("shape", "config: rootfs: expected the type layers")
    ids = rootfs.get("diff_ids")
    if not isinstance(ids, list) or not 0 < len(ids) <= MAX_LAYERS:
        raise _fail("shape", f"config: diff_ids: expected 1 to {MAX_LAYERS} of them")
    wish = _object(document.get("config") or {}, "config: config")
    return ImageConfig(
        tuple(_digest(one, "config: diff_ids") for one in ids),
        _texts(wish.get("Entrypoint"), "config: Entrypoint") + _texts(wish.get("Cmd"), "config: Cmd"),
        _texts(wish.get("Env"), "config: Env"),
        _text(wish.get("WorkingDir") or "/", "config: WorkingDir"),
    )
