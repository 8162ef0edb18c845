"""The surface of text: configuration, scripts, and source in other languages than Python, line by line.

Decides which keys and values stand in a configuration, which variables and options a script or program reads, and
what makes the interpreter or the loader take in code by itself. It parses no language in full: it knows how keys are
written in TOML, YAML, JSON, INI and .env, and how variables are read in the common languages.

Rule 1: a comment switches nothing. A line that begins as one is left out, so is documentation (.md, .rst, .html).
Rule 2: a key counts with the sections and keys that it stands under: `[enforcement]` with `mode = "audit"`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .scan_found import Sink
from .scan_words import INTERPRETER, LAX, in_bytes, setting, strong_in_bytes, switch

CONFIG: Final = frozenset(
    "toml yaml yml json5 jsonc ini cfg conf config env properties service socket timer desktop hcl tf kdl".split()
)
CODE: Final = frozenset(
    "js mjs cjs jsx ts mts cts tsx go rs c cc cpp cxx h hh hpp java kt kts scala rb php pl pm lua cs swift zig sh bash "
    "zsh fish ps1 bat cmd mk cmake gradle groovy dart ex exs erl r jl wat s asm def in m4 awk proto rego cue vue "
    "svelte xml".split()
)  # fmt: skip
PROSE: Final = frozenset(
    "md rst html htm css scss svg adoc tex po pot map csv tsv typed pyi txt lock sum xsd rng bib 1 3 5 7 8".split()
)
NAMES: Final = frozenset(("dockerfile", "containerfile", "makefile", "procfile", "justfile", ".env", "entrypoint"))
_COMMENT: Final = re.compile(rb"\s*(?:#(?!!|\[|\s*(?:define|if|elif|undef|pragma)\b)|//|/\*|\*|;|--\s|<!--|%)")
_BLOCK: Final = re.compile(rb"/\*.*?\*/|<!--.*?-->", re.DOTALL)
_SECTION: Final = re.compile(r"\s*\[+\s*([\w.\"' -]+?)\s*\]+\s*(?:#.*)?$")
_PAIR: Final = re.compile(
    r"""(\s*)(?:-\s+)?(?:export\s+|ENV\s+|Environment=)?["']?([A-Za-z_][\w./-]*)["']?\s*[:=]\s*(.*)$"""
)
_INLINE: Final = re.compile(r"""["']?([A-Za-z_][\w.-]*)["']?\s*[:=]\s*["']?([A-Za-z0-9_-]+)["']?""")
_READS: Final = re.compile(
    r"""(?:process\.env\.|process\.env\[\s*['"`]|getenv\(\s*["'L]|env::var(?:_os)?\(\s*"|(?:os\.)?(?:Getenv|LookupEnv)\(\s*"|"""
    r"""ENV(?:\.fetch\(|\[)\s*["']|std\.posix\.getenv\(\s*"|import\.meta\.env\.|\benv\s*=\s*"(?=[A-Z][A-Z0-9_]*"))([A-Za-z_][A-Za-z0-9_]*)"""
)
_SPACED: Final = re.compile(r"""\s*(?:ENV\s+|set\s+)?([A-Za-z_][\w.-]*)\s+["']?([A-Za-z0-9_-]+)["']?;?\s*$""")
"""As sshd, nginx and Dockerfiles write a key with its value."""
_TAG: Final = re.compile(
    r"""<([A-Za-z][\w.-]*)[^<>]*>\s*([A-Za-z_-]+)\s*</|"""
    r"""["']([A-Za-z_][\w.-]*)["']\s+value=["']([A-Za-z_-]+)["']"""
)
_COMPARED: Final = re.compile(r"""([A-Za-z_][\w-]*)["'\])]*\s*(?:[=!]==?|:=|=|:|\.equals\()\s*["'`]([a-z_-]+)["'`]""")
_ADDED: Final = re.compile(rb"""(?<=[\w-])["'`][ \t]*(?:\+|\.|<>)[ \t]*["'`](?=[\w-])""")
"""Two texts that the source puts together."""
_SHELL_READS: Final = re.compile(r"\$\{?([A-Z][A-Z0-9_]+)\b")
_QUOTED: Final = re.compile(r"""["'`](--[A-Za-z][\w-]*)(?=[=\s"'`])""")
_FLAGS: Final = re.compile(
    r"""(?:(?:[fF]lags?\(?\)?|pflag|flag)\.\w+(?:VarP?|P)?\([^"'\n]*?|\.(?:addOption|option|options)\(\s*|\blong\s*=\s*)["']([a-z][\w.-]*)["']"""
)
_BARE: Final = re.compile(r"(?<![\w\"'`-])(--[A-Za-z][\w-]*)(?=[=\s|)]|$)")
_SHELL: Final = frozenset("sh bash zsh fish service".split())
_ROUTE: Final = re.compile(
    r"""\.(?:get|post|put|patch|delete|all|use|route|HandleFunc|Handle|GET|POST|PUT|PATCH|DELETE)\(\s*["'`](/[^"'`\s]*)["'`]"""
)
OPTIMISED: Final = re.compile(rb"^#!.*\bpython[\d.]*\s+(?:-\w*O\w*|-\w*\s+-O)\b")
_SHOUTED: Final = re.compile(r"""["'`]([A-Z][A-Z0-9]*_(?:UNSAFE_[A-Z0-9_]+|INSECURE))["'`]""")
_LINE: Final = 4000
"""Characters of a line that are looked at for keys; minified code has one line."""


