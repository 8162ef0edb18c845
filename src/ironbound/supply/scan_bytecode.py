"""What is in compiled Python, read from its bytes: constants and names of every code object. Nothing is run.

Decides where in a `.pyc` which text stands, and which of them take something from outside. The reader is our own, for
CPython 3.8 to 3.14 alike: `marshal` reads its own version's only, and may be crashed by hostile bytes. Follows
CPython's Python/marshal.c and PEP 552 (the header).

Rule 1: every length is checked against what is left; whatever is not understood raises FormatError, and the file is
        then searched as any other binary.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from ironbound.core.canonical import FormatError

from .scan_found import Sink
from .scan_made import disguised
from .scan_words import setting, strong, switch

HEADER: Final = 16
#: The magic numbers of CPython's versions: each stands for those from it on.
_VERSIONS: Final = ((3400, 8), (3420, 9), (3430, 10), (3450, 11), (3500, 12), (3550, 13), (3600, 14))
_FIRST: Final = 3400
_LAST: Final = 3699
MAX_DEPTH: Final = 200
_OLD: Final = "iiiiii"  # arguments, positional, keyword-only, locals, stack, flags
_NEW: Final = "iiiii"  # the same without the locals
_FLAG: Final = re.compile(r"--?[A-Za-z][A-Za-z0-9_.-]*(=.*)?")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/=-]{3,100}")
_CALLS: Final = frozenset(("eval", "exec", "compile", "__import__", "import_module", "system", "popen", "run_path"))
_ENVIRONMENT: Final = frozenset(("environ", "getenv", "environb", "getenvb"))
_DECLARES: Final = frozenset(("add_argument", "add_option", "option", "Option", "argv"))


@dataclass(frozen=True, slots=True)
class Code:
    """A code object: its constants, the names that it looks up, its qualified name and first line."""

    consts: tuple[Any, ...]
    names: tuple[Any, ...]
    variables: tuple[Any, ...]
    name: str
    line: int


def header(data: bytes) -> tuple[int, int, bytes]:
    """Minor version of CPython 3, flags (PEP 552), and the eight bytes of the source's time and size, or its hash."""
    if len(data) < HEADER or data[2:4] != b"\r\n":
        raise FormatError("pyc", "no header of compiled Python")
    magic, flags = struct.unpack_from("<H", data)[0], struct.unpack_from("<I", data, 4)[0]
    if not _FIRST <= magic <= _LAST or flags > 3:
        raise FormatError("pyc", f"compiled for another interpreter than CPython 3.8 to 3.14 (magic {magic})")
    return next(minor for first, minor in reversed(_VERSIONS) if magic >= first), flags, data[8:16]


