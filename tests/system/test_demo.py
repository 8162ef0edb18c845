"""The demo, as a stranger runs it: a process of its own, its exit code, and what it leaves behind."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from ironbound.canary.probes import load_probes
from ironbound.core.profile import RUNTIMES
from ironbound.core.trust import parse_pin
from ironbound.evidence.writer import write_members
from ironbound.terminal.demo.run import SAMPLE
from ironbound.verifier.bundle import BundleBroken
from ironbound.verifier.verify import verify_bundle
from pages import dump, needs_browser, state

COMMAND = [sys.executable, "-I", "-m", "ironbound.terminal.main"]
NOT_BUILT = {"C5", "E1", "E2", "E3"}

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


def test_the_evidence_of_the_demo_verifies_with_only_what_is_not_built_unproven(left: Path) -> None:
    done = verify(left, "--pin", (left / "pin.txt").read_text(), "--json")
    assert done.returncode == 4
    claims = {claim["id"]: claim["status"] for claim in json.loads(done.stdout)["claims"]}
    assert {claim for claim, status in claims.items() if status == "unproven"} == NOT_BUILT
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


def test_an_organisation_signs_everything_with_passkeys(tmp_path: Path) -> None:
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("no Chromium with its driver (Debian: apt-get install chromium chromium-driver)")
    out = tmp_path / "out"
    words = [*COMMAND, "demo", "--org", "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "terminal and page both say: " in done.stdout and "bo declined; nothing was signed" in done.stdout
    claims = {claim["id"]: claim for claim in json.loads(verify(out, "--json").stdout)["claims"]}
    assert claims["C1"]["status"] == "holds"
    counts = claims["C1"]["counts"]
    assert counts["signatures hw-uv"] > 100 and set(counts) & {"signatures sw-pass", "signatures hw-up"} <= {
        name for name, count in counts.items() if count == 0
    }
