"""What a signature proves about how it was made.

Data only; the schemes say it, the consent carries it, nobody chooses it. A key that can be copied proves no more
than that somebody had it and its secret, whatever unlocked it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Strength(StrEnum):
    """How a human's signature was made, by what its bytes prove.

    That a device is a device is its maker's word, which we don't ask for: `hw` means that the key's kind says so.
    """

    HARDWARE_VERIFIED = "hw-uv"
    """A security key or a passkey that stays where it was made, after a PIN or a fingerprint."""
    HARDWARE_TOUCHED = "hw-up"
    """A security key that somebody touched."""
    SOFTWARE = "sw-pass"
    """A key that can be copied: a file under a passphrase, or a passkey that is kept in step between devices."""
    PROVIDER = "idp"
    """An identity provider's word that somebody logged in. It stands beside a device key's and never alone."""


@dataclass(frozen=True, slots=True)
class Assurance:
    """What a valid signature proves: its strength, and its key's counter (None: the scheme has none)."""

    strength: Strength
    counter: int | None = None
