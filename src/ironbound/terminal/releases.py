"""A release's folder, as `./dev release` makes it: the key, what it signed, and how a deployment keeps that.

Decides nothing that anybody relies on: the services check their own files against the manifest, and the log's fold
what a quorum approved.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import FormatError, parse_canonical, sha256_hex
from ironbound.core.keys import PublicKey, SignatureInvalid
from ironbound.core.release import MAX_SIGNED, Signed, read_signed
from ironbound.core.scheme import public_key
from ironbound.core.statement import RELEASE
from ironbound.wire.deployment import EARLIER, Deployment, DeploymentError, read_file
from ironbound.wire.durable import sync_directory

from .voice import Stop

#: The public half of the release key, as a trust root holds it.
KEY_FILE: Final = "release.pub"
MAX_KEY: Final = 1024
INSTALL: Final = "install.dsse.json"


def release_key(folder: Path) -> PublicKey:
    """The release key that lies in a release's folder; Stop if there is none. Whose it is, nobody knows by that."""
    try:
        value = parse_canonical(read_file(folder / KEY_FILE).rstrip(b"\n"), limit=MAX_KEY)
        if not isinstance(value, dict):
            raise FormatError("release-key", "expected a key as a trust root holds it")
        return public_key(value)
    except (DeploymentError, FormatError) as error:
        raise Stop(f"no release in {folder}: {error}", "give a folder that `./dev release` made") from error


def read_release_folder(folder: Path, key: PublicKey) -> dict[str, bytes]:
    """What the key signed of the release in a folder, by kind; Stop if one lacks, is another's or of another wheel."""
    found: dict[str, bytes] = {}
    wheels = set()
    for kind in RELEASE:
        path = folder / f"{kind}.dsse.json"
        try:
            found[kind] = read_file(path, limit=MAX_SIGNED)
            signed = read_signed(found[kind], key)
        except (DeploymentError, FormatError, SignatureInvalid) as error:
            raise Stop(
                f"{path}: {error}", "give the folder of a release by the key that the trust root names"
            ) from error
        if signed.kind != kind:
            raise Stop(f"{path} holds the statement {signed.kind}")
        wheels.add(signed.wheel)
    if len(wheels) != 1:
        raise Stop(f"the statements in {folder} are about {len(wheels)} wheels")
    return found


def approval_of(deployment: Deployment, statements: Mapping[str, bytes], key: PublicKey) -> dict[str, Any]:
    """The body of the request that this release may run here with the services' configuration as it is."""
    signed: dict[str, Signed] = {kind: read_signed(data, key) for kind, data in statements.items()}
    return {
        "release_sha256": signed["install"].predicate["package_sha256"],
        "settings_sha256": deployment.settings,
        "statements": {kind: one.sha256 for kind, one in signed.items()},
    }


def keep_release(deployment: Deployment, statements: Mapping[str, bytes]) -> None:
    """Put the statements where the services read them when they start, and where evidence takes them from.

    The manifest that lay there stays beside it, by its digest: until the new release is installed, what runs is its.
    """
    folder = deployment.root / "release"
    installed = folder / INSTALL
    for data in statements.values():
        deployment.keep_artifact("terminal", data)
    before = read_file(installed, limit=MAX_SIGNED) if installed.exists() else None
    if before not in (None, statements.get("install")):
        earlier = folder / EARLIER
        earlier.mkdir(exist_ok=True)
        earlier.chmod(0o755)
        _write(earlier / f"{sha256_hex(before)}.dsse.json", before)
    for kind, data in statements.items():
        _write(folder / f"{kind}.dsse.json", data)


def _write(path: Path, data: bytes) -> None:
    draft = path.parent / f".{path.name}.{os.getpid()}"
    with open(draft, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o644)
    draft.replace(path)
    sync_directory(str(path.parent))
