"""`spec.limits` of a TeamQuota: what one limit counts, in which window, and what happens where it has no room."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from llm_sidecar.contract.fields import LABEL_PATTERN, MAX_SAFE_INTEGER, ModelPattern
from llm_sidecar.contract.rules import ContractModel, Rule, UniqueBy, matching
from llm_sidecar.contract.windows import Per

MAX_COST_USD: Final = 9_000_000
"""In nano-dollars this still fits into a double, which is what Lua and many JSON readers count with."""


class Reservation(StrEnum):
    """How much output is reserved for a request before anybody knows how long its answer is."""

    EXPECTED = "Expected"
    MAXIMUM = "Maximum"


class ExceededAction(StrEnum):
    """What a limit does with requests for which it has no room."""

    BLOCK = "Block"
    DOWNGRADE = "Downgrade"
    SHADOW = "Shadow"


class OnExceeded(ContractModel):
    """What happens where a limit has no room."""

    action: ExceededAction = Field(
        default=ExceededAction.BLOCK,
        description="Block: refused. Downgrade: from downgradeAtPercent on, requests go to the cheapest fitting model "
        "whose downgradeFor names theirs; refused at 100 %. Shadow: let through, and counted as what would have been "
        "refused.",
    )
    downgrade_at_percent: Annotated[int, Field(strict=True, ge=1, le=99)] = Field(
        default=90, description="Used and reserved, in per cent of the limit, from which on Downgrade acts."
    )


_Amount = Annotated[int, Field(strict=True, ge=1, le=MAX_SAFE_INTEGER)]
_CostUSD = Annotated[
    str,
    Field(min_length=1, max_length=20),
    matching(
        r"[0-9]{1,7}(?:[.][0-9]{1,9})?",
        message="is not an amount of US dollars",
        fix='write a decimal in quotes with at most 9 decimals, such as "500.00"',
    ),
    Rule(
        # A double tells these two bounds apart from everything that the pattern lets through.
        f"!self.matches(r'^[0-9]{{1,7}}(?:[.][0-9]{{1,9}})?$') || "
        f"(double(self) > 0.0 && double(self) <= {MAX_COST_USD}.0)",
        lambda text: 0 < float(text) <= MAX_COST_USD,
        f"must be more than 0 and at most {MAX_COST_USD}",
        'write an amount in between, such as "500.00"',
    ),
]
_AMOUNTS: Final = ("requests", "tokens", "costUSD", "concurrentRequests")


def _amounts(limit: Limit) -> int:
    told = (limit.requests, limit.tokens, limit.cost_usd, limit.concurrent_requests)
    return sum(amount is not None for amount in told)


class Limit(ContractModel):
    """One limit on what the whole team uses."""

    rules = (
        Rule(
            "[" + ", ".join(f"has(self.{name})" for name in _AMOUNTS) + "].filter(told, told).size() == 1",
            lambda limit: _amounts(limit) == 1,
            "a limit needs exactly one of requests, tokens, costUSD and concurrentRequests",
            "keep one of them; a second limit can hold another",
        ),
        Rule(
            "has(self.per) != has(self.concurrentRequests)",
            lambda limit: (limit.per is None) != (limit.concurrent_requests is None) or _amounts(limit) != 1,
            "a limit counts in a window, and only concurrentRequests has none",
            "add per, such as Day; or remove it from concurrentRequests",
            "per",
        ),
        Rule(
            "self.reservation == 'Expected' || has(self.tokens) || has(self.costUSD)",
            lambda limit: limit.reservation is Reservation.EXPECTED or _measures(limit),
            "only what an answer's length decides can be reserved at its Maximum: tokens and costUSD",
            "remove reservation",
            "reservation",
        ),
        Rule(
            "self.onExceeded.action != 'Downgrade' || has(self.tokens) || has(self.costUSD)",
            lambda limit: limit.on_exceeded.action is not ExceededAction.DOWNGRADE or _measures(limit),
            "a cheaper model spares tokens or costUSD only",
            "use Block, or limit costUSD",
            "onExceeded.action",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL_PATTERN)] = Field(
        description="Name of the limit, told to those whom it refuses."
    )
    per: Per | None = Field(
        default=None,
        description="Calendar window in spec.timeZone. A week begins on Monday. For all but concurrentRequests.",
    )
    requests: _Amount | None = Field(
        default=None, description="Calls of applications in one window. Answers from the cache are free."
    )
    tokens: _Amount | None = Field(
        default=None, description="Tokens of all kinds in one window: input, cached input and output."
    )
    cost_usd: _CostUSD | None = Field(
        default=None,
        alias="costUSD",
        description="US dollars in one window, by the prices of the models that answer. A decimal string.",
    )
    concurrent_requests: _Amount | None = Field(
        default=None, description="Calls of applications that are under way at the same time."
    )
    models: Annotated[tuple[ModelPattern, ...], Field(max_length=16), UniqueBy()] = Field(
        default=(),
        description="Counts only what these models answer, by the name of the LLMProvider's model; * at the end "
        "stands for any ending. Empty: all.",
    )
    reservation: Reservation = Field(
        default=Reservation.EXPECTED,
        description="What is reserved while a request runs. Expected: what its model usually answers, topped up while "
        "a stream goes on. Maximum: the most that the request may take.",
    )
    on_exceeded: OnExceeded = Field(default=OnExceeded(), description="What happens where the limit has no room.")


def _measures(limit: Limit) -> bool:
    return limit.tokens is not None or limit.cost_usd is not None
