"""The quota figures as tables and aims; `report.py` puts them on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.figures import Aim
from tests.bench.quota_results import LOADED_SHARE, FleetStep, QuotaFigures, ScriptCost
from tests.bench.results import BARE, EIGHT, QUOTA

_MISSING: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTable:
    """One table of the page."""

    title: str
    text: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def quota_aims(figures: QuotaFigures | None, *, ratio: float | None) -> list[Aim]:
    """What a quota may cost; `ratio` is the requests per second of one quota to those of none."""
    return [
        Aim(
            name="one quota: requests/s against no quota, 100 connections",
            figure=ratio,
            bound=0.85,
            at_least=True,
        ),
        Aim(
            name="one quota: Redis round trips before the call, more than without",
            figure=_more_commands(figures, QUOTA),
            bound=1,
            at_least=False,
        ),
        Aim(
            name="8 limits: Redis round trips before the call, more than without",
            figure=_more_commands(figures, EIGHT),
            bound=1,
            at_least=False,
        ),
    ]


def _more_commands(figures: QuotaFigures | None, target: str) -> float | None:
    if figures is None or figures.commands_before_call is None:
        return None
    counted = figures.commands_before_call
    return float(counted[target] - counted[BARE]) if target in counted and BARE in counted else None


def quota_tables(figures: QuotaFigures) -> Iterator[QuotaTable]:
    """All tables, in the order of the page."""
    if figures.scripts:
        heads = ["script", "for", "Redis CPU µs", "of it in the script", "client CPU µs", "p50 ms", "p99 ms"]
        yield QuotaTable(
            title="Quotas: one call of a script",
            text="One caller, one call after the other.",
            heads=heads,
            rows=[_script_row(cost) for cost in figures.scripts],
        )
    if figures.fleet:
        yield _fleet_table(figures.fleet, sidecars=figures.sidecars)
    if figures.commands_before_call is not None:
        yield _commands_table(figures.commands_before_call)


def _script_row(cost: ScriptCost) -> list[str]:
    microseconds = (cost.redis_cpu_microseconds, cost.script_microseconds, cost.client_cpu_microseconds)
    return [
        cost.script,
        cost.about,
        *(f"{value:,.0f}" for value in microseconds),
        *(f"{value:.2f}" for value in (cost.p50_ms, cost.p99_ms)),
    ]


def _fleet_table(steps: Sequence[FleetStep], *, sidecars: int) -> QuotaTable:
    heads = ["onStoreUnavailable", "wanted/s", "reached/s", "reserve p50 ms", "p99 ms", "unanswered", "renewals/s"]
    heads += ["Redis CPU %", "Redis CPU µs each"]
    return QuotaTable(
        title=f"Quotas: {sidecars} sidecars on one team",
        text=f"One limit. \\* = the simulated sidecars kept their CPU busy for more than {LOADED_SHARE:.0%}: "
        "they set the pace, and Redis could do more.",
        heads=heads,
        rows=[_fleet_row(step) for step in steps],
    )


def _fleet_row(step: FleetStep) -> list[str]:
    mark = "\\*" if step.is_bounded_by_load else ""
    each = step.redis_cpu_microseconds
    return [
        step.policy,
        f"{step.wanted_per_second:,.0f}",
        f"{step.reached_per_second:,.0f}{mark}",
        *(_MISSING if value is None else f"{value:.2f}" for value in (step.p50_ms, step.p99_ms)),
        f"{step.unanswered:,}",
        f"{step.renewals_per_second:.1f}",
        f"{step.redis_cpu_share:.0%}",
        _MISSING if each is None else f"{each:,.0f}",
    ]


def _commands_table(counted: Mapping[str, int]) -> QuotaTable:
    return QuotaTable(
        title="Quotas: Redis before the call",
        text="Commands that the sidecar sends to Redis for one request before it asks the upstream.",
        heads=["target", "commands"],
        rows=[[target, str(count)] for target, count in counted.items()],
    )
