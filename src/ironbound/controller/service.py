"""The controller's process: the operator channel over the log that it follows.

Decides where it listens: on its Unix socket always, and with TLS on the address that `deployment.json` names, if any.
HTTP in the clear is for the Unix socket alone.
"""

from __future__ import annotations

from ironbound.core.keys import PrivateKey
from ironbound.wire.archive import Archive
from ironbound.wire.deployment import Deployment
from ironbound.wire.keeping import Keeper
from ironbound.wire.log import Log
from ironbound.wire.loopback import LoopbackServer
from ironbound.wire.service import announce, ready, until_stopped

from .operator import Operators


async def main(deployment: Deployment, key: PrivateKey) -> None:
    """Serve until stopped."""
    log = Log(deployment, key)
    archive = Archive(log, "controller")
    await log.start(own="controller")
    Keeper(log, "controller")
    await announce(log, "controller", {})
    operators = Operators(deployment, log, archive)
    app = operators.app()
    await operators.proposals.resume()
    servers = [await LoopbackServer.start_unix(app, deployment.socket("controller"))]
    if deployment.listen is not None:
        servers.append(await LoopbackServer.start_tls(app, *deployment.listen, *deployment.channel_certificate()))
    ready()
    try:
        await until_stopped(log.broken(), archive.run())
    finally:
        for server in servers:
            await server.close()
        await app.close()
        await log.close()
