"""What a TeamQuota's status says of its usage, and when it is written. Pure: no clock, no store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llm_operator.reconcile.usage_status import (
    Knowledge,
    LimitTold,
    Picture,
    is_news,
    near_threshold,
    usage_conditions,
    usage_fields,
)
from llm_operator.status import status_document
from llm_sidecar.contract.limit_usage import usage_at
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec

NOON = 1_764_072_000_000
THRESHOLDS = (50, 80, 95, 100)
DAILY = {"name": "daily", "per": "Day", "tokens": 1_000_000}
BUDGET = {"name": "budget", "per": "Month", "costUSD": "500.00"}
PARALLEL = {"name": "parallel", "concurrentRequests": 5}


def _told(limit: dict[str, Any], *, burn: int | None = None, exhausted: int | None = None, **figures: Any) -> LimitTold:
    spec = TeamQuotaSpec.model_validate({"limits": [limit]})
    [empty] = usage_at(spec, [], NOON)
    [usage] = usage_at(spec, [replace(empty.figures, **figures)], NOON)
    return LimitTold(usage=usage, burn_per_hour=burn, exhausted_at_ms=exhausted)


def _picture(*limits: LimitTold, thresholds: tuple[int, ...] = THRESHOLDS) -> Picture:
    return Picture(knowledge=Knowledge.READ, limits=limits, thresholds=thresholds, read_at_ms=NOON)


def _conditions(picture: Picture, previous: dict[str, Any] | None = None) -> tuple[tuple[str, str], tuple[str, str]]:
    near, exhausted = usage_conditions(picture, previous or {})
    return (near.truth, near.reason), (exhausted.truth, exhausted.reason)


# --- fields


def test_amounts_are_strings_and_costs_have_decimals() -> None:
    told = _told(BUDGET, used=12_345_000_000, held=1, beyond=2_000_000_000, burn=1_500_000_000, exhausted=NOON)

    assert usage_fields(_picture(told))["usage"] == [
        {
            "name": "budget",
            "unit": "costUSD",
            "used": "12.345",
            "reserved": "0.000000001",
            "limit": "500.00",
            "percent": 2,
            "resetsAt": "2025-12-01T00:00:00Z",
            "beyondExpectation": "2.00",
            "burnRatePerHour": "1.50",
            "exhaustedAt": "2025-11-25T12:00:00Z",
        }
    ]


def test_what_nobody_knows_is_left_out() -> None:
    fields = usage_fields(_picture(_told(PARALLEL, held=2)))

    assert fields["usage"] == [
        {
            "name": "parallel",
            "unit": "concurrentRequests",
            "used": "0",
            "reserved": "2",
            "limit": "5",
            "percent": 40,
            "beyondExpectation": "0",
        }
    ]


def test_the_tightest_takes_back_what_is_not_known_any_more() -> None:
    """It is merged into the object that is there: silence would leave the old figure."""
    tightest = usage_fields(_picture(_told(DAILY, used=10, held=5), _told(BUDGET)))["tightest"]

    assert (tightest["name"], tightest["remaining"]) == ("daily", "999985")
    assert (tightest["burnRatePerHour"], tightest["exhaustedAt"]) == (None, None)


def test_a_team_without_limits_has_no_tightest() -> None:
    assert usage_fields(_picture())["tightest"] is None


def test_nothing_read_changes_nothing_that_was_written() -> None:
    assert usage_fields(Picture(knowledge=Knowledge.AWAY)) == {}


# --- conditions


@pytest.mark.parametrize(
    ("used", "near", "exhausted"),
    [
        (0, ("False", "BelowThreshold"), ("False", "RoomLeft")),
        (949_999, ("False", "BelowThreshold"), ("False", "RoomLeft")),
        (950_000, ("True", "ThresholdReached"), ("False", "RoomLeft")),
        (999_999, ("True", "ThresholdReached"), ("False", "RoomLeft")),
        (1_000_000, ("True", "ThresholdReached"), ("True", "LimitReached")),
    ],
)
def test_near_begins_at_the_highest_threshold_below_100(
    used: int, near: tuple[str, str], exhausted: tuple[str, str]
) -> None:
    assert _conditions(_picture(_told(DAILY, used=used), _told(BUDGET))) == (near, exhausted)


def test_what_is_reserved_exhausts_nothing() -> None:
    assert _conditions(_picture(_told(DAILY, held=1_000_000)))[1] == ("False", "RoomLeft")


@pytest.mark.parametrize(("thresholds", "expected"), [((50, 80, 95, 100), 95), ((100,), 100), ((), 100), ((99,), 99)])
def test_without_a_threshold_below_100_near_is_the_end(thresholds: tuple[int, ...], expected: int) -> None:
    assert near_threshold(thresholds) == expected


def test_limits_that_refuse_nothing_for_long_exhaust_nothing() -> None:
    shadow = {**DAILY, "onExceeded": {"action": "Shadow"}}
    picture = _picture(_told(shadow, used=2_000_000), _told(PARALLEL, held=5))

    assert _conditions(picture) == (("False", "NoLimits"), ("False", "NoLimits"))


def test_the_message_names_the_limits_and_when_they_end() -> None:
    _near, exhausted = usage_conditions(_picture(_told(DAILY, used=10**6), _told(BUDGET)), {})

    assert "daily (until 2025-11-26T00:00:00Z)" in exhausted.message
    assert "Fix: " in exhausted.message
    assert "budget" not in exhausted.message


@pytest.mark.parametrize(
    ("knowledge", "reason"),
    [
        (Knowledge.AWAY, "StoreUnavailable"),
        (Knowledge.NO_STORE, "NoStore"),
        (Knowledge.UNREADABLE, "InvalidSpec"),
        (Knowledge.NOT_YET, "NotRead"),
    ],
)
def test_what_cannot_be_read_is_unknown(knowledge: Knowledge, reason: str) -> None:
    assert _conditions(Picture(knowledge=knowledge)) == (("Unknown", reason), ("Unknown", reason))


def test_a_store_that_is_away_is_told_with_the_age_of_the_figures() -> None:
    read_here, _ = usage_conditions(replace(_picture(_told(DAILY)), knowledge=Knowledge.AWAY), {})
    read_before, _ = usage_conditions(
        Picture(knowledge=Knowledge.AWAY), {"usageReadAt": "2025-11-24T00:00:00Z", "usage": []}
    )

    assert "2025-11-25T12:00:00Z" in read_here.message
    assert "2025-11-24T00:00:00Z" in read_before.message


def test_what_an_earlier_controller_knew_stands_until_this_one_has_read() -> None:
    before = _picture(_told(DAILY, used=10**6))
    written = status_document(usage_conditions(before, {}), generation=1, previous={}, now="2025-11-25T12:00:00Z")
    assert written is not None

    assert usage_conditions(Picture(knowledge=Knowledge.NOT_YET), written) == usage_conditions(before, {})


# --- when it is news


def _is_news(before: Picture | None, after: Picture, seconds: float) -> bool:
    return is_news(before, after, seconds_since_told=seconds)


def test_the_first_picture_is_news() -> None:
    assert _is_news(None, _picture(), 0)


def test_the_same_figures_are_no_news_however_old() -> None:
    again = replace(_picture(_told(DAILY, used=5)), read_at_ms=NOON + 10**9)

    assert not _is_news(_picture(_told(DAILY, used=5)), again, 10**6)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_threshold_is_told_at_once_in_both_directions(threshold: int) -> None:
    below = _picture(_told(DAILY, used=threshold * 10_000 - 1))
    reached = _picture(_told(DAILY, used=threshold * 10_000))

    assert _is_news(below, reached, 0)
    assert _is_news(reached, below, 0)


def test_the_end_of_a_limit_is_told_at_once_even_where_no_threshold_is_100() -> None:
    below, reached = (_picture(_told(DAILY, used=used), thresholds=()) for used in (999_999, 1_000_000))

    assert _is_news(below, reached, 0)


def test_an_edited_limit_and_a_grant_are_told_at_once() -> None:
    before = _picture(_told(DAILY))

    assert _is_news(before, _picture(_told({**DAILY, "tokens": 2_000_000})), 0)
    assert _is_news(before, _picture(_told(DAILY, credit=1)), 0)
    assert _is_news(before, _picture(_told(DAILY), _told(BUDGET)), 0)


def test_a_store_that_comes_or_goes_is_told_at_once() -> None:
    before = _picture(_told(DAILY))

    assert _is_news(before, replace(before, knowledge=Knowledge.AWAY), 0)


@pytest.mark.parametrize("change", ["used", "held", "beyond"])
def test_other_figures_wait_for_half_a_minute(change: str) -> None:
    before, after = _picture(_told(DAILY)), _picture(_told(DAILY, **{change: 1000}))

    assert not _is_news(before, after, 29.9)
    assert _is_news(before, after, 30)


def test_a_change_in_the_fourth_digit_waits_for_five_minutes() -> None:
    before, after = _picture(_told(DAILY, used=123_456)), _picture(_told(DAILY, used=123_457))

    assert not _is_news(before, after, 299)
    assert _is_news(before, after, 300)


def test_when_it_will_be_exhausted_is_news_only_where_it_comes_or_goes() -> None:
    """It moves with every look."""
    before = _picture(_told(DAILY, burn=10, exhausted=NOON + 60_000))

    assert not _is_news(before, _picture(_told(DAILY, burn=10, exhausted=NOON + 120_000)), 10**6)
    assert _is_news(before, _picture(_told(DAILY, burn=10)), 30)


# --- the status


def test_the_time_of_reading_alone_writes_nothing() -> None:
    conditions = usage_conditions(_picture(_told(DAILY)), {})
    first = usage_fields(_picture(_told(DAILY)))
    later = usage_fields(replace(_picture(_told(DAILY)), read_at_ms=NOON + 5000))
    written = status_document(conditions, generation=1, previous={}, now="x", figures=first)
    assert written is not None
    # The API server drops what a merge patch says to be null.
    stored = {
        **written,
        "tightest": {name: value for name, value in written["tightest"].items() if value is not None},
    }

    assert status_document(conditions, generation=1, previous=stored, now="y", figures=later) is None
    assert status_document(conditions, generation=1, previous=stored, now="y") is None
