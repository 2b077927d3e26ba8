"""A team's limits, compiled from its resource, and the windows that they count in. Pure: no clock, no store."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Self

from llm_sidecar.contract.keys import quota_counter
from llm_sidecar.contract.limits import ExceededAction, Limit, Reservation
from llm_sidecar.contract.quota_counters import ENDLESS_MS, NANO_PER_USD, NO_PERIOD, LimitUnit
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.contract.windows import Per, Window, next_window, window_at

_ENDLESS: Final = Window(0, ENDLESS_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPair:
    """The current window of a limit and the next: Redis's clock decides between them."""

    counters: tuple[str, str]
    current: Window
    following: Window

    def holds(self, instant_ms: int) -> bool:
        """True while the first of the two is the current window."""
        return self.current.start_ms <= instant_ms < self.current.end_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLimit:
    """One limit of a team, in calendar windows of its time zone, or without a window."""

    name: str
    unit: LimitUnit
    maximum: int
    """In the unit; cost in nano-USD."""
    per: Per | None = None
    time_zone: str = "UTC"
    models: tuple[str, ...] = ()
    reserves_maximum: bool = False
    is_shadow: bool = False
    """It refuses nothing, and tells what it would have refused."""
    downgrade_at_percent: int | None = None
    thresholds: str = ""
    """Percentages to report, ascending, with commas: as the script takes them."""

    def windows_at(self, instant_ms: int) -> WindowPair:
        """The window of an instant, and the one after it."""
        if self.per is None:
            counter = self._counter(_ENDLESS)
            return WindowPair(counters=(counter, counter), current=_ENDLESS, following=_ENDLESS)
        current = window_at(self.per, self.time_zone, instant_ms)
        following = next_window(self.per, self.time_zone, current)
        return WindowPair(
            counters=(self._counter(current), self._counter(following)), current=current, following=following
        )

    def applies_to(self, model: str) -> bool:
        """True where it counts what this model answers."""
        return not self.models or any(_matches(model, pattern) for pattern in self.models)

    def _counter(self, window: Window) -> str:
        return quota_counter(self.name, self.unit, self.per or NO_PERIOD, window.start_ms, window.end_ms)


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """The limits that count one model's answers, and what every request asks of them."""

    limits: tuple[QuotaLimit, ...]
    refuse_unpriced: bool
    reserve_maximum: bool
    downgrade: tuple[tuple[str, int], ...]
    """Names of those that say Downgrade, and from which percentage on."""

    @classmethod
    def of(cls, limits: tuple[QuotaLimit, ...]) -> Self:
        """Of limits that all apply to it."""
        return cls(
            limits,
            refuse_unpriced=any(limit.unit is LimitUnit.COST and not limit.is_shadow for limit in limits),
            reserve_maximum=any(limit.reserves_maximum for limit in limits),
            downgrade=tuple(
                (limit.name, limit.downgrade_at_percent) for limit in limits if limit.downgrade_at_percent is not None
            ),
        )


def held_window(counter: str) -> WindowPair:
    """The window of a counter in which something is held already: current or not, it is the one that counts."""
    start_ms, end_ms = counter.rsplit("|", 2)[1:]
    window = Window(int(start_ms), int(end_ms))
    return WindowPair(counters=(counter, counter), current=window, following=window)


def compile_limits(spec: TeamQuotaSpec) -> tuple[QuotaLimit, ...]:
    """The limits of a team, in the order of its resource."""
    thresholds = ",".join(str(percent) for percent in sorted(spec.alerts.thresholds_percent))
    return tuple(_compile(limit, spec.time_zone, thresholds) for limit in spec.limits)


def _compile(limit: Limit, time_zone: str, thresholds: str) -> QuotaLimit:
    unit, maximum = _amount(limit)
    action = limit.on_exceeded.action
    return QuotaLimit(
        name=limit.name,
        unit=unit,
        maximum=maximum,
        per=limit.per,
        time_zone=time_zone,
        models=limit.models,
        reserves_maximum=limit.reservation is Reservation.MAXIMUM,
        is_shadow=action is ExceededAction.SHADOW,
        downgrade_at_percent=limit.on_exceeded.downgrade_at_percent if action is ExceededAction.DOWNGRADE else None,
        # Requests under way come and go: that they are many is no news.
        thresholds="" if unit is LimitUnit.CONCURRENT else thresholds,
    )


def _amount(limit: Limit) -> tuple[LimitUnit, int]:
    if limit.cost_usd is not None:
        return LimitUnit.COST, int(Decimal(limit.cost_usd) * NANO_PER_USD)
    told = (
        (LimitUnit.REQUESTS, limit.requests),
        (LimitUnit.TOKENS, limit.tokens),
        (LimitUnit.CONCURRENT, limit.concurrent_requests),
    )
    return next((unit, amount) for unit, amount in told if amount is not None)


def _matches(text: str, pattern: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
