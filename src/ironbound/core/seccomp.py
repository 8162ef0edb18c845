"""The system call filters of sandboxes, as data and as the exact classic BPF programs.

Decides which system calls a Wasm worker may still make once its module is compiled, and which a native agent may make
at all, and gives the bytes that the kernel gets. It installs nothing: `node/sandbox/lockdown.py` and the guard do, the
monitor reads the program back with
PTRACE_SECCOMP_GET_FILTER and the verifier assembles it again; all three compare `filter_digest`. Follows seccomp(2)
and <linux/filter.h>.

Rule 1: what is not listed is refused with EPERM, so that a refusal can be seen, told and recorded.
Rule 2: another ABI (32-bit, x32) kills the process: the numbers below mean nothing there.
Rule 3: no mapping becomes executable any more; compiled code exists before the filter does.
Rule 4: a worker's bytes are read from and written to the channel and the control descriptor and nothing else.
Rule 5: a native agent gets no socket of its own, no namespace, no mapping that is writable and executable at once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Final

from ironbound.core.canonical import Digest, sha256_hex

ARCHITECTURE: Final = "x86_64"
AUDIT_ARCH_X86_64: Final = 0xC000003E
X32_BIT: Final = 0x40000000

SECCOMP_RET_KILL_PROCESS: Final = 0x80000000
SECCOMP_RET_ERRNO: Final = 0x00050000
SECCOMP_RET_ALLOW: Final = 0x7FFF0000
EPERM: Final = 1
PROT_EXEC: Final = 0x4

CHANNEL_FD: Final = 5
CONTROL_FD: Final = 6

SYSCALL_NUMBERS: Final[dict[str, int]] = {
    "read": 0,
    "write": 1,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "exit": 60,
    "sigaltstack": 131,
    "futex": 202,
    "restart_syscall": 219,
    "clock_gettime": 228,
    "clock_nanosleep": 230,
    "exit_group": 231,
}
"""x86-64 numbers of every call that is named below (arch/x86/entry/syscalls/syscall_64.tbl)."""

ALLOWED: Final = (
    "futex",
    "clock_nanosleep",
    "clock_gettime",
    "restart_syscall",  # a stop by a tracer or a signal ends a sleep; without this the sleep could not go on
    "munmap",
    "mremap",
    "madvise",
    "brk",
    "rt_sigreturn",
    "rt_sigprocmask",
    "sigaltstack",
    "sched_yield",
    "exit",
    "exit_group",
)
"""Allowed with any arguments."""

ALLOWED_ON_PIPES: Final = ("read", "write")
"""Allowed where the first argument is the channel or the control descriptor."""

ALLOWED_WITHOUT_EXEC: Final = ("mmap", "mprotect")
"""Allowed where the third argument lacks PROT_EXEC."""

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]; the low words of the arguments.
_NR: Final = 0
_ARCH: Final = 4
_FIRST_ARGUMENT: Final = 16
_THIRD_ARGUMENT: Final = 32

# <linux/bpf_common.h>
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

_INSTRUCTION: Final = struct.Struct("<HBBI")  # struct sock_filter


class ArchitectureUnsupported(Exception):
    """There is no worker filter for this machine; nothing may be run on it."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction; a jump goes to the labels it names, and on to the next instruction where it names none."""

    code: int
    k: int
    true: str | None = None
    false: str | None = None
    label: str | None = None


def _steps() -> list[_Step]:
    steps = [
        _Step(_LOAD, _ARCH),
        _Step(_EQUAL, AUDIT_ARCH_X86_64, false="kill"),
        _Step(_LOAD, _NR),
        _Step(_AT_LEAST, X32_BIT, true="kill"),
    ]
    steps += [_Step(_EQUAL, SYSCALL_NUMBERS[name], true="allow") for name in ALLOWED]
    steps += [_Step(_EQUAL, SYSCALL_NUMBERS[name], true="pipe") for name in ALLOWED_ON_PIPES]
    steps += [_Step(_EQUAL, SYSCALL_NUMBERS[name], true="protection") for name in ALLOWED_WITHOUT_EXEC]
    steps += [
        _Step(_RETURN, SECCOMP_RET_ERRNO | EPERM, label="refuse"),
        _Step(_LOAD, _FIRST_ARGUMENT, label="pipe"),
        _Step(_EQUAL, CHANNEL_FD, true="allow"),
        _Step(_EQUAL, CONTROL_FD, true="allow", false="refuse-pipe"),
        _Step(_LOAD, _THIRD_ARGUMENT, label="protection"),
        _Step(_ANY_BIT, PROT_EXEC, true="refuse-pipe", false="allow"),
        _Step(_RETURN, SECCOMP_RET_ERRNO | EPERM, label="refuse-pipe"),
        _Step(_RETURN, SECCOMP_RET_ALLOW, label="allow"),
        _Step(_RETURN, SECCOMP_RET_KILL_PROCESS, label="kill"),
    ]
    return steps


