"""The demo's tamperer: attaches a debugger to a process, as somebody with rights on the host could.

Run as a process of its own: `python -I -m ironbound.terminal.demo.tamper PID`. It says `attached` and holds on until
its standard input ends. Belongs to the demo; the product never starts it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_PTRACE_SEIZE: Final = 0x4206


def attach(pid: int) -> None:
    """PTRACE_SEIZE; OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(_PTRACE_SEIZE, pid, None, None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


if __name__ == "__main__":
    try:
        attach(int(sys.argv[1]))
    except OSError as error:
        sys.exit(f"attach: {error.strerror}")
    print("attached", flush=True)
    sys.stdin.read()
