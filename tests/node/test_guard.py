"""The guard by itself: it starts nothing unless every wall stands, and says what it consumed. Each wall is left out
once, and its probe gets out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ironbound.core
from ironbound.core.canonical import sha256_hex
from ironbound.core.native import Manifest
from ironbound.core.native import plan as native_plan
from ironbound.core.profile import Layer, merge
from ironbound.node.sandbox.launcher import Ready, Refused, parse_first_word
from ironbound.node.sandbox.memfd import REQUIRED_SEALS, sealed_memfd
from native_stand import (
    ALLOW,
    CALLS,
    DROP_ALL,
    GUARD,
    NOBODY,
    PROBE,
    ROOT,
    Guarded,
    bubblewrap,
    filter_without,
    folder_for_all,
    make_rootfs,
    need_bubblewrap,
    plan,
    sha256,
    start,
    unsealed,
)

needs_root = [pytest.mark.root, pytest.mark.skipif(not ROOT, reason="needs root")]
KEPT_UID = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
SHOW_DESCRIPTORS = 'cd /proc/self/fd; set --; for n in *; do [ -e $n ] && set -- "$@" $n; done; echo "open: $*" >&2'


def probes_of(word: dict[str, object]) -> dict[str, tuple[str, str]]:
    assert word["type"] == "ready", word
    items: list[dict[str, str]] = word["probes"]  # type: ignore[assignment]
    return {item["name"]: (item["verdict"], item["refusal"]) for item in items}


def refusal(guard: Guarded, stage: str) -> str:
    """The guard's refusal at this stage; nothing else comes and it ends."""
    line = guard.line()
    word = parse_first_word(line)
    assert isinstance(word, Refused) and word.stage == stage, line
    assert guard.rest() == b"" and guard.end() == 1
    return word.text


# ---- what it is


@pytest.mark.parametrize("program", [GUARD, PROBE], ids=["guard", "probe"])
def test_it_needs_nothing_but_the_kernel_and_no_page_of_it_is_both_writable_and_executable(program: Path) -> None:
    data = program.read_bytes()
    assert len(data) < 64 * 1024 and program.stat().st_mode & 0o777 == 0o755
    (offset,), (entry_size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<II", data, offset + i * entry_size) for i in range(count)]
    kinds = {kind for kind, _ in headers}
    assert not kinds & {2, 3} and 0x6474E551 in kinds  # neither PT_DYNAMIC nor PT_INTERP; PT_GNU_STACK says no
    assert not any(flags & 1 and flags & 2 for _, flags in headers)


# ---- what it says


def test_the_guard_tells_the_digests_of_what_it_consumed_in_the_words_of_a_worker() -> None:
    config, module = os.urandom(70_000), b"x" * 64
    with start(plan(), config=config, module=module) as guard:
        word = parse_first_word(guard.line())
    assert isinstance(word, Ready)
    assert (word.config_sha256, word.module_sha256) == (sha256(config), sha256(module))
    assert len(word.probes) >= 20 and len({probe.name for probe in word.probes}) == len(word.probes)
    assert {probe.verdict for probe in word.probes} == {"REFUSED"}


@pytest.mark.parametrize("size", [1, 55, 56, 63, 64, 65, 4095, 4096, 4097])
def test_the_digest_is_right_at_every_edge_of_a_block(size: int) -> None:
    data = bytes(range(256)) * 17
    with start(plan(), config=data[:size]) as guard:
        assert guard.word()["config_sha256"] == sha256(data[:size])


def test_behind_all_walls_the_refusals_are_the_kernels_own_words() -> None:
    with start(plan()) as guard:
        said = probes_of(guard.word())
    assert said["guard-mount"] == ("REFUSED", f"EPERM: {os.strerror(1)}")
    assert said["landlock-write"] == ("REFUSED", f"EACCES: {os.strerror(13)}")


# ---- what it refuses


@pytest.mark.parametrize("stage, target", [("config", 3), ("module", 4), ("lockdown", 5)])
@pytest.mark.parametrize("missing", [1, 2, 4, 8, 16])
def test_a_file_without_one_of_its_seals_is_refused(stage: str, target: int, missing: int) -> None:
    data = plan() if target == 5 else b"{}"
    with start(plan(), replace={target: unsealed(data, REQUIRED_SEALS & ~missing)}) as guard:
        assert "every seal" in refusal(guard, stage)


def test_what_is_no_memory_file_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"{}")
    with start(plan(), replace={3: os.open(plain, os.O_RDONLY)}) as guard:
        assert "expected a sealed memory file: EINVAL" in refusal(guard, "config")
    with start(plan(), replace={4: os.open("/dev/zero", os.O_RDONLY)}) as guard:
        refusal(guard, "module")