def _assemble(steps: list[_Step]) -> bytes:
    places = {step.label: index for index, step in enumerate(steps) if step.label is not None}
    program = bytearray()
    for index, step in enumerate(steps):
        # Classic BPF only jumps forwards; a backward or far target would make struct.pack fail, never wrap.
        true = 0 if step.true is None else places[step.true] - index - 1
        false = 0 if step.false is None else places[step.false] - index - 1
        program += _INSTRUCTION.pack(step.code, true, false, step.k)
    return bytes(program)


@cache
def worker_filter(machine: str = ARCHITECTURE) -> bytes:
    """The program as an array of struct sock_filter, 8 bytes each, little endian.

    `machine` is what uname(2) says; anything but x86_64 raises ArchitectureUnsupported.
    """
    if machine != ARCHITECTURE:
        raise ArchitectureUnsupported(f"the worker's system call filter: expected {ARCHITECTURE}, got {machine}")
    return _assemble(_steps())


def filter_digest(program: bytes) -> Digest:
    """SHA-256 of the program's bytes, the same ones that PTRACE_SECCOMP_GET_FILTER returns."""
    return sha256_hex(program)


# Native agents

NATIVE_ALLOWED: Final[dict[str, int]] = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "munmap":
    11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "pwrite64": 18,
    "readv": 19, "writev": 20, "access": 21, "pipe": 22, "select": 23, "sched_yield": 24, "mremap": 25, "msync": 26,
    "mincore": 27, "madvise": 28, "dup": 32, "dup2": 33, "pause": 34, "nanosleep": 35, "getitimer": 36, "alarm": 37,
    "setitimer": 38, "getpid": 39, "sendfile": 40, "sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47,
    "shutdown": 48, "getsockname": 51, "getpeername": 52, "setsockopt": 54, "getsockopt": 55, "fork": 57, "vfork": 58,
    "execve": 59, "exit": 60, "wait4": 61, "kill": 62, "uname": 63, "fcntl": 72, "flock": 73, "fsync": 74,
    "fdatasync": 75, "truncate": 76, "ftruncate": 77, "getdents": 78, "getcwd": 79, "chdir": 80, "fchdir": 81,
    "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88, "readlink": 89,
    "chmod": 90, "fchmod": 91, "umask": 95, "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99,
    "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "setpgid": 109, "getppid": 110,
    "getpgrp": 111, "setsid": 112, "getgroups": 115, "getresuid": 118, "getresgid": 120, "getpgid": 121, "getsid":
    124, "capget": 125, "rt_sigpending": 127, "rt_sigtimedwait": 128, "rt_sigqueueinfo": 129, "rt_sigsuspend": 130,
    "sigaltstack": 131, "utime": 132, "statfs": 137, "fstatfs": 138, "getpriority": 140, "sched_getparam": 143,
    "sched_getscheduler": 145, "sched_get_priority_max": 146, "sched_get_priority_min": 147, "sched_rr_get_interval":
    148, "arch_prctl": 158, "sync": 162, "gettid": 186, "readahead": 187, "getxattr": 191, "lgetxattr": 192,
    "fgetxattr": 193, "listxattr": 194, "llistxattr": 195, "flistxattr": 196, "tkill": 200, "time": 201, "futex": 202,
    "sched_getaffinity": 204, "epoll_create": 213, "getdents64": 217, "set_tid_address": 218, "restart_syscall": 219,
    "fadvise64": 221, "timer_create": 222, "timer_settime": 223, "timer_gettime": 224, "timer_getoverrun": 225,
    "timer_delete": 226, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231,
    "epoll_wait": 232, "epoll_ctl": 233, "tgkill": 234, "utimes": 235, "waitid": 247, "inotify_init": 253,
    "inotify_add_watch": 254, "inotify_rm_watch": 255, "openat": 257, "mkdirat": 258, "newfstatat": 262, "unlinkat":
    263, "renameat": 264, "linkat": 265, "symlinkat": 266, "readlinkat": 267, "fchmodat": 268, "faccessat": 269,
    "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "get_robust_list": 274, "splice": 275, "tee": 276,
    "sync_file_range": 277, "utimensat": 280, "epoll_pwait": 281, "signalfd": 282, "timerfd_create": 283, "eventfd":
    284, "fallocate": 285, "timerfd_settime": 286, "timerfd_gettime": 287, "signalfd4": 289, "eventfd2": 290,
    "epoll_create1": 291, "dup3": 292, "pipe2": 293, "inotify_init1": 294, "preadv": 295, "pwritev": 296,
    "rt_tgsigqueueinfo": 297, "getcpu": 309, "renameat2": 316, "getrandom": 318, "membarrier": 324, "copy_file_range":
    326, "preadv2": 327, "pwritev2": 328, "statx": 332, "rseq": 334, "close_range": 436, "faccessat2": 439,
    "epoll_pwait2": 441, "futex_waitv": 449,
}  # fmt: skip
"""Allowed to a native agent with any arguments, by name with its x86-64 number: files, processes, time, its own
memory and descriptors."""

