"""Our ledger beside Tessera's POSIX log, each with its own way to a witness, and both with the same litewitness.

The writers have one entry in flight each. Ours has its proof under a witnessed checkpoint in the answer. Of Tessera two
times are taken: until the index is durable, and until there is an inclusion proof under a published checkpoint, which
its POSIX storage makes ten times a second at most (`tests/peers/gopeer/log.go` says how it is set). Every proof of both
is verified, ours outside the time.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "peers"))

from go_peers import GoPeers, NotHere, asks, build, litewitness, signing_key

from bench.floor import percentile
from bench.ledger import TEXT, write
from ironbound.core.merkle import leaf_hash
from ironbound.core.tlogproof import verify_proof
from ironbound.wire.frames import decode_body, encode_frame
from ledger_stand import LOG_SEED, ORIGIN, Stand, append_frame, entry, policy

__all__ = ["NotHere", "Row", "both", "build", "rows"]

Row = dict[str, Any]
Times = dict[str, list[float]]
ROUNDS = 3


def both(what: str, peer: str, unit: str, ours: list[float], theirs: list[float]) -> Row:
    """A row of two distributions; the ratio is above 1 where theirs takes longer."""
    row: Row = {"what": what, "peer": peer, "unit": unit}
    for name, values in (("ours", ours), ("theirs", theirs)):
        row |= {f"{name} p50": round(percentile(values, 0.5), 3), f"{name} p99": round(percentile(values, 0.99), 3)}
    return row | {"theirs/ours": float(f"{row['theirs p50'] / row['ours p50']:.2g}")}


def _ours(folder: Path, count: int, writers: int, peers: GoPeers | None) -> tuple[float, list[float]]:
    """Entries a second and milliseconds of each; with `peers` under a litewitness alone."""
    folder.mkdir()
    stand, rule = Stand(folder), policy()
    with nullcontext() if peers is None else litewitness(peers, folder / "lite") as witness:
        try:
            if witness is not None:
                rule = asks(stand, witness)
            stand.create()
            stand.start(*(("ledger",) if witness else ()))
            stand.append(entry(1 << 60, text=TEXT))  # the witness has answered once
            entries = [entry(number + 1, text=TEXT) for number in range(count)]
            frames = [encode_frame(append_frame(number, data)) for number, data in enumerate(entries)]
            took, latencies, answers = write(stand.socket_path, writers, frames)
        finally:
            stand.stop()
    for number, body in answers:
        verify_proof(str(decode_body(body)["proof"]).encode(), leaf_hash(entries[number]), rule)
    return count / took, [one * 1e3 for one in latencies]


def _tessera(folder: Path, count: int, writers: int, peers: GoPeers, *, witnessed: bool) -> tuple[float, Times]:
    folder.mkdir()
    size = len(entry(1, text=TEXT))
    with litewitness(peers, folder / "lite") if witnessed else nullcontext() as witness:
        rule = folder / "policy"
        rule.write_text("quorum none\n" if witness is None else witness.policy)
        said = peers.client("log", folder / "log", signing_key(ORIGIN, LOG_SEED), rule, count, writers, size)
    if len(said["proved_ms"]) != count:
        raise RuntimeError("Tessera answered for another number of entries")
    return count / said["seconds"], {"indexed": said["indexed_ms"], "proved": said["proved_ms"]}


def rows(peers: GoPeers, quick: bool) -> list[Row]:
    """Rows for each number of writers, without and with a litewitness for both, who take turns."""
    made: list[Row] = []
    counts = {1: (300, 20), 64: (7_000, 1_500), 256: (7_000, 3_000)}  # ours and theirs, in each round
    if quick:
        counts = {1: (50, 10), 64: (2_000, 500)}
    with tempfile.TemporaryDirectory(prefix="ironbound-bench-") as name:
        base = Path(name)
        for writers, (count, fewer) in counts.items():
            for lite in (False, True):
                ours: list[float] = []
                rates: Times = {"ours": [], "theirs": []}
                theirs: Times = {"indexed": [], "proved": []}
                for turn in range(ROUNDS):
                    place = f"{writers}-{int(lite)}-{turn}"
                    rate, took = _ours(base / f"o{place}", count, writers, peers if lite else None)
                    theirs_rate, times = _tessera(base / f"t{place}", fewer, writers, peers, witnessed=lite)
                    ours += took
                    rates["ours"].append(rate)
                    rates["theirs"].append(theirs_rate)
                    for key, values in times.items():
                        theirs[key] += values
                about = f"{writers} at once, {'litewitness for both' if lite else 'witness: own, none'}"
                row = both(
                    f"append until durable, ours proved: {about}", "Tessera POSIX", "ms", ours, theirs["indexed"]
                )
                made.append(row)
                row = both(f"append until proved: {about}", "Tessera POSIX", "ms", ours, theirs["proved"])
                made.append(row | {f"{who}/s": round(percentile(each, 0.5)) for who, each in rates.items()})
    return made
