"""How files of /proc are read. Decides nothing. Follows proc(5).

Rule 1: only a newline ends a line. A process gives itself a name, in which the kernel escapes that and no other of the
        characters at which Python would break a line; else it could write lines of its own.
"""

from __future__ import annotations

import os
from typing import Final

_DEAD: Final = "ZXx"
#: PF_EXITING of the kernel's linux/sched.h: the thread runs no code of its own any more.
_EXITING: Final = 0x4


def read_proc(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = bytearray()
        while part := os.read(descriptor, 65536):
            data += part
    finally:
        os.close(descriptor)
    return data.decode("utf-8", "surrogateescape")


def read_lines(path: str) -> list[str]:
    """The lines of a file of /proc (Rule 1)."""
    lines = read_proc(path).split("\n")
    return lines if lines[-1] else lines[:-1]


def stat_fields(text: str) -> list[str]:
    # The name in brackets may hold spaces and brackets; what follows the last one is state, ppid, …
    return text[text.rindex(")") + 2 :].split()


def has_ended(fields: list[str]) -> bool:
    """Whether these stat fields are those of a process without a live thread."""
    return fields[0] in _DEAD and int(fields[17]) <= 1


def is_ending(pid: int) -> bool:
    """Whether every thread of a process is on its way out, or gone. What such a process still shows is empty, piece by
    piece: its memory, its files, its group."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return True
    for thread in threads:
        try:
            flags = int(stat_fields(read_proc(f"/proc/{pid}/task/{thread}/stat"))[6])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if not flags & _EXITING:
            return False
    return True
