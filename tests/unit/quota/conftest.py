"""A real Valkey for each module of tests, and quotas of one team on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.embedded_store import embedded_store
from llm_sidecar.quota import Charge, Demand, LedgerEntry, Quota, Reservation, UsageSource
from llm_sidecar.quota.scripts import SETTLE, quota_keys
from llm_sidecar.quota.settlement import Settlement, SettleMode
from llm_sidecar.redis_connection import packed
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.store import Reply

TEAM = "payments/payments"


def team_spec(
    *limits: dict[str, Any], policy: str = "Allow", time_zone: str = "UTC", on_abandoned: str = "Charge"
) -> TeamQuotaSpec:
    return TeamQuotaSpec.model_validate(
        {"limits": limits, "onStoreUnavailable": policy, "timeZone": time_zone, "onAbandoned": on_abandoned}
    )


def demand(input_tokens: int, output_tokens: int, *, model: str = "gpt-5-mini", **facts: Any) -> Demand:
    """A request to a model of which nothing is known: as much output is expected as there may be."""
    facts.setdefault("expected_output_tokens", output_tokens)
    return Demand(model=model, input_tokens=input_tokens, maximum_output_tokens=output_tokens, **facts)


def settle(quota: Quota, reservation: Reservation, tokens: int, source: UsageSource, *, femto_usd: int = 0) -> None:
    """A request is over, and took so many tokens."""
    entry = LedgerEntry(source=source, model=reservation.demand.model, cost_femto_usd=femto_usd)
    quota.settle(reservation, Charge(tokens=tokens, cost_femto_usd=femto_usd), entry)


async def settle_directly(store: RedisStore, request_id: str, mode: str, counter: str, amount: int) -> None:
    """As a sidecar that has seen nothing of the store before."""
    settlement = Settlement(request_id=request_id, mode=SettleMode(mode), amounts=((counter, amount, 0, 1000, ""),))
    await store.run(SETTLE, quota_keys(TEAM), ["#sequence|0", 0, "", "other", *settlement.arguments()])


async def command(store: RedisStore, *words: str | int | bytes) -> Reply:
    return await store._call(packed(*words))


async def counters(store: RedisStore) -> dict[str, int]:
    """All counters of the team, as `limit|used` and `limit|held`, summed over windows."""
    flat = await command(store, "HGETALL", quota_keys(TEAM)[0])
    assert isinstance(flat, list)
    totals: dict[str, int] = {}
    for field, value in zip(flat[::2], flat[1::2], strict=True):
        assert isinstance(field, bytes)
        assert isinstance(value, bytes)
        if field.startswith(b"#") or field.endswith(b"|alerted"):
            continue
        name, *_, kind = field.decode().split("|")
        totals[f"{name}|{kind}"] = totals.get(f"{name}|{kind}", 0) + int(value)
    return totals


async def settled(quota: Quota) -> None:
    """Wait until nothing is on its way to the store."""
    async with asyncio.timeout(10):
        while quota.pending_settlements:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.001)


async def end_leases(store: RedisStore) -> None:
    """As if every open lease had ended: time itself cannot be moved in the store."""
    _counters, leases, reservations, *_ = quota_keys(TEAM)
    records = await command(store, "HGETALL", reservations)
    assert isinstance(records, list)
    for request_id, record in zip(records[::2], records[1::2], strict=True):
        assert isinstance(request_id, bytes)
        assert isinstance(record, bytes)
        if record.startswith(b"o"):
            await command(store, "ZADD", leases, "XX", 1, request_id)


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
async def open_quota(store: RedisStore) -> AsyncIterator[Callable[..., Quota]]:
    async with AsyncExitStack() as stack:

        def make(*limits: dict[str, Any], policy: str = "Allow", on_abandoned: str = "Charge", **options: Any) -> Quota:
            options.setdefault("team", TEAM)
            spec = team_spec(*limits, policy=policy, on_abandoned=on_abandoned)
            quota = Quota(options.pop("store", store), spec=spec, **options)
            stack.push_async_callback(quota.close, timeout_seconds=0)
            return quota

        yield make
