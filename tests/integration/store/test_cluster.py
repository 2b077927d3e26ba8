"""Slots move, nodes fail and others take over: only the keys concerned notice, and for as short as can be."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from llm_sidecar.redis_cluster import ClusterStore
from llm_sidecar.redis_slots import slot_of
from llm_sidecar.store import Script, SharedStore, StoreUnavailable
from tests.integration.store.conftest import OpenStore, needs_redis, until, until_done
from tests.integration.store.servers import (
    REDIS,
    VALKEY,
    Server,
    Servers,
    begin_to_move,
    cluster,
    move_slot,
)

pytestmark = [pytest.mark.asyncio(loop_factories=["uvloop"])]

COUNT = Script(name="count", source="return redis.call('INCR', KEYS[1])")
BOTH = Script(name="both", source="return {redis.call('INCR', KEYS[1]), redis.call('INCR', KEYS[2])}")
every_program = pytest.mark.parametrize(
    "program", [VALKEY, pytest.param(REDIS, marks=needs_redis)], ids=["valkey", "redis"]
)


@pytest.fixture
async def three(program: str) -> AsyncIterator[Servers]:
    async with cluster(nodes=3, program=program) as servers:
        yield servers


async def keys_by_owner(servers: Servers) -> dict[int, str]:
    """One key for each node, by the node's port."""
    found: dict[int, str] = {}
    while len(found) < 3:
        key = f"test:{{{secrets.token_hex(8)}}}"
        found.setdefault((await servers.owner(key)).port, key)
    return found


async def other_than(servers: Servers, owner: Server) -> Server:
    return next(node for node in servers.nodes if node is not owner)


@every_program
async def test_a_slot_that_moved_is_followed_at_once_and_remembered(three: Servers, open_store: OpenStore) -> None:
    store, key = open_store(three), "test:{moves}"
    assert await store.run(COUNT, [key], []) == 1
    source = await three.owner(key)
    target = await other_than(three, source)
    await target.ask("SCRIPT", "FLUSH", "SYNC")

    await move_slot(three, key, to=target)

    assert await store.run(COUNT, [key], []) == 2  # MOVED, then NOSCRIPT at the new node
    assert await store.get(key) == b"2"
    before = await source.info("errorstats", "errorstat_MOVED")
    assert before
    for _ in range(5):
        await store.set(key, b"7", ttl_seconds=60)
    assert await source.info("errorstats", "errorstat_MOVED") == before
    assert store.reason is None


@every_program
async def test_keys_are_found_on_both_sides_while_their_slot_moves(three: Servers, open_store: OpenStore) -> None:
    """Those that went ahead by ASK; new ones, too; and the map stays as it is."""
    store, moved, stays = open_store(three), "test:{half}:moved", "test:{half}:stays"
    await store.run(COUNT, [moved], [])
    source = await three.owner(moved)
    target = await other_than(three, source)

    await move_slot(three, moved, to=target, finish=False)
    await source.ask("CLUSTER", "SETSLOT", slot_of(moved), "STABLE")
    await store.set(stays, b"here", ttl_seconds=60)
    await begin_to_move_again(source, target, moved)

    for count in range(2, 30):
        assert await store.run(COUNT, [moved], []) == count
        assert await store.get(stays) == b"here"
        assert await store.get(f"test:{{half}}:{count}") is None
    assert int(dict_of(await source.info("errorstats", "errorstat_ASK"))["count"]) >= 28
    assert store.reason is None


@every_program
async def test_cancelled_commands_leave_no_asking_behind(three: Servers, open_store: OpenStore) -> None:
    """What was asked for on a node ahead of the map must not open that node for somebody else's command."""
    store, moved = open_store(three, timeout_seconds=20), "test:{cancel}"
    await store.set(moved, b"value", ttl_seconds=600)
    source = await three.owner(moved)
    target = await other_than(three, source)
    await move_slot(three, moved, to=target, finish=False)
    keys = list((await keys_by_owner(three)).values())
    for key in keys:
        await store.set(key, key.encode(), ttl_seconds=600)

    for turn in range(60):
        tasks = [asyncio.create_task(store.get([moved, *keys][number % 4])) for number in range(80)]
        for _ in range(turn % 12):
            await asyncio.sleep(0)
        for task in tasks[turn % 3 :: 3]:
            task.cancel()
        for number, result in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
            if not isinstance(result, asyncio.CancelledError):
                assert result == [b"value", *(key.encode() for key in keys)][number % 4]


