"""Native agents end to end: the Python agent does the demo's job in containers, and no file changes under a launch."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from stand import STRICT, Stand, until

from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.native import parse_manifest
from ironbound.core.profile import Layer, merge
from ironbound.core.replay import Entry
from ironbound.core.request import NO_LIMITS
from ironbound.terminal.credential import bound, keep
from ironbound.terminal.demo.records import RECORDS, make_records, make_server

EXAMPLE = Path(__file__).resolve().parents[2] / "sdk" / "python-native"
TOKEN = "mackerel-" + os.urandom(8).hex()
#: Runtime → its program.
PROGRAMS = {"bubblewrap": "bwrap", "runc": "runc", "crun": "crun", "gvisor": "runsc"}
#: All but bubblewrap need a cgroup, which takes root.
RUNTIMES = ["bubblewrap", *(pytest.param(name, marks=pytest.mark.root) for name in ("runc", "crun", "gvisor"))]


@dataclass(frozen=True)
class Office:
    """The demo's records service, and the credential for it at the gateway."""

    server: ThreadingHTTPServer

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def reports(self) -> list[Any]:
        headers = {"authorization": f"Bearer {TOKEN}"}
        answer = httpx.get(f"http://127.0.0.1:{self.port}/reports", headers=headers, trust_env=False)
        return list(answer.json())

    def where(self, path: str, **more: Any) -> dict[str, Any]:
        return {
            "scheme": {"equals": "http"},
            "host": {"equals": "127.0.0.1"},
            "port": {"equals": self.port},
            "path": {"equals": path},
            **more,
        }


@pytest.fixture(scope="module")
def office(stand: Stand) -> Iterator[Office]:
    """The service runs, and only the gateway has its token."""
    server = make_server(TOKEN)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    made = Office(server)
    keep(stand.deployment, "records", bound(f"http://127.0.0.1:{made.port}", "authorization"), f"Bearer {TOKEN}")
    stand.kill("gateway")  # it reads credentials when it starts
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python agent's root file system, built from this very Python."""
    root = tmp_path_factory.mktemp("native") / "rootfs"
    words = [sys.executable, str(EXAMPLE / "build.py"), "--to", str(root)]
    subprocess.run(words, check=True, capture_output=True)
    return root


def loaded(stand: Stand, source: Path, *program: str) -> bytes:
    """The manifest of a root file system that the command line loaded."""
    out = source.parent / "agent.json"
    words = ["image", "load", "-o", str(out), "-d", str(stand.root), str(source), "--", *program]
    done = stand.command(*words, where=False)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


@pytest.fixture(scope="module")
def manifest(stand: Stand, rootfs: Path) -> bytes:
    """The Python agent's manifest, its image loaded."""
    return loaded(stand, rootfs, "/usr/bin/python3", "-IB", "/agent")


#: bubblewrap has no cgroup, so that each process gets its share of the memory: one process, all of it.
ALONE = b"[agent.runtime]\nmax_processes = 1\nmax_memory = 1024\n"


def profile(stand: Stand, runtime: str) -> Digest:
    """Approve the packaged profile of a runtime, once."""
    files = [STRICT.parent / "native.toml", STRICT.parent / f"{runtime}.toml"]
    layers = [Layer(one.name, one.read_bytes()) for one in files]
    effective = merge([*layers, Layer("alone.toml", ALONE)] if runtime == "bubblewrap" else layers)
    if not stand.log.with_state(lambda replay: effective.digest in replay.books.profiles):
        body = effective.approval_body()
        payload = stand.build("profile-approval", config=effective.digest, body=body)
        stand.submit(payload, artifacts=(effective.encoded,))
    return effective.digest


def require(runtime: str) -> None:
    """Skip where the runtime can't be had."""
    if shutil.which(PROGRAMS[runtime]) is None:
        pytest.skip(f"{PROGRAMS[runtime]} is not installed")


