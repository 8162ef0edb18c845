"""The export: what is written verifies, the same log gives the same bytes, and a half-written file never shows."""

from __future__ import annotations

import io
import json
import shutil
import threading
import zipfile
from pathlib import Path

import pytest

from ironbound.core.trust import parse_trust_root
from ironbound.evidence import export as exporting
from ironbound.evidence.export import ExportError, export
from ironbound.verifier.verify import verify_bundle
from ironbound.wire.deployment import Deployment

from .lab import Honest, Lab, fallen, honest


def publish(lab: Lab, root: Path) -> None:
    """What the ledger serves: tiles first, the checkpoint last."""
    for name, data in lab.members().items():
        if name.startswith("tile/") or name == "checkpoint":
            path = root / "public" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


@pytest.fixture
def scene() -> Honest:
    return honest()


@pytest.fixture
def deployment(scene: Honest, tmp_path: Path) -> Deployment:
    root = tmp_path / "deployment"
    publish(scene.lab, root)
    store = root / "artifacts" / "controller" / "sha256"
    store.mkdir(parents=True)
    for digest, data in scene.lab.artifacts.items():
        (store / digest).write_bytes(data)
    return Deployment(root, parse_trust_root(scene.lab.entries[0]), 8001, 8002, None, scene.lab.replay.trust.digest)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_what_is_exported_verifies(scene: Honest, deployment: Deployment, tmp_path: Path) -> None:
    out = tmp_path / "evidence.ironbound"
    told: list[tuple[int, int]] = []
    summary = export(deployment, out, lambda done, total: told.append((done, total)))
    assert (summary.entries, summary.file_bytes, summary.missing) == (
        len(scene.lab.entries),
        out.stat().st_size,
        (),
    )
    assert told[-1] == (summary.entries, summary.entries)
    with open(out, "rb") as file:
        report = verify_bundle(file, scene.lab.pin)
    assert report.exit_code == 4 and fallen(report) == {}
    expected = scene.lab.members()
    assert {name: data for name, data in members(out).items() if name != "bundle.json"} == {
        name: data for name, data in expected.items() if name != "bundle.json"
    }


def test_the_same_log_gives_the_same_bytes(deployment: Deployment, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    export(deployment, one)
    export(deployment, two)
    assert one.read_bytes() == two.read_bytes()


def test_what_the_caller_has_seen_is_waited_for_and_never_left_out(
    scene: Honest, deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, size = deployment.root / "public" / "checkpoint", scene.lab.replay.size
    before = path.read_bytes()
    scene.lab.announce()
    shutil.rmtree(deployment.root / "public" / "tile")
    publish(scene.lab, deployment.root)
    grown, draft = scene.lab.replay.size, path.rename(tmp_path / "after")
    path.write_bytes(before)
    later = threading.Timer(0.2, draft.rename, (path,))
    later.start()
    assert export(deployment, tmp_path / "waited", at_least=grown).entries == grown > size
    later.join()
    monkeypatch.setattr(exporting, "PUBLISHED_S", 0.05)
    with pytest.raises(ExportError, match="were seen"):
        export(deployment, tmp_path / "never", at_least=grown + 1)
    assert not (tmp_path / "never").exists()


def test_a_log_that_grows_meanwhile_is_exported_at_the_checkpoint_that_was_read(
    scene: Honest, deployment: Deployment, tmp_path: Path
) -> None:
    before, size = scene.lab.checkpoint(), scene.lab.replay.size
    while scene.lab.replay.size < 300:
        scene.lab.announce()
        entry = scene.lab.replay.size
        if entry % 5 == 0:
            shutil.rmtree(deployment.root / "public" / "tile")
            publish(scene.lab, deployment.root)
            (deployment.root / "public" / "checkpoint").write_bytes(before)
            out = tmp_path / f"at-{entry}"
            assert export(deployment, out).entries == size
    shutil.rmtree(deployment.root / "public" / "tile")
    publish(scene.lab, deployment.root)
    assert export(deployment, tmp_path / "all").entries == scene.lab.replay.size
    (deployment.root / "public" / "checkpoint").write_bytes(before)
    assert export(deployment, tmp_path / "old").entries == size
    for name in ("old", "all"):
        report = verify_bundle(io.BytesIO((tmp_path / name).read_bytes()), scene.lab.pin)
        assert fallen(report) == {}


def test_a_missing_artifact_is_listed_and_its_claim_stays_open(
    scene: Honest, deployment: Deployment, tmp_path: Path
) -> None:
    (deployment.root / "artifacts" / "controller" / "sha256" / scene.module).unlink()
    out = tmp_path / "out"
    summary = export(deployment, out)
    assert [(one.sha256, one.what) for one in summary.missing] == [(scene.module, "module")]
    assert json.loads(members(out)["bundle.json"])["missing"] == {scene.module: "module"}
    with open(out, "rb") as file:
        assert fallen(verify_bundle(file, scene.lab.pin)) == {"A2": {"artifact-missing"}}


@pytest.mark.parametrize("name", ["tile/0/000.p/{size}", "tile/entries/000.p/{size}", "checkpoint"])
def test_a_damaged_log_is_not_exported_and_the_old_file_stays(
    scene: Honest, deployment: Deployment, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    export(deployment, out)
    before = out.read_bytes()
    path = deployment.root / "public" / name.format(size=scene.lab.replay.size)
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(ExportError):
        export(deployment, out)
    path.unlink()
    with pytest.raises(ExportError):
        export(deployment, out)
    assert out.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_log_of_another_deployment_is_not_exported(deployment: Deployment, tmp_path: Path) -> None:
    other = honest(drift_stop_ms=9_999).lab
    shutil.rmtree(deployment.root / "public")
    publish(other, deployment.root)
    with pytest.raises(ExportError, match="another trust root"):
        export(deployment, tmp_path / "out")
    assert not (tmp_path / "out").exists()
