"""How fast a limit is used, by samples at times that the tests choose."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_operator.reconcile.burn_rate import BurnMeter, exhausted_at_ms, rounded, span_ms
from llm_sidecar.contract.limit_usage import LimitUsage, usage_at
from llm_sidecar.contract.quota_counters import CounterFigures
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec

HOUR = 3_600_000
MINUTE = 60_000
NOON = 1_764_072_000_000


def _usage(per: str = "Day", *, at_ms: int = NOON, used: int = 0, tokens: int = 1000, credit: int = 0) -> LimitUsage:
    spec = TeamQuotaSpec.model_validate({"limits": [{"name": "l", "per": per, "tokens": tokens}]})
    [empty] = usage_at(spec, [], at_ms)
    [usage] = usage_at(spec, [replace(empty.figures, used=used, credit=credit)], at_ms)
    return usage


def _figures(used: int, *, per: str = "Day", at_ms: int = NOON) -> CounterFigures:
    return _usage(per, at_ms=at_ms, used=used).figures


def _metered(*samples: tuple[int, int], per: str = "Day") -> BurnMeter:
    meter = BurnMeter()
    for after_ms, used in samples:
        meter.observe(NOON + after_ms, _figures(used, per=per, at_ms=NOON + after_ms))
    return meter


def test_less_than_a_minute_tells_nothing() -> None:
    assert BurnMeter().per_hour(HOUR) is None
    assert _metered((0, 0)).per_hour(HOUR) is None
    assert _metered((0, 0), (59_999, 100)).per_hour(HOUR) is None


def test_what_was_used_in_a_minute_is_sixtyfold_in_an_hour() -> None:
    assert _metered((0, 100), (MINUTE, 110)).per_hour(HOUR) == 600


def test_what_was_used_before_the_first_look_is_no_rate() -> None:
    assert _metered((0, 900), (MINUTE, 900)).per_hour(HOUR) == 0


def test_only_the_last_hour_counts() -> None:
    busy_then_quiet = [(minute * MINUTE, min(minute, 30) * 100) for minute in range(100)]

    assert _metered(*busy_then_quiet).per_hour(HOUR) == 0


def test_a_shorter_span_forgets_sooner() -> None:
    quiet_then_busy = [(minute * MINUTE, max(0, minute - 50) * 10) for minute in range(61)]
    meter = _metered(*quiet_then_busy)

    assert meter.per_hour(HOUR) == 100
    assert meter.per_hour(10 * MINUTE) == 600


def test_windows_that_end_meanwhile_add_up() -> None:
    # 30 a minute, and the counter begins anew with each.
    samples = [(second * 1000, (second % 60) // 2) for second in range(0, 301, 6)]

    rate = _metered(*samples, per="Minute").per_hour(5 * MINUTE)
    assert rate is not None
    assert 1500 <= rate <= 1800  # what came between the last look at a window and its end is not seen


def test_a_store_that_lost_something_gives_nothing_back() -> None:
    assert _metered((0, 500), (MINUTE, 600), (2 * MINUTE, 0), (3 * MINUTE, 100)).per_hour(HOUR) == 4000


def test_a_clock_that_stands_still_or_goes_back_is_ignored() -> None:
    assert _metered((0, 0), (MINUTE, 10), (MINUTE, 500), (-HOUR, 900)).per_hour(HOUR) == 600


@given(st.lists(st.tuples(st.integers(1, 600_000), st.integers(0, 10**12)), min_size=1, max_size=400))
def test_samples_are_bounded_and_rates_never_negative(steps: list[tuple[int, int]]) -> None:
    meter, at_ms = BurnMeter(), NOON
    for step_ms, used in steps:
        at_ms += step_ms
        meter.observe(at_ms, _figures(used))

        assert (meter.per_hour(HOUR) or 0) >= 0
        assert len(meter._samples) <= 242


@pytest.mark.parametrize(("per", "minutes"), [("Minute", 2), ("Hour", 10), ("Day", 60), ("Week", 60), ("Month", 60)])
def test_the_span_fits_the_window(per: str, minutes: int) -> None:
    assert span_ms(_usage(per)) == minutes * MINUTE


def test_exhaustion_is_told_where_it_falls_into_the_window() -> None:
    # 400 are left; 100 an hour takes four hours, and the day has twelve left.
    assert exhausted_at_ms(_usage(used=600), 100, NOON) == NOON + 4 * HOUR
    assert exhausted_at_ms(_usage(used=600), 30, NOON) is None


def test_exhaustion_is_told_to_the_next_full_minute() -> None:
    assert exhausted_at_ms(_usage(used=999), 100, NOON + 1) == NOON + MINUTE


def test_a_grant_postpones_exhaustion() -> None:
    assert exhausted_at_ms(_usage(used=600, credit=400), 100, NOON) == NOON + 8 * HOUR


@pytest.mark.parametrize(("used", "per_hour"), [(1000, 100), (2000, 100), (600, 0), (600, None)])
def test_nothing_is_expected_where_nothing_is_left_or_nothing_is_used(used: int, per_hour: int | None) -> None:
    assert exhausted_at_ms(_usage(used=used), per_hour, NOON) is None


@pytest.mark.parametrize(
    ("amount", "digits", "expected"),
    [(0, 2, 0), (7, 2, 7), (99, 2, 99), (149, 2, 150), (994, 2, 990), (12_345, 3, 12_300), (-1234, 2, -1200)],
)
def test_rounding_keeps_the_first_digits(amount: int, digits: int, expected: int) -> None:
    assert rounded(amount, digits) == expected
