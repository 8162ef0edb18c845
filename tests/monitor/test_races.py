"""What happens while the monitor looks: a release, an end, another process, a word that is not the kernel's."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ironbound.core.canonical import sha256_hex
from ironbound.monitor import events
from ironbound.monitor.environment import environment_of
from ironbound.monitor.files import Files
from ironbound.monitor.mounts import mounts_of
from ironbound.monitor.observe import Baseline, ProcessGone, digest_of, start_time
from ironbound.monitor.reconcile import Reconciler
from ironbound.monitor.strays import Strays
from ironbound.monitor.watch import Watch
from ironbound.monitor.watched import Watched

DIFFERENCE: Any = {"path": "fds", "expected": {}, "got": None}


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    pipe, variables = subprocess.PIPE, {"NAME": "value", "LD_X": "1"}
    with subprocess.Popen(["cat"], stdin=pipe, stdout=pipe, bufsize=0, env=variables) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"\n")
        assert process.stdout.read(1)  # it is the program, with all that it has
        yield process
        process.kill()


def said(pid: int, pid_start: int) -> dict[str, Any]:
    return {"launch": 7, "agent": "a", "pid": pid, "pid_start": pid_start, "runtime": "runc"}


# A look that races with the release


def looked(starts: bool) -> tuple[list[bool], list[Any]]:
    """A look at a held sandbox that shows a difference: as what it was looked at, and which drifts were found."""
    watched = Watched(None, said(1, 1), spoken=0.0)
    looks: list[bool] = []
    drifts: list[Any] = []
    one: Any = Watch.__new__(Watch)
    one._looking, one._watched = asyncio.Lock(), {7: watched}
    one._pulse = SimpleNamespace(sampled=lambda leaf: None)
    one._drifts = SimpleNamespace(found=lambda *what: drifts.append(what))
    one._outbox = SimpleNamespace(begin=lambda work: work.close())

    async def whole(this: Watched) -> tuple[Any, list[Any]]:
        looks.append(this.index is not None)
        if starts:
            asyncio.get_running_loop().call_later(0.02, setattr, this, "index", 9)  # the entry arrives meanwhile
        return {}, [] if looks[-1] else [DIFFERENCE]

    one._whole = whole

    async def run() -> None:
        await one._look(watched)

    asyncio.run(run())
    return looks, drifts


def closing(found: list[list[Any]]) -> list[Any]:
    """What is found of a running sandbox in one look after the other, the last one as often as it is asked for."""
    watched = Watched(9, said(1, 1), spoken=0.0)
    drifts: list[Any] = []
    later: list[Any] = []
    one: Any = Watch.__new__(Watch)
    one._looking, one._watched = asyncio.Lock(), {7: watched}
    one._pulse = SimpleNamespace(sampled=lambda leaf: None)
    one._drifts = SimpleNamespace(found=lambda *what: drifts.append(what))
    one._outbox = SimpleNamespace(begin=later.append)

    async def whole(this: Watched) -> tuple[Any, list[Any]]:
        differences = found.pop(0) if len(found) > 1 else found[0]
        if differences == ["gone"]:
            raise ProcessGone("gone")
        return {}, differences

    one._whole = whole

    async def run() -> None:
        later.append(one._look(watched))
        while later:
            work = later.pop(0)
            if work.__name__ in ("_look", "_look_later"):
                await work
            else:
                work.close()

    asyncio.run(run())
    return drifts


def test_a_process_that_closes_its_descriptors_and_ends_has_not_drifted_and_one_that_stays_has() -> None:
    closed = [{"path": "fds.7", "expected": "socket", "got": None}]
    assert closing([closed, closed, ["gone"]]) == []
    assert len(closing([closed])) == 1, "it goes on without them"
    other = [{"path": "fds.7", "expected": "socket", "got": "file"}]
    assert len(closing([other])) == len(closing([closed, [*closed, DIFFERENCE]])) == 1, "and no wait for anything else"


def test_a_sandbox_released_while_a_first_look_is_out_is_looked_at_again_as_one_that_runs() -> None:
    assert looked(starts=True) == ([False, True], [])
    looks, drifts = looked(starts=False)  # the control: what is still held must look as held
    assert looks == [False] and [one[0] for one in drifts] == ["posture-differs"]


# Numbers that pass to another


def test_what_is_watched_is_one_process_and_its_glance_is_void_once_there_are_others(
    child: subprocess.Popen[bytes],
) -> None:
    start = start_time(child.pid)
    with pytest.raises(ProcessGone):
        Watched(1, said(child.pid, start - 1)).glanced(frozenset(), thorough=False)
    watched = Watched(1, said(child.pid, start))
    for _ in range(12):  # what is read in turn
        watched.seen = watched.glanced(frozenset(), thorough=False)
    assert watched.is_as_seen(frozenset())
    assert not watched.is_as_seen({os.getpid()})
    child.kill()
    child.wait()
    assert not watched.is_as_seen(frozenset())
    watched.close()


def test_filters_that_were_not_read_anew_are_those_read_before() -> None:
    watched = Watched(1, said(1, 1))
    watched.keep({"filters": ["a"]}, (), asked=True)
    sample: Any = {"filters": None}
    watched.keep(sample, (), asked=False)
    assert sample["filters"] == ["a"]
    watched.keep({"filters": None}, (), asked=True)
    unread: Any = {"filters": None}
    watched.keep(unread, (), asked=False)
    assert unread["filters"] is None


# Processes without an entry


def strays(coming: dict[int, int], refresh: Any = lambda: None) -> tuple[Strays, list[int]]:
    reconciler = Reconciler(None, f"/test-{os.getpid()}", events=False)
    reconciler.zygote = os.getpid(), start_time(os.getpid())
    found: list[int] = []

    async def refreshed(seconds: float) -> None:
        refresh()

    log: Any = SimpleNamespace(refresh=refreshed)
    drifts: Any = SimpleNamespace(found=lambda *what, joined: found.append(what[3]))
    return Strays(log, reconciler, drifts, list, coming), found


def looks(one: Strays, times: int) -> None:
    for _ in range(times):
        asyncio.run(one.look(whole=True))


def test_a_stray_is_said_at_its_second_look_and_once(child: subprocess.Popen[bytes]) -> None:
    one, found = strays({})
    looks(one, 1)
    assert child.pid not in found
    looks(one, 3)
    assert found.count(child.pid) == 1


def test_the_youngest_of_a_launch_on_its_way_is_no_stray_and_once_that_is_over_it_is(
    child: subprocess.Popen[bytes],
) -> None:
    coming = {7: 1}
    one, found = strays(coming)
    looks(one, 4)
    assert child.pid not in found
    coming.clear()
    looks(one, 2)
    assert child.pid in found


def test_a_stray_that_ended_while_the_log_was_asked_is_not_said(child: subprocess.Popen[bytes]) -> None:
    def end() -> None:
        child.kill()
        child.wait()

    one, found = strays({}, end)
    looks(one, 3)
    assert child.pid not in found


# What the kernel tells


@pytest.mark.root
def test_a_message_of_a_process_in_the_kernel_s_form_is_dropped() -> None:
    source = events.subscribe()
    if source is None:
        pytest.skip("the kernel gives no process events here")
    try:
        forged = struct.pack("=36xIIQ4I", events.EXIT, 0, 0, 1, 1, 9, 9) + bytes(8)
        assert events._parse(bytearray(forged)) == events.Event(events.EXIT, 1, 0)  # the form is right
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11) as liar:
            liar.bind((0, 0))
            liar.sendto(forged, (source._link.getsockname()[0], 0))
        child = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(child, 0)
        seen: list[events.Event] = []
        deadline = time.monotonic() + 10
        while not any(one.what == events.EXIT and one.tgid == child for one in seen):
            assert time.monotonic() < deadline
            select.select([source.fileno()], [], [], 0.1)
            seen += source.read()
        assert {events.FORK, events.EXEC} <= {one.what for one in seen if one.tgid == child}
        assert events.Event(events.EXIT, 1, 0) not in seen
    finally:
        source.close()


# Files, mounts, variables


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_found_by_whoever_runs_it(tmp_path: Path) -> None:
    program, baseline = tmp_path / "program", Baseline({})
    program.write_bytes(b"first")
    os.utime(program, ns=(1, 1))
    files = Files(None, baseline)  # type: ignore[arg-type]
    digest = digest_of(str(program), baseline)
    assert digest is not None
    for launch in (7, 8):
        files.use(launch, str(program), digest)
    files.forget(8)
    assert files.changed_files() == {}
    other = tmp_path / "other"
    other.write_bytes(b"other")
    os.utime(other, ns=(1, 1))
    os.replace(other, program)
    assert select.select([files.fileno()], [], [], 10)[0]
    files.drain()
    (found,) = files.changed_files()[7]
    assert (found.path, found.got) == (f"files.{program}", sha256_hex(b"other")) and files.changed_files().keys() == {7}
    program.unlink()
    assert files.changed_files()[7][0].got is None
    files.forget(7)
    assert files.changed_files() == {}


def test_a_mount_point_with_spaces_and_line_ends_of_its_own_is_one_mount(tmp_path: Path) -> None:
    line = "36 35 98:0 /a\\040b /c\\011d\x0b ro,nosuid,relatime shared:1 - tmpfs none rw,size=4k\n"
    (tmp_path / "mountinfo").write_text(line)
    found = mounts_of(str(tmp_path))
    assert found is not None
    (one,) = found
    assert (one.source, one.point, one.kind, one.flags) == ("/a b", "/c\td\x0b", "tmpfs", {"ro", "nosuid"})
    assert one.options == ("rw", "size=4k")


def test_a_variable_is_told_by_its_digest_and_one_written_over_by_another(child: subprocess.Popen[bytes]) -> None:
    assert environment_of(child.pid) == {"NAME": sha256_hex(b"NAME=value"), "LD_X": sha256_hex(b"LD_X=1")}
    place = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[47])
    with open(f"/proc/{child.pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(place)
        memory.write(b"NAME=VALUE")
    found = environment_of(child.pid)
    assert found is not None and found["NAME"] == sha256_hex(b"NAME=VALUE")
    child.kill()
    child.wait()
    with pytest.raises(OSError, match="No such"):
        environment_of(child.pid)
