import pytest

from llm_sidecar.metrics import Metrics
from tests.trace.savings import added, ledger

EXPOSITION = """\
# TYPE llm_cache_saved_tokens counter
llm_cache_saved_tokens_total 120.0
# TYPE llm_optimization_saved_usd counter
llm_optimization_saved_usd_total{strategy="single_flight"} 0.25
# TYPE llm_optimization_saved_tokens counter
llm_optimization_saved_tokens_total{strategy="single_flight"} 40.0
# TYPE llm_cost_usd counter
llm_cost_usd_total{provider="a",model="m",team="t"} 0.5
llm_cost_usd_total{provider="b",model="m",team="t"} 0.75
# TYPE llm_tokens counter
llm_tokens_total{provider="a",model="m",team="t",kind="output"} 30.0
llm_tokens_total{provider="a",model="m",team="t",kind="reasoning"} 10.0
# TYPE llm_requests counter
llm_requests_total{provider="a",status="200",model="m",team="t",type="generation"} 9.0
"""


def test_what_was_saved_is_told_by_strategy_and_what_was_spent_in_all() -> None:
    assert ledger(EXPOSITION) == pytest.approx(
        {
            "response cache, tokens": 120,
            "single flight, USD": 0.25,
            "single flight, tokens": 40,
            "spent USD": 1.25,
            "spent tokens": 30,
        }
    )


def test_only_what_came_between_two_looks_is_told() -> None:
    before = {"spent USD": 1.0, "single flight, tokens": 40.0}
    after = {"spent USD": 1.5, "single flight, tokens": 40.0, "response cache, tokens": 7.0}
    assert added(before, after) == {"spent USD": 0.5, "response cache, tokens": 7.0}


def test_the_names_are_those_of_the_sidecar() -> None:
    """Each of them is there from the start, or as soon as its labels occur."""
    described = {family.name for family in Metrics().registry.collect()}
    assert {"llm_cache_saved_tokens", "llm_optimization_saved_tokens", "llm_optimization_saved_usd"} <= described
    assert {"llm_cost_usd", "llm_tokens"} <= described
