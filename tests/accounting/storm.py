"""What goes wrong, in an order that is drawn from the seed: one fault after the other, while clients ask."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tests.accounting.fault_proxy import Cut, Place
from tests.accounting.settings import LASTING, Plan

if TYPE_CHECKING:
    from tests.accounting.fleet import Fleet
    from tests.accounting.stores import Stores
    from tests.accounting.watch import Watch

BETWEEN_SECONDS: Final = (0.3, 0.9)
PAUSE_SECONDS: Final = (0.1, 1.0)
"""Longer than a call may take, shorter than a lease."""
LAG_SECONDS: Final = (0.1, 0.5)
CUTS_AT_ONCE: Final = 3
PLACES: Final[tuple[Place, ...]] = ("command", "reply")
DRAIN_SECONDS: Final = 0.03
"""In which a command that is under way in the server ends."""


class Storm:
    """Carries faults out, and counts them."""

    def __init__(self, plan: Plan, *, stores: Stores, fleet: Fleet, watch: Watch) -> None:
        self._plan = plan
        self._stores = stores
        self._fleet = fleet
        self._watch = watch
        self._draw = random.Random(f"{plan.seed}/storm")
        self.met: Counter[str] = Counter()
        self.away: list[tuple[float, float]] = []
        """From when to when (seconds since 1970) the store may have been away for somebody."""

    async def blow(self) -> None:
        """For as long as the plan says, and until every fault of it has come: each comes once before any comes again.

        On a busy machine a sidecar's start alone may take seconds.
        """
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": self._kill,
            "pause": self._pause,
            "restart": self._restart,
            "cut-reply": self._cut_reply,
            "cut-frame": self._cut_frame,
            "partition": self._partition,
            "wipe": self._wipe,
            "failover": self._failover,
        }
        names = sorted(self._plan.faults - LASTING)
        end = time.monotonic() + self._plan.seconds
        round_: list[str] = []
        while time.monotonic() < end or any(name not in self.met for name in names):
            await asyncio.sleep(self._draw.uniform(*BETWEEN_SECONDS))
            if not names:
                continue
            if not round_:
                round_ = self._draw.sample(names, len(names))
            name = round_.pop()
            began = time.time()
            await acts[name]()
            self.met[name] += 1
            if name != "kill":
                self.away.append((began, time.time()))

    async def _kill(self) -> None:
        await self._fleet.kill(self._draw.choice(self._fleet.members))

    async def _pause(self) -> None:
        self._stores.primary.pause()
        try:
            await asyncio.sleep(self._draw.uniform(*PAUSE_SECONDS))
        finally:
            self._stores.primary.resume()

    async def _partition(self) -> None:
        link = self._draw.choice(self._fleet.members).link
        link.freeze()
        await asyncio.sleep(self._draw.uniform(*PAUSE_SECONDS))
        link.thaw()

    async def _cut_reply(self) -> None:
        for member in self._draw.sample(self._fleet.members, min(CUTS_AT_ONCE, len(self._fleet.members))):
            member.link.arm(Cut("reply"))
        await asyncio.sleep(self._draw.uniform(*BETWEEN_SECONDS))

    async def _cut_frame(self) -> None:
        for member in self._draw.sample(self._fleet.members, min(CUTS_AT_ONCE, len(self._fleet.members))):
            place: Place = self._draw.choice(PLACES)
            member.link.arm(Cut(place, self._draw.randint(1, 40)))
        await asyncio.sleep(self._draw.uniform(*BETWEEN_SECONDS))

    async def _restart(self) -> None:
        self._stores.primary.kill()
        await asyncio.sleep(self._draw.uniform(*BETWEEN_SECONDS))
        await self._stores.restart(empty=False)

    async def _wipe(self) -> None:
        async with self._nobody_asking():
            await self._watch.note_loss("wipe")
            await self._stores.restart(empty=True)
            self._drop_all()

    async def _failover(self) -> None:
        stores, is_gone = self._stores, self._draw.random() < 0.5
        await stores.in_step()
        stores.link.freeze()
        await asyncio.sleep(self._draw.uniform(*LAG_SECONDS))
        async with self._nobody_asking():
            await self._watch.note_loss("failover")
            await stores.promote()
            if is_gone:
                stores.replica.kill()
                self._drop_all()
            else:  # those who are connected are told READONLY
                await stores.follow()
            for member in self._fleet.members:
                member.link.target_port = stores.primary.port
        if is_gone:
            await stores.follow()

    def _drop_all(self) -> None:
        for member in self._fleet.members:
            member.link.drop()

    @asynccontextmanager
    async def _nobody_asking(self) -> AsyncIterator[None]:
        for member in self._fleet.members:
            member.link.freeze()
        await asyncio.sleep(DRAIN_SECONDS)
        try:
            yield
        finally:
            for member in self._fleet.members:
                member.link.thaw()
