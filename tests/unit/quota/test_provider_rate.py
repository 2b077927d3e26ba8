"""A provider's two buckets in the store: they fill all the time, hold a minute's worth, and are settled by use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llm_sidecar.contract.keys import provider_rate
from llm_sidecar.quota.provider_rate import GrantedRate, NoRoom, ProviderRates, Take
from llm_sidecar.redis_store import RedisStore
from tests.unit.quota.conftest import command

PROVIDER = "llm-system/p"
KEY = provider_rate(PROVIDER)
MINUTE_MS = 60_000


async def left(store: RedisStore, field: str) -> float:
    value = await command(store, "HGET", KEY, field)
    assert isinstance(value, bytes)
    return float(value)


async def pass_time(store: RedisStore, milliseconds: int) -> None:
    """As if time had passed since the last take: time itself cannot be moved in the store."""
    await command(store, "HINCRBYFLOAT", KEY, "at", -milliseconds)


async def taken(rates: ProviderRates, rate: GrantedRate, *, tokens: int = 0) -> Take:
    take = await rates.take(PROVIDER, rate, tokens=tokens)
    assert isinstance(take, Take)
    return take


async def test_a_minutes_worth_goes_and_then_nothing(store: RedisStore) -> None:
    rates, rate = ProviderRates(store), GrantedRate(requests_per_minute=3)
    for _ in range(3):
        await taken(rates, rate)

    refused = await rates.take(PROVIDER, rate, tokens=0)

    assert isinstance(refused, NoRoom)
    assert 19 < refused.wait_seconds <= 20


async def test_buckets_fill_all_the_time_and_never_beyond_a_minutes_worth(store: RedisStore) -> None:
    rates, rate = ProviderRates(store), GrantedRate(requests_per_minute=3)
    for _ in range(3):
        await taken(rates, rate)
    await pass_time(store, 20_500)
    await taken(rates, rate)
    assert isinstance(await rates.take(PROVIDER, rate, tokens=0), NoRoom)

    await pass_time(store, 10 * MINUTE_MS)
    await taken(rates, rate)

    assert await left(store, "r") == 2


async def test_tokens_wait_for_as_long_as_they_need(store: RedisStore) -> None:
    rates, rate = ProviderRates(store), GrantedRate(tokens_per_minute=6000)
    await taken(rates, rate, tokens=6000)

    refused = await rates.take(PROVIDER, rate, tokens=100)

    assert isinstance(refused, NoRoom)
    assert 0.9 < refused.wait_seconds <= 1


async def test_a_refusal_takes_nothing_of_either(store: RedisStore) -> None:
    rates, rate = ProviderRates(store), GrantedRate(requests_per_minute=10, tokens_per_minute=100)
    await taken(rates, rate, tokens=90)

    assert isinstance(await rates.take(PROVIDER, rate, tokens=50), NoRoom)

    assert (await left(store, "r"), await left(store, "t")) == (9, 10)


async def test_more_than_a_minutes_worth_goes_once_the_bucket_is_full(store: RedisStore) -> None:
    rates, rate = ProviderRates(store), GrantedRate(tokens_per_minute=100)
    await taken(rates, rate, tokens=1000)

    refused = await rates.take(PROVIDER, rate, tokens=1)

    assert isinstance(refused, NoRoom)  # the bucket owes 900: nine minutes
    assert 9 * 60 < refused.wait_seconds <= 9 * 60 + 1


@pytest.mark.parametrize(("used", "expected"), [(10, 990), (100, 900), (150, 850)])
async def test_settling_books_what_was_used(store: RedisStore, used: int, expected: int) -> None:
    rates = ProviderRates(store)
    take = await taken(rates, GrantedRate(requests_per_minute=10, tokens_per_minute=1000), tokens=100)

    take.used(used)
    await rates.close()

    assert (await left(store, "r"), await left(store, "t")) == (9, expected)


@pytest.mark.parametrize(("reached", "requests"), [(True, 9), (False, 10)])
async def test_what_failed_gives_its_tokens_back_and_its_request_where_nobody_saw_it(
    store: RedisStore, reached: bool, requests: int
) -> None:
    rates = ProviderRates(store)
    take = await taken(rates, GrantedRate(requests_per_minute=10, tokens_per_minute=1000), tokens=100)

    take.unused(reached_provider=reached)
    await rates.close()

    assert (await left(store, "r"), await left(store, "t")) == (requests, 1000)


async def test_a_bucket_that_was_forgotten_is_full(store: RedisStore) -> None:
    rates = ProviderRates(store)
    take = await taken(rates, GrantedRate(tokens_per_minute=1000), tokens=100)
    await command(store, "DEL", KEY)

    take.used(1)
    await rates.close()

    assert await command(store, "EXISTS", KEY) == 0


async def test_buckets_that_nobody_uses_go_by_themselves(store: RedisStore) -> None:
    await taken(ProviderRates(store), GrantedRate(requests_per_minute=10))

    expires_ms = await command(store, "PTTL", KEY)

    assert isinstance(expires_ms, int)
    assert MINUTE_MS - 1000 < expires_ms <= 2 * MINUTE_MS


async def test_a_bucket_in_debt_is_remembered_until_it_is_paid(store: RedisStore) -> None:
    """Forgotten means full: what owes ten minutes must not be forgotten after two."""
    await taken(ProviderRates(store), GrantedRate(tokens_per_minute=100), tokens=1000)

    expires_ms = await command(store, "PTTL", KEY)

    assert isinstance(expires_ms, int)
    assert expires_ms > 9 * MINUTE_MS


async def test_what_was_not_limited_before_is_no_debt_once_it_is(store: RedisStore) -> None:
    rates = ProviderRates(store)
    for _ in range(5):
        take = await taken(rates, GrantedRate(tokens_per_minute=1000), tokens=10)
        take.unused(reached_provider=True)
    await rates.close()

    await taken(rates, GrantedRate(requests_per_minute=2, tokens_per_minute=1000), tokens=10)

    assert await left(store, "r") == 1


async def test_at_once_exactly_as_many_go_as_there_is_room_for(store: RedisStore) -> None:
    rate = GrantedRate(requests_per_minute=50)
    several = [ProviderRates(store), ProviderRates(store)]

    taken_ = await asyncio.gather(*(rates.take(PROVIDER, rate, tokens=0) for rates in several for _ in range(100)))

    assert sum(isinstance(one, Take) for one in taken_) == 50


async def test_with_the_store_away_nothing_is_taken_and_nothing_refused(tmp_path: Path) -> None:
    rates = ProviderRates(RedisStore(f"unix://{tmp_path}/none.sock"))

    assert await rates.take(PROVIDER, GrantedRate(requests_per_minute=1), tokens=5) is None
    rates.put_back(PROVIDER, requests=1, tokens=5)
    await rates.close()
