"""The kernel that Firecracker gets is the one that the distribution packed, or the launch is refused."""

from __future__ import annotations

import gzip
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.canonical import FormatError
from ironbound.node.microvm.bzimage import elf_kernel

ELF = b"\x7fELF" + bytes(range(256)) * 40
LEGACY = b"\x02\x21\x4c\x18"


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def image(payload: bytes, *, magic: bytes = b"HdrS", version: int = 0x20F, length: int | None = None) -> bytes:
    """A bzImage with this payload right behind one sector of set-up code."""
    head = bytearray(2 * 512)
    head[0x1F1] = 1
    head[0x202:0x206] = magic
    head[0x206:0x208] = version.to_bytes(2, "little")
    head[0x248:0x24C] = u32(0)
    head[0x24C:0x250] = u32(len(payload) if length is None else length)
    return bytes(head) + payload


def sequence(literals: bytes, match: tuple[int, int] | None) -> bytes:
    """One sequence of LZ4's block format: literals, then (offset, length) of a match."""

    def more(count: int) -> bytes:
        rest = count - 15
        return b"" if rest < 0 else b"\xff" * (rest // 255) + bytes((rest % 255,))

    size = 0 if match is None else match[1] - 4
    data = bytes((min(len(literals), 15) << 4 | min(size, 15),)) + more(len(literals)) + literals
    return data if match is None else data + match[0].to_bytes(2, "little") + more(size)


def lz4(*blocks: bytes, size: int) -> bytes:
    return LEGACY + b"".join(u32(len(block)) + block for block in blocks) + u32(size)


def test_a_kernel_that_is_elf_already_is_taken_as_it_is() -> None:
    assert elf_kernel(ELF) == ELF


@pytest.mark.parametrize("payload", [lzma.compress(ELF) + u32(len(ELF)), gzip.compress(ELF)])
def test_a_payload_of_gzip_or_xz_is_unpacked(payload: bytes) -> None:
    assert elf_kernel(image(payload)) == ELF


def test_a_payload_of_lz4_is_unpacked_over_its_blocks_with_matches_that_overlap() -> None:
    first = sequence(b"\x7fELF" + b"abcd" * 5, (4, 400)) + sequence(b"xyz", (1, 4)) + sequence(b"end", None)
    second = sequence(b"second" * 60, None)
    wanted = b"\x7fELF" + b"abcd" * 105 + b"xyzzzzzend" + b"second" * 60
    assert wanted.count(b"abcd") == 105
    data = lz4(first, second, size=len(wanted))
    assert elf_kernel(image(data)) == wanted


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MZ" + bytes(2000),
        image(gzip.compress(ELF), magic=b"HdrT"),
        image(gzip.compress(ELF), version=0x207),
        image(gzip.compress(ELF), length=1 << 30),
        image(gzip.compress(ELF), length=4),
        image(gzip.compress(b"no ELF file" * 9)),
        image(gzip.compress(ELF)[:-12] + u32(len(ELF))),
        image(lzma.compress(ELF) + u32(len(ELF) - 1)),
        image(lzma.compress(ELF) + u32(len(ELF) + 1)),
        image(lzma.compress(ELF)[:-40] + u32(len(ELF))),
        image(b"\x28\xb5\x2f\xfd" + bytes(60)),
        image(lzma.compress(ELF) + u32(0xFFFFFFFF)),
        image(lz4(sequence(b"\x7fELF", (9, 8)), size=12)),
        image(lz4(sequence(b"\x7fELF", (0, 8)), size=12)),
        image(lz4(sequence(b"\x7fELF", (1, 400)), size=12)),
        image(lz4(b"\xf0", size=12)),
        image(lz4(b"\x40ELF", size=12)),
        image(lz4(sequence(b"\x7fELF", None) * 2, size=4)),
        image(LEGACY + u32(900) + b"abc" + u32(4)),
        image(LEGACY + u32(0) + b"abc" + u32(4)),
    ],
)
def test_what_is_no_packed_elf_kernel_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="kernel-invalid"):
        elf_kernel(data)


@given(st.binary(max_size=300), st.sampled_from([b"", LEGACY, b"\x1f\x8b\x08", b"\xfd7zXZ\x00"]))
def test_any_bytes_are_a_kernel_or_one_kind_of_error(data: bytes, start: bytes) -> None:
    try:
        kernel = elf_kernel(image(start + data))
    except FormatError as error:
        assert error.code == "kernel-invalid"
    else:
        assert kernel.startswith(b"\x7fELF")
