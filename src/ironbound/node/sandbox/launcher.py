"""The node's side of the sandbox: starts the zygote, asks it for workers and listens to what they say.

Decides when a worker's word counts: its control messages are parsed strictly and bounded, before the release because
nothing of the agent has run, after it although something has; garbage kills it. It does not decide whether a launch
may happen, and appends nothing to the log.

Rule 1: configuration and module reach a worker only as sealed memory files made here.
Rule 2: a worker that is not ready within READY_SECONDS, and COMPILE_SECONDS more for each MiB of its module, or
        outlives its wall clock by BACKSTOP_SECONDS, is killed.
Rule 3: a process is signalled through its pidfd, never by a number that may belong to another by now.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ironbound.core.canonical import FormatError, Value, canonical, parse_canonical, parse_digest
from ironbound.node.processes import describe, kill, readable
from ironbound.node.runtime import VERDICTS, Ended, Probe, Ready, Refused
from ironbound.node.sandbox.memfd import sealed_memfd

READY_SECONDS: Final = 20.0
COMPILE_SECONDS: Final = 5.0
"""For each MiB of a module, to compile it on one thread of a busy machine; Python as a component has 18 MiB."""
START_SECONDS: Final = 20.0
BACKSTOP_SECONDS: Final = 1.0
REAP_SECONDS: Final = 5.0
STATUS_SECONDS: Final = 0.2
STAND_BY_SECONDS: Final = 0.25
"""From an order to the request for the next worker to stand by: by then the launch is over, and has the processors."""
MAX_CONTROL_LINE: Final = 32 * 1024
MAX_START: Final = 16 * 1024
MAX_EVENT: Final = 64 * 1024
MAX_TEXT: Final = 4096
MAX_PROBES: Final = 128
MAX_PROBE_TEXT: Final = 256
MAX_LIFE_SECONDS: Final = 10 * 365 * 86400

STAGES: Final = ("config", "module", "imports", "compile", "lockdown", "probe")
REASONS: Final = ("finished", "eof", "trap", "fuel", "wall-clock", "stack", "limit", "protocol", "refused")


class SpawnFailed(Exception):
    """The kernel made no process for this launch; the zygote and its other workers live on."""


class ZygoteLost(Exception):
    """The zygote ended or never started; it takes all its workers with it."""


@dataclass(frozen=True, slots=True)
class ZygoteFacts:
    """What the zygote measured of itself. Digests are lower-case hex; `bounding` is a worker's bounding set, 16 hex
    digits."""

    pid: int
    pid_start: int
    separation: str
    namespaces: dict[str, str]
    exe: str
    mappings: tuple[str, ...]
    landlock_abi: int
    bounding: str
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Reaped:
    status: int
    cpu_ms: int
    max_rss: int


@dataclass(frozen=True, slots=True)
class _LastWord:
    reason: str
    text: str
    report: str = ""
    messages: int = 0
    fuel: int = 0


class _Fields:
    """Strict access to an object's members; whatever was not asked for is an error at `done`."""

    def __init__(self, value: Value) -> None:
        if not isinstance(value, dict):
            raise FormatError("control-invalid", "expected an object")
        self._left = dict(value)

    def _take(self, name: str) -> Value:
        if name not in self._left:
            raise FormatError("control-invalid", f"{name}: missing")
        return self._left.pop(name)

    def text(self, name: str, limit: int = MAX_TEXT, among: tuple[str, ...] | None = None) -> str:
        value = self._take(name)
        if not isinstance(value, str) or len(value) > limit or (among is not None and value not in among):
            raise FormatError("control-invalid", f"{name}: expected other text")
        return value

    def has(self, name: str) -> bool:
        return name in self._left

    def digest(self, name: str) -> str:
        return parse_digest(self.text(name))

    def number(self, name: str, least: int = 0) -> int:
        value = self._take(name)
        if type(value) is not int or value < least:
            raise FormatError("control-invalid", f"{name}: expected an integer from {least}")
        return value

    def items(self, name: str, limit: int) -> list[Value]:
        value = self._take(name)
        if not isinstance(value, list) or len(value) > limit:
            raise FormatError("control-invalid", f"{name}: expected a list of at most {limit}")
        return value

    def part(self, name: str) -> Value:
        return self._take(name)

    def done(self) -> None:
        if self._left:
            raise FormatError("control-invalid", f"unknown: {', '.join(sorted(self._left))[:200]}")


def _parse_probe(value: Value) -> Probe:
    fields = _Fields(value)
    probe = Probe(
        fields.text("name", MAX_PROBE_TEXT),
        fields.text("verdict", among=VERDICTS),
        fields.text("refusal", MAX_PROBE_TEXT),
    )
    fields.done()
    return probe


