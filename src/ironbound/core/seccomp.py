"""The system call filter of a sandbox worker, as data and as the exact classic BPF program.

Decides which system calls a worker may still make once its module is compiled, and gives the bytes that the kernel
gets. It installs nothing: `node/sandbox/lockdown.py` does, the monitor reads the program back with
PTRACE_SECCOMP_GET_FILTER and the verifier assembles it again; all three compare `filter_digest`. Follows seccomp(2)
and <linux/filter.h>.

Rule 1: what is not listed is refused with EPERM, so that a refusal can be seen, told and recorded.
Rule 2: another ABI (32-bit, x32) kills the process: the numbers below mean nothing there.
Rule 3: no mapping becomes executable any more; compiled code exists before the filter does.
Rule 4: bytes are read from and written to the channel and the control descriptor and nothing else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
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
