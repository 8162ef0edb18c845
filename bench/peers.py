"""Side by side with others in one run: transparency logs and witnesses, and Microsoft's agent-governance-toolkit.

A row has two distributions, and `theirs/ours`, which is above 1 where theirs takes longer; or what a check said of
either. Who can't be had on this machine, and of whom no run is written, is printed as *not tested*. What is compared,
and how fair that is: docs/comparison.md.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench import peer_logs, peer_toolkit
from bench.peer_logs import NotHere, Row, build

COLUMNS = (
    "what", "peer", "unit", "ours p50", "ours p99", "theirs p50", "theirs p99", "theirs/ours", "ours/s", "theirs/s",
    "ours", "theirs",
)  # fmt: skip
#: Peers of whom no run is written.
WITHOUT = ("Rekor", "Keylime", "Teleport", "Wassette", "OpenShell", "IronClaw")


def _untested(peer: str, reason: object) -> Row:
    return {"what": "not tested", "peer": peer, "theirs": str(reason)}


def run(quick: bool) -> list[Row]:
    """Rows for the logs, for the toolkit, and for whoever was not tested."""
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="ironbound-peers-") as name:
            rows += peer_logs.rows(build(Path(name)), quick)
    except NotHere as reason:
        rows += [_untested(peer, reason) for peer in ("Tessera POSIX", "litewitness")]
    try:
        rows += peer_toolkit.rows(quick)
    except peer_toolkit.NotHere as reason:
        rows.append(_untested(peer_toolkit.PEER, reason))
    rows += [_untested(peer, "no run of it is written") for peer in WITHOUT]
    return [{name: row.get(name, "") for name in COLUMNS} for row in rows]
