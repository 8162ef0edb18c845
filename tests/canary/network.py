"""In a network namespace of its own: loopback with the given addresses, abstract sockets with the given names, and then
the given program. `network.py ADDRESS… -- NAME… -- PROGRAM…`"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

SIOCSIFFLAGS, SIOCSIFADDR, UP_RUNNING = 0x8914, 0x8916, 0x41


def main(arguments: list[str]) -> None:
    first = arguments.index("--")
    second = arguments.index("--", first + 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", UP_RUNNING))
        for number, address in enumerate(arguments[:first]):
            place = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s16s8x", f"lo:{number}".encode(), place))
    for number, name in enumerate(arguments[first + 1 : second]):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(b"\0" + name.encode())
        listener.listen(1)
        os.dup2(listener.fileno(), 40 + number)  # stays open in the program
    os.execvp(arguments[second + 1], arguments[second + 1 :])


if __name__ == "__main__":
    main(sys.argv[1:])
