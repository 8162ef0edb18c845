"""The `scratch.*` actions: a flat, bounded directory of text files for each agent.

`normalise` turns the agent's arguments into what the kernel judges; `ScratchArea.perform` acts on exactly
those. Whether the action is allowed, a grant decides; how much room there is, the effective configuration.

Rule 1: a name is one path component of a closed alphabet; there is nothing to traverse.
Rule 2: no link is followed and nothing but a regular file with one name is read or replaced.
Rule 3: a write is there as a whole or not at all; if we crash in between, the old file stands and the
        unfinished one is removed at the next start.
Rule 4: the quota counts what is on the disk, not what we remember.
"""

import os
import re
import stat
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from ironbound.core.canonical import Value
from ironbound.gateway.action import ArgumentsRefused, Performed, members

ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "scratch.write": ("name", "text"),
    "scratch.read": ("name",),
    "scratch.list": (),
    "scratch.delete": ("name",),
}
"""Each action with its arguments, all strings and all required."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_AGENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_UNFINISHED: Final = ".unfinished"


def normalise(action: str, arguments: Value) -> dict[str, Value]:
    """The arguments of a scratch action. Raises ArgumentsRefused and nothing else."""
    args = members(arguments, dict.fromkeys(ACTIONS[action], str), {})
    name = args.get("name")
    if name is not None and (not isinstance(name, str) or _NAME.fullmatch(name) is None):
        raise ArgumentsRefused("name-invalid", "expected up to 64 of a-z 0-9 . _ -, beginning with a letter or digit")
    return dict(args)


class ScratchRefused(Exception):
    """The area can't do that; nothing changed. `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class ScratchArea:
    """One agent's area under `root`, an existing directory. Blocking; call it from a worker thread."""

    def __init__(self, root: str, agent: str, *, max_bytes: int, max_files: int) -> None:
        """Open the agent's area, made if it isn't there. Limits in bytes of all files, and in files."""
        if _AGENT.fullmatch(agent) is None:
            raise ScratchRefused("agent-invalid", "the agent's id names no area")
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._lock = threading.Lock()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        parent = os.open(root, flags)
        try:
            try:
                os.mkdir(agent, 0o700, dir_fd=parent)
            except FileExistsError:
                pass
            self._directory = os.open(agent, flags, dir_fd=parent)
        finally:
            os.close(parent)
        try:
            os.unlink(_UNFINISHED, dir_fd=self._directory)
        except FileNotFoundError:
            pass

    def close(self) -> None:
        """Give the directory's descriptor back."""
        os.close(self._directory)

    def __enter__(self) -> "ScratchArea":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def perform(self, action: str, args: Mapping[str, Value], *, max_result: int) -> Performed:
        """Do a judged action. `max_result` bounds, in bytes, what is read. What goes wrong is a status."""
        name, text = str(args.get("name", "")), str(args.get("text", ""))
        with self._lock:
            try:
                if action == "scratch.write":
                    return self._write(name, text.encode())
                if action == "scratch.read":
                    return self._read(name, max_result)
                if action == "scratch.list":
                    return self._list()
                if action == "scratch.delete":
                    return self._delete(name)
            except ScratchRefused as refusal:
                return Performed("not-performed", str(refusal), str(refusal))
            except OSError as error:
                text = f"scratch-unavailable: {error.strerror}"
                return Performed("unknown" if action in ("scratch.write", "scratch.delete") else "failed", text, text)
        raise ScratchRefused("action-unknown", "no such scratch action")

    def _files(self) -> dict[str, int]:
        """Name and size of every file that an agent could have written."""
        sizes: dict[str, int] = {}
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name) is not None:
                    sizes[entry.name] = self._size(entry.name)
        return sizes

    def _size(self, name: str) -> int:
        status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise ScratchRefused("not-a-file", f"{name} is no ordinary file; somebody else put it there")
        return status.st_size

    def _write(self, name: str, content: bytes) -> Performed:
        sizes = self._files()
        if name not in sizes and len(sizes) >= self._max_files:
            raise ScratchRefused("quota-files", f"the area holds its {self._max_files} files already")
        others = sum(size for other, size in sizes.items() if other != name)
        if others + len(content) > self._max_bytes:
            raise ScratchRefused(
                "quota-bytes", f"{others + len(content)} bytes would be over the {self._max_bytes} of the area"
            )
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(_UNFINISHED, flags, 0o600, dir_fd=self._directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(_UNFINISHED, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError as error:
            self._discard()
            raise ScratchRefused("scratch-unavailable", f"nothing was written: {error.strerror}") from error
        os.fsync(self._directory)
        detail = f"{len(content)} bytes to {name}"
        return Performed("performed", detail, detail, {"name": name, "bytes": len(content)})

    def _discard(self) -> None:
        try:
            os.unlink(_UNFINISHED, dir_fd=self._directory)
        except FileNotFoundError:
            pass

    def _read(self, name: str, max_result: int) -> Performed:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        if name not in self._files():
            return Performed("failed", f"no file {name}", f"there is no file {name}")
        descriptor = os.open(name, flags, dir_fd=self._directory)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise ScratchRefused("not-a-file", f"{name} is no ordinary file")
            content = file.read(max_result + 1)
        if len(content) > max_result:
            raise ScratchRefused("result-too-large", f"{name} is over {max_result} bytes, more than one message")
        try:
            text = content.decode("utf-8", "strict")
        except UnicodeDecodeError:
            raise ScratchRefused("not-text", f"{name} is not UTF-8; no agent wrote it") from None
        return Performed("performed", f"{len(content)} bytes from {name}", text, {"name": name, "bytes": len(content)})

    def _list(self) -> Performed:
        sizes = dict(sorted(self._files().items()))
        text = "\n".join(f"{name} {size}" for name, size in sizes.items())
        files: list[Value] = [{"name": name, "bytes": size} for name, size in sizes.items()]
        return Performed("performed", f"{len(sizes)} files", text, {"files": files})

    def _delete(self, name: str) -> Performed:
        if name not in self._files():
            return Performed("failed", f"no file {name}", f"there is no file {name}")
        os.unlink(name, dir_fd=self._directory)
        os.fsync(self._directory)
        return Performed("performed", f"deleted {name}", f"deleted {name}", {"name": name})
