"""Requirements by version and hash, as `uv pip compile --generate-hashes` writes them.

Decides nothing; the installer holds each file to its hash. Standard library only: the build runs this beside hatchling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PIN = re.compile(r"([a-z0-9][a-z0-9._-]*)==([0-9A-Za-z.+!_-]+) \\")
_HASH = re.compile(r" {4}--hash=sha256:([0-9a-f]{64})( \\)?")
_VIA = re.compile(r" {4}# (?:via|via (?P<one>\S.*)|  (?P<more>\S.*))")


@dataclass(frozen=True, slots=True)
class Locked:
    """One requirement: the SHA-256 of each file that may be installed for it, and who requires it.

    `via` has names of requirements; `-r FILE` stands for what the file itself asks for.
    """

    name: str
    version: str
    sha256s: tuple[str, ...]
    via: tuple[str, ...]

    @property
    def purl(self) -> str:
        """Its package URL (purl-spec, type `pypi`)."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(text: str) -> tuple[Locked, ...]:
    """Every requirement of a lock file; ValueError for a line that is none of it, so that nothing is left out."""
    found: list[tuple[str, str, list[str], list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if pin := _PIN.fullmatch(line):
            found.append((pin[1], pin[2], [], []))
        elif (one := _HASH.fullmatch(line)) and found:
            found[-1][2].append(one[1])
        elif (via := _VIA.fullmatch(line)) and found:
            found[-1][3].extend(who for who in via.groups() if who)
        else:
            raise ValueError(f"line {number} is no part of a lock: {line[:80]!r}")
    for name, _, sums, _ in found:
        if not sums:
            raise ValueError(f"{name} has no hash")
    return tuple(Locked(name, version, tuple(sums), tuple(via)) for name, version, sums, via in found)
