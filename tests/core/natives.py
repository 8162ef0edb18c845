"""Native configurations, a manifest, and all the ways to write a JSON value otherwise, for the tests beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.native import Manifest

NATIVES = ("bubblewrap", "runc", "crun", "gvisor")
ROOTFS = Digest(sha256_hex(b"tree"))
MANIFEST = Manifest(ROOTFS, ("/usr/bin/python3", "/agent.py"), ("LANG=C.UTF-8",), "/work")
MODULE = MANIFEST.encode()
NONCE = "0123456789abcdef" * 2


def digest(text: str) -> Digest:
    return sha256_hex(text.encode())


def configuration(runtime: str, **limits: Any) -> dict[str, Any]:
    settings = {"max_memory": 512, "max_cpu": 200, "max_processes": 16, "max_open_files": 64, "max_wall_clock": 60}
    return {
        "version": 1,
        "profile": "native",
        "runtime": {"type": runtime, "strict_security": True, **settings, **limits},
        "channel": {"max_message": 65536, "max_messages_per_second": 100},
        "scratch": {"max_bytes": 1 << 20, "max_files": 32},
    }


OTHERS: tuple[Any, ...] = (None, True, False, 0, 1, 77, "", "/other", "a" * 64, [], ["x"], {}, {"x": 1})


def changes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value that differs from this one in one place: something else there, gone, doubled, or one more."""
    for other in OTHERS:
        if type(other) is not type(value) or other != value:
            yield path, other
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*path, name), {key: one for key, one in value.items() if key != name}
            for below, changed in changes(item, (*path, name)):
                yield below, {**copy.deepcopy(value), name: changed}
        for more in (None, 1, "x"):
            yield (*path, "+"), {**value, "another": more}
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield (*path, at), value[:at] + value[at + 1 :]
            yield (*path, at), [*value[:at], item, *value[at:]]
            for below, changed in changes(item, (*path, at)):
                yield below, [*value[:at], changed, *value[at + 1 :]]
