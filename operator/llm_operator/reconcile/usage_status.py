"""What a TeamQuota's status says of its usage, and when there is something new to say. Pure.

Figures change with every request, and each write is told to everyone who watches: so what is written is a picture that
is renewed when a threshold is crossed, at once; when a rounded figure is another, not before half a minute; and when
traffic ends, once more with the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from llm_operator.reconcile.burn_rate import rounded
from llm_operator.status import Condition, ConditionType, Reason, Truth
from llm_sidecar.contract.limit_usage import FIELD_OF_UNIT, LimitUsage, amount_text, tightest

PICTURE_SECONDS: Final = 30.0
"""A rounded figure that changed waits for so long."""
LAST_DIGIT_SECONDS: Final = 300.0
"""Figures that differ by less wait for so long."""
FIGURE_DIGITS: Final = 3


class Knowledge(StrEnum):
    """How much is known of a team's usage."""

    READ = "read"
    AWAY = "away"
    """It was read before, or not even that, and cannot be now."""
    NOT_YET = "not yet"
    NO_STORE = "no store"
    UNREADABLE = "unreadable"
    """The resource breaks a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitTold:
    """One limit, with what only the controller can tell of it."""

    usage: LimitUsage
    burn_per_hour: int | None = None
    exhausted_at_ms: int | None = None
    beyond_without_store: int | None = None
    """None: nothing bounds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A team's usage as it was read at one instant."""

    knowledge: Knowledge
    limits: tuple[LimitTold, ...] = ()
    thresholds: tuple[int, ...] = ()
    """Percentages, ascending."""
    read_at_ms: int | None = None


def near_threshold(thresholds: Iterable[int]) -> int:
    """From which percentage on a limit is near its end: the highest threshold below 100."""
    return max((percent for percent in thresholds if percent < 100), default=100)


def is_news(told: Picture | None, fresh: Picture, *, seconds_since_told: float) -> bool:
    """True where the status should say `fresh` in place of `told`."""
    if told is None or (told.knowledge, _levels(told)) != (fresh.knowledge, _levels(fresh)):
        return True
    if seconds_since_told < PICTURE_SECONDS:
        return False
    if _figures(told, FIGURE_DIGITS) != _figures(fresh, FIGURE_DIGITS):
        return True
    return seconds_since_told >= LAST_DIGIT_SECONDS and _figures(told, None) != _figures(fresh, None)


def _levels(picture: Picture) -> list[tuple[str, int, int]]:
    # How many thresholds a limit has crossed, and how much it allows: people wait to see that their edit is in use.
    return [
        (
            one.usage.name,
            one.usage.limit,
            sum(one.usage.share >= Fraction(percent, 100) for percent in (*picture.thresholds, 100))
            if one.usage.has_window
            else 0,
        )
        for one in picture.limits
    ]


def _figures(picture: Picture, digits: int | None) -> list[tuple[int | None, ...]]:
    found = []
    for one in picture.limits:
        usage = one.usage
        amounts = (usage.used, usage.reserved, usage.figures.beyond, one.burn_per_hour)
        shown = (amount if amount is None or digits is None else rounded(amount, digits) for amount in amounts)
        is_expected = int(one.exhausted_at_ms is not None)
        found.append((*shown, usage.percent, usage.figures.end_ms, is_expected, one.beyond_without_store))
    return found


# --- fields


def usage_fields(picture: Picture) -> dict[str, Any]:
    """The fields of the status. None: the field goes. Nothing where nothing was read: what is there stays."""
    if picture.read_at_ms is None:
        return {}
    worst = tightest(one.usage for one in picture.limits)
    shown = next((one for one in picture.limits if one.usage is worst), None)
    return {
        "usageReadAt": time_text(picture.read_at_ms),
        "usage": [_usage_document(one) for one in picture.limits],
        "tightest": None if shown is None else _tightest_document(shown),
    }


