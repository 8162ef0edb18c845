"""OCI image layouts made by hand, so that any byte of one can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TAR = "application/vnd.oci.image.layer.v1.tar"
GZIP = TAR + "+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
AMD64 = {"os": "linux", "architecture": "amd64"}

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(data)
    return info, data


def folder(name: str) -> Member:
    return member(name, kind=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> Member:
    return member(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hard(name: str, target: str) -> Member:
    return member(name, kind=tarfile.LNKTYPE, link=target)


def tar(members: Sequence[Member], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Layout:
    """A layout with one image. Each document can be changed by a function before it is written."""

    root: Path
    change: dict[str, Callable[[dict[str, Any]], object]] = field(default_factory=dict)
    wish: dict[str, Any] = field(default_factory=dict)
    compressed: bool = True

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        place = self.root / "blobs" / "sha256"
        place.mkdir(parents=True, exist_ok=True)
        (place / hashlib.sha256(data).hexdigest()).write_bytes(data)
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def blob_path(self, descriptor: dict[str, Any]) -> Path:
        return self.root / "blobs" / "sha256" / str(descriptor["digest"]).removeprefix("sha256:")

    def _changed(self, name: str, document: dict[str, Any]) -> bytes:
        self.change.get(name, lambda document: None)(document)
        return json.dumps(document).encode()

    def image(self, *layers: Sequence[Member] | bytes) -> dict[str, Any]:
        """Writes an image of these layers, given as members or as the archive's bytes; returns its descriptor."""
        raw = [one if isinstance(one, bytes) else tar(one) for one in layers]
        kind = GZIP if self.compressed else TAR
        self.layers = [self.blob(gzip.compress(one, 1, mtime=0) if self.compressed else one, kind) for one in raw]
        config = {
            **AMD64,
            "config": self.wish,
            "rootfs": {"type": "layers", "diff_ids": [sha256(one) for one in raw]},
        }
        self.config = self.blob(self._changed("config", config), CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": self.config, "layers": self.layers}
        return self.blob(self._changed("manifest", manifest), MANIFEST)

    def write(self, *manifests: dict[str, Any]) -> Path:
        """Writes the index and the layout's own file; returns the layout's folder."""
        (self.root / "oci-layout").write_bytes(self._changed("oci-layout", {"imageLayoutVersion": "1.0.0"}))
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
        (self.root / "index.json").write_bytes(self._changed("index", index))
        return self.root

    def of(self, *layers: Sequence[Member] | bytes) -> Path:
        """A layout with one image of these layers."""
        return self.write(self.image(*layers))
