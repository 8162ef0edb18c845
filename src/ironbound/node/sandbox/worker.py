"""The life of one worker, from the fork to its end.

Decides the order in which power is taken away and carries messages between the channel and the module. It grants
nothing: what the agent asks for is decided at the other end of the channel. The order (7-runtimes, "Lockdown order"):

(1) descriptors 3 to 6 and nothing else  (2) ids, capabilities, no_new_privs, Landlock  (3) probes without the filter
(4) the second thread, then limits  (5) compile, link against nothing  (6) the filter  (7) probes behind it
(8) say ready, wait for the release  (9) instantiate, which may run the agent's first instruction  (10) messages

Rule 1: no byte of the module is looked at before (4) and no instruction of it runs before (9).
Rule 2: anything but REFUSED from a probe is a refusal of the launch.
Rule 3: the worker ends by its own word exactly once, whichever of its two threads says it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Final, NoReturn

import wasmtime

from ironbound.core.canonical import Digest, FormatError, Value, canonical, sha256_hex
from ironbound.core.limits import worker_rlimits
from ironbound.core.seccomp import CHANNEL_FD, CONTROL_FD, ArchitectureUnsupported
from ironbound.core.surface import is_component, surface_digest
from ironbound.node.sandbox import engine as runtime
from ironbound.node.sandbox import lockdown
from ironbound.node.sandbox.agent import Agent, AgentEnded, ModuleAgent
from ironbound.node.sandbox.component import ComponentAgent, compile_component
from ironbound.node.sandbox.memfd import SealMissing, read_sealed
from ironbound.node.sandbox.probe import ProbeResult, probes_before_filter, probes_behind_filter, run_probes

CONFIG_FD: Final = 3
MODULE_FD: Final = 4
FIRST_FD: Final = 3
RELEASE: Final = b"release\n"
WARM_CONFIG: Final = runtime.WorkerConfig(
    digest=Digest("0" * 64), value=None, max_memory=65536, max_fuel=10_000, max_wall_clock=1, max_stack=512 * 1024,
    max_instances=4, max_tables=4, max_table_elements=1, max_module_size=4096, max_message=1,
)  # fmt: skip
WARM_MODULE: Final = bytes(
    wasmtime.wat2wasm("""(module (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) i32.const 8)
  (func (export "handle") (param i32 i32) (result i64) local.get 1 if unreachable end i64.const 0))""")
)
_READ_SIZE: Final = 65536
_THREAD_STACK: Final = 256 * 1024
_GRACE: Final = 0.25
"""Seconds that the running code has to meet the moved epoch, before the second thread ends the worker itself."""


class Refused(Exception):
    """The launch is refused at `stage`: config, module, imports, compile, lockdown or probe."""

    def __init__(self, stage: str, text: str) -> None:
        super().__init__(text)
        self.stage = stage
        self.text = text


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """What the zygote was asked for. `parent` is the zygote's pid, `drops_bounding` whether it holds CAP_SETPCAP."""

    uid: int
    gid: int
    start: bytes
    separation: lockdown.Separation
    parent: int
    drops_bounding: bool


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _say(message: Value) -> None:
    _write(CONTROL_FD, canonical(message) + b"\n")


def arrange_descriptors(received: tuple[int, int, int, int]) -> None:
    """Moves config, module, channel and control to 3 to 6 and closes everything else; 0 to 2 are /dev/null already."""
    spare = [os.dup(descriptor) for descriptor in received]
    while min(spare) < FIRST_FD + len(spare):
        spare = [os.dup(descriptor) for descriptor in spare]
    for place, descriptor in enumerate(spare, FIRST_FD):
        os.dup2(descriptor, place, inheritable=True)
    _null_streams()
    lockdown.close_from(FIRST_FD + len(spare))


def _null_streams() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for place in range(FIRST_FD):
        os.dup2(null, place, inheritable=True)


class Life:
    """What both threads share: the one word at the end, the start signal and the engine whose epoch is moved."""

    def __init__(self) -> None:
        self._last_word = threading.Lock()
        self._held = threading.Lock()
        self._held.acquire()
        self._seconds = 0
        self._engine: wasmtime.Engine | None = None
        self.agent: Agent | None = None

    def start_clock(self) -> None:
        """Starts the second thread; it sleeps until `release`."""
        threading.stack_size(_THREAD_STACK)
        threading.Thread(target=self._keep_time, name="epoch", daemon=True).start()

    def release(self, engine: wasmtime.Engine, seconds: int) -> None:
        self._engine, self._seconds = engine, seconds
        self._held.release()

    def _keep_time(self) -> None:
        self._held.acquire()
        time.sleep(self._seconds)
        if self._engine is not None:
            self._engine.increment_epoch()
        time.sleep(_GRACE)
        self.end(AgentEnded("wall-clock", f"{self._seconds} seconds are over"))

    def end(self, ended: AgentEnded) -> NoReturn:
        """Says why it ended and ends the process. The thread that comes second waits for that."""
        self._last_word.acquire()
        agent = self.agent
        try:
            _say({
                "type": "exited",
                "reason": ended.reason,
                "text": ended.text,
                "report": ended.report,
                "messages": 0 if agent is None else agent.messages,
                "fuel": 0 if agent is None else agent.fuel,
            })  # fmt: skip
        finally:
            os._exit(0)


def lock_down(request: WorkerRequest) -> int:
    """Step (2); returns the Landlock ABI. Raises LockdownError, OSError."""
    if request.drops_bounding:
        lockdown.drop_bounding_set()
    lockdown.become_user(request.uid, request.gid, request.separation)
    lockdown.drop_capabilities()
    lockdown.set_no_new_privs()
    lockdown.die_with_parent(request.parent)
    return lockdown.restrict_by_landlock()


