"""A stand-in for Firecracker's jailer and for Firecracker, where neither can be had. It starts no machine.

As `jailer` it does what the jailer's document says of files, users and the pid file, without the root and the
namespaces. As `firecracker` it serves the published API in the jail, and plays the guest: it takes configuration and
module out of the RAM disk in the jail, says their digests as the guard does, and echoes what comes on the channel.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

import firecracker_api

SECONDS = 20.0


def jailer(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    for name in ("id", "exec-file", "chroot-base-dir", "cgroup-version", "parent-cgroup"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    parser.add_argument("--new-pid-ns", action="store_true", required=True)
    parser.add_argument("--cgroup", action="append", required=True)
    parser.add_argument("--resource-limit", action="append", required=True)
    cut = arguments.index("--")
    said = parser.parse_args(arguments[:cut])
    name = Path(said.exec_file).name
    root = Path(said.chroot_base_dir, name, said.id, "root")
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(said.exec_file, root / name)
    for limit in said.resource_limit:  # before the pid file is written
        kind, _, value = limit.partition("=")
        number = {"fsize": resource.RLIMIT_FSIZE, "no-file": resource.RLIMIT_NOFILE}[kind]
        resource.setrlimit(number, (int(value), int(value)))
    os.chown(root, said.uid, said.gid)
    os.chdir(root)
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(said.gid, said.gid, said.gid)
        os.setresuid(said.uid, said.uid, said.uid)
        os.execve(f"./{name}", [f"./{name}", f"--id={said.id}", *arguments[cut + 1 :]], {})
    Path(f"{name}.pid").write_text(str(child))


def members(data: bytes) -> dict[str, bytes]:
    """The files of an archive of cpio's newc kind."""
    found, at = {}, 0
    while data[at : at + 6] == b"070701":
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, named = fields[6], fields[11]
        name = data[at + 110 : at + 110 + named - 1].decode()
        begin = at + 110 + named + -(110 + named) % 4
        found[name] = data[begin : begin + size]
        at = begin + size + -size % 4
    return found


def connect(port: int) -> socket.socket:
    endpoint = socket.socket(socket.AF_UNIX)
    endpoint.settimeout(SECONDS)
    endpoint.connect(f"v.sock_{port}")
    return endpoint


def guest() -> None:
    files = members(Path("initrd").read_bytes())
    digests = [hashlib.sha256(files[f".ironbound-vm/{name}"]).hexdigest() for name in ("config", "module")]
    channel, control, status = (connect(port) for port in (1, 2, 3))
    word = '{"config_sha256":"%s","module_sha256":"%s","probes":[],"type":"ready"}\n'
    control.sendall((word % tuple(digests)).encode())
    if control.recv(100) != b"release\n":
        return
    control.sendall(b"agent: here\n")
    while part := channel.recv(65536):
        channel.sendall(part.upper())
    status.sendall(b"ended 0 5 100 0\n")


def firecracker(arguments: list[str], shared_data: Path, mode: str) -> None:
    api = firecracker_api.description(shared_data)
    socket_name = arguments[arguments.index("--api-sock") + 1].lstrip("/")
    refusing = "/boot-source" if mode == "refusing" else None
    with firecracker_api.serving(api, Path(socket_name), refusing) as taken:
        deadline = time.monotonic() + SECONDS
        while ("/actions", "") not in taken and time.monotonic() < deadline:
            time.sleep(0.005)
        print("booting", flush=True)
        if mode == "silent":
            time.sleep(SECONDS)
        time.sleep(0.05)  # let the last answer out
    if mode == "working":
        guest()


def main(mode: str, shared_data: Path) -> Any:
    """What the programs in a test's folder call."""
    name = Path(sys.argv[0]).name
    return jailer(sys.argv[1:]) if name == "jailer" else firecracker(sys.argv[1:], shared_data, mode)
