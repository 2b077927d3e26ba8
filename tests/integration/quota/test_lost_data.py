"""A store that starts empty: what sidecars have seen is put back before anybody is let in."""

from __future__ import annotations

from llm_sidecar.quota.scripts import quota_keys
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


def _counters(team: Team) -> str:
    return quota_keys(team.name)[0]
