"""The container runtimes as they are, without our guard, log and monitor: what an evidenced launch stands beside.

Each starts one static program that says, by the host's clock, when its first instruction ran; the same program is the
agent of the evidenced launch. The call is the runtime's own default: what its `spec` command writes, with another
program in it, and for bubblewrap every namespace unshared. They set fewer walls than we do, and no limits.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ironbound.core.container import HYBRID
from ironbound.node.native.container import BINARIES, SEARCH

PROGRAM = "stamp"
_HERE = Path(__file__).resolve().parent
_GVISOR = ("--network=none", "--platform=systrap")


def compile_program(folder: Path) -> None:
    """The program, compiled into the folder."""
    spec = importlib.util.spec_from_file_location("sdk_build", _HERE.parent / "sdk" / "c" / "build.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("sdk/c/build.py can't be loaded")
    tool = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = tool
    spec.loader.exec_module(tool)
    tool.compile_native(_HERE / f"{PROGRAM}.c", folder / PROGRAM, folder.parent / "caches")
    (folder / PROGRAM).chmod(0o755)


class Bare:
    """One runtime of this machine, with a root file system of its own that holds the program."""

    def __init__(self, name: str, source: Path, work: Path) -> None:
        """FileNotFoundError if the machine lacks it."""
        binary = shutil.which(BINARIES[name], path=SEARCH)
        if binary is None:
            raise FileNotFoundError(BINARIES[name])
        self.name, self._binary, self._folder = name, binary, work / f"bare-{name}"
        self._number = 0
        root = self._folder / "rootfs"
        root.mkdir(parents=True)
        for one in ("dev", "proc", "sys", "tmp"):
            (root / one).mkdir()
        shutil.copy(source / PROGRAM, root / PROGRAM)
        if name != "bubblewrap":
            subprocess.run([binary, "spec"], cwd=self._folder, check=True, capture_output=True)
            written = self._folder / "config.json"
            config = json.loads(written.read_bytes())
            config["process"] |= {"terminal": False, "args": [f"/{PROGRAM}"], "cwd": "/"}
            written.write_text(json.dumps(config))

    def _argv(self) -> list[str]:
        if self.name == "bubblewrap":
            return [self._binary, "--unshare-all", "--ro-bind", str(self._folder / "rootfs"), "/", "--proc", "/proc",
                    "--dev", "/dev", f"/{PROGRAM}"]  # fmt: skip
        own = _GVISOR if self.name == "gvisor" else ()
        self._number += 1
        call = [self._binary, "--root", str(self._folder / "state"), *own, "run", "--bundle", str(self._folder),
                f"ironbound-bench-{self.name}-{os.getpid()}-{self._number}"]  # fmt: skip
        mixed = self.name == "crun" and os.path.ismount("/sys/fs/cgroup/unified")
        return [*HYBRID, *call] if mixed else call

    def launch(self) -> float:
        """Milliseconds from the call to the program's first instruction."""
        argv = self._argv()
        begin = time.time_ns()
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        if done.returncode != 0 or not said.isdecimal():
            raise RuntimeError(f"bare {self.name}: {done.returncode}: {done.stderr[-500:]!r}")
        return (int(said) - begin) / 1e6
