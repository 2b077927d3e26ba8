"""What Prometheus scrapes from the webhook. Label values come from closed tables."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

_DURATION_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""From a small pod to the API server's patience."""


class AdmissionResult(StrEnum):
    """What became of a review."""

    INJECTED = "injected"
    SKIPPED = "skipped"
    REFUSED = "refused"
    FAILED = "failed"
    """Something is wrong on our side, or in the webhook configuration: alert on it."""


class WebhookMetrics:
    """The webhook's metrics, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every first
        self._registry = registry = CollectorRegistry()
        self._admissions = Counter(
            "llm_operator_webhook_admissions",
            "Answered admission reviews, by result and reason.",
            ("result", "reason"),
            registry=registry,
        )
        self.admission_duration = Histogram(
            "llm_operator_webhook_admission_duration_seconds",
            "From a review's last byte to its answer's first.",
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        self.certificate_expiry = Gauge(
            "llm_operator_webhook_certificate_expiry_timestamp_seconds",
            "When the certificate ends that this process shows to the API server; 0 while it has none.",
            registry=registry,
        )

    def count(self, result: AdmissionResult, reason: str) -> None:
        """One review was answered."""
        self._admissions.labels(result.value, reason).inc()

    def exposition(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
