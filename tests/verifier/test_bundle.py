"""The container: one spelling, and every byte matters."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironbound.core.canonical import sha256_hex
from ironbound.core.checkpoint import Checkpoint, cosign_checkpoint, sign_checkpoint
from ironbound.core.note import add_lines
from ironbound.verifier.bundle import Bundle, BundleBroken
from ironbound.verifier.codes import INTEGRITY
from ironbound.verifier.verify import verify_bundle

from .lab import Lab, honest, pack, wasm


@pytest.fixture(scope="module")
def small() -> Lab:
    lab = Lab()
    lab.say(
        "monitor",
        "service-started",
        role="monitor",
        pid=1,
        pid_start=1,
        boot_id="b",
        uid=1,
        gid=1,
        separation="user",
        version="0",
        kernel_sha256="0" * 64,
        surface_sha256=None,
        release_sha256="0" * 64,
        settings_sha256="0" * 64,
        measured=None,
        host={},
    )
    data = wasm()
    lab.artifacts[sha256_hex(data)] = data
    return lab


def code_of(data: bytes, lab: Lab) -> str | None:
    """The code with which a bundle breaks; None if it is sound."""
    try:
        verify_bundle(io.BytesIO(data), lab.pin)
    except BundleBroken as broken:
        assert broken.code in INTEGRITY
        return broken.code
    return None


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


@pytest.mark.slow
def test_any_flipped_byte_of_the_file_breaks_it(small: Lab) -> None:
    data = small.bundle()
    assert code_of(data, small) is None
    assert [at for at in range(len(data)) if code_of(flipped(data, at), small) is None] == []


@pytest.mark.slow
def test_any_flipped_byte_of_a_member_breaks_it_though_the_checksums_are_made_to_fit(small: Lab) -> None:
    members = small.members()
    assert code_of(pack(members), small) is None
    for name, content in members.items():
        if name == "bundle.json":
            continue
        for at in range(len(content)):
            assert code_of(pack(members | {name: flipped(content, at)}), small) is not None, (name, at)


def test_any_tool_can_read_the_bundle() -> None:
    lab = honest().lab
    with zipfile.ZipFile(io.BytesIO(lab.bundle())) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == lab.members()


@pytest.mark.parametrize("name", ["checkpoint", "witness-policy", "tile/0/000.p/2", "tile/entries/000.p/2"])
def test_a_member_that_is_relied_on_may_not_be_missing(small: Lab, name: str) -> None:
    members = small.members()
    del members[name]
    assert code_of(pack(members), small) in ("member-missing", "tile-missing")


def test_a_derived_file_and_the_index_are_never_relied_on(small: Lab) -> None:
    members = small.members() | {"report.html": b"all is well", "matrix.csv": b"", "oscal/results.json": b"{"}
    assert code_of(pack(members | {"bundle.json": b'{"grade": "A"}'}), small) is None
    del members["bundle.json"]
    assert code_of(pack(members), small) is None
    assert code_of(pack(members | {"bundle.json": b"{"}), small) == "index-malformed"


def test_an_artifact_under_anothers_digest_breaks_the_bundle(small: Lab) -> None:
    members = small.members() | {f"artifacts/sha256/{'0' * 64}": b"other"}
    assert code_of(pack(members), small) == "artifact-differs"


@pytest.mark.parametrize("name", ["tile/0/001", "tile/1/000.p/1", "tile/entries/000", "tile/0/000.p/1"])
def test_a_tile_that_the_log_does_not_have_breaks_the_bundle(small: Lab, name: str) -> None:
    assert code_of(pack(small.members() | {name: b"\0" * 32}), small) == "tile-unexpected"


def zip_of(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.comment = comment
        for name in sorted(members):
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100644 << 16
            archive.writestr(info, members[name], method)
    return file.getvalue()


def test_our_layout_is_that_of_the_standard_library(small: Lab) -> None:
    assert zip_of(small.members()) == small.bundle()


@pytest.mark.parametrize(
    "name", ["../checkpoint", "/checkpoint", "Checkpoint", "checkpoint ", "tile/0/0", "a", "tile/", "artifacts/sha256/"]
)
def test_an_odd_name_breaks_the_bundle(small: Lab, name: str) -> None:
    assert code_of(zip_of(small.members() | {name: b""}), small) == "member-name"


def test_compression_a_comment_and_bytes_around_the_members_break_the_bundle(small: Lab) -> None:
    data, members = small.bundle(), small.members()
    assert code_of(zip_of(members, method=zipfile.ZIP_DEFLATED), small) == "zip-structure"
    assert code_of(zip_of(members, comment=b"x"), small) == "zip-structure"
    assert code_of(b"x" + data, small) == "zip-structure"
    assert code_of(data + b"x", small) == "zip-structure"
    assert code_of(data[:-1], small) == "zip-structure"
    assert code_of(b"", small) == "zip-structure"


def test_a_member_that_stands_twice_breaks_the_bundle(small: Lab) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for name, content in [*sorted(small.members().items()), ("witness-policy", b"other")]:
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content)
    assert code_of(file.getvalue(), small) == "zip-structure"


def test_bytes_between_the_members_break_the_bundle(small: Lab) -> None:
    data = small.bundle()
    count, size, offset = struct.unpack("<IHHHHIIH", data[-22:])[4:7]
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, size, offset + 3, 0)
    moved = data[:offset] + b"xyz" + data[offset : offset + size] + end
    assert code_of(moved, small) == "zip-structure"


def test_a_member_over_its_limit_is_refused_before_it_is_read(small: Lab) -> None:
    assert code_of(zip_of(small.members() | {"witness-policy": b"#" * 9000}), small) == "too-large"


def test_a_checkpoint_that_claims_a_huge_log_costs_nothing(small: Lab) -> None:
    huge = Checkpoint(small.log.name, 1 << 60, bytes(32))
    signed = add_lines(sign_checkpoint(huge, small.log), [cosign_checkpoint(huge, small.witness, 1)])
    assert code_of(pack(small.members() | {"checkpoint": signed}), small) == "tile-missing"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_garbage_breaks_and_never_raises_anything_else(data: bytes) -> None:
    with pytest.raises(BundleBroken):
        Bundle(io.BytesIO(data))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["checkpoint", "witness-policy", "tile/entries/000.p/2", "tile/0/000.p/2"]),
    st.binary(max_size=300),
)
def test_garbage_in_a_member_breaks_and_never_raises_anything_else(name: str, content: bytes) -> None:
    lab = Lab()
    lab.append(b"{}")
    assert code_of(pack(lab.members() | {name: content}), lab) is not None
