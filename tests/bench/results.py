"""What a run finds out, as plain records: the measuring side fills them, the reporting side reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.bench.pairs import TRANSLATED, Pair
from tests.bench.payloads import Kind
from tests.bench.quota_results import QuotaFigures

DIRECT: Final = "direct"
BARE: Final = "sidecar bare"
QUOTA: Final = "sidecar quota"
EIGHT: Final = "sidecar 8 limits"
HIT: Final = "sidecar hit"
HIT_IN_REDIS: Final = "sidecar hit in redis"
TRANSLATING: Final = "sidecar translated"
FAILING_OVER: Final = "sidecar failover"
SPECIAL: Final = frozenset({TRANSLATING, FAILING_OVER})
"""Targets with scenarios of their own."""
SATURATING: Final = 100
"""The concurrency at which one process can't take more, and at which memory is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One kind of request at one concurrency."""

    name: str
    kind: Kind
    concurrency: int
    pair: Pair | None = None
    """The languages of the call, where they are not the chat API's on both sides."""
    targets: frozenset[str] = frozenset()
    """Those that are measured in it; none: all that have no scenarios of their own."""


PLAIN_SATURATED: Final = Scenario(name="plain, 100 connections", kind=Kind.PLAIN, concurrency=SATURATING)
STREAM_SATURATED: Final = Scenario(name="stream, 100 connections", kind=Kind.STREAM, concurrency=SATURATING)
SCENARIOS: Final = (
    Scenario(name="plain, 1 connection", kind=Kind.PLAIN, concurrency=1),
    Scenario(name="plain, 10 connections", kind=Kind.PLAIN, concurrency=10),
    PLAIN_SATURATED,
    Scenario(name="stream, 1 connection", kind=Kind.STREAM, concurrency=1),
    Scenario(name="stream, 10 connections", kind=Kind.STREAM, concurrency=10),
    STREAM_SATURATED,
    Scenario(name="stream, first event after 50 ms, 10 connections", kind=Kind.DELAYED, concurrency=10),
)
# One connection: what a single caller waits for is the question here.
TRANSLATED_SCENARIOS: Final = tuple(
    Scenario(name=f"{pair.name}, {kind}", kind=kind, concurrency=1, pair=pair, targets=frozenset({DIRECT, TRANSLATING}))
    for pair in TRANSLATED
    for kind in (Kind.PLAIN, Kind.STREAM)
)
FAILOVER_SCENARIOS: Final = tuple(
    Scenario(name=f"failover, {kind}", kind=kind, concurrency=1, targets=frozenset({DIRECT, BARE, FAILING_OVER}))
    for kind in (Kind.PLAIN, Kind.STREAM)
)
EVERY_SCENARIO: Final = (*SCENARIOS, *TRANSLATED_SCENARIOS, *FAILOVER_SCENARIOS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What one window of load measured."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    first_byte_p50_ms: float
    first_byte_p99_ms: float
    cpu_seconds: Mapping[str, float]
    resident_max_bytes: Mapping[str, int]
    generator_cpu_seconds: float
    machine_busy_seconds: float
    errors: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One target in one scenario of one round."""

    round_number: int
    scenario: str
    target: str
    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    first_byte_p50_ms: float
    first_byte_p99_ms: float
    cpu_microseconds_per_request: float
    requests_per_core_second: float
    redis_cpu_microseconds_per_request: float
    surroundings_share: float
    """How busy load generator, upstream and Redis kept their cores: near 1 they set the pace, not the target."""
    strangers_cores: float
    """How many CPUs other programs of the machine kept busy meanwhile."""
    resident_max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident size of one target."""

    idle_bytes: int
    after_requests: int
    after_requests_bytes: int
    at_100_connections_bytes: int
    """The highest seen, plain and streams, over all rounds."""
    end_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Medians over several fresh processes."""

    ready_seconds: float
    first_answer_seconds: float
    starts: int


@dataclass(slots=True, kw_only=True)
class Measurements:
    """Everything that a run found out."""

    samples: list[Sample] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)
    starts: dict[str, Start] = field(default_factory=dict)
    import_seconds: float | None = None
    quotas: QuotaFigures | None = None
    """None where the run left them out."""

    def column(self, figure: str, *, scenario: str, target: str) -> list[float]:
        """One figure of each round, in the order of the rounds."""
        chosen = (s for s in self.samples if s.scenario == scenario and s.target == target)
        return [float(getattr(sample, figure)) for sample in sorted(chosen, key=lambda sample: sample.round_number)]
