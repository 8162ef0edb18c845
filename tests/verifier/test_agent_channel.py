"""Claim C2: what a gateway says that it shows to agents is judged by the verifier, and compared with what shipped."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ironbound
from ironbound.core.canonical import FormatError, canonical, sha256_hex
from ironbound.core.channel import SURFACE_FILE
from ironbound.verifier import __main__ as command
from ironbound.verifier.release import LIST_FILE, Shipped, read_release, release_digest, shipped
from ironbound.verifier.verify import Report, verify_bundle
from ironbound.wire.service import installed_release

from .lab import SURFACE, Honest, digest_of, fallen, honest

PACKAGE = Path(ironbound.__file__).parent


@pytest.fixture
def scene() -> Honest:
    made = honest()
    assert made.lab.falling() == {}
    return made


def judged(scene: Honest, release: Shipped | None) -> Report:
    return verify_bundle(io.BytesIO(scene.lab.bundle()), scene.lab.pin, shipped=release)


def reasons(report: Report) -> set[str]:
    return fallen(report).get("C2", set())


def the_lab_s(surface: bytes = SURFACE, release: str = "release") -> Shipped:
    return Shipped(digest_of(release), sha256_hex(surface))  # type: ignore[arg-type]


def test_a_surface_without_a_route_that_shipped_with_what_ran_lets_c2_hold(scene: Honest) -> None:
    report = judged(scene, the_lab_s())
    claim = next(one for one in report.claims if one.id == "C2")
    assert claim.status == "holds" and claim.remarks == ()
    assert claim.counts["gateway starts compared with the release"] == claim.counts["gateway starts"] == 1
    assert claim.counts["methods on the agent channel"] == 8
    without = next(one for one in judged(scene, None).claims if one.id == "C2")
    assert without.status == "holds" and "--release" in without.remarks[0]


@pytest.mark.parametrize("part", ["methods", "actions", "resources", "tells"])
def test_a_gateway_that_shows_agents_a_route_refutes_c2_by_its_own_document(scene: Honest, part: str) -> None:
    document = json.loads(SURFACE)
    document[part]["grant"] = next(iter(document[part].values()))
    scene.lab.announce(surface=canonical(document))
    assert scene.lab.falling() == {"C2": {"agent-surface-route"}}


def test_a_gateway_that_names_no_surface_leaves_c2_open(scene: Honest) -> None:
    scene.lab.announce(surface=None)
    assert scene.lab.falling() == {"C2": {"surface-not-announced"}}


def test_a_document_that_is_not_in_the_bundle_leaves_c2_open(scene: Honest) -> None:
    del scene.lab.artifacts[sha256_hex(SURFACE)]
    assert scene.lab.falling() == {"C2": {"artifact-missing"}}


@pytest.mark.parametrize("data", [b"", b"{}", SURFACE + b"\n", b"\x00" * 100], ids=range(4))
def test_what_is_no_document_refutes_c2(scene: Honest, data: bytes) -> None:
    scene.lab.announce(surface=data)
    assert scene.lab.falling() == {"C2": {"agent-surface-malformed"}}


def test_a_gateway_that_names_another_surface_than_its_own_release_ships_refutes_c2(scene: Honest) -> None:
    document = json.loads(SURFACE)
    del document["methods"]["ping"]  # less than what ships, which has no route either
    scene.lab.announce(surface=canonical(document))
    assert scene.lab.falling() == {}
    assert reasons(judged(scene, the_lab_s())) == {"agent-surface-differs"}


def test_another_release_than_the_auditors_leaves_c2_open(scene: Honest) -> None:
    assert reasons(judged(scene, the_lab_s(release="another"))) == {"release-differs"}
    scene.lab.announce(release="next release")
    assert reasons(judged(scene, the_lab_s())) == {"release-differs"}


# The release as it lies there


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real wheel, from the real build."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=PACKAGE.parents[1], check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


def test_the_wheel_and_what_is_installed_of_it_have_one_digest_and_it_is_what_services_log(wheel: Path) -> None:
    files = read_release(wheel)
    assert files == read_release(PACKAGE) == read_release(PACKAGE.parent)
    assert release_digest(files) == installed_release()
    given = shipped(wheel)
    assert (given.release, given.surface) == (installed_release(), sha256_hex(SURFACE))
    assert given.wheel == sha256_hex(wheel.read_bytes()) and given.listed == sha256_hex(files[LIST_FILE])


def test_a_third_party_makes_both_digests_with_unzip_and_sha256sum(wheel: Path, tmp_path: Path) -> None:
    subprocess.run(["unzip", "-q", str(wheel), "-d", str(tmp_path)], check=True, timeout=60)
    script = (
        "cd ironbound && find . -type f | cut -c3- | sed 's,/,\\x01,g' | LC_ALL=C sort | sed 's,\\x01,/,g'"
        " | tr '\\n' '\\0' | xargs -0 sha256sum | sha256sum | cut -c-64"
        "; sha256sum gateway/agent-channel.json | cut -c-64"
    )
    made = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert made.stdout.split() == [shipped(wheel).release, shipped(wheel).surface]


def test_the_surface_is_made_anew_from_the_tables_in_the_wheel_and_a_lie_in_either_is_found(
    wheel: Path, tmp_path: Path
) -> None:
    def asked(release: Path) -> subprocess.CompletedProcess[bytes]:
        words = [sys.executable, "-I", "-m", "ironbound.terminal.main", "surface", "--agent-channel", "--json"]
        return subprocess.run([*words, "--from", str(release)], capture_output=True, timeout=120)

    honest = asked(wheel)
    assert honest.returncode == 0 and honest.stdout == SURFACE + b"\n", honest.stderr
    tables = tmp_path / "tables"
    shutil.copytree(PACKAGE, tables / "ironbound", ignore=shutil.ignore_patterns("__pycache__"))
    source = tables / "ironbound" / "gateway" / "mcp.py"
    row = '    "ping": Method('
    source.write_text(source.read_text().replace(row, f'    "grant": Method("", "always", Session._ping),\n{row}'))
    lying = asked(tables)
    assert lying.returncode != 0 and b"its tables are not what its" in lying.stderr
    document = json.loads(SURFACE)
    document["methods"]["grant"] = {"about": "", "kind": "request", "when": "always"}
    (tables / "ironbound" / SURFACE_FILE).write_bytes(canonical(document))
    assert asked(tables).stdout == canonical(document) + b"\n"  # it agrees with itself, and is no longer what ran
    assert shipped(tables) != shipped(wheel)


def test_what_is_no_release_is_refused(tmp_path: Path, wheel: Path) -> None:
    (tmp_path / "notes.txt").write_text("no wheel")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as other:
        other.writestr("elsewhere/__init__.py", "")
    damaged = bytearray(wheel.read_bytes())
    with zipfile.ZipFile(wheel) as whole:
        largest = max(whole.infolist(), key=lambda one: one.compress_size)
    damaged[largest.header_offset + largest.compress_size // 2] ^= 0xFF
    (tmp_path / "damaged.whl").write_bytes(damaged)
    for name in (".", "notes.txt", "other.whl", "damaged.whl"):
        with pytest.raises(FormatError) as refused:
            read_release(tmp_path / name)
        assert refused.value.code == "release", name


def test_the_command_takes_a_release_and_a_wrong_one_is_a_usage_error(
    scene: Honest, tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "e.ironbound"
    bundle.write_bytes(scene.lab.bundle())
    scene_pin = str(scene.lab.pin)
    assert command.main([str(bundle), "--pin", scene_pin, "--release", str(tmp_path / "none")]) == 2
    assert command.main([str(bundle), "--pin", scene_pin, "--release", str(bundle)]) == 2
    capsys.readouterr()
    assert command.main([str(bundle), "--pin", scene_pin, "--release", str(wheel), "--json"]) == 4
    claims = {one["id"]: one for one in json.loads(capsys.readouterr().out)["claims"]}
    assert [reason["code"] for reason in claims["C2"]["reasons"]] == ["release-differs"]
