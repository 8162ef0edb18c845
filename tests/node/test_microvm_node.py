"""An agent in a virtual machine of its own: held, told apart, limited, ended. Every machine here really boots."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ironbound.canary.probes import load_probes
from ironbound.core.canary import verdict
from ironbound.core.canonical import Digest, canonical
from ironbound.core.native import Manifest
from ironbound.node.microvm import kernel as kernels
from ironbound.node.microvm import qemu as subject
from ironbound.node.microvm.kernel import Kernel, KernelMissing
from ironbound.node.microvm.machine import Machine
from ironbound.node.microvm.qemu import Qemu
from ironbound.node.runtime import HoldFailed, Order, Ready, Refused
from ironbound.terminal.init import initialise
from ironbound.wire.deployment import Deployment
from ironbound.wire.image_load import load_directory
from ironbound.wire.images import Images, shipped_guard
from native_channel import closed_table
from native_stand import PROBE, ROOT, filter_without, make_rootfs

CHECKOUT = Path(__file__).resolve().parents[2]
INIT = Path(subject.__file__).parent / "init"
SECONDS = 150.0

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU on this machine")


def build_tool() -> Any:
    spec = importlib.util.spec_from_file_location("sdk_build", CHECKOUT / "sdk" / "c" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    place = tmp_path_factory.mktemp("microvm")
    for one in (place, *place.parents):
        if one == place or one.name.startswith("pytest-"):
            one.chmod(one.stat().st_mode | 0o711)
    # A name of its own: a deployment's control groups are called after it, and its node ends whatever is in them.
    made = initialise(place / "d", f"vm-test-{os.urandom(4).hex()}", [("ada", b"phrase")], 1)
    try:
        kernels.place(made.root, *kernels.installed())
    except KernelMissing as missing:
        pytest.skip(str(missing))
    return made


@pytest.fixture(scope="module")
def rootfs(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Digest]:
    folder = tmp_path_factory.mktemp("rootfs")
    build_tool().compile_native(Path(__file__).with_name("puppet.c"), folder / "puppet", folder / "caches")
    root = make_rootfs(folder, [folder / "puppet", PROBE])
    for name in (".ironbound", "dev", "proc", "tmp"):
        shutil.rmtree(root / name)
    yield load_directory(root, deployment, shipped_guard()).digest
    for path, _, _ in os.walk(deployment.root / "images"):
        os.chmod(path, 0o755)
    subprocess.run(["rm", "-rf", deployment.root / "images"], check=True)


@pytest.fixture(scope="module")
def runtime(deployment: Deployment) -> Qemu:
    found = Qemu(deployment, Images(deployment))
    asyncio.run(found.start())
    return found


def configuration(**limits: int) -> bytes:
    values = {"max_memory": 128, "max_cpu": 100, "max_processes": 8, "max_open_files": 64, "max_wall_clock": 60}
    return canonical(
        {
            "version": 1,
            "profile": "vm",
            "runtime": {"type": "qemu-microvm", "strict_security": True, **values, **limits},
            "channel": {"max_message": 65536, "max_messages_per_second": 100},
            "scratch": {"max_bytes": 1 << 20, "max_files": 32},
        }
    )


def manifest(rootfs: Digest, *words: str) -> bytes:
    return Manifest(rootfs, ("/puppet", *words), ("LANG=C.UTF-8",)).encode()


@asynccontextmanager
async def held(
    runtime: Qemu, module: bytes, config: bytes, launch: int = 1, nonce: str | None = None
) -> AsyncIterator[tuple[Machine, asyncio.StreamReader, asyncio.StreamWriter]]:
    mine, its = socket.socketpair()
    uids = runtime._deployment.sandbox_uids
    uid = uids.start + launch if uids else os.getuid()
    with its:
        order = Order(launch, uid, uid if uids else os.getgid(), config, module, its, nonce)
        try:
            machine = await runtime.hold(order)
        except HoldFailed:
            mine.close()
            raise
    reader, writer = await asyncio.open_connection(sock=mine)
    try:
        async with asyncio.timeout(SECONDS):
            yield machine, reader, writer
    finally:
        machine.kill()
        await machine.ended()
        writer.close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_guard_in_the_machine_tells_the_digests_and_is_refused_everywhere_and_the_agent_speaks_on_its_channel(
    runtime: Qemu, rootfs: Digest
) -> None:
    async def run() -> None:
        config, module = configuration(), manifest(rootfs, "look")
        async with held(runtime, module, config) as (machine, reader, writer):
            word = await machine.ready()
            assert isinstance(word, Ready), word
            assert (word.config_sha256, word.module_sha256) == (sha256(config), sha256(module))
            assert len(word.probes) >= 20 and {probe.verdict for probe in word.probes} == {"REFUSED"}
            assert machine.envelope["inside"]["3"] == sha256(config)
            await machine.release()
            said = (await reader.readuntil(b"end\n")).decode()
            writer.write(b"a line of the agent's\n")
            assert await reader.readline() == b"a line of the agent's\n"
            writer.write(b"quit\n")
            end = await machine.ended()
        assert (end.reason, end.status, end.report) == ("finished", 0, "that was all\n")
        folders = {line.split(":")[0]: set(line.split(":")[1].split()) for line in said.splitlines() if line[:1] == "/"}
        assert folders["/"] - {".", ".."} == {".ironbound", "dev", "probe", "proc", "puppet", "tmp"}
        assert folders["/.ironbound"] - {".", ".."} == {"guard"}
        assert {"null", "zero", "full", "random", "urandom"} < folders["/dev"]
        assert not [name for name in folders["/dev"] if name.startswith(("vport", "mem", "console", "tty", "hvc"))]
        assert "eth" not in said and "ens" not in said  # no network device; the loopback one is down
        assert "Uid:\t65534\t65534\t65534\t65534" in said and "CapEff:\t0000000000000000" in said

    asyncio.run(run())


def test_qemu_itself_runs_without_privilege_in_namespaces_of_its_own(runtime: Qemu, rootfs: Digest) -> None:
    async def run() -> None:
        async with held(runtime, manifest(rootfs), configuration(), 2) as (machine, _, _):
            word = await machine.ready()  # before, QEMU still opens and closes files
            assert isinstance(word, Ready), word
            process = Path(f"/proc/{machine.pid}")
            status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
            assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} <= {"0" * 16} or not ROOT
            assert status["CapEff"] == "0" * 16 and status["NoNewPrivs"] == "1"
            assert status["Uid"].split()[0] != "0"
            for kind in ("net", "ipc", "uts", "pid", "mnt", "cgroup"):
                assert os.readlink(process / "ns" / kind) != os.readlink(f"/proc/self/ns/{kind}"), kind
            assert os.readlink(process / "exe") == runtime._binary
            names = {int(name): os.readlink(process / "fd" / name) for name in os.listdir(process / "fd")}
            assert [names[number].split(":")[0].split(" ")[0] for number in range(3, 11)] == [
                "/memfd", "/memfd", "/memfd", "/memfd", "socket", "socket", "socket", "socket",
            ]  # fmt: skip
            assert not [name for name in names.values() if "tun" in name or "vhost" in name]
            roots = [line.split()[4] for line in (process / "mountinfo").read_text().splitlines()]
            assert "/" in roots and not [path for path in roots if path.startswith(("/home", "/root", "/etc", "/var"))]
            machine.kill()
            end = await machine.ended()
        assert end.reason == "killed" and not process.exists()

    asyncio.run(run())


@pytest.mark.slow
def test_limits_hold_inside_and_a_failure_of_the_agent_is_its_own(runtime: Qemu, rootfs: Digest) -> None:
    async def fill() -> None:
        async with held(runtime, manifest(rootfs, "fill"), configuration(), 3) as (machine, reader, writer):
            assert isinstance(await machine.ready(), Ready)
            await machine.release()
            children, size, files = (int(word) for word in (await reader.readline()).split())
            assert (children, size, files) == (7, 1 << 20, 32 - 3)
            writer.write(b"quit\n")
            assert (await machine.ended()).reason == "finished"

    async def eat() -> None:
        async with held(runtime, manifest(rootfs, "eat"), configuration(), 4) as (machine, _, _):
            assert isinstance(await machine.ready(), Ready)
            await machine.release()
            end = await machine.ended()
            assert (end.reason, end.status) == ("limit", -9), end

    async def run() -> None:
        await asyncio.gather(fill(), eat())

    asyncio.run(run())


@pytest.mark.slow
def test_the_wall_clock_ends_a_busy_agent_and_what_fails_says_so(runtime: Qemu, rootfs: Digest) -> None:
    async def spin() -> None:
        config = configuration(max_wall_clock=1)
        async with held(runtime, manifest(rootfs, "spin"), config, 5) as (machine, _, _):
            assert isinstance(await machine.ready(), Ready)
            await machine.release()
            end = await machine.ended()
            assert end.reason == "wall-clock" and end.wall_ms >= 1000, end

    async def fail() -> None:
        async with held(runtime, manifest(rootfs, "fail"), configuration(), 6) as (machine, _, writer):
            assert isinstance(await machine.ready(), Ready)
            await machine.release()
            writer.write(b"quit\n")
            end = await machine.ended()
            assert (end.reason, end.status, end.report) == ("exit", 7, "that was all\n")

    async def run() -> None:
        await asyncio.gather(spin(), fail())

    asyncio.run(run())


def test_a_machine_that_ends_before_it_is_ready_says_how(runtime: Qemu, rootfs: Digest) -> None:
    async def run() -> Refused:
        async with held(runtime, manifest(rootfs), configuration(), 12) as (machine, _, _):
            os.kill(machine.pid, signal.SIGKILL)
            word = await machine.ready()
            assert isinstance(word, Refused), word
            return word

    word = asyncio.run(run())
    assert word.stage == "lockdown"
    assert word.text.startswith("the virtual machine ended before its guard was ready: ended by SIGKILL"), word.text


# ---- controls: the same machine with a wall taken away


def weakened_init(folder: Path, name: str, wall: str, instead: str) -> bytes:
    """The first process with one of its steps, in this source, exchanged for another."""
    place = folder / "node" / "microvm" / "init"
    shutil.copytree(INIT, place)
    shutil.copytree(INIT.parents[1] / "native" / "guard", folder / "node" / "native" / "guard")
    text = (place / name).read_text("utf-8")
    assert text.count(wall) == 1
    (place / name).write_text(text.replace(wall, instead), "utf-8")
    build_tool().compile_native(place / "init.c", folder / "init", folder / "caches")
    return (folder / "init").read_bytes()


@pytest.mark.slow
def test_control_an_init_that_keeps_root_is_caught_by_the_guard_and_without_a_filter_its_probes_escape(
    runtime: Qemu, rootfs: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refusal(launch: int) -> Refused:
        async with held(runtime, manifest(rootfs), configuration(), launch) as (machine, _, _):
            word = await machine.ready()
            assert isinstance(word, Refused), word
            return word

    with monkeypatch.context() as patched:
        patched.setattr(runtime, "_init", weakened_init(tmp_path, "init.c", *KEEPS_ROOT))
        word = asyncio.run(refusal(7))
        assert word.stage == "lockdown" and "capability sets" in word.text
    with monkeypatch.context() as patched:
        exact = subject.plan

        def weaker(*arguments: Any) -> bytes:
            lines = exact(*arguments).splitlines(keepends=True)
            program = filter_without(["socket", "keyctl"]).hex()
            return b"".join(f"filter {program}\n".encode() if line.startswith(b"filter ") else line for line in lines)

        patched.setattr(subject, "plan", weaker)
        word = asyncio.run(refusal(8))
        assert word.stage == "probe"
        assert "guard-socket-inet ESCAPED" in word.text and "guard-keyctl ESCAPED" in word.text


HOSTILE = ("limit-inodes", "limit-memory", "limit-processes", "channel-operator", "network-vsock", "kernel-memory")
NONCE = "0123456789abcdef0123456789abcdef"
#: A step of the first process, and what stands there instead.
KEEPS_ROOT = ("    become_user(from);\n", "    if (!from) become_user(from);\n")
BOUNDS_NO_FILES = ("put_number(&options, (word)files + 1);", "put_number(&options, files ? 0 : 1);")


async def hostile(runtime: Qemu, rootfs: Digest, name: str, launch: int, *most: str) -> str:
    """The verdict on a hostile agent in a machine; `most` bounds what it asks for."""
    rows = {shipped.name: shipped.document for shipped in load_probes("native")}
    module = Manifest(rootfs, ("/probe", name, *most)).encode()
    mine, its = socket.socketpair()
    uids = runtime._deployment.sandbox_uids
    uid = uids.start + launch if uids else os.getuid()
    with its:
        order = Order(launch, uid, uid if uids else os.getgid(), configuration(), module, its, NONCE)
        machine = await runtime.hold(order)
    try:
        word = await machine.ready()
        assert isinstance(word, Ready), word
        closed_table(mine)
        await machine.release()
        end = await machine.ended()
        return verdict(rows[name], NONCE, end.reason, end.text, end.report)[0]
    finally:
        machine.kill()
        await machine.ended()


@pytest.mark.slow
def test_hostile_agents_are_refused_in_a_machine_and_one_escapes_where_its_wall_is_taken_away(
    runtime: Qemu, rootfs: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def all_of_them() -> dict[str, str]:
        found = {}
        for number, name in enumerate(HOSTILE, 10):
            found[name] = await hostile(runtime, rootfs, name, number)
        return found

    assert asyncio.run(all_of_them()) == dict.fromkeys(HOSTILE, "REFUSED")
    monkeypatch.setattr(runtime, "_init", weakened_init(tmp_path, "place.h", *BOUNDS_NO_FILES))
    assert asyncio.run(hostile(runtime, rootfs, "limit-inodes", 30, "1000")) == "ESCAPED"


@pytest.mark.root
def test_a_machine_whose_control_group_is_somebody_else_s_is_refused_and_nobody_is_ended(
    runtime: Qemu, rootfs: Digest
) -> None:
    """Two deployments of one name on a host: the second must not end the first one's machines."""

    async def run() -> None:
        async with held(runtime, manifest(rootfs), configuration(), 13) as (machine, _, _):
            with pytest.raises(HoldFailed) as caught:
                async with held(runtime, manifest(rootfs), configuration(), 13):
                    pass
            assert (caught.value.stage, caught.value.reason) == ("spawn", "sandbox-unavailable")
            assert "File exists" in caught.value.text
            assert isinstance(await machine.ready(), Ready)

    asyncio.run(run())


