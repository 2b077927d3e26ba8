"""A TCP hop to the store that cuts connections at an exact byte, stands still, and can be pointed elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal

READ_BYTES: Final = 65_536
Place = Literal["command", "reply"]


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut the next connection that says something: so many bytes of the next command, or of its reply, still pass."""

    place: Place
    passed_bytes: int = 0


@dataclass(slots=True, eq=False)
class FaultProxy:
    """One hop. Everything passes, unless it was told otherwise."""

    target_port: int
    port: int = 0
    cuts: int = 0
    """How many connections were cut by an armed `Cut`."""
    _armed: Cut | None = None
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)
    _generation: int = 0

    def arm(self, cut: Cut) -> None:
        """Cut once, as soon as there is something to cut."""
        self._armed = cut

    def freeze(self) -> None:
        """Let nothing pass, in either direction, until `thaw`."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let everything pass that was held up."""
        self._flowing.set()

    def drop(self) -> None:
        """Cut every connection now. What they were holding up never passes."""
        self._generation += 1
        for task in list(self._connections):
            task.cancel()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[FaultProxy]:
        """Listen on a loopback port for as long as the context lasts."""
        self.thaw()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.drop()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        writers = [writer]
        with suppress(OSError, asyncio.CancelledError):
            try:
                upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
                writers.append(upstream_writer)
                relay = _Relay(self)
                async with asyncio.TaskGroup() as group:
                    group.create_task(relay.commands(reader, upstream_writer))
                    group.create_task(relay.replies(upstream_reader, writer))
            except* (OSError, _Ended):
                pass
            finally:
                for one in writers:
                    one.transport.abort()

    def _take(self, place: Place) -> Cut | None:
        cut = self._armed
        if cut is None or cut.place != place:
            return None
        self._armed = None
        self.cuts += 1
        return cut


class _Ended(Exception):
    """One side has closed, or the connection is to be cut: the other side ends with it."""


class _Relay:
    """One connection. A reply is cut only where this connection has asked something since the cut was armed."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._generation = proxy._generation
        self._asked: Cut | None = None

    async def _may_pass(self) -> None:
        await self._proxy._flowing.wait()
        if self._generation != self._proxy._generation:
            raise _Ended

    async def commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            await self._may_pass()
            if (cut := self._proxy._take("command")) is not None:
                writer.write(data[: cut.passed_bytes])
                await writer.drain()
                raise _Ended
            self._asked = self._proxy._armed
            writer.write(data)
            await writer.drain()
        raise _Ended

    async def replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            await self._may_pass()
            if self._asked is not None and self._asked is self._proxy._armed:
                cut = self._proxy._take("reply")
                if cut is not None:
                    writer.write(data[: cut.passed_bytes])
                    await writer.drain()
                    raise _Ended
            writer.write(data)
            await writer.drain()
        raise _Ended