def grant(stand: Stand, agent: str, module: Digest, config: Digest, **body: Any) -> None:
    """Two operators grant a tool to an agent that need not run yet."""
    whole = {"calls": 50, "expires_ms": time.time_ns() // 1_000_000 + 600_000, "credential": None, **NO_LIMITS} | body
    stand.submit(stand.build("grant", agent=agent, module=module, config=config, body=whole))


def begun(stand: Stand, agent: str, module: Digest, config: Digest) -> Entry:
    """Launched, which it is only if the monitor saw no difference; or why not."""
    launch = stand.launch(agent, module, config)
    entry = either(stand, launch, "started", "launch-refused")
    assert entry.kind == "started", json.dumps(entry.predicate)
    return entry


def either(stand: Stand, start: int, *kinds: str) -> Entry:
    """The first entry of one of these kinds that speaks of the launch or start at an index."""

    def find() -> Entry | None:
        for one in stand.entries(None, start):
            if one.kind in kinds and start in (one.predicate.get("launch"), one.predicate.get("started")):
                return one
        return None

    return until(f"{' or '.join(kinds)} of {start}", find)


def soon(stand: Stand, started: Entry, kind: str, start: int, /, **said: Any) -> Entry:
    """The first such entry, while the agent lives; else what ended it."""

    def find() -> Entry | None:
        found = next(iter(stand.entries(kind, start, **said)), None)
        if found is None:
            bad = [
                one.predicate
                for end in ("drift", "exited")
                for one in stand.entries(end, started.index)
                if started.index == one.predicate["started"] or one.predicate.get("agent") is None
            ]
            assert not bad, json.dumps(bad)
        return found

    return until(f"{kind} {said}", find)


def over(stand: Stand, started: Entry) -> Entry:
    return stand.await_entry("exited", started.index, started=started.index)


# The job


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_python_agent_with_the_official_client_does_the_demos_whole_job(
    stand: Stand, office: Office, manifest: bytes, runtime: str
) -> None:
    require(runtime)
    config, agent = profile(stand, runtime), f"python-{runtime}"
    module = stand.approve_module(manifest)
    base = f"http://127.0.0.1:{office.port}"
    task = stand.root / "inputs" / f"{agent}.json"
    task.write_text(json.dumps({"records_url": f"{base}/records", "report_url": f"{base}/reports"}))
    before = len(office.reports())
    reading = office.where("/records", query={"any": True}, method={"equals": "GET"})
    grant(
        stand, agent, module, config, tool="records.fetch", action="http.request", where=reading, credential="records"
    )
    writing = {"name": {"equals": "report.md"}, "text": {"any": True}}
    grant(stand, agent, module, config, tool="scratch.write", action="scratch.write", where=writing)
    entry = begun(stand, agent, module, config)
    assert entry.predicate["module_sha256"] == module and entry.predicate["config_sha256"] == config
    denied = soon(stand, entry, "action-denied", entry.index, agent=agent, tool="report.post")
    assert denied.predicate["reason"] == "no-such-grant"
    pages = stand.entries("action-intent", entry.index, agent=agent, tool="records.fetch")
    assert len(pages) == RECORDS // 50 + 1
    posting = office.where("/reports", method={"equals": "POST"}, body={"any": True})
    whole = {"tool": "report.post", "where": posting, "credential": "records"}
    given = stand.grant(agent, "http.request", **whole)
    intent = soon(stand, entry, "action-intent", denied.index, agent=agent, tool="report.post")
    outcome = soon(stand, entry, "action-outcome", intent.index, intent=intent.index)
    assert outcome.predicate["status"] == "performed"
    posted = office.reports()[before:]
    assert len(posted) == 1 and posted[0]["records"] == RECORDS
    assert posted[0]["amount_cents"] == sum(one["amount_cents"] for one in make_records())
    assert posted[0]["last_refusal"].startswith("refused: no-such-grant")
    revoked = stand.revoke(agent, given)
    os.utime(task)
    denied = soon(stand, entry, "action-denied", revoked, agent=agent, tool="report.post")
    assert denied.predicate["reason"] == "grant-revoked"
    stand.stop_agent(agent)
    assert over(stand, entry).predicate["reason"] == "stopped"
    assert not any(TOKEN.encode() in one.data for one in stand.log.entries)


def test_an_agent_that_ends_leaves_its_report(stand: Stand, office: Office, manifest: bytes) -> None:
    """With its one round done, or without a channel to speak on: its last words are kept."""
    require("bubblewrap")
    config, module = profile(stand, "bubblewrap"), stand.approve_module(manifest)
    base = f"http://127.0.0.1:{office.port}"
    task = stand.root / "inputs" / "one-round.json"
    task.write_text(json.dumps({"records_url": f"{base}/records", "report_url": f"{base}/reports", "rounds": 1}))
    for tool, where in (
        ("records.fetch", office.where("/records", query={"any": True}, method={"equals": "GET"})),
        ("report.post", office.where("/reports", method={"equals": "POST"}, body={"any": True})),
    ):
        body = {"tool": tool, "action": "http.request", "where": where, "credential": "records"}
        grant(stand, "one-round", module, config, **body)
    writing = {"name": {"equals": "report.md"}, "text": {"any": True}}
    grant(stand, "one-round", module, config, tool="scratch.write", action="scratch.write", where=writing)
    exited = over(stand, begun(stand, "one-round", module, config)).predicate
    assert exited["reason"] == "finished", exited
    assert json.loads(exited["report"])["posted"] == 1


# Nothing changes between approval and launch


SAY = "read -r line </etc/other && echo $line >&2"


def small(place: Path) -> Path:
    """A root file system with a shell, its libraries and two files; another one each time."""
    spec = importlib.util.spec_from_file_location("python_native_build", EXAMPLE / "build.py")
    assert spec is not None and spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    root, shell = place / "small", Path("/bin/sh").resolve()
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "name").write_text("as approved\n")
    (root / "etc" / "unique").write_text(os.urandom(8).hex())
    (root / "etc" / "other").symlink_to("name")
    build.copy(shell, root / "bin" / "agent")
    build.copy_shared_libraries(root, [shell])
    return root