# ---- what is refused before anything starts


def expect_failure(runtime: Qemu, module: bytes, config: bytes) -> HoldFailed:
    async def run() -> None:
        async with held(runtime, module, config, 9):
            pass

    with pytest.raises(HoldFailed) as caught:
        asyncio.run(run())
    return caught.value


def test_a_kernel_file_changed_after_the_measurement_stops_the_launch(deployment: Deployment, rootfs: Digest) -> None:
    fresh = Qemu(deployment, Images(deployment))
    file = deployment.root / kernels.FOLDER / "virtio_console.ko"
    data = file.read_bytes()
    file.chmod(0o644)
    try:
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        failure = expect_failure(fresh, manifest(rootfs), configuration())
    finally:
        file.write_bytes(data)
        file.chmod(0o444)
    assert failure.reason == "runtime-differs" and "virtio_console.ko" in failure.text


def test_an_image_changed_on_disk_or_not_there_stops_the_launch(deployment: Deployment, rootfs: Digest) -> None:
    fresh = Qemu(deployment, Images(deployment))
    file = deployment.root / "images" / rootfs / "puppet"
    data = file.read_bytes()
    file.chmod(0o755)
    try:
        file.write_bytes(data + b"x")
        file.chmod(0o555)
        failure = expect_failure(fresh, manifest(rootfs), configuration())
    finally:
        file.chmod(0o755)
        file.write_bytes(data)
        file.chmod(0o555)
    assert failure.reason == "image-differs"
    assert expect_failure(fresh, manifest(Digest("0" * 64)), configuration()).reason == "image-differs"


def test_a_setting_that_cannot_be_held_is_named(runtime: Qemu, rootfs: Digest) -> None:
    for limits, name in (({"max_memory": 64}, "max_memory"), ({"max_cpu": 6400}, "max_cpu")):
        failure = expect_failure(runtime, manifest(rootfs), configuration(**limits))
        assert failure.reason == "setting-unenforced" and failure.text.startswith(f"runtime.{name}: ")


def test_a_deployment_without_a_kernel_says_how_to_place_one(tmp_path: Path) -> None:
    with pytest.raises(KernelMissing, match="ironbound image kernel"):
        Kernel(tmp_path, "qemu-microvm")
