"""From a proxy's quota to the controller through a real Valkey: counters, alerts, and what must not be believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import redis.asyncio
from pydantic import SecretStr

from llm_operator.reconcile.objects import Key
from llm_operator.reconcile.usage_reader import (
    FIRST_ALERT,
    MAX_ALERTS,
    MAX_FIELDS,
    RedisUsages,
    TeamReading,
    is_alert_id,
)
from llm_sidecar.contract.keys import quota_alerts, quota_counters
from llm_sidecar.contract.limit_usage import usage_at
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.embedded_store import embedded_store
from llm_sidecar.quota import Charge, Demand, LedgerEntry, Quota
from llm_sidecar.redis_store import RedisStore

TEAM = Key("payments", "payments")
SPEC = TeamQuotaSpec.model_validate(
    {
        "limits": [
            {"name": "monthly", "per": "Month", "tokens": 1000},
            {"name": "budget", "per": "Month", "costUSD": "0.001"},
            {"name": "parallel", "concurrentRequests": 5},
        ]
    }
)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with embedded_store() as found:
        yield found


@pytest.fixture
async def client(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(url) as client:
        yield client


@pytest.fixture
async def reader(url: str) -> AsyncIterator[RedisUsages]:
    reader = RedisUsages(SecretStr(url))
    yield reader
    await reader.close()


@pytest.fixture
async def quota(url: str) -> AsyncIterator[Quota]:
    store = RedisStore(url, timeout_seconds=5)
    quota = Quota(store, team=str(TEAM), spec=SPEC, sidecar="pod-1")
    yield quota
    await quota.close(timeout_seconds=5)
    await store.close()


def _demand(tokens: int) -> Demand:
    return Demand(
        model="m", input_tokens=tokens, expected_output_tokens=0, maximum_output_tokens=50, input_tokens_at_most=tokens
    )


async def _spend(quota: Quota, tokens: int) -> None:
    reservation = await quota.reserve(f"request-{tokens}", _demand(tokens))
    quota.settle(reservation, Charge(tokens=tokens), LedgerEntry(source="measured", model="m"))
    async with asyncio.timeout(10):
        while quota.pending_settlements:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.001)


async def _read(reader: RedisUsages, after: str = FIRST_ALERT) -> TeamReading:
    found = await reader.read({TEAM: after})
    assert found is not None
    return found[TEAM]


async def test_what_a_proxy_charged_and_holds_is_read(reader: RedisUsages, quota: Quota) -> None:
    await _spend(quota, 600)
    await quota.reserve("under way", _demand(100))

    reading = await _read(reader)
    monthly, _budget, parallel = usage_at(SPEC, reading.counters, reading.now_ms)
    assert (monthly.used, monthly.reserved, monthly.figures.beyond, monthly.percent) == (600, 100, 50, 60)
    assert (parallel.used, parallel.reserved, parallel.percent) == (0, 1, 20)


async def test_each_crossing_is_read_once(reader: RedisUsages, quota: Quota) -> None:
    await _spend(quota, 600)
    first = await _read(reader)
    await _spend(quota, 300)
    second = await _read(reader, first.last_alert or "")
    third = await _read(reader, second.last_alert or "")

    assert [(one.limit, one.percent, one.used, one.maximum) for one in first.alerts] == [("monthly", 50, 600, 1000)]
    assert [(one.limit, one.percent, one.used) for one in second.alerts] == [("monthly", 80, 900)]
    assert (third.alerts, third.last_alert) == ((), None)
    monthly = usage_at(SPEC, first.counters, first.now_ms)[0]
    assert first.alerts[0].counter == monthly.figures.counter


async def test_a_team_that_nobody_used_has_no_counters(reader: RedisUsages) -> None:
    reading = await _read(reader)

    assert (reading.counters, reading.alerts, reading.last_alert) == ((), (), None)
    assert reading.now_ms > 1_700_000_000_000


async def test_many_teams_are_read_at_once(reader: RedisUsages) -> None:
    teams = {Key("n", f"t{number}"): FIRST_ALERT for number in range(100)}

    found = await reader.read(teams)

    assert found is not None
    assert found.keys() == teams.keys()


async def test_reading_writes_nothing(reader: RedisUsages, quota: Quota, client: redis.asyncio.Redis) -> None:
    await _spend(quota, 600)
    before = await client.hgetall(quota_counters(str(TEAM)))

    await _read(reader)

    assert await client.hgetall(quota_counters(str(TEAM))) == before


async def test_a_hash_that_somebody_filled_is_not_read(reader: RedisUsages, client: redis.asyncio.Redis) -> None:
    forged: Mapping[Any, Any] = {f"x{number}": "1" for number in range(MAX_FIELDS + 1)}
    await client.hset(quota_counters(str(TEAM)), mapping=forged)

    assert (await _read(reader)).counters == ()


async def test_alerts_are_read_in_bounded_pieces(reader: RedisUsages, client: redis.asyncio.Redis) -> None:
    for number in range(MAX_ALERTS + 5):
        await client.xadd(quota_alerts(str(TEAM)), {"limit": "monthly"}, id=f"{number + 1}-0")

    first = await _read(reader)
    second = await _read(reader, first.last_alert or "")

    assert (first.last_alert, second.last_alert) == (f"{MAX_ALERTS}-0", f"{MAX_ALERTS + 5}-0")


@pytest.mark.parametrize(
    "words",
    [
        {"limit": "monthly"},
        {"limit": "monthly", "unit": "apples", "per": "Month"},
        {"limit": "monthly", "unit": "tokens", "per": "Month", "start_ms": "x", "end_ms": "1", "percent": "50"},
        {"limit": b"\xff", "unit": "tokens", "per": "Month"},
    ],
    ids=["bare", "unknown unit", "no number", "no text"],
)
async def test_an_entry_that_is_no_alert_is_passed_over(
    reader: RedisUsages, client: redis.asyncio.Redis, words: dict[str, str]
) -> None:
    numbers = {"start_ms": "0", "end_ms": "1", "percent": "50", "used": "1", "maximum": "2"}
    fields: Any = numbers | words if len(words) > 1 else words
    await client.xadd(quota_alerts(str(TEAM)), fields, id="7-0")

    reading = await _read(reader)

    assert (reading.alerts, reading.last_alert) == ((), "7-0")


async def test_a_key_of_another_type_hides_its_own_team_alone(reader: RedisUsages, client: redis.asyncio.Redis) -> None:
    await client.set(quota_counters(str(TEAM)), "text")
    other = Key("n", "other")

    found = await reader.read({TEAM: FIRST_ALERT, other: FIRST_ALERT})

    assert found is not None
    assert found.keys() == {other}


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "not a url", "unix:///nowhere/at.all"])
async def test_without_a_store_nothing_is_known(url: str, caplog: pytest.LogCaptureFixture) -> None:
    reader = RedisUsages(SecretStr(url))

    assert await reader.read({TEAM: FIRST_ALERT}) is None
    assert await reader.read({TEAM: FIRST_ALERT}) is None

    assert len([one for one in caplog.records if "can be read" in one.message]) == 1
    assert url not in caplog.text
    await reader.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12-0", True),
        ("1764072000000-17", True),
        ("", False),
        ("-", False),
        ("1-0 x", False),
        (None, False),
        (5, False),
    ],
)
def test_only_ids_are_taken_from_a_status(text: object, expected: bool) -> None:
    assert is_alert_id(text) is expected
