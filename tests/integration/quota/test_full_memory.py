"""A server that has reached its `maxmemory`: each script changes all that it should or nothing, and what was used is
booked once there is memory again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import pytest

from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.quota import Charge, Demand, LedgerEntry, Quota, QuotaExceeded, QuotaStoreUnavailable, settlement
from llm_sidecar.quota.scripts import RENEW, RESTORE, SETTLE, SHARE, quota_keys, share_keys
from llm_sidecar.quota.settlement import Settlement, SettleMode
from llm_sidecar.redis_kinds import make_store
from llm_sidecar.store import Script, SharedStore, StoreUnavailable
from tests.integration.quota.world import entry_fields, figures_by_counter, ledger_sums
from tests.integration.store.servers import REDIS, VALKEY, Server, single

TEAM: Final = "payments/full"
COUNTERS, LEASES, RESERVATIONS, LEDGER, ALERTS = quota_keys(TEAM)
_, SHARES, SHARE_LEASES = share_keys(TEAM)
FULL_COUNTER: Final = 2**63 - 1


@pytest.fixture(params=[VALKEY, pytest.param(REDIS, marks=pytest.mark.needs("redis-server"))], ids=["valkey", "redis"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with single(program=request.param) as servers:
        yield servers.nodes[0]


@pytest.fixture
async def store(server: Server) -> AsyncIterator[SharedStore]:
    """It asks the server each time, also after failures."""
    store = make_store(server.url, timeout_seconds=5, failure_threshold=1_000_000)
    await store.connect()
    yield store
    await store.close()


OpenQuota = Callable[..., Quota]


@pytest.fixture
async def open_quota(store: SharedStore) -> AsyncIterator[OpenQuota]:
    opened: list[Quota] = []

    def make(*, tokens: int = 1000, policy: str = "Deny") -> Quota:
        limits = [
            {"name": "daily", "per": "Day", "tokens": tokens},
            {"name": "parallel", "concurrentRequests": 4},
        ]
        spec = TeamQuotaSpec.model_validate({"limits": limits, "onStoreUnavailable": policy})
        opened.append(Quota(store, team=TEAM, spec=spec, sidecar="one"))
        return opened[-1]

    yield make
    for quota in opened:
        await quota.close(timeout_seconds=0)


def demand(tokens: int) -> Demand:
    return Demand(model="m", input_tokens=tokens, expected_output_tokens=0, maximum_output_tokens=0)


def end(quota: Quota, reservation: Any, tokens: int) -> None:
    quota.settle(reservation, Charge(tokens=tokens), LedgerEntry(source="measured", model="m"))


async def settled(quota: Quota) -> None:
    async with asyncio.timeout(20):
        while quota.pending_settlements:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.001)


async def fill(server: Server) -> None:
    await server.ask("CONFIG", "SET", "maxmemory", 1)


async def empty(server: Server) -> None:
    await server.ask("CONFIG", "SET", "maxmemory", 0)


async def everything(server: Server) -> list[Any]:
    """All that the server holds of the team."""
    return [
        *[sorted(pairwise(await server.ask("HGETALL", key))) for key in (COUNTERS, RESERVATIONS, SHARES)],
        *[await server.ask("ZRANGE", key, 0, -1, "WITHSCORES") for key in (LEASES, SHARE_LEASES)],
        *[await server.ask("XRANGE", key, "-", "+") for key in (LEDGER, ALERTS)],
    ]


def pairwise(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


async def figures(server: Server) -> dict[str, tuple[int, int]]:
    """Used and held of each limit."""
    found, _used = figures_by_counter(await server.ask("HGETALL", COUNTERS))
    return {one.limit: (one.used, one.held) for one in found.values()}


async def test_a_batch_that_meets_full_memory_is_booked_once_there_is_room(
    server: Server, store: SharedStore, open_quota: OpenQuota, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "_REFUSED_BACKOFF_SECONDS", 0.002)
    quota = open_quota()
    reservations = [await quota.reserve(f"r{number}", demand(100)) for number in range(3)]
    before = await everything(server)
    tried: list[str] = []
    run = store.run

    async def spy(script: Script, *rest: Any) -> Any:
        tried.append(script.name)
        return await run(script, *rest)

    monkeypatch.setattr(store, "run", spy)
    await fill(server)
    for reservation, tokens in zip(reservations[:2], (50, 60), strict=True):
        end(quota, reservation, tokens)
    quota.release(reservations[2])
    async with asyncio.timeout(20):
        while tried.count(SETTLE.name) <= 2 * settlement._MAX_REFUSALS:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.001)
    assert await everything(server) == before
    assert quota.pending_settlements == 3

    await empty(server)
    await settled(quota)

    assert quota.dropped_settlements == 0
    assert await figures(server) == {"daily": (110, 0), "parallel": (0, 0)}
    sums = ledger_sums(await server.ask("XRANGE", LEDGER, "-", "+"))
    assert sum(sums.values()) == 110


async def test_full_memory_is_told_as_such_by_every_script_and_changes_nothing(
    server: Server, store: SharedStore, open_quota: OpenQuota
) -> None:
    quota = open_quota()
    reservation = await quota.reserve("r", demand(100))
    counter = reservation.counters[0][1]
    amounts = tuple((name, 50, 0, limit.maximum, limit.thresholds) for limit, name in reservation.counters)
    told = Settlement(request_id="r", mode=SettleMode.FIRST, amounts=amounts)
    before = await everything(server)
    await fill(server)

    attempts: list[Awaitable[Any]] = [
        store.run(SETTLE, quota_keys(TEAM), ["#sequence|0", 0, "", "one", *told.arguments()]),
        store.run(RENEW, quota_keys(TEAM), [60_000, "r"]),
        store.run(RESTORE, (COUNTERS,), ["", "new", "#sequence|0", 7, f"{counter}|used", 900]),
        store.run(SHARE, share_keys(TEAM), ["one", 60_000, 100_000, 0, 0, counter]),
    ]
    for attempt in attempts:
        with pytest.raises(StoreUnavailable) as caught:
            await attempt
        assert (caught.value.reason, caught.value.maybe_executed) == ("out_of_memory", False)
    with pytest.raises(QuotaStoreUnavailable):
        await quota.reserve("other", demand(1))
    with pytest.raises(QuotaExceeded):  # a refusal writes nothing
        await quota.reserve("large", demand(1000))
    await quota.revise(reservation, demand(200))
    await quota.top_up(reservation, 300)

    assert await everything(server) == before


async def test_what_begins_by_clearing_up_happens_as_a_whole(server: Server, open_quota: OpenQuota) -> None:
    """A full server lets a script delete, and then all that follows."""
    quota = open_quota()
    done = await quota.reserve("done", demand(10))
    done.mode = SettleMode.UNBACKED  # its id stays closed for a while
    end(quota, done, 10)
    await settled(quota)
    await server.ask("ZADD", LEASES, "XX", 1, "done")
    await fill(server)

    await quota.reserve("next", demand(100))

    assert await figures(server) == {"daily": (10, 100), "parallel": (0, 1)}
    assert await server.ask("HEXISTS", RESERVATIONS, "next")
    assert await server.ask("ZSCORE", LEASES, "next")


async def test_a_refusal_stays_one_and_tells_its_threshold_once_there_is_memory(
    server: Server, open_quota: OpenQuota
) -> None:
    quota = open_quota()
    end(quota, await quota.reserve("r", demand(400)), 400)
    await settled(quota)
    lowered = open_quota(tokens=300, policy="Allow")
    await fill(server)
    with pytest.raises(QuotaExceeded):
        await lowered.reserve("s", demand(1))
    assert not await server.ask("XLEN", ALERTS)

    await empty(server)
    with pytest.raises(QuotaExceeded):
        await lowered.reserve("t", demand(1))

    told = [entry_fields(entry) for entry in await server.ask("XRANGE", ALERTS, "-", "+")]
    assert [one["percent"] for one in told][-1] == "100"


async def test_an_abandoned_charge_that_a_full_counter_cannot_take_gives_its_hold_back_once(
    server: Server, open_quota: OpenQuota
) -> None:
    quota = open_quota()
    lost = await quota.reserve("lost", demand(100))
    counter = lost.counters[0][1]
    await quota.reserve("alive", demand(200))
    await server.ask("HSET", COUNTERS, f"{counter}|used", FULL_COUNTER)
    await server.ask("ZADD", LEASES, "XX", 1, "lost")

    for number in range(2):
        with pytest.raises(QuotaExceeded):
            await quota.reserve(f"next{number}", demand(1))

    assert await figures(server) == {"daily": (FULL_COUNTER, 200), "parallel": (0, 1)}
