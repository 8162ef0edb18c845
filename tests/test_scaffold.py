"""The scaffold's promises: a sentence per package, pinned requirements, layers that hold, no unseen skip."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sharing import FIRST
from skips import parse_skips

PACKAGES = (
    "canary",
    "controller",
    "core",
    "evidence",
    "gateway",
    "ledger",
    "monitor",
    "node",
    "proof",
    "supply",
    "terminal",
    "verifier",
    "wire",
    "witness",
)
# All that core may import from outside itself. A new name here is a decision, not a convenience.
CORE_IMPORTS = {
    "__future__",
    "base64",
    "binascii",
    "bisect",
    "collections",
    "cryptography",
    "dataclasses",
    "difflib",
    "enum",
    "functools",
    "hashlib",
    "hmac",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "struct",
    "tomllib",
    "typing",
}
REQUIREMENT = re.compile(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.+]*(?: ;[^\\]*)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


def imported(source: str) -> set[str]:
    """The top-level names that a module imports absolutely, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Name) and node.id in ("__import__", "eval", "exec", "open"):
            names.add(node.id)
    return names


def lint_imports(src: Path, config: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [command, "--no-cache", "--config", config],
        cwd=config.parent,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(src), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_package_of_the_architecture_says_in_one_sentence_what_it_is(checkout: Path) -> None:
    found = sorted(path.parent.name for path in (checkout / "src/ironbound").glob("*/__init__.py"))
    assert found == sorted(PACKAGES)
    for package in PACKAGES:
        tree = ast.parse((checkout / f"src/ironbound/{package}/__init__.py").read_text("utf-8"))
        doc = ast.get_docstring(tree)
        assert doc, package
        assert doc.endswith("."), f"{package}: {doc}"


def test_the_version_is_the_same_wherever_it_is_written(checkout: Path) -> None:
    import ironbound

    project = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]
    assert ironbound.__version__ == project["version"]
    assert f"[{ironbound.__version__}]" in (checkout / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["runtime", "build", "dev"])
def test_each_requirement_has_a_version_and_hashes_and_no_line_an_address(checkout: Path, name: str) -> None:
    pins: dict[str, int] = {}
    current = None
    for line in (checkout / f"requirements/{name}.txt").read_text("utf-8").splitlines():
        if line.lstrip().startswith("#"):
            assert "://" not in line
        elif REQUIREMENT.fullmatch(line):
            current = line.split("==")[0]
            pins[current] = 0
        else:
            assert HASH.fullmatch(line), line
            assert current is not None
            pins[current] += 1
    assert pins
    assert [pin for pin, hashes in pins.items() if hashes == 0] == []


def test_the_tools_are_installed_beside_exactly_the_runtime_that_ships(checkout: Path) -> None:
    def pins(name: str) -> set[str]:
        text = (checkout / f"requirements/{name}.txt").read_text("utf-8")
        return set(re.findall(r"^[a-z0-9.-]+==\S+", text, re.MULTILINE))

    assert pins("runtime") | pins("build") <= pins("dev")


def test_the_project_depends_on_what_the_runtime_file_pins_and_on_nothing_else(checkout: Path) -> None:
    wanted = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    lines = (checkout / "requirements/runtime.in").read_text("utf-8").splitlines()
    assert sorted(wanted) == sorted(line for line in lines if line and not line.startswith("#"))


def test_dev_help_lists_every_verb_and_an_unknown_one_is_a_usage_error(checkout: Path) -> None:
    shown = subprocess.run([checkout / "dev", "help"], capture_output=True, text=True, timeout=30)
    assert shown.returncode == 0
    for verb in ("demo", "test", "check", "release", "bench", "run", "help"):
        assert re.search(rf"^  {verb}\b", shown.stdout, re.MULTILINE), verb
    refused = subprocess.run([checkout / "dev", "grant"], capture_output=True, text=True, timeout=30)
    assert refused.returncode == 2
    assert "no verb named grant" in refused.stderr


