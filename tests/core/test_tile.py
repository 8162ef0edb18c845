"""A log of any size is cut into files in one way, and each file has one path."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironbound.core import tile as t
from ironbound.core.canonical import FormatError
from ironbound.core.merkle import Tree, leaf_hash

tiles = st.builds(t.Tile, st.integers(-1, 4), st.integers(0, 2**22), st.integers(1, 256))


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (t.Tile(0, 0), "tile/0/000"),
        (t.Tile(0, 999, 1), "tile/0/999.p/1"),
        (t.Tile(1, 1000), "tile/1/x001/000"),
        (t.Tile(3, 1234067, 255), "tile/3/x001/x234/067.p/255"),
        (t.Tile(t.ENTRIES, 123456789), "tile/entries/x123/x456/789"),
    ],
)
def test_paths_are_those_of_the_specification(tile: t.Tile, path: str) -> None:
    assert tile.path == path and t.parse_tile_path(path) == tile
    if tile.level == t.ENTRIES:
        assert t.entries_path(tile.index, tile.width) == path
    else:
        assert t.tile_path(tile.level, tile.index, tile.width) == path


@given(tiles)
def test_a_path_gives_back_its_tile(tile: t.Tile) -> None:
    assert t.parse_tile_path(tile.path) == tile
    assert tile.end - tile.begin == tile.width


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000/000", "tile/0/x000/001", "tile/0/001/000", "tile/0/x001",
        "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/257", "tile/0/000.p/01", "tile/0/000.p/", "tile/0/000.p/1/",
        "tile/00/000", "tile/8/000", "tile/-1/000", "tile/x/000", "tile/Entries/000", "tile/entries/000/",
        "/tile/0/000", "tile//0/000", "tile/0/../000", "../tile/0/000", "tile/0/000\n", "tile/0/000 ", "tile/0/+00",
        "tile/0/\u0660\u0660\u0660",
        "tile/7/128", "tile/0/" + "x999/" * 6 + "999", "tile/0/" + "x001/" * 20 + "000", "", "checkpoint",
    ],
)  # fmt: skip
def test_another_spelling_of_a_path_is_refused(path: str) -> None:
    with pytest.raises(FormatError):
        t.parse_tile_path(path)


@given(st.text("tile/0123456789x.pentries-", max_size=40))
def test_any_text_is_a_path_or_a_format_error(path: str) -> None:
    try:
        assert t.parse_tile_path(path).path == path
    except FormatError:
        pass


@pytest.mark.parametrize(("level", "index", "width"), [(0, 0, 0), (0, 0, 257), (0, -1, 1), (8, 0, 1), (-2, 0, 1)])
def test_no_tile_is_empty_or_out_of_range(level: int, index: int, width: int) -> None:
    with pytest.raises(FormatError):
        t.tile_path(level, index, width)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=256))
def test_a_bundle_gives_back_its_entries_at_its_width_only(entries: list[bytes]) -> None:
    data = t.encode_entries(entries)
    assert t.decode_entries(data, len(entries)) == tuple(entries)
    for wrong, width in ((data[:-1], len(entries)), (data + b"\0", len(entries)), (data, len(entries) + 1)):
        with pytest.raises(FormatError):
            t.decode_entries(wrong, width)


@given(st.binary(max_size=300), st.integers(-1, 300))
def test_garbage_is_a_bundle_or_a_format_error(data: bytes, width: int) -> None:
    try:
        assert t.encode_entries(t.decode_entries(data, width)) == data
    except FormatError:
        pass
    try:
        assert b"".join(t.decode_tile(data, width)) == data
    except FormatError:
        pass


def test_the_largest_entry_fits_and_one_byte_more_does_not() -> None:
    largest = b"x" * t.MAX_ENTRY
    assert t.decode_entries(t.encode_entries([largest] * 256), 256) == (largest,) * 256
    with pytest.raises(FormatError) as caught:
        t.encode_entries([largest + b"x"])
    assert caught.value.code == "entry-too-large"
    for entries in ([], [b""] * 257):
        with pytest.raises(FormatError):
            t.encode_entries(entries)
    with pytest.raises(FormatError):
        t.decode_entries(b"\0" * (t.MAX_BUNDLE + 1), 256)


def test_a_complete_copy_holds_exactly_these_files() -> None:
    assert t.tiles_for(0) == ()
    assert [tile.path for tile in t.tiles_for(70000)[-4:]] == [
        "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1",
    ]  # fmt: skip
    assert [tile.path for tile in t.tiles_for(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert len(t.tiles_for(70000)) == 2 * 274 + 2 + 1


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 200_000), st.integers(0, 70_000))
def test_what_was_written_step_by_step_is_a_complete_copy(old: int, more: int) -> None:
    new = old + more
    written = {(one.level, one.index): one.width for one in t.tiles_for(old)}
    written |= {(one.level, one.index): one.width for one in t.tiles_between(old, new)}
    assert written == {(one.level, one.index): one.width for one in t.tiles_for(new)}
    # Nothing that did not change is written again.
    unchanged = set(t.tiles_for(old)) & set(t.tiles_between(old, new))
    assert unchanged == set()


def test_a_log_that_shrinks_has_no_plan() -> None:
    for old, new in ((2, 1), (-1, 1), (0, 2**63)):
        with pytest.raises(FormatError):
            t.tiles_between(old, new)


def test_the_hashes_of_a_tile_come_from_the_tree_at_that_level() -> None:
    tree = Tree()
    for number in range(600):
        tree.append(leaf_hash(number.to_bytes(2, "big")))
    for tile in t.tiles_for(600):
        if tile.level != t.ENTRIES:
            hashes = t.decode_tile(tree.nodes(8 * tile.level, tile.begin, tile.end), tile.width)
            assert len(hashes) == tile.width
    assert t.decode_tile(tree.nodes(8, 0, 2), 2)[0] == tree.root_at(256)
