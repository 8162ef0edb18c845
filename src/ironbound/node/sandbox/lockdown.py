"""The steps that take power away from a worker, one function each.

Decides how each wall is put up; worker.py decides the order. Nothing here is undone or made optional: a step that
the kernel does not carry out raises, and the worker is refused. Follows capabilities(7), landlock(7), seccomp(2),
prctl(2).

Rule 1: capabilities, no_new_privs and Landlock are per thread: they are set while the process has one thread.
Rule 2: the newest Landlock ABI of the kernel is used with every right that it knows; a kernel without Landlock is
        refused.
Rule 3: the filter is installed on every thread at once (TSYNC), or not at all.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Mapping
from typing import Final, Literal

from ironbound.core.seccomp import worker_filter

Separation = Literal["user", "process"]

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

_PR_SET_PDEATHSIG: Final = 1
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_SYS_CAPSET: Final = 126
_SYS_SECCOMP: Final = 317
_SYS_CLOSE_RANGE: Final = 436
_SYS_LANDLOCK_CREATE_RULESET: Final = 444
_SYS_LANDLOCK_RESTRICT_SELF: Final = 446
_SYS_MPROTECT: Final = 10

_CAPABILITY_VERSION_3: Final = 0x20080522
_LANDLOCK_CREATE_RULESET_VERSION: Final = 1
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1
_PROT_READ_EXEC: Final = 1 | 4

SHARED_NAMESPACES: Final = ("net", "ipc", "uts", "user", "pid", "mnt", "cgroup")
_CLONE_NEWUTS: Final = 0x04000000
_CLONE_NEWIPC: Final = 0x08000000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000

# Rights of struct landlock_ruleset_attr by the ABI that brought them.
_FILE_RIGHTS: Final = {1: 0x1FFF, 2: 0x2000, 3: 0x4000, 5: 0x8000}
_TCP_ABI: Final = 4
_TCP_RIGHTS: Final = 0x3  # bind, connect
_SCOPE_ABI: Final = 6
_SCOPES: Final = 0x3  # abstract Unix sockets, signals

_RLIMITS: Final = {
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "core": resource.RLIMIT_CORE,
    "fsize": resource.RLIMIT_FSIZE,
    "stack": resource.RLIMIT_STACK,
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
}


class LockdownError(Exception):
    """A wall could not be put up; nothing may run without it."""


def raw_syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A system call by its x86-64 number. Raises OSError with the kernel's errno."""
    ctypes.set_errno(0)
    words = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result: int = _LIBC.syscall(ctypes.c_long(number), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _prctl(option: int, *arguments: int) -> int:
    words = [ctypes.c_ulong(item) for item in (*arguments, 0, 0, 0, 0)[:4]]
    result: int = _LIBC.prctl(ctypes.c_int(option), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def bounding_set() -> int:
    """The capability bounding set of this thread as a bit mask."""
    mask, capability = 0, 0
    while capability < 64:
        try:
            mask |= _prctl(_PR_CAPBSET_READ, capability) << capability
        except OSError:
            break  # EINVAL: the kernel's last capability was the one before
        capability += 1
    return mask


def drop_bounding_set() -> None:
    """Empties the bounding set where the process holds CAP_SETPCAP; without it nothing can be gained either, as
    no_new_privs follows. What remains is a host fact that the posture expects (see zygote.py)."""
    present = bounding_set()
    for capability in range(64):
        if present >> capability & 1:
            _prctl(_PR_CAPBSET_DROP, capability)


def may_drop_bounding_set() -> bool:
    """Whether this thread holds CAP_SETPCAP in its user namespace."""
    with open("/proc/thread-self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> 8 & 1)
    return False


def become_user(uid: int, gid: int, separation: Separation) -> None:
    """Real, effective, saved and file system ids. As an ordinary user ('process') the ids must be the own ones
    already, and supplementary groups stay, since no one without privilege may give them up."""
    if separation == "user":
        if uid <= 0 or gid <= 0:
            raise LockdownError(f"expected the ids of a sandbox user, got uid {uid}, gid {gid}")
        os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise LockdownError(f"expected uid {uid} and gid {gid}, got {os.getresuid()} and {os.getresgid()}")


def drop_capabilities() -> None:
    """Empties the permitted, effective, inheritable and ambient sets."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    raw_syscall(_SYS_CAPSET, struct.pack("<Ii", _CAPABILITY_VERSION_3, 0), bytes(24))


def set_no_new_privs() -> None:
    """No exec gives privilege any more; it cannot be taken back."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_parent_death_signal() -> None:
    """SIGKILL when the thread that made this process ends."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def die_with_parent(parent: int) -> None:
    """SIGKILL when the parent ends. A change of uid clears this, so it comes after it; a parent that is gone by now has
    left another one, and that is an error."""
    set_parent_death_signal()
    if os.getppid() != parent:
        raise LockdownError(f"expected the parent {parent}, got {os.getppid()}")


def landlock_abi() -> int:
    """The kernel's Landlock ABI, 0 where there is none."""
    try:
        return raw_syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    except OSError:
        return 0


def landlock_rules(abi: int) -> bytes:
    """struct landlock_ruleset_attr with every right that this ABI knows, 8, 16 or 24 bytes."""
    files = 0
    for since, rights in _FILE_RIGHTS.items():
        files |= rights if abi >= since else 0
    rules = struct.pack("<Q", files)
    if abi >= _TCP_ABI:
        rules += struct.pack("<Q", _TCP_RIGHTS)
    if abi >= _SCOPE_ABI:
        rules += struct.pack("<Q", _SCOPES)
    return rules


def restrict_by_landlock() -> int:
    """Enters a domain that handles everything and allows nothing; returns the ABI used."""
    abi = landlock_abi()
    if abi < 1:
        raise LockdownError("expected a kernel with Landlock, got none")
    rules = landlock_rules(abi)
    ruleset = raw_syscall(_SYS_LANDLOCK_CREATE_RULESET, rules, len(rules), 0)
    try:
        raw_syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return abi


def set_rlimits(limits: Mapping[str, tuple[int, int]]) -> None:
    """Applies the table of `core.limits.worker_rlimits` and reads it back."""
    for name, (soft, hard) in limits.items():
        try:
            resource.setrlimit(_RLIMITS[name], (soft, hard))
        except (OSError, ValueError) as error:
            raise LockdownError(f"rlimit {name} of {soft}: {error}") from None
        if resource.getrlimit(_RLIMITS[name]) != (soft, hard):
            raise LockdownError(f"rlimit {name}: expected {(soft, hard)}, got {resource.getrlimit(_RLIMITS[name])}")


def install_filter() -> bytes:
    """Installs the worker's filter on all threads and returns its bytes. Raises ArchitectureUnsupported, OSError."""
    program = worker_filter(platform.machine())
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<H6xQ", len(program) // 8, ctypes.addressof(buffer))
    stray = raw_syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, header)
    if stray != 0:
        raise LockdownError(f"expected the filter on every thread, thread {stray} would not take it")
    return program


def close_from(lowest: int) -> None:
    """Closes every descriptor from `lowest` on."""
    raw_syscall(_SYS_CLOSE_RANGE, lowest, 0xFFFFFFFF, 0)


def freeze_executable_mappings() -> None:
    """Takes the write permission from mappings that are both writable and executable (the foreign function library
    keeps its closures in one). A closure made or freed afterwards ends the process, so it comes after everything is
    loaded."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        lines = maps.readlines()
    for line in lines:
        bounds, permissions = line.split()[:2]
        if "w" in permissions and "x" in permissions:
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            raw_syscall(_SYS_MPROTECT, start, end - start, _PROT_READ_EXEC)


def enter_namespaces(separation: Separation) -> dict[str, str]:
    """New network, IPC and UTS namespaces, as an ordinary user inside a new user namespace that maps only the own ids.

    Says for each kind whether it is 'private' or 'shared' now; a host that does not grant them is a fact, not an error.
    """
    before = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in SHARED_NAMESPACES}
    uid, gid = os.getuid(), os.getgid()
    flags = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    if separation == "process":
        flags |= _CLONE_NEWUSER
    if _LIBC.unshare(ctypes.c_int(flags)) == 0 and separation == "process":
        for name, text in (("uid_map", f"{uid} {uid} 1"), ("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as target:
                target.write(text)
    after = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in SHARED_NAMESPACES}
    return {kind: "shared" if before[kind] == after[kind] else "private" for kind in SHARED_NAMESPACES}
