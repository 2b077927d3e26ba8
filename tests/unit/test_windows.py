"""Calendar windows: they tile time in every zone, and follow the clock on the wall."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.contract.windows import Per, Window, next_window, window_at

HOUR_MS = 3_600_000
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # half an hour off; until 2011 its clocks changed one minute after midnight
    "America/Havana",  # midnight occurs twice
    "America/Sao_Paulo",  # midnight did not occur
    "America/Toronto",  # in 1919 the clock went from 23:30 to 00:30
    "Africa/Monrovia",  # 44 minutes and 30 seconds off until 1972
    "Asia/Kathmandu",  # 5:45
    "Asia/Beirut",
    "Australia/Lord_Howe",  # the clock moves by half an hour
    "Pacific/Apia",  # had no 30 December 2011
    "Pacific/Kiritimati",
]
instants_ms = st.one_of(
    st.integers(min_value=-1_700_000_000_000, max_value=4_000_000_000_000),
    st.integers(min_value=1_400_000_000_000, max_value=1_900_000_000_000),
)
zones = st.sampled_from(ZONES)
periods = st.sampled_from(list(Per))


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def _hours(window: Window) -> float:
    return (window.end_ms - window.start_ms) / HOUR_MS


@given(per=periods, zone=zones, instant_ms=instants_ms)
def test_every_instant_lies_in_its_window(per: Per, zone: str, instant_ms: int) -> None:
    window = window_at(per, zone, instant_ms)
    assert window.start_ms <= instant_ms < window.end_ms


@given(per=periods, zone=zones, instant_ms=instants_ms, fraction=st.floats(min_value=0, max_value=1))
def test_all_instants_of_a_window_agree_on_it(per: Per, zone: str, instant_ms: int, fraction: float) -> None:
    window = window_at(per, zone, instant_ms)
    inside_ms = window.start_ms + int((window.end_ms - 1 - window.start_ms) * fraction)
    for other_ms in (window.start_ms, inside_ms, window.end_ms - 1):
        assert window_at(per, zone, other_ms) == window


@given(per=periods, zone=zones, instant_ms=instants_ms)
def test_windows_follow_each_other_without_gap_and_their_keys_grow(per: Per, zone: str, instant_ms: int) -> None:
    window = window_at(per, zone, instant_ms)
    following = next_window(per, zone, window)
    before = window_at(per, zone, window.start_ms - 1)
    assert before.end_ms == window.start_ms
    assert following.start_ms == window.end_ms
    assert int(before.key) < int(window.key) < int(following.key)


@given(zone=zones, instant_ms=instants_ms, per=st.sampled_from([Per.DAY, Per.WEEK, Per.MONTH]))
def test_a_long_window_begins_with_a_new_date(zone: str, instant_ms: int, per: Per) -> None:
    start_ms = window_at(per, zone, instant_ms).start_ms
    first, last = (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)).astimezone(ZoneInfo(zone)).date()
        for at in (start_ms, start_ms - 1)
    )
    assert first > last


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-11-01", "2026-04-05", "2026-02-28"])
def test_windows_found_one_after_the_other_are_those_found_directly(zone: str, day: str) -> None:
    """Walks every hour around changes of the clock."""
    window = window_at(Per.HOUR, zone, _ms(f"{day}T00:00+00:00"))
    for _ in range(30):
        following = next_window(Per.HOUR, zone, window)
        middle_ms = (following.start_ms + following.end_ms) // 2
        assert window_at(Per.HOUR, zone, middle_ms) == following
        assert 0 < _hours(following) <= 1
        window = following


@pytest.mark.parametrize(
    ("per", "instant", "start", "end"),
    [
        (Per.MINUTE, "2026-11-22T12:34:56.789+00:00", "2026-11-22T12:34+00:00", "2026-11-22T12:35+00:00"),
        (Per.HOUR, "2026-11-22T12:34:56+00:00", "2026-11-22T12:00+00:00", "2026-11-22T13:00+00:00"),
        (Per.DAY, "2026-11-22T23:59:59.999+00:00", "2026-11-22T00:00+00:00", "2026-11-23T00:00+00:00"),
        (Per.DAY, "2026-11-23T00:00:00+00:00", "2026-11-23T00:00+00:00", "2026-11-24T00:00+00:00"),
        (Per.WEEK, "2026-11-22T12:00:00+00:00", "2026-11-16T00:00+00:00", "2026-11-23T00:00+00:00"),
        (Per.WEEK, "2027-01-01T12:00:00+00:00", "2026-12-28T00:00+00:00", "2027-01-04T00:00+00:00"),
        (Per.MONTH, "2028-02-29T12:00:00+00:00", "2028-02-01T00:00+00:00", "2028-03-01T00:00+00:00"),
        (Per.MONTH, "2026-12-31T23:59:59+00:00", "2026-12-01T00:00+00:00", "2027-01-01T00:00+00:00"),
    ],
)
def test_windows_in_utc(per: Per, instant: str, start: str, end: str) -> None:
    assert window_at(per, "UTC", _ms(instant)) == Window(_ms(start), _ms(end))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00+02:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00+01:00", 25),
        ("Europe/Berlin", "2026-06-01T12:00+02:00", 24),
        ("Australia/Lord_Howe", "2026-04-05T12:00+10:30", 24.5),
        ("America/Havana", "2026-11-01T12:00-05:00", 25),
        ("Asia/Beirut", "2026-03-29T12:00+03:00", 23),
        ("Pacific/Apia", "2011-12-29T12:00-10:00", 24),
        ("Pacific/Apia", "2011-12-31T12:00+14:00", 24),
    ],
)
def test_a_day_is_as_long_as_the_clock_on_the_wall_makes_it(zone: str, day: str, hours: float) -> None:
    assert _hours(window_at(Per.DAY, zone, _ms(day))) == hours


def test_the_hour_that_occurs_twice_is_two_windows() -> None:
    first = window_at(Per.HOUR, "Europe/Berlin", _ms("2026-10-25T02:30+02:00"))
    second = window_at(Per.HOUR, "Europe/Berlin", _ms("2026-10-25T02:30+01:00"))
    assert first.end_ms == second.start_ms
    assert (_hours(first), _hours(second)) == (1, 1)
    assert first.key != second.key


def test_a_change_of_half_an_hour_cuts_an_hour() -> None:
    window = window_at(Per.HOUR, "Australia/Lord_Howe", _ms("2026-10-04T02:40+11:00"))
    assert window == Window(_ms("2026-10-04T02:30+11:00"), _ms("2026-10-04T03:00+11:00"))


def test_hours_of_a_zone_with_an_odd_offset_begin_on_its_own_full_hours() -> None:
    window = window_at(Per.HOUR, "Asia/Kathmandu", _ms("2026-11-22T12:10+05:45"))
    assert window == Window(_ms("2026-11-22T12:00+05:45"), _ms("2026-11-22T13:00+05:45"))


def test_a_day_that_ends_a_minute_after_midnight_by_the_wall_is_still_one_window() -> None:
    """In St John's the clock went from 00:01 back to 23:01: the date was yesterday's again for an hour."""
    again_yesterday_ms = _ms("2010-11-07T23:30-03:30") - 24 * HOUR_MS
    window = window_at(Per.DAY, "America/St_Johns", again_yesterday_ms)
    assert window.start_ms <= again_yesterday_ms < window.end_ms
    assert _hours(window) == 25


def test_the_key_is_the_start_in_seconds() -> None:
    assert window_at(Per.DAY, "UTC", _ms("2026-11-22T12:00+00:00")).key == "1795305600"
