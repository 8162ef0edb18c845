"""The positive control of the native probes in containers: in one of the same runtime with every wall down, root's and
without the guard, the very same programs get out and say so.

Safe for the host as the others are (native_walls.py): nothing is written to what is the host's own.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from native_walls import NONCE, NOT_ON_THIS_HOST, ORDER, without_walls

from ironbound.canary.probes import load_probes
from ironbound.core.canary import verdict
from ironbound.core.container import HYBRID, Place, oci_config
from ironbound.node.native.container import BINARIES
from native_channel import careless
from native_stand import PROBE, folder_for_all, make_rootfs, start

TESTS = Path(__file__).resolve().parents[1]
ROWS = {shipped.name: shipped.document for shipped in load_probes("native")}
CONFIG = {
    "runtime": {"type": "", "max_memory": 512, "max_cpu": 100, "max_processes": 64},
    "scratch": {"max_bytes": 64 << 20, "max_files": 10_000},
}
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
        "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
]
#: What could not be taken down is seen at the end, by the probe that it kept in.
MUST = "static void must(const char *what, word result) { (void)what, (void)result; }\n"
#: What gVisor's kernel has not at all, or keeps in by itself whatever the configuration says; the control of these is
#: in bubblewrap's sandbox alone.
GVISOR_LACKS = {
    "mount-fsopen", "mount-fspick", "mount-open-tree", "mount-move", "mount-setattr", "capability-ambient",
    "capability-securebits", "capability-file", "prctl-set-mm", "no-new-privs-off", "setfsuid-root",
    "landlock-widen", "uevent-helper", "kernel-addresses", "sysfs-write", "cgroup-release-agent", "cgroup-limits",
    "cgroup-create", "device-tiocsti", "process-descriptor", "call-bpf", "call-userfaultfd", "call-io-uring",
    "call-x32", "call-i386", "call-modify-ldt", "call-iopl", "call-init-module", "call-kexec", "call-reboot",
    "call-swapon", "call-acct", "call-quotactl", "call-clock", "call-fanotify", "call-null-page", "network-raw",
    "network-packet",
}  # fmt: skip
#: What the host's kernel lacks, beside the calls.
HOST_LACKS = {"sysrq-trigger"} if not os.path.exists("/proc/sysrq-trigger") else set()


def program(folder: Path) -> Path:
    """The container's first process."""
    spec = importlib.util.spec_from_file_location("sdk_build", TESTS.parent / "sdk" / "c" / "build.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    source = folder / "open_container.c"
    source.write_bytes((TESTS / "canary" / "open_container.c").read_bytes())
    (folder / "open.h").write_text(without_walls(MUST), "ascii")
    tool.compile_native(source, folder / "open", folder / "caches")
    return folder / "open"


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Path]:
    with folder_for_all() as folder:
        root = make_rootfs(folder, [PROBE, program(tmp_path)])
        for name in ("etc", "run", "sys", "var"):
            (root / name).mkdir()
        yield folder


def opened(runtime: str, bundle: Path) -> dict[str, Any]:
    """The product's own configuration of a container, with every wall down."""
    config = {**CONFIG, "runtime": CONFIG["runtime"] | {"type": runtime}}
    place = Place(str(bundle / "rootfs"), str(bundle), 0, 0, True, f"/ironbound-open-{os.urandom(4).hex()}")
    value: dict[str, Any] = json.loads(oci_config(config, place))
    sets = ("bounding", "effective", "inheritable", "permitted", "ambient")
    value["process"] |= {"args": ["/open"], "noNewPrivileges": False}
    value["process"]["capabilities"] = dict.fromkeys(sets, CAPABILITIES)
    value["root"]["readonly"] = False
    value["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": []},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
    ]
    value["linux"] |= {"maskedPaths": [], "readonlyPaths": []}
    value["linux"]["resources"] = {"devices": [{"access": "rwm", "allow": True}]}
    return value


def found_in(runtime: str, bundle: Path) -> dict[str, tuple[str, str]]:
    """The verdict on each probe in a container without walls."""
    (bundle / "config.json").write_text(json.dumps(opened(runtime, bundle)))
    name = f"open-{os.urandom(4).hex()}"
    nested = ["--network=none", "--platform=systrap", "--overlay2=none", "--directfs=false"]
    command = [BINARIES[runtime], "--root", str(bundle / "state"), *(nested if runtime == "gvisor" else [])]
    command += ["run", "--bundle", str(bundle), name]
    before = list(HYBRID) if runtime == "crun" and os.path.ismount("/sys/fs/cgroup/unified") else []
    with start(b"\n", before=before, command=command, without=[3, 4, 5]) as started:
        careless(started.channel)
        said = started.rest().decode("utf-8", "replace")
        started.end()
    reports = {}
    for line in said.splitlines():
        if line.startswith('{"nonce":'):
            reports[json.loads(line)["probe"]] = line
    assert set(reports) == set(ORDER), (sorted(set(ORDER) - set(reports)), said[-500:])
    return {one: verdict(ROWS[one], NONCE, "finished", "", reports[one]) for one in ORDER}


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.parametrize("runtime", ["runc", "crun", "gvisor"])
def test_in_a_container_without_walls_every_probe_escapes_but_what_its_kernel_has_not_at_all(
    runtime: str, bundle: Path
) -> None:
    found = found_in(runtime, bundle)
    kept = {name: said for name, said in found.items() if said[0] != "ESCAPED"}
    lacks = GVISOR_LACKS if runtime == "gvisor" else set(NOT_ON_THIS_HOST) | HOST_LACKS
    print(f"{runtime}: {len(found) - len(kept)} of {len(found) - len(lacks)} positive controls escaped")
    assert set(kept) <= lacks, kept
