"""A TCP hop that passes bytes on and keeps what went towards the provider: proof of what left the machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

READ_BYTES: Final = 65_536


@dataclass(slots=True)
class Wiretap:
    """Where to connect, and what was said."""

    base_url: str = ""
    heard: bytearray = field(default_factory=bytearray)
    """Everything that clients sent, all connections together."""


@asynccontextmanager
async def tapped(host: str, port: int) -> AsyncIterator[Wiretap]:
    """Listen on loopback and relay to `host:port`."""
    tap = Wiretap()
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            connections.add(task)
            task.add_done_callback(connections.discard)
        with suppress(OSError, asyncio.CancelledError):
            upstream_reader, upstream_writer = await asyncio.open_connection(host, port)
            await asyncio.gather(_relay(reader, upstream_writer, tap.heard), _relay(upstream_reader, writer, keep=None))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    tap.base_url = "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    try:
        yield tap
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bytearray | None) -> None:
    """Bytes as they come; an end is passed on as an end, a reset (a cut stream) as a closed connection."""
    try:
        while data := await reader.read(READ_BYTES):
            if keep is not None:
                keep += data
            writer.write(data)
            await writer.drain()
    except OSError:
        writer.transport.abort()
        return
    finally:
        if not writer.is_closing():
            writer.close()
