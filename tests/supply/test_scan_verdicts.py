"""The scan's verdicts: the closed list comes first, a refusal counts only if it was tried, what is unread is said."""

from __future__ import annotations

import io
import json
import os
import py_compile
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ironbound
from ironbound.core.canonical import FormatError
from ironbound.supply import scan_bytecode
from ironbound.supply.scan import ACTIVE, REFUSES, judge, scan
from ironbound.supply.scan_files import Job, read_all
from ironbound.supply.scan_found import Sink
from ironbound.supply.scan_list import parse_list, shipped_list, write_list
from ironbound.supply.scan_trial import TrialError, try_options
from ironbound.terminal.main import parser
from wire.layout import Layout, link, member

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "ironbound.terminal.main", "scan")
PROGRAM = """#!{python}
import argparse, sys
parser = argparse.ArgumentParser(allow_abbrev=False)
commands = parser.add_subparsers(dest="command")
serve = commands.add_parser("serve")
serve.add_argument("place")
serve.add_argument("--port", required=True, type=int)
{more}
parser.parse_args()
open({acted!r}, "w").close()
"""


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=120)


def test_this_release_has_exactly_the_surface_that_its_list_names() -> None:
    listed = parse_list(shipped_list())
    report = judge("", scan(CHECKOUT / "src" / "ironbound"), listed)
    again = "a new option, variable, key, route or verb needs its line: see CONTRIBUTING.md, “The surface”"
    assert [one.place for one in report.unlisted or ()] == [], again
    assert report.gone == (), again
    assert [one for one in report.switches if one.why is None] == [], "explain it in the list, or take it out"
    assert report.complete and len(listed.items) > 400


def test_the_list_of_this_release_names_what_everybody_knows_of_it() -> None:
    items = {(kind, name) for _, kind, name in parse_list(shipped_list()).items}
    assert {("option", "--manifest"), ("route", "/proposals"), ("environment", "*"), ("argv", "sys.argv")} <= items


@pytest.mark.parametrize(
    ("line", "kind", "name"),
    [
        ('x = os.environ.get("IRONBOUND_FAST")', "environment", "IRONBOUND_FAST"),
        ('parser.add_argument("--fast")', "option", "--fast"),
        ('app.add_route("/fast", fast)', "route", "/fast"),
        ("x = getattr(node, name)", "dynamic", "getattr"),
        ('y = config["fast"]', "key", "fast"),
        ("sys.argv.pop()", "argv", "sys.argv"),
    ],
)
def test_one_line_more_opens_the_list(tmp_path: Path, line: str, kind: str, name: str) -> None:
    place = tmp_path / "product"
    place.mkdir()
    (place / "main.py").write_text('import os\nimport sys\nprint(os.environ["HOME"])\n')
    made = run(place, "--write", tmp_path / "list.json")
    assert made.returncode == 0, made.stderr
    closed = run(place, "--manifest", tmp_path / "list.json")
    assert closed.returncode == 0 and "closed list: CLOSED" in closed.stdout, closed.stdout
    with (place / "main.py").open("a") as file:
        file.write(line + "\n")
    opened = run(place, "--manifest", tmp_path / "list.json", "--json")
    said = json.loads(opened.stdout)
    assert opened.returncode == 1 and said["closed"] is False
    assert {(one["kind"], one["name"]) for one in said["unlisted"]} == {(kind, name)}
    assert [one["place"] for one in said["unlisted"]] == ["main.py:4"]


def test_a_listed_item_in_another_file_is_not_listed(tmp_path: Path) -> None:
    place = tmp_path / "product"
    place.mkdir()
    (place / "one.py").write_text('import os\nprint(os.environ["HOME"])\n')
    listed = parse_list(write_list("x", [""], scan(place).found))
    assert not judge("", scan(place), listed).unlisted
    (place / "one.py").rename(place / "two.py")
    report = judge("", scan(place), listed)
    assert [one.file for one in report.unlisted or ()] == ["two.py"] and report.gone == (
        ("one.py", "environment", "HOME"),
    )


