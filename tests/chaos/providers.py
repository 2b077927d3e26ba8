"""Simulated providers whose faults change while requests are under way, and which can be away altogether."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from llm_sidecar.simulate import SimulatorSettings
from llm_sidecar.simulate.app import Simulator
from llm_sidecar.simulate.faults import parse_faults
from tests.chaos.faults import Schedule, calm

_ID: Final = re.compile(rb"id-[0-9a-f]{8}")


@dataclass(slots=True, kw_only=True)
class Seen:
    """One request as the provider saw it."""

    name: str
    """The id that its prompt holds."""
    fault: str
    ended: float | None = None
    """When, by `time.monotonic`."""
    client_gone: bool = False


class Provider(Simulator):
    """All three APIs on one port; what fails is drawn for each request anew."""

    def __init__(self, port: int) -> None:
        super().__init__(SimulatorSettings())
        self._port = port
        self._site: web.TCPSite | None = None
        self.schedule: Schedule = calm()
        self.shape = ""
        """Added to every request's faults: how slow it is."""
        self.is_away = False
        self.seen: list[Seen] = []
        self.arrivals: dict[str, asyncio.Event] = {}
        """Set when the request with this id has come."""
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", self.handle)
        application.on_shutdown.append(self.close)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=1)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Draw a fault and answer by it, and note how that ended."""
        if self.is_away and request.transport is not None:
            request.transport.abort()
        body = await request.read()
        is_stream = b'"stream":true' in body or ":stream" in request.path
        schedule = self.schedule
        fault, specification = schedule.next_fault(is_stream=is_stream)
        found = _ID.search(body)
        seen = Seen(name=found[0].decode() if found else "", fault=fault)
        self.seen.append(seen)
        if seen.name in self.arrivals:
            self.arrivals[seen.name].set()
        # The simulator reads its own faults before anything else, so no other request can come in between.
        self._faults = parse_faults(self.shape or specification)
        try:
            return await super().handle(request)
        except ConnectionError:
            seen.client_gone = True
            return web.Response(status=499)  # for nobody; raised, it would be logged as a defect
        except asyncio.CancelledError:
            seen.client_gone = True
            raise
        finally:
            seen.ended = time.monotonic()
            schedule.is_over(fault)

    # --- there or away

    async def come(self) -> None:
        """Listen."""
        self.is_away = False
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()

    async def go_away(self) -> None:
        """Refuse connections, and drop those kept at their next request. What is under way goes on."""
        self.is_away = True
        if self._site is not None:
            await self._site.stop()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._runner.server.connections) if self._runner.server is not None else 0

    @property
    def under_way(self) -> int:
        """How many requests have not ended."""
        return sum(1 for one in self.seen if one.ended is None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run for as long as the context lasts."""
        await self._runner.setup()
        try:
            await self.come()
            yield
        finally:
            await self._runner.cleanup()
