"""Specimens: real processes locked down as a worker is, each with one thing different, and what they look
like.

Run as a program (`specimen.py MODE…`), it takes one sample of each mode as whoever runs it and prints what it
found.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ironbound.core.canonical import canonical, sha256_hex
from ironbound.core.limits import worker_rlimits
from ironbound.core.posture import NAMESPACES, compare_postures, expected_posture, unseen
from ironbound.monitor.observe import Baseline, observe, start_time
from ironbound.node.sandbox import lockdown
from ironbound.node.sandbox.memfd import sealed_memfd
from ironbound.wire import privilege

CONFIG: Any = {"version": 1, "profile": "strict", "runtime": {"max_stack": 512}}
MODULE = b"\0asm\1\0\0\0"
UID = int(os.environ.get("SPECIMEN_UID", "61990"))
PRELOADED = {"LD_PRELOAD": "/nowhere/library.so"}
ROOT = os.geteuid() == 0
ALLOW_ALL = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
STRANGE_FILE = Path(__file__).resolve()


def _install(program: bytes, flags: int) -> None:
    buffer = ctypes.create_string_buffer(program, len(program))
    lockdown.raw_syscall(317, 1, flags, struct.pack("<H6xQ", len(program) // 8, ctypes.addressof(buffer)))


def _become(mode: str) -> None:
    if mode != "bounding" and lockdown.may_drop_bounding_set():
        lockdown.drop_bounding_set()
    if mode == "group":
        os.setgroups([4242])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
    elif ROOT:
        if mode == "capability":
            lockdown._prctl(8, 1)  # PR_SET_KEEPCAPS
        uid = UID + 1 if mode == "uid" else UID
        lockdown.become_user(uid, UID, "user")
    if mode == "capability":
        lockdown.raw_syscall(126, struct.pack("<Ii", 0x20080522, 0), struct.pack("<6I", 0, 1, 0, 0, 0, 0))
    else:
        lockdown.drop_capabilities()


def _be(mode: str, descriptors: list[int]) -> None:
    """What the specimen itself does; it never returns to the caller's code."""
    kept = [fcntl.fcntl(number, fcntl.F_DUPFD, 30) for number in descriptors]
    for number, descriptor in enumerate(kept, 3):
        os.dup2(descriptor, number)
    null = os.open("/dev/zero" if mode == "descriptor-0" else "/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    if mode == "descriptor-7":
        fcntl.fcntl(0, fcntl.F_DUPFD, 40)
        os.dup2(0, 7)
    os.closerange(8 if mode == "descriptor-7" else 7, 256)
    channel = 5
    held: list[Any] = []
    if mode == "mapping-wx":
        held.append(mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7))
    if mode == "mapping":
        with open(STRANGE_FILE, "rb") as file:
            held.append(mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC))
            # The module keeps a copy of the descriptor; a mapping needs none.
        os.closerange(7, 256)
    if mode == "namespace":
        os_unshare = ctypes.CDLL(None, use_errno=True).unshare
        if os_unshare(0x04000000) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
    gate = threading.Event()

    def second() -> None:
        gate.wait()

    def successor() -> None:
        os.write(channel, b"ready")
        os.read(channel, 1)
        os._exit(0)

    def start_thread(target: Any = second) -> None:
        threading.Thread(target=target, daemon=True).start()

    _become(mode)
    if mode == "thread":
        start_thread()
    if mode != "bare":
        lockdown.set_no_new_privs()
        lockdown.restrict_by_landlock()
    if mode == "thread-more":
        start_thread()
    if mode not in ("thread", "leader"):
        start_thread()
    if mode == "leader":
        release = threading.Event()
        threading.Thread(target=lambda: (release.wait(), successor()), daemon=True).start()
    limits = worker_rlimits(CONFIG)
    if mode == "rlimit":
        limits["nofile"] = (64, 64)
    lockdown.set_rlimits(limits)
    if mode == "filter":
        _install(ALLOW_ALL, 1)
    if mode == "thread":
        from ironbound.core.seccomp import worker_filter

        _install(worker_filter(), 0)
    elif mode != "bare":
        lockdown.install_filter()
    if mode == "leader":
        release.set()
        ctypes.CDLL(None).syscall(ctypes.c_long(60), ctypes.c_long(0))
    os.write(channel, b"ready")
    os.read(channel, 1)
    os._exit(0)


