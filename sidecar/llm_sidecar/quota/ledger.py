"""What a settlement tells the ledger: who was asked, for what, and what it came to. Read by people and exports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_sidecar.prices import FEMTO_PER_NANO
from llm_sidecar.quota.demand import MAX_AMOUNT

if TYPE_CHECKING:
    from llm_sidecar.formats.base import Usage
    from llm_sidecar.quota.reservation import UsageSource


@dataclass(slots=True, kw_only=True)
class LedgerEntry:
    """One settled request. Its words stand in the order in which `settle.lua` names them."""

    source: UsageSource
    api: str = ""
    provider: str = ""
    model: str = ""
    asked_model: str = ""
    usage: Usage | None = None
    cost_femto_usd: int = 0
    status: int = 0

    def words(self) -> tuple[str | int, ...]:
        """As the script takes them; what is unknown is empty, which is not zero."""
        usage = self.usage
        nano_usd, femto_rest = divmod(min(self.cost_femto_usd, MAX_AMOUNT * FEMTO_PER_NANO), FEMTO_PER_NANO)
        buckets: tuple[int | None, ...] = (None,) * 5
        if usage is not None:
            buckets = (
                usage.input_tokens,
                usage.cache_read_tokens,
                usage.cache_write_tokens,
                usage.output_tokens,
                usage.reasoning_tokens,
            )
        return (
            self.api,
            self.provider,
            self.model,
            self.asked_model,
            self.source,
            *("" if tokens is None else min(tokens, MAX_AMOUNT) for tokens in buckets),
            nano_usd,
            femto_rest,
            self.status,
        )


RELEASED: Final[tuple[str | int, ...]] = ("",) * 13
"""Nothing was spent, so nothing is written."""
