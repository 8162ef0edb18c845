"""What a stranger meets: colour only where it is wanted, a reader that goes away, errors that name the thing."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from ironbound.terminal import main as command
from ironbound.wire.deployment import Deployment

COMMAND = [sys.executable, "-I", "-m", "ironbound.terminal.main"]


def on_a_terminal(*words: str, **variables: str) -> str:
    """What the command says where its output is a terminal, up to its hint."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | variables
    try:
        subprocess.run([*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, check=False)
        said = b""
        while b"hint: " not in said and select.select([ours], [], [], 10)[0]:
            said += os.read(ours, 65536)
        return said.decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_terminal_gets_colour_unless_its_user_says_no_color() -> None:
    assert "\x1b[" in on_a_terminal("stop")
    plain = on_a_terminal("stop", NO_COLOR="1")
    assert "error: the following arguments are required: AGENT" in plain and "\x1b[" not in plain


def test_a_reader_that_has_enough_ends_the_command_without_a_word() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [*COMMAND, "surface", "--agent-channel"], stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
        )
        shown = subprocess.run(COMMAND, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (shown.returncode, shown.stderr) == (command.UNREAD, "")


def test_what_a_terminal_cannot_spell_is_escaped_and_ends_nothing(deployment: Deployment) -> None:
    words = [sys.executable, "-X", "utf8=0", "-m", "ironbound.terminal.main", "explain", "nö✓.toml"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(words, env=environment, capture_output=True, check=False)
    assert done.returncode == 1 and b"n\xf6\\u2713.toml: No such file or directory" in done.stderr, done.stderr


@pytest.mark.parametrize("code", [1, 3, 4])
def test_an_interrupted_command_is_no_verdict(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(words: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("ironbound.verifier.__main__.main", interrupted)
    assert command.main(["verify", "e.ironbound"]) == command.INTERRUPTED != code


def said(deployment: Deployment, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = command.main([*words, "-d", str(deployment.root)])
    return code, capsys.readouterr().err


def test_errors_name_the_thing_once(deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing"
    assert said(deployment, capsys, "sign", str(missing), "--sign", "ada") == (
        1,
        f"ironbound: error: {missing}: No such file or directory\n"
        "ironbound: hint: it should be a file written by `--out`\n",
    )
    code, words = said(deployment, capsys, "evidence", "export", "-o", str(tmp_path))
    assert code == 2 and f"error: {tmp_path} is a folder\n" in words
    file = tmp_path / "file"
    file.write_bytes(b"")
    code, words = said(deployment, capsys, "prove", "--out", str(file / "below"))
    assert (code, words) == (1, f"ironbound: error: {file / 'below'}: Not a directory\n")


@pytest.mark.parametrize("url", ["nonsense", "http://a.example/x?q=1"])
def test_a_credential_for_what_is_no_place_is_refused_before_its_value_is_asked(
    url: str, deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (deployment.root / "credentials.json").read_bytes()
    code, words = said(deployment, capsys, "credential", "records", "--url", url)
    assert code == 1 and url in words and "Traceback" not in words
    assert (deployment.root / "credentials.json").read_bytes() == before
