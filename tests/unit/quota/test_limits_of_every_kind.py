"""Cost, concurrency, models, shadow, credit: what each kind of limit does in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal

import pytest

from llm_sidecar.contract import keys
from llm_sidecar.prices import Prices
from llm_sidecar.quota import Quota, QuotaExceeded
from llm_sidecar.redis_store import RedisStore
from tests.unit.quota.conftest import TEAM, command, counters, demand, end_leases, settle, settled

OpenQuota = Callable[..., Quota]
BUDGET = {"name": "budget", "per": "Month", "costUSD": "1.00"}
PARALLEL = {"name": "parallel", "concurrentRequests": 2}
MICRO = Prices(input=10**9, cached_input=10**9, cache_write=10**9, output=10**10)
"""1 USD for a million tokens of input, 10 for output: a micro-dollar a token, in femto-dollars."""


async def entries(store: RedisStore, key: str) -> list[dict[str, str]]:
    """A stream's entries, oldest first."""
    reply = await command(store, "XRANGE", key, "-", "+")
    assert isinstance(reply, list)
    read: list[dict[str, str]] = []
    for entry in reply:
        assert isinstance(entry, list)
        words = entry[1]
        assert isinstance(words, list)
        text = [word.decode() for word in words if isinstance(word, bytes)]
        read.append(dict(zip(text[::2], text[1::2], strict=True)))
    return read


