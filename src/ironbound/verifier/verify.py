"""From a bundle and a pin to the claims, offline. One pass, one reference time, no trust in the producer.

The steps, in order; what fails in (1) to (4) breaks the whole bundle and no claim is made:

  (1) open the bundle: its structure, its index, and each artifact against the digest in its name
  (2) the checkpoint meets the witness policy in the bundle: signed by the log, cosigned by a quorum, by no stranger
  (3) entry 0 is a sound trust root, which holds that very policy; and it is the one that the pin names
  (4) every entry is hashed, every tile recomputed and compared, and the root is the checkpoint's: no gap, no more
  (5) every entry was replayed by the kernel (`core.replay`), in the same pass
  (6) the claims, from the inside out

Rule 1: times come from entries and cosignatures; no clock is read. The reference time is the cosignatures' latest, or
        what an entry says where that is later: a checkpoint that is dated back hides nothing that fell due.
Rule 2: `bundle.json` and the derived files are never relied on.
Rule 3: any input gives a report or BundleBroken; no other exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from ironbound.core.canonical import FormatError, parse_json, sha256_hex
from ironbound.core.keys import SignatureInvalid
from ironbound.core.note import parse_note
from ironbound.core.policy import Policy, PolicyUnmet, VerifiedCheckpoint, parse_policy
from ironbound.core.profile import parse_configuration
from ironbound.core.replay import Replay
from ironbound.core.tile import ENTRIES, Tile, decode_entries, parse_tile_path, tiles_for
from ironbound.core.trust import Pin, TrustRoot, parse_trust_root

from .boundary import claim_b1, claim_b3
from .bundle import MAX_INDEX, Bundle, BundleBroken, artifact_digest
from .chain import claim_e3
from .claims import HOLDS, REFUTED, Claim
from .deployed import Releases, claim_e1, claim_e2
from .history import History
from .power import Kept, claim_c1, claim_c2, claim_c3
from .probes import claim_b2, runs_of
from .proved import claim_c4
from .record import claim_d1, claim_d2, claim_d3, claim_f1
from .refusals import claim_c5
from .release import Shipped
from .surface import claim_a1, claim_a2

EXIT_HOLDS: Final = 0
EXIT_REFUTED: Final = 1
EXIT_USAGE: Final = 2
EXIT_BROKEN: Final = 3
EXIT_UNPROVEN: Final = 4

#: Told how many entries of how many are done.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What a sound bundle shows. Times are Unix milliseconds; `as_of_ms` is the reference time."""

    deployment: str
    environment: str
    pin: Pin
    pinned: bool
    origin: str
    size: int
    root: bytes
    witnesses: tuple[str, ...]
    separation: str
    first_ms: int
    last_ms: int
    as_of_ms: int
    said: dict[str, int]
    void: int
    #: Why the entries that have no effect although their voice was entitled have none, by index.
    voids: Mapping[int, str]
    claims: tuple[Claim, ...]

    @property
    def exit_code(self) -> int:
        """0 every claim holds, 1 one is refuted, 4 nothing refuted but something unproven."""
        statuses = {claim.status for claim in self.claims}
        if REFUTED in statuses:
            return EXIT_REFUTED
        return EXIT_HOLDS if statuses == {HOLDS} else EXIT_UNPROVEN


@dataclass(frozen=True, slots=True)
class Sound:
    """A bundle whose integrity holds: what it has, its log filed, and its approved releases."""

    bundle: Bundle
    trust: TrustRoot
    history: History
    releases: Releases
    verified: VerifiedCheckpoint
    tiles: int
    pinned: bool

    def artifact(self, digest: str) -> bytes | None:
        """The bytes with a digest, or None if the bundle lacks them."""
        return _artifact(self.bundle, digest)


