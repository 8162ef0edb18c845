"""An agent in a virtual machine, through a whole deployment: approved, launched, observed, stopped, and evidenced."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from idle_agent import SPIN, program
from stand import Stand, is_alive
from test_drift_injections import PRELOADED, halted, inject

import ironbound
from ironbound.core.canonical import Digest
from ironbound.core.held import read_held
from ironbound.core.native import Manifest
from ironbound.core.profile import Layer, merge
from ironbound.evidence.export import export
from ironbound.node.microvm import kernel as kernels
from ironbound.verifier.claims import HOLDS
from ironbound.verifier.verify import verify_bundle
from ironbound.wire.image_load import load_directory
from ironbound.wire.images import shipped_guard

PROFILES = Path(ironbound.__file__).parent / "data" / "profiles"
TESTS = Path(__file__).resolve().parents[1]
SITE = b'profile = "vm"\n[agent.runtime]\nmax_memory = 128\n'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU on this machine"),
]


def with_machine(stand: Stand, work: Path) -> bytes:
    """A deployment with a kernel, an approved profile for QEMU, and an image; the manifest of an agent that waits."""
    try:
        kernels.place(stand.root, *kernels.installed())
    except kernels.KernelMissing as missing:
        pytest.skip(str(missing))
    stand.start()
    spec = importlib.util.spec_from_file_location("sdk_build", TESTS.parent / "sdk" / "c" / "build.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    root = work / "rootfs"
    root.mkdir()
    tool.compile_native(TESTS / "node" / "puppet.c", root / "puppet", work / "caches")
    rootfs = load_directory(root, stand.deployment, shipped_guard()).digest
    names = ("native.toml", "qemu-microvm.toml")
    effective = merge([*(Layer(name, (PROFILES / name).read_bytes()) for name in names), Layer("site.toml", SITE)])
    body = effective.approval_body()
    payload = stand.build("profile-approval", config=effective.digest, body=body)
    stand.submit(payload, artifacts=(effective.encoded,))
    stand.config = Digest(effective.digest)
    return Manifest(rootfs, ("/puppet",)).encode()


def lower_limit(pid: int, uid: int) -> None:
    """Changes a limit of the hypervisor, as its own user: whoever got out of the guest could."""
    become = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"] if os.getuid() == 0 else []
    subprocess.run([*become, "prlimit", "--pid", str(pid), "--nofile=63:64"], check=True)


def test_a_machine_is_launched_observed_stopped_and_evidenced_and_what_changes_in_it_ends_it(
    fresh: Callable[..., Stand], tmp_path: Path
) -> None:
    stand = fresh()
    module = with_machine(stand, tmp_path)
    host = stand.entries("service-started", role="node")[-1].predicate["host"]
    assert "qemu-microvm" in host["runtimes"], host["unavailable"]
    assert "firecracker" in host["unavailable"] and host["runtimes"]["qemu-microvm"]["accelerator"] in ("kvm", "tcg")

    first = stand.started("boxed", module)
    said = first.predicate
    assert said["runtime"] == "qemu-microvm" and {one["verdict"] for one in said["probes"]} == {"REFUSED"}
    assert os.readlink(f"/proc/{said['pid']}/exe").endswith("qemu-system-x86_64")
    stand.stop_agent("boxed")
    assert stand.await_entry("exited", first.index, started=first.index).predicate["reason"] == "stopped"
    assert not is_alive(said["pid"], said["pid_start"])

    second = stand.started("boxed", module)
    pid = second.predicate["pid"]
    lower_limit(pid, second.predicate["uid"])
    drift = stand.await_entry("drift", second.index, pid=pid)
    assert [one["path"] for one in drift.predicate["differences"]] == ["rlimits.nofile"]
    stand.await_entry("exited", second.index, started=second.index)
    assert not is_alive(pid, second.predicate["pid_start"])

    if os.getuid() == 0:  # whoever injects suspends QEMU's filter
        looks = [read_held(one.predicate["held"])["posture"] for one in (first, second)]
        assert looks[0]["filters"] == looks[1]["filters"] and len(looks[0]["filters"]) == 1
        filtered = stand.started("boxed", module)
        with halted(stand.pid("monitor")):
            assert inject(filtered.predicate["pid"], "filter") == 0
        drift = stand.await_entry("drift", filtered.index, pid=filtered.predicate["pid"])
        assert {"filters", "threads.filters"} <= {one["path"] for one in drift.predicate["differences"]}
        stand.await_entry("exited", filtered.index, started=filtered.index)
        waits = tmp_path / "waits"
        waits.write_bytes(program(SPIN))
        for variables in ((), PRELOADED):
            third = stand.started("boxed", module)
            pid = third.predicate["pid"]
            with halted(stand.pid("monitor")):
                assert inject(pid, str(waits), *variables) == 0
            drift = stand.await_entry("drift", third.index, pid=pid)
            found = {one["path"] for one in drift.predicate["differences"]}
            assert "exe" in found and ("environment.LD_PRELOAD" in found) == bool(variables)
            stand.await_entry("exited", third.index, started=third.index)

    out = tmp_path / "evidence.ironbound"
    export(stand.deployment, out, at_least=stand.sync())
    with open(out, "rb") as file:
        report = verify_bundle(file, stand.deployment.trust.pin)
    claims = {claim.id: claim for claim in report.claims}
    for name in ("A1", "B1", "B3", "D1", "F1"):
        assert claims[name].status == HOLDS, claims[name]
