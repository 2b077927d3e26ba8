"""Whatever happens in whatever order, nothing is overspent and nothing stays held."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_sidecar.embedded_store import embedded_store
from llm_sidecar.quota import Quota, QuotaExceeded, Reservation
from llm_sidecar.redis_store import RedisStore
from tests.unit.quota.conftest import TEAM, command, counters, demand, end_leases, settle, settled, team_spec

LIMITS: tuple[dict[str, Any], ...] = (
    {"name": "tokens", "per": "Month", "tokens": 1000},
    {"name": "requests", "per": "Month", "requests": 8},
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 200), st.integers(0, 400)),
        st.tuples(st.just("settle"), st.integers(0, 50), st.floats(0, 1)),
        st.tuples(st.just("release"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("expire"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


class Truth:
    """What the counters must come to, by an account of its own."""

    def __init__(self) -> None:
        self.open: list[tuple[Reservation, int, int]] = []
        self.tokens = self.requests = 0
        self.late_tokens = 0  # of requests that went on after their lease had ended

    def take(self, number: int) -> tuple[Reservation, int, int] | None:
        return self.open.pop(number % len(self.open)) if self.open else None


async def play(steps: list[tuple[str, int, float]], quota: Quota, store: RedisStore) -> None:
    truth = Truth()
    for position, (step, first, second) in enumerate(steps):
        if step == "reserve":
            amounts = first, int(second)
            try:
                reservation = await quota.reserve(f"request{position}", demand(*amounts))
                truth.open.append((reservation, *amounts))
            except QuotaExceeded as exceeded:
                refusal = exceeded.refusal
                assert refusal.used + refusal.reserved + refusal.requested > refusal.limit
        elif step == "settle" and (taken := truth.take(first)):
            used = int((taken[1] + taken[2]) * second)
            settle(quota, taken[0], used, "measured")
            truth.tokens, truth.requests = truth.tokens + used, truth.requests + 1
        elif step == "release" and (taken := truth.take(first)):
            quota.release(taken[0])
        elif step == "expire":
            await settled(quota)
            await end_leases(store)
            truth.late_tokens += sum(output_tokens for _reservation, _input, output_tokens in truth.open)
        found = await counters(store)
        for limit, maximum in (("tokens", 1000 + truth.late_tokens), ("requests", 8)):
            assert found.get(f"{limit}|used", 0) + found.get(f"{limit}|held", 0) <= maximum
            assert found.get(f"{limit}|held", 0) >= 0
    for reservation, input_tokens, output_tokens in truth.open:
        settle(quota, reservation, input_tokens + output_tokens, "measured")
        truth.tokens, truth.requests = truth.tokens + input_tokens + output_tokens, truth.requests + 1
    await settled(quota)
    found = await counters(store)
    assert (found.get("tokens|used", 0), found.get("requests|used", 0)) == (truth.tokens, truth.requests)
    assert (found.get("tokens|held", 0), found.get("requests|held", 0)) == (0, 0)


@pytest.fixture(scope="module")
def runner() -> Any:
    """One loop and one store for all examples: each starts from an empty store."""
    with asyncio.Runner() as runner:
        context = embedded_store()
        url = runner.run(context.__aenter__())
        yield runner, url
        runner.run(context.__aexit__(None, None, None))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_any_order_of_events_never_overspends_and_comes_to_the_truth(
    runner: tuple[asyncio.Runner, str], steps: list[tuple[str, int, float]]
) -> None:
    async def example() -> None:
        store = RedisStore(runner[1], timeout_seconds=5)
        await command(store, "FLUSHALL")
        quota = Quota(store, team=TEAM, spec=team_spec(*LIMITS))
        try:
            await play(steps, quota, store)
        finally:
            await quota.close(timeout_seconds=0)
            await store.close()

    runner[0].run(example())
