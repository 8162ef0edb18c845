"""The command: exit codes are the contract, and the report says first what it does not prove."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ironbound.core.envelope import sign_envelope
from ironbound.core.statement import VOICES
from ironbound.verifier import __main__ as command
from ironbound.verifier import output
from ironbound.verifier.__main__ import USAGE, main
from ironbound.verifier.claims import CLAIMS, HOLDS, UNPROVEN
from ironbound.verifier.codes import INTEGRITY, OPEN, REFUTING, explain
from ironbound.verifier.output import utc

from .lab import Honest, Lab, honest, status


@pytest.fixture(scope="module")
def scene() -> Honest:
    return honest(releases=True)


@pytest.fixture
def file(tmp_path: Path, scene: Honest) -> str:
    path = tmp_path / "evidence.ironbound"
    path.write_bytes(scene.lab.bundle())
    return str(path)


def test_an_honest_history_holds_in_everything(scene: Honest) -> None:
    report = scene.lab.verify()
    assert report.exit_code == 0
    assert [claim.id for claim in report.claims] == list(CLAIMS)
    for claim in report.claims:
        assert claim.status == HOLDS and claim.counts and claim.controls and not claim.reasons, claim


def test_with_the_right_pin_the_exit_code_is_0(file: str, scene: Honest, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([file, "--pin", str(scene.lab.pin)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "does not prove" not in printed
    assert main([file]) == 4
    printed = capsys.readouterr().out
    assert printed.index("does not prove") < printed.index("Claims, from the inside out")


def test_a_verifier_that_fails_refutes_nothing(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RecursionError("a fault of ours")

    monkeypatch.setattr(command, "verify_bundle", fails)
    assert main([file]) == 2
    told = capsys.readouterr()
    assert told.out == "" and "nothing was judged" in told.err and "a fault of ours" in told.err


def test_a_long_log_is_told_of_on_the_way_beside_the_report(
    file: str, scene: Honest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([file, "--json"]) == 4
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(output, "LONG", 1)
    assert main([file, "--json"]) == 4
    told = capsys.readouterr()
    size = len(scene.lab.entries)
    assert told.err == f"ironbound verify: {size} of {size} entries\n" and json.loads(told.out)["exit"] == 4


def test_without_a_pin_the_best_result_is_4_and_d1_says_why(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([file, "--json"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert report["exit"] == 4 and report["pinned"] is False
    opened = {claim["id"] for claim in report["claims"] if claim["status"] == UNPROVEN}
    assert opened == {"D1"}
    reasons = next(claim["reasons"] for claim in report["claims"] if claim["id"] == "D1")
    assert [reason["code"] for reason in reasons] == ["no-pin"]


def test_another_pin_breaks_the_bundle(file: str, scene: Honest, capsys: pytest.CaptureFixture[str]) -> None:
    deployment, root, vkey = str(scene.lab.pin).split(":")
    for pin in (f"other:{root}:{vkey}", f"{deployment}:{'0' * 64}:{vkey}", f"{deployment}:{root}:{vkey}x"):
        assert main([file, "--pin", pin, "--json"]) == 3
        assert json.loads(capsys.readouterr().out)["code"] == "pin-differs"


def test_a_refuted_claim_is_named_with_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = honest()
    scene.lab.outcome(1)
    path = tmp_path / "bundle"
    path.write_bytes(scene.lab.bundle())
    assert main([str(path), f"--pin={scene.lab.pin}"]) == 1
    printed = capsys.readouterr().out
    assert "refuted C3" in printed and "acted-without-intent" in printed


@pytest.mark.parametrize(
    "words",
    [[], ["--pin"], ["a", "b"], ["--no-such"], ["x", "--pin", "a:b"], ["x", "--pin", "::"], ["/no/such/file"], ["/"]],
)
def test_wrong_usage_is_exit_2_and_says_so(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("ironbound verify: ")


def test_help_is_one_screen_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == USAGE
    assert "example:" in USAGE and USAGE.count("\n") < 24


def test_a_broken_file_is_exit_3_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(b"PK\x03\x04 nothing")
    assert main([str(path)]) == 3
    assert "zip-structure" in capsys.readouterr().out


def test_every_code_has_a_sentence_and_no_code_has_two_meanings() -> None:
    codes = [*INTEGRITY, *REFUTING, *OPEN]
    assert len(codes) == len(set(codes))
    assert all(explain(code) for code in codes)
    assert explain("no-such-code") is None


def test_what_an_entry_says_cannot_move_the_readers_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = honest()
    entry = scene.lab.drift(scene.started, "posture")
    assert entry.void is None
    told = {"verdict": "ESCAPED", "refusal": "\x1b[2J all is well \u202e"}
    scene.lab.canary(scene.canary, scene.cage, scene.probe, report=told, verdict="ESCAPED")
    path = tmp_path / "bundle"
    path.write_bytes(scene.lab.bundle())
    assert main([str(path)]) == 1
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\u202e" not in printed and "\\u001b[2J" in printed


def test_whatever_an_entitled_voice_says_the_verifier_reaches_a_verdict() -> None:
    """Statements of the right shape with nonsense inside: refuted or unproven, never a traceback."""
    scene = honest()
    lab = scene.lab
    lab.say("node", "started", **_nonsense_start(scene))
    launch = lab.expect(lab.ask_launch("second", scene.module, scene.cage))
    started = lab.expect(lab.start(launch, posture={}, probes=[], seen={"posture": {"config_sha256": {}}}))
    lab.expect(lab.observe(started, posture={"config_sha256": {}}, differences=[]))
    lab.expect(lab.observe(started, posture={"uid": "x"}))
    lab.expect(lab.drift(started, "?", differences=[{"path": "", "expected": None, "got": [[]]}]))
    for role, kinds in VOICES.items():
        for kind in kinds:
            lab.append(sign_envelope(b'{"kind":"' + kind.encode() + b'"}', [lab.services[role]]).encode())
    report = lab.verify()
    assert report.exit_code == 1
    assert status(report, "B1") == "refuted" and status(report, "D3") == "refuted"


def _nonsense_start(scene: Honest) -> dict[str, object]:
    return dict(scene.lab.started(scene.started)) | {"launch": 1 << 50, "id": scene.lab.fresh()}


def test_an_empty_log_of_a_trust_root_alone_proves_no_population() -> None:
    lab = Lab()
    lab.now += 1
    report = lab.verify()
    assert report.exit_code == 4
    assert {claim.id for claim in report.claims if claim.status == HOLDS} == {"D1", "D3"}


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01 00:00:00.000 UTC"),
        (951_782_400_000, "2000-02-29 00:00:00.000 UTC"),
        (1_709_251_199_999, "2024-02-29 23:59:59.999 UTC"),
        (4_107_542_400_000, "2100-03-01 00:00:00.000 UTC"),
    ],
)
def test_times_are_printed_by_the_calendar(ms: int, text: str) -> None:
    assert utc(ms) == text
