"""The native Python agent does the job of the C one: the official SDK's client against the gateway's real session."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from agent_stand import CHECKOUT, EXAMPLES, Agent, Office, converse
from test_agents import TOOLS, expected_summary, make_records

from ironbound.core.canonical import Value
from ironbound.core.constraint import parse_where
from ironbound.gateway.mcp import CallOutcome, ChannelLimits, Denied, Session, SessionEnd
from ironbound.gateway.tools import ToolGrant

EXAMPLE = CHECKOUT / "sdk" / "python-native"
AGENT = EXAMPLE / "agent"
LIMITS = ChannelLimits(max_message=65_536, max_messages_per_second=1000)
DEADLINE_S = 30.0


@dataclass
class Bureau:
    """An authority that grants and acts as told: the world that the agent works in. Keeps what was asked."""

    pages: list[list[dict[str, Any]]]
    granted: set[str] = field(default_factory=lambda: set(TOOLS))
    rounds: int = 0
    status_code: int = 200
    posts: list[Any] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    listed: int = 0

    def tools(self, agent: str) -> Sequence[ToolGrant]:
        self.listed += 1
        where = parse_where({"method": {"any": True}, "body": {"any": True}})
        return [ToolGrant(tool, "http.request", where, 9, 10**12) for tool in sorted(self.granted)]

    async def call(
        self, agent: str, tool: str, arguments: dict[str, Value], client: str | None
    ) -> CallOutcome | Denied:
        if tool not in self.granted:
            self.refused.append(tool)
            return Denied("no-such-grant", f"no live grant covers the tool {tool}")
        if tool == "scratch.write":
            self.files[str(arguments["name"])] = str(arguments["text"])
            return CallOutcome("written", {"bytes": 1})
        url = str(arguments["url"])
        facts: dict[str, Value] = {"status": self.status_code, "headers": {}}
        if tool == "records.fetch":
            self.fetched.append(url)
            number = int(url.removeprefix("http://127.0.0.1:8801/records?page="))
            body = self.pages[number - 1] if number <= len(self.pages) else []
            return CallOutcome(json.dumps(body), facts, self.status_code >= 400)
        assert url == "http://127.0.0.1:8801/reports" and arguments["method"] == "POST"
        self.posts.append(json.loads(str(arguments["body"])))
        return CallOutcome("", facts)

    async def deny(self, agent: str, what: str, reason: str, text: str) -> None:
        self.denied.append(f"{what}: {reason}")

    def status(self, agent: str) -> Value:
        return {}

    def metrics(self, agent: str) -> Value:
        return {}

    def input(self, agent: str) -> Value:
        return {
            "records_url": "http://127.0.0.1:8801/records",
            "report_url": "http://127.0.0.1:8801/reports",
            "rounds": self.rounds,
        }


@dataclass
class Run:
    """The agent as a process, and the gateway's session with it."""

    session: Session
    process: asyncio.subprocess.Process

    async def until(self, what: str, found: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not found():
                assert self.process.returncode is None, f"the agent is over before: {what}"
                await asyncio.sleep(0.005)


def conversation(
    bureau: Bureau, play: Callable[[Run], Awaitable[None]], command: Sequence[str] = (sys.executable, "-IB", str(AGENT))
) -> tuple[SessionEnd, int, str]:
    """The whole life of an agent while `play` acts on its world: the session's end, exit code, standard error."""

    async def work() -> tuple[SessionEnd, int, str]:
        ours, theirs = socket.socketpair()
        process = await asyncio.create_subprocess_exec(
            *command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env={"LANG": "C.UTF-8"}
        )
        theirs.close()
        assert process.stderr is not None
        reader, writer = await asyncio.open_connection(sock=ours)
        session = Session(reader, writer, "triage", bureau, LIMITS)
        served = asyncio.create_task(session.run())
        said = asyncio.create_task(process.stderr.read())
        try:
            async with asyncio.timeout(DEADLINE_S):
                await play(Run(session, process))
                if process.returncode is None and not bureau.rounds:
                    session.close("test", "that was all")
                end = await served
                return end, await process.wait(), (await said).decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            served.cancel()

    return asyncio.run(work())


def bureau(count: int = 300, **more: Any) -> Bureau:
    records = make_records(count)
    return Bureau([records[start : start + 25] for start in range(0, count, 25)], **more)


async def nothing(run: Run) -> None:
    return


def assert_right(post: dict[str, Any], world: Bureau) -> None:
    expected = expected_summary([record for page in world.pages for record in page])
    assert {key: post[key] for key in expected} == expected


def test_it_does_the_whole_job_and_writes_the_very_report_of_the_c_agent() -> None:
    world = bureau(rounds=1)
    end, code, said = conversation(world, nothing)
    assert (end.reason, code) == ("eof", 0), said
    assert len(world.fetched) == 13 and world.refused == [] and world.denied == []
    assert_right(world.posts[0], world)
    assert json.loads(said) == world.posts[0] | {"posted": 1}
    assert len(said.encode()) <= 4096
    office = Office(world.pages, set(TOOLS))
    converse(Agent(EXAMPLES / "triage.wasm"), office, b"")
    assert world.files == office.files
    assert world.posts == office.posts


@pytest.mark.parametrize("missing", sorted(TOOLS))
def test_it_survives_a_refusal_and_goes_on_where_it_was_once_granted(missing: str) -> None:
    world = bureau(60, granted=TOOLS - {missing})

    async def play(run: Run) -> None:
        await run.until("the refusal", lambda: bool(world.refused))
        listed = world.listed
        run.session.tools_changed()
        await run.until("it looks at its tools", lambda: world.listed > listed)
        world.granted.add(missing)
        run.session.tools_changed()
        await run.until("the post", lambda: bool(world.posts))

    conversation(world, play)
    assert world.refused == [missing], "a change that does not bring the tool is no reason to ask again"
    assert world.posts[0]["refusals"] == 1
    assert world.posts[0]["last_refusal"] == f"refused: no-such-grant: no live grant covers the tool {missing}"
    assert_right(world.posts[0], world)
    assert len(world.fetched) == 4


def test_a_revoked_tool_is_asked_for_again_only_when_the_input_changes() -> None:
    world = bureau(30)

    async def play(run: Run) -> None:
        await run.until("the first post", lambda: len(world.posts) == 1)
        world.granted.discard("report.post")
        run.session.tools_changed()
        run.session.input_changed()
        await run.until("the refusal", lambda: bool(world.refused))
        world.granted.add("report.post")
        run.session.tools_changed()
        await run.until("the second post", lambda: len(world.posts) == 2)

    conversation(world, play)
    assert world.refused == ["report.post"] and [one["posted"] for one in world.posts] == [0, 1]


def test_a_service_that_fails_is_a_refusal_that_is_tried_again() -> None:
    world = bureau(10, status_code=503)

    async def play(run: Run) -> None:
        await run.until("the failure", lambda: len(world.fetched) == 1)
        world.status_code = 200
        run.session.input_changed()
        await run.until("the post", lambda: bool(world.posts))

    conversation(world, play)
    assert world.posts[0]["refusals"] == 1
    assert_right(world.posts[0], world)


def test_it_ends_when_the_gateway_closes_the_channel() -> None:
    world = bureau(10, granted=set())

    async def play(run: Run) -> None:
        await run.until("the refusal", lambda: bool(world.refused))

    end, code, said = conversation(world, play)
    assert end.reason == "test" and code != 0 and said == "the gateway closed the channel\n"


# The root file system


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's root file system, built from this very Python."""
    root = tmp_path_factory.mktemp("python-native") / "rootfs"
    built = subprocess.run(
        [sys.executable, str(EXAMPLE / "build.py"), "--to", str(root)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert "/usr/bin/python3 -IB /agent" in built.stdout
    return root


def test_the_built_root_file_system_is_small_and_has_no_tests_and_no_leftovers(rootfs: Path) -> None:
    names = [one.relative_to(rootfs).parts for one in rootfs.rglob("*")]
    assert not any({"__pycache__", "test", "tests", "site-packages", "dist-packages"} & set(parts) for parts in names)
    assert {parts[0] for parts in names} <= {"agent", "lib", "lib64", "usr"}
    files = [one for one in rootfs.rglob("*") if one.is_file()]
    assert len(files) < 3000 and sum(one.stat().st_size for one in files) < 120 << 20
    assert not any(one.is_symlink() for one in rootfs.rglob("*"))


def test_a_folder_that_is_not_empty_is_not_built_into(rootfs: Path) -> None:
    before = sorted(rootfs.iterdir())
    built = subprocess.run(
        [sys.executable, str(EXAMPLE / "build.py"), "--to", str(rootfs)], capture_output=True, text=True, check=False
    )
    assert built.returncode != 0 and "is not empty" in built.stderr
    assert sorted(rootfs.iterdir()) == before


@pytest.mark.root
def test_the_agent_does_its_job_with_nothing_but_the_built_root_file_system(rootfs: Path) -> None:
    world = bureau(50, rounds=1)
    end, code, said = conversation(
        world, nothing, [str(shutil.which("chroot")), str(rootfs), "/usr/bin/python3", "-IB", "/agent"]
    )
    assert (end.reason, code) == ("eof", 0), said
    assert_right(world.posts[0], world)
    assert not os.path.exists(rootfs / "proc")
