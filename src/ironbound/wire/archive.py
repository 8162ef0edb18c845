"""Keeps identity providers' keys in the log: what one voice says of them, as it fetched them itself.

The controller says `issuer-keys`, the monitor `issuer-keys-seen`; a key counts while both say it (`core.oidc`). So
neither a controller that forges a key set nor one that lies about the provider's address gains a key, and old entries
are verified by what stood in the log then, whatever the provider publishes later.

Decides when to look: at the start, every ten minutes, whenever the other voice said something new, and when a request
names a key that the log lacks. Only what changed is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Final

from ironbound.core.canonical import Value, canonical, sha256_hex
from ironbound.core.oidc import IssuerKeys
from ironbound.core.replay import Entry
from ironbound.core.statement import Subject

from .issuer import IssuerUnavailable, published_keys
from .log import AppendRefused, Log, LogUnavailable

#: Who says which kind.
KINDS: Final = {"controller": "issuer-keys", "monitor": "issuer-keys-seen"}
REFRESH_S: Final = 600.0
RETRY_S: Final = 15.0
#: Requests make the controller look again this often at most.
PACE_S: Final = 5.0
#: How long a request waits for the monitor to have seen a new key too.
CONFIRM_S: Final = 15.0


class Archive:
    """What one voice, `controller` or `monitor`, says of the providers' keys. Make it before the log is started."""

    def __init__(self, log: Log, voice: str) -> None:
        self._log, self._voice = log, voice
        self._wake = asyncio.Event()
        self._looking = asyncio.Lock()
        self._looked_s = float("-inf")
        self._looked_at: frozenset[str] = frozenset()
        self._trouble: dict[str, str] = {}
        log.listen(self._entered)

    async def run(self) -> None:
        """Look whenever it is time, until cancelled."""
        while True:
            self._wake.clear()
            wait = REFRESH_S if await self._look() else RETRY_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    async def catch_up(self) -> None:
        """Have the providers looked at after this call, once for all who wait; let the monitor confirm what is new."""
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        async with self._looking:
            if self._looked_s < asked_s:
                await asyncio.sleep(max(0.0, self._looked_s + PACE_S - loop.time()))
                await self._look_at_all()
        deadline = loop.time() + CONFIRM_S
        while loop.time() < deadline and any(one.unconfirmed() for one in self._log.replay.books.issuers.values()):
            await asyncio.sleep(0.05)

    def _entered(self, entry: Entry) -> None:
        news = entry.kind == KINDS["controller"] and self._voice == "monitor"
        if entry.void is None and (news or self._log.replay.trust.issuers != self._looked_at):
            self._wake.set()

    async def _look(self) -> bool:
        async with self._looking:
            return await self._look_at_all()

    async def _look_at_all(self) -> bool:
        """True if every provider could be read, and what it says stands in the log. `_looked_s`: when this began."""
        self._looked_s = asyncio.get_running_loop().time()
        self._looked_at = self._log.replay.trust.issuers
        done = [await self._look_at(issuer) for issuer in sorted(self._looked_at)]
        return all(done)

    async def _look_at(self, issuer: str) -> bool:
        try:
            keys = {key.kid: key for key in await asyncio.to_thread(published_keys, issuer)}
            known = self._log.replay.books.issuers.get(issuer, IssuerKeys())
            if keys != (known.said if self._voice == "controller" else known.seen):
                listed: list[Value] = [key.entry() for key in keys.values()]
                subject = Subject("issuer-keys", sha256_hex(canonical(listed)))
                await self._log.append(KINDS[self._voice], (subject,), {"issuer": issuer, "keys": listed})
        except (IssuerUnavailable, LogUnavailable, AppendRefused) as error:
            self._tell(issuer, str(error))
            return False
        self._trouble.pop(issuer, None)
        return True

    def _tell(self, issuer: str, trouble: str) -> None:
        """Once for each trouble, in the service's journal; until it ends, new keys of this provider don't count."""
        if self._trouble.get(issuer) != trouble:
            self._trouble[issuer] = trouble
            print(f"ironbound {self._voice}: identity provider {trouble}", file=sys.stderr, flush=True)
