"""What counts as saved: no more than what is known, and nothing before it has earned back what it cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from llm_sidecar.contract.provider_resource import Pricing
from llm_sidecar.formats.base import Usage
from llm_sidecar.optimization.metrics import OptimizationMetrics
from llm_sidecar.prices import prices
from llm_sidecar.record import RequestRecord, Saving

PRICING = Pricing.model_validate(
    {
        "inputUSDPerMillionTokens": "3",
        "cachedInputUSDPerMillionTokens": "0.3",
        "cacheWriteUSDPerMillionTokens": "3.75",
        "outputUSDPerMillionTokens": "15",
    }
)


@pytest.mark.parametrize(
    ("usage", "nano_usd"),
    [
        (Usage(input_tokens=100, output_tokens=5), 0),
        (Usage(cache_read_tokens=1_000_000), 2_700_000_000),
        (Usage(cache_write_tokens=1_000_000), -750_000_000),
        (Usage(cache_read_tokens=1_000_000, cache_write_tokens=1_000_000), 1_950_000_000),
    ],
)
def test_a_providers_cache_saves_what_reading_is_cheaper_less_what_writing_is_dearer(
    usage: Usage, nano_usd: int
) -> None:
    assert prices(PRICING).spared_by_prompt_cache_nano_usd(usage) == nano_usd


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_saved_is_the_difference_to_the_full_price(uncached: int, read: int, written: int) -> None:
    told = Usage(input_tokens=uncached, cache_read_tokens=read, cache_write_tokens=written, output_tokens=7)
    full = Usage(input_tokens=uncached + read + written, output_tokens=7)
    our_prices = prices(PRICING)

    assert (
        our_prices.spared_by_prompt_cache_nano_usd(told)
        == (our_prices.cost_femto_usd(full) - our_prices.cost_femto_usd(told)) // 10**6
    )


@given(st.lists(st.integers(-100, 100)))
def test_the_counter_stands_at_the_best_balance_so_far(savings: list[int]) -> None:
    registry = CollectorRegistry()
    metrics = OptimizationMetrics(registry)
    balance = best = 0
    for nano_usd in savings:
        record = RequestRecord("id", "team", savings=(Saving("prompt_caching", 1, nano_usd),))
        metrics.count(record)
        balance += nano_usd
        best = max(best, balance)
    labels = {"strategy": "prompt_caching"}

    assert (registry.get_sample_value("llm_optimization_saved_usd_total", labels) or 0) == pytest.approx(best / 1e9)
    assert (registry.get_sample_value("llm_optimization_saved_tokens_total", labels) or 0) == len(savings)


def test_a_clamped_request_is_counted_and_nothing_is_claimed_for_it() -> None:
    registry = CollectorRegistry()
    OptimizationMetrics(registry).count(RequestRecord("id", "a/b", output_clamped_tokens=5))

    assert registry.get_sample_value("llm_optimization_clamped_requests_total", {"team": "a/b"}) == 1
    assert registry.get_sample_value("llm_optimization_saved_tokens_total", {"strategy": "prompt_caching"}) is None
