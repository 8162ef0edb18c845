"""Makes a live process do a system call of the test's, as a debugger with root does; its filter stands aside meanwhile.

Run as a program: `injector.py PID NUMBER ARGUMENT…`; prints the result and lets go. `injector.py PID PROGRAM VARIABLE…`
makes it become a program, from a memory file, with that environment. `injector.py PID filter` puts a filter that allows
everything on its main thread. Follows ptrace(2), PTRACE_O_SUSPEND_SECCOMP.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time

SEIZE, INTERRUPT, DETACH, STEP = 0x4206, 0x4207, 17, 9
GETREGS, SETREGS = 12, 13
SUSPEND_SECCOMP = 1 << 21
WALL = 0x40000000
R10, R9, R8, RAX, RDX, RSI, RDI, ORIG_RAX, RIP, RSP = 7, 8, 9, 10, 12, 13, 14, 15, 16, 19
CLOSE, MEMFD_CREATE, EXECVEAT, AT_EMPTY_PATH = 3, 319, 322, 0x1000
SECCOMP, SET_MODE_FILTER = 317, 1
ALLOW_ALL = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
_libc = ctypes.CDLL(None, use_errno=True)


def _ptrace(request: int, pid: int, address: int = 0, data: object = None) -> None:
    if _libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(address), data) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace {request}: {os.strerror(code)}")


def _stopped(pid: int) -> None:
    end = time.monotonic() + 10
    while os.waitpid(pid, WALL | os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            raise TimeoutError("it does not stop")
        time.sleep(0.001)


def _seize(pid: int) -> ctypes.Array[ctypes.c_char]:
    """Its registers, in a system call in which it waits."""
    end = time.monotonic() + 10
    while True:
        try:
            _ptrace(SEIZE, pid, 0, ctypes.c_void_p(SUSPEND_SECCOMP))
            break
        except PermissionError:  # the monitor traces it for a moment, to read its filters
            if time.monotonic() > end:
                raise
            time.sleep(0.005)
    _ptrace(INTERRUPT, pid)
    _stopped(pid)
    kept = ctypes.create_string_buffer(27 * 8)
    _ptrace(GETREGS, pid, 0, kept)
    return kept


def _call(pid: int, kept: ctypes.Array[ctypes.c_char], number: int, *arguments: int) -> int:
    changed = list(struct.unpack("27Q", kept.raw))
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(changed[RIP] - 2)
        if memory.read(2) != b"\x0f\x05":
            raise OSError("it is not in a system call")
    changed[RIP] -= 2
    changed[RAX], changed[ORIG_RAX] = number, (1 << 64) - 1
    for place, value in zip((RDI, RSI, RDX, R10, R8, R9), arguments, strict=False):
        changed[place] = value
    _ptrace(SETREGS, pid, 0, ctypes.create_string_buffer(struct.pack("27Q", *changed), 27 * 8))
    _ptrace(STEP, pid)
    _stopped(pid)
    after = ctypes.create_string_buffer(27 * 8)
    _ptrace(GETREGS, pid, 0, after)
    (result,) = struct.unpack_from("q", after.raw, RAX * 8)
    return int(result)


def inject(pid: int, number: int, *arguments: int) -> int:
    """The result of the call in that process. Raises OSError where the kernel lets nobody do it."""
    kept = _seize(pid)
    try:
        result = _call(pid, kept, number, *arguments)
        _ptrace(SETREGS, pid, 0, kept)
    finally:
        _ptrace(DETACH, pid)
    return result


def become(pid: int, program: bytes, variables: list[str]) -> int:
    """Make that process the program, with the environment. The kernel's answer, 0 or an error's negative number."""
    kept = _seize(pid)
    try:
        (stack,) = struct.unpack_from("Q", kept.raw, RSP * 8)
        place = (stack & ~0xFFF) - 4096
        strings = [b"", b"program", *(one.encode() for one in variables)]
        offsets = [sum(len(one) + 1 for one in strings[:at]) for at in range(len(strings))]
        table = place + 2048
        pointers = [place + offsets[1], 0, *(place + one for one in offsets[2:]), 0]
        _write(pid, place, b"".join(one + b"\0" for one in strings))
        _write(pid, table, struct.pack(f"{len(pointers)}Q", *pointers))
        _call(pid, kept, CLOSE, 2)  # it may have no room for one more
        file = _call(pid, kept, MEMFD_CREATE, place, 0)
        if file < 0:
            return file
        with open(f"/proc/{pid}/fd/{file}", "wb") as memory:
            memory.write(program)
        result = _call(pid, kept, EXECVEAT, file, place, table, table + 16, AT_EMPTY_PATH)
        if result < 0:
            _ptrace(SETREGS, pid, 0, kept)
        return result
    finally:
        _ptrace(DETACH, pid)


def add_filter(pid: int) -> int:
    """One more filter on that thread alone. The kernel's answer, 0 or an error's negative number."""
    kept = _seize(pid)
    try:
        (stack,) = struct.unpack_from("Q", kept.raw, RSP * 8)
        place = (stack & ~0xFFF) - 4096
        _write(pid, place, struct.pack("<H6xQ", 1, place + 16) + ALLOW_ALL)
        result = _call(pid, kept, SECCOMP, SET_MODE_FILTER, 0, place)
        _ptrace(SETREGS, pid, 0, kept)
        return result
    finally:
        _ptrace(DETACH, pid)


def _write(pid: int, place: int, data: bytes) -> None:
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(place)
        memory.write(data)


if __name__ == "__main__":
    if sys.argv[2] == "filter":
        print(add_filter(int(sys.argv[1])), flush=True)
    elif sys.argv[2].startswith("/"):
        with open(sys.argv[2], "rb") as opened:
            print(become(int(sys.argv[1]), opened.read(), sys.argv[3:]), flush=True)
    else:
        print(inject(*map(int, sys.argv[1:])), flush=True)