def is_text(data: bytes) -> bool:
    """Whether the first bytes are text."""
    return b"\x00" not in data[:4096]


def scan_config(data: bytes, sink: Sink) -> None:
    """Adds every key, and what a key with its value means. Lines are read as TOML, YAML, JSON, INI or .env would."""
    section, above = "", list[tuple[int, str]]()
    for number, line in _lines(data):
        if head := _SECTION.match(line):
            section, above = head[1].strip("\"' "), []
            continue
        pair = _PAIR.match(line)
        if pair is None:
            for option in _BARE.findall(line) + _QUOTED.findall(line):
                _option(option, number, sink)
            for inner, inside in _INLINE.findall(line) if "{" in line or "," in line else _SPACED.findall(line):
                _pair(inner, inner, inside, number, sink)
            _named(line, number, sink)
            continue
        indent, key, value = len(pair[1].expandtabs()), pair[2], pair[3].strip()
        while above and above[-1][0] >= indent:
            above.pop()
        full = ".".join([*([section] if section else []), *(name for _, name in above), key])
        _pair(full, key, value, number, sink)
        if value in ("", "{", "[", "|", ">", "{}") or value.startswith("{"):
            above.append((indent, key))
        if value.startswith("{") or line.lstrip().startswith("{"):
            for inner, inside in _INLINE.findall(line):
                _pair(f"{full}.{inner}" if inner != key else full, inner, inside, number, sink)
        elif key in ("name", "key"):
            _named(value, number, sink)
        for option in _BARE.findall(value) + _QUOTED.findall(value):
            _option(option, number, sink)


def _named(line: str, number: int, sink: Sink) -> None:
    """Names in what is no key with a value: items of a list, variables by name."""
    for _, name, rule in in_bytes(line.encode("utf-8", "replace")):
        sink.add("text", name, number, rule)


def _pair(full: str, key: str, value: str, number: int, sink: Sink) -> None:
    bare = re.split(r"\s+#|,\s*$", value)[0].strip("\"' ,}")
    environment = key.isupper() and key.replace("_", "").isalnum() and (key in INTERPRETER or "_" in key)
    rule = (switch("environment", key) if environment else "") or switch("key", key) or setting(full, bare)
    sink.add("key", f"{full}={bare}" if rule and setting(full, bare) == rule else full, number, rule)


