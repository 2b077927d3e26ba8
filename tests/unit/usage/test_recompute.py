"""Counters against the ledger: what agrees, what does not, and setting it right."""

from __future__ import annotations

import pytest

from llm_sidecar.contract.keys import quota_counters, quota_ledger
from llm_sidecar.contract.quota_counters import read_counters
from llm_sidecar.quota import Charge, Demand, LedgerEntry, Quota, QuotaExceeded
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.usage.ledger import FEMTO_PER_NANO, counters_of, pages_of
from llm_sidecar.usage.recompute import Comparison, compare, correct
from tests.unit.usage.conftest import TEAM, Spend, command


async def _compared(store: RedisStore) -> dict[str, Comparison]:
    return {one.figures.limit: one for one in await compare(store, TEAM, ledger_is_whole=True)}


async def _set(store: RedisStore, limit: str, kind: str, value: int) -> None:
    _now, counters = await counters_of(store, TEAM)
    [counter] = [one.counter for one in counters if one.limit == limit]
    await command(store, "HSET", quota_counters(TEAM), f"{counter}|{kind}", value)


async def _correct(store: RedisStore) -> None:
    wrong = [one for one in (await _compared(store)).values() if one.is_wrong]
    await correct(store, TEAM, wrong, who="ann", reason="checked")


async def test_what_proxies_charged_agrees_with_the_ledger_to_the_last_femto_dollar(
    store: RedisStore, spend: Spend
) -> None:
    for tokens in (1, 2, 5, 1000, 7, 1):
        await spend(tokens)

    compared = await _compared(store)
    assert {name: one.difference for name, one in compared.items()} == {"calls": 0, "monthly": 0, "budget": 0}
    assert compared["monthly"].counted == 1016 * FEMTO_PER_NANO
    assert compared["budget"].in_ledger == 1016 * 333_333


async def test_abandoned_requests_agree_too(store: RedisStore, quota: Quota, spend: Spend) -> None:
    demand = Demand(model="m", input_tokens=500, expected_output_tokens=0, maximum_output_tokens=0)
    reservation = await quota.reserve("killed", demand)
    await command(store, "ZADD", f"llm-sidecar:v1:{{{TEAM}}}:quota:leases", "XX", 1, "killed")
    await spend(10)  # whose reservation takes the dead one's hold back
    assert (await _compared(store))["monthly"].counted == 510 * FEMTO_PER_NANO

    quota.settle(reservation, Charge(tokens=300), LedgerEntry(source="measured", model="m"))
    await spend(1)

    compared = await _compared(store)
    assert compared["monthly"].counted == 311 * FEMTO_PER_NANO
    assert [one.difference for one in compared.values()] == [0, 0, 0]


@pytest.mark.parametrize("limit", ["calls", "monthly", "budget"])
@pytest.mark.parametrize("value", [0, 4, 10**15])
async def test_a_counter_that_differs_is_found_and_set_right(
    store: RedisStore, spend: Spend, limit: str, value: int
) -> None:
    for tokens in (5, 50, 500):
        await spend(tokens)
    before = (await _compared(store))[limit].counted
    await _set(store, limit, "used", value)

    assert [name for name, one in (await _compared(store)).items() if one.is_wrong] == [limit]
    await _correct(store)

    compared = await _compared(store)
    assert not any(one.is_wrong for one in compared.values())
    assert compared[limit].counted == before


@pytest.mark.parametrize("rest", [0, 1, 999_999])
async def test_fractions_of_a_nano_dollar_are_set_right(store: RedisStore, spend: Spend, rest: int) -> None:
    for _ in range(4):
        await spend(2)  # 2 666 664 femto-dollars
    await _set(store, "budget", "rest", rest)

    await _correct(store)

    compared = await _compared(store)
    assert compared["budget"].difference == 0
    _now, counters = await counters_of(store, TEAM)
    assert [one.used for one in counters if one.limit == "budget"] == [2]


