"""An ASGI application on 127.0.0.1, a Unix socket, or with TLS, inside the event loop of the service that owns it.

uvicorn does HTTP; this decides only where it listens, leaves the signals to the service, keeps no access log, and
bounds connections and idle time. What the application serves is its own matter.

Rule 1: beyond loopback there is TLS 1.3 or nothing. On the Unix socket a client is named by its user, which the kernel
        says.
Rule 2: on loopback the Host is one of loopback's own names, at any port (a tunnel has another): a web page whose name
        somebody makes mean 127.0.0.1 reads nothing here.
Rule 3: no peer has all connections, so that an operator who stops an agent is heard beside it. They count from when
        they are taken, before anything of TLS or HTTP came. On loopback over TCP nothing tells programs apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import re
import socket
import ssl
import struct
from collections.abc import Generator, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Connections at once; the next one is answered 503.
MAX_CONNECTIONS: Final = 128
#: Connections of one peer (`peer_named`) at once, and of loopback; the next one is closed.
MAX_OF_PEER: Final = 32
MAX_OF_LOOPBACK: Final = MAX_CONNECTIONS - MAX_OF_PEER
#: Connections that are taken at once, those included that have not shown yet what they speak; the next one is closed.
MAX_TAKEN: Final = 2 * MAX_CONNECTIONS
LOOPBACK: Final = "loopback"
#: Seconds that a connection may stay open between two requests.
KEEP_ALIVE_S: Final = 75
#: What loopback is called in a Host, with a port or without.
_OWN: Final = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")
#: Bytes of a request's line and headers.
MAX_HEAD: Final = 16 * 1024


def peer_named(client: str) -> str:
    """Who speaks, of a client's name: `user 1000`, an address, `loopback`, or an IPv6 network of 64 bits."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.is_loopback:
        return LOOPBACK
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)


def _client(sock: socket.socket, address: Any) -> str:
    """Who is at the other end, as `peer_named` wants it."""
    if sock.family != socket.AF_UNIX:
        return str(address[0])
    user = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    return f"user {user}"


class _Listener(socket.socket):
    """Takes no connection of a peer that has its share, nor any beyond MAX_TAKEN."""

    def __init__(self, *kind: int) -> None:
        super().__init__(*kind)
        self._taken: WeakKeyDictionary[socket.socket, str] = WeakKeyDictionary()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; ConnectionAbortedError if it was one too many, and is closed."""
        sock, address = super().accept()
        peer = peer_named(_client(sock, address))
        held = [name for one, name in self._taken.items() if one.fileno() >= 0]
        most = MAX_OF_LOOPBACK if peer == LOOPBACK else MAX_OF_PEER
        if len(held) >= MAX_TAKEN or held.count(peer) >= most:
            sock.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, f"{peer} has its connections")
        self._taken[sock] = peer
        return sock, address


class _Protocol(H11Protocol):
    """Closes a connection on which nothing has come for KEEP_ALIVE_S, half a request included."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            self.client = (_client(sock, None), 0)
        self._heard = self.loop.time()
        self.loop.call_later(KEEP_ALIVE_S, self._check_idle)

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)

    def _check_idle(self) -> None:
        if self.transport.is_closing():
            return
        left = self._heard + KEEP_ALIVE_S - self.loop.time()
        if left <= 0 and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
        else:
            self.loop.call_later(max(left, 1.0), self._check_idle)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # the service owns the signals


def _at_loopback(app: ASGIApp) -> ASGIApp:
    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope.get("headers", ()) if name == b"host"]
        if all(_OWN.fullmatch(one) for one in hosts):
            await app(scope, receive, send)
        else:
            await PlainTextResponse("this is at loopback only\n", 421)(scope, receive, send)

    return named


def _listening(host: str, port: int) -> socket.socket:
    # Named TCP, since asyncio turns Nagle's delay off only then: 40 ms an answer otherwise.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = _Listener(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(64)
    except OSError:
        sock.close()
        raise
    return sock


class LoopbackServer:
    """A running server. `port` is the port it listens on; `close` ends it and waits."""

    __slots__ = ("_server", "_sockets", "_task", "port")

    def __init__(self, server: uvicorn.Server, task: asyncio.Task[None], sockets: Sequence[socket.socket]) -> None:
        self._server = server
        self._task = task
        self._sockets = sockets
        self.port: int = 0 if sockets[0].family == socket.AF_UNIX else sockets[0].getsockname()[1]

    @classmethod
    async def start(cls, app: ASGIApp, port: int) -> LoopbackServer:
        """Listens on 127.0.0.1:port (0: any free port). OSError if the port is taken."""
        return await cls.serve(_at_loopback(app), [_listening("127.0.0.1", port)])

    @classmethod
    async def start_localhost(cls, app: ASGIApp, port: int) -> LoopbackServer:
        """Listens on all that a browser takes `localhost` for, so that nobody else can answer on the other half.

        OSError if another program has the port, on either.
        """
        sockets = [_listening("127.0.0.1", port)]
        try:
            sockets.append(_listening("::1", port))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                sockets[0].close()
                raise
        return await cls.serve(app, sockets)

    @classmethod
    async def start_tls(cls, app: ASGIApp, host: str, port: int, certificate: str, key: str) -> LoopbackServer:
        """Listens on an address with TLS 1.3 and nothing below; `certificate` and `key` are PEM files."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificate, key)
        return await cls.serve(app, [_listening(host, port)], context)

    @classmethod
    async def start_unix(cls, app: ASGIApp, path: str) -> LoopbackServer:
        """Listens on a Unix socket, mode 0666: whoever reaches the folder may speak; the signature counts."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock = _Listener(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.bind(path)
            os.chmod(path, 0o666)
            sock.listen(64)
        except OSError:
            sock.close()
            raise
        return await cls.serve(app, [sock])

    @classmethod
    async def serve(
        cls, app: ASGIApp, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None
    ) -> LoopbackServer:
        """Serves on sockets that listen already."""
        config = uvicorn.Config(
            app,
            interface="asgi3",
            loop="none",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=MAX_HEAD,
        )
        config.load()
        config.ssl = tls
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=list(sockets)))
        while not server.started and not task.done():
            await asyncio.sleep(0.002)
        if task.done():
            await task
        return cls(server, task, sockets)

    async def close(self) -> None:
        """Stops accepting, lets what is being answered finish (2 s at most)."""
        self._server.should_exit = True
        await self._task
        for sock in self._sockets:
            sock.close()
