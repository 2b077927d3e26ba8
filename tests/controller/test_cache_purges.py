"""Purges by annotation: through the whole controller to a real Valkey, each value once, over restarts and outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from llm_operator.kube import EVENT, LLM_PROVIDER, TEAM_QUOTA, ApiError, Kind
from llm_operator.reconcile import cache_purges
from llm_operator.reconcile.purge_store import PurgeStep, RedisPurges, StoreAway
from llm_sidecar.cache.purge import Purge
from llm_sidecar.contract import keys
from tests.controller.cluster import SYSTEM, Cluster
from tests.integration.store.servers import Server, Servers, cluster, single

OPENAI = f"{SYSTEM}/openai"
TEAM_FIELD = keys.CACHE_EPOCH_OF_TEAM
PROVIDER_FIELD = keys.cache_epoch_of_provider(OPENAI)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(cache_purges, "RETRY_SECONDS", 0.05)
    async with single() as servers:
        yield servers.nodes[0]


@pytest.fixture
def here(server: Server) -> Cluster:
    here = Cluster()
    here.basics()
    here.team("other")
    here.purges = RedisPurges(SecretStr(server.url))
    return here


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)


async def _count(server: Server, team: str, field: str) -> int:
    return int(await server.ask("HGET", keys.cache_epochs(team), field) or 0)


def _carried_out(here: Cluster, kind: Kind, namespace: str, name: str) -> str | None:
    document = here.kube.get_now(kind, namespace, name)
    assert document is not None
    value: str | None = document.get("status", {}).get("cachePurged", {}).get("value")
    return value


def _events(here: Cluster, reason: str) -> list[dict[str, Any]]:
    return [one for one in here.kube.objects[EVENT.plural].values() if one["reason"] == reason]


async def _team_purged(here: Cluster, value: str) -> None:
    await _until(lambda: _carried_out(here, TEAM_QUOTA, "app", "default") == value)


async def _provider_purged(here: Cluster, value: str) -> None:
    await _until(lambda: _carried_out(here, LLM_PROVIDER, SYSTEM, "openai") == value)


def _reopened(here: Cluster, server: Server) -> None:
    """What a new process has: connections of its own."""
    here.purges = RedisPurges(SecretStr(server.url))


def test_what_is_counted_up_is_what_the_command_counts_up() -> None:
    assert Purge().fields == (TEAM_FIELD,)
    assert Purge(provider=OPENAI).fields == (PROVIDER_FIELD,)


async def test_each_new_value_on_a_team_purges_that_team_once(here: Cluster, server: Server) -> None:
    async with here.controller():
        for number, value in enumerate(["1700000000", "again", "1700000000"], start=1):
            here.annotate(TEAM_QUOTA, "app", "default", purge_cache=value)
            await _team_purged(here, value)
            assert await _count(server, "app/default", TEAM_FIELD) == number

    assert await server.ask("KEYS", "*") == [keys.cache_epochs("app/default").encode()]


async def test_other_changes_of_the_resource_purge_nothing(here: Cluster, server: Server) -> None:
    async with here.controller() as reconciler:
        here.annotate(TEAM_QUOTA, "app", "default", purge_cache="1")
        await _team_purged(here, "1")
        document = here.kube.get_now(TEAM_QUOTA, "app", "default")
        assert document is not None
        here.kube.put(TEAM_QUOTA, document | {"spec": {"timeZone": "Europe/Berlin"}})
        generation = document["metadata"]["generation"] + 1
        await _until(lambda: _generation_told(here) == generation)
        assert reconciler.synced.is_set()

    assert await _count(server, "app/default", TEAM_FIELD) == 1
    assert len(_events(here, "CachePurged")) == 1


def _generation_told(here: Cluster) -> int:
    document = here.kube.get_now(TEAM_QUOTA, "app", "default")
    assert document is not None
    told: int = document.get("status", {}).get("observedGeneration", 0)
    return told


async def test_a_provider_is_purged_for_all_teams_and_for_pods_without_one(here: Cluster, server: Server) -> None:
    here.annotate(LLM_PROVIDER, SYSTEM, "openai", purge_cache="1700000000")

    async with here.controller():
        await _provider_purged(here, "1700000000")
        await _until(lambda: bool(_events(here, "CachePurged")))

    for team in ("app/default", "app/other", keys.NO_TEAM):
        assert await _count(server, team, PROVIDER_FIELD) == 1
        assert await _count(server, team, TEAM_FIELD) == 0
    [event] = _events(here, "CachePurged")
    assert event["type"] == "Normal"
    assert event["involvedObject"]["name"] == "openai"
    for word in (OPENAI, "1700000000", "app/default", "app/other", "pods without a team"):
        assert word in event["message"]


async def test_a_controller_that_is_restarted_purges_nothing_again(here: Cluster, server: Server) -> None:
    here.annotate(LLM_PROVIDER, SYSTEM, "openai", purge_cache="1")
    async with here.controller():
        await _provider_purged(here, "1")

    _reopened(here, server)
    async with here.controller():
        here.annotate(TEAM_QUOTA, "app", "default", purge_cache="2")
        await _team_purged(here, "2")  # so this one has looked around

    assert await _count(server, "app/other", PROVIDER_FIELD) == 1
    assert len([one for one in _events(here, "CachePurged") if one["involvedObject"]["name"] == "openai"]) == 1


async def test_a_controller_that_died_before_it_wrote_the_status_has_purged_all_the_same(
    here: Cluster, server: Server
) -> None:
    here.annotate(LLM_PROVIDER, SYSTEM, "openai", purge_cache="1")
    here.kube.failures = lambda verb, kind, _name: (
        ApiError(503, "away") if (verb, kind) == ("patch", LLM_PROVIDER) else None
    )
    async with here.controller():
        await _until(lambda: bool(_events(here, "CachePurged")))
    assert _carried_out(here, LLM_PROVIDER, SYSTEM, "openai") is None

    here.kube.failures = lambda *_: None
    _reopened(here, server)
    async with here.controller():
        await _provider_purged(here, "1")

    for team in ("app/default", "app/other", keys.NO_TEAM):
        assert await _count(server, team, PROVIDER_FIELD) == 1


async def test_with_redis_away_it_is_told_once_and_tried_until_done(here: Cluster, server: Server) -> None:
    server.kill()
    here.annotate(TEAM_QUOTA, "app", "default", purge_cache="1")

    async with here.controller():
        await _until(lambda: bool(_events(here, "CachePurgeDelayed")))
        await _until(lambda: _generation_told(here) == 1)  # the rest of the status does not wait for it
        assert _carried_out(here, TEAM_QUOTA, "app", "default") is None
        await server.start()
        await _team_purged(here, "1")
        await _until(lambda: bool(_events(here, "CachePurged")))

    assert await _count(server, "app/default", TEAM_FIELD) == 1
    [delayed] = _events(here, "CachePurgeDelayed")
    assert delayed["type"] == "Warning"
    assert "app/default" in delayed["message"]
    assert str(server.port) not in delayed["message"]


class HalfAway:
    """Redis, of which one team's part is away for as long as a test says so."""

    def __init__(self, inner: RedisPurges, lost: str) -> None:
        self.inner = inner
        self.lost: str | None = lost

    async def purge(self, step: PurgeStep) -> None:
        if step.team == self.lost:
            raise StoreAway("ConnectionError")
        await self.inner.purge(step)

    async def close(self) -> None:
        await self.inner.close()


