"""The zygote: a process with everything loaded that forks one worker per request.

Decides nothing about a launch; it does what the one socket to the node says and has no other input. It measures
itself once (own binary, executable mappings, namespaces), because every worker is a copy of it.

Rule 1: it has one thread, so that a fork copies a whole process.
Rule 2: it dies with the node, and its workers die with it.
Rule 3: nothing is loaded after the measurement.
Rule 4: one child may stand by: forked ahead of its order, with the zygote's own user, the null device and one socket to
        the zygote, and none of any agent's bytes. It becomes a worker by the first order, as a fork made then would,
        and is nobody's second.
"""

from __future__ import annotations

import gc
import hashlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final, NoReturn

import wasmtime

from ironbound.core.canonical import Digest, FormatError, Value, canonical, parse_canonical
from ironbound.node.sandbox import engine as runtime
from ironbound.node.sandbox import lockdown, worker
from ironbound.node.sandbox.agent import AgentEnded

MAX_MESSAGE: Final = 64 * 1024
MAX_START: Final = 16 * 1024
DESCRIPTORS: Final = 4
STANDS_BY: Final = -1
"""Instead of the number of a launch."""
_CRASHED: Final = 70


class ZygoteError(Exception):
    """The zygote can't do what it is for; it ends."""


_WARM_COMPONENT: Final = """(component
  (core module $code (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 64)
    (func (export "handle") (param i32 i32) (result i32) local.get 1 i32.eqz if unreachable end
      (i32.store8 (i32.const 8) (i32.const 1)) (i32.store (i32.const 16) (i32.const 1)) i32.const 8))
  (core instance $it (instantiate $code))
  (type $answer (variant (case "silence") (case "send" string) (case "report" string)))
  (func $handle (param "message" string) (result $answer) (canon lift (core func $it "handle")
    (memory (core memory $it "memory")) (realloc (core func $it "realloc"))))
  (instance $messages (export "answer" (type $answer)) (export "handle" (func $handle)))
  (export "ironbound:agent/messages@1.0.0" (instance $messages)))"""


def _warm_up() -> None:
    """Compiles, runs and traps once, so that whatever loads late has loaded: with a module, then with a component."""
    _warm_module()
    _warm_component()


def _warm_component() -> None:
    _, agent = worker.load(bytes(wasmtime.wat2wasm(_WARM_COMPONENT)), worker.WARM_CONFIG)
    agent.instantiate()
    if agent.take(b"x") != b"\0\n":
        raise ZygoteError("the runtime does not run components")
    try:
        agent.take(b"")
    except AgentEnded as ended:
        if ended.reason != "trap":
            raise ZygoteError(f"the runtime does not trap in components: {ended.text}") from None


def _warm_module() -> None:
    engine = runtime.make_engine(worker.WARM_CONFIG.max_stack)
    linked = runtime.compile_module(engine, worker.WARM_MODULE, len(worker.WARM_MODULE))
    store = wasmtime.Store(engine)
    store.set_limits(memory_size=65536, table_elements=1, instances=1, tables=1, memories=1)
    store.set_fuel(1000)
    store.set_epoch_deadline(1)
    exports = linked.instantiate(store).exports(store)
    handle, memory = exports["handle"], exports["memory"]
    if not (isinstance(handle, wasmtime.Func) and isinstance(memory, wasmtime.Memory) and handle(store, 0, 0) == 0):
        raise ZygoteError("the runtime does not run")
    memory.data_len(store)
    try:
        handle(store, 0, 1)
    except wasmtime.Trap as trap:
        runtime.ending(trap)
    else:
        raise ZygoteError("the runtime does not trap")


