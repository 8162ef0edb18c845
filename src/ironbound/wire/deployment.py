"""The deployment directory: where each thing lies, and what its files say. Read here, made by `terminal.init`.

Services run with it as their working directory. As root each service is a user of its own, so the folders above it
must let others through (`is_reachable`). Nothing in `deployment.json` is authority: two ports, the address on which
the operator channel listens with TLS (or null), and the address of the node's TPM, whose key the trust root enrols.
Power comes from the trust root.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from ironbound.core.canonical import Digest, FormatError, Value, parse_canonical, parse_decimal, sha256_hex
from ironbound.core.keys import PrivateKey
from ironbound.core.trust import TrustRoot, parse_trust_root

from .durable import sync_directory

ROLES: Final = ("ledger", "controller", "node", "gateway", "monitor")
#: Who keeps artifacts: each service, and the command line for what it loads itself (the images' listings).
KEEPERS: Final = (*ROLES, "terminal")
#: Numeric users that a deployment takes as root, and those of them that are for sandboxes, one each.
USERS_EACH: Final = 1000
SANDBOX_SLOTS: Final = 800
MAX_FILE: Final = 1 << 20
MAX_ARTIFACT: Final = 64 << 20
#: The operator channel's certificate, for whoever connects to pin.
CHANNEL_CERTIFICATE: Final = "operator-channel.crt"
#: The folder in `release/` with the install manifests of releases before the newest.
EARLIER: Final = "earlier"
SETTINGS: Final = frozenset({"version", "read_port", "witness_port", "operator_listen", "tpm"})
#: Bytes that fit in the address of a Unix socket, its closing zero excluded.
MAX_SOCKET_PATH: Final = 107


class DeploymentError(Exception):
    """The directory is not a usable deployment; the message gives cause and hint."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment's directory with its verified trust root, its two loopback ports and where its TPM is.

    `settings` is the SHA-256 of deployment.json, which a quorum approves with a release.
    """

    root: Path
    trust: TrustRoot
    read_port: int
    witness_port: int
    tpm: str | None
    settings: Digest
    listen: tuple[str, int] | None = None

    @property
    def separated(self) -> bool:
        """True if each service has its own user, False if the separation is by process only."""
        return self.trust.separation == "user"

    def uid(self, role: str) -> int:
        """The numeric user that a role runs as."""
        return self.trust.users.get(role, os.getuid()) if self.separated else os.getuid()

    @property
    def sandbox_uids(self) -> range | None:
        """The numeric users of this deployment's sandboxes; None if the separation is by process only."""
        first = self.trust.users.get("sandbox")
        return range(first, first + SANDBOX_SLOTS) if self.separated and first is not None else None

    def key(self, name: str) -> PrivateKey:
        """A service's own private key; only its user can read it."""
        path = self.root / "keys" / f"{name}.pem"
        return PrivateKey.from_pem(read_file(path), None)

    def socket(self, role: str, name: str = "socket") -> str:
        """The address of a role's Unix socket, short enough for the kernel wherever the directory lies."""
        folder = self.root / "run" / role
        path = str(folder / name)
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            return path
        return f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}/{name}"

    def install_manifests(self) -> list[tuple[str, bytes]]:
        """What the release key signed of installations, with its file: the newest release's, then the earlier ones'.

        Some may be of releases that are not installed yet, or no more.
        """
        folder = self.root / "release"
        earlier = sorted((folder / EARLIER).glob("*.dsse.json"), key=lambda one: -one.stat().st_mtime_ns)
        files = [folder / "install.dsse.json", *earlier]
        return [(str(one.relative_to(self.root)), read_file(one, limit=MAX_ARTIFACT)) for one in files]

    def channel_certificate(self) -> tuple[str, str]:
        """The operator channel's certificate, which anybody may have, and its key, which only the controller reads."""
        return str(self.root / CHANNEL_CERTIFICATE), str(self.root / "keys" / "operator-channel.pem")

    def artifact(self, digest: str) -> bytes:
        """The bytes with that SHA-256, from any keeper's store; DeploymentError if nobody has them."""
        for role in KEEPERS:
            path = self.root / "artifacts" / role / "sha256" / digest
            if path.is_file():
                data = read_file(path, limit=MAX_ARTIFACT)
                if sha256_hex(data) == digest:
                    return data
        raise DeploymentError(f"no artifact with SHA-256 {digest}")

    def keep_artifact(self, role: str, data: bytes) -> Digest:
        """Keeps bytes in a keeper's own store under their SHA-256, durably, once."""
        digest = sha256_hex(data)
        folder = self.root / "artifacts" / role / "sha256"
        final = folder / digest
        if not final.exists():
            draft = folder / f".{digest}.{os.getpid()}"
            with open(draft, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(draft, 0o644)
            os.replace(draft, final)
            sync_directory(str(folder))
        return digest


def is_reachable(path: Path) -> bool:
    """True if every folder from the root down to `path` lets any user through."""
    return all(one.stat().st_mode & 0o001 for one in (path, *path.parents) if one.exists())


def numeric_users(draw: int) -> dict[str, int]:
    """The users of a new deployment. `draw` is random, so that two on one machine don't share any."""
    base = 1_000_000 + draw % 1_000_000 * USERS_EACH
    return {
        "ledger": base + 1,
        "controller": base + 2,
        "node": 0,
        "gateway": base + 4,
        "monitor": base + 5,
        "sandbox": base + 100,
    }


def read_file(path: Path, limit: int = MAX_FILE) -> bytes:
    """A file's bytes; DeploymentError with the cause if it is missing, unreadable or over `limit` bytes."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise DeploymentError(f"{path}: {error.strerror}") from error
    if len(data) > limit:
        raise DeploymentError(f"{path}: larger than {limit} bytes")
    return data


def _port(value: Value) -> int:
    if type(value) is not int or not 0 < value < 65536:
        raise FormatError("deployment-shape", "a port is 1 to 65535")
    return value


def parse_address(text: str) -> tuple[str, int]:
    """IP address and port of `127.0.0.1:8443` or `[::1]:8443`; FormatError (`deployment-shape`)."""
    host, _, port = text.rpartition(":")
    plain = host.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(plain)
        if host != (f"[{plain}]" if address.version == 6 else plain):
            raise ValueError(host)
        return str(address), _port(parse_decimal(port))
    except (ValueError, FormatError):
        raise FormatError("deployment-shape", "an address is 127.0.0.1:8443 or [::1]:8443") from None


def load(root: Path) -> Deployment:
    """The deployment in a directory; DeploymentError if it isn't one."""
    if not (root / "deployment.json").is_file():
        raise DeploymentError(f"{root} is no deployment; make one with `ironbound init {root}`")
    try:
        encoded = read_file(root / "deployment.json")
        settings = parse_canonical(encoded.rstrip(b"\n"), limit=MAX_FILE)
        trust = parse_trust_root(read_file(root / "trust-root.json"))
        if type(settings) is not dict or settings.keys() != SETTINGS:
            raise FormatError("deployment-shape", "expected " + ", ".join(sorted(SETTINGS)))
        if settings["version"] != 1:
            raise FormatError("deployment-shape", "expected version 1")
        tpm = settings["tpm"]
        if tpm is not None and type(tpm) is not str:
            raise FormatError("deployment-shape", "the TPM's address is a string or null")
        listen = settings["operator_listen"]
        if listen is not None and type(listen) is not str:
            raise FormatError("deployment-shape", "the operator channel's address is a string or null")
        address = None if listen is None else parse_address(listen)
        ports = [_port(settings["read_port"]), _port(settings["witness_port"])]
    except FormatError as error:
        raise DeploymentError(f"{root}: {error}") from error
    return Deployment(root, trust, ports[0], ports[1], tpm, sha256_hex(encoded), address)
