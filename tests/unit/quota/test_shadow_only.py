"""A limit that only watches refuses nothing, also while the store is away: what is used is counted afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llm_sidecar.quota import Quota, QuotaStoreUnavailable
from llm_sidecar.redis_store import RedisStore
from tests.unit.quota.conftest import counters, demand, settle, settled
from tests.unit.quota.test_local_share import Switch

OpenQuota = Callable[..., Quota]
SHADOW = {"name": "shadow", "per": "Day", "tokens": 10, "onExceeded": {"action": "Shadow"}}
DAILY = {"name": "daily", "per": "Day", "tokens": 1000}


@pytest.mark.parametrize("policy", ["LocalShare", "Deny", "Allow"])
async def test_with_the_store_away_a_team_that_is_only_watched_is_let_in_and_counted(
    store: RedisStore, open_quota: OpenQuota, policy: str
) -> None:
    switch = Switch(store)
    quota = open_quota(SHADOW, policy=policy, store=switch, sidecar="pod-1")
    switch.available = False
    reservation = await quota.reserve("a", demand(50, 0))
    settle(quota, reservation, 50, "measured")
    switch.available = True
    await settled(quota)
    assert await counters(store) == {"shadow|used": 50}


async def test_a_team_that_is_only_watched_asks_for_no_share(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(SHADOW, policy="LocalShare", store=store, sidecar="pod-1")
    assert quota.share._renewal is None


@pytest.mark.parametrize("policy", ["LocalShare", "Deny"])
async def test_a_limit_beside_it_that_refuses_still_does(store: RedisStore, open_quota: OpenQuota, policy: str) -> None:
    switch = Switch(store)
    quota = open_quota(SHADOW, DAILY, policy=policy, store=switch, sidecar="pod-1")
    switch.available = False
    with pytest.raises(QuotaStoreUnavailable):
        await quota.reserve("a", demand(50, 0))


async def test_a_share_is_taken_of_the_limits_that_refuse_alone(store: RedisStore, open_quota: OpenQuota) -> None:
    switch = Switch(store)
    quota = open_quota(SHADOW, DAILY, policy="LocalShare", store=switch, sidecar="pod-1")
    await quota.share.refresh()
    switch.available = False
    reservation = await quota.reserve("a", demand(100, 0))
    assert [hold.amount for hold in reservation.local_holds.values()] == [100]
    with pytest.raises(QuotaStoreUnavailable, match=r"^connection$") as raised:
        await quota.reserve("b", demand(1, 0))
    assert "'daily'" in raised.value.lacking
