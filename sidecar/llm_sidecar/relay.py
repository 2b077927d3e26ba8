"""Bringing an answer to the application: in pieces, or as a stream that never ends as if complete when it is not.

An application that hangs up does not end the reading at once: the provider's last frames tell the usage, and a client's
timing must not choose what is charged. (The connection's owner cancels the request a moment later, see `app.py`.)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from llm_sidecar.errors import Overloaded
from llm_sidecar.formats.base import FrameTooLarge
from llm_sidecar.headers import to_application
from llm_sidecar.providers.base import TransportError
from llm_sidecar.replies import answer_headers

if TYPE_CHECKING:
    from llm_sidecar.budget import Held
    from llm_sidecar.failover.attempt import OpenStream
    from llm_sidecar.providers.base import Headers, ProviderResponse, Timeouts
    from llm_sidecar.record import RequestRecord

ERROR_STATUS: Final = 502
ERROR_CODE: Final = "stream_interrupted"
TIMER_SECONDS: Final = 1.0
"""The idle timer is moved at most this often: moving it for every piece would cost more than reading one."""
HELD_STEP_BYTES: Final = 64 * 1024


class Interrupted(Exception):
    """A stream that had begun will not be completed. The message is for the application."""


class ClientWriter:
    """Writes to the application until it is gone, and then nowhere."""

    __slots__ = ("_record", "_reply", "_request", "gone")

    def __init__(self, request: web.BaseRequest, status: int, headers: Headers, record: RequestRecord) -> None:
        self._request = request
        self._reply = web.StreamResponse(status=status, headers=answer_headers(to_application(headers), record))
        self._record = record
        self.gone = False
        record.status = status

    async def begin(self, first: bytes) -> None:
        """Send the head and the first bytes."""
        try:
            await self._reply.prepare(self._request)
            if first:
                await self._reply.write(first)
        except ConnectionError:
            self.gone = self._record.client_gone = True

    async def write(self, piece: bytes) -> None:
        """Send bytes."""
        if self.gone:
            return
        try:
            await self._reply.write(piece)
        except ConnectionError:
            self.gone = self._record.client_gone = True

    async def end(self) -> web.StreamResponse:
        """The body is complete."""
        if not self.gone:
            try:
                await self._reply.write_eof()
            except ConnectionError:
                self.gone = self._record.client_gone = True
        return self._reply


class StreamRelay:
    """Relays one stream to its end."""

    def __init__(self, opened: OpenStream, timeouts: Timeouts, held: Held) -> None:
        self._opened = opened
        self._timeouts = timeouts
        self._held = held

    async def run(self, request: web.BaseRequest, record: RequestRecord) -> web.StreamResponse:
        """Relay; end with this API's error event where the provider did not complete the stream."""
        opened = self._opened
        writer = ClientWriter(request, opened.status, opened.headers, record)
        try:
            await writer.begin(opened.beginning)
            if not opened.exhausted:
                await self._relay(writer)
            self._check_complete()
        except Interrupted as error:
            observer = opened.observer
            if not observer.ended:  # what goes wrong behind the terminal marker takes nothing from the application
                record.interrupted = True
                observer.finish()
                if observer.error is None:  # the provider's own error event has told it already
                    await writer.write(observer.error_tail(ERROR_STATUS, ERROR_CODE, str(error)))
        return await writer.end()

    async def _relay(self, writer: ClientWriter) -> None:
        try:
            await self._relay_until_end(writer)
        except TransportError as error:
            raise Interrupted("the provider's connection broke in the middle of the stream") from error
        except FrameTooLarge as error:
            raise Interrupted("the provider sent a single frame that is too large to relay") from error
        except Overloaded as error:
            raise Interrupted("the sidecar holds as many bytes as it may (maxBufferedBytes)") from error
        except TimeoutError as error:
            raise Interrupted(
                "the provider was silent for timeouts.idleSeconds or longer in all than "
                "timeouts.streamSeconds, or the application stopped reading"
            ) from error

    async def _relay_until_end(self, writer: ClientWriter) -> None:
        observer, response = self._opened.observer, self._opened.response
        clock = asyncio.get_running_loop().time
        idle_seconds = self._timeouts.idle
        last_moment = clock() + self._timeouts.stream
        armed = clock()
        step_seconds = min(TIMER_SECONDS, idle_seconds / 10)
        withheld_bytes = counted_bytes = 0
        async with asyncio.timeout_at(min(armed + idle_seconds, last_moment)) as timer:
            while piece := await response.read_some():
                ready = observer.feed(piece)
                if ready:
                    await writer.write(ready)
                now = clock()
                if now - armed > step_seconds:
                    armed = now
                    timer.reschedule(min(now + idle_seconds, last_moment))
                withheld_bytes += len(piece) - len(ready)
                if withheld_bytes - counted_bytes > HELD_STEP_BYTES:
                    self._held.take(withheld_bytes - counted_bytes)
                    counted_bytes = withheld_bytes
            rest = observer.finish()
        if rest:
            await writer.write(rest)

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
) -> tuple[web.StreamResponse, bytes]:
    """Relay a body that is not read, piece by piece; returns the reply and the body's last `tail_bytes`.

    A provider that breaks off cuts the application's connection too: that is how HTTP tells an incomplete body.
    """
    writer = ClientWriter(request, status, headers, record)
    await writer.begin(first)
    tail = first[-tail_bytes:] if tail_bytes else b""
    try:
        while True:
            async with asyncio.timeout(idle_seconds):
                piece = await response.read_some()
            if not piece:
                break
            if tail_bytes:
                tail = (tail + piece)[-tail_bytes:]
            await writer.write(piece)
    except (TransportError, TimeoutError):
        record.interrupted = True
        if request.transport is not None:
            request.transport.abort()
        writer.gone = True
    return await writer.end(), tail
