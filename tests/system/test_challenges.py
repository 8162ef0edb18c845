"""Hostile agents in a running deployment: run by the monitor unasked, bound to what they ran on, and on demand."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from puppet import WAIT, puppet
from stand import STRICT, Stand, folder, until

from ironbound.canary.probes import load_probes
from ironbound.core.canonical import sha256_hex
from ironbound.core.profile import Layer, merge
from ironbound.core.surface import approval_body
from ironbound.evidence.export import export
from ironbound.verifier.claims import HOLDS
from ironbound.verifier.verify import Report, verify_bundle
from ironbound.wire.service import boot_id, installed_release

QUICK = ("import-exec", "feature-gc", "text-module")
INTERVAL_MS = 6_000


def with_canaries(stand: Stand) -> Stand:
    """Started, with the strict profile and three canaries approved."""
    stand.start()
    stand.config = stand.approve_profile()
    for probe in load_probes("wasm"):
        if probe.name in QUICK:
            body = approval_body(probe.module, probe.document)
            payload = stand.build("module-approval", module=sha256_hex(probe.module), body=body)
            stand.submit(payload, artifacts=(probe.module,))
    return stand


def verified(stand: Stand, tmp_path: Path) -> Report:
    out = tmp_path / "evidence.ironbound"
    export(stand.deployment, out, at_least=stand.sync())
    with open(out, "rb") as file:
        return verify_bundle(file, stand.deployment.trust.pin)


def explain(stand: Stand, *files: Path) -> Any:
    """What `ironbound explain --json` says of a profile in a deployment."""
    done = stand.command("explain", "--json", *map(str, files))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_unasked_every_canary_runs_in_every_window_bound_to_what_it_ran_on(
    fresh: Callable[..., Stand], tmp_path: Path
) -> None:
    stand = with_canaries(fresh(canary_interval_ms=INTERVAL_MS))
    begin = stand.started("clerk", puppet(WAIT)).predicate["at_ms"]

    def covered() -> bool:
        """Two windows hold a refusal of each; on a machine that is busy, not always the first two."""
        asked = {one.index: one.predicate["at_ms"] for one in stand.log.entries if one.kind == "canary-challenge"}
        windows = {
            ((asked[one.predicate["challenge"]] - begin) // INTERVAL_MS, one.predicate["probe"])
            for one in stand.log.entries
            if one.kind == "canary-result" and one.predicate["verdict"] == "REFUSED"
        }
        return len({number for number, _ in windows if all((number, name) in windows for name in QUICK)}) >= 2

    until("two windows of canaries", covered)
    challenges = {one.index: one.predicate for one in stand.entries("canary-challenge")}
    results = stand.entries("canary-result")
    assert len({one["nonce"] for one in challenges.values()}) == len(challenges)
    assert all(index - one["checkpoint"]["size"] < 20 for index, one in challenges.items())
    for one in results:
        said = one.predicate
        assert one.void is None and said["verdict"] != "ESCAPED", said
        assert said["checkpoint"] == challenges[said["challenge"]]["checkpoint"]
        assert (said["environment"], said["runtime"], said["boot_id"]) == ("test", "wasmtime", boot_id())
        assert said["release_sha256"] == installed_release()
        assert said["node"] == stand.deployment.trust.services["node"].keyid
    report = verified(stand, tmp_path)
    claim = next(claim for claim in report.claims if claim.id == "B2")
    assert claim.counts["canaries refused"] >= 2 * len(QUICK), claim
    assert {reason.code for reason in claim.reasons} <= {"canary-window-uncovered", "canary-inconclusive"}, claim
    assert report.environment == "test" and "no evidence about production" in claim.remarks[0]


@pytest.mark.slow
def test_on_demand_they_run_on_profiles_in_use_or_on_all_or_on_one(fresh: Callable[..., Stand]) -> None:
    stand = with_canaries(fresh())
    stand.started("clerk", puppet(WAIT))
    other = merge([Layer("strict.toml", STRICT.read_bytes()), Layer("site.toml", b'profile = "other"')])
    stand.submit(
        stand.build("profile-approval", config=other.digest, body=other.approval_body()), artifacts=(other.encoded,)
    )
    for words, profiles in (((), {"strict"}), (("--all",), {"strict", "other"}), (("--profile", "other"), {"other"})):
        done = stand.command("canary", "run", "--json", *words)
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)["probes"]
        assert {row["profile"] for row in rows} == profiles and len(rows) == len(QUICK) * len(profiles)
        assert {frozenset(row) for row in rows} == {
            frozenset({"name", "runtime", "profile", "verdict", "refusal", "entry"})
        }
        assert {(row["runtime"], row["verdict"]) for row in rows} == {("wasmtime", "REFUSED")}
    explained = {one["setting"]: one for one in explain(stand, STRICT)["rows"]}
    bites = {one["name"]: one["last"] for row in explained.values() for one in row["canaries"]}
    assert {name for name, last in bites.items() if last is not None} == set(QUICK)
    assert all(bites[name]["verdict"] == "REFUSED" for name in QUICK)
    told = stand.command("explain", str(STRICT)).stdout
    for row in explained.values():
        entries = [one["last"]["entry"] for one in row["canaries"] if one["last"] is not None]
        assert not entries or f"in entry {max(entries)}" in " ".join(told.split()), told
    done = stand.command("canary", "run", "--profile", "none")
    assert done.returncode == 1 and "no approved profile none" in done.stderr


@pytest.fixture
def swtpm(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Starts a software TPM with a state of its own; its address."""
    if shutil.which("swtpm") is None:
        pytest.skip("not tested: swtpm is not installed")
    running: list[subprocess.Popen[bytes]] = []
    place = folder(tmp_path, "tpm")
    place.mkdir(parents=True, exist_ok=True)

    def begin(name: str) -> str:
        for one in running:
            one.kill()
            one.wait()
        (place / name).mkdir()
        (place / "socket").unlink(missing_ok=True)
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={place / name}", "--server"]
        command += [f"type=unixio,path={place / 'socket'}", "--flags", "not-need-init,startup-clear"]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        until("the TPM is there", (place / "socket").exists)
        return f"swtpm:{place / 'socket'}"

    yield begin
    for one in running:
        one.kill()
        one.wait()


def test_a_node_with_a_tpm_has_each_launch_quoted_and_does_not_start_with_another_tpm(
    fresh: Callable[..., Stand], tmp_path: Path, swtpm: Callable[[str], str]
) -> None:
    stand = with_canaries(fresh(tpm=swtpm("first")))
    assert stand.started("clerk", puppet(WAIT)).predicate["quote"] is not None
    assert stand.command("canary", "run").returncode == 0
    claims = {claim.id: claim for claim in verified(stand, tmp_path).claims}
    for name in ("B1", "B2"):
        assert claims[name].status == HOLDS, claims[name]
        assert claims[name].counts["quotes by the node's TPM"] >= 1
        assert any("software root" in remark for remark in claims[name].remarks)
    stand.stop()
    swtpm("second")
    with pytest.raises(AssertionError):
        stand.start()
    assert "holds another key than the enrolled one" in stand.journals()
