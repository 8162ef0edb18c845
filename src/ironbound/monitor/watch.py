"""Watches every sandbox: looks at each as soon as it is started and again and again, and says what it saw.

Decides what is drift: a posture that differs from the expected one, a process that no entry accounts for, an entry
whose process is gone. It derives the expected posture itself from the approved configuration's bytes; the node's
word is compared, never taken. On drift it orders the stop; the node obeys, and the order is in the log. What the node
does not end in time the monitor ends itself (`stopper`).

Rule 1: the first sample of a launch is said before the agent's first instruction; the node waits for it.
Rule 2: a drift is said once, with all its differences, and its stop is ordered at once.
Rule 3: no look and no stop waits for the log, but for the first look of a launch, which the launch waits for.
Rule 4: an event of the kernel leads to a look at the process concerned at once; the rounds go on beside.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping, Set
from typing import Any, Final

from ironbound.core.cage import compare_cage
from ironbound.core.canonical import FormatError, Value
from ironbound.core.posture import Difference
from ironbound.core.replay import Entry
from ironbound.core.statement import Subject
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.log import Log, LogUnavailable

from .cages import Cages
from .drifts import MAX_DIFFERENCES, Drifts
from .events import COREDUMP, EXEC, EXIT, FORK, GID, PTRACE, UID, Event, ProcessEvents
from .heartbeat import Pulse, sample_leaf
from .observe import ProcessGone
from .outbox import Outbox
from .reconcile import Family, Reconciler
from .strays import Strays
from .watched import Watched

#: Seconds between two looks at everything, give or take the jitter: nobody can plan around it.
SAMPLE_S: Final = 0.95
JITTER: Final = 0.2
#: Seconds after which a process is looked at as a whole though no event told and no glance found a change.
WHOLE_S: Final = 60.0
#: Seconds after which the images are looked at, file by file, though no event told.
IMAGES_S: Final = 30.0
#: Seconds after which an unchanged posture is said again.
REPEAT_S: Final = 600.0
#: Seconds that a process may be gone before its exit is in the log.
GONE_S: Final = 5.0
#: Processes of a container that is being built, as far as they have a sandbox's user: it, and who waits outside.
HELD_NATIVE: Final = 4
#: Seconds between two whole looks at one container.
AGAIN_S: Final = 0.05
#: Glances after which others get their turn in this process.
AT_ONCE: Final = 16


class Watch:
    """The monitor's eyes over one log. `entered` takes the log's entries, `run` looks until cancelled."""

    def __init__(self, deployment: Deployment, log: Log, events: ProcessEvents | None) -> None:
        self._deployment = deployment
        self._log = log
        self._events = events
        self._cages = Cages(deployment)
        self._watched: dict[int, Watched] = {}
        self._by_pid: dict[int, Watched] = {}
        #: Launches that are admitted and not started yet, with how many processes each may have by now.
        self._coming: dict[int, int] = {}
        self._uids = deployment.sandbox_uids
        self._looking = asyncio.Lock()  # one look at a time: reading a filter traces, and must not see itself do so
        self._outbox = Outbox(log)
        self._pulse = Pulse(log, "sampled" if events is None else "events")
        self._drifts = Drifts(deployment, self._outbox, self._pulse)
        self._reconciler = Reconciler(self._uids, deployment.trust.deployment, events=events is not None)
        self._strays = Strays(log, self._reconciler, self._drifts, self._families, self._coming)
        self._checking = asyncio.Lock()
        self._images_at = 0.0
        self._running = False

    def entered(self, entry: Entry) -> None:
        """Take notice of an entry; never blocks."""
        if entry.void is not None:
            return
        said = entry.predicate
        if entry.kind == "service-started" and said["role"] == "node":
            self._cages.host = said["host"]
            measured = said["host"]["runtimes"]["wasmtime"]
            zygote = (measured["zygote_pid"], measured["zygote_start"])
            self._reconciler.zygote = self._drifts.stopper.zygote = zygote
        elif entry.kind == "started":
            native = self._cages.may_be_native(said["config_sha256"])
            watched = Watched(entry.index, said, native=native)
            self._coming.pop(said["launch"], None)
            self._watched[entry.index] = self._by_pid[said["pid"]] = watched
            if self._running:
                self._outbox.begin(self._look(watched))
        elif entry.kind == "exited":
            self._forget(said["started"])
        elif entry.kind == "observed" and said["started"] in self._watched:
            self._watched[said["started"]].observed = True
        elif entry.kind == "launch-refused":
            self._coming.pop(said["launch"], None)
        elif entry.index in self._log.replay.books.launches:
            config = self._log.replay.books.launches[entry.index].config
            self._coming[entry.index] = HELD_NATIVE if self._cages.may_be_native(config) else 1
        else:
            self._drifts.entered(entry)

    def _forget(self, started: int) -> None:
        watched = self._watched.pop(started, None)
        if watched is None:
            return
        watched.close()
        self._cages.files.forget(started)
        pid, pid_start = watched.said["pid"], watched.said["pid_start"]
        if self._by_pid.get(pid) is watched:
            del self._by_pid[pid]
        self._reconciler.namespaces.pop(pid, None)
        if not watched.drifted:  # else whoever ends it lets go
            self._drifts.stopper.let_go(pid, pid_start)

    async def run(self) -> None:
        """Look at new launches at once, at all of them in turn, for ever."""
        self._running = True
        self._drifts.resume(self._watched)
        for watched in list(self._watched.values()):
            self._outbox.begin(self._look(watched))
        loop = asyncio.get_running_loop()
        if self._events is not None:
            loop.add_reader(self._events.fileno(), self._happened, self._events)
        loop.add_reader(self._cages.files.fileno(), self._written)
        try:
            await asyncio.gather(self._rounds(), self._pulse.run(), self._outbox.run())
        finally:
            loop.remove_reader(self._cages.files.fileno())
            if self._events is not None:
                loop.remove_reader(self._events.fileno())

    # What the kernel tells

    def _happened(self, source: ProcessEvents) -> None:
        lost, events = source.lost, source.read()
        lost = source.lost - lost
        self._pulse.happened(len(events), lost)
        touched: dict[int, Watched] = {}
        strangers = False
        for event in events:
            strangers = self._concerns(event, touched) or strangers
        if lost:  # whatever it was, everything is looked at
            touched = {one.index: one for one in self._watched.values()}
        for watched in touched.values():
            if not watched.queued and watched.expected is not None:
                watched.queued = True
                self._outbox.begin(self._look(watched))
        if strangers or lost:
            self._outbox.begin(self._strays.look_again(whole=lost > 0))

    def _concerns(self, event: Event, touched: dict[int, Watched]) -> bool:
        """Note the sandbox that an event is about; True if it may be about a process without an entry."""
        own = event.what == PTRACE and event.other == os.getpid()
        if own:
            return False
        self._reconciler.forget((event.tgid,))
        watched = self._of(event.tgid)
        if watched is None and event.what == FORK:
            watched = self._of(event.other)
            if watched is not None:
                touched[watched.index] = watched
                if watched.native:
                    self._reconciler.members[event.tgid] = watched.said["launch"]
                return not watched.native
        if watched is not None and event.what in (FORK, EXEC, UID, GID, PTRACE, COREDUMP, EXIT):
            touched[watched.index] = watched
        became = event.what == UID and self._uids is not None and event.other in self._uids
        return became and watched is None

    def _of(self, pid: int) -> Watched | None:
        """The launch that a process belongs to, as far as is known."""
        watched = self._by_pid.get(pid)
        if watched is None and (launch := self._reconciler.members.get(pid)) is not None:
            started = self._log.replay.books.launches[launch].started
            watched = self._watched.get(started)
        return watched

    # The files on disk

    def _written(self) -> None:
        """Something happened to a file that sandboxes run from."""
        self._cages.files.drain()
        self._pulse.happened(1, 0)
        self._changed(self._cages.files.changed_files())
        if not self._checking.locked():
            self._outbox.begin(self._check_images())

    async def _check_images(self) -> None:
        async with self._checking:
            await asyncio.sleep(AGAIN_S)  # what is being written is looked at once, when it was
            self._images_at = asyncio.get_running_loop().time()
            self._changed(await asyncio.to_thread(self._cages.files.changed_images))

    def _changed(self, found: Mapping[int, list[Difference]]) -> None:
        for index, differences in found.items():
            watched = self._watched.get(index)
            if watched is not None and not watched.drifted:
                watched.drifted = True
                said = watched.said
                listed = [one.as_value() for one in differences[:MAX_DIFFERENCES]]
                self._drifts.found("file-changed", index, said["launch"], said["pid"], said["pid_start"], listed)

    # The rounds

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S * (1 + JITTER * (2 * random.random() - 1)))
            everybody = list(self._watched.values())
            random.shuffle(everybody)
            for number, watched in enumerate(everybody):
                if watched.expected is not None and not watched.drifted and not self._is_unchanged(watched):
                    self._outbox.begin(self._look(watched))
                if number % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)
            if await self._strays.look(whole=False):
                self._outbox.begin(self._strays.look_again(whole=False))
            self._changed(self._cages.files.changed_files())
            if asyncio.get_running_loop().time() - self._images_at > IMAGES_S and not self._checking.locked():
                self._outbox.begin(self._check_images())
            self._pulse.agents = len(self._watched)
            running = {one.said["launch"] for one in self._watched.values()}
            self._pulse.leftovers = self._reconciler.leftovers(running | self._coming.keys())
            self._pulse.processes = self._reconciler.processes

    def _is_unchanged(self, watched: Watched) -> bool:
        """A glance: True if nothing that it holds changed since the latest whole look, which was not long ago."""
        if asyncio.get_running_loop().time() - watched.looked > WHOLE_S:
            return False
        if not watched.is_as_seen(self._beside(watched)):
            return False
        self._pulse.sampled(watched.leaf)
        return True

    def _beside(self, watched: Watched) -> Set[int]:
        """The processes of a launch beside its first."""
        return self._reconciler.beside.get(watched.said["launch"], frozenset()) if watched.native else frozenset()

    async def _look(self, watched: Watched) -> None:
        """A whole look, and what follows from it."""
        if watched.native and watched.looked:
            # Many events at once, of an agent that starts many processes, are one look.
            await asyncio.sleep(watched.looked + AGAIN_S - asyncio.get_running_loop().time())
        async with self._looking:
            watched.queued = False
            if watched.drifted or watched.index not in self._watched:
                return
            said, now = watched.said, asyncio.get_running_loop().time()
            is_first = watched.spoken is None
            try:
                if watched.expected is None:
                    watched.limit_files = self._cages.limit_files(said)
                    watched.expected = self._cages.expected(said)
                running = watched.observed or not is_first
                sample = await asyncio.to_thread(self._sample, watched, running=running)
                differences = list(compare_cage(watched.expected, sample, running=running))
                differences += compare_cage(watched.expected, said["posture"]) if is_first else ()
                differences += self._misplaced(said)
                if is_first:
                    differences += await asyncio.to_thread(self._cages.use_files, watched.index, said, sample)
            except ProcessGone:
                self._outbox.begin(self._gone(watched))
                return
            except (FormatError, DeploymentError, KeyError, TypeError, IndexError) as error:
                sample = {}
                differences = [Difference("started", "a posture that follows from the approval", str(error)[:200])]
            if watched.index not in self._watched:  # it was over meanwhile
                watched.close()
            watched.looked = now
            watched.leaf = sample_leaf(watched.index, sample)
            self._pulse.sampled(watched.leaf)
            listed = [one.as_value() for one in differences[:MAX_DIFFERENCES]]
            speaks = watched.spoken is None or now - watched.spoken > REPEAT_S or bool(differences)
            watched.spoken = now if speaks else watched.spoken
            watched.drifted = bool(differences)
        if differences:
            self._drifts.found("posture-differs", watched.index, said["launch"], said["pid"], said["pid_start"], listed)
        if speaks:
            self._outbox.begin(self._say_observed(watched, sample, listed))

    def _sample(self, watched: Watched, *, running: bool) -> Value:
        """A whole sample. The filters are read when something changed since they were: reading stops the process."""
        said = watched.said
        held = self._drifts.stopper.hold(said["pid"], said["pid_start"])
        seen = watched.glanced(self._beside(watched), thorough=self._events is None)
        if held.ours:  # else anything that the node names as a sandbox would make its neighbours strays
            self._reconciler.namespaces[held.pid] = watched.namespaces()
        asked = self._deployment.separated and (watched.filters is None or seen != watched.seen)
        sample = self._cages.sample(said, running=running, filters=asked)
        watched.keep(sample, seen, asked=asked)
        return sample

    def _misplaced(self, said: Mapping[str, Any]) -> list[Difference]:
        """Every sandbox has a user of its own, from the range that is for sandboxes."""
        if self._uids is None or said["uid"] in self._uids:
            return []
        return [Difference("uid", f"{self._uids.start} to {self._uids.stop - 1}", said["uid"])]

    async def _say_observed(self, watched: Watched, sample: Value, differences: list[Value]) -> None:
        said = watched.said
        await self._outbox.say(
            "observed",
            (Subject("module", said["module_sha256"]), Subject("profile", said["config_sha256"])),
            {
                "started": watched.index,
                "agent": said["agent"],
                "pid": said["pid"],
                "posture": sample,
                "differences": differences,
            },
        )

    async def _gone(self, watched: Watched) -> None:
        """The process has ended, and its exit is not in the log; a log that is away can't have it."""
        loop = asyncio.get_running_loop()
        if watched.gone_since is None:
            watched.gone_since = loop.time()
            return
        if loop.time() - watched.gone_since < GONE_S or watched.drifted:
            return
        try:
            await self._log.refresh(1.0)
        except LogUnavailable:
            watched.gone_since = loop.time()
            return
        if watched.index in self._watched and not watched.drifted:
            watched.drifted = True
            said = watched.said
            missing: list[Value] = [{"path": "process", "expected": said["pid"], "got": None}]
            self._drifts.found(
                "entry-without-process", watched.index, said["launch"], said["pid"], said["pid_start"], missing
            )

    # Processes without an entry

    def _families(self) -> list[Family]:
        return [
            Family(
                one.said["pid"], one.said["pid_start"], one.said["launch"], one.native, one.said["runtime"] == "gvisor"
            )
            for one in self._watched.values()
        ]
