"""Offline verification: microseconds per entry, against the floor of one SHA-256 and one Ed25519 verification.

A log of actions (intent, outcome), as a running deployment writes it, is built in memory and verified whole.
The floor is measured in the same run on the same entries: hash each, verify its one signature. Rows alternate
between the two, so that a noisy machine disturbs both alike.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from bench.floor import HashAndVerify, percentile
from ironbound.verifier.verify import verify_bundle
from verifier.lab import Honest, honest


def action_log(actions: int, calls: int = 100) -> Honest:
    """A log of so many actions, with a grant for each `calls` of them."""
    scene = honest()
    for number in range(actions):
        if number % calls == 0:
            lab = scene.lab
            entry = lab.ask_grant("clerk", scene.module, scene.cage, tool=f"write{number}", calls=calls)
            if entry.consent is None:
                raise RuntimeError(f"the grant was refused: {entry.void}")
            scene.grant, tool = entry.consent.statement.predicate["id"], f"write{number}"
        intent = scene.lab.expect(scene.lab.intent("clerk", scene.launch, scene.grant, tool=tool))
        scene.lab.expect(scene.lab.outcome(intent))
    return scene


def run(quick: bool) -> list[dict[str, Any]]:
    """One row: µs per entry of a whole verification, p50 and p99 over the rounds, and the floor's p50."""
    scene = action_log(400 if quick else 2000)
    lab, rounds = scene.lab, 5 if quick else 11
    data, pin, size = lab.bundle(), lab.pin, len(lab.entries)
    base_work = HashAndVerify(lab.entries[1:], [one.public for one in lab.services.values()])
    took: list[float] = []
    floor: list[float] = []
    for _ in range(rounds):
        floor.append(base_work.microseconds())
        begin = time.perf_counter()
        report = verify_bundle(io.BytesIO(data), pin)
        took.append((time.perf_counter() - begin) / size * 1e6)
        if report.exit_code != 4:
            raise RuntimeError(f"the log should verify, got exit {report.exit_code}")
    p50, base = percentile(took, 0.5), percentile(floor, 0.5)
    return [
        {
            "name": f"verify a bundle of {size} entries, per entry",
            "unit": "µs",
            "p50": round(p50, 1),
            "p99": round(percentile(took, 0.99), 1),
            "floor": round(base, 1),
            "ratio": round(p50 / base, 2),
        }
    ]


if __name__ == "__main__":
    print(run("--quick" in sys.argv))
