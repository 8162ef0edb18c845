"""Firecracker's runtime up to the two programs that can't be had here: the jailer and Firecracker are stand-ins that
judge by the published description (`firecracker_standin.py`). No machine is started.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firecracker_api import description, serving
from ironbound.core import firecracker
from ironbound.core.canonical import canonical, sha256_hex
from ironbound.core.firecracker import Request
from ironbound.core.native import Manifest
from ironbound.node.microvm import api as api_client
from ironbound.node.microvm import firecracker as subject
from ironbound.node.microvm import kernel as kernels
from ironbound.node.microvm.api import ApiRefused, configure
from ironbound.node.microvm.firecracker import Firecracker
from ironbound.node.runtime import HoldFailed, Order, Ready
from ironbound.terminal.init import initialise
from ironbound.wire.deployment import Deployment
from ironbound.wire.image_load import load_directory
from ironbound.wire.images import Images, shipped_guard


def config() -> dict[str, Any]:
    return {"runtime": {"type": "firecracker", "max_memory": 128, "max_cpu": 100}, "scratch": {}}


@pytest.fixture
def api(shared_data: Path) -> dict[str, Any]:
    return description(shared_data)


def test_every_request_is_taken_in_its_order_by_an_api_that_keeps_to_the_description(
    api: dict[str, Any], tmp_path: Path
) -> None:
    with serving(api, tmp_path / "api") as taken:
        asyncio.run(configure(str(tmp_path / "api"), firecracker.requests(config())))
    assert taken == [("/machine-config", ""), ("/boot-source", ""), ("/vsock", ""), ("/actions", "")]


def test_after_a_request_that_is_refused_nothing_is_sent_and_the_machine_does_not_start(
    api: dict[str, Any], tmp_path: Path
) -> None:
    with serving(api, tmp_path / "api", refusing="/boot-source") as taken, pytest.raises(ApiRefused) as refused:
        asyncio.run(configure(str(tmp_path / "api"), firecracker.requests(config())))
    assert [path for path, _ in taken] == ["/machine-config", "/boot-source"]
    assert str(refused.value) == "/boot-source: 400: The kernel file cannot be opened: [2J no."


def test_the_stand_in_refuses_what_the_description_does_not_allow(api: dict[str, Any], tmp_path: Path) -> None:
    wrong = Request("PUT", "/machine-config", b'{"vcpu_count":0,"mem_size_mib":128,"unknown":1}')
    with serving(api, tmp_path / "api"), pytest.raises(ApiRefused, match="minimum.*unknown: not in the description"):
        asyncio.run(configure(str(tmp_path / "api"), [wrong]))


def test_an_api_that_appears_late_is_waited_for_and_one_that_never_does_is_a_refusal(
    api: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late() -> list[tuple[str, str]]:
        asking = asyncio.create_task(configure(str(tmp_path / "late"), firecracker.requests(config())))
        await asyncio.sleep(0.05)
        with serving(api, tmp_path / "late") as taken:
            await asking
        return taken

    assert len(asyncio.run(late())) == 4
    monkeypatch.setattr(api_client, "APPEAR_S", 0.05)
    with pytest.raises(ApiRefused, match="no API"):
        asyncio.run(configure(str(tmp_path / "never"), firecracker.requests(config())))


def test_an_answer_that_is_no_http_is_a_refusal(tmp_path: Path) -> None:
    async def garbage() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"SSH-2.0-x\r\n\r\n")
            writer.close()

        async with await asyncio.start_unix_server(answer, str(tmp_path / "api")):
            await configure(str(tmp_path / "api"), firecracker.requests(config()))

    with pytest.raises(ApiRefused, match="RemoteProtocolError"):
        asyncio.run(garbage())


# The runtime, with a stand-in for the two programs


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    place = tmp_path_factory.mktemp("firecracker")
    for one in (place, *place.parents):
        if one == place or one.name.startswith("pytest-"):
            one.chmod(one.stat().st_mode | 0o711)
    made = initialise(place / "d", f"fire-test-{os.urandom(4).hex()}", [("ada", b"phrase")], 1)
    elf = gzip.compress(b"\x7fELF a kernel")
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x208] = b"HdrS\x0f\x02"
    head[0x24C:0x250] = len(elf).to_bytes(4, "little")
    (place / "vmlinuz").write_bytes(bytes(head) + elf)
    (place / "modules").mkdir()
    for name in kernels.module_names():
        (place / "modules" / f"{name}.ko").write_bytes(name.encode())
    kernels.place(made.root, place / "vmlinuz", place / "modules")
    (place / "rootfs").mkdir()
    (place / "rootfs" / "agent").write_bytes(b"#!/bin/agent")
    load_directory(place / "rootfs", made, shipped_guard())
    yield made
    for path, _, _ in os.walk(made.root / "images"):
        os.chmod(path, 0o755)
    subprocess.run(["rm", "-rf", made.root / "images"], check=True)


Host = Callable[[str], Firecracker]


@pytest.fixture
def host(
    deployment: Deployment, shared_data: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Host:
    """A host on which the two programs are stand-ins."""

    def made(mode: str) -> Firecracker:
        programs = tmp_path_factory.mktemp("programs")
        tests = Path(__file__).resolve().parent
        for name in ("firecracker", "jailer"):
            (programs / name).write_text(
                f"#!{sys.executable} -B\nimport sys\nsys.path += [{str(tests)!r}, {str(tests.parent)!r}]\n"
                f"import pathlib, firecracker_standin\n"
                f"firecracker_standin.main({mode!r}, pathlib.Path({str(shared_data)!r}))\n"
            )
            (programs / name).chmod(0o755)
        monkeypatch.setattr(subject, "SEARCH", f"{programs}:/usr/bin:/bin")
        monkeypatch.setattr(subject, "KVM", "/dev/null")
        return Firecracker(deployment, Images(deployment))

    return made


def configuration(**limits: int) -> bytes:
    values = {"max_memory": 128, "max_cpu": 100, "max_processes": 8, "max_open_files": 64, "max_wall_clock": 60}
    return canonical(
        {
            "version": 1,
            "profile": "fire",
            "runtime": {"type": "firecracker", "strict_security": True, **values, **limits},
            "channel": {"max_message": 65536, "max_messages_per_second": 100},
            "scratch": {"max_bytes": 1 << 20, "max_files": 32},
        }
    )


def order(runtime: Firecracker, channel: socket.socket, launch: int = 1, config: bytes | None = None) -> Order:
    deployment = runtime._deployment
    uids = deployment.sandbox_uids
    assert uids is not None
    (digest,) = Images(deployment).digests()
    module = Manifest(digest, ("/agent",)).encode()
    uid = uids.start + launch
    return Order(launch, uid, uid, configuration() if config is None else config, module, channel, None)


def jails(runtime: Firecracker) -> list[str]:
    return [str(one) for one in (runtime._deployment.root / "jails").glob("*/*")]


@pytest.mark.root
def test_a_machine_consumes_what_was_approved_and_its_channel_reaches_the_agent(host: Host) -> None:
    runtime = host("working")

    async def whole() -> None:
        mine, its = socket.socketpair()
        with its:
            wanted = order(runtime, its)
            machine = await runtime.hold(wanted)
        word = await machine.ready()
        assert isinstance(word, Ready)
        assert word.config_sha256 == sha256_hex(wanted.config) and word.module_sha256 == sha256_hex(wanted.module)
        assert os.stat(f"/proc/{machine.pid}").st_uid == wanted.uid
        assert machine.envelope["files"]["vmlinux"] == sha256_hex(b"\x7fELF a kernel")
        await machine.release()
        reader, writer = await asyncio.open_connection(sock=mine)
        writer.write(b"hello\n")
        assert await asyncio.wait_for(reader.readline(), 20) == b"HELLO\n"
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 20) == b""
        ended = await machine.ended()
        writer.close()
        assert (ended.reason, ended.report, ended.status) == ("finished", "agent: here\n", 0)
        await runtime.close()

    asyncio.run(whole())
    assert jails(runtime) == []


def refused(runtime: Firecracker, config: bytes | None = None) -> HoldFailed:
    async def whole() -> HoldFailed:
        mine, its = socket.socketpair()
        with mine, its, pytest.raises(HoldFailed) as failed:
            await runtime.hold(order(runtime, its, config=config))
        await runtime.close()
        return failed.value

    return asyncio.run(whole())


@pytest.mark.root
@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("refusing", "/boot-source: 400"),
        ("dying", "it ended before its guest opened the channel connection: "),
        ("silent", "expected the guest's channel connection within 1 s: "),
    ],
)
def test_a_machine_that_does_not_come_up_is_refused_and_leaves_nothing(
    host: Host, mode: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = host(mode)
    if mode == "silent":
        monkeypatch.setattr(subject, "READY_SECONDS", 1.0)
    failure = refused(runtime)
    assert (failure.stage, failure.reason) == ("spawn", "sandbox-unavailable") and text in failure.text
    assert (mode == "refusing") == ("booting" not in failure.text)
    assert jails(runtime) == []
    uids = runtime._deployment.sandbox_uids
    assert uids is not None
    assert [pid for pid in os.listdir("/proc") if pid.isdigit() and alive_as(pid) in uids] == []


def alive_as(pid: str) -> int:
    """The user of a process; -1 where it has ended, though its parent (here none of ours) may not know yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return -1 if state == "Z" else os.stat(f"/proc/{pid}").st_uid
    except (FileNotFoundError, ProcessLookupError):
        return -1