@pytest.mark.parametrize("repository", [True, False])
@pytest.mark.parametrize(
    "line",
    [
        "see https://pypi" + ".org/simple",
        "pip install --index" + "-url X",
        "--find" + "-links wheels",
        'open("/home' + '/someone/key")',
        "path = /root" + "/.ssh",
        "cd /work" + "/main",
    ],
)
def test_a_registry_or_one_machines_path_in_a_file_turns_the_scan_red(
    checkout: Path, tmp_path: Path, line: str, repository: bool
) -> None:
    shutil.copy(checkout / "dev", tmp_path / "dev")
    if repository:
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True, timeout=30)
    (tmp_path / "notes.md").write_text("framework/main and https://example.com/home/\n", "utf-8")
    clean = subprocess.run(["./dev", "check", "scan"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert clean.returncode == 0, clean.stderr
    (tmp_path / "notes.md").write_text(f"first\n{line}\n", "utf-8")
    found = subprocess.run(["./dev", "check", "scan"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert found.returncode == 1
    assert "notes.md:2:" in found.stderr


def test_the_layers_hold(checkout: Path) -> None:
    result = lint_imports(checkout / "src", checkout / "pyproject.toml")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("package", "statement", "contract"),
    [
        ("core", "import socket", "Core does no I/O"),
        ("core", "import ironbound.wire", "Layers"),
        ("verifier", "import ironbound.wire", "The verifier installs alone"),
        ("verifier", "import httpx", "The verifier installs alone"),
        ("monitor", "import ironbound.node", "The monitor is another voice"),
        ("gateway", "import ironbound.controller", "The agent channel has no route"),
        ("ledger", "import ironbound.witness", "Services never import each other"),
        ("wire", "import ironbound.ledger", "Layers"),
    ],
)
def test_a_forbidden_import_breaks_the_contract_that_forbids_it(
    checkout: Path, tmp_path: Path, package: str, statement: str, contract: str
) -> None:
    for name in PACKAGES:
        folder = tmp_path / "src/ironbound" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (tmp_path / "src/ironbound/__init__.py").touch()
    shutil.copy(checkout / "pyproject.toml", tmp_path / "pyproject.toml")
    assert lint_imports(tmp_path / "src", tmp_path / "pyproject.toml").returncode == 0
    (tmp_path / f"src/ironbound/{package}/intruder.py").write_text(statement + "\n", "utf-8")
    broken = lint_imports(tmp_path / "src", tmp_path / "pyproject.toml")
    assert broken.returncode == 1
    assert re.search(rf"^{re.escape(contract)}.* BROKEN$", broken.stdout, re.MULTILINE), broken.stdout


def test_core_imports_only_what_this_list_allows(checkout: Path) -> None:
    strangers = {}
    for path in sorted((checkout / "src/ironbound/core").rglob("*.py")):
        others = imported(path.read_text("utf-8")) - CORE_IMPORTS - {"ironbound"}
        if others:
            strangers[path.name] = sorted(others)
    assert strangers == {}


@pytest.mark.parametrize("line", ["import os", "from time import time", "def f():\n  import random", "x = open('f')"])
def test_an_import_that_the_list_does_not_allow_is_seen(line: str) -> None:
    assert imported(line) - CORE_IMPORTS


def test_the_verifier_imports_nothing_but_the_standard_library_cryptography_and_core(checkout: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"cryptography", "ironbound"}
    for path in sorted((checkout / "src/ironbound/verifier").rglob("*.py")):
        assert imported(path.read_text("utf-8")) <= allowed | {"open"}, path.name


SKIPPING = """
import pytest

@pytest.mark.skip(reason="out of time")
def test_left_out(): pass

@pytest.mark.xfail(reason="known", strict=True)
def test_expected(): assert False

def test_done(): pass
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite of its own under the same conftest, with one skipped test."""
    pytester.makeconftest((checkout / "tests/conftest.py").read_text("utf-8"))
    for name in ("skips.py", "sharing.py"):
        shutil.copy(checkout / "tests" / name, pytester.path / name)
    pytester.makeini("[pytest]\nmarkers =\n  root: needs root\n")
    pytester.makepyfile(test_inner=SKIPPING)
    monkeypatch.setenv("CI", "true")
    return pytester


def test_on_ci_a_skip_without_a_row_is_a_failure(inner: pytest.Pytester) -> None:
    (inner.path / "SKIPS.md").write_text("no rows\n", "utf-8")
    result = inner.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1, xfailed=1)
    result.stdout.fnmatch_lines(["*skipped on CI without a row in tests/SKIPS.md*out of time*"])


def test_on_ci_a_module_that_skips_itself_is_a_failure_too(inner: pytest.Pytester) -> None:
    (inner.path / "SKIPS.md").write_text("no rows\n", "utf-8")
    inner.makepyfile(test_inner="import pytest\npytest.skip('not today', allow_module_level=True)\n")
    result = inner.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*skipped on CI without a row in tests/SKIPS.md*not today*"])


def test_on_ci_a_skip_with_a_row_is_only_a_skip(inner: pytest.Pytester) -> None:
    row = "| `test_inner.py::test_left_*` | anywhere | the reason is given here |\n"
    (inner.path / "SKIPS.md").write_text(row, "utf-8")
    inner.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1, skipped=1, xfailed=1)


def test_at_home_a_skip_is_only_a_skip(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI")
    inner.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1, skipped=1, xfailed=1)


def test_each_row_of_the_skip_list_says_where_and_why(checkout: Path) -> None:
    assert parse_skips((checkout / "tests/SKIPS.md").read_text("utf-8"))
    for cells in ("sometimes | a reason that is long", "anywhere | broken", "anywhere"):
        with pytest.raises(ValueError, match="SKIPS.md"):
            parse_skips(f"| `x` | {cells} |")


def test_what_the_tests_of_two_processes_begin_with_is_there(checkout: Path) -> None:
    assert [name for name in FIRST if not (checkout / name).is_file()] == []


def test_the_editor_settings_agree_with_the_linter(checkout: Path) -> None:
    editor = configparser.ConfigParser()
    editor.read_string("[top]\n" + (checkout / ".editorconfig").read_text("utf-8"))
    ruff = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]
    assert int(editor["*"]["max_line_length"]) == ruff["line-length"]
