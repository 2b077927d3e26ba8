"""One connection: carries one request and its answer at a time, and tells its pool when it can carry the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import TYPE_CHECKING, Final, cast

from llm_sidecar.providers.base import TransportError
from llm_sidecar.upstream import failures
from llm_sidecar.upstream.answer import Answer

if TYPE_CHECKING:
    import ssl

UNREAD_BYTES: Final = 256 * 1024
"""How much of an answer may wait to be read before we stop reading from the socket."""
PIECE_BYTES: Final = 256 * 1024
"""A body up to here leaves in one write with its head; a larger one in pieces, as fast as the server takes them."""


class _Gone(Exception):
    """The connection ended while a body was being sent: its answer has been told."""


class Connection(asyncio.Protocol):
    """A connection to a provider, or to the proxy in front of it."""

    __slots__ = (
        "_answer",
        "_can_write",
        "_is_paused",
        "_loop",
        "_on_free",
        "_on_lost",
        "_sender",
        "_sender_error",
        "_transport",
        "idle_since",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._sender: asyncio.Task[None] | None = None
        self._sender_error: Exception | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._is_paused = False
        self._on_free: Callable[[Connection], None] | None = None
        self._on_lost: Callable[[Connection], None] | None = None
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        """False once it is closed or about to be."""
        return self._transport is not None and not self._transport.is_closing()

    def belongs_to(self, *, on_free: Callable[[Connection], None], on_lost: Callable[[Connection], None]) -> None:
        """Tell somebody when it can carry the next request, and when it is gone."""
        self._on_free, self._on_lost = on_free, on_lost

    # --- an exchange

    def ask(self, head: bytes, *, expects_body: bool) -> Answer:
        """Send a whole request, or the head of one whose body `send_body` sends."""
        answer = Answer(expects_body=expects_body, on_read=self._resume_reading, on_close=self._was_closed)
        transport = self._transport
        if transport is None or transport.is_closing():
            answer.end(TransportError("disconnected", failures.CLOSED_EARLY))
            return answer
        self._answer = answer
        self._sender_error = None
        transport.write(head)
        return answer

    def send_body(self, body: bytes | AsyncIterable[bytes], *, declared_bytes: int | None) -> None:
        """Send the body of the request that was just begun, beside waiting for its answer."""
        if self._answer is not None:
            self._sender = self._loop.create_task(self._send(self._answer, body, declared_bytes))

    def body_error(self) -> Exception | None:
        """What the caller's own body raised, where that is why the answer failed."""
        return self._sender_error

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """From here on all is encrypted. What the TLS layer raises is not translated."""
        transport = self._transport
        encrypted = transport and await self._loop.start_tls(transport, self, context, server_hostname=host)
        if not encrypted:  # closed before, or while the hands were being shaken
            raise ConnectionAbortedError
        self._transport = encrypted

    def abort(self) -> None:
        """Close now. Whoever waits for an answer is told."""
        transport = self._transport
        if transport is not None:
            transport.abort()
        self._end(TransportError("disconnected", failures.GIVEN_UP))

    def _resume_reading(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def _was_closed(self, answer: Answer) -> None:
        sender, self._sender = self._sender, None
        has_sent = sender is None or sender.done()
        if sender is not None and not has_sent:
            sender.cancel()
        self._answer = None
        transport = self._transport
        if transport is None:
            return
        is_reusable = (
            answer.complete
            and answer.keeps_alive
            and not answer.is_spoiled
            and has_sent
            and self._sender_error is None
            and not transport.is_closing()
            and not transport.get_write_buffer_size()  # answered before it was asked: nobody knows what follows
        )
        if is_reusable and self._on_free is not None:
            self._resume_reading()
            self._on_free(self)
        else:
            transport.abort()

    # --- sending a body in pieces

    async def _send(self, answer: Answer, body: bytes | AsyncIterable[bytes], declared_bytes: int | None) -> None:
        try:
            if isinstance(body, bytes):
                await self._send_pieces(body)
            else:
                await self._send_iterated(body, declared_bytes)
        except _Gone:
            return
        except Exception as error:  # noqa: BLE001 - the caller's own: it is raised where the caller waits
            self._sender_error = error
            self._break_off(answer)

    def _break_off(self, answer: Answer) -> None:
        if self._transport is not None:
            self._transport.abort()
        answer.end(TransportError("disconnected", failures.BODY_BROKE_OFF))

    async def _send_pieces(self, body: bytes) -> None:
        view = memoryview(body)
        for start in range(0, len(body), PIECE_BYTES):
            await self._write(view[start : start + PIECE_BYTES])

    async def _send_iterated(self, body: AsyncIterable[bytes], declared_bytes: int | None) -> None:
        sent_bytes = 0
        try:
            async for piece in body:
                sent_bytes += len(piece)
                if declared_bytes is not None and sent_bytes > declared_bytes:
                    break
                if piece:
                    await self._write(piece if declared_bytes is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
        finally:
            if isinstance(body, AsyncGenerator):
                await body.aclose()
        if declared_bytes is None:
            await self._write(b"0\r\n\r\n")
        elif sent_bytes != declared_bytes:
            raise TransportError("connection", "the request's body is not as long as its Content-Length")

    async def _write(self, data: bytes | memoryview) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise _Gone
        transport.write(data)
        while self._can_write is not None:
            await self._can_write

    # --- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the answer; unasked ones end the connection."""
        answer = self._answer
        if answer is None:
            self.abort()
            return
        answer.feed(data)
        if answer.complete or answer.failed:
            self._answer = None
            if answer.failed:
                self.abort()
        elif answer.unread_bytes > UNREAD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """The server has said all: the transport closes, `connection_lost` follows."""
        if self._answer is None and self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """The server takes no more for now."""
        self._can_write = self._loop.create_future()

    def resume_writing(self) -> None:
        """The server takes bytes again."""
        waiting, self._can_write = self._can_write, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._transport = None
        self._end(failures.connection_lost(exc), is_clean=exc is None)
        self.resume_writing()
        on_lost, self._on_lost, self._on_free = self._on_lost, None, None
        if on_lost is not None:
            on_lost(self)

    def _end(self, error: TransportError, *, is_clean: bool = False) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.end(error, is_clean=is_clean)