@pytest.mark.parametrize(
    "stage, target, limit", [("config", 3, 1 << 20), ("module", 4, 1 << 20), ("lockdown", 5, 1 << 18)]
)
def test_empty_and_oversized_files_are_refused(stage: str, target: int, limit: int) -> None:
    for data in (b"", b"x" * (limit + 1)):
        with start(plan(), replace={target: sealed_memfd("test", data)}) as guard:
            assert "not too large" in refusal(guard, stage)


@pytest.mark.parametrize("absent", [0, 1, 3, 4, 5])
def test_a_missing_descriptor_is_refused(absent: int) -> None:
    with start(plan(), without=[absent]) as guard:
        refusal(guard, "lockdown")


def test_without_its_control_channel_the_guard_just_ends() -> None:
    with start(plan(), without=[2]) as guard:
        assert guard.end() == 1


@pytest.mark.parametrize("number", [6, 7, 40, 1023])
def test_a_descriptor_that_nobody_announced_is_refused(number: int) -> None:
    with start(plan(), replace={number: os.open("/etc", os.O_RDONLY)}) as guard:
        assert refusal(guard, "lockdown").endswith(f"and no other, got {number}")


@pytest.mark.parametrize("number", [6, 7, 40, 1023, 2000])
@pytest.mark.parametrize("how", [os.O_RDONLY, os.O_PATH])
def test_without_landlock_as_inside_gvisor_a_descriptor_that_nobody_announced_is_refused_too(
    number: int, how: int
) -> None:
    with start(plan(landlock="absent"), replace={number: os.open("/etc", how)}) as guard:
        assert refusal(guard, "lockdown").endswith(f"and no other, got {number}")


FORGED_LIST = ("--tmpfs", "/proc", *(word for one in range(6) for word in ("--dir", f"/proc/self/fd/{one}")))


@pytest.mark.parametrize("more", [(), FORGED_LIST], ids=["no /proc", "a forged /proc"])
def test_where_the_kernel_does_not_list_the_descriptors_a_foreign_one_is_refused_all_the_same(
    more: tuple[str, ...],
) -> None:
    with folder_for_all() as folder:
        command = bubblewrap(make_rootfs(folder), *more, without=["--proc"])
        for extra in ({}, {9: os.open("/etc", os.O_PATH)}):
            with start(plan(landlock="absent"), command=command, replace=extra) as guard:
                said = refusal(guard, "lockdown")
            assert said.endswith("and no other, got 9") if extra else "but it has" in said


def test_a_descriptor_beyond_the_table_that_is_looked_at_is_closed() -> None:
    with start(plan("/bin/sh", "-c", SHOW_DESCRIPTORS), replace={2000: os.open("/etc", os.O_RDONLY)}) as guard:
        assert guard.word()["type"] == "ready"
        guard.release()
        assert guard.rest() == b"open: 0 1 2 3 4\n"


def test_two_channels_are_refused() -> None:
    mine, other = socket.socketpair()
    with mine, other, start(plan(), replace={1: os.dup(other.fileno())}) as guard:
        assert "got two" in refusal(guard, "lockdown")


def test_a_file_as_channel_is_refused() -> None:
    for target in (0, 1):
        with start(plan(), replace={target: os.open("/etc/passwd", os.O_RDONLY)}) as guard:
            assert f"as descriptor {target}" in refusal(guard, "lockdown")


