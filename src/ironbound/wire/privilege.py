"""Gives up a process's privileges for good: its user, its capabilities, and new ones through exec.

Rule 1: every step is checked by reading the kernel back; one that did not take is an error.
Follows capabilities(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from typing import Final

CAP_KILL: Final = 5
CAP_SYS_PTRACE: Final = 19
CAP_SYS_ADMIN: Final = 21
#: What root needs so that each service and each sandbox can be a user of its own and the monitor can see them.
NEEDED_AS_ROOT: Final = {
    "CAP_CHOWN": 0,
    "CAP_KILL": CAP_KILL,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_SYS_PTRACE": CAP_SYS_PTRACE,
    "CAP_SYS_ADMIN": CAP_SYS_ADMIN,
}
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAP_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class PrivilegeError(Exception):
    """The kernel did not give up what it was told to."""


def _call(name: str, *args: object) -> int:
    result = int(getattr(_libc, name)(*args))
    if result < 0:
        code = ctypes.get_errno()
        raise PrivilegeError(f"{name}{args[:2]}: {os.strerror(code)}")
    return result


def _prctl(option: int, value: int = 0) -> int:
    zero = ctypes.c_ulong(0)
    return _call("prctl", ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero)


def effective_capabilities() -> int:
    """The effective set of this thread, as a mask."""
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))


def missing_as_root() -> list[str]:
    """The names of NEEDED_AS_ROOT that this process lacks, such as in a container."""
    held = effective_capabilities()
    return [name for name, number in NEEDED_AS_ROOT.items() if not held >> number & 1]


def _set_capabilities(kept: frozenset[int]) -> None:
    low = sum(1 << cap for cap in kept if cap < 32)
    high = sum(1 << (cap - 32) for cap in kept if cap >= 32)
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _call("capset", ctypes.byref(header), ctypes.byref(data))


def drop(uid: int, gid: int, keep: Iterable[int] = ()) -> None:
    """Become `uid`:`gid` with only the capabilities `keep` (none by default), and no way back. Needs root."""
    kept = frozenset(keep)
    for cap in range(64):
        if cap not in kept and int(_libc.prctl(_PR_CAPBSET_READ, cap, 0, 0, 0)) == 1:
            _prctl(_PR_CAPBSET_DROP, cap)
    _prctl(_PR_SET_KEEPCAPS, 1 if kept else 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _set_capabilities(kept)
    _prctl(_PR_SET_KEEPCAPS, 0)
    no_new_privileges()
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise PrivilegeError("the user did not change")
    left = effective_capabilities()
    if left != sum(1 << cap for cap in kept):
        raise PrivilegeError(f"capabilities left: {left:016x}")


def no_new_privileges() -> None:
    """Neither this process nor its children gain anything through exec."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(signal_number: int) -> None:
    """The kernel sends this signal when the parent dies. Cleared by a change of user: call it after."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)
