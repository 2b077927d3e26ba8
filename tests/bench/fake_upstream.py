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
from tests.bench.payloads import ANSWER, DELAYED_MODEL, EVENTS, FIRST_EVENT_DELAY_SECONDS, Kind

_ANSWER_MESSAGE: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
) + ANSWER
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
_WRITES: Final = {
    Kind.STREAM: _chunked(EVENTS, together=4),
    Kind.DELAYED: _chunked(EVENTS, together=1),
}
_DELAYED_MARK: Final = b'"%s"' % DELAYED_MODEL.encode()


class UpstreamProtocol(asyncio.Protocol):
    """One connection; pipelined requests are answered in their order."""

    def __init__(self) -> None:
        self._parser = MessageParser(length_required=False)
        self._waiting: deque[Kind] = deque()
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
                self._waiting.append(_kind_of(parser.body))
                parser.next_message()
        except MalformedMessage:
            self._transport.abort()
            return
        self._answer_waiting()

    def _answer_waiting(self) -> None:
        while self._waiting and not self._streaming:
            kind = self._waiting.popleft()
            if kind is Kind.PLAIN:
                self._transport.write(_ANSWER_MESSAGE)
                continue
            self._streaming = True
            self._transport.write(_STREAM_HEAD)
            loop = asyncio.get_running_loop()
            if kind is Kind.DELAYED:
                loop.call_later(FIRST_EVENT_DELAY_SECONDS, self._write_next, iter(_WRITES[kind]))
            else:
                loop.call_soon(self._write_next, iter(_WRITES[kind]))

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


def _kind_of(body: bytes) -> Kind:
    if b'"stream":true' not in body:
        return Kind.PLAIN
    return Kind.DELAYED if _DELAYED_MARK in body else Kind.STREAM


async def serve(port: int) -> None:
    """Answer on a loopback port until the process ends."""
    server = await asyncio.get_running_loop().create_server(UpstreamProtocol, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
