"""A service against the release that is signed for this host: what it says of itself, or why it does not start.

Decides whether this process may serve: where the trust root names a release key, its installation and itself are
those of an install manifest in the deployment's `release` folder, which that key signed. Whether a quorum approved
that release, the log's fold decides. Looking is `wire.measure`'s.

Rule 1: a service measures before it reads a key, and any difference ends it.
Rule 2: a release that is not installed yet takes nothing from the one that is: of the manifests here the newest that
        the files are counts. Where they are none's, the one that they differ least from says how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError
from ironbound.core.keys import PublicKey, SignatureInvalid
from ironbound.core.reasons import REASONS
from ironbound.core.release import files_root, read_signed

from .deployment import Deployment, DeploymentError
from .measure import (
    Difference,
    Found,
    Installation,
    Key,
    file_differences,
    installation,
    libraries_of,
    measure_files,
    process_differences,
    said,
)

#: Differences that one statement names, and those that a message does.
MAX_DIFFERENCES: Final = 64
MAX_SHOWN: Final = 5


class HostDiffers(DeploymentError):
    """This process or its files are not those of the signed release; the message names them."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The signed install manifest: its envelope's SHA-256, its files, and where those are for this process."""

    sha256: Digest
    files: Mapping[str, Digest]
    where: Installation

    def result(self, found: Found, differences: Sequence[Difference]) -> dict[str, Any]:
        """What was found, as statements have it."""
        return {
            "manifest_sha256": self.sha256,
            "files": len(found.files),
            "root": files_root(found.files),
            "differences": said(differences, MAX_DIFFERENCES),
        }


def signed_manifest(deployment: Deployment) -> Manifest | None:
    """What this host's installation has to be (Rule 2); None where the trust root names no release key.

    DeploymentError.
    """
    key = deployment.trust.release
    if key is None:
        return None
    first, *rest = (_manifest(file, data, key) for file, data in deployment.install_manifests())
    if not rest:
        return first
    best, least = first, -1
    cache: dict[Key, Digest] = {}
    for one in (first, *rest):
        count = len(file_differences(one.files, measure_files(one.where, cache)))
        if least < 0 or count < least:
            best, least = one, count
        if not count:
            break
    return best


def _manifest(file: str, data: bytes, key: PublicKey) -> Manifest:
    try:
        signed = read_signed(data, key)
        if signed.kind != "install":
            raise FormatError("release-kind", f"it is the release's statement of its {signed.kind}")
    except (FormatError, SignatureInvalid) as error:
        raise DeploymentError(f"{file}: {error}") from error
    files = {path: Digest(sha256) for path, sha256 in signed.predicate["files"].items()}
    return Manifest(signed.sha256, files, installation(libraries_of(files)))


def measured(deployment: Deployment, role: str) -> dict[str, Any] | None:
    """What this process finds of itself as the service `role`: never a difference. HostDiffers, DeploymentError."""
    manifest = signed_manifest(deployment)
    if manifest is None:
        return None
    found = measure_files(manifest.where)
    differences = file_differences(manifest.files, found) + process_differences(manifest.files, manifest.where, role)
    if differences:
        raise HostDiffers(f"host-differs: {shown(differences)}; {REASONS['host-differs']}")
    return manifest.result(found, differences)


def shown(differences: Sequence[Difference]) -> str:
    """The first of them in a sentence."""
    parts = [f"{one['path']} {_how(one)}" for one in said(differences, MAX_SHOWN)]
    more = len(differences) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")


def _how(difference: Difference) -> str:
    if difference["got"] is None:
        return "is missing"
    if difference["expected"] is None:
        return "is not of the release"
    return "differs"