def _file_digest(path: str) -> Digest:
    with open(path, "rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def executable_mappings() -> list[Digest]:
    """Sorted distinct digests of the files that are mapped executable."""
    paths: set[str] = set()
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(maxsplit=5)
            if "x" in fields[1] and fields[4] != "0":
                paths.add(fields[5])
    return sorted({_file_digest(path) for path in paths})


def process_start(pid: int) -> int:
    """Field 22 of /proc/PID/stat: clock ticks since boot."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])


def _measure(
    separation: lockdown.Separation, namespaces: dict[str, str], drops_bounding: bool, groups: list[Value]
) -> dict[str, Value]:
    return {
        "event": "zygote-ready",
        "pid": os.getpid(),
        "pid_start": process_start(os.getpid()),
        "separation": separation,
        "namespaces": dict(namespaces),
        "exe": _file_digest("/proc/self/exe"),
        "mappings": list(executable_mappings()),
        "landlock_abi": lockdown.landlock_abi(),
        "bounding": f"{0 if drops_bounding else lockdown.bounding_set():016x}",
        "groups": groups,
    }


def _text(request: dict[str, Value], name: str, limit: int) -> bytes:
    value = request.get(name)
    if not isinstance(value, str) or len(data := value.encode("utf-8")) > limit:
        raise FormatError("request-invalid", f"{name}: expected a string of at most {limit} bytes")
    return data


def _number(request: dict[str, Value], name: str) -> int:
    value = request.get(name)
    if type(value) is not int or value < 0:
        raise FormatError("request-invalid", f"{name}: expected a number")
    return value


class Zygote:
    """The loop between the node's socket and the children."""

    def __init__(self, node: socket.socket, separation: lockdown.Separation, drops_bounding: bool) -> None:
        self._node = node
        self._separation: lockdown.Separation = separation
        self._drops_bounding = drops_bounding
        self._children: dict[int, tuple[int, int]] = {}  # pidfd → pid, launch; STANDS_BY for none yet
        self._standby: tuple[int, socket.socket] | None = None  # its pidfd, and the end that it is sent its order by
        self._poll = select.poll()
        self._poll.register(node.fileno(), select.POLLIN)

    def run(self) -> None:
        """Serves until the node's end of the socket closes."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._children:
                    self._reap(descriptor)
                elif not self._serve():
                    return

    def _send(self, message: dict[str, Value], descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self._node, [canonical(message)], descriptors)

    def _serve(self) -> bool:
        data, received, flags, _ = socket.recv_fds(self._node, MAX_MESSAGE, DESCRIPTORS + 1)
        try:
            if not data and not received:
                return False
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise FormatError("request-invalid", "expected a whole request")
            if data == canonical({"op": "stand-by"}) and not received:
                self._stand_by()
            elif len(received) == DESCRIPTORS:
                self._spawn(data, (received[0], received[1], received[2], received[3]))
            else:
                raise FormatError("request-invalid", f"expected a request with {DESCRIPTORS} descriptors")
        finally:
            for descriptor in received:
                os.close(descriptor)
        return True

    def _spawn(self, data: bytes, received: tuple[int, int, int, int]) -> None:
        launch, order = self._read(data, os.getpid())
        pidfd = self._order_standby(data, received)
        if pidfd is None:
            try:
                pid = os.fork()
            except OSError as error:
                self._send({"event": "failed", "launch": launch, "text": str(error)})
                return
            if pid == 0:
                try:
                    worker.run(order, received)
                finally:
                    os._exit(_CRASHED)  # the child never comes back into this loop
            pidfd = self._keep(pid)
        pid = self._children[pidfd][0]
        self._children[pidfd] = (pid, launch)
        # The child isn't reaped yet, so both the start time and the pidfd are surely its own.
        self._send({"event": "forked", "launch": launch, "pid": pid, "pid_start": process_start(pid)}, [pidfd])

    def _read(self, data: bytes, parent: int) -> tuple[int, worker.WorkerRequest]:
        request = parse_canonical(data, limit=MAX_MESSAGE)
        if not isinstance(request, dict) or request.get("op") != "spawn" or len(request) != 5:
            raise FormatError("request-invalid", "expected a spawn request")
        return _number(request, "launch"), worker.WorkerRequest(
            uid=_number(request, "uid"),
            gid=_number(request, "gid"),
            start=_text(request, "start", MAX_START),
            separation=self._separation,
            parent=parent,
            drops_bounding=self._drops_bounding,
        )

    def _keep(self, pid: int) -> int:
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (pid, STANDS_BY)
        self._poll.register(pidfd, select.POLLIN)
        return pidfd

    def _stand_by(self) -> None:
        """Rule 4. Whoever can't be forked is missed by nobody."""
        if self._standby is not None:
            return
        parent = os.getpid()
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                pid = os.fork()
            except OSError:
                mine.close()
                return
            if pid == 0:
                try:
                    data, received = worker.stand_by(its.detach(), parent, MAX_MESSAGE, DESCRIPTORS)
                    worker.run(self._read(data, parent)[1], (received[0], received[1], received[2], received[3]))
                finally:
                    os._exit(_CRASHED)
        self._standby = self._keep(pid), mine

    def _order_standby(self, data: bytes, received: Sequence[int]) -> int | None:
        """The pidfd of whoever stood by and has its order now; None if nobody did."""
        if self._standby is None:
            return None
        (pidfd, its), self._standby = self._standby, None
        with its:
            try:
                socket.send_fds(its, [data], received)
            except OSError:
                return None  # it has ended, and is reaped in its turn
        return pidfd

    def _reap(self, pidfd: int) -> None:
        pid, launch = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(pid, 0)
        if self._standby is not None and self._standby[0] == pidfd:
            self._standby[1].close()
            self._standby = None
        if launch == STANDS_BY:
            return
        self._send({
            "event": "reaped",
            "launch": launch,
            "pid": pid,
            "status": os.waitstatus_to_exitcode(status),
            "cpu_ms": int((usage.ru_utime + usage.ru_stime) * 1000),
            "max_rss": usage.ru_maxrss * 1024,
        })  # fmt: skip


def _descriptor(arguments: Sequence[str]) -> int:
    if len(arguments) != 2 or not arguments[1].isascii() or not arguments[1].isdecimal():
        raise ZygoteError("expected one argument, the number of the socket's descriptor")
    return int(arguments[1])


def main(arguments: Sequence[str]) -> NoReturn:
    """Started by launcher.py with the number of its socket's descriptor; ends when that socket does."""
    node = socket.socket(fileno=_descriptor(arguments))
    separation: lockdown.Separation = "user" if os.getuid() == 0 else "process"
    os.environ.clear()
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.monotonic()
    lockdown.set_parent_death_signal()
    # Seen from here: inside a user namespace the groups of the outside have no names.
    groups: list[Value] = [] if separation == "user" else [*sorted(set(os.getgroups()))]
    namespaces = lockdown.enter_namespaces(separation)
    drops_bounding = lockdown.may_drop_bounding_set()
    _warm_up()
    facts = _measure(separation, namespaces, drops_bounding, groups)
    gc.collect()
    gc.freeze()
    lockdown.freeze_executable_mappings()
    if len(os.listdir("/proc/self/task")) != 1:
        raise ZygoteError("expected one thread")
    zygote = Zygote(node, separation, drops_bounding)
    node.send(canonical(facts))
    status = _CRASHED
    try:
        zygote.run()
        status = 0
    except (FormatError, OSError) as error:
        sys.stderr.write(f"zygote: {error}\n")
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv)
