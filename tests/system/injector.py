"""Makes a live process do a system call of the test's, as a debugger with root does; its filter stands aside meanwhile.

Run as a program: `injector.py PID NUMBER ARGUMENT…`; prints the result and lets go. Follows ptrace(2),
PTRACE_O_SUSPEND_SECCOMP.
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
R10, R9, R8, RAX, RDX, RSI, RDI, ORIG_RAX, RIP = 7, 8, 9, 10, 12, 13, 14, 15, 16
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


def inject(pid: int, number: int, *arguments: int) -> int:
    """The result of the call in that process. Raises OSError where the kernel lets nobody do it."""
    _ptrace(SEIZE, pid, 0, ctypes.c_void_p(SUSPEND_SECCOMP))
    try:
        _ptrace(INTERRUPT, pid)
        _stopped(pid)
        kept = ctypes.create_string_buffer(27 * 8)
        _ptrace(GETREGS, pid, 0, kept)
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
        _ptrace(SETREGS, pid, 0, kept)
    finally:
        _ptrace(DETACH, pid)
    (result,) = struct.unpack_from("q", after.raw, RAX * 8)
    return int(result)


if __name__ == "__main__":
    print(inject(*map(int, sys.argv[1:])), flush=True)
