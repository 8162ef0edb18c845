"""The names of shipped bypass switches, planted as products write them and as somebody would who hides them."""

from __future__ import annotations

import base64
import bz2
import codecs
import gzip
import io
import json
import lzma
import py_compile
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ironbound.supply.scan import judge, scan
from ironbound.supply.scan_made import MAX_MADE
from supply.acme import KEYS, OPTIONS, VARIABLES, compiled, plain

PAIRS = {"proposal_approval_mode": "auto", "tls": "skip", "enforcement_mode": "audit", "enforcement": "relaxed"}
ALL = (*OPTIONS, *VARIABLES, *KEYS)
#: Names whose words are ordinary ones: they count where a switch is read, and nowhere else.
ORDINARY = {
    "--debug", "--watch", "--interceptor", "--verify-signatures=false", "ACME_UNSAFE_MODE", "ACME_INSECURE",
    "TOOLHIVE_DEV",
}  # fmt: skip
STRONG = tuple(one for one in ALL if one not in ORDINARY)


def missed(place: Path, names: Iterable[str]) -> set[str]:
    """The names that no switch of what was scanned has; part of one is enough where a rule needs no more."""
    report = judge("", scan(place))
    found = [one.name.lower() for one in report.switches]

    def is_found(name: str) -> bool:
        low = name.partition("=")[0].lower()
        return any(low in one or (len(one) > 6 and one.partition("=")[0] in low) for one in found)

    return {name for name in names if not is_found(name)}


