"""How fast a limit is used, from what the controller itself read, and when nothing will be left. Pure.

What was charged is summed up over windows, because the window of a Minute limit is shorter than anything that could be
called a rate.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from llm_sidecar.contract.limit_usage import LimitUsage
from llm_sidecar.contract.quota_counters import CounterFigures

SHORTEST_MS: Final = 60_000
"""What less than a minute tells is chance."""
LONGEST_MS: Final = 3_600_000
SPACING_MS: Final = 15_000
"""Samples kept of an hour: 240, whatever the rhythm of reading."""
DIGITS: Final = 2
"""It is an estimate: more would say more than is known, and change with every breath."""
_MINUTE_MS: Final = 60_000


@dataclass(slots=True)
class BurnMeter:
    """Samples of one limit."""

    _total: int = 0
    _before: CounterFigures | None = None
    _samples: deque[tuple[int, int]] = field(default_factory=deque)
    _latest: tuple[int, int] | None = None

    def observe(self, at_ms: int, figures: CounterFigures) -> None:
        """Take what was read at an instant of the store's clock; one that is not later than the last is ignored."""
        if self._latest is not None and at_ms <= self._latest[0]:
            return
        if self._before is not None:
            is_same_window = figures.counter == self._before.counter
            # Less than before: the store lost something, or somebody set it right. Nothing was given back.
            self._total += max(0, figures.used - (self._before.used if is_same_window else 0))
        self._before = figures
        self._latest = (at_ms, self._total)
        if not self._samples or at_ms - self._samples[-1][0] >= SPACING_MS:
            self._samples.append(self._latest)
        while at_ms - self._samples[0][0] > LONGEST_MS:
            self._samples.popleft()

    def per_hour(self, span_ms: int) -> int | None:
        """Used in an hour, by the samples of the last `span_ms`; None where they cover less than a minute."""
        if self._latest is None:
            return None
        now_ms, total = self._latest
        first_ms, first_total = next(
            (sample for sample in self._samples if now_ms - sample[0] <= span_ms), self._latest
        )
        elapsed_ms = now_ms - first_ms
        if elapsed_ms < SHORTEST_MS:
            return None
        return rounded(Fraction((total - first_total) * LONGEST_MS, elapsed_ms), DIGITS)


def span_ms(usage: LimitUsage) -> int:
    """The span that tells of a limit's rate: an hour, or less where its window is short."""
    length_ms = usage.figures.end_ms - usage.figures.start_ms
    return min(LONGEST_MS, max(2 * SHORTEST_MS, length_ms // 6))


def exhausted_at_ms(usage: LimitUsage, per_hour: int | None, now_ms: int) -> int | None:
    """When nothing will be left, to the minute; None where that is after the window's end, or is so already."""
    left = usage.limit - usage.used
    if not per_hour or left <= 0:
        return None
    at_ms = now_ms + left * LONGEST_MS // per_hour
    at_ms = -(-at_ms // _MINUTE_MS) * _MINUTE_MS
    return at_ms if at_ms < usage.figures.end_ms else None


def rounded(amount: Fraction | int, digits: int) -> int:
    """The nearest whole number with so many digits that are not zeros at its end."""
    whole = round(amount)
    step = 10 ** max(0, len(str(abs(whole))) - digits)
    return int(round(Fraction(whole, step)) * step)
