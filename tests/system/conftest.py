"""One running deployment for all the system's tests that leave it as it was, and fresh ones for those that don't."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import provider_stand

sys.path.append(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parents[1] / "node"))

from stand import Stand, folder, running

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A running deployment of three operators, two of whom must agree, with an approved profile."""
    yield from running(tmp_path_factory.mktemp("system"))


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., Stand]]:
    """Makes deployments that nobody else uses; stops what still runs."""
    made: list[Stand] = []

    def make(**options: Any) -> Stand:
        made.append(Stand(folder(tmp_path, f"d{len(made)}"), **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture(scope="session")
def security_key_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A security key's library for OpenSSH, built from source."""
    library = tmp_path_factory.mktemp("sk") / "sk.so"
    words = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1", "-o", str(library)]
    subprocess.run([*words, str(TESTS / "sk_provider.c")], check=True, timeout=250)
    return library


@pytest.fixture
def security_key(security_key_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A handle that the real ssh-keygen made with the software security key; it says touched and verified."""
    monkeypatch.setenv("SSH_SK_PROVIDER", str(security_key_library))
    monkeypatch.setenv("SK_HELPER", f"{sys.executable} {TESTS / 'sk_helper.py'}")
    monkeypatch.setenv("SK_FLAGS", "5")
    words = ("-q", "-t", "ed25519-sk", "-N", "", "-C", "test", "-f", str(tmp_path / "sk"))
    done = subprocess.run(["ssh-keygen", *words], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return tmp_path / "sk"


@pytest.fixture(scope="session")
def provider_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an identity provider, installed."""
    if provider_stand.missing():
        pytest.skip(f"needs {' and '.join(provider_stand.missing())}")
    return provider_stand.install(tmp_path_factory.mktemp("idp") / "p")
