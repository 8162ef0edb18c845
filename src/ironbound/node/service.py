"""The node's process: follows the log and does what it admits; launches, stops, and says so.

Decides nothing that `launches` doesn't. It listens on nothing: orders reach it through the log alone.
"""

from __future__ import annotations

import os
import signal
from importlib import resources
from pathlib import Path
from typing import Final

from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.keys import PrivateKey
from ironbound.core.replay import Entry, Launch
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.log import Log
from ironbound.wire.service import announce, boot_id, ready, release_digest, start_time, until_stopped

from .launches import Host, Launches, runtime_facts
from .sandbox.launcher import Zygote, ZygoteLost

_LIBRARY: Final = "_libwasmtime.so"


def runtime_digest() -> Digest:
    """SHA-256 of the Wasm runtime's shared library, as installed."""
    package = Path(str(resources.files("wasmtime")))
    found = sorted(package.rglob(_LIBRARY))
    if len(found) != 1:
        raise DeploymentError(f"expected one {_LIBRARY} in {package}, found {len(found)}")
    return sha256_hex(found[0].read_bytes())


class Orders:
    """Turns entries of the log into launches and stops."""

    def __init__(self, deployment: Deployment, log: Log, launches: Launches, zygote_pid: int) -> None:
        self._deployment, self._log = deployment, log
        self._launches, self._zygote_pid = launches, zygote_pid

    def obey(self, entry: Entry) -> None:
        """Do what an accepted entry asks of the node."""
        if entry.void is not None:
            return
        said = entry.predicate
        if entry.kind == "canary-challenge":
            self._launches.admitted(self._log.replay.books.launches[entry.index])
        elif entry.kind == "admitted" and entry.consent is not None:
            asked = entry.consent.statement
            if asked.kind == "launch-request":
                self._launches.admitted(self._log.replay.books.launches[entry.index])
            elif asked.kind == "stop":
                self._launches.stop_agent(asked.predicate["agent"], "stopped")
        elif entry.kind == "observed":
            self._launches.observed(entry)
        elif entry.kind == "stop-order":
            if said["launch"] is not None:
                self._launches.stop(said["launch"], "stop-order")
            else:
                kill_sandboxed(said["pid"], said["pid_start"], self._zygote_pid, self._deployment.sandbox_uids)


def _is_sandboxed(pid: int, zygote: int, uids: range | None) -> bool:
    """True if the process is one of ours to kill: a sandbox user's, or a child of the zygote."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    uid = int(fields["Uid"].split()[0])
    if uids is not None and uid in uids:
        return True
    return int(fields["PPid"]) == zygote


def kill_sandboxed(pid: int, pid_start: int, zygote: int, uids: range | None) -> None:
    """Kill that very process if it still runs and is a sandbox; nothing else, whoever orders it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if start_time(pid) == pid_start and _is_sandboxed(pid, zygote, uids):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


async def _zygote_lost(zygote: Zygote) -> None:
    await zygote.lost.wait()
    raise DeploymentError("the zygote ended; the node starts anew")


async def main(deployment: Deployment, key: PrivateKey) -> None:
    """Serve until stopped."""
    runtime = runtime_digest()
    zygote = Zygote()
    try:
        facts = await zygote.start()
    except ZygoteLost as error:
        raise DeploymentError(f"zygote: {error}") from error
    log = Log(deployment, key)
    host = Host(runtime, facts, boot_id(), release_digest())
    launches = Launches(deployment, log, zygote, host)
    orders = Orders(deployment, log, launches, facts.pid)
    try:
        await log.start()
        await announce(log, "node", runtime_facts(host))

        def kill_stray(launch: Launch) -> None:
            said = log.replay.books.started[launch.started]
            kill_sandboxed(said["pid"], said["pid_start"], facts.pid, deployment.sandbox_uids)

        log.listen(orders.obey)
        await launches.recover(kill_stray)
        ready()
        await until_stopped(log.broken(), _zygote_lost(zygote), launches.failed)
    finally:
        await launches.close()
        await zygote.close()
        await log.close()
