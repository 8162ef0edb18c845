"""A real installation for tests that spoil one: a new environment with the locked packages and ours, compiled.

The packages' files are those that the tests run with, linked or copied by their own records: pip put them there by the
lock's hashes. Ours are copied from the checkout, as a wheel would lay them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import marshal
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = re.findall(r"^([a-z0-9-]+)==", (CHECKOUT / "requirements" / "runtime.txt").read_text("utf-8"), re.MULTILINE)


def link(source: Path, target: Path) -> None:
    """The file at another place, without a copy where that can be had."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def install(place: Path) -> Path:
    """Make the environment and return its interpreter."""
    base = os.path.realpath(sys.executable)
    subprocess.run([base, "-I", "-m", "venv", "--without-pip", str(place)], check=True, timeout=60)
    python = place / "bin" / "python"
    words = [str(python), "-I", "-B", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip())
    for name in PACKAGES:
        package = importlib.metadata.distribution(name)
        for file in package.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                link(Path(str(package.locate_file(file))), site / file)
    shutil.copytree(CHECKOUT / "src" / "ironbound", site / "ironbound", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (site, *site.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    compiled = [str(python), "-I", "-B", "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*compiled, str(site)], check=True, timeout=200)
    return python


@contextmanager
def changed(path: Path, data: bytes | None) -> Iterator[None]:
    """The file with other bytes, or gone, and afterwards the very same. Never in place: it may be linked elsewhere."""
    environment = next(one for one in path.parents if (one / "pyvenv.cfg").exists())
    aside = environment / "bin" / f"aside-{path.name}"
    there = path.exists()
    if there:
        path.rename(aside)
    try:
        if data is not None:
            path.write_bytes(data)
            path.chmod(0o644)
        yield
    finally:
        if there:
            aside.replace(path)
        else:
            path.unlink(missing_ok=True)


def _bytecode(site: Path) -> tuple[Path, bytes]:
    """Bytecode of other source than lies beside it, which no interpreter holds against that source."""
    source = site / "ironbound" / "wire" / "frames.py"
    text = source.read_text("utf-8") + "\nPOISONED = True\n"
    flags = (0b01).to_bytes(4, "little")  # by hash, unchecked
    magic = importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(text.encode())
    path = Path(importlib.util.cache_from_source(str(source)))
    return path, magic + marshal.dumps(compile(text, str(source), "exec"))


def _library(site: Path) -> tuple[Path, bytes]:
    path = next(site.glob("_cffi_backend*.so"))
    return path, path.read_bytes() + b"\0"


#: What is done to an installation, given its site-packages: the file, and its new bytes.
POISONS: Final[Mapping[str, Callable[[Path], tuple[Path, bytes | None]]]] = {
    "bytecode": _bytecode,
    "pth": lambda site: (site / "added.pth", b"import os\n"),
    "sitecustomize": lambda site: (site / "sitecustomize.py", b"\n"),
    "module": lambda site: (site / "added.py", b"\n"),
    "source": lambda site: (site / "ironbound" / "core" / "rule.py", b"\n"),
    "gone": lambda site: (site / "ironbound" / "terminal" / "demo" / "records.py", None),
    "library": _library,
}


if __name__ == "__main__":
    print(install(Path(sys.argv[1])))
