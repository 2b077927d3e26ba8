"""A real Valkey for each module of tests, and the quota of a team on it whose ledger is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import pytest
import pytest_asyncio

from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.embedded_store import embedded_store
from llm_sidecar.formats.base import Usage
from llm_sidecar.prices import Prices
from llm_sidecar.quota import Charge, Demand, LedgerEntry, Quota
from llm_sidecar.redis_connection import packed
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.store import Reply

TEAM = "payments/payments"
SPEC = TeamQuotaSpec.model_validate(
    {
        "limits": [
            {"name": "calls", "per": "Month", "requests": 1000},
            {"name": "monthly", "per": "Month", "tokens": 1_000_000},
            {"name": "budget", "per": "Month", "costUSD": "10.00"},
            {"name": "parallel", "concurrentRequests": 5},
        ]
    }
)
PRICES = Prices(input=333_333, cached_input=333_333, cache_write=333_333, output=1_000_001)
"""Femto-dollars: a third of a nano-dollar for each token."""

Spend = Callable[..., Awaitable[None]]


async def command(store: RedisStore, *words: str | int | bytes) -> Reply:
    return await store._call(packed(*words))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store_url() -> AsyncIterator[str]:
    async with embedded_store() as url:
        yield url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(store_url, timeout_seconds=5)
    await command(store, "FLUSHALL")
    yield store
    await store.close()


@pytest.fixture
async def quota(store: RedisStore) -> AsyncIterator[Quota]:
    quota = Quota(store, team=TEAM, spec=SPEC, sidecar="pod-1")
    yield quota
    await quota.close(timeout_seconds=5)


@pytest.fixture
def spend(quota: Quota) -> Spend:
    """A request that takes so many tokens and is settled."""
    numbers = count()

    async def spend(tokens: int, *, model: str = "gpt-5-mini", asked_model: str = "small") -> None:
        demand = Demand(
            model=model, input_tokens=tokens, expected_output_tokens=0, maximum_output_tokens=0, prices=PRICES
        )
        reservation = await quota.reserve(f"request-{next(numbers)}", demand)
        usage = Usage(input_tokens=tokens, output_tokens=0)
        cost = PRICES.cost_femto_usd(usage)
        entry = LedgerEntry(
            source="measured",
            api="OpenAIChat",
            provider="openai",
            model=model,
            asked_model=asked_model,
            usage=usage,
            cost_femto_usd=cost,
            status=200,
        )
        quota.settle(reservation, Charge(tokens=tokens, cost_femto_usd=cost), entry)
        async with asyncio.timeout(10):
            while quota.pending_settlements:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.001)

    return spend
