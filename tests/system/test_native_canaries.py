"""`ironbound canary run --all --json`: every canary in every runtime of the machine, on the path that agents take."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from native import ROOT, RUNTIMES, missing, profile
from stand import COMMAND, Stand
from test_native_launches import report_of

from ironbound.canary.probes import load_probes, probes_for
from ironbound.core.canonical import sha256_hex
from ironbound.core.microvm import QEMU
from ironbound.core.profile import RUNTIMES as ALL
from ironbound.core.surface import approval_body
from ironbound.node.microvm import kernel
from ironbound.terminal.canaries import needed

FIELDS = {"name", "runtime", "profile", "verdict", "refusal", "entry"}


def approve_canaries(stand: Stand, *names: str) -> None:
    """Those of these names that no approval names yet, or all of them."""
    for document, module in stand.log.with_state(lambda replay: needed(stand.deployment, replay)):
        if not names or document["probe"] in names:
            body = approval_body(module, document)
            stand.submit(stand.build("module-approval", module=sha256_hex(module), body=body), artifacts=(module,))


def run_all(stand: Stand, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "canary", "run", "--all", *words, "-d", str(stand.root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500)


def with_kernel(stand: Stand) -> Stand:
    """A machine's kernel is placed where the host has one."""
    try:
        kernel.place(stand.root, *kernel.installed())
    except kernel.KernelMissing as absent:
        pytest.skip(str(absent))
    return stand


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not RUNTIMES, reason=missing("bubblewrap"))
def test_every_canary_is_refused_in_every_runtime_of_the_machine_and_the_evidence_says_so(
    fresh: Callable[[], Stand], tmp_path: Path
) -> None:
    # An ordinary user's machines share one processor: minutes more, for what the same run does as root.
    stand = with_kernel(fresh()) if ROOT else fresh()
    stand.start()
    stand.approve_profile()
    have = ["wasmtime", *RUNTIMES, *([QEMU] if ROOT else [])]
    for name in have[1:]:
        profile(stand, name)
    approve_canaries(stand)
    done = run_all(stand, "--json")
    assert done.stdout, done.stderr[-2000:] + stand.journals()
    answer = json.loads(done.stdout)
    assert answer.keys() == {"probes"} and {frozenset(one) for one in answer["probes"]} == {frozenset(FIELDS)}
    assert [one for one in answer["probes"] if one["verdict"] != "REFUSED"] == []
    assert done.returncode == 0, done.stderr
    counts = Counter(one["runtime"] for one in answer["probes"])
    assert counts == {name: len(probes_for(name)) for name in have}
    for name in have:
        print(f"{name}: {counts[name]} of {len(probes_for(name))} refused")
    claims = {claim.id: claim for claim in report_of(stand, tmp_path / "canaries.ironbound").claims}
    for name in ("A1", "A2", "B1", "B3", "F1"):
        assert claims[name].status == "holds", claims[name]
    assert claims["B2"].counts["canaries refused"] == len(answer["probes"])


def test_what_proves_nothing_is_told_as_such_and_makes_the_exit_code_1(fresh: Callable[[], Stand]) -> None:
    """A profile of a runtime that the host lacks: no canary escapes from it, and none is refused by it."""
    stand = fresh()
    stand.start()
    host = stand.entries("service-started", role="node")[-1].predicate["host"]
    absent = next(name for name in reversed(ALL) if name not in host["runtimes"])
    stand.approve_profile()
    profile(stand, absent)
    approve_canaries(stand, "import-exec", "mount-tmpfs")
    done = run_all(stand, "--json")
    verdicts = {one["runtime"]: (one["verdict"], one["refusal"]) for one in json.loads(done.stdout)["probes"]}
    assert verdicts["wasmtime"][0] == "REFUSED" and verdicts[absent][0] == "INCONCLUSIVE"
    assert host["unavailable"][absent][:20] in verdicts[absent][1]
    assert done.returncode == 1
    told = run_all(stand)
    assert told.returncode == 1
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    assert f"{absent} {absent} 0 of 1 refused, 1 INCONCLUSIVE" in lines
    assert "wasmtime strict 1 of 1 refused" in lines


def test_there_are_sixty_native_canaries_and_thirty_in_wasm_at_least() -> None:
    assert len(load_probes("native")) >= 60 and len(load_probes("wasm")) >= 30
