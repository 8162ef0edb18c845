"""Which files a scan looks at, and as what: folders, archives in files, image layouts; a process for each core.

Decides by a file's first bytes before its name what it is, and reads every one: source, bytecode, binaries, Wasm,
configuration, scripts, and the members of zip and tar archives. A folder that a `.pth` file adds is part of what is
scanned. Symbolic links are not followed; what they lead to inside is read where it lies.

Rule 1: nothing of what is scanned is run, imported or unpacked to a name of its choosing.
Rule 2: a file that makes a reader fail, or its process die, is unread; the others are not lost with it.
"""

from __future__ import annotations

import gc
import os
import signal
import stat
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from ironbound.core.canonical import FormatError

from . import scan_archives, scan_text
from .scan_archives import MAX_FILE
from .scan_binary import ELF, WASM, scan_bytes, scan_elf, scan_options, scan_wasm
from .scan_bytecode import HEADER, header, scan_bytecode
from .scan_found import Binary, Found, Sink, Unread
from .scan_list import FORMAT, is_list
from .scan_python import scan_source
from .scan_words import in_bytes

#: Bytes of all members of one archive together, archives within archives, and members.
MAX_ARCHIVE: Final = 2 << 30
MAX_NESTING: Final = 3
MAX_MEMBERS: Final = 200_000
MAX_FILES: Final = 2_000_000
MAX_PROCESSES: Final = 16
_BATCH: Final = 2 << 20
"""Bytes of files that a process is given at a time."""
_ROOTS: Final = ("site-packages", "dist-packages")
_HOOKS: Final = ("sitecustomize.py", "usercustomize.py", "sitecustomize.pyc", "usercustomize.pyc")
_LIST: Final = FORMAT.encode()
_KEYED: Final = ("config", "settings", "policy", "profile", "package.json", "manifest", "options", "defaults")

Beside = Callable[[str], tuple[bytes, int | None] | None]
"""The bytes of a file by its path next to another one, and when it was changed, in seconds; None if there is none."""
Tell = Callable[[int, int], None]
"""Progress: files done, of how many."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file to read: where it lies, its path for people, and its path below the folder that imports start in."""

    path: str
    file: str
    where: str
    size: int
    mode: int = 0o644


@dataclass(slots=True)
class Scanned:
    """What a scan found, and how many files it read, by what they are."""

    found: set[Found] = field(default_factory=set)
    unread: list[Unread] = field(default_factory=list)
    binaries: list[Binary] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)

    def take(self, other: Scanned) -> None:
        """Adds what another part found."""
        self.found |= other.found
        self.unread += other.unread
        self.binaries += other.binaries
        for kind, count in other.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + count


# Which files


def import_path(path: str) -> str:
    """A path below the last folder in it that imports start in, or as it is."""
    parts = path.split("/")
    last = max((at for at, part in enumerate(parts) if part in _ROOTS), default=-1)
    return "/".join(parts[last + 1 :])


def import_root(folder: Path) -> Path:
    """The folder that holds the package which a folder is, or is in; the folder itself if it is none."""
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def jobs_of(root: Path) -> tuple[list[Job], list[Unread]]:
    """Every regular file below a folder (or the one file), and below the folders that its `.pth` files add."""
    jobs: list[Job] = []
    unread: list[Unread] = []
    base = import_root(root if root.is_dir() else root.parent)
    if not root.is_dir():
        status = root.stat()
        return [Job(str(root), root.name, import_path(root.relative_to(base).as_posix()), status.st_size)], []
    seen = {root.resolve()}
    queue = [(root, base, "")]
    while queue:
        folder, start, prefix = queue.pop()
        for path, status in _walk(folder, unread):
            if len(jobs) >= MAX_FILES:
                unread.append(Unread(str(folder), f"more than {MAX_FILES} files"))
                return jobs, unread
            relative = os.path.relpath(path, start)
            file = (prefix + relative) if prefix else os.path.relpath(path, folder)
            jobs.append(Job(path, file, import_path(relative), status.st_size, stat.S_IMODE(status.st_mode)))
            if path.endswith(".pth") and status.st_size < 65536:
                for added in _added(Path(path)):
                    inside = any(added == one or one in added.parents for one in seen)
                    if added.is_dir() and not inside:
                        seen.add(added)
                        queue.append((added, added, f"{added}/"))
    return jobs, unread


def _added(pth: Path) -> Iterator[Path]:
    for folder in scan_text.scan_pth(pth.read_bytes(), Sink("", "")):
        yield (pth.parent / folder).resolve()


def _walk(folder: Path, unread: list[Unread]) -> Iterator[tuple[str, os.stat_result]]:
    def failed(error: OSError) -> None:
        unread.append(Unread(str(error.filename), error.strerror or "can't be read"))

    for place, folders, files in os.walk(folder, onerror=failed):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(place, name)
            try:
                status = os.lstat(path)
            except OSError as error:
                failed(error)
                continue
            if stat.S_ISREG(status.st_mode):
                yield path, status


