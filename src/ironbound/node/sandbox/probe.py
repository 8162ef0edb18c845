"""The worker's probe of its own walls: each forbidden thing is really tried and the kernel's answer recorded.

Decides REFUSED, ESCAPED or INCONCLUSIVE for each attempt. It does not decide what follows from that; worker.py refuses
whatever is not REFUSED. A Landlock domain cannot be seen in /proc, so the first list, tried before the filter hides
Landlock behind it, is the only evidence for it.

Rule 1: REFUSED needs the error that the wall in question gives. An attempt that got past the wall and failed at
        something else has ESCAPED; one that never reached the wall is INCONCLUSIVE.
Rule 2: an attempt that succeeds harms nothing and undoes itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from ironbound.node.sandbox.lockdown import raw_syscall

Verdict = Literal["REFUSED", "ESCAPED", "INCONCLUSIVE"]

_AT_FDCWD: Final = -100
_O_RDWR: Final = 2
_O_TMPFILE: Final = 0o20200001
_SIGCHLD: Final = 17
_PROT_READ_EXEC: Final = 5
_MAP_PRIVATE_ANONYMOUS: Final = 0x22
_CAP_NET_RAW: Final = 1 << 13
_SHELL: Final = "/bin/sh"
_TCP_ABI: Final = 4
_SIGNAL_ABI: Final = 6
_DISCARD_PORT: Final = 9


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`refusal` is the enforcer's own text, or what happened instead."""

    name: str
    verdict: Verdict
    refusal: str


@dataclass(frozen=True, slots=True)
class Probe:
    """`attempt` does the forbidden thing and raises OSError where it is refused. `refusing` are the wall's own errors,
    `passing` those that come only from behind the wall; every error is one of these where `else_escaped` is set."""

    name: str
    attempt: Callable[[], None]
    refusing: frozenset[int]
    passing: frozenset[int] = frozenset()
    else_escaped: bool = False


def run_probe(probe: Probe) -> ProbeResult:
    try:
        probe.attempt()
    except OSError as error:
        code = error.errno or 0
        text = f"{errno.errorcode.get(code, str(code))}: {os.strerror(code)}"
        if code in probe.refusing:
            return ProbeResult(probe.name, "REFUSED", text)
        escaped = probe.else_escaped or code in probe.passing
        return ProbeResult(probe.name, "ESCAPED" if escaped else "INCONCLUSIVE", text)
    return ProbeResult(probe.name, "ESCAPED", "it was allowed")


def run_probes(probes: Iterable[Probe]) -> tuple[ProbeResult, ...]:
    return tuple(run_probe(probe) for probe in probes)


def _open_for_reading() -> None:
    os.close(os.open("/etc/passwd", os.O_RDONLY))


def _create_file() -> None:
    path = f"/tmp/ironbound-probe-{os.getpid()}"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)


def _execute() -> None:
    child = os.posix_spawn(_SHELL, ["sh", "-c", ":"], {})
    os.waitpid(child, 0)


def _bind_tcp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as endpoint:
        endpoint.bind(("0.0.0.0", 0))


def _connect_tcp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as endpoint:
        endpoint.settimeout(1)
        endpoint.connect(("127.0.0.1", _DISCARD_PORT))


def _signal_parent() -> None:
    os.kill(os.getppid(), 0)


def _raise_capability() -> None:
    # CAP_NET_RAW into the effective and permitted sets as they are; for who holds it already that changes nothing.
    header = struct.pack("<Ii", 0x20080522, 0)
    held = ctypes.create_string_buffer(24)
    raw_syscall(125, header, held)
    effective, permitted, *others = struct.unpack("<6I", held.raw)
    raw_syscall(126, header, struct.pack("<6I", effective | _CAP_NET_RAW, permitted | _CAP_NET_RAW, *others))


def _become_root() -> None:
    raw_syscall(105, 0)


_EACCES: Final = frozenset({errno.EACCES})
_EPERM: Final = frozenset({errno.EPERM})


def probes_before_filter(abi: int) -> tuple[Probe, ...]:
    """What Landlock (of this ABI), the capabilities and the uid must refuse without the filter's help."""
    probes = [
        Probe("landlock-open-read", _open_for_reading, _EACCES),
        Probe("landlock-create-file", _create_file, _EACCES),
        Probe("landlock-execute", _execute, _EACCES),
        Probe("capability-raise", _raise_capability, _EPERM),
        # EINVAL: uid 0 does not exist in the worker's user namespace.
        Probe("setuid-root", _become_root, frozenset({errno.EPERM, errno.EINVAL})),
    ]
    if abi >= _TCP_ABI:
        probes.append(Probe("landlock-tcp-bind", _bind_tcp, _EACCES))
        probes.append(Probe("landlock-tcp-connect", _connect_tcp, _EACCES, frozenset({errno.ECONNREFUSED})))
    if abi >= _SIGNAL_ABI:
        probes.append(Probe("landlock-signal-parent", _signal_parent, _EPERM))
    return tuple(probes)


