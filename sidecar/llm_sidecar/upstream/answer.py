"""One answer: parsed as its bytes come, kept until it is read. Pure, but for the future of the one who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from llm_sidecar.upstream import failures
from llm_sidecar.upstream.content_encoding import Decoder, Undecodable, decoder_for

if TYPE_CHECKING:
    from llm_sidecar.providers.base import Headers, TransportError

FIELD_BYTES: Final = 32 * 1024
"""Providers send a handful of headers; one longer than this is not an API's answer."""
HEADERS: Final = 256
OVERHEAD_BYTES: Final = 256 * 1024
"""How much may come that is no body: heads, interim answers, trailers, chunk extensions."""

_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "content-encoding"})


def _text(raw: bytes) -> str:
    """A header as text. aiohttp's server writes headers as UTF-8: what came as UTF-8 goes on as the same bytes."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


class _BadAnswer(Exception):
    """Leaves the parser from inside one of its callbacks."""


class Answer:
    """Parses one answer (see `ProviderResponse`). `feed` and `end` are called by the connection."""

    __slots__ = (
        "_decoder",
        "_error",
        "_on_close",
        "_on_read",
        "_overhead_bytes",
        "_parser",
        "_pieces",
        "_useful",
        "_waiter",
        "complete",
        "expects_body",
        "has_begun",
        "has_head",
        "headers",
        "is_spoiled",
        "keeps_alive",
        "status",
        "unread_bytes",
        "until_close",
    )

    def __init__(self, *, expects_body: bool, on_read: Callable[[], None], on_close: Callable[[Answer], None]) -> None:
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._decoder: Decoder | None = None
        self._error: TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._on_read = on_read
        self._on_close: Callable[[Answer], None] | None = on_close
        self._overhead_bytes = 0
        self._useful = False
        self.expects_body = expects_body
        """False for HEAD, whose answer tells the length of a body that does not come."""
        self.status = 0
        self.headers: Headers = []
        self.has_begun = False
        """A byte of it has come: from here on the server has seen the request."""
        self.has_head = False
        self.complete = False
        self.keeps_alive = False
        self.is_spoiled = False
        """Something came behind it that nobody asked for."""
        self.until_close = False
        self.unread_bytes = 0

    # --- for the caller

    def header(self, name: str) -> str | None:
        """One header's value."""
        for given, value in self.headers:
            if given.lower() == name:
                return value
        return None

    async def wait_for_head(self) -> None:
        """Return once status and headers are there. Raises `TransportError`."""
        while not self.has_head:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def read_some(self) -> bytes:
        """What has arrived, in whole reads; empty at the end."""
        if self._decoder is not None:
            return await self._read_decoded(self._decoder)
        return await self._read_as_sent()

    def close(self) -> None:
        """Keep the connection if the answer was read whole, cut it otherwise. May be called twice."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close(self)
            self._parser = None

    @property
    def exhausted(self) -> bool:
        """True once all of it was read; what a decoder still holds is not known."""
        return self.complete and not self._pieces and self._decoder is None

    @property
    def failed(self) -> bool:
        """True once it cannot be completed any more."""
        return self._error is not None

    async def _read_as_sent(self) -> bytes:
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.complete:
                return b""
            await self._wait()
        pieces, self._pieces = self._pieces, []
        self.unread_bytes = 0
        self._on_read()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _read_decoded(self, decoder: Decoder) -> bytes:
        try:
            while True:
                if plain := decoder.read():
                    return plain
                data = await self._read_as_sent()
                if not data:
                    decoder.finish()
                    return b""
                decoder.feed(data)
        except Undecodable:
            self.is_spoiled = True
            raise failures.garbled() from None

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- for the connection

    def feed(self, data: bytes) -> None:
        """Take bytes. Look at `complete` and `failed` afterwards."""
        parser = self._parser
        if parser is None:
            return
        self.has_begun = True
        self._useful = False
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            # What follows a complete answer spoils the connection, not the answer.
            self.is_spoiled = True
            self._fail(failures.garbled())
        else:
            self._count(len(data))
        if self.complete:
            self._parser = None  # it refers to us
        self._wake()

    def end(self, error: TransportError, *, is_clean: bool = False) -> None:
        """The connection is gone. That is how some answers end; for any other it is this error."""
        if is_clean and self.until_close and not self.failed:
            self.complete = True
        self._fail(error)
        self._wake()

    def _fail(self, error: TransportError) -> None:
        if not self.complete and self._error is None:
            self._error = error

    def _count(self, data_bytes: int) -> None:
        if self._useful:
            self._overhead_bytes = 0
            self.unread_bytes += data_bytes
        elif not self.complete:
            self._overhead_bytes += data_bytes
            if self._overhead_bytes > OVERHEAD_BYTES:
                self._fail(failures.garbled())

    # --- for the parser

    def on_message_begin(self) -> None:
        """A message begins; behind a complete one nothing may."""
        if self.complete:
            raise _BadAnswer

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are left out."""
        headers = self.headers
        if len(name) + len(value) > FIELD_BYTES or len(headers) >= HEADERS:
            raise _BadAnswer
        if not self.has_head:
            try:
                headers.append((name.decode(), value.decode()))
            except UnicodeDecodeError:
                headers.append((_text(name), _text(value)))

    def on_headers_complete(self) -> None:
        """Status and headers are there: decide how the body ends."""
        parser = self._parser
        if parser is None or self.has_head:
            raise _BadAnswer
        status = parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                raise _BadAnswer
            self.headers = []
            return
        self.status = status
        self._read_framing()
        self.has_head = True
        if not self.expects_body:
            self._completed(parser)

    def _read_framing(self) -> None:
        found: dict[str, str] = {}
        for name, value in self.headers:
            lower = name.lower()
            if lower in _FRAMING:
                if lower in found:
                    raise _BadAnswer
                found[lower] = value
        coding = found.get("transfer-encoding")
        if coding is not None and (coding.strip().lower() != "chunked" or "content-length" in found):
            raise _BadAnswer
        has_body = self.expects_body and self.status not in {204, 304}
        self.until_close = has_body and coding is None and "content-length" not in found
        if has_body and "content-encoding" in found:
            try:
                self._decoder = decoder_for(found["content-encoding"])
            except Undecodable:
                raise _BadAnswer from None

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        if self.complete:
            raise _BadAnswer
        self._useful = True
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The body is there whole. Also called for interim answers."""
        if self.has_head and not self.complete and self._parser is not None:
            self._completed(self._parser)

    def _completed(self, parser: HttpResponseParser) -> None:
        self.complete = True
        self.keeps_alive = parser.should_keep_alive()
