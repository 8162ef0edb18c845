"""Builds the example's root file system: this machine's Python, the MCP SDK and what both need, and the agent.

    python sdk/python-native/build.py --to rootfs [--agent FOLDER]

Run it with a Python that has `mcp` installed, such as the development environment's. The result is a folder for
`ironbound image load`, with the program `/usr/bin/python3 -IB /agent`. It holds the interpreter, its standard library
without tests and windows, the distributions that `mcp` requires, and the shared libraries that any of them loads
(`ldd`). Linux on x86-64 with glibc.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
#: Parts of the standard library that no agent needs.
LEFT_OUT = {
    "__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py",
    "ensurepip", "venv", "lib2to3", "distutils", "pydoc_data", "idle_test", "config",
}  # fmt: skip
#: Extension modules that need a display, a database or a test.
NO_EXTENSION = re.compile(r"(_test.*|_tkinter|_dbm|_gdbm|_crypt|xxlimited.*|_xx.*|nis|readline|_curses.*)\.cpython-.*")
#: Of an installed distribution: what is never imported.
NOT_IMPORTED = re.compile(r"(.*/)?(__pycache__|tests?)/.*|.*\.(pyc|pyi|pxd|pyx|h|c|typed)|\.\./.*")
DIST_INFO = {"METADATA", "entry_points.txt"}


def copy(source: Path, target: Path) -> None:
    """A file's content and whether it is a program, whatever the links on the way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def copy_library(root: Path) -> Path:
    """The standard library, where the interpreter will look for it; returns that folder."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    target = root / "usr" / "lib" / version
    for source in {Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("platstdlib"))}:
        base = Path(sys.base_prefix) / source.relative_to(sys.prefix) if source.is_relative_to(sys.prefix) else source
        for folder, folders, files in os.walk(base):
            folders[:] = sorted(one for one in folders if one not in LEFT_OUT and not one.startswith("config-"))
            for name in files:
                if name in LEFT_OUT or name.endswith((".pyc", ".a")) or NO_EXTENSION.fullmatch(name):
                    continue
                copy(Path(folder) / name, target / (Path(folder) / name).relative_to(base))
    return target


def required(name: str) -> dict[str, metadata.Distribution]:
    """A distribution and all that it requires here, by normalised name."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(name, frozenset({""}))]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if (key, extras) in seen:
            continue
        seen.add((key, extras))
        found[key] = metadata.distribution(name)
        for text in found[key].requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append((needed.name, frozenset({"", *needed.extras})))
    return found


def copy_distributions(root: Path, name: str) -> None:
    """`mcp` and what it requires, beside the agent."""
    for one in required(name).values():
        for file in one.files or ():
            path = str(file)
            info = file.parts[0].endswith(".dist-info")
            if NOT_IMPORTED.fullmatch(path) or (info and file.name not in DIST_INFO):
                continue
            copy(Path(str(one.locate_file(file))), root / "agent" / path)


def libraries_of(file: Path) -> dict[str, Path]:
    """The shared libraries that an ELF file loads: as the loader will look for each → where it lies here."""
    if file.read_bytes()[:4] != b"\x7fELF":
        return {}
    said = subprocess.run(["ldd", file], capture_output=True, text=True, check=False)
    if said.returncode != 0:
        return {}
    if missing := re.findall(r"(\S+) => not found", said.stdout):
        raise SystemExit(f"{file}: {', '.join(missing)} not found")
    named = {name: Path(path) for name, path in re.findall(r"^\s*(\S+) => (/\S+) \(", said.stdout, re.MULTILINE)}
    loader = {path: Path(path) for path in re.findall(r"^\s*(/\S+) \(", said.stdout, re.MULTILINE)}
    return named | loader


def copy_shared_libraries(root: Path, originals: list[Path]) -> None:
    """What the interpreter and every extension load, where the loader looks without a cache."""
    found: dict[str, Path] = {}
    for file in originals:
        found |= libraries_of(file)
    default = next(path.parent for name, path in found.items() if name == "libc.so.6")
    for name, path in found.items():
        if path.is_relative_to(root):
            continue  # a library that a wheel brought, and finds by itself
        copy(path, root / (name if name.startswith("/") else str(default / name)).lstrip("/"))


def build(root: Path, agent: Path) -> None:
    """Everything, into a folder that is empty or not there."""
    if root.exists() and any(root.iterdir()):
        raise SystemExit(f"{root} is not empty")
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    copy(interpreter, root / "usr" / "bin" / "python3")
    copy_library(root)
    copy_distributions(root, "mcp")
    for file in sorted(agent.rglob("*.py")):
        copy(file, root / "agent" / file.relative_to(agent))
    copy_shared_libraries(root, [interpreter, *sorted(one for one in root.rglob("*.so*") if one.is_file())])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the native Python example's root file system.")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="an empty folder, or none yet")
    parser.add_argument("--agent", type=Path, default=HERE / "agent", metavar="DIR", help="a folder with __main__.py")
    arguments = parser.parse_args()
    root = arguments.to.resolve()
    build(root, arguments.agent.resolve())
    files = [one for one in root.rglob("*") if one.is_file()]
    print(f"{root}: {len(files):,} files, {sum(one.stat().st_size for one in files) >> 20} MiB")
    print("the agent's program: /usr/bin/python3 -IB /agent")


if __name__ == "__main__":
    main()