WHOLE = plan("/bin/echo", "a", "", limits={7: 64, 4: 0}, variables=["A=b", "C="], program=filter_without()[:16])
EDITS = [
    (b"ironbound-plan/v1\n", b""),
    (b"ironbound-plan/v1\n", b"ironbound-plan/v2\n"),
    (b"ironbound-plan/v1\n", b" ironbound-plan/v1\n"),
    (b"landlock required\n", b""),
    (b"landlock required\n", b"landlock\n"),
    (b"landlock required\n", b"landlock maybe\n"),
    (b"landlock required\n", b"landlock required\nlandlock required\n"),
    (b"rlimit 7 64\n", b"rlimit 7 064\n"),
    (b"rlimit 7 64\n", b"rlimit 07 64\n"),
    (b"rlimit 7 64\n", b"rlimit 7 -1\n"),
    (b"rlimit 7 64\n", b"rlimit 7 64 64\n"),
    (b"rlimit 7 64\n", b"rlimit 7  64\n"),
    (b"rlimit 7 64\n", b"rlimit 7 \n"),
    (b"rlimit 7 64\n", b"rlimit 16 64\n"),
    (b"rlimit 7 64\n", b"rlimit 7 9223372036854775808\n"),
    (b"rlimit 7 64\n", b"rlimit 7 18446744073709551680\n"),
    (b"rlimit 4 0\n", b"rlimit 7 64\n"),
    (b"filter ", b"filter 0"),
    (b"filter ", b"filter A0"),
    (b"filter ", b"filter  "),
    (b"filter ", b"filter 00"),
    (b"filter ", b"filter\n"),
    (b"filter ", b"filter 0600000000000000\nfilter "),
    (b"env A=b\n", b"env =b\n"),
    (b"env A=b\n", b"env A\n"),
    (b"env A=b\n", b"env 1A=b\n"),
    (b"env A=b\n", b"env A-B=b\n"),
    (b"env A=b\n", b"env A=b\nenv A=c\n"),
    (b"env A=b\n", b"env A=\x00b\n"),
    (b"env A=b\n", b"env A=b\nenv  B=c\n"),
    (b"cwd /\n", b""),
    (b"cwd /\n", b"cwd tmp\n"),
    (b"cwd /\n", b"cwd \n"),
    (b"cwd /\n", b"cwd /\ncwd /\n"),
    (b"arg /bin/echo\n", b"arg echo\n"),
    (b"arg /bin/echo\n", b"arg \n"),
    (b"arg /bin/echo\narg a\narg \n", b""),
    (b"arg a\n", b"arg a\nlandlock required\n"),
    (b"arg a\n", b"arg a\n\n"),
    (b"arg a\n", b"arg\n"),
    (b"arg a\narg \n", b"arg a\narg b"),
    (b"arg a\n", b"arg a\n" * 300),
]


@pytest.mark.parametrize("old, new", EDITS)
def test_a_malformed_plan_is_refused(old: bytes, new: bytes) -> None:
    assert old in WHOLE
    with start(WHOLE.replace(old, new, 1)) as guard:
        assert refusal(guard, "lockdown").startswith("the plan: expected ")


def test_the_same_plan_unedited_is_read_to_its_end() -> None:
    # Its filter is the head of one, which the kernel refuses: the plan itself was fine.
    with start(WHOLE) as guard:
        assert refusal(guard, "lockdown").startswith("the system call filter: EINVAL")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_plan_of_any_bytes_ends_in_a_refusal_and_never_in_a_program(data: st.DataObject) -> None:
    whole = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        cut = data.draw(st.integers(0, 40))
        whole[at : at + cut] = data.draw(st.binary(max_size=40))
    with start(bytes(whole) or b"\n") as guard:
        refusal(guard, "lockdown")  # the filter is no program of the kernel's, whatever else may be right


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=1, max_size=400))
@example(b"\n")
@example(b"ironbound-plan/v1\nlandlock absent\n")
@example(b"ironbound-plan/v1\nlandlock required\nfilter 0600000000000000\ncwd /\n")
def test_bytes_that_are_no_plan_are_refused(data: bytes) -> None:
    with start(data) as guard:
        assert refusal(guard, "lockdown").startswith("the plan: expected ")


