"""What is well and what is not: for readiness, for metrics, and one log line per change."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_sidecar.audit import Change
    from llm_sidecar.metrics import Metrics

logger = logging.getLogger(__name__)


class Health:
    """The sidecar's own state. Readiness never depends on Redis or on a provider: without them the proxy still
    answers, and taking every pod of a service out of rotation would make an outage of one of them total.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.ready = False
        self.config_hash = ""
        self.config_problems: tuple[str, ...] = ()
        self.store_reason: str | None = None
        self.dropped_settlements = 0
        metrics.degraded.labels("settlements").set(0)

    def config_loaded(self, config_hash: str) -> None:
        """A configuration came into use."""
        self.config_hash, self.config_problems = config_hash, ()
        self._metrics.config_loaded(config_hash)
        logger.info("configuration %s is in use", config_hash)

    def config_refused(self, problems: tuple[str, ...]) -> None:
        """A new configuration cannot be used; the last good one stays."""
        self.config_problems = problems
        self._metrics.degraded.labels("config").set(1)
        logger.error("the new configuration cannot be used, %s stays in use: %s", self.config_hash, "; ".join(problems))

    def store_changed(self, *, available: bool, reason: str | None) -> None:
        """The store went away or came back."""
        self.store_reason = None if available else (reason or "unknown")
        self._metrics.degraded.labels("store").set(0 if available else 1)
        if available:
            logger.warning("the store is back")
        else:
            logger.warning("the store is away (%s): nothing is cached, limits follow onStoreUnavailable", reason)

    def settlements_dropped(self, count: int) -> None:
        """What requests used could not be booked. It stays so for the process: what is lost does not come back."""
        if not self.dropped_settlements:
            self._metrics.degraded.labels("settlements").set(1)
            logger.warning(
                "the store did not take what %d requests used: limits count only what their leases reserved as input. "
                'This line comes once; llm_sidecar_degraded{part="settlements"} stays 1',
                count,
            )
        self.dropped_settlements += count

    def audit_changed(self, change: Change) -> None:
        """Audit lines are lost, or written again."""
        self._metrics.degraded.labels("audit").set(0 if change == "complete" else 1)
        if change == "complete":
            logger.warning("the audit log is written again")
        else:
            logger.warning("standard output takes no more lines: audit lines are lost")

    def detail(self) -> dict[str, Any]:
        """What `/readyz` tells."""
        return {
            "ready": self.ready,
            "config": {"hash": self.config_hash, "problems": list(self.config_problems)},
            "store": {"available": self.store_reason is None, "reason": self.store_reason},
        }
