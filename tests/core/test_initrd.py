"""The initial RAM disk: what cpio reads is exactly the listing, and nothing of ours can be an image's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ironbound.core.canonical import FormatError, sha256_hex
from ironbound.core.initrd import OWN_FOLDER, header, image_members, own_members, padding
from ironbound.core.tree import Entry, File, Folder, Link, in_order

TEXT = b"hello\n"
TREE: tuple[Entry, ...] = in_order(
    [Folder("bin", 0o555), File("bin/greet", 0o555, len(TEXT), sha256_hex(TEXT)), Link("sh", "bin/greet")]
)


OWN = (("init", 0o500, b"x"),)


def archive(entries: tuple[Entry, ...] = TREE, own: tuple[tuple[str, int, bytes], ...] = OWN) -> bytes:
    parts = [part if isinstance(part, bytes) else TEXT + padding(part.size) for part in image_members(entries)]
    return b"".join(parts) + own_members(own, len(entries) + 1)


def members(data: bytes) -> dict[str, tuple[int, bytes]]:
    """A reader of its own, after the kernel's description of the format."""
    found, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701" and at % 4 == 0
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        begin = at + 110
        name = data[begin : begin + fields[11] - 1].decode()
        assert data[begin + fields[11] - 1] == 0
        begin = -(-(begin + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            assert begin == len(data)
            return found
        assert fields[2:4] == [0, 0] and fields[5] == 0 and name not in found
        found[name] = fields[1], data[begin : begin + fields[6]]
        at = -(-(begin + fields[6]) // 4) * 4


def test_the_archive_holds_the_listing_then_our_own_files_and_nothing_else() -> None:
    assert members(archive()) == {
        "bin": (0o40555, b""),
        "bin/greet": (0o100555, TEXT),
        "sh": (0o120777, b"bin/greet"),
        OWN_FOLDER: (0o40700, b""),
        f"{OWN_FOLDER}/init": (0o100500, b"x"),
    }


def test_the_same_image_gives_the_same_bytes() -> None:
    assert archive() == archive()
    assert archive() != archive(own=(("init", 0o500, b"y"),))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_another_program_reads_the_archive_alike(tmp_path: Path) -> None:
    done = subprocess.run(["cpio", "-it"], input=archive(), capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout.decode().split() == ["bin", "bin/greet", "sh", OWN_FOLDER, f"{OWN_FOLDER}/init"]


@pytest.mark.parametrize("path", [OWN_FOLDER, f"{OWN_FOLDER}/init"])
def test_an_image_that_holds_our_own_folder_is_refused(path: str) -> None:
    with pytest.raises(FormatError, match="may not hold"):
        list(image_members((Folder(path, 0o555),)))


def test_what_does_not_fit_in_a_header_is_refused() -> None:
    with pytest.raises(FormatError, match="too large"):
        header("big", 0o100444, 1 << 32, 1)
