"""The course of a run: memory first, then interleaved rounds, then starts and imports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

from tests.bench.children import ROOT, BenchmarkFailed, environment, module_command
from tests.bench.load import STALL_SECONDS, LoadSettings
from tests.bench.pairs import Pair
from tests.bench.payloads import Kind
from tests.bench.proc import resident_bytes
from tests.bench.results import (
    DIRECT,
    EVERY_SCENARIO,
    SATURATING,
    SCENARIOS,
    SPECIAL,
    LoadResult,
    Measurements,
    Memory,
    Sample,
    Scenario,
    Start,
)
from tests.bench.targets import FULL, MINIMAL, Surroundings, Target, start_target

UNDER_TEST: Final = "target"
REDIS: Final = "redis"
UPSTREAM: Final = "upstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much of everything; a quick run answers "is it broken", not "how fast is it"."""

    rounds: int
    warm_up_seconds: float
    window_seconds: float
    memory_requests: int
    starts: int
    special_warm_up_seconds: float
    """Of translated calls and failover: many rows, of which only latencies are told."""
    special_window_seconds: float


DEFAULT_EFFORT: Final = Effort(
    rounds=3,
    warm_up_seconds=0.4,
    window_seconds=1.6,
    memory_requests=20_000,
    starts=5,
    special_warm_up_seconds=0.3,
    special_window_seconds=0.9,
)
QUICK_EFFORT: Final = Effort(
    rounds=1,
    warm_up_seconds=0.2,
    window_seconds=0.5,
    memory_requests=3_000,
    starts=3,
    special_warm_up_seconds=0.2,
    special_window_seconds=0.3,
)


def measure(names: Sequence[str], *, surroundings: Surroundings, effort: Effort) -> Measurements:
    """Run everything for these targets, which include the upstream alone and the minimal proxy."""
    found = Measurements()
    tell("start the targets")
    targets = [start_target(name, surroundings) for name in names]
    usual = [target for target in targets if target.name not in SPECIAL]
    before = {target.name: _first_requests(target, surroundings, effort=effort) for target in usual}
    for round_number in range(1, effort.rounds + 1):
        tell(f"round {round_number} of {effort.rounds}")
        surroundings.flush_redis()
        surroundings.children.trim_logs()
        found.samples += _round(targets, surroundings, round_number=round_number, effort=effort)
    for target in usual:
        found.memory[target.name] = _memory(target, before[target.name], found.samples)
    for target in targets:
        if target.name != DIRECT:
            surroundings.children.stop(target.child)
    tell("starts and imports")
    for name in (name for name in names if name in {MINIMAL, FULL}):
        found.starts[name] = _starts(name, surroundings, count=effort.starts)
    if any(name not in {DIRECT, MINIMAL} for name in names):
        found.import_seconds = _import_seconds("llm_sidecar.app", count=effort.starts)
    return found


def tell(text: str) -> None:
    """Say how far the run is, apart from its result."""
    print(text, file=sys.stderr, flush=True)


def _round(
    targets: Sequence[Target], surroundings: Surroundings, *, round_number: int, effort: Effort
) -> Iterator[Sample]:
    # Targets take turns within each scenario, so that the machine's mood meets them all alike.
    for scenario in EVERY_SCENARIO:
        for target in targets:
            if target.is_measured_in(scenario):
                settings = _settings(target, surroundings, kind=scenario.kind, concurrency=scenario.concurrency)
                timed = _timed(scenario, target, effort=effort)
                if target.bodies:
                    _fill_cache(settings, target)
                result = _load({**settings, **timed}, target, what=f"{target.name}; {scenario.name}")
                yield sample_of(
                    result,
                    scenario=scenario,
                    target=target.name,
                    round_number=round_number,
                    other_cores=len(surroundings.children.cores.others),
                )


def _fill_cache(settings: dict[str, object], target: Target) -> None:
    """Have each body answered once. Nothing is expected of the headers yet."""
    counted = {"requests": target.bodies, "expected_headers": (), "concurrency": min(target.bodies, SATURATING)}
    _load({**settings, **counted}, target, what=f"{target.name}; filling the cache")


def _timed(scenario: Scenario, target: Target, *, effort: Effort) -> dict[str, object]:
    if not scenario.targets:
        return {"warm_up_seconds": effort.warm_up_seconds, "window_seconds": effort.window_seconds}
    timed: dict[str, object] = {
        "warm_up_seconds": effort.special_warm_up_seconds,
        "window_seconds": effort.special_window_seconds,
        "expected_headers": target.expected_headers,
    }
    if scenario.pair is not None:
        own = Pair(client=scenario.pair.provider, provider=scenario.pair.provider)
        timed["pair"] = (own if target.name == DIRECT else scenario.pair).name
    return timed


