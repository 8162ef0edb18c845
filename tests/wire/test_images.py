"""Images: what was loaded is what is launched, and every change in between stops the launch."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.tree import File, Folder, Link, encode_tree, parse_tree, tree_digest
from ironbound.wire import image_load
from ironbound.wire import images as module
from ironbound.wire.deployment import Deployment
from ironbound.wire.image_load import Loaded, Piece, load, load_directory
from ironbound.wire.images import ImageRefused, Images, measure

from .conftest import GUARD

OTHER = b"#!/bin/evil"


def image_of(deployment: Deployment, source: Path) -> Loaded:
    return load_directory(source, deployment, GUARD)


def on_disk(path: Path) -> list[tuple[str, int, int]]:
    return [
        (str(one.relative_to(path)), stat.S_IMODE(one.lstat().st_mode), one.lstat().st_uid)
        for one in sorted(path.rglob("*"))
        if not one.is_symlink()
    ]


def leftovers(deployment: Deployment) -> list[str]:
    return sorted(one.name for one in (deployment.root / "images").iterdir())


# Loading


def test_a_loaded_folder_is_what_its_digest_says_with_the_guard_and_places_to_mount_on(
    deployment: Deployment, source: Path
) -> None:
    loaded = image_of(deployment, source)
    place = deployment.root / "images" / loaded.digest
    assert loaded.fresh and loaded.dropped == ()
    assert [(one.path, type(one)) for one in loaded.entries] == [
        (".ironbound", Folder),
        (".ironbound/guard", File),
        ("bin", Folder),
        ("bin/agent", File),
        ("dev", Folder),
        ("etc", Folder),
        ("etc/empty", File),
        ("etc/outside", Link),
        ("lib", Link),
        ("proc", Folder),
        ("tmp", Folder),
        ("usr", Folder),
        ("usr/lib", Folder),
        ("usr/lib/libc.so", File),
    ]
    programs = {".ironbound/guard", "bin/agent"}
    for path, mode, owner in on_disk(place):
        assert owner == os.getuid()
        assert mode == (0o555 if (place / path).is_dir() or path in programs else 0o444), path
    assert stat.S_IMODE(place.stat().st_mode) == 0o555
    assert (place / ".ironbound" / "guard").read_bytes() == GUARD
    assert os.readlink(place / "etc" / "outside") == "/../../etc/passwd"
    assert parse_tree(deployment.artifact(loaded.digest)) == loaded.entries
    assert Images(deployment).verify(loaded.digest) == sha256_hex(GUARD)
    with module.opened(str(place), os.O_RDONLY) as folder:
        assert tree_digest(measure(folder, os.getuid())) == loaded.digest == sha256_hex(encode_tree(loaded.entries))


def test_the_digest_depends_on_content_and_executability_and_on_nothing_of_the_machine(
    deployment: Deployment, source: Path
) -> None:
    before = image_of(deployment, source).digest
    (source / "bin" / "agent").chmod(0o711)
    os.utime(source / "bin" / "agent", (1, 1))
    again = image_of(deployment, source)
    assert (again.digest, again.fresh) == (before, False)
    (source / "bin" / "agent").chmod(0o644)
    assert image_of(deployment, source).digest != before
    assert len(leftovers(deployment)) == 2


def test_an_image_can_be_loaded_again_from_its_own_copy(deployment: Deployment, source: Path) -> None:
    loaded = image_of(deployment, source)
    again = image_of(deployment, deployment.root / "images" / loaded.digest)
    assert (again.digest, again.fresh) == (loaded.digest, False)


def test_a_setuid_program_loses_the_bit_and_is_named(deployment: Deployment, source: Path) -> None:
    plain = image_of(deployment, source)
    (source / "bin" / "agent").chmod(0o4755)
    loaded = image_of(deployment, source)
    assert loaded.dropped == ("bin/agent",)
    assert loaded.digest == plain.digest


def spoiled(source: Path, how: str) -> None:
    if how == "pipe":
        os.mkfifo(source / "etc" / "pipe")
    elif how == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            here = os.open(source / "etc", os.O_RDONLY)
            one.bind(f"/proc/self/fd/{here}/socket")
            os.close(here)
    elif how == "proc":
        (source / "proc").mkdir()
        (source / "proc" / "version").write_text("mine")
    elif how == "dev-link":
        (source / "dev").symlink_to("/dev")
    elif how == "tmp-file":
        (source / "tmp").write_text("")
    elif how == "other-guard":
        (source / ".ironbound").mkdir()
        (source / ".ironbound" / "guard").write_bytes(OTHER)
    elif how == "more-than-guard":
        (source / ".ironbound").mkdir()
        (source / ".ironbound" / "plan").write_bytes(b"")
    elif how == "control-character":
        (source / "etc" / "a\nb").write_text("")
    elif how == "not-utf8":
        with open(os.fsencode(source / "etc") + b"/\xff", "wb"):
            pass


SPOILS = [
    ("pipe", "a pipe"),
    ("socket", "a socket"),
    ("proc", "mounts its own proc"),
    ("dev-link", "mounts its own dev"),
    ("tmp-file", "mounts its own tmp"),
    ("other-guard", "Ironbound's own"),
    ("more-than-guard", "Ironbound's own"),
    ("control-character", "control character"),
    ("not-utf8", "not UTF-8"),
]


@pytest.mark.parametrize(("how", "says"), SPOILS)
def test_a_folder_that_can_be_no_image_is_refused_with_its_reason_and_nothing_stays(
    deployment: Deployment, source: Path, how: str, says: str
) -> None:
    spoiled(source, how)
    with pytest.raises(ImageRefused, match=says):
        image_of(deployment, source)
    assert leftovers(deployment) == []


@pytest.mark.root
def test_a_device_in_a_folder_is_refused(deployment: Deployment, source: Path) -> None:
    try:
        os.mknod(source / "etc" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        # A container without CAP_MKNOD: the same decision, taken from the mode alone.
        with pytest.raises(ImageRefused, match="a character device"):
            raise module.no_such_kind("etc/null", stat.S_IFCHR | 0o666) from None
        return
    with pytest.raises(ImageRefused, match="a character device"):
        image_of(deployment, source)


def test_a_folder_that_holds_the_deployment_is_refused(deployment: Deployment) -> None:
    with pytest.raises(ImageRefused, match="holds the deployment itself"):
        image_of(deployment, deployment.root)


def test_the_same_empty_folders_in_a_source_are_no_obstacle(deployment: Deployment, source: Path) -> None:
    before = image_of(deployment, source).digest
    for name in ("proc", "dev", "tmp", ".ironbound"):
        (source / name).mkdir()
    (source / ".ironbound" / "guard").write_bytes(GUARD)
    assert image_of(deployment, source).digest == before


@pytest.mark.parametrize(("name", "value"), [("MAX_ENTRIES", 6), ("MAX_FILE_SIZE", 100), ("MAX_TOTAL_SIZE", 100)])
def test_a_source_beyond_a_limit_is_refused_and_nothing_stays(
    deployment: Deployment, source: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(image_load, name, value)
        with pytest.raises(ImageRefused):
            image_of(deployment, source)
    assert leftovers(deployment) == []
    assert image_of(deployment, source).fresh


def test_a_source_is_read_without_following_a_link_out_of_it(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("key")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "inside").symlink_to("../secret")
    loaded = image_of(deployment, tmp_path / "source")
    assert Link("inside", "../secret") in loaded.entries
    assert not any(one.path.startswith("inside/") for one in loaded.entries)


def pieces_then(source: list[Piece], act: Callable[[], None]) -> Iterator[Piece]:
    yield from source
    act()


def test_an_interrupted_load_leaves_nothing_that_counts_and_the_next_one_clears_it(
    deployment: Deployment, source: Path
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(deployment, pieces_then([Piece("a", 0o755), Piece("a/b", 0o644, chunks=(b"x",))], stop), GUARD)
    assert leftovers(deployment) == []
    # As a killed process would leave it: half a draft, its folders closed already.
    draft = deployment.root / "images" / ".draft.00"
    (draft / "a").mkdir(parents=True)
    (draft / "a" / "b").write_text("x")
    (draft / "a").chmod(0o555)
    loaded = image_of(deployment, source)
    assert leftovers(deployment) == [loaded.digest]


def test_a_source_that_is_exchanged_while_it_is_read_is_refused(
    deployment: Deployment, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking at a name and opening it, the attacker puts a link to a secret there."""
    secret = tmp_path / "secret"
    secret.write_text("key")
    real = os.open
    done = False

    def open_late(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        nonlocal done
        if path == "libc.so" and not done and not flags & os.O_CREAT:
            done = True
            (source / "usr" / "lib" / "libc.so").unlink()
            (source / "usr" / "lib" / "libc.so").symlink_to(secret)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_late)
    with pytest.raises(OSError, match="symbolic links"):
        image_of(deployment, source)
    assert done and leftovers(deployment) == []