_NATIVE_CHECKED: Final[dict[str, int]] = {
    "mmap": 9, "mprotect": 10, "ioctl": 16, "socketpair": 53, "clone": 56, "prctl": 157, "prlimit64": 302,
    "pkey_mprotect": 329, "clone3": 435,
}  # fmt: skip
"""Allowed to a native agent with some arguments; the rules stand in `_native_steps`."""

ENOSYS: Final = 38
AF_UNIX: Final = 1
NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; NEWTIME can't be asked of clone(2)."""

NATIVE_IOCTLS: Final = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x5452)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, FIOASYNC."""

NATIVE_PRCTLS: Final = (1, 2, 3, 15, 16, 21, 23, 39, 0x53564D41)
"""PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ,
PR_GET_NO_NEW_PRIVS, PR_SET_VMA."""

_PROT_WRITE: Final = 0x2
_MORE_THAN: Final = 0x25  # BPF_JMP | BPF_JGT | BPF_K
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_SECOND_ARGUMENT: Final = 24


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _native_steps() -> list[_Step]:
    steps = [
        _Step(_LOAD, _ARCH),
        _Step(_EQUAL, AUDIT_ARCH_X86_64, false="kill"),
        _Step(_LOAD, _NR),
        _Step(_AT_LEAST, X32_BIT, true="kill"),
    ]
    targets = {
        "mmap": "protection", "mprotect": "protection", "pkey_mprotect": "protection", "ioctl": "ioctl",
        "clone": "clone", "socketpair": "socketpair", "prctl": "prctl", "prlimit64": "limit", "clone3": "absent",
    }  # fmt: skip
    steps += [_Step(_EQUAL, number, true=targets[name]) for name, number in _NATIVE_CHECKED.items()]
    for low, high in _ranges(list(NATIVE_ALLOWED.values())):  # ascending: below the next range means in none
        steps += [_Step(_AT_LEAST, low, false="refuse"), _Step(_MORE_THAN, high, false="allow-listed")]
    refusal = SECCOMP_RET_ERRNO | EPERM
    steps += [
        _Step(_RETURN, refusal, label="refuse"),
        _Step(_RETURN, SECCOMP_RET_ALLOW, label="allow-listed"),
        _Step(_LOAD, _THIRD_ARGUMENT, label="protection"),
        _Step(_AND, _PROT_WRITE | PROT_EXEC),
        _Step(_EQUAL, _PROT_WRITE | PROT_EXEC, true="refuse-checked", false="allow"),
        _Step(_LOAD, _SECOND_ARGUMENT, label="ioctl"),
        *(_Step(_EQUAL, request, true="allow") for request in NATIVE_IOCTLS),
        _Step(_RETURN, refusal),
        _Step(_LOAD, _FIRST_ARGUMENT, label="clone"),
        _Step(_ANY_BIT, NEW_NAMESPACES, true="refuse-checked", false="allow"),
        _Step(_LOAD, _FIRST_ARGUMENT, label="socketpair"),
        _Step(_EQUAL, AF_UNIX, true="allow", false="refuse-checked"),
        _Step(_LOAD, _FIRST_ARGUMENT, label="prctl"),
        *(_Step(_EQUAL, option, true="allow") for option in NATIVE_PRCTLS),
        _Step(_RETURN, refusal),
        # A limit may be read, not set: the pointer to the new one must be null, in both its words.
        _Step(_LOAD, _THIRD_ARGUMENT, label="limit"),
        _Step(_EQUAL, 0, false="refuse-checked"),
        _Step(_LOAD, _THIRD_ARGUMENT + 4),
        _Step(_EQUAL, 0, true="allow"),
        _Step(_RETURN, refusal, label="refuse-checked"),
        # A filter can't look behind clone3's pointer; libraries that are told it does not exist use clone.
        _Step(_RETURN, SECCOMP_RET_ERRNO | ENOSYS, label="absent"),
        _Step(_RETURN, SECCOMP_RET_ALLOW, label="allow"),
        _Step(_RETURN, SECCOMP_RET_KILL_PROCESS, label="kill"),
    ]
    return steps


@cache
def native_filter(machine: str = ARCHITECTURE) -> bytes:
    """A native agent's program, in the form of `worker_filter`. Raises ArchitectureUnsupported."""
    if machine != ARCHITECTURE:
        raise ArchitectureUnsupported(f"the native agent's system call filter: expected {ARCHITECTURE}, got {machine}")
    return _assemble(_native_steps())