@every_program
async def test_a_script_over_keys_on_both_sides_fails_alone_and_works_once_the_slot_moved(
    three: Servers, open_store: OpenStore
) -> None:
    store, keys = open_store(three), ["test:{pair}:one", "test:{pair}:two"]
    await store.run(BOTH, keys, [])
    source = await three.owner(keys[0])
    target = await other_than(three, source)
    await begin_to_move(three, keys[0], to=target)
    await source.ask("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)

    for _ in range(5):
        with pytest.raises(StoreUnavailable) as caught:
            await store.run(BOTH, keys, [])
        assert (caught.value.reason, caught.value.maybe_executed) == ("cluster", False)
    assert store.reason is None
    await asyncio.gather(*(store.get(key) for key in (await keys_by_owner(three)).values()))

    await move_slot(three, keys[0], to=target)
    assert await store.run(BOTH, keys, []) == [2, 2]


@every_program
async def test_moving_slots_under_load_fails_no_call(three: Servers, open_store: OpenStore) -> None:
    """Single keys are always somewhere. Counts come out exact: nothing is done twice."""
    store, done = open_store(three), 0
    keys = [f"test:{{load-{number}}}" for number in range(8)]
    moving = True

    async def count(key: str) -> int:
        calls = 0
        while moving:
            calls += 1
            assert await store.run(COUNT, [key], []) == calls
        return calls

    tasks = [asyncio.create_task(count(key)) for key in keys]
    for key in keys:
        for _ in range(2):
            await move_slot(three, key, to=await other_than(three, await three.owner(key)))
            done += 1
    moving = False
    calls = await asyncio.gather(*tasks)

    assert done == 16
    assert [await store.get(key) for key in keys] == [b"%d" % number for number in calls]
    assert store.reason is None


@every_program
async def test_a_node_that_fails_takes_only_its_own_keys_along(three: Servers, open_store: OpenStore) -> None:
    changes: list[tuple[bool, str | None]] = []
    store = open_store(three, open_seconds=0.1, on_change=lambda *change: changes.append(change))
    keys = await keys_by_owner(three)
    for key in keys.values():
        await store.set(key, b"value", ttl_seconds=60)
    failed = three.nodes[0]
    lost = keys.pop(failed.port)

    failed.kill()
    await until(lambda: store.reason is not None)

    with pytest.raises(StoreUnavailable):
        store.get(lost).send(None)  # one step: what waits does not raise
    assert store.available
    for _ in range(20):
        assert await asyncio.gather(*(store.get(key) for key in keys.values())) == [b"value"] * 2
    with pytest.raises(StoreUnavailable):
        await store.get_many([lost, *keys.values()])

    await failed.start()
    await until(lambda: store.reason is None)
    await until_done(lambda: store.get(lost), StoreUnavailable)
    assert [available for available, _reason in changes] == [False, True]


@every_program
async def test_a_killed_master_is_replaced_by_its_replica(open_store: OpenStore, program: str) -> None:
    async with cluster(nodes=3, replicas=1, program=program) as servers:
        store = open_store(servers, open_seconds=0.1)
        key = (await keys_by_owner(servers))[servers.nodes[0].port]
        await store.set(key, b"value", ttl_seconds=600)
        async with asyncio.timeout(20):
            while await servers.nodes[3].ask("DBSIZE") < 1:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.01)

        servers.nodes[0].kill()
        await until(lambda: store.reason is not None)
        await until(lambda: store.reason is None)

        assert await store.get(key) == b"value"
        await store.set(key, b"newer", ttl_seconds=600)
        assert await (await servers.owner(key)).ask("GET", key) == b"newer"

        await servers.nodes[0].start()  # a replica now; nothing changes
        assert await store.get(key) == b"newer"


@every_program
async def test_an_ordered_failover_is_followed_and_nothing_done_twice(open_store: OpenStore, program: str) -> None:
    """The old master lives on as a replica, which sends its callers on."""
    async with cluster(nodes=3, replicas=1, program=program) as servers:
        store, key = open_store(servers, timeout_seconds=5), (await keys_by_owner(servers))[servers.nodes[0].port]
        calls = 0
        assert await store.run(COUNT, [key], []) == (calls := calls + 1)

        await servers.nodes[3].ask("CLUSTER", "FAILOVER")
        async with asyncio.timeout(20):
            while (await servers.nodes[3].ask("ROLE"))[0] != b"master":
                assert await store.run(COUNT, [key], []) == (calls := calls + 1)
        for _ in range(20):
            assert await store.run(COUNT, [key], []) == (calls := calls + 1)
        assert await servers.nodes[3].ask("GET", key) == b"%d" % calls


