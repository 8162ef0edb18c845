"""Manifests, plans and the filter of native agents: strict, exact, and the filter's answer to every call."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from natives import MANIFEST, MODULE, NATIVES, NONCE, ROOTFS, changes, configuration

from ironbound.core import seccomp
from ironbound.core.canonical import Digest, FormatError, canonical, parse_json
from ironbound.core.limits import RLIMIT_NUMBERS, native_rlimits
from ironbound.core.native import MAX_MANIFEST, MAX_WORD, MAX_WORDS, Manifest, is_manifest, parse_manifest, plan
from ironbound.core.seccomp import NATIVE_ALLOWED, NATIVE_IOCTLS, NATIVE_PRCTLS, native_filter

# Manifests

WORDS = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=12)
PATHS = st.lists(st.text("abc-_é ", min_size=1, max_size=6), max_size=3).map(lambda parts: "/" + "/".join(parts))
VARIABLES = st.dictionaries(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True).filter(
        lambda name: not name.startswith("LD_") and name != "IRONBOUND_NONCE"
    ),
    st.text("abc /=:é", max_size=8),
    max_size=4,
).map(lambda found: tuple(f"{name}={value}" for name, value in found.items()))


@given(PATHS, st.lists(WORDS, max_size=5), VARIABLES, PATHS)
def test_what_was_encoded_is_parsed_again(program: str, more: list[str], env: tuple[str, ...], cwd: str) -> None:
    manifest = Manifest(ROOTFS, (program, *more), env, cwd)
    assert parse_manifest(manifest.encode()) == manifest and is_manifest(manifest.encode())


@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_manifest_or_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_manifest(data)


@given(st.integers(0, len(MODULE) - 1), st.integers(1, 255))
def test_a_byte_otherwise_is_another_manifest_or_a_format_error(at: int, flip: int) -> None:
    data = MODULE[:at] + bytes([MODULE[at] ^ flip]) + MODULE[at + 1 :]
    try:
        assert parse_manifest(data) != MANIFEST
    except FormatError:
        return
    assert parse_manifest(data).encode() == data  # Rule 1: one form


def test_any_field_otherwise_is_another_manifest_or_a_format_error() -> None:
    value = parse_json(MODULE, limit=MAX_MANIFEST)
    for path, changed in changes(value):
        try:
            assert parse_manifest(canonical(changed)) != MANIFEST, path
        except FormatError:
            continue


def with_field(name: str, value: Any) -> bytes:
    found: Any = parse_json(MODULE, limit=MAX_MANIFEST)
    return canonical({**found, name: value})


BAD: tuple[tuple[str, Any], ...] = (
    ("argv", []), ("argv", "/a"), ("argv", ["a"]), ("argv", ["/a/../b"]), ("argv", ["/a/./b"]), ("argv", ["/a//b"]),
    ("argv", ["/a/"]), ("argv", [""]), ("argv", ["/a", 1]), ("argv", ["/a", "x\ny"]), ("argv", ["/a", "x\0y"]),
    ("argv", ["/a"] * (MAX_WORDS + 1)), ("argv", ["/a", "x" * (MAX_WORD + 1)]), ("argv", ["/a", "é" * MAX_WORD]),
    ("env", ["A"]), ("env", ["1A=x"]), ("env", ["A=x", "A=y"]), ("env", ["A=\x1b"]), ("env", ["A=x\ny"]),
    ("env", ["LD_PRELOAD=/x"]), ("env", ["LD_=x"]), ("env", ["IRONBOUND_NONCE=" + NONCE]), ("env", {}),
    ("env", ["A" * 65 + "=x"]), ("env", ["A=x"] * (MAX_WORDS + 1)),
    ("cwd", 1), ("cwd", ""), ("cwd", "work"), ("cwd", "/.."), ("cwd", "/a\nb"), ("cwd", "/" + "x" * MAX_WORD),
    ("format", "ironbound-agent/v2"), ("rootfs_sha256", "A" * 64), ("rootfs_sha256", "a" * 63), ("rootfs_sha256", 1),
)  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD, ids=str)
def test_a_field_out_of_form_is_refused(name: str, value: Any) -> None:
    with pytest.raises(FormatError):
        parse_manifest(with_field(name, value))


@pytest.mark.parametrize("data", [b"", b"\0asm\1\0\0\0", b"[]", b"{}", b" " + MODULE, MODULE + b"\n", b"{" * 9999])
def test_what_is_no_canonical_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_manifest(data)


def test_a_manifest_that_would_be_refused_cannot_be_encoded() -> None:
    with pytest.raises(FormatError):
        Manifest(ROOTFS, ("relative",)).encode()
    with pytest.raises(FormatError):
        Manifest(ROOTFS, ("/a", "\ud800")).encode()
    with pytest.raises(FormatError):
        Manifest(Digest("x"), ("/a",)).encode()


def test_a_wasm_module_is_no_manifest() -> None:
    assert not is_manifest(b"\0asm") and not is_manifest(b"") and is_manifest(MODULE)


# Plans


@pytest.mark.parametrize("runtime", [*NATIVES, "qemu-microvm", "firecracker"])
def test_a_plan_says_limits_filter_and_program_in_the_guards_order(runtime: str) -> None:
    config = configuration(runtime)
    lines = plan(config, MANIFEST, NONCE).decode().splitlines()
    limits = [f"rlimit {RLIMIT_NUMBERS[name]} {value}" for name, value in native_rlimits(config).items()]
    assert lines == [
        "ironbound-plan/v1", f"landlock {'absent' if runtime == 'gvisor' else 'required'}", *limits,
        f"filter {native_filter().hex()}", "env LANG=C.UTF-8", f"env IRONBOUND_NONCE={NONCE}", "cwd /work",
        "arg /usr/bin/python3", "arg /agent.py",
    ]  # fmt: skip
    assert ("rlimit 9 " in "\n".join(lines)) is (runtime == "bubblewrap")


def test_an_agents_plan_has_no_nonce_and_no_other_than_a_nonce_gets_into_a_canarys() -> None:
    assert b"NONCE" not in plan(configuration("runc"), MANIFEST, None)
    for nonce in ("", "x" * 32, NONCE[:-1], NONCE + "\n", NONCE.upper(), NONCE + "\nenv A=b"):
        with pytest.raises(FormatError, match="nonce"):
            plan(configuration("runc"), MANIFEST, nonce)


@given(st.lists(WORDS, max_size=4), VARIABLES, PATHS)
def test_no_word_of_a_manifest_becomes_a_line_of_its_own(more: list[str], env: tuple[str, ...], cwd: str) -> None:
    manifest = parse_manifest(Manifest(ROOTFS, ("/a", *more), env, cwd).encode())
    config = configuration("runc")
    text = plan(config, manifest, None).decode()
    assert text.count("\n") == 4 + len(native_rlimits(config)) + len(env) + 1 + len(more)
    assert [line[4:] for line in text.split("\n") if line.startswith("arg ")] == ["/a", *more]


# The filter, in an interpreter of classic BPF

KILL = seccomp.SECCOMP_RET_KILL_PROCESS
ALLOW = seccomp.SECCOMP_RET_ALLOW
REFUSE = seccomp.SECCOMP_RET_ERRNO | seccomp.EPERM
ABSENT = seccomp.SECCOMP_RET_ERRNO | seccomp.ENOSYS
NATIVE = seccomp.AUDIT_ARCH_X86_64
PROGRAM = tuple(struct.iter_unpack("<HBBI", native_filter()))
CHECKED = {"mmap": 9, "mprotect": 10, "ioctl": 16, "socketpair": 53, "clone": 56, "prctl": 157, "prlimit64": 302,
           "pkey_mprotect": 329, "clone3": 435}  # fmt: skip
HIGH = 1 << 32


def answer(number: int, *arguments: int, arch: int = NATIVE, program: tuple[Any, ...] = PROGRAM) -> int:
    """What the kernel would do with this call; fails where the program leaves itself or does not end."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(arguments + (0,) * 6)[:6])
    accumulator, at = 0, 0
    for _ in program:
        code, true, false, k = program[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x06:
            return int(k)
        else:
            met = {0x15: accumulator == k, 0x35: accumulator >= k, 0x25: accumulator > k, 0x45: bool(accumulator & k)}
            at += true if met[code] else false
    raise AssertionError("the program does not end")


def test_the_program_fits_into_the_kernel_and_its_digest_is_known() -> None:
    assert 0 < len(PROGRAM) < 4096
    assert seccomp.filter_digest(native_filter()) == "496595720fc196acd0d465b6112c19f91d69030ad1046ead35bce9250ed3d51f"


def test_every_listed_call_is_allowed_and_every_other_number_is_not() -> None:
    listed = set(NATIVE_ALLOWED.values())
    assert len(listed) == len(NATIVE_ALLOWED) and not listed & set(CHECKED.values())
    for number in range(1024):
        if number in CHECKED.values():
            continue
        arguments = [(), (2**64 - 1,) * 6]
        assert {answer(number, *some) for some in arguments} == {ALLOW if number in listed else REFUSE}, number


def test_a_filter_with_one_wall_less_would_be_seen() -> None:
    at = next(i for i, (code, _, _, k) in enumerate(PROGRAM) if code == 0x06 and k == REFUSE)
    weakened = (*PROGRAM[:at], (0x06, 0, 0, ALLOW), *PROGRAM[at + 1 :])
    assert answer(41) == REFUSE and answer(41, program=weakened) == ALLOW


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_a_foreign_abi_kills_whatever_it_calls(number: int, arch: int, argument: int) -> None:
    foreign = arch != NATIVE or number >= seccomp.X32_BIT
    assert (answer(number, argument, arch=arch) == KILL) is foreign


def test_x32_and_32_bit_calls_of_allowed_names_kill() -> None:
    for number in (*NATIVE_ALLOWED.values(), *CHECKED.values()):
        assert answer(number | seccomp.X32_BIT) == answer(number, arch=0x40000003) == KILL


@pytest.mark.parametrize("name", ["mmap", "mprotect", "pkey_mprotect"])
def test_no_page_is_writable_and_executable_at_once(name: str) -> None:
    for protection in range(64):
        for high in (0, HIGH):
            expected = REFUSE if protection & 6 == 6 else ALLOW
            assert answer(CHECKED[name], 0, 4096, protection | high) == expected


def test_clone_makes_threads_and_processes_and_no_namespace() -> None:
    threads, fork = 0x3D0F00, 17
    assert answer(CHECKED["clone"], threads) == answer(CHECKED["clone"], fork) == ALLOW
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(CHECKED["clone"], fork | bit) == answer(CHECKED["clone"], threads | bit) == REFUSE
    assert answer(CHECKED["clone3"]) == answer(CHECKED["clone3"], 2**64 - 1) == ABSENT


def test_only_the_listed_requests_of_ioctl_pass() -> None:
    tiocsti, tioclinux = 0x5412, 0x541C
    for request in (*range(0x5400, 0x5500), tiocsti, tioclinux, 0, 2**32 - 1):
        assert answer(CHECKED["ioctl"], 0, request) == (ALLOW if request in NATIVE_IOCTLS else REFUSE)


def test_only_the_listed_options_of_prctl_pass() -> None:
    for option in (*range(128), 0x53564D41, 0x59616D61):
        assert answer(CHECKED["prctl"], option) == (ALLOW if option in NATIVE_PRCTLS else REFUSE)
    # seccomp, securebits, ambient capabilities, no_new_privs, the bounding set, mm, subreaper, dumpable
    assert not {22, 28, 47, 38, 24, 35, 36, 4} & set(NATIVE_PRCTLS)


def test_limits_can_be_read_and_not_set_by_whichever_word_the_pointer_is_in() -> None:
    number = CHECKED["prlimit64"]
    assert answer(number, 0, 7, 0, 0x7FFF00000000) == ALLOW
    for pointer in (1, 0x1000, HIGH, HIGH << 8, 0x7FFF00001000, 2**64 - 1):
        assert answer(number, 0, 7, pointer, 0) == REFUSE


def test_socketpair_is_for_unix_sockets_alone() -> None:
    for family in range(64):
        assert answer(CHECKED["socketpair"], family) == (ALLOW if family == 1 else REFUSE)


def test_there_is_a_filter_for_one_machine_only() -> None:
    with pytest.raises(seccomp.ArchitectureUnsupported, match="expected x86_64"):
        native_filter("aarch64")


FORBIDDEN = ("socket connect bind listen accept accept4 ptrace process_vm_readv process_vm_writev mount umount2 "
             "pivot_root chroot unshare setns bpf perf_event_open keyctl add_key request_key io_uring_setup "
             "io_uring_enter io_uring_register userfaultfd init_module finit_module delete_module kexec_load "
             "kexec_file_load reboot swapon swapoff acct quotactl syslog iopl ioperm personality sethostname "
             "setdomainname settimeofday clock_settime adjtimex clock_adjtime fanotify_init open_by_handle_at "
             "name_to_handle_at pidfd_getfd pidfd_open mknod mknodat modify_ldt setuid setgid setreuid setregid "
             "setresuid setresgid setgroups setfsuid setfsgid capset setrlimit seccomp landlock_create_ruleset fsopen "
             "fspick fsconfig fsmount move_mount open_tree mount_setattr memfd_create memfd_secret shmget shmat msgget "
             "semget mq_open sched_setaffinity sched_setscheduler setpriority ioprio_set mlock mlock2 mlockall "
             "remap_file_pages vmsplice execveat chown lchown fchown fchownat setxattr kcmp lookup_dcookie "
             "move_pages migrate_pages mbind set_mempolicy process_madvise vhangup uselib ustat").split()  # fmt: skip


def header() -> dict[str, int]:
    path = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not path.exists():
        pytest.skip("not tested: this machine has no kernel header with the numbers of system calls")
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", path.read_text("ascii"))}


def test_each_name_has_the_kernels_number() -> None:
    numbers = header()
    for name, number in {**NATIVE_ALLOWED, **CHECKED, **seccomp.SYSCALL_NUMBERS}.items():
        assert numbers[name] == number, name


def test_what_escapes_are_made_of_is_refused_by_the_kernels_own_numbers() -> None:
    numbers = header()
    for name in FORBIDDEN:
        if name in numbers:
            assert answer(numbers[name]) == REFUSE, name
