"""One connection to Redis, shared by all callers: every command of a loop turn leaves in one write, and replies are
matched to callers in order. A pool of connections would cost several times the CPU of the proxy's whole request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias, cast

from hiredis import ProtocolError, Reader, pack_command

from llm_sidecar.store import Reason, Reply, StoreUnavailable

MAX_REPLY_BYTES: Final = 64 * 1024 * 1024
"""More than anything that we store; it bounds what a confused server can make us hold."""

_GRACE_SECONDS: Final = 0.005
"""A loop that was busy may see the timer before the reply which lies ready: one more look decides."""

_REASONS: Final[dict[str, Reason]] = {
    "BUSY": "timeout",  # another script runs for too long
    "READONLY": "readonly",
    "MISCONF": "readonly",
    "NOREPLICAS": "readonly",
    "MASTERDOWN": "readonly",
    "LOADING": "loading",
    "OOM": "out_of_memory",
    "NOAUTH": "authentication",
    "WRONGPASS": "authentication",
    "NOPERM": "authentication",
    "MOVED": "cluster",
    "ASK": "cluster",
    "TRYAGAIN": "cluster",
    "CLUSTERDOWN": "cluster",
    "CROSSSLOT": "cluster",
}

Parsed: TypeAlias = "Reply | ServerError"


def packed(*words: str | int | bytes) -> bytes:
    """A command as it goes over the wire."""
    return cast("bytes", pack_command(words))  # type: ignore[arg-type]  # its stub says "a tuple of one"


class ServerError(Exception):
    """An error reply. Its text may quote what was stored, so that only its first word is kept."""

    def __init__(self, message: str) -> None:
        self.code, _, rest = message.partition(" ")
        self.redirection = rest if self.code in {"MOVED", "ASK"} else ""
        """A slot and the address of the node that has it, for a Cluster. Never shown."""
        super().__init__(self.code)

    def reason(self, *, otherwise: Reason) -> Reason:
        """The reason word for this error."""
        return _REASONS.get(self.code, otherwise)


OnLost: TypeAlias = "Callable[[RedisConnection, Reason], None]"


class DeadlineWatch:
    """One timer that watches the oldest entry of a line, instead of one timer for each."""

    def __init__(self, *, oldest: Callable[[], float | None], on_late: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._oldest = oldest
        self._on_late = on_late
        self._timer: asyncio.Handle | None = None
        self._due = 0.0
        """When the timer rings. Not asked of the handle: uvloop's has no `when` where the time is already over."""
        self._suspect: float | None = None

    def arm(self, deadline: float) -> None:
        """Look at this deadline at the latest."""
        if self._timer is not None and self._due > deadline:
            self.stop()
        if self._timer is None:
            self._ring_at(deadline)

    def stop(self) -> None:
        """Watch nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        deadline = self._oldest()
        if deadline is None:
            return
        if self._loop.time() < deadline:
            self._ring_at(deadline)
        elif self._suspect != deadline:
            self._suspect = deadline
            self._ring_at(self._loop.time() + _GRACE_SECONDS)
        else:
            self._on_late()

    def _ring_at(self, moment: float) -> None:
        self._due = moment
        self._timer = self._loop.call_at(moment, self._look)


class RedisConnection(asyncio.Protocol):
    """Sends commands and hands each reply to the future that came with its command.

    A future that was cancelled meanwhile still takes its place in the line, so that nobody gets another's reply.
    """

    def __init__(self, *, on_lost: OnLost, max_reply_bytes: int = MAX_REPLY_BYTES) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._max_reply_bytes = max_reply_bytes
        self._transport: asyncio.WriteTransport | None = None
        self._reader = Reader(protocolError=ProtocolError, replyError=ServerError, notEnoughData=_NOT_YET)
        self._pending: deque[tuple[float, asyncio.Future[Parsed]]] = deque()
        self._outgoing: list[bytes] = []
        self._unparsed_bytes = 0
        self._watch = DeadlineWatch(oldest=self._oldest_deadline, on_late=self._late)

    @property
    def is_open(self) -> bool:
        """False once the connection was lost or dropped."""
        return self._transport is not None

    @property
    def pending_commands(self) -> int:
        """Commands whose replies are still to come."""
        return len(self._pending)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the server has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    def send(self, packed: bytes, *, reply_to: asyncio.Future[Parsed], deadline: float) -> None:
        """Send a packed command; the reply, or `StoreUnavailable`, goes to the future."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packed)
        self._pending.append((deadline, reply_to))
        self._watch.arm(deadline)

    def drop(self, reason: Reason) -> None:
        """Give the connection up; every pending command fails."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
            self._fail_all(reason)
            self._on_lost(self, reason)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """The server hung up."""
        self.drop("connection")

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are complete."""
        if self._transport is None:
            return
        self._unparsed_bytes += len(data)
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_YET:
                self._unparsed_bytes = 0
                _deadline, reply_to = self._pending.popleft()
                if not reply_to.done():
                    reply_to.set_result(reply)
        except (ProtocolError, IndexError):  # IndexError: a reply that nobody asked for
            self.drop("protocol")
            return
        if self._unparsed_bytes > self._max_reply_bytes:
            self.drop("protocol")

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and outgoing:
            self._transport.write(b"".join(outgoing))

    def _oldest_deadline(self) -> float | None:
        return self._pending[0][0] if self._pending else None

    def _late(self) -> None:
        # The reply may still come: only a new connection is certain to give the next caller their own.
        self.drop("timeout")

    def _fail_all(self, reason: Reason) -> None:
        self._watch.stop()
        pending, self._pending = self._pending, deque()
        self._outgoing.clear()
        for _deadline, reply_to in pending:
            if not reply_to.done():
                reply_to.set_exception(StoreUnavailable(reason))


_NOT_YET: Final = object()
