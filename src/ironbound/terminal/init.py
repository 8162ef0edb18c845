"""Makes a deployment: operators' and services' keys, the trust root that they sign, the log's first entry, the pin.

Decides nothing later on: what counts is the trust root that the operators sign here and the pin they take away.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import Value, canonical, sha256_hex
from ironbound.core.envelope import Envelope, Signature, SigningKey, sign_envelope
from ironbound.core.keys import PrivateKey
from ironbound.core.note import COSIGNATURE, Signer
from ironbound.core.oidc import Identity
from ironbound.core.scheme import OperatorKey, is_device, key_entry
from ironbound.core.statement import MAX_CONSENTS, QUORUMS, Subject, encode_statement
from ironbound.core.trust import CANARY_INTERVAL_MS, PRODUCTION, parse_trust_root
from ironbound.core.webauthn import Passkey
from ironbound.ledger.settings import LedgerRefused
from ironbound.node.tpm import Tpm, TpmError
from ironbound.wire.deployment import (
    CHANNEL_CERTIFICATE,
    ROLES,
    Deployment,
    is_reachable,
    load,
    numeric_users,
    parse_address,
)
from ironbound.wire.log import now_ms
from ironbound.wire.privilege import missing_as_root

from . import compose
from .approval.signer import PageSigner, facing
from .certificate import make_certificate
from .consent import Screen, trust_root_screen
from .releases import keep_release, read_release_folder, release_key
from .voice import Stop

VOICED: Final = ("controller", "node", "gateway", "monitor")
#: A drift ends in a stop within this time, or claim B3 falls.
DRIFT_STOP_MS: Final = 5_000
#: The monitor says at least this often that it looks, or claim B3 is unproven for that time.
HEARTBEAT_MS: Final = 30_000
#: Who owns what below the deployment directory, as root.
FOLDERS: Final = {
    "keys": "root",
    "operators": "root",
    "run": "root",
    "logs": "root",
    "artifacts": "root",
    "ledger": "ledger",
    "public": "ledger",
    "witness": "monitor",
    "scratch": "gateway",
    "inputs": "root",
    "images": "root",
    "release": "root",
    "artifacts/terminal": "root",
    "artifacts/terminal/sha256": "root",
    **{f"run/{role}": role for role in ROLES},
    **{f"artifacts/{role}": role for role in ROLES},
    **{f"artifacts/{role}/sha256": role for role in ROLES},
}
#: Nobody else on the host reads these; the gateway's group reads `inputs`.
CLOSED: Final = ("keys", "operators", "logs", "inputs")


@dataclass(frozen=True, slots=True)
class Operator:
    """A human's name, their key (made for them here, an SSH key of their own, or a passkey), and their identity.

    A passkey that is here signs on its page; one whose registration came in a file can't sign here.
    """

    name: str
    key: SigningKey | Passkey
    identity: Identity | None = None

    @property
    def public(self) -> OperatorKey:
        """What is enrolled of the key."""
        return self.key if isinstance(self.key, Passkey) else self.key.public

    def entries(self) -> list[dict[str, Any]]:
        """Their keys, as the trust root holds them."""
        return [key_entry(self.public)] + ([] if self.identity is None else [key_entry(self.identity)])


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def write(path: Path, data: bytes, mode: int, uid: int | None = None) -> None:
    """A new file with its mode from the start; refuses to replace one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(path, mode)
    if uid is not None and os.getuid() == 0:
        os.chown(path, uid, uid)


def require_new(root: Path) -> None:
    """Stop if something is in the directory already."""
    if root.exists() and any(root.iterdir()):
        raise Stop(f"{root} is not empty", "give a directory that doesn't exist yet")


