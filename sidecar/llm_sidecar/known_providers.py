"""What this process remembers of its providers between requests: circuit breakers and retry budgets."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_sidecar.failover.breaker import CircuitBreakers
from llm_sidecar.failover.retry_budget import LocalRetries, RetryBudget
from llm_sidecar.formats.told_error import FailureKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_sidecar.failover.breaker import CircuitBreaker, OnState
    from llm_sidecar.failover.routes import Candidate, ConfiguredProvider, Draw

OnOutcome = Callable[[str, FailureKind | None, float], object]
"""Called with a provider, why an attempt failed (None: it did not), and how many milliseconds it took."""


class Providers:
    """The providers, as this process knows them."""

    def __init__(self, *, on_circuit: OnState, on_outcome: OnOutcome, draw: Draw = random.random) -> None:
        self.breakers = CircuitBreakers(on_state=on_circuit, draw=draw)
        self.on_outcome = on_outcome
        self.draw = draw
        self._budgets: dict[str, RetryBudget] = {}

    def breaker(self, candidate: Candidate) -> CircuitBreaker:
        """The breaker of a candidate's provider and model."""
        configured = candidate.configured
        return self.breakers.of(configured.provider.name, candidate.model.name, settings=configured.circuit)

    def is_shut(self, candidate: Candidate) -> bool:
        """True where a request would not be sent to a candidate now, for its circuit is open."""
        return self.breakers.is_shut(candidate.name, candidate.model.name)

    def request_began(self, configured: ConfiguredProvider, *, sdk_retries: int) -> None:
        """A request has come to a provider. Call it once for each, before its first attempt there."""
        budget = self._budgets.get(configured.provider.name) or self._budget(configured)
        budget.request_began(sdk_retries=sdk_retries)

    def retries(self, configured: ConfiguredProvider, *, sdk_retries: int) -> LocalRetries:
        """What a request whose first attempt at a provider has failed may still do there."""
        return LocalRetries(configured.retry, self._budget(configured), sdk_retries=sdk_retries, draw=self.draw)

    def _budget(self, configured: ConfiguredProvider) -> RetryBudget:
        name = configured.provider.name
        budget = self._budgets.get(name)
        if budget is None:
            budget = self._budgets[name] = RetryBudget()
        return budget

    def hint_failing(self, provider: str, model: str) -> None:
        """Somebody else's circuit for these opened; ours, if there is one, lets a single request find out."""
        self.breakers.hint_failing(provider, model)

    def keep(self, configured: Sequence[ConfiguredProvider]) -> list[tuple[str, str]]:
        """Forget the providers that a new configuration does not name; returns the forgotten circuits."""
        names = {one.name for one in configured}
        self._budgets = {name: budget for name, budget in self._budgets.items() if name in names}
        return self.breakers.keep({(one.name, model.name) for one in configured for model in one.models})
