"""What is built: the checkout's files, copied so that nothing else of the machine gets into the wheel.

Decides which files those are and what commit they are: tracked ones, and new ones that no .gitignore names. Without
git (a source distribution, unpacked) it is all but what building leaves behind. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The time in everything built without a commit: 2020-02-02, as hatchling has it.
NO_COMMIT_EPOCH: Final = 1580601600
_LEFT_BEHIND: Final = frozenset({"__pycache__", "build", "dist", "out"})


@dataclass(frozen=True, slots=True)
class Source:
    """`commit` is None without git; `changed`: the files are not the commit's. `epoch` in seconds since 1970.

    `tree` is the SHA-256 over one `sha256  mode path` line for each file, by path.
    """

    commit: str | None
    changed: bool
    epoch: int
    tree: str


def copied(root: Path, into: Path) -> Source:
    """Copies the source and says what it is. OSError; ValueError for what is no regular file."""
    commit = _git(root, "rev-parse", "--verify", "-q", "HEAD")
    lines = []
    for name in sorted(_names(root, commit is not None)):
        file = root / name
        if file.is_symlink() or not file.is_file():
            if not file.is_symlink() and not file.exists():
                continue  # deleted, and the commit still has it: `changed` says so
            raise ValueError(f"{name} is no regular file")
        data = file.read_bytes()
        mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
        copy = into / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)
        copy.chmod(mode)
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {mode:o} {name}\n")
    tree = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    if commit is None:
        return Source(None, True, NO_COMMIT_EPOCH, tree)
    changed = bool(_git(root, "status", "--porcelain"))
    return Source(commit, changed, int(_git(root, "log", "-1", "--format=%ct") or 0), tree)


def _names(root: Path, git: bool) -> Iterator[str]:
    if git:
        listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        yield from {name for name in (listed or "").split("\0") if name}
        return
    for folder, folders, files in os.walk(root):
        folders[:] = [one for one in folders if one not in _LEFT_BEHIND and (not one.startswith(".") or one == ".ci")]
        here = Path(folder).relative_to(root)
        yield from (str(here / one) for one in files if not one.endswith(".pyc"))


def _git(root: Path, *words: str) -> str | None:
    """What git says, or None where it is no checkout's own root or git is missing."""
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "-c", f"safe.directory={root}", *words],
            capture_output=True, check=True, text=True, errors="surrogateescape",
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip("\n")
