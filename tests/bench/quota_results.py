"""What is found out about quotas, as plain records, and the arithmetic that makes one record of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from tests.bench.figures import percentile

LOADED_SHARE: Final = 0.85
"""A load process, or Redis, that is busier than this has nothing left: the latencies are those of its queue."""

STORE_COMMANDS: Final = ("evalsha", "eval", "get", "mget", "set")
"""What a sidecar itself sends on behalf of a request. Redis counts what a script does within beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptBlock:
    """Some calls of one script, one after the other."""

    calls: int
    redis_cpu_seconds: float
    """The server's own account of its CPU time: the script, the protocol and the socket."""
    script_seconds: float
    """Of which it spent in the script."""
    client_cpu_seconds: float
    latencies_ms: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptCost:
    """What one call of a script costs, with one caller: medians of the blocks, percentiles of all calls."""

    script: str
    about: str
    calls: int
    redis_cpu_microseconds: float
    script_microseconds: float
    client_cpu_microseconds: float
    p50_ms: float
    p99_ms: float


def script_cost(script: str, *, about: str, blocks: Sequence[ScriptBlock]) -> ScriptCost:
    """One row of the blocks: a block in which the machine was busy otherwise falls out of the medians."""

    def microseconds(figure: str) -> float:
        return median(float(getattr(block, figure)) / block.calls for block in blocks) * 1e6

    latencies = [latency for block in blocks for latency in block.latencies_ms]
    return ScriptCost(
        script=script,
        about=about,
        calls=sum(block.calls for block in blocks),
        redis_cpu_microseconds=microseconds("redis_cpu_seconds"),
        script_microseconds=microseconds("script_seconds"),
        client_cpu_microseconds=microseconds("client_cpu_seconds"),
        p50_ms=percentile(latencies, percent=50),
        p99_ms=percentile(latencies, percent=99),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetWindow:
    """What one load process saw in the window of one rate."""

    latencies_ms: Sequence[float]
    unanswered: int
    """Reservations that the policy decided, for the store did not answer in time."""
    renewals: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStep:
    """All simulated sidecars together at one rate."""

    policy: str
    wanted_per_second: float
    reached_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    unanswered: int
    renewals_per_second: float
    redis_cpu_share: float
    """Of one CPU: a Redis process uses no more for its commands."""
    redis_cpu_microseconds: float | None
    """For each request: its reservation, its settlement, and its part of all renewals."""
    load_share: float
    """How busy the busiest load process kept a CPU, or all of them kept the CPUs that they share."""

    @property
    def is_bounded_by_load(self) -> bool:
        """True where the simulated sidecars, not Redis, had no CPU left."""
        return self.load_share > LOADED_SHARE


def fleet_step(
    windows: Sequence[FleetWindow],
    *,
    policy: str,
    rate: float,
    seconds: float,
    redis_cpu_seconds: float,
    load_cores: int,
) -> FleetStep:
    """One row of what each process saw at the same time."""
    latencies = [latency for window in windows for latency in window.latencies_ms]
    shares = [window.cpu_seconds / seconds for window in windows]
    return FleetStep(
        policy=policy,
        wanted_per_second=rate,
        reached_per_second=len(latencies) / seconds,
        p50_ms=percentile(latencies, percent=50) if latencies else None,
        p99_ms=percentile(latencies, percent=99) if latencies else None,
        unanswered=sum(window.unanswered for window in windows),
        renewals_per_second=sum(window.renewals for window in windows) / seconds,
        redis_cpu_share=redis_cpu_seconds / seconds,
        redis_cpu_microseconds=redis_cpu_seconds / len(latencies) * 1e6 if latencies else None,
        load_share=max(*shares, sum(shares) / load_cores) if shares else 0.0,
    )


def commands_sent(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """How many commands a sidecar sent between two looks at `INFO commandstats`."""
    return sum(_calls(after, name) - _calls(before, name) for name in STORE_COMMANDS)


def _calls(statistics: Mapping[str, Any], name: str) -> int:
    return int(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"])


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaFigures:
    """Everything that a run found out about quotas apart from whole requests."""

    scripts: Sequence[ScriptCost] = ()
    sidecars: int = 0
    fleet: Sequence[FleetStep] = ()
    commands_before_call: Mapping[str, int] | None = None
    """By target: commands to Redis before the upstream was asked."""
