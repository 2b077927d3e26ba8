"""From times and counts to the figures of a phase, and whether they meet the targets. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from llm_sidecar.contract.team_quota_resource import CachedGenerations
from tests.bench.figures import Aim, percentile
from tests.trace.client import Outcome, Tally

MEGABYTE: Final = 1_000_000
ALL: Final = "all"


class Phase(StrEnum):
    """How the requests come."""

    CLOSED = "closed loop"
    STEADY = "steady"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one kind of request, or of all."""

    name: str
    requests: int
    errors: int
    hit_percent: float
    """Of requests, a batch counting by the share of its items: what nothing was asked of a provider for."""
    possible_percent: float
    """What a cache that forgets nothing would have had, of what this setting lets it give."""
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a phase took, beside time."""

    resident_max_bytes: int
    cpu_share: float
    """Of one core, by the sidecar."""
    redis_cpu_share: float
    generator_cpu_share: float
    """Of the core that the load generator runs on; near 1 it sets the pace, and latencies are its own."""
    simulators_cpu_share: float
    """Of one core, all three together."""
    waited_share: float
    """Of the time, in which the sidecar could have run and others had its CPU: no fault of its own."""
    generator_waited_share: float
    strangers_cores: float
    """CPUs that programs kept busy which have nothing to do with this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseResult:
    """One phase of one setting."""

    generations: CachedGenerations
    phase: Phase
    rows: tuple[Row, ...]
    """One for each kind that occurred, then the one for all."""
    requests_per_second: float
    without_provider_percent: float
    """Requests of which no provider heard."""
    resources: Resources
    ledger: Mapping[str, float]
    told: Mapping[str, int]
    reasons: Mapping[str, int]

    @property
    def total(self) -> Row:
        """The row for all."""
        return self.rows[-1]

    @property
    def error_percent(self) -> float:
        """Of all requests."""
        return percent(self.total.errors, self.total.requests)


def percent(part: float, whole: float) -> float:
    """0 of nothing."""
    return 100 * part / whole if whole else 0.0


def rows_of(outcome: Outcome, *, generations: CachedGenerations) -> tuple[Row, ...]:
    """One row for each kind that occurred, then one for all."""
    tallies = {kind: tally for kind, tally in outcome.tallies.items() if tally.seconds or tally.errors}
    rows = [_row(kind, [tally], generations=generations) for kind, tally in tallies.items()]
    return (*rows, _row(ALL, [*tallies.values()], generations=generations))


def _row(name: str, tallies: Sequence[Tally], *, generations: CachedGenerations) -> Row:
    milliseconds = [1000 * seconds for tally in tallies for seconds in tally.seconds]
    answered, errors = len(milliseconds), sum(tally.errors for tally in tallies)
    hits = sum(_by_request(tally, tally.given) for tally in tallies)
    possible = sum(_by_request(tally, _repeated(tally, generations)) for tally in tallies)
    times = milliseconds or [0.0]
    return Row(
        name=name,
        requests=answered + errors,
        errors=errors,
        hit_percent=percent(hits, answered),
        possible_percent=percent(possible, answered),
        mean_ms=sum(times) / len(times),
        p50_ms=percentile(times, percent=50),
        p95_ms=percentile(times, percent=95),
        p99_ms=percentile(times, percent=99),
    )


def _by_request(tally: Tally, meanings: int) -> float:
    """A share of this kind's meanings as a number of its requests."""
    return len(tally.seconds) * meanings / tally.meanings if tally.meanings else 0.0


def _repeated(tally: Tally, generations: CachedGenerations) -> int:
    match generations:
        case CachedGenerations.ALL:
            return tally.repeated
        case CachedGenerations.DETERMINISTIC:
            return tally.repeated_deterministic
        case CachedGenerations.NONE:
            return 0


def without_provider_percent(outcome: Outcome) -> float:
    """Requests of which no provider heard, among those that were answered."""
    tallies = outcome.tallies.values()
    return percent(sum(tally.without_provider for tally in tallies), sum(len(tally.seconds) for tally in tallies))


def aims(result: PhaseResult) -> list[Aim]:
    """The targets, as far as they mean something in a phase.

    A closed loop takes all the CPU that it is given, and without a cache nothing can be hit.
    """
    total, resources = result.total, result.resources
    caching, steady = result.generations is not CachedGenerations.NONE, result.phase is Phase.STEADY
    figures: list[tuple[str, float | None, float]] = [
        ("mean, ms", total.mean_ms, 500),
        ("P95, ms", total.p95_ms, 412),
        ("errors, %", result.error_percent, 0.05),
        ("memory, MB", resources.resident_max_bytes / MEGABYTE, 84),
        ("CPU, % of one core", 100 * resources.cpu_share if steady else None, 32),
    ]
    upper = [Aim(name=name, figure=figure, bound=bound, at_least=False) for name, figure, bound in figures]
    hit = total.hit_percent if caching else None
    return [Aim(name="hit ratio, %", figure=hit, bound=40, at_least=True), *upper]
