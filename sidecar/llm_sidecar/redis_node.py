"""One Redis or Valkey server: a connection that is kept up in the background, and a breaker around it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Final, TypedDict

from llm_sidecar.contract.keys import PREFIX
from llm_sidecar.redis_breaker import OnChange, StoreBreaker
from llm_sidecar.redis_connection import DeadlineWatch, Parsed, RedisConnection, ServerError, packed
from llm_sidecar.redis_dial import dial
from llm_sidecar.redis_endpoint import RedisEndpoint
from llm_sidecar.store import Reason, Reply, StoreUnavailable

_RECONNECT_SECONDS: Final = 0.02
_MAX_PROBE_FACTOR: Final = 5
"""Probes slow down to one in five seconds: a fleet that lost its store must not keep it down."""

_MAX_UNSENT_BYTES: Final = 32 * 1024 * 1024

PROBE: Final = packed("SET", f"{PREFIX}:probe", "1", "PX", 1000)
"""A write, because a replica and a full server answer PING as well as any."""


class NodeOptions(TypedDict, total=False):
    """How a server is used; everything has a default."""

    timeout_seconds: float
    failure_threshold: int
    open_seconds: float
    max_pending_commands: int


class RedisNode:
    """One multiplexed connection to one server, kept up in the background.

    Starts without a server, and goes on without one: from the third failure in a row on, calls fail at once until a
    probe (one command, never a caller's) has succeeded. `on_change` hears of both changes, once each.
    """

    def __init__(
        self,
        endpoint: RedisEndpoint,
        *,
        timeout_seconds: float = 0.05,
        failure_threshold: int = 3,
        open_seconds: float = 1.0,
        max_pending_commands: int = 10_000,
        on_change: OnChange | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._open_seconds = open_seconds
        self._max_pending_commands = max_pending_commands
        self._breaker = StoreBreaker(failure_threshold=failure_threshold, on_change=on_change)
        self._connection: RedisConnection | None = None
        self._waiting: deque[tuple[float, bytes, asyncio.Future[Parsed]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def available(self) -> bool:
        """False while the store is known to be away: calls then fail at once, without waiting."""
        return self._breaker.closed and not self._closed

    @property
    def reason(self) -> Reason | None:
        """Why the store is away, or None."""
        return None if self.available else self._breaker.reason

    def begin(self) -> None:
        """Connect in the background, before anybody asks."""
        self._start()

    async def connect(self) -> bool:
        """Make the first connection and tell whether it stands. Never raises: it goes on trying in the background."""
        self._start()
        await self._first_attempt.wait()
        return self._connection is not None

    async def close(self) -> None:
        """Close the connections. Pending calls fail."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._first_attempt.set()
        if self._connection is not None:
            self._connection.drop("connection")
        self._fail_waiting("connection")

    def send(self, command: bytes, *, deadline: float | None = None) -> asyncio.Future[Parsed]:
        """Send a packed command. `deadline`, by the loop's clock: the store's time-out from now, unless told."""
        if not self.available:
            raise StoreUnavailable(self._breaker.reason, maybe_executed=False)
        loop = self._loop or self._start()
        reply_to: asyncio.Future[Parsed] = loop.create_future()
        if deadline is None:
            deadline = loop.time() + self._timeout_seconds
        connection = self._connection
        if connection is None:
            self._refuse_overload(len(self._waiting))
            self._waiting.append((deadline, command, reply_to))
            self._waiting_watch.arm(deadline)
        else:
            self._refuse_overload(connection.pending_commands, connection.unsent_bytes)
            connection.send(command, reply_to=reply_to, deadline=deadline)
        return reply_to

    def _refuse_overload(self, commands: int, unsent_bytes: int = 0) -> None:
        if commands >= self._max_pending_commands or unsent_bytes > _MAX_UNSENT_BYTES:
            raise StoreUnavailable("overloaded", maybe_executed=False)

    def checked(self, reply: Parsed, *, otherwise: Reason) -> Reply:
        """The reply, or `StoreUnavailable` where it is an error; the breaker hears of both."""
        if not isinstance(reply, ServerError):
            self._breaker.succeeded()
            return reply
        reason = reply.reason(otherwise=otherwise)
        if reason in {"script", "protocol"}:  # the server works; what we asked it did not
            self._breaker.succeeded()
        elif reason == "readonly" and self._connection is not None:
            self._connection.drop(reason)  # a failover may have left us with the old server
        else:
            self._failed(reason)
        # Commands that are refused by name did nothing; a script may have failed halfway.
        raise StoreUnavailable(reason, maybe_executed=reason == "script")

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._waiting_watch = DeadlineWatch(oldest=self._oldest_waiting, on_late=self._waited_too_long)
            self._first_attempt = asyncio.Event()
            self._connection_wanted = asyncio.Event()
            self._connection_wanted.set()
            self._keeper = self._loop.create_task(self._keep_connected(), name="store connection")
        return self._loop

    async def _keep_connected(self) -> None:
        failed_attempts = 0
        while True:
            await self._connection_wanted.wait()
            await asyncio.sleep(self._pause_seconds(failed_attempts))
            self._breaker.begin_probe()
            try:
                connection = await self._open()
            except StoreUnavailable as unavailable:
                was_available = self._breaker.closed
                self._failed(unavailable.reason)
                # What came before the breaker opened was quick, and says nothing of how long the store is away.
                failed_attempts = 0 if was_available and not self._breaker.closed else failed_attempts + 1
            else:
                failed_attempts = 0
                self._take(connection)
            self._first_attempt.set()

    def _pause_seconds(self, failed_attempts: int) -> float:
        jitter = random.uniform(1.0, 1.25)  # noqa: S311 - spreads a fleet, guards nothing
        if not self._breaker.closed:
            return float(self._open_seconds * min(max(failed_attempts, 1), _MAX_PROBE_FACTOR) * jitter)
        return _RECONNECT_SECONDS * failed_attempts * jitter

    async def _open(self) -> RedisConnection:
        """Connect, log in, and write once: what this returns takes writes."""
        self._endpoint = await self._locate()
        connection, replies = await dial(self._endpoint, *self._proof(), on_lost=self._lost)
        try:
            self._check_proof(replies)
        except StoreUnavailable as refused:
            connection.drop(refused.reason)
            raise
        if not connection.is_open:  # lost right after its last reply
            raise StoreUnavailable("connection")
        return connection

    async def _locate(self) -> RedisEndpoint:
        """Where the server is now."""
        return self._endpoint

    def _proof(self) -> list[bytes]:
        """Commands that show whether it is the right server, and takes writes."""
        return [PROBE]

    def _check_proof(self, replies: list[Parsed]) -> None:
        for reply in replies:
            if isinstance(reply, ServerError):
                raise StoreUnavailable(reply.reason(otherwise="protocol"))

    def _take(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._connection_wanted.clear()
        self._breaker.succeeded()
        self._waiting_watch.stop()
        waiting, self._waiting = self._waiting, deque()
        for deadline, command, reply_to in waiting:
            if not reply_to.done():
                connection.send(command, reply_to=reply_to, deadline=deadline)

    def _lost(self, connection: RedisConnection, reason: Reason) -> None:
        if connection is self._connection:  # else an attempt that failed, which its own code reports
            self._connection = None
            self._connection_wanted.set()
            self._failed(reason)

    def _failed(self, reason: Reason) -> None:
        if self._closed:
            return
        self._breaker.failed(reason)
        if not self._breaker.closed:
            self._fail_waiting(reason)
            if self._connection is not None:
                self._connection.drop(reason)  # the next one is proven by a write before anybody uses it

    def _oldest_waiting(self) -> float | None:
        return self._waiting[0][0] if self._waiting else None

    def _waited_too_long(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._waiting and self._waiting[0][0] <= now:
            self._fail_one_waiting("timeout")
        if self._waiting:
            self._waiting_watch.arm(self._waiting[0][0])
        self._failed("timeout")

    def _fail_waiting(self, reason: Reason) -> None:
        while self._waiting:
            self._fail_one_waiting(reason)

    def _fail_one_waiting(self, reason: Reason) -> None:
        _deadline, _command, reply_to = self._waiting.popleft()
        if not reply_to.done():
            reply_to.set_exception(StoreUnavailable(reason, maybe_executed=False))
