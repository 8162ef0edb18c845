"""The node's process: follows the log and does what it admits; launches, stops, and says so.

Decides nothing that `launches` doesn't. It listens on nothing: orders reach it through the log alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from ironbound.core.canonical import FormatError
from ironbound.core.keys import PrivateKey
from ironbound.core.microvm import FIRECRACKER, QEMU
from ironbound.core.replay import Entry, Launch
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.images import Images
from ironbound.wire.keeping import Keeper
from ironbound.wire.log import Log
from ironbound.wire.service import announce, boot_id, installed_release, ready, start_time, until_stopped

from .launches import Host, Launches
from .microvm.firecracker import Firecracker
from .microvm.kernel import KernelMissing, MeasurementDiffers
from .microvm.qemu import Qemu
from .native.container import BINARIES, Container
from .processes import become_subreaper
from .runtime import Runtime
from .sandbox.runtime import Wasmtime
from .tpm import Tpm, TpmError


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
            elif asked.kind == "key-compromised":
                self._launches.stop_undone("key-compromised")
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


def containers(deployment: Deployment) -> tuple[dict[str, Runtime], dict[str, str]]:
    """The container runtimes that this host has, and why it lacks the others."""
    images = Images(deployment)
    have: dict[str, Runtime] = {}
    without: dict[str, str] = {}
    for name in BINARIES:
        try:
            have[name] = Container(name, deployment, images)
        except OSError as error:
            without[name] = str(error)
    return have, without


async def machines(deployment: Deployment) -> tuple[dict[str, Runtime], dict[str, str]]:
    """The hypervisors of this host under which a machine of ours boots, and why the others can't be had."""
    images = Images(deployment)
    have: dict[str, Runtime] = {}
    without: dict[str, str] = {}
    try:
        qemu = await asyncio.to_thread(Qemu, deployment, images)
        await qemu.start()
        have[QEMU] = qemu
    except (OSError, ValueError, KernelMissing) as error:
        without[QEMU] = str(error)
    try:
        have[FIRECRACKER] = await asyncio.to_thread(Firecracker, deployment, images)
    except (OSError, FormatError, KernelMissing, MeasurementDiffers) as error:
        without[FIRECRACKER] = str(error)
    return have, without


def enrolled_tpm(deployment: Deployment) -> Tpm | None:
    """The TPM whose attestation key the trust root enrols; None where it enrols none.

    DeploymentError if it can't be reached or holds another key: no launch goes on without its quote.
    """
    key = deployment.trust.tpm
    if key is None:
        return None
    if deployment.tpm is None:
        raise DeploymentError("the trust root enrols a TPM, and deployment.json names none")
    try:
        tpm = Tpm(deployment.tpm)
        if bytes.fromhex(tpm.enrolment(key.root)["qualified_name"]) != key.qualified_name:
            raise DeploymentError(f"the TPM at {deployment.tpm} holds another key than the enrolled one")
    except TpmError as error:
        raise DeploymentError(f"the TPM: {error}") from error
    return tpm


async def main(deployment: Deployment, key: PrivateKey) -> None:
    """Serve until stopped."""
    become_subreaper()
    tpm = await asyncio.to_thread(enrolled_tpm, deployment)
    wasmtime = await Wasmtime.start()
    have, without = await asyncio.to_thread(containers, deployment)
    booted, unbooted = await machines(deployment)
    have, without = have | booted, without | unbooted
    runtimes: Mapping[str, Runtime] = {wasmtime.name: wasmtime, **have}
    log = Log(deployment, key)
    host = Host(runtimes, without, boot_id(), installed_release(), tpm)
    launches = Launches(deployment, log, host)
    orders = Orders(deployment, log, launches, wasmtime.measured.pid)
    try:
        await log.start(own="node")
        Keeper(log, "node")
        for runtime in have.values():
            await runtime.close()  # what an earlier node left running
        await announce(log, "node", host.facts())

        def kill_stray(launch: Launch) -> None:
            said = log.replay.books.started[launch.started]
            kill_sandboxed(said["pid"], said["pid_start"], wasmtime.measured.pid, deployment.sandbox_uids)

        log.listen(orders.obey)
        await launches.recover(kill_stray)
        ready()
        await until_stopped(log.broken(), wasmtime.lost(), launches.failed)
    finally:
        await launches.close()
        for runtime in runtimes.values():
            await runtime.close()
        await log.close()
