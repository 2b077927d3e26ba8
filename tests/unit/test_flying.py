"""How long others' calls are waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from llm_sidecar.budget import BufferBudget
from llm_sidecar.cache.flight import Flight
from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.flying import (
    KNOWN_KINDS,
    KNOWN_TIMES,
    LEAST_PATIENCE_SECONDS,
    UNKNOWN_PATIENCE_SECONDS,
    Flying,
    Passenger,
    UsualTimes,
)
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.registry import FORMATS
from llm_sidecar.providers.base import Timeouts
from llm_sidecar.record import RequestRecord


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], UNKNOWN_PATIENCE_SECONDS),
        ([0.1], LEAST_PATIENCE_SECONDS),
        ([30.0], 60.0),
        ([1.0, 5.0, 3.0], 10.0),
        ([3.0] * 31 + [500.0], 6.0),
        ([3.0] * 30 + [50.0] * 2, 100.0),
        ([500.0] * 5 + [3.0] * KNOWN_TIMES, 6.0),
    ],
    ids=["unknown", "fast", "slow", "few", "one-that-hung", "some-are-slow", "long-ago"],
)
def test_a_call_is_overdue_after_twice_the_time_that_nearly_all_took(seconds: list[float], expected: float) -> None:
    times = UsualTimes()
    for one in seconds:
        times.note("kind", one)
    assert times.patience_seconds("kind") == expected
    assert times.patience_seconds("other") == UNKNOWN_PATIENCE_SECONDS


def test_what_is_known_does_not_grow_for_ever() -> None:
    times = UsualTimes()
    for number in range(KNOWN_KINDS * 3):
        times.note(number, 30.0)
    known = sum(times.patience_seconds(number) != UNKNOWN_PATIENCE_SECONDS for number in range(KNOWN_KINDS * 3))
    assert 0 < known <= KNOWN_KINDS


class _Exchange:
    def __init__(self) -> None:
        self.record = RequestRecord("id", "ns/team")
        self.held = BufferBudget().hold()
        self.request = None


def passenger() -> Passenger:
    call = Call(api=API.OPENAI_CHAT, type=RequestType.GENERATION, path="/v1/chat/completions")
    parsed = FORMATS[call.api].parse_request(call, b'{"model": "m", "messages": []}')
    exchange: Any = _Exchange()
    return Passenger(exchange=exchange, parsed=parsed, wire=FORMATS[call.api], timeouts=Timeouts())


@pytest.mark.looptime
async def test_where_all_calls_have_become_slow_few_are_made_in_vain() -> None:
    """Each that replaces an overdue one is waited for twice as long: with the same patience there would be thirty."""
    flying, calls = Flying(), 0

    async def call(flight: Flight | None) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.1 if calls <= KNOWN_TIMES else 60.0)
        if flight is not None:
            flight.told = RequestRecord("id", "ns/team")
            flight.land(200, [], b"{}")
        return web.Response(body=b"{}")

    for number in range(KNOWN_TIMES):
        await flying.answer(passenger(), number, call)
    asking = []
    for _ in range(60):
        asking.append(asyncio.create_task(flying.answer(passenger(), "same", call)))
        await asyncio.sleep(1)
    await asyncio.gather(*asking)
    assert calls - KNOWN_TIMES <= 6
