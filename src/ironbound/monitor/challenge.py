"""Challenges: runs the approved canaries in production, each with a fresh nonce, through the node's one launch path.

Decides nothing but the order: when a canary is due `schedule` says. The humans approved its code as a canary, so the
monitor may have it launched; it can hold no grant. Whether it was refused, the node says and everybody draws again
from the evidence (`core.canary`).

Rule 1: the nonce is drawn after a fresh witnessed checkpoint, and the challenge names that checkpoint.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from ironbound.core.canary import applies
from ironbound.core.canonical import Digest, FormatError
from ironbound.core.profile import family_of, parse_configuration
from ironbound.core.replay import Entry
from ironbound.core.request import head_of
from ironbound.core.statement import Subject
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.log import AppendRefused, Log, LogUnavailable, fresh_id, now_ms

from .schedule import Schedule, family_of_probe

#: Challenges under way at once.
AT_ONCE: Final = 2
#: Seconds within which a canary ends, its own limits being shorter: a little less than an answer counts for.
RESULT_TIMEOUT_S: Final = 115.0
#: Seconds between two looks at what is due.
DUE_S: Final = 1.0


class Challenges:
    """The canaries of one log. `entered` takes its entries, `run` issues what is due, `serve` what is asked for."""

    def __init__(self, deployment: Deployment, log: Log) -> None:
        self._deployment = deployment
        self._log = log
        self._waiting: dict[int, asyncio.Future[Entry]] = {}
        self._configs: dict[str, Mapping[str, Any]] = {}
        draw = random.SystemRandom().randrange
        self._schedule = Schedule(deployment.trust.canary_interval_ms, draw, self._family)
        self._turn = asyncio.Semaphore(AT_ONCE)

    def entered(self, entry: Entry) -> None:
        """Take notice of an entry; never blocks."""
        if entry.void is None:
            self._schedule.add(entry, self._log.replay)
        if entry.kind == "canary-result" and entry.role == "node":
            waiting = self._waiting.get(entry.predicate["challenge"])
            if waiting is not None and not waiting.done():
                waiting.set_result(entry)

    def _config(self, digest: str) -> Mapping[str, Any] | None:
        """An approved configuration, None if nobody has its bytes."""
        if digest not in self._configs:
            try:
                self._configs[digest] = parse_configuration(self._deployment.artifact(digest))
            except (DeploymentError, FormatError):
                return None
        return self._configs[digest]

    def _family(self, digest: str) -> str | None:
        config = self._config(digest)
        return None if config is None else family_of(config)

    def in_use(self) -> list[str]:
        """The configurations that agents were started with; all approved ones where there was no agent yet."""
        books = self._log.replay.books
        used = {one.config for one in books.launches.values() if one.nonce is None and one.started >= 0}
        return sorted(used) or sorted(books.profiles)

    def chosen(self, every: bool, profile: str | None) -> list[str]:
        """The configurations that a request names: those in use, every approved one, or those of a profile."""
        profiles = self._log.replay.books.profiles
        if profile is not None:
            return sorted(digest for digest, approved in profiles.items() if approved.name == profile)
        return sorted(profiles) if every else self.in_use()

    def canaries(self, configs: Iterable[str]) -> list[tuple[str, str, str]]:
        """Each configuration with each approved canary for its family: config, module, probe."""
        modules = self._log.replay.books.modules
        return [
            (config, digest, one.name)
            for config in configs
            for digest, one in modules.items()
            if one.probe is not None and applies(family_of_probe(one.probe), self._family(config) or "")
        ]

    async def challenge(self, config: str, module: str, probe: str) -> Mapping[str, Any]:
        """Run one canary and wait for its result. LogUnavailable or AppendRefused if it can't be asked for."""
        async with self._turn:
            entry = await self._ask(config, module, probe)
            if entry.void is not None:
                return self._result(probe, config, "INCONCLUSIVE", entry.void, entry.index)
            waiting: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
            self._waiting[entry.index] = waiting
            try:
                async with asyncio.timeout(RESULT_TIMEOUT_S):
                    answer = await waiting
            except TimeoutError:
                text = f"no result within {RESULT_TIMEOUT_S:.0f} s"
                return self._result(probe, config, "INCONCLUSIVE", text, entry.index)
            finally:
                del self._waiting[entry.index]
            said = answer.predicate
            if answer.void is not None:
                return self._result(probe, config, "INCONCLUSIVE", answer.void, answer.index)
            return self._result(probe, config, said["verdict"], said["refusal"], said["evidence"])

    async def _ask(self, config: str, module: str, probe: str) -> Entry:
        await self._log.refresh()
        checkpoint, trust = self._log.checkpoint, self._deployment.trust
        if checkpoint is None:
            raise LogUnavailable("no witnessed checkpoint is known yet")
        return await self._log.append(
            "canary-challenge",
            (Subject("module", Digest(module)), Subject("profile", Digest(config))),
            {
                "nonce": fresh_id(),  # Rule 1: only now
                "probe": probe,
                "module_sha256": module,
                "config_sha256": config,
                "environment": trust.environment,
                "node": trust.services["node"].keyid,
                "checkpoint": head_of(checkpoint.size, checkpoint.root),
            },
        )

    async def run(self) -> None:
        """Issue what is due, for ever. One that fails is due again later; the verifier sees what is missing."""
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(DUE_S)
                for due in self._schedule.due(now_ms(), self._log.replay):
                    group.create_task(self._try(due.config, due.module, due.name))

    async def _try(self, config: str, module: str, probe: str) -> None:
        try:
            await self.challenge(config, module, probe)
        except (LogUnavailable, AppendRefused):
            return  # the schedule draws another time

    async def everything(self, work: Iterable[tuple[str, str, str]]) -> AsyncIterator[Mapping[str, Any]]:
        """Run these canaries now; results as they come."""
        tasks = [asyncio.ensure_future(self.challenge(*one)) for one in work]
        try:
            for done in asyncio.as_completed(tasks):
                yield await done
        finally:
            for task in tasks:
                task.cancel()

    def _result(self, probe: str, config: str, verdict: str, refusal: str, entry: int) -> Mapping[str, Any]:
        known = self._config(config)
        return {
            "name": probe,
            "runtime": "unknown" if known is None else known["runtime"]["type"],
            "profile": self._log.replay.books.profiles[Digest(config)].name,
            "verdict": verdict,
            "refusal": refusal,
            "entry": entry,
        }