def test_a_plan_that_denies_this_kernels_landlock_is_refused() -> None:
    with start(plan(landlock="absent")) as guard:
        assert "but it has" in refusal(guard, "lockdown")


# ---- the walls that it puts up


def test_the_limits_are_really_set_soft_and_hard() -> None:
    limits = {1: 123 << 10, 4: 0, 7: 33, 8: 1 << 16, 13: 0}
    names = {1: "file size", 4: "core file size", 7: "open files", 8: "locked memory", 13: "nice priority"}
    with start(plan(limits=limits)) as guard:
        guard.word()
        lines = Path(f"/proc/{guard.pid}/limits").read_text().splitlines()
    for number, value in limits.items():
        (line,) = (line for line in lines if line.startswith(f"Max {names[number]} "))
        assert line[len(f"Max {names[number]} ") :].split()[:2] == [str(value), str(value)]


def test_a_limit_above_the_hard_one_is_refused() -> None:
    with start(plan(limits={7: 1 << 40})) as guard:
        assert refusal(guard, "lockdown").startswith("rlimit 7: ")


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_process_has_its_filter_and_no_way_to_gain_privileges_before_it_says_ready() -> None:
    with start(plan()) as guard:
        guard.word()
        status = status_of(guard.pid)
    assert (status["Seccomp"], status["Seccomp_filters"], status["NoNewPrivs"]) == ("2", "1", "1")
    assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
    assert status["SigIgn"] == status["SigBlk"] == "0" * 16


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs root")
def test_the_installed_filter_is_the_plans_byte_for_byte() -> None:
    program = filter_without()
    libc = ctypes.CDLL(None, use_errno=True)
    with start(plan(program=program)) as guard:
        guard.word()
        assert libc.ptrace(0x4206, guard.pid, None, None) == 0, os.strerror(ctypes.get_errno())
        assert libc.ptrace(0x4207, guard.pid, None, None) == 0
        os.waitpid(guard.pid, 0)
        room = ctypes.create_string_buffer(len(program))
        count = libc.ptrace(0x420C, guard.pid, ctypes.c_void_p(0), room)
        libc.ptrace(17, guard.pid, None, None)
    assert count * 8 == len(program) and room.raw == program


# ---- the release


def test_without_a_release_nothing_of_the_agent_ever_runs(tmp_path: Path) -> None:
    with start(plan("/bin/sh", "-c", "echo ran >&2")) as guard:
        assert guard.word()["type"] == "ready"
        guard.control.shutdown(socket.SHUT_WR)
        assert guard.rest() == b"" and guard.end() == 1


@pytest.mark.parametrize("word", [b"release", b"releas\n", b"Release\n", b"\nrelease\n", b"release \n", b"x" * 4096])
def test_another_word_than_release_starts_nothing(word: bytes) -> None:
    with start(plan("/bin/sh", "-c", "echo ran >&2")) as guard:
        assert guard.word()["type"] == "ready"
        guard.release(word)
        guard.control.shutdown(socket.SHUT_WR)
        assert b"ran" not in guard.rest() and guard.end() == 1


def test_released_it_becomes_the_agent_with_the_descriptors_0_to_4_and_the_plans_environment() -> None:
    script = f'echo "$0 $A" "${{HOME-none}}"; pwd >&2; env >&2; {SHOW_DESCRIPTORS}; exit 7'
    with start(plan("/bin/sh", "-c", script, "agent", variables=["A=b c"], folder="/tmp")) as guard:
        assert guard.word()["type"] == "ready"
        guard.release()
        report = guard.rest().decode().splitlines()
        assert guard.end() == 7
        assert guard.channel.recv(100) == b"agent b c none\n"
    assert (report[0], report[-1]) == ("/tmp", "open: 0 1 2 3 4")
    assert sorted(line.partition("=")[0] for line in report[1:-1]) == ["A", "PWD"]  # the shell itself adds PWD


def test_what_the_agent_writes_to_its_standard_error_arrives_and_the_channel_carries_both_ways() -> None:
    with start(plan("/bin/sh", "-c", 'read line; echo "got $line"; echo trouble >&2')) as guard:
        guard.word()
        guard.release()
        guard.channel.sendall(b"hello\n")
        assert guard.rest() == b"trouble\n" and guard.end() == 0
        assert guard.channel.recv(100) == b"got hello\n"


