"""What a simulated sidecar is made of: a store that is watched, and the one request that all of them ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.prices import Prices
from llm_sidecar.quota import Charge, Demand, LedgerEntry
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.store import Reply, Script
from tests.bench.payloads import MODEL, USAGE

_PRICES: Final = Prices(input=250_000_000, cached_input=25_000_000, cache_write=250_000_000, output=2_000_000_000)
TOKENS: Final = USAGE["total_tokens"]
DEMAND: Final = Demand(
    model=MODEL,
    input_tokens=USAGE["prompt_tokens"],
    input_tokens_at_most=200,
    expected_output_tokens=USAGE["completion_tokens"],
    maximum_output_tokens=1000,
    prices=_PRICES,
)
_COST: Final = USAGE["prompt_tokens"] * _PRICES.input + USAGE["completion_tokens"] * _PRICES.output
CHARGE: Final = Charge(tokens=TOKENS, cost_femto_usd=_COST)
ENTRY: Final = LedgerEntry(
    source="measured",
    api="openai-chat",
    provider="bench",
    model=MODEL,
    asked_model=MODEL,
    cost_femto_usd=_COST,
    status=200,
)


class ObservedStore(RedisStore):
    """A sidecar's store, which counts what was answered and tells whoever waits for it."""

    def __init__(self, port: int, *, timeout_seconds: float | None = None) -> None:
        url = f"redis://127.0.0.1:{port}/0"
        if timeout_seconds is None:  # a sidecar's own
            super().__init__(url)
        else:
            super().__init__(url, timeout_seconds=timeout_seconds)
        self.answered: dict[str, int] = {}
        self.on_answer: Callable[[str], object] = lambda _script: None

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        """As the store does."""
        reply = await super().run(script, keys, arguments)
        self.answered[script.name] = self.answered.get(script.name, 0) + 1
        self.on_answer(script.name)
        return reply


def spec_of(limits: Sequence[dict[str, Any]], *, policy: str) -> TeamQuotaSpec:
    """A team's quota with these limits."""
    return TeamQuotaSpec.model_validate({"limits": limits, "onStoreUnavailable": policy})
