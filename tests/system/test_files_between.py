"""Between approval and launch every stored file is changed, one at a time, in a running deployment: the launch is
refused for that very reason, or nothing of it changes. Before and after the change the same launch runs.

The library of Wasmtime, which the node has loaded by then, is changed in test_drift_injections.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import idle_agent
import pytest
from native import PROFILES, ROOT, has, missing
from puppet import WAIT, puppet
from stand import COMMAND, Stand, folder, until

from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.container import STARTERS
from ironbound.core.native import parse_manifest
from ironbound.core.replay import Entry
from ironbound.node.microvm import kernel as kernels
from ironbound.node.microvm import qemu
from ironbound.node.native import container
from ironbound.node.native.programs import libraries_of
from ironbound.wire.deployment import KEEPERS
from native_stand import PROBE
from wire.layout import Layout, link, member
from wire.layout import folder as folder_of

QEMU = "qemu-microvm"
CONTAINERS = ("bubblewrap", "runc", "crun", "gvisor")
GUARD = Path(container.__file__).parent / "guard" / "guard"
INIT = Path(qemu.__file__).parent / "init" / "init"
FIRMWARE = next((Path(path) for path in qemu.FIRMWARE if os.path.exists(path)), None)
#: It finds its own parts beside where it lies, so it stays there.
MACHINE = Path("/usr/bin") / qemu.BINARY


def machine_missing() -> str:
    """What a virtual machine lacks here; on CI that is a failure."""
    if not MACHINE.exists() or FIRMWARE is None:
        return "no QEMU on this machine"
    try:
        kernels.installed()
    except kernels.KernelMissing as absent:
        return str(absent)
    return ""


NO_MACHINE = machine_missing()
#: Of each runtime that has any, a library that nothing else in a deployment runs from.
OWN_LIBRARY = {"bubblewrap": "libcap.so", "runc": "libseccomp.so", "crun": "libyajl.so"}


def library_of(runtime: str) -> Path | None:
    """Where that library lies on this host, None without the runtime."""
    if runtime not in OWN_LIBRARY or not has(runtime):
        return None
    program = shutil.which(container.BINARIES[runtime], path=container.SEARCH)
    assert program is not None
    return Path(next(one for one in libraries_of(program) if Path(one).name.startswith(OWN_LIBRARY[runtime])))


LIBRARIES = {runtime: found for runtime in OWN_LIBRARY if (found := library_of(runtime)) is not None}
STARTED = ("config_sha256", "module_sha256", "runtime_sha256")
ENVELOPE = ("rootfs_sha256", "guard_sha256", "init_sha256", "files", "modules")


class Copied(Stand):
    """A deployment whose services find copies of the host's programs and of the release's own, for the test to change.
    As an ordinary user, who can't mount, they find the host's, and the test changes none."""

    def start(self) -> None:
        if not ROOT:
            super().start()
            return
        programs = self.root.parent / "programs"
        programs.mkdir()
        for name in container.BINARIES.values():
            if (found := shutil.which(name, path=container.SEARCH)) is not None:
                shutil.copy(found, programs / name)
        binds = [(programs, Path("/usr/local/sbin"))]
        machine = [FIRMWARE, MACHINE] if FIRMWARE and not NO_MACHINE else []
        for place in {GUARD, INIT, *map(Path, STARTERS), *LIBRARIES.values(), *machine}:
            shutil.copy(place, self.copy_of(place))
            binds.append((self.copy_of(place), place))
        script = "".join(f"mount --bind {ours} {theirs} && " for ours, theirs in binds) + 'exec "$@"'
        words = ["unshare", "--mount", "sh", "-c", script, "sh", *COMMAND, "up", "-d", str(self.root)]
        with open(self.root / "up.log", "ab") as output:
            self.up = subprocess.Popen(words, stderr=output, stdout=output)
        until("every service is ready", lambda: self._is_up(0))

    def copy_of(self, place: Path) -> Path:
        """Where the services find what lies at a place of the host."""
        if place.name in container.BINARIES.values():
            return self.root.parent / "programs" / place.name
        return self.root.parent / f"copy-of-{place.name}"


@dataclass(frozen=True)
class Scene:
    """One runtime with an approved agent and profile, and what its first launch was made of."""

    stand: Stand
    runtime: str
    module: Digest
    config: Digest
    rootfs: Digest | None
    profile: Path
    layout: Path
    reference: Any

    @property
    def image(self) -> Path:
        return self.stand.root / "images" / str(self.rootfs)

    def stored(self, digest: str) -> list[Path]:
        """Every place in which a keeper has these bytes."""
        places = [self.stand.root / "artifacts" / role / "sha256" / digest for role in KEEPERS]
        return [place for place in places if place.exists()]


def essence(entry: Entry) -> Any:
    """What a launch consumed and ran on, whatever its number."""
    said = entry.predicate
    return {name: said[name] for name in STARTED} | {name: said["envelope"].get(name) for name in ENVELOPE}


def outcome(stand: Stand, runtime: str, module: Digest, config: Digest) -> Entry:
    """Launches it: the refusal, or the start of what ran and the monitor saw as approved."""
    launch = stand.launch(f"between-{runtime}", module, config)
    kinds = ("started", "launch-refused")
    found = until(
        f"launch {launch} started or refused",
        lambda: next((one for one in stand.entries(None, launch, launch=launch) if one.kind in kinds), None),
        90.0,
    )
    if found.kind == "started":
        assert found.void is None, found.void  # the monitor's look is in it, without a difference
        if runtime == "wasmtime":
            stand.stop_agent(f"between-{runtime}")
        stand.await_entry("exited", found.index, started=found.index)
    return found


# What is changed, and changed back


def flip(path: Path) -> None:
    """One byte in the middle, in place, as whoever became root could. The mode stays."""
    mode = path.stat().st_mode & 0o7777
    path.chmod(0o644)
    with open(path, "r+b") as file:
        middle = path.stat().st_size // 2
        file.seek(middle)
        byte = file.read(1)
        file.seek(middle)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(mode)


@contextmanager
def bytes_of(*paths: Path) -> Iterator[None]:
    """A byte of each is flipped."""
    assert paths
    for path in paths:
        flip(path)
    try:
        yield
    finally:
        for path in paths:
            flip(path)


@contextmanager
def replaced(path: Path) -> Iterator[None]:
    """Another file is put in its place, one byte longer."""
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    shutil.copy(away, path)
    with open(path, "ab") as file:
        file.write(b"\0")
    try:
        yield
    finally:
        away.replace(path)


@contextmanager
def gone(path: Path) -> Iterator[None]:
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


def in_image(act: Callable[[Path], None]) -> Callable[[Scene], Any]:
    """A change in the image itself; a copy of it takes its place afterwards."""

    @contextmanager
    def changed(scene: Scene) -> Iterator[None]:
        image, kept = scene.image, scene.image.with_name("kept")
        shutil.copytree(image, kept, symlinks=True)
        folders = [one for one in (image, *image.rglob("*")) if one.is_dir() and not one.is_symlink()]
        modes = {one: one.stat().st_mode & 0o7777 for one in folders}
        for one in folders:
            one.chmod(0o755)
        act(image)
        for one, mode in modes.items():
            if one.exists():
                one.chmod(mode)
        try:
            yield
        finally:
            for one in (image, *(one for one in image.rglob("*") if one.is_dir() and not one.is_symlink())):
                one.chmod(0o755)
            shutil.rmtree(image)
            kept.rename(image)

    return changed


def keeping_times(path: Path) -> None:
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def opened_folder(scene: Scene) -> Iterator[None]:
    (scene.image / "etc").chmod(0o755)
    try:
        yield
    finally:
        (scene.image / "etc").chmod(0o555)


def retarget(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/more")


def second_name(image: Path) -> None:
    other = image.parent / "second-name"
    other.unlink(missing_ok=True)
    os.link(image / "etc/name", other)


IN_IMAGE: dict[str, Callable[[Path], None]] = {
    "a file's bytes": lambda image: flip(image / "etc/name"),
    "a file's bytes, its times put back": lambda image: keeping_times(image / "probe"),
    "a file's mode": lambda image: (image / "etc/name").chmod(0o555),
    "a file more": lambda image: (image / "etc/more").touch(0o444),
    "a file less": lambda image: (image / "etc/name").unlink(),
    "a link more": lambda image: (image / "etc/more").symlink_to("/probe"),
    "a link's target": lambda image: retarget(image / "etc/other"),
    "a second name of a file": second_name,
    "the guard in the image": lambda image: flip(image / ".ironbound/guard"),
}

#: What is changed: how, and the reason of the refusal; none where the launch is to be the very same.
Change = tuple[Callable[[Scene], Any], str]

STORED: dict[str, Change] = {
    "the module": (lambda scene: bytes_of(*scene.stored(scene.module)), "artifact-missing"),
    "the module, gone": (lambda scene: gone(*scene.stored(scene.module)), "artifact-missing"),
    "the effective configuration": (lambda scene: bytes_of(*scene.stored(scene.config)), "artifact-missing"),
    "the effective configuration, gone": (lambda scene: gone(*scene.stored(scene.config)), "artifact-missing"),
    "the profile that it was made of": (lambda scene: replaced(scene.profile), ""),
}
LOADED: dict[str, Change] = {
    **{name: (in_image(act), "image-differs") for name, act in IN_IMAGE.items()},
    "a folder's mode": (opened_folder, "image-differs"),
    "the image, gone": (lambda scene: gone(scene.image), "image-differs"),
    "the blobs of the layout that it was loaded from": (
        lambda scene: bytes_of(*(scene.layout / "blobs/sha256").iterdir()), ""),
}  # fmt: skip


def copied(place: Path, how: Callable[..., Any] = bytes_of) -> Callable[[Scene], Any]:
    def changed(scene: Scene) -> Any:
        assert isinstance(scene.stand, Copied)
        return how(scene.stand.copy_of(place))

    return changed


def of_container(runtime: str) -> dict[str, Change]:
    program = Path(container.BINARIES[runtime])
    listing: Change = (lambda scene: bytes_of(*scene.stored(str(scene.rootfs))), "")  # the tree itself is what counts
    more = {f"{one}, which starts it": (copied(Path(one)), "runtime-differs") for one in STARTERS}
    library: dict[str, Change] = {}
    if runtime in LIBRARIES:
        library = {"a library of the runtime's program": (copied(LIBRARIES[runtime]), "runtime-differs")}
    return {
        **LOADED,
        "the image's listing": listing,
        "the runtime's program, written": (copied(program), "runtime-differs"),
        "the runtime's program, replaced": (copied(program, replaced), "runtime-differs"),
        "the runtime's program, gone": (copied(program, gone), "runtime-differs"),
        "the guard of the release": (copied(GUARD), ""),
        **(more if runtime == "bubblewrap" else {}),
        **library,
    }


def kernel_file(name: str) -> Callable[[Scene], Any]:
    return lambda scene: bytes_of(scene.stand.root / kernels.FOLDER / name)


OF_MACHINE: dict[str, Change] = {
    **LOADED,
    "the image's listing": (lambda scene: bytes_of(*scene.stored(str(scene.rootfs))), "image-differs"),
    "the kernel": (kernel_file(kernels.KERNEL), "runtime-differs"),
    "a module of the kernel": (kernel_file("virtio_console.ko"), "runtime-differs"),
    "the kernel, gone": (lambda scene: gone(scene.stand.root / kernels.FOLDER / kernels.KERNEL), "runtime-differs"),
    "the runtime's program": (copied(MACHINE), "runtime-differs"),
    "the firmware": (copied(FIRMWARE or Path("absent")), "runtime-differs"),
    "the first process of the release": (copied(INIT), ""),
    "the guard of the release": (copied(GUARD), ""),
}  # fmt: skip

CHANGES: dict[str, dict[str, Change]] = {
    "wasmtime": STORED,
    **{runtime: STORED | of_container(runtime) for runtime in CONTAINERS},
    QEMU: STORED | OF_MACHINE,
}
needs_qemu = pytest.mark.skipif(bool(NO_MACHINE), reason=NO_MACHINE)
#: Changing the host's own programs takes a place of their own for the services.
OF_ROOT = ("program", "starts it", "of the release", "firmware")


def cases() -> Iterator[Any]:
    for runtime, changes in CHANGES.items():
        for name in changes:
            marks = []
            if runtime not in ("wasmtime", "bubblewrap", QEMU) or any(word in name for word in OF_ROOT):
                marks.append(pytest.mark.root)
            if runtime in CONTAINERS and not has(runtime):
                marks.append(pytest.mark.skip(reason=missing(runtime)))
            if runtime == QEMU:
                marks += [pytest.mark.slow, needs_qemu]
            yield pytest.param(runtime, name, marks=marks)


# The deployment


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A deployment for this file alone, with a kernel where the host has one."""
    made = Copied(folder(tmp_path_factory.mktemp("between"), "d"))
    try:
        if not NO_MACHINE:
            kernels.place(made.root, *kernels.installed())
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def loaded(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """The manifest of an agent that ends at once, and the OCI layout that its image was loaded from."""
    layout = Layout(tmp_path_factory.mktemp("layout"))
    program = member("probe", PROBE.read_bytes(), mode=0o755)
    layout.of([program, folder_of("etc"), member("etc/name", b"as approved\n"), link("etc/other", "name")])
    out = layout.root.parent / f"{layout.root.name}.json"
    words = ["image", "load", "-o", str(out), "-d", str(stand.root), str(layout.root), "--", "/probe"]
    done = stand.command(*words, where=False)
    assert done.returncode == 0, done.stderr
    return out.read_bytes(), layout.root


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    return {}


@pytest.fixture
def scene(
    stand: Stand, loaded: tuple[bytes, Path], scenes: dict[str, Scene], tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Scene:  # fmt: skip
    """The runtime's scene, made with its first launch: the legitimate step before every change."""
    runtime: str = request.getfixturevalue("runtime")
    if runtime in scenes:
        return scenes[runtime]
    place = tmp_path_factory.mktemp("profile") / f"{runtime}.toml"
    base = ["strict"] if runtime == "wasmtime" else ["native", runtime]
    shutil.copy(PROFILES / f"{base[-1]}.toml", place)
    words = [str(PROFILES / f"{one}.toml") for one in base[:-1]]
    done = stand.command("approve", "profile", *words, str(place), names=("ada", "bo"))
    assert done.returncode == 0, done.stderr
    name = runtime if runtime != "wasmtime" else "strict"
    config = stand.log.with_state(
        lambda replay: next(one for one, approved in replay.books.profiles.items() if approved.name == name)
    )
    manifest, layout = loaded
    data = puppet(WAIT) if runtime == "wasmtime" else manifest
    module = stand.approve_module(data)
    rootfs = None if runtime == "wasmtime" else parse_manifest(data).rootfs
    first = outcome(stand, runtime, module, config)
    assert first.kind == "started", f"{first.predicate.get('reason')}: {first.predicate.get('text')}"
    assert first.predicate["config_sha256"] == config and first.predicate["module_sha256"] == sha256_hex(data)
    scenes[runtime] = Scene(stand, runtime, module, config, rootfs, place, layout, essence(first))
    return scenes[runtime]


@pytest.mark.parametrize(("runtime", "change"), list(cases()))
def test_a_file_changed_between_approval_and_launch_stops_the_launch_or_changes_nothing(
    scene: Scene, runtime: str, change: str
) -> None:
    act, reason = CHANGES[runtime][change]
    with act(scene):
        found = outcome(scene.stand, runtime, scene.module, scene.config)
    if reason:
        assert found.kind == "launch-refused", found.predicate
        assert found.predicate["reason"] == reason, found.predicate
        assert not scene.stand.entries("started", found.index - 1, launch=found.predicate["launch"])
        if runtime != QEMU:  # a machine takes seconds: once for all of its changes, below
            again = outcome(scene.stand, runtime, scene.module, scene.config)
            assert again.kind == "started" and essence(again) == scene.reference
    else:
        assert found.kind == "started", found.predicate
        assert essence(found) == scene.reference


@pytest.mark.slow
@needs_qemu
@pytest.mark.parametrize("runtime", [QEMU])
def test_after_all_of_its_changes_a_machine_starts_as_at_first(scene: Scene, runtime: str) -> None:
    again = outcome(scene.stand, runtime, scene.module, scene.config)
    assert again.kind == "started" and essence(again) == scene.reference


@pytest.mark.root
@pytest.mark.skipif(not has("bubblewrap"), reason=missing("bubblewrap"))
def test_a_library_of_the_launcher_changed_while_an_agent_runs_is_drift(stand: Stand, tmp_path: Path) -> None:
    assert isinstance(stand, Copied)
    place = LIBRARIES["bubblewrap"]
    module = idle_agent.manifest(idle_agent.image(stand, tmp_path / "source"))
    entry = stand.started("waits", module, idle_agent.approve_profile(stand, "bubblewrap"))
    with bytes_of(stand.copy_of(place)):
        drift = stand.await_entry("drift", entry.index, started=entry.index)
    stand.await_entry("exited", entry.index, started=entry.index)
    assert drift.predicate["kind"] == "file-changed"
    assert [one["path"] for one in drift.predicate["differences"]] == [f"files.{place}"]
