"""The store on the master that Sentinels name, wherever it moves."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Unpack

from hiredis import ProtocolError, Reader

from llm_sidecar.contract.redis_url import InvalidStoreURL
from llm_sidecar.redis_breaker import OnChange
from llm_sidecar.redis_connection import Parsed, ServerError, packed
from llm_sidecar.redis_dial import CONNECT_TIMEOUT_SECONDS, ask
from llm_sidecar.redis_endpoint import Address, RedisEndpoint, RedisServers
from llm_sidecar.redis_node import NodeOptions
from llm_sidecar.redis_store import ServerVerbs
from llm_sidecar.store import StoreUnavailable

_ASK_SECONDS: Final = 0.3
"""For one Sentinel: another may answer where this one is dead."""
_RELISTEN_SECONDS: Final = 1.0
_SILENCE_SECONDS: Final = 15.0
"""After so long a Sentinel is asked whether it still lives: a connection can die without a word."""

_CHANNEL: Final = "+switch-master"


class Sentinels:
    """Some Sentinels, one of which is asked; the one that answered last comes first."""

    def __init__(self, servers: RedisServers) -> None:
        self._servers = servers
        self._name = servers.url.master_name
        self._logged_in = False
        self._order: deque[Address] = deque(servers.url.addresses)

    async def master(self) -> Address:
        """Where the master is, as the first Sentinel that answers says. Raises `StoreUnavailable`."""
        command = packed("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
        failure = StoreUnavailable("connection", maybe_executed=False)
        for _ in range(len(self._order)):
            try:
                reply = await self._ask(command)
            except StoreUnavailable as unavailable:
                failure = unavailable
            else:
                match reply:
                    case [bytes(host), bytes(port)] if port.isdigit():
                        return host.decode(errors="replace"), int(port)
                failure = StoreUnavailable("protocol", maybe_executed=False)  # it knows no master of this name
            self.distrust()
        raise failure

    def distrust(self) -> None:
        """Ask another one next time: what this one said was of no use."""
        self._order.rotate(-1)

    async def watch(self, on_master: Callable[[Address], None]) -> None:
        """Tell where the master is each time it may have moved. Never returns."""
        while True:
            with suppress(OSError, TimeoutError, ProtocolError, StoreUnavailable):
                await self._listen(on_master)
            self.distrust()
            await asyncio.sleep(_RELISTEN_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - spreads a fleet

    async def _ask(self, command: bytes) -> Parsed:
        reply = await self._ask_first(command)
        if not self._logged_in and isinstance(reply, ServerError) and reply.code == "NOAUTH":
            self._logged_in = True  # it has no login of its own in the URL: then it has that of the servers
            reply = await self._ask_first(command)
        if isinstance(reply, ServerError):
            raise StoreUnavailable(reply.reason(otherwise="protocol"), maybe_executed=False)
        return reply

    async def _ask_first(self, command: bytes) -> Parsed:
        return await ask(self._first(), command, timeout_seconds=_ASK_SECONDS)

    def _first(self) -> RedisEndpoint:
        return self._servers.sentinel_at(self._order[0], logged_in=self._logged_in)

    async def _listen(self, on_master: Callable[[Address], None]) -> None:
        await self.master()  # which also finds one that answers, and whether it wants a password
        sentinel = self._first()
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(sentinel.host, sentinel.port, ssl=sentinel.tls)
        try:
            if sentinel.password is not None:
                writer.write(packed("AUTH", *([sentinel.username] if sentinel.username else []), sentinel.password))
            writer.write(packed("SUBSCRIBE", _CHANNEL))
            await self._hear(reader, writer, on_master)
        finally:
            writer.transport.abort()

    async def _hear(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_master: Callable[[Address], None]
    ) -> None:
        parser, silent = Reader(protocolError=ProtocolError), False
        while True:
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    data = await reader.read(65536)
            except TimeoutError:
                if silent:
                    raise
                silent = True
                writer.write(packed("PING"))
                continue
            if not data:
                return
            silent = False
            parser.feed(data)
            while (message := parser.gets()) is not False:
                await self._take(message, on_master)

    async def _take(self, message: object, on_master: Callable[[Address], None]) -> None:
        match message:
            case [b"subscribe", _, _]:
                on_master(await self.master())  # it may have moved before the subscription began
            case [b"message", _, bytes(text)]:
                words = text.decode(errors="replace").split(" ")
                if len(words) == 5 and words[0] == self._name and words[4].isdigit():
                    on_master((words[3], int(words[4])))
            case _:
                pass  # an answer to a question whether it lives


class SentinelStore(ServerVerbs):
    """A `Store` on the master that Sentinels name. It is asked for whenever a connection is made."""

    def __init__(
        self,
        url: str,
        *,
        ca_bundle: str | None = None,
        on_change: OnChange | None = None,
        **options: Unpack[NodeOptions],
    ) -> None:
        self._servers = RedisServers(url, ca_bundle=ca_bundle)
        if self._servers.url.kind != "sentinel":
            raise InvalidStoreURL("the store's URL names no Sentinels: begin it with redis+sentinel://")
        self._sentinels = Sentinels(self._servers)
        self._watcher: asyncio.Task[None] | None = None
        self._master: Address | None = None
        super().__init__(RedisEndpoint(), on_change=on_change, **options)

    async def close(self) -> None:
        """Close the connections. Pending calls fail."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await super().close()

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = super()._start()
        if self._watcher is None:
            self._watcher = loop.create_task(self._sentinels.watch(self._moved), name="sentinel watch")
        return loop

    async def _locate(self) -> RedisEndpoint:
        self._master = await self._sentinels.master()
        return self._servers.at(self._master)

    def _proof(self) -> list[bytes]:
        return [packed("ROLE"), *super()._proof()]

    def _check_proof(self, replies: list[Parsed]) -> None:
        """A Sentinel may not know yet that its master is none any more, and some replicas take writes."""
        try:
            super()._check_proof(replies)
            self._check_role(replies[0])
        except StoreUnavailable:
            self._sentinels.distrust()
            raise

    def _check_role(self, role: Parsed) -> None:
        is_master = isinstance(role, list) and role[:1] == [b"master"]
        if not (is_master and self._is_at_master()):  # it may have moved while we connected
            raise StoreUnavailable("readonly", maybe_executed=False)

    def _moved(self, address: Address) -> None:
        """The old master may live on, cut off from the others, and would take writes that are lost afterwards."""
        self._master = address
        if self._connection is not None and not self._is_at_master():
            self._connection.drop("connection")

    def _is_at_master(self) -> bool:
        return self._master == (self._endpoint.host, self._endpoint.port)
