"""A run's figures as a Markdown page and as JSON; nothing in either tells whose machine it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from llm_sidecar.contract.team_quota_resource import CachedGenerations
from tests.bench.report import STRANGERS_LIMIT, SURROUNDINGS_LIMIT, table
from tests.trace.course import Plan
from tests.trace.figures import MEGABYTE, Phase, PhaseResult, Row, aims, percent
from tests.trace.savings import SPENT_TOKENS, SPENT_USD

SETTINGS: Final = {
    CachedGenerations.ALL: "cache `All`",
    CachedGenerations.DETERMINISTIC: "cache `Deterministic`",
    CachedGenerations.NONE: "cache off",
}
_MISSING: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is the same for all phases."""

    plan: Plan
    provider_milliseconds: int
    direct: Row
    """What the clients got from the providers with nothing between them."""
    machine: Mapping[str, Any]


def document(results: Sequence[PhaseResult], facts: RunFacts) -> dict[str, Any]:
    """Everything, for a program to read."""
    return {
        "schema": 1,
        "machine": dict(facts.machine),
        "plan": asdict(facts.plan) | {"provider_milliseconds": facts.provider_milliseconds},
        "direct": asdict(facts.direct),
        "phases": [
            asdict(result) | {"targets": [asdict(aim) | {"verdict": aim.verdict} for aim in aims(result)]}
            for result in results
        ],
    }


def markdown(results: Sequence[PhaseResult], facts: RunFacts) -> str:
    """The whole page."""
    parts = [_opening(results, facts)]
    for phase in Phase:
        of_phase = [result for result in results if result.phase is phase]
        if of_phase:
            parts += [f"### {_title(phase, facts.plan)}", _targets(of_phase), _kinds(of_phase), _resources(of_phase)]
            parts += [_savings(of_phase), *_errors(of_phase)]
    return "\n\n".join(parts) + "\n"


def _title(phase: Phase, plan: Plan) -> str:
    if phase is Phase.CLOSED:
        return f"{plan.connections} concurrent, closed loop, {plan.closed_seconds:g} s"
    return f"Steady {plan.per_minute:,.0f} requests a minute, {plan.steady_seconds / 60:g} min"


def _opening(results: Sequence[PhaseResult], facts: RunFacts) -> str:
    machine, direct = facts.machine, facts.direct
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    where = "on a core of its own" if machine["target_on_its_own_core"] else "on the same core as everything else"
    strangers = max((result.resources.strangers_cores for result in results), default=0.0)
    verdict = ": **too much; run it again on an idle machine**." if strangers > STRANGERS_LIMIT else "."
    return (
        f"{machine['python']}, {machine['system']}, {machine['cpus']} CPUs, the sidecar {where}; "
        f"load average before the run {machine['load_average_before']}. {packages}.\n\n"
        f"Seed {facts.plan.seed}; the provider answers after {facts.provider_milliseconds} ms. "
        f"Asked directly by as many clients, without a sidecar: mean {direct.mean_ms:.0f} ms, "
        f"p50 {direct.p50_ms:.0f}, p95 {direct.p95_ms:.0f}, p99 {direct.p99_ms:.0f}. "
        f"Other programs kept at most {strangers:.2f} CPUs busy in a phase{verdict}"
    )


def _targets(results: Sequence[PhaseResult]) -> str:
    of_each = [aims(result) for result in results]
    rows = []
    for of_one in zip(*of_each, strict=True):
        bound = f"{'≥' if of_one[0].at_least else '≤'} {of_one[0].bound:g}"
        told = [_MISSING if aim.figure is None else f"{aim.figure:.2f}, {aim.verdict}" for aim in of_one]
        rows.append([of_one[0].name, bound, *told])
    return table(["target", "", *(SETTINGS[result.generations] for result in results)], rows)


