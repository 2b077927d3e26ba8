"""What reaches a server: the caller's bytes, framed, and nothing that could be taken for more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from llm_sidecar.providers.base import Headers, TransportError
from llm_sidecar.upstream import PooledTransport
from tests.integration.upstream.conftest import Peer, Serve, Server, read_all

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def _recorder(serve: Serve) -> tuple[Server, list[tuple[bytes, bytes]]]:
    seen: list[tuple[bytes, bytes]] = []

    async def converse(peer: Peer) -> None:
        while True:
            seen.append(await peer.request())
            await peer.send(OK)

    return await serve(converse), seen


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


async def test_headers_leave_as_given_with_host_and_length_and_no_other(
    transport: PooledTransport, serve: Serve
) -> None:
    server, seen = await _recorder(serve)
    headers = [("X-B", "2"), ("x-b", "3"), ("Authorization", "Bearer k")]
    await read_all(await transport.send("POST", server.url + "/v1/chat?a=%20b&c", headers, b"{}", 5))
    host = f"Host: 127.0.0.1:{server.port}\r\n".encode()
    expected = (
        b"POST /v1/chat?a=%20b&c HTTP/1.1\r\n" + host + b"X-B: 2\r\nx-b: 3\r\n"
        b"Authorization: Bearer k\r\nContent-Length: 2\r\n\r\n"
    )
    assert seen == [(expected, b"{}")]


@pytest.mark.parametrize(("method", "announced"), [("GET", False), ("DELETE", False), ("POST", True), ("PUT", True)])
async def test_no_body_is_announced_where_one_is_usual(
    transport: PooledTransport, serve: Serve, method: str, announced: bool
) -> None:
    server, seen = await _recorder(serve)
    await read_all(await transport.send(method, server.url, [], None, 5))
    assert (b"Content-Length: 0" in seen[0][0]) is announced


@pytest.mark.parametrize(
    ("headers", "framing"),
    [([], b"Transfer-Encoding: chunked"), ([("Content-Length", "7")], b"Content-Length: 7")],
    ids=["chunked", "declared"],
)
async def test_a_body_in_pieces_is_framed(
    transport: PooledTransport, serve: Serve, headers: Headers, framing: bytes
) -> None:
    server, seen = await _recorder(serve)
    for _ in range(2):
        body = _pieces(b"abc", b"", b"defg")
        await read_all(await transport.send("POST", server.url, headers, body, 5))
    assert len(server.peers) == 1
    assert all(framing in head and body == b"abcdefg" for head, body in seen)


@pytest.mark.parametrize("pieces", [(b"abc",), (b"abc", b"defgh")], ids=["shorter", "longer"])
async def test_a_body_of_another_length_than_declared_is_not_sent_whole(
    transport: PooledTransport, serve: Serve, pieces: tuple[bytes, ...]
) -> None:
    server, seen = await _recorder(serve)
    with pytest.raises(TransportError):
        await transport.send("POST", server.url, [("Content-Length", "7")], _pieces(*pieces), 5)
    assert seen == []


async def test_a_large_body_arrives_whole_and_the_connection_is_kept(transport: PooledTransport, serve: Serve) -> None:
    server, seen = await _recorder(serve)
    body = bytes(range(256)) * 32 * 1024
    for _ in range(2):
        await read_all(await transport.send("POST", server.url, [], body, 5))
    assert [sent for _, sent in seen] == [body, body]
    assert len(server.peers) == 1


@pytest.mark.parametrize(
    "header",
    [("X-A", "1\r\nX-B: 2"), ("X-A", "1\n"), ("X-A", "1\r"), ("X-A", "a\0b"), ("X A", "1"), ("X-A:", "1"), ("", "1")],
    ids=["crlf", "lf", "cr", "nul", "space-in-name", "colon-in-name", "no-name"],
)
async def test_a_header_that_could_be_read_as_more_is_refused_unquoted(
    transport: PooledTransport, serve: Serve, header: tuple[str, str]
) -> None:
    server, seen = await _recorder(serve)
    with pytest.raises(TransportError) as caught:
        await transport.send("GET", server.url, [header], None, 5)
    assert (caught.value.failure, seen) == ("connection", [])
    assert "X-B" not in caught.value.detail


@pytest.mark.parametrize(
    "path",
    ["/a b", "/a\r\nX: 1", "/a\n", "/\t", "/\0"],
    ids=["space", "crlf", "lf", "tab", "nul"],
)
async def test_a_url_that_could_be_read_as_more_is_refused(transport: PooledTransport, serve: Serve, path: str) -> None:
    server, seen = await _recorder(serve)
    with pytest.raises(TransportError):
        await transport.send("GET", server.url + path, [], None, 5)
    assert seen == []


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "http://u:p@x/", "http://x:99999/", "/v1", "http://[::1"])
async def test_what_is_no_url_to_call_is_refused(transport: PooledTransport, url: str) -> None:
    with pytest.raises(TransportError) as caught:
        await transport.send("GET", url, [], None, 5)
    assert caught.value.failure == "connection"


async def test_an_early_answer_is_read_while_the_body_is_still_coming(transport: PooledTransport, serve: Serve) -> None:
    async def converse(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await peer.until_closed()
        closed.set()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            await asyncio.Event().wait()
        finally:
            ended.set()

    closed, ended = asyncio.Event(), asyncio.Event()
    server = await serve(converse)
    response = await transport.send("POST", server.url, [], endless(), 5)
    assert (response.status, await read_all(response)) == (413, b"no")
    async with asyncio.timeout(5):
        await ended.wait()
        await closed.wait()


async def test_a_server_that_does_not_read_holds_up_the_body(transport: PooledTransport, serve: Serve) -> None:
    async def converse(peer: Peer) -> None:
        await gate.wait()  # the reader takes a little ahead of us, and then no more
        await peer.request()
        await peer.send(OK)

    async def body() -> AsyncIterator[bytes]:
        for number in range(total):
            given.append(number)
            yield bytes(1024 * 1024)

    given: list[int] = []
    total = 64
    gate = asyncio.Event()
    server = await serve(converse)
    sending = asyncio.ensure_future(transport.send("POST", server.url, [], body(), 5))
    for _ in range(5000):  # turns of the loop in which all of it could have left
        await asyncio.sleep(0)
    assert 0 < len(given) < total / 2
    gate.set()
    await read_all(await sending)
    assert len(given) == total


async def test_a_body_that_fails_cuts_the_connection_and_raises_its_own_error(
    transport: PooledTransport, serve: Serve
) -> None:
    async def converse(peer: Peer) -> None:
        received.append(await peer.until_closed())
        closed.set()

    async def failing() -> AsyncIterator[bytes]:
        yield b"abc"
        raise LookupError("its own")

    received: list[bytes] = []
    closed = asyncio.Event()
    server = await serve(converse)
    with pytest.raises(LookupError, match="its own"):
        await transport.send("POST", server.url, [], failing(), 5)
    async with asyncio.timeout(5):
        await closed.wait()
    assert b"0\r\n\r\n" not in received[0]
