"""`ironbound image`: from a folder or a layout to a manifest that operators can approve."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ironbound.core.canonical import sha256_hex
from ironbound.core.native import parse_manifest
from ironbound.terminal.main import main
from ironbound.wire.deployment import Deployment
from ironbound.wire.images import Images, shipped_guard

from .layout import Layout, folder, link, member


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def loaded(capsys: pytest.CaptureFixture[str], deployment: Deployment, *words: str | Path) -> Any:
    code, out, err = run(capsys, "image", "load", "-d", deployment.root, "--json", *words)
    assert code == 0, err
    return json.loads(out)


def test_a_folder_becomes_an_image_and_a_manifest(
    capsys: pytest.CaptureFixture[str], deployment: Deployment, source: Path, here: Path
) -> None:
    said = loaded(
        capsys, deployment, source, "--env", "LANG=C", "--env", "A=1", "--cwd", "/etc", "--", "/bin/agent", "-o", "--x"
    )
    data = (here / "agent.json").read_bytes()
    manifest = parse_manifest(data)
    assert manifest.argv == ("/bin/agent", "-o", "--x") and manifest.env == ("A=1", "LANG=C") and manifest.cwd == "/etc"
    assert (said["module_sha256"], said["rootfs_sha256"]) == (sha256_hex(data), manifest.rootfs)
    assert said["fresh"] is True and said["dropped"] == [] and said["manifest"] == "agent.json"
    assert Images(deployment).verify(manifest.rootfs) == sha256_hex(shipped_guard())


def test_an_image_starts_as_its_author_wishes_where_the_command_line_says_nothing(
    capsys: pytest.CaptureFixture[str], deployment: Deployment, here: Path, tmp_path: Path
) -> None:
    (tmp_path / "layout").mkdir()
    wish = {"Entrypoint": ["agent"], "Cmd": ["-v"], "Env": ["PATH=/bin:/opt", "B=2"], "WorkingDir": "/work"}
    made = Layout(tmp_path / "layout", wish=wish)
    path = made.of([member("opt/real", mode=0o755), link("opt/agent", "/opt/real"), folder("work")])
    loaded(capsys, deployment, path)
    manifest = parse_manifest((here / "agent.json").read_bytes())
    assert manifest.argv == ("/opt/agent", "-v")
    assert manifest.env == ("B=2", "PATH=/bin:/opt") and manifest.cwd == "/work"
    loaded(capsys, deployment, "--env", "B=3", "--cwd", "/", "-o", "other.json", path, "--", "/opt/real")
    manifest = parse_manifest((here / "other.json").read_bytes())
    assert manifest.argv == ("/opt/real",) and manifest.env == ("B=3", "PATH=/bin:/opt") and manifest.cwd == "/"


def test_an_image_without_a_program_is_loaded_and_the_missing_manifest_is_said(
    capsys: pytest.CaptureFixture[str], deployment: Deployment, source: Path, here: Path
) -> None:
    code, out, err = run(capsys, "image", "load", "-d", deployment.root, source)
    assert code == 0 and "loaded" in out and "no manifest" in err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--", "nothing"], 1, "no program nothing"),
        (["--", "/usr/lib/libc.so"], 1, "no program"),
        (["--", "/usr/lib"], 1, "no program"),
        (["--", "/etc/outside"], 1, "no program"),
        (["--cwd", "/nowhere", "--", "/bin/agent"], 1, "no folder /nowhere"),
        (["--cwd", "/bin/agent", "--", "/bin/agent"], 1, "no folder"),
        (["--env", "A", "--", "/bin/agent"], 2, "no variable"),
        (["--env", "LD_PRELOAD=/evil.so", "--", "/bin/agent"], 1, "LD_"),
        (["--", "/bin/agent", "a\nb"], 1, "line feeds"),
        (["--tag", "v1"], 2, "no OCI image layout"),
        (["-o", "x.json"], 2, "no program to write"),
        (["--force"], 2, "unrecognized"),
    ],
)
def test_what_can_be_no_manifest_is_refused_with_a_reason_and_none_is_written(
    capsys: pytest.CaptureFixture[str],
    deployment: Deployment,
    source: Path,
    here: Path,
    words: list[str],
    code: int,
    says: str,
) -> None:
    try:
        ended, _, err = run(capsys, "image", "load", "-d", deployment.root, source, *words)
    except SystemExit as error:
        ended, err = int(str(error.code)), capsys.readouterr().err
    assert ended == code and says in err
    assert list(here.iterdir()) == []


def test_a_source_that_is_none_is_refused_with_a_hint(
    capsys: pytest.CaptureFixture[str], deployment: Deployment, source: Path
) -> None:
    code, _, err = run(capsys, "image", "load", "-d", deployment.root, source / "bin" / "agent")
    assert code == 1 and "hint: an archive is unpacked first" in err
    (source / "proc").mkdir()
    (source / "proc" / "x").touch()
    code, _, err = run(capsys, "image", "load", "-d", deployment.root, source)
    assert code == 1 and "hint: empty proc in the source" in err


def test_the_list_tells_which_image_is_whole_and_which_was_changed(
    capsys: pytest.CaptureFixture[str], deployment: Deployment, source: Path, here: Path
) -> None:
    one = loaded(capsys, deployment, source)["rootfs_sha256"]
    shutil.rmtree(source / "etc")
    two = loaded(capsys, deployment, source)["rootfs_sha256"]
    assert one != two
    code, out, _ = run(capsys, "image", "list", "-d", deployment.root, "--json")
    assert code == 0 and {row["rootfs_sha256"]: row["state"] for row in json.loads(out)} == {one: "whole", two: "whole"}
    (deployment.root / "images" / one / "bin" / "agent").chmod(0o444)
    code, out, _ = run(capsys, "image", "list", "-d", deployment.root, "--json")
    states = {row["rootfs_sha256"]: row["state"] for row in json.loads(out)}
    assert code == 1 and states[two] == "whole" and "changed: bin/agent" in states[one]
    code, out, _ = run(capsys, "image", "list", "-d", deployment.root)
    assert code == 1 and "STATE" in out and "changed: bin/agent" in out
