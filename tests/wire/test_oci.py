"""OCI image layouts: what a layout says is what is loaded, and a hostile one ends with nothing written."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ironbound.core.oci import ImageConfig
from ironbound.core.tree import File, Folder, Link
from ironbound.wire import layers as layers_module
from ironbound.wire import oci
from ironbound.wire.deployment import Deployment
from ironbound.wire.image_load import Loaded, load_directory
from ironbound.wire.images import ImageRefused, Images
from ironbound.wire.layers import Overlay
from ironbound.wire.oci import is_layout, load_layout

from .conftest import GUARD
from .layout import AMD64, GZIP, INDEX, MANIFEST, TAR, Layout, Member, folder, hard, link, member, sha256, tar

OWN = {".ironbound", ".ironbound/guard", "dev", "proc", "tmp"}
BASE = [folder("./"), folder("./bin/"), member("./bin/agent", b"agent", mode=0o755), link("./sh", "bin/agent")]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "layout").mkdir()
    return Layout(tmp_path / "layout")


def loaded(deployment: Deployment, path: Path, tag: str | None = None) -> Loaded:
    return load_layout(path, deployment, GUARD, tag)[0]


def content(deployment: Deployment, path: Path, tag: str | None = None) -> dict[str, Any]:
    """Path → bytes of a file, target of a link, None of a folder; of what the layout itself brought."""
    image = loaded(deployment, path, tag)
    assert Images(deployment).verify(image.digest)
    place = deployment.root / "images" / image.digest
    return {
        one.path: None if isinstance(one, Folder) else one.target if isinstance(one, Link) else
        (place / one.path).read_bytes()
        for one in image.entries
        if one.path not in OWN
    }  # fmt: skip


def refused(deployment: Deployment, path: Path, says: str, tag: str | None = None) -> ImageRefused:
    with pytest.raises(ImageRefused, match=says) as caught:
        loaded(deployment, path, tag)
    assert list((deployment.root / "images").iterdir()) == []
    return caught.value


# What a layout says


@pytest.mark.parametrize("compressed", [True, False])
def test_a_layout_becomes_the_tree_of_its_layers(deployment: Deployment, layout: Layout, compressed: bool) -> None:
    layout.compressed = compressed
    layout.wish = {"Entrypoint": ["/bin/agent"], "Cmd": ["-v"], "Env": ["A=1"], "WorkingDir": "/bin"}
    path = layout.of(BASE, [member("etc/late", b"late")])
    image, config = load_layout(path, deployment, GUARD)
    assert config == ImageConfig(config.diff_ids, ("/bin/agent", "-v"), ("A=1",), "/bin")
    assert content(deployment, path) == {
        "bin": None,
        "bin/agent": b"agent",
        "etc": None,
        "etc/late": b"late",
        "sh": "bin/agent",
    }
    modes = {one.path: one.mode for one in image.entries if isinstance(one, File)}
    assert modes == {".ironbound/guard": 0o555, "bin/agent": 0o555, "etc/late": 0o444}
    assert is_layout(path) and not is_layout(path / "blobs")


def test_the_same_files_as_a_folder_and_as_a_layout_are_the_same_image(
    deployment: Deployment, layout: Layout, source: Path
) -> None:
    members: list[Member] = [
        folder("bin"), member("bin/agent", b"#!/bin/sh\n" * 1000, mode=0o700), folder("etc"), member("etc/empty"),
        link("etc/outside", "/../../etc/passwd"), link("lib", "usr/lib"), member("usr/lib/libc.so", b"library"),
    ]  # fmt: skip
    assert loaded(deployment, layout.of(members)).digest == load_directory(source, deployment, GUARD).digest


OVERLAYS: dict[str, tuple[list[Sequence[Member]], dict[str, Any]]] = {
    "a file over a file": ([[member("a", b"1")], [member("a", b"2")]], {"a": b"2"}),
    "a whiteout removes a file": ([[member("d/a"), member("d/b")], [member("d/.wh.a")]], {"d": None, "d/b": b""}),
    "a whiteout removes a folder": ([[member("d/e/a"), member("b")], [member(".wh.d")]], {"b": b""}),
    "a whiteout of nothing is nothing": ([[member("b")], [member(".wh.d")]], {"b": b""}),
    "a whiteout keeps what its own layer brings, said before": (
        [[member("d/old")], [member("d/new"), member(".wh.d")]],
        {"d": None, "d/new": b""},
    ),
    "a whiteout keeps what its own layer brings, said after": (
        [[member("d/old")], [member(".wh.d"), member("d/new")]],
        {"d": None, "d/new": b""},
    ),
    "an opaque folder, said first": (
        [[member("d/old/x")], [folder("d"), member("d/.wh..wh..opq"), member("d/new")]],
        {"d": None, "d/new": b""},
    ),
    "an opaque folder, said last": (
        [[member("d/old/x")], [folder("d"), member("d/new"), member("d/.wh..wh..opq")]],
        {"d": None, "d/new": b""},
    ),
    "an opaque folder and what comes later": (
        [[member("d/old")], [member("d/.wh..wh..opq")], [member("d/late")]],
        {"d": None, "d/late": b""},
    ),
    "a name that begins with a dot, removed": ([[member(".cfg"), member("b")], [member(".wh..cfg")]], {"b": b""}),
    "a folder over a folder keeps what is in it": ([[member("d/a")], [folder("d")]], {"d": None, "d/a": b""}),
    "a folder in the place of a file": ([[member("d", b"x")], [folder("d"), member("d/a")]], {"d": None, "d/a": b""}),
    "a file in the place of a folder": ([[member("d/a")], [member("d", b"x")]], {"d": b"x"}),
    "a link in the place of a folder": ([[member("d/a")], [link("d", "/etc")]], {"d": "/etc"}),
    "a hard link in its layer": ([[member("a", b"1"), hard("b", "a")]], {"a": b"1", "b": b"1"}),
    "a hard link to a lower layer": (
        [[member("d/a", b"1")], [hard("b", "./d/a")]],
        {"d": None, "d/a": b"1", "b": b"1"},
    ),
    "a hard link to a symbolic link": ([[link("a", "x"), hard("b", "a")]], {"a": "x", "b": "x"}),
    "a hard link whose other name changes later": (
        [[member("a", b"1"), hard("b", "a")], [member("a", b"2")]],
        {"a": b"2", "b": b"1"},
    ),
    "one name twice in a layer": ([[member("a", b"1"), member("a", b"2")]], {"a": b"2"}),
    "long names": ([[member("x" * 200 + "/" + "y" * 200, b"1")]], {"x" * 200: None, "x" * 200 + "/" + "y" * 200: b"1"}),
    "a link out of the image": ([[link("a", "../../../etc/passwd")]], {"a": "../../../etc/passwd"}),
    "a layer of nothing": ([[member("a")], []], {"a": b""}),
}  # fmt: skip


@pytest.mark.parametrize("name", OVERLAYS)
def test_layers_lie_over_each_other_as_the_specification_says(
    deployment: Deployment, layout: Layout, name: str
) -> None:
    members, expected = OVERLAYS[name]
    assert content(deployment, layout.of(*members)) == expected


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_common_kind_of_archive_is_read(deployment: Deployment, layout: Layout, form: int) -> None:
    names = ["a", "d/" * 20 + "b"] if form == tarfile.USTAR_FORMAT else ["a", "é" * 60, "d/" * 60 + "b"]
    found = content(deployment, layout.of(tar([member(name, name.encode()) for name in names], form)))
    assert {path: data for path, data in found.items() if data is not None} == {one: one.encode() for one in names}


def test_setuid_programs_and_file_capabilities_lose_them_and_are_named(deployment: Deployment, layout: Layout) -> None:
    ping, data = member("bin/ping", b"ping", mode=0o755)
    ping.pax_headers = {"SCHILY.xattr.security.capability": "x"}
    path = layout.of([member("bin/su", b"su", mode=0o4755), hard("bin/su2", "bin/su"), (ping, data), member("bin/ls")])
    image = loaded(deployment, path)
    assert image.dropped == ("bin/ping", "bin/su", "bin/su2")
    for one in (deployment.root / "images" / image.digest).rglob("*"):
        assert not one.lstat().st_mode & 0o7000


# Hostile archives, each beside the one that is not


def raw_header(**changes: Any) -> bytes:
    """One member's header with a field that the library would not write."""
    info, _ = member("a", b"x" * 10)
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    places = {"size": (124, 12), "mode": (100, 8), "type": (156, 1), "name": (0, 100)}
    for field, value in changes.items():
        at, size = places[field]
        header[at : at + size] = bytes(value).ljust(size, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


HOSTILE: dict[str, tuple[list[Sequence[Member] | bytes], str]] = {
    "up and out": ([[member("../../etc/passwd")]], "relative path"),
    "up in the middle": ([[member("a/../../etc/passwd")]], "relative path"),
    "from the root": ([[member("/etc/passwd")]], "relative path"),
    "from the root after a dot": ([[member("a//b")]], "relative path"),
    "through a link of its layer": ([[link("a", "/etc"), member("a/passwd")]], "no folder"),
    "through a link of a lower layer": ([[link("a", "/etc")], [member("a/passwd")]], "no folder"),
    "through a relative link": ([[folder("etc"), link("a", "etc"), member("a/passwd")]], "no folder"),
    "a folder through a link": ([[link("a", "/etc"), folder("a/b")]], "no folder"),
    "through a hard link to a link": ([[link("a", "/etc"), hard("b", "a"), member("b/passwd")]], "no folder"),
    "below a file": ([[member("a"), member("a/b")]], "no folder"),
    "a whiteout through a link": ([[link("a", "/etc")], [member("a/.wh.passwd")]], "no folder"),
    "a hard link out": ([[hard("a", "/etc/passwd")]], "not in the image"),
    "a hard link up": ([[hard("a", "../../etc/passwd")]], "not in the image"),
    "a hard link through a link": ([[link("d", "/etc"), hard("a", "d/passwd")]], "not in the image"),
    "a hard link to a folder": ([[folder("d"), hard("a", "d")]], "to a folder"),
    "a hard link before its file": ([[hard("a", "b"), member("b")]], "not in the image"),
    "a hard link to itself": ([[hard("a", "a")]], "not in the image"),
    "a device": ([[member("mem", kind=tarfile.CHRTYPE)]], "a character device"),
    "a disk": ([[member("sda", kind=tarfile.BLKTYPE)]], "a block device"),
    "a pipe": ([[member("p", kind=tarfile.FIFOTYPE)]], "a pipe"),
    "a kind nobody knows": ([[member("p", kind=b"Z")]], "not unpacked"),
    "a whiteout of the folder itself": ([[member("d/a")], [member("d/.wh..")]], "no whiteout"),
    "a whiteout of the folder above": ([[member("d/a")], [member("d/.wh...")]], "no whiteout"),
    "a whiteout of nothing named": ([[member("d/a")], [member("d/.wh.")]], "no whiteout"),
    "a whiteout of another kind": ([[member("d/a")], [member("d/.wh..wh.plnk")]], "no whiteout"),
    "a whiteout that is a folder": ([[member("d/a")], [folder("d/.wh.a")]], "no whiteout"),
    "the root as a file": ([[member("./")]], "no name of a member"),
    "a control character": ([[member("a\x1b[2J")]], "control character"),
    "a link with a control character": ([[link("a", "x\ny")]], "control character"),
    "our guard replaced": ([[member(".ironbound/guard", b"evil", mode=0o755)]], "Ironbound's own"),
    "our guard's folder a link": ([[link(".ironbound", "/evil")]], "Ironbound's own"),
    "a file where we mount": ([[member("proc/version", b"mine")]], "mounts its own proc"),
    "a link where we mount": ([[link("dev", "/dev")]], "mounts its own dev"),
    "no archive": ([b"hello" * 500], "no tar archive"),
    "nothing": ([b""], "no tar archive"),
    "cut off within a file": ([tar([member("a", b"x" * 5000)])[:1536]], "beyond the layer"),
    "cut off within a header": ([tar([member("a", b"x"), member("b")])[: 1024 + 100]], "behind its last member"),
    "goes on after its end": ([tar([member("a")]) + tar([member("b")])], "behind its last member"),
    "a damaged second header": (
        [tar([member("a"), member("b")]).replace(b"b\0\0\0", b"c\0\0\0", 1)],
        "behind its last member",
    ),
    "a negative size": ([raw_header(size=b"\xff" * 12) + b"x" * 512], "beyond the layer"),
    "a size beyond everything": ([raw_header(size=b"\x80" + b"\x7f" * 11) + b"x" * 512], "layer"),
    "a size beyond the layer": ([raw_header(size=b"00000010000\0") + b"x" * 512], "beyond the layer"),
    "an extended header of two gigabytes": ([raw_header(type=b"x", size=b"17777777777\0") + b"x" * 512], "header of"),
    "an extended header of negative size": ([raw_header(type=b"x", size=b"\xff" * 12) + b"x" * 512], "layer"),
    "a long name of two gigabytes": ([raw_header(type=b"L", size=b"17777777777\0") + b"x" * 512], "header of"),
    "extended headers without end": ([(raw_header(type=b"x", size=b"0" * 11)) * 3000], "no tar archive"),
    "a sparse file": ([raw_header(type=b"S") + b"x" * 512], "not unpacked|no tar archive"),
    "a name that is not UTF-8": ([raw_header(name=b"\xff\xfe") + b"x" * 512], "no tar archive"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_layer_is_refused_and_nothing_is_written(deployment: Deployment, layout: Layout, name: str) -> None:
    members, says = HOSTILE[name]
    before = os.listdir("/etc")
    refused(deployment, layout.of(*members), says)
    assert os.listdir("/etc") == before


def test_what_looks_like_the_hostile_layers_but_is_harmless_is_loaded(deployment: Deployment, layout: Layout) -> None:
    path = layout.of(
        tar([
            folder("etc"), member("etc/passwd"), link("a", "/etc"), member("..a"), member("a..b/...", b"dots"),
            hard("b", "etc/passwd"), folder("proc"), folder("dev"), folder("tmp"), folder(".ironbound"),
            member(".ironbound/guard", GUARD, mode=0o755), member(".whatever"), member("x.wh.y"),
        ]) + bytes(10240),
        raw_header(size=b"00000000012\0") + b"x" * 10 + bytes(502 + 1024),
    )  # fmt: skip
    found = content(deployment, path)
    assert set(found) == {"etc", "etc/passwd", "a", "..a", "a..b", "a..b/...", "b", ".whatever", "x.wh.y"}
    assert found["a"] == b"x" * 10


# Limits


def bomb(size: int) -> Sequence[Member]:
    return [member(f"zeros{number}", bytes(size // 4)) for number in range(4)]


def test_a_bomb_is_refused_at_the_limit(
    deployment: Deployment, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout.of(bomb(4 << 20), bomb(4 << 20))
    assert sum(layout.blob_path(one).stat().st_size for one in layout.layers) < 1 << 20
    monkeypatch.setattr(oci, "MAX_UNPACKED", 7 << 20)
    refused(deployment, path, "unpack to more than")
    monkeypatch.setattr(oci, "MAX_UNPACKED", 9 << 20)
    assert loaded(deployment, path).fresh


def test_an_image_with_too_many_members_is_refused(
    deployment: Deployment, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout.of([member("a")] * 3, [member("a")] * 3)
    monkeypatch.setattr(layers_module, "MAX_MEMBERS", 5)
    refused(deployment, path, "more than 5 members")
    monkeypatch.setattr(layers_module, "MAX_MEMBERS", 6)
    assert loaded(deployment, path).fresh


# Documents and blobs


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_in_any_blob_is_refused(deployment: Deployment, layout: Layout) -> None:
    path = layout.of(BASE, [member("b")])
    blobs = sorted((path / "blobs" / "sha256").iterdir())
    assert len(blobs) == 4
    for blob in blobs:
        whole = blob.read_bytes()
        flip(blob)
        refused(deployment, path, "not what its digest and size say")
        blob.write_bytes(whole + b"\0")
        refused(deployment, path, "not what its digest and size say")
        blob.write_bytes(whole)
    assert loaded(deployment, path).fresh


def test_a_layer_with_the_right_digest_and_other_content_than_the_configuration_says_is_refused(
    deployment: Deployment, layout: Layout
) -> None:
    def other(config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][0] = sha256(tar([member("harmless")]))

    layout.change["config"] = other
    refused(deployment, layout.of(BASE), "other bytes than the image's configuration says")


def test_a_broken_gzip_stream_is_refused_though_its_digest_is_right(deployment: Deployment, layout: Layout) -> None:
    whole = tar(BASE)
    for data in (gzip.compress(whole)[:-9], b"\x1f\x8b" + bytes(30), whole, gzip.compress(whole) + b"tail"):
        blob = layout.blob(data, GZIP)
        layout.change["manifest"] = lambda manifest, blob=blob: manifest.update(layers=[blob])  # type: ignore[misc]
        refused(deployment, layout.of(BASE), "no whole gzip stream")


@pytest.mark.parametrize("where", ["index.json", "oci-layout", "blobs", "blobs/sha256", "a blob"])
def test_no_link_in_a_layout_is_followed(deployment: Deployment, layout: Layout, tmp_path: Path, where: str) -> None:
    path = layout.of(BASE)
    place = layout.blob_path(layout.config) if where == "a blob" else path / where
    place.rename(tmp_path / "away")
    place.symlink_to(tmp_path / "away")
    refused(deployment, path, "can't be read")


def test_a_pipe_in_the_place_of_a_blob_does_not_hang(deployment: Deployment, layout: Layout) -> None:
    path = layout.of(BASE)
    blob = layout.blob_path(layout.config)
    blob.unlink()
    os.mkfifo(blob)
    refused(deployment, path, "no regular file")


def put(path: list[str | int], value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of a document: the value at that path, or its removal."""

    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        if value is ...:
            del document[path[-1]]
        else:
            document[path[-1]] = value

    return change


DOCUMENTS: list[tuple[str, list[str | int], Any, str]] = [
    ("oci-layout", ["imageLayoutVersion"], "2.0.0", "version 1.0.0"),
    ("oci-layout", ["imageLayoutVersion"], ..., "version 1.0.0"),
    ("index", ["schemaVersion"], 1, "schemaVersion 2"),
    ("index", ["mediaType"], MANIFEST, "not a document of this kind"),
    ("index", ["manifests"], [], "expected 1 to"),
    ("index", ["manifests"], {}, "expected 1 to"),
    ("index", ["manifests", 0], "x", "expected an object"),
    ("index", ["manifests", 0, "mediaType"], "text/plain", "no image for"),
    ("index", ["manifests", 0, "platform"], {"os": "linux", "architecture": "arm64"}, "there: linux/arm64"),
    ("index", ["manifests", 0, "platform"], {"os": "linux"}, "expected a string"),
    ("index", ["manifests", 0, "digest"], "sha256:" + "A" * 64, "lower-case"),
    ("index", ["manifests", 0, "digest"], "sha256:../../../etc/passwd", "lower-case"),
    ("index", ["manifests", 0, "digest"], "sha512:" + "0" * 128, "only sha256"),
    ("index", ["manifests", 0, "size"], -1, "expected a size"),
    ("index", ["manifests", 0, "size"], True, "expected a size"),
    ("index", ["manifests", 0, "size"], 1, "not what its digest and size say"),
    ("index", ["manifests", 0, "annotations"], [1], "expected an object"),
    ("manifest", ["mediaType"], INDEX, "not a document of this kind"),
    ("manifest", ["layers"], [], "expected 1 to"),
    ("manifest", ["config", "mediaType"], "application/vnd.oci.empty.v1+json", "not an image to run"),
    ("manifest", ["layers", 0, "mediaType"], TAR + "+zstd", r"tar\+zstd"),
    ("manifest", ["layers", 0, "mediaType"], "application/x-encrypted", "not unpacked"),
    ("manifest", ["layers", 0, "mediaType"], TAR, "other bytes"),
    ("config", ["architecture"], "arm64", "linux/arm64"),
    ("config", ["os"], ..., "linux/amd64"),
    ("config", ["rootfs"], ..., "expected an object"),
    ("config", ["rootfs", "type"], "virtual", "the type layers"),
    ("config", ["rootfs", "diff_ids"], [], "diff_ids"),
    ("config", ["rootfs", "diff_ids"], [sha256(b"")] * 2, "1 layers, but 2 diff_ids"),
    ("config", ["config", "Cmd"], "sh -c evil", "list of at most"),
    ("config", ["config", "Env"], [1], "expected a string"),
    ("config", ["config", "WorkingDir"], 5, "expected a string"),
]


@pytest.mark.parametrize(("document", "path", "value", "says"), DOCUMENTS)
def test_a_document_that_says_something_else_is_refused(
    deployment: Deployment, layout: Layout, document: str, path: list[str | int], value: Any, says: str
) -> None:
    layout.change[document] = put(path, value)
    refused(deployment, layout.of(BASE), says)


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        ("index", ["mediaType"], ...),
        ("index", ["manifests", 0, "platform"], AMD64),
        ("index", ["manifests", 0, "platform"], {**AMD64, "variant": "v3"}),
        ("index", ["manifests", 0, "annotations"], {"org.example": "x"}),
        ("manifest", ["mediaType"], ...),
        ("config", ["config"], None),
        ("config", ["config"], {"Cmd": None, "Env": None, "WorkingDir": "", "Unknown": 1}),
    ],
)
def test_what_the_specification_leaves_open_is_taken(
    deployment: Deployment, layout: Layout, document: str, path: list[str | int], value: Any
) -> None:
    layout.change[document] = put(path, value)
    assert loaded(deployment, layout.of(BASE)).fresh


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b'{"a":1,"a":2}', b"[" * 10_000, b"x" * (5 << 20)])
@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_a_file_of_the_layout_that_is_no_strict_json_is_refused(
    deployment: Deployment, layout: Layout, name: str, data: bytes
) -> None:
    path = layout.of(BASE)
    (path / name).write_bytes(data)
    refused(deployment, path, ".")


def tagged(descriptor: dict[str, Any], tag: str, platform: dict[str, str] | None = None) -> dict[str, Any]:
    more = {"platform": platform} if platform else {}
    return {**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}, **more}


def test_of_several_images_the_one_that_is_meant_is_taken_and_none_is_guessed(
    deployment: Deployment, layout: Layout
) -> None:
    one, two = layout.image([member("one")]), layout.image([member("two")])
    path = layout.write(tagged(one, "v1"), tagged(two, "v2"))
    assert "--tag" in refused(deployment, path, "tags: v1, v2").hint
    refused(deployment, path, "no image in the layout", tag="v3")
    assert set(content(deployment, path, "v2")) == {"two"}


def test_of_several_platforms_ours_is_taken_also_from_an_index_within_the_index(
    deployment: Deployment, layout: Layout
) -> None:
    ours, other = layout.image([member("ours")]), layout.image([member("other")])
    inner = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {**other, "platform": {"os": "linux", "architecture": "arm64"}},
        {**ours, "platform": AMD64},
        {**other, "platform": {"os": "unknown", "architecture": "unknown"}},
    ]}  # fmt: skip
    path = layout.write(tagged(layout.blob(json.dumps(inner).encode(), INDEX), "latest"))
    assert set(content(deployment, path, "latest")) == {"ours"}


def test_indexes_within_indexes_without_end_are_refused(deployment: Deployment, layout: Layout) -> None:
    inner = layout.image([member("a")])
    for _ in range(6):
        inner = layout.blob(json.dumps({"schemaVersion": 2, "manifests": [inner]}).encode(), INDEX)
    refused(deployment, layout.write(inner), "indexes within each other")


# Against another implementation


def umoci(*words: str | Path) -> None:
    if shutil.which("umoci") is None:
        pytest.skip("no umoci here")
    subprocess.run(["umoci", *map(str, words)], check=True, capture_output=True, text=True)


def unpacked_by_umoci(path: Path, tag: str, tmp_path: Path) -> Path:
    rootless = [] if os.getuid() == 0 else ["--rootless"]
    umoci("unpack", *rootless, "--image", f"{path}:{tag}", tmp_path / "bundle")
    return tmp_path / "bundle" / "rootfs"


def test_an_image_made_by_umoci_is_the_tree_that_umoci_unpacks(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "image"
    umoci("init", "--layout", path)
    umoci("new", "--image", f"{path}:v1")
    rootless = [] if os.getuid() == 0 else ["--rootless"]
    umoci("unpack", *rootless, "--image", f"{path}:v1", tmp_path / "work")
    rootfs = tmp_path / "work" / "rootfs"
    for name in ("bin", "etc", "old"):
        (rootfs / name).mkdir()
    (rootfs / "bin" / "agent").write_bytes(os.urandom(100_000))
    (rootfs / "bin" / "agent").chmod(0o755)
    os.link(rootfs / "bin" / "agent", rootfs / "bin" / "twin")
    (rootfs / "etc" / "passwd").write_text("root")
    (rootfs / "old" / "file").write_text("old")
    umoci("repack", "--refresh-bundle", "--image", f"{path}:v1", tmp_path / "work")
    shutil.rmtree(rootfs / "old")
    (rootfs / "sh").symlink_to("bin/agent")
    (rootfs / "etc" / "passwd").unlink()
    umoci("repack", "--image", f"{path}:v2", tmp_path / "work")
    umoci("config", "--image", f"{path}:v2", "--config.entrypoint", "/bin/agent", "--config.env", "A=1")
    image, config = load_layout(path, deployment, GUARD, "v2")
    assert len(config.diff_ids) == 2 and config.argv == ("/bin/agent",) and "A=1" in config.env
    assert [one.path for one in image.entries if one.path not in OWN] == ["bin", "bin/agent", "bin/twin", "etc", "sh"]
    theirs = load_directory(unpacked_by_umoci(path, "v2", tmp_path), deployment, GUARD)
    assert theirs.digest == image.digest


@pytest.mark.parametrize("name", OVERLAYS)
def test_layers_made_by_hand_are_the_tree_that_umoci_unpacks(
    deployment: Deployment, layout: Layout, tmp_path: Path, name: str
) -> None:
    members, _ = OVERLAYS[name]
    path = layout.write(tagged(layout.image(*members), "v1"))
    theirs = load_directory(unpacked_by_umoci(path, "v1", tmp_path), deployment, GUARD)
    assert theirs.digest == loaded(deployment, path, "v1").digest


# Noise


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_is_unpacked_or_raises_the_one_error(data: st.DataObject, tmp_path: Path) -> None:
    whole = bytearray(tar([folder("d"), member("d/a", b"x" * 600), link("l", "d"), hard("h", "d/a"), member("é" * 80)]))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with open(tmp_path / "layer", "w+b") as file:
        file.write(whole[: data.draw(st.integers(0, len(whole)))])
        file.flush()
        overlay = Overlay()
        try:
            overlay.apply(file.fileno())
        except ImageRefused:
            return
        assert sum(1 for _ in overlay.pieces()) <= 8


def test_a_mode_beyond_its_bits_is_cut(deployment: Deployment, layout: Layout) -> None:
    image = loaded(deployment, layout.of(raw_header(mode=b"7777777\0", size=b"0" * 11) + bytes(1024)))
    assert image.dropped == ("a",)
    assert stat.S_IMODE((deployment.root / "images" / image.digest / "a").stat().st_mode) == 0o555
