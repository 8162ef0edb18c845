"""Credentials: secrets that the gateway adds at the boundary, each bound to one place.

Decides what a credentials file may say, whether a credential covers a request, and what of an answer would
show it. It sends nothing and logs nothing. Paths are matched as `core.constraint` matches prefixes.

Rule 1: a credential goes to its own scheme, host, port and path prefix, and nowhere else.
Rule 2: over plain http it goes to a loopback address only, written as an address, so that no name decides.
Rule 3: no error, repr or message shows a value.
Rule 4: an answer on its way to the agent holds none of the value's usual spellings. A far side that cuts the
        value into pieces or encrypts it can't be stopped here; the binding is what protects then.
"""

import base64
import ipaddress
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, quote_plus

from ironbound.core.canonical import FormatError, Value, parse_json
from ironbound.core.constraint import Where, covers, parse_where

MAX_FILE: Final = 262_144
MIN_VALUE: Final = 8
"""Characters of the shortest value: shorter ones can't be told from ordinary text when scrubbing."""
MAX_VALUE: Final = 4_096
REDACTED: Final = b"[credential]"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_HEADER = re.compile(r"[a-z][a-z0-9-]{0,63}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_RESERVED: Final = frozenset(
    ("host", "connection", "content-length", "content-type", "transfer-encoding", "te", "trailer", "upgrade")
    + ("accept", "accept-encoding", "user-agent", "expect", "keep-alive", "proxy-connection")
)
_FIELDS: Final = frozenset(("scheme", "host", "port", "path", "header", "value"))


@dataclass(frozen=True, slots=True)
class Credential:
    """One secret header and the place that it belongs to. `path` is a prefix that ends at a slash or the end."""

    name: str
    scheme: str
    host: str
    port: int
    path: str
    header: str
    value: str = field(repr=False)

    def covers(self, args: Mapping[str, Value]) -> bool:
        """True if a request with these arguments lies within the credential's binding."""
        place = {name: args[name] for name in ("scheme", "host", "port", "path") if name in args}
        return covers(self._where(), place) is None

    def _where(self) -> Where:
        return parse_where(
            {
                "scheme": {"equals": self.scheme},
                "host": {"equals": self.host},
                "port": {"equals": self.port},
                "path": {"prefix": {"value": self.path, "separator": "/"}},
            }
        )

    def scrub(self, data: bytes) -> bytes:
        """The data with every spelling of the value replaced."""
        for spelling in spellings(self.value):
            data = data.replace(spelling, REDACTED)
        return data


def spellings(value: str) -> tuple[bytes, ...]:
    """How a value might come back: as is, quoted for JSON or URLs, in base64 at any offset, in hexadecimal,
    in UTF-16. Of "Bearer TOKEN" the token alone counts too. Longest first."""
    found: set[bytes] = set()
    for secret in {value, value.rpartition(" ")[2]}:
        if len(secret) < MIN_VALUE:
            continue
        raw = secret.encode()
        escaped = "".join(f"%{byte:02X}" for byte in raw)
        found |= {
            raw,
            json.dumps(secret)[1:-1].encode(),
            json.dumps(secret)[1:-1].replace("/", "\\/").encode(),
            "".join(f"\\u{byte:04x}" for byte in raw).encode(),
            quote(secret, safe="").encode(),
            quote(secret).encode(),
            quote_plus(secret).encode(),
            quote(secret, safe="").replace("%", "%25").encode(),
            re.sub(r"%[0-9A-F]{2}", lambda match: match.group().lower(), quote(secret, safe="")).encode(),
            escaped.encode(),
            escaped.lower().encode(),
            raw.hex().encode(),
            raw.hex().upper().encode(),
            secret.encode("utf-16-le"),
            secret.encode("utf-16-be"),
        }
        for offset in range(3):
            # Whatever stands around the value, these characters depend on its bytes alone.
            encoded = base64.b64encode(b"\0" * offset + raw)
            start, end = (0, 2, 3)[offset], len(encoded) - (0, 3, 2)[(offset + len(raw)) % 3]
            found |= {encoded[start:end], encoded[start:end].replace(b"+", b"-").replace(b"/", b"_")}
    return tuple(sorted(found, key=lambda spelling: (-len(spelling), spelling)))


def read_credentials(path: str) -> dict[str, Credential]:
    """The credentials in a file that only its owner (this process's user) can read.

    Raises FormatError for content, OSError for a file that can't be read; a missing file is an error.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise FormatError("credentials-file", "expected a regular file of the gateway's own user")
        if stat.S_IMODE(status.st_mode) & 0o177:
            raise FormatError("credentials-file", "others may read it; expected mode 0400 (chmod 0400 FILE)")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_FILE + 1)
    finally:
        os.close(descriptor)
    return parse_credentials(data)


def parse_credentials(data: bytes) -> dict[str, Credential]:
    """{name: {scheme, host, port, path, header, value}}. Raises FormatError, which never shows a value."""
    try:
        document = parse_json(data, limit=MAX_FILE, depth=4)
    except FormatError as error:
        # The parser's message may quote what it read.
        raise FormatError("credentials-invalid", f"not strict JSON ({error.code})") from None
    if not isinstance(document, dict):
        raise FormatError("credentials-invalid", "expected an object of credentials")
    return {name: _parse_one(name, member) for name, member in document.items()}


def _parse_one(name: str, member: Value) -> Credential:
    if _NAME.fullmatch(name) is None:
        raise FormatError("credentials-invalid", "a credential's name has other characters than a-z 0-9 . _ -")
    if not isinstance(member, dict) or set(member) != _FIELDS:
        raise FormatError("credentials-invalid", f"{name}: expected exactly {', '.join(sorted(_FIELDS))}")
    scheme, host, port, path = (member[key] for key in ("scheme", "host", "port", "path"))
    header, value = member["header"], member["value"]
    if scheme not in ("http", "https") or not isinstance(scheme, str):
        raise FormatError("credentials-invalid", f"{name}: scheme: expected http or https")
    if not isinstance(host, str) or _HOST.fullmatch(host) is None:
        raise FormatError("credentials-invalid", f"{name}: host: expected a lower-case name or IPv4 address")
    if type(port) is not int or not 1 <= port <= 65_535:
        raise FormatError("credentials-invalid", f"{name}: port: expected 1 to 65535")
    if not isinstance(path, str) or not (path == "" or path.startswith("/")) or len(path) > 1_024:
        raise FormatError("credentials-invalid", f"{name}: path: expected '' or a path without a slash at its end")
    if not isinstance(header, str) or _HEADER.fullmatch(header) is None or header in _RESERVED:
        raise FormatError("credentials-invalid", f"{name}: header: expected a lower-case header's name")
    if not isinstance(value, str) or _VALUE.fullmatch(value) is None:
        raise FormatError("credentials-invalid", f"{name}: value: expected printable ASCII")
    if not MIN_VALUE <= len(value.rpartition(" ")[2]) <= len(value) <= MAX_VALUE:
        raise FormatError("credentials-invalid", f"{name}: value: expected {MIN_VALUE} to {MAX_VALUE} characters")
    if scheme == "http" and not _is_loopback(host):
        raise FormatError("credentials-invalid", f"{name}: over http only to a loopback address; use https")
    credential = Credential(name, scheme, host, port, path, header, value)
    try:
        credential.covers({})
    except FormatError:
        raise FormatError("credentials-invalid", f"{name}: path: expected clean segments") from None
    return credential


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False
