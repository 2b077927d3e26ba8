"""What requests cost, to the nano-dollar, and which of two models costs less."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.contract.provider_resource import Model, Pricing
from llm_sidecar.formats.base import Usage
from llm_sidecar.prices import UNCAPPED_OUTPUT_TOKENS, Size, comparable_cost, cost_nano_usd, prices

TOKENS = st.integers(0, 10**9)
DOLLARS = st.decimals(0, 99_999, places=9).map(lambda value: f"{value:f}")


def model(output: str = "2.00", *, max_output_tokens: int | None = None, **told: str) -> Model:
    pricing = {"inputUSDPerMillionTokens": "1.00", "outputUSDPerMillionTokens": output, **told}
    bound = {} if max_output_tokens is None else {"maxOutputTokens": max_output_tokens}
    return Model.model_validate({"name": "m", "pricing": pricing, **bound})


@pytest.mark.parametrize(
    ("usage", "nano_usd"),
    [
        (Usage(1, 0, 0, 0, 0), 1000),
        (Usage(7, 0, None, 3, 1), 13_000),
        (Usage(None, None, None, None, None), 0),
        (Usage(1_000_000, 0, 0, 1_000_000, 500_000), 3_000_000_000),
    ],
)
def test_an_answer_costs_what_its_tokens_do(usage: Usage, nano_usd: int) -> None:
    assert cost_nano_usd(model(), usage) == nano_usd


def test_reasoning_is_output_that_is_not_paid_twice() -> None:
    assert cost_nano_usd(model(), Usage(0, 0, 0, 10, 10)) == cost_nano_usd(model(), Usage(0, 0, 0, 10, 0))


def test_cached_input_costs_as_other_input_unless_it_has_a_price() -> None:
    usage = Usage(0, 100, 100, 0, 0)
    own: dict[str, Any] = {"cachedInputUSDPerMillionTokens": "0.10", "cacheWriteUSDPerMillionTokens": "1.25"}

    assert cost_nano_usd(model(), usage) == 200_000
    assert cost_nano_usd(model(**own), usage) == 10_000 + 125_000


def test_without_a_price_or_without_usage_nothing_is_said() -> None:
    assert cost_nano_usd(Model.model_validate({"name": "m"}), Usage(1, 0, 0, 1, 0)) is None
    assert cost_nano_usd(model(), None) is None


@given(DOLLARS, DOLLARS, DOLLARS, DOLLARS, st.tuples(TOKENS, TOKENS, TOKENS, TOKENS))
def test_costs_are_exact_and_rounded_up(
    full: str, cached: str, written: str, output: str, tokens: tuple[int, int, int, int]
) -> None:
    pricing = Pricing.model_validate(
        {
            "inputUSDPerMillionTokens": full,
            "cachedInputUSDPerMillionTokens": cached,
            "cacheWriteUSDPerMillionTokens": written,
            "outputUSDPerMillionTokens": output,
        }
    )
    told = zip(tokens, (full, cached, written, output), strict=True)
    exact = sum((Decimal(number) * Decimal(price) * 1000 for number, price in told), Decimal(0))

    assert prices(pricing).cost_nano_usd(Usage(*tokens, 0)) == int(exact.to_integral_value(ROUND_CEILING))


def test_of_a_request_without_a_cap_all_models_are_expected_to_say_as_much() -> None:
    """One that costs less a token must not count as dearer for being able to say more."""
    assert comparable_cost(model(), Size(100, 10)) == (100 + 2 * 10) * 10**9
    assert comparable_cost(model(max_output_tokens=50), Size(100, 10)) == (100 + 2 * 10) * 10**9
    uncapped = {comparable_cost(model(max_output_tokens=tokens), Size(100, None)) for tokens in (50, 128_000, None)}
    assert uncapped == {(100 + 2 * UNCAPPED_OUTPUT_TOKENS) * 10**9}


def test_a_model_without_a_price_is_never_the_cheapest() -> None:
    assert comparable_cost(Model.model_validate({"name": "m"}), Size(1, 1)) == math.inf


def test_what_is_cheaper_depends_on_the_request() -> None:
    long_answers = model("1.00", inputUSDPerMillionTokens="3.00")

    assert comparable_cost(long_answers, Size(10, 1000)) < comparable_cost(model(), Size(10, 1000))
    assert comparable_cost(long_answers, Size(1000, 10)) > comparable_cost(model(), Size(1000, 10))
