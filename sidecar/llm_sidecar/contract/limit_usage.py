"""How far each limit of a team is used at an instant, from its resource and its counters, as people are told. Pure.

The controller writes it into statuses and `llm-sidecar usage` prints it: one arithmetic, so that both say the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

from llm_sidecar.contract.limits import ExceededAction, Limit
from llm_sidecar.contract.quota_counters import (
    ENDLESS_MS,
    NANO_PER_USD,
    NO_PERIOD,
    CounterFigures,
    LimitUnit,
)
from llm_sidecar.contract.team_quota_resource import OnStoreUnavailable, TeamQuotaSpec
from llm_sidecar.contract.windows import Window, window_at

FIELD_OF_UNIT: Final = {
    LimitUnit.REQUESTS: "requests",
    LimitUnit.TOKENS: "tokens",
    LimitUnit.COST: "costUSD",
    LimitUnit.CONCURRENT: "concurrentRequests",
}
"""What a unit is called in a TeamQuota."""
LOCAL_SHARE_PERCENT: Final = 10
"""Under `LocalShare`, what all sidecars together may spend of a limit without the store (`quota/local_share.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUsage:
    """One limit in its current window. Amounts are whole numbers of its unit; of cost, of nano-USD."""

    figures: CounterFigures
    maximum: int
    """As the resource says, without what was granted on top."""
    is_shadow: bool = False
    """It refuses nothing."""

    @property
    def name(self) -> str:
        """The limit's name."""
        return self.figures.limit

    @property
    def unit(self) -> LimitUnit:
        """What it counts."""
        return self.figures.unit

    @property
    def used(self) -> int:
        """Charged since the window began, or since somebody reset it."""
        return self.figures.shown_used

    @property
    def reserved(self) -> int:
        """Held by requests under way."""
        return self.figures.held

    @property
    def limit(self) -> int:
        """The limit with what was granted on top."""
        return self.figures.shown_maximum(self.maximum)

    @property
    def remaining(self) -> int:
        """What a request may still take."""
        return max(0, self.limit - self.used - self.reserved)

    @property
    def share(self) -> Fraction:
        """Used, of the whole. Of requests under way at the same time it is how many there are."""
        taken = self.reserved if self.unit is LimitUnit.CONCURRENT else self.used
        return Fraction(taken, max(1, self.limit))

    @property
    def percent(self) -> int:
        """The same in whole per cent, rounded down: 100 means that nothing is left."""
        return int(self.share * 100)

    @property
    def has_window(self) -> bool:
        """False for requests under way at the same time, which nothing resets."""
        return self.figures.end_ms != ENDLESS_MS

    @property
    def refuses_for_long(self) -> bool:
        """True where reaching it refuses requests until its window ends."""
        return self.has_window and not self.is_shadow


def usage_at(spec: TeamQuotaSpec, counters: Iterable[CounterFigures], instant_ms: int) -> tuple[LimitUsage, ...]:
    """The limits in the order of the resource. One that nobody has used yet has zeros.

    `instant_ms` is of the store's clock, as the windows that it charges are.
    """
    known = {figures.counter: figures for figures in counters}
    return tuple(_usage(limit, spec.time_zone, known, instant_ms) for limit in spec.limits)


def _usage(limit: Limit, time_zone: str, known: dict[str, CounterFigures], instant_ms: int) -> LimitUsage:
    unit, maximum = limit_amount(limit)
    window = limit_window(limit, time_zone, instant_ms)
    empty = CounterFigures(
        limit=limit.name, unit=unit, per=limit.per or NO_PERIOD, start_ms=window.start_ms, end_ms=window.end_ms
    )
    return LimitUsage(
        figures=known.get(empty.counter, empty),
        maximum=maximum,
        is_shadow=limit.on_exceeded.action is ExceededAction.SHADOW,
    )


def limit_window(limit: Limit, time_zone: str, instant_ms: int) -> Window:
    """The window in which a limit counts at an instant."""
    return Window(0, ENDLESS_MS) if limit.per is None else window_at(limit.per, time_zone, instant_ms)


def limit_amount(limit: Limit) -> tuple[LimitUnit, int]:
    """What a limit counts, and how much it allows; cost in nano-USD."""
    if limit.cost_usd is not None:
        return LimitUnit.COST, int(Decimal(limit.cost_usd) * NANO_PER_USD)
    told = (
        (LimitUnit.REQUESTS, limit.requests),
        (LimitUnit.TOKENS, limit.tokens),
        (LimitUnit.CONCURRENT, limit.concurrent_requests),
    )
    return next((unit, amount) for unit, amount in told if amount is not None)


def beyond_without_store(usage: LimitUsage, policy: OnStoreUnavailable) -> int | None:
    """By how much a limit may be exceeded in one window because the store is away; None where nothing bounds it."""
    if usage.is_shadow or policy is OnStoreUnavailable.ALLOW:
        return None
    return usage.limit * LOCAL_SHARE_PERCENT // 100 if policy is OnStoreUnavailable.LOCAL_SHARE else 0


def tightest(usages: Iterable[LimitUsage]) -> LimitUsage | None:
    """The limit that is used most. Those that refuse nothing, or come and go, count only where there is no other."""
    return max(usages, key=lambda one: (one.refuses_for_long, one.share, one.figures.end_ms, one.name), default=None)


def amount_text(unit: LimitUnit, amount: int) -> str:
    """An amount as a resource writes it: cost as an exact decimal of US dollars, all others as whole numbers."""
    if unit is not LimitUnit.COST:
        return str(amount)
    sign, (dollars, nano) = "-" if amount < 0 else "", divmod(abs(amount), NANO_PER_USD)
    decimals = f"{nano:09}".rstrip("0").ljust(2, "0")
    return f"{sign}{dollars}.{decimals}"
