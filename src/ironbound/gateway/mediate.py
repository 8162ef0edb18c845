"""Mediates every effect of one agent: decide with the kernel, log the intent, act, log the outcome.

Decides by asking the kernel twice: once before the intent, to answer a hopeless call with a denial, and once through
the log, where the intent's own index settles it. A revocation that got into the log first wins, however close.

Rule 1: nothing is done before its intent came back from the log, under a witnessed checkpoint, not void.
Rule 2: every intent gets an outcome; every denial is an entry before it is an answer.
Rule 3: arguments are judged and acted on in one parsed form; the log holds them as far as the grant names them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError, Value, canonical, parse_canonical, parse_json, sha256_hex
from ironbound.core.constraint import Where, covers, render_args
from ironbound.core.profile import MAX_CONFIG_BYTES
from ironbound.core.reasons import REASONS
from ironbound.core.replay import Entry, Grant, Launch, delegated_id
from ironbound.core.statement import Subject
from ironbound.wire.deployment import Deployment, DeploymentError, read_file
from ironbound.wire.log import AppendRefused, Log, LogUnavailable, fresh_id, now_ms

from . import delegate
from .action import ArgumentsRefused, Performed
from .credentials import Credential
from .mcp import AuthorityUnavailable, CallOutcome, Denied
from .providers import http, scratch
from .tools import ACTIONS, ToolGrant

#: Bytes of the input that an agent is given to work on.
MAX_INPUT: Final = 262_144
#: Seconds that an agent's call waits for the log before it is answered that nothing was done.
INTENT_TIMEOUT_S: Final = 10.0
#: Seconds that an outcome waits for the log; after that the gateway starts anew and closes the intent as unknown.
OUTCOME_TIMEOUT_S: Final = 120.0
_GRANT: Final = re.compile(r"[0-9a-f]{32}")


class Intents:
    """Says intents and outcomes in the log, for all agents, and sees to it that each intent gets its outcome.

    An intent whose call has given up may still arrive in the log: then nothing was done, and that is said. `begin`
    closes what an earlier life left open. `failed` fails when an outcome could not be logged: the gateway must not
    go on, since only its next life can close that intent.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._awaited: set[str] = set()
        self._closing: set[int] = set()
        self._live = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def entered(self, entry: Entry) -> None:
        """Close an intent of ours that came too late."""
        if self._live and entry.kind == "action-intent" and entry.void is None:
            if entry.predicate["id"] not in self._awaited:
                self._nothing_done(entry.index, entry.predicate)

    async def begin(self) -> None:
        """Close the intents that an earlier life left open: their outcome is unknown, and said to be."""
        self._live = True
        text = "the gateway was restarted before the outcome was logged"
        for index, said in list(self._log.replay.books.open_intents.items()):
            self.close(index, self._log.replay.books.grants[said["grant"]], Performed("unknown", text, ""))
        if self._tasks:
            await asyncio.gather(*self._tasks)

    async def intend(self, grant: Grant, fields: Mapping[str, Any]) -> Entry:
        """Say an intent. LogUnavailable, AppendRefused or FormatError where it is not known to be in the log."""
        statement = fresh_id()
        self._awaited.add(statement)
        entry = None
        try:
            entry = await self._log.append(
                "action-intent", _subjects(grant), fields, statement_id=statement, timeout_s=INTENT_TIMEOUT_S
            )
            return entry
        finally:
            self._awaited.discard(statement)
            if entry is None:
                for index, said in list(self._log.replay.books.open_intents.items()):
                    if said["id"] == statement:
                        self._nothing_done(index, said)

    def close(self, intent: int, grant: Grant, performed: Performed) -> asyncio.Task[None] | None:
        """Log an outcome, once; nobody needs to wait for it."""
        if intent in self._closing:
            return None
        self._closing.add(intent)
        fields = {
            "intent": intent,
            "status": performed.status,
            "detail": performed.detail[:1000],
            "result_sha256": performed.result_sha256 if performed.text else None,
            "result_bytes": performed.result_bytes,
            "spent": _spent(grant, performed),
        }

        async def say() -> None:
            await self._log.append("action-outcome", _subjects(grant), fields, timeout_s=OUTCOME_TIMEOUT_S)

        task = asyncio.create_task(say())
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._over(intent, done))
        return task

    def _nothing_done(self, intent: int, said: Mapping[str, Any]) -> None:
        text = "log-unavailable: the intent came into the log after its call had been answered; nothing was done"
        self.close(intent, self._log.replay.books.grants[said["grant"]], Performed("not-performed", text, ""))

    def _over(self, intent: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._closing.discard(intent)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)


