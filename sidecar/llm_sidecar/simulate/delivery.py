"""Put answers on the wire, and break them there as the faults ask: the only file that writes to a client."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from llm_sidecar.simulate.answer import Frame, Usage, count_tokens
from llm_sidecar.simulate.errors import Family, mid_stream_error
from llm_sidecar.simulate.ledger import Entry, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_sidecar.simulate.faults import Faults

JSON_TYPE: Final = "application/json"
_BREAKS: Final = ("cut_after", "end_after", "stall_after", "error_after", "malformed_after")
_GARBAGE: Final = {
    "html": ("text/html; charset=utf-8", b"<html><body><h1>It works!</h1></body></html>"),
    "json": (JSON_TYPE, b'{"id": "broken", "choices": [{"message": {"content": "never en'),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request under way."""

    request: web.Request
    headers: dict[str, str]
    faults: Faults
    entry: Entry
    closing: asyncio.Event
    """Set when the simulator stops: no stalled answer may hold it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainReply:
    """An answer that is one body."""

    body: bytes
    content_type: str = JSON_TYPE
    usage_true: Usage | None = None
    usage_told: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReply:
    """An answer that is a sequence of events."""

    frames: Iterable[Frame]
    usage: Usage
    family: Family
    is_responses: bool = False
    is_array: bool = False
    """Gemini without `alt=sse`: one JSON array, an element at a time."""


async def send_plain(exchange: Exchange, reply: PlainReply) -> web.StreamResponse:
    """Send one body, or the first half of it."""
    exchange.entry.status = 200
    exchange.entry.usage_true = reply.usage_true
    faults, headers = exchange.faults, {**exchange.headers, "content-type": reply.content_type}
    if faults.end_after is not None or faults.malformed_after is not None:
        exchange.entry.outcome = Outcome.BROKEN_ON_PURPOSE
        return web.Response(body=reply.body[: len(reply.body) // 2], headers=headers)
    if faults.cut_after is not None or faults.stall_after is not None:
        return await _send_half(exchange, reply, headers)
    exchange.entry.usage_told = reply.usage_told
    exchange.entry.outcome = Outcome.FINISHED
    return web.Response(body=reply.body, headers=headers)


async def send_garbage(exchange: Exchange) -> web.StreamResponse:
    """Send a 200 that is no answer."""
    content_type, body = _GARBAGE[exchange.faults.garbage or "html"]
    exchange.entry.status, exchange.entry.outcome = 200, Outcome.BROKEN_ON_PURPOSE
    return web.Response(body=body, headers={**exchange.headers, "content-type": content_type})


async def send_stream(exchange: Exchange, reply: StreamReply) -> web.StreamResponse:
    """Send the events one by one, with the delays and breaks that the faults ask for."""
    exchange.entry.status = 200
    content_type = "application/json; charset=UTF-8" if reply.is_array else "text/event-stream; charset=utf-8"
    response = web.StreamResponse(headers={**exchange.headers, "content-type": content_type})
    await response.prepare(exchange.request)
    try:
        await _Stream(exchange, reply, response).run()
    except ConnectionResetError:  # nothing to complain about: a client may have enough
        exchange.entry.outcome = Outcome.CLIENT_GONE
    return response


class _Stream:
    """What one stream must remember between its events."""

    def __init__(self, exchange: Exchange, reply: StreamReply, response: web.StreamResponse) -> None:
        self._exchange = exchange
        self._reply = reply
        self._response = response
        self._breaks = {name: after for name in _BREAKS if (after := getattr(exchange.faults, name)) is not None}
        self._written = 0
        self._pieces = 0
        self._characters = 0

    async def run(self) -> None:
        entry = self._exchange.entry
        try:
            entry.outcome = await self._write_all()
        finally:
            entry.usage_true = self._reply.usage if entry.outcome is Outcome.FINISHED else self._partial_usage()

    async def _write_all(self) -> Outcome:
        outcome = Outcome.FINISHED
        for frame in self._reply.frames:
            for name in [name for name, after in self._breaks.items() if self._is_due(after, frame)]:
                del self._breaks[name]
                outcome = Outcome.BROKEN_ON_PURPOSE
                if not await self._break(name, frame):
                    return outcome
            if frame.piece is not None:
                await self._pause()
            await self._response.write(self._encode(orjson.dumps(frame.data) if isinstance(frame.data, dict)
                                                    else frame.data.encode(), frame.event))  # fmt: skip
            self._account(frame)
        if self._reply.is_array:
            await self._response.write(b"]\n")
        await self._response.write_eof()
        return outcome

    def _is_due(self, after: int, frame: Frame) -> bool:
        # Zero means "before any content", not "before the opening events". A shorter answer breaks at its end.
        return frame.terminal or (self._pieces >= after and (self._pieces > 0 or frame.piece is not None))

    async def _break(self, name: str, frame: Frame) -> bool:
        """Carry one break out and tell whether the stream goes on after it."""
        match name:
            case "cut_after":
                _hang_up(self._exchange.request)
            case "stall_after":
                await self._exchange.closing.wait()
            case "error_after":
                event, data = mid_stream_error(
                    self._reply.family, is_responses=self._reply.is_responses, sequence_number=self._written
                )
                end = b"]\n" if self._reply.is_array else b""
                await self._response.write(self._encode(orjson.dumps(data), event) + end)
                await self._response.write_eof()
            case "end_after":
                await self._response.write_eof()
            case _:
                await self._response.write(self._encode(b'{"broken": ', frame.event))
                return True
        return False

    async def _pause(self) -> None:
        faults = self._exchange.faults
        milliseconds = faults.chunk_interval_ms if self._pieces else faults.first_token_ms
        if milliseconds:
            await asyncio.sleep(milliseconds / 1000)

    def _encode(self, data: bytes, event: str | None) -> bytes:
        self._written += 1
        if self._reply.is_array:
            return (b"[" if self._written == 1 else b",\r\n") + data
        name = b"event: " + event.encode() + b"\n" if event else b""
        return name + b"data: " + data + b"\n\n"

    def _account(self, frame: Frame) -> None:
        if frame.piece is not None:
            self._pieces += 1
            self._characters += 0 if frame.is_thought else len(frame.piece)
        if frame.tells is not None:
            self._exchange.entry.usage_told = frame.tells

    def _partial_usage(self) -> Usage:
        full = self._reply.usage
        output = min(full.output_tokens, full.thinking_tokens + count_tokens(self._characters))
        return replace(full, output_tokens=output)


async def _send_half(exchange: Exchange, reply: PlainReply, headers: dict[str, str]) -> web.StreamResponse:
    exchange.entry.outcome = Outcome.BROKEN_ON_PURPOSE
    response = web.StreamResponse(headers={**headers, "content-length": str(len(reply.body))})
    await response.prepare(exchange.request)
    await response.write(reply.body[: len(reply.body) // 2])
    if exchange.faults.cut_after is None:
        await exchange.closing.wait()
    _hang_up(exchange.request)
    return response


def _hang_up(request: web.Request) -> None:
    # `close` first flushes what was written, where `abort` would lose events that the client was to see.
    if request.transport is not None:
        request.transport.close()
