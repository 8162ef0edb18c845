"""A security key in software for the demo: somebody touches it, and it verifies nobody.

Decides nothing. It signs as OpenSSH's `ed25519-sk` keys do (PROTOCOL.u2f, PROTOCOL.sshsig), so all that reads its
signatures is what reads a device's. That a program can play a device is in the threat model: nothing is attested.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Final

from ironbound.core.keys import PrivateKey
from ironbound.core.sshsig import SECURITY_KEY, SshKey, namespace_of, signed_data, ssh_string

_APPLICATION: Final = b"ssh:"
_TOUCHED: Final = 0x01


class TouchedKey:
    """A key for the operators of one deployment, enrolled as one for which a touch is enough."""

    def __init__(self, deployment: str) -> None:
        self._key, self._counter = PrivateKey.generate(os.urandom(32)), 0
        blob = b"".join(map(ssh_string, (SECURITY_KEY, self._key.public.raw, _APPLICATION)))
        self.public = SshKey(blob, namespace_of(deployment), False)

    def sign(self, message: bytes) -> bytes:
        """The SSHSIG blob over a message."""
        self._counter += 1
        namespace, end = self.public.namespace, bytes([_TOUCHED]) + self._counter.to_bytes(4, "big")
        covered = sha256(signed_data(namespace, message)).digest()
        raw = self._key.sign(sha256(_APPLICATION).digest() + end + covered)
        inner = ssh_string(SECURITY_KEY) + ssh_string(raw) + end
        parts = (self.public.blob, namespace.encode(), b"", b"sha512", inner)
        return b"SSHSIG" + (1).to_bytes(4, "big") + b"".join(map(ssh_string, parts))
