"""The documents tell the truth about the code: tables, commands, links, folders, keys."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import doc_tables
import pytest

from ironbound.canary.probes import load_probes
from ironbound.core.constraint import covers, parse_where
from ironbound.core.profile import LIMITS, SETTINGS
from ironbound.core.reasons import REASONS
from ironbound.core.statement import ACTS, SHAPES, VOICES
from ironbound.gateway.providers import http, scratch
from ironbound.gateway.tools import ACTIONS
from ironbound.terminal import arguments, main
from ironbound.terminal.demo import auditor
from ironbound.terminal.demo import run as demo
from ironbound.terminal.demo.people import KeyFiles
from ironbound.terminal.voice import Stop
from ironbound.verifier.__main__ import UsageError, _arguments
from ironbound.verifier.claims import CLAIMS
from ironbound.verifier.codes import INTEGRITY, OPEN, REFUTING

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OURS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
MARKDOWN = [*OURS, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "sdk" / "README.md"]
PIN = "demo:" + "0" * 64 + ":log+00000000+AAAA"


def text(path: Path) -> str:
    return path.read_text("utf-8")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Tables


@pytest.mark.parametrize("path", doc_tables.documents(), ids=name)
def test_tables_made_from_the_code_are_those_of_the_code(path: Path) -> None:
    assert doc_tables.refreshed(text(path)) == text(path), "run: python tests/docs/doc_tables.py"


def test_every_table_stands_in_some_document() -> None:
    found = {one[1] for path in doc_tables.documents() for one in doc_tables.BLOCK.finditer(text(path))}
    assert found == set(doc_tables.TABLES)


def test_a_wrong_code_in_a_document_is_seen() -> None:
    page = text(DOCS / "formats.md")
    assert doc_tables.refreshed(page.replace("`grant-revoked`", "`grant-cancelled`")) == page
    assert page.replace("`grant-revoked`", "`grant-cancelled`") != page


def test_formats_names_every_kind_field_voice_and_code() -> None:
    page = text(DOCS / "formats.md")
    for kind, shape in SHAPES.items():
        section = page.partition(f"\n#### {kind}\n")[2].partition("\n#### ")[0].partition("\n## ")[0]
        assert re.findall(r"^\| `([a-z_0-9]+)` \|", section, re.MULTILINE) == list(doc_tables.fields(shape)), kind
    for role, kinds in VOICES.items():
        for kind in kinds:
            assert re.search(rf"^\| \[`{kind}`\]\(#{kind}\) \| .*\b{role}\b", page, re.MULTILINE)
    assert all(f"[`{kind}`]" in page for kind in ACTS)
    for code in (*REASONS, *INTEGRITY, *REFUTING, *OPEN):
        assert f"| `{code}` |" in page


# Commands


def commands(page: str) -> list[str]:
    """Every command line of ours in a code block or in backticks that begins with `ironbound `."""
    page = doc_tables.BLOCK.sub("", page)  # the usage is the parser's own, and is no command
    blocks = re.findall(r"^```(?:console|sh|)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`(ironbound [^`\n]+)`", re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE))
    found = []
    for line in lines + spans:
        line = line.removeprefix("./dev run ")
        if line.startswith("ironbound ") and "  " not in line and not re.search(r"\[|…|\||\.\.\.", line):
            found.append(line.partition(" && ")[0])
    return found


def parse(line: str) -> None:
    """Parses as the real command line would, or raises."""
    words = shlex.split(line.replace('"$(cat pin.txt)"', PIN).replace('"$(cat out/look/pin.txt)"', PIN))[1:]
    if words[0] == "verify":
        _arguments(words[1:])
        return
    found = main.parser().parse_args(words)
    assert found.command is not None


WRITTEN = [(name(path), line) for path in OURS for line in commands(text(path))]
#: Commands that are named in prose without their arguments.
BARE = {
    "ironbound verify", "ironbound init", "ironbound surface", "ironbound evidence export", "ironbound agents",
    "ironbound image load",
}  # fmt: skip


@pytest.mark.parametrize(("where", "line"), WRITTEN, ids=lambda one: str(one)[:60])
def test_every_command_line_in_a_document_parses(where: str, line: str) -> None:
    if line not in BARE:
        parse(line)


def test_enough_command_lines_were_found_to_mean_something() -> None:
    assert len(WRITTEN) > 35


@pytest.mark.parametrize("line", ["ironbound elucidate strict.toml", "ironbound grant", "ironbound up --force"])
def test_a_command_line_that_does_not_exist_is_seen(line: str) -> None:
    with pytest.raises((Stop, SystemExit, argparse.ArgumentError)):
        parse(line)


def test_a_wrong_option_of_verify_is_seen() -> None:
    with pytest.raises(UsageError):
        parse("ironbound verify e.ironbound --trust")


def test_the_real_parser_has_every_command_of_the_usage() -> None:
    named = set(re.findall(r"^  ironbound ([a-z]+)", main.USAGE, re.MULTILINE)) | {"agents", "grants", "log", "submit"}
    for one in named:
        with pytest.raises(SystemExit) as ended:
            main.parser().parse_args([one, "--help"])
        assert ended.value.code == 0


# Grants and profiles


def test_the_constraints_in_the_operators_guide_mean_what_it_says() -> None:
    page = text(DOCS / "operating.md")
    rows = re.findall(r"^\| `([a-z]+=[^`]+)` \| (.+) \|$", page, re.MULTILINE)
    made = {row.replace("\\|", "|"): arguments.constraint(row.replace("\\|", "|")) for row, _ in rows}
    assert made == {
        "name=report.md": ("name", {"equals": "report.md"}),
        "method=GET|HEAD": ("method", {"one_of": ["GET", "HEAD"]}),
        "path=/records/*": ("path", {"prefix": {"value": "/records", "separator": "/"}}),
        "port=8000..8010": ("port", {"range": {"min": 8000, "max": 8010}}),
        "query=*": ("query", {"any": True}),
    }
    where = parse_where(dict([made["path=/records/*"], made["query=*"]]))
    assert covers(where, {"path": "/records"}) is None
    assert covers(where, {"path": "/records/7", "query": "a=1"}) is None
    assert covers(where, {"path": "/recordsandmore"}) is not None


def test_the_actions_in_the_operators_guide_are_those_of_the_gateway() -> None:
    page = text(DOCS / "operating.md").partition("| action | arguments |")[2].partition("\n\n")[0]
    assert set(re.findall(r"(?:http|scratch)\.[a-z]+", page)) == set(ACTIONS)
    row = next(line for line in page.splitlines() if http.ACTION in line)
    assert set(re.findall(r"`([a-z]+)`", row)) == set(http.ARGUMENTS)
    row = next(line for line in page.splitlines() if "scratch.write" in line)
    assert tuple(re.findall(r"`([a-z]+)`", row)) == scratch.ACTIONS["scratch.write"]


def test_the_operators_guide_has_every_key_of_a_profile() -> None:
    page = text(DOCS / "operating.md")
    for key in (*LIMITS, *SETTINGS):
        assert f"| `{key}` |" in page
    first = next(iter(LIMITS.values()))
    assert f"| {first.minimum:,} | {first.maximum:,} |" in page


# The README


def test_the_readme_has_a_sentence_for_every_folder() -> None:
    rows = dict(re.findall(r"^\| `([a-z/_]+)/` \| (.+) \|$", text(ROOT / "README.md"), re.MULTILINE))
    package = {
        f"src/ironbound/{one.name}"
        for one in (ROOT / "src" / "ironbound").iterdir()
        if one.is_dir() and one.name != "__pycache__"
    }
    made = {"build", "dist", "out", "src"}
    top = {one.name for one in ROOT.iterdir() if one.is_dir() and not one.name.startswith(".")} - made
    assert set(rows) == package | {one for one in top if not one.endswith("__pycache__")}
    assert all(len(sentence.split()) >= 4 for sentence in rows.values())


def test_the_readmes_transcript_has_the_demos_steps_in_order() -> None:
    page = text(ROOT / "README.md").partition("<!-- transcript -->")[2].partition("<!-- end -->")[0]
    source = "".join(Path(one.__file__).read_text("utf-8") for one in (demo, auditor))
    titles = [KeyFiles.title, *re.findall(r'self\._telling\.step\(\s*"([^"]+)"', source)]
    shown = re.findall(r"^ ?\d+\. (.+)$", page, re.MULTILINE)
    assert len(titles) == len(shown) >= 10
    assert set(shown) == set(titles)


def test_the_number_of_hostile_agents_is_that_of_the_package() -> None:
    count = len(load_probes("wasm"))
    assert f"{count} hostile ones" in text(ROOT / "README.md")
    assert f"{count} of {count} refused" in text(ROOT / "README.md")
    assert f"- {count} hostile agents" in text(ROOT / "CHANGELOG.md")


def test_the_readme_says_of_every_claim_what_it_proves() -> None:
    page = text(ROOT / "README.md").partition("## What is proved")[2].partition("\n## ")[0]
    assert set(re.findall(r"\b[A-F][1-5]\b", " ".join(re.findall(r"\*\*(.+?)\*\*", page)))) == set(CLAIMS)


def test_the_files_to_read_exist_and_are_as_few_as_said() -> None:
    page = text(ROOT / "README.md").partition("### The lines it rests on")[2].partition("\n## ")[0]
    files = re.findall(r"^\d+\. `(src/ironbound/[a-z/]+\.py)`", page, re.MULTILINE)
    total = sum(len((ROOT / one).read_text("utf-8").splitlines()) for one in files)
    said = re.search(r"about ([\d,]+) lines", page)
    assert said and abs(total - int(said[1].replace(",", ""))) < 150


# Links, decisions


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#{1,6} (.+)$", re.sub(r"^```.*?^```$", "", text(path), flags=re.DOTALL | re.MULTILINE), re.M)
    return {re.sub(r"[^a-z0-9 _-]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def broken_links(path: Path, page: str) -> list[str]:
    """The relative links of a page that lead nowhere."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("path", MARKDOWN, ids=name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    assert broken_links(path, text(path)) == []


def test_a_link_that_leads_nowhere_is_seen() -> None:
    readme = ROOT / "README.md"
    assert broken_links(readme, "[a](docs/nothing.md) [b](docs/formats.md#no-such-head)") == [
        "docs/nothing.md",
        "docs/formats.md#no-such-head",
    ]


def test_decisions_are_short_numbered_and_complete() -> None:
    files = sorted((DOCS / "decisions").glob("*.md"))
    assert [one.name[:4] for one in files] == [f"{number:04}" for number in range(len(files))]
    for one in files:
        page = text(one)
        assert len(page.splitlines()) <= 40
        assert page.startswith(f"# {one.name[:4]}: ")
        for part in ("Date: ", "**Question.**", "**Decision.**", "**Because.**", "**Costs.**"):
            assert part in page, f"{one.name}: {part}"
