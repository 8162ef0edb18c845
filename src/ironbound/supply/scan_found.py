"""What a scan finds, as records: kinds, places and the two ways in which something can be found.

Decides nothing. A `Found` with a rule has a name that bypass switches had elsewhere (`scan_words.py`); one without is
an item of the surface, which the closed list (`scan_list.py`) names or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SURFACE: Final = {
    "option": "an option that a command line declares or compares with",
    "argument": "a text in the form of an option, for this program or for one that it starts",
    "argv": "a read of the command line itself",
    "environment": "a read of an environment variable; * is a use of all of them",
    "key": "a key that is read from a configuration, or stands in one",
    "route": "a path that is served",
    "verb": "a name that is dispatched on",
    "entry": "an entry point",
    "dynamic": "a lookup, load or execution of what is known only when it runs",
    "hook": "code or paths that the interpreter or the loader takes in by itself",
    "import": "what a binary takes from outside",
    "export": "what a Wasm module offers",
}
"""The kinds of surface, which the closed list closes."""
NAMED: Final = {
    "parameter": "a parameter, field or keyword",
    "text": "a text in code, bytecode or a binary",
}
"""The kinds that count only if their name or value has a rule."""


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """`where`: the file's path below the folder that imports start in, or below what was scanned. `file`: its path for
    people. `at`: a line, an offset (0x…) or a symbol. `rule`: the bypass rule that its name or value meets, or none.
    """

    where: str
    kind: str
    name: str
    file: str
    at: str
    rule: str = ""

    @property
    def place(self) -> str:
        """file:line, file@offset or file (symbol)."""
        if not self.at:
            return self.file
        if self.at.startswith("0x"):
            return f"{self.file}@{self.at}"
        return f"{self.file}:{self.at}" if self.at[0].isdigit() else f"{self.file} ({self.at})"


@dataclass(frozen=True, slots=True)
class Unread:
    """A file, or a part of one, that was not looked at, and why. What was not read is never counted as clean."""

    file: str
    why: str


@dataclass(frozen=True, slots=True)
class Binary:
    """An ELF file's hardening: True, False, or None where it doesn't apply."""

    file: str
    pie: bool | None
    no_exec_stack: bool
    relro: str
    canary: bool
    fortify: bool
    rpath: str
    stripped: bool


class Sink:
    """Collects what is found in one file."""

    __slots__ = ("binaries", "file", "found", "unread", "where")

    def __init__(self, file: str, where: str) -> None:
        self.file, self.where = file, where
        self.found: set[Found] = set()
        self.unread: list[Unread] = []
        self.binaries: list[Binary] = []

    def add(self, kind: str, name: str, at: object, rule: str = "") -> None:
        """Notes one item; `at` is a line, an offset as 0x… or a symbol."""
        self.found.add(Found(self.where, kind, name[:200], self.file, str(at), rule))

    def skip(self, why: str) -> None:
        """Notes that something was not read."""
        self.unread.append(Unread(self.file, why))