def _kinds(results: Sequence[PhaseResult]) -> str:
    heads = ["setting", "requests", "of", "errors", "hit %", "possible %", "mean ms", "p50", "p95", "p99"]
    return table(heads, [cells for result in results for cells in _kind_rows(result)])


def _kind_rows(result: PhaseResult) -> Iterator[list[str]]:
    for row in result.rows:
        yield [SETTINGS[result.generations], f"{row.requests:,}", row.name, f"{row.errors:,}", *_measured(row)]


def _measured(row: Row) -> list[str]:
    figures = (row.hit_percent, row.possible_percent, row.mean_ms, row.p50_ms, row.p95_ms, row.p99_ms)
    return [f"{figure:,.1f}" for figure in figures]


def _resources(results: Sequence[PhaseResult]) -> str:
    heads = ["setting", "requests/s", "no provider asked %", "MB resident, highest", "CPU % of a core"]
    heads += [
        "Redis CPU %",
        "load generator CPU %",
        "simulators CPU %",
        "sidecar waited %",
        "load generator waited %",
        "other programs, CPUs",
    ]
    return table(heads, [_resource_row(result) for result in results])


def _resource_row(result: PhaseResult) -> list[str]:
    resources = result.resources
    is_bound = resources.generator_cpu_share + resources.simulators_cpu_share > SURROUNDINGS_LIMIT
    return [
        SETTINGS[result.generations],
        f"{result.requests_per_second:,.1f}" + ("\\*" if is_bound else ""),
        f"{result.without_provider_percent:.1f}",
        f"{resources.resident_max_bytes / MEGABYTE:.1f}",
        f"{100 * resources.cpu_share:.1f}",
        f"{100 * resources.redis_cpu_share:.1f}",
        f"{100 * resources.generator_cpu_share:.1f}",
        f"{100 * resources.simulators_cpu_share:.1f}",
        f"{100 * resources.waited_share:.1f}",
        f"{100 * resources.generator_waited_share:.1f}",
        f"{resources.strangers_cores:.2f}",
    ]


def _savings(results: Sequence[PhaseResult]) -> str:
    """As the sidecar's metrics tell it; and, where the same requests went without a cache too, what they cost more."""
    saved = dict.fromkeys(name for result in results for name in sorted(result.ledger))
    names = [SPENT_TOKENS, SPENT_USD, *(name for name in saved if name not in {SPENT_TOKENS, SPENT_USD})]
    rows = [[SETTINGS[result.generations], *(_amount(name, result.ledger) for name in names)] for result in results]
    heads = [name if name.startswith("spent") else f"saved: {name}" for name in names]
    without = _without_cache(results)
    if without is not None:
        heads = [*heads, *(f"{name} less than off" for name in (SPENT_TOKENS, SPENT_USD))]
        for row, result in zip(rows, results, strict=True):
            less = {name: without.get(name, 0.0) - result.ledger.get(name, 0.0) for name in (SPENT_TOKENS, SPENT_USD)}
            row += [_amount(name, less) for name in less]
    return table(["setting", *heads], rows)


def _without_cache(results: Sequence[PhaseResult]) -> Mapping[str, float] | None:
    """What was spent with the cache off; None where that was not run, or for other requests: a closed loop's."""
    off = [result for result in results if result.generations is CachedGenerations.NONE]
    return off[0].ledger if off and off[0].phase is Phase.STEADY and len(results) > 1 else None


def _amount(name: str, ledger: Mapping[str, float]) -> str:
    amount = ledger.get(name, 0.0)
    return f"{amount:,.4f}" if name.endswith("USD") else f"{amount:,.0f}"


def _errors(results: Sequence[PhaseResult]) -> Iterator[str]:
    rows = [
        [SETTINGS[result.generations], reason, f"{count:,}", f"{percent(count, result.total.requests):.3f}"]
        for result in results
        for reason, count in sorted(result.reasons.items(), key=lambda item: -item[1])
    ]
    if rows:
        yield table(["setting", "error", "times", "% of requests"], rows)