@contextmanager
def specimen(mode: str) -> Iterator[int]:
    """A live process of this mode, by its number."""
    config = canonical({**CONFIG, "profile": "other"} if mode == "config" else CONFIG)
    if mode == "unsealed":
        first = os.memfd_create("ironbound-config", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(first, config)
    else:
        first = sealed_memfd("config", config)
    second = sealed_memfd("module", MODULE + b"\0" if mode == "module" else MODULE)
    near, far = socket.socketpair()
    control, far_control = socket.socketpair()
    passed = [first, second, far.fileno(), far_control.fileno()]
    arguments = [sys.executable, __file__, "--be", str(UID), mode, *map(str, passed)]
    variables = PRELOADED if mode == "environment" else {}
    null = subprocess.DEVNULL
    with subprocess.Popen(arguments, stdin=null, stdout=null, stderr=null, pass_fds=passed, env=variables) as process:
        os.close(first)
        os.close(second)
        far.close()
        far_control.close()
        try:
            near.settimeout(30)
            answer = near.recv(65536)
            if answer != b"ready":
                raise RuntimeError(f"specimen {mode}: {answer.decode()}")
            yield process.pid
        finally:
            near.close()
            control.close()
            process.kill()


def file_digests(pid: int) -> list[str]:
    """The digests of the files mapped executable, read by name: another way than the observer's."""
    paths = set()
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        words = line.split(None, 5)
        if "x" in words[1] and words[4] != "0":
            paths.add(words[5])
    return sorted({hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths})


def expectation(mappings: list[str], *, filters_visible: bool = True) -> Any:
    """What a specimen without a flaw looks like to this user."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    uid, gid = (UID, UID) if ROOT else (os.getuid(), os.getgid())
    facts: Any = {
        "uid": uid,
        "gid": gid,
        "groups": [] if ROOT else os.getgroups(),
        "bounding": "0" * 16 if ROOT else status["CapBnd"],
        "exe": hashlib.sha256(Path(sys.executable).read_bytes()).hexdigest(),
        "mappings": mappings,
        "namespaces": dict.fromkeys(NAMESPACES, "shared"),
        "module_sha256": sha256_hex(MODULE),
        "config_sha256": sha256_hex(canonical(CONFIG)),
        "filters_visible": filters_visible,
    }
    return expected_posture(CONFIG, facts)


def sample(pid: int, *, filters: bool = True) -> Any:
    return observe(pid, start_time(pid), Baseline.of_self(), filters=filters)


def tell_with(capabilities: frozenset[int], pid: int) -> list[str]:
    """What a user of its own with these capabilities alone could not see of `pid`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            privilege.drop(UID + 9, UID + 9, capabilities)
            os.write(writer, json.dumps(unseen(sample(pid))).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        told: list[str] = json.loads(answer.read())
    os.waitpid(child, 0)
    return told


def _tell(modes: list[str]) -> None:
    with specimen("plain") as pid:
        mappings = file_digests(pid)
    told = {}
    for mode in modes:
        with specimen(mode) as pid:
            observed = sample(pid)
            expected = expectation(mappings, filters_visible=False)
            differences = [item.as_value() for item in compare_postures(expected, observed)]
            told[mode] = {"differences": differences, "unseen": unseen(observed)}
    print(json.dumps(told))


if __name__ == "__main__":
    if sys.argv[1] == "--be":
        try:
            UID = int(sys.argv[2])
            _be(sys.argv[3], [int(word) for word in sys.argv[4:]])
        finally:  # only an error comes here
            os.write(5, traceback.format_exc().encode())
            os._exit(1)
    _tell(sys.argv[1:])
