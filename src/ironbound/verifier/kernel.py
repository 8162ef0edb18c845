"""Which source files are the kernel, and their digest: what C4's proof is bound to and each service says at its start.

Decides nothing. The digest is that of the installed package: an importer that hands out other bytes than it runs
would be another Ironbound than the one whose release digest stands beside it.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from ironbound.core.canonical import Digest, sha256_hex

#: What decides who may do what, from an entry's bytes to the state after it; all in `ironbound.core`.
KERNEL_SOURCES: Final = (
    "admission.py",
    "authority.py",
    "books.py",
    "canonical.py",
    "constraint.py",
    "envelope.py",
    "giving.py",
    "held.py",
    "jose.py",
    "keys.py",
    "legible.py",
    "logic.py",
    "merkle.py",
    "oidc.py",
    "replay.py",
    "request.py",
    "roster.py",
    "rule.py",
    "scheme.py",
    "shown.py",
    "snapshot.py",
    "sshsig.py",
    "statement.py",
    "strength.py",
    "trust.py",
    "using.py",
    "webauthn.py",
)


def kernel_digest() -> Digest:
    """SHA-256 over the digests of the kernel's source files, one `sha256  name` line each, by name."""
    folder = resources.files("ironbound.core")
    lines = [f"{sha256_hex((folder / name).read_bytes())}  {name}\n" for name in KERNEL_SOURCES]
    return sha256_hex("".join(lines).encode())