class Mediator:
    """The authority behind one agent's session."""

    def __init__(
        self,
        deployment: Deployment,
        log: Log,
        launch: Launch,
        credentials: Mapping[str, Credential],
        intents: Intents,
    ) -> None:
        self._deployment = deployment
        self._log = log
        self._launch = launch
        self._credentials = credentials
        self._intents = intents
        self._outcomes: set[asyncio.Task[None]] = set()
        self._counts = {"calls": 0, "denied": 0, "performed": 0, "failed": 0}
        data = deployment.artifact(launch.config)
        config: Any = parse_canonical(data, limit=MAX_CONFIG_BYTES)
        self.channel: Mapping[str, int] = config["channel"]
        self._scratch: Mapping[str, int] = config["scratch"]
        self._area: scratch.ScratchArea | None = None

    def tools(self, agent: str) -> Sequence[ToolGrant]:
        """The agent's grants that let something through now."""
        read, books, now = self._log.replay.authority.read, self._log.replay.books, now_ms()
        live, verbs = [], set()
        for one in books.grants_of.get(agent, {}):
            grant = books.grants[one]
            left = read("grant_left", one)
            if (
                self._log.replay.lives(one, now)
                and grant.module == self._launch.module
                and grant.config == self._launch.config
            ):
                live.append(
                    ToolGrant(
                        grant.tool,
                        grant.action,
                        grant.where,
                        left,
                        grant.expires_ms,
                        bool(grant.credential),
                        grant.approvals > 0,
                    )
                )
                verbs |= {delegate.DELEGATE} if grant.delegable else set()
                verbs |= {delegate.DROP} if grant.delegable or grant.parent else set()
        return live + [ToolGrant(verb, verb, Where(()), 0, 0) for verb in sorted(verbs)]

    async def call(
        self, agent: str, tool: str, arguments: dict[str, Value], client: str | None = None
    ) -> CallOutcome | Denied:
        """Decide, log, act, log."""
        self._counts["calls"] += 1
        if tool in delegate.SAYS:
            return await self._hand_on(agent, tool, arguments)
        grant = self._log.replay.grant_named(agent, tool)
        if grant is None:
            return await self._denied(agent, tool, "no-such-grant", f"no live grant named {tool[:64]!r}", None)
        try:
            args, headers = _normalise(grant.action, arguments)
        except ArgumentsRefused as refusal:
            return await self._denied(agent, tool, refusal.code, str(refusal), None)
        digest = sha256_hex(canonical(args))
        uncovered = covers(grant.where, args)
        if uncovered is not None:
            text = f"{REASONS['arguments-not-covered']} ({uncovered})"
            return await self._denied(agent, tool, "arguments-not-covered", text, digest)
        fields: dict[str, Any] = {
            "agent": agent,
            "launch": self._launch.index,
            "grant": grant.id,
            "tool": tool,
            "action": grant.action,
            "args": render_args(grant.where, args),
            "client": None,
        }
        if client is not None:
            shown = self._as_client(client, args)
            if shown is None:
                return await self._denied(agent, tool, "client-not-covered", REASONS["client-not-covered"], digest)
            fields["client"] = {"grant": client, "args": shown}
        fields["approval"] = self._log.replay.approval_of(grant.id, fields["args"]) if grant.approvals else None
        reason = self._log.replay.call_refused(fields, now_ms())
        if reason is not None:
            text = f"no live grant for {tool[:64]!r}: {REASONS[reason]}"
            wants = {"grant": grant.id, "args": fields["args"]} if reason == "approval-needed" else None
            if wants is not None:
                text = f"{REASONS[reason]} (arguments {sha256_hex(canonical(fields['args']))})"
            return await self._denied(agent, tool, reason, text, digest, wants)
        try:
            entry = await self._intents.intend(grant, fields | {"args_sha256": digest})
        except (LogUnavailable, AppendRefused, FormatError) as error:
            raise AuthorityUnavailable(f"not done: the intent could not be logged: {error}") from error
        if entry.void is not None:
            self._close(entry.index, grant, Performed("not-performed", entry.void, ""))
            return Denied(entry.void, REASONS.get(entry.void, entry.void))
        performed = Performed("unknown", "the gateway was stopped while it acted", "")
        try:
            performed = await self._perform(grant, args, headers)
        finally:
            self._close(entry.index, grant, performed)
        self._counts["failed" if performed.is_error else "performed"] += 1
        return CallOutcome(performed.text, performed.facts, performed.is_error)

    def _as_client(self, client: str, args: Mapping[str, Value]) -> dict[str, Value] | None:
        """The arguments as the client's grant shows them in the log; None if it does not cover them."""
        grant = self._log.replay.books.grants.get(client) if _GRANT.fullmatch(client) else None
        if grant is None or covers(grant.where, dict(args)) is not None:
            return None
        return render_args(grant.where, dict(args))

    async def _hand_on(self, agent: str, verb: str, arguments: dict[str, Value]) -> CallOutcome | Denied:
        """Delegate or drop: the entry is the act, so nothing is done that the log does not say."""
        replay = self._log.replay
        digest = None
        try:
            digest = sha256_hex(canonical(arguments))
            tool = delegate.tool_of(verb, arguments)
            grant = replay.grant_named(agent, tool)
            if grant is None or verb not in [one.tool for one in self.tools(agent)]:
                return await self._denied(agent, verb, "no-such-grant", f"no live grant named {tool[:64]!r}", digest)
            fields: dict[str, Any] = {"agent": agent, "launch": self._launch.index}
            if verb == delegate.DROP:
                kind, fields = "dropped", fields | {"grant": grant.id}
                reason = None
            else:
                held = {
                    "tool": grant.tool,
                    "where": grant.where_value,
                    "calls": replay.authority.read("grant_left", grant.id),
                    "expires_ms": grant.expires_ms,
                    "budget": replay.authority.read("grant_budget", grant.id),
                }
                kind = "delegated"
                fields |= {"grant": grant.id, "to": arguments["to"]} | delegate.part_of(held, arguments)
                fields["child"] = replay.authority.read("agent_launch", arguments["to"])
                reason = replay.delegation_refused(fields, now_ms())
        except ArgumentsRefused as refusal:
            return await self._denied(agent, verb, refusal.code, str(refusal), digest)
        except FormatError as error:
            return await self._denied(agent, verb, "arguments-invalid", str(error), digest)
        if reason is not None:
            return await self._denied(agent, verb, reason, REASONS[reason], digest)
        try:
            entry = await self._log.append(kind, _subjects(grant), fields, timeout_s=INTENT_TIMEOUT_S)
        except FormatError as error:
            return await self._denied(agent, verb, "arguments-invalid", str(error), digest)
        except (LogUnavailable, AppendRefused) as error:
            raise AuthorityUnavailable(f"not known to be done: it could not be logged: {error}") from error
        if entry.void is not None:
            return Denied(entry.void, REASONS.get(entry.void, entry.void))
        facts: dict[str, Value] = {"index": entry.index, "grant": grant.id}
        if kind == "delegated":
            facts["grant"] = delegated_id(entry.predicate["id"])
        return CallOutcome(f"{kind}, logged at {entry.index}", facts)

    async def deny(self, agent: str, what: str, reason: str, text: str) -> None:
        """Log a denial that the session itself decided."""
        await self._denied(agent, what, reason, text, None)

    def status(self, agent: str) -> Value:
        """Who the agent is, what runs it, which tools it has."""
        tools: list[Value] = [one.tool for one in self.tools(agent)]
        return {
            "agent": agent,
            "launch": self._launch.index,
            "module_sha256": self._launch.module,
            "config_sha256": self._launch.config,
            "tools": tools,
        }

    def metrics(self, agent: str) -> Value:
        """What the agent has used."""
        return {"log_size": self._log.size, **self._counts}

    def input(self, agent: str) -> Value:
        """What the agent was given to work on: `inputs/AGENT.json`, or nothing."""
        try:
            return parse_json(read_file(input_path(self._deployment, agent), MAX_INPUT), limit=MAX_INPUT)
        except (DeploymentError, FormatError):
            return None

    async def close(self) -> None:
        """Wait until every outcome is logged; give the scratch area back."""
        if self._outcomes:
            await asyncio.gather(*self._outcomes, return_exceptions=True)
        if self._area is not None:
            self._area.close()

    async def _perform(self, grant: Grant, args: Mapping[str, Value], headers: Mapping[str, str]) -> Performed:
        if grant.action == http.ACTION:
            credential = None
            if grant.credential is not None:
                credential = self._credentials.get(grant.credential)
                if credential is None:
                    text = f"the gateway has no credential {grant.credential}"
                    return Performed("not-performed", f"credential-missing: {text}", text)
            limits = http.HttpLimits(max_response=min(http.HttpLimits().max_response, self.channel["max_message"] // 2))
            return await http.perform(args, headers, credential, limits)
        if self._area is None:
            try:
                self._area = scratch.ScratchArea(
                    str(self._deployment.root / "scratch"),
                    grant.agent,
                    max_bytes=self._scratch["max_bytes"],
                    max_files=self._scratch["max_files"],
                )
            except (scratch.ScratchRefused, OSError) as error:
                return Performed("not-performed", f"scratch-unavailable: {error}"[:1000], "no scratch area")
        return await asyncio.to_thread(
            self._area.perform, grant.action, args, max_result=self.channel["max_message"] // 2
        )

    def _close(self, intent: int, grant: Grant, performed: Performed) -> None:
        """Log the outcome; the agent's answer need not wait for it."""
        task = self._intents.close(intent, grant, performed)
        if task is not None:
            self._outcomes.add(task)
            task.add_done_callback(self._outcomes.discard)

    async def _denied(
        self,
        agent: str,
        what: str,
        reason: str,
        text: str,
        digest: Digest | None,
        wants: Mapping[str, Value] | None = None,
    ) -> Denied:
        self._counts["denied"] += 1
        fields = {
            "agent": agent,
            "launch": self._launch.index,
            "tool": _printable(what, 200),
            "reason": _printable(reason, 200),
            "text": text[:1000],
            "args_sha256": digest,
            "wants": wants,
        }
        try:
            await self._log.append("action-denied", (Subject("module", self._launch.module),), fields)
        except (LogUnavailable, AppendRefused, FormatError) as error:
            raise AuthorityUnavailable(f"refused, and the refusal could not be logged: {error}") from error
        return Denied(reason, text)


def input_path(deployment: Deployment, agent: str) -> Path:
    """Where the operator puts what an agent shall work on. It is data and gives no power."""
    return deployment.root / "inputs" / f"{agent.replace(':', '_')}.json"


def _spent(grant: Grant, performed: Performed) -> int | None:
    """What an outcome says that the call cost; None leaves it at what it was charged."""
    if grant.budget is None:
        return None
    if performed.status == "not-performed":
        return 0
    spent = performed.spent.get(grant.budget["unit"])
    return None if spent is None else min(spent, int(grant.budget["call"]))


def _subjects(grant: Grant) -> tuple[Subject, ...]:
    return (Subject("module", grant.module), Subject("profile", grant.config))


def _normalise(action: str, arguments: Value) -> tuple[dict[str, Value], dict[str, str]]:
    if action not in ACTIONS:
        raise ArgumentsRefused("action-unknown", f"the gateway has no action {action}")
    if action == http.ACTION:
        call = http.normalise(arguments)
        return call.args, call.headers
    return scratch.normalise(action, arguments), {}


def _printable(text: str, limit: int) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text[:limit])