# Checking before each launch


@pytest.fixture
def checked(deployment: Deployment, source: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Images, Digest, Path]:
    """An image that was verified and is known by its stat keys alone."""
    loaded = image_of(deployment, source)
    images = Images(deployment)
    monkeypatch.setattr(module, "SETTLED_NS", -(10**12))
    images.verify(loaded.digest)
    monkeypatch.undo()
    reads: list[Digest] = []
    real = Images._read

    def counted(self: Images, digest: Digest, folder: int) -> Digest:
        reads.append(digest)
        return real(self, digest, folder)

    monkeypatch.setattr(Images, "_read", counted)
    images.verify(loaded.digest)
    assert reads == [], "an unchanged image is not read again"
    return images, loaded.digest, deployment.root / "images" / loaded.digest


def forced(path: Path) -> None:
    """Lets the owner change what lies in the image, as whoever became root could."""
    for one in (path, *path.rglob("*")):
        if one.is_dir() and not one.is_symlink():
            one.chmod(0o755)


def restored(path: Path) -> None:
    for one in (path, *path.rglob("*")):
        if one.is_dir() and not one.is_symlink():
            one.chmod(0o555)


def rewrite(place: Path) -> None:
    agent = place / "bin" / "agent"
    times = agent.stat()
    agent.chmod(0o755)
    data = agent.read_bytes()
    agent.write_bytes(OTHER.ljust(len(data), b"\n"))
    agent.chmod(0o555)
    os.utime(agent, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace_file(place: Path) -> None:
    (place / "bin" / "new").write_bytes(b"#!/bin/sh\n" * 1000)
    (place / "bin" / "new").chmod(0o555)
    (place / "bin" / "agent").unlink()
    (place / "bin" / "agent").symlink_to("new")


def retarget(place: Path) -> None:
    (place / "lib").unlink()
    (place / "lib").symlink_to("usr/bin")


def swap_folder(place: Path) -> None:
    (place / "usr" / "lib").rename(place / "usr" / "old")
    (place / "usr" / "lib").mkdir()
    (place / "usr" / "lib" / "libc.so").write_bytes(b"evil")
    (place / "usr" / "old" / "libc.so").unlink()
    (place / "usr" / "old").rmdir()


def other_name(place: Path) -> None:
    os.link(place / "bin" / "agent", place.parent / "handle")


def add_device_like(place: Path) -> None:
    os.mkfifo(place / "bin" / "pipe")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "content, with size and mtime kept": (rewrite, "changed: bin/agent"),
    "mode of a file": (lambda place: (place / "usr/lib/libc.so").chmod(0o555), "changed: usr/lib/libc.so"),
    "mode of a folder": (lambda place: None, "changed: etc"),
    "added file": (lambda place: (place / "bin" / "more").touch(0o444), "added: bin/more"),
    "removed file": (lambda place: (place / "etc" / "empty").unlink(), "missing: etc/empty"),
    "file behind a link": (replace_file, "changed: bin/agent"),
    "link to elsewhere": (retarget, "changed: lib"),
    "swapped folder": (swap_folder, "changed: usr/lib/libc.so"),
    "second name": (other_name, "second name"),
    "pipe": (add_device_like, "a pipe"),
    "something in a mount point": (lambda place: (place / "dev" / "null").touch(0o444), "added: dev/null"),
    "other guard": (lambda place: replace_guard(place), "changed: .ironbound/guard"),
}


