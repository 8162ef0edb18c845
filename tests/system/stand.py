"""A real deployment with its real services as processes, as whoever runs the tests, and eyes on all of it.

As root each service has its own user; an ordinary user's are apart by process only. Nothing here is a stand-in: the
services are those that `ironbound up` starts, requests are signed and sent as the command line does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx

import ironbound
from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.keys import PrivateKey
from ironbound.core.profile import Layer, merge
from ironbound.core.replay import Entry, Replay
from ironbound.core.request import NO_LIMITS
from ironbound.core.statement import Subject
from ironbound.core.surface import approval_body
from ironbound.terminal import operators
from ironbound.terminal.init import initialise
from ironbound.wire.deployment import ROLES, Deployment
from ironbound.wire.log import Log

DEADLINE_S = 100.0  # a machine that is emulated on a busy host comes up late
STRICT = Path(ironbound.__file__).parent / "data" / "profiles" / "strict.toml"
PEOPLE = ("ada", "bo", "cy")
QUORUM = 2
ROOT = os.getuid() == 0
COMMAND = (sys.executable, "-I", "-m", "ironbound.terminal.main")

T = TypeVar("T")


def until(what: str, found: Callable[[], T | None], deadline_s: float = DEADLINE_S) -> T:
    """Polls until there is something (not None, not False), and returns it."""
    end = time.monotonic() + deadline_s
    while True:
        value = found()
        if value is not None and value is not False:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:.0f} s: {what}")
        time.sleep(0.01)


def process_state(pid: int) -> tuple[str, int, int] | None:
    """State, parent and start time of a process; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1]), int(fields[19])