def test_the_agent_waits_on_its_channel_even_where_the_runtime_left_it_non_blocking() -> None:
    mine, its = socket.socketpair()
    its.setblocking(False)
    channel = its.detach()
    with mine, start(plan("/bin/sh", "-c", 'read line; echo "got $line"'), replace={0: channel, 1: channel}) as guard:
        guard.word()
        guard.release()
        assert not select.select([guard.control], [], [], 0.2)[0]  # at its end, had it not waited
        mine.sendall(b"hello\n")
        assert guard.rest() == b"" and guard.end() == 0
        assert mine.recv(100) == b"got hello\n"


def test_the_agent_cannot_write_to_what_was_consumed() -> None:
    script = "echo changed 2>/dev/null >&3 || echo refused >&2; echo changed 2>/dev/null >&4 || echo refused >&2"
    with start(plan("/bin/sh", "-c", script)) as guard:
        guard.word()
        guard.release()
        assert guard.rest().count(b"refused") == 2


@pytest.mark.parametrize("options", [{"arguments": ("/no/such/program",)}, {"folder": "/no/such/folder"}])
def test_an_agent_that_cannot_be_started_is_told_and_ends_with_127(options: dict[str, object]) -> None:
    arguments = options.pop("arguments", ("/bin/true",))
    with start(plan(*arguments, **options)) as guard:  # type: ignore[misc,arg-type]
        guard.word()
        guard.release()
        assert guard.rest().endswith(b"ENOENT: No such file or directory\n") and guard.end() == 127


def test_the_agent_writes_below_tmp_and_nowhere_else() -> None:
    name = f"/tmp/ironbound-guard-{os.getpid()}"
    attempts = f"echo a >{name} && rm {name} && echo inside >&2; echo a >/dev/shm/x && echo shm >&2"
    attempts += "; echo a >/var/tmp/ironbound-guard && echo outside >&2; true"
    with start(plan("/bin/sh", "-c", attempts)) as guard:
        guard.word()
        guard.release()
        report = guard.rest().decode()
    assert "inside" in report and "outside" not in report


# ---- the plan that the product writes


PROFILES = Path(ironbound.core.__file__).parents[1] / "data" / "profiles"
LAYERS = [Layer(name, (PROFILES / name).read_bytes()) for name in ("native.toml", "runc.toml")]
CONFIG = merge(LAYERS).config
ROOTFS = sha256_hex(b"")


@pytest.mark.parametrize("nonce", [None, "0123456789abcdef" * 2])
def test_the_guard_carries_out_the_plan_that_the_core_writes(nonce: str | None) -> None:
    variables = [f"IRONBOUND_NONCE={nonce}"] if nonce else []
    manifest = Manifest(ROOTFS, ("/usr/bin/env", "-0"), ("LANG=C.UTF-8", "EMPTY="), "/tmp")
    with start(native_plan(CONFIG, manifest, nonce)) as guard:
        assert guard.word()["type"] == "ready"
        limits = Path(f"/proc/{guard.pid}/limits").read_text()
        assert re.search(rf"^Max open files +{CONFIG['runtime']['max_open_files']} ", limits, re.MULTILINE)
        guard.release()
        assert guard.rest() == b"" and guard.end() == 0
        assert guard.channel.recv(4096).decode().split("\0")[:-1] == ["LANG=C.UTF-8", "EMPTY=", *variables]


WORDS = st.text(st.characters(exclude_characters="\0\n", exclude_categories=("Cs",)), max_size=40)


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS, max_size=8))
@example(["", "\t", "\r", "arg x", "cwd /", "\x7f", "é", "-"])
def test_the_agent_gets_exactly_the_words_of_its_manifest(words: list[str]) -> None:
    manifest = Manifest(ROOTFS, ("/usr/bin/printf", "%s\\0", *words, "end"))
    with start(native_plan(CONFIG, manifest, None)) as guard:
        assert guard.word()["type"] == "ready"
        guard.release()
        assert guard.rest() == b"" and guard.end() == 0
        assert guard.channel.recv(4096) == b"".join(word.encode() + b"\0" for word in [*words, "end"])


