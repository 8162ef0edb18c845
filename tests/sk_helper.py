"""The security key behind `sk_provider.c`: `enroll`, or `sign APPLICATION HANDLE DATA` (hexadecimal).

SK_FLAGS says what the key reports: 1 touched, 4 verified.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

COUNTER = 42


def main(words: list[str]) -> bytes:
    if words[0] == "enroll":
        handle = os.urandom(32)
        return Ed25519PrivateKey.from_private_bytes(handle).public_key().public_bytes_raw() + handle
    application, handle, data = (bytes.fromhex(one) for one in words[1:])
    end = bytes([int(os.environ["SK_FLAGS"])]) + COUNTER.to_bytes(4, "big")
    message = sha256(application).digest() + end + sha256(data).digest()
    return end + Ed25519PrivateKey.from_private_bytes(handle).sign(message)


if __name__ == "__main__":
    sys.stdout.buffer.write(main(sys.argv[1:]))
