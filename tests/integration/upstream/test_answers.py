"""What any transport must make of a server's bytes."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import tracemalloc
import zlib

import pytest

from llm_sidecar.providers.base import TransportError
from llm_sidecar.upstream import PooledTransport
from tests.integration.upstream.conftest import Peer, Serve, read_all, says

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = CHUNKED + b"3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n"

ANSWERS: dict[str, tuple[list[bytes], bool, bytes]] = {
    "content-length": ([OK + b"Content-Length: 3\r\n\r\nabc"], False, b"abc"),
    "content-length-in-two": ([OK + b"Content-Length: 3\r\n\r\na", b"bc"], False, b"abc"),
    "empty": ([OK + b"Content-Length: 0\r\n\r\n"], False, b""),
    "chunked": ([CHUNKS], False, b"abcdefg"),
    "chunked-by-the-byte": ([bytes([byte]) for byte in CHUNKS], False, b"abcdefg"),
    "until-close": ([OK + b"\r\nabc", b"def"], True, b"abcdef"),
    "connection-close": ([OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc"], True, b"abc"),
    "old-http": ([b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"], True, b"abc"),
    "continue": ([b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"Content-Length: 1\r\n\r\na"], False, b"a"),
    "early-hints": (
        [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 2 + OK + b"Content-Length: 1\r\n\r\na"],
        False,
        b"a",
    ),
    "no-content": ([b"HTTP/1.1 204 No Content\r\n\r\n"], False, b""),
    "not-modified": ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"], False, b""),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_an_answer_is_read_however_it_is_framed_and_split(
    transport: PooledTransport, serve: Serve, case: str
) -> None:
    pieces, then_close, body = ANSWERS[case]
    server = await serve(says(*pieces, then_close=then_close))
    for _ in range(2):
        response = await transport.send("POST", server.url + "/v1", [], b"{}", 5)
        assert await read_all(response) == body
        assert response.header("link") is None
    assert len(server.peers) == (2 if then_close else 1)


async def test_a_head_tells_the_length_of_a_body_that_does_not_come(transport: PooledTransport, serve: Serve) -> None:
    server = await serve(says(OK + b"Content-Length: 5\r\n\r\n"))
    for _ in range(2):
        response = await transport.send("HEAD", server.url, [], None, 5)
        assert (response.header("content-length"), await read_all(response)) == ("5", b"")
    assert len(server.peers) == 1


async def test_status_and_headers_stay_as_they_came(transport: PooledTransport, serve: Serve) -> None:
    server = await serve(says(b"HTTP/1.1 529 Over\r\nX-A: 1\r\nContent-Length: 0\r\nx-a: \xe9\r\n\r\n"))
    response = await transport.send("GET", server.url, [], None, 5)
    assert response.status == 529
    assert list(response.headers) == [("X-A", "1"), ("Content-Length", "0"), ("x-a", "é")]
    assert (response.header("x-a"), response.header("x-b")) == ("1", None)
    response.close()


GARBLED: dict[str, bytes] = {
    "no-http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "both-framings": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two-lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "bad-length": OK + b"Content-Length: x\r\n\r\n",
    "negative-length": OK + b"Content-Length: -1\r\n\r\n",
    "unknown-transfer-encoding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "long-header": OK + b"X-A: " + b"a" * 33 * 1024 + b"\r\n\r\n",
    "endless-header": OK + b"X-A: " + b"a" * 600 * 1024,
    "many-headers": OK + b"X-A: 1\r\n" * 257 + b"\r\n",
    "endless-interim-answers": b"HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\n" * 20_000,
    "switching-protocols": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "bare-line-feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "brotli": OK + b"Content-Encoding: br\r\nContent-Length: 1\r\n\r\na",
    "zstd": OK + b"Content-Encoding: zstd\r\nContent-Length: 1\r\n\r\na",
}


@pytest.mark.parametrize("case", GARBLED)
async def test_what_is_not_valid_http_is_no_answer(transport: PooledTransport, serve: Serve, case: str) -> None:
    server = await serve(says(GARBLED[case]))
    with pytest.raises(TransportError) as caught:
        await transport.send("GET", server.url, [], None, 5)
    assert caught.value.failure == "garbled"
    assert str(server.port) not in caught.value.detail


CUT: dict[str, tuple[bytes, str]] = {
    "content-length": (OK + b"Content-Length: 9\r\n\r\nabc", "disconnected"),
    "in-a-chunk": (CHUNKED + b"9\r\nabc", "disconnected"),
    "between-chunks": (CHUNKED + b"3\r\nabc\r\n", "disconnected"),
    "bad-chunk": (CHUNKED + b"3\r\nabc\r\nxyz\r\n", "garbled"),
    "endless-trailer": (CHUNKED + b"3\r\nabc\r\n0\r\nX: " + b"a" * 900_000, "garbled"),
}


@pytest.mark.parametrize("case", CUT)
async def test_a_body_that_breaks_off_never_looks_complete(transport: PooledTransport, serve: Serve, case: str) -> None:
    sent, failure = CUT[case]
    server = await serve(says(sent, then_close=True))
    response = await transport.send("GET", server.url, [], None, 5)
    assert await response.read_some() == b"abc"
    with pytest.raises(TransportError) as caught:
        await response.read_some()
    assert caught.value.failure == failure
    response.close()


async def test_a_reset_is_no_end_of_a_body_without_a_length(transport: PooledTransport, serve: Serve) -> None:
    async def converse(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"\r\nabc")
        await was_read.wait()
        lingering = struct.pack("ii", 1, 0)  # for no time at all: closing is a reset
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
        peer.writer.transport.abort()

    was_read = asyncio.Event()
    server = await serve(converse)
    response = await transport.send("POST", server.url, [], b"x", 5)
    assert await response.read_some() == b"abc"
    was_read.set()
    with pytest.raises(TransportError) as caught:
        await response.read_some()
    assert caught.value.failure == "disconnected"
    response.close()


def _deflated(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


PLAIN = bytes(range(256)) * 4096
PACKED: dict[str, tuple[bytes, bytes]] = {
    "gzip": (b"gzip", gzip.compress(PLAIN)),
    "two-members": (b"gzip", gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:])),
    "deflate": (b"deflate", zlib.compress(PLAIN)),
    "bare-deflate": (b"deflate", _deflated(PLAIN)),
    "identity": (b"identity", PLAIN),
}


@pytest.mark.parametrize("case", PACKED)
async def test_a_compressed_body_is_unpacked(transport: PooledTransport, serve: Serve, case: str) -> None:
    encoding, packed = PACKED[case]
    head = OK + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (encoding, len(packed))
    server = await serve(says(head + packed[:7], packed[7:]))
    for _ in range(2):
        assert await read_all(await transport.send("GET", server.url, [], None, 5)) == PLAIN
    assert len(server.peers) == 1


@pytest.mark.parametrize("packed", [gzip.compress(PLAIN)[:-4], b"no gzip at all"], ids=["cut", "not-gzip"])
async def test_a_compressed_body_that_cannot_be_unpacked_is_garbled(
    transport: PooledTransport, serve: Serve, packed: bytes
) -> None:
    server = await serve(says(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed))
    with pytest.raises(TransportError) as caught:
        await read_all(await transport.send("GET", server.url, [], None, 5))
    assert caught.value.failure == "garbled"


async def test_a_bomb_is_unpacked_in_small_pieces(transport: PooledTransport, serve: Serve) -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    server = await serve(says(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb))
    response = await transport.send("GET", server.url, [], None, 5)
    total_bytes = 0
    tracemalloc.start()
    while piece := await response.read_some():
        total_bytes += len(piece)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    response.close()
    assert total_bytes == 64 * 1024 * 1024
    assert peak_bytes < 4 * 1024 * 1024


async def test_a_slow_reader_holds_up_the_server_and_not_memory(transport: PooledTransport, serve: Serve) -> None:
    size_bytes = 32 * 1024 * 1024

    async def converse(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"Content-Length: %d\r\n\r\n" % size_bytes)
        for _ in range(size_bytes // 65536):
            await peer.send(bytes(65536))
        await peer.until_closed()

    server = await serve(converse)
    response = await transport.send("GET", server.url, [], None, 5)
    sizes = []
    while piece := await response.read_some():
        sizes.append(len(piece))
        for _ in range(20):  # the server has the time to send more than may wait
            await asyncio.sleep(0)
    response.close()
    assert sum(sizes) == size_bytes
    assert max(sizes) <= 2 * 256 * 1024 + 4096
