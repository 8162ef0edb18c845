"""The demo, as a stranger runs it: a process of its own, its exit code, and what it leaves behind."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest
from stand import folder

from ironbound.canary.probes import load_probes
from ironbound.core.oidc import Identity
from ironbound.core.profile import RUNTIMES
from ironbound.core.trust import parse_pin
from ironbound.evidence.writer import write_members
from ironbound.terminal.demo import provider
from ironbound.terminal.demo.auditor import OF_A_RELEASE
from ironbound.terminal.demo.people import Organisation
from ironbound.terminal.demo.run import SAMPLE
from ironbound.terminal.voice import Stop
from ironbound.verifier.bundle import BundleBroken
from ironbound.verifier.verify import verify_bundle
from pages import dump, needs_browser, state

COMMAND = [sys.executable, "-I", "-m", "ironbound.terminal.main"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ironbound demo --out` leaves."""
    out = tmp_path_factory.mktemp("demo") / "out"
    done = subprocess.run([*COMMAND, "demo", "--out", str(out)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout  # no terminal, no colour
    (out / "said.txt").write_text(done.stdout)
    return out


def verify(left: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "verify", str(left / "evidence.ironbound"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_evidence_of_the_demo_verifies_with_only_what_speaks_of_a_release_unproven(left: Path) -> None:
    done = verify(left, "--pin", (left / "pin.txt").read_text(), "--json")
    assert done.returncode == 4
    claims = {claim["id"]: claim["status"] for claim in json.loads(done.stdout)["claims"]}
    assert {claim for claim, status in claims.items() if status == "unproven"} == OF_A_RELEASE
    assert "refuted" not in claims.values()


def test_the_evidence_of_the_demo_holds_over_three_runtimes_at_least(left: Path) -> None:
    pin = parse_pin((left / "pin.txt").read_text())
    with open(left / "evidence.ironbound", "rb") as file:
        claims = {claim.id: claim for claim in verify_bundle(file, pin).claims}
    assert {claims[name].status for name in ("A2", "B1", "B2", "B3", "F1")} == {"holds"}
    runtimes = {name.removeprefix("launches in ") for name in claims["B1"].counts if name.startswith("launches in ")}
    assert "wasmtime" in runtimes and len(runtimes) >= 3, runtimes
    assert claims["B2"].counts["configurations in use"] >= 3
    assert claims["B2"].counts["canaries refused"] >= len(load_probes("wasm")) + 2 * len(SAMPLE)


def test_what_the_demo_could_not_test_here_stands_at_its_end(left: Path) -> None:
    said = (left / "said.txt").read_text().splitlines()
    end = said[next(at for at, line in enumerate(said) if line.startswith("Every step did")) :]
    tested = {line.split()[1] for line in said if "held, seen as approved" in line} | {"wasmtime"}
    untested = {line.split()[3].rstrip(":") for line in end if line.startswith("NOT TESTED here: ")}
    assert tested.isdisjoint(untested) and tested | untested == set(RUNTIMES), said
    assert shutil.which("firecracker") or "firecracker" in untested


@needs_browser
def test_the_report_of_the_demo_checks_itself_in_a_browser_and_agrees(left: Path, tmp_path: Path) -> None:
    assert state(dump(left / "report.html", tmp_path)) == "agrees"


def test_the_agent_of_the_demo_is_the_example_of_the_sdk_byte_for_byte() -> None:
    shipped = resources.files("ironbound") / "data" / "agents" / "triage.wasm"
    example = Path(__file__).parents[2] / "sdk" / "c" / "examples" / "triage.wasm"
    assert shipped.read_bytes() == example.read_bytes()


def test_without_a_pin_the_best_result_is_4_and_with_another_pin_it_is_3(left: Path) -> None:
    assert verify(left).returncode == 4
    pin = (left / "pin.txt").read_text().strip()
    other = "0" if pin.split(":")[1][0] != "0" else "1"
    deployment, root, key = pin.split(":")
    assert verify(left, "--pin", f"{deployment}:{other}{root[1:]}:{key}").returncode == 3


def test_a_flipped_byte_in_any_member_is_seen_even_with_its_checksum_repaired(left: Path) -> None:
    pin = parse_pin((left / "pin.txt").read_text())
    with zipfile.ZipFile(left / "evidence.ironbound") as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    for name, data in members.items():
        if name == "bundle.json":
            continue
        for at in sorted({0, len(data) // 3, len(data) // 2, len(data) - 1}):
            flipped = members | {name: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]}
            file = io.BytesIO()
            write_members(file, flipped)
            file.seek(0)
            try:
                report = verify_bundle(file, pin)
            except BundleBroken:
                continue
            assert report.exit_code == 1, f"{name} at {at}: exit code {report.exit_code}"
    file = io.BytesIO()
    write_members(file, members)
    file.seek(0)
    assert verify_bundle(file, pin).exit_code == 4  # the control: unflipped, it is what it was


def test_the_deployment_is_left_for_a_look_with_no_process_running_in_it(left: Path) -> None:
    assert (left / "deployment" / "trust-root.json").is_file()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            place = (process / "cwd").readlink()
        except OSError:
            continue
        assert not place.is_relative_to(left)


def test_a_second_demo_into_the_same_folder_is_refused_and_loses_nothing(left: Path) -> None:
    before = (left / "evidence.ironbound").read_bytes()
    done = subprocess.run([*COMMAND, "demo", "--out", str(left)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "hint:" in done.stderr
    assert (left / "evidence.ironbound").read_bytes() == before


@needs_browser
def test_an_organisation_signs_with_passkeys_and_its_identity_provider(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*COMMAND, "demo", "--org", "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "terminal and page both say: " in said and "bo declined; nothing was signed" in said
    assert "without user verification, for a page that asks for none: user-verification-missing" in said
    assert "ada (hw-uv) and bo (hw-uv)" in said and "cy (sw-pass) and di (hw-up)" in said
    has_provider = not provider.missing()
    assert ("NOT SHOWN: the identity provider" in said) is not has_provider, said
    assert ("login at the identity provider alone: identity-alone" in said) is has_provider
    assert ("granted by ada (hw-uv+idp) and bo (hw-uv+idp)" in said) is has_provider
    claims = {claim["id"]: claim for claim in json.loads(verify(out, "--json").stdout)["claims"]}
    assert {claims[one]["status"] for one in ("C1", "C2", "C3", "C4")} == {"holds"}
    # Three grants and a launch, each by two people.
    assert claims["C1"]["counts"].get("signatures idp", 0) == (8 if has_provider else 0)
    assert claims["C1"]["counts"]["signatures hw-uv"] > 8 and claims["C1"]["counts"]["signatures hw-up"] > 40


@needs_browser
def test_a_demo_without_an_identity_provider_says_that_it_was_not_shown(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(tmp_path_factory.mktemp("noidp"), "d")
    programs = place.parent / "bin"
    programs.mkdir()
    for name in ("chromium", "chromedriver"):
        (programs / name).symlink_to(shutil.which(name) or "")
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(Stop, match="lacks node and npm"):
        provider.install(place.parent / "p")
    people = Organisation()
    monkeypatch.setenv("PATH", path)
    try:
        trust = people.found(place, "noidp", None).trust
        assert any(one.startswith("the identity provider: this machine lacks node and npm") for one in people.unshown)
        assert not any(isinstance(key, Identity) for key in trust.keys.values())
    finally:
        people.close()
