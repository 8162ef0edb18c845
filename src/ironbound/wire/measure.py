"""What is installed on this host and what this process is, as far as both decide which code runs.

Decides where that differs from a signed install manifest (`core.release`) and from how `ironbound up` starts a service.
It does not decide what follows: `wire.service` refuses to start, the monitor says it. It reads files and /proc and
changes nothing. It cannot see what root does in the kernel, nor a process that changes itself in memory: whoever
measures runs of the very files that are measured, so that the monitor, another process and user, measures all again.
Follows proc(5) and Python's "The initialization of the sys.path module search path".

Rule 1: a file counts by its content, as opening it gives; of a link to a file that is the file's. A link to a folder,
        what is no regular file, what changes while it is read and what can't be read is odd, and odd is a difference.
Rule 2: what is not in the manifest is a difference: an added `.py`, `.pyc`, `.pth`, `sitecustomize` included.
Rule 3: a mapped file is the one that lies there under its name by now: the kernel's own number for both decides.
Rule 4: of variables only a digest is said; their values may be secrets.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.posture import NOT_SEEN
from ironbound.core.release import MAX_FILES, differences

#: How a service's interpreter is started, and all of its environment.
OPTIONS: Final = ("-I", "-B")
ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
SERVE: Final = "ironbound.terminal.serve"

MAX_FILE: Final = 1 << 30
"""Bytes of one file that are still read."""
#: Folders beside the standard library's own files whose content no import of ours finds.
_NOT_STDLIB: Final = frozenset({"site-packages", "dist-packages"})
_FLAGS: Final[Mapping[str, int]] = {
    "isolated": 1,
    "ignore_environment": 1,
    "safe_path": 1,
    "no_user_site": 1,
    "no_site": 0,
    "dont_write_bytecode": 1,
    "optimize": 0,
    "debug": 0,
    "inspect": 0,
    "interactive": 0,
    "verbose": 0,
    "bytes_warning": 0,
    "dev_mode": 0,
}
_IMPORTERS: Final = ("BuiltinImporter", "FrozenImporter", "PathFinder")
#: Characters of one text, and words, that a difference gives.
MAX_TEXT: Final = 200
MAX_WORDS: Final = 16
_TRIES: Final = 3
_ROOM: Final = 1 << 18

#: Where something differs: `path` is a file of the manifest or `process/…`; `expected` or `got` is None for nothing.
Difference = dict[str, Any]
#: Device, inode, size and both times of a file: it is read again when one of them changes.
Key = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Installation:
    """Where everything lies, by real paths: the interpreter, its standard library, its packages, native libraries."""

    python: str
    stdlib: str
    site: str
    libraries: tuple[str, ...] = ()

    def name(self, path: str) -> str:
        """A file's path in the manifest."""
        if path == self.python:
            return "python"
        for root, folder in (("site", self.site), ("stdlib", self.stdlib)):
            if path.startswith(folder + "/"):
                return root + path[len(folder) :]
        return "lib" + path


@dataclass(slots=True)
class Found:
    """The files of an installation by their paths in the manifest, and what is odd, with why."""

    files: dict[str, Digest] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)


class _Unread(Exception):
    """There is no digest of this; the message says why."""


def installation(libraries: Iterable[str] = ()) -> Installation:
    """The installation that this process runs of."""
    stdlib, site = (os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "purelib"))
    return Installation(os.path.realpath("/proc/self/exe"), stdlib, site, tuple(libraries))


def libraries_of(manifest: Iterable[str]) -> tuple[str, ...]:
    """The native libraries that a manifest names, by their absolute paths."""
    return tuple(sorted(name[3:] for name in manifest if name.startswith("lib/")))


def measure_files(where: Installation, cache: dict[Key, Digest] | None = None) -> Found:
    """Every file of an installation. `cache` holds what was read before, and afterwards what lies there now."""
    found = Found()
    kept: dict[Key, Digest] = {}
    buffer = memoryview(bytearray(_ROOM))
    for path in _paths(where, found):
        name = where.name(path)
        if len(found.files) + len(found.odd) >= MAX_FILES:
            found.odd[name.partition("/")[0]] = f"more than {MAX_FILES} files"
            break
        try:
            key, digest = _digest(path, cache, buffer)
        except FileNotFoundError:
            continue  # gone since the listing, or a link to nothing
        except _Unread as why:
            found.odd[name] = str(why)
        except OSError as error:
            found.odd[name] = f"{NOT_SEEN}: {error.strerror}"
        else:
            kept[key] = found.files[name] = digest
    if cache is not None:
        cache.clear()
        cache.update(kept)
    return found


