"""What is in an archive, by its bytes: zip, tar, ar (Debian's packages, static libraries), gzip, bzip2 and xz.

Decides by the content and not by the name what is one, also where it stands behind a program or a `#!` line. Nothing is
unpacked to a file. It reads no members of what `refuse` names; that is said, and never counts as clean.

Rule 1: what can't be read, or not to its end, is said in the sink.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Final

from .scan_found import Sink

#: Bytes of a file or member that is read whole.
MAX_FILE: Final = 512 << 20
Members = Iterator[tuple[str, bytes]]
_Opens = Callable[[BytesIO], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]
_AR: Final = b"!<arch>\n"
_ZIP: Final = b"PK\x03\x04"
_ZIP_END: Final = b"PK\x05\x06"
_ZIP_TAIL: Final = 65557
"""Bytes from a file's end in which the end of a zip archive stands."""
_USTAR_AT: Final = 257
_USTAR: Final = b"ustar"
_SMALLEST: Final = 32
"""Bytes of a packed file that can hold a name."""
_STREAMS: Final[dict[bytes, _Opens]] = {
    b"\x1f\x8b\x08": lambda data: gzip.GzipFile(fileobj=data),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
UNOPENED: Final = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"hsqs": "squashfs",
    b"\xed\xab\xee\xdb": "rpm",
    b"070701": "cpio",
    b"MSCF": "cab",
    b"xar!": "xar",
}
"""Archives whose members are not read."""


def members(data: bytes, name: str, sink: Sink) -> Members | None:
    """The members with their names; None for what is no archive."""
    if data.startswith(_AR):
        return _ar(data, sink)
    if data.startswith(_ZIP) or (_ZIP_END in data[-_ZIP_TAIL:] and zipfile.is_zipfile(BytesIO(data))):
        return _zip(data, sink)
    if data[_USTAR_AT : _USTAR_AT + len(_USTAR)] == _USTAR or name.lower().endswith(".tar"):
        return _opened(data, sink)
    for magic, opened in _STREAMS.items():
        if data.startswith(magic) and len(data) >= _SMALLEST:
            return _opened(data, sink) or _stream(data, name, opened, sink)
    return None


def refuse(data: bytes, sink: Sink) -> None:
    """Says so if the bytes are an archive that is not opened."""
    for magic, kind in UNOPENED.items():
        if data.startswith(magic):
            sink.skip(f"an archive of a kind that is not opened ({kind})")


def _stream(data: bytes, name: str, opened: _Opens, sink: Sink) -> Members:
    try:
        with opened(BytesIO(data)) as stream:
            inside = stream.read(MAX_FILE + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        sink.skip(f"a packed file that can't be read: {error}")
        return
    if len(inside) > MAX_FILE:
        sink.skip(f"unpacked larger than {MAX_FILE} bytes: the rest")
    stem, _, suffix = name.rpartition(".")
    yield (stem if stem and suffix.lower() in ("gz", "bz2", "xz") else name), inside[:MAX_FILE]


def _ar(data: bytes, sink: Sink) -> Members:
    at = len(_AR)
    while at + 60 <= len(data):
        header = data[at : at + 60]
        size = header[48:58].strip()
        if header[58:] != b"`\n" or not size.isdigit():
            sink.skip("an ar archive that can't be read to its end")
            return
        name = header[:16].decode("latin-1").strip().rstrip("/")
        yield name or "symbols", data[at + 60 : at + 60 + int(size)]
        at += 60 + int(size) + int(size) % 2


def _zip(data: bytes, sink: Sink) -> Members:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for one in sorted(archive.infolist(), key=lambda one: one.filename.endswith(".pyc")):
                if one.is_dir():
                    continue
                if one.file_size > MAX_FILE or one.flag_bits & 1:
                    sink.skip(f"{one.filename}: encrypted, or larger than {MAX_FILE} bytes")
                    continue
                with archive.open(one) as member:
                    yield one.filename, member.read(MAX_FILE)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error,
            ValueError, OSError) as error:  # fmt: skip
        sink.skip(f"a zip archive that can't be read: {error}")


def _opened(data: bytes, sink: Sink) -> Members | None:
    try:
        return _tar(tarfile.open(fileobj=BytesIO(data)), sink)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError):
        return None


def _tar(archive: tarfile.TarFile, sink: Sink) -> Members:
    try:
        with archive:
            for one in archive:
                if not one.isreg():
                    continue
                if one.size > MAX_FILE:
                    sink.skip(f"{one.name}: larger than {MAX_FILE} bytes")
                elif (member := archive.extractfile(one)) is not None:
                    yield one.name.removeprefix("./"), member.read(MAX_FILE)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        sink.skip(f"a tar archive that can't be read to its end: {error}")
