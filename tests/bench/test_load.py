"""The load generator against the fake upstream, and against servers whose answers are wrong."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.bench.fake_upstream import UpstreamProtocol
from tests.bench.http_messages import MessageParser
from tests.bench.load import LoadSettings, run
from tests.bench.payloads import ANSWER, ANSWER_SIZE, EVENTS, STREAM, STREAM_EVENTS, Kind, request_parts


@asynccontextmanager
async def serving(protocol: Callable[[], asyncio.Protocol]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class FixedAnswer(asyncio.Protocol):
    """Answers whatever comes with the same bytes, then closes if told to."""

    def __init__(self, answer: bytes, *, close: bool = False) -> None:
        self._answer = answer
        self._close = close

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)
        if self._close:
            self._transport.close()


def settings(port: int, kind: Kind = Kind.PLAIN, *, expected_headers: tuple[str, ...] = ()) -> LoadSettings:
    return LoadSettings(
        port=port,
        kind=kind,
        concurrency=3,
        requests=9,
        expected_headers=expected_headers,
        watch={"target": os.getpid()},
    )


def plain(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def test_the_payloads_have_the_sizes_that_the_figures_are_told_for() -> None:
    assert (len(ANSWER), len(EVENTS)) == (ANSWER_SIZE, STREAM_EVENTS)
    assert json.loads(ANSWER)["usage"]["total_tokens"] == 67
    assert json.loads(EVENTS[-2].removeprefix(b"data: "))["usage"]["total_tokens"] == 67
    assert STREAM.endswith(b"data: [DONE]\n\n")


def test_a_request_is_valid_json_about_a_hundred_bytes_long() -> None:
    before, after = request_parts(Kind.PLAIN, port=1)
    body = (before + b"0" * 16 + after).partition(b"\r\n\r\n")[2]

    assert json.loads(body)["messages"][0]["content"] == "Hello " + "0" * 16
    assert 80 <= len(body) <= 120


@pytest.mark.parametrize("kind", list(Kind))
async def test_every_right_answer_is_counted(kind: Kind) -> None:
    async with serving(UpstreamProtocol) as port:
        result = await run(settings(port, kind))

    assert (result.errors, result.requests) == ({}, 9)
    assert 0 < result.first_byte_p50_ms <= result.p50_ms <= result.p99_ms
    assert result.resident_max_bytes["target"] > 0


async def test_a_timed_run_counts_what_came_within_its_window() -> None:
    async with serving(UpstreamProtocol) as port:
        timed = LoadSettings(
            port=port, kind=Kind.PLAIN, concurrency=2, bodies=1, warm_up_seconds=0.02, window_seconds=0.05
        )
        result = await run(timed)

    assert not result.errors
    assert result.requests > 0
    assert result.seconds == pytest.approx(0.05, abs=0.2)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy", "status 503: busy"),
        (plain(b"{}"), "the body differs"),
        (plain(ANSWER) + b"x", "bytes came after"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no length"),
    ],
    ids=["error", "other body", "too much", "no length"],
)
async def test_a_wrong_answer_is_an_error_and_ends_the_load(answer: bytes, reason: str) -> None:
    async with serving(lambda: FixedAnswer(answer)) as port:
        result = await run(settings(port))

    assert any(reason in error for error in result.errors)
    assert result.requests == 0


async def test_a_connection_cut_within_an_answer_is_an_error() -> None:
    async with serving(lambda: FixedAnswer(plain(ANSWER)[:-1], close=True)) as port:
        result = await run(settings(port))

    assert "the connection closed before the answer was complete" in result.errors


async def test_an_answer_without_an_expected_header_is_an_error() -> None:
    """A row about cache hits must not be made of misses."""
    async with serving(UpstreamProtocol) as port:
        result = await run(settings(port, expected_headers=("\r\nx-llm-sidecar-cache: hit\r\n",)))

    assert any("lacks the header" in error for error in result.errors)


async def test_nobody_listening_is_an_error() -> None:
    async with serving(UpstreamProtocol) as port:
        pass
    result = await run(settings(port))

    assert any("no connection" in error for error in result.errors)


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with serving(UpstreamProtocol) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        both = [(b"0" * 16).join(request_parts(kind, port=port)) for kind in (Kind.STREAM, Kind.PLAIN)]
        writer.write(b"".join(both))
        parser = MessageParser(length_required=True)
        bodies: list[bytes] = []
        while len(bodies) < 2:
            parser.feed(await reader.read(65536))
            while parser.complete:
                bodies.append(parser.body)
                parser.next_message()
        writer.close()
        await writer.wait_closed()

    assert bodies == [STREAM, ANSWER]