def replace_guard(place: Path) -> None:
    guard = place / ".ironbound" / "guard"
    guard.unlink()
    guard.write_bytes(OTHER)
    guard.chmod(0o555)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_approval_and_launch_stops_the_launch(
    checked: tuple[Images, Digest, Path], change: str
) -> None:
    images, digest, place = checked
    act, says = CHANGES[change]
    forced(place)
    act(place)
    restored(place)
    if change == "mode of a folder":
        (place / "etc").chmod(0o755)
    for known in (images, Images(images.deployment)):
        with pytest.raises(ImageRefused, match=says):
            known.verify(digest)
    with pytest.raises(ImageRefused):
        images.verify(digest)


def test_the_same_handling_without_a_change_stops_nothing(checked: tuple[Images, Digest, Path]) -> None:
    images, digest, place = checked
    forced(place)
    restored(place)
    assert images.verify(digest) == sha256_hex(GUARD)


def test_a_whole_image_swapped_for_another_is_refused(checked: tuple[Images, Digest, Path], source: Path) -> None:
    images, digest, place = checked
    (source / "bin" / "agent").write_bytes(OTHER)
    other = image_of(images.deployment, source)
    place.rename(place.parent / "away")
    (place.parent / other.digest).rename(place)
    with pytest.raises(ImageRefused, match="changed: bin/agent"):
        images.verify(digest)


