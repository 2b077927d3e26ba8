"""One adjustment of one limit in its current window: a grant, or a reset. By one script, so that it happens once and
wholly, and is in the ledger if it happened.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final, Protocol
from uuid import uuid4

from llm_sidecar.contract.fields import MAX_SAFE_INTEGER
from llm_sidecar.contract.keys import quota_counter, quota_counters, quota_ledger
from llm_sidecar.contract.limit_usage import LimitUsage, amount_text, limit_amount, limit_window
from llm_sidecar.contract.limits import MAX_COST_USD, Limit
from llm_sidecar.contract.quota_counters import NANO_PER_USD, NO_PERIOD, CounterFigures, LimitUnit
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec

REASON_CHARACTERS: Final = 500

_ADJUST: Final = (files("llm_operator") / "lua" / "adjust.lua").read_text(encoding="utf-8")
_NOW: Final = "local time = redis.call('TIME')\nreturn {time[1], time[2]}"
_DECIMAL: Final = re.compile(r"[0-9]{1,16}(?:[.][0-9]{1,9})?")


class InvalidAdjustment(ValueError):
    """It cannot be done. The message tells where, what and the fix."""


class Commands(Protocol):
    """What runs scripts: redis-py's client of one server, or of several."""

    def eval(self, script: str, numkeys: int, *keys_and_args: str | int) -> Awaitable[Any]:
        """Run a script."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """What somebody wants. `amount` is in the limit's unit, cost in nano-USD; None resets."""

    team: str
    limit: Limit
    time_zone: str
    amount: int | None
    who: str
    reason: str

    @property
    def mode(self) -> str:
        """As the script names it."""
        return "reset" if self.amount is None else "grant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted:
    """What it came to."""

    adjustment: Adjustment
    before: LimitUsage
    after: LimitUsage

    def __str__(self) -> str:
        """One line for people, and for the Event."""
        adjustment, unit = self.adjustment, self.after.unit
        if adjustment.amount is None:
            done = f"reset by {amount_text(unit, self.after.figures.reset - self.before.figures.reset)}"
        else:
            done = f"granted {amount_text(unit, adjustment.amount)}"
        used, limit, reserved = (
            amount_text(unit, amount) for amount in (self.after.used, self.after.limit, self.after.reserved)
        )
        return (
            f"team {adjustment.team}, limit {adjustment.limit.name}: {done} by {adjustment.who} "
            f"({adjustment.reason}); now {used} of {limit} are used, {reserved} reserved"
        )


def find_limit(spec: TeamQuotaSpec, name: str, *, team: str) -> Limit:
    """The limit of this name. Raises `InvalidAdjustment`."""
    found = next((limit for limit in spec.limits if limit.name == name), None)
    if found is None:
        names = ", ".join(limit.name for limit in spec.limits) or "none"
        raise InvalidAdjustment(f"TeamQuota {team} has no limit {name!r}. Fix: name one of its limits: {names}")
    if found.per is None:
        raise InvalidAdjustment(
            f"limit {name} of TeamQuota {team} counts requests under way: it has no window in which more could be "
            "granted. Fix: change spec.limits"
        )
    return found


def parse_amount(limit: Limit, text: str) -> int:
    """What to grant, in the limit's unit. Raises `InvalidAdjustment`."""
    unit, _ = limit_amount(limit)
    most, example = (MAX_COST_USD, "50.00") if unit is LimitUnit.COST else (MAX_SAFE_INTEGER, "100000")
    amount = Decimal(text) if _DECIMAL.fullmatch(text) else Decimal(-1)
    is_whole = unit is LimitUnit.COST or amount == amount.to_integral_value()
    if not (0 < amount <= most and is_whole):
        what = "US dollars with at most 9 decimals" if unit is LimitUnit.COST else f"{unit.value}, a whole number"
        raise InvalidAdjustment(
            f"{text!r} cannot be granted in limit {limit.name}. Fix: give {what}, more than 0 and at most {most}, "
            f"such as {example}"
        )
    return int(amount * NANO_PER_USD) if unit is LimitUnit.COST else int(amount)


def parse_reason(text: str) -> str:
    """Why. Raises `InvalidAdjustment` where it says nothing, or more than a line."""
    reason = text.strip()
    if not reason or len(reason) > REASON_CHARACTERS or not reason.isprintable():
        raise InvalidAdjustment(f"--reason must be a line of 1 to {REASON_CHARACTERS} characters. Fix: say why")
    return reason


async def adjust(commands: Commands, adjustment: Adjustment) -> Adjusted:
    """Do it, in the window in which Redis's clock is. Raises what the connection raises."""
    limit, team = adjustment.limit, adjustment.team
    keys = (quota_counters(team), quota_ledger(team))
    seconds, microseconds = await commands.eval(_NOW, 1, keys[0])
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    unit, maximum = limit_amount(limit)
    window = limit_window(limit, adjustment.time_zone, now_ms)
    counter = quota_counter(limit.name, unit, limit.per or NO_PERIOD, window.start_ms, window.end_ms)
    words = (adjustment.mode, counter, maximum, adjustment.amount or 0, uuid4().hex, adjustment.who, adjustment.reason)
    figures = [int(figure) for figure in await commands.eval(_ADJUST, len(keys), *keys, *words)]

    def usage(used: int, held: int, credit: int, reset: int) -> LimitUsage:
        return LimitUsage(
            figures=CounterFigures(
                limit=limit.name,
                unit=unit,
                per=limit.per or NO_PERIOD,
                start_ms=window.start_ms,
                end_ms=window.end_ms,
                used=used,
                held=held,
                credit=credit,
                reset=reset,
            ),
            maximum=maximum,
        )

    return Adjusted(adjustment=adjustment, before=usage(*figures[:4]), after=usage(*figures[4:]))