@pytest.fixture
def approved(stand: Stand, tmp_path: Path) -> tuple[bytes, Path, Path]:
    """An approved manifest whose program prints a file to stderr; its image, and the source that it came from."""
    require("bubblewrap")
    source = small(tmp_path)
    data = loaded(stand, source, "/bin/agent", "-c", SAY)
    stand.approve_module(data)
    return data, stand.root / "images" / parse_manifest(data).rootfs, source


def outcome(stand: Stand, data: bytes, agent: str) -> str:
    """What the agent printed, or the reason why it was not launched."""
    launch = stand.launch(agent, sha256_hex(data), profile(stand, "bubblewrap"))
    found = either(stand, launch, "started", "launch-refused")
    if found.kind == "started":
        found = over(stand, found)
    return str(found.predicate["report"] if found.kind == "exited" else found.predicate["reason"])


def unlocked(image: Path, act: Callable[[Path], None]) -> None:
    """Changes something in an image, as whoever became root could, and puts the folders' modes back."""
    folders = [one for one in (image, *image.rglob("*")) if one.is_dir() and not one.is_symlink()]
    for one in folders:
        one.chmod(0o755)
    act(image)
    for one in folders:
        if one.exists():
            one.chmod(0o555)


def rewrite(image: Path) -> None:
    (image / "etc/name").chmod(0o644)
    (image / "etc/name").write_text("as changed\n ")
    (image / "etc/name").chmod(0o444)


def retarget(image: Path) -> None:
    (image / "etc/evil").write_text("evil\n")
    (image / "etc/other").unlink()
    (image / "etc/other").symlink_to("evil")


def swap(image: Path) -> None:
    other = image.with_name("swapped")
    shutil.copytree(image, other, symlinks=True)
    rewrite(other)
    other.chmod(0o555)
    image.rename(image.with_name("away"))
    other.rename(image)


TAMPERING: dict[str, Callable[[Path], None]] = {
    "content": rewrite,
    "mode": lambda image: (image / "etc/name").chmod(0o555),
    "an added file": lambda image: (image / "etc/more").touch(0o444),
    "a removed file": lambda image: (image / "etc/name").unlink(),
    "a link to elsewhere": retarget,
    "a swapped folder": swap,
}


