"""What requests cost: exact, in whole numbers. Pure.

A price has up to nine decimals of a US dollar per million tokens: one token then costs a whole number of femto-dollars
(10⁻¹⁵ USD).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llm_sidecar.contract.provider_resource import Model, Pricing
    from llm_sidecar.formats.base import Usage

FEMTO_PER_NANO: Final = 1_000_000
_DECIMALS: Final = 9
KNOWN_PRICES: Final = 1024
UNCAPPED_OUTPUT_TOKENS: Final = 1000
"""Of a request that says no bound, where prices are compared: no budget is kept by it."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a request is, in tokens; both are what it may take at most."""

    input_tokens: int
    output_tokens: int | None
    """None where the request says no bound."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Femto-dollars per token."""

    input: int
    cached_input: int
    cache_write: int
    output: int

    @property
    def dearest_input(self) -> int:
        """What a token of input costs at most, whichever way the provider's own cache takes it."""
        return max(self.input, self.cached_input, self.cache_write)

    def cost_femto_usd(self, usage: Usage) -> int:
        """What this usage costs, exactly."""
        return (
            (usage.input_tokens or 0) * self.input
            + (usage.cache_read_tokens or 0) * self.cached_input
            + (usage.cache_write_tokens or 0) * self.cache_write
            + (usage.output_tokens or 0) * self.output
        )

    def cost_nano_usd(self, usage: Usage) -> int:
        """The same, rounded up to a whole nano-dollar."""
        return -(-self.cost_femto_usd(usage) // FEMTO_PER_NANO)

    def spared_by_prompt_cache_nano_usd(self, usage: Usage) -> int:
        """What the provider's own cache took from the price; below zero where writing into it cost more than that."""
        read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
        femto = read * (self.input - self.cached_input) - written * (self.cache_write - self.input)
        return femto // FEMTO_PER_NANO


@lru_cache(maxsize=KNOWN_PRICES)
def prices(pricing: Pricing) -> Prices:
    """The whole numbers for a model's prices."""
    full = _femto_per_token(pricing.input_usd)
    return Prices(
        input=full,
        cached_input=full if pricing.cached_input_usd is None else _femto_per_token(pricing.cached_input_usd),
        cache_write=full if pricing.cache_write_usd is None else _femto_per_token(pricing.cache_write_usd),
        output=_femto_per_token(pricing.output_usd),
    )


def cost_nano_usd(model: Model, usage: Usage | None) -> int | None:
    """What an answer cost; None where the model has no price, or nothing was told."""
    return None if model.pricing is None or usage is None else prices(model.pricing).cost_nano_usd(usage)


def comparable_cost(model: Model, size: Size) -> float:
    """What a request may cost with this model, in femto-dollars, to compare; infinite without a price.

    Of all models the same answer is expected: by how much each might say, a cheap one that may say a lot would be dear.
    """
    if model.pricing is None:
        return math.inf
    told = prices(model.pricing)
    output_tokens = UNCAPPED_OUTPUT_TOKENS if size.output_tokens is None else size.output_tokens
    return size.input_tokens * told.input + output_tokens * told.output


def _femto_per_token(usd_per_million: str) -> int:
    whole, _, decimals = usd_per_million.partition(".")
    return int(whole) * 10**_DECIMALS + int(decimals.ljust(_DECIMALS, "0"))
