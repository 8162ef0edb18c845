"""The positive control of every wall: with just that one absent, the worker's own probe gets out."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WALLS = Path(__file__).with_name("walls.py")
ROOT = os.getuid() == 0
ALL = {"uid", "capabilities", "landlock", "seccomp"}
NOBODY = "65534"

LANDLOCK = {"landlock-open-read", "landlock-create-file", "landlock-execute", "landlock-tcp-bind",
            "landlock-tcp-connect", "landlock-signal-parent"}  # fmt: skip
# Behind the filter stand other walls; these are what it alone holds.
ONLY_SECCOMP = {f"seccomp-{name}" for name in (
    "open", "open-own-memory", "create-file", "read-other-descriptor", "execve", "fork", "clone", "clone3",
    "socket-tcp", "socket-udp", "socket-unix", "socket-netlink", "pass-descriptors", "process-vm-readv",
    "process-vm-writev", "memfd", "map-executable", "make-executable", "make-executable-pkey", "keyctl", "capset",
    "prctl", "ioctl", "shared-memory")}  # fmt: skip

USERS = [
    pytest.param("root", marks=[pytest.mark.root, pytest.mark.skipif(not ROOT, reason="needs root")]),
    "user",
]


def probe(walls: set[str], user: str) -> dict[str, tuple[str, str]]:
    """The verdicts with these walls, in a process of its own, by probe name."""
    command = [sys.executable, "-I", str(WALLS), *sorted(walls)]
    if user == "user" and ROOT:
        command = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", *command]
    read, write = os.pipe()
    spare = os.open("/dev/null", os.O_RDONLY)
    try:
        os.set_inheritable(write, True)
        # Descriptor 6 is where walls.py answers, 4 is a file and 5 a pipe, as the probes expect them.
        script = f'exec 4</dev/null 5>/dev/null 6>&{write}; exec "$@"'
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *command] if write < 10 else ["/bin/bash", "-c", script, "sh", *command],
            pass_fds=(write,), capture_output=True, timeout=30, cwd="/", env={}, check=False,
        )  # fmt: skip
        os.close(write)
        write = -1
        with os.fdopen(read, "rb") as answer:
            read = -1
            text = answer.read()
        assert done.returncode == 0, done.stderr.decode()
    finally:
        for descriptor in (read, write, spare):
            if descriptor >= 0:
                os.close(descriptor)
    said = json.loads(text)
    merged = {name: tuple(result) for name, result in said["behind"].items()}
    return {**merged, **{name: tuple(result) for name, result in said["before"].items()}}


def escaped(results: dict[str, tuple[str, str]]) -> set[str]:
    return {name for name, (verdict, _) in results.items() if verdict == "ESCAPED"}


@pytest.mark.parametrize("user", USERS)
def test_behind_all_walls_every_probe_is_refused(user: str) -> None:
    results = probe(ALL, user)
    assert {name: result for name, result in results.items() if result[0] != "REFUSED"} == {}


@pytest.mark.parametrize("user", USERS)
def test_without_landlock_just_its_probes_escape(user: str) -> None:
    assert escaped(probe(ALL - {"landlock"}, user)) == LANDLOCK


@pytest.mark.parametrize("user", USERS)
def test_without_the_filter_its_probes_escape(user: str) -> None:
    out = escaped(probe(ALL - {"seccomp"}, user))
    assert out >= ONLY_SECCOMP
    assert not out & (LANDLOCK | {"capability-raise", "setuid-root"})


@pytest.mark.parametrize("user", USERS)
def test_with_capabilities_kept_a_capability_is_raised(user: str) -> None:
    # As root the uid wall takes the capabilities along, so both are left out.
    out = escaped(probe({"landlock", "seccomp"}, user))
    assert "capability-raise" in out and not out & LANDLOCK


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs root")
def test_with_the_uid_kept_root_stays_root() -> None:
    out = escaped(probe(ALL - {"uid"}, "root"))
    assert out == {"setuid-root"}


@pytest.mark.root
@pytest.mark.skipif(not ROOT, reason="needs root")
def test_without_any_wall_every_probe_escapes() -> None:
    results = probe(set(), "root")
    absent = os.strerror(errno.EPERM)
    kept = {name: result for name, result in results.items() if result[0] != "ESCAPED"}
    # A host may forbid io_uring or user faults to everyone; whatever else is refused here is a probe that can't fail.
    assert set(kept) <= {"seccomp-io-uring", "seccomp-userfaultfd"} and all(absent in item[1] for item in kept.values())