def parse_first_word(line: bytes) -> Ready | Refused:
    """The worker's first control message. Raises FormatError."""
    fields = _Fields(parse_canonical(line, limit=MAX_CONTROL_LINE))
    answer: Ready | Refused
    if fields.text("type", among=("ready", "refused")) == "refused":
        answer = Refused(fields.text("stage", among=STAGES), fields.text("text"))
    else:
        probes = tuple(_parse_probe(item) for item in fields.items("probes", MAX_PROBES))
        surface = fields.digest("surface_sha256") if fields.has("surface_sha256") else None
        answer = Ready(fields.digest("config_sha256"), fields.digest("module_sha256"), probes, surface)
    fields.done()
    return answer


def parse_last_word(line: bytes) -> _LastWord:
    """The worker's last control message. The agent may have written it: nothing follows from it but what the log
    says it said. Raises FormatError."""
    fields = _Fields(parse_canonical(line, limit=MAX_CONTROL_LINE))
    fields.text("type", among=("exited",))
    word = _LastWord(
        fields.text("reason", among=REASONS),
        fields.text("text"),
        fields.text("report"),
        fields.number("messages"),
        fields.number("fuel"),
    )
    fields.done()
    return word


def _parse_facts(data: bytes) -> ZygoteFacts:
    fields = _Fields(parse_canonical(data, limit=MAX_EVENT))
    fields.text("event", among=("zygote-ready",))
    namespaces = fields.part("namespaces")
    if not isinstance(namespaces, dict):
        raise FormatError("control-invalid", "namespaces: expected an object")
    facts = ZygoteFacts(
        pid=fields.number("pid", 1),
        pid_start=fields.number("pid_start"),
        separation=fields.text("separation", among=("user", "process")),
        namespaces={kind: str(state) for kind, state in namespaces.items()},
        exe=fields.digest("exe"),
        mappings=tuple(parse_digest(str(item)) for item in fields.items("mappings", 1024)),
        landlock_abi=fields.number("landlock_abi"),
        bounding=fields.text("bounding", 16),
        groups=tuple(item for item in fields.items("groups", 65536) if type(item) is int),
    )
    fields.done()
    return facts


def _wall_clock(config: bytes) -> float:
    """Seconds of life that the configuration gives; a configuration that does not parse is the worker's to refuse."""
    try:
        value = parse_canonical(config, limit=MAX_EVENT)
    except FormatError:
        return 0.0
    runtime = value.get("runtime") if isinstance(value, dict) else None
    seconds = runtime.get("max_wall_clock") if isinstance(runtime, dict) else None
    return float(min(seconds, MAX_LIFE_SECONDS)) if type(seconds) is int and seconds > 0 else 0.0