def initialise(
    root: Path,
    name: str,
    operators: Sequence[tuple[str, bytes | SigningKey | Passkey]],
    quorum: int,
    keys: Path | None = None,
    environment: str = PRODUCTION,
    canary_interval_ms: int = CANARY_INTERVAL_MS,
    tpm: str | None = None,
    listen: str | None = None,
    identities: Mapping[str, Identity] | None = None,
    release: Path | None = None,
    tell: Callable[[Screen], None] = lambda screen: None,
) -> Deployment:
    """A new deployment in the empty directory `root`. `operators`: names, each with their own key or a passphrase.

    For a passphrase a key is made; it goes, encrypted, to `keys` (default: `operators/` inside). All but passkeys that
    came in a file sign the trust root here, and they have to be enough for its quorum; `tell` shows it to each before.
    `environment` is what the deployment is for; it is in the trust root, so the pin fixes it. `tpm` is where the node's
    TPM is, whose key is enrolled. `listen`: the address on which the operator channel listens with TLS too.
    `identities`: operators' identities at a provider, each beside a passkey or a security key. `release`: a folder of
    the release that is to run here, whose key the trust root then names.
    Raises Stop with cause and hint.
    """
    require_new(root)
    if not 1 <= quorum <= len(operators):
        raise Stop(f"a quorum of {quorum} can't be met by {len(operators)} operators")
    if quorum > MAX_CONSENTS:
        raise Stop(f"a quorum of {quorum} can't be met: an act takes {MAX_CONSENTS} humans at most")
    if len({one for one, _ in operators}) != len(operators):
        raise Stop("an operator is named twice")
    if sum(not isinstance(key, Passkey) for _, key in operators) < quorum:
        raise Stop(
            f"a quorum of {quorum} has to sign the trust root here, and passkeys from files can't",
            "let enough operators have a key file, an SSH key, or `NAME=passkey` in this machine's browser",
        )
    if not all(key for _, key in operators):
        raise Stop("an operator's passphrase is empty", "a key without a passphrase is anybody's key")
    identities = identities or {}
    for one in identities:
        own = dict(operators).get(one)
        if own is None or isinstance(own, bytes) or not is_device(own if isinstance(own, Passkey) else own.public):
            raise Stop(
                f"operator {one} has an identity, and no passkey or security key beside it",
                f"enrol one: --operator {one}=FILE",
            )
    if listen is not None:
        parse_address(listen)
    key_of_release = None if release is None else release_key(release)
    statements = {} if key_of_release is None or release is None else read_release_folder(release, key_of_release)
    enrolment = None if tpm is None else _enrolment(tpm)
    separated = os.getuid() == 0
    missing = missing_as_root() if separated else []
    if missing:
        raise Stop(
            f"root lacks {', '.join(missing)} here, so the services can't be users of their own",
            "do it as an ordinary user (separation is then by process), or give the container these capabilities",
        )
    if separated and not is_reachable(root.parent):
        raise Stop(
            f"a folder above {root} is closed to other users, so the services' own users can't get in",
            "choose another place, such as below /var/lib, or open the folders above (chmod o+x)",
        )
    root.mkdir(parents=True, exist_ok=True)
    if separated and root.stat().st_uid != 0:
        os.chown(root, 0, 0)  # whoever made it could exchange what lies in it
    root.chmod(0o755)
    users = numeric_users(int.from_bytes(os.urandom(4), "big"))
    for folder, owner in FOLDERS.items():
        path = root / folder
        path.mkdir(mode=0o755)
        path.chmod(0o700 if folder in CLOSED else 0o755)
        if separated and owner != "root":
            os.chown(path, users[owner], users[owner])
    if separated:
        os.chown(root / "inputs", 0, users["gateway"])
        (root / "inputs").chmod(0o750)
    people = []
    for one, own in operators:
        if isinstance(own, bytes):
            made = PrivateKey.generate(os.urandom(32))
            write((keys or root / "operators") / f"{one}.key", made.to_pem(own), 0o400)
            people.append(Operator(one, made))
        else:
            people.append(Operator(one, own, identities.get(one)))
    services = {role: PrivateKey.generate(os.urandom(32)) for role in (*ROLES, "witness")}
    for role, key in services.items():
        user = users["monitor" if role == "witness" else role]
        write(root / "keys" / f"{role}.pem", key.to_pem(None), 0o400, user)
    if separated:
        (root / "keys").chmod(0o711)
    read_port, witness_port = free_ports(2)
    root_statement = _trust_root(
        name, environment, canary_interval_ms, people, services, quorum, witness_port, users if separated else {}
    )
    root_statement["tpm"] = enrolment
    root_statement["release"] = None if key_of_release is None else key_entry(key_of_release)
    try:
        payload = encode_statement("trust-root", (Subject("roster", _roster_digest(people)),), root_statement)
        envelope = _signed(payload, people, quorum, tell)
    except BaseException:  # malformed, declined, too late, Ctrl-C: half a deployment helps nobody
        made_apart = [keys / f"{one}.key" for one, own in operators if isinstance(own, bytes)] if keys else []
        for path in [*root.iterdir(), *made_apart]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    trust = parse_trust_root(envelope.encode())
    settings: dict[str, Value] = {
        "version": 1,
        "read_port": read_port,
        "witness_port": witness_port,
        "operator_listen": listen,
        "tpm": tpm,
    }
    certificate, key_pem = make_certificate(name)
    write(root / CHANNEL_CERTIFICATE, certificate, 0o644)
    write(root / "keys" / "operator-channel.pem", key_pem, 0o400, users["controller"])
    write(root / "trust-root.json", envelope.encode(), 0o644)
    write(root / "witness-policy", trust.policy_text.encode(), 0o644)
    write(root / "pin.txt", f"{trust.pin}\n".encode(), 0o644)
    write(root / "credentials.json", b"{}\n", 0o400, users["gateway"])
    write(root / "deployment.json", canonical(settings) + b"\n", 0o644)
    deployment = load(root)
    keep_release(deployment, statements)
    try:
        compose.create_log(deployment)
    except LedgerRefused as error:
        raise Stop(f"the log could not be made: {error}") from error
    if separated:
        for folder, owner in (("ledger", "ledger"), ("public", "ledger"), ("witness", "monitor")):
            for path in [root / folder, *(root / folder).rglob("*")]:
                os.chown(path, users[owner], users[owner])
    return deployment


