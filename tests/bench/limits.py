"""The limits that are measured: one, and eight of all units. No run reaches any, yet each is reserved and settled."""

from __future__ import annotations

from typing import Any, Final

_HUGE: Final = 10**15
ONE_LIMIT: Final[tuple[dict[str, Any], ...]] = ({"name": "daily", "per": "Day", "tokens": _HUGE},)
EIGHT_LIMITS: Final[tuple[dict[str, Any], ...]] = (
    *ONE_LIMIT,
    {"name": "tokens-a-minute", "per": "Minute", "tokens": _HUGE},
    {"name": "tokens-a-month", "per": "Month", "tokens": _HUGE},
    {"name": "requests-a-minute", "per": "Minute", "requests": _HUGE},
    {"name": "requests-a-day", "per": "Day", "requests": _HUGE},
    {"name": "budget-of-a-day", "per": "Day", "costUSD": "9000000"},
    {"name": "budget-of-a-month", "per": "Month", "costUSD": "9000000"},
    {"name": "at-a-time", "concurrentRequests": _HUGE},
)
LIMITS: Final = {len(limits): limits for limits in (ONE_LIMIT, EIGHT_LIMITS)}
"""By their number."""
