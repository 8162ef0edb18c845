"""Signs an install manifest for another host than the one that built: measured there without a key, signed here.

Decides whether what was measured can be this release at all: every file of the wheel by its digest, nothing beside it
in the package, nothing that each interpreter runs at its start and the build's own installation has not. What else
differs from that installation (another Python, another C library) is that host's word: it is told, and whoever signs
judges it.

Rule 1: the other statements are those of the release as they stand, by the same key; none is signed anew.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError, parse_canonical, sha256_hex
from ironbound.core.keys import PrivateKey, PublicKey, SignatureInvalid
from ironbound.core.release import MAX_SIGNED, PREDICATES, Signed, differences, read_signed, sign_release
from ironbound.verifier.release import PACKAGE, shipped

from .make import RECORDS, Stop, wheel_of
from .sign import put, read_key

_SITE: Final = "site/"
_COMPILED: Final = re.compile(r"(.*/)__pycache__/([^/.]+)\.[a-z]+-\d+\.pyc")
_AT_START: Final = re.compile(r"site/(?:[^/]+\.pth|(?:site|user)customize[./].*)")
#: Names of differing files that are told, of each root.
MOST: Final = 12


def sign_for_host(measured: Path, release: Path, out: Path, key_file: Path) -> None:
    """Writes a release's folder for that host into `out`; Stop if what was measured is not this release."""
    if out.resolve() == release.resolve():
        raise Stop(f"{out} is the release itself: give another folder for the host's")
    key = read_key(key_file)
    wheel = wheel_of(release)
    statements = {kind: _read(release / f"{kind}.dsse.json", key.public) for kind in PREDICATES}
    data = wheel.read_bytes()
    for kind, (_, signed) in statements.items():
        if (signed.kind, signed.wheel) != (kind, sha256_hex(data)):
            raise Stop(f"{release / f'{kind}.dsse.json'} is not the statement {kind} about {wheel.name}")
    built = statements["install"][1].predicate
    found = _measured(measured)
    said = [*_not_of(wheel, found, built)]
    if said:
        raise Stop(f"what was measured is not {wheel.name}: " + "; ".join(said[:MOST]))
    for line in _told(built, found):
        print(f"release: {line}", file=sys.stderr)
    made = {one.name: one.read_bytes() for one in (wheel, *release.glob("ironbound-*.tar.gz"))}
    made |= {f"{kind}.dsse.json": statement for kind, (statement, _) in statements.items()}
    made["install.dsse.json"] = _signed({wheel.name: sha256_hex(data)}, found, key)
    put(made, out, key.public)


def _signed(subjects: Mapping[str, Digest], found: dict[str, Any], key: PrivateKey) -> bytes:
    try:
        return sign_release("install", subjects, found, key)
    except FormatError as error:
        raise Stop(f"what was measured can't be signed: {error}") from error


def _read(path: Path, key: PublicKey) -> tuple[bytes, Signed]:
    try:
        data = path.read_bytes()
        return data, read_signed(data, key)
    except SignatureInvalid as error:
        raise Stop(f"{path} is not signed by this key: {error}") from error
    except (OSError, FormatError) as error:
        raise Stop(f"no statement of a release in {path}: {error}") from error


def _measured(path: Path) -> dict[str, Any]:
    """The predicate as `ironbound.supply.manifest` printed it."""
    try:
        found = parse_canonical(path.read_bytes().rstrip(b"\n"), limit=MAX_SIGNED)
    except (OSError, FormatError) as error:
        raise Stop(f"no measurement in {path}: {error}; it is what ironbound.supply.manifest prints") from error
    files = found.get("files") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(files, dict):
        raise Stop(f"no measurement in {path}: it has no files")
    return dict(found)


def _not_of(wheel: Path, found: Mapping[str, Any], built: Mapping[str, Any]) -> Iterator[str]:
    """Why this can't be an installation of the wheel."""
    files = found["files"]
    for name in ("version", "package_sha256"):
        if found.get(name) != built[name]:
            yield f"{name} is {str(found.get(name))[:80]!a}"
    if built["package_sha256"] != shipped(wheel).release:
        yield "the release's own manifest is of another package"
    held = {f"{_SITE}{name}": sha256_hex(data) for name, data in _members(wheel)}
    yield from (f"{path} differs" for path, sha256 in sorted(held.items()) if files.get(path) != sha256)
    for path in sorted(files):
        if path.startswith(f"{_SITE}{PACKAGE}/") and path not in held:
            compiled = _COMPILED.fullmatch(path)
            if compiled is None or f"{compiled[1]}{compiled[2]}.py" not in held:
                yield f"{path} is not in the wheel"
            elif path in built["files"] and built["files"][path] != files[path]:
                yield f"{path} is not compiled as the release compiles"
        elif _AT_START.fullmatch(path) and built["files"].get(path) != files[path]:
            yield f"{path} runs at every start, and the release has it not"


def _members(wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        for one in archive.infolist():
            if not one.is_dir() and one.filename.rpartition("/")[2] not in RECORDS:
                yield one.filename, archive.read(one)


def _told(built: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Where that host differs from the installation that the release was built with."""
    rows = differences(built["files"], found["files"])
    changed = sum(one["got"] is not None for one in rows)
    same = len(found["files"]) - changed
    yield f"{same:,} of {len(found['files']):,} files are those of the release's own installation; the rest:"
    by: dict[tuple[str, str], list[str]] = {}
    for one in rows:
        word = "missing" if one["got"] is None else "added" if one["expected"] is None else "changed"
        by.setdefault((str(one["path"]).partition("/")[0], word), []).append(ascii(one["path"])[1:-1])
    for (root, word), paths in sorted(by.items()):
        more = f" and {len(paths) - MOST:,} more" if len(paths) > MOST else ""
        yield f"{word} in {root}: {', '.join(paths[:MOST])}{more}"
