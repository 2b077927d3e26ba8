"""The controller finds the same Redis as the proxies, by the same URL, of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
from pydantic import SecretStr
from redis.exceptions import RedisError

from llm_operator.reconcile.objects import Key
from llm_operator.reconcile.report_reader import RedisReports
from llm_operator.redis_client import close_client, redis_client
from llm_sidecar.contract.config import ConfigDocument, ProviderEntry
from llm_sidecar.contract.redis_url import InvalidStoreURL
from llm_sidecar.contract.resources import LLMProviderSpec
from llm_sidecar.provider_reports import ProviderReports
from llm_sidecar.redis_kinds import make_store
from tests.controller.cluster import Cluster
from tests.integration.background import in_background
from tests.integration.store.servers import MASTER_NAME, REDIS, Servers, cluster, move_slot, sentinel, single

NOW = 30_000.0
SPEC = LLMProviderSpec.model_validate({"type": "OpenAI", "models": [{"name": "m"}]})
KINDS: dict[str, Callable[[], AbstractAsyncContextManager[Servers]]] = {
    "valkey": partial(single, password="open sesame/:@"),
    "redis-tls": partial(single, program=REDIS, tls=True),
    "valkey-sentinel": partial(sentinel, password="open sesame"),
    "redis-sentinel-tls": partial(sentinel, program=REDIS, tls=True),
    "valkey-cluster": partial(cluster, password="open sesame"),
    "redis-cluster-tls": partial(cluster, program=REDIS, tls=True),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=pytest.mark.needs("redis-server") if "redis" in kind else ()) for kind in KINDS],
)
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    with in_background(KINDS[request.param]()) as running:
        yield running


async def test_what_proxies_tell_reaches_the_controller(servers: Servers) -> None:
    """Providers in different slots, told and read in one go."""
    entries = [ProviderEntry(namespace="sys", name=f"p{n}", shared=True, spec=SPEC) for n in range(30)]
    store = make_store(servers.url, ca_bundle=servers.ca_pem, timeout_seconds=5)
    reports = ProviderReports(on_hint=lambda *_hint: None, clock=lambda: NOW)
    reports.configure(ConfigDocument(providers=tuple(entries)), store)
    await store.connect()
    for entry in entries:
        reports.note(entry.label, None, 200)
    await reports.flush()
    await store.close()
    reader = RedisReports(SecretStr(servers.url), ca_bundle=servers.ca_pem, clock=lambda: NOW)

    found = await reader.read([Key("sys", entry.name) for entry in entries])
    await reader.close()

    assert found is not None
    assert [traffic.reporters for traffic in found.values()] == [1] * 30


@pytest.mark.looptime
async def test_proxies_get_the_authority_with_the_url() -> None:
    observed = Cluster(redis_url="rediss+sentinel://:secret@watch/main", redis_ca_bundle="PEM of an authority")
    observed.basics()
    async with observed.controller():
        await observed.settle()

    config = observed.config()
    assert config is not None
    assert config.store.url is not None
    assert config.store.url.get_secret_value() == "rediss+sentinel://:secret@watch/main"
    assert config.store.ca_bundle == "PEM of an authority"


async def test_an_authority_that_is_not_trusted_ends_the_reading(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    reader = RedisReports(SecretStr(servers.url))

    found = await reader.read([Key("sys", "p")])
    await reader.close()

    assert (found is None) is (servers.ca_pem is not None)

    assert "localhost" not in caplog.text


async def test_the_controller_follows_a_master_that_moved() -> None:
    async with sentinel() as servers:
        client = redis_client(SecretStr(servers.url), timeout_seconds=2)
        await client.set("key", "value")
        (await servers.master()).kill()

        async with asyncio.timeout(20):
            while True:
                try:
                    await client.set("key", "newer")
                except RedisError:
                    await asyncio.sleep(0.05)
                else:
                    break
        assert await (await servers.master()).ask("GET", "key") == b"newer"
        await close_client(client)


async def test_the_controller_follows_a_slot_that_moved() -> None:
    async with cluster() as servers:
        client = redis_client(SecretStr(servers.url), timeout_seconds=2)
        await client.set("key", "value")
        owner = await servers.owner("key")

        await move_slot(servers, "key", to=next(node for node in servers.nodes if node is not owner))

        assert await client.get("key") == b"value"
        await close_client(client)


async def test_sentinels_that_want_a_login_of_their_own_get_it() -> None:
    async with sentinel(sentinels=1, password="data") as servers:
        await servers.sentinels[0].ask("ACL", "SETUSER", "watcher", "on", ">watch", "allchannels", "+@all")
        await servers.sentinels[0].ask("ACL", "SETUSER", "default", "off")
        login = "sentinel_username=watcher&sentinel_password=watch"
        own = redis_client(SecretStr(f"{servers.url}?{login}"), timeout_seconds=2)
        same = redis_client(SecretStr(servers.url), timeout_seconds=2)

        assert await own.get("key") is None
        with pytest.raises(RedisError):
            await same.get("key")
        await close_client(own)
        await close_client(same)


@pytest.mark.parametrize("url", ["http://:hunter2@r", f"redis+sentinel://:hunter2@r/{MASTER_NAME}/x"])
async def test_a_url_that_cannot_be_used_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidStoreURL) as caught:
        redis_client(SecretStr(url), timeout_seconds=2)
    assert "hunter2" not in str(caught.value)
