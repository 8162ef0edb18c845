"""A strict cursor over WebAssembly bytes, shared by the module's and the component's parser.

Decides how integers, vectors and names are read. It knows no section. Follows the WebAssembly core specification 2.0,
section 5.2 (values).

Rule 1: every length is exact. What is shorter or longer than it says is an error.
Rule 2: an unsigned integer is LEB128 of at most five bytes without bits beyond 32. Padding is allowed, as there.
"""

from __future__ import annotations

from typing import Final

from ironbound.core.canonical import FormatError

MAGIC: Final = b"\x00asm"
MAX_NAME: Final = 100_000
"""Bytes of a name; the runtime's own limit."""


class Reader:
    """A cursor over `data[at:end]` that never reads beyond its end."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    @property
    def left(self) -> int:
        return self.end - self.at

    def byte(self) -> int:
        if self.at >= self.end:
            raise FormatError("wasm-truncated", f"expected a byte at offset {self.at}, got the end")
        value = self.data[self.at]
        self.at += 1
        return value

    def u32(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            if shift == 28 and byte > 0x0F:
                raise FormatError("wasm-integer", f"LEB128 beyond 32 bits at offset {self.at - 1}")
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def index(self, count: int, what: str) -> int:
        """An index into a space of `count` things."""
        if (index := self.u32()) >= count:
            raise FormatError("wasm-index", f"{what} {index} of {count} before offset {self.at}")
        return index

    def take(self, size: int) -> bytes:
        self.skip(size)
        return self.data[self.at - size : self.at]

    def skip(self, size: int) -> None:
        if size > self.left:
            raise FormatError("wasm-truncated", f"expected {size} bytes at offset {self.at}, got {self.left}")
        self.at += size

    def count(self) -> int:
        """A vector's length; every element has at least one byte, so more than are left cannot be."""
        count = self.u32()
        if count > self.left:
            raise FormatError("wasm-truncated", f"a vector of {count} elements in {self.left} bytes")
        return count

    def name(self) -> str:
        if (size := self.u32()) > MAX_NAME:
            raise FormatError("wasm-name", f"a name of {size} bytes, at most {MAX_NAME}")
        try:
            return self.take(size).decode("utf-8", "strict")
        except UnicodeDecodeError:
            raise FormatError("wasm-name", f"a name that is not UTF-8 before offset {self.at}") from None

    def part(self, size: int) -> Reader:
        start = self.at
        self.skip(size)
        return Reader(self.data, start, start + size)

    def finish(self, what: str) -> None:
        if self.left:
            raise FormatError("wasm-length", f"{what}: {self.left} bytes too many")


def preamble(data: bytes, limit: int) -> bytes:
    """The four bytes of version and layer after the magic, of at most `limit` bytes in all."""
    if len(data) > limit:
        raise FormatError("wasm-too-large", f"expected at most {limit} bytes, got {len(data)}")
    if data[:4] != MAGIC:
        raise FormatError("wasm-magic", f"expected a WebAssembly binary, got {data[:4]!r}")
    return data[4:8]
