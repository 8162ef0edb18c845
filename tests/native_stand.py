"""Starts the guard by itself, with descriptors, plan and walls of the test's choosing; the harness of its controls.

It weakens what the test names and nothing else: the product has no way to do that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import ironbound.canary
import ironbound.node
from ironbound.core.seccomp import native_filter
from ironbound.node.sandbox.memfd import sealed_memfd

GUARD = Path(ironbound.node.__file__).parent / "native" / "guard" / "guard"
PROBE = Path(ironbound.canary.__file__).parent / "native" / "probe"
ROOT = os.getuid() == 0
NOBODY = 65534
SECONDS = 20.0
DROP_ALL = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--inh-caps=-all",
            "--bounding-set=-all")  # fmt: skip
"""Before the guard as root: what a container runtime does for it."""

CALLS = {
    "mmap": 9, "mprotect": 10, "ioctl": 16, "shmget": 29, "shmctl": 31, "socket": 41, "connect": 42, "bind": 49,
    "listen": 50, "clone": 56, "chown": 92, "ptrace": 101, "syslog": 103, "setuid": 105, "setgid": 106,
    "setgroups": 116, "setresuid": 117, "setresgid": 119, "setfsuid": 122, "capset": 126, "mknod": 133,
    "personality": 135, "setpriority": 141, "sched_setscheduler": 144, "mlock": 149, "modify_ldt": 154,
    "pivot_root": 155, "prctl": 157, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165,
    "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171,
    "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179, "setxattr": 188,
    "clock_settime": 227, "mq_open": 240, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
    "ioprio_set": 251, "unshare": 272, "perf_event_open": 298, "fanotify_init": 300, "prlimit64": 302,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310,
    "process_vm_writev": 311, "finit_module": 313, "memfd_create": 319, "kexec_file_load": 320, "bpf": 321,
    "execveat": 322, "userfaultfd": 323, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fspick": 433, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438, "mount_setattr": 442,
    "landlock_create_ruleset": 444, "landlock_restrict_self": 446,
}  # fmt: skip
"""x86-64 numbers of the calls that the filter refuses and a control lets through."""


ALLOW = 0x7FFF0000


def filter_without(names: Iterable[str] = ()) -> bytes:
    """The product's filter for native agents, behind a few instructions that let these calls through."""
    rows = [(0x20, 0, 0, 0)]
    for name in names:
        rows += [(0x15, 0, 1, CALLS[name]), (0x06, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *row) for row in rows if names) + native_filter()


def plan(
    *arguments: str,
    limits: Mapping[int, int] | None = None,
    program: bytes | None = None,
    landlock: str = "required",
    variables: Sequence[str] = (),
    folder: str = "/",
) -> bytes:
    """A plan's bytes."""
    lines = ["ironbound-plan/v1", f"landlock {landlock}"]
    lines += [f"rlimit {number} {value}" for number, value in (limits or {}).items()]
    lines += [f"filter {(filter_without() if program is None else program).hex()}"]
    lines += [f"env {variable}" for variable in variables] + [f"cwd {folder}"]
    lines += [f"arg {argument}" for argument in arguments or ("/bin/true",)]
    return "".join(f"{line}\n" for line in lines).encode()


