"""An upstream that is not the bottleneck: prebuilt bytes on a bare protocol, in a process of its own.

It validates nothing. A stream is written in pieces, each in a loop turn of its own, so that no proxy can profit
from an upstream that sends a whole stream at once.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from typing import Final, cast

import uvloop

from tests.bench.http_messages import MalformedMessage, MessageParser
from tests.bench.pairs import ANSWERS, STREAMS, Language, asked_in
from tests.bench.payloads import DELAYED_MODEL, EVENTS, FIRST_EVENT_DELAY_SECONDS, Kind

REFUSING_PATH: Final = "/refuses"
"""Before the API's own path: this provider has no room for anybody, and does not say until when."""


def _whole(body: bytes, *, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


_ANSWER_MESSAGES: Final = {language: _whole(answer) for language, answer in ANSWERS.items()}
_REFUSAL: Final = _whole(
    b'{"error":{"message":"no room","type":"requests","param":null,"code":"rate_limit_exceeded"}}',
    status=b"429 Too Many Requests",
)
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _chunked(events: tuple[bytes, ...], *, together: int) -> tuple[bytes, ...]:
    """The stream as writes of some events each; the end of the body goes with the last, as servers send it."""
    groups = (b"".join(events[first : first + together]) for first in range(0, len(events), together))
    *writes, last = (b"%x\r\n%s\r\n" % (len(group), group) for group in groups)
    return (*writes, last + b"0\r\n\r\n")


# Under full load four events share a write: with one each, the upstream's system calls would set everybody's pace.
_WRITES: Final = {(language, Kind.STREAM): _chunked(events, together=4) for language, events in STREAMS.items()}
_WRITES[Language.CHAT, Kind.DELAYED] = _chunked(EVENTS, together=1)
_DELAYED_MARK: Final = b'"%s"' % DELAYED_MODEL.encode()
_REFUSED: Final = f"post {REFUSING_PATH}/".encode()


class UpstreamProtocol(asyncio.Protocol):
    """One connection; pipelined requests are answered in their order."""

    def __init__(self) -> None:
        self._parser = MessageParser(length_required=False)
        self._waiting: deque[tuple[Language, Kind] | None] = deque()
        self._streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take the requests in it and answer the first that waits."""
        parser = self._parser
        try:
            parser.feed(data)
            while parser.complete:
                self._waiting.append(_asked(parser))
                parser.next_message()
        except MalformedMessage:
            self._transport.abort()
            return
        self._answer_waiting()

    def _answer_waiting(self) -> None:
        while self._waiting and not self._streaming:
            asked = self._waiting.popleft()
            if asked is None:
                self._transport.write(_REFUSAL)
                continue
            language, kind = asked
            if kind is Kind.PLAIN:
                self._transport.write(_ANSWER_MESSAGES[language])
                continue
            self._streaming = True
            self._transport.write(_STREAM_HEAD)
            loop = asyncio.get_running_loop()
            if kind is Kind.DELAYED:
                loop.call_later(FIRST_EVENT_DELAY_SECONDS, self._write_next, iter(_WRITES[asked]))
            else:
                loop.call_soon(self._write_next, iter(_WRITES[asked]))

    def _write_next(self, writes: Iterator[bytes]) -> None:
        if self._transport.is_closing():
            return
        data = next(writes, None)
        if data is not None:
            self._transport.write(data)
            asyncio.get_running_loop().call_soon(self._write_next, writes)
            return
        self._streaming = False
        self._answer_waiting()


def _asked(parser: MessageParser) -> tuple[Language, Kind] | None:
    """Language and kind; None for a request that is refused."""
    head, body = parser.head, parser.body
    if head.startswith(_REFUSED):
        return None
    language, kind = asked_in(head, body)
    return language, Kind.DELAYED if kind is Kind.STREAM and _DELAYED_MARK in body else kind


async def serve(port: int) -> None:
    """Answer on a loopback port until the process ends."""
    server = await asyncio.get_running_loop().create_server(UpstreamProtocol, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