def sample_of(result: LoadResult, *, scenario: Scenario, target: str, round_number: int, other_cores: int) -> Sample:
    """The figures of one window, per request and per second."""
    cpu_seconds = result.cpu_seconds[UNDER_TEST]
    return Sample(
        round_number=round_number,
        scenario=scenario.name,
        target=target,
        requests=result.requests,
        requests_per_second=result.requests / result.seconds,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        first_byte_p50_ms=result.first_byte_p50_ms,
        first_byte_p99_ms=result.first_byte_p99_ms,
        cpu_microseconds_per_request=cpu_seconds / result.requests * 1e6,
        # A window in which the clock tick of CPU time never fell tells nothing.
        requests_per_core_second=result.requests / cpu_seconds if cpu_seconds else 0.0,
        redis_cpu_microseconds_per_request=result.cpu_seconds[REDIS] / result.requests * 1e6,
        surroundings_share=_surroundings_share(result, other_cores=other_cores),
        strangers_cores=_strangers_cores(result, direct=target == DIRECT),
        resident_max_bytes=result.resident_max_bytes[UNDER_TEST],
    )


def _strangers_cores(result: LoadResult, *, direct: bool) -> float:
    # The upstream alone is watched under two names.
    watched = sum(seconds for name, seconds in result.cpu_seconds.items() if not direct or name != UPSTREAM)
    return max(0.0, result.machine_busy_seconds - watched - result.generator_cpu_seconds) / result.seconds


def _surroundings_share(result: LoadResult, *, other_cores: int) -> float:
    # The generator is one thread, so one core is its limit; all together they have the cores beside the target's.
    generator = result.generator_cpu_seconds / result.seconds
    everything = result.generator_cpu_seconds + result.cpu_seconds[REDIS] + result.cpu_seconds[UPSTREAM]
    return max(generator, everything / result.seconds / other_cores)


def _settings(target: Target, surroundings: Surroundings, *, kind: Kind, concurrency: int) -> dict[str, object]:
    return {
        "port": target.port,
        "kind": kind,
        "concurrency": concurrency,
        "bodies": target.bodies,
        "expected_headers": target.expected_headers if kind is Kind.PLAIN else (),
        "watch": {
            UNDER_TEST: target.child.process_id,
            REDIS: surroundings.redis.process_id,
            UPSTREAM: surroundings.upstream.process_id,
        },
    }


def _load(document: dict[str, object], target: Target, *, what: str) -> LoadResult:
    settings = LoadSettings.from_document(document)
    limit_seconds = settings.limit_seconds + STALL_SECONDS
    command = module_command("load", json.dumps(asdict(settings)))
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, timeout=limit_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise target.child.failure(f"the load did not end within {limit_seconds:.0f} s ({what})") from None
    if done.returncode:
        raise BenchmarkFailed(f"the load generator failed ({what}):\n{done.stderr.decode(errors='replace')[-2000:]}")
    result = LoadResult(**json.loads(done.stdout))
    if result.errors or not result.requests:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in result.errors.items()) or "no answer in time"
        raise target.child.failure(f"wrong answers, so no figures ({what}): {reasons}")
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _FirstRequests:
    """Memory of a fresh process, before and after a known number of requests."""

    idle_bytes: int
    requests: int
    after_bytes: int
    max_bytes: int


def _first_requests(target: Target, surroundings: Surroundings, *, effort: Effort) -> _FirstRequests:
    tell(f"first {effort.memory_requests} requests: {target.name}")
    idle_bytes = resident_bytes(target.child.process_id)
    settings = _settings(target, surroundings, kind=Kind.PLAIN, concurrency=SATURATING)
    # Until the cache is warm a repeated body misses, so nothing is expected of the headers yet.
    counted = {"requests": effort.memory_requests, "expected_headers": ()}
    result = _load({**settings, **counted}, target, what=f"{target.name}; first requests")
    return _FirstRequests(
        idle_bytes=idle_bytes,
        requests=effort.memory_requests,
        after_bytes=resident_bytes(target.child.process_id),
        max_bytes=result.resident_max_bytes[UNDER_TEST],
    )


def _memory(target: Target, first: _FirstRequests, samples: Sequence[Sample]) -> Memory:
    saturated = {scenario.name for scenario in SCENARIOS if scenario.concurrency == SATURATING}
    seen = [s.resident_max_bytes for s in samples if s.target == target.name and s.scenario in saturated]
    return Memory(
        idle_bytes=first.idle_bytes,
        after_requests=first.requests,
        after_requests_bytes=first.after_bytes,
        at_100_connections_bytes=max([first.max_bytes, *seen]),
        end_bytes=resident_bytes(target.child.process_id),
    )


def _starts(name: str, surroundings: Surroundings, *, count: int) -> Start:
    ready, first_answer = [], []
    for _ in range(count):
        target = start_target(name, surroundings)
        surroundings.children.stop(target.child)
        ready.append(target.ready_seconds)
        first_answer.append(target.first_answer_seconds)
    return Start(ready_seconds=median(ready), first_answer_seconds=median(first_answer), starts=count)


def _import_seconds(module: str, *, count: int) -> float:
    with_module = [_interpreter_seconds(f"import {module}") for _ in range(count)]
    bare = [_interpreter_seconds("pass") for _ in range(count)]
    return median(with_module) - median(bare)


def _interpreter_seconds(code: str) -> float:
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-OO", "-c", code], cwd=ROOT, env=environment(), capture_output=True, timeout=30, check=False
    )
    elapsed = time.perf_counter() - begin
    if done.returncode:
        raise BenchmarkFailed(f"`{code}` failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
    return elapsed
