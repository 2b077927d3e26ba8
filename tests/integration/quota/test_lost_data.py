"""A store that starts empty: what sidecars have seen is put back before anybody is let in."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from llm_sidecar.quota.scripts import RESTORE, quota_keys
from llm_sidecar.store import Reply, Script
from tests.integration.quota.machine import COMMAND, Place
from tests.integration.quota.money import Team
from tests.integration.quota.test_exact_money import TINY


def test_what_was_seen_is_restored_before_the_next_request(store_place: Place) -> None:
    async def example(team: Team) -> None:
        for _ in range(3):
            await team.spend(10**9, TINY)
        before, _ledger = await team.used()
        await store_place.store.run(COMMAND, (key := _counters(team),), ("DEL", key))

        await team.spend(10**9, TINY)

        after, _ledger = await team.used()
        assert after == before * 4 / 3
        await team.end()

    store_place.run(example(Team(store_place, "1")))


def test_a_loss_is_told_once_by_all_requests_that_find_it_together(
    store_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second telling would make everybody else's settlements under way look lost, and be charged again."""

    async def example(team: Team) -> None:
        await team.spend(10**9, TINY)
        await store_place.store.run(COMMAND, (key := _counters(team),), ("DEL", key))

        run = team.quota._store.run
        scripts: list[Script] = []

        async def spy(script: Script, *rest: Any) -> Reply:
            scripts.append(script)
            return await run(script, *rest)

        monkeypatch.setattr(team.quota, "_store", Mock(wraps=team.quota._store, run=spy))
        await asyncio.gather(*(team.spend(10**9, TINY) for _ in range(20)))

        assert scripts.count(RESTORE) == 1
        await team.end()

    store_place.run(example(Team(store_place, "1")))


def test_no_fraction_of_an_older_figure_is_added_to_a_newer_one(store_place: Place) -> None:
    """A copy that lags has the nano-dollars of its time, and the fraction beside them."""

    async def example(team: Team) -> None:
        await team.spend(285_714, TINY)  # two femto-dollars less than two nano-dollars
        await team.settled()
        older = await team.ask("HGETALL", key := _counters(team))
        await team.spend(142_858, TINY)  # now four more than three
        await team.settled()
        await store_place.store.run(COMMAND, (key,), ("DEL", key))
        await store_place.store.run(COMMAND, (key,), ("HSET", key, *older))

        await team.spend(1, TINY)

        counted, in_ledger = await team.used()
        assert in_ledger - 1 < counted <= in_ledger
        await team.end()

    store_place.run(example(Team(store_place, "1")))


def _counters(team: Team) -> str:
    return quota_keys(team.name)[0]
