"""The witness for the log of its own deployment: the same add-checkpoint on a Unix socket, without HTTP.

Decides who is listened to. What is asked and answered, and how, is `app`'s and `wire.cosigner`'s. A thread for each
connection: nothing that the process does besides stands between a request and its answer, but Python's own lock.

Rule 1: only the log's user is answered, by what the kernel says of the peer; HTTP is there for everybody else.
Rule 2: a peer that breaks the framing, or stalls inside a request, is cut off; others don't wait for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Final

from ironbound.wire.cosigner import LENGTH, STATUS, peer_uid

from .app import BODY_TIMEOUT_S, MAX_BODY, answer
from .state import Cosigner

#: Connections at once; the log keeps one.
MAX_CONNECTIONS: Final = 4


class LocalWitness:
    """Serves from the moment it is made until `close`. `failed` is called, in any thread, as `app.answer` says."""

    def __init__(self, cosigner: Cosigner, path: str, uid: int, failed: Callable[[OSError], None]) -> None:
        """OSError if the socket can't be made at `path`; `uid` is the log's user."""
        self._cosigner, self._uid, self._failed = cosigner, uid, failed
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # left by a crash; the lock on the state says that no other witness runs
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._listener.bind(path)
            os.chmod(path, 0o666)
            self._listener.listen(MAX_CONNECTIONS)
        except OSError:
            self._listener.close()
            raise
        threading.Thread(target=self._accept, name="witness-listen", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                continue  # the peer has gone already
            with self._lock:
                welcome = peer_uid(peer) == self._uid and len(self._connections) < MAX_CONNECTIONS and not self._closed
                if welcome:
                    self._connections.add(peer)
            if welcome:
                threading.Thread(target=self._serve, args=(peer,), name="witness", daemon=True).start()
            else:
                peer.close()

    def _serve(self, peer: socket.socket) -> None:
        try:
            with peer:
                while (body := _request(peer)) is not None:
                    status, _, content = answer(self._cosigner, body, self._failed)
                    peer.sendall(LENGTH.pack(STATUS.size + len(content)) + STATUS.pack(status) + content)
        except OSError:
            pass  # the peer has gone, or stalled
        finally:
            with self._lock:
                self._connections.discard(peer)

    def close(self) -> None:
        """Listens no more and ends every connection."""
        with self._lock:
            self._closed = True
            ends = [self._listener, *self._connections]
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _request(peer: socket.socket) -> bytes | None:
    """The next body, whole; None if the peer has closed or breaks the framing. OSError (TimeoutError)."""
    peer.settimeout(None)
    data = peer.recv(LENGTH.size + MAX_BODY)
    peer.settimeout(BODY_TIMEOUT_S)
    while len(data) < LENGTH.size:
        if not (part := peer.recv(LENGTH.size - len(data))):
            return None
        data += part
    size = LENGTH.size + LENGTH.unpack_from(data)[0]
    if size > LENGTH.size + MAX_BODY or len(data) > size:
        return None
    parts = [data]
    left = size - len(data)
    while left:
        if not (part := peer.recv(left)):
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)[LENGTH.size :]