def _usage_document(told: LimitTold) -> dict[str, Any]:
    usage = told.usage
    without_store = told.beyond_without_store
    fields = _common(told) | {
        "beyondExpectation": amount_text(usage.unit, usage.figures.beyond),
        "beyondWithoutStore": amount_text(usage.unit, without_store) if without_store is not None else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _tightest_document(told: LimitTold) -> dict[str, Any]:
    # It is merged into what is there, so what is not known any more must be said to be none.
    return _common(told) | {"remaining": amount_text(told.usage.unit, told.usage.remaining)}


def _common(told: LimitTold) -> dict[str, Any]:
    usage, unit = told.usage, told.usage.unit
    burn, exhausted_at_ms = told.burn_per_hour, told.exhausted_at_ms
    return {
        "name": usage.name,
        "unit": FIELD_OF_UNIT[unit],
        "used": amount_text(unit, usage.used),
        "reserved": amount_text(unit, usage.reserved),
        "limit": amount_text(unit, usage.limit),
        "percent": usage.percent,
        "resetsAt": time_text(usage.figures.end_ms) if usage.has_window else None,
        "burnRatePerHour": amount_text(unit, burn) if burn is not None else None,
        "exhaustedAt": time_text(exhausted_at_ms) if exhausted_at_ms is not None else None,
    }


def time_text(instant_ms: int) -> str:
    """An instant as the API server writes it."""
    return datetime.fromtimestamp(instant_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- conditions


def usage_conditions(picture: Picture, previous: Mapping[str, Any]) -> tuple[Condition, Condition]:
    """NearLimit and Exhausted. What `previous`, the status that is there, says of them stands until more is known."""
    if picture.knowledge is Knowledge.NOT_YET:
        found = [_remembered(kind, previous) for kind in (ConditionType.NEAR_LIMIT, ConditionType.EXHAUSTED)]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    if picture.knowledge is not Knowledge.READ:
        reason, message = _unknown(picture, previous)
        return (
            Condition(ConditionType.NEAR_LIMIT, Truth.UNKNOWN, reason, message),
            Condition(ConditionType.EXHAUSTED, Truth.UNKNOWN, reason, message),
        )
    refusing = [one.usage for one in picture.limits if one.usage.refuses_for_long]
    if not refusing:
        message = "No limit of a window refuses requests."
        return (
            Condition(ConditionType.NEAR_LIMIT, Truth.FALSE, Reason.NO_LIMITS, message),
            Condition(ConditionType.EXHAUSTED, Truth.FALSE, Reason.NO_LIMITS, message),
        )
    return _near(refusing, near_threshold(picture.thresholds)), _exhausted(refusing)


def _near(usages: list[LimitUsage], percent: int) -> Condition:
    reached = [one for one in usages if one.share >= Fraction(percent, 100)]
    if not reached:
        message = f"No limit is used to {percent} %."
        return Condition(ConditionType.NEAR_LIMIT, Truth.FALSE, Reason.BELOW_THRESHOLD, message)
    message = f"Used to {percent} % or more: {_named(reached)}."
    return Condition(ConditionType.NEAR_LIMIT, Truth.TRUE, Reason.THRESHOLD_REACHED, message)


def _exhausted(usages: list[LimitUsage]) -> Condition:
    reached = [one for one in usages if one.share >= 1]
    if not reached:
        return Condition(ConditionType.EXHAUSTED, Truth.FALSE, Reason.ROOM_LEFT, "All limits have room.")
    message = (
        f"Requests are refused, because nothing is left of {_named(reached)}. Fix: wait, raise the limit, or grant "
        "more with llm-operator quota adjust"
    )
    return Condition(ConditionType.EXHAUSTED, Truth.TRUE, Reason.LIMIT_REACHED, message)


def _named(usages: list[LimitUsage]) -> str:
    return ", ".join(f"{one.name} (until {time_text(one.figures.end_ms)})" for one in usages)


def _unknown(picture: Picture, previous: Mapping[str, Any]) -> tuple[Reason, str]:
    read_at = time_text(picture.read_at_ms) if picture.read_at_ms is not None else previous.get("usageReadAt")
    age = f"; the figures are those of {read_at}" if read_at else ""
    match picture.knowledge:
        case Knowledge.NO_STORE:
            return Reason.NO_STORE, "The controller was given no Redis URL, so nobody can tell what is used."
        case Knowledge.UNREADABLE:
            return Reason.INVALID_SPEC, f"The limits cannot be read, because the spec breaks a rule{age}."
        case Knowledge.AWAY:
            return Reason.STORE_UNAVAILABLE, f"Redis cannot be read{age}. Requests go on by spec.onStoreUnavailable."
        case Knowledge.NOT_YET | Knowledge.READ:
            return Reason.NOT_READ, "What is used was not read yet."


def _remembered(kind: ConditionType, previous: Mapping[str, Any]) -> Condition | None:
    for one in previous.get("conditions") or ():
        if isinstance(one, Mapping) and one.get("type") == kind:
            try:
                truth, reason = Truth(str(one.get("status"))), Reason(str(one.get("reason")))
            except ValueError:
                return None
            return Condition(kind, truth, reason, str(one.get("message") or ""))
    return None
