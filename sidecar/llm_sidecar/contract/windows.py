"""Calendar windows of limits: in which minute, hour, day, week or month of a time zone an instant lies.

Pure arithmetic. Bounds are instants (milliseconds since 1970 UTC), so a day in a zone with summer time may be 23 or
25 hours long, and the two hours called "02" on the night that summer time ends are two windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo


class Per(StrEnum):
    """Length of a limit's window."""

    MINUTE = "Minute"
    HOUR = "Hour"
    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"


@dataclass(frozen=True, slots=True)
class Window:
    """One window, from `start_ms` to just before `end_ms`."""

    start_ms: int
    end_ms: int

    @property
    def key(self) -> str:
        """Name of the window in the store: its start in whole seconds, which grows with time and never repeats."""
        return str(self.start_ms // 1000)


def window_at(per: Per, zone: str, instant_ms: int) -> Window:
    """The window in which an instant lies. `zone` is a name of the IANA database."""
    zone_info = ZoneInfo(zone)
    if per in _SHORT_MS:
        return _short_window(_SHORT_MS[per], zone_info, instant_ms)
    today = _local(instant_ms, zone_info).date()
    first, following = _FIRST_DAY[per](today), _NEXT_FIRST_DAY[per]
    start_ms = _start_of_day(first, zone_info)
    while True:
        first = following(first)
        end_ms = _start_of_day(first, zone_info)
        # Clocks may go back over midnight: the date is yesterday's again, although the new window has begun.
        if instant_ms < end_ms:
            return Window(start_ms, end_ms)
        start_ms = end_ms


def next_window(per: Per, zone: str, window: Window) -> Window:
    """The window that begins where this one ends."""
    return window_at(per, zone, window.end_ms)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MS: Final = 24 * 60 * 60 * 1000
_SHORT_MS: Final = {Per.MINUTE: 60 * 1000, Per.HOUR: 60 * 60 * 1000}


def _local(instant_ms: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + timedelta(milliseconds=instant_ms)).astimezone(zone)


def _offset_ms(instant_ms: int, zone: ZoneInfo) -> int:
    offset = _local(instant_ms, zone).utcoffset() or timedelta()
    return offset // timedelta(milliseconds=1)


def _short_window(length_ms: int, zone: ZoneInfo, instant_ms: int) -> Window:
    """Minutes and hours by the clock on the wall, cut where the clock is changed.

    Most changes fall on a full hour and cut nothing. On Lord Howe Island the clock moves by half an hour, which
    leaves one hour of thirty minutes.
    """
    offset_ms = _offset_ms(instant_ms, zone)
    start_ms = instant_ms - (instant_ms + offset_ms) % length_ms
    end_ms = start_ms + length_ms
    if _offset_ms(start_ms, zone) != offset_ms:
        start_ms = _first_instant(start_ms, instant_ms, lambda at: _offset_ms(at, zone) == offset_ms)
    if _offset_ms(end_ms - 1, zone) != offset_ms:
        end_ms = _first_instant(instant_ms, end_ms, lambda at: _offset_ms(at, zone) != offset_ms)
    return Window(start_ms, end_ms)


def _start_of_day(day: date, zone: ZoneInfo) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    start_ms = (midnight - _EPOCH) // timedelta(milliseconds=1)
    if _local(start_ms - 1, zone).date() < day:
        return start_ms
    # Midnight was skipped by a change that began before it: the day begins with the change.
    return _first_instant(start_ms - _DAY_MS, start_ms, lambda at: _local(at, zone).date() >= day)


def _first_instant(before_ms: int, after_ms: int, reached: Callable[[int], bool]) -> int:
    """By bisection: `reached` is false at `before_ms`, true at `after_ms`, and changes once between them."""
    while after_ms - before_ms > 1:
        middle_ms = (before_ms + after_ms) // 2
        if reached(middle_ms):
            after_ms = middle_ms
        else:
            before_ms = middle_ms
    return after_ms


def _first_of_next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


_FIRST_DAY: Final[dict[Per, Callable[[date], date]]] = {
    Per.DAY: lambda day: day,
    Per.WEEK: lambda day: day - timedelta(days=day.weekday()),
    Per.MONTH: lambda day: day.replace(day=1),
}
_NEXT_FIRST_DAY: Final[dict[Per, Callable[[date], date]]] = {
    Per.DAY: lambda day: day + timedelta(days=1),
    Per.WEEK: lambda day: day + timedelta(days=7),
    Per.MONTH: _first_of_next_month,
}