async def test_a_cluster_whose_nodes_all_moved_is_found_again_by_its_url(open_store: OpenStore) -> None:
    """As pods that were all replaced: their addresses are others, and the name in the URL leads there."""
    async with cluster() as old, cluster() as new:
        seeds = [node.port for node in old.nodes[:1]] + [node.port for node in new.nodes[:1]]
        for node in new.nodes:
            node.pause()
        store = open_store("redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in seeds), open_seconds=0.1)
        await store.set("key", b"old", ttl_seconds=60)

        for node in new.nodes:
            node.resume()
        for node in old.nodes:
            node.kill()
        await until(lambda: store.reason is not None)
        await until(lambda: store.reason is None)

        await until_done(lambda: store.set("key", b"new", ttl_seconds=60), StoreUnavailable)
        assert await (await new.owner("key")).ask("GET", "key") == b"new"


async def test_slots_that_nobody_has_fail_alone(open_store: OpenStore) -> None:
    async with cluster() as servers:
        store, keys = open_store(servers), await keys_by_owner(servers)
        orphan = keys.pop(servers.nodes[0].port)
        for node in servers.nodes:
            await node.ask("CLUSTER", "DELSLOTS", slot_of(orphan))

        for _ in range(5):
            with pytest.raises(StoreUnavailable, match="cluster"):
                await store.get(orphan)
        assert await asyncio.gather(*(store.get(key) for key in keys.values())) == [None, None]


async def test_a_cluster_that_is_down_as_a_whole_says_so_and_comes_back(open_store: OpenStore) -> None:
    """By default a Cluster serves nothing while any slot is uncovered."""
    async with cluster("--cluster-require-full-coverage", "yes") as servers:
        store, keys = open_store(servers, open_seconds=0.1), await keys_by_owner(servers)
        await store.connect()
        servers.nodes[0].kill()
        survivor = keys[servers.nodes[1].port]

        async with asyncio.timeout(20):
            reason = ""
            while reason != "cluster":
                try:
                    await store.get(survivor)
                except StoreUnavailable as unavailable:
                    reason = unavailable.reason
        await servers.nodes[0].start()
        await until_done(lambda: store.get(survivor), StoreUnavailable)
        await until(lambda: store.reason is None)


async def test_a_server_that_is_no_cluster_is_named(valkey: Server, open_store: OpenStore) -> None:
    store = open_store(valkey.url.replace("redis://", "redis+cluster://"))

    assert not await store.connect()
    assert store.reason == "cluster"
    assert not store.available


async def test_a_cluster_that_is_away_at_the_start_is_told_once_and_found_later(open_store: OpenStore) -> None:
    async with cluster() as servers:
        for node in servers.nodes:
            node.kill()
        changes: list[tuple[bool, str | None]] = []
        store = open_store(servers, open_seconds=0.05, on_change=lambda *change: changes.append(change))
        assert not await store.connect()
        assert not store.available
        with pytest.raises(StoreUnavailable, match="connection"):
            await store.get("key")

        await asyncio.gather(*(node.start() for node in servers.nodes))
        await until(lambda: store.reason is None)
        await until_done(lambda: store.get("key"), StoreUnavailable)
        assert changes == [(False, "connection"), (True, None)]


async def test_nodes_without_slots_are_left(open_store: OpenStore) -> None:
    async with cluster(nodes=3, replicas=1) as servers:
        store = open_store(servers)
        await store.connect()
        assert ports_of(store) == {node.port for node in servers.nodes[:3]}

        await servers.nodes[3].ask("CLUSTER", "FAILOVER")
        async with asyncio.timeout(20):
            while ports_of(store) != {node.port for node in servers.nodes[1:]}:
                await until_done(lambda: store.set("test:{any}", b"", ttl_seconds=1), StoreUnavailable)
                for key in (await keys_by_owner(servers)).values():
                    await until_done(lambda key=key: store.get(key), StoreUnavailable)  # type: ignore[misc]


def ports_of(store: SharedStore) -> set[int]:
    assert isinstance(store, ClusterStore)
    return {port for _host, port in store._nodes}


def dict_of(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split(","))


async def begin_to_move_again(source: Server, target: Server, key: str) -> None:
    slot, node = slot_of(key), await target.ask("CLUSTER", "MYID")
    await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", node)