def _require_refused(results: tuple[ProbeResult, ...]) -> None:
    if through := [result for result in results if result.verdict != "REFUSED"]:
        text = "; ".join(f"{item.name} {item.verdict}: {item.refusal}" for item in through)
        raise Refused("probe", text[: runtime.MAX_TEXT])


def load(data: bytes, config: runtime.WorkerConfig) -> tuple[wasmtime.Engine, Agent]:
    """Step (5): module or component, compiled and linked against nothing. Raises ModuleRefused."""
    components = is_component(data)
    engine = runtime.make_engine(config.max_stack, components=components)
    if components:
        return engine, ComponentAgent(compile_component(engine, data, config.max_module_size), engine, config)
    return engine, ModuleAgent(runtime.compile_module(engine, data, config.max_module_size), engine, config)


def _prepare(request: WorkerRequest, life: Life) -> tuple[wasmtime.Engine, Agent, runtime.WorkerConfig]:
    """Steps (2) to (8) up to the word ready. Raises Refused."""
    try:
        abi = lock_down(request)  # (2)
        probes = run_probes(probes_before_filter(abi))  # (3)
        _require_refused(probes)
        life.start_clock()  # (4)
        config = runtime.parse_config(read_sealed(CONFIG_FD, runtime.MAX_CONFIG))
        lockdown.set_rlimits(worker_rlimits(config.value))
    except (FormatError, SealMissing) as error:
        raise Refused("config", str(error)) from None
    except (OSError, RuntimeError, lockdown.LockdownError) as error:
        raise Refused("lockdown", str(error)) from None
    try:
        module = read_sealed(MODULE_FD, config.max_module_size)  # (5)
        engine, agent = load(module, config)
        surface = surface_digest(module)
    except (SealMissing, OSError) as error:
        raise Refused("module", str(error)) from None
    except runtime.ModuleRefused as error:
        raise Refused(error.stage, error.text) from None
    try:
        lockdown.install_filter()  # (6)
    except (OSError, lockdown.LockdownError, ArchitectureUnsupported) as error:
        raise Refused("lockdown", str(error)) from None
    probes += run_probes(probes_behind_filter())  # (7)
    _require_refused(probes)
    listed: list[Value] = [{"name": item.name, "verdict": item.verdict, "refusal": item.refusal} for item in probes]
    digests: dict[str, Value] = {"config_sha256": config.digest, "module_sha256": sha256_hex(module)}
    digests["surface_sha256"] = surface
    _say({"type": "ready", **digests, "probes": listed})  # (8)
    return engine, agent, config


def _await_release() -> None:
    heard = b""
    while len(heard) < len(RELEASE):
        part = os.read(CONTROL_FD, len(RELEASE) - len(heard))
        if not part:
            os._exit(0)  # the node is gone or gave the launch up; nothing has run
        heard += part
    if heard != RELEASE:
        raise AgentEnded("refused", "expected the release, got something else")


def _send(data: bytes) -> None:
    try:
        _write(CHANNEL_FD, data)
    except (BrokenPipeError, ConnectionResetError):
        raise AgentEnded("eof", "the channel is closed") from None


def converse(agent: Agent, start: bytes, max_message: int) -> NoReturn:
    """Step (10): one message per line until something ends it. Raises AgentEnded."""
    _send(agent.take(start))
    waiting = bytearray()
    while True:
        end = waiting.find(b"\n")
        if (len(waiting) if end < 0 else end) > max_message:
            raise AgentEnded("protocol", f"expected lines of at most {max_message} bytes")
        if end >= 0:
            line = bytes(waiting[:end])
            del waiting[: end + 1]
            agent.messages += 1
            _send(agent.take(line))
            continue
        try:
            part = os.read(CHANNEL_FD, _READ_SIZE)
        except ConnectionResetError:
            part = b""
        if not part:
            raise AgentEnded("eof", "the channel is closed")
        waiting += part


def stand_by(endpoint: int, parent: int, size: int, count: int) -> tuple[bytes, list[int]]:
    """Wait in a freshly forked process for one order of at most `size` bytes with `count` descriptors, holding nothing
    but the end that it comes by. Ends the process where none comes.

    Meanwhile it compiles a module of our own, as the zygote did: so the pages that this takes are its own already.
    """
    keep = os.dup2(endpoint, FIRST_FD, inheritable=False) if endpoint != FIRST_FD else endpoint
    _null_streams()
    lockdown.close_from(FIRST_FD + 1)
    lockdown.die_with_parent(parent)
    load(WARM_MODULE, WARM_CONFIG)
    surface_digest(WARM_MODULE)
    with socket.socket(fileno=keep) as heard:
        data, received, flags, _ = socket.recv_fds(heard, size, count)
        heard.detach()
    if len(received) != count or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        os._exit(0)
    return data, received


def run(request: WorkerRequest, received: tuple[int, int, int, int]) -> NoReturn:
    """The worker's whole life in a freshly forked process; `received` are config, module, channel and control."""
    arrange_descriptors(received)  # (1)
    life = Life()
    try:
        engine, agent, config = _prepare(request, life)
    except Refused as error:
        _say({"type": "refused", "stage": error.stage, "text": error.text})
        os._exit(0)
    try:
        _await_release()
        life.agent = agent
        life.release(engine, config.max_wall_clock)
        agent.instantiate()  # (9)
        converse(agent, request.start, config.max_message)
    except AgentEnded as ended:
        life.end(ended)
