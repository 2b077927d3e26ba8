"""What a store does, on every kind of server: one suite, so that no kind is a second-class one."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter

import pytest

from llm_sidecar.redis_slots import slot_of
from llm_sidecar.store import Script, StoreUnavailable
from tests.integration.store.conftest import OpenStore, every_kind
from tests.integration.store.servers import Server, Servers

pytestmark = every_kind

ECHO = Script(name="echo", source="return ARGV[1]")
COUNT = Script(name="count", source="return redis.call('INCRBY', KEYS[1], ARGV[1])")


def new_key() -> str:
    """One of its own for each use: servers are shared, and slots should differ."""
    return f"test:{{{secrets.token_hex(8)}}}"


async def test_a_value_comes_back_and_a_missing_one_is_none(servers: Servers, open_store: OpenStore) -> None:
    store, keys = open_store(servers), [new_key() for _ in range(20)]
    await asyncio.gather(*(store.set(key, b"\x00\r\n\xff" + key.encode(), ttl_seconds=60) for key in keys))

    assert await asyncio.gather(*(store.get(key) for key in keys)) == [b"\x00\r\n\xff" + k.encode() for k in keys]
    assert await store.get(new_key()) is None


async def test_a_value_expires(servers: Servers, open_store: OpenStore) -> None:
    store, key = open_store(servers), new_key()
    await store.set(key, b"value", ttl_seconds=60)

    ttl = await store.run(Script(name="ttl", source="return redis.call('TTL', KEYS[1])"), [key], [])

    assert isinstance(ttl, int)
    assert 58 <= ttl <= 60


async def test_many_values_come_in_the_order_of_their_keys(servers: Servers, open_store: OpenStore) -> None:
    store, keys = open_store(servers), [new_key() for _ in range(30)]
    for key in keys[::2]:
        await store.set(key, key.encode(), ttl_seconds=60)
    asked = [*keys, keys[0]]

    assert await store.get_many(asked) == [None if number % 2 else key.encode() for number, key in enumerate(asked)]
    assert await store.get_many([]) == []


async def test_scripts_run_on_the_node_of_their_keys(servers: Servers, open_store: OpenStore) -> None:
    store, keys = open_store(servers), [new_key() for _ in range(20)]

    counted = await asyncio.gather(*(store.run(COUNT, [key], [number]) for number, key in enumerate(keys)))

    assert counted == list(range(20))
    assert await store.run(ECHO, [], ["without keys"]) == b"without keys"


async def test_scripts_run_also_after_the_servers_forgot_them(servers: Servers, open_store: OpenStore) -> None:
    store, keys = open_store(servers), [new_key() for _ in range(20)]
    await asyncio.gather(*(store.run(COUNT, [key], [1]) for key in keys))

    await servers.every("SCRIPT", "FLUSH", "SYNC")

    assert await asyncio.gather(*(store.run(COUNT, [key], [1]) for key in keys)) == [2] * 20


async def test_a_script_that_fails_is_unavailable_by_reason_and_shuts_nothing(
    servers: Servers, open_store: OpenStore
) -> None:
    store, broken = open_store(servers), Script(name="broken", source="return redis.call('NOSUCH')")

    for _ in range(5):
        with pytest.raises(StoreUnavailable) as caught:
            await store.run(broken, [new_key()], [])
        assert caught.value.reason == "script"
        assert caught.value.maybe_executed

    assert store.available
    assert store.reason is None


async def test_a_cancelled_command_never_gives_its_answer_to_another(servers: Servers, open_store: OpenStore) -> None:
    store, keys = open_store(servers, timeout_seconds=20.0), [new_key() for _ in range(60)]
    await store.connect()
    cancelled = survived = 0
    for turn in range(60):
        tasks = [asyncio.create_task(store.run(ECHO, [key], [f"{turn}-{key}"])) for key in keys]
        for _ in range(turn % 5):  # cancel before, while and after the command leaves
            await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            if number % 6:
                cancelled += task.cancel()
        for key, result in zip(keys, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
            if not isinstance(result, asyncio.CancelledError):
                assert result == f"{turn}-{key}".encode()
                survived += 1

    assert cancelled >= 1500
    assert survived >= 300
    assert store.available


async def test_there_is_one_connection_to_each_server_that_takes_writes(
    servers: Servers, open_store: OpenStore
) -> None:
    store, keys = open_store(servers), [new_key() for _ in range(200)]
    before = [await _clients(node) for node in servers.nodes]

    await store.connect()
    await asyncio.gather(*(store.set(key, b"value", ttl_seconds=60) for key in keys))

    masters = [(await node.ask("ROLE"))[0] == b"master" for node in servers.nodes]
    assert [await _clients(node) - was for node, was in zip(servers.nodes, before, strict=True)] == masters


async def test_what_one_turn_sends_leaves_in_one_write_to_each_server(servers: Servers, open_store: OpenStore) -> None:
    store, keys = open_store(servers), [new_key() for _ in range(100)]
    await store.connect()
    await store.get_many(keys)
    before = [int(await node.info("stats", "total_reads_processed")) for node in servers.nodes]

    await store.get_many(keys)

    after = [int(await node.info("stats", "total_reads_processed")) for node in servers.nodes]
    # Our own question costs some reads, and so do replication and Sentinels; 100 single commands would cost 100.
    assert sum(after) - sum(before) <= 40


async def test_more_commands_than_the_bound_are_refused(servers: Servers, open_store: OpenStore) -> None:
    store, key = open_store(servers, max_pending_commands=10), new_key()
    await store.connect()

    results = await asyncio.gather(*(store.get(key) for _ in range(15)), return_exceptions=True)

    assert Counter(str(result) for result in results) == {"None": 10, "overloaded": 5}


async def test_a_closed_store_refuses_and_leaves_no_task(servers: Servers, open_store: OpenStore) -> None:
    store = open_store(servers)
    await store.connect()
    await store.close()

    for attempt in (store.get("key"), store.set("key", b"", ttl_seconds=1), store.run(ECHO, ["key"], [])):
        with pytest.raises(StoreUnavailable):
            await attempt
    assert not store.available
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_wrong_authority_is_no_store(servers: Servers, open_store: OpenStore) -> None:
    """TLS is verified, by every connection of every kind."""
    if servers.ca_pem is None:
        assert await open_store(servers).connect()
        return
    doubting = open_store(servers.url)

    assert not await doubting.connect()
    assert doubting.reason == "connection"
    assert await open_store(servers).connect()


async def test_keys_of_several_slots_in_one_script_are_refused_on_a_cluster(
    servers: Servers, open_store: OpenStore
) -> None:
    store, one, other = open_store(servers), new_key(), new_key()
    assert slot_of(one) == slot_of(f"{one}:more") != slot_of(other)
    assert await store.run(ECHO, [one, f"{one}:more"], ["same"]) == b"same"

    if "cluster" in servers.url:
        with pytest.raises(StoreUnavailable, match="cluster"):
            await store.run(ECHO, [one, other], ["crossed"])
    assert store.available


async def _clients(node: Server) -> int:
    """Without Sentinels, which give themselves names."""
    clients: bytes = await node.ask("CLIENT", "LIST", "TYPE", "NORMAL")
    return clients.count(b" name= ")
