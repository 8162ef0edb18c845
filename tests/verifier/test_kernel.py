"""The kernel's digest is that of the files that decide, and of nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import ironbound
from ironbound.core.canonical import sha256_hex
from ironbound.verifier.kernel import KERNEL_SOURCES, kernel_digest


def test_the_digest_can_be_made_with_sha256sum_alone() -> None:
    folder = Path(ironbound.__file__).parent / "core"
    lines = subprocess.run(
        ["sha256sum", *KERNEL_SOURCES], cwd=folder, capture_output=True, check=True, timeout=30
    ).stdout
    assert sha256_hex(lines) == kernel_digest()
    assert list(KERNEL_SOURCES) == sorted(KERNEL_SOURCES)


def test_a_byte_in_any_of_its_files_changes_the_digest_and_a_byte_elsewhere_does_not(tmp_path: Path) -> None:
    package = tmp_path / "ironbound"
    shutil.copytree(Path(ironbound.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))

    def digest() -> str:
        code = "from ironbound.verifier.kernel import kernel_digest; print(kernel_digest())"
        words = [sys.executable, "-B", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    assert digest() == kernel_digest()
    for name in KERNEL_SOURCES:
        path = package / "core" / name
        was = path.read_bytes()
        path.write_bytes(was + b"\n")
        assert digest() != kernel_digest(), name
        path.write_bytes(was)
    (package / "core" / "reasons.py").write_bytes(b"# other words\n" + (package / "core" / "reasons.py").read_bytes())
    assert digest() == kernel_digest()
