"""What Prometheus scrapes. Label values come from configured names only, so the number of series is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from llm_sidecar import __version__
from llm_sidecar.failover.circuit import CircuitState
from llm_sidecar.optimization.metrics import NANO_PER_USD, OptimizationMetrics
from llm_sidecar.record import OTHER

if TYPE_CHECKING:
    from prometheus_client import Metric

    from llm_sidecar.record import RequestRecord

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
DURATION_BUCKETS: Final = (0.005, 0.02, 0.1, 0.3, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""From a cache hit to the longest reasoning call."""

_GIVEN: Final = frozenset({"hit", "coalesced", "stale"})
"""What the cache did for requests whose answer is no provider's own."""
_CIRCUIT_FIGURES: Final = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}


class _Before(Collector):
    """Has no metrics: is asked for them, and lets something be done before all others are."""

    def __init__(self, settle: Callable[[], None]) -> None:
        self._settle = settle

    def collect(self) -> Iterable[Metric]:
        self._settle()
        return ()

    def describe(self) -> Iterable[Metric]:
        """None; without this, registering would collect."""
        return ()


class Metrics:
    """All metrics of one sidecar, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every first, which nothing reads
        self.registry = registry = CollectorRegistry()
        self._pending: dict[tuple[Counter, *tuple[str, ...]], float] = {}
        registry.register(_Before(self._settle))  # first, as they are asked in turn
        self.requests = Counter(
            "llm_requests",
            "Requests of applications, by final status.",
            ("provider", "status", "model", "team", "type"),
            registry=registry,
        )
        self.tokens = Counter(
            "llm_tokens",
            "Tokens that providers counted, in disjoint kinds (reasoning is a part of output).",
            ("provider", "model", "team", "kind"),
            registry=registry,
        )
        self.duration = Histogram(
            "llm_request_duration_seconds",
            "From the request's head to the end of its answer.",
            ("provider", "type"),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.time_to_first_token = Histogram(
            "llm_time_to_first_token_seconds",
            "From the request's head to a stream's first content.",
            ("provider",),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.cache_requests = Counter(
            "llm_cache_requests", "Requests by what the cache did for them.", ("result",), registry=registry
        )
        self.cache_saved_tokens = Counter(
            "llm_cache_saved_tokens", "Tokens of answers that the cache gave.", registry=registry
        )
        self.cache_saved_usd = Counter(
            "llm_cache_saved_usd", "What those answers would have cost, of models with a price.", registry=registry
        )
        self.failovers = Counter(
            "llm_failovers",
            "Attempts that went to another provider, by why.",
            ("from", "to", "reason"),
            registry=registry,
        )
        self.retries = Counter(
            "llm_retries",
            "Attempts at the same provider and model again, by why.",
            ("provider", "reason"),
            registry=registry,
        )
        self.cost = Counter(
            "llm_cost_usd",
            "What answers cost, of models with a price.",
            ("provider", "model", "team"),
            registry=registry,
        )
        self.circuit_state = Gauge(
            "llm_circuit_state",
            "0 closed, 1 half open: a single request tries, 2 open: not asked.",
            ("provider", "model"),
            registry=registry,
        )
        self.quota_refusals = Counter(
            "llm_quota_refusals", "Requests refused by a limit.", ("team", "limit"), registry=registry
        )
        self.quota_shadow_refusals = Counter(
            "llm_quota_shadow_refusals",
            "Requests that a limit with onExceeded Shadow would have refused.",
            ("team", "limit"),
            registry=registry,
        )
        self.quota_unbounded = Counter(
            "llm_quota_unbounded_requests",
            "Requests under a limit with reservation Maximum whose input cannot be told from their body, or whose "
            "output nobody caps.",
            ("team",),
            registry=registry,
        )
        self.quota_downgrades = Counter(
            "llm_quota_downgrades",
            "Requests that a cheaper model answered, since a limit was nearly used up.",
            ("team", "to"),
            registry=registry,
        )
        self.optimization = OptimizationMetrics(registry)
        self.usage_source = Counter(
            "llm_usage_source", "How the charged tokens were known.", ("source",), registry=registry
        )
        self.degraded = Gauge(
            "llm_sidecar_degraded", "1 while a part works in a reduced way.", ("part",), registry=registry
        )
        self.config_info = Gauge("llm_sidecar_config_info", "The configuration in use.", ("hash",), registry=registry)
        self.config_reload_timestamp = Gauge(
            "llm_sidecar_config_last_reload_timestamp_seconds",
            "When the configuration in use was loaded.",
            registry=registry,
        )
        Gauge("llm_sidecar_build_info", "This program.", ("version",), registry=registry).labels(__version__).set(1)
        self.degraded.labels("store").set(0)
        self.degraded.labels("config").set(0)
        self.degraded.labels("audit").set(0)
        self._children: dict[tuple[object, ...], Callable[[float], None]] = {}

    def _increase(self, by: float, *key: *tuple[Counter, *tuple[str, ...]]) -> None:
        """Count under a counter and its labels. Sums are enough until somebody asks: a counter takes seven calls."""
        pending = self._pending
        pending[key] = pending.get(key, 0) + by

    def _settle(self) -> None:
        """Bring what was counted since the last time to the counters."""
        pending, self._pending = self._pending, {}
        for (counter, *labels), amount in pending.items():
            (counter.labels(*labels) if labels else counter).inc(amount)

    def _observe(self, histogram: Histogram, *labels: str) -> Callable[[float], None]:
        key = (histogram, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = histogram.labels(*labels).observe
        return child

    def count(self, record: RequestRecord, now: float) -> None:
        """Count one finished request; `now` is on the record's clock."""
        request_type = record.type or OTHER
        provider = record.provider
        self._increase(1, self.requests, provider, str(record.status), record.model, record.team, request_type)
        self._observe(self.duration, provider, request_type)(now - record.started)
        if record.refused_limit:
            self._increase(1, self.quota_refusals, record.team, record.refused_limit)
        if record.shadow_refused or record.unbounded or record.downgraded_from:
            self._count_quota(record)
        if record.first_content is not None:
            self._observe(self.time_to_first_token, provider)(record.first_content - record.started)
        if record.cache is not None:
            self._increase(1, self.cache_requests, record.cache)
        self.optimization.count(record)
        if record.cache in _GIVEN:
            self._count_given(record)
        else:
            self._count_tokens(record)
        self._count_charged(record)
        if len(record.attempts) > 1:
            self._count_further_attempts(record)

    def _count_given(self, record: RequestRecord) -> None:
        if record.usage is not None:
            self._increase(record.usage.total_tokens, self.cache_saved_tokens)
        if record.cache_saved_nano_usd:
            self._increase(record.cache_saved_nano_usd / NANO_PER_USD, self.cache_saved_usd)

    def _count_charged(self, record: RequestRecord) -> None:
        # Also where a stored answer was given in the end: a provider that failed before may have worked for it.
        if record.usage_source is not None:
            self._increase(1, self.usage_source, record.usage_source)
        if record.cost_nano_usd:
            self._increase(record.cost_nano_usd / NANO_PER_USD, self.cost, record.provider, record.model, record.team)

    def _count_quota(self, record: RequestRecord) -> None:
        for limit in record.shadow_refused:
            self._increase(1, self.quota_shadow_refusals, record.team, limit)
        if record.unbounded:
            self._increase(1, self.quota_unbounded, record.team)
        if record.downgraded_from:
            self._increase(1, self.quota_downgrades, record.team, record.model)

    def _count_tokens(self, record: RequestRecord) -> None:
        usage = record.usage
        if usage is None:
            return
        for kind, tokens in (
            ("input", usage.input_tokens),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write", usage.cache_write_tokens),
            ("output", usage.output_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            if tokens:
                self._increase(tokens, self.tokens, record.provider, record.model, record.team, kind)

    def _count_further_attempts(self, record: RequestRecord) -> None:
        for failed, following in zip(record.attempts, record.attempts[1:], strict=False):
            if (failed.provider, failed.model) == (following.provider, following.model):
                self._increase(1, self.retries, failed.provider, failed.outcome)
            else:
                self._increase(1, self.failovers, failed.provider, following.provider, failed.outcome)

    def circuit_changed(self, provider: str, model: str, state: CircuitState) -> None:
        """A circuit breaker was made, or changed its state."""
        self.circuit_state.labels(provider, model).set(_CIRCUIT_FIGURES[state])

    def circuit_forgotten(self, provider: str, model: str) -> None:
        """A configuration no longer has it."""
        self.circuit_state.remove(provider, model)

    def config_loaded(self, config_hash: str) -> None:
        """A configuration came into use."""
        self.config_info.clear()
        self.config_info.labels(config_hash).set(1)
        self.config_reload_timestamp.set(time.time())
        self.degraded.labels("config").set(0)

    def exposition(self) -> bytes:
        """All metrics as Prometheus text."""
        return generate_latest(self.registry)
