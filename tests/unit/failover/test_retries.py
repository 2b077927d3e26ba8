"""How soon, and how often, the same provider is asked again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from llm_sidecar.failover.backoff import RetryPolicy, pause_seconds
from llm_sidecar.failover.failures import Failure
from llm_sidecar.failover.retry_budget import LocalRetries, RetryBudget, RetryShare, sdk_retry_count
from llm_sidecar.formats.told_error import FailureKind as Kind

POLICY = RetryPolicy(max_attempts=3, initial_backoff_seconds=0.25, max_backoff_seconds=8)
BROKEN = Failure(Kind.SERVER, "d")


class FakeClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def high() -> float:
    return 0.999999


def low() -> float:
    return 0.0


@pytest.mark.parametrize(("retry", "bound"), [(0, 0.25), (1, 0.5), (2, 1), (4, 4), (5, 8), (6, 8), (5000, 8)])
def test_the_wait_lies_between_nothing_and_a_bound_that_doubles(retry: int, bound: float) -> None:
    assert pause_seconds(POLICY, retry=retry, hint_seconds=None, draw=low) == 0
    assert pause_seconds(POLICY, retry=retry, hint_seconds=None, draw=high) == pytest.approx(bound, rel=1e-5)


def test_a_hint_longer_than_the_longest_wait_means_elsewhere() -> None:
    assert pause_seconds(POLICY, retry=0, hint_seconds=8.1, draw=low) is None
    assert pause_seconds(POLICY, retry=0, hint_seconds=8.0, draw=high) == 8


@given(retry=st.integers(0, 100), hint=st.none() | st.floats(0, 10), drawn=st.floats(0, 1, exclude_max=True))
def test_nobody_comes_earlier_than_wanted_or_later_than_allowed(retry: int, hint: float | None, drawn: float) -> None:
    pause = pause_seconds(POLICY, retry=retry, hint_seconds=hint, draw=lambda: drawn)
    if pause is None:
        assert hint is not None
        assert hint > POLICY.max_backoff_seconds
    else:
        assert (hint or 0) <= pause <= POLICY.max_backoff_seconds


def test_those_who_were_told_the_same_time_do_not_come_back_at_once() -> None:
    early = pause_seconds(POLICY, retry=1, hint_seconds=2.0, draw=low)
    late = pause_seconds(POLICY, retry=1, hint_seconds=2.0, draw=high)
    assert early == 2.0
    assert late == pytest.approx(2.5, rel=1e-5)


# --- the budget


def test_a_provider_that_fails_always_gets_a_fifth_more_load_and_no_more() -> None:
    """Each of a thousand requests would like two retries."""
    clock = FakeClock()
    budget = RetryBudget(RetryShare(per_request=0.2, floor_per_second=0, burst=10), clock=clock)
    granted = 0
    for _ in range(1000):
        budget.request_began()
        granted += budget.take()
        granted += budget.take()
    assert 200 <= granted <= 210


def test_a_rare_request_may_be_tried_again_too() -> None:
    clock = FakeClock()
    budget = RetryBudget(RetryShare(per_request=0.2, floor_per_second=0.5, burst=2), clock=clock)
    assert [budget.take(), budget.take(), budget.take()] == [True, True, False]
    clock.now += 1.9
    assert not budget.take()
    clock.now += 0.2
    assert budget.take()


@given(st.lists(st.tuples(st.sampled_from(["request", "sdk retry", "take", "wait"]), st.floats(0, 30)), max_size=200))
def test_no_order_of_things_grants_more_than_the_share(steps: list[tuple[str, float]]) -> None:
    clock, share = FakeClock(), RetryShare()
    began = clock.now
    budget = RetryBudget(share, clock=clock)
    requests = granted = 0
    for step, seconds in steps:
        if step == "wait":
            clock.now += seconds
        elif step == "take":
            granted += budget.take()
        else:
            requests += step == "request"
            budget.request_began(sdk_retries=int(step == "sdk retry"))
    allowed = share.burst + share.per_request * requests + share.floor_per_second * (clock.now - began)
    assert granted <= allowed + 1e-6


# --- one request


def retries(policy: RetryPolicy = POLICY, *, sdk_retries: int = 0, budget: RetryBudget | None = None) -> LocalRetries:
    return LocalRetries(policy, budget or RetryBudget(clock=FakeClock()), sdk_retries=sdk_retries, draw=high)


def test_a_request_is_tried_so_often_with_growing_waits() -> None:
    one = retries()
    waits = [one.pause_seconds(BROKEN, others_left=True) for _ in range(3)]
    assert waits == [pytest.approx(0.25, rel=1e-5), pytest.approx(0.5, rel=1e-5), None]


def test_what_an_sdk_tries_again_is_not_multiplied() -> None:
    """An SDK's three tries and our three would be nine."""
    assert retries(sdk_retries=1).pause_seconds(BROKEN, others_left=False) is None


def test_what_an_sdk_tries_again_fills_no_budget() -> None:
    budget = RetryBudget(RetryShare(per_request=1, floor_per_second=0, burst=1), clock=FakeClock())
    assert budget.take()
    budget.request_began(sdk_retries=2)
    assert not budget.take()
    budget.request_began()
    assert budget.take()


def test_an_empty_budget_sends_a_request_elsewhere() -> None:
    budget = RetryBudget(RetryShare(per_request=0, floor_per_second=0, burst=1), clock=FakeClock())
    assert retries(budget=budget).pause_seconds(BROKEN, others_left=True) is not None
    assert retries(budget=budget).pause_seconds(BROKEN, others_left=True) is None


def test_what_goes_elsewhere_anyway_takes_nothing_from_the_budget() -> None:
    budget = RetryBudget(RetryShare(per_request=0, floor_per_second=0, burst=1), clock=FakeClock())
    one = retries(budget=budget)
    for failure in (
        Failure(Kind.AUTHENTICATION, "d"),
        Failure(Kind.INVALID_REQUEST, "d"),
        Failure(Kind.TIMEOUT, "d"),
        Failure(Kind.RATE_LIMITED, "d", retry_after_seconds=60),
    ):
        assert one.pause_seconds(failure, others_left=False) is None
    assert budget.take()


@pytest.mark.parametrize(
    ("headers", "count"),
    [
        ([("X-Stainless-Retry-Count", "2")], 2),
        ([("x-stainless-retry-count", "1")], 1),
        ([("x-stainless-retry-count", "0")], 0),
        ([("x-stainless-retry-count", "-1")], 0),
        ([("x-stainless-retry-count", "many")], 0),
        ([("x-stainless-retry-count", "9" * 5000)], 0),
        ([], 0),
    ],
)
def test_an_sdks_own_retries_are_recognised(headers: list[tuple[str, str]], count: int) -> None:
    assert sdk_retry_count(CIMultiDict(headers)) == count
