"""The clocks of a stream: silence ends it, activity does not, and no stream is endless."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm_sidecar.budget import BufferBudget
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.failover.attempt import OpenStream
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.providers.base import Headers, Timeouts
from llm_sidecar.relay import Interrupted, StreamRelay

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

    async def write(self, piece: bytes) -> None:
        self.written += piece


async def relay(pieces: list[tuple[float, bytes]], timeouts: Timeouts) -> bytes:
    wire = FORMATS[API.OPENAI_CHAT]
    call = Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/chat/completions")
    parsed = wire.parse_request(call, b'{"model":"m","stream":true}')
    observer = wire.observe_stream(parsed, hide_usage=False, max_frame_bytes=1000)
    opened = OpenStream(200, [], b"", Paced(pieces), observer, exhausted=False)
    sink: Any = Sink()
    await StreamRelay(opened, timeouts, BufferBudget().hold())._relay(sink)
    return bytes(sink.written)


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
