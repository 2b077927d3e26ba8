"""A store that restarts empty, or with an older copy, is told what its clients have seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from llm_sidecar.quota import Quota, QuotaExceeded
from llm_sidecar.quota.scripts import quota_keys
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.store import Reply, Script, StoreUnavailable
from tests.unit.quota.conftest import TEAM, command, counters, demand, settle, settled

OpenQuota = Callable[..., Quota]
DAILY = {"name": "daily", "per": "Day", "tokens": 1000}


async def spend(quota: Quota, request_id: str, tokens: int) -> None:
    settle(quota, await quota.reserve(request_id, demand(tokens, 0)), tokens, "measured")
    await settled(quota)


async def test_a_store_that_restarts_empty_learns_again_what_was_spent(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    quota = open_quota(DAILY)
    await spend(quota, "a", 700)
    await command(store, "FLUSHALL")

    with pytest.raises(QuotaExceeded) as raised:
        await quota.reserve("b", demand(301, 0))
    assert raised.value.refusal.used == 700
    await spend(quota, "c", 100)
    assert (await counters(store))["daily|used"] == 800


async def test_a_sidecar_that_begins_anew_does_not_hide_a_loss_from_the_others(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    quota = open_quota(DAILY, sidecar="pod-1")
    await spend(quota, "a", 700)
    await command(store, "FLUSHALL")
    young = open_quota(DAILY, sidecar="pod-2")
    for number in range(20):
        await spend(young, f"young-{number}", 1)

    with pytest.raises(QuotaExceeded):
        await quota.reserve("b", demand(301, 0))
    assert (await counters(store))["daily|used"] == 700


async def test_every_sidecar_tells_what_it_saw_and_the_most_counts(store: RedisStore, open_quota: OpenQuota) -> None:
    behind, ahead = open_quota(DAILY), open_quota(DAILY)
    await spend(behind, "a", 100)
    await spend(ahead, "b", 500)
    await command(store, "FLUSHALL")

    await behind.reserve("c", demand(0, 0))
    assert (await counters(store))["daily|used"] == 100
    await ahead.reserve("d", demand(0, 0))
    assert (await counters(store))["daily|used"] == 600


async def test_an_older_copy_that_takes_over_is_brought_up_to_date(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(DAILY)
    await spend(quota, "a", 300)
    copy = await command(store, "HGETALL", quota_keys(TEAM)[0])
    assert isinstance(copy, list)
    await spend(quota, "b", 400)
    await command(store, "DEL", quota_keys(TEAM)[0])
    await command(store, "HSET", quota_keys(TEAM)[0], *(word for word in copy if isinstance(word, bytes)))

    await quota.reserve("c", demand(0, 0))
    assert (await counters(store))["daily|used"] == 700


async def test_a_settlement_that_finds_the_store_empty_is_added_to_what_was_seen(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    quota = open_quota(DAILY)
    await spend(quota, "a", 300)
    reservation = await quota.reserve("b", demand(50, 0))
    await command(store, "FLUSHALL")
    settle(quota, reservation, 50, "measured")
    await settled(quota)
    assert (await counters(store))["daily|used"] == 350


async def test_room_that_was_added_by_hand_is_not_forgotten(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(DAILY)
    counter = (await quota.reserve("a", demand(0, 0))).counters[0][1]
    await command(store, "HSET", quota_keys(TEAM)[0], f"{counter}|credit", 500)
    await spend(quota, "b", 900)
    await command(store, "FLUSHALL")
    await quota.reserve("c", demand(600, 0))
    assert await counters(store) == {"daily|used": 900, "daily|credit": 500, "daily|held": 600}


async def test_windows_that_are_over_are_not_brought_back(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(DAILY)
    await spend(quota, "a", 300)
    quota._seen.used("daily|tokens|Day|0|1000", 5)
    await command(store, "FLUSHALL")
    await quota.reserve("b", demand(0, 0))
    assert await command(store, "HEXISTS", quota_keys(TEAM)[0], "daily|tokens|Day|0|1000|used") == 0


async def test_a_new_sidecar_that_has_seen_nothing_disturbs_nobody(store: RedisStore, open_quota: OpenQuota) -> None:
    await spend(open_quota(DAILY), "a", 300)
    await spend(open_quota(DAILY), "b", 300)
    assert (await counters(store))["daily|used"] == 600


async def test_a_settlement_whose_answer_was_lost_with_the_stores_data_is_told_again(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    """Whether it was booked before the data went, nobody knows: rather twice than never."""
    lossy = LosesAnswers(store)
    quota, other = open_quota(DAILY, store=lossy), open_quota(DAILY)
    await spend(other, "seen", 100)
    await quota.reserve("warm", demand(0, 0))
    reservation = await quota.reserve("a", demand(50, 0))
    lossy.loses = "settle"
    settle(quota, reservation, 50, "measured")
    async with asyncio.timeout(5):
        await lossy.lost.wait()
    await command(store, "FLUSHALL")
    await quota.reserve("b", demand(0, 0))  # notices the loss before the settlement comes again
    await settled(quota)
    assert (await counters(store))["daily|used"] == 150


async def test_who_closes_tells_at_once_what_was_waiting_for_the_store(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    lossy = LosesAnswers(store)
    quota = open_quota(DAILY, store=lossy)
    reservation = await quota.reserve("a", demand(50, 0))
    lossy.loses, lossy.times = "settle", 5  # the next pause is more than a second
    settle(quota, reservation, 50, "measured")
    async with asyncio.timeout(30):
        while lossy.times:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)
    await quota.close(timeout_seconds=1)
    assert quota.dropped_settlements == 0
    assert (await counters(store))["daily|used"] == 50


class LosesAnswers:
    """A real store, whose answers to one script get lost for some times after it was done."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.available = True
        self.loses = ""
        self.times = 1
        self.lost = asyncio.Event()

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        reply = await self._store.run(script, keys, arguments)
        if script.name == self.loses and self.times:
            self.times -= 1
            self.lost.set()
            raise StoreUnavailable("timeout")
        return reply


async def test_a_call_that_no_limit_counts_is_in_the_ledger_though_its_settlement_got_lost_first(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    """No record tells the store whether it had come."""

    class Lossy:
        available = True
        losses = 1

        async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
            if script.name == "settle" and self.losses:
                self.losses -= 1
                raise StoreUnavailable("timeout")
            return await store.run(script, keys, arguments)

    quota = open_quota({"name": "other", "per": "Day", "tokens": 1000, "models": ["other"]}, store=Lossy())
    for request_id in ("a", "b"):
        settle(quota, await quota.reserve(request_id, demand(1, 1)), 2, "measured")
        await settled(quota)
    lines = await command(store, "XRANGE", quota_keys(TEAM)[3], "-", "+")
    assert isinstance(lines, list)
    assert [line[1][1] for line in lines if isinstance(line, list) and isinstance(line[1], list)] == [b"a", b"b"]
