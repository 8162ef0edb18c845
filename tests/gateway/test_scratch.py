"""The scratch area: flat, bounded, and nothing but the agent's own files."""

import os
from pathlib import Path

import pytest

from ironbound.gateway.action import ArgumentsRefused, Performed
from ironbound.gateway.providers import scratch
from ironbound.gateway.providers.scratch import ScratchArea, ScratchRefused

MAX = 1 << 16


@pytest.fixture
def area(tmp_path: Path):
    with ScratchArea(str(tmp_path), "clerk", max_bytes=100, max_files=3) as opened:
        yield opened


def do(area: ScratchArea, action: str, **arguments: object) -> Performed:
    return area.perform(action, scratch.normalise(action, arguments), max_result=MAX)


def test_what_is_written_is_read_back_listed_and_deleted(area: ScratchArea, tmp_path: Path) -> None:
    assert do(area, "scratch.write", name="a.txt", text="grüß").status == "performed"
    assert do(area, "scratch.read", name="a.txt").text == "grüß"
    assert do(area, "scratch.list").facts == {"files": [{"name": "a.txt", "bytes": 6}]}
    assert (tmp_path / "clerk" / "a.txt").stat().st_mode & 0o777 == 0o600
    assert do(area, "scratch.delete", name="a.txt").status == "performed"
    assert do(area, "scratch.read", name="a.txt").status == "failed"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/b", "/etc/passwd", ".hidden", ".unfinished", "A", "a\0b", "a b", "ä", "-x", "a" * 65],
)
def test_no_name_leads_out_of_the_area(area: ScratchArea, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    for action in ("scratch.write", "scratch.read", "scratch.delete"):
        with pytest.raises(ArgumentsRefused) as caught:
            do(area, action, name=name, **({"text": "x"} if action == "scratch.write" else {}))
        assert caught.value.code == "name-invalid"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({}, "argument-missing"),
        ({"name": "a"}, "argument-missing"),
        ({"name": "a", "text": 1}, "argument-type"),
        ({"name": True, "text": "x"}, "argument-type"),
        ({"name": "a", "text": "x", "mode": "0777"}, "argument-unknown"),
        ([], "arguments-invalid"),
    ],
)
def test_other_arguments_are_refused(arguments: object, code: str) -> None:
    with pytest.raises(ArgumentsRefused) as caught:
        scratch.normalise("scratch.write", arguments)
    assert caught.value.code == code


def test_the_quota_of_bytes_holds_and_a_replaced_file_does_not_count_twice(area: ScratchArea) -> None:
    assert do(area, "scratch.write", name="a", text="x" * 60).status == "performed"
    refused = do(area, "scratch.write", name="b", text="x" * 41)
    assert (refused.status, refused.detail.split(":")[0]) == ("not-performed", "quota-bytes")
    assert do(area, "scratch.write", name="a", text="y" * 100).status == "performed"
    assert do(area, "scratch.list").facts == {"files": [{"name": "a", "bytes": 100}]}


def test_the_quota_of_files_holds(area: ScratchArea) -> None:
    for name in "abc":
        assert do(area, "scratch.write", name=name, text="").status == "performed"
    assert do(area, "scratch.write", name="d", text="").detail.startswith("quota-files")
    assert do(area, "scratch.write", name="a", text="1").status == "performed"


def test_a_planted_link_is_neither_followed_nor_replaced(area: ScratchArea, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    planted = tmp_path / "clerk" / "a"
    for plant in (lambda: planted.symlink_to(secret), lambda: os.link(secret, planted), lambda: os.mkfifo(planted)):
        plant()
        for action, more in (("scratch.read", {}), ("scratch.write", {"text": "x"}), ("scratch.delete", {})):
            result = do(area, action, name="a", **more)
            assert result.status == "not-performed"
            assert result.detail.startswith("not-a-file")
        assert secret.read_text() == "secret"
        planted.unlink()
    assert do(area, "scratch.write", name="a", text="x").status == "performed"  # control: without it, it works


def test_the_area_itself_may_not_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "clerk").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        ScratchArea(str(tmp_path), "clerk", max_bytes=1, max_files=1)


@pytest.mark.parametrize("agent", ["..", "a/b", "", "canary:x", "."])
def test_an_agent_s_id_is_no_path(tmp_path: Path, agent: str) -> None:
    with pytest.raises(ScratchRefused):
        ScratchArea(str(tmp_path), agent, max_bytes=1, max_files=1)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_root_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ScratchArea(str(tmp_path / "missing"), "clerk", max_bytes=1, max_files=1)
    assert not (tmp_path / "missing").exists()


def test_a_write_that_broke_off_is_gone_at_the_next_start(tmp_path: Path) -> None:
    with ScratchArea(str(tmp_path), "clerk", max_bytes=9, max_files=9) as area:
        do(area, "scratch.write", name="a", text="old")
    (tmp_path / "clerk" / ".unfinished").write_text("ne")
    with ScratchArea(str(tmp_path), "clerk", max_bytes=9, max_files=9) as area:
        assert do(area, "scratch.read", name="a").text == "old"
        assert os.listdir(tmp_path / "clerk") == ["a"]


def test_a_failing_disk_leaves_the_old_file(area: ScratchArea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do(area, "scratch.write", name="a", text="old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = do(area, "scratch.write", name="a", text="new")
    assert (result.status, result.detail) == (
        "not-performed",
        "scratch-unavailable: nothing was written: No space left on device",
    )
    monkeypatch.undo()
    assert do(area, "scratch.read", name="a").text == "old"
    assert os.listdir(tmp_path / "clerk") == ["a"]


def test_a_file_over_one_message_is_not_read(area: ScratchArea) -> None:
    do(area, "scratch.write", name="a", text="x" * 50)
    result = area.perform("scratch.read", {"name": "a"}, max_result=49)
    assert (result.status, result.detail.split(":")[0]) == ("not-performed", "result-too-large")
    assert area.perform("scratch.read", {"name": "a"}, max_result=50).text == "x" * 50


def test_two_agents_see_nothing_of_each_other(tmp_path: Path) -> None:
    with (
        ScratchArea(str(tmp_path), "one", max_bytes=9, max_files=9) as one,
        ScratchArea(str(tmp_path), "two", max_bytes=9, max_files=9) as two,
    ):
        do(one, "scratch.write", name="a", text="x")
        assert do(two, "scratch.list").facts == {"files": []}
        assert do(two, "scratch.read", name="a").status == "failed"
