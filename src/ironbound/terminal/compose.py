"""Puts parts together that may not know each other: the ledger with its deployment, the monitor with its witness."""

from __future__ import annotations

import asyncio
import signal
import time

from ironbound.core.keys import PrivateKey
from ironbound.core.note import Signer
from ironbound.core.statement import VOICES, predicate_type
from ironbound.ledger.service import create, serve
from ironbound.ledger.settings import DiskFailed, LedgerRefused, LedgerSettings, Voice
from ironbound.monitor.events import ProcessEvents
from ironbound.wire.deployment import Deployment
from ironbound.wire.log import LogBroken
from ironbound.wire.loopback import LoopbackServer
from ironbound.wire.service import ready
from ironbound.witness.app import witness_app
from ironbound.witness.local import LocalWitness
from ironbound.witness.state import Cosigner, WitnessStateLost


def _settings(deployment: Deployment, key: PrivateKey) -> LedgerSettings:
    trust = deployment.trust
    return LedgerSettings(
        origin=trust.origin,
        deployment=trust.deployment,
        log_key=key,
        voices={public.keyid: Voice(role, public, deployment.uid(role)) for role, public in trust.services.items()},
        entitlements={role: frozenset(predicate_type(kind) for kind in kinds) for role, kinds in VOICES.items()},
        policy=trust.policy,
        witness=f"unix:{deployment.socket('monitor', 'witness')}",
        witness_uid=deployment.uid("monitor"),
        read_port=deployment.read_port,
        state_dir=str(deployment.root / "ledger"),
        public_dir=str(deployment.root / "public"),
        socket_path=deployment.socket("ledger"),
    )


def create_log(deployment: Deployment) -> None:
    """A new log with the trust root as entry 0, and a witness that has seen nothing yet."""
    create(_settings(deployment, deployment.key("ledger")), deployment.trust.envelope.encode())
    Cosigner.create(str(deployment.root / "witness" / "state"))


async def ledger(deployment: Deployment, key: PrivateKey) -> None:
    """The ledger's process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await serve(_settings(deployment, key), ready=lambda _port: ready(), stop=stop)
    except LedgerRefused as error:
        raise LogBroken(str(error)) from error
    except DiskFailed as error:
        raise OSError(str(error)) from error


async def monitor(
    deployment: Deployment, key: PrivateKey, witness_key: PrivateKey, events: ProcessEvents | None
) -> None:
    """The monitor's process: the witness first, since nothing gets into the log without it."""
    from ironbound.monitor.service import main

    trust = deployment.trust
    witness = trust.policy.witnesses[0]
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    try:
        cosigner = Cosigner.open(
            str(deployment.root / "witness" / "state"),
            Signer(witness.key.name, witness_key),
            trust.policy.log,
            lambda: int(time.time()),
        )
    except WitnessStateLost as error:
        raise LogBroken(f"witness: {error}") from error

    loop = asyncio.get_running_loop()

    def end(error: OSError) -> None:
        if not failed.done():
            failed.set_exception(error)

    def fail(error: OSError) -> None:
        loop.call_soon_threadsafe(end, error)

    local = LocalWitness(cosigner, deployment.socket("monitor", "witness"), deployment.uid("ledger"), fail)
    server = await LoopbackServer.start(witness_app(cosigner, fail), deployment.witness_port)
    try:
        await main(deployment, key, failed, events)
    finally:
        local.close()
        await server.close()
