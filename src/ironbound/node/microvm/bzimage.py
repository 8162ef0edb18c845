"""The kernel inside a bzImage: Firecracker loads plain ELF, distributions ship it packed.

Decides whether bytes are a bzImage whose payload is one ELF file, and gives that file. Follows the kernel's "The Linux/
x86 Boot Protocol" (version 2.08 and later), the size that the kernel's build appends to a payload, and LZ4's "Legacy
frame" and "Block Format".

Rule 1: the payload is unpacked whole, to exactly the size that is written behind it, and nothing of it is run.
"""

from __future__ import annotations

import lzma
import zlib
from typing import Final

from ironbound.core.canonical import FormatError

MAX_IMAGE: Final = 128 << 20
MAX_KERNEL: Final = 512 << 20

_SETUP_SECTORS: Final = 0x1F1
_MAGIC: Final = 0x202
_VERSION: Final = 0x206
_PAYLOAD_OFFSET: Final = 0x248
_PAYLOAD_LENGTH: Final = 0x24C
_LEAST_VERSION: Final = 0x0208
_SECTOR: Final = 512
_GZIP: Final = b"\x1f\x8b"
_LZ4: Final = b"\x02\x21\x4c\x18"
_XZ: Final = b"\xfd7zXZ\x00"
_LZ4_BLOCK: Final = 8 << 20
_ELF: Final = b"\x7fELF"


def _fail(message: str) -> FormatError:
    return FormatError("kernel-invalid", message)


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _payload(image: bytes) -> bytes:
    if len(image) > MAX_IMAGE:
        raise _fail(f"expected at most {MAX_IMAGE} bytes, got {len(image)}")
    if image[_MAGIC : _MAGIC + 4] != b"HdrS" or _number(image, _VERSION, 2) < _LEAST_VERSION:
        raise _fail("expected a bzImage of boot protocol 2.08 or later")
    start = (1 + (_number(image, _SETUP_SECTORS, 1) or 4)) * _SECTOR + _number(image, _PAYLOAD_OFFSET, 4)
    end = start + _number(image, _PAYLOAD_LENGTH, 4)
    if not start + 8 <= end <= len(image):
        raise _fail("the payload lies outside of the image")
    return image[start:end]


def _lz4_length(block: bytes, at: int, length: int) -> tuple[int, int]:
    """A length of 15 goes on in the next bytes, until one of them is not 255. IndexError at the block's end."""
    if length == 15:
        while (more := block[at]) == 255:
            length, at = length + 255, at + 1
        length, at = length + more, at + 1
    return length, at


def _unpack_lz4_block(block: bytes, most: int) -> bytearray:
    """One block of at most `most` bytes unpacked. IndexError where it ends too early."""
    out = bytearray()
    at, end = 0, len(block)
    while at < end:
        token = block[at]
        length, at = _lz4_length(block, at + 1, token >> 4)
        if at + length > end or len(out) + length > most:
            raise _fail("an LZ4 block with literals beyond its end")
        out += block[at : at + length]
        at += length
        if at == end:
            return out  # the last sequence has no match
        offset = block[at] | block[at + 1] << 8
        length, at = _lz4_length(block, at + 2, token & 15)
        length += 4
        start = len(out) - offset
        if offset == 0 or start < 0 or len(out) + length > most:
            raise _fail("an LZ4 block with a match outside of it")
        if length <= offset:
            out += out[start : start + length]
        else:
            part = out[start:]
            out += (part * (length // offset + 1))[:length]
    return out


def _unpacked_lz4(data: bytes, size: int) -> bytes:
    parts: list[bytearray] = []
    at, left = 0, size
    while at < len(data):
        length = _number(data, at, 4)
        at += 4
        if length == 0 or at + length > len(data):
            raise _fail("an LZ4 block beyond the payload's end")
        try:
            part = _unpack_lz4_block(data[at : at + length], min(left, _LZ4_BLOCK))
        except IndexError:
            raise _fail("an LZ4 block that ends too early") from None
        at += length
        left -= len(part)
        parts.append(part)
    return b"".join(parts)


def _unpacked(payload: bytes) -> bytes:
    size = _number(payload, len(payload) - 4, 4)
    if size > MAX_KERNEL:
        raise _fail(f"expected a kernel of at most {MAX_KERNEL} bytes, got {size}")
    try:
        if payload.startswith(_XZ):
            unxz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_KERNEL)
            kernel = unxz.decompress(payload, size + 1)
        elif payload.startswith(_GZIP):
            kernel = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(payload, size + 1)
        elif payload.startswith(_LZ4):
            kernel = _unpacked_lz4(payload[len(_LZ4) : -4], size)
        else:
            raise _fail(f"expected a kernel packed by gzip, xz or lz4, got {payload[:4].hex()}")
    except (lzma.LZMAError, zlib.error) as error:
        raise _fail(f"the payload: {error}") from None
    if len(kernel) != size:
        raise _fail(f"expected a kernel of {size} bytes, got {len(kernel)}")
    return kernel


def elf_kernel(image: bytes) -> bytes:
    """The ELF file of a kernel, which may be one already. FormatError, and nothing else, if there is none."""
    kernel = image if image.startswith(_ELF) else _unpacked(_payload(image))
    if not kernel.startswith(_ELF):
        raise _fail("the payload is no ELF file")
    return kernel
