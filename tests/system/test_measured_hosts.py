"""A service of a spoiled installation does not start, and what happens to a running one the monitor finds and says.

All of it runs on a real installation with a manifest that a release key signed; it starts, and is said to be as signed.
"""

from __future__ import annotations

import copy
import ctypes
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from puppet import WAIT, puppet
from stand import PEOPLE, QUORUM, Stand, folder, until

from installation import POISONS, changed, install
from ironbound.core.canonical import canonical, sha256_hex
from ironbound.core.keys import PrivateKey
from ironbound.core.release import PREDICATES, sign_release
from ironbound.core.scheme import key_entry
from ironbound.verifier.verify import verify_bundle
from ironbound.wire.deployment import ROLES
from ironbound.wire.measure import ENVIRONMENT, words_of
from ironbound.wire.service import UNABLE, start_time

_SEIZE = 0x4206
_SURFACE = ("files", "listed", "unlisted", "gone", "unread")
_SWITCHES = ("active", "refused", "explained")
#: What else a release key signs; nothing here reads it.
OTHERS: dict[str, Any] = {
    "provenance": {
        "buildDefinition": {"buildType": "test", "externalParameters": {}, "resolvedDependencies": []},
        "runDetails": {"builder": {"id": "test"}},
    },
    "tests": {
        "result": "PASSED", "configuration": [], "passedTests": ["one"], "warnedTests": [], "failedTests": [],
    },
    "surface": {
        "list_sha256": sha256_hex(b""), "agent_surface_sha256": sha256_hex(b""), "verdict": "ABSENT",
        **dict.fromkeys(_SURFACE, 0), "switches": dict.fromkeys(_SWITCHES, 0),
    },
}  # fmt: skip


class Released:
    """An installation, its signed manifest, and a deployment that names the release key."""

    def __init__(self, base: Path) -> None:
        self.python = str(install(folder(base, "e")))
        self.site = next((base / "e").glob("lib/python3*/site-packages"))
        self.folder = self._release(base / "r")
        self.stand = Stand(base / "d", release=self.folder)
        self.stand.starter = (self.python, "-I", "-B", "-m", "ironbound.terminal.main")

    def _release(self, place: Path) -> Path:
        words = [self.python, "-I", "-B", "-m", "ironbound.supply.manifest"]
        done = subprocess.run(words, capture_output=True, check=True, timeout=60, env=dict(ENVIRONMENT))
        self.key = PrivateKey.generate(os.urandom(32))
        self.manifest = json.loads(done.stdout)
        return self.sign(place, self.manifest)

    def sign(self, place: Path, manifest: dict[str, Any]) -> Path:
        """A release's folder with this install manifest, by the deployment's release key."""
        place.mkdir()
        predicates = {**OTHERS, "install": manifest}
        for kind in PREDICATES:
            signed = sign_release(kind, {"ironbound-0.whl": sha256_hex(b"wheel")}, predicates[kind], self.key)
            (place / f"{kind}.dsse.json").write_bytes(signed)
        (place / "release.pub").write_bytes(canonical(key_entry(self.key.public)) + b"\n")
        return place

    def start(self, role: str, options: tuple[str, ...] = ("-I", "-B"), **more: str) -> tuple[int, str]:
        """Start a service beside those that run; its exit code and what it says."""
        words = [self.python, *options, *words_of(self.python, role)[3:]]
        done = subprocess.run(
            words, cwd=self.stand.root, env={**ENVIRONMENT, **more}, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stderr

    def said(self, role: str, start: int = 0) -> list[str] | None:
        """The paths that differ by the monitor's last word about a service since an entry."""
        words = self.stand.entries("host-measured", start, role=role)
        return [one["path"] for one in words[-1].predicate["measured"]["differences"]] if words else None


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Released]:
    made = Released(tmp_path_factory.mktemp("m"))
    made.stand.start()
    yield made
    made.stand.stop()


def test_services_of_the_signed_installation_start_and_are_said_to_be_so(released: Released) -> None:
    stand = released.stand
    for role in ROLES:
        until(f"the monitor measured {role}", lambda role=role: released.said(role) == [])
        said = stand.entries("host-measured", role=role)[-1].predicate
        assert said["pid"] == stand.pid(role)
    for entry in stand.entries("service-started"):
        measured = entry.predicate["measured"]
        assert measured == said["measured"]
        assert measured["files"] > 1000


def test_the_evidence_shows_that_what_ran_is_the_signed_release(released: Released, tmp_path: Path) -> None:
    stand = released.stand
    done = stand.command("approve", "release", str(released.folder), names=PEOPLE[:QUORUM])
    assert done.returncode == 0, done.stderr
    started = stand.started("clerk", puppet(WAIT), stand.approve_profile())
    done = stand.command("trace", "clerk")
    assert done.returncode == 0, done.stdout + done.stderr
    stand.stop_agent("clerk")
    stand.await_entry("exited", started.index, started=started.index)
    path = tmp_path / "evidence.ironbound"
    assert stand.command("evidence", "export", "-o", str(path)).returncode == 0
    with open(path, "rb") as file:
        claims = {one.id: one for one in verify_bundle(file, stand.deployment.trust.pin).claims}
    assert claims["E1"].status == claims["E3"].status == "holds", (claims["E1"], claims["E3"])
    assert [one.code for one in claims["E2"].reasons] == ["agent-surface-differs"]  # of another surface than OTHERS'


