"""What the parts of the controller's loop share: what was heard of the cluster, what is published, the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from llm_operator.kube import Kube
from llm_operator.publish import Publisher
from llm_operator.reconcile.health_probe import ProbeProvider
from llm_operator.reconcile.key_check import Ask
from llm_operator.reconcile.marking import Work
from llm_operator.reconcile.metrics import ControllerMetrics
from llm_operator.reconcile.objects import Claim
from llm_operator.reconcile.provider_checks import Outcome
from llm_operator.reconcile.purge_store import Purges
from llm_operator.reconcile.queue import WorkQueue
from llm_operator.reconcile.report_reader import Reports
from llm_operator.reconcile.selection import Rules
from llm_operator.reconcile.store import Store
from llm_operator.reconcile.usage_reader import Usages
from llm_operator.settings import Settings

GATHER_SECONDS: Final = 0.05
"""Changes that come together, as `kubectl apply` of several resources does, are looked at together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the loop needs from outside."""

    kube: Kube
    settings: Settings
    ask: Ask
    probe: ProbeProvider
    reports: Reports | None = None
    """None: there is no Redis to read them from."""
    usages: Usages | None = None
    """The same."""
    purges: Purges | None = None
    """The same, for cached answers."""
    clock: Callable[[], float]
    """Monotonic seconds."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    metrics: ControllerMetrics

    def timestamp(self) -> str:
        """Now, as the API server writes it."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")


class State:
    """See the module."""

    def __init__(self, surroundings: Surroundings) -> None:
        settings, clock = surroundings.settings, surroundings.clock
        self.store = Store()
        self.publisher = Publisher(surroundings.kube, settings, clock=clock, metrics=surroundings.metrics)
        self.queue: WorkQueue[Work] = WorkQueue(clock)
        self.outcomes: dict[Claim, Outcome] = {}
        """What became of each claim the last time it was looked at."""
        self._shared_namespaces = settings.provider_namespaces

    def mark(self, works: Iterable[Work]) -> None:
        """Look at these."""
        for work in works:
            self.queue.mark(work, delay_seconds=GATHER_SECONDS if work.kind == "claim" else 0.0)

    def claims(self) -> set[Claim]:
        """What running pods claim, and what is still published."""
        return self.store.claims() | self.publisher.claims

    def rules(self, namespace: str) -> Rules:
        """What decides which providers a namespace may use."""
        found = self.store.namespace(namespace)
        labels = found.labels if found is not None else {}
        return Rules(shared_namespaces=self._shared_namespaces, namespace_labels=labels)
