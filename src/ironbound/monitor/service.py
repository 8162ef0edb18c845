"""The monitor's process: another voice with another privilege path, which looks for itself."""

from __future__ import annotations

import asyncio

from ironbound.core.keys import PrivateKey
from ironbound.core.replay import Entry
from ironbound.wire.archive import Archive
from ironbound.wire.deployment import Deployment
from ironbound.wire.keeping import Keeper
from ironbound.wire.log import Log
from ironbound.wire.service import announce, ready, until_stopped

from .asked import Asked
from .challenge import Challenges
from .channel import Channel
from .events import ProcessEvents
from .hosts import Hosts
from .watch import Watch


async def main(
    deployment: Deployment, key: PrivateKey, witness_failed: asyncio.Future[None], events: ProcessEvents | None
) -> None:
    """Serve until stopped. `witness_failed` fails when the witness in this process can't go on.

    `events`: the kernel's, where it gives them; else everything rests on sampling, and the log says so.
    """
    log = Log(deployment, key)
    hosts = Hosts(deployment, log)
    watch = Watch(deployment, log, events, hosts)
    challenges = Challenges(deployment, log)
    channel = Channel(deployment, log)

    def entered(entry: Entry) -> None:
        watch.entered(entry)
        hosts.entered(entry)
        challenges.entered(entry)
        channel.entered(entry)

    log.listen(entered)
    archive = Archive(log, "monitor")
    await log.start()
    Keeper(log, "monitor", keeps=False)
    server = await Asked(deployment, log, watch, challenges, hosts).serve(deployment.socket("monitor"))
    await announce(log, "monitor", {"filters_visible": deployment.separated, "process_events": events is not None})
    ready()
    try:
        running = (watch.run(), hosts.run(), challenges.run(), channel.run(), archive.run())
        await until_stopped(log.broken(), *running, witness_failed)
    finally:
        server.close()
        await log.close()