def test_a_link_in_the_place_of_an_image_is_refused(checked: tuple[Images, Digest, Path]) -> None:
    images, digest, place = checked
    place.rename(place.parent / "away")
    place.symlink_to("away")
    with pytest.raises(ImageRefused, match="no image"):
        images.verify(digest)


def test_who_holds_the_verified_folder_keeps_it_though_another_takes_its_name(
    checked: tuple[Images, Digest, Path],
) -> None:
    images, digest, place = checked
    with images.opened(digest) as (folder, guard):
        place.rename(place.parent / "away")
        place.mkdir()
        assert guard == sha256_hex(GUARD)
        with module.opened("bin/agent", os.O_RDONLY, folder) as agent:
            assert os.read(agent, 10) == b"#!/bin/sh\n"


def test_an_image_that_is_not_there_is_refused_with_a_hint(deployment: Deployment) -> None:
    with pytest.raises(ImageRefused) as caught:
        Images(deployment).verify(Digest("0" * 64))
    assert "image load" in caught.value.hint


def test_a_listing_that_was_lost_does_not_hide_a_change(checked: tuple[Images, Digest, Path]) -> None:
    images, digest, place = checked
    (images.deployment.root / "artifacts" / "terminal" / "sha256" / digest).unlink()
    images.verify(digest)
    (place / "usr/lib/libc.so").chmod(0o555)
    with pytest.raises(ImageRefused, match="its listing can't be had"):
        images.verify(digest)


def test_a_young_stat_key_proves_nothing_so_the_bytes_are_read_again(
    deployment: Deployment, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change within the clock's tick leaves every stat key as it was: here by a stat that tells old news."""
    loaded = image_of(deployment, source)
    images = Images(deployment)
    images.verify(loaded.digest)
    keys = images._look(os.open(images.path(loaded.digest), os.O_RDONLY))
    rewrite(images.path(loaded.digest))
    monkeypatch.setattr(Images, "_look", lambda self, folder: keys)
    with pytest.raises(ImageRefused, match="changed: bin/agent"):
        images.verify(loaded.digest)


def test_without_the_wait_a_change_within_the_tick_would_pass(
    deployment: Deployment, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the same attack, with the rule about young keys taken away."""
    monkeypatch.setattr(module, "SETTLED_NS", -(10**12))
    loaded = image_of(deployment, source)
    images = Images(deployment)
    images.verify(loaded.digest)
    keys = images._look(os.open(images.path(loaded.digest), os.O_RDONLY))
    rewrite(images.path(loaded.digest))
    monkeypatch.setattr(Images, "_look", lambda self, folder: keys)
    assert images.verify(loaded.digest) == sha256_hex(GUARD)


@pytest.mark.root
@pytest.mark.parametrize("where", ["", "bin", "bin/agent"])
def test_a_mount_over_an_image_or_in_it_is_refused(
    checked: tuple[Images, Digest, Path], tmp_path: Path, where: str
) -> None:
    """A bind mount, also of the very same files: it is seen as a mount, not as a change."""
    images, digest, place = checked
    same = tmp_path / "same"
    subprocess.run(["cp", "-a", place, same], check=True)
    for over in (same / where, place / where):
        mounted = subprocess.run(["mount", "--bind", over, place / where], capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            pytest.skip(f"this root may not mount: {mounted.stderr.strip()}")
        try:
            with pytest.raises(ImageRefused, match="mounted in the image"):
                images.verify(digest)
        finally:
            subprocess.run(["umount", place / where], check=True)
    assert images.verify(digest) == sha256_hex(GUARD)


@pytest.mark.root
def test_a_file_with_capabilities_or_of_another_owner_is_refused(checked: tuple[Images, Digest, Path]) -> None:
    images, digest, place = checked
    agent = place / "bin" / "agent"
    os.chown(agent, 12345, 0)
    with pytest.raises(ImageRefused, match="belongs to user 12345"):
        images.verify(digest)
    os.chown(agent, 0, 0)
    agent.chmod(0o555)
    images.verify(digest)
    capability = bytes.fromhex("0100000200000000000000000000000000000000")
    try:
        os.setxattr(agent, "security.capability", capability)
    except OSError as error:
        pytest.skip(f"no file capabilities here: {error}")
    with pytest.raises(ImageRefused, match="carries security.capability"):
        images.verify(digest)
