"""Watches every sandbox: looks at each while it is held and again and again, and says what it saw.

Decides what is drift: a posture that differs from the expected one, a process that no entry accounts for, an entry
whose process is gone. It derives the expected posture itself from the approved configuration's bytes; the node's
word is compared, never taken. On drift it orders the stop; the node obeys, and the order is in the log. What the node
does not end in time the monitor ends itself (`stopper`).

Rule 1: the first look at a launch is at the held sandbox. Its signed word goes to the node, whose `started` has no
        effect without it.
Rule 2: a drift is said once, with all its differences, and its stop is ordered at once.
Rule 3: no look and no stop waits for the log, but the first look of a launch, which waits for its admission.
Rule 4: an event of the kernel leads to a look at the process concerned at once; the rounds go on beside.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping, Set
from typing import Any, Final

from ironbound.core.authority import ADMITTED
from ironbound.core.cage import compare_cage
from ironbound.core.canonical import FormatError, Value
from ironbound.core.envelope import Envelope
from ironbound.core.held import KIND, account_digest, read_held, require_account
from ironbound.core.own_filters import READ, OwnFilters
from ironbound.core.posture import Difference
from ironbound.core.replay import Entry
from ironbound.core.statement import Subject
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.log import Log, LogUnavailable

from .cages import Cages, zygote_of
from .drifts import MAX_DIFFERENCES, Drifts
from .events import COREDUMP, EXEC, EXIT, FORK, GID, PTRACE, UID, Event, ProcessEvents
from .heartbeat import Pulse, sample_leaf
from .hosts import Hosts
from .observe import ProcessGone, filter_counts
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
#: Seconds for which a difference in a held sandbox waits for its start, which would explain it.
START_S: Final = 0.25
#: Seconds for which descriptors that are closed may be the end of a process, and after which it is looked at again.
ENDING_S: Final = 1.0
#: Seconds that the admission of a held sandbox may take to be folded here.
HELD_S: Final = 5.0
#: Processes of a container that is being built, as far as they have a sandbox's user: it, and who waits outside.
HELD_NATIVE: Final = 4
#: Seconds between two whole looks at one container.
AGAIN_S: Final = 0.05
#: Glances after which others get their turn in this process.
AT_ONCE: Final = 16


class NotHeld(Exception):
    """There is no such sandbox to look at."""


class Watch:
    """The monitor's eyes over one log. `entered` takes the log's entries, `run` looks until cancelled."""

    def __init__(self, deployment: Deployment, log: Log, events: ProcessEvents | None, hosts: Hosts) -> None:
        self._hosts = hosts
        self._deployment = deployment
        self._log = log
        self._events = events
        self._cages = Cages(deployment)
        self._watched: dict[int, Watched] = {}
        self._by_pid: dict[int, Watched] = {}
        #: Launches that are admitted and not started yet, with how many processes each may have by now.
        self._coming: dict[int, int] = {}
        #: How often this process attached to threads of a process and has not let go.
        self._attached: dict[int, int] = {}
        self._uids = deployment.sandbox_uids
        self._own_filters = OwnFilters()
        self._looking = asyncio.Lock()  # one look at a time: reading a filter traces, and must not see itself do so
        self._outbox = Outbox(log)
        self._pulse = Pulse(log, "sampled" if events is None else "events")
        self._drifts = Drifts(deployment, self._outbox, self._pulse)
        self._reconciler = Reconciler(self._uids, deployment.trust.control_group, events=events is not None)
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
            self._reconciler.zygote = self._drifts.stopper.zygote = zygote_of(said["host"])
        elif entry.kind == "started":
            self._coming.pop(said["launch"], None)
            self._started(entry.index, said)
        elif entry.kind == "exited":
            self._forget(said["launch"])
        elif entry.kind == "launch-refused":
            self._coming.pop(said["launch"], None)
            self._forget(said["launch"])
        elif entry.index in self._log.replay.books.launches:
            config = self._log.replay.books.launches[entry.index].config
            self._coming[entry.index] = HELD_NATIVE if self._cages.may_be_native(config) else 1
        else:
            self._drifts.entered(entry)

    def _started(self, index: int, said: Mapping[str, Any]) -> None:
        self._own_filters.started(said, read_held(said["held"])["posture"])
        watched = self._watched.get(said["launch"])
        if watched is not None and account_digest(watched.said) == account_digest(said):
            watched.index = index
            watched.leaf = sample_leaf(index, watched.sample)
            self._pulse.sampled(watched.leaf)
            return
        watched = self._begin(index, said)  # another monitor's look stands in it, before this one began
        if self._running:
            self._outbox.begin(self._look(watched))

    def _begin(self, index: int | None, said: Mapping[str, Any]) -> Watched:
        self._forget(said["launch"])
        watched = Watched(index, said, native=self._cages.may_be_native(said["config_sha256"]))
        self._watched[said["launch"]] = self._by_pid[said["pid"]] = watched
        return watched

    def _forget(self, launch: int) -> None:
        watched = self._watched.pop(launch, None)
        if watched is None:
            return
        watched.close()
        self._cages.files.forget(launch)
        pid, pid_start = watched.said["pid"], watched.said["pid_start"]
        if self._by_pid.get(pid) is watched:
            del self._by_pid[pid]
        self._reconciler.namespaces.pop(pid, None)
        self._attached.pop(pid, None)
        if not watched.drifted:  # else whoever ends it lets go
            self._drifts.stopper.let_go(pid, pid_start)

    async def run(self) -> None:
        """Look at new launches at once, at all of them in turn, for ever."""
        self._running = True
        self._drifts.resume({one.index: one for one in self._watched.values() if one.index is not None})
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
            touched = dict(self._watched)
            self._attached.clear()
        for watched in touched.values():
            if not watched.queued and watched.expected is not None:
                watched.queued = True
                self._outbox.begin(self._look(watched))
        if strangers or lost:
            self._outbox.begin(self._strays.look_again(whole=lost > 0))

    def _concerns(self, event: Event, touched: dict[int, Watched]) -> bool:
        """Note the sandbox that an event is about; True if it may be about a process without an entry."""
        if event.what == PTRACE:
            if self._is_own(event):
                return False
            self._hosts.traced(event.tgid, event.other)
        self._reconciler.forget((event.tgid,))
        watched = self._of(event.tgid)
        if watched is None and event.what == FORK:
            watched = self._of(event.other)
            if watched is not None:
                touched[watched.said["launch"]] = watched
                if watched.native:
                    self._reconciler.members[event.tgid] = watched.said["launch"]
                return not watched.native
        if watched is not None and event.what in (FORK, EXEC, UID, GID, PTRACE, COREDUMP, EXIT):
            touched[watched.said["launch"]] = watched
        became = event.what == UID and self._uids is not None and event.other in self._uids
        return became and watched is None

    def _is_own(self, event: Event) -> bool:
        """Whether this process attached to a thread of that one, or let go of it."""
        attached = self._attached.get(event.tgid, 0)
        if event.other == os.getpid():
            self._attached[event.tgid] = attached + 1
            return True
        if event.other or not attached:
            return False
        self._attached[event.tgid] = attached - 1
        return True

    def _of(self, pid: int) -> Watched | None:
        """The launch that a process belongs to, as far as is known."""
        watched = self._by_pid.get(pid)
        if watched is None and (launch := self._reconciler.members.get(pid)) is not None:
            watched = self._watched.get(launch)
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
        for launch, differences in found.items():
            watched = self._watched.get(launch)
            if watched is not None and not watched.drifted:
                watched.drifted = True
                said = watched.said
                listed = [one.as_value() for one in differences[:MAX_DIFFERENCES]]
                self._drifts.found("file-changed", watched.index, launch, said["pid"], said["pid_start"], listed)

    # The rounds

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S * (1 + JITTER * (2 * random.random() - 1)))
            everybody = [one for one in self._watched.values() if one.index is not None]
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
            self._pulse.agents = len(everybody)
            self._pulse.leftovers = self._reconciler.leftovers(self._watched.keys() | self._coming.keys())
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

    async def held(self, account: Value) -> Envelope:
        """A look at the sandbox that the node holds and gives this account of, signed; it is watched from now on.

        NotHeld where there is nothing to look at, FormatError where it is no account.
        """
        said = require_account(account)
        index, agent, pid = said["launch"], said["agent"], said["pid"]
        known = self._by_pid.get(pid)
        if known is not None and known.index is not None:
            raise NotHeld("the process has its start already")
        try:
            await self._log.caught_up(index + 1, HELD_S)
            launch = self._log.replay.books.launches.get(index)
            state = self._log.replay.authority.read("launch_state", index)
            asked = (agent, said["module_sha256"], said["config_sha256"])
            if launch is None or state != ADMITTED or asked != (launch.agent, launch.module, launch.config):
                raise NotHeld("launch-not-admitted")
            watched = self._begin(None, said)
            async with self._looking:
                sample, differences = await self._whole(watched)
        except ProcessGone as error:
            self._forget(index)
            raise NotHeld(str(error)) from error
        except LogUnavailable as error:
            raise NotHeld(str(error)) from error
        if differences:
            self._drifts.found("posture-differs", None, index, pid, said["pid_start"], differences)
        subjects = (Subject("module", launch.module), Subject("profile", launch.config))
        fields = {"launch": index, "agent": agent, "account_sha256": account_digest(said), "pid": pid}
        return self._log.signed(KIND, subjects, fields | {"posture": sample, "differences": differences})

    async def _look(self, watched: Watched) -> None:
        """A whole look at what was looked at before, or was started under another monitor; and what follows from it."""
        if watched.native and watched.looked:
            # Many events at once, of an agent that starts many processes, are one look.
            await asyncio.sleep(watched.looked + AGAIN_S - asyncio.get_running_loop().time())
        async with self._looking:
            watched.queued = False
            said = watched.said
            if watched.drifted or self._watched.get(said["launch"]) is not watched:
                return
            spoken, was_held = watched.spoken, watched.index is None
            try:
                sample, differences = await self._whole(watched)
                if differences and was_held and await self._is_started(watched):
                    sample, differences = await self._whole(watched)  # it was released while it was looked at
            except ProcessGone:
                self._outbox.begin(self._gone(watched))
                return
            watched.gone_since = None
            if self._is_ending(watched, differences):
                watched.drifted = False
                self._outbox.begin(self._look_later(watched))
                return
            if watched.index is not None:
                watched.leaf = sample_leaf(watched.index, sample)
                self._pulse.sampled(watched.leaf)
            speaks = spoken is None or watched.looked - spoken > REPEAT_S or bool(differences)
            watched.spoken = watched.looked if speaks else spoken
        if differences:
            self._drifts.found(
                "posture-differs", watched.index, said["launch"], said["pid"], said["pid_start"], differences
            )
        if speaks and watched.index is not None:
            self._outbox.begin(self._say_observed(watched, sample, differences))

    @staticmethod
    def _is_ending(watched: Watched, differences: list[Any]) -> bool:
        """Whether all that differs is that descriptors were closed, a moment ago: so a process ends, QEMU for one."""
        now = asyncio.get_running_loop().time()
        if not differences or any(not one["path"].startswith("fds.") or one["got"] is not None for one in differences):
            watched.ending_since = None
            return False
        watched.ending_since = watched.ending_since or now
        return now - watched.ending_since < ENDING_S

    async def _look_later(self, watched: Watched) -> None:
        await asyncio.sleep(AGAIN_S)
        await self._look(watched)

    async def _is_started(self, watched: Watched) -> bool:
        """Whether the start of what was held is in the log by now, of which the node may hear before we do."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_S
        while watched.index is None and loop.time() < deadline:
            await asyncio.sleep(0.005)
        return watched.index is not None

    async def _whole(self, watched: Watched) -> tuple[Value, list[Value]]:
        """A whole sample and what differs in it. Raises ProcessGone."""
        said, now = watched.said, asyncio.get_running_loop().time()
        is_first, running = watched.spoken is None, watched.index is not None
        try:
            if watched.expected is None:
                watched.limit_files = self._cages.limit_files(said)
                nonce = self._log.replay.books.launches[said["launch"]].nonce
                watched.expected = self._cages.expected(said, nonce)
            sample, changed = await asyncio.to_thread(self._sample, watched, running=running, is_first=is_first)
            differences = [*compare_cage(watched.expected, sample, running=running), *changed]
            differences += compare_cage(watched.expected, said["posture"]) if is_first else ()
            differences += self._misplaced(said)
            differences += self._own_filters.compare(said, sample) if self._deployment.separated else ()
        except (FormatError, DeploymentError, KeyError, TypeError, IndexError) as error:
            sample = {}
            differences = [Difference("started", "a posture that follows from the approval", str(error)[:200])]
        if self._watched.get(said["launch"]) is not watched:  # it was over meanwhile
            watched.close()
        watched.looked, watched.sample, watched.drifted = now, sample, bool(differences)
        watched.spoken = now if is_first else watched.spoken
        return sample, [one.as_value() for one in differences[:MAX_DIFFERENCES]]

    def _sample(self, watched: Watched, *, running: bool, is_first: bool) -> tuple[Value, list[Difference]]:
        """A whole sample, and at the first look the files that changed on disk already.

        The filters are read when something changed since they were: reading stops the process.
        """
        said = watched.said
        held = self._drifts.stopper.hold(said["pid"], said["pid_start"])
        seen = watched.glanced(self._beside(watched), thorough=self._events is None)
        if held.ours:  # else anything that the node names as a sandbox would make its neighbours strays
            self._reconciler.namespaces[held.pid] = watched.namespaces()
        changed = seen != watched.seen
        if said["runtime"] in READ:  # its threads come and go with the agent's: that alone is no reason to stop them
            counts = filter_counts(said["pid"])
            changed, watched.counts = counts != watched.counts, counts
        asked = self._deployment.separated and (watched.filters is None or changed)
        sample = self._cages.sample(said, running=running, filters=asked)
        watched.keep(sample, seen, asked=asked)
        return sample, self._cages.use_files(said["launch"], said, sample) if is_first else []

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
        """The process has ended, and its exit is not in the log; a log that is away can't have it. What was held and
        never started is the node's to tell of."""
        if watched.index is None:
            return
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
        if self._watched.get(watched.said["launch"]) is watched and not watched.drifted:
            watched.drifted = True
            said = watched.said
            missing: list[Value] = [{"path": "process", "expected": said["pid"], "got": None}]
            self._drifts.found(
                "entry-without-process", watched.index, said["launch"], said["pid"], said["pid_start"], missing
            )

    # Processes without an entry

    def _families(self) -> list[Family]:
        return [one.family for one in self._watched.values()]
