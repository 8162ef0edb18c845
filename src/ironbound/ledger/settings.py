"""What a ledger is told about its deployment, and the ways in which it refuses to go on.

Plain records; nothing here reads a file or decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ironbound.core.keys import KeyId, PrivateKey, PublicKey
from ironbound.core.policy import Policy

#: Exit status of a process whose ledger refused to start or go on (rollback, fork, damage).
EXIT_REFUSED: Final = 3
#: Exit status after a disk error; nothing half-written is left, a restart recovers.
EXIT_DISK: Final = 74


@dataclass(frozen=True, slots=True)
class Voice:
    """A service's key: the role it speaks for and the numeric user that its process must run as."""

    role: str
    key: PublicKey
    uid: int


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """One ledger. Paths are relative to the working directory of the process.

    `voices` maps a key id to the service that signs with it; `entitlements` maps a role to the predicate
    types that it may say; `policy` must be met by every checkpoint that is published. `witness` is the witness's
    address, and `witness_uid` its user (see `wire.cosigner`).
    """

    origin: str
    deployment: str
    log_key: PrivateKey
    voices: Mapping[KeyId, Voice]
    entitlements: Mapping[str, frozenset[str]]
    policy: Policy
    witness: str
    witness_uid: int
    read_port: int
    state_dir: str = "ledger"
    public_dir: str = "public"
    socket_path: str = "run/ledger.sock"

    @property
    def database(self) -> str:
        """The SQLite file with the entries."""
        return f"{self.state_dir}/ledger.db"

    @property
    def high_water(self) -> str:
        """The record of the highest checkpoint ever signed, apart from the database."""
        return f"{self.state_dir}/high-water"


class LedgerRefused(Exception):
    """The ledger must not run on what it found. `code`: missing, exists, damaged, rollback or fork."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __str__(self) -> str:
        return f"{self.code}: {self.args[0]}"


class DiskFailed(Exception):
    """Writing failed (`code`: disk-full, disk-error); the process must end and recover at its next start."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __str__(self) -> str:
        return f"{self.code}: {self.args[0]}"
