from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.contract.limit_usage import (
    LOCAL_SHARE_PERCENT,
    LimitUsage,
    amount_text,
    beyond_without_store,
    tightest,
    usage_at,
)
from llm_sidecar.contract.quota_counters import CounterFigures, LimitUnit
from llm_sidecar.contract.team_quota_resource import OnStoreUnavailable, TeamQuotaSpec
from llm_sidecar.quota.limits import compile_limits
from llm_sidecar.quota.local_share import MILLION, WHOLE_PPM

NOON = 1_764_072_000_000
"""2025-11-25 12:00 UTC, a Tuesday."""


def _spec(*limits: dict[str, Any], time_zone: str = "Europe/Berlin") -> TeamQuotaSpec:
    return TeamQuotaSpec.model_validate({"limits": limits, "timeZone": time_zone})


def _only(limit: dict[str, Any], *counters: CounterFigures) -> LimitUsage:
    [usage] = usage_at(_spec(limit), counters, NOON)
    return usage


def _with(limit: dict[str, Any], **figures: Any) -> LimitUsage:
    return _only(limit, replace(_only(limit).figures, **figures))


DAILY = {"name": "daily", "per": "Day", "tokens": 1000}


def test_a_limit_that_nobody_used_yet_is_there_with_zeros_and_its_reset() -> None:
    usage = _only(DAILY)

    assert (usage.used, usage.reserved, usage.limit, usage.percent, usage.remaining) == (0, 0, 1000, 0, 1000)
    assert usage.figures.end_ms == NOON + 11 * 3_600_000  # midnight in Berlin


def test_counters_of_other_windows_and_other_units_do_not_count() -> None:
    now = _only(DAILY).figures
    yesterday = replace(now, start_ms=now.start_ms - 86_400_000, end_ms=now.start_ms, used=5)

    assert _only(DAILY, yesterday, replace(now, unit=LimitUnit.REQUESTS, used=7)).used == 0


@pytest.mark.parametrize(
    ("used", "percent"), [(0, 0), (9, 0), (10, 1), (499, 49), (999, 99), (1000, 100), (1001, 100), (2500, 250)]
)
def test_percent_is_rounded_down_so_that_100_means_that_nothing_is_left(used: int, percent: int) -> None:
    assert _with(DAILY, used=used).percent == percent


def test_a_grant_raises_the_limit_and_a_reset_lowers_what_is_used() -> None:
    granted = _with(DAILY, used=900, credit=500)
    assert (granted.used, granted.limit, granted.remaining, granted.percent) == (900, 1500, 600, 60)

    reset = _with(DAILY, used=900, credit=900, reset=900, held=10)
    assert (reset.used, reset.limit, reset.remaining, reset.percent) == (0, 1000, 990, 0)


@given(
    used=st.integers(0, 10**16), held=st.integers(0, 10**16), grant=st.integers(0, 10**16), reset=st.integers(0, 10**16)
)
def test_what_is_shown_as_remaining_is_the_room_by_which_the_scripts_decide(
    used: int, held: int, grant: int, reset: int
) -> None:
    reset = min(reset, used)
    usage = _with(DAILY, used=used, held=held, credit=grant + reset, reset=reset)

    assert usage.remaining == max(0, 1000 + grant + reset - used - held)
    assert (usage.percent >= 100) == (used >= 1000 + grant + reset)


def test_requests_under_way_are_what_is_used_of_a_limit_on_them() -> None:
    usage = _with({"name": "parallel", "concurrentRequests": 50}, held=20)

    assert (usage.percent, usage.remaining, usage.has_window) == (40, 30, False)


def test_limits_read_the_counters_that_proxies_write() -> None:
    periods = ("Minute", "Hour", "Day", "Week", "Month")
    limits: tuple[dict[str, Any], ...] = (
        *({"name": per.lower(), "per": per, "requests": 5} for per in periods),
        {"name": "budget", "per": "Month", "costUSD": "0.000000001"},
        {"name": "parallel", "concurrentRequests": 3},
    )
    spec = _spec(*limits, time_zone="Australia/Lord_Howe")

    read = [(one.figures.counter, one.maximum) for one in usage_at(spec, [], NOON)]
    assert read == [(limit.windows_at(NOON).counters[0], limit.maximum) for limit in compile_limits(spec)]


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (500_000_000_000, "500.00"),
        (12_340_000_000, "12.34"),
        (12_345_000_000, "12.345"),
        (9_000_000 * 10**9 + 1, "9000000.000000001"),
        (-1_500_000_000, "-1.50"),
    ],
)
def test_costs_are_exact_dollars_with_at_least_cents(nano_usd: int, text: str) -> None:
    assert amount_text(LimitUnit.COST, nano_usd) == text


def test_other_amounts_are_whole_numbers() -> None:
    assert amount_text(LimitUnit.TOKENS, 9_007_199_254_740_993) == "9007199254740993"


@pytest.mark.parametrize(
    ("policy", "amount"),
    [(OnStoreUnavailable.LOCAL_SHARE, 150), (OnStoreUnavailable.DENY, 0), (OnStoreUnavailable.ALLOW, None)],
)
def test_without_the_store_a_limit_is_exceeded_by_no_more_than_its_policy_lets(
    policy: OnStoreUnavailable, amount: int | None
) -> None:
    assert beyond_without_store(_with(DAILY, credit=500), policy) == amount


def test_what_is_told_of_the_local_share_is_what_sidecars_are_granted() -> None:
    assert LOCAL_SHARE_PERCENT * MILLION == WHOLE_PPM * 100


def test_nothing_bounds_a_limit_that_refuses_nothing() -> None:
    shadow = _with({**DAILY, "onExceeded": {"action": "Shadow"}})

    assert beyond_without_store(shadow, OnStoreUnavailable.DENY) is None


def test_the_tightest_is_the_one_used_most_that_refuses() -> None:
    burst, daily = {"name": "burst", "per": "Minute", "requests": 100}, DAILY
    shadow = {"name": "watched", "per": "Day", "requests": 10, "onExceeded": {"action": "Shadow"}}
    parallel = {"name": "parallel", "concurrentRequests": 1}
    usages = [_with(burst, used=10), _with(daily, used=600), _with(shadow, used=99), _with(parallel, held=1)]

    found = tightest(usages)
    assert found is not None
    assert found.name == "daily"
    only_watched = tightest([_with(shadow, used=5)])
    assert only_watched is not None
    assert only_watched.name == "watched"
    assert tightest([]) is None


def test_of_equals_the_one_that_resets_last_is_the_tightest() -> None:
    found = tightest([_with({"name": "month", "per": "Month", "tokens": 1}), _with(DAILY)])

    assert found is not None
    assert found.name == "month"
