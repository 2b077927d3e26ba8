"""What the controller tells Prometheus. Labels are kinds, verbs and outcomes, never names of users' objects,
but for those that speak of providers and of teams' limits.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest


class ControllerMetrics:
    """All metrics of the controller, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every first
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "llm_operator_reconciles", "Objects looked at.", ["kind", "outcome"], registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "llm_operator_reconcile_duration_seconds", "Time to look at one object.", ["kind"], registry=self.registry
        )
        self.api_calls = Counter(
            "llm_operator_api_calls", "Calls to the API server.", ["verb", "resource", "status"], registry=self.registry
        )
        self.queue_depth = Gauge("llm_operator_queue_depth", "Objects that wait.", ["queue"], registry=self.registry)
        self.published = Gauge("llm_operator_published_secrets", "Secrets that are published.", registry=self.registry)
        self.secret_writes = Counter(
            "llm_operator_secret_writes", "Published Secrets that were written.", registry=self.registry
        )
        self.key_checks = Counter(
            "llm_operator_key_checks", "Providers asked about their key.", ["outcome"], registry=self.registry
        )
        self.health_probes = Counter(
            "llm_operator_health_probes", "Providers probed.", ["outcome"], registry=self.registry
        )
        self.report_reads = Counter(
            "llm_operator_report_reads", "Proxies' reports read from Redis.", ["outcome"], registry=self.registry
        )
        self.provider_healthy = Gauge(
            "llm_provider_healthy",
            "1 while a provider works, 0 while it does not; no series while nobody knows.",
            ["provider"],
            registry=self.registry,
        )
        self.usage_reads = Counter(
            "llm_operator_usage_reads", "Looks at the teams' counters.", ["outcome"], registry=self.registry
        )
        self.quota_used_ratio = Gauge(
            "llm_quota_used_ratio",
            "Used of a limit in its current window, 1 is all of it; of concurrentRequests, how many are under way.",
            ["team", "limit"],
            registry=self.registry,
        )
        self.quota_threshold_crossings = Counter(
            "llm_quota_threshold_crossings",
            "Thresholds of limits that were crossed, each once in a window.",
            ["team", "limit", "percent"],
            registry=self.registry,
        )
        self.events = Counter(
            "llm_operator_watch_events", "Changes that the watches told of.", ["kind"], registry=self.registry
        )
        self.last_event_timestamp = Gauge(
            "llm_operator_last_watch_event_timestamp_seconds", "When a watch told of a change.", registry=self.registry
        )
        self.resyncs = Counter("llm_operator_resyncs", "Listings of everything.", ["outcome"], registry=self.registry)

    def count_call(self, verb: str, resource: str, status: int) -> None:
        """Count a call to the API server."""
        self.api_calls.labels(verb, resource, str(status) if status else "none").inc()

    def exposition(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
