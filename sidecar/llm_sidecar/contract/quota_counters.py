"""A team's counters as they lie in the store, read: what each limit has used, holds and may still take. Pure.

Fields of the hash `keys.quota_counters(team)` are `COUNTER|KIND`, where COUNTER names limit, unit, `per` and window.
Proxies write them (`quota/lua`); the controller and the commands read them here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from llm_sidecar.contract.keys import quota_counter

NO_PERIOD: Final = "-"
"""Stands for `per` where a limit has no window."""
ENDLESS_MS: Final = 2**53 - 1
"""The end of a window that never ends."""
NANO_PER_USD: Final = 10**9


class LimitUnit(StrEnum):
    """What a limit counts. Cost is in nano-USD."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    COST = "cost"
    CONCURRENT = "concurrent"


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterFigures:
    """One limit in one window. Amounts are in the limit's unit; of cost, in whole nano-USD."""

    limit: str
    unit: LimitUnit
    per: str
    start_ms: int
    end_ms: int
    used: int = 0
    """Charged."""
    held: int = 0
    """Reserved by requests under way."""
    beyond: int = 0
    """By how much those requests may still exceed what they hold."""
    credit: int = 0
    """What somebody added to the room by hand, resets included."""
    reset: int = 0
    """The part of `credit` that came from resets."""
    alerted_percent: int = 0
    """The highest threshold that was reported."""

    @property
    def counter(self) -> str:
        """Its name in the store."""
        return quota_counter(self.limit, self.unit, self.per, self.start_ms, self.end_ms)

    @property
    def shown_used(self) -> int:
        """Used since the last reset, as people are told."""
        return max(0, self.used - self.reset)

    def shown_maximum(self, maximum: int) -> int:
        """The limit with what was granted on top, as people are told."""
        return maximum + self.credit - self.reset

    def holds(self, instant_ms: int) -> bool:
        """True for an instant of this window."""
        return self.start_ms <= instant_ms < self.end_ms


def read_counters(fields: Mapping[str, str] | Mapping[bytes, bytes]) -> list[CounterFigures]:
    """All counters of a hash, in the order of their names. What does not read like one is left out."""
    kinds: dict[str, dict[str, int]] = {}
    for field, value in fields.items():
        counter, bar, kind = _text(field).rpartition("|")
        if bar and kind in _KINDS:
            kinds.setdefault(counter, {})[_KINDS[kind]] = _number(_text(value))
    read = (_figures(counter, values) for counter, values in sorted(kinds.items()))
    return [figures for figures in read if figures is not None]


def pairs(flat: Iterable[bytes]) -> dict[bytes, bytes]:
    """A hash as the server tells it to a script: names and values in turn."""
    items = iter(flat)
    return dict(zip(items, items, strict=True))


_KINDS: Final = {
    "used": "used",
    "held": "held",
    "beyond": "beyond",
    "credit": "credit",
    "reset": "reset",
    "alerted": "alerted_percent",
}


def _figures(counter: str, values: Mapping[str, int]) -> CounterFigures | None:
    try:
        limit, unit, per, start_ms, end_ms = counter.split("|")
        return CounterFigures(
            limit=limit,
            unit=LimitUnit(unit),
            per=per,
            start_ms=int(start_ms),
            end_ms=int(end_ms),
            # Below zero only where keys were deleted by hand.
            **{kind: max(0, value) for kind, value in values.items()},
        )
    except ValueError:
        return None


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