async def test_charges_that_come_while_it_is_set_right_are_kept(store: RedisStore, spend: Spend) -> None:
    await spend(100)
    await _set(store, "monthly", "used", 40)
    wrong = [one for one in (await _compared(store)).values() if one.is_wrong]
    await spend(7)

    await correct(store, TEAM, wrong, who="ann", reason="checked")

    assert (await _compared(store))["monthly"].counted == 107 * FEMTO_PER_NANO


async def test_what_proxies_hold_and_what_was_granted_stays(store: RedisStore, quota: Quota, spend: Spend) -> None:
    await spend(100)
    demand = Demand(model="m", input_tokens=50, expected_output_tokens=0, maximum_output_tokens=0)
    await quota.reserve("under way", demand)
    await _set(store, "monthly", "credit", 9)
    await _set(store, "monthly", "used", 0)

    await _correct(store)

    _now, counters = await counters_of(store, TEAM)
    [monthly] = [one for one in counters if one.limit == "monthly"]
    assert (monthly.used, monthly.held, monthly.credit) == (100, 50, 9)


async def test_it_is_told_in_the_ledger_and_charges_nothing_there(store: RedisStore, spend: Spend) -> None:
    await spend(100)
    await _set(store, "monthly", "used", 40)

    await _correct(store)

    words = [line.words async for page in pages_of(store, TEAM) for line in page.lines][-1]
    assert {name: words[name] for name in ("source", "adjustment", "who", "reason", "charges")} == {
        "source": "adjusted",
        "adjustment": "recompute",
        "who": "ann",
        "reason": "checked",
        "charges": "",
    }
    assert words["corrections"].startswith("monthly|tokens|Month|")
    assert words["corrections"].endswith("\t60\t0")


async def test_windows_that_began_before_the_first_entry_are_not_compared(store: RedisStore, spend: Spend) -> None:
    """The ledger was cut there, or the store forgot: the counter may know more."""
    await spend(100)
    await _set(store, "monthly", "used", 999)

    compared = await compare(store, TEAM)

    assert {one.is_covered for one in compared} == {False}
    assert not any(one.is_wrong for one in compared)


async def test_a_window_that_began_after_the_first_entry_is_compared(store: RedisStore, spend: Spend) -> None:
    await command(store, "XADD", quota_ledger(TEAM), "1000-0", "id", "an old one")
    await spend(100)
    await _set(store, "monthly", "used", 999)

    compared = {one.figures.limit: one for one in await compare(store, TEAM)}

    assert (compared["monthly"].is_wrong, compared["calls"].is_wrong) == (True, False)


async def test_without_a_ledger_nothing_is_compared(store: RedisStore, spend: Spend) -> None:
    await spend(100)
    await command(store, "DEL", quota_ledger(TEAM))

    assert not any(one.is_wrong for one in await compare(store, TEAM, ledger_is_whole=True))


async def test_room_that_a_wrong_counter_took_away_is_there_again(store: RedisStore, spend: Spend) -> None:
    await spend(100)
    await _set(store, "monthly", "used", 1_000_000)
    with pytest.raises(QuotaExceeded):
        await spend(1)

    await _correct(store)

    await spend(1)


async def test_a_ledger_of_many_pages_is_summed_up_wholly(store: RedisStore, spend: Spend) -> None:
    await spend(1)
    flat = await command(store, "HGETALL", quota_counters(TEAM))
    assert isinstance(flat, list)
    names = [name for name in flat[::2] if isinstance(name, bytes)]
    [monthly] = [one.counter for one in read_counters(dict.fromkeys(names, b"0")) if one.limit == "monthly"]
    for _ in range(1100):
        await command(store, "XADD", quota_ledger(TEAM), "*", "charges", f"{monthly}\t2")

    assert (await _compared(store))["monthly"].in_ledger == 2201 * FEMTO_PER_NANO
