"""A release of the lab: its installed files, and what its key signs of them; real signatures over real statements."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.channel import SURFACE_FILE
from ironbound.core.keys import PrivateKey
from ironbound.core.release import PREDICATES, sign_release
from ironbound.verifier.deployed import package_of
from ironbound.verifier.release import LIST_FILE

WHEEL = "ironbound-0.1.0-py3-none-any.whl"
LIST = b"the closed list\n"


def digest_of(name: str) -> Digest:
    return Digest(sha256(name.encode()).hexdigest())


def files_of(name: str, surface: bytes) -> dict[str, Digest]:
    """The installed files of a release, by their paths in the manifest."""
    return {
        "python": digest_of("python"),
        "stdlib/os.py": digest_of("os"),
        "lib/usr/lib/libc.so.6": digest_of("libc"),
        "site/ironbound/__init__.py": digest_of(f"source of {name}"),
        "site/ironbound/__pycache__/__init__.cpython-311.pyc": digest_of(f"bytecode of {name}"),
        f"site/ironbound/{SURFACE_FILE}": sha256_hex(surface),
        f"site/ironbound/{LIST_FILE}": sha256_hex(LIST),
    }


def statements(
    name: str,
    key: PrivateKey,
    agents: bytes,
    wheels: Mapping[str, str] | None = None,
    **changes: Mapping[str, Any],
) -> dict[str, bytes]:
    """What the key signs of a release, by kind: `changes` in a predicate, and another wheel by kind."""
    files = files_of(name, agents)
    package = package_of(files)
    predicates: dict[str, dict[str, Any]] = {
        "provenance": {
            "buildDefinition": {"buildType": "lab", "externalParameters": {}, "resolvedDependencies": []},
            "runDetails": {"builder": {"id": "lab"}},
        },
        "tests": {
            "result": "PASSED",
            "configuration": [],
            "passedTests": ["tests/test_a.py::test_b"],
            "warnedTests": [],
            "failedTests": [],
            "package_sha256": package,
        },
        "surface": {
            "list_sha256": sha256_hex(LIST),
            "agent_surface_sha256": sha256_hex(agents),
            "verdict": "PRESENT-REFUSES",
            "files": 7,
            "listed": 90,
            "unlisted": 0,
            "gone": 0,
            "unread": 0,
            "switches": {"active": 0, "refused": 2, "explained": 1},
        },
        "install": {
            "version": "0.1.0",
            "package_sha256": package,
            "python": {"version": "3.11.2", "implementation": "cpython"},
            "files": dict(files),
        },
    }
    other = wheels or {}
    return {
        kind: sign_release(
            kind,
            {WHEEL: digest_of(other.get(kind, f"wheel of {name}"))},
            predicates[kind] | dict(changes.get(kind, {})),
            key,
        )
        for kind in PREDICATES
    }
