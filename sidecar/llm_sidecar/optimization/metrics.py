"""What optimisations saved, as metrics: only what is known to have been saved, and never more than that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from llm_sidecar.record import RequestRecord, Strategy

NANO_PER_USD: Final = 10**9


class OptimizationMetrics:
    """Counts savings by strategy.

    A counter cannot go down, and filling a provider's cache costs more than leaving it alone: what it cost in excess is
    first earned back before anything counts as saved.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._saved_tokens = Counter(
            "llm_optimization_saved_tokens",
            "Tokens that no provider was asked for, or that it charged at the price of its own cache.",
            ("strategy",),
            registry=registry,
        )
        self._saved_usd = Counter(
            "llm_optimization_saved_usd",
            "What that saved, of models with a price, less what it cost in excess.",
            ("strategy",),
            registry=registry,
        )
        self._clamped = Counter(
            "llm_optimization_clamped_requests",
            "Requests sent with a lower bound on output; what it saved cannot be known.",
            ("team",),
            registry=registry,
        )
        self._to_earn_back_nano_usd: dict[Strategy, int] = {}

    def count(self, record: RequestRecord) -> None:
        """Count what one finished request saved."""
        if record.output_clamped_tokens:
            self._clamped.labels(record.team).inc()
        for saving in record.savings:
            if saving.tokens:
                self._saved_tokens.labels(saving.strategy).inc(saving.tokens)
            if saving.nano_usd:
                self._earn(saving.strategy, saving.nano_usd)

    def _earn(self, strategy: Strategy, nano_usd: int) -> None:
        balance = nano_usd - self._to_earn_back_nano_usd.get(strategy, 0)
        self._to_earn_back_nano_usd[strategy] = max(0, -balance)
        if balance > 0:
            self._saved_usd.labels(strategy).inc(balance / NANO_PER_USD)
