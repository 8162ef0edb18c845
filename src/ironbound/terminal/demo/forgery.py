"""The demo's forger: what people with ever more of the deployment's keys could do to an evidence file.

Belongs to the demo; the product never calls it. It writes files that the verifier must refuse.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ironbound.core.canonical import b64encode
from ironbound.core.checkpoint import Checkpoint, cosign_checkpoint, sign_checkpoint
from ironbound.core.envelope import parse_envelope, sign_envelope
from ironbound.core.keys import PrivateKey
from ironbound.core.merkle import Tree, leaf_hash
from ironbound.core.note import Signer, add_lines
from ironbound.core.statement import encode_statement, parse_statement
from ironbound.core.tile import ENTRIES, decode_entries, encode_entries, tiles_for
from ironbound.core.trust import TrustRoot
from ironbound.evidence.writer import write_members

Said = dict[str, Any]


def read_members(path: Path) -> dict[str, bytes]:
    """The members of an evidence file by name."""
    with zipfile.ZipFile(path) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist()}


def flip(path: Path, out: Path, member: str) -> None:
    """The same file with the lowest bit of a member's middle byte flipped, and every checksum made right again."""
    members = read_members(path)
    name = next(one for one in members if one.startswith(member))
    data = members[name]
    at = len(data) // 2
    members[name] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with open(out, "wb") as file:
        write_members(file, members)


def rewrite(
    path: Path, out: Path, trust: TrustRoot, keys: dict[str, PrivateKey], index: int, change: Callable[[Said], Said]
) -> None:
    """The whole history anew with one statement changed, signed by whoever holds every key of the host.

    What services said of checkpoints afterwards is made to fit. What the humans signed can't be.

    `keys` are the services', the log's ("ledger") and the witness's. The humans' are on their own machines.
    """
    members = read_members(path)
    old = tiles_for(_size(members))
    entries = [data for tile in old if tile.level == ENTRIES for data in decode_entries(members[tile.path], tile.width)]
    tree = Tree()
    for place, data in enumerate(entries):
        if place >= index:
            entries[place] = _said_anew(data, trust, keys, change if place == index else None, tree)
        tree.append(leaf_hash(entries[place]))
    for tile in tiles_for(tree.size):
        is_bundle = tile.level == ENTRIES
        members[tile.path] = (
            encode_entries(entries[tile.begin : tile.end])
            if is_bundle
            else tree.nodes(8 * tile.level, tile.begin, tile.end)
        )
    checkpoint = Checkpoint(trust.origin, tree.size, tree.root())
    witness = trust.policy.witnesses[0].key.name
    when = trust.policy.verify(members["checkpoint"]).times[0]
    signed = sign_checkpoint(checkpoint, Signer(trust.origin, keys["ledger"]))
    members["checkpoint"] = add_lines(signed, [cosign_checkpoint(checkpoint, Signer(witness, keys["witness"]), when)])
    with open(out, "wb") as file:
        write_members(file, members)


def _said_anew(
    data: bytes, trust: TrustRoot, keys: dict[str, PrivateKey], change: Callable[[Said], Said] | None, tree: Tree
) -> bytes:
    """An entry with its change, or with the checkpoint in it made to fit the new history; else as it was."""
    envelope = parse_envelope(data)
    statement = parse_statement(envelope.payload)
    said = dict(statement.predicate)
    if change is not None:
        said = change(said)
    elif "checkpoint" in said:
        size = said["checkpoint"]["size"]
        said["checkpoint"] = {"size": size, "root": b64encode(tree.root_at(size))}
    else:
        return data
    role = trust.voices[envelope.signatures[0].keyid]
    return sign_envelope(encode_statement(statement.kind, statement.subjects, said), [keys[role]]).encode()


def _size(members: dict[str, bytes]) -> int:
    return int(members["checkpoint"].splitlines()[1])