def _signed(payload: bytes, people: Sequence[Operator], quorum: int, tell: Callable[[Screen], None]) -> Envelope:
    """The trust root, shown to and signed by everybody who can sign here."""
    signatures: list[Signature] = []
    signed_by: list[str] = []
    for person in people:
        if isinstance(person.key, Passkey):
            continue
        screen = trust_root_screen(payload, person.name, signed_by, quorum)
        tell(screen)
        try:
            signatures += sign_envelope(payload, [facing(person.key, screen, False)]).signatures
        finally:
            if isinstance(person.key, PageSigner):
                person.key.close()
        signed_by.append(person.name)
    return Envelope(payload, tuple(signatures))


def _enrolment(address: str) -> dict[str, str]:
    """The attestation key of the node's TPM, as the trust root holds it."""
    if not address.removeprefix("swtpm:").startswith("/"):
        raise Stop(f"{address} is no absolute path", "write swtpm:/PATH for a software TPM, or /dev/tpmrm0")
    try:
        tpm = Tpm(address)
        try:
            return tpm.enrolment("software" if address.startswith("swtpm:") else "hardware")
        finally:
            tpm.close()
    except TpmError as error:
        raise Stop(f"the TPM: {error}", "write swtpm:/PATH for a software TPM, or /dev/tpmrm0") from error


def _roster_digest(people: Sequence[Operator]) -> Any:
    return sha256_hex(canonical([[one.name, one.public.keyid, *_identity_of(one)] for one in people]))


def _identity_of(person: Operator) -> list[Value]:
    return [] if person.identity is None else [person.identity.keyid]


def _trust_root(
    name: str,
    environment: str,
    canary_interval_ms: int,
    people: Sequence[Operator],
    services: dict[str, PrivateKey],
    quorum: int,
    witness_port: int,
    users: dict[str, int],
) -> dict[str, Any]:
    origin = f"{name}.log.ironbound"
    log = Signer(origin, services["ledger"]).verifier()
    witness = Signer(f"{name}.witness.ironbound", services["witness"]).verifier(COSIGNATURE)
    return {
        "version": 1,
        "deployment": name,
        "environment": environment,
        "created_ms": now_ms(),
        "operators": [{"name": one.name, "keys": one.entries(), "acts": list(QUORUMS)} for one in people],
        "quorum": dict.fromkeys(QUORUMS, quorum),
        "break_glass": None,
        "services": {role: key_entry(services[role].public) for role in VOICED},
        "log": {"origin": origin, "vkey": log.vkey},
        "witness_policy": (
            f"log {log.vkey}\nwitness monitor {witness.vkey} http://127.0.0.1:{witness_port}\nquorum monitor\n"
        ),
        "separation": {
            "mode": "user" if users else "process",
            "users": users,
        },
        "bounds": {
            "drift_stop_ms": DRIFT_STOP_MS,
            "canary_interval_ms": canary_interval_ms,
            "heartbeat_ms": HEARTBEAT_MS,
        },
    }
