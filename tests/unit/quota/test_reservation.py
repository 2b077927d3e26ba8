from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_sidecar.contract.windows import Per, window_at
from llm_sidecar.quota import Quota, QuotaExceeded, QuotaStoreUnavailable, Reservation
from llm_sidecar.quota.scripts import quota_keys
from llm_sidecar.redis_store import RedisStore
from tests.unit.quota.conftest import (
    TEAM,
    command,
    counters,
    demand,
    end_leases,
    settle,
    settle_directly,
    settled,
    team_spec,
)

OpenQuota = Callable[..., Quota]
DAILY = {"name": "daily", "per": "Month", "tokens": 1000}
CALLS = {"name": "calls", "per": "Month", "requests": 50}


async def reserve(quota: Quota, request_id: str, *, input_tokens: int = 10, output_tokens: int = 90) -> Reservation:
    return await quota.reserve(request_id, demand(input_tokens, output_tokens))


async def test_a_settled_request_costs_what_it_used(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(DAILY, CALLS)
    reservation = await reserve(quota, "a")
    assert await counters(store) == {"daily|held": 100, "calls|held": 1}
    assert reservation.remaining == "daily=900"

    settle(quota, reservation, 37, "measured")
    await settled(quota)

    assert await counters(store) == {"daily|held": 0, "daily|used": 37, "calls|held": 0, "calls|used": 1}
    assert await command(store, "HLEN", quota_keys(TEAM)[2]) == 0
    assert await command(store, "ZCARD", quota_keys(TEAM)[1]) == 0
    assert quota.settled_by_source == {"measured": 1}


async def test_a_released_request_costs_nothing(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(DAILY, CALLS)
    quota.release(await reserve(quota, "a"))
    await settled(quota)

    assert set((await counters(store)).values()) == {0}


async def test_without_limits_nobody_is_asked_before_a_call(tmp_path: Path, open_quota: OpenQuota) -> None:
    away = RedisStore(f"unix://{tmp_path}/none.sock")
    quota = open_quota(store=away, policy="Deny")

    reservation = await reserve(quota, "a")
    quota.release(reservation)

    assert reservation.backed
    assert quota.pending_settlements == 0


async def test_without_limits_the_ledger_hears_of_every_call(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota()
    settle(quota, await reserve(quota, "a"), 5, "measured")
    await settled(quota)
    assert await command(store, "XLEN", quota_keys(TEAM)[3]) == 1
    assert await counters(store) == {}


async def test_two_hundred_at_once_with_room_for_fifty_admit_exactly_fifty(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    sidecars = [open_quota(CALLS) for _ in range(4)]

    results = await asyncio.gather(
        *(reserve(sidecars[number % 4], f"request{number}") for number in range(200)), return_exceptions=True
    )

    assert sum(isinstance(result, Reservation) for result in results) == 50
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 150
    assert await counters(store) == {"calls|held": 50}


async def test_nothing_is_taken_from_one_limit_when_another_refuses(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(CALLS, DAILY)

    with pytest.raises(QuotaExceeded):
        await reserve(quota, "a", output_tokens=991)

    assert await counters(store) == {}


async def test_a_refusal_tells_the_limit_and_its_figures(open_quota: OpenQuota) -> None:
    quota = open_quota(CALLS, DAILY)
    settle(quota, await reserve(quota, "a"), 300, "measured")
    await settled(quota)
    await reserve(quota, "b", output_tokens=590)

    with pytest.raises(QuotaExceeded) as caught:
        await reserve(quota, "c", output_tokens=91)

    refusal = caught.value.refusal
    assert (refusal.limit_name, refusal.unit, refusal.per) == ("daily", "tokens", "Month")
    assert (refusal.limit, refusal.used, refusal.reserved, refusal.requested) == (1000, 300, 600, 101)
    assert not refusal.never_fits
    assert refusal.resets_at_ms is not None
    assert refusal.resets_at_ms % 60_000 == 0
    assert refusal.retry_after_ms <= 1000  # only holds are in the way


async def test_waiting_for_the_window_is_told_where_usage_is_in_the_way(open_quota: OpenQuota) -> None:
    quota = open_quota({"name": "monthly", "per": "Month", "tokens": 100})
    settle(quota, await reserve(quota, "a"), 100, "measured")
    await settled(quota)

    with pytest.raises(QuotaExceeded) as caught:
        await reserve(quota, "b", output_tokens=0)

    assert caught.value.refusal.resets_at_ms is not None
    now_ms = caught.value.refusal.resets_at_ms - caught.value.refusal.retry_after_ms
    assert caught.value.refusal.resets_at_ms == window_at(Per.MONTH, "UTC", now_ms).end_ms


async def test_a_request_larger_than_a_limit_says_that_it_never_fits(open_quota: OpenQuota) -> None:
    quota = open_quota(
        {"name": "minutely", "per": "Minute", "tokens": 50}, {"name": "calls", "per": "Month", "requests": 1}
    )
    await reserve(quota, "a", input_tokens=1, output_tokens=1)

    with pytest.raises(QuotaExceeded) as caught:
        await reserve(quota, "b", input_tokens=1, output_tokens=50)

    assert caught.value.refusal.limit_name == "minutely"
    assert caught.value.refusal.never_fits


async def test_settling_twice_charges_once(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(DAILY)
    reservation = await reserve(quota, "a")
    settle(quota, reservation, 40, "measured")
    settle(quota, reservation, 40, "measured")
    quota.release(reservation)
    await settled(quota)
    counter = reservation.counters[0][1]

    await settle_directly(store, "a", "again", counter, 40)

    assert (await counters(store))["daily|used"] == 40


async def test_a_repeated_settle_that_overtakes_the_first_charges_once(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    quota = open_quota(DAILY)
    counter = (await reserve(quota, "a")).counters[0][1]

    for mode in ("again", "first", "again"):
        await settle_directly(store, "a", mode, counter, 40)

    assert await counters(store) == {"daily|used": 40, "daily|held": 0}


async def test_a_settle_whose_hold_the_store_lost_is_charged(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(DAILY)
    reservation = await reserve(quota, "a")
    await command(store, "FLUSHALL")

    settle(quota, reservation, 40, "measured")
    await settled(quota)

    assert await counters(store) == {"daily|used": 40}


async def test_a_killed_sidecar_is_charged_its_input_when_its_lease_ends(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    killed, alive = open_quota(DAILY, CALLS), open_quota(DAILY, CALLS)
    await reserve(killed, "lost", input_tokens=10, output_tokens=980)
    with pytest.raises(QuotaExceeded):
        await reserve(alive, "too early")
    await end_leases(store)

    await reserve(alive, "a")

    assert await counters(store) == {"daily|held": 100, "daily|used": 10, "calls|held": 1, "calls|used": 1}


@pytest.mark.parametrize("total_tokens", [3, 400])
async def test_a_settle_after_the_lease_ended_charges_the_difference(
    store: RedisStore, open_quota: OpenQuota, total_tokens: int
) -> None:
    quota, other = open_quota(DAILY, CALLS), open_quota(DAILY, CALLS)
    late = await reserve(quota, "late", input_tokens=10)
    await end_leases(store)
    await reserve(other, "a")

    settle(quota, late, total_tokens, "measured")
    await settled(quota)

    found = await counters(store)
    assert (found["daily|used"], found["calls|used"]) == (total_tokens, 1)
    assert (found["daily|held"], found["calls|held"]) == (100, 1)


async def test_many_ended_leases_do_not_cause_a_false_refusal(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota({"name": "daily", "per": "Day", "tokens": 30_000})
    await asyncio.gather(*(reserve(quota, f"lost{n}", input_tokens=0, output_tokens=100) for n in range(300)))
    await end_leases(store)

    await reserve(quota, "a", output_tokens=29_990)


async def test_an_open_request_keeps_its_lease(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(DAILY, lease_seconds=0.3)
    await reserve(quota, "stream")
    leases = quota_keys(TEAM)[1]
    first_end = await command(store, "ZSCORE", leases, "stream")

    async with asyncio.timeout(10):
        while await command(store, "ZSCORE", leases, "stream") == first_end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_new_limit_counts_at_once_and_keeps_what_is_spent(open_quota: OpenQuota) -> None:
    quota = open_quota(DAILY)
    settle(quota, await reserve(quota, "a"), 500, "measured")
    await settled(quota)

    quota.configure(team_spec({**DAILY, "tokens": 400}))
    with pytest.raises(QuotaExceeded) as caught:
        await reserve(quota, "b")
    quota.configure(team_spec({**DAILY, "tokens": 2000}))
    reservation = await reserve(quota, "c")

    assert (caught.value.refusal.used, caught.value.refusal.limit) == (500, 400)
    assert reservation.remaining == "daily=1400"


async def test_a_window_that_rolls_over_is_empty_and_the_old_one_gets_its_settles(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    """Windows are laid so that the store's real time is in the following one."""
    quota = open_quota({**DAILY, "per": "Minute"}, lease_seconds=600)
    before = await reserve(quota, "before", input_tokens=0, output_tokens=1000)
    old_counter = before.counters[0][1]
    pair = quota._windows["daily"]
    fields = await command(store, "HGETALL", quota_keys(TEAM)[0])
    assert isinstance(fields, list)
    past = old_counter.replace(str(pair.current.end_ms), "1000").replace(str(pair.current.start_ms), "0")
    await command(store, "HDEL", quota_keys(TEAM)[0], f"{old_counter}|held")
    await command(store, "HSET", quota_keys(TEAM)[0], f"{past}|held", 1000, f"{past}|used", 7)
    record = f"o\n{past}\t1000\t0\t0"
    await command(store, "HSET", quota_keys(TEAM)[2], "before", record)

    await reserve(quota, "after", output_tokens=90)
    assert await counters(store) == {"daily|held": 1100, "daily|used": 7}

    settle(quota, before, 600, "measured")
    await settled(quota)
    assert await command(store, "HGET", quota_keys(TEAM)[0], f"{past}|used") == b"607"

    await command(store, "HDEL", quota_keys(TEAM)[0], f"{old_counter}|held")
    await reserve(quota, "later", output_tokens=90)
    assert await command(store, "HEXISTS", quota_keys(TEAM)[0], f"{past}|used") == 0
    assert await command(store, "HEXISTS", quota_keys(TEAM)[0], f"{past}|held") == 0


@pytest.mark.parametrize("wrong_by_ms", [-90_000_000_000, -61_000, 61_000, 90_000_000_000])
async def test_the_clock_of_the_store_decides_not_ours(
    store: RedisStore, open_quota: OpenQuota, wrong_by_ms: int
) -> None:
    right = open_quota({**DAILY, "per": "Hour"})
    wrong = open_quota({**DAILY, "per": "Hour"}, clock_ms=lambda: right._clock_ms() + wrong_by_ms)

    one, two = await reserve(right, "a"), await reserve(wrong, "b")

    if one.counters[0][1] == two.counters[0][1]:  # always, but for a run over the full hour
        assert two.remaining == "daily=800"
    assert sum((await counters(store)).values()) == 200


async def test_amounts_beyond_the_exact_range_of_doubles_stay_exact(store: RedisStore, open_quota: OpenQuota) -> None:
    """2^53 is where a double no longer knows odd numbers."""
    limit = 2**53 - 1
    quota = open_quota({**DAILY, "tokens": limit})
    counter = (await reserve(quota, "a", input_tokens=0, output_tokens=1)).counters[0][1]
    await command(store, "HSET", quota_keys(TEAM)[0], f"{counter}|used", limit - 2)

    await reserve(quota, "b", input_tokens=0, output_tokens=1)
    with pytest.raises(QuotaExceeded) as caught:
        await reserve(quota, "c", input_tokens=0, output_tokens=1)
    await settle_directly(store, "b", "first", counter, 10**15 + 1)

    assert (caught.value.refusal.used, caught.value.refusal.reserved) == (limit - 2, 2)
    assert await counters(store) == {"daily|used": limit - 2 + 10**15 + 1, "daily|held": 1}


async def test_a_cancelled_caller_leaves_no_hold(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(DAILY)
    await reserve(quota, "warm")
    tasks = [asyncio.create_task(reserve(quota, f"gone{n}", output_tokens=0)) for n in range(20)]
    for number, task in enumerate(tasks):
        if number < 5:
            await asyncio.sleep(0)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    admitted = sum(isinstance(result, Reservation) for result in results)
    assert admitted < 20
    await settled(quota)

    assert (await counters(store))["daily|held"] == 100 + 10 * admitted


async def test_deny_refuses_by_its_own_name_while_the_store_is_away(tmp_path: Path, open_quota: OpenQuota) -> None:
    away = RedisStore(f"unix://{tmp_path}/none.sock")
    quota = open_quota(DAILY, store=away, policy="Deny")

    with pytest.raises(QuotaStoreUnavailable) as caught:
        await reserve(quota, "a")
    await away.close()

    assert caught.value.reason == "connection"


async def test_allow_lets_in_and_books_when_the_store_is_back(
    store: RedisStore, store_url: str, tmp_path: Path, open_quota: OpenQuota
) -> None:
    link = tmp_path / "store.sock"
    away = RedisStore(f"unix://{link}", timeout_seconds=5, open_seconds=0.05)
    quota = open_quota(DAILY, CALLS, store=away)

    reservation = await reserve(quota, "a")
    assert not reservation.backed
    assert reservation.remaining is None
    settle(quota, reservation, 40, "estimated")
    link.symlink_to(store_url.removeprefix("unix://"))
    await settled(quota)
    await away.close()

    assert await counters(store) == {"daily|used": 40, "calls|used": 1}


async def test_a_reservation_that_arrives_after_it_was_given_up_holds_nothing(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    """A paused server reads late what a dropped connection had sent."""
    quota = open_quota(DAILY)
    counter = (await reserve(quota, "warm", output_tokens=0)).counters[0][1]
    await settle_directly(store, "late", "unbacked", counter, 40)

    with pytest.raises(ValueError, match="settled already"):
        await reserve(quota, "late")

    assert await counters(store) == {"daily|held": 10, "daily|used": 40}


async def test_closing_gives_up_after_its_time_and_counts_what_is_lost(tmp_path: Path) -> None:
    away = RedisStore(f"unix://{tmp_path}/none.sock")
    quota = Quota(away, team=TEAM, spec=team_spec(DAILY))
    settle(quota, await reserve(quota, "a"), 40, "measured")

    await quota.close(timeout_seconds=0.01)
    await away.close()

    assert quota.dropped_settlements == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await quota.close(timeout_seconds=0)
    assert quota.dropped_settlements == 1


async def test_every_settlement_that_is_lost_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    away = RedisStore(f"unix://{tmp_path}/none.sock")
    quota = Quota(away, team=TEAM, spec=team_spec(DAILY), on_dropped=told.append)
    late = await reserve(quota, "late")
    for request_id in ("a", "b"):
        settle(quota, await reserve(quota, request_id), 40, "measured")

    await quota.close(timeout_seconds=0.01)
    assert told == [2]
    settle(quota, late, 40, "measured")
    assert told == [2, 1]
    assert (quota.dropped_settlements, quota.pending_settlements) == (3, 0)
    await away.close()


async def test_a_close_that_was_cancelled_may_be_done_again(store: RedisStore) -> None:
    quota = Quota(store, team=TEAM, spec=team_spec(DAILY))
    settle(quota, await reserve(quota, "a"), 40, "measured")
    closing = asyncio.ensure_future(quota.close(timeout_seconds=5))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)

    await quota.close(timeout_seconds=5)

    assert await counters(store) == {"daily|held": 0, "daily|used": 40}
    assert quota.dropped_settlements == 0