# What one file is


def _suffix(name: str) -> str:
    last = name.rpartition("/")[2].lower()
    if last in scan_text.NAMES or last.startswith(("dockerfile.", ".env.")):
        return "conf"
    return last.rpartition(".")[2] if "." in last.lstrip(".") else ""


def read_bytes(data: bytes, sink: Sink, beside: Beside, depth: int = 0) -> Scanned:
    """Reads one file's bytes as what they are."""
    done = Scanned()
    kind = _read(data, sink, beside, depth, done)
    done.kinds[kind] = done.kinds.get(kind, 0) + 1
    done.found |= sink.found
    done.unread += sink.unread
    done.binaries += sink.binaries
    return done


def _read(data: bytes, sink: Sink, beside: Beside, depth: int, done: Scanned) -> str:
    name = sink.where.rpartition("/")[2]
    suffix = _suffix(sink.where)
    if name in _HOOKS:
        sink.add("hook", "runs at every start of the interpreter", "", "interpreter")
    if name == "ld.so.preload" and data.strip():
        sink.add("hook", "loaded into every program", 1, "interpreter")
    if data.startswith(WASM):
        scan_wasm(data, sink)
        return "Wasm"
    if suffix == "pyc":
        return _bytecode(data, sink, beside)
    opened = scan_archives.members(data, name, sink)
    if opened is not None:
        _members(opened, sink, depth, done)
        if not data.startswith((ELF, b"#!")):  # else a program with an archive behind it
            return "archive"
    if data.startswith(ELF):
        scan_elf(data, sink)
        return "ELF"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = data.decode("utf-16", "replace").encode()
    if not scan_text.is_text(data):
        scan_archives.refuse(data, sink)
        scan_bytes(data, sink)
        if data.startswith((b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")):
            scan_options(data, sink)
        return "other binary"
    return _text(data, sink, name, suffix)


def _text(data: bytes, sink: Sink, name: str, suffix: str) -> str:
    python = suffix in ("py", "pyw") or (data.startswith(b"#!") and b"python" in data[:128].split(b"\n")[0])
    if python:
        if scan_text.OPTIMISED.match(data):
            sink.add("hook", "python -O, which strips assert", 1, "interpreter")
        if name == "__main__.py":
            sink.add("entry", "__main__.py", "")
        if scan_source(data, sink):
            return "Python source"
        if suffix:
            sink.skip("no Python that this interpreter can parse; searched as text")
        scan_text.scan_code(data, sink, "py")
        return "Python source"
    if suffix == "pth":
        scan_text.scan_pth(data, sink)
        return "configuration"
    if ".dist-info/" in sink.where or ".egg-info/" in sink.where:
        if name == "entry_points.txt":
            scan_text.scan_entry_points(data, sink)
        return "metadata"
    if suffix in scan_text.CONFIG or (suffix == "" and "/etc/" in f"/{sink.where}"):
        scan_text.scan_config(data, sink)
        return "configuration"
    if suffix == "json" and data.startswith(b"{") and _LIST in data[:200] and is_list(data):
        return "closed list"
    if suffix == "json":
        keyed = any(word in name.lower() for word in _KEYED) or "/etc/" in f"/{sink.where}"
        part = sink if keyed else Sink(sink.file, sink.where)
        scan_text.scan_config(data, part)
        sink.found |= {one for one in part.found if one.rule}
        return "configuration"
    if suffix in scan_text.PROSE:
        return "prose"
    if not suffix and not data.startswith(b"#!"):
        part = Sink(sink.file, sink.where)
        scan_text.scan_config(data, part)
        sink.found |= {one for one in part.found if one.rule}
    scan_text.scan_code(data, sink, suffix)
    return "other source" if suffix in scan_text.CODE or data.startswith(b"#!") else "other text"


def _bytecode(data: bytes, sink: Sink, beside: Beside) -> str:
    folder, _, name = sink.where.rpartition("/")
    found = None
    if folder.rpartition("/")[2] == "__pycache__":
        found = beside(f"../{name.split('.')[0]}.py")
    try:
        if found is None:
            sink.add("hook", "bytecode without its source", "")
            scan_bytecode(data, sink)
            return "bytecode"
        source, changed = found
        _, flags, stamp = header(data)
        if flags == 0 and struct.unpack("<II", stamp) != ((changed or 0) & 0xFFFFFFFF, len(source)) and changed:
            return "bytecode that is not used"
        if flags == 1 and stamp != _source_hash(source):
            sink.add(
                "hook", "bytecode that runs instead of the source beside it, and is not of it", "", "bytecode-differs"
            )
            scan_bytecode(data, sink)
        elif any(True for _ in in_bytes(data[HEADER:])):
            inner = Sink(sink.file, sink.where)
            scan_bytecode(data, inner)
            sink.found |= {one for one in inner.found if one.rule and one.name.encode() not in source}
    except FormatError as error:
        sink.skip(f"{error.message}; searched as a binary")
        scan_bytes(data, sink)
    return "bytecode"


def _source_hash(source: bytes) -> bytes:
    import importlib.util

    return importlib.util.source_hash(source)


# Archives


def _members(members: Iterator[tuple[str, bytes]], sink: Sink, depth: int, done: Scanned) -> None:
    if depth >= MAX_NESTING:
        sink.skip(f"archives within archives, more than {MAX_NESTING} deep")
        return
    total = 0
    kept: dict[str, bytes] = {}
    for count, (name, data) in enumerate(members):
        total += len(data)
        if total > MAX_ARCHIVE or count >= MAX_MEMBERS:
            sink.skip(f"an archive of more than {MAX_ARCHIVE} bytes or {MAX_MEMBERS} members: the rest")
            break
        if name.endswith(".py"):
            kept[name] = data
        inner = Sink(f"{sink.file}!/{name}", import_path(name))
        done.take(read_bytes(data, inner, _beside_member(kept, name), depth + 1))


def _beside_member(kept: dict[str, bytes], name: str) -> Beside:
    def beside(path: str) -> tuple[bytes, int | None] | None:
        data = kept.get(os.path.normpath(os.path.join(os.path.dirname(name), path)))
        return None if data is None else (data, None)

    return beside


# The processes


def read_job(job: Job) -> Scanned:
    """What one file has."""
    sink = Sink(job.file, job.where)
    if job.size > MAX_FILE:
        sink.skip(f"larger than {MAX_FILE} bytes")
        return Scanned(unread=sink.unread)
    try:
        data = Path(job.path).read_bytes()
    except OSError as error:
        return Scanned(unread=[Unread(job.file, error.strerror or str(error))])
    if job.mode & (stat.S_ISUID | stat.S_ISGID):
        sink.add("hook", "runs as its owner (setuid or setgid)", "")

    def beside(path: str) -> tuple[bytes, int | None] | None:
        source = Path(job.path).parent / path
        try:
            return source.read_bytes(), int(source.stat().st_mtime)
        except OSError:
            return None

    try:
        return read_bytes(data, sink, beside)
    except (RecursionError, MemoryError) as error:
        return Scanned(sink.found, [*sink.unread, Unread(job.file, f"its reader gave up: {type(error).__name__}")])


def read_jobs(jobs: list[Job]) -> Scanned:
    """What some files have."""
    done = Scanned()
    for job in jobs:
        done.take(read_job(job))
    return done


def _batches(jobs: list[Job]) -> list[list[Job]]:
    """The large files first, so that none is begun last."""
    batches: list[list[Job]] = []
    room = 0
    for job in sorted(jobs, key=lambda job: (-job.size, job.file)):
        if not batches or room < job.size or len(batches[-1]) >= 200:
            batches.append([])
            room = _BATCH
        batches[-1].append(job)
        room -= job.size
    return batches


def read_all(jobs: list[Job], tell: Tell = lambda done, total: None, processes: int = 0) -> Scanned:
    """What all files have, read by so many processes, or by one for each core that we may use (Rule 2)."""
    processes = processes or min(len(os.sched_getaffinity(0)), MAX_PROCESSES)
    done, count = Scanned(), 0
    left: list[list[Job]] = []
    for batch, result in _in_processes(_batches(jobs), processes):
        if result is None:
            left.append(batch)
            continue
        done.take(result)
        count += len(batch)
        tell(count, len(jobs))
    again: list[list[Job]] = []
    for batch in left:  # each by itself: one of them ends its process
        result = next(_in_processes([batch], 1))[1]
        if result is None:
            again.append(batch)
        else:
            done.take(result)
            count += len(batch)
            tell(count, len(jobs))
    for job in (job for batch in again for job in batch):
        result = next(_in_processes([[job]], 1))[1]
        done.take(result if result is not None else Scanned(unread=[Unread(job.file, "its reader died")]))
        count += 1
        tell(count, len(jobs))
    return done


def _in_processes(batches: list[list[Job]], processes: int) -> Iterator[tuple[list[Job], Scanned | None]]:
    """Each batch with what it has; None for those that were lost with the process that died."""
    with ProcessPoolExecutor(processes, mp_context=get_context("fork"), initializer=_quiet) as pool:
        waiting = {}
        try:
            for batch in batches:
                try:
                    waiting[pool.submit(read_jobs, batch)] = batch
                except BrokenProcessPool:
                    yield batch, None
            for one in as_completed(waiting):
                try:
                    yield waiting[one], one.result()
                except BrokenProcessPool:
                    yield waiting[one], None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _quiet() -> None:
    """Ctrl-C is for the process that asked; it ends these. What a file leaves has no cycles worth looking for."""
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