def halves(name: str) -> tuple[str, str]:
    return name[: len(name) // 2], name[len(name) // 2 :]


def several(name: str, form: str) -> str:
    return form.format(*(repr(one) for one in halves(name)))


#: How a text is written so that no reader sees it, by what it is called.
HIDDEN: dict[str, Callable[[str], str]] = {
    "concatenation": lambda name: several(name, "{} + {}"),
    "join": lambda name: several(name, "''.join([{}, {}])"),
    "percent": lambda name: several(name, "'%s%s' % ({}, {})"),
    "format": lambda name: several(name, "'{{}}{{}}'.format({}, {})"),
    "f-string": lambda name: f"f'{halves(name)[0]}{{{json.dumps(halves(name)[1])}}}'",
    "base64": lambda name: f"base64.b64decode({base64.b64encode(name.encode()).decode()!r}).decode()",
    "hexadecimal": lambda name: f"bytes.fromhex({name.encode().hex()!r}).decode()",
    "backwards": lambda name: f"{name[::-1]!r}[::-1]",
    "rot13": lambda name: f"codecs.decode({codecs.encode(name, 'rot13')!r}, 'rot13')",
}
IN_SOURCE: dict[str, Callable[[str], str]] = {
    **HIDDEN,
    "characters": lambda name: f"''.join(map(chr, {[ord(one) for one in name]!r}))",
    "bytes": lambda name: f"bytes({list(name.encode())!r}).decode()",
    "replaced": lambda name: f"{name.replace('_', '~')!r}.replace('~', '_')",
    "a name": lambda name: f"PREFIX + {name[1:]!r}" if name.startswith("-") else f"{name!r}",
}


def source(hide: Callable[[str], str], names: Iterable[str]) -> str:
    lines = [f"F{at} = ({hide(name)}) in sys.argv or os.environ.get({hide(name)})" for at, name in enumerate(names)]
    return "\n".join(["import base64, codecs, os, sys", "PREFIX = '-'", *lines, ""])


@pytest.mark.parametrize("how", IN_SOURCE)
def test_a_name_that_source_makes_of_constants_is_found_with_its_line(tmp_path: Path, how: str) -> None:
    text = source(IN_SOURCE[how], ALL)
    (tmp_path / "acme.py").write_text(text)
    assert missed(tmp_path, ALL) == set()
    report = judge("", scan(tmp_path))
    lines = text.splitlines()
    (places,) = (one.places for one in report.switches if one.name == "fail_open" and one.rule == "fail-open")
    assert any(f"F{ALL.index('fail_open')} " in lines[int(at.at) - 1] for at in places)


@pytest.mark.parametrize("how", HIDDEN)
def test_a_strong_name_that_bytecode_makes_of_constants_is_found_without_its_source(tmp_path: Path, how: str) -> None:
    place = tmp_path / "acme.py"
    place.write_text(source(HIDDEN[how], ALL))
    py_compile.compile(str(place), cfile=str(place.with_suffix(".pyc")), doraise=True)
    place.unlink()
    without_words = {"enableWeakerNestedSandbox", "ignoreViolations"} if how == "backwards" else set()
    assert missed(tmp_path, STRONG) - without_words == set()


def test_what_is_made_has_bounds_and_what_is_not_of_constants_is_nothing(tmp_path: Path) -> None:
    nested = " + ".join(["'x'"] * 3000)
    (tmp_path / "acme.py").write_text(
        f"import sys\na = {nested}\nb = 'fail' + sys.argv[0] + '_open'\nc = '{{:>99999999}}'.format('fail_open')\n"
        f"d = '{'fail_open' * MAX_MADE}'.replace('f', '{'y' * 99}')\n"
    )
    report = judge("", scan(tmp_path))
    assert report.complete or [one.why for one in report.scanned.unread] == [
        "no Python that this interpreter can parse; searched as text"
    ]
    assert {one.name for one in report.switches} <= {"fail_open"}


def test_names_that_code_reads_in_other_ways_are_found(tmp_path: Path) -> None:
    flags = "\n".join(f"flags.DEFINE_bool({one[2:].partition('=')[0]!r}, False, 'x')" for one in OPTIONS)
    (tmp_path / "absl.py").write_text(f"from absl import flags\n{flags}\n")
    fields = "\n".join(f"    {one.removeprefix('ACME_').lower()}: bool = False" for one in VARIABLES)
    (tmp_path / "settings.py").write_text(f"class Acme(BaseSettings):\n{fields}\n")
    (tmp_path / "read.py").write_text("def f(config):\n" + "".join(f"    yield config.{one}\n" for one in KEYS))
    assert missed(tmp_path / "absl.py", OPTIONS) == missed(tmp_path / "read.py", KEYS) == set()
    assert missed(tmp_path / "settings.py", [one.removeprefix("ACME_") for one in VARIABLES]) == set()


def pairs(form: str, between: str = "\n") -> str:
    return between.join(form.format(key, value) for key, value in {**dict.fromkeys(KEYS, "true"), **PAIRS}.items())


CONFIGURED = {
    "flow.yaml": "{" + pairs("{}: {}", ", ") + "}",
    "symbols.yaml": pairs(":{}: {}"),
    "config.json": json.dumps({**dict.fromkeys(KEYS, True), **PAIRS}),
    "long.json": json.dumps({"words": ["x" * 70] * 2000, **dict.fromkeys(KEYS, True), **PAIRS}),
    "etc/acme/acme": pairs("{} {}"),
    "policy": pairs("{}: {}"),
    "web.xml": "<c>\n" + pairs('<add key="{}" value="{}"/>') + "\n</c>",
    "tags.xml": pairs("<{0}>{1}</{0}>"),
    "wide.ini": pairs("{} = {}"),
    "policy.cue": pairs('{}: "{}"'),
    "acme.js": pairs('if (config.{} === "{}") go();'),
}


@pytest.mark.parametrize("file", CONFIGURED)
def test_keys_with_their_values_are_found_however_they_are_written(tmp_path: Path, file: str) -> None:
    place = tmp_path / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(CONFIGURED[file] + "\n", "utf-16" if file.startswith("wide") else "utf-8")
    assert missed(tmp_path, [*KEYS, *PAIRS]) == set()


DEPLOYED = {
    "list.yaml": ("features:\n" + "".join(f"  - {one}\n" for one in KEYS), KEYS),
    "pod.yaml": ("env:\n" + "".join(f"- name: {one}\n  value: '1'\n" for one in VARIABLES), VARIABLES),
    "Dockerfile": ("FROM x\n" + "".join(f"ENV {one} 1\n" for one in VARIABLES), VARIABLES),
    "run.sh": ("case $1 in\n" + "".join(f"  {one.partition('=')[0]}) x=1 ;;\n" for one in OPTIONS) + "esac\n", OPTIONS),
    "flags.h": ("".join(f'#define FLAG_{at} "{one}"\n' for at, one in enumerate(STRONG)), STRONG),
    "clap.rs": ("".join(f'#[arg(long = "{one[2:].partition("=")[0]}")]\nx: bool,\n' for one in OPTIONS), OPTIONS),
    "env.rs": ("".join(f'#[arg(env = "{one}")]\nx: bool,\n' for one in VARIABLES), VARIABLES),
    "yargs.js": ("".join(f'y.option("{one[2:].partition("=")[0]}", {{}});\n' for one in OPTIONS), OPTIONS),
    "added.js": ("".join('x("{}" + "{}");\n'.format(*halves(one)) for one in STRONG), STRONG),
}


@pytest.mark.parametrize("file", DEPLOYED)
def test_names_are_found_where_programs_are_deployed_and_in_other_languages(tmp_path: Path, file: str) -> None:
    text, names = DEPLOYED[file]
    (tmp_path / file).write_text(text)
    assert missed(tmp_path, names) == set()


def test_names_in_wide_letters_and_names_that_run_together_are_found_in_a_binary(tmp_path: Path) -> None:
    names = [*ALL, *(f"{key}={value}" for key, value in PAIRS.items())]
    for kind, prefix in (("__CHAR16_TYPE__", "u"), ("__WCHAR_TYPE__", "L")):
        place = tmp_path / prefix
        place.mkdir()
        texts = ", ".join(f"{prefix}{json.dumps(one)}" for one in names)
        text = f"const {kind} *const names[] = {{{texts}}};\nconst {kind} *pick(int i) {{ return names[i]; }}\n"
        compiled(text, place / "lib.so")
        assert missed(place, [one for one in names if len(one) > 8]) == set()
    place = tmp_path / "run"
    place.mkdir()
    together = json.dumps("".join(one.partition("=")[0] for one in ALL))
    compiled(f"const char *pick(int i) {{ return {together} + i; }}\n", place / "lib.so")
    assert (
        missed(place, [one for one in STRONG if one not in ("enableWeakerNestedSandbox", "ignoreViolations")]) == set()
    )


def packed(how: str, data: bytes) -> bytes:
    """A configuration in an archive of a kind."""
    if how in ("gz", "bz2", "xz"):
        return {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[how](data)
    into = io.BytesIO()
    if how == "deb":
        inner = packed("tar.gz", data)
        parts = [(b"debian-binary", b"2.0\n"), (b"data.tar.gz", inner)]
        rows = [
            b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"100644", len(part)) + part + b"\n" * (len(part) % 2)
            for name, part in parts
        ]
        return b"!<arch>\n" + b"".join(rows)
    if how == "tar.gz":
        with tarfile.open(fileobj=into, mode="w:gz") as archive:
            member = tarfile.TarInfo("policy.yaml")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        return into.getvalue()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("policy.yaml", data)
    before = {"zip": b"", "zipapp": b"#!/usr/bin/python3\n", "program": Path("/bin/true").read_bytes()}[how]
    return before + into.getvalue()


@pytest.mark.parametrize("how", ["gz", "bz2", "xz", "deb", "tar.gz", "zip", "zipapp", "program"])
def test_archives_are_known_by_their_bytes_whatever_their_name_and_whatever_stands_before(
    tmp_path: Path, how: str
) -> None:
    data = "".join(f"{one}: true\n" for one in KEYS).encode()
    (tmp_path / "plugin").write_bytes(packed(how, data))
    assert missed(tmp_path, KEYS) == set()
    (tmp_path / "plugin").write_bytes(packed(how, data)[:-30])
    report = judge("", scan(tmp_path))
    assert not report.complete or report.switches or how in ("zipapp", "program")


@pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"hsqs", b"\xed\xab\xee\xdb", b"7z\xbc\xaf\x27\x1c"])
def test_an_archive_that_is_not_opened_is_said_to_be_unread(tmp_path: Path, magic: bytes) -> None:
    (tmp_path / "image").write_bytes(magic + bytes(200))
    assert [one.why for one in scan(tmp_path).unread][0].startswith("an archive of a kind that is not opened")


