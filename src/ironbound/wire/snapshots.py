"""A service's snapshots of the log's state: when it says one, keeps one, and starts from one.

Decides whether a service may begin with its own earlier state instead of the log's first entry. It says nothing about
what the state means. The states themselves: `core.snapshot`.

Rule 1: a service starts only from bytes that it kept itself, as it folded them from the entries, whose signatures it
        had checked: nobody's word stands in for an enforcement point's own look.
Rule 2: and only if each voice of `VOUCHING` said their digest, in this log, under its own key. So whoever changes the
        file changes nothing but how long the start takes.
Rule 3: the monitor starts from none. Its word on a state always rests on every entry of the log.
Rule 4: what is refused is refused with a reason, said in `service-started`; then every entry is folded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from ironbound.core.canonical import Digest, FormatError, b64encode, parse_digest, sha256_hex
from ironbound.core.envelope import parse_envelope, verify_envelope
from ironbound.core.keys import SignatureInvalid
from ironbound.core.replay import Replay
from ironbound.core.snapshot import MAX_SNAPSHOT, VOUCHING, Head, read_head
from ironbound.core.statement import parse_statement
from ironbound.core.trust import TrustRoot

from .deployment import Deployment, DeploymentError, read_file
from .durable import sync_directory

#: The file in a keeper's store that names its latest snapshot.
NAMED: Final = "snapshot"


class SnapshotRefused(Exception):
    """The snapshot is not started from; `code` is one of `reasons.REASONS`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a fold began: after `size` entries, from the snapshot with this digest; why another one was refused."""

    size: int = 0
    digest: Digest | None = None
    refused: str | None = None


def keep(deployment: Deployment, role: str, data: bytes) -> None:
    """Keep a snapshot durably as an artifact of the service's own, in place of the one before."""
    before = _named(deployment, role)
    digest = deployment.keep_artifact(role, data)
    folder = deployment.root / "artifacts" / role
    draft = folder / "sha256" / f".{NAMED}.{os.getpid()}"
    with open(draft, "w", encoding="ascii") as file:
        file.write(digest + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, folder / NAMED)
    sync_directory(str(folder))
    if before is not None and before != digest:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder / "sha256" / before)


def _named(deployment: Deployment, role: str) -> Digest | None:
    try:
        return parse_digest(read_file(deployment.root / "artifacts" / role / NAMED, 65).decode("ascii").strip())
    except (DeploymentError, FormatError, UnicodeDecodeError):
        return None


def kept(deployment: Deployment, role: str, size: int) -> tuple[Head, bytes] | None:
    """The service's own latest snapshot, or None if it has none. SnapshotRefused if it is damaged, another
    deployment's, or of a log longer than `size`."""
    digest = _named(deployment, role)
    if digest is None:
        return None
    try:
        data = read_file(deployment.root / "artifacts" / role / "sha256" / digest, MAX_SNAPSHOT)
        head = read_head(data)
    except (DeploymentError, FormatError) as error:
        raise SnapshotRefused("snapshot-damaged") from error
    if sha256_hex(data) != digest:
        raise SnapshotRefused("snapshot-damaged")
    root = deployment.trust.envelope.encode()
    begin = len(data) - sum(head.lengths)
    if head.deployment != deployment.trust.deployment or data[begin : begin + head.lengths[0]] != root:
        raise SnapshotRefused("snapshot-of-another-deployment")
    if head.size > size:
        raise SnapshotRefused("snapshot-ahead-of-log")
    return head, data


async def require_vouched(trust: TrustRoot, head: Head, entries: AsyncIterator[bytes]) -> None:
    """Returns once every vouching voice was heard to say this snapshot; SnapshotRefused if the entries end before.

    `entries`: those of the log from the snapshot's size on.
    """
    said: dict[str, bool] = {}
    async for data in entries:
        found = _said(trust, head, data)
        if found is not None:
            said[found[0]] = said.get(found[0], True) and found[1]
            if said.keys() >= VOUCHING and all(said.values()):
                return
    if not all(said.values()):
        raise SnapshotRefused("snapshot-not-that-said")
    raise SnapshotRefused("snapshot-of-one-voice" if said else "snapshot-unsaid")


def _said(trust: TrustRoot, head: Head, data: bytes) -> tuple[str, bool] | None:
    """The voice that says a snapshot of this size here, and whether it is this one; None for any other entry."""
    try:
        envelope = parse_envelope(data)
        role = trust.voices.get(envelope.signatures[0].keyid, "")
        if role not in VOUCHING or len(envelope.signatures) != 1:
            return None
        statement = parse_statement(envelope.payload)
        said = statement.predicate
        if statement.kind != "snapshot" or said["deployment"] != trust.deployment or said["size"] != head.size:
            return None
        verify_envelope(envelope, {trust.services[role].keyid: trust.services[role]})
    except (FormatError, SignatureInvalid):
        return None
    return role, said["state_sha256"] == head.digest and said["root"] == b64encode(head.root)


def resumed(data: bytes) -> Replay:
    """The fold from a snapshot that was vouched for. SnapshotRefused if this version can't read it."""
    try:
        return Replay.resumed(data)
    except (FormatError, SignatureInvalid, ValueError, LookupError, TypeError) as error:
        raise SnapshotRefused("snapshot-damaged") from error