def read_bundle(file: BinaryIO, pin: Pin | None, progress: Progress | None = None) -> Sound:
    """Steps (1) to (5); BundleBroken if the bundle's integrity is broken."""
    bundle = Bundle(file)  # (1)
    _check_members(bundle)
    policy, policy_text = _read_policy(bundle)  # (2)
    verified = _read_checkpoint(bundle, policy)
    tiles = _check_names(bundle, verified.checkpoint.size)
    trust = _read_trust_root(bundle, tiles, policy_text)  # (3)
    if pin is not None and pin != trust.pin:
        raise BundleBroken("pin-differs", f"the pin names {pin.deployment}, the log is {trust.pin}")
    history = _replay(bundle, tiles, progress)  # (4) (5)
    if history.replay.tree.root() != verified.checkpoint.root:
        raise BundleBroken("root-differs", f"the root of {history.replay.size} entries is not the checkpoint's")
    releases = Releases(history, lambda digest: _artifact(bundle, digest))
    return Sound(bundle, trust, history, releases, verified, len(tiles), pin is not None)


def verify_bundle(
    file: BinaryIO,
    pin: Pin | None,
    progress: Progress | None = None,
    shipped: Shipped | None = None,
    kept: Sequence[Kept] = (),
) -> Report:
    """The report of a bundle; BundleBroken if its integrity is broken. Without a pin D1 is unproven.

    `shipped`: the digests of the release that the auditor holds, to be compared with what ran. `kept`: what operators
    have of what they signed, to be looked for in the log.
    """
    return judge(read_bundle(file, pin, progress), shipped, kept)


def judge(sound: Sound, shipped: Shipped | None = None, kept: Sequence[Kept] = ()) -> Report:
    """Step (6)."""
    trust, history, verified = sound.trust, sound.history, sound.verified
    as_of_ms = max(history.clock_ms, *(one * 1000 + 999 for one in verified.times))
    return Report(
        trust.deployment,
        trust.environment,
        trust.pin,
        sound.pinned,
        trust.origin,
        verified.checkpoint.size,
        verified.checkpoint.root,
        verified.witnesses,
        trust.separation,
        history.first_ms,
        history.clock_ms,
        as_of_ms,
        dict(sorted(history.said.items())),
        len(history.replay.books.void),
        history.voids,
        _claims(sound, as_of_ms, shipped, kept),
    )


def _artifact(bundle: Bundle, digest: str) -> bytes | None:
    name = f"artifacts/sha256/{digest}"
    return bundle.read(name) if name in bundle.members else None


def _check_members(bundle: Bundle) -> None:
    """Whatever is in the bundle is whole, and an artifact is what its name says."""
    for name in bundle.members:
        if name.startswith("tile/") or name in ("checkpoint", "witness-policy"):
            continue  # read once, later
        data = bundle.read(name)
        digest = artifact_digest(name)
        if digest is not None and sha256_hex(data) != digest:
            raise BundleBroken("artifact-differs", f"{name} holds other bytes")
        if name == "bundle.json":
            try:
                parse_json(data, limit=MAX_INDEX)
            except FormatError as error:
                raise BundleBroken("index-malformed", str(error)) from None


def _read_policy(bundle: Bundle) -> tuple[Policy, str]:
    try:
        text = bundle.read("witness-policy").decode("utf-8", "strict")
        return parse_policy(text), text
    except UnicodeDecodeError:
        raise BundleBroken("policy-malformed", "the witness policy is not UTF-8") from None
    except FormatError as error:
        raise BundleBroken("policy-malformed", str(error)) from None


def _read_checkpoint(bundle: Bundle, policy: Policy) -> VerifiedCheckpoint:
    data = bundle.read("checkpoint")
    try:
        verified = policy.verify(data)
        lines = parse_note(data).lines
    except SignatureInvalid as error:
        raise BundleBroken("checkpoint-signature", str(error)) from None
    except PolicyUnmet as error:
        raise BundleBroken("checkpoint-unwitnessed", str(error)) from None
    except FormatError as error:
        raise BundleBroken("checkpoint-malformed", str(error)) from None
    known = {(key.name, key.key_id) for key in (policy.log, *(one.key for one in policy.witnesses))}
    for line in lines:
        if (line.name, line.key_id) not in known:
            raise BundleBroken("checkpoint-signature", f"a signature by {line.name}, who is not in the policy")
    if verified.checkpoint.size == 0:
        raise BundleBroken("log-empty", "the checkpoint has size 0")
    return verified