@pytest.mark.parametrize(("poison", "role"), list(zip(POISONS, [*ROLES, *ROLES], strict=False)))
def test_no_service_starts_from_a_poisoned_installation(released: Released, poison: str, role: str) -> None:
    path, data = POISONS[poison](released.site)
    with changed(path, data):
        code, said = released.start(role)
    assert code == UNABLE
    assert f"host-differs: site/{path.relative_to(released.site)} " in said


@pytest.mark.parametrize(
    ("options", "variables", "differs"),
    [
        (("-I", "-B"), {"PYTHONPATH": "/nowhere"}, "process/environment/PYTHONPATH"),
        (("-I", "-B", "-O"), {}, "process/flags/optimize"),
        (("-B",), {}, "process/flags/isolated"),
        (("-I", "-B"), {"LD_PRELOAD": ""}, "process/mapped/"),
    ],
)
def test_no_service_starts_in_another_way(
    released: Released, tmp_path: Path, options: tuple[str, ...], variables: dict[str, str], differs: str
) -> None:
    if "LD_PRELOAD" in variables:
        library = next(released.site.glob("_cffi_backend*.so"))
        variables = {"LD_PRELOAD": shutil.copy(library, tmp_path / "added.so")}
    code, said = released.start("gateway", options, **variables)
    assert code == UNABLE
    assert "host-differs: " in said
    assert differs in said


def test_what_changes_on_disk_while_the_services_run_is_said(released: Released) -> None:
    with ExitStack() as stack:
        paths = set()
        for name in ("bytecode", "pth", "sitecustomize", "source", "library"):
            path, data = POISONS[name](released.site)
            stack.enter_context(changed(path, data))
            paths.add(f"site/{path.relative_to(released.site)}")
        for role in ROLES:
            until(f"{role} differs", lambda role=role: paths <= set(released.said(role) or []))
    for role in ROLES:
        until(f"{role} is as it was", lambda role=role: released.said(role) == [])


def test_a_debugger_at_a_running_service_is_said(released: Released) -> None:
    stand = released.stand
    done, libc = threading.Event(), ctypes.CDLL(None, use_errno=True)
    seized: list[int] = []

    def seize() -> None:  # a thread's end lets go
        pid, none = ctypes.c_long(stand.pid("gateway")), ctypes.c_void_p(0)
        seized.append(libc.ptrace(ctypes.c_long(_SEIZE), pid, none, none) or ctypes.get_errno())
        done.wait(100)

    thread = threading.Thread(target=seize)
    thread.start()
    try:
        until("the service is traced", lambda: bool(seized))
        assert seized == [0]
        until("the monitor saw it", lambda: released.said("gateway") == ["process/tracers"])
    finally:
        done.set()
        thread.join()
    at = stand.sync()
    stand.kill("gateway")
    until("another process is in its place", lambda: released.said("gateway", at) == [])


def test_a_release_that_is_approved_and_not_installed_yet_keeps_no_service_from_starting_again(
    released: Released, tmp_path: Path
) -> None:
    stand = released.stand
    files = released.manifest["files"] | {"site/ironbound/later.py": sha256_hex(b"later")}
    later = released.sign(tmp_path / "later", released.manifest | {"files": files})
    assert stand.command("approve", "release", str(later), names=PEOPLE[:QUORUM]).returncode == 0
    kept = stand.root / "release" / "earlier"
    try:
        for role in ("gateway", "monitor"):
            at, pid = stand.sync(), stand.pid(role)
            stand.kill(role)
            until(f"{role} is as it was", lambda role=role, at=at: released.said(role, at) == [])
            assert stand.pid(role) != pid
        aside = kept.rename(tmp_path / "aside")  # the control: it is by the earlier manifest that they start
        code, said = released.start("gateway")
        assert (code, "site/ironbound/later.py is missing" in said) == (UNABLE, True), said
        aside.rename(kept)
    finally:
        assert stand.command("approve", "release", str(released.folder), names=PEOPLE[:QUORUM]).returncode == 0


RESTLESS = """
import itertools, mmap, pathlib, sys, time
for number in itertools.count():
    file = pathlib.Path(sys.argv[1], f"{number}.so")
    file.write_bytes(bytes(4096))
    with open(file, "rb") as opened:
        held = mmap.mmap(opened.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
    time.sleep(0.05)
"""


def test_a_node_that_names_another_process_and_other_libraries_is_said(released: Released, tmp_path: Path) -> None:
    """The process is never twice the same, so that its differences are not either."""
    stand = released.stand
    last = stand.entries("service-started", role="node")[-1].predicate
    with subprocess.Popen([sys.executable, "-I", "-c", RESTLESS, str(tmp_path)]) as process:
        try:
            named = {"pid": process.pid, "pid_start": start_time(process.pid)}
            words = {name: value for name, value in last.items() if name not in ("id", "deployment", "at_ms", *named)}
            words["host"] = copy.deepcopy(words["host"])
            words["host"]["runtimes"]["wasmtime"]["mappings"].append(sha256_hex(b"another library"))
            stand.speak_as("node")
            stand.log.append("service-started", last["release_sha256"], **named, **words)
            wrong = {"process/words", "process/workers"}
            until("the monitor saw it", lambda: wrong <= set(released.said("node") or []))
        finally:
            process.kill()
