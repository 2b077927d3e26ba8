"""Sends the trace and times what comes back: as 100 clients that wait for their answers, or at a rate of its own.

In the second way a request's time begins when it was due, not when it could be sent: who is late is not fast.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from tests.trace.answers import Wrong, given_by_cache
from tests.trace.drawing import Repeats
from tests.trace.requests import HEADERS, Family, Kind, Request

PATIENCE_SECONDS: Final = 30.0
START_SECONDS: Final = 1.0
"""In which the clients of a closed loop begin."""
MAX_REASONS: Final = 50
"""Of errors, that are told apart."""


@dataclass(slots=True)
class Tally:
    """How the requests of one kind ended."""

    seconds: list[float] = field(default_factory=list)
    """Of right answers alone, in the order in which they came."""
    errors: int = 0
    meanings: int = 0
    """Requests, or items of batches; of right answers alone, as all that follows."""
    given: int = 0
    """Those for which nothing was asked of a provider."""
    repeated: int = 0
    """Those that a cache that forgets nothing, and may give anything, would have had."""
    repeated_deterministic: int = 0
    """Those of them that said temperature 0, or are no generations."""
    without_provider: int = 0
    """Whole requests of which no provider heard."""


@dataclass(slots=True)
class Outcome:
    """How a phase went for the applications."""

    tallies: dict[Kind, Tally] = field(default_factory=lambda: {kind: Tally() for kind in Kind})
    reasons: Counter[str] = field(default_factory=Counter)
    """Of errors."""
    told: Counter[str] = field(default_factory=Counter)
    """What `x-llm-sidecar-cache` said."""
    seconds: float = 0.0
    """From the first request to the last answer."""
    sending_seconds: float = 0.0
    """From the first request to the last one."""


class Applications:
    """All the programs that use the sidecar, over one pool of connections."""

    def __init__(self, sessions: Mapping[Family, aiohttp.ClientSession]) -> None:
        self._sessions = sessions
        self._repeats = Repeats()
        self.outcome = Outcome()

    async def ask(self, request: Request, *, due: float) -> None:
        """Send one request and write down how it ended."""
        repeated = self._repeats.of(request)
        tally = self.outcome.tallies[request.kind]
        try:
            given, told = await self._answered(request)
        except Wrong as error:
            self._fail(tally, f"{request.kind}: {error}")
            return
        except (aiohttp.ClientError, TimeoutError) as error:
            self._fail(tally, f"{request.kind}: the connection did not end well: {type(error).__name__}")
            return
        tally.seconds.append(time.perf_counter() - due)
        tally.meanings += len(request.meanings)
        tally.given += given
        tally.repeated += repeated
        tally.without_provider += given == len(request.meanings)
        if request.deterministic or request.kind in {Kind.EMBEDDINGS, Kind.COUNT}:
            tally.repeated_deterministic += repeated
        self.outcome.told[told] += 1

    async def _answered(self, request: Request) -> tuple[int, str]:
        async with self._sessions[request.family].post(request.path, data=request.body) as answer:
            body = await answer.read()
            told = answer.headers.get("x-llm-sidecar-cache", "none")
            if answer.status != 200:
                raise Wrong(f"status {answer.status}")
        return given_by_cache(request, told=told, body=body), told

    def _fail(self, tally: Tally, reason: str) -> None:
        tally.errors += 1
        self.outcome.reasons[reason if len(self.outcome.reasons) < MAX_REASONS else "others"] += 1


@asynccontextmanager
async def applications(ports: Mapping[Family, int]) -> AsyncIterator[Applications]:
    """Connections to where each API is spoken, as many as are needed."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
    sessions = {
        family: aiohttp.ClientSession(
            f"http://127.0.0.1:{ports[family]}",
            connector=connector,
            connector_owner=False,
            headers=HEADERS[family],
            timeout=timeout,
            read_bufsize=2**20,
        )
        for family in Family
    }
    try:
        yield Applications(sessions)
    finally:
        for session in sessions.values():
            await session.close()
        await connector.close()


async def in_a_closed_loop(
    asking: Applications, trace: Iterator[Request], *, connections: int, seconds: float
) -> Outcome:
    """So many clients, each of which sends its next request when it has its answer.

    They begin one after the other: together they would go on asking in waves, as no crowd does.
    """
    begin = time.perf_counter()

    async def client(number: int) -> None:
        await asyncio.sleep(START_SECONDS * number / connections)
        while (now := time.perf_counter()) - begin < seconds:
            await asking.ask(next(trace), due=now)

    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(client(number))
    asking.outcome.sending_seconds = seconds
    asking.outcome.seconds = time.perf_counter() - begin
    return asking.outcome


async def at_a_steady_rate(
    asking: Applications, trace: Iterator[Request], *, per_minute: float, seconds: float
) -> Outcome:
    """One request after the other at the same distance, whether or not the last one has its answer."""
    begin, distance = time.perf_counter(), 60 / per_minute
    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds / distance)):
            due = begin + number * distance
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(asking.ask(next(trace), due=due))
    asking.outcome.sending_seconds = seconds
    asking.outcome.seconds = time.perf_counter() - begin
    return asking.outcome
