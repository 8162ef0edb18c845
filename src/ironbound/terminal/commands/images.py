"""`ironbound image`: loads a root file system into the deployment, writes an agent's manifest, lists what is there; and
places the kernel of virtual machines.

Decides which program a manifest starts, from the command line and, in an OCI image, from its author's wishes. Nothing
here is an approval: `ironbound approve module` takes the manifest to the operators.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import FormatError, sha256_hex
from ironbound.core.native import Manifest
from ironbound.core.oci import ImageConfig
from ironbound.core.tree import Entry, File, Folder, resolve
from ironbound.node.microvm import kernel as kernels
from ironbound.terminal.arguments import PLACED, Command, deployment_of, option
from ironbound.terminal.voice import FAILED, OK, Stop, emit, note, paint, say, table, usage
from ironbound.wire.deployment import Deployment, DeploymentError
from ironbound.wire.image_load import Loaded, load_directory
from ironbound.wire.images import ImageRefused, Images, shipped_guard
from ironbound.wire.oci import is_layout, load_layout

#: Seconds between two lines about how far it is.
_EVERY_S: Final = 2.0
#: Where a program without a path is looked for if the environment doesn't say.
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_NO_WISHES: Final = ImageConfig((), (), (), "/")


class _Progress:
    """Says how far it is, now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, entries: int, size: int) -> None:
        now = time.monotonic()
        if now - self._last >= _EVERY_S:
            self._last = now
            note(f"{entries:,} entries, {size >> 20:,} MiB")


def load_source(deployment: Deployment, source: Path, tag: str | None) -> tuple[Loaded, ImageConfig]:
    """Loads a folder, or the image in a layout, and what its author wishes."""
    if not source.is_dir():
        hint = "an archive is unpacked first; a layout is a folder with oci-layout, index.json and blobs"
        raise Stop(f"{source} is no folder", hint)
    if is_layout(source):
        return load_layout(source, deployment, shipped_guard(), tag, _Progress(), note)
    if tag is not None:
        usage(f"{source} is no OCI image layout, so it has no tag {tag!r}")
    return load_directory(source, deployment, shipped_guard(), _Progress()), _NO_WISHES


