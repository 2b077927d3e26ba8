"""Reading an application's body: whole, bounded in size, in time, and together with all others."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

from aiohttp.http_exceptions import HttpProcessingError

from llm_sidecar.budget import MAX_BODY_BYTES, Held
from llm_sidecar.errors import BodyTooLarge, BodyTooSlow, MalformedBody, UnsupportedEncoding
from llm_sidecar.formats.parsed_size import estimated_parsed_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

IDLE_SECONDS: Final = 60
"""Between two pieces of a body. The sender is on this machine."""
TOTAL_SECONDS: Final = 300
"""From the first wait for a body to its end: a byte a minute must not hold memory for hours."""
SMALL_BODY_BYTES: Final = 8 * 1024
"""Parsed, such a body takes 320 kB at the very most: not worth the count."""


class ApplicationGone(ConnectionError):
    """The application hung up before its request was there. Nobody is left to be answered."""


async def read_body(request: web.BaseRequest, held: Held, *, idle_seconds: float = IDLE_SECONDS) -> bytes:
    """The whole body. Raises a `RequestRefused`.

    What is held grows as bytes arrive: a promise (`Content-Length`) takes no room from others.
    """
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedEncoding(f"the body is compressed ({encoding[:32]}): send it without Content-Encoding")
    declared_bytes = request.content_length
    if declared_bytes is not None:
        _check_size(declared_bytes)
    content = request.content
    if content.is_eof() and content.exception() is None:  # as nearly always: it came together with its head
        _check_size(content.total_bytes)
        held.take(content.total_bytes)
        return content.read_nowait()
    _continue(request)
    pieces: list[bytes] = []
    size_bytes = 0
    deadline: float | None = None
    while not content.at_eof():
        if content.total_bytes == size_bytes:  # nothing has come yet: only then is a timer worth its price
            now = asyncio.get_running_loop().time()
            deadline = now + TOTAL_SECONDS if deadline is None else deadline
            piece = await _wait(request, idle_seconds, left_seconds=deadline - now)
        else:
            piece = await _read(request)
        size_bytes += len(piece)
        if declared_bytes is None:
            _check_size(size_bytes)
        held.take(len(piece))
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def hold_parsed(held: Held, body: bytes) -> None:
    """Hold what a body will take once it is parsed. Call it before that. Raises `BodyTooLarge`, `Overloaded`.

    A body and what is parsed from it count as the larger of the two: of text there is about as much in both.
    """
    if len(body) <= SMALL_BODY_BYTES:
        return
    parsed_bytes = estimated_parsed_bytes(body, enough_bytes=held.limit_bytes)
    if parsed_bytes > held.limit_bytes:
        raise BodyTooLarge(
            f"the body has {len(body)} bytes, but so many values that it would take more than maxBufferedBytes "
            f"({held.limit_bytes} bytes) of memory once parsed: send fewer in one request"
        )
    held.take(max(0, parsed_bytes - len(body)))


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BODY_BYTES:
        raise BodyTooLarge(f"the body is larger than maxBodyBytes ({MAX_BODY_BYTES} bytes): send less in one request")


async def _wait(request: web.BaseRequest, idle_seconds: float, *, left_seconds: float = math.inf) -> bytes:
    try:
        async with asyncio.timeout(min(idle_seconds, left_seconds)):
            return await _read(request)
    except TimeoutError:
        if left_seconds < idle_seconds:
            raise BodyTooSlow(f"the body was not complete within {TOTAL_SECONDS:g} seconds") from None
        raise BodyTooSlow(f"nothing more of the body came within {idle_seconds:g} seconds") from None


async def _read(request: web.BaseRequest) -> bytes:
    try:
        return await request.content.readany()
    except ConnectionError as error:
        raise ApplicationGone from error
    except (ValueError, HttpProcessingError):  # aiohttp's parser: chunks that are none
        raise MalformedBody("the body's transfer encoding is malformed") from None


def _continue(request: web.BaseRequest) -> None:
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def pieces_of(request: web.BaseRequest, *, idle_seconds: float = IDLE_SECONDS) -> AsyncIterator[bytes]:
    """The body while it arrives, for what is passed on without being read."""
    _continue(request)
    while not request.content.at_eof():
        yield await _wait(request, idle_seconds)
