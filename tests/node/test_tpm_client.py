"""A TPM that others made: what we have it quote, tpm2-tools accept; what tpm2-tools have it quote, we accept."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ironbound.core.canonical import b64decode, b64encode
from ironbound.core.keys import SignatureInvalid
from ironbound.core.tpm import PCR, enrolled_key, extended, measured, parse_public, qualifying, verify_quote
from ironbound.node.tpm import KEY_HANDLE, Tpm, TpmError

NONCE = "00112233445566778899aabbccddeeff"
MEASUREMENT = measured("started", {"launch": 7})
EXPECTED = qualifying(NONCE, bytes(32), MEASUREMENT)


def _needed(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not tested: {', '.join(missing)} not installed")


class Swtpm:
    """A software TPM in a folder; one client at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "tpm"
        state = folder / "state"
        state.mkdir()
        self._process = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", f"type=unixio,path={self.path}",
             "--ctrl", f"type=unixio,path={self.path}.ctrl", "--flags", "not-need-init,startup-clear"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 20
        while not self.path.exists():
            assert time.monotonic() < end and self._process.poll() is None, "swtpm does not start"
            time.sleep(0.01)

    @property
    def address(self) -> str:
        return f"swtpm:{self.path}"

    def tool(self, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """One of tpm2-tools against this TPM."""
        environment = {"PATH": os.environ["PATH"], "TPM2TOOLS_TCTI": f"swtpm:path={self.path}"}
        for command, must in ((["tpm2_flushcontext", "-t"], True), ([name, *words], check)):  # no resource manager here
            done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, timeout=60)
            assert done.returncode == 0 or not must, (command, done.stderr)
        return done

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def swtpm(tmp_path: Path) -> Iterator[Swtpm]:
    _needed("swtpm")
    made = Swtpm(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def tpm(swtpm: Swtpm) -> Iterator[Tpm]:
    made = Tpm(swtpm.address)
    yield made
    made.close()


def test_launch_after_launch_is_measured_and_quoted(tpm: Tpm) -> None:
    key = enrolled_key(tpm.enrolment("software"))
    first = verify_quote(key, tpm.quote(MEASUREMENT, EXPECTED), EXPECTED, MEASUREMENT)
    other = measured("started", {"launch": 8})
    expected = qualifying(None, b"1" * 32, other)
    second = verify_quote(key, tpm.quote(other, expected), expected, other)
    assert first.before == bytes(32) and first.after == second.before
    assert (first.resets, first.restarts) == (second.resets, second.restarts) and first.clock <= second.clock


def test_the_key_stays_the_same_for_whoever_comes_next(swtpm: Swtpm) -> None:
    seen = []
    for _ in range(2):
        tpm = Tpm(swtpm.address)
        seen.append(tpm.enrolment("software"))
        tpm.close()
    assert seen[0] == seen[1]


def test_a_replayed_or_foreign_quote_is_refused(tpm: Tpm) -> None:
    key = enrolled_key(tpm.enrolment("software"))
    quote = tpm.quote(MEASUREMENT, EXPECTED)
    verify_quote(key, quote, EXPECTED, MEASUREMENT)
    with pytest.raises(SignatureInvalid, match="another nonce"):
        verify_quote(key, quote, qualifying("ff" * 16, bytes(32), MEASUREMENT), MEASUREMENT)
    with pytest.raises(SignatureInvalid, match="PCR 14"):
        verify_quote(key, quote, EXPECTED, measured("started", {"launch": 8}))


def test_tpm2_checkquote_accepts_what_we_have_quoted(swtpm: Swtpm, tpm: Tpm) -> None:
    _needed("tpm2_checkquote", "tpm2_readpublic")
    tpm.enrolment("software")
    quote = tpm.quote(MEASUREMENT, EXPECTED)
    tpm.close()
    (swtpm.folder / "attest").write_bytes(b64decode(quote["attest"]))
    (swtpm.folder / "signature").write_bytes(b64decode(quote["signature"]))
    swtpm.tool("tpm2_readpublic", "-c", hex(KEY_HANDLE), "-f", "pem", "-o", "key.pem")
    words = ["-u", "key.pem", "-m", "attest", "-s", "signature", "-g", "sha256"]
    swtpm.tool("tpm2_checkquote", *words, "-q", EXPECTED.hex())
    refused = swtpm.tool("tpm2_checkquote", *words, "-q", "00" * 32, check=False)
    assert refused.returncode != 0


def _tool_quote(swtpm: Swtpm, kind: str, pcr: int = PCR, key: str = "ak") -> tuple[dict[str, Any], dict[str, Any]]:
    """An attestation key that tpm2-tools make below an endorsement key, and its quote after an extension."""
    scheme = {"ecc": "ecdsa", "rsa": "rsassa"}[kind]
    swtpm.tool("tpm2_createek", "-c", "ek.ctx", "-G", kind, "-u", "ek.pub")
    swtpm.tool("tpm2_createak", "-C", "ek.ctx", "-c", f"{key}.ctx", "-G", kind, "-g", "sha256", "-s", scheme,
               "-u", f"{key}.tss", "-n", "name")  # fmt: skip
    swtpm.tool("tpm2_readpublic", "-c", f"{key}.ctx", "-q", "qualified")
    swtpm.tool("tpm2_pcrread", f"sha256:{pcr}", "-o", "before")
    swtpm.tool("tpm2_pcrextend", f"{pcr}:sha256={MEASUREMENT}")
    swtpm.tool("tpm2_quote", "-c", f"{key}.ctx", "-l", f"sha256:{pcr}", "-q", EXPECTED.hex(), "-m", "attest",
               "-s", "sig", "-g", "sha256")  # fmt: skip
    enrolment = {
        "root": "software",
        "public": b64encode((swtpm.folder / f"{key}.tss").read_bytes()[2:]),
        "qualified_name": (swtpm.folder / "qualified").read_bytes().hex(),
    }
    quote = {
        "attest": b64encode((swtpm.folder / "attest").read_bytes()),
        "signature": b64encode((swtpm.folder / "sig").read_bytes()),
        "before": (swtpm.folder / "before").read_bytes().hex(),
    }
    return enrolment, quote


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_we_accept_what_tpm2_quote_makes(swtpm: Swtpm, kind: str) -> None:
    _needed("tpm2_quote", "tpm2_createak", "tpm2_pcrextend")
    enrolment, quote = _tool_quote(swtpm, kind)
    found = verify_quote(enrolled_key(enrolment), quote, EXPECTED, MEASUREMENT)
    assert found.after == extended(found.before, MEASUREMENT)
    with pytest.raises(SignatureInvalid):
        verify_quote(enrolled_key(enrolment), quote, EXPECTED, measured("started", {"launch": 8}))


def test_a_quote_of_another_register_or_by_another_key_is_refused(swtpm: Swtpm) -> None:
    _needed("tpm2_quote", "tpm2_createak", "tpm2_pcrextend")
    mine, good = _tool_quote(swtpm, "ecc")
    verify_quote(enrolled_key(mine), good, EXPECTED, MEASUREMENT)
    other, quote = _tool_quote(swtpm, "ecc", PCR - 1, "other")
    with pytest.raises(SignatureInvalid, match="other registers"):
        verify_quote(enrolled_key(other), quote, EXPECTED, MEASUREMENT)
    with pytest.raises(SignatureInvalid, match="not signed by the enrolled"):
        verify_quote(enrolled_key(mine), quote, EXPECTED, MEASUREMENT)


def test_a_tpm_that_is_away_or_speaks_nonsense_is_an_error(tmp_path: Path, swtpm: Swtpm) -> None:
    with pytest.raises(TpmError):
        Tpm(f"swtpm:{tmp_path}/none")
    with pytest.raises(TpmError):
        Tpm(str(tmp_path / "none"))
    nonsense = Tpm("/dev/zero")
    with pytest.raises(TpmError):
        nonsense.enrolment("hardware")
    nonsense.close()
    tpm = Tpm(swtpm.address)
    swtpm.stop()
    with pytest.raises(TpmError):
        tpm.enrolment("software")
    tpm.close()


def test_the_key_that_is_made_is_one_that_can_be_enrolled(tpm: Tpm) -> None:
    parse_public(b64decode(tpm.enrolment("software")["public"]))
