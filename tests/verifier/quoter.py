"""A TPM in a few lines: the structures of a quote made by hand, so that each can be wrong in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from ironbound.core.canonical import b64encode
from ironbound.core.tpm import extended, name_of

ATTRIBUTES = 0x0005_0072


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


@dataclass
class Quoter:
    """An attestation key with a PCR 14 and a clock. `wrong` replaces a field of the next quotes."""

    seed: int = 1
    root: str = "hardware"
    pcr: bytes = bytes(32)
    clock: int = 1000
    resets: int = 1
    wrong: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key = ec.derive_private_key(self.seed, ec.SECP256R1())
        self.name = self.qualified(self.public())

    def qualified(self, public: bytes) -> bytes:
        """The name of a primary key in the owner's hierarchy."""
        return b"\x00\x0b" + sha256(bytes.fromhex("40000001") + name_of(public)).digest()

    def public(self, attributes: int = ATTRIBUTES) -> bytes:
        numbers = self.key.public_key().public_numbers()
        point = sized(numbers.x.to_bytes(32, "big")) + sized(numbers.y.to_bytes(32, "big"))
        head = bytes.fromhex("0023000b") + attributes.to_bytes(4, "big")
        return head + bytes.fromhex("000000100018000b00030010") + point

    @property
    def enrolment(self) -> dict[str, str]:
        return {"root": self.root, "public": b64encode(self.public()), "qualified_name": self.name.hex()}

    def attest(self, expected: bytes, **wrong: Any) -> bytes:
        parts: dict[str, bytes] = {
            "magic": b"\xffTCG",
            "type": b"\x80\x18",
            "signer": sized(self.name),
            "extra": sized(expected),
            "clock": self.clock.to_bytes(8, "big"),
            "counts": self.resets.to_bytes(4, "big") + bytes(4),
            "safe": b"\x01",
            "firmware": bytes(8),
            "selection": bytes.fromhex("00000001000b03004000"),
            "digest": sized(sha256(self.pcr).digest()),
            "end": b"",
        }
        return b"".join((parts | wrong).values())

    def sign(self, attest: bytes) -> bytes:
        r, s = decode_dss_signature(self.key.sign(attest, ec.ECDSA(SHA256())))
        return bytes.fromhex("0018000b") + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))

    def quote(self, measurement: Any, expected: bytes) -> dict[str, str]:
        """As `node.tpm.Tpm.quote`."""
        before, self.clock = self.pcr, self.clock + 1
        self.pcr = extended(before, measurement)
        attest = self.attest(expected, **self.wrong)
        return {"attest": b64encode(attest), "signature": b64encode(self.sign(attest)), "before": before.hex()}
