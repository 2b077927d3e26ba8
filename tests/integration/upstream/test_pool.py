"""Which connections are kept, which are never used again, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path

import pytest

from llm_sidecar.providers.base import TransportError
from llm_sidecar.upstream import PooledTransport, pool
from tests.integration.upstream.conftest import Connect, Peer, Serve, read_all, says

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_the_connection_used_last_is_used_next(transport: PooledTransport, serve: Serve) -> None:
    async def converse(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % peer.number)

    server = await serve(converse)
    first, second = [await transport.send("GET", server.url, [], None, 5) for _ in range(2)]
    for response in (second, first):
        await read_all(response)
    for _ in range(3):
        assert await read_all(await transport.send("GET", server.url, [], None, 5)) == b"0"
    assert len(server.peers) == 2


async def test_an_idle_connection_is_closed_in_time(connect: Connect, serve: Serve) -> None:
    async def converse(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.until_closed()
        closed.set()

    closed = asyncio.Event()
    server = await serve(converse)
    await read_all(await connect(keep_seconds=0.01).send("GET", server.url, [], None, 5))
    async with asyncio.timeout(5):
        await closed.wait()


@pytest.mark.parametrize("surplus", [b"x", OK, b"HTTP/1.1 200 OK\r\nContent-Le"], ids=["byte", "answer", "half"])
@pytest.mark.parametrize("together", [True, False])
async def test_bytes_that_nobody_asked_for_end_a_connection_and_reach_nobody(
    transport: PooledTransport, serve: Serve, surplus: bytes, together: bool
) -> None:
    async def converse(peer: Peer) -> None:
        await peer.request()
        await (peer.send(OK + surplus) if together else peer.send(OK))
        if not together:
            await idle.wait()
            await peer.send(surplus)
        await peer.until_closed()
        closed.set()

    idle, closed = asyncio.Event(), asyncio.Event()
    server = await serve(converse)
    assert await read_all(await transport.send("GET", server.url, [], None, 5)) == b"ok"
    idle.set()
    async with asyncio.timeout(5):
        await closed.wait()
    assert await read_all(await transport.send("GET", server.url, [], None, 5)) == b"ok"
    assert len(server.peers) == 2


async def test_a_kept_connection_that_turns_out_closed_is_replaced_once(
    transport: PooledTransport, serve: Serve
) -> None:
    async def converse(peer: Peer) -> None:
        await peer.request()
        if peer.number in answering:
            await peer.send(OK)
            await peer.request()  # received, and the connection closed without a byte

    answering = {0, 1}
    server = await serve(converse)
    for _ in range(2):
        assert await read_all(await transport.send("POST", server.url, [], b"{}", 5)) == b"ok"
    assert len(server.peers) == 2
    answering.clear()
    with pytest.raises(TransportError) as caught:
        await transport.send("POST", server.url, [], b"{}", 5)
    assert caught.value.failure == "disconnected"
    assert len(server.peers) == 3


async def test_a_request_that_was_worked_on_is_not_sent_again(
    transport: PooledTransport, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load balancer that gives up after a minute of silence: the provider has generated, and would once more."""

    async def converse(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        clock[0] += 60

    clock = [0.0]
    monkeypatch.setattr(pool, "monotonic", lambda: clock[0])
    server = await serve(converse)
    await read_all(await transport.send("POST", server.url, [], b"{}", 5))
    with pytest.raises(TransportError) as caught:
        await transport.send("POST", server.url, [], b"{}", 5)
    assert caught.value.failure == "disconnected"
    assert len(server.peers) == 1


async def test_an_answer_that_had_begun_is_never_asked_for_again(transport: PooledTransport, serve: Serve) -> None:
    async def converse(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"HTTP/1.1 2")

    server = await serve(converse)
    await read_all(await transport.send("POST", server.url, [], b"{}", 5))
    with pytest.raises(TransportError):
        await transport.send("POST", server.url, [], b"{}", 5)
    assert len(server.peers) == 1


async def test_an_answer_closed_before_its_end_cuts_the_connection(transport: PooledTransport, serve: Serve) -> None:
    async def converse(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        await peer.until_closed()
        closed.set()

    closed = asyncio.Event()
    server = await serve(converse)
    response = await transport.send("GET", server.url, [], None, 5)
    response.close()
    response.close()
    async with asyncio.timeout(5):
        await closed.wait()


async def test_more_requests_than_connections_wait_for_their_turn(connect: Connect, serve: Serve) -> None:
    server = await serve(says(OK))
    transport = connect(limit=2)

    async def ask() -> bytes:
        return await read_all(await transport.send("GET", server.url, [], None, 5))

    assert await asyncio.gather(*(ask() for _ in range(50))) == [b"ok"] * 50
    assert len(server.peers) == 2


async def test_waiting_for_a_connection_is_bounded(connect: Connect, serve: Serve) -> None:
    server = await serve(says(OK))
    transport = connect(limit=1)
    held = await transport.send("GET", server.url, [], None, 5)
    with pytest.raises(TransportError, match=r"connectSeconds") as caught:
        await transport.send("GET", server.url, [], None, 0.01)
    assert caught.value.failure == "connection"
    assert await read_all(held) == b"ok"
    assert await read_all(await transport.send("GET", server.url, [], None, 5)) == b"ok"


async def test_the_place_of_a_cut_connection_goes_to_one_who_waits(connect: Connect, serve: Serve) -> None:
    async def converse(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK if peer.number else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await peer.until_closed()

    server = await serve(converse)
    transport = connect(limit=1)
    held = await transport.send("GET", server.url, [], None, 5)
    waiting = asyncio.ensure_future(transport.send("GET", server.url, [], None, 5))
    await asyncio.sleep(0)
    held.close()
    assert await read_all(await waiting) == b"ok"
    assert len(server.peers) == 2


async def test_a_retired_transport_lets_requests_end_and_keeps_nothing(
    transport: PooledTransport, serve: Serve
) -> None:
    server = await serve(says(OK))
    kept, under_way = [await transport.send("GET", server.url, [], None, 5) for _ in range(2)]
    await read_all(kept)
    retiring = asyncio.ensure_future(transport.retire())
    await asyncio.sleep(0)
    assert not retiring.done()
    assert await read_all(under_way) == b"ok"
    async with asyncio.timeout(5):
        await retiring
        assert await read_all(await transport.send("GET", server.url, [], None, 5)) == b"ok"
        for peer in server.peers:
            await peer.ended.wait()


async def test_a_closed_transport_cuts_requests_under_way(transport: PooledTransport, serve: Serve) -> None:
    async def converse(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await peer.until_closed()

    server = await serve(converse)
    response = await transport.send("GET", server.url, [], None, 5)
    assert await response.read_some() == b"abc"
    await transport.close()
    with pytest.raises(TransportError) as caught:
        await response.read_some()
    assert caught.value.failure == "disconnected"
    response.close()


async def test_a_refused_connection_and_an_unknown_host_are_told_apart(transport: PooledTransport) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(TransportError, match=r"refused") as caught:
        await transport.send("GET", f"http://127.0.0.1:{port}/", [], None, 5)
    assert caught.value.failure == "connection"
    with pytest.raises(TransportError, match=r"host name"):
        await transport.send("GET", "http://nowhere.invalid/", [], None, 5)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_requests_cancelled_at_any_moment_leave_nothing_behind(connect: Connect, serve: Serve) -> None:
    async def converse(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                await peer.send(b"3\r\nabc\r\n")
            await peer.send(b"0\r\n\r\n")

    async def ask(number: int) -> None:
        body = bytes(600_000) if number % 10 == 0 else b"{}"
        await read_all(await transport.send("POST", server.url, [], body, 5))

    async def ask_and_be_cancelled(number: int) -> None:
        task = asyncio.ensure_future(ask(number))
        for _ in range(chance.randrange(120)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    chance = random.Random(7)
    server = await serve(converse)
    tasks_before, descriptors_before = len(asyncio.all_tasks()), _descriptors()
    transport = connect(limit=8)
    for start in range(0, 1000, 20):
        await asyncio.gather(*(ask_and_be_cancelled(start + number) for number in range(20)))
    async with asyncio.timeout(10):
        await ask(1)
        await transport.retire()
        for peer in server.peers:
            await peer.ended.wait()
        while len(asyncio.all_tasks()) > tasks_before or _descriptors() > descriptors_before:  # noqa: ASYNC110
            await asyncio.sleep(0)
