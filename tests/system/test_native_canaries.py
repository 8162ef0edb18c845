"""Every native canary, in every container runtime of the machine, on the path that agents take: each is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from native import RUNTIMES, missing, profile
from stand import Stand
from test_native_launches import report_of

from ironbound.canary.probes import load_probes
from ironbound.core.canonical import sha256_hex
from ironbound.core.surface import approval_body
from ironbound.terminal.canaries import challenge_all, needed

NATIVE = len(load_probes("native"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not RUNTIMES, reason=missing("bubblewrap"))
def test_every_native_probe_is_refused_in_every_runtime_and_the_evidence_says_so(
    fresh: Callable[[], Stand], tmp_path: Path
) -> None:
    stand = fresh()
    stand.start()
    for name in RUNTIMES:
        profile(stand, name)
    for document, module in stand.log.with_state(lambda replay: needed(stand.deployment, replay)):
        if document["family"] == "native":
            body = approval_body(module, document)
            stand.submit(stand.build("module-approval", module=sha256_hex(module), body=body), artifacts=(module,))
    results = asyncio.run(challenge_all(stand.deployment, lambda result, total: None, every=True))
    assert [one for one in results if one["verdict"] != "REFUSED"] == []
    assert len(results) == NATIVE * len(RUNTIMES)
    assert {one["runtime"] for one in results} == set(RUNTIMES)
    claims = {claim.id: claim for claim in report_of(stand, tmp_path / "canaries.ironbound").claims}
    for name in ("A1", "A2", "B1", "B3", "F1"):
        assert claims[name].status == "holds", claims[name]
    assert claims["B2"].counts["canaries refused"] == len(results)
