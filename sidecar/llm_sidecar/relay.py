"""Bringing an answer to the application: in pieces, or as a stream that never ends as if complete when it is not.

An application that hangs up does not end the reading at once: the provider's last frames tell the usage, and a client's
timing must not choose what is charged. (The connection's owner cancels the request a moment later, see `app.py`.)

An application that is there but reads nothing is cut: what it does not take would be held for as long as it likes.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web

from llm_sidecar.errors import Overloaded
from llm_sidecar.formats.base import FrameTooLarge, FrameUnreadable
from llm_sidecar.headers import to_application
from llm_sidecar.providers.base import TransportError
from llm_sidecar.replies import answer_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_sidecar.budget import Held
    from llm_sidecar.failover.attempt import OpenStream
    from llm_sidecar.providers.base import Headers, ProviderResponse, Timeouts
    from llm_sidecar.record import RequestRecord

ERROR_STATUS: Final = 502
ERROR_CODE: Final = "stream_interrupted"
TIMER_SECONDS: Final = 1.0
"""The idle timer is moved at most this often: moving it for every piece would cost more than reading one."""
HELD_STEP_BYTES: Final = 64 * 1024
STALL_SECONDS: Final = 60.0
"""An application on the same machine that takes nothing of a whole answer for so long will not take it any more."""
TAIL_SECONDS: Final = 5.0
"""How long the end of a stream that failed may take to be written: there is nothing more to wait for."""
AT_ONCE_BYTES: Final = 32 * 1024
"""With nothing waiting before it, this much is written without a wait: half of what a transport holds before one."""
SLICE_BYTES: Final = 256 * 1024
"""Whole answers are written in such slices, so that progress can be told from standstill."""
STALLED: Final = "application_stopped_reading"
"""In the audit line only: who does not read cannot be told."""


class Interrupted(Exception):
    """A stream that had begun will not be completed. The message is for the application."""


class Writer(Protocol):
    """Where a stream goes."""

    async def begin(self, first: bytes) -> None:
        """Send the head and the first bytes."""
        ...

    async def write(self, piece: bytes) -> None:
        """Send bytes."""
        ...


class _HeadWithBody(web.StreamResponse):
    """Its head goes out together with the first bytes of its body: one write to the socket less."""

    _send_headers_immediately = False


class ClientWriter:
    """Writes to the application until it is gone, and then nowhere."""

    __slots__ = ("_record", "_reply", "_request", "gone", "stalled")

    def __init__(
        self,
        request: web.BaseRequest,
        status: int,
        headers: Headers,
        record: RequestRecord,
        *,
        head_waits_for_body: bool = False,
    ) -> None:
        self._request = request
        kind = _HeadWithBody if head_waits_for_body else web.StreamResponse
        self._reply = kind(status=status, headers=answer_headers(to_application(headers), record))
        self._record = record
        self.gone = False
        self.stalled = False
        """A write was given up. Nothing may be written any more: aiohttp would wait for the one that was given up."""
        record.status = status

    async def begin(self, first: bytes) -> None:
        """Send the head and the first bytes. Bound its time where there are any, as with `write`."""
        try:
            await self._reply.prepare(self._request)
        except ConnectionError:
            self.gone = self._record.client_gone = True
        if first:
            await self.write(first)

    async def write(self, piece: bytes) -> None:
        """Send bytes. The caller bounds the time: a timer for each piece would cost more than the piece."""
        if self.gone:
            return
        try:
            await self._reply.write(piece)
        except ConnectionError:
            self.gone = self._record.client_gone = True
        except asyncio.CancelledError:
            self.stalled = True
            raise

    async def end(self, last: bytes = b"", *, seconds: float) -> web.StreamResponse:
        """The body is complete with these bytes. Cut the connection where the application does not take them."""
        if self.stalled:
            self.give_up()
        if not self.gone:
            try:
                if self._takes_at_once(len(last)):
                    await self._reply.write_eof(last)
                else:
                    async with asyncio.timeout(seconds):
                        await self._reply.write_eof(last)
            except ConnectionError:
                self.gone = self._record.client_gone = True
            except TimeoutError:
                self.give_up()
        return self._reply

    def _takes_at_once(self, size_bytes: int) -> bool:
        """True where so much fits into what the connection holds: nothing is waited for then, nor need be timed."""
        transport = self._request.transport
        return size_bytes < AT_ONCE_BYTES and transport is not None and transport.get_write_buffer_size() == 0

    def give_up(self) -> None:
        """The application is there, and does not read."""
        _tell_stalled(self._record)
        self.cut()

    def cut(self) -> None:
        """End the connection now, so that the body is incomplete."""
        self.gone = True
        _abort(self._request)


class StreamRelay:
    """Relays one stream to its end."""

    def __init__(
        self, opened: OpenStream, timeouts: Timeouts, held: Held, *, on_progress: Callable[[], object] = lambda: None
    ) -> None:
        """`on_progress` is called about once a second while content comes."""
        self._opened = opened
        self._on_progress = on_progress
        self._timeouts = timeouts
        self._held = held

    async def run(self, request: web.BaseRequest, record: RequestRecord) -> web.StreamResponse:
        """Relay; end with this API's error event where the provider did not complete the stream."""
        opened = self._opened
        writer = ClientWriter(request, opened.status, opened.headers, record, head_waits_for_body=True)
        last, seconds = await self.write_to(writer, record)
        return await writer.end(last, seconds=seconds)

    async def write_to(self, writer: Writer, record: RequestRecord) -> tuple[bytes, float]:
        """Relay all but the end: what that is, and how long it may take to be written."""
        opened = self._opened
        last, seconds = b"", self._timeouts.idle
        try:
            if opened.exhausted:
                await writer.begin(b"")
                last = opened.beginning
            else:
                last = await self._relay(writer)
            self._check_complete()
        except Interrupted as error:
            observer = opened.observer
            if not observer.ended:  # what goes wrong behind the terminal marker takes nothing from the application
                record.interrupted = True
                observer.finish()
                if observer.error is None:  # the provider's own error event has told it already
                    last += observer.error_tail(ERROR_STATUS, ERROR_CODE, str(error))
                    seconds = TAIL_SECONDS
        return last, seconds

    async def _relay(self, writer: Writer) -> bytes:
        """Relay; returns what is still to write, which goes out together with the body's end."""
        try:
            return await self._relay_until_end(writer)
        except TransportError as error:
            raise Interrupted("the provider's connection broke in the middle of the stream") from error
        except FrameUnreadable as error:
            raise Interrupted("the provider sent a frame in the middle of the stream that cannot be read") from error
        except FrameTooLarge as error:
            raise Interrupted("the provider sent a single frame that is too large to relay") from error
        except Overloaded as error:
            raise Interrupted("the sidecar holds as many bytes as it may (maxBufferedBytes)") from error
        except TimeoutError as error:
            raise Interrupted(
                "the provider was silent for timeouts.idleSeconds or longer in all than "
                "timeouts.streamSeconds, or the application stopped reading"
            ) from error

    async def _relay_until_end(self, writer: Writer) -> bytes:
        observer, response = self._opened.observer, self._opened.response
        clock = asyncio.get_running_loop().time
        idle_seconds = self._timeouts.idle
        last_moment = clock() + self._timeouts.stream
        armed = clock()
        step_seconds = min(TIMER_SECONDS, idle_seconds / 10)
        withheld_bytes = counted_bytes = 0
        async with asyncio.timeout_at(min(armed + idle_seconds, last_moment)) as timer:
            await writer.begin(self._opened.beginning)
            while piece := await response.read_some():
                try:
                    ready = observer.feed(piece)
                except FrameUnreadable as error:
                    await writer.write(error.readable)
                    raise
                if response.exhausted:
                    return await self._finish(writer, ready)
                if ready:
                    await writer.write(ready)
                now = clock()
                if now - armed > step_seconds:
                    armed = now
                    timer.reschedule(min(now + idle_seconds, last_moment))
                    self._on_progress()
                # Whatever goes out ends within the last piece, and a translation may be larger or smaller than it.
                withheld_bytes = len(piece) + (0 if ready else withheld_bytes)
                if withheld_bytes - counted_bytes > HELD_STEP_BYTES:
                    self._held.take(withheld_bytes - counted_bytes)
                    counted_bytes = withheld_bytes
            return await self._finish(writer, b"")

    async def _finish(self, writer: Writer, ready: bytes) -> bytes:
        """The provider has closed the stream: what is still to write."""
        try:
            return ready + self._opened.observer.finish()
        except FrameUnreadable as error:
            await writer.write(ready + error.readable)
            raise

    def _check_complete(self) -> None:
        observer = self._opened.observer
        if not observer.ended:
            raise Interrupted("the provider ended the stream before it was complete")