def _environment(wished: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """The image's variables with those of the command line over them, sorted by name."""
    made: dict[str, str] = {}
    for one in (*wished, *given):
        name, found, _ = one.partition("=")
        if not found or not name:
            usage(f"{one!r} is no variable", "write --env NAME=VALUE")
        made[name] = one
    return tuple(made[name] for name in sorted(made))


def _program(found: Mapping[str, Entry], word: str, cwd: str, env: Sequence[str]) -> str:
    """The absolute path of an executable file in the image; Stop with a hint if there is none."""
    if word.startswith("/"):
        places = [word]
    elif "/" in word:
        places = [f"{cwd.rstrip('/')}/{word.removeprefix('./')}"]
    else:
        path = next((one.removeprefix("PATH=") for one in env if one.startswith("PATH=")), _PATH)
        places = [f"{folder.rstrip('/')}/{word}" for folder in path.split(":") if folder.startswith("/")]
    for place in places:
        entry = resolve(found, place)
        if isinstance(entry, File) and entry.mode & 0o111:
            return place
    raise Stop(
        f"the image has no program {word}", f"looked for an executable file at {', '.join(places)[:200] or 'no place'}"
    )


def manifest_for(
    loaded: Loaded, wishes: ImageConfig, argv: Sequence[str], env: Sequence[str], cwd: str | None
) -> Manifest | None:
    """The manifest of the loaded image; None if neither the command line nor the image names a program."""
    words = tuple(argv) or wishes.argv
    if not words:
        return None
    found = {entry.path: entry for entry in loaded.entries}
    folder = cwd or wishes.cwd
    if not isinstance(resolve(found, folder), Folder):
        raise Stop(f"the image has no folder {folder} to start in", "name another one with --cwd")
    variables = _environment(wishes.env, env)
    return Manifest(loaded.digest, (_program(found, words[0], folder, variables), *words[1:]), variables, folder)


def _load(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    try:
        loaded, wishes = load_source(deployment, arguments.source, arguments.tag)
    except ImageRefused as error:
        raise Stop(error.cause, error.hint) from error
    except PermissionError as error:
        raise Stop(f"{error.filename or arguments.source}: {error.strerror}", "root loads what root runs") from error
    manifest = manifest_for(loaded, wishes, arguments.argv, arguments.env, arguments.cwd)
    if manifest is None and (arguments.out or arguments.env or arguments.cwd):
        usage("the image is loaded, but there is no program to write a manifest for", "add it: PATH -- PROGRAM ARG…")
    out = arguments.out or Path("agent.json")
    data = b"" if manifest is None else manifest.encode()
    if manifest is not None:
        out.write_bytes(data)
    size = sum(entry.size for entry in loaded.entries if isinstance(entry, File))
    if arguments.json:
        emit({
            "rootfs_sha256": loaded.digest,
            "entries": len(loaded.entries),
            "bytes": size,
            "fresh": loaded.fresh,
            "dropped": list(loaded.dropped),
            "manifest": None if manifest is None else str(out),
            "module_sha256": None if manifest is None else sha256_hex(data),
            "argv": [] if manifest is None else list(manifest.argv),
        })  # fmt: skip
        return OK
    word = "loaded" if loaded.fresh else "was there already"
    say(f"image      {loaded.digest} {word} ({len(loaded.entries):,} entries, {size:,} bytes)")
    for path in loaded.dropped:
        say(paint(f"dropped    setuid, setgid or capabilities of {path}: nothing in a sandbox gains by them", "yellow"))
    if manifest is None:
        note("no manifest is written: name a program with PATH -- PROGRAM ARG…")
    else:
        say(f"manifest   {out} ({sha256_hex(data)}): {' '.join(manifest.argv)}")
        note(f"next: ironbound approve module {out} --sign NAME")
    return OK


def _looked_at(images: Images, digest: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"rootfs_sha256": digest, "entries": None, "bytes": None, "state": "whole"}
    try:
        entries = images.entries(digest)
        row["entries"] = len(entries)
        row["bytes"] = sum(entry.size for entry in entries if isinstance(entry, File))
        images.verify(digest)
    except ImageRefused as error:
        row["state"] = error.cause
    except (DeploymentError, FormatError) as error:
        row["state"] = str(error)
    return row


def _list(arguments: argparse.Namespace) -> int:
    images = Images(deployment_of(arguments))
    rows = [_looked_at(images, digest) for digest in images.digests()]
    if arguments.json:
        emit(rows)
    elif not rows:
        note("no image here; `ironbound image load PATH` brings one")
    else:
        table(
            ["IMAGE", "ENTRIES", "BYTES", "STATE"],
            [[row["rootfs_sha256"], f"{row['entries']}", f"{row['bytes']}", row["state"]] for row in rows],
        )
    return OK if all(row["state"] == "whole" for row in rows) else FAILED


def _kernel(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    if (arguments.vmlinuz is None) != (arguments.modules is None):
        usage("--vmlinuz and --modules go together")
    try:
        kernel, modules = kernels.installed() if arguments.vmlinuz is None else (arguments.vmlinuz, arguments.modules)
        digests = kernels.place(deployment.root, kernel, modules)
    except (kernels.KernelMissing, kernels.MeasurementDiffers, OSError) as error:
        raise Stop(str(error), "name one with --vmlinuz FILE --modules DIR") from error
    if arguments.json:
        emit({"kernel": str(kernel), "sha256": digests})
    else:
        table(["FILE", "SHA-256"], [[name, digest] for name, digest in digests.items()])
        note(f"placed from {kernel}; the node takes it at its next start")
    return OK


COMMANDS: Final = (
    Command(
        "image load",
        _load,
        "Load a folder or an OCI image layout as a root file system, and write the agent's manifest.",
        "ironbound image load -d prod -o agent.json rootfs -- /usr/bin/python3 /agent.py",
        (
            *PLACED,
            option("-o", "--out", type=Path, metavar="FILE", help="the manifest to write (default: agent.json)"),
            option("--tag", metavar="NAME", help="which image of a layout that holds several"),
            option("--env", action="append", default=[], metavar="K=V", help="a variable for the agent"),
            option("--cwd", metavar="DIR", help="the folder that it starts in (default: the image's, else /)"),
            option("source", type=Path, metavar="PATH", help="a folder, or a folder with an OCI image layout"),
        ),
        program="%(prog)s [-d DIR] [-o FILE] [--tag NAME] [--env K=V] [--cwd DIR] [--json] PATH [-- PROGRAM [ARG ...]]",
    ),
    Command("image list", _list, "The images in the deployment, each checked.", "ironbound image list -d prod", PLACED),
    Command(
        "image kernel",
        _kernel,
        "Place the kernel that virtual machines boot (default: this host's cloud kernel).",
        "ironbound image kernel -d prod",
        (
            *PLACED,
            option("--vmlinuz", type=Path, metavar="FILE", help="the kernel, with --modules"),
            option("--modules", type=Path, metavar="DIR", help="the folder of its modules"),
        ),
    ),
)