ORDINARY_LINES = {
    "ordinary.yaml": "{level: auto, theme: relaxed, retries: 3}\nsteps:\n  - skip\n  - verify\nname: audit\n",
    "ordinary.json": json.dumps({"mode": "auto", "tls": {"verify": True}, "watch": ["src"], "debug": False}),
    "ordinary.xml": '<c><mode>auto</mode><add key="theme" value="relaxed"/><!-- fail_open --></c>\n',
    "ordinary.h": '#ifndef A_H\n#define LEVEL "auto"\n#define VERIFY 1\n#endif\n',
    "ordinary.rs": '#[arg(long = "output")]\nlet mode = "auto";\n#[derive(Debug)]\nstruct Watch;\n',
    "ordinary.js": 'const mode = "auto";\nif (level === "audit") log("skip" + "ped");\ny.option("output", {});\n',
    "ordinary": "theme relaxed\nPort 22\nlog_level audit\n",
}


def test_ordinary_files_of_these_kinds_have_no_finding(tmp_path: Path) -> None:
    place = plain(tmp_path / "plain")
    for name, text in ORDINARY_LINES.items():
        (place / name).write_text(text)
    (place / "made.py").write_text(
        "import base64\nA = 'skip' + 'ped'\nB = ['verify', 'skip']\nC = base64.b64decode('c2tpcHBlZCBhbGw=')\n"
        "D = f'{A}_open'\nE = 'wide'[::-1]\nF = '%s-%s' % ('audit', 'log')\n"
    )
    (place / "text.gz").write_bytes(gzip.compress(b"theme: relaxed\n"))
    report = judge("", scan(place))
    assert [(one.name, one.places[0].place) for one in report.switches] == [] and report.complete
