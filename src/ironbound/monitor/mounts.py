"""The mounts of a process, as proc(5) lists them in mountinfo. Decides nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .proc import read_lines

_FLAGS: Final = frozenset({"ro", "nosuid", "nodev", "noexec"})
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """`source`: the folder in its file system that is mounted at `point`; `flags`: those that take power away;
    `options`: those of the file system."""

    source: str
    point: str
    kind: str
    flags: frozenset[str]
    options: tuple[str, ...]


def mounts_of(root: str) -> list[Mount] | None:
    """The mounts that the process with this /proc folder sees, None where nobody may look. Raises OSError."""
    try:
        lines = read_lines(f"{root}/mountinfo")
    except PermissionError:
        return None
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        words, behind = before.split(" "), after.split(" ")
        flags = frozenset(words[5].split(",")) & _FLAGS
        found.append(Mount(_plain(words[3]), _plain(words[4]), behind[0], flags, tuple(behind[2].split(","))))
    return found


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda one: chr(int(one[1], 8)), text)
