"""Triage as a native agent: the official MCP SDK's client, unchanged, on the process's own stdin and stdout.

What it does, in order: reads the resource ironbound://agent/input (where the service is), fetches page after page
with the tool records.fetch until one is empty, writes report.md with scratch.write, and posts a JSON summary with
report.post. A refusal is no failure: it remembers the words, waits until its grants bring the tool or its input
changes, and tries again from the same place. After posting it waits; an update of its input asks for another post.
With "rounds": N in its input it ends after N posts, with the summary as its report on stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from channel import channel
from mcp import ClientSession, Implementation, MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    PaginatedRequestParams,
    ResourceUpdatedNotification,
    TextContent,
    ToolListChangedNotification,
)
from sorting import Tally

INPUT = "ironbound://agent/input"
MAX_PAGES = 10_000
MAX_WORDS = 300


class Refused(Exception):
    """The gateway, or the service behind it, says no; in its words."""


class Bell:
    """Counts what the gateway tells by itself, and wakes who waits for it."""

    def __init__(self) -> None:
        self.tools = 0
        self.input = 0
        self._rung = anyio.Event()

    async def ring(self, message: Any) -> None:
        """What a `ClientSession` calls for each notification."""
        if isinstance(message, ToolListChangedNotification):
            self.tools += 1
        elif isinstance(message, ResourceUpdatedNotification):
            self.input += 1
        self._rung.set()
        self._rung = anyio.Event()

    async def until_other(self, heard: tuple[int, int]) -> tuple[int, int]:
        """Waits until what was heard is not this any more; returns what it is then."""
        while (self.tools, self.input) == heard:
            await self._rung.wait()
        return self.tools, self.input


class Triage:
    """One agent's work, and what it knows."""

    def __init__(self, session: ClientSession, bell: Bell) -> None:
        self._session = session
        self._bell = bell
        self._tally = Tally()
        self._page = 1
        self._posted = 0
        self._refusals = 0
        self._last_refusal = ""

    async def run(self) -> dict[str, Any]:
        """All of it; returns the summary after the last round."""
        task = await self._insist(self._read_input)
        while await self._insist(lambda: self._fetch(task["records_url"]), "records.fetch"):
            self._page += 1
        self._page += 1
        await self._insist(self._write, "scratch.write")
        while True:
            asked = self._bell.input
            await self._insist(lambda: self._post(task["report_url"]), "report.post")
            self._posted += 1
            if self._posted >= task.get("rounds", 0) > 0:
                return self._summary()
            heard = self._bell.tools, self._bell.input
            while self._bell.input == asked:
                heard = await self._bell.until_other(heard)

    async def _insist(self, step: Callable[[], Awaitable[Any]], tool: str = "") -> Any:
        """What a step brings, tried again after a refusal once the tool is granted or the input changed.

        Not more often: each refusal is an entry in the log.
        """
        while True:
            heard = before = self._bell.tools, self._bell.input
            try:
                return await step()
            except MCPError as error:
                if error.error.code == CONNECTION_CLOSED:
                    raise EOFError from error
                words = error.error.message
            except Refused as refusal:
                words = str(refusal)
            self._refusals += 1
            self._last_refusal = words[:MAX_WORDS]
            while True:
                heard = await self._bell.until_other(heard)
                if heard[1] != before[1] or not tool or tool in await self._tools():
                    break

    async def _tools(self) -> set[str]:
        """The tools that the grants give now."""
        found: set[str] = set()
        cursor = None
        while True:
            page = await self._session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
            found |= {one.name for one in page.tools}
            cursor = page.next_cursor
            if not cursor:
                return found

    async def _read_input(self) -> dict[str, Any]:
        read = await self._session.read_resource(INPUT)
        task = json.loads(getattr(read.contents[0], "text", "null"))
        if not isinstance(task, dict) or not {"records_url", "report_url"} <= task.keys():
            raise Refused("the input names no records_url and report_url")
        return task

    async def _call(self, tool: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        result = await self._session.call_tool(tool, arguments)
        text = "".join(one.text for one in result.content if isinstance(one, TextContent))
        if result.is_error:
            raise Refused(text)
        return text, dict(result.structured_content or {})

    async def _http(self, tool: str, arguments: dict[str, Any]) -> str:
        body, facts = await self._call(tool, arguments)
        if not 200 <= int(facts.get("status", 0)) <= 299:
            raise Refused(f"the service answered with status {facts.get('status')}")
        return body

    async def _fetch(self, url: str) -> bool:
        """One page; False if it was the last."""
        mark = "&" if "?" in url else "?"
        body = await self._http("records.fetch", {"method": "GET", "url": f"{url}{mark}page={self._page}"})
        try:
            found = json.loads(body)
        except ValueError:
            raise Refused("a page of records is not JSON") from None
        records = found.get("records") if isinstance(found, dict) else found
        if not isinstance(records, list):
            raise Refused("a page of records is not a list")
        self._refusals += sum(not self._tally.add(record) for record in records)
        return bool(records) and self._page < MAX_PAGES

    async def _write(self) -> None:
        await self._call("scratch.write", {"name": "report.md", "text": self._tally.report()})

    async def _post(self, url: str) -> None:
        await self._http(
            "report.post",
            {
                "method": "POST",
                "url": url,
                "headers": {"content-type": "application/json"},
                "body": json.dumps(self._summary(), ensure_ascii=False),
            },
        )

    def _summary(self) -> dict[str, Any]:
        return {
            **self._tally.summary(),
            "pages": self._page - 1,
            "posted": self._posted,
            "refusals": self._refusals,
            "last_refusal": self._last_refusal,
        }


async def main() -> None:
    """One session, from the handshake to the last round."""
    bell = Bell()
    summary: dict[str, Any] | None = None
    me = Implementation(name="triage", version="1")
    try:
        async with channel() as streams, ClientSession(*streams, message_handler=bell.ring, client_info=me) as session:
            await session.initialize()
            summary = await Triage(session, bell).run()
    except* EOFError:
        pass
    if summary is None:
        sys.exit("the gateway closed the channel")
    print(json.dumps(summary, ensure_ascii=False), file=sys.stderr)


# A stray print must not become a line on the channel.
sys.stdout = sys.stderr
anyio.run(main)