def test_a_switch_is_explained_by_a_sentence_and_only_where_it_says(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text('MODE = "fail_open"\n')
    scanned = scan(tmp_path)
    document: dict[str, Any] = json.loads(write_list("x", [""], scanned.found))
    document["switches"] = {"one.py": {"names": ["fail_open"], "why": "a word of the manual's index"}}
    assert judge("", scanned, parse_list(json.dumps(document).encode())).verdict == "ABSENT"
    document["switches"] = {"two.py": document["switches"]["one.py"]}
    assert judge("", scanned, parse_list(json.dumps(document).encode())).verdict == ACTIVE
    document["switches"] = {"one.py": {"names": ["fail_open"], "why": "ok"}}
    with pytest.raises(FormatError, match="sentence"):
        parse_list(json.dumps(document).encode())


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_a_list_is_read_or_refused_with_one_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_list(data)


def folder(tmp_path: Path) -> Path:
    """One more."""
    place = tmp_path / "another"
    place.mkdir(exist_ok=True)
    return place


def program(tmp_path: Path, *lines: str) -> Path:
    place = tmp_path / "acme"
    text = PROGRAM.format(python=sys.executable, more="\n".join(lines), acted=str(tmp_path / "acted"))
    place.write_text(text)
    place.chmod(0o755)
    return place


def test_an_option_is_refused_only_if_the_program_and_all_its_commands_refuse_it(tmp_path: Path) -> None:
    tried = ("--debug", "--watch", "--interceptor")

    def refused(place: Path) -> dict[str, bool]:
        answers = try_options(place, tried)
        assert all(said is None or said.endswith(f"unrecognized arguments: {name}") for name, said in answers.items())
        return {name: said is not None for name, said in answers.items()}

    assert refused(program(tmp_path)) == dict.fromkeys(tried, True)
    open_one = program(tmp_path, 'serve.add_argument("--debug", action="store_true")')
    assert refused(open_one) == {"--debug": False, "--watch": True, "--interceptor": True}
    valued = program(tmp_path, 'serve.add_argument("--watch")', 'parser.add_argument("--interceptor", type=int)')
    assert refused(valued) == {"--debug": True, "--watch": False, "--interceptor": False}
    assert not (tmp_path / "acted").exists(), "no trial may come to act"


def test_a_program_of_others_is_tried_too_and_what_it_suggests_instead_is_no_difference() -> None:
    answers = try_options(Path(sys.executable).parent / "ruff", ("--watch", "--interceptor"))
    assert answers == {"--watch": None, "--interceptor": "error: unexpected argument '--interceptor' found"}


def test_a_program_that_shows_its_command_line_and_refuses_the_random_option_only_has_taken_the_other(
    tmp_path: Path,
) -> None:
    place = tmp_path / "echoing"
    place.write_text(
        '#!/bin/sh\necho "+ $*" >&2\nfor one; do case $one in --debug) ;; *) echo "no such option: $one"; exit 2 ;; '
        "esac; done\n"
    )
    place.chmod(0o755)
    answers = try_options(place, ("--debug", "--watch"))
    assert answers["--debug"] is None and answers["--watch"] is not None


def test_a_program_that_refuses_nothing_by_name_proves_nothing(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 2\n")
    silent.chmod(0o755)
    with pytest.raises(TrialError):
        try_options(silent, ["--debug"])


def test_a_tried_refusal_is_told_from_an_active_switch(tmp_path: Path) -> None:
    place = program(
        tmp_path, 'serve.add_argument("--debug", action="store_true")', 'WORDS = ("--watch", "--interceptor")'
    )
    said = json.loads(run(place, "--try", place, "--json").stdout)
    verdicts = {one["name"]: one["verdict"] for one in said["switches"]}
    assert verdicts == {"--debug": ACTIVE, "--watch": REFUSES, "--interceptor": REFUSES}
    refusals = {one["name"]: one["refusal"] for one in said["switches"]}
    assert refusals["--debug"] is None and refusals["--watch"] == "acme: error: unrecognized arguments: --watch"
    clean = json.loads(run(program(folder(tmp_path)), "--try", program(folder(tmp_path)), "--json").stdout)
    assert [one["verdict"] for one in (said, clean)] == [ACTIVE, "ABSENT"]
    refusing = program(folder(tmp_path), 'WORDS = ("--watch", "--interceptor")')
    refused = run(refusing, "--try", refusing)
    assert refused.returncode == 0 and refused.stdout.startswith(REFUSES), refused.stdout
    assert "acme: error: unrecognized arguments: --interceptor" in refused.stdout
    untried = json.loads(run(place, "--json").stdout)
    assert {one["verdict"] for one in untried["switches"]} == {ACTIVE}


def test_wheels_archives_images_and_added_folders_are_looked_into(tmp_path: Path) -> None:
    source = b'import os\nFLAG = os.environ["ACME_DISABLE_TLS"]\n'
    with zipfile.ZipFile(tmp_path / "acme.whl", "w") as wheel:
        wheel.writestr("acme/__init__.py", source)
    with tarfile.open(tmp_path / "acme.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("acme-1/acme.whl")
        data = (tmp_path / "acme.whl").read_bytes()
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    (tmp_path / "image").mkdir()
    layout = Layout(tmp_path / "image", wish={"Cmd": ["/srv", "--debug"], "Env": ["LD_PRELOAD=/x.so"]})
    layout.of([member("srv/gone.py", source), member("srv/main.py", source), link("srv/other", "main.py")],
              [member("srv/.wh.gone.py")])  # fmt: skip
    (tmp_path / "site").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "acme.py").write_bytes(source)
    (tmp_path / "site" / "acme.pth").write_text(f"{tmp_path / 'elsewhere'}\n")

    def places(path: Path) -> dict[str, list[str]]:
        return {one.name: [at.place for at in one.places] for one in judge("", scan(path)).switches}

    assert places(tmp_path / "acme.whl") == {"ACME_DISABLE_TLS": ["acme.whl!/acme/__init__.py:2"]}
    assert places(tmp_path / "acme.tar.gz") == {
        "ACME_DISABLE_TLS": ["acme.tar.gz!/acme-1/acme.whl!/acme/__init__.py:2"]
    }
    image = places(tmp_path / "image")
    assert image["ACME_DISABLE_TLS"] == ["srv/main.py:2"] and {"--debug", "LD_PRELOAD"} <= set(image)
    assert places(tmp_path / "site") == {"ACME_DISABLE_TLS": [f"{tmp_path / 'elsewhere'}/acme.py:2"]}


def test_what_cant_be_read_is_said_and_never_counts_as_clean(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def (\n")
    (tmp_path / "broken.pyc").write_bytes(b"\xa7\x0d\x0d\x0a" + bytes(12) + b"\xe3\xff")
    (tmp_path / "broken.wasm").write_bytes(b"\x00asm\x01\x00\x00\x00\x02\xff")
    (tmp_path / "broken.so").write_bytes(b"\x7fELF" + bytes(60))
    done = run(tmp_path, "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 4 and said["complete"] is False and said["verdict"] == "ABSENT"
    assert {one["file"] for one in said["unread"]} == {"broken.py", "broken.pyc", "broken.wasm", "broken.so"}
    (tmp_path / "broken.py").write_text('def (\nx = "fail_open"\n')
    assert run(tmp_path).returncode == 1, "what can't be parsed is searched all the same"


def test_a_reader_that_dies_loses_its_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ironbound.supply import scan_files

    real = scan_files.read_job
    monkeypatch.setattr(scan_files, "read_job", lambda job: os._exit(9) if job.file == "b.py" else real(job))
    jobs = []
    for name in "abcdefghijkl":
        (tmp_path / f"{name}.py").write_text('x = "fail_open"\n')
        jobs.append(Job(str(tmp_path / f"{name}.py"), f"{name}.py", f"{name}.py", 4 << 20))  # so large: each by itself
    done = read_all(jobs)
    assert {one.file for one in done.found} == {f"{name}.py" for name in "acdefghijkl"}
    assert [(one.file, one.why) for one in done.unread] == [("b.py", "its reader died")]


@given(st.binary(max_size=200))
def test_bytecode_is_read_or_refused_with_one_error(data: bytes) -> None:
    for made in (data, b"\xa7\x0d\x0d\x0a" + bytes(12) + data):
        try:
            scan_bytecode.scan_bytecode(made, Sink("x", "x"))
        except FormatError:
            continue


def test_a_path_that_is_not_there_and_a_list_that_is_none_are_told(tmp_path: Path) -> None:
    gone = run(tmp_path / "none")
    assert gone.returncode == 1 and "No such file" in gone.stderr and "Traceback" not in gone.stderr
    (tmp_path / "list.json").write_text("{}")
    wrong = run(tmp_path, "--manifest", tmp_path / "list.json")
    assert wrong.returncode == 1 and "surface-list" in wrong.stderr and "hint" in wrong.stderr


def test_bytecode_that_says_what_its_source_does_not_is_found(tmp_path: Path) -> None:
    source, other = tmp_path / "acme.py", tmp_path / "other.py"
    source.write_text('MODE = "fail_hard"\n')
    other.write_text('MODE = "fail_open"\n')
    os.utime(other, (1, 1))
    os.utime(source, (1, 1))
    cached = Path(py_compile.compile(str(source), doraise=True))
    assert not judge("", scan(tmp_path / "acme.py")).switches
    poisoned = Path(py_compile.compile(str(other), doraise=True)).read_bytes()
    other.unlink()
    cached.write_bytes(poisoned)
    found = [one for one in judge("", scan(tmp_path)).switches if cached.name in one.places[0].file]
    assert [one.name for one in found] == ["fail_open"]


def test_without_a_path_it_is_this_very_installation_that_is_scanned(tmp_path: Path) -> None:
    assert parser().parse_args(["scan"]).path == Path(ironbound.__file__).parent
    assert parser().parse_args(["scan", str(tmp_path)]).path == tmp_path