def _check_names(bundle: Bundle, size: int) -> tuple[Tile, ...]:
    """The bundle's tiles are exactly those of a log of this size."""
    have = {name for name in bundle.members if name.startswith("tile/")}
    # Before listing what a log of a claimed size needs: a huge size must not cost more than the file's own.
    if size > 256 * len(have):
        raise BundleBroken("tile-missing", f"{size} entries don't fit in {len(have)} tiles")
    tiles = tiles_for(size)
    for tile in tiles:
        if tile.path not in have:
            raise BundleBroken("tile-missing", f"the bundle has no {tile.path}")
    odd = have - {tile.path for tile in tiles}
    if odd:
        raise BundleBroken("tile-unexpected", f"{min(odd)} belongs to no log of {size} entries")
    return tiles


def _read_trust_root(bundle: Bundle, tiles: tuple[Tile, ...], policy_text: str) -> TrustRoot:
    try:
        trust = parse_trust_root(_entries(bundle, tiles[0])[0])
    except (FormatError, SignatureInvalid) as error:
        raise BundleBroken("trust-root-invalid", str(error)) from None
    if trust.policy_text != policy_text:
        raise BundleBroken("policy-differs", "the bundle's witness policy is not the trust root's")
    return trust


def _entries(bundle: Bundle, tile: Tile) -> tuple[bytes, ...]:
    try:
        return decode_entries(bundle.read(tile.path), tile.width)
    except FormatError as error:
        raise BundleBroken("tile-malformed", f"{tile.path}: {error}") from None


def _replay(bundle: Bundle, tiles: tuple[Tile, ...], progress: Progress | None) -> History:
    """Every entry replayed and every tile recomputed; nothing of it counts before the root was compared."""
    replay = Replay()
    history = History(replay)
    total = sum(tile.width for tile in tiles if tile.level == ENTRIES)
    for tile in tiles:
        if tile.level == ENTRIES:
            for data in _entries(bundle, tile):
                history.add(replay.apply(data))
            _check_tile(bundle, replay, parse_tile_path(tile.path.replace("entries", "0", 1)))
            if progress is not None:
                progress(replay.size, total)
    for tile in tiles:
        if tile.level > 0:
            _check_tile(bundle, replay, tile)
    return history


def _check_tile(bundle: Bundle, replay: Replay, tile: Tile) -> None:
    if bundle.read(tile.path) != replay.tree.nodes(8 * tile.level, tile.begin, tile.end):
        raise BundleBroken("tile-differs", f"{tile.path} is not what the entries hash to")


def _claims(sound: Sound, end_ms: int, shipped: Shipped | None, kept: Sequence[Kept]) -> tuple[Claim, ...]:
    history, releases, artifact = sound.history, sound.releases, sound.artifact
    configs: dict[str, Any] = {}

    def config_of(digest: str) -> Any:
        if digest not in configs:
            data = artifact(digest)
            configs[digest] = None if data is None else parse_configuration(data)
        return configs[digest]

    def readable_config(digest: str) -> Any:
        try:
            return config_of(digest)
        except FormatError:
            return None  # B1 says so

    runs = runs_of(history)
    return (
        claim_a1(history),
        claim_a2(history, artifact, readable_config),
        claim_b1(history, config_of, artifact),
        claim_b2(history, runs, readable_config, end_ms),
        claim_b3(history, end_ms),
        claim_c1(history, kept, end_ms),
        claim_c2(history, runs, artifact, shipped),
        claim_c3(history),
        claim_c4(history),
        claim_c5(history, end_ms),
        claim_d1(history, sound.pinned, sound.verified.witnesses, sound.tiles),
        claim_d2(history, end_ms),
        claim_d3(history),
        claim_e1(history, releases),
        claim_e2(history, releases, shipped),
        claim_e3(history, releases),
        claim_f1(history),
    )
