"""A peer that keeps connections open keeps no other from being heard."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from ironbound.terminal.certificate import make_certificate, pinned_context
from ironbound.wire import loopback
from ironbound.wire.loopback import MAX_CONNECTIONS, MAX_OF_LOOPBACK, MAX_OF_PEER, LoopbackServer, peer_named

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _status(path: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(REQUEST)
        return (await reader.readline())[9:12]
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("most", [MAX_OF_PEER, 2 * MAX_CONNECTIONS])
def test_a_user_who_holds_all_the_connections_it_gets_keeps_no_other_user_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """The user at the other end is changed as the kernel would say it; without the bound the other one is refused."""
    monkeypatch.setattr(loopback, "MAX_OF_PEER", most)
    user = [1000]
    monkeypatch.setattr(loopback, "peer_named", lambda client: f"user {user[0]}")

    async def scene() -> tuple[bytes, bytes]:
        path = str(tmp_path / "s")
        server = await LoopbackServer.start_unix(_answer, path)
        held = [await asyncio.open_unix_connection(path) for _ in range(MAX_CONNECTIONS)]
        try:
            same = await _status(path)
            user[0] = 1001
            return same, await _status(path)
        finally:
            for _, writer in held:
                writer.close()
            await server.close()

    same, other = asyncio.run(asyncio.wait_for(scene(), 60))
    assert (same, other) == ((b"", b"200") if most == MAX_OF_PEER else (b"503", b"503"))


def test_a_peer_is_a_user_an_address_or_a_network_and_all_of_loopback_is_one() -> None:
    names = ["user 7", "192.0.2.1", "2001:db8::1", "2001:db8::2:1", "127.0.0.9", "::1"]
    network = "2001:db8::/64"
    assert [*map(peer_named, names)] == ["user 7", "192.0.2.1", network, network, "loopback", "loopback"]


def test_on_a_socket_the_user_is_the_kernel_s_word(tmp_path: Path) -> None:
    """One real user: what it gets is bounded, and what it gives back it gets again."""

    async def scene() -> None:
        path = str(tmp_path / "s")
        server = await LoopbackServer.start_unix(_answer, path)
        held = [await asyncio.open_unix_connection(path) for _ in range(MAX_OF_PEER)]
        try:
            assert await _status(path) == b""
            for _, writer in held:
                writer.close()
            while await _status(path) != b"200":
                await asyncio.sleep(0.01)
        finally:
            await server.close()

    asyncio.run(asyncio.wait_for(scene(), 60))


async def _closed(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    """Whether the other end closes it within the moment that is left for that."""
    try:
        async with asyncio.timeout(1):
            return await connection[0].read(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_connections_that_never_finish_their_handshake_count_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the bound a peer that only connects holds a descriptor of the service for each, a minute long."""
    names = ("certificate", "key")
    for name, data in zip(names, make_certificate("lab"), strict=True):
        (tmp_path / name).write_bytes(data)
    peer = ["192.0.2.1"]
    monkeypatch.setattr(loopback, "peer_named", lambda client: peer[0])

    async def scene() -> list[bool]:
        server = await LoopbackServer.start_tls(_answer, "127.0.0.1", 0, *(str(tmp_path / name) for name in names))
        held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MAX_OF_PEER)]
        try:
            held.append(await asyncio.open_connection("127.0.0.1", server.port))
            same = await _closed(held[-1])
            peer[0] = "192.0.2.2"
            context = pinned_context((tmp_path / "certificate").read_bytes())
            held.append(await asyncio.open_connection("127.0.0.1", server.port, ssl=context))
            held[-1][1].write(REQUEST)
            return [same, (await held[-1][0].readline())[9:12] == b"200"]
        finally:
            for _, writer in held:
                writer.close()
            await server.close()

    assert asyncio.run(asyncio.wait_for(scene(), 60)) == [True, True]


def test_loopback_leaves_connections_to_those_elsewhere_and_all_together_have_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So several addresses that hold the TLS address don't hold the service's descriptors, and its Unix socket."""
    more = 8
    taken = itertools.count()

    def named(client: str) -> str:
        number = next(taken)
        return loopback.LOOPBACK if number <= MAX_OF_LOOPBACK else f"192.0.2.{number}"

    monkeypatch.setattr(loopback, "peer_named", named)
    monkeypatch.setattr(loopback, "MAX_TAKEN", MAX_OF_LOOPBACK + more)

    async def scene() -> list[bytes]:
        path = str(tmp_path / "s")
        server = await LoopbackServer.start_unix(_answer, path)
        held = [await asyncio.open_unix_connection(path) for _ in range(MAX_OF_LOOPBACK)]
        try:
            loopbacks = await _status(path)
            held += [await asyncio.open_unix_connection(path) for _ in range(more)]
            held[-1][1].write(REQUEST)
            return [loopbacks, (await held[-1][0].readline())[9:12], await _status(path)]
        finally:
            for _, writer in held:
                writer.close()
            await server.close()

    assert asyncio.run(asyncio.wait_for(scene(), 60)) == [b"", b"200", b""]
