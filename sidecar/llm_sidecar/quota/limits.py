"""A team's limits, compiled from its resource, and the windows that they count in. Pure: no clock, no store."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llm_sidecar.contract.keys import quota_counter
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.contract.windows import Per, Window, next_window, window_at


class LimitUnit(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"


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
    """One limit of a team, in calendar windows of its time zone."""

    name: str
    unit: LimitUnit
    per: Per
    maximum: int
    time_zone: str

    def windows_at(self, instant_ms: int) -> WindowPair:
        """The window of an instant, and the one after it."""
        current = window_at(self.per, self.time_zone, instant_ms)
        following = next_window(self.per, self.time_zone, current)
        return WindowPair(
            counters=(self._counter(current), self._counter(following)), current=current, following=following
        )

    def amount(self, *, tokens: int) -> int:
        """What one request of so many tokens takes from this limit."""
        return 1 if self.unit is LimitUnit.REQUESTS else tokens

    def _counter(self, window: Window) -> str:
        return quota_counter(self.name, self.unit, self.per, window.start_ms, window.end_ms)


def compile_limits(spec: TeamQuotaSpec) -> tuple[QuotaLimit, ...]:
    """The limits of a team, in the order of its resource."""
    limits: list[QuotaLimit] = []
    for limit in spec.limits:
        amounts = {LimitUnit.REQUESTS: limit.requests, LimitUnit.TOKENS: limit.tokens}
        limits.extend(
            QuotaLimit(name=limit.name, unit=unit, per=limit.per, maximum=maximum, time_zone=spec.time_zone)
            for unit, maximum in amounts.items()
            if maximum is not None
        )
    return tuple(limits)
