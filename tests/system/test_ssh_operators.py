"""Operators sign with SSH keys: through the real ssh-keygen, software keys and security keys, and never an agent."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import encodebytes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stand import COMMAND, STRICT, folder, until

from authenticators import PasskeyDevice
from ironbound.core.canonical import FormatError
from ironbound.core.keys import SignatureInvalid
from ironbound.core.scheme import verify_scheme
from ironbound.core.sshsig import SshKey, namespace_of
from ironbound.core.strength import Strength
from ironbound.core.webauthn import Passkey
from ironbound.terminal.enrol import enrolled
from ironbound.terminal.init import initialise
from ironbound.terminal.ssh import SshSigner, _unarmoured
from ironbound.terminal.voice import Stop
from ironbound.wire.deployment import ROLES

MESSAGE = b"DSSEv1 28 application/vnd.in-toto+json 2 {}"
PHRASE = b"a phrase"


def keygen(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *words], capture_output=True, timeout=60, **options)


def made(path: Path, *words: str, phrase: bytes = PHRASE) -> Path:
    done = keygen("-q", "-t", "ed25519", "-N", phrase.decode(), "-C", "test", "-f", str(path), *words)
    assert done.returncode == 0, done.stderr
    return path


def signer(path: Path, phrase: bytes | None = PHRASE, dress: str = "") -> SshSigner:
    key = enrolled(f"{dress}{path}.pub", "lab")
    assert isinstance(key, SshKey)
    return SshSigner(path, key, phrase)


def second_opinion(path: Path, signature: bytes, place: Path) -> bool:
    """Whether `ssh-keygen -Y verify` accepts the signature over MESSAGE."""
    armoured = b"-----BEGIN SSH SIGNATURE-----\n" + encodebytes(signature) + b"-----END SSH SIGNATURE-----\n"
    (place / "sig").write_bytes(armoured)
    (place / "allowed").write_text(f"ada {path.with_suffix('.pub').read_text('utf-8')}", "utf-8")
    words = ("-Y", "verify", "-f", str(place / "allowed"), "-I", "ada", "-n", namespace_of("lab"))
    return keygen(*words, "-s", str(place / "sig"), input=MESSAGE).returncode == 0


def test_a_software_key_signs_with_its_passphrase_and_both_readers_agree(tmp_path: Path) -> None:
    path = made(tmp_path / "ada")
    signature = signer(path).sign(MESSAGE)
    assert verify_scheme(signer(path).public, signature, MESSAGE).strength is Strength.SOFTWARE
    assert second_opinion(path, signature, tmp_path)
    changed = signature[:-1] + bytes([signature[-1] ^ 1])
    assert not second_opinion(path, changed, tmp_path)
    with pytest.raises(SignatureInvalid):
        verify_scheme(signer(path).public, changed, MESSAGE)
    with pytest.raises(Stop, match="did not sign"):
        signer(path, b"another phrase").sign(MESSAGE)


def test_a_software_key_without_a_passphrase_does_not_sign(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="no passphrase"):
        signer(made(tmp_path / "bare", phrase=b"")).sign(MESSAGE)


def test_a_key_in_an_agent_never_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = made(tmp_path / "ada", phrase=b"")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL)
    try:
        until("the agent listens", (tmp_path / "agent").exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        assert subprocess.run(["ssh-add", "-q", str(bare)], timeout=30).returncode == 0
        bare.unlink()
        # The positive control: with the agent's socket, ssh-keygen signs without asking anybody.
        words = ("-Y", "sign", "-q", "-f", f"{bare}.pub", "-n", namespace_of("lab"))
        assert b"BEGIN SSH SIGNATURE" in keygen(*words, input=MESSAGE).stdout
        with pytest.raises(Stop, match="no private key's file"):
            signer(bare).sign(MESSAGE)
        public = signer(bare).public
        with pytest.raises(Stop, match="did not sign"):
            SshSigner(Path(f"{bare}.pub"), public, PHRASE).sign(MESSAGE)
    finally:
        agent.terminate()
        agent.wait(30)


def test_a_security_key_signs_through_the_real_ssh_keygen(security_key: Path, tmp_path: Path) -> None:
    key = signer(security_key, None)
    assert key.public.application == b"ssh:" and key.public.user_verification
    signature = key.sign(MESSAGE)
    proven = verify_scheme(key.public, signature, MESSAGE)
    assert (proven.strength, proven.counter) == (Strength.HARDWARE_VERIFIED, 42)
    assert second_opinion(security_key, signature, tmp_path)


@pytest.mark.parametrize(
    ("flags", "dress", "reason"),
    [("0", "", "user-presence-missing"), ("4", "", "user-presence-missing"),
     ("0", "touch:", "user-presence-missing"), ("1", "", "user-verification-missing")],
)  # fmt: skip
def test_ssh_keygen_accepts_a_signature_that_nobody_touched_and_we_refuse_it(
    security_key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, dress: str, reason: str
) -> None:
    monkeypatch.setenv("SK_FLAGS", flags)
    key = signer(security_key, None, dress)
    with pytest.raises(Stop, match=reason):
        key.sign(MESSAGE)
    words = ("-Y", "sign", "-q", "-f", str(security_key), "-n", namespace_of("lab"))
    done = keygen(*words, input=MESSAGE)
    signature = _unarmoured(done.stdout)
    assert second_opinion(security_key, signature, tmp_path)
    with pytest.raises(SignatureInvalid) as caught:
        verify_scheme(key.public, signature, MESSAGE)
    assert caught.value.code == reason


def test_a_touch_is_enough_where_the_trust_root_says_so(security_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SK_FLAGS", "1")
    key = signer(security_key, None, "touch:")
    assert verify_scheme(key.public, key.sign(MESSAGE), MESSAGE).strength is Strength.HARDWARE_TOUCHED


def test_a_passkey_is_enrolled_from_what_the_browser_gave(tmp_path: Path) -> None:
    for device in (PasskeyDevice("a"), PasskeyDevice("a", ed25519=True), PasskeyDevice("a", flags=0x1D)):
        file = tmp_path / "passkey.json"
        file.write_text(json.dumps(device.registration()), "utf-8")
        key = enrolled(str(file), "lab")
        assert isinstance(key, Passkey) and key == device.public
        assert verify_scheme(key, device.sign(MESSAGE), MESSAGE)
    device, other = PasskeyDevice("a"), PasskeyDevice("b")
    theirs = other.registration()["response"]
    for bad in (
        device.registration(publicKey=theirs["publicKey"]),
        device.registration(authenticatorData=theirs["authenticatorData"]),
        device.registration(clientDataJSON="e30"),
        device.registration(publicKey="AA"),
        PasskeyDevice("a", rp_id="evil.example").registration(),
        PasskeyDevice("a", origin="https://evil.example").registration(),
        {"id": "AA"}, {}, {"response": []},
    ):  # fmt: skip
        file.write_text(json.dumps(bad), "utf-8")
        with pytest.raises(Stop):
            enrolled(str(file), "lab")


@pytest.mark.parametrize(("deployment", "operator"), [("lab", "\u0430da"), ("l\u0430b", "ada")])
def test_a_name_in_letters_that_pass_for_others_makes_no_deployment(
    tmp_path: Path, deployment: str, operator: str
) -> None:
    root = folder(tmp_path, "d")
    with pytest.raises(FormatError) as caught:
        initialise(root, deployment, [(operator, PHRASE), ("cy", PHRASE)], 2)
    assert caught.value.code == "text-look-alike"
    assert not any(root.iterdir()), "nor half of one"
    assert initialise(root, "lab", [("ada", PHRASE), ("cy", PHRASE)], 2).trust.deployment == "lab"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield folder(tmp_path, "d")


def test_a_deployment_whose_operators_sign_with_ssh_keys(security_key: Path, place: Path, tmp_path: Path) -> None:
    """ada by a security key, bo by an SSH key, cy by a key file of ours; di has a passkey, which can't sign here."""
    bo = made(tmp_path / "bo")
    (tmp_path / "di.json").write_text(json.dumps(PasskeyDevice("di").registration()), "utf-8")

    def run(*words: str, phrases: bytes = b"") -> subprocess.CompletedProcess[str]:
        read, write = os.pipe()
        os.write(write, phrases)
        os.close(write)
        try:
            return subprocess.run(
                [*COMMAND, *words, *(("--passphrase-fd", str(read)) if phrases else ())],
                capture_output=True, text=True, timeout=120, pass_fds=(read,),
            )  # fmt: skip
        finally:
            os.close(read)

    people = ("--operator", f"ada={security_key}.pub", "--operator", f"bo={bo}.pub", "--operator", "cy",
              "--operator", f"di={tmp_path / 'di.json'}")  # fmt: skip
    done = run("init", str(place), "--name", "ssh", *people, "--quorum", "2", phrases=b"1234\na phrase\nours\n")
    assert done.returncode == 0, done.stderr
    with open(place / "up.log", "wb") as output:
        up = subprocess.Popen([*COMMAND, "up", "-d", str(place)], stderr=output)
    try:
        until("it is up", lambda: all(f"{role}: ready" in (place / "up.log").read_text("utf-8") for role in ROLES))
        signing = ("--sign", f"ada={security_key}", "--sign", f"bo={bo}")
        approve = ("approve", "profile", str(STRICT), "-d", str(place), "--json")
        done = run(*approve, *signing, phrases=b"1234\na phrase\n")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["humans"] == ["ada", "bo"]
        done = run("log", "-d", str(place), "--json")
        entry = next(one for one in json.loads(done.stdout) if one["kind"] == "admitted")
        assert entry["about"]["signed"] == {"ada": "hw-uv", "bo": "sw-pass"} and entry["void"] is None
        done = run(*approve, "--sign", f"cy={bo}", phrases=b"a phrase\n")
        assert done.returncode == 1 and "not a key of operator cy" in done.stderr
        evidence = str(tmp_path / "e.ironbound")
        assert run("evidence", "export", "-d", str(place), "-o", evidence).returncode == 0
        done = run("verify", evidence, "--pin", (place / "pin.txt").read_text("utf-8").strip(), "--json")
        claim = next(one for one in json.loads(done.stdout)["claims"] if one["id"] == "C1")
        assert claim["status"] == "holds"
        assert claim["counts"]["signatures hw-uv"] == claim["counts"]["signatures sw-pass"] == 1
    finally:
        up.terminate()
        up.wait(60)


def test_passkeys_alone_cannot_sign_a_trust_root_from_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="passkeys from files can't"):
        initialise(tmp_path / "d", "d", [("di", PasskeyDevice("di").public), ("cy", b"phrase")], 2)
    assert not (tmp_path / "d").exists()
