"""The clocks of a stream: silence ends it, activity does not, and no stream is endless."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm_sidecar.budget import BufferBudget, Held
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.failover.attempt import OpenStream
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.providers.base import Headers, Timeouts
from llm_sidecar.record import RequestRecord
from llm_sidecar.relay import (
    SLICE_BYTES,
    STALLED,
    TAIL_SECONDS,
    ClientWriter,
    Interrupted,
    StreamRelay,
    relay_pieces,
    send_whole,
)

FRAME = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


class Paced:
    """A provider that sends a piece after each pause."""

    status = 200
    headers: Headers

    def __init__(self, pieces: list[tuple[float, bytes]]) -> None:
        self.headers = []
        self._pieces = iter(pieces)

    def header(self, name: str) -> str | None:
        del name
        return None

    exhausted = False

    async def read_some(self) -> bytes:
        pause_seconds, piece = next(self._pieces, (0.0, b""))
        await asyncio.sleep(pause_seconds)
        return piece

    def close(self) -> None:
        pass


class Sink:
    """An application that takes everything."""

    def __init__(self) -> None:
        self.written = b""

    async def begin(self, first: bytes) -> None:
        self.written += first

    async def write(self, piece: bytes) -> None:
        self.written += piece


async def relay(
    pieces: list[tuple[float, bytes]], timeouts: Timeouts, *, held: Held | None = None, hide_usage: bool = False
) -> bytes:
    wire = FORMATS[API.OPENAI_CHAT]
    call = Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/chat/completions")
    parsed = wire.parse_request(call, b'{"model":"m","stream":true}')
    observer = wire.observe_stream(parsed, hide_usage=hide_usage, max_frame_bytes=1000)
    opened = OpenStream(200, [], b"", Paced(pieces), observer, exhausted=False)
    sink: Any = Sink()
    last = await StreamRelay(opened, timeouts, held or BufferBudget().hold())._relay(sink)
    return bytes(sink.written) + last


@pytest.mark.looptime
@pytest.mark.parametrize("idle_seconds", [1, 2, 10, 120])
async def test_a_stream_that_goes_on_is_never_idle(idle_seconds: int) -> None:
    """However short the allowed silence is: pauses of half of it, for twenty times as long."""
    pieces = [(idle_seconds / 2, FRAME)] * 40 + [(0.0, DONE)]
    assert await relay(pieces, Timeouts(idle=idle_seconds, stream=100_000)) == FRAME * 40 + DONE


@pytest.mark.looptime
@pytest.mark.parametrize("idle_seconds", [1, 2, 10, 120])
async def test_silence_ends_a_stream(idle_seconds: int, looptime: Any) -> None:
    with pytest.raises(Interrupted, match="idleSeconds"):
        await relay([(0.0, FRAME), (idle_seconds * 3, FRAME)], Timeouts(idle=idle_seconds))
    assert looptime <= idle_seconds + 1


@pytest.mark.looptime
async def test_no_stream_is_endless(looptime: Any) -> None:
    with pytest.raises(Interrupted, match="streamSeconds"):
        await relay([(1.0, FRAME)] * 10_000, Timeouts(idle=120, stream=3600))
    assert looptime == 3600


# --- applications that read slowly, or nothing


class Transport:
    """A connection that can be cut."""

    def __init__(self) -> None:
        self.is_cut = False

    def abort(self) -> None:
        self.is_cut = True

    def get_write_buffer_size(self) -> int:
        """Of an application that has left some of what came before."""
        return 1


class Request:
    """The request's side of an answer."""

    def __init__(self) -> None:
        self.transport = Transport()


class Reply:
    """An answer whose application takes so long for each piece."""

    def __init__(self, seconds_per_piece: float) -> None:
        self.body: bytes | None = None
        self.taken = b""
        self._seconds = seconds_per_piece

    async def prepare(self, request: object) -> None:
        del request

    async def write(self, piece: bytes) -> None:
        await asyncio.sleep(self._seconds)
        self.taken += piece

    async def write_eof(self, last: bytes = b"") -> None:
        if last:
            await self.write(last)


