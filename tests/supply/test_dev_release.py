"""`./dev release` itself, as people run it: from a checkout, with environments that it makes and a key of theirs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ironbound.core.keys import PrivateKey, PublicKey
from ironbound.core.release import PREDICATES, read_signed
from ironbound.verifier.release import shipped

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 240
PHRASE = "correct horse"

pytestmark = pytest.mark.slow


class Checkout:
    """A copy of the source, with what `./dev` makes in it."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def release(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = ["./dev", "release", *map(str, words)]
        return subprocess.run(
            command, cwd=self.place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S
        )

    def on_a_terminal(self, answer: str, *words: str | Path) -> tuple[int, str]:
        """The same where somebody sits at a terminal and answers the one question."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.place)
            os.execv("./dev", ["./dev", "release", *map(str, words)])
        said, deadline, answered = b"", time.monotonic() + DEADLINE_S, False
        try:
            while time.monotonic() < deadline:
                if not select.select([terminal], [], [], 1)[0]:
                    continue
                try:
                    more = os.read(terminal, 4096)
                except OSError:  # the other side was closed
                    break
                said += more
                if not answered and b"Passphrase of " in said:
                    os.write(terminal, f"{answer}\n".encode())
                    answered = True
                if not more:
                    break
        finally:
            os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder that other users can reach, so that the environments are made in the checkouts and go with them."""
    place = Path(tempfile.mkdtemp(prefix="rel-", dir="/var/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def key(base: Path) -> Path:
    return written(base / "key.pem", PrivateKey.generate(bytes(range(32))).to_pem(None))


def written(file: Path, data: bytes, mode: int = 0o600) -> Path:
    file.write_bytes(data)
    file.chmod(mode)
    return file


@pytest.fixture(scope="module")
def first(base: Path) -> Checkout:
    work = base / "w"
    command = [sys.executable, "-I", "-B", str(ROOT / "packaging" / "release"), "build", str(ROOT), str(work)]
    subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE_S)
    return Checkout(work / "source")


@pytest.fixture(scope="module")
def dist(base: Path, first: Checkout, key: Path) -> Path:
    done = first.release("--tests", "none", "--key", key, "--out", base / "dist")
    assert done.returncode == 0, done.stderr
    assert f"release in {base / 'dist'}" in done.stderr and "MADE A RELEASE KEY" not in done.stderr
    return base / "dist"


def predicate(place: Path, kind: str) -> Any:
    public = PublicKey.from_pem((place / "release.pem").read_bytes())
    return read_signed((place / f"{kind}.dsse.json").read_bytes(), public).predicate


def files(place: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in place.iterdir()}


def test_it_leaves_a_release_that_its_key_signed_and_whose_switches_its_own_command_refused(
    first: Checkout, dist: Path, key: Path
) -> None:
    (wheel,) = dist.glob("*.whl")
    assert PrivateKey.from_pem(key.read_bytes(), None).public.pem() == (dist / "release.pem").read_bytes()
    said = {kind: predicate(dist, kind) for kind in PREDICATES}
    assert said["tests"]["result"] == "WARNED" and said["tests"]["passedTests"] == []
    switches = said["surface"]["switches"]
    assert switches["active"] == 0 and switches["refused"] >= 5 and switches["explained"] > 10
    assert said["install"]["package_sha256"] == shipped(wheel).release
    names = {path.rpartition("/")[2] for path in said["install"]["files"] if ".dist-info/" in path}
    assert "METADATA" in names and not names & {"RECORD", "INSTALLER", "direct_url.json"}
    python = first.place / ".venv.release" / "bin" / "python"
    measured = subprocess.run(
        [python, "-I", "-B", "-m", "ironbound.supply.manifest"], capture_output=True, check=True, timeout=60, env={}
    )
    assert json.loads(measured.stdout) == said["install"]
    scanned = subprocess.run(
        [sys.executable, "-I", "-m", "ironbound.terminal.main", "scan", wheel, "--json"],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert scanned.returncode == 0 and json.loads(scanned.stdout)["closed"] is True


def test_on_another_path_the_same_source_gives_the_same_bytes_and_signatures(
    base: Path, first: Checkout, dist: Path, key: Path
) -> None:
    again = Checkout(base / "another place" / "deeper")
    shutil.copytree(first.place, again.place, symlinks=True, copy_function=os.link)
    for level, lock in (("build", "build"), ("release", "runtime")):  # the environments, as if they were made there
        stamp = (
            f'sum=$({{ printf \'%s\\n\' "$1"; cat requirements/{lock}.txt; }} | cksum); echo "{level} $sum" > "$1/new"'
        )
        words = ["sh", "-c", f'{stamp}; mv "$1/new" "$1/stamp"', "sh", str(again.place / f".venv.{level}")]
        subprocess.run(words, cwd=again.place, check=True, timeout=60)
    done = again.release("--tests", "none", "--key", key, "--out", base / "again")
    assert done.returncode == 0, done.stderr
    assert "making the environment" not in done.stderr
    assert files(base / "again") == files(dist)


WRONG = {
    "no key": (b"grant everything\n", "cannot read the private key"),
    "public": (PrivateKey.generate(bytes(32)).public.pem(), "cannot read the private key"),
    "other curve": (
        b"-----BEGIN PRIVATE KEY-----\n"
        b"MC4CAQAwBQYDK2VuBCIEIHgx7uLOr2NWqfK5JXvTGrmTGrCgHfw2KEFSAQFCiHVT\n-----END PRIVATE KEY-----\n",
        "expected an ed25519 key",
    ),
    "cut off": (PrivateKey.generate(bytes(32)).to_pem(None)[:-40], "cannot read the private key"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_key_file_is_told_before_anything_is_built(
    base: Path, first: Checkout, dist: Path, tmp_path: Path, wrong: str
) -> None:
    data, said = WRONG[wrong]
    done = first.release("--tests", "none", "--key", written(tmp_path / "k.pem", data), "--out", tmp_path / "out")
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "building" not in done.stderr and not (tmp_path / "out").exists()


def test_a_key_that_others_can_read_or_that_is_not_there_is_told(
    first: Checkout, dist: Path, key: Path, tmp_path: Path
) -> None:
    shared = written(tmp_path / "k.pem", key.read_bytes(), 0o644)
    done = first.release("--tests", "none", "--key", shared, "--out", tmp_path / "out")
    assert done.returncode == 1 and "is open to others" in done.stderr
    done = first.release("--tests", "none", "--key", tmp_path / "none.pem", "--out", tmp_path / "out")
    assert done.returncode == 1 and "cannot read the key" in done.stderr
    done = first.release("--tests", "many")
    assert done.returncode == 1 and "usual, quick or none" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_passphrase_of_a_key_is_asked_for_on_the_terminal_and_a_wrong_one_signs_nothing(
    base: Path, first: Checkout, dist: Path, tmp_path: Path
) -> None:
    made = PrivateKey.generate(bytes(32))
    file = written(tmp_path / "k.pem", made.to_pem(PHRASE.encode()))
    host = ("--host", dist / "install.dsse.json", "--from", dist, "--out", tmp_path / "out", "--key", file)
    code, said = first.on_a_terminal("wrong", *host)
    assert code == 1 and "no release key in" in said and "Traceback" not in said, said
    alone = first.release(*host)  # nobody there to ask
    assert alone.returncode == 1 and "has a passphrase" in alone.stderr and "Traceback" not in alone.stderr
    assert not (tmp_path / "out").exists()
    code, said = first.on_a_terminal(PHRASE, "--tests", "none", "--key", file, "--out", tmp_path / "out")
    assert code == 0 and PHRASE not in said, said
    assert (tmp_path / "out" / "release.pem").read_bytes() == made.public.pem()
    assert predicate(tmp_path / "out", "install") == predicate(dist, "install")


def test_another_host_is_measured_there_and_signed_for_here(
    first: Checkout, dist: Path, key: Path, tmp_path: Path
) -> None:
    payload = json.loads(b64decode(json.loads((dist / "install.dsse.json").read_bytes())["payload"]))
    found = payload["predicate"]
    found["files"]["python"] = "ab" * 32
    (tmp_path / "there.json").write_text(json.dumps(found, sort_keys=True, separators=(",", ":")))
    words = ("--host", tmp_path / "there.json", "--from", dist, "--key", key)
    over = first.release(*words, "--out", dist)
    assert over.returncode == 1 and "give another folder" in over.stderr
    done = first.release(*words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "changed in python: python" in done.stderr and re.search(r"[\d,]+ of [\d,]+ files are those", done.stderr)
    assert predicate(tmp_path / "out", "install") == found
    assert {name for name, data in files(tmp_path / "out").items() if files(dist)[name] != data} == {
        "install.dsse.json"
    }
