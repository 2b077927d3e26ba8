"""How requests are sent and timed: a wrong answer has no time, and who is late is not fast."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import islice

from aiohttp import web

from tests.trace.client import PATIENCE_SECONDS, Applications, applications, at_a_steady_rate, in_a_closed_loop
from tests.trace.drawing import Trace
from tests.trace.requests import Family, Kind, Request

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def counts() -> list[Request]:
    """Requests that are easily answered."""
    return [one for one in islice(Trace(3, name="client"), 2000) if one.kind is Kind.COUNT]


class Counting:
    """A provider that only counts tokens, rightly; and answers nobody until so many ask at once."""

    def __init__(self, *, at_once: int = 1) -> None:
        self.tokens = {one.body: one.tokens for one in counts()}
        self.under_way = self.most_at_once = 0
        self._at_once = at_once
        self._together = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        tokens = self.tokens[await request.read()]
        if self.under_way == self._at_once:
            self._together.set()
        await asyncio.wait_for(self._together.wait(), PATIENCE_SECONDS)
        self.under_way -= 1
        name = "totalTokens" if request.path.endswith(":countTokens") else "input_tokens"
        return web.json_response({name: tokens}, headers={"x-llm-sidecar-cache": "miss"})


@asynccontextmanager
async def asking(handler: Handler) -> AsyncIterator[Applications]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with applications(dict.fromkeys(Family, runner.addresses[0][1])) as found:
            yield found
    finally:
        await runner.cleanup()


async def test_a_closed_loop_keeps_as_many_requests_under_way_as_it_has_clients() -> None:
    provider = Counting(at_once=4)
    async with asking(provider.answer) as found:
        outcome = await in_a_closed_loop(found, iter(counts() * 50), connections=4, seconds=1.3)
    assert not outcome.reasons
    assert provider.most_at_once == 4
    assert len(outcome.tallies[Kind.COUNT].seconds) == outcome.told["miss"] > 10


async def test_a_steady_rate_sends_what_is_due_and_no_more() -> None:
    async with asking(Counting().answer) as found:
        outcome = await at_a_steady_rate(found, iter(counts()), per_minute=1200, seconds=0.5)
    assert not outcome.reasons
    assert len(outcome.tallies[Kind.COUNT].seconds) == 10
    assert outcome.seconds >= 0.45


async def test_the_time_of_a_late_request_begins_when_it_was_due() -> None:
    async with asking(Counting().answer) as found:
        await found.ask(counts()[0], due=time.perf_counter() - 5)
    assert found.outcome.tallies[Kind.COUNT].seconds[0] >= 5


async def test_an_error_is_counted_and_never_timed() -> None:
    async def refusing(request: web.Request) -> web.StreamResponse:
        return web.json_response({"input_tokens": 1, "totalTokens": 1}, status=529)

    async def wrong(request: web.Request) -> web.StreamResponse:
        return web.json_response({"input_tokens": -1, "totalTokens": -1})

    async def gone(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    told = []
    for handler in (refusing, wrong, gone):
        async with asking(handler) as found:
            await found.ask(counts()[0], due=time.perf_counter())
        tally = found.outcome.tallies[Kind.COUNT]
        assert (tally.errors, tally.seconds, tally.given, tally.without_provider) == (1, [], 0, 0)
        told += list(found.outcome.reasons)
    assert told[0] == "token count: status 529"
    assert "instead of" in told[1]
    assert "the connection did not end well" in told[2]
