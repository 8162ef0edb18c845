"""The auditor's commands, as they stand in docs/auditor.md, run in a shell against a real bundle."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ironbound.core.canonical import b64decode, b64encode, canonical, parse_json
from ironbound.core.envelope import parse_envelope
from verifier.lab import Honest, honest, pack

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "auditor.md"
RESULT = "https://ironbound.dev/canary-result/v1"
COMMON = {"deployment", "id", "at_ms"}
"""What the lab writes into every statement."""
SUCCESS = "Signature Verified Successfully"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def blocks() -> str:
    """Every runnable block of the document, in order: one script."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def scene() -> Honest:
    return honest()


@pytest.fixture
def run(tmp_path: Path, scene: Honest) -> Run:
    def shell(bundle: bytes, index: int = 1, pin: str = "", canary: int = 0) -> subprocess.CompletedProcess[str]:
        (tmp_path / "evidence.ironbound").write_bytes(bundle)
        line = str(scene.lab.pin)
        (tmp_path / "pin.txt").write_text(f"{line.replace(scene.lab.pin.root, pin or scene.lab.pin.root)}\n", "ascii")
        tools = tmp_path / "tools"
        tools.mkdir()
        if shutil.which("unzip") is None:  # a bare Debian has none: the same call, by Python's zipfile
            stand_in = tools / "unzip"
            stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m zipfile -e "$2" "$4"\n')
            stand_in.chmod(0o755)
        environment = {
            "PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "N": str(index),
            "A": str(admitted(scene)),
            "C": str(canary or answer(scene)),
        }
        return subprocess.run(
            ["sh", "-eu", "-c", blocks()],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return shell


def admitted(scene: Honest) -> int:
    """The index of an entry that two humans consented to."""
    return scene.launch


def answer(scene: Honest) -> int:
    """The index of the node's word on a canary."""
    return next(index for index, entry in enumerate(scene.lab.entries) if said(entry)["predicateType"] == RESULT)


def said(entry: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(parse_envelope(entry).payload)
    return value


def entries_member(members: dict[str, bytes]) -> str:
    return next(name for name in members if name.startswith("tile/entries/"))


def changed(scene: Honest, index: int, change: Callable[[bytes], bytes]) -> bytes:
    """A bundle in which one entry has other bytes of the same number; everything around it as it was."""
    members = scene.lab.members()
    name = entries_member(members)
    old = scene.lab.entries[index]
    new = change(old)
    assert len(new) == len(old) and new != old
    assert members[name].count(old) == 1
    return pack(members | {name: members[name].replace(old, new)})


def other_payload(entry: bytes) -> bytes:
    """The entry with one digit of its time changed inside the payload; still a well-formed envelope."""
    value = parse_json(entry, limit=1 << 17)
    assert isinstance(value, dict)
    payload = b64decode(str(value["payload"]))
    at = payload.index(b'"at_ms":') + len(b'"at_ms":')
    digit = b"9" if payload[at : at + 1] != b"9" else b"8"
    value["payload"] = b64encode(payload[:at] + digit + payload[at + 1 :])
    return canonical(value)


def other_request(entry: bytes) -> bytes:
    """The entry with one letter of the humans' request changed."""
    value = parse_json(entry, limit=1 << 17)
    assert isinstance(value, dict)
    payload = b64decode(str(value["payload"]))
    at = payload.index(b'"request":{"payload":"') + 200
    letter = b"A" if payload[at : at + 1] != b"A" else b"B"
    value["payload"] = b64encode(payload[:at] + letter + payload[at + 1 :])
    return canonical(value)


def test_an_auditor_checks_statement_consent_place_and_checkpoint_with_openssl_alone(run: Run, scene: Honest) -> None:
    done = run(scene.lab.bundle())
    assert done.returncode == 0, done.stderr
    assert "WRONG" not in done.stdout
    words = done.stdout.splitlines()
    approvals = words.count("it approves exactly this request")
    assert approvals >= 1
    assert words.count(SUCCESS) == 6 + approvals
    assert "operator-verbs ended REFUSED, in the enforcer's words: -32601 method not found" in words
    for sentence in (
        "the trust root is the pin's",
        "asked by the monitor, answered by the node",
        "the answer is to this very challenge",
        "the challenge was made on the log before it",
        "the entry is the leaf at its place",
        "the entries have the checkpoint's root",
    ):
        assert words.count(sentence) == 1


def test_every_entry_of_the_log_can_be_cut_out_and_checked(run: Run, scene: Honest) -> None:
    last = len(scene.lab.entries) - 1
    done = run(scene.lab.bundle(), last)
    assert done.returncode == 0, done.stderr
    assert "the entry is the leaf at its place" in done.stdout


def test_a_changed_statement_fails_in_openssl(run: Run, scene: Honest) -> None:
    done = run(changed(scene, 1, other_payload))
    assert done.returncode != 0
    assert SUCCESS not in done.stdout


def test_a_changed_consent_fails_in_openssl(run: Run, scene: Honest) -> None:
    done = run(changed(scene, admitted(scene), other_request))
    assert done.returncode != 0
    assert done.stdout.count(SUCCESS) == 1  # entry 1, which nobody touched


def test_a_canary_answered_with_another_nonce_or_by_another_voice_is_seen(run: Run) -> None:
    forged = honest()
    node, true = forged.lab, answer(forged)
    words = {key: value for key, value in said(node.entries[true])["predicate"].items() if key not in COMMON}
    other = node.say("gateway", "canary-result", **(words | {"nonce": "0" * 32})).index
    done = run(node.bundle(), canary=other)
    assert "WRONG nonce" in done.stdout and "asked by the monitor, answered by the gateway" in done.stdout
    assert "the answer is to this very challenge" not in done.stdout


def test_a_canary_whose_own_report_has_another_nonce_is_seen(run: Run) -> None:
    forged = honest()
    result = forged.lab.canary(forged.canary, forged.cage, forged.probe, report={"nonce": "0" * 32})
    assert result is not None
    assert "WRONG nonce" in run(forged.lab.bundle(), canary=result.index).stdout


def test_another_leaf_is_seen_although_its_signature_is_sound(run: Run, scene: Honest) -> None:
    members = scene.lab.members()
    name = next(name for name in members if name.startswith("tile/0/"))
    leaves = bytearray(members[name])
    leaves[32] ^= 1
    done = run(pack(members | {name: bytes(leaves)}))
    assert "WRONG leaf" in done.stdout and "WRONG root" in done.stdout
    assert "the entry is the leaf at its place" not in done.stdout


def test_another_pin_is_seen_at_once(run: Run, scene: Honest) -> None:
    done = run(scene.lab.bundle(), pin="0" * 64)
    assert done.stdout.startswith("WRONG trust root\n")
