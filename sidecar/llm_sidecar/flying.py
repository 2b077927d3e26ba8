"""Identical calls at the same time, answered by one: who leads, who follows, and what each application gets of it.

`cache/flight.py` is the flight itself. Only what the cache may serve flies, so that an answer is as good for one as for
another; and only to those who want it in the same way: a plain answer and a stream are two flights.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from llm_sidecar.cache.flight import FellOff, Flights, Overdue, Released
from llm_sidecar.headers import to_application
from llm_sidecar.record import RequestRecord, Saving
from llm_sidecar.relay import ERROR_CODE, ERROR_STATUS, TAIL_SECONDS, TIMER_SECONDS, ClientWriter, send_whole
from llm_sidecar.replies import answer_headers

if TYPE_CHECKING:
    from collections.abc import Hashable

    from llm_sidecar.cache.flight import Flight, Listener
    from llm_sidecar.exchange import Exchange
    from llm_sidecar.formats.base import Format, ParsedRequest
    from llm_sidecar.providers.base import Timeouts

logger = logging.getLogger(__name__)

LEAST_PATIENCE_SECONDS: Final = 2.0
"""No call is overdue before, however fast the others were."""
UNKNOWN_PATIENCE_SECONDS: Final = 30.0
"""Where nothing is known of how long such calls take: a plain answer that a model thinks about may take that long."""
KNOWN_TIMES: Final = 32
KNOWN_KINDS: Final = 256

MOST_FLIGHTS: Final = 2
"""After that many that failed it, a request goes on alone: one after the other would take longer than all at once."""
SMALL_BYTES: Final = 64 * 1024
"""A whole answer up to this size is left to aiohttp to write, though what counts it is no longer held then."""

Call = Callable[["Flight | None"], Coroutine[Any, Any, web.StreamResponse]]
"""Asks a provider. With a flight, a stream goes there, and what this returns is nobody's reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passenger:
    """One request that may share an answer."""

    exchange: Exchange
    parsed: ParsedRequest
    wire: Format
    timeouts: Timeouts
    """Of the provider that it would ask alone."""

    @property
    def first_seconds(self) -> float:
        """How long it would wait, alone, before it gave up the first attempt."""
        return self.timeouts.first_token if self.parsed.stream else self.timeouts.response

    @property
    def kind(self) -> Hashable:
        """Equal for those that take about as long."""
        return self.parsed.model, self.parsed.call.type, self.parsed.stream


class UsualTimes:
    """How long flights took until there was an answer, or the first of a stream: the last few of each kind.

    A call is overdue when it takes more than twice as long as nearly all (95 %) of those did.
    """

    def __init__(self) -> None:
        self._seconds: dict[Hashable, deque[float]] = {}

    def note(self, kind: Hashable, seconds: float) -> None:
        """One was answered."""
        known = self._seconds.get(kind)
        if known is None:
            if len(self._seconds) >= KNOWN_KINDS:  # of configurations that are long gone
                self._seconds.clear()
            known = self._seconds[kind] = deque(maxlen=KNOWN_TIMES)
        known.append(seconds)

    def patience_seconds(self, kind: Hashable) -> float:
        """How long one may take before it is overdue."""
        known = self._seconds.get(kind)
        if not known:
            return UNKNOWN_PATIENCE_SECONDS
        slowest = sorted(known)[math.ceil(0.95 * (len(known) - 1))]
        return max(LEAST_PATIENCE_SECONDS, 2 * slowest)


class FlightWriter:
    """Where the leader's stream goes: to all who listen."""

    def __init__(self, flight: Flight, status: int, headers: list[tuple[str, str]], record: RequestRecord) -> None:
        self._flight = flight
        self._status = status
        self._headers = headers
        flight.told = record

    async def begin(self, first: bytes) -> None:
        """Tell the head and the first bytes."""
        self._flight.begin(self._status, self._headers)
        await self._flight.push(first)

    async def write(self, piece: bytes) -> None:
        """Tell bytes."""
        await self._flight.push(piece)

    def end(self, last: bytes, *, is_complete: bool) -> web.StreamResponse:
        """Tell the end. The reply is none that could be sent."""
        self._flight.end(last, is_complete=is_complete)
        return web.StreamResponse(status=self._status)


