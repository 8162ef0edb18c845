"""The verifier's own wheel: the same sources, one dependency, no network, no process, the same report."""

from __future__ import annotations

import ast
import functools
import importlib.util
import io
import json
import re
import subprocess
import sys
import tokenize
import zipfile
from pathlib import Path

import pytest

from ironbound.verifier.output import report_value

from .lab import Honest, honest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
GUIDE = (ROOT / "docs" / "auditor.md").read_text("utf-8")
#: What `cryptography` is and needs itself.
ITS_OWN = ("cryptography", "cffi", "_cffi_backend", "pycparser")

RUN = """
import sys
wheel, needed, attempt, *arguments = sys.argv[1:]
sys.path[:0] = [wheel, needed]
REFUSED = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn",
           "urllib.", "http.", "ftplib.", "smtplib.", "os.remove", "os.rename", "os.mkdir")
def hook(event, arguments):
    if event.startswith(REFUSED):
        raise SystemExit(f"audit: {event}")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        raise SystemExit(f"audit: {event} for writing")
sys.addaudithook(hook)
sys.dont_write_bytecode = True
if attempt:
    exec(attempt)
from ironbound.verifier.__main__ import main
code = main(arguments)
outside = {name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
sys.stderr.write(" ".join(sorted(outside)))
sys.exit(code)
"""


LOADED = """
import sys, ironbound.verifier.__main__
print(*(one.__file__ for name, one in sys.modules.items() if name.split(".")[0] == "ironbound"), sep=chr(10))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real wheel, from the real build."""
    folder = tmp_path_factory.mktemp("alone")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT / "packaging" / "verifier", check=True, capture_output=True, timeout=120)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def scene() -> Honest:
    return honest()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel unpacked, and beside it a folder with its one dependency and nothing else."""
    place, needed = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("needed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    for name in ITS_OWN:
        found = importlib.util.find_spec(name)
        if found is None:
            continue  # a cffi without a parser of its own
        assert found.origin is not None
        origin = Path(found.origin)
        target = origin.parent if origin.name == "__init__.py" else origin
        (needed / target.name).symlink_to(target)
    return place, needed


def alone(installed: tuple[Path, Path], *arguments: str, attempt: str = "") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-I", "-S", "-c", RUN, *map(str, installed), attempt, *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


@functools.cache
def sources() -> tuple[Path, ...]:
    """What the verifier's command loads of Ironbound, as the interpreter tells it."""
    told = subprocess.run(
        [sys.executable, "-I", "-c", LOADED], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    found = tuple(sorted(map(Path, told.split())))
    assert all(one.is_relative_to(SOURCE) for one in found)
    return found


def test_the_wheel_holds_the_very_sources_that_are_loaded_no_other_and_asks_for_cryptography_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
        (name,) = [one for one in archive.namelist() if one.endswith("/METADATA")]
        metadata = archive.read(name).decode()
    assert {name for name in held if name.endswith(".py")} == {str(one.relative_to(SOURCE)) for one in sources()}
    for one in sources():
        assert held[str(one.relative_to(SOURCE))] == one.read_bytes()
    assert set(held) - {str(one.relative_to(SOURCE)) for one in sources()} == {"ironbound/LICENSE"}
    assert re.findall(r"^Requires-Dist: (.+)$", metadata, re.MULTILINE) == ["cryptography>=47"]


def test_it_says_what_the_whole_of_ironbound_says_with_sockets_and_processes_refused(
    installed: tuple[Path, Path], scene: Honest, tmp_path: Path
) -> None:
    bundle = tmp_path / "e.ironbound"
    bundle.write_bytes(scene.lab.bundle())
    report = scene.lab.verify()
    done = alone(installed, str(bundle), "--pin", str(scene.lab.pin), "--json")
    assert done.returncode == report.exit_code, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(report_value(report)))
    assert set(done.stderr.split()) <= {"ironbound", "__main__", "_openssl", *ITS_OWN}
    bundle.write_bytes(scene.lab.bundle()[:-1])
    assert alone(installed, str(bundle)).returncode == 3


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        ("import socket; socket.socket()", "audit: socket."),
        ("import subprocess; subprocess.run(['true'])", "audit: subprocess."),
        ("import os; os.system('true')", "audit: os.system"),
        ("import os; os.fork()", "audit: os.fork"),
        ("open('/dev/null', 'w')", "audit: open for writing"),
    ],
)
def test_the_hook_that_it_runs_under_does_refuse(installed: tuple[Path, Path], attempt: str, says: str) -> None:
    done = alone(installed, "none", attempt=attempt)
    assert done.returncode == 1 and says in done.stderr


def lines_of(files: list[Path]) -> int:
    return sum(one.read_text("utf-8").count("\n") for one in files)


def code_of(path: Path) -> int:
    """Lines that are neither empty, comment nor docstring."""
    text = path.read_text("utf-8")
    told: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            told |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    silent = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
    }  # fmt: skip
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            held |= set(range(token.start[0], token.end[0] + 1))
    return len(held - told)


def test_the_guide_names_real_files_and_its_numbers_are_those_of_the_sources() -> None:
    table = GUIDE.split("## Reading it in an afternoon")[1]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    chosen = [SOURCE / "ironbound" / name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)]
    assert len(chosen) == len(set(chosen)) >= 15
    numbers = [int(one.replace(",", "")) for one in re.findall(r"(\d[\d,]*) (?:lines|of them code)", table)]
    (hour,) = [line for line in table.splitlines() if line.startswith("With one hour")]
    first = [SOURCE / "ironbound" / name for name in re.findall(r"`([\w/]+\.py)`", hour)]
    assert len(first) == 5 and set(first) <= set(chosen)
    counted = lines_of(list(sources())), sum(map(code_of, sources())), lines_of(chosen), lines_of(first)
    assert numbers[0] == 1500
    for said, real in zip(numbers[1:], counted, strict=True):
        assert abs(said - real) <= real / 20, f"docs/auditor.md says {numbers[1:]}, counted {counted}"