@pytest.mark.root
@pytest.mark.parametrize("name", ["_binary", "_jailer"])
def test_a_program_that_changed_since_the_node_started_is_not_called(host: Host, name: str) -> None:
    runtime = host("working")
    with open(getattr(runtime, name), "a") as file:
        file.write("# changed\n")
    failure = refused(runtime)
    assert (failure.stage, failure.reason) == ("runtime", "runtime-differs")
    assert "changed since the node started" in failure.text


@pytest.mark.root
def test_a_kernel_that_changed_since_the_node_started_is_not_booted(host: Host, deployment: Deployment) -> None:
    runtime = host("working")
    vmlinuz = deployment.root / kernels.FOLDER / kernels.KERNEL
    before = vmlinuz.read_bytes()
    try:
        vmlinuz.chmod(0o644)
        vmlinuz.write_bytes(before[:-1] + b"x")
        failure = refused(runtime)
    finally:
        vmlinuz.write_bytes(before)
    assert (failure.stage, failure.reason) == ("runtime", "runtime-differs")


@pytest.mark.root
def test_a_setting_that_firecracker_cannot_enforce_is_refused_by_its_name(host: Host) -> None:
    failure = refused(host("working"), configuration(max_cpu=6400))
    assert failure.reason == "setting-unenforced" and failure.text.startswith("runtime.max_cpu: ")
    failure = refused(host("working"), configuration(max_memory=16))
    assert failure.reason == "setting-unenforced" and failure.text.startswith("runtime.max_memory: ")


def test_a_host_without_the_programs_says_that_firecracker_is_not_tested_and_what_it_lacks(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "SEARCH", "/nowhere")
    monkeypatch.setattr(subject, "KVM", "/nowhere/kvm")
    with pytest.raises(FileNotFoundError) as lacks:
        Firecracker(deployment, Images(deployment))
    text = str(lacks.value)
    assert "not tested" in text
    assert all(one in text for one in ("the program firecracker", "the program jailer", "/nowhere/kvm"))
    assert ("a node that is root" in text) == (not deployment.separated)
