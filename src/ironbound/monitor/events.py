"""The kernel's own word of what processes do: fork, exec, a change of user, a tracer, an end, as it happens.

Decides nothing: it says which process something happened to, and the watch looks for itself. Follows the kernel's
Documentation/driver-api/connector.rst and include/uapi/linux/cn_proc.h.

Rule 1: only the kernel is listened to: a message from any process is dropped.
Rule 2: the subscription takes root, once. It is made before the monitor gives up root, and no capability is kept
        for it. Whoever may not subscribe gets None, and says so.
Rule 3: what was lost is counted; whoever reads then looks at everything.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
from typing import Final, NamedTuple

FORK: Final = 0x00000001
EXEC: Final = 0x00000002
UID: Final = 0x00000004
GID: Final = 0x00000040
PTRACE: Final = 0x00000100
COREDUMP: Final = 0x40000000
EXIT: Final = 0x80000000
_ACK: Final = 0
#: What passes the filter in the kernel; a change of name or session does not concern us.
_WANTED: Final = (_ACK, FORK, EXEC, UID, GID, PTRACE, COREDUMP, EXIT)

_NETLINK_CONNECTOR: Final = 11
_CN_IDX_PROC, _CN_VAL_PROC = 1, 1
_LISTEN: Final = 1
_NLMSG_DONE: Final = 3
_HEADER: Final = 16 + 20  # nlmsghdr and cn_msg
_EVENT: Final = struct.Struct("=IIQ4I")
_NEEDED: Final = _HEADER + _EVENT.size
MESSAGE: Final = 4096
"""Bytes; the kernel's are of 76."""
_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 4 << 20
_ACK_S: Final = 1.0
MAX_BATCH: Final = 4096


class Event(NamedTuple):
    """Something happened to the process `tgid`; `other` is its parent (FORK), its new effective id (UID, GID) or its
    tracer (PTRACE), else 0. In FORK `tgid` is the new process, or the one that got a new thread."""

    what: int
    tgid: int
    other: int


def _program() -> bytes:
    """The socket's filter: load `what`, keep what is wanted, drop the rest."""
    lines = [struct.pack("=HBBI", 0x20, 0, 0, _HEADER)]
    for at, what in enumerate(_WANTED):
        lines.append(struct.pack("=HBBI", 0x15, len(_WANTED) - at, 0, socket.htonl(what)))
    lines.append(struct.pack("=HBBI", 0x06, 0, 0, 0))
    lines.append(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF))
    return b"".join(lines)


def _attach(link: socket.socket) -> None:
    program = _program()
    kept = ctypes.create_string_buffer(program, len(program))
    link.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(kept)))


class ProcessEvents:
    """A subscription. `fileno` is readable when there is something to `read`; `lost` counts overruns."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._message = bytearray(MESSAGE)
        self.lost = 0

    def fileno(self) -> int:
        return self._link.fileno()

    def read(self) -> list[Event]:
        """What happened since, at most MAX_BATCH events."""
        found: list[Event] = []
        for _ in range(MAX_BATCH):
            try:
                size, (sender, _) = self._link.recvfrom_into(self._message)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost += 1  # Rule 3
                continue
            event = _parse(self._message) if sender == 0 and size >= _NEEDED else None  # Rule 1
            if event is not None:
                found.append(event)
        return found

    def close(self) -> None:
        self._link.close()


def _parse(data: bytearray) -> Event | None:
    what, _, _, one, two, three, four = _EVENT.unpack_from(data, _HEADER)
    if what == FORK:
        return Event(what, four, two)
    if what in (UID, GID, PTRACE):
        return Event(what, two, four)
    # Of a thread that ended only the process matters: what is left of it is looked at.
    return None if what == _ACK else Event(what, two, 0)


def subscribe() -> ProcessEvents | None:
    """A subscription to every process's events, or None where the kernel does not give it to this process."""
    try:
        link = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_CONNECTOR)
    except OSError:
        return None
    try:
        _attach(link)
        link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        link.bind((0, _CN_IDX_PROC))
        body = struct.pack("=IIIIHHI", _CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0, _LISTEN)
        link.send(struct.pack("=IHHII", 16 + len(body), _NLMSG_DONE, 0, 0, os.getpid()) + body)
        if not _acknowledged(link):
            link.close()
            return None
        link.setblocking(False)
    except OSError:
        link.close()
        return None
    return ProcessEvents(link)


def _acknowledged(link: socket.socket) -> bool:
    """Whether the kernel took the subscription: from another namespace it is dropped without a word."""
    ready = select.poll()
    ready.register(link, select.POLLIN)
    while ready.poll(_ACK_S * 1000):
        data, (sender, _) = link.recvfrom(MESSAGE)
        if sender == 0 and len(data) >= _HEADER + 4:
            return True  # the acknowledgement, or an event already
    return False
