"""Reading an application's body: whole, bounded in size, in time, and together with all others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp.http_exceptions import HttpProcessingError

from llm_sidecar.budget import MAX_BODY_BYTES, Held
from llm_sidecar.errors import BodyTooLarge, BodyTooSlow, MalformedBody, UnsupportedEncoding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

IDLE_SECONDS: Final = 60
"""Between two pieces of a body. The sender is on this machine."""


class ApplicationGone(ConnectionError):
    """The application hung up before its request was there. Nobody is left to be answered."""


async def read_body(request: web.BaseRequest, held: Held, *, idle_seconds: float = IDLE_SECONDS) -> bytes:
    """The whole body. Raises a `RequestRefused`."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedEncoding(f"the body is compressed ({encoding[:32]}): send it without Content-Encoding")
    declared_bytes = request.content_length
    if declared_bytes is not None:
        _check_size(declared_bytes)
        held.take(declared_bytes)
    _continue(request)
    pieces: list[bytes] = []
    size_bytes = 0
    content = request.content
    while not content.at_eof():
        if content.total_bytes == size_bytes:  # nothing has come yet: only then is a timer worth its price
            piece = await _wait(request, idle_seconds)
        else:
            piece = await _read(request)
        size_bytes += len(piece)
        if declared_bytes is None:
            _check_size(size_bytes)
            held.take(len(piece))
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BODY_BYTES:
        raise BodyTooLarge(f"the body is larger than maxBodyBytes ({MAX_BODY_BYTES} bytes): send less in one request")


async def _wait(request: web.BaseRequest, idle_seconds: float) -> bytes:
    try:
        async with asyncio.timeout(idle_seconds):
            return await _read(request)
    except TimeoutError:
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
