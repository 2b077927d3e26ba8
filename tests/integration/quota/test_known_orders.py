"""Orders of events that once broke a counter: what the machine found, kept as short as it can be said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.integration.quota.machine import Place, QuotaMachine

SMALL = (20, 30, 30)
"""Tokens of a request: input, expected output, greatest output."""


@pytest.fixture
def machine(store_place: Place, short_windows: None) -> Iterator[Callable[..., QuotaMachine]]:
    """Makes machines whose steps a test takes by hand; at the end, all is settled and looked at."""
    made: list[QuotaMachine] = []

    def make(policy: str = "Deny") -> QuotaMachine:
        made.append(type("Machine", (QuotaMachine,), {"place": replace(store_place, policy=policy)})())
        made[-1].begin(on_abandoned="Charge")
        return made[-1]

    yield make
    for one in made:
        one.teardown()


Make = Callable[..., QuotaMachine]


def test_whoever_speaks_after_its_lease_has_ended_is_alive(machine: Make) -> None:
    one = machine()
    one.reserve(sidecar=0, model="dear-1", tokens=SMALL, lost=None)
    one.a_lease_ends(pick=0)
    one.ask_another_model(pick=0, model="cheap-1", lost=None)
    one.counters_are_the_models()

    one.a_lease_ends(pick=0)
    one.top_up(pick=0, output_tokens=30)
    one.counters_are_the_models()


def test_what_is_given_back_after_its_lease_has_ended_is_in_the_ledger(machine: Make) -> None:
    one = machine()
    one.reserve(sidecar=0, model="dear-1", tokens=SMALL, lost=None)
    one.a_lease_ends(pick=0)
    one.reserve(sidecar=1, model="dear-1", tokens=SMALL, lost=None)
    one.release(pick=0, lost=None)
    one.counters_are_the_models()


def test_another_model_is_asked_although_the_lease_was_charged_already(machine: Make) -> None:
    one = machine()
    one.reserve(sidecar=0, model="dear-1", tokens=SMALL, lost=None)
    one.a_lease_ends(pick=0)
    one.reserve(sidecar=1, model="dear-1", tokens=SMALL, lost=None)
    one.ask_another_model(pick=0, model="cheap-1", lost=None)
    one.counters_are_the_models()


@pytest.mark.parametrize(("first", "second"), [("cheap-1", "dear-1"), ("dear-1", "cheap-1")])
def test_who_answers_while_the_store_is_away_is_charged_to_its_own_limits(
    machine: Make, first: str, second: str
) -> None:
    one = machine()
    one.reserve(sidecar=0, model=first, tokens=SMALL, lost=None)
    one.the_store_goes_away()
    one.ask_another_model(pick=0, model=second, lost=None)
    one.settle(pick=0, share=1.0, lost=None)
    one.the_store_is_back()
    one.counters_are_the_models()


def test_what_is_open_over_the_stores_return_counts_against_the_next_share(machine: Make) -> None:
    """A sidecar's share of `dear`, by the month, is 2,000 tokens, and of `strict`, by the minute, as many."""
    one, large = machine("LocalShare"), (100, 500, 500)
    one.the_store_goes_away()
    for _ in range(4):
        one.reserve(sidecar=0, model="dear-1", tokens=large, lost=None)
    was_open = len(one.model.requests)
    assert was_open == 3
    one.the_store_is_back()
    one.the_store_goes_away()
    for _ in range(was_open):
        one.settle(pick=0, share=1.0, lost=None)
        one.counters_are_the_models()
    one.a_window_ends()
    for sidecar in (0, 1, 2) * 3:
        one.reserve(sidecar=sidecar, model="dear-1", tokens=large, lost=None)
        one.counters_are_the_models()
    one.the_store_is_back()
    one.counters_are_the_models()
