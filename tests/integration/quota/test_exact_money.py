"""Money stays exact: to the femto-dollar in small, and far beyond where a double no longer tells nano-dollars apart."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import pytest

from llm_sidecar.prices import Prices
from llm_sidecar.quota import QuotaExceeded
from tests.integration.quota.machine import Place
from tests.integration.quota.money import Team
from tests.integration.quota.world import FEMTO

NANO_PER_USD: Final = 10**9
TINY: Final = Prices(input=7, cached_input=7, cache_write=7, output=7)
"""Of this model, 142 tokens cost less than a thousandth of a nano-dollar."""
HUGE: Final = Prices(input=0, cached_input=0, cache_write=0, output=10**15 - 1)
"""A femto-dollar less than a dollar for each token."""


@pytest.mark.parametrize(
    ("prices", "tokens"),
    [(TINY, [1, 142, 143, 999, 1_000_001] * 40), (HUGE, [1, 3, 7, 3699, 11] * 40)],
    ids=["fractions of a nano-dollar", "more than a hundred thousand dollars"],
)
def test_counter_and_ledger_are_the_sum_to_the_femto_dollar(
    store_place: Place, prices: Prices, tokens: list[int]
) -> None:
    async def example(team: Team) -> None:
        spent = [await team.spend(one, prices) for one in tokens]

        assert await team.used() == (sum(spent), sum(spent))
        assert sum(spent) > (100_000 if prices is HUGE else 0) * NANO_PER_USD
        await team.end()

    store_place.run(example(Team(store_place, "9000000")))


def test_the_last_nano_dollar_of_nine_million_dollars_is_spent_and_no_more(store_place: Place) -> None:
    """In nano-dollars that is 9·10¹⁵, where a double is hardly able to count one by one."""

    async def example(team: Team) -> None:
        one_nano = Prices(input=0, cached_input=0, cache_write=0, output=FEMTO)
        for _ in range(9):
            await team.spend(10**15 - 1, one_nano)
        await team.settled()
        await team.spend(8, one_nano)
        await team.settled()
        await team.spend(1, one_nano)

        assert await team.used() == (Fraction(9 * 10**15), Fraction(9 * 10**15))
        with pytest.raises(QuotaExceeded) as caught:
            await team.reserve(1, one_nano)
        assert (caught.value.refusal.used, caught.value.refusal.requested) == (9 * 10**15, 1)
        await team.end()

    store_place.run(example(Team(store_place, "9000000")))


def test_what_rounds_up_to_a_nano_dollar_is_held_and_only_what_it_cost_is_charged(store_place: Place) -> None:
    async def example(team: Team) -> None:
        first = await team.reserve(1, TINY)
        with pytest.raises(QuotaExceeded):
            await team.reserve(1, TINY)
        team.quota.release(first)
        await team.settled()
        for _ in range(1000):
            await team.spend(1, TINY)
            await team.settled()

        assert await team.used() == (Fraction(7000, FEMTO), Fraction(7000, FEMTO))
        await team.end()

    store_place.run(example(Team(store_place, "0.000000001")))
