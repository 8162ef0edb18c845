"""The worker's filter, run in a small interpreter of classic BPF: what it answers for every call."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core import seccomp

KILL = seccomp.SECCOMP_RET_KILL_PROCESS
REFUSE = seccomp.SECCOMP_RET_ERRNO | seccomp.EPERM
ALLOW = seccomp.SECCOMP_RET_ALLOW
NATIVE = seccomp.AUDIT_ARCH_X86_64


def answer(number: int, *arguments: int, arch: int = NATIVE) -> int:
    """What the program returns for this call; fails where it leaves itself or does not end."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(arguments + (0,) * 6)[:6])
    program = list(struct.iter_unpack("<HBBI", seccomp.worker_filter()))
    accumulator, at = 0, 0
    for _ in program:
        code, true, false, k = program[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x06:
            return k
        else:
            met = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            at += true if met else false
    raise AssertionError("the program does not end")


def test_the_digest_is_that_of_the_bytes_that_the_kernel_gets() -> None:
    program = seccomp.worker_filter("x86_64")
    assert len(program) % 8 == 0 and len(program) // 8 < 256
    assert seccomp.filter_digest(program) == "eb5bf9f6e01dd5b6d44f078295c9c1108ab25303f889b800a726d39ebdf9e4ae"


@pytest.mark.parametrize("machine", ["aarch64", "i686", "riscv64", ""])
def test_another_machine_gets_no_filter_but_an_error(machine: str) -> None:
    with pytest.raises(seccomp.ArchitectureUnsupported, match="expected x86_64"):
        seccomp.worker_filter(machine)


def test_just_the_listed_calls_are_allowed_and_each_of_them_is() -> None:
    with_pipes = {seccomp.SYSCALL_NUMBERS[name] for name in seccomp.ALLOWED_ON_PIPES}
    expected = {seccomp.SYSCALL_NUMBERS[name] for name in seccomp.ALLOWED + seccomp.ALLOWED_WITHOUT_EXEC}
    assert {number for number in range(1024) if answer(number) == ALLOW} == expected
    assert {number for number in range(1024) if answer(number, seccomp.CHANNEL_FD) == ALLOW} == expected | with_pipes
    assert {answer(number) for number in range(1024)} == {ALLOW, REFUSE}


def test_every_named_number_is_used_by_one_rule() -> None:
    used = seccomp.ALLOWED + seccomp.ALLOWED_ON_PIPES + seccomp.ALLOWED_WITHOUT_EXEC
    assert sorted(used) == sorted(seccomp.SYSCALL_NUMBERS)


@pytest.mark.parametrize("name", ["mmap", "mprotect"])
def test_nothing_becomes_executable(name: str) -> None:
    number = seccomp.SYSCALL_NUMBERS[name]
    for protection in range(16):
        assert answer(number, 0, 4096, protection) == (REFUSE if protection & 4 else ALLOW)
    assert answer(number, 0, 4096, 0xFFFFFFFF_00000004) == REFUSE


@pytest.mark.parametrize("name", ["read", "write"])
def test_bytes_pass_through_the_two_pipes_only(name: str) -> None:
    allowed = {fd for fd in [*range(64), 2**32 - 1] if answer(seccomp.SYSCALL_NUMBERS[name], fd) == ALLOW}
    assert allowed == {seccomp.CHANNEL_FD, seccomp.CONTROL_FD}


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_foreign_abi_kills(number: int, arch: int) -> None:
    expected = {KILL} if arch != NATIVE or number >= seccomp.X32_BIT else {ALLOW, REFUSE}
    assert answer(number, arch=arch) in expected


def test_x32_and_32_bit_calls_of_allowed_names_kill() -> None:
    for number in seccomp.SYSCALL_NUMBERS.values():
        assert answer(number | seccomp.X32_BIT) == KILL
        assert answer(number, arch=0x40000003) == KILL
