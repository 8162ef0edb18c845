"""Builds an agent in Python into a WebAssembly component without imports.

    python sdk/python/build.py --to hello.wasm sdk/python/hello.py

Needs componentize-py, which the development environment has. WASI is stubbed: code that opens a file, reads the clock
or draws randomness traps. The agent's folder is the only place that modules come from, besides the standard library.
Building again gives other bytes, so build once, and approve what you have.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WIT = Path(__file__).resolve().parents[1] / "wit"


def build(source: Path, target: Path, wasi: tuple[str, ...] = ("--stub-wasi",)) -> None:
    """Writes the component of the agent in `source` to `target`."""
    command = Path(sys.executable).with_name("componentize-py")
    with tempfile.TemporaryDirectory() as empty:
        # Else it takes in whatever is installed beside it.
        (Path(empty) / "lib" / "site-packages").mkdir(parents=True)
        subprocess.run(
            [command, "--quiet", "--wit-path", WIT, "--world", "agent", "componentize", *wasi,
             "--python-path", source.resolve().parent, "--output", target.resolve(), source.stem],
            check=True, cwd=empty, env={**os.environ, "VIRTUAL_ENV": empty},
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds an agent in Python into a component without imports.")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the component to write")
    parser.add_argument("agent", type=Path, metavar="AGENT", help="the agent's module, a .py file")
    arguments = parser.parse_args()
    build(arguments.agent, arguments.to)


if __name__ == "__main__":
    main()
