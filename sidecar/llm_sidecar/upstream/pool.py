"""Connections kept for the next request, and the transport that sends requests over them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable
from time import monotonic
from typing import TYPE_CHECKING, Final

from llm_sidecar.providers.base import Headers, TransportError
from llm_sidecar.upstream import failures
from llm_sidecar.upstream.connection import PIECE_BYTES, Connection
from llm_sidecar.upstream.dialer import Dialer
from llm_sidecar.upstream.egress import Egress, tls_context
from llm_sidecar.upstream.request import HeadWriter, Origin, Target, declared_length, origin_of, target

if TYPE_CHECKING:
    import ssl

    from llm_sidecar.providers.base import ProviderResponse
    from llm_sidecar.upstream.answer import Answer

KEEP_ALIVE_SECONDS: Final = 30
"""Shorter than the idle time-outs of the providers' load balancers, so that we close first."""
CONNECTIONS_PER_PROVIDER: Final = 1000
STALE_SECONDS: Final = 1.0
"""A kept connection that the server had closed already tells it within a round trip. One that ends later may well have
been worked on: to send again would be to pay twice."""
KNOWN_TARGETS: Final = 256
"""Few different URLs are in use, and reading one costs more than all else that is done for a head."""


class Pool:
    """The connections to one origin."""

    def __init__(self, dialer: Dialer, *, limit: int, keep_seconds: float) -> None:
        self._dialer = dialer
        self._limit = limit
        self._keep_seconds = keep_seconds
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._place_freed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._keeps = True
        self._is_closed = False

    def take(self) -> Connection | None:
        """The connection that was used last, if one is free: the others grow old and are closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def connect(self, connect_seconds: float, *, fresh: bool = False) -> tuple[Connection, bool]:
        """A connection, and whether it was used before. `fresh`: only one that was not. Raises `TransportError`."""
        try:
            async with asyncio.timeout(connect_seconds):
                if self._connecting + len(self._open) >= self._limit:
                    handed = await self._wait_for_turn()
                    if handed is not None and not fresh:
                        return handed, True
                    if handed is not None:
                        handed.abort()  # its place is ours
                        self._open.discard(handed)
                        self._connecting += 1
                else:
                    self._connecting += 1
                return await self._dial(), False
        except TimeoutError:
            raise TransportError("connection", failures.TOO_SLOW) from None

    async def _dial(self) -> Connection:
        try:
            connection = await self._dialer.connect()
        except BaseException:
            self._connecting -= 1
            self._place_is_free()
            raise
        self._connecting -= 1
        if self._is_closed:
            connection.abort()
            raise TransportError("disconnected", failures.GIVEN_UP)
        self._open.add(connection)
        connection.belongs_to(on_free=self._free, on_lost=self._lost)
        return connection

    async def _wait_for_turn(self) -> Connection | None:
        """Wait for a connection, or for the right to make one (which is counted as connecting already)."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(turn)
            elif (connection := turn.result()) is not None:
                self._free(connection)
            else:
                self._connecting -= 1
                self._place_is_free()
            raise

    def _next_waiting(self) -> asyncio.Future[Connection | None] | None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                return turn
        return None

    def _free(self, connection: Connection) -> None:
        if not connection.is_open:
            return
        turn = self._next_waiting()
        if turn is not None:
            turn.set_result(connection)
        elif not self._keeps:
            connection.abort()
        else:
            loop = asyncio.get_running_loop()
            connection.idle_since = loop.time()
            self._idle.append(connection)
            if self._timer is None:
                self._timer = loop.call_later(self._keep_seconds, self._close_old)

    def _lost(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        if connection in self._open:
            self._open.remove(connection)
            self._place_is_free()

    def _place_is_free(self) -> None:
        self._place_freed.set()
        if self._connecting + len(self._open) < self._limit and (turn := self._next_waiting()) is not None:
            self._connecting += 1
            turn.set_result(None)

    def _close_old(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._keep_seconds
        kept = [connection for connection in self._idle if connection.idle_since > oldest]
        old = self._idle[: len(self._idle) - len(kept)]  # they stand in the order in which they became free
        self._idle = kept
        for connection in old:
            connection.abort()
        if kept:
            self._timer = loop.call_at(kept[0].idle_since + self._keep_seconds, self._close_old)

    def stop_keeping(self) -> None:
        """Close each connection as soon as it is free."""
        self._keeps = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()

    async def retire(self) -> None:
        """Return once the requests under way are over and their connections closed."""
        self.stop_keeping()
        while self._open or self._connecting:
            self._place_freed.clear()
            await self._place_freed.wait()

    async def close(self) -> None:
        """Close every connection, also those in use."""
        self._is_closed = True
        self.stop_keeping()
        for connection in list(self._open):
            connection.abort()
        while self._open:
            self._place_freed.clear()
            await self._place_freed.wait()


class PooledTransport:
    """Pools of connections with one egress. See `Transport`."""

    def __init__(
        self, egress: Egress, *, limit: int = CONNECTIONS_PER_PROVIDER, keep_seconds: float = KEEP_ALIVE_SECONDS
    ) -> None:
        self._proxy = origin_of(egress.proxy_url) if egress.proxy_url else None
        # With nothing to check, not before it is needed: the system's authorities take 50 ms and 1.5 MiB.
        self._context = tls_context(egress) if egress.has_tls_settings else None
        self._egress = egress
        self._limit = limit
        self._keep_seconds = keep_seconds
        self._heads = HeadWriter()
        self._targets: dict[tuple[str, str], tuple[Target, Pool]] = {}
        self._pools: dict[Origin, Pool] = {}
        self._is_retired = False

    def trust(self) -> ssl.SSLContext:
        """What TLS connections of this egress are checked by, loaded when first asked for."""
        if self._context is None:
            self._context = tls_context(self._egress)
        return self._context

    async def send(
        self, method: str, url: str, headers: Headers, body: bytes | AsyncIterable[bytes] | None, connect_seconds: float
    ) -> ProviderResponse:
        """Send and wait for the answer's head. Raises `TransportError`."""
        to, pool = self._targets.get((method, url)) or self._learn(method, url)
        if body is None or isinstance(body, bytes):
            answer = await self._send_whole(to, pool, headers, body or b"", connect_seconds)
        else:
            answer = await self._send_streamed(to, pool, headers, body, connect_seconds)
        if answer.status == 407 and self._proxy is not None:
            answer.close()
            raise failures.proxy_refused(407)
        return answer

    async def retire(self) -> None:
        """Close, once the requests under way are over."""
        self._is_retired = True
        for pool in list(self._pools.values()):
            await pool.retire()

    async def close(self) -> None:
        """Close every connection, also those in use."""
        self._is_retired = True
        for pool in list(self._pools.values()):
            await pool.close()

    async def _send_whole(
        self, to: Target, pool: Pool, headers: Headers, body: bytes, connect_seconds: float
    ) -> Answer:
        head = self._heads.head(to, headers, length=len(body))
        in_pieces = len(body) > PIECE_BYTES
        first = head if in_pieces or not body else head + body
        connection, was_used = pool.take(), True
        if connection is None:
            connection, was_used = await pool.connect(connect_seconds)
        while True:
            sent_at = monotonic()
            answer = connection.ask(first, expects_body=to.expects_body)
            if in_pieces:
                connection.send_body(body, declared_bytes=len(body))
            try:
                await answer.wait_for_head()
            except TransportError:
                answer.close()
                # A kept connection may end while the request is on its way. That is known once, and only once:
                if not was_used or answer.has_begun or monotonic() - sent_at > STALE_SECONDS:
                    raise
            except BaseException:
                answer.close()
                raise
            else:
                return answer
            connection, was_used = await pool.connect(connect_seconds, fresh=True)

    async def _send_streamed(
        self, to: Target, pool: Pool, headers: Headers, body: AsyncIterable[bytes], connect_seconds: float
    ) -> Answer:
        declared_bytes = declared_length(headers)
        head = self._heads.head(to, headers, length=None, streamed=True)
        connection = pool.take()
        if connection is None:
            connection, _ = await pool.connect(connect_seconds)
        answer = connection.ask(head, expects_body=to.expects_body)
        connection.send_body(body, declared_bytes=declared_bytes)
        try:
            await answer.wait_for_head()
        except BaseException as error:
            answer.close()
            own = connection.body_error()
            if own is not None and isinstance(error, TransportError):
                raise own from None
            raise
        return answer

    def _learn(self, method: str, url: str) -> tuple[Target, Pool]:
        to = target(method, url, through_proxy=self._proxy is not None)
        pool = self._pools.get(to.origin)
        if pool is None:
            dialer = Dialer(to.origin, proxy=self._proxy, tls=self.trust)
            pool = self._pools[to.origin] = Pool(dialer, limit=self._limit, keep_seconds=self._keep_seconds)
            if self._is_retired:
                pool.stop_keeping()
        if len(self._targets) >= KNOWN_TARGETS:
            self._targets.clear()
        self._targets[method, url] = to, pool
        return to, pool
