"""A transport and scripted servers on loopback, under both event loops that the sidecar may run on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest_asyncio
import uvloop

from llm_sidecar.providers.base import ProviderResponse
from llm_sidecar.upstream import Egress, PooledTransport

Converse = Callable[["Peer"], Awaitable[None]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test runs twice."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass(slots=True)
class Peer:
    """The server's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the conversation is over: what the server sees of a client that hung up."""

    async def request(self) -> tuple[bytes, bytes]:
        """Head and body of the next request. Raises `IncompleteReadError` where none comes."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            return head, await self._chunks()
        length = 0
        for line in lower.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head, await self.reader.readexactly(length)

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            piece = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
            if not size:
                return body
            body += piece

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each in a packet of its own where the system lets it be."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def until_closed(self) -> bytes:
        """All that comes before the client hangs up."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


@dataclass(slots=True)
class Server:
    """A scripted server."""

    port: int = 0
    scheme: str = "http"
    host: str = "127.0.0.1"
    peers: list[Peer] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://{self.host}:{self.port}"


class Serve(Protocol):
    """Starts a server that lives until the test ends."""

    async def __call__(self, converse: Converse, *, tls: ssl.SSLContext | None = None) -> Server: ...


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start scripted servers."""
    async with AsyncExitStack() as stack:

        async def start(converse: Converse, *, tls: ssl.SSLContext | None = None) -> Server:
            self = Server(scheme="https" if tls else "http", host="localhost" if tls else "127.0.0.1")
            tasks: set[asyncio.Task[Any]] = set()

            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                assert task is not None
                tasks.add(task)
                peer = Peer(reader, writer, len(self.peers))
                self.peers.append(peer)
                try:
                    await converse(peer)
                except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                    pass
                finally:
                    writer.close()
                    tasks.discard(task)
                    peer.ended.set()

            server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
            self.port = server.sockets[0].getsockname()[1]

            async def stop() -> None:
                server.close()
                for task in list(tasks):
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for peer in self.peers:
                    peer.writer.transport.abort()
                await asyncio.sleep(0)

            stack.push_async_callback(stop)
            return self

        yield start


class Connect(Protocol):
    """Makes a transport that is closed when the test ends."""

    def __call__(self, egress: Egress | None = None, **options: Any) -> PooledTransport: ...


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """Make transports."""
    async with AsyncExitStack() as stack:

        def make(egress: Egress | None = None, **options: Any) -> PooledTransport:
            transport = PooledTransport(egress or Egress(), **options)
            stack.push_async_callback(transport.close)
            return transport

        yield make


@pytest_asyncio.fixture
async def transport(connect: Connect) -> PooledTransport:
    """A transport with no egress settings."""
    return connect()


async def read_all(response: ProviderResponse) -> bytes:
    """A whole body; the response is closed."""
    try:
        body = b""
        while piece := await response.read_some():
            body += piece
        return body
    finally:
        response.close()


def says(*pieces: bytes, then_close: bool = False) -> Converse:
    """Answer every request with these bytes."""

    async def converse(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)
            if then_close:
                return

    return converse