def children(pid: int, *, zombies: bool = False) -> list[int]:
    """The children of a process, by default those that live."""
    found = []
    for name in os.listdir("/proc"):
        state = process_state(int(name)) if name.isdigit() else None
        if state is not None and state[1] == pid and (zombies or state[0] not in "ZX"):
            found.append(int(name))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """Every living process below this one."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def is_alive(pid: int, start: int) -> bool:
    """Whether that very process lives."""
    state = process_state(pid)
    return state is not None and state[0] not in "ZX" and state[2] == start


class Follower:
    """The log as everybody can follow it, in a thread of its own. With a service's key it can speak as well."""

    def __init__(self, deployment: Deployment, key: PrivateKey | None = None) -> None:
        self.entries: list[Entry] = []
        self._loop = asyncio.new_event_loop()
        self._log = Log(deployment, key)
        self._log.listen(self.entries.append)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._log.start())

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S + 30)

    def with_state(self, look: Callable[[Replay], T]) -> T:
        """What `look` sees in the folded state, after everything that the log holds now."""

        async def work() -> T:
            deadline = self._loop.time() + DEADLINE_S
            while True:
                try:
                    answer = await self._log._ask({"op": "head"}, deadline)
                    if answer["ok"] is True:
                        break
                except ConnectionError:
                    if self._loop.time() > deadline:
                        raise
                await asyncio.sleep(0.02)
            await self._log.caught_up(int(str(answer["size"])))
            return look(self._log.replay)

        result: T = self._run(work())
        return result

    def append(self, kind: str, module: Digest, **said: Any) -> float:
        """Say something, as services do; milliseconds until it came back in the log, durable and witnessed."""

        async def work() -> float:
            begin = time.perf_counter()
            await self._log.append(kind, (Subject("module", module),), said)
            return (time.perf_counter() - begin) * 1e3

        took: float = self._run(work())
        return took

    def close(self) -> None:
        self._run(self._log.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Stand:
    """One deployment in a folder, its operators' keys, its running services. `own`: people with keys of their own."""

    def __init__(
        self,
        root: Path,
        people: tuple[str, ...] = PEOPLE,
        quorum: int = QUORUM,
        own: Mapping[str, Any] | None = None,
        name: str = "",
        **options: Any,
    ) -> None:
        self.root = root
        self.phrases = {name: f"phrase of {name}" for name in people}
        self.deployment = initialise(
            root,
            name or f"test-{os.urandom(4).hex()}",
            [*((name, text.encode()) for name, text in self.phrases.items()), *(own or {}).items()],
            quorum,
            environment="test",
            **options,
        )
        self.keys = {
            name: PrivateKey.from_pem((root / "operators" / f"{name}.key").read_bytes(), text.encode())
            for name, text in self.phrases.items()
        }
        self.config = Digest("")
        self.starter: tuple[str, ...] = COMMAND
        self.up: subprocess.Popen[bytes] | None = None
        self._follower: Follower | None = None

    # The services

    def start(self) -> None:
        """Start `ironbound up` and wait until the last service is ready."""
        with open(self.root / "up.log", "ab") as output:
            began = output.tell()
            self.up = subprocess.Popen([*self.starter, "up", "-d", str(self.root)], stderr=output, stdout=output)
        until("every service is ready", lambda: self._is_up(began))

    def _is_up(self, began: int) -> bool:
        assert self.up is not None
        said = (self.root / "up.log").read_bytes()[began:].decode()
        assert self.up.poll() is None, f"ended: {self.up.poll()}\n{said}{self.journals()}"
        return all(f"{role}: ready" in said for role in ROLES)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End `ironbound up` and return its exit code."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        if self.up is None:
            return 0
        up, self.up = self.up, None
        up.send_signal(number)
        return up.wait(DEADLINE_S)

    def pid(self, role: str) -> int:
        """The process of a service, as `up` started it."""

        def find() -> int | None:
            assert self.up is not None
            for child in children(self.up.pid):
                try:
                    line = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"ironbound.terminal.serve" in line and line[-2] == role.encode():
                    return child
            return None

        return until(f"{role} runs", find)

    def kill(self, role: str) -> None:
        """SIGKILL a service and wait until another one is in its place and ready."""
        pid = self.pid(role)
        before = self.said_ready(role)
        os.kill(pid, signal.SIGKILL)
        until(f"{role} is started again", lambda: self.said_ready(role) > before)
        assert self.pid(role) != pid

    def said_ready(self, role: str) -> int:
        """How often `up` reported a service ready."""
        return (self.root / "up.log").read_text().count(f"{role}: ready")

    def journals(self) -> str:
        """What the services wrote on standard error."""
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in sorted((self.root / "logs").iterdir()))

    def zygote(self) -> int:
        """The node's zygote."""
        host = self.entries("service-started", role="node")[-1].predicate["host"]
        return int(host["runtimes"]["wasmtime"]["zygote_pid"])

    def workers(self) -> list[int]:
        """The sandboxes that live, without the child of the zygote that stands by: it has the zygote's user."""
        found = []
        for pid in children(self.zygote()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if not ROOT or os.stat(f"/proc/{pid}").st_uid != 0:
                    found.append(pid)
        return found

    # The log

    @property
    def log(self) -> Follower:
        if self._follower is None:
            self._follower = Follower(self.deployment)
        return self._follower

    def speak_as(self, role: str) -> None:
        """Follow the log with a service's key, from now on: the user must be that service's."""
        assert self.deployment.uid(role) == os.getuid()
        if self._follower is not None:
            self._follower.close()
        self._follower = Follower(self.deployment, self.deployment.key(role))

    def sync(self) -> int:
        """Fold everything that the log holds now; its size."""
        return self.log.with_state(lambda replay: replay.size)

    def entries(self, kind: str | None = None, start: int = 0, /, **said: Any) -> list[Entry]:
        """Entries as folded, void ones too, that say these things."""
        self.sync()
        return list(self._matching(kind, start, said))

    def _matching(self, kind: str | None, start: int, said: Mapping[str, Any]) -> Iterator[Entry]:
        for entry in self.log.entries[start:]:
            if kind in (None, entry.kind) and all(entry.predicate.get(key) == value for key, value in said.items()):
                yield entry

    def await_entry(self, kind: str, start: int = 0, /, **said: Any) -> Entry:
        """The first such entry from index `start` on."""
        try:
            return until(f"{kind} {said}", lambda: next(self._matching(kind, start, said), None))
        except AssertionError as error:
            last = [(one.index, one.kind, one.void, one.predicate.get("text")) for one in self.log.entries[start:]]
            raise AssertionError(f"{error}; since {start}: {last}\n{self.journals()}") from error

    def snapshot(self) -> Any:
        """The kernel's whole state but its clock, and what the books index: what power there is."""

        def look(replay: Replay) -> Any:
            state = {key: value for key, value in replay.authority._state.items() if key != "clock"}
            books = replay.books
            return copy.deepcopy((state, books.launches, list(books.grants), list(books.modules), list(books.profiles)))

        return self.log.with_state(look)

    # Requests

    def build(self, kind: str, **fields: Any) -> bytes:
        """A request's payload over the log as it is now."""
        return self.log.with_state(lambda replay: operators.build(replay, kind, **fields))

    def sign(self, payload: bytes, *names: str, artifacts: tuple[bytes, ...] = ()) -> operators.Submission:
        """Signed by the first, approved by the others (default: just enough)."""
        keys = [self.keys[name] for name in names or PEOPLE[:QUORUM]]
        return operators.sign(payload, self.deployment.trust.deployment, keys, list(artifacts))

    def submit(self, payload: bytes, *names: str, artifacts: tuple[bytes, ...] = ()) -> dict[str, Any]:
        """Sign and send; the controller's answer. Raises operators.Refusal."""
        return operators.submit(self.deployment, self.sign(payload, *names, artifacts=artifacts))

    def post(self, body: bytes, method: str = "POST", path: str = "/requests") -> httpx.Response:
        """Raw bytes to the operator channel."""
        transport = httpx.HTTPTransport(uds=self.deployment.socket("controller"))
        with httpx.Client(transport=transport, timeout=60, trust_env=False) as client:
            return client.request(method, f"http://controller{path}", content=body)

    def post_within(self, body: bytes, seconds: float) -> httpx.Response | None:
        """The same; None where there is no answer in time."""
        transport = httpx.HTTPTransport(uds=self.deployment.socket("controller"))
        with httpx.Client(transport=transport, timeout=seconds, trust_env=False) as client:
            try:
                return client.post("http://controller/requests", content=body)
            except httpx.ReadTimeout:
                return None

    def approve_profile(self, override: str = "") -> Digest:
        """Approve the strict profile, with an override if there is one."""
        layers = [Layer("strict.toml", STRICT.read_bytes())]
        if override:
            layers.append(Layer("site.toml", override.encode()))
        effective = merge(layers)
        payload = self.build("profile-approval", config=effective.digest, body=effective.approval_body())
        self.submit(payload, artifacts=(effective.encoded,))
        return effective.digest

    def approve_module(self, data: bytes) -> Digest:
        """Approve a module for agents, once."""
        digest = sha256_hex(data)
        if not self.log.with_state(lambda replay: digest in replay.books.modules):
            body = approval_body(data)
            self.submit(self.build("module-approval", module=digest, body=body), artifacts=(data,))
        return digest

    def launch(self, agent: str, module: bytes | Digest, config: Digest | None = None) -> int:
        """Approve the module if need be and have the agent launched; the index of the admission."""
        digest = self.approve_module(module) if isinstance(module, bytes) else module
        payload = self.build("launch-request", agent=agent, module=digest, config=config or self.config)
        return int(self.submit(payload)["index"])

    def started(self, agent: str, module: bytes | Digest, config: Digest | None = None) -> Entry:
        """The same, and wait until it runs, which it does only if the monitor saw no difference."""
        launch = self.launch(agent, module, config)
        entry = self.await_entry("started", launch, launch=launch)
        assert entry.void is None, entry.void
        return entry

    def grant(self, agent: str, action: str, **body: Any) -> str:
        """Two operators grant an action; the grant's id."""
        launch = self.latest(agent)
        whole = {
            "tool": action,
            "action": action,
            "where": {},
            "calls": 10,
            "expires_ms": time.time_ns() // 1_000_000 + 600_000,
            "credential": None,
            **NO_LIMITS,
        } | body
        payload = self.build("grant", agent=agent, module=launch.module, config=launch.config, body=whole)
        return str(self.submit(payload)["id"])

    def revoke(self, agent: str, grant: str) -> int:
        """One operator revokes; the index of the entry."""
        launch = self.latest(agent)
        body = {"grant": grant}
        payload = self.build("revocation", agent=agent, module=launch.module, config=launch.config, body=body)
        return int(self.submit(payload, "cy")["index"])

    def stop_agent(self, agent: str) -> int:
        """One operator stops an agent; the index of the entry."""
        launch = self.latest(agent)
        payload = self.build("stop", agent=agent, module=launch.module, config=launch.config)
        return int(self.submit(payload, "bo")["index"])

    def latest(self, agent: str) -> Any:
        """The latest launch of an agent."""
        found = self.log.with_state(
            lambda replay: [one for one in replay.books.launches.values() if one.agent == agent]
        )
        return found[-1]

    # The command line

    def command(self, *words: str, names: tuple[str, ...] = (), where: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `ironbound` as a process; `names` sign, with their passphrases on a descriptor."""
        arguments = [*COMMAND, *words]
        if where:
            arguments += ["-d", str(self.root)]
        for name in names:
            arguments += ["--sign", name]
        reading, writing = os.pipe()
        try:
            if names:
                arguments += ["--passphrase-fd", str(reading)]
                os.write(writing, "".join(f"{self.phrases[name]}\n" for name in names).encode())
            os.close(writing)
            return subprocess.run(arguments, capture_output=True, text=True, timeout=60, pass_fds=(reading,))
        finally:
            os.close(reading)


def folder(base: Path, name: str) -> Path:
    """A folder that every service user may pass through."""
    for parent in (base, *base.parents):
        if parent == base or parent.name.startswith("pytest-"):
            parent.chmod(parent.stat().st_mode | 0o711)
    return base / name


def running(base: Path) -> Iterator[Stand]:
    """A running deployment of three operators, two of whom must agree, with an approved profile; stopped at the end."""
    made = Stand(folder(base, "d"))
    try:
        made.start()
        made.config = made.approve_profile()
        yield made
    finally:
        made.stop()
