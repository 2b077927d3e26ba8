"""Whether counters say what the ledger says, and how to set them right.

Only windows that the ledger wholly covers are compared: it is cut at its old end, and a Redis that lost its data lost
the ledger, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from llm_sidecar.contract.keys import quota_counters, quota_ledger
from llm_sidecar.contract.quota_counters import CounterFigures, LimitUnit, read_counters
from llm_sidecar.store import Store, StoreUnavailable
from llm_sidecar.usage.ledger import CORRECT, FEMTO_PER_NANO, pages_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One counter. Amounts are in millionths of its unit."""

    figures: CounterFigures
    counted: int
    in_ledger: int
    is_covered: bool
    """False: the ledger does not reach back to the window's start, so the two need not agree."""

    @property
    def difference(self) -> int:
        """What the counter lacks."""
        return self.in_ledger - self.counted

    @property
    def is_wrong(self) -> bool:
        """The two should agree, and don't."""
        return self.is_covered and self.difference != 0


async def compare(store: Store, team: str, *, ledger_is_whole: bool = False) -> list[Comparison]:
    """Compare all counters with the ledger, as of one moment. Raises `StoreUnavailable`.

    `ledger_is_whole`: it was never cut, and Redis never lost anything; so its first entry was the first of all.
    """
    sums: dict[str, int] = {}
    first_ms: int | None = None
    counters: Mapping[bytes, bytes] = {}
    async for page in pages_of(store, team, with_counters=True):
        for line in page.lines:
            first_ms = line.at_ms if first_ms is None else first_ms
            for charge in line.charges:
                sums[charge.counter] = sums.get(charge.counter, 0) + charge.millionths
        counters = page.counters or {}
    covered_from_ms = None if first_ms is None else 0 if ledger_is_whole else first_ms + 1
    return [
        Comparison(
            figures=figures,
            counted=figures.used * FEMTO_PER_NANO + _rest(counters, figures.counter),
            in_ledger=sums.get(figures.counter, 0),
            is_covered=covered_from_ms is not None and figures.start_ms >= covered_from_ms,
        )
        for figures in read_counters(counters)
        if figures.unit is not LimitUnit.CONCURRENT
    ]


async def correct(store: Store, team: str, wrong: Sequence[Comparison], *, who: str, reason: str) -> None:
    """Give the counters what they lack. Raises `StoreUnavailable`; then it may or may not have happened."""
    arguments: list[str | int] = [uuid4().hex, who, reason]
    for one in wrong:
        sign = -1 if one.difference < 0 else 1
        whole, rest = divmod(abs(one.difference), FEMTO_PER_NANO)
        arguments += (one.figures.counter, sign * whole, sign * rest)
    if await store.run(CORRECT, [quota_counters(team), quota_ledger(team)], arguments) != len(wrong):
        raise StoreUnavailable("protocol")


def _rest(counters: Mapping[bytes, bytes], counter: str) -> int:
    try:
        return int(counters.get(f"{counter}|rest".encode(), b"0"))
    except ValueError:
        return 0
