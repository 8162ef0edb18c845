"""The closed list: every item of the surface that a product may have, and the switches that it explains.

Decides which items of a scan a list names. A list is JSON (`ironbound-surface-list/v1`):

    {"format": …, "product": NAME, "below": [PREFIX, …],
     "surface": {FILE: {KIND: [NAME, …]}},
     "switches": {FILE or FOLDER/: {"names": [NAME, …], "why": SENTENCE}}}

`below` says what the list is about: files whose paths, from the folder that imports start in, begin so; `""` is all.
Whether the list itself is to be believed (a signature on it) is for whoever reads it.

Rule 1: an item is listed by file, kind and name; a line may move, an item may not appear elsewhere.
Rule 2: a switch is explained only by a sentence. A list without one for it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from ironbound.core.canonical import FormatError, parse_json

from .scan_found import SURFACE, Found

FORMAT: Final = "ironbound-surface-list/v1"
#: Bytes of a list.
MAX_LIST: Final = 64 << 20
SHIPPED: Final = "surface-list.json"
"""This release's own list, in this folder."""

Item = tuple[str, str, str]
"""File, kind, name."""


@dataclass(frozen=True, slots=True)
class SurfaceList:
    """A list that was read. `switches`: names and why, by file or, with a slash behind, by folder."""

    product: str
    below: tuple[str, ...]
    items: frozenset[Item]
    switches: Mapping[str, tuple[frozenset[str], str]]

    def covers(self, where: str) -> bool:
        """Whether the list is about this file."""
        return any(where.startswith(prefix) for prefix in self.below)

    def why(self, found: Found) -> str | None:
        """Why a switch stands where it does; None if the list doesn't say."""
        for place, (names, why) in self.switches.items():
            if found.name in names and (
                found.where == place or (place.endswith("/") and found.where.startswith(place))
            ):
                return why
        return None


def item(found: Found) -> Item:
    """What a list names of something found."""
    return found.where, found.kind, found.name


def items(found: Iterable[Found]) -> set[Item]:
    """The items of the surface among what was found."""
    return {item(one) for one in found if one.kind in SURFACE}


def parse_list(data: bytes) -> SurfaceList:
    """A list from its bytes. FormatError (`surface-list`, or JSON's own codes)."""
    document: Any = parse_json(data, limit=MAX_LIST)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FormatError("surface-list", f"expected a list of the format {FORMAT}")
    if set(document) != {"format", "product", "below", "surface", "switches"}:
        raise FormatError("surface-list", "expected the members format, product, below, surface and switches")
    below, surface, switches = document["below"], document["surface"], document["switches"]
    if not isinstance(document["product"], str) or not _texts(below) or not below:
        raise FormatError("surface-list", "product: expected a text; below: expected texts")
    if not isinstance(surface, dict) or not isinstance(switches, dict):
        raise FormatError("surface-list", "surface and switches: expected objects")
    named: set[Item] = set()
    for file, kinds in surface.items():
        if not isinstance(kinds, dict) or not all(kind in SURFACE and _texts(names) for kind, names in kinds.items()):
            raise FormatError("surface-list", f"{file[:80]!a}: expected lists of names by kind: {', '.join(SURFACE)}")
        named |= {(file, kind, name) for kind, names in kinds.items() for name in names}
    return SurfaceList(document["product"], tuple(below), frozenset(named), _switches(switches))


def is_list(data: bytes) -> bool:
    """Whether bytes are a list, which names things and is read by this scan only."""
    try:
        parse_list(data)
    except FormatError:
        return False
    return True


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _switches(document: dict[str, Any]) -> dict[str, tuple[frozenset[str], str]]:
    read = {}
    for place, said in document.items():
        if not isinstance(said, dict) or set(said) != {"names", "why"} or not _texts(said["names"]):
            raise FormatError("surface-list", f"switches: {place[:80]!a}: expected names and why")
        if not isinstance(said["why"], str) or len(said["why"].split()) < 3:
            raise FormatError("surface-list", f"switches: {place[:80]!a}: expected a sentence that says why")
        read[place] = frozenset(said["names"]), said["why"]
    return read


def write_list(product: str, below: Iterable[str], found: Iterable[Found], before: bytes | None = None) -> bytes:
    """The list of what was found. The switches are those of the list before it, which people wrote."""
    prefixes = sorted(below)
    surface: dict[str, dict[str, list[str]]] = {}
    for file, kind, name in sorted(items(found)):
        if any(file.startswith(prefix) for prefix in prefixes):
            surface.setdefault(file, {}).setdefault(kind, []).append(name)
    switches: Any = {}
    if before is not None:
        parse_list(before)
        kept: Any = parse_json(before, limit=MAX_LIST)
        switches = kept["switches"]
    document = {"format": FORMAT, "product": product, "below": prefixes, "surface": surface, "switches": switches}
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def shipped_list() -> bytes:
    """The list that this release ships of itself."""
    return (resources.files("ironbound") / "supply" / SHIPPED).read_bytes()
