"""A provider that answers from recordings, byte for byte, in the pieces and framings that hurt most.

It speaks HTTP/1.1 by hand: a library would choose the framing, tidy the headers and write whole pieces.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from tests.integration.recorded_exchanges import Exchange

RECORDING_HEADER: Final = "x-recording-id"
BYTEWISE_BYTES: Final = 1_500
"""Answers up to this size may come in pieces of one byte each."""
HEAD_LIMIT_BYTES: Final = 262_144
FRAMINGS: Final = ("content-length", "chunked", "until-close")
ADDED_HEADERS: Final = (
    ("x-request-id", "req_of_the_provider"),
    ("Set-Cookie", "session=everybodys; Path=/"),
    ("Alt-Svc", 'h3=":443"'),
    ("Keep-Alive", "timeout=5"),
)
"""Sent with every answer: the first must arrive at the application, the others must not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request as it reached the provider."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for each, value in self.headers if each.lower() == name.lower()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The running server."""

    base_url: str
    received: dict[str, list[Received]]
    """By recording: more than one where the sidecar tried again."""


@asynccontextmanager
async def replaying(exchanges: Iterable[Exchange]) -> AsyncIterator[Replay]:
    """Serve the recordings on loopback; each request names its own in `RECORDING_HEADER`."""
    by_id = {exchange.id: exchange for exchange in exchanges}
    received: dict[str, list[Received]] = {}
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            connections.add(task)
            task.add_done_callback(connections.discard)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await _serve(reader, writer, by_id, received)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=HEAD_LIMIT_BYTES)
    try:
        yield Replay(base_url="http://{}:{}".format(*server.sockets[0].getsockname()[:2]), received=received)
    finally:
        server.close()
        for connection in list(connections):
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    by_id: Mapping[str, Exchange],
    received: dict[str, list[Received]],
) -> None:
    """One connection: request after request, until the framing of an answer ends it."""
    framing = ""
    while framing != "until-close":
        request = await _read_request(reader)
        (recording_id,) = request.values(RECORDING_HEADER)
        received.setdefault(recording_id, []).append(request)
        exchange = by_id[recording_id]
        dice = random.Random(exchange.id)
        framing = dice.choice(FRAMINGS)
        for piece in _answer(exchange, framing, dice):
            writer.write(piece)
            await writer.drain()
            # Lets the other side run, so that the pieces are not gathered into one read.
            await asyncio.sleep(0)


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _version = request_line.split(" ")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    lower = {name.lower(): value for name, value in headers}
    if lower.get("transfer-encoding") == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(lower.get("content-length", "0")))
    return Received(method=method, target=target, headers=headers, body=body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(chunks)


def _answer(exchange: Exchange, framing: str, dice: random.Random) -> Iterable[bytes]:
    head = [f"HTTP/1.1 {exchange.status} As recorded"]
    head += [f"{name}: {value}" for name, value in (*exchange.response_headers.items(), *ADDED_HEADERS)]
    head.append(
        {
            "content-length": f"Content-Length: {len(exchange.response)}",
            "chunked": "Transfer-Encoding: chunked",
            "until-close": "Connection: close",
        }[framing]
    )
    yield from _cut("\r\n".join([*head, "", ""]).encode("latin-1"), dice)
    for piece in _cut(exchange.response, dice):
        yield b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece
    if framing == "chunked":
        yield b"0\r\n\r\n"


def _cut(data: bytes, dice: random.Random) -> Iterable[bytes]:
    """`data` whole, in random pieces, cut at the worst places, or byte by byte."""
    way = dice.choice(("whole", "random", "worst", "bytewise"))
    if way == "bytewise" and len(data) <= BYTEWISE_BYTES:
        cuts = set(range(1, len(data)))
    elif way == "whole" or len(data) < 2:
        cuts = set()
    else:
        worst = [place for place in range(1, len(data)) if _is_inside(data[place - 1], data[place])]
        places = worst if way == "worst" and worst else range(1, len(data))
        cuts = set(dice.sample(places, min(len(places), dice.randint(1, 60))))
    ends = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ends) if end > start]


def _is_inside(before: int, after: int) -> bool:
    """Between the bytes of one character, within CRLF or an empty line, or behind a backslash."""
    return 0x80 <= after <= 0xBF or after == 0x0A or before in (0x0A, 0x5C)