class Worker:
    """One worker process. `ready`, then `release` once the start is in the log, then `ended`; or `kill` and `ended`."""

    def __init__(self, launch: int, pid: int, pid_start: int, pidfd: int, wall_clock: float, module_size: int) -> None:
        self.launch = launch
        self.pid = pid
        self.pid_start = pid_start
        self.pidfd = pidfd
        self.envelope: Mapping[str, Any] = {}
        self.facts: Mapping[str, Any] = {}
        self._wall_clock = wall_clock
        self._patience = READY_SECONDS + COMPILE_SECONDS * module_size / (1 << 20)
        self._reaped: asyncio.Future[_Reaped | None] = asyncio.get_running_loop().create_future()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._released_at: float | None = None
        self._killed_for: tuple[str, str] | None = None
        self._ended: Ended | None = None

    async def _attach(self, control: socket.socket) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=control, limit=MAX_CONTROL_LINE)

    async def _line(self, seconds: float) -> bytes | None:
        """One control line without its newline; None at the end. Raises TimeoutError, FormatError."""
        if self._reader is None:
            raise ZygoteLost("the worker has no control channel")
        try:
            async with asyncio.timeout(seconds):
                line = await self._reader.readline()
        except ValueError:
            raise FormatError("control-invalid", f"a control line over {MAX_CONTROL_LINE} bytes") from None
        except (ConnectionResetError, BrokenPipeError):
            return None
        return line[:-1] if line.endswith(b"\n") else None

    async def ready(self) -> Ready | Refused:
        """Waits until the worker is locked down or has refused. A worker that says neither is killed and counts as
        refused."""
        try:
            line = await self._line(self._patience)
            if line is not None:
                return parse_first_word(line)
            text = "the worker ended before it was ready"
        except TimeoutError:
            text = f"expected the worker to be ready within {self._patience:.0f} s"
        except FormatError as error:
            text = f"the worker's first word: {error}"
        self.kill()
        reaped = await self._reaping()
        return Refused("lockdown", text if reaped is None else f"{text}: {describe(reaped.status)}")

    async def release(self) -> None:
        """Lets the agent's first instruction run. Only after its start is in the log under a witnessed checkpoint."""
        if self._writer is None:
            raise ZygoteLost("the worker has no control channel")
        self._released_at = asyncio.get_running_loop().time()
        self._writer.write(b"release\n")
        try:
            await self._writer.drain()
        except (ConnectionResetError, BrokenPipeError):
            return  # it is gone; `ended` says how

    async def ended(self) -> Ended:
        """Waits for the end. Kills the worker where its wall clock is over by BACKSTOP_SECONDS, and where it talks
        garbage."""
        if self._ended is None:
            self._ended = await self._end()
        return self._ended

    async def _end(self) -> Ended:
        loop = asyncio.get_running_loop()
        word: _LastWord | None = None
        if self._released_at is None:
            self.kill()
        else:
            word = await self._last_word(self._released_at + self._wall_clock + BACKSTOP_SECONDS - loop.time())
        reaped = await self._reaping()
        wall_ms = 0 if self._released_at is None else int((loop.time() - self._released_at) * 1000)
        if word is None:
            text = "dead; the zygote has no status of it" if reaped is None else describe(reaped.status)
            reason, text = self._killed_for or ("killed", text)
            word = _LastWord(reason, text)
        self._close()
        return Ended(
            word.reason,
            word.text,
            word.report,
            word.messages,
            word.fuel,
            None if reaped is None else reaped.status,
            0 if reaped is None else reaped.cpu_ms,
            0 if reaped is None else reaped.max_rss,
            wall_ms,
        )

    async def _last_word(self, seconds: float) -> _LastWord | None:
        try:
            line = await self._line(max(seconds, 0.0))
            return None if line is None else parse_last_word(line)
        except TimeoutError:
            text = f"killed by the node {BACKSTOP_SECONDS:.0f} s after its wall clock was over"
            self._killed_for = ("wall-clock", text)
        except FormatError as error:
            self._killed_for = ("protocol", f"the worker's last word: {error}"[:MAX_TEXT])
        self.kill()
        return None

    async def _reaping(self) -> _Reaped | None:
        """The zygote's report of the end, None where there is none to be had. A worker that has spoken its last word
        and stays is killed.

        The kernel tells through the pidfd that the process is dead. Whoever traces it can withhold its status from
        the zygote for as long as they like, so that is not waited for.
        """
        dead: asyncio.Future[Any] = asyncio.ensure_future(readable(self.pidfd))
        ends: list[asyncio.Future[Any]] = [dead, self._reaped]
        try:
            await asyncio.wait(ends, timeout=REAP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not dead.done() and not self._reaped.done():
                self.kill()
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([self._reaped], timeout=STATUS_SECONDS)
        finally:
            dead.cancel()
        return self._reaped.result() if self._reaped.done() else None

    def kill(self) -> None:
        """SIGKILL through the pidfd; nothing happens where it has ended."""
        kill(self.pidfd)

    @property
    def closed(self) -> bool:
        """Whether its end was told; its pidfd is closed then."""
        return self.pidfd < 0

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _was_reaped(self, reaped: _Reaped | None) -> None:
        if not self._reaped.done():
            self._reaped.set_result(reaped)


class Zygote:
    """The zygote process and its socket. One per node; used from one event loop."""

    def __init__(self, *, stands_by: bool = True) -> None:
        """`stands_by`: as root a worker is forked ahead, STAND_BY_SECONDS after the latest order; see the zygote."""
        self._ahead = stands_by
        self._socket: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._pidfd = -1
        self._forking: dict[int, asyncio.Future[tuple[int, int, int]]] = {}
        self._workers: dict[int, Worker] = {}  # those that run, by launch
        self._open: list[Worker] = []  # those whose end was not told yet
        self._facts: asyncio.Future[ZygoteFacts] | None = None
        self.lost: asyncio.Event = asyncio.Event()

    async def start(self, python: str = sys.executable) -> ZygoteFacts:
        """Starts the zygote with an empty environment. Raises ZygoteLost."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        loop = asyncio.get_running_loop()
        self._facts = loop.create_future()
        with there:
            self._process = await asyncio.create_subprocess_exec(
                python, "-I", "-B", "-m", "ironbound.node.sandbox.zygote", str(there.fileno()),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                env={}, pass_fds=(there.fileno(),), start_new_session=True,
            )  # fmt: skip
        # Not Process.kill(): it reaps, and the event loop's own wait would find nothing.
        self._pidfd = os.pidfd_open(self._process.pid)
        here.setblocking(False)
        self._socket = here
        loop.add_reader(here.fileno(), self._receive)
        try:
            async with asyncio.timeout(START_SECONDS):
                facts = await self._facts
                self._ahead = self._ahead and facts.separation == "user"
                self._have_one_stand_by()
                return facts
        except TimeoutError:
            await self.close()
            raise ZygoteLost(f"expected the zygote to be ready within {START_SECONDS:.0f} s") from None

    async def spawn(
        self, launch: int, uid: int, gid: int, config: bytes, module: bytes, channel_fd: int, start: str
    ) -> Worker:
        """A worker for this launch. `channel_fd` stays the caller's to close. Raises ZygoteLost,
        SpawnFailed, OSError, FormatError."""
        if self._socket is None or self.lost.is_set():
            raise ZygoteLost("there is no zygote")
        if launch in self._forking or launch in self._workers:
            raise FormatError("request-invalid", f"launch {launch} has a worker already")
        if min(launch, uid, gid) < 0 or len(start.encode("utf-8")) > MAX_START:
            raise FormatError("request-invalid", f"expected ids and a start message of at most {MAX_START} bytes")
        request = canonical({"op": "spawn", "launch": launch, "uid": uid, "gid": gid, "start": start})
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        answer: asyncio.Future[tuple[int, int, int]] = asyncio.get_running_loop().create_future()
        self._forking[launch] = answer
        try:
            with its:
                config_fd = sealed_memfd("config", config)
                try:
                    module_fd = sealed_memfd("module", module)
                    try:
                        await self._send(request, [config_fd, module_fd, channel_fd, its.fileno()])
                    finally:
                        os.close(module_fd)
                finally:
                    os.close(config_fd)
            pid, pid_start, pidfd = await answer
        except BaseException:
            mine.close()
            raise
        finally:
            del self._forking[launch]
        worker = Worker(launch, pid, pid_start, pidfd, _wall_clock(config), len(module))
        self._workers[launch] = worker
        self._open = [*(item for item in self._open if not item.closed), worker]
        asyncio.get_running_loop().call_later(STAND_BY_SECONDS, self._have_one_stand_by)
        await worker._attach(mine)
        return worker

    def _have_one_stand_by(self) -> None:
        if self._ahead and self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(canonical({"op": "stand-by"}))

    async def _send(self, request: bytes, descriptors: list[int]) -> None:
        if self._socket is None:
            raise ZygoteLost("there is no zygote")
        while True:
            try:
                socket.send_fds(self._socket, [request], descriptors)
                return
            except BlockingIOError:
                await _writable(self._socket)
            except (BrokenPipeError, ConnectionResetError):
                raise ZygoteLost("the zygote is gone") from None

    def _receive(self) -> None:
        if self._socket is None:
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, MAX_EVENT, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._lose()
            return
        try:
            taken = self._take(data, descriptors)
        except FormatError:
            # A zygote that talks nonsense is none; it takes its workers with it.
            taken = False
            self._lose()
        for descriptor in () if taken else descriptors:
            kill(descriptor)
            os.close(descriptor)

    def _take(self, data: bytes, descriptors: list[int]) -> bool:
        """Whether the descriptors of this event have an owner now. Raises FormatError."""
        if self._facts is not None and not self._facts.done():
            self._facts.set_result(_parse_facts(data))
            return False
        fields = _Fields(parse_canonical(data, limit=MAX_EVENT))
        event, launch = fields.text("event", among=("forked", "reaped", "failed")), fields.number("launch")
        answer = self._forking.get(launch)
        waiting = answer if answer is not None and not answer.done() else None
        if event == "failed":
            text = fields.text("text")
            if waiting is not None:
                waiting.set_exception(SpawnFailed(text))
            return False
        pid = fields.number("pid", 1)
        if event == "forked":
            pid_start = fields.number("pid_start")
            if len(descriptors) != 1:
                raise FormatError("control-invalid", "expected a fork with its pidfd")
            if waiting is not None:
                waiting.set_result((pid, pid_start, descriptors[0]))
            # Who asked may have given up meanwhile; then nobody will ever release this worker, and it is killed.
            return waiting is not None
        reaped = _Reaped(fields.number("status", -64), fields.number("cpu_ms"), fields.number("max_rss"))
        worker = self._workers.pop(launch, None)
        if worker is not None:
            worker._was_reaped(reaped)
        return False

    def _lose(self) -> None:
        self.lost.set()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        kill(self._pidfd)
        waiting: list[asyncio.Future[ZygoteFacts] | asyncio.Future[tuple[int, int, int]]] = [*self._forking.values()]
        if self._facts is not None:
            waiting.append(self._facts)
        for future in waiting:
            if not future.done():
                future.set_exception(ZygoteLost("the zygote is gone"))
        for worker in self._workers.values():
            worker._was_reaped(None)
        self._workers.clear()

    async def close(self) -> None:
        """Ends the zygote and with it every worker."""
        self._lose()
        for worker in self._open:
            worker._close()
        self._open = []
        if self._process is not None:
            await self._process.wait()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        await asyncio.sleep(0)  # closed transports let go of their sockets in the next turn


async def _writable(endpoint: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(endpoint.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(endpoint.fileno())