def scan_code(data: bytes, sink: Sink, suffix: str) -> None:
    """Adds variables, options, routes and names that meet a strong rule, outside of comments."""
    shell = suffix in _SHELL or data.startswith(b"#!")
    if OPTIMISED.match(data):
        sink.add("hook", "python -O, which strips assert", 1, "interpreter")
    bare = _BLOCK.sub(lambda block: b"\n" * block[0].count(b"\n"), data) if b"/*" in data or b"<!--" in data else data
    for number, line in _lines(bare):
        short = line[:_LINE]
        if shell and "$" in short:
            for name in _SHELL_READS.findall(short):
                sink.add("environment", name, number, switch("environment", name))
        elif "nv" in short or "NV" in short:
            for name in _READS.findall(short):
                sink.add("environment", name, number, switch("environment", name))
        if "--" in short:
            for option in _QUOTED.findall(short) + (_BARE.findall(short) if shell else []):
                _option(option, number, sink)
        if "(" in short and ("lag" in short or "ption" in short or "long" in short or '("/' in short or "('/" in short):
            for name in _FLAGS.findall(short):
                _option(f"--{name}", number, sink)
            for route in _ROUTE.findall(short):
                sink.add("route", route, number, switch("route", route))
        if shell and (pair := _PAIR.match(short)) and pair[2] in INTERPRETER:
            sink.add("key", pair[2], number, "interpreter")
        if any(one in short for one in LAX):
            for name, value in (*_COMPARED.findall(short), *_tags(short)):
                if rule := setting(name, value):
                    sink.add("text", f"{name}={value}", number, rule)
        if "_INSECURE" in short or "_UNSAFE_" in short:
            for name in _SHOUTED.findall(short):
                sink.add("text", name, number, switch("environment", name))
    _strong_names(_ADDED.sub(b"", bare), sink)


def _tags(line: str) -> Iterator[tuple[str, str]]:
    for tag, inside, key, value in _TAG.findall(line) if "<" in line else ():
        yield (tag, inside) if tag else (key, value)


def _strong_names(bare: bytes, sink: Sink) -> None:
    starts: list[int] | None = None
    for at, name, rule in strong_in_bytes(bare):
        starts = starts if starts is not None else [one.start() for one in re.finditer(rb"^", bare, re.MULTILINE)]
        number = _line_of(starts, at)
        line_at = starts[number - 1]
        if not _COMMENT.match(bare, line_at) and not _behind_comment(bare[line_at:at]):
            sink.add("text", name, number, rule)


def _behind_comment(before: bytes) -> bool:
    return b"//" in before and b"://" not in before or b" # " in before


def _line_of(starts: list[int], at: int) -> int:
    low, high = 0, len(starts)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if starts[middle] <= at else (low, middle)
    return low + 1


def _option(option: str, number: int, sink: Sink) -> None:
    sink.add("option", option, number, switch("option", option))


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip() and not _COMMENT.match(line):
            for at in range(0, len(line), 65536):
                yield number, line[max(0, at - 200) : at + 65536].decode("utf-8", "replace")


def scan_pth(data: bytes, sink: Sink) -> list[str]:
    """Adds what a `.pth` file makes every interpreter do; returns the folders that it adds to the path."""
    folders = []
    for number, line in _lines(data):
        text = line.strip()
        if text.startswith(("import ", "import\t")):
            sink.add("hook", f"runs at every start: {text[:120]}", number, "interpreter")
        else:
            sink.add("hook", "adds a folder to the path", number)
            folders.append(text)
    return folders


def scan_entry_points(data: bytes, sink: Sink) -> None:
    """Adds a distribution's entry points: commands, and plug-ins that others load by name."""
    group = ""
    for number, line in _lines(data):
        if head := _SECTION.match(line):
            group = head[1]
        elif "=" in line:
            sink.add("entry", f"{group}: {line.partition('=')[0].strip()}", number)