# ---- the controls: with just one wall left out, its probe gets out and the guard goes no further


FILTERED = {
    "guard-mount": "mount", "guard-remount": "mount", "guard-umount": "umount2", "guard-open-tree": "open_tree",
    "guard-mount-setattr": "mount_setattr", "guard-chroot": "chroot", "guard-unshare-user": "unshare",
    "guard-setns": "setns", "guard-clone-user": "clone", "guard-clone3": "clone3", "guard-socket-inet": "socket",
    "guard-socket-udp": "socket", "guard-socket-unix": "socket", "guard-socket-netlink": "socket",
    "guard-socket-packet": "socket", "guard-socket-vsock": "socket", "guard-ptrace-parent": "ptrace",
    "guard-process-vm-readv": "process_vm_readv", "guard-process-vm-writev": "process_vm_writev",
    "guard-pidfd-getfd": "pidfd_getfd", "guard-open-by-handle": "open_by_handle_at", "guard-bpf": "bpf",
    "guard-perf-event": "perf_event_open", "guard-keyctl": "keyctl", "guard-io-uring": "io_uring_setup",
    "guard-userfaultfd": "userfaultfd",
}  # fmt: skip
"""The call that the filter lets through, by the probe that has to notice."""


def escaped(text: str) -> set[str]:
    assert "ESCAPED" in text, text
    return {part.split()[0] for part in text.split("), ") if " ESCAPED (" in part}


@pytest.mark.parametrize("name", sorted(FILTERED))
def test_with_one_call_let_through_its_probe_escapes_and_nothing_is_started(name: str) -> None:
    call = FILTERED[name]
    with start(plan("/bin/sh", "-c", "echo ran >&2", program=filter_without([call]))) as guard:
        with contextlib.suppress(BrokenPipeError):  # it may have ended by now
            guard.release()
        out = escaped(refusal(guard, "probe"))
    assert name in out and out <= {other for other, its in FILTERED.items() if its == call}


def test_every_probe_behind_the_filter_has_a_control() -> None:
    with start(plan()) as guard:
        names = set(probes_of(guard.word()))
    assert set(FILTERED.values()) <= set(CALLS)
    others = {"guard-open-rootfs-write", "guard-setuid-root", "guard-setgid-root", "guard-capability-raise"}
    assert {name for name in names if name.startswith("guard-")} == set(FILTERED) | others


def test_capabilities_that_are_left_are_refused(tmp_path: Path) -> None:
    commands = [("unshare", "--user", "--map-root-user")] if not ROOT else []
    commands += [()] if ROOT else []
    for before in commands:
        with start(plan(), before=before) as guard:
            assert "expected empty capability sets" in refusal(guard, "lockdown")


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs root")
@pytest.mark.parametrize("sets", ["--inh-caps=+chown", "--inh-caps=+chown --ambient-caps=+chown"])
def test_one_capability_in_one_set_is_refused(sets: str) -> None:
    before = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *sets.split()]
    with start(plan(), before=before) as guard:
        assert "expected empty capability sets" in refusal(guard, "lockdown")


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs root")
def test_where_root_is_left_the_guard_goes_no_further() -> None:
    # Without capabilities uid 0 is just an id, but one that owns the host's files.
    with start(plan(program=filter_without(["setuid", "setgid"])), before=KEPT_UID) as guard:
        assert escaped(refusal(guard, "probe")) == {"guard-setuid-root", "guard-setgid-root"}


def run_in(root: Path, *extra: str, without: tuple[str, ...] = (), before: tuple[str, ...] | None = None,
           plan_bytes: bytes | None = None) -> Guarded:  # fmt: skip
    outside = DROP_ALL[:-2] if ROOT else ()
    return start(plan_bytes or plan(), before=outside if before is None else before,
                 command=bubblewrap(root, *extra, without=without))  # fmt: skip


@pytest.fixture
def rootfs() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield make_rootfs(folder)