def unsealed(data: bytes, seals: int = 0) -> int:
    """A memory file without all its seals."""
    descriptor = os.memfd_create("ironbound-test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, data)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Guarded:
    """A guard that was started; `channel` and `control` are our ends."""

    pid: int
    channel: socket.socket
    control: socket.socket
    said: bytes = b""
    status: int | None = None
    _buffer: bytes = field(default=b"", repr=False)

    def line(self) -> bytes:
        """The next line on the control channel without its end; empty where there is no more."""
        deadline = time.monotonic() + SECONDS
        while b"\n" not in self._buffer:
            if not select.select([self.control], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"expected a line, got {self._buffer!r}")
            try:
                part = self.control.recv(65536)
            except ConnectionResetError:
                part = b""
            if not part:
                return b""
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def word(self) -> dict[str, Any]:
        """The first word, which has to be canonical JSON."""
        line = self.line()
        word: dict[str, Any] = json.loads(line)
        assert json.dumps(word, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == line
        return word

    def release(self, word: bytes = b"release\n") -> None:
        self.control.sendall(word)

    def rest(self) -> bytes:
        """Everything that comes on the control channel until its end."""
        data = self._buffer
        deadline = time.monotonic() + SECONDS
        while select.select([self.control], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                part = self.control.recv(65536)
            except ConnectionResetError:
                part = b""
            if not part:
                return data
            data += part
        raise TimeoutError(f"expected the end, got {data!r}")

    def end(self) -> int:
        """Waits for the end: the exit code, or minus the signal."""
        if self.status is None:
            deadline = time.monotonic() + SECONDS
            pidfd = os.pidfd_open(self.pid)
            try:
                if not select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    raise TimeoutError("expected the guard to end")
            finally:
                os.close(pidfd)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def close(self) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.channel.close()
        self.control.close()

    def __enter__(self) -> Guarded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start(
    plan_bytes: bytes,
    *,
    config: bytes = b'{"a":1}',
    module: bytes = b'{"b":2}',
    before: Sequence[str] | None = None,
    command: Sequence[str] = (str(GUARD),),
    replace: Mapping[int, int] | None = None,
    without: Iterable[int] = (),
) -> Guarded:
    """Starts `before` and then `command` with the guard's six descriptors.

    `replace` gives other descriptors than usual (they are closed here), `without` leaves some out. As an ordinary user
    `before` is nothing by default, as root it takes everything away.
    """
    if before is None:
        before = DROP_ALL if ROOT else ()
    channel, agent = socket.socketpair()
    control, its_control = socket.socketpair()
    given = {
        0: agent.fileno(),
        1: agent.fileno(),
        2: its_control.fileno(),
        3: sealed_memfd("config", config),
        4: sealed_memfd("module", module),
        5: sealed_memfd("plan", plan_bytes),
    }
    opened = [given[3], given[4], given[5], *(replace or {}).values()]
    given.update(replace or {})
    for target in without:
        del given[target]
    high = {target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 100) for target, source in given.items()}
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in high.items()]
    actions += [(os.POSIX_SPAWN_CLOSE, target) for target in range(3) if target not in given]
    for name in os.listdir("/proc/self/fd"):  # whoever started the tests may have left some open
        with contextlib.suppress(OSError):
            if int(name) > 2:
                os.set_inheritable(int(name), False)
    try:
        pid = os.posix_spawnp([*before, *command][0], [*before, *command], {"PATH": os.environ["PATH"]},
                              file_actions=actions)  # fmt: skip
    finally:
        agent.close()
        its_control.close()
        for descriptor in {*opened, *high.values()}:
            os.close(descriptor)
    return Guarded(pid, channel, control)


def make_rootfs(folder: Path, programs: Iterable[Path] = ()) -> Path:
    """The smallest image: the guard, empty folders, and these programs at its root."""
    root = folder / "rootfs"
    for name in (".ironbound", "proc", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)  # runc gives its tmpfs the mode of the folder below it
    for program, place in [(GUARD, root / ".ironbound" / "guard"), *((item, root / item.name) for item in programs)]:
        place.write_bytes(program.read_bytes())
        place.chmod(0o555)
    return root


def need_bubblewrap() -> None:
    """Skips the test where there is no bubblewrap; on CI that is a failure."""
    if shutil.which("bwrap") is None:
        pytest.skip("not tested: no bwrap on this machine; as root on Debian ./dev test installs it")


def bubblewrap(root: Path, *extra: str, without: Iterable[str] = ()) -> list[str]:
    """bubblewrap with every wall of the product's runtime; `without` leaves options out, with what follows them."""
    need_bubblewrap()
    options = [("--unshare-all",), ("--die-with-parent",), ("--cap-drop", "ALL"), ("--ro-bind", str(root), "/"),
               ("--proc", "/proc"), ("--dev", "/dev"), ("--remount-ro", "/dev"),
               ("--size", "1048576", "--tmpfs", "/tmp"), ("--hostname", "ironbound")]  # fmt: skip
    kept = [word for option in options if option[0] not in set(without) for word in option]
    return ["bwrap", *kept, *extra, "--", "/.ironbound/guard"]


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that the sandbox's user reaches; those of pytest are closed again by whoever starts it next."""
    with tempfile.TemporaryDirectory(prefix="ironbound-native-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
