"""Reading, adjusting and recomputing on one server, behind Sentinels and on a Cluster, whose keys must share a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
from pydantic import SecretStr

from llm_operator.quota_adjust import Adjustment, adjust
from llm_operator.reconcile.objects import Key
from llm_operator.reconcile.usage_reader import FIRST_ALERT, RedisUsages
from llm_operator.redis_client import close_client, redis_client
from llm_sidecar.contract.keys import quota_counters
from llm_sidecar.contract.limit_usage import usage_at
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.quota import Charge, Demand, LedgerEntry, Quota
from llm_sidecar.redis_kinds import make_store
from llm_sidecar.store import SharedStore
from llm_sidecar.usage.ledger import pages_of
from llm_sidecar.usage.recompute import compare
from tests.integration.background import in_background
from tests.integration.store.servers import Servers, cluster, sentinel, single

SPEC = TeamQuotaSpec.model_validate({"limits": [{"name": "monthly", "per": "Month", "tokens": 1000}]})
TEAMS = [Key("payments", f"team-{number}") for number in range(12)]
KINDS: dict[str, Callable[[], AbstractAsyncContextManager[Servers]]] = {
    "single": partial(single, password="open sesame"),
    "sentinel": partial(sentinel, password="open sesame"),
    "cluster": partial(cluster, password="open sesame"),
}


@pytest.fixture(scope="module", params=KINDS)
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    with in_background(KINDS[request.param]()) as running:
        yield running


async def _spend(store: SharedStore, team: Key, tokens: int) -> None:
    quota = Quota(store, team=str(team), spec=SPEC, sidecar="pod-1")
    demand = Demand(model="m", input_tokens=tokens, expected_output_tokens=0, maximum_output_tokens=0)
    reservation = await quota.reserve(f"request of {team}", demand)
    quota.settle(reservation, Charge(tokens=tokens), LedgerEntry(source="measured", model="m"))
    async with asyncio.timeout(10):
        while quota.pending_settlements:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.001)
    await quota.close(timeout_seconds=5)


async def test_teams_of_all_slots_are_read_adjusted_exported_and_agree(servers: Servers) -> None:
    store = make_store(servers.url, ca_bundle=servers.ca_pem, timeout_seconds=5)
    await store.connect()
    for number, team in enumerate(TEAMS):
        await _spend(store, team, 600 + number)
    reader = RedisUsages(SecretStr(servers.url), ca_bundle=servers.ca_pem)
    client = redis_client(SecretStr(servers.url), ca_bundle=servers.ca_pem, timeout_seconds=5)

    read = await reader.read(dict.fromkeys(TEAMS, FIRST_ALERT))
    assert read is not None
    used = {team: usage_at(SPEC, one.counters, one.now_ms)[0].used for team, one in read.items()}
    assert used == {team: 600 + number for number, team in enumerate(TEAMS)}
    assert {alert.percent for one in read.values() for alert in one.alerts} == {50}

    for team in TEAMS:
        adjusted = await adjust(
            client,
            Adjustment(
                team=str(team), limit=SPEC.limits[0], time_zone="UTC", amount=500, who="ann", reason="the launch"
            ),
        )
        assert adjusted.after.limit == 1500
        lines = [line async for page in pages_of(store, str(team)) for line in page.lines]
        assert [line.words["source"] for line in lines] == ["measured", "adjusted"]
        [compared] = await compare(store, str(team), ledger_is_whole=True)
        assert compared.is_covered
        assert not compared.is_wrong

    await close_client(client)
    await reader.close()
    await store.close()


async def test_a_cluster_that_lost_a_node_hides_that_nodes_teams_alone() -> None:
    async with cluster() as servers:
        reader = RedisUsages(SecretStr(servers.url))
        every = await reader.read(dict.fromkeys(TEAMS, FIRST_ALERT))
        assert every is not None
        assert every.keys() == set(TEAMS)
        lost = servers.nodes[2]
        owners = {team: await servers.owner(quota_counters(str(team))) for team in TEAMS}
        expected = {team for team, owner in owners.items() if owner is not lost}
        assert set() < expected < set(TEAMS)

        lost.kill()

        async with asyncio.timeout(60):
            found = await reader.read(dict.fromkeys(TEAMS, FIRST_ALERT))
        assert found is not None
        assert found.keys() == expected
        await reader.close()