class Flying:
    """Answers requests that may share an answer."""

    def __init__(self) -> None:
        self._flights = Flights()
        self._times = UsualTimes()

    async def answer(self, passenger: Passenger, key: Hashable, call: Call) -> web.StreamResponse:
        """Lead, follow, or ask alone. Raises whatever `call` raises.

        Nobody follows a call that is overdue (`UsualTimes`): a single request may hang where its like do not. One of
        those who gave it up asks anew, and the others follow that one, for as long as they would have waited alone.
        So a call that hangs costs the others its patience, and the provider one more call. Each that replaces another
        has twice its patience: where all have become slow, few calls are made in vain.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + passenger.first_seconds
        has_given_up = False
        patience_seconds = self._times.patience_seconds(passenger.kind)
        for _ in range(MOST_FLIGHTS):
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights.open(key, passenger.exchange.held.beside())
                flight.began, flight.patience_seconds = clock(), patience_seconds
                return await _lead(passenger, flight, call, self._times)
            overdue = math.inf if has_given_up else flight.began + flight.patience_seconds
            try:
                return await _follow(passenger, flight, deadline, overdue=overdue)
            except Overdue:
                has_given_up = True
                patience_seconds = max(patience_seconds, 2 * flight.patience_seconds)
                self._flights.remove(key, flight)
            except Released as released:
                if not released.at_fault:
                    break
        return await call(None)


async def _lead(passenger: Passenger, flight: Flight, call: Call, times: UsualTimes) -> web.StreamResponse:
    """Ask for all. The call has a task of its own: it goes on when this application hangs up and others listen."""
    listener = flight.listen(leads=True)
    task = asyncio.get_running_loop().create_task(call(flight))
    flight.carried_by(task)
    try:
        shared: web.StreamResponse | None = None
        # Where there is no stream to share, the task returns or raises what there is.
        with suppress(Released, FellOff):
            await flight.wait_for_head(listener)
            times.note(passenger.kind, asyncio.get_running_loop().time() - flight.began)
            if flight.body is None:
                first = await listener.read()
                shared = await _pass_on(passenger, listener, first)
        await flight.settled()
        if shared is None:
            return task.result()
        if not task.cancelled() and (defect := task.exception()) is not None:
            # Its answer has been sent, such as it is: there is nobody left to tell.
            logger.error("request %s failed by a defect", passenger.exchange.record.request_id, exc_info=defect)
        return shared
    except asyncio.CancelledError:
        listener.leave()
        await _outlast(task)
        raise
    finally:
        listener.leave()


async def _outlast(task: asyncio.Task[web.StreamResponse]) -> None:
    """Wait until nobody needs the call any more: it is this request's, with its record and what it holds.

    When the process ends, those who listen are cancelled as well, and with the last of them the task is.
    """
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue
    if not task.cancelled():
        task.exception()


async def _follow(passenger: Passenger, flight: Flight, deadline: float, *, overdue: float) -> web.StreamResponse:
    """Wait for another's answer, no longer than this request would have waited alone. Raises `Released`, `Overdue`."""
    record = passenger.exchange.record
    listener = flight.listen()
    try:
        try:
            async with asyncio.timeout_at(min(deadline, overdue)):
                await flight.wait_for_head(listener)
                first = await listener.read() if flight.body is None else flight.body
        except TimeoutError:
            raise Overdue if overdue < deadline else Released(at_fault=False) from None
        _board(record, flight.told)
        reply: web.StreamResponse
        if flight.body is None:
            record.first_content = time.perf_counter()
            reply = await _pass_on(passenger, listener, first)
        else:
            reply = await _whole(passenger, flight, first)
        await flight.settled()
        _land(record, flight.told)
        return reply
    finally:
        listener.leave()


async def _whole(passenger: Passenger, flight: Flight, body: bytes) -> web.Response:
    exchange = passenger.exchange
    exchange.record.status = flight.status
    headers = answer_headers(to_application(flight.headers), exchange.record)
    reply = web.Response(status=flight.status, body=body, headers=headers)
    if len(body) > SMALL_BYTES:
        await send_whole(exchange.request, reply, body, exchange.record)
    return reply


async def _pass_on(passenger: Passenger, listener: Listener, piece: bytes) -> web.StreamResponse:
    """Write a stream to this application, at its own pace. `piece`: what was read first."""
    exchange, flight = passenger.exchange, listener.flight
    record = exchange.record
    writer = ClientWriter(exchange.request, flight.status, flight.headers, record, head_waits_for_body=True)
    clock = asyncio.get_running_loop().time
    # The provider's own silence is measured where it is read; what is left to bound is an application's that reads not.
    idle_seconds = passenger.timeouts.idle + TAIL_SECONDS
    armed = clock()
    last = b""
    try:
        async with asyncio.timeout_at(armed + idle_seconds) as timer:
            await writer.begin(b"" if listener.has_read_all else piece)
            while piece and not listener.has_read_all:
                listener.sent()
                piece = await listener.read()
                if piece and not listener.has_read_all:
                    await writer.write(piece)
                now = clock()
                if now - armed > TIMER_SECONDS:
                    armed = now
                    timer.reschedule(now + idle_seconds)
            last = piece
            listener.sent()
    except (FellOff, TimeoutError):
        record.interrupted = True
        last = passenger.wire.stream_error(
            passenger.parsed, ERROR_STATUS, ERROR_CODE, "the application read too slowly, or its stream broke off"
        )
        return await writer.end(last, seconds=TAIL_SECONDS)
    return await writer.end(last, seconds=idle_seconds)


def _board(record: RequestRecord, leader: RequestRecord) -> None:
    """What is known of an answer when it begins."""
    record.cache = "coalesced"
    record.cache_key = leader.cache_key
    record.provider, record.model, record.answered_by = leader.provider, leader.model, leader.answered_by
    record.downgraded_from, record.dropped = leader.downgraded_from, list(leader.dropped)


def _land(record: RequestRecord, leader: RequestRecord) -> None:
    """What is known of it in the end: the leader paid, this one spared as much."""
    record.usage = leader.usage
    record.interrupted = record.interrupted or leader.interrupted
    if leader.usage is not None:
        record.savings += (Saving("single_flight", leader.usage.total_tokens, leader.cost_nano_usd or 0),)