async def relay_pieces(
    request: web.BaseRequest,
    *,
    status: int,
    headers: Headers,
    first: bytes,
    response: ProviderResponse,
    idle_seconds: float,
    record: RequestRecord,
    tail_bytes: int = 0,
    total_seconds: float | None = None,
) -> tuple[web.StreamResponse, bytes]:
    """Relay a body that is not read, piece by piece; returns the reply and the body's last `tail_bytes`.

    `idle_seconds` bounds a piece's way from the provider to the application, `total_seconds` all of them together.
    A provider that breaks off cuts the application's connection too: that is how HTTP tells an incomplete body.
    """
    writer = ClientWriter(request, status, headers, record, head_waits_for_body=bool(first))
    tail = first[-tail_bytes:] if tail_bytes else b""
    clock = asyncio.get_running_loop().time
    armed = clock()
    last_moment = math.inf if total_seconds is None else armed + total_seconds
    step_seconds = min(TIMER_SECONDS, idle_seconds / 10)
    try:
        async with asyncio.timeout_at(min(armed + idle_seconds, last_moment)) as timer:
            await writer.begin(first)
            while piece := await response.read_some():
                if tail_bytes:
                    tail = (tail + piece)[-tail_bytes:]
                await writer.write(piece)
                now = clock()
                if now - armed > step_seconds:
                    armed = now
                    timer.reschedule(min(now + idle_seconds, last_moment))
    except (TransportError, TimeoutError):
        record.interrupted = True
        if not writer.stalled:  # otherwise the end, below, does and tells it
            writer.cut()
    return await writer.end(seconds=idle_seconds), tail


async def send_whole(
    request: web.BaseRequest,
    reply: web.Response,
    body: bytes,
    record: RequestRecord,
    *,
    stall_seconds: float = STALL_SECONDS,
) -> None:
    """Write a whole answer, the reply with its body, and keep nothing of it.

    aiohttp would do so only after the handler has returned, without a bound of time; and it would keep the body for
    as long as the connection is idle afterwards.
    """
    view = memoryview(body)
    clock = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(stall_seconds) as timer:
            await reply.prepare(request)
            reply.body = None
            for start in range(0, len(view), SLICE_BYTES):
                await reply.write(view[start : start + SLICE_BYTES])
                timer.reschedule(clock() + stall_seconds)
            await reply.write_eof()
    except ConnectionError:
        record.client_gone = True
    except TimeoutError:
        _tell_stalled(record)
        _abort(request)


def _tell_stalled(record: RequestRecord) -> None:
    record.client_gone = True
    record.error_code = record.error_code or STALLED


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