def _paths(where: Installation, found: Found) -> Iterator[str]:
    yield where.python
    yield from where.libraries
    for root in (where.stdlib, where.site):
        folders = [root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            if folder != where.stdlib or entry.name not in _NOT_STDLIB:
                                folders.append(entry.path)
                        else:
                            yield entry.path
            except FileNotFoundError:
                continue
            except OSError as error:
                found.odd[where.name(folder + "/")] = f"{NOT_SEEN}: {error.strerror}"


def _key(status: os.stat_result) -> Key:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _digest(path: str, cache: Mapping[Key, Digest] | None, buffer: memoryview) -> tuple[Key, Digest]:
    for _ in range(_TRIES):
        before = os.stat(path)
        if not stat.S_ISREG(before.st_mode):  # not even opened: a device could do something
            raise _Unread("no regular file")
        key = _key(before)
        if cache is not None and key in cache:
            return key, cache[key]
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if before.st_size > MAX_FILE:
                raise _Unread(f"more than {MAX_FILE} bytes")
            state, left = hashlib.sha256(), before.st_size
            while left > 0 and (size := os.readv(descriptor, [buffer])):
                state.update(buffer[:size])
                left -= size
            if not left and _key(os.fstat(descriptor)) == key:
                return key, Digest(state.hexdigest())
        finally:
            os.close(descriptor)
    raise _Unread("changes while it is read")


def file_differences(manifest: Mapping[str, Digest], found: Found) -> list[Difference]:
    """Rules 1 and 2, by path."""
    rows: dict[str, Difference] = {str(one["path"]): dict(one) for one in differences(manifest, found.files)}
    for path, why in found.odd.items():
        rows[path] = {"path": path, "expected": manifest.get(path), "got": why}
    return [rows[path] for path in sorted(rows)]


# What is mapped


class Mapped(NamedTuple):
    """A file that is mapped: the kernel's device and inode, as it prints them, and its name."""

    device: str
    inode: str
    path: str


def mapped(maps: str, executable: bool = True) -> set[Mapped]:
    """The files in the text of a /proc/PID/maps; only those that can be executed, unless told otherwise."""
    found = set()
    for line in maps.splitlines():
        words = line.split(None, 5)
        if words[4] != "0" and len(words) == 6 and ("x" in words[1] or not executable):
            found.add(Mapped(words[3], words[4], words[5]))
    return found


def mapping_differences(files: Mapping[str, Digest], where: Installation, seen: Iterable[Mapped]) -> list[Difference]:
    """Rule 3: of the files that a process maps executable, those that are not the measured `files`."""
    found: list[Difference] = []
    seen = sorted(seen, key=lambda one: (one.path, one.inode))
    lies = _lying({one.path for one in seen if where.name(one.path) in files})
    for one in seen:
        name = where.name(one.path)
        if name not in files:
            found.append({"path": f"process/mapped/{one.path}", "expected": None, "got": "mapped"})
        elif one not in lies:
            found.append({"path": f"process/mapped/{one.path}", "expected": files[name], "got": "another file"})
    return found


def _lying(paths: Iterable[str]) -> set[Mapped]:
    """The files at these paths, as the kernel would print them if mapped: stat(2) has other numbers on some systems."""
    held: list[mmap.mmap] = []
    try:
        for path in paths:
            try:
                with open(path, "rb") as file:
                    held.append(mmap.mmap(file.fileno(), 1, mmap.MAP_SHARED, mmap.PROT_READ))
            except (OSError, ValueError):
                continue  # not there or empty: then nobody has it mapped from there
        own = _read("/proc/self/maps")
        return {
            Mapped(words[3], words[4], words[5])
            for words in (line.split(None, 5) for line in own.splitlines())
            if words[1] == "r--s" and len(words) == 6
        }
    finally:
        for one in held:
            one.close()


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


# What this process is


def environment_differences(found: Mapping[str, Digest]) -> list[Difference]:
    """`found`: the digest of `NAME=VALUE` by name."""
    expected = {name: sha256_hex(f"{name}={value}".encode()) for name, value in ENVIRONMENT.items()}
    return [
        {"path": f"process/environment/{name}", "expected": expected.get(name), "got": found.get(name)}
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]


def words_of(python: str, role: str) -> tuple[str, ...]:
    """The command line of a service."""
    return (python, *OPTIONS, "-m", SERVE, role)


def process_differences(files: Mapping[str, Digest], where: Installation, role: str) -> list[Difference]:
    """What about this process is not as `ironbound up` starts the service `role` from these files."""
    found: list[Difference] = []

    def fact(name: str, expected: Any, got: Any) -> None:
        if expected != got:
            found.append({"path": f"process/{name}", "expected": expected, "got": got})

    for flag, value in _FLAGS.items():
        fact(f"flags/{flag}", value, int(getattr(sys.flags, flag)))
    fact("words", list(words_of(sys.orig_argv[0], role)[1:]), sys.orig_argv[1:])
    fact("options", [], sorted(f"-X {name}" for name in sys._xoptions) + [f"-W {one}" for one in sys.warnoptions])
    fact("bytecode-folder", None, sys.pycache_prefix)
    _found_on_path(fact, where)
    fact("importers", list(_IMPORTERS), [getattr(one, "__name__", repr(one)[:80]) for one in sys.meta_path])
    fact("path-hooks", 2, len(sys.path_hooks))
    fact("traced-by-python", [], _tracers())
    fact("tracer", 0, tracer(_read("/proc/self/status")))
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if file is not None and not {where.name(str(file)), where.name(os.path.realpath(str(file)))} & files.keys():
            found.append({"path": f"process/modules/{name}", "expected": None, "got": str(file)})
    for environment in (_first_environment(), _variables(os.environb.items())):
        found += [one for one in environment_differences(environment) if one not in found]
    return found + mapping_differences(files, where, mapped(_read("/proc/self/maps")))


def _found_on_path(fact: Any, where: Installation) -> None:
    archive = os.path.join(os.path.dirname(where.stdlib), "python{}{}.zip".format(*sys.version_info[:2]))
    allowed = (archive, where.stdlib, os.path.join(where.stdlib, "lib-dynload"), where.site)
    got = [os.path.realpath(one) for one in sys.path]
    fact("path", [one for one in allowed if one in got or one == where.stdlib or one == where.site], got)
    if archive in got:
        fact("path-archive", None, archive if os.path.lexists(archive) else None)


def _tracers() -> list[str]:
    """What of Python's own would see or change what runs."""
    found = [name for name in ("trace", "profile") if getattr(sys, f"get{name}")() is not None]
    found += [f"threading.{name}" for name in ("trace", "profile") if getattr(threading, f"get{name}")() is not None]
    monitoring = getattr(sys, "monitoring", None)  # since Python 3.12
    if monitoring is not None:
        found += [f"monitoring.{one}" for one in range(6) if monitoring.get_tool(one) is not None]
    return found


def tracer(status: str) -> int:
    """Who traces a process, by the text of its /proc/PID/status; 0 for nobody."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("TracerPid:"))


def _first_environment() -> dict[str, Digest]:
    """As it was when this process began."""
    with open("/proc/self/environ", "rb") as file:
        return _variables((one.partition(b"=")[0], one.partition(b"=")[2]) for one in file.read().split(b"\0") if one)


def _variables(items: Iterable[tuple[bytes, bytes]]) -> dict[str, Digest]:
    return {name.decode("ascii", "replace")[:64]: sha256_hex(name + b"=" + value) for name, value in items}


def said(found: Sequence[Difference], most: int) -> list[Difference]:
    """Differences as a statement has them: no more than `most`, all text printable and cut."""
    return [{name: _said(value) for name, value in one.items()} for one in found[:most]]


def _said(value: Any) -> Any:
    if isinstance(value, str):
        return ascii(value)[1:-1][:MAX_TEXT]
    return [_said(one) for one in value[:MAX_WORDS]] if isinstance(value, list) else value
