"""The controller's process: the operator channel on a Unix socket, over the log that it follows."""

from __future__ import annotations

from ironbound.core.keys import PrivateKey
from ironbound.wire.deployment import Deployment
from ironbound.wire.log import Log
from ironbound.wire.loopback import LoopbackServer
from ironbound.wire.service import announce, ready, until_stopped

from .operator import Operators


async def main(deployment: Deployment, key: PrivateKey) -> None:
    """Serve until stopped."""
    log = Log(deployment, key)
    await log.start()
    await announce(log, "controller", {})
    server = await LoopbackServer.start_unix(Operators(deployment, log).app(), deployment.socket("controller"))
    ready()
    try:
        await until_stopped(log.broken())
    finally:
        await server.close()
        await log.close()