def test_inside_bubblewrap_every_probe_is_refused(rootfs: Path) -> None:
    with run_in(rootfs) as guard:
        said = probes_of(guard.word())
        assert {name: result for name, result in said.items() if result[0] != "REFUSED"} == {}
        assert said["guard-open-rootfs-write"][1].startswith("EROFS")
        guard.release()
        assert b"execve /bin/true: ENOENT" in guard.rest()


# ---- a kernel that only says yes: an outer filter answers 0 and does nothing, as if the wall stood


def lying_about(*calls: int) -> bytes:
    """A filter that answers these calls with success in the kernel's place."""
    rows = [(0x20, 0, 0, 0)]
    for number in calls:
        rows += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000)]
    return b"".join(struct.pack("<HBBI", *row) for row in [*rows, (0x06, 0, 0, ALLOW)])


def run_under(program: bytes, root: Path, *extra: str, plan_bytes: bytes | None = None) -> Guarded:
    outer = unsealed(program)
    os.lseek(outer, 0, os.SEEK_SET)
    outside = DROP_ALL[:-2] if ROOT else ()
    command = bubblewrap(root, "--seccomp", "20", *extra)
    return start(plan_bytes or plan(), before=outside, command=command, replace={20: outer})


def test_a_landlock_that_only_pretends_to_stand_is_noticed_by_its_probes(rootfs: Path) -> None:
    with run_under(lying_about(446), rootfs) as guard:
        out = escaped(refusal(guard, "probe"))
    assert out == {"landlock-tcp-bind", "landlock-tcp-connect", "landlock-write", "landlock-device-ioctl",
                   "landlock-signal-parent"}  # fmt: skip


def test_a_filter_that_only_pretends_to_stand_is_noticed_by_its_probes(rootfs: Path) -> None:
    with run_under(lying_about(317), rootfs) as guard:
        assert set(FILTERED) <= escaped(refusal(guard, "probe"))


def test_limits_and_no_new_privs_that_only_pretend_to_be_set_are_noticed(rootfs: Path) -> None:
    with run_under(lying_about(302), rootfs, plan_bytes=plan(limits={7: 64})) as guard:
        assert "another value" in refusal(guard, "lockdown")
    with run_under(lying_about(157), rootfs) as guard:
        assert refusal(guard, "lockdown").startswith("no_new_privs")


def test_a_root_that_can_be_written_is_noticed(rootfs: Path) -> None:
    rootfs.chmod(0o777)
    extra = ("--bind", str(rootfs), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")
    with run_under(lying_about(446), rootfs, *extra) as guard:
        assert "guard-open-rootfs-write" in escaped(refusal(guard, "probe"))
    assert not (rootfs / "ironbound-probe").exists()


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs root")
def test_capabilities_that_are_only_said_to_be_gone_are_noticed_by_the_probe(rootfs: Path) -> None:
    outer = unsealed(lying_about(125))
    os.lseek(outer, 0, os.SEEK_SET)
    need_bubblewrap()
    command = ["bwrap", "--unshare-pid", "--unshare-net", "--cap-add", "ALL", "--ro-bind", str(rootfs), "/",
               "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--seccomp", "20", "--",
               "/.ironbound/guard"]  # fmt: skip
    weak = plan(program=filter_without(["capset", "setuid", "setgid"]))
    with start(weak, before=(), command=command, replace={20: outer}) as guard:
        out = escaped(refusal(guard, "probe"))
    assert out == {"guard-capability-raise", "guard-setuid-root", "guard-setgid-root"}


@pytest.mark.parametrize("user", ["0", "65534"] if ROOT else [str(os.getuid())])
def test_a_tmp_that_is_not_its_own_is_left_as_it_is(user: str) -> None:
    # Root without capabilities still owns the host's /tmp: what is for a mount of its own must not reach that.
    alone = ("setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
             "--securebits", "+noroot")  # fmt: skip
    before = os.stat("/tmp").st_mode
    with start(plan("/bin/true"), before=alone if ROOT else ()) as guard:
        assert guard.word()["type"] in ("ready", "refused")
    assert os.stat("/tmp").st_mode == before
