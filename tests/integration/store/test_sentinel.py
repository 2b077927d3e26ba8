"""The master moves, and the store with it."""

from __future__ import annotations

import asyncio

import pytest

from llm_sidecar.store import Script, StoreUnavailable
from tests.integration.store.conftest import OpenStore, connection_of, needs_redis, until, until_done
from tests.integration.store.servers import MASTER_NAME, REDIS, VALKEY, Server, Servers, sentinel, single

pytestmark = [pytest.mark.asyncio(loop_factories=["uvloop"])]

COUNT = Script(name="count", source="return redis.call('INCR', KEYS[1])")
every_program = pytest.mark.parametrize(
    "program", [VALKEY, pytest.param(REDIS, marks=needs_redis)], ids=["valkey", "redis"]
)


async def replicated(servers: Servers) -> None:
    """What was written is at the replicas."""
    async with asyncio.timeout(20):
        while len({await node.ask("GET", "key") for node in servers.running}) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def becomes_master(server: Server) -> None:
    async def is_master() -> None:
        if (await server.ask("ROLE"))[0] != b"master":
            raise BlockingIOError

    await until_done(is_master, OSError)  # it cuts its connections as it changes


@every_program
async def test_a_killed_master_is_replaced_by_its_replica(open_store: OpenStore, program: str) -> None:
    async with sentinel(program=program) as servers:
        changes: list[tuple[bool, str | None]] = []
        store = open_store(servers, open_seconds=0.1, on_change=lambda *change: changes.append(change))
        await store.set("key", b"value", ttl_seconds=600)
        await replicated(servers)

        (await servers.master()).kill()
        await until(lambda: not store.available)
        with pytest.raises(StoreUnavailable):
            await store.get("key")
        await until(lambda: store.available)

        assert await store.get("key") == b"value"
        await store.set("key", b"newer", ttl_seconds=600)
        assert await (await servers.master()).ask("GET", "key") == b"newer"
        assert [available for available, _reason in changes] == [False, True]


@every_program
async def test_an_ordered_failover_is_followed_without_losing_the_store(open_store: OpenStore, program: str) -> None:
    async with sentinel(program=program) as servers:
        store = open_store(servers, open_seconds=0.1)
        await store.set("key", b"value", ttl_seconds=600)
        await replicated(servers)
        old = await servers.master()

        await servers.sentinels[0].ask("SENTINEL", "FAILOVER", MASTER_NAME)
        new = next(node for node in servers.nodes if node is not old)
        await becomes_master(new)
        await until_done(lambda: store.set("key", b"newer", ttl_seconds=600), StoreUnavailable)

        async with asyncio.timeout(20):
            while await new.ask("GET", "key") != b"newer":  # a write to the old master meanwhile may be lost
                await until_done(lambda: store.set("key", b"newer", ttl_seconds=600), StoreUnavailable)


async def test_a_master_that_is_cut_off_from_the_others_is_left_though_it_still_answers(open_store: OpenStore) -> None:
    """Sentinels say that the master moved. The old one does not know, and would take writes that are lost."""
    async with sentinel() as servers:
        store = open_store(servers)
        await store.set("key", b"value", ttl_seconds=600)
        await replicated(servers)
        old = await servers.master()
        new = next(node for node in servers.nodes if node is not old)
        for node in servers.sentinels:  # only they see it fail: to us it is as well as ever
            node.pause()
        await old.ask("CONFIG", "SET", "requirepass", "unknown to sentinels")
        old.password = "unknown to sentinels"
        for line in (await old.ask("CLIENT", "LIST")).decode().splitlines():
            fields = dict(pair.split("=", 1) for pair in line.split() if "=" in pair)
            if fields["name"].startswith("sentinel") or "P" in fields["flags"]:
                await old.ask("CLIENT", "KILL", "ID", fields["id"])
        for node in servers.sentinels:
            node.resume()
        connection = connection_of(store)

        await becomes_master(new)
        await until(lambda: connection_of(store) not in {None, connection})

        await store.set("key", b"newer", ttl_seconds=600)
        assert await new.ask("GET", "key") == b"newer"


async def test_a_replica_is_never_taken_for_the_master(open_store: OpenStore) -> None:
    """Not even one that takes writes, and a Sentinel that is behind."""
    async with sentinel(replicas=1) as servers:
        old = await servers.master()
        other = next(node for node in servers.nodes if node is not old)
        for node in servers.sentinels:
            node.pause()
        servers.sentinels[0].resume()
        await old.ask("CONFIG", "SET", "replica-read-only", "no")
        await old.ask("REPLICAOF", "127.0.0.1", other.port)
        store = open_store(servers, open_seconds=0.1)

        assert not await store.connect()
        assert store.reason == "readonly"

        await old.ask("REPLICAOF", "NO", "ONE")
        await until(lambda: store.available)


async def test_dead_and_hanging_sentinels_are_passed_over(open_store: OpenStore) -> None:
    async with sentinel() as servers:
        first, second, _third = servers.sentinels
        first.kill()
        second.pause()
        store = open_store(servers)

        assert await store.connect()
        assert await store.get("key") is None


async def test_without_any_sentinel_the_store_is_away_and_comes_back_with_one(open_store: OpenStore) -> None:
    async with sentinel(sentinels=1) as servers:
        [only] = servers.sentinels
        only.pause()
        store = open_store(servers, open_seconds=0.1)
        assert not await store.connect()
        assert store.reason == "timeout"

        only.resume()
        await until(lambda: store.available)
        only.kill()

        assert await store.get("key") is None  # the connection that stands needs none


async def test_a_name_that_sentinels_do_not_know_and_servers_that_are_none(open_store: OpenStore) -> None:
    async with sentinel(sentinels=1) as servers, single() as other:
        unknown = open_store(servers.url.replace(f"/{MASTER_NAME}", "/nobody"))
        no_sentinel = open_store(other.url.replace("redis://", "redis+sentinel://") + f"/{MASTER_NAME}")

        for store in (unknown, no_sentinel):
            assert not await store.connect()
            assert store.reason == "protocol"


async def test_sentinels_may_have_a_password_of_their_own(open_store: OpenStore) -> None:
    async with sentinel(password="data") as servers:
        for node in servers.sentinels:
            await node.ask("ACL", "SETUSER", "watcher", "on", ">watch", "allchannels", "+@all")
            await node.ask("ACL", "SETUSER", "default", "off")
        own = open_store(f"{servers.url}?sentinel_username=watcher&sentinel_password=watch")
        same = open_store(servers.url)

        assert await own.connect()
        assert not await same.connect()
        assert same.reason == "authentication"