@pytest.mark.parametrize("how", TAMPERING)
def test_a_change_in_the_image_after_its_approval_stops_the_launch(
    stand: Stand, approved: tuple[bytes, Path, Path], how: str
) -> None:
    data, image, _ = approved
    unlocked(image, TAMPERING[how])
    assert outcome(stand, data, "tampered") == "image-differs"
    assert not stand.entries("started", stand.latest("tampered").index, agent="tampered")


@pytest.mark.root
def test_a_mount_over_a_file_of_the_image_stops_the_launch(
    stand: Stand, approved: tuple[bytes, Path, Path], tmp_path: Path
) -> None:
    data, image, _ = approved
    (tmp_path / "evil").write_text("evil\n")
    # In the namespace of the node, where alone it would count.
    inside = ["nsenter", "-t", str(stand.pid("node")), "-m", "--"]
    mounted = subprocess.run([*inside, "mount", "--bind", tmp_path / "evil", image / "etc/name"], check=False)
    if mounted.returncode != 0:
        pytest.skip("this root may not mount")
    try:
        assert outcome(stand, data, "mounted") == "image-differs"
    finally:
        subprocess.run([*inside, "umount", image / "etc/name"], check=True)
    assert outcome(stand, data, "mounted") == "as approved\n"


def test_a_change_in_what_was_loaded_and_approved_from_changes_nothing(
    stand: Stand, approved: tuple[bytes, Path, Path]
) -> None:
    """The source, the manifest's file, and the profile's file are nobody's authority any more."""
    data, _, source = approved
    (source / "etc/name").write_text("as changed\n")
    (source / "bin/agent").unlink()
    (source.parent / "agent.json").write_bytes(data.replace(b"/etc/other", b"/etc/unique"))
    assert outcome(stand, data, "unmoved") == "as approved\n"


def test_a_manifest_that_differs_from_the_approved_one_is_not_launched(
    stand: Stand, approved: tuple[bytes, Path, Path]
) -> None:
    """Its bytes in the store are named by their digest: others under that name are not taken."""
    data, _, _ = approved
    for store in (stand.root / "artifacts").glob("*/sha256"):
        if (kept := store / sha256_hex(data)).exists():
            kept.chmod(0o644)
            kept.write_bytes(data.replace(b"/etc/other", b"/etc/unique"))
    assert outcome(stand, data, "forged") != "as approved\n"
    assert not stand.entries("started", stand.latest("forged").index, agent="forged")


# From an OCI image


def test_an_oci_image_becomes_the_same_tree_and_starts_as_its_author_wishes(stand: Stand, tmp_path: Path) -> None:
    require("bubblewrap")
    if shutil.which("umoci") is None:
        pytest.skip("umoci is not installed")
    rootless = [] if os.getuid() == 0 else ["--rootless"]
    source, layout, work = small(tmp_path), tmp_path / "layout", tmp_path / "work"

    def umoci(*words: str | Path) -> None:
        subprocess.run(["umoci", *map(str, words)], check=True, capture_output=True)

    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:v1")
    umoci("unpack", *rootless, "--image", f"{layout}:v1", work)
    shutil.copytree(source, work / "rootfs", symlinks=True, dirs_exist_ok=True)
    umoci("repack", "--image", f"{layout}:v1", work)
    wish = ["--config.entrypoint", "agent", "--config.cmd=-c", "--config.cmd", f"{SAY}; echo $A >&2"]
    umoci("config", "--image", f"{layout}:v1", *wish, "--config.env", "A=as wished", "--config.env", "PATH=/bin")
    out = tmp_path / "wished.json"
    done = stand.command("image", "load", "-o", str(out), str(layout))
    assert done.returncode == 0, done.stderr
    data = out.read_bytes()
    assert parse_manifest(data).argv == ("/bin/agent", "-c", f"{SAY}; echo $A >&2")
    assert parse_manifest(data).rootfs == parse_manifest(loaded(stand, source, "/bin/agent")).rootfs
    stand.approve_module(data)
    assert outcome(stand, data, "wished") == "as approved\nas wished\n"
