"""An application that asks and does not read: what it leaves behind is counted, bounded, and in the end cut."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest
from aiohttp import web

from llm_sidecar import relay
from llm_sidecar.budget import BufferBudget
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    CHAT_PATH,
    PATIENCE_SECONDS,
    TOKEN,
    Proxy,
    Upstream,
    chat_body,
    document,
    plain,
    provider,
    until,
)
from tests.integration.proxy.wire import CHAT_CONTENT, sse

Serve = Callable[..., Awaitable[Upstream]]

MEBIBYTE: Final = 1024 * 1024
LARGE: Final = json.dumps({"id": "c", "choices": [], "text": "x" * 8 * MEBIBYTE}).encode()


def budget_of(proxy: Proxy) -> BufferBudget:
    pipeline = proxy.sidecar._pipeline
    assert pipeline is not None
    return pipeline._budget


class Reader:
    """An application that reads when told."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def some(self, size_bytes: int = 1) -> bytes:
        """At most so many bytes."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.get_running_loop().sock_recv(self._connection, size_bytes)

    async def all(self) -> bytes:
        """All bytes until the end, or until the connection is cut."""
        received = bytearray()
        try:
            while piece := await self.some(MEBIBYTE):
                received += piece
        except ConnectionResetError:
            pass
        return bytes(received)


@asynccontextmanager
async def asking(proxy: Proxy, method: str = "POST", path: str = CHAT_PATH, body: bytes = b"") -> AsyncIterator[Reader]:
    """Send a request with small buffers on this side; read nothing."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)  # noqa: FBT003 - it has no name
        await loop.sock_connect(connection, ("127.0.0.1", proxy.listening.port))
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        await loop.sock_sendall(connection, head.encode() + body)
        yield Reader(connection)


async def endless(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
    """A stream that goes on for as long as somebody takes it."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"".join(CHAT_CONTENT))
    piece = sse(b'{"choices":[{"index":0,"delta":{"content":"%b"}}]}' % (b"x" * 60_000))
    while True:
        await response.write(piece)


async def test_a_large_answer_is_held_until_the_application_has_read_it(start_proxy: StartProxy, serve: Serve) -> None:
    """The audit line, too, comes when the answer is out."""
    proxy = await start_proxy(document(provider("p", (await serve(plain(LARGE))).base_url)))
    async with asking(proxy, body=chat_body()) as reader:
        beginning = await reader.some()
        assert budget_of(proxy).held_bytes >= len(LARGE)
        assert proxy.audit_lines() == []

        answer = beginning + await reader.all()

    assert answer.partition(b"\r\n\r\n")[2] == LARGE
    line = await proxy.last_audit_line()
    assert (line["status"], line.get("client_gone"), line.get("error")) == (200, None, None)
    assert budget_of(proxy).held_bytes == 0


async def test_answers_that_nobody_reads_leave_no_room_for_more(start_proxy: StartProxy, serve: Serve) -> None:
    proxy = await start_proxy(document(provider("p", (await serve(plain(LARGE))).base_url)))
    budget_of(proxy).limit_bytes = 2 * len(LARGE) + MEBIBYTE
    async with asking(proxy, body=chat_body()) as first, asking(proxy, body=chat_body()) as second:
        await first.some()
        await second.some()

        refused = await proxy.chat()

        assert (refused.status, refused.code) == (503, "sidecar_overloaded")
        await first.all()
        await second.all()
    assert (await proxy.chat()).body == LARGE


async def test_an_application_that_hangs_up_in_a_large_answer_is_recorded_so(
    start_proxy: StartProxy, serve: Serve
) -> None:
    proxy = await start_proxy(document(provider("p", (await serve(plain(LARGE))).base_url)))
    async with asking(proxy, body=chat_body()) as reader:
        await reader.some()
    line = await proxy.last_audit_line()
    assert (line["status"], line["client_gone"]) == (200, True)
    assert budget_of(proxy).held_bytes == 0


async def test_an_application_that_reads_nothing_of_a_large_answer_is_cut(
    start_proxy: StartProxy, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay.send_whole, "__kwdefaults__", {"stall_seconds": 0.2})
    proxy = await start_proxy(document(provider("p", (await serve(plain(LARGE))).base_url)))
    async with asking(proxy, body=chat_body()) as reader:
        line = await proxy.last_audit_line()
        assert (line["status"], line["client_gone"], line["error"]) == (200, True, relay.STALLED)
        assert line["duration_ms"] >= 200
        assert budget_of(proxy).held_bytes == 0
        assert len(await reader.all()) < len(LARGE)


@pytest.mark.parametrize("reads_later", [False, True])
async def test_an_application_that_stops_reading_a_stream_is_cut_and_so_is_the_provider(
    start_proxy: StartProxy, serve: Serve, reads_later: bool
) -> None:
    """What it reads later does not look complete."""
    upstream = await serve(endless)
    proxy = await start_proxy(document(provider("p", upstream.base_url, timeouts={"idleSeconds": 1})))
    async with asking(proxy, body=chat_body(stream=True)) as reader:
        await reader.some()
        line = await proxy.last_audit_line()
        assert (line["client_gone"], line["interrupted"], line["error"]) == (True, True, relay.STALLED)
        await asyncio.wait_for(upstream.gone.wait(), PATIENCE_SECONDS)
        if reads_later:
            assert not (await reader.all()).endswith(b"0\r\n\r\n")
    assert budget_of(proxy).held_bytes == 0


async def test_an_application_that_stops_reading_what_is_passed_through_is_cut(
    start_proxy: StartProxy, serve: Serve
) -> None:
    upstream = await serve(endless)
    spec = {"passthroughPaths": ["/v1/files"], "timeouts": {"responseSeconds": 1}}
    proxy = await start_proxy(document(provider("p", upstream.base_url, **spec)))
    async with asking(proxy, "GET", "/v1/files") as reader:
        await reader.some()
        line = await proxy.last_audit_line()
        assert (line["client_gone"], line["interrupted"], line["error"]) == (True, True, relay.STALLED)
        await asyncio.wait_for(upstream.gone.wait(), PATIENCE_SECONDS)


async def test_an_idle_connection_keeps_nothing_of_its_last_answer(start_proxy: StartProxy, serve: Serve) -> None:
    """A connection that waits for its next request must not hold an answer that nobody counts any more."""
    proxy = await start_proxy(document(provider("p", (await serve(plain(LARGE))).base_url)))
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port, limit=64 * MEBIBYTE)
    body = chat_body()
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(2):
        writer.write(head.encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(LARGE)) == LARGE
    await until(lambda: budget_of(proxy).held_bytes == 0)
    writer.close()
    await writer.wait_closed()
    assert len(proxy.audit_lines()) <= 2
