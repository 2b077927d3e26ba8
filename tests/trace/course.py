"""The course of a run: for each setting a fresh sidecar, first under a closed loop, then at a steady rate."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import uvloop

from llm_sidecar.contract.team_quota_resource import CachedGenerations
from tests.bench.measure import tell
from tests.bench.proc import cpu_seconds, machine_busy_seconds, resident_bytes, waited_seconds
from tests.trace.client import Outcome, applications, at_a_steady_rate, in_a_closed_loop
from tests.trace.drawing import Trace
from tests.trace.figures import Phase, PhaseResult, Resources, Row, rows_of, without_provider_percent
from tests.trace.requests import Family
from tests.trace.savings import added, read_ledger
from tests.trace.surroundings import Surroundings, UnderTest, start_sidecar

SAMPLE_SECONDS: Final = 0.1
DIRECT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked of every setting."""

    seed: int
    settings: Sequence[CachedGenerations]
    connections: int
    closed_seconds: float
    per_minute: float
    steady_seconds: float


def ask_directly(plan: Plan, surroundings: Surroundings) -> Row:
    """What the same clients get from the providers with nothing between them: the floor of the closed loop's times."""
    tell("the providers alone")
    trace = Trace(plan.seed, name="direct")

    async def asked() -> Outcome:
        async with applications(surroundings.simulator_ports) as asking:
            seconds = min(plan.closed_seconds, DIRECT_SECONDS)
            return await in_a_closed_loop(asking, trace, connections=plan.connections, seconds=seconds)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return rows_of(runner.run(asked()), generations=CachedGenerations.NONE)[-1]


def run(plan: Plan, surroundings: Surroundings) -> list[PhaseResult]:
    """All settings, one after the other; each gets the same traces."""
    results = []
    for generations in plan.settings:
        under_test = start_sidecar(surroundings, generations=generations)
        for phase in Phase:
            tell(f"cache {generations}: {phase}")
            results.append(_phase(plan, surroundings, under_test, phase=phase, generations=generations))
            surroundings.children.trim_logs()
        surroundings.children.stop(under_test.child)
    return results


def _phase(
    plan: Plan, surroundings: Surroundings, under_test: UnderTest, *, phase: Phase, generations: CachedGenerations
) -> PhaseResult:
    # A name of its own for each phase: what the first one left in the cache must not help the second.
    trace = Trace(plan.seed, name=phase.replace(" ", "-"))
    if phase is Phase.CLOSED:
        send = partial(in_a_closed_loop, trace=trace, connections=plan.connections, seconds=plan.closed_seconds)
    else:
        send = partial(at_a_steady_rate, trace=trace, per_minute=plan.per_minute, seconds=plan.steady_seconds)

    async def measured() -> tuple[Outcome, Watch]:
        async with (
            applications(dict.fromkeys(Family, under_test.port)) as asking,
            watching(surroundings, under_test) as watch,
        ):
            return await send(asking), watch

    before = read_ledger(under_test.admin_port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome, watch = runner.run(measured())
    return PhaseResult(
        generations=generations,
        phase=phase,
        rows=rows_of(outcome, generations=generations),
        requests_per_second=sum(len(tally.seconds) for tally in outcome.tallies.values()) / outcome.seconds,
        without_provider_percent=without_provider_percent(outcome),
        resources=watch.resources(),
        ledger=added(before, read_ledger(under_test.admin_port)),
        told=dict(outcome.told),
        reasons=dict(outcome.reasons),
    )


@dataclass(slots=True, kw_only=True)
class Watch:
    """CPU time and memory between two moments."""

    sidecar: int
    redis: int
    simulators: Sequence[int]
    begin: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    resident_max_bytes: int = 0

    def now(self) -> list[float]:
        """Wall time; CPU time of the sidecar, Redis, this process and the simulators; waits for a CPU; all CPU time."""
        simulators = sum(map(cpu_seconds, self.simulators))
        own = (cpu_seconds(self.sidecar), cpu_seconds(self.redis), time.process_time())
        waited = (waited_seconds(self.sidecar), waited_seconds(os.getpid()))
        return [time.perf_counter(), *own, simulators, *waited, machine_busy_seconds()]

    async def sample(self) -> None:
        """Keep the highest resident size, until cancelled."""
        while True:
            self.resident_max_bytes = max(self.resident_max_bytes, resident_bytes(self.sidecar))
            await asyncio.sleep(SAMPLE_SECONDS)

    def resources(self) -> Resources:
        """The figures."""
        wall, sidecar, redis, generator, simulators, waited, generator_waited, machine = (
            after - before for before, after in zip(self.begin, self.end, strict=True)
        )
        return Resources(
            resident_max_bytes=self.resident_max_bytes,
            cpu_share=sidecar / wall,
            redis_cpu_share=redis / wall,
            generator_cpu_share=generator / wall,
            simulators_cpu_share=simulators / wall,
            waited_share=waited / wall,
            generator_waited_share=generator_waited / wall,
            strangers_cores=max(0.0, machine - sidecar - redis - generator - simulators) / wall,
        )


@asynccontextmanager
async def watching(surroundings: Surroundings, under_test: UnderTest) -> AsyncIterator[Watch]:
    """Watch for as long as the context lasts."""
    watch = Watch(
        sidecar=under_test.child.process_id,
        redis=surroundings.redis.process_id,
        simulators=[child.process_id for child in surroundings.simulators],
    )
    watch.begin = watch.now()
    sampling = asyncio.create_task(watch.sample())
    try:
        yield watch
    finally:
        sampling.cancel()
        watch.end = watch.now()
