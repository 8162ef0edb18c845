"""Tiles: how a log is cut into static files (C2SP tlog-tiles).

Decides the path, width and content of tiles and entry bundles, and which of them a log of some size has. It
does not decide whether their hashes are right: whoever reads them recomputes the root.

Rule 1: a tile holds 1 to 256 hashes; an empty one has no path. A full one never changes.
Rule 2: a path, and a bundle, has one spelling.
Rule 3: level ENTRIES (-1) stands for entry bundles, which are cut like level 0.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .canonical import FormatError, require_same
from .merkle import HASH_SIZE, MAX_SIZE

WIDTH = 256
"""Hashes in a full tile; entries in a full bundle."""
ENTRIES = -1
MAX_LEVEL = 7
"""A tile of level 8 would have more leaves below it than a log can have (2^63)."""
MAX_ENTRY = 65_535
"""Bytes of an entry."""
MAX_BUNDLE = WIDTH * (2 + MAX_ENTRY)
"""Bytes of an entry bundle."""
MAX_PATH = 64
"""Characters of a path."""

_PATH = re.compile(r"tile/(entries|[0-7])/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A tile's place: level (ENTRIES for a bundle), index within the level, and width (1 to 256)."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not ENTRIES <= self.level <= MAX_LEVEL:
            raise FormatError("tile-level", f"expected a level up to {MAX_LEVEL}, got {self.level}")
        if not 1 <= self.width <= WIDTH:
            raise FormatError("tile-width", f"expected a width from 1 to {WIDTH}, got {self.width}")
        if self.index < 0 or self.end > MAX_SIZE >> 8 * max(self.level, 0):
            raise FormatError("tile-index", f"no log is large enough for index {self.index}")

    @property
    def begin(self) -> int:
        """The first hash of the tile, counted in hashes of its level (for entries: the first entry)."""
        return self.index * WIDTH

    @property
    def end(self) -> int:
        """One past the last hash of the tile, counted likewise."""
        return self.index * WIDTH + self.width

    @property
    def path(self) -> str:
        """The tile's file, relative to the log's root."""
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"tile/{level}/{number}" + ("" if self.width == WIDTH else f".p/{self.width}")


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """`tile/<level>/<index>[.p/<width>]`, as in tile/0/x001/234.p/5."""
    return Tile(level, index, width).path


def entries_path(index: int, width: int = WIDTH) -> str:
    """`tile/entries/<index>[.p/<width>]`."""
    return Tile(ENTRIES, index, width).path


def parse_tile_path(path: str) -> Tile:
    """The tile that a path names; refuses every other spelling."""
    match = _PATH.fullmatch(path) if len(path) <= MAX_PATH else None
    if match is None:
        raise FormatError("tile-path", f"not a tile's path: {path[:80]!a}")
    level, number, width = match.groups()
    tile = Tile(
        ENTRIES if level == "entries" else int(level),
        int(number.replace("x", "").replace("/", "")),
        WIDTH if width is None else int(width),
    )
    require_same(tile.path, path, "path")
    return tile


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: each entry after its length as a 16-bit big-endian number."""
    if not 1 <= len(entries) <= WIDTH:
        raise FormatError("bundle-width", f"expected 1 to {WIDTH} entries, got {len(entries)}")
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise FormatError("entry-too-large", f"expected at most {MAX_ENTRY} bytes, got {len(entry)}")
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def decode_entries(data: bytes, width: int) -> tuple[bytes, ...]:
    """The `width` entries of a bundle, which must hold them and nothing more."""
    if not 1 <= width <= WIDTH:
        raise FormatError("bundle-width", f"expected a width from 1 to {WIDTH}, got {width}")
    if len(data) > MAX_BUNDLE:
        raise FormatError("too-large", f"expected at most {MAX_BUNDLE} bytes, got {len(data)}")
    entries: list[bytes] = []
    position = 0
    for _ in range(width):
        start = position + 2
        position = start + int.from_bytes(data[start - 2 : start], "big")
        if position > len(data):
            raise FormatError("bundle-shape", f"expected {width} entries, the data ends within entry {len(entries)}")
        entries.append(data[start:position])
    if position != len(data):
        raise FormatError("bundle-shape", f"{len(data) - position} bytes follow the last of {width} entries")
    return tuple(entries)


def decode_tile(data: bytes, width: int) -> tuple[bytes, ...]:
    """The `width` hashes of a tile."""
    if not 1 <= width <= WIDTH or len(data) != width * HASH_SIZE:
        raise FormatError("tile-shape", f"expected {width} hashes of {HASH_SIZE} bytes, got {len(data)} bytes")
    return tuple(data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE))


def tiles_between(old_size: int, new_size: int) -> tuple[Tile, ...]:
    """The files that must be written when a log grows from old_size to new_size, bundles first.

    A tile that grew appears once, at its new width; the file of its old width may stay or go.
    """
    if not 0 <= old_size <= new_size <= MAX_SIZE:
        raise FormatError("tile-size", f"expected sizes that grow, got {old_size} and {new_size}")
    tiles: list[Tile] = []
    for level in range(ENTRIES, MAX_LEVEL + 1):
        shift = 8 * max(level, 0)
        old, new = old_size >> shift, new_size >> shift
        if old == new:
            continue
        first, full = old // WIDTH, new // WIDTH
        tiles.extend(Tile(level, index) for index in range(first, full))
        if new % WIDTH:
            tiles.append(Tile(level, full, new % WIDTH))
    return tuple(tiles)


def tiles_for(size: int) -> tuple[Tile, ...]:
    """All files of a complete copy of a log of this size, each at its full or its last width."""
    return tiles_between(0, size)