def writer_to(reply: Reply, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, RequestRecord]:
    """A request, and a record, for whose answer `reply` stands in."""
    monkeypatch.setattr("llm_sidecar.relay.web.StreamResponse", lambda **_options: reply)
    return Request(), RequestRecord("id", "none")


@pytest.mark.looptime
async def test_a_whole_answer_may_take_long_as_long_as_it_goes_on() -> None:
    body = b"x" * (SLICE_BYTES * 20 + 1)
    reply: Any = Reply(50)
    request: Any = Request()
    record = RequestRecord("id", "none")
    reply.body = body
    await send_whole(request, reply, body, record, stall_seconds=60)
    assert (reply.taken, reply.body) == (body, None)
    assert (record.client_gone, record.error_code, request.transport.is_cut) == (False, "", False)


@pytest.mark.looptime
async def test_a_whole_answer_that_is_not_taken_is_cut(looptime: Any) -> None:
    reply: Any = Reply(10_000)
    request: Any = Request()
    record = RequestRecord("id", "none")
    await send_whole(request, reply, b"x" * 100_000, record, stall_seconds=60)
    assert looptime == 60
    assert (record.client_gone, record.error_code, request.transport.is_cut) == (True, STALLED, True)


@pytest.mark.looptime
async def test_an_error_at_a_streams_end_waits_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch, looptime: Any
) -> None:
    request, record = writer_to(Reply(10_000), monkeypatch)
    writer = ClientWriter(request, 200, [], record)
    await writer.end(b"data: {}", seconds=TAIL_SECONDS)
    assert looptime == TAIL_SECONDS
    assert (writer.gone, record.error_code, request.transport.is_cut) == (True, STALLED, True)


async def pieces(
    request: Any, record: RequestRecord, paced: Paced, *, idle_seconds: float, total_seconds: float | None = None
) -> None:
    await relay_pieces(
        request,
        status=200,
        headers=[],
        first=b"",
        response=paced,
        idle_seconds=idle_seconds,
        total_seconds=total_seconds,
        record=record,
    )


@pytest.mark.looptime
async def test_a_body_in_pieces_is_cut_where_the_application_takes_none(
    monkeypatch: pytest.MonkeyPatch, looptime: Any
) -> None:
    request, record = writer_to(Reply(10_000), monkeypatch)
    await pieces(request, record, Paced([(0.0, b"a")]), idle_seconds=30)
    assert looptime == 30
    assert (record.interrupted, record.error_code, request.transport.is_cut) == (True, STALLED, True)


@pytest.mark.looptime
async def test_a_body_in_pieces_is_cut_where_the_provider_sends_none(
    monkeypatch: pytest.MonkeyPatch, looptime: Any
) -> None:
    request, record = writer_to(Reply(0), monkeypatch)
    await pieces(request, record, Paced([(0.0, b"a"), (10_000.0, b"b")]), idle_seconds=30)
    assert looptime == 30
    assert (record.interrupted, record.client_gone, record.error_code) == (True, False, "")
    assert request.transport.is_cut


@pytest.mark.looptime
async def test_a_body_in_pieces_has_a_last_moment_although_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, looptime: Any
) -> None:
    request, record = writer_to(Reply(0), monkeypatch)
    await pieces(request, record, Paced([(5.0, b"a")] * 1000), idle_seconds=30, total_seconds=600)
    assert looptime == 600
    assert record.interrupted
    assert request.transport.is_cut


@pytest.mark.looptime
async def test_a_body_in_pieces_may_go_on_without_a_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = Reply(0)
    request, record = writer_to(reply, monkeypatch)
    await pieces(request, record, Paced([(20.0, b"a")] * 1000), idle_seconds=30)
    assert reply.taken == b"a" * 1000
    assert not record.interrupted
    assert not request.transport.is_cut


@pytest.mark.looptime
async def test_a_long_stream_that_shrinks_on_its_way_holds_no_more_than_a_short_one() -> None:
    """What is left out of it, as a translation does, is not held by anybody."""
    budget = BufferBudget(200_000)
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
    pieces = [(0.0, usage * 100 + FRAME)] * 100

    answer = await relay([*pieces, (0.0, DONE)], Timeouts(), held=budget.hold(), hide_usage=True)

    assert answer == FRAME * 100 + DONE