async def test_teams_whose_part_of_redis_is_there_do_not_wait_for_the_others(here: Cluster, server: Server) -> None:
    half = here.purges = HalfAway(RedisPurges(SecretStr(server.url)), "app/default")
    here.annotate(LLM_PROVIDER, SYSTEM, "openai", purge_cache="1")

    async with here.controller():
        await _until(lambda: bool(_events(here, "CachePurgeDelayed")))
        assert await _count(server, "app/other", PROVIDER_FIELD) == 1
        assert _carried_out(here, LLM_PROVIDER, SYSTEM, "openai") is None
        half.lost = None
        await _provider_purged(here, "1")

    assert [await _count(server, team, PROVIDER_FIELD) for team in ("app/default", "app/other")] == [1, 1]


@pytest.mark.parametrize("value", ["", "x" * 65, "two\nlines"])
async def test_a_value_that_cannot_be_used_purges_nothing_and_is_told(
    here: Cluster, server: Server, value: str
) -> None:
    here.annotate(TEAM_QUOTA, "app", "default", purge_cache=value)

    async with here.controller():
        await _until(lambda: bool(_events(here, "CachePurgeRefused")))
        assert await server.ask("KEYS", "*") == []
        here.annotate(TEAM_QUOTA, "app", "default", purge_cache="x" * 64)
        await _team_purged(here, "x" * 64)

    [refused] = _events(here, "CachePurgeRefused")
    assert "1 to 64 printable characters" in refused["message"]


async def test_without_a_redis_of_its_own_the_controller_says_so() -> None:
    here = Cluster()
    here.basics()
    here.annotate(TEAM_QUOTA, "app", "default", purge_cache="1")

    async with here.controller():
        await _until(lambda: bool(_events(here, "CachePurgeRefused")))

    [refused] = _events(here, "CachePurgeRefused")
    assert "Fix: set LLM_OPERATOR_REDIS_URL" in refused["message"]
    assert _carried_out(here, TEAM_QUOTA, "app", "default") is None


async def test_on_a_cluster_teams_of_all_slots_are_purged_once() -> None:
    async with cluster() as servers:
        purges = RedisPurges(SecretStr(servers.url))
        teams = [f"payments/team-{number}" for number in range(12)]
        for _again in range(2):
            for team in teams:
                step = PurgeStep(team=team, remembered_in="purged-for/x", value="1", epoch=TEAM_FIELD)
                await purges.purge(step)
        await purges.close()

        owners = {await _owner_count(servers, team) for team in teams}
        assert {count for _port, count in owners} == {1}
        assert len(owners) > 1


async def _owner_count(servers: Servers, team: str) -> tuple[int, int]:
    owner = await servers.owner(keys.cache_epochs(team))
    return owner.port, await _count(owner, team, TEAM_FIELD)