async def test_a_cost_limit_holds_and_charges_nano_dollars(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(BUDGET)
    reservation = await quota.reserve("a", demand(100, 50, prices=MICRO))
    assert await counters(store) == {"budget|held": 600_000}
    assert reservation.remaining == "budget=0.9994"

    settle(quota, reservation, 110, "measured", femto_usd=200_000 * 10**6)
    await settled(quota)
    assert await counters(store) == {"budget|held": 0, "budget|used": 200_000}


async def test_fractions_of_a_nano_dollar_add_up_exactly(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(BUDGET)
    for number in range(7):
        reservation = await quota.reserve(f"r{number}", demand(1, 0, prices=Prices(1, 1, 1, 1)))
        settle(quota, reservation, 1, "measured", femto_usd=300_001)
    await settled(quota)
    assert await counters(store) == {"budget|held": 0, "budget|used": 2, "budget|rest": 100_007}


async def test_money_beyond_any_double_stays_exact(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota({**BUDGET, "costUSD": "9000000"})
    one_dollar_less_a_nano = 9_000_000 * 10**9 - 10**9 + 1
    counter = (await quota.reserve("seed", demand(0, 0, prices=MICRO))).counters[0][1]
    await command(store, "HINCRBY", keys.quota_counters(TEAM), f"{counter}|used", one_dollar_less_a_nano - 1)

    await quota.reserve("fits", demand(1_000_000, 0, prices=MICRO))
    with pytest.raises(QuotaExceeded) as raised:
        await quota.reserve("not", demand(1, 0, prices=Prices(1, 1, 1, 1)))
    refusal = raised.value.refusal
    assert refusal.used + refusal.reserved + refusal.requested - refusal.limit == 1


async def test_at_most_so_many_requests_run_at_the_same_time(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(PARALLEL)
    first = await quota.reserve("a", demand(1, 1))
    await quota.reserve("b", demand(1, 1))
    with pytest.raises(QuotaExceeded) as raised:
        await quota.reserve("c", demand(1, 1))
    assert raised.value.refusal.resets_at_ms is None
    assert raised.value.refusal.retry_after_ms == 1000

    settle(quota, first, 5, "measured")
    await settled(quota)
    await quota.reserve("c", demand(1, 1))
    assert await counters(store) == {"parallel|held": 2}


async def test_a_killed_sidecar_frees_its_place_when_its_lease_ends(store: RedisStore, open_quota: OpenQuota) -> None:
    killed, alive = open_quota(PARALLEL), open_quota(PARALLEL)
    for name in "ab":
        await killed.reserve(name, demand(1, 1))
    await end_leases(store)
    await alive.reserve("c", demand(1, 1))
    assert await counters(store) == {"parallel|held": 1}


async def test_a_limit_of_some_models_counts_those_alone(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(
        {"name": "big", "per": "Day", "tokens": 100, "models": ["gpt-5*"]}, {"name": "all", "per": "Day", "tokens": 500}
    )
    await quota.reserve("a", demand(60, 0, model="gpt-5-pro"))
    await quota.reserve("b", demand(60, 0, model="claude"))
    assert await counters(store) == {"big|held": 60, "all|held": 120}
    with pytest.raises(QuotaExceeded, match="limit big"):
        await quota.reserve("c", demand(60, 0, model="gpt-5"))


async def test_a_shadow_limit_refuses_nothing_and_tells(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota({"name": "shadow", "per": "Day", "tokens": 10, "onExceeded": {"action": "Shadow"}})
    assert (await quota.reserve("a", demand(10, 0))).shadow_refused == ()
    assert (await quota.reserve("b", demand(1, 0))).shadow_refused == ("shadow",)
    assert await counters(store) == {"shadow|held": 11}


async def test_a_shadow_limit_is_not_told_as_the_tightest(open_quota: OpenQuota) -> None:
    shadow = {"name": "shadow", "per": "Day", "tokens": 1, "onExceeded": {"action": "Shadow"}}
    quota = open_quota(shadow, {"name": "daily", "per": "Day", "tokens": 100})
    assert (await quota.reserve("a", demand(10, 0))).remaining == "daily=90"
    assert (await open_quota(shadow).reserve("b", demand(10, 0))).remaining is None


async def test_a_shadow_cost_limit_refuses_no_model_without_a_price(open_quota: OpenQuota) -> None:
    shadow = {**BUDGET, "onExceeded": {"action": "Shadow"}}
    assert not open_quota(shadow).refuses_unpriced("m", has_price=False)
    assert open_quota(shadow, {**BUDGET, "name": "real"}).refuses_unpriced("m", has_price=False)


async def test_a_level_that_was_seen_a_while_ago_downgrades_nobody(open_quota: OpenQuota) -> None:
    later_ms = 0

    def clock_ms() -> int:
        return time.time_ns() // 1_000_000 + later_ms

    action = {"action": "Downgrade", "downgradeAtPercent": 80}
    limit = {"name": "big", "per": "Month", "tokens": 10, "models": ["m"], "onExceeded": action}
    quota = open_quota(limit, clock_ms=clock_ms)
    held = [await quota.reserve(f"r{number}", demand(1, 0, model="m")) for number in range(9)]
    assert quota.wants_cheaper("m")
    for one in held:
        quota.release(one)
    await settled(quota)

    later_ms = 1900
    await quota.reserve("a", demand(1, 0, model="small"))
    assert quota.wants_cheaper("m")
    later_ms = 2100
    assert not quota.wants_cheaper("m")
    await quota.reserve("b", demand(1, 0, model="m"))
    assert not quota.wants_cheaper("m")
    later_ms = -1000  # a clock that was put back must not keep it either
    assert not quota.wants_cheaper("m")


async def test_of_several_limits_the_cap_that_fits_them_all_is_told(open_quota: OpenQuota) -> None:
    limits = [{"name": str(tokens), "per": "Day", "tokens": tokens} for tokens in (1000, 500, 800)]
    quota = open_quota(*limits)
    with pytest.raises(QuotaExceeded) as raised:
        await quota.reserve("a", demand(100, 5000))
    refusal = raised.value.refusal
    assert (refusal.limit_name, refusal.never_fits, refusal.fitting_output_tokens) == ("500", True, 400)
    await quota.reserve("b", demand(100, 400))

    with pytest.raises(QuotaExceeded) as raised:
        await open_quota(*limits).reserve("c", demand(600, 5000))
    assert (raised.value.refusal.limit_name, raised.value.refusal.fitting_output_tokens) == ("500", None)


async def test_maximum_holds_the_bound_and_expected_what_is_usual(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(
        {"name": "strict", "per": "Day", "tokens": 10_000, "reservation": "Maximum"},
        {"name": "usual", "per": "Day", "tokens": 10_000},
    )
    reservation = await quota.reserve("a", demand(100, 900, expected_output_tokens=50, input_tokens_at_most=400))
    assert await counters(store) == {"strict|held": 1300, "usual|held": 150, "usual|beyond": 850}

    await quota.top_up(reservation, 200)
    assert await counters(store) == {"strict|held": 1300, "usual|held": 300, "usual|beyond": 700}
    settle(quota, reservation, 700, "measured")
    await settled(quota)
    assert {name: amount for name, amount in (await counters(store)).items() if amount} == {
        "strict|used": 700,
        "usual|used": 700,
    }


async def test_a_top_up_is_never_refused_and_keeps_others_out(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota({"name": "daily", "per": "Day", "tokens": 100})
    reservation = await quota.reserve("a", demand(10, 200, expected_output_tokens=20))
    await quota.reserve("b", demand(60, 0))
    await quota.top_up(reservation, 150)
    assert (await counters(store))["daily|held"] == 220
    with pytest.raises(QuotaExceeded):
        await quota.reserve("c", demand(1, 0))


async def test_a_top_up_after_the_end_holds_nothing(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota({"name": "daily", "per": "Day", "tokens": 100})
    reservation = await quota.reserve("a", demand(10, 80, expected_output_tokens=20))
    settle(quota, reservation, 12, "measured")
    await settled(quota)
    await quota._replace(reservation, demand(10, 80), quota.limits_of("gpt-5-mini"), mode="force")
    assert await counters(store) == {"daily|used": 12, "daily|held": 0, "daily|beyond": 0}


async def test_another_model_replaces_what_is_held_all_or_nothing(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota(BUDGET, {"name": "claude", "per": "Day", "requests": 1, "models": ["claude*"]})
    dear = Prices(input=10**10, cached_input=0, cache_write=0, output=10**11)
    reservation = await quota.reserve("a", demand(100, 50, prices=MICRO))
    await quota.revise(reservation, demand(100, 50, prices=dear, model="claude"))
    assert await counters(store) == {"budget|held": 6_000_000, "claude|held": 1}

    other = await quota.reserve("b", demand(100, 50, prices=MICRO))
    with pytest.raises(QuotaExceeded):
        await quota.revise(other, demand(100, 50, prices=dear, model="claude"))
    assert await counters(store) == {"budget|held": 6_600_000, "claude|held": 1}
    settle(quota, other, 150, "measured", femto_usd=600_000 * 10**6)
    settle(quota, reservation, 150, "measured", femto_usd=6_000_000 * 10**6)
    await settled(quota)
    found = await counters(store)
    assert (found["budget|used"], found["budget|held"]) == (6_600_000, 0)
    assert (found["claude|used"], found["claude|held"]) == (1, 0)


async def test_abandoned_requests_cost_nothing_where_the_team_says_so(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota({"name": "daily", "per": "Day", "tokens": 100}, on_abandoned="Release")
    await quota.reserve("a", demand(50, 10))
    await end_leases(store)
    await quota.reserve("b", demand(90, 10))
    assert await counters(store) == {"daily|held": 100}


async def test_credit_makes_room(store: RedisStore, open_quota: OpenQuota) -> None:
    quota = open_quota({"name": "daily", "per": "Day", "tokens": 100})
    counter = (await quota.reserve("a", demand(90, 0))).counters[0][1]
    await command(store, "HSET", keys.quota_counters(TEAM), f"{counter}|credit", 50)
    assert (await quota.reserve("b", demand(60, 0))).remaining == "daily=0"


async def test_each_threshold_is_told_once(store: RedisStore, open_quota: OpenQuota) -> None:
    sidecars = [open_quota({"name": "daily", "per": "Day", "tokens": 100}) for _ in range(3)]
    for number in range(12):
        quota = sidecars[number % 3]
        settle(quota, await quota.reserve(f"r{number}", demand(0, 0)), 9, "measured")
        await settled(quota)
    told = await entries(store, keys.quota_alerts(TEAM))
    assert [(entry["percent"], entry["used"]) for entry in told] == [
        ("50", "54"), ("80", "81"), ("95", "99"), ("100", "108")
    ]  # fmt: skip
    assert {(entry["limit"], entry["unit"], entry["per"], entry["maximum"]) for entry in told} == {
        ("daily", "tokens", "Day", "100")
    }


async def test_the_ledger_tells_every_charge_and_adds_up_to_the_counters(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    quota = open_quota({"name": "daily", "per": "Day", "tokens": 10_000}, BUDGET, sidecar="pod-1")
    late = await quota.reserve("late", demand(30, 5, prices=MICRO))
    await end_leases(store)
    done = await quota.reserve("done", demand(10, 5, prices=MICRO))
    settle(quota, done, 12, "measured", femto_usd=12_000_001)
    settle(quota, late, 33, "partial", femto_usd=33_000_000)
    quota.release(await quota.reserve("none", demand(1, 1, prices=MICRO)))
    await settled(quota)

    ledger = await entries(store, keys.quota_ledger(TEAM))
    assert [(entry["id"], entry["source"]) for entry in ledger] == [
        ("late", "abandoned"), ("done", "measured"), ("late", "partial")
    ]  # fmt: skip
    assert (ledger[1]["sidecar"], ledger[1]["nano_usd"], ledger[1]["femto_rest"]) == ("pod-1", "12", "1")
    sums: dict[str, Decimal] = {}
    for entry in ledger:
        for line in entry["charges"].splitlines():
            counter, delta = line.split("\t")
            name = counter.split("|")[0]
            sums[name] = sums.get(name, Decimal()) + Decimal(delta)
    assert sums == {"daily": Decimal(45), "budget": Decimal("45.000001")}
    found = await counters(store)
    assert (found["daily|used"], found["budget|used"], found["budget|rest"]) == (45, 45, 1)


@pytest.mark.parametrize("mode", ["revise", "force"])
async def test_whoever_asks_for_more_after_its_lease_had_ended_is_alive(
    store: RedisStore, open_quota: OpenQuota, mode: str
) -> None:
    quota = open_quota({"name": "daily", "per": "Day", "tokens": 1000})
    reservation = await quota.reserve("a", demand(10, 80, expected_output_tokens=20))
    await end_leases(store)
    if mode == "revise":
        await quota.revise(reservation, demand(10, 50, model="other"))
    else:
        await quota.top_up(reservation, 50)
    assert (await counters(store))["daily|held"] == 60
    settle(quota, reservation, 55, "measured")
    await settled(quota)
    found = await counters(store)
    assert (found["daily|used"], found["daily|held"]) == (55, 0)


async def test_a_request_that_was_given_up_for_dead_goes_on_with_another_model(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    quota = open_quota({"name": "daily", "per": "Day", "tokens": 1000})
    reservation = await quota.reserve("a", demand(10, 80))
    await end_leases(store)
    await quota.reserve("b", demand(1, 1))
    await quota.revise(reservation, demand(20, 80, model="other"))
    settle(quota, reservation, 55, "measured")
    await settled(quota)
    assert (await counters(store))["daily|used"] == 55


async def test_what_an_abandoned_request_was_charged_is_given_back_in_the_ledger_too(
    store: RedisStore, open_quota: OpenQuota
) -> None:
    quota = open_quota({"name": "daily", "per": "Day", "tokens": 1000})
    reservation = await quota.reserve("a", demand(10, 80))
    await end_leases(store)
    await quota.reserve("b", demand(1, 1))
    quota.release(reservation)
    await settled(quota)
    ledger = await entries(store, keys.quota_ledger(TEAM))
    assert [entry["source"] for entry in ledger] == ["abandoned", "released"]
    assert [entry["charges"].split("\t")[1] for entry in ledger] == ["10", "-10"]
    assert (await counters(store))["daily|used"] == 0


async def test_the_cap_that_is_told_is_that_of_each_answer(open_quota: OpenQuota) -> None:
    """Who asks for four of them and sets it must not be refused again."""
    quota = open_quota({"name": "daily", "per": "Day", "tokens": 1000})
    with pytest.raises(QuotaExceeded) as raised:
        await quota.reserve("a", demand(100, 4 * 5000, answers=4))
    assert raised.value.refusal.fitting_output_tokens == 225
    await quota.reserve("b", demand(100, 4 * 225, answers=4))

    with pytest.raises(QuotaExceeded) as raised:
        await open_quota({"name": "small", "per": "Day", "tokens": 103}).reserve("c", demand(100, 4000, answers=4))
    assert raised.value.refusal.fitting_output_tokens is None
