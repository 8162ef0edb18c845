"""Writes a deployment's evidence as one file: the log as it is served, and the artifacts that its claims rest on.

Decides which log state and which artifacts go in; makes no claim and needs no key: whoever may read the
public log and the artifact stores can export. Everything is checked on the way (the checkpoint against the
witness policy, every entry and tile against the root), so that what is written is what verifies. Source:
2-architecture, "The bundle and the claims".

Rule 1: one checkpoint, read once, is the state; the log may grow meanwhile.
Rule 2: the same state gives the same bytes.
Rule 3: the file appears whole, by rename, or not at all.
Rule 4: modules, configurations and the gateways' agent surfaces go in. What actions carried stays out: it may be
        personal, and no claim needs it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError, canonical
from ironbound.core.checkpoint import Checkpoint
from ironbound.core.keys import SignatureInvalid
from ironbound.core.native import is_manifest, parse_manifest
from ironbound.core.note import MAX_NOTE
from ironbound.core.policy import PolicyUnmet
from ironbound.core.replay import Replay
from ironbound.core.tile import ENTRIES, MAX_BUNDLE, WIDTH, Tile, decode_entries, encode_entries, tiles_for
from ironbound.verifier.bundle import BundleBroken
from ironbound.wire.deployment import Deployment, DeploymentError, read_file
from ironbound.wire.durable import sync_directory

from .writer import BundleWriter

#: Told how many entries of how many are done.
Progress = Callable[[int, int], None]
#: Seconds for which the public checkpoint may lag behind what the log's followers have seen.
PUBLISHED_S: Final = 10.0
_PARTIAL: Final = re.compile(r"[1-9][0-9]{0,2}")


class ExportError(Exception):
    """The log or the directory is not what can be exported; the message gives cause and hint."""


@dataclass(frozen=True, slots=True)
class Missing:
    """An artifact that nobody has any more; the claims that rest on it will be unproven."""

    sha256: str
    what: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What was written: the file's size in bytes, the log's size in entries, its root in hexadecimal."""

    path: Path
    file_bytes: int
    entries: int
    root: str
    artifacts: int
    missing: tuple[Missing, ...]
    pin: str


def export(deployment: Deployment, out: Path, progress: Progress | None = None, *, at_least: int = 0) -> Summary:
    """Write the bundle to `out`, replacing what is there.

    `at_least`: so many entries the caller has seen, of which the public checkpoint may tell a moment later: it is
    waited for. Raises ExportError; `out` is then as it was. Missing artifacts are no error: the summary lists them.

    (1) one checkpoint  (2) every entry and tile against it  (3) artifacts by digest  (4) the file, by rename.
    """
    signed, checkpoint = _checkpoint(deployment)  # (1)
    deadline = time.monotonic() + PUBLISHED_S
    while checkpoint.size < at_least:
        if time.monotonic() > deadline:
            raise ExportError(f"the public log has {checkpoint.size} entries, and {at_least} were seen")
        time.sleep(0.02)
        signed, checkpoint = _checkpoint(deployment)
    tiles = tiles_for(checkpoint.size)
    log = _PublicLog(deployment.root / "public")
    replay, wanted, digests = _read_log(deployment, log, tiles, checkpoint, progress)  # (2)
    artifacts, missing = _artifacts(deployment, wanted)  # (3)
    index: dict[str, Any] = {
        "version": 1,
        "deployment": deployment.trust.deployment,
        "entries": checkpoint.size,
        "root": checkpoint.root.hex(),
        "artifacts": {digest: wanted[digest] for digest in artifacts},
        "missing": {one.sha256: one.what for one in missing},
    }
    others: dict[str, Callable[[], bytes]] = {
        "bundle.json": lambda: canonical(index) + b"\n",
        "checkpoint": lambda: signed,
        "witness-policy": lambda: deployment.trust.policy_text.encode("utf-8"),
    }
    sources = others | {f"artifacts/sha256/{one}": _artifact(deployment, one) for one in artifacts}
    sources |= {tile.path: _checked(log, tile, digests[tile]) for tile in tiles}
    size = _write(out, sources)  # (4)
    pin = str(deployment.trust.pin)
    return Summary(out, size, replay.size, checkpoint.root.hex(), len(artifacts), missing, pin)


def _checkpoint(deployment: Deployment) -> tuple[bytes, Checkpoint]:
    try:
        signed = read_file(deployment.root / "public" / "checkpoint", limit=MAX_NOTE)
        checkpoint = deployment.trust.policy.verify(signed).checkpoint
    except DeploymentError as error:
        raise ExportError(f"{error} (hint: has the ledger run yet?)") from error
    except (FormatError, SignatureInvalid, PolicyUnmet) as error:
        raise ExportError(f"the published checkpoint does not meet the witness policy: {error}") from error
    if checkpoint.size == 0:
        raise ExportError("the log is empty: there is nothing to export")
    return signed, checkpoint


