"""A threshold is told by whatever crosses it: a settlement, an abandoned charge, or a limit that was lowered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, Final

import pytest

from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.quota import Charge, Demand, LedgerEntry, Quota, QuotaExceeded
from llm_sidecar.quota.scripts import quota_keys
from tests.integration.quota.machine import COMMAND, Place
from tests.integration.quota.world import entry_fields

TEAMS: Final = count(1)
DAILY: Final = {"name": "daily", "per": "Day", "tokens": 100}
DEAR: Final = {"name": "dear", "per": "Day", "tokens": 100, "models": ["dear-*"]}


class Team:
    """One sidecar of a team, and the team's alerts."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.name = f"payments/thresholds{next(TEAMS)}"
        self.quota = Quota(place.store, team=self.name, spec=spec(DAILY), sidecar="one")

    async def abandon(self, request_id: str, tokens: int, model: str = "m") -> None:
        """Reserve, and let the lease end as if its sidecar were gone."""
        await self.quota.reserve(request_id, demand(tokens, model))
        await self.ask("ZADD", quota_keys(self.name)[1], "XX", 1, request_id)

    async def refused(self, request_id: str, tokens: int = 1, model: str = "m") -> None:
        with pytest.raises(QuotaExceeded):
            await self.quota.reserve(request_id, demand(tokens, model))

    async def spend(self, request_id: str, tokens: int) -> None:
        reservation = await self.quota.reserve(request_id, demand(tokens))
        self.quota.settle(reservation, Charge(tokens=tokens), LedgerEntry(source="measured", model="m"))
        async with asyncio.timeout(10):
            while self.quota.pending_settlements:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.001)

    async def told(self) -> list[tuple[str, str, str, str]]:
        """Of each alert: limit, percentage, used, maximum."""
        alerts = [entry_fields(one) for one in await self.ask("XRANGE", quota_keys(self.name)[4], "-", "+")]
        return [(one["limit"], one["percent"], one["used"], one["maximum"]) for one in alerts]

    async def ask(self, *words: str | int) -> Any:
        return await self.place.store.run(COMMAND, (str(words[1]),), words)


def spec(*limits: dict[str, Any]) -> TeamQuotaSpec:
    return TeamQuotaSpec.model_validate({"limits": limits, "alerts": {"thresholdsPercent": [50, 100]}})


def demand(tokens: int, model: str = "m") -> Demand:
    return Demand(model=model, input_tokens=tokens, expected_output_tokens=0, maximum_output_tokens=0)


def play(place: Place, example: Callable[[Team], Awaitable[None]]) -> None:
    async def whole() -> None:
        team = Team(place)
        try:
            await example(team)
        finally:
            await team.quota.close(timeout_seconds=0)

    place.run(whole())


def test_an_abandoned_charge_that_uses_a_limit_up_is_told_once(store_place: Place) -> None:
    async def example(team: Team) -> None:
        await team.abandon("lost", 100)
        for number in range(3):
            await team.refused(f"r{number}")
        assert await team.told() == [("daily", "50", "100", "100"), ("daily", "100", "100", "100")]

    play(store_place, example)


def test_an_abandoned_charge_is_told_by_a_request_that_is_let_in(store_place: Place) -> None:
    async def example(team: Team) -> None:
        await team.abandon("lost", 60)
        await team.quota.reserve("r", demand(1))
        assert await team.told() == [("daily", "50", "60", "100")]

    play(store_place, example)


def test_abandoned_charges_of_one_moment_are_told_with_their_sum(store_place: Place) -> None:
    async def example(team: Team) -> None:
        await team.abandon("first", 30)
        await team.quota.reserve("alive", demand(1))
        await team.ask("ZADD", quota_keys(team.name)[1], "XX", 1, "alive")
        await team.quota.reserve("second", demand(1))
        assert await team.told() == []
        await team.ask("ZADD", quota_keys(team.name)[1], "XX", 1, "second")
        await team.abandon("third", 20)
        await team.quota.reserve("r", demand(1))
        assert await team.told() == [("daily", "50", "52", "100")]

    play(store_place, example)


def test_a_limit_that_is_lowered_below_its_use_is_told_by_the_first_refusal(store_place: Place) -> None:
    async def example(team: Team) -> None:
        await team.spend("r", 40)
        assert await team.told() == []
        team.quota.configure(spec({**DAILY, "tokens": 30}))
        await team.refused("s")
        await team.refused("t")
        assert await team.told() == [("daily", "50", "40", "30"), ("daily", "100", "40", "30")]

    play(store_place, example)


def test_what_is_only_held_crosses_nothing(store_place: Place) -> None:
    async def example(team: Team) -> None:
        await team.quota.reserve("long", demand(100))
        await team.refused("r")
        assert await team.told() == []

    play(store_place, example)


def test_a_charge_of_another_models_limit_is_told_by_whoever_asks_for_that_one(store_place: Place) -> None:
    async def example(team: Team) -> None:
        team.quota.configure(spec(DEAR, {**DAILY, "tokens": 1000}))
        await team.abandon("lost", 100, model="dear-1")
        await team.quota.reserve("cheap", demand(1))
        assert await team.told() == []
        await team.refused("dear", model="dear-1")
        assert await team.told() == [("dear", "50", "100", "100"), ("dear", "100", "100", "100")]

    play(store_place, example)