def _opens(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> Callable[[], None]:
    """An attempt whose success gives a descriptor, which is closed again."""
    return lambda: os.close(raw_syscall(number, *arguments))


def _calls(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> Callable[[], None]:
    def attempt() -> None:
        raw_syscall(number, *arguments)

    return attempt


def _forks(number: int, *arguments: int) -> Callable[[], None]:
    def attempt() -> None:
        if (child := raw_syscall(number, *arguments)) == 0:
            os._exit(0)
        os.waitpid(child, 0)

    return attempt


def _maps_executable() -> None:
    address = raw_syscall(9, 0, 4096, _PROT_READ_EXEC, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    raw_syscall(11, address, 4096)


def _makes_executable(number: int) -> Callable[[], None]:
    def attempt() -> None:
        address = raw_syscall(9, 0, 4096, 3, _MAP_PRIVATE_ANONYMOUS, -1, 0)
        try:
            raw_syscall(number, address, 4096, _PROT_READ_EXEC, -1)
        finally:
            raw_syscall(11, address, 4096)

    return attempt


def _signals_parent() -> None:
    raw_syscall(62, os.getppid(), 0)


def _traces_parent() -> None:
    raw_syscall(101, 0x4206, os.getppid(), 0, 0)  # PTRACE_SEIZE stops nothing
    raw_syscall(101, 17, os.getppid(), 0, 0)


def _reads_parent(number: int) -> Callable[[], None]:
    def attempt() -> None:
        raw_syscall(number, os.getppid(), None, 0, None, 0, 0)

    return attempt


def probes_behind_filter() -> tuple[Probe, ...]:
    """What the filter must refuse. It answers before the kernel looks at anything else, so every other error is an
    escape."""
    attempts: list[tuple[str, Callable[[], None]]] = [
        ("open", _opens(257, _AT_FDCWD, b"/etc/passwd\0", 0, 0)),
        ("open-own-memory", _opens(257, _AT_FDCWD, b"/proc/self/mem\0", _O_RDWR, 0)),
        ("create-file", _opens(257, _AT_FDCWD, b"/tmp\0", _O_TMPFILE, 0o600)),
        ("open-by-handle", _opens(304, _AT_FDCWD, bytes(16), 0)),
        ("read-other-descriptor", _calls(0, 4, bytes(1), 0)),
        ("execve", _calls(59, b"/ironbound/no-such-file\0", None, None)),
        ("fork", _forks(57)),
        ("clone", _forks(56, _SIGCHLD, 0, 0, 0, 0)),
        ("clone3", _calls(435, None, 0)),
        ("socket-tcp", _opens(41, socket.AF_INET, socket.SOCK_STREAM, 0)),
        ("socket-udp", _opens(41, socket.AF_INET, socket.SOCK_DGRAM, 0)),
        ("socket-unix", _opens(41, socket.AF_UNIX, socket.SOCK_STREAM, 0)),
        ("socket-netlink", _opens(41, socket.AF_NETLINK, socket.SOCK_RAW, 0)),
        ("pass-descriptors", _calls(46, 5, bytes(56), 0)),
        ("ptrace-parent", _traces_parent),
        ("process-vm-readv", _reads_parent(310)),
        ("process-vm-writev", _reads_parent(311)),
        ("signal-parent", _signals_parent),
        ("unshare-user", _calls(272, 0x10000000)),
        ("mount", _calls(165, b"none\0", b"/ironbound/no-such-folder\0", b"tmpfs\0", 0, None)),
        ("io-uring", _opens(425, 1, bytes(120))),
        ("memfd", _opens(319, b"probe\0", 0)),
        ("map-executable", _maps_executable),
        ("make-executable", _makes_executable(10)),
        ("make-executable-pkey", _makes_executable(329)),
        ("userfaultfd", _opens(323, 1)),
        ("keyctl", _calls(250, 0, -3, 0)),
        ("bpf", _calls(321, 0, bytes(128), 128)),
        ("perf-event", _opens(298, bytes(128), 0, -1, -1, 0)),
        ("capset", _calls(126, struct.pack("<Ii", 0x20080522, 0), bytes(24))),
        ("setuid-root", _become_root),
        ("prctl", _calls(157, 3, 0, 0, 0, 0)),
        ("ioctl", _calls(16, 6, 0x5412, b"\0")),
        ("shared-memory", _calls(29, 0, 0, 0)),
    ]
    return tuple(Probe(f"seccomp-{name}", attempt, _EPERM, else_escaped=True) for name, attempt in attempts)