class _PublicLog:
    """The ledger's static files. A partial tile may have grown since: then its beginning is what we want."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, tile: Tile) -> bytes:
        """The content of a tile at exactly its width."""
        path = self._root / tile.path
        try:
            if path.is_file():
                return read_file(path, limit=MAX_BUNDLE)
            return self._cut(tile)
        except (DeploymentError, FormatError) as error:
            raise ExportError(f"{tile.path}: {error}") from error

    def _cut(self, tile: Tile) -> bytes:
        full = self._root / Tile(tile.level, tile.index).path
        widths = []
        if full.is_file():
            widths = [WIDTH]
        else:
            folder = full.with_name(full.name + ".p")
            names = [one.name for one in folder.iterdir()] if folder.is_dir() else []
            widths = sorted(int(name) for name in names if _PARTIAL.fullmatch(name))
        wider = next((width for width in widths if tile.width < width <= WIDTH), None)
        if wider is None:
            raise ExportError(f"{tile.path} is missing (hint: the ledger writes it again when it starts)")
        data = read_file(self._root / Tile(tile.level, tile.index, wider).path, limit=MAX_BUNDLE)
        if tile.level == ENTRIES:
            return encode_entries(decode_entries(data, wider)[: tile.width])
        return data[: 32 * tile.width]


def _read_log(
    deployment: Deployment,
    log: _PublicLog,
    tiles: tuple[Tile, ...],
    checkpoint: Checkpoint,
    progress: Progress | None,
) -> tuple[Replay, dict[str, str], dict[Tile, bytes]]:
    """The replayed log, the artifacts that it names (digest → what), and each tile's SHA-256."""
    replay, digests, surfaces = Replay(), {}, set()
    for tile in tiles:
        data = log.read(tile)
        digests[tile] = sha256(data).digest()
        if tile.level != ENTRIES:
            if data != replay.tree.nodes(8 * tile.level, tile.begin, tile.end):
                raise ExportError(f"{tile.path} is not what the entries hash to")
            continue
        for entry in _decode(tile, data):
            if replay.size == 0 and entry != deployment.trust.envelope.encode():
                raise ExportError("the log starts with another trust root than this deployment's")
            said = replay.apply(entry)
            if said.kind == "service-started" and said.void is None and said.predicate["surface_sha256"] is not None:
                surfaces.add(said.predicate["surface_sha256"])
        if progress is not None:
            progress(replay.size, checkpoint.size)
    if replay.tree.root() != checkpoint.root:
        raise ExportError(f"the root of {replay.size} entries is not the checkpoint's")
    books = replay.books
    wanted = dict.fromkeys(books.modules, "module")
    wanted |= dict.fromkeys(books.profiles, "configuration")
    wanted |= dict.fromkeys(surfaces, "agent surface")
    for release in books.releases.values():
        wanted |= {digest: f"the release's {kind} statement" for kind, digest in release.statements.items()}
    for launch in books.launches.values():
        wanted |= {launch.module: "module", launch.config: "configuration"}
    for digest in list(wanted):
        if (rootfs := _rootfs(deployment, digest)) is not None:
            wanted[rootfs] = "listing of a root file system"
    return replay, wanted, digests


def _rootfs(deployment: Deployment, digest: str) -> Digest | None:
    """The root file system that an artifact names, if it is a native agent's manifest."""
    try:
        data = deployment.artifact(Digest(digest))
        return parse_manifest(data).rootfs if is_manifest(data) else None
    except (DeploymentError, FormatError):
        return None  # what is missing is listed as such, and an effective configuration is no manifest


def _decode(tile: Tile, data: bytes) -> tuple[bytes, ...]:
    try:
        return decode_entries(data, tile.width)
    except FormatError as error:
        raise ExportError(f"{tile.path}: {error}") from error


def _artifacts(deployment: Deployment, wanted: dict[str, str]) -> tuple[list[str], tuple[Missing, ...]]:
    found: list[str] = []
    missing: list[Missing] = []
    for digest, what in sorted(wanted.items()):
        try:
            deployment.artifact(Digest(digest))
            found.append(digest)
        except DeploymentError:
            missing.append(Missing(digest, what))
    return found, tuple(missing)


def _artifact(deployment: Deployment, digest: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return deployment.artifact(digest)
        except DeploymentError as error:
            raise ExportError(f"{error}: it was there a moment ago") from error

    return read


def _checked(log: _PublicLog, tile: Tile, digest: bytes) -> Callable[[], bytes]:
    def read() -> bytes:
        data = log.read(tile)
        if sha256(data).digest() != digest:
            raise ExportError(f"{tile.path} changed while it was exported")
        return data

    return read


def _write(out: Path, sources: dict[str, Callable[[], bytes]]) -> int:
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with open(draft, "xb") as file:
            writer = BundleWriter(file)
            for name in sorted(sources):
                writer.add(name, sources[name]())
            size = writer.finish()
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, out)
        sync_directory(str(out.parent))
    except OSError as error:
        raise ExportError(f"{out}: {error.strerror}") from error
    except BundleBroken as error:
        raise ExportError(str(error)) from error
    finally:
        draft.unlink(missing_ok=True)
    return size