class _Marshal:
    """A cursor over marshalled bytes, with the table of what was marked for reference."""

    def __init__(self, data: bytes, minor: int) -> None:
        self.data, self.at, self.minor = data, HEADER, minor
        self.seen: list[Any] = []

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise FormatError("pyc", f"{size} bytes expected at offset {self.at}, {len(self.data) - self.at} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def int32(self) -> int:
        value: int = struct.unpack("<i", self.take(4))[0]
        return value

    def count(self) -> int:
        size = self.int32()
        if not 0 <= size <= len(self.data) - self.at:
            raise FormatError("pyc", f"{size} elements before offset {self.at}")
        return size

    def value(self, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise FormatError("pyc", f"more than {MAX_DEPTH} values within each other")
        byte = self.take(1)[0]
        kind, marked = chr(byte & 0x7F), byte & 0x80
        slot = len(self.seen)
        if marked and kind != "r":
            self.seen.append(None)
        made = self.of(kind, depth)
        if marked and kind != "r":
            self.seen[slot] = made
        return made

    def of(self, kind: str, depth: int) -> Any:
        if kind in _SINGLE:
            return _SINGLE[kind]
        if kind in "aAu" or kind in "st":
            raw = self.take(self.count())
            return raw if kind == "s" else raw.decode("utf-8", "surrogatepass" if kind in "ut" else "replace")
        if kind in "zZ":
            return self.take(self.take(1)[0]).decode("latin-1")
        if kind == "i":
            return self.int32()
        if kind == "l":
            self.take(2 * abs(self.int32()))
            return 0
        if kind in "gy":
            self.take(8 if kind == "g" else 16)
            return 0.0
        if kind == "f":
            return self.take(self.take(1)[0])
        if kind in "()[<>":
            size = self.take(1)[0] if kind == ")" else self.count()
            return tuple(self.value(depth + 1) for _ in range(size))
        if kind == "{":
            return tuple(self.pairs(depth))
        if kind == ":":
            return tuple(self.value(depth + 1) for _ in range(3))
        if kind == "r":
            return self.reference()
        if kind == "c":
            return self.code(depth)
        raise FormatError("pyc", f"a value of kind {kind!a} before offset {self.at}")

    def reference(self) -> Any:
        index = self.int32()
        if not 0 <= index < len(self.seen):
            raise FormatError("pyc", f"reference {index} of {len(self.seen)}")
        return self.seen[index]

    def pairs(self, depth: int) -> Iterator[Any]:
        while (key := self.value(depth + 1)) is not _END:
            yield key
            yield self.value(depth + 1)

    def code(self, depth: int) -> Code:
        new = self.minor >= 11
        struct.unpack(f"<{_NEW if new else _OLD}", self.take(20 if new else 24))
        inner = depth + 1
        self.value(inner)  # the instructions
        consts, names = self.value(inner), self.value(inner)
        variables = self.value(inner)
        for _ in range(1 if new else 2):
            self.value(inner)  # kinds of locals; free and cell variables
        self.value(inner)  # the file's name
        name = self.value(inner)
        if new:
            name = self.value(inner)
        line = self.int32()
        for _ in range(2 if new else 1):
            self.value(inner)  # lines and exceptions
        if not (isinstance(consts, tuple) and isinstance(names, tuple) and isinstance(variables, tuple)):
            raise FormatError("pyc", "a code object whose constants or names are no tuples")
        return Code(consts, names, variables, name if isinstance(name, str) else "?", line)


_END: Final = object()
_SINGLE: Final[dict[str, Any]] = {"N": None, "F": False, "T": True, "S": StopIteration, ".": Ellipsis, "0": _END}


def read(data: bytes) -> Code:
    """The code of a `.pyc`. FormatError."""
    minor, _, _ = header(data)
    try:
        made = _Marshal(data, minor).value()
    except (UnicodeDecodeError, RecursionError) as error:
        raise FormatError("pyc", f"a text or depth that can't be: {error}") from None
    if not isinstance(made, Code):
        raise FormatError("pyc", "no code in it")
    return made


def codes(code: Code) -> Iterator[Code]:
    """A code object and all inside it."""
    stack = [code]
    while stack:
        one = stack.pop()
        yield one
        stack.extend(inner for inner in one.consts if isinstance(inner, Code))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("latin-1")
    elif isinstance(value, tuple):
        for one in value:
            yield from _texts(one)


def scan_bytecode(data: bytes, sink: Sink) -> None:
    """Adds what the code objects have. Their place is the function's first line and name. FormatError."""
    for one in codes(read(data)):
        names = {name for name in one.names if isinstance(name, str)}
        place = f"{one.line} in {one.name}"
        if "argv" in names:
            sink.add("argv", "sys.argv", place)
        if names & _ENVIRONMENT:
            sink.add("environment", "*", place)
        for called in sorted(names & _CALLS):
            sink.add("dynamic", f"{called} in {one.name}", place)
        _beside(one, place, sink)
        first = one.consts[0] if one.consts else None
        for value in one.consts:
            for text in _texts(value):
                if value is first and " " in text:
                    continue  # documentation
                _text(text, names, place, sink)
        for name in (*names, *(text for text in one.variables if isinstance(text, str))):
            if rule := strong(name):
                sink.add("parameter", name, place, rule)


def _beside(code: Code, place: str, sink: Sink) -> None:
    """Two constants that follow each other: put together they can be a name, or the second the first one's value."""
    texts = [one for value in code.consts for one in _texts(value)]
    for one, other in pairwise(texts):
        if not (len(one) <= 100 and len(other) <= 100 and _PLAIN.fullmatch(one + other)):
            continue
        if (rule := strong(one + other)) and not strong(one) and not strong(other) and "=" not in one + other:
            sink.add("text", one + other, place, rule)
        if rule := setting(one, other):
            sink.add("key", f"{one}={other!r}", place, rule)


def _text(text: str, names: set[str], place: str, sink: Sink) -> None:
    if not _PLAIN.fullmatch(text):
        return
    for name, rule in disguised(text):
        sink.add("text", name, place, rule)
    if names & _ENVIRONMENT and _VARIABLE.fullmatch(text):
        sink.add("environment", text, place, switch("environment", text))
    elif _FLAG.fullmatch(text) and (text.startswith("--") or names & _DECLARES):
        kind = "option" if names & _DECLARES else "argument"
        name = text if kind == "option" else text.partition("=")[0]
        sink.add(kind, name, place, switch(kind, name))
    elif rule := strong(text) or (switch("environment", text) if "_" in text and _VARIABLE.fullmatch(text) else ""):
        sink.add("text", text, place, rule)
