"""The tree listing: one spelling for one tree, and nothing that a root file system must not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core import tree
from ironbound.core.canonical import Digest, FormatError, canonical, sha256_hex
from ironbound.core.tree import (
    Entry,
    File,
    Folder,
    Link,
    differences,
    encode_tree,
    in_order,
    parse_tree,
    require_image,
    resolve,
    tree_digest,
)

EMPTY = sha256_hex(b"")
GUARD = sha256_hex(b"guard")
IMAGE: tuple[Entry, ...] = in_order([
    Folder(".ironbound", 0o555),
    File(".ironbound/guard", 0o555, 5, GUARD),
    Folder("bin", 0o555),
    File("bin/sh", 0o555, 0, EMPTY),
    Folder("dev", 0o555),
    Link("lib", "usr/lib"),
    Folder("proc", 0o555),
    Folder("tmp", 0o555),
])  # fmt: skip


def refused(entries: Sequence[Entry]) -> str:
    with pytest.raises(FormatError) as caught:
        encode_tree(entries)
    return caught.value.code


def test_a_listing_reads_back_as_it_was_written_and_its_digest_is_that_of_its_bytes() -> None:
    data = encode_tree(IMAGE)
    assert parse_tree(data) == IMAGE
    assert tree_digest(IMAGE) == sha256_hex(data)
    assert data.startswith(b'{"entries":[[".ironbound","d",365],[".ironbound/guard","f",365,5,"')
    assert data.endswith(b'],"format":"ironbound-tree/v1"}')


def test_an_empty_folder_has_a_listing() -> None:
    assert parse_tree(encode_tree(())) == ()


@pytest.mark.parametrize(
    "path",
    ["/etc", "..", "../etc", "a/../b", "a/./b", "./a", "a//b", "a/", "", "a\nb", "a\x00", "a\x85", "x" * 256, "\ud800"],
)
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    assert refused([Folder(path, 0o555)]) in ("tree-path", "tree-text")


def test_a_path_within_every_limit_is_taken_and_one_beyond_it_is_not() -> None:
    deep = ["/".join(["d"] * size) for size in range(1, tree.MAX_DEPTH + 1)]
    assert parse_tree(encode_tree([Folder(path, 0o555) for path in deep]))
    assert refused([Folder(path, 0o555) for path in [*deep, deep[-1] + "/d"]]) == "tree-path"
    assert parse_tree(encode_tree([Folder("x" * tree.MAX_NAME, 0o555)]))
    assert parse_tree(encode_tree([Link("a", "x" * tree.MAX_PATH)]))
    assert refused([Link("a", "x" * (tree.MAX_PATH + 1))]) == "tree-text"


@pytest.mark.parametrize("target", ["", "a\nb", "\udcff"])
def test_a_link_needs_a_readable_target(target: str) -> None:
    assert refused([Link("a", target)]) == "tree-text"


@pytest.mark.parametrize("target", ["/etc/shadow", "../../..", "nowhere", "a"])
def test_a_link_is_kept_as_it_is_written(target: str) -> None:
    assert parse_tree(encode_tree([Link("a", target)])) == (Link("a", target),)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o100644, -1])
def test_a_mode_with_more_than_permission_bits_is_refused(mode: int) -> None:
    assert refused([File("su", mode, 0, EMPTY)]) == "tree-mode"
    assert refused([Folder("tmp", mode)]) == "tree-mode"


def test_what_lies_in_no_listed_folder_is_refused() -> None:
    assert refused([File("a/b", 0o444, 0, EMPTY)]) == "tree-parent"
    assert refused([Link("a", "/etc"), File("a/passwd", 0o444, 0, EMPTY)]) == "tree-parent"
    assert refused([File("a", 0o444, 0, EMPTY), File("a/b", 0o444, 0, EMPTY)]) == "tree-parent"
    assert encode_tree([Folder("a", 0o555), File("a/b", 0o444, 0, EMPTY)])


def test_one_path_twice_or_out_of_order_is_refused() -> None:
    assert refused([Folder("a", 0o555), Folder("a", 0o555)]) == "tree-order"
    assert refused([Folder("b", 0o555), Folder("a", 0o555)]) == "tree-order"
    # Bytes decide, not code units: U+10000 lies behind U+FFFD.
    assert encode_tree([Folder("�", 0o555), Folder("\U00010000", 0o555)])
    assert refused([Folder("\U00010000", 0o555), Folder("�", 0o555)]) == "tree-order"


def test_sizes_and_counts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    big = File("a", 0o444, tree.MAX_FILE_SIZE, EMPTY)
    assert encode_tree([big, replace(big, path="b")])
    assert refused([replace(big, size=tree.MAX_FILE_SIZE + 1)]) == "tree-size"
    assert refused([replace(big, path=path) for path in "abc"]) == "tree-size"
    monkeypatch.setattr(tree, "MAX_ENTRIES", 2)
    two = [Folder("a", 0o555), Folder("b", 0o555)]
    data = encode_tree(two)
    monkeypatch.setattr(tree, "MAX_ENTRIES", 1)
    assert refused(two) == "tree-entries"
    with pytest.raises(FormatError, match="tree-entries"):
        parse_tree(data)
    monkeypatch.setattr(tree, "MAX_ENTRIES", 2)
    monkeypatch.setattr(tree, "MAX_LISTING", 60)
    assert refused(two) == "tree-size"
    with pytest.raises(FormatError, match="too-large"):
        parse_tree(data)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"entries": []},
        {"entries": {}, "format": tree.FORMAT},
        {"entries": [], "format": "ironbound-tree/v2"},
        {"entries": [], "format": tree.FORMAT, "more": 1},
        {"entries": [["a"]], "format": tree.FORMAT},
        {"entries": [["a", "d", True]], "format": tree.FORMAT},
        {"entries": [["a", "d", 365, 0]], "format": tree.FORMAT},
        {"entries": [["a", "c", 365]], "format": tree.FORMAT},
        {"entries": [["a", "f", 365, True, EMPTY]], "format": tree.FORMAT},
        {"entries": [["a", "f", 365, 0, "00"]], "format": tree.FORMAT},
        {"entries": [["a", "f", 365, 0, EMPTY.upper()]], "format": tree.FORMAT},
        {"entries": [["a", "l", 5]], "format": tree.FORMAT},
        {"entries": [[5, "d", 365]], "format": tree.FORMAT},
        {"entries": [None], "format": tree.FORMAT},
    ],
)
def test_a_document_of_another_shape_is_no_listing(document: object) -> None:
    with pytest.raises(FormatError):
        parse_tree(canonical(document))  # type: ignore[arg-type]


def test_another_spelling_of_the_same_listing_is_refused() -> None:
    data = encode_tree(IMAGE)
    for other in (data + b"\n", b" " + data, data.replace(b'"bin"', b'"\\u0062in"')):
        with pytest.raises(FormatError):
            parse_tree(other)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: encode_tree(IMAGE)[:-20] + tail))
def test_noise_either_parses_or_raises_the_one_error(data: bytes) -> None:
    try:
        entries = parse_tree(data)
    except FormatError:
        return
    assert encode_tree(entries) == data


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/"), min_size=1, max_size=4)


@given(st.dictionaries(NAMES.filter(lambda name: name not in (".", "..")), st.sampled_from("dfl"), max_size=8))
def test_every_tree_of_plain_names_goes_through_its_bytes_unchanged(kinds: dict[str, str]) -> None:
    made: dict[str, type[Entry]] = {"d": Folder, "f": File, "l": Link}
    entries = in_order(
        Folder(name, 0o755) if kind == "d" else Link(name, name) if kind == "l" else File(name, 0o644, 3, EMPTY)
        for name, kind in kinds.items()
    )
    again = parse_tree(encode_tree(entries))
    assert again == entries
    assert {one.path: type(one) for one in again} == {name: made[kind] for name, kind in kinds.items()}


def test_an_image_tells_its_guard() -> None:
    assert require_image(IMAGE) == GUARD


def replaced(path: str, *now: Entry) -> tuple[Entry, ...]:
    return in_order([*(one for one in IMAGE if one.path != path), *now])


@pytest.mark.parametrize(
    "entries",
    [
        replaced("dev"),
        replaced("proc", Link("proc", "/proc")),
        replaced("tmp", File("tmp", 0o444, 0, EMPTY)),
        replaced("tmp", Folder("tmp", 0o777)),
        replaced("tmp", Folder("tmp", 0o500)),
        replaced("", File("dev/null", 0o444, 0, EMPTY)),
        replaced(".ironbound/guard"),
        replaced(".ironbound/guard", Link(".ironbound/guard", "/bin/sh")),
        replaced(".ironbound/guard", File(".ironbound/guard", 0o444, 5, GUARD)),
        replaced("bin/sh", File("bin/sh", 0o755, 0, EMPTY)),
        replaced("bin", Folder("bin", 0o775)),
    ],
)
def test_an_image_without_its_guard_its_mount_points_or_its_write_protection_is_refused(
    entries: tuple[Entry, ...],
) -> None:
    with pytest.raises(FormatError, match="tree-image"):
        require_image(entries)


def test_differences_are_told_in_words() -> None:
    found = [one for one in IMAGE if one.path != "lib"] + [File("bin/x", 0o444, 0, Digest(EMPTY))]
    found = [replace(one, size=9) if isinstance(one, File) and one.path == "bin/sh" else one for one in found]
    assert differences(IMAGE, found) == ["changed: bin/sh", "added: bin/x", "missing: lib"]
    assert differences(IMAGE, IMAGE) == []
    assert differences(IMAGE, (), most=1)[1:] == ["and 7 more"]


LINKED: dict[str, Entry] = {
    one.path: one
    for one in [
        Link("bin", "usr/bin"),
        Folder("usr", 0o555),
        Folder("usr/bin", 0o555),
        File("usr/bin/python3.11", 0o555, 0, EMPTY),
        Link("usr/bin/python3", "python3.11"),
        Link("usr/bin/python", "/bin/../../../bin/./python3"),
        Link("loop", "loop2"),
        Link("loop2", "loop"),
        Link("out", "/etc/shadow"),
        Link("up", "../../usr"),
    ]
}


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/usr/bin/python3.11", "usr/bin/python3.11"),
        ("/bin/python3", "usr/bin/python3.11"),
        ("/bin/python", "usr/bin/python3.11"),
        ("/up/bin", "usr/bin"),
        ("/", ""),
        ("/..", ""),
        ("/usr/..", ""),
        ("/usr/bin/..", "usr"),
    ],
)
def test_a_path_leads_where_the_sandbox_will_follow_it(path: str, leads: str) -> None:
    found = resolve(LINKED, path)
    assert found is not None and found.path == leads


@pytest.mark.parametrize("path", ["/loop", "/out", "/usr/bin/python3.11/x", "/usr/bin/python3.11/..", "/nothing"])
def test_a_path_that_leads_nowhere_inside_is_nothing(path: str) -> None:
    assert resolve(LINKED, path) is None
