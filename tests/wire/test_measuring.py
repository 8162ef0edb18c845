"""Whatever is added to a real installation, changed in it or taken away is told apart from what was signed for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from installation import POISONS, changed, install
from ironbound.core.release import require_path
from ironbound.wire.measure import (
    ENVIRONMENT,
    Installation,
    Key,
    Mapped,
    file_differences,
    libraries_of,
    mapped,
    mapping_differences,
    measure_files,
)

ASK_ITSELF = """
import json, sys
from ironbound.wire import measure
files = json.load(sys.stdin)
print(json.dumps(measure.process_differences(files, measure.installation(), "gateway")))
"""


class Installed:
    """An installation, what was found in it when it was new, and a way to look again."""

    def __init__(self, place: Path) -> None:
        self.python = str(install(place))
        self.site = next(place.glob("lib/python3*/site-packages"))
        self.predicate: Mapping[str, Any] = json.loads(self.run("-m", "ironbound.supply.manifest"))
        self.files = self.predicate["files"]
        stdlib = json.loads(self.run("-c", "import json, sysconfig; print(json.dumps(sysconfig.get_path('stdlib')))"))
        self.where = Installation(
            os.path.realpath(self.python), os.path.realpath(stdlib), str(self.site), libraries_of(self.files)
        )
        self._cache: dict[Key, Any] = {}

    def run(self, *words: str, options: tuple[str, ...] = ("-I", "-B"), **more: Any) -> bytes:
        words = (self.python, *options, *words)
        settings = {"env": dict(ENVIRONMENT), "capture_output": True, "timeout": 60} | more
        done = subprocess.run(words, check=False, **settings)
        assert done.returncode == 0, done.stderr
        return bytes(done.stdout)

    def differences(self) -> list[str]:
        return [one["path"] for one in file_differences(self.files, measure_files(self.where, self._cache))]

    def of_process(self, **more: Any) -> list[str]:
        """What a process of this installation finds of itself, beside that nobody started it as a service."""
        answer = self.run("-c", ASK_ITSELF, input=json.dumps(self.files).encode(), **more)
        return [one["path"] for one in json.loads(answer) if one["path"] != "process/words"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.mark.parametrize("poison", POISONS)
def test_a_poisoned_installation_is_not_the_one_that_was_signed_for(installed: Installed, poison: str) -> None:
    path, data = POISONS[poison](installed.site)
    assert installed.differences() == []
    with changed(path, data):
        assert installed.differences() == [f"site/{path.relative_to(installed.site)}"]
    assert installed.differences() == []


def test_what_is_no_file_is_a_difference_and_is_not_waited_for(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    odd = {"pipe": os.mkfifo, "package": lambda path: os.symlink(tmp_path / "package", path)}
    for name, make in odd.items():
        make(str(installed.site / name))
    try:
        assert installed.differences() == ["site/package", "site/pipe"]
    finally:
        for name in odd:
            (installed.site / name).unlink()


def test_every_file_has_its_one_name_and_ours_and_the_loader_s_are_among_them(installed: Installed) -> None:
    for path in installed.files:
        require_path(path)
    assert "site/ironbound/wire/measure.py" in installed.files
    assert {Path(path).name.partition(".")[0] for path in installed.files} >= {"libc", "libnss_files", "libgcc_s"}


def test_a_process_started_otherwise_says_so(installed: Installed, tmp_path: Path) -> None:
    assert installed.of_process() == []
    assert "process/flags/optimize" in installed.of_process(options=("-I", "-B", "-O"))
    assert "process/flags/dont_write_bytecode" in installed.of_process(options=("-I",))
    assert "process/options" in installed.of_process(options=("-I", "-B", "-X", "dev"))
    found = installed.of_process(options=("-B",), env={**ENVIRONMENT, "PYTHONPATH": str(tmp_path)})
    assert {"process/environment/PYTHONPATH", "process/path", "process/flags/isolated"} <= set(found)
    library = shutil.copy(installed.where.libraries[-1], tmp_path / "libadded.so")
    found = installed.of_process(env={**ENVIRONMENT, "LD_PRELOAD": str(library)})
    assert found == ["process/environment/LD_PRELOAD", f"process/mapped/{library}"]


def test_a_file_that_was_replaced_while_it_is_mapped_is_another_one(installed: Installed, tmp_path: Path) -> None:
    library = next(installed.site.glob("_cffi_backend*.so"))
    child = subprocess.Popen(
        [installed.python, "-I", "-B", "-c", "import _cffi_backend; print(flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(ENVIRONMENT),
    )  # fmt: skip
    assert child.stdout is not None
    try:
        child.stdout.readline()

        def seen() -> list[str]:
            maps = Path(f"/proc/{child.pid}/maps").read_text("utf-8")
            return [one["path"] for one in mapping_differences(installed.files, installed.where, mapped(maps))]

        assert seen() == []
        with changed(library, library.read_bytes()):
            assert [Path(one).name for one in seen()] == [f"aside-{library.name}"]
        elsewhere = [Mapped("00:00", "1", str(library))]
        found = mapping_differences(installed.files, installed.where, elsewhere)
        assert [one["got"] for one in found] == ["another file"]
    finally:
        child.communicate(b"\n", timeout=30)
