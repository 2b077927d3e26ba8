"""When a settlement is told again: soon after the store is back, and not too often while it is in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from llm_sidecar.quota.settlement import Settlement, SettlementQueue, SettleMode
from llm_sidecar.store import StoreUnavailable

pytestmark = pytest.mark.looptime
AWAY = StoreUnavailable("connection", maybe_executed=False)
LATE = StoreUnavailable("timeout", maybe_executed=True)


class Ledger:
    """Books settlements, or raises what its trouble is at that moment; knows when it was asked."""

    def __init__(self) -> None:
        self.trouble: StoreUnavailable | None = None
        self.asked_at: list[float] = []
        self.booked_at: float | None = None

    async def book(self, batch: Sequence[Settlement]) -> None:
        now = asyncio.get_running_loop().time()
        self.asked_at.append(now)
        if self.trouble is not None:
            raise self.trouble
        self.booked_at = now

    def asked_between(self, first: float, last: float) -> int:
        return sum(first <= at < last for at in self.asked_at)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def settle(ledger: Ledger) -> AsyncIterator[Callable[[], None]]:
    queue = SettlementQueue(ledger.book)
    yield lambda: queue.add(Settlement(request_id="a", mode=SettleMode.FIRST, amounts=()))
    await queue.close(timeout_seconds=0)


async def test_what_waited_for_the_store_is_told_soon_after_it_is_back(
    ledger: Ledger, settle: Callable[[], None]
) -> None:
    """Until then its holds keep others out, and who is killed leaves no more behind than its lease."""
    ledger.trouble = AWAY
    settle()
    await asyncio.sleep(60)
    ledger.trouble = None
    await asyncio.sleep(0.25)

    assert ledger.booked_at is not None
    assert ledger.asked_between(0, 60) <= 60 / 0.125 + 1


async def test_a_store_that_answers_late_is_asked_ever_more_seldom(ledger: Ledger, settle: Callable[[], None]) -> None:
    ledger.trouble = LATE
    settle()
    await asyncio.sleep(60)

    assert ledger.asked_between(40, 60) <= 20 / 2.5 + 1


async def test_the_pauses_begin_anew_once_the_store_has_been_away(ledger: Ledger, settle: Callable[[], None]) -> None:
    ledger.trouble = LATE
    settle()
    await asyncio.sleep(60)
    ledger.trouble = AWAY
    await asyncio.sleep(10)
    ledger.trouble = LATE
    await asyncio.sleep(0.3)
    ledger.trouble = None
    await asyncio.sleep(0.5)

    assert ledger.booked_at is not None
