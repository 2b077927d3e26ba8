"""What a request may take, and what it took, in the unit of each limit. Pure, and exact: whole numbers throughout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from llm_sidecar.contract.quota_counters import LimitUnit
from llm_sidecar.prices import FEMTO_PER_NANO, Prices
from llm_sidecar.quota.limits import QuotaLimit

MAX_AMOUNT: Final = 10**15
"""No request is this large: what a confused provider tells must not fill a 64-bit counter."""


# These are made for every request: setting a frozen one's fields takes three times as long.
@dataclass(slots=True)
class Hold:
    """What is reserved in one limit."""

    amount: int
    beyond: int = 0
    """By how much the request may still exceed it."""
    abandoned_charge: int = 0
    """What is charged if its sidecar never tells what became of it; at most `amount`."""


@dataclass(slots=True, kw_only=True)
class Demand:
    """What a request may take of one model."""

    model: str
    """Its name at the provider: limits may count some models only."""
    input_tokens: int
    """As estimated: meant to be enough."""
    input_tokens_at_most: int | None = None
    """More is impossible; None where nobody can tell, for a part of the input is not text in the body."""
    expected_output_tokens: int
    maximum_output_tokens: int
    output_is_bounded: bool = True
    """False where nobody says a cap: `maximum_output_tokens` is then a guess of ours."""
    answers: int = 1
    """How many answers the request asks for: the output tokens are those of all, a cap is that of each."""
    prices: Prices | None = None
    """None: the model has no price."""

    def hold(self, limit: QuotaLimit, *, charges_abandoned: bool) -> Hold:
        """What to reserve in a limit."""
        if limit.unit is LimitUnit.CONCURRENT:
            return Hold(1)
        if limit.unit is LimitUnit.REQUESTS:
            return Hold(1, abandoned_charge=1 if charges_abandoned else 0)
        charge = self._amount(limit.unit, self.input_tokens, 0) if charges_abandoned else 0
        if limit.reserves_maximum:
            bound = self.input_tokens if self.input_tokens_at_most is None else self.input_tokens_at_most
            amount = self._amount(limit.unit, max(bound, self.input_tokens), self.maximum_output_tokens)
            return Hold(amount, abandoned_charge=min(charge, amount))
        amount = self._amount(limit.unit, self.input_tokens, self.expected_output_tokens)
        most = self._amount(limit.unit, self.input_tokens, self.maximum_output_tokens)
        return Hold(amount, max(0, most - amount), min(charge, amount))

    def with_expected_output(self, tokens: int) -> Demand:
        """The same, with a longer answer expected, if it may be that long."""
        longer = max(tokens, self.expected_output_tokens)
        most = self.maximum_output_tokens if self.output_is_bounded else max(longer, self.maximum_output_tokens)
        return replace(self, expected_output_tokens=min(longer, most), maximum_output_tokens=most)

    @property
    def is_bounded(self) -> bool:
        """True where `Maximum` can be promised: all of the input is in the body, and the output has a cap."""
        return self.input_tokens_at_most is not None and self.output_is_bounded

    def fitting_output_tokens(self, limit: QuotaLimit, maximum: int) -> int | None:
        """The largest cap of each answer with which the request would fit into an otherwise empty limit; None: none."""
        bound = self.input_tokens
        if limit.reserves_maximum and self.input_tokens_at_most is not None:
            bound = max(bound, self.input_tokens_at_most)
        if limit.unit is LimitUnit.TOKENS:
            room = maximum - bound
        elif limit.unit is LimitUnit.COST and self.prices is not None and self.prices.output:
            room = (maximum * FEMTO_PER_NANO - bound * self.prices.dearest_input) // self.prices.output
        else:
            return None
        return room // self.answers or None if room > 0 else None

    def _amount(self, unit: LimitUnit, input_tokens: int, output_tokens: int) -> int:
        if unit is LimitUnit.TOKENS:
            return min(input_tokens + output_tokens, MAX_AMOUNT)
        if self.prices is None:
            return 0
        femto = input_tokens * self.prices.dearest_input + output_tokens * self.prices.output
        return min(-(-femto // FEMTO_PER_NANO), MAX_AMOUNT)


@dataclass(slots=True, kw_only=True)
class Charge:
    """What a request took."""

    requests: int = 1
    tokens: int = 0
    cost_femto_usd: int = 0

    def amount(self, unit: LimitUnit) -> tuple[int, int]:
        """In a limit's unit, and for cost the femto-dollars that make no whole nano-dollar."""
        match unit:
            case LimitUnit.REQUESTS:
                return self.requests, 0
            case LimitUnit.TOKENS:
                return min(max(0, self.tokens), MAX_AMOUNT), 0
            case LimitUnit.COST:
                return divmod(min(max(0, self.cost_femto_usd), MAX_AMOUNT * FEMTO_PER_NANO), FEMTO_PER_NANO)
            case LimitUnit.CONCURRENT:
                return 0, 0


NOTHING: Final = Charge(requests=0)
