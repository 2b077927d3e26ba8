"""One team with a limit on cost alone, and requests that cost exactly what a test says."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from itertools import count
from typing import Any, Final

from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.prices import Prices
from llm_sidecar.quota import Charge, Demand, LedgerEntry, Quota, Reservation
from llm_sidecar.quota.scripts import quota_keys
from tests.integration.quota.machine import COMMAND, Place
from tests.integration.quota.world import FEMTO, figures_by_counter, ledger_sums

TEAMS: Final = count(1)


class Team:
    """One team with a limit on cost, and its sidecar."""

    def __init__(self, place: Place, limit_usd: str) -> None:
        self.place = place
        self.name = f"payments/money{next(TEAMS)}"
        self._numbers = count(1)
        limits = [{"name": "budget", "per": "Month", "costUSD": limit_usd, "reservation": "Maximum"}]
        self.quota = place.run(self._started(TeamQuotaSpec.model_validate({"limits": limits})))

    async def _started(self, spec: TeamQuotaSpec) -> Quota:
        return Quota(self.place.store, team=self.name, spec=spec, sidecar="one")

    async def reserve(self, tokens: int, prices: Prices) -> Reservation:
        demand = Demand(
            model="m",
            input_tokens=0,
            input_tokens_at_most=0,
            expected_output_tokens=tokens,
            maximum_output_tokens=tokens,
            prices=prices,
        )
        return await self.quota.reserve(f"r{next(self._numbers)}", demand)

    async def spend(self, tokens: int, prices: Prices) -> Fraction:
        """One request from its beginning to its end; returns its cost in nano-dollars."""
        femto = tokens * prices.output
        reservation = await self.reserve(tokens, prices)
        self.quota.settle(
            reservation,
            Charge(tokens=tokens, cost_femto_usd=femto),
            LedgerEntry(source="measured", cost_femto_usd=femto),
        )
        return Fraction(femto, FEMTO)

    async def settled(self) -> None:
        async with asyncio.timeout(10):
            while self.quota.pending_settlements:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.001)

    async def ask(self, *words: str | int) -> Any:
        return await self.place.store.run(COMMAND, (str(words[1]),), words)

    async def used(self) -> tuple[Fraction, Fraction]:
        """By the counter, and by the ledger, in nano-dollars."""
        await self.settled()
        counters, _leases, _reservations, ledger, _alerts = quota_keys(self.name)
        _figures, used = figures_by_counter(await self.ask("HGETALL", counters))
        sums = ledger_sums(await self.ask("XRANGE", ledger, "-", "+"))
        return sum(used.values(), Fraction(0)), sum(sums.values(), Fraction(0))

    async def end(self) -> None:
        await self.quota.close(timeout_seconds=1)
