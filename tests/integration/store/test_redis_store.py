from __future__ import annotations

import asyncio
import time

import pytest

from llm_sidecar.redis_store import RedisStore
from llm_sidecar.store import Script, SharedStore, StoreUnavailable
from tests.integration.store.conftest import OpenStore, command, connection_of, until
from tests.integration.store.servers import Server

ECHO = Script(name="echo", source="return ARGV[1]")


async def test_a_value_comes_back_and_a_missing_one_is_none(valkey: Server, open_store: OpenStore) -> None:
    store = open_store(valkey.url)
    await store.set("key", b"\x00\r\n\xff", ttl_seconds=60)

    assert await store.get("key") == b"\x00\r\n\xff"
    assert await store.get("other") is None


async def test_a_value_expires(valkey: Server, open_store: OpenStore) -> None:
    store = open_store(valkey.url)
    await store.set("key", b"value", ttl_seconds=60)

    ttl = await command(store, "TTL", "key")

    assert isinstance(ttl, int)
    assert 58 <= ttl <= 60


async def test_the_database_of_the_url_is_used(valkey: Server, open_store: OpenStore) -> None:
    third, first = open_store(f"{valkey.url}/3"), open_store(valkey.url)
    await third.set("key", b"value", ttl_seconds=60)

    assert await first.get("key") is None
    assert await third.get("key") == b"value"


async def test_scripts_run_also_after_the_server_forgot_them(valkey: Server, open_store: OpenStore) -> None:
    store = open_store(valkey.url)
    assert await store.run(ECHO, [], ["one"]) == b"one"

    await command(store, "SCRIPT", "FLUSH", "SYNC")

    assert await asyncio.gather(*(store.run(ECHO, [], [n]) for n in range(20))) == [str(n).encode() for n in range(20)]


async def test_a_script_that_fails_is_unavailable_by_reason_and_shuts_nothing(
    valkey: Server, open_store: OpenStore
) -> None:
    store = open_store(valkey.url)
    broken = Script(name="broken", source="return redis.call('NOSUCH')")

    for _ in range(5):
        with pytest.raises(StoreUnavailable) as caught:
            await store.run(broken, [], [])
        assert caught.value.reason == "script"

    assert store.available


async def test_commands_of_one_turn_share_one_connection_and_one_write(valkey: Server, open_store: OpenStore) -> None:
    store = open_store(valkey.url)
    await store.connect()
    await asyncio.gather(*(store.set(f"key{n}", b"%d" % n, ttl_seconds=60) for n in range(100)))
    before = await _statistic(store, "stats", "total_reads_processed")

    values = await asyncio.gather(*(store.get(f"key{n}") for n in range(100)))

    assert values == [b"%d" % n for n in range(100)]
    assert await _statistic(store, "stats", "total_reads_processed") - before <= 5
    assert await _statistic(store, "clients", "connected_clients") == 1


async def test_ten_thousand_cancelled_commands_leave_every_other_answer_right(
    valkey: Server, open_store: OpenStore
) -> None:
    """A cancelled caller's reply must be thrown away, and nobody may get another's."""
    store = open_store(valkey.url, timeout_seconds=20.0)
    await store.connect()
    cancelled = survived = 0
    for turn in range(200):
        tasks = [asyncio.create_task(store.run(ECHO, [], [f"{turn}-{n}"])) for n in range(120)]
        for _ in range(turn % 5):  # cancel before, while and after the command leaves
            await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            if number % 6:
                cancelled += task.cancel()
        for number, result in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
            if not isinstance(result, asyncio.CancelledError):
                assert result == f"{turn}-{number}".encode()
                survived += 1

    assert cancelled >= 10_000  # the quicker the loop, the more are answered before they are cancelled
    assert survived >= 2_000
    assert store.available


async def test_a_paused_server_fails_within_the_time_out_then_at_once_and_comes_back(
    valkey: Server, open_store: OpenStore
) -> None:
    changes: list[tuple[bool, str | None]] = []
    store = open_store(
        valkey.url, timeout_seconds=0.1, open_seconds=0.2, on_change=lambda *change: changes.append(change)
    )
    await store.connect()
    valkey.pause()

    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match="timeout"):
        await store.get("key")
    assert time.monotonic() - begun < 0.5
    while store.available:
        with pytest.raises(StoreUnavailable):
            await store.get("key")
    assert time.monotonic() - begun < 2

    begun = time.monotonic()
    results = await asyncio.gather(*(store.get("key") for _ in range(100)), return_exceptions=True)
    assert time.monotonic() - begun < 0.1
    assert all(isinstance(result, StoreUnavailable) and not result.maybe_executed for result in results)

    valkey.resume()
    await until(lambda: store.available)
    assert await store.get("key") is None
    assert changes == [(False, "timeout"), (True, None)]


async def test_a_restarted_server_is_found_again_without_a_call(valkey: Server, open_store: OpenStore) -> None:
    store = open_store(valkey.url, open_seconds=0.05)
    assert await store.connect()

    valkey.kill()
    await until(lambda: not store.available)
    await valkey.start()
    await until(lambda: store.available)

    await store.set("key", b"value", ttl_seconds=60)
    assert await store.get("key") == b"value"


async def test_a_store_that_is_away_at_the_start_is_told_once_and_found_later(
    valkey: Server, open_store: OpenStore
) -> None:
    valkey.kill()
    changes: list[tuple[bool, str | None]] = []
    store = open_store(valkey.url, open_seconds=0.05, on_change=lambda *change: changes.append(change))

    assert not await store.connect()
    assert not store.available
    with pytest.raises(StoreUnavailable, match="connection"):
        await store.get("key")

    await valkey.start()
    await until(lambda: store.available)
    assert changes == [(False, "connection"), (True, None)]


async def test_a_lost_connection_is_replaced_and_waiting_calls_go_on(valkey: Server, open_store: OpenStore) -> None:
    store, other = open_store(valkey.url), open_store(valkey.url)
    await store.connect()

    await command(other, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await until(lambda: connection_of(store) is None)

    assert await store.get("key") is None
    assert store.available


async def test_a_wrong_password_is_named_and_a_right_one_works(valkey: Server, open_store: OpenStore) -> None:
    valkey.kill()
    await valkey.start("--requirepass", "open sesame/:@")
    address = valkey.url.removeprefix("redis://")

    wrong, none = open_store(f"redis://:wrong@{address}"), open_store(valkey.url)
    right = open_store(f"redis://default:open%20sesame%2F%3A%40@{address}")

    assert not await wrong.connect()
    assert wrong.reason == "authentication"
    assert not await none.connect()
    assert none.reason == "authentication"
    assert await right.connect()


async def test_a_full_server_is_out_of_memory_until_it_has_room(valkey: Server, open_store: OpenStore) -> None:
    store, admin = open_store(valkey.url, open_seconds=0.05), open_store(valkey.url)
    await store.connect()
    await command(admin, "CONFIG", "SET", "maxmemory", "1")

    while store.available:
        with pytest.raises(StoreUnavailable, match="out_of_memory"):
            await store.set("key", b"value", ttl_seconds=60)

    await command(admin, "CONFIG", "SET", "maxmemory", "0")
    await until(lambda: store.available)
    await store.set("key", b"value", ttl_seconds=60)


async def test_a_server_that_became_a_replica_is_left_at_once(valkey: Server, open_store: OpenStore) -> None:
    store, admin = open_store(valkey.url, open_seconds=0.05), open_store(valkey.url)
    await store.connect()
    await admin.connect()
    await command(admin, "REPLICAOF", "127.0.0.1", "1")

    with pytest.raises(StoreUnavailable, match="readonly"):
        await store.set("key", b"value", ttl_seconds=60)
    await until(lambda: not store.available)
    assert store.reason == "readonly"

    await command(admin, "REPLICAOF", "NO", "ONE")
    await until(lambda: store.available)


async def test_more_commands_than_the_bound_are_refused(valkey: Server, open_store: OpenStore) -> None:
    store = open_store(valkey.url, max_pending_commands=10)
    await store.connect()

    results = await asyncio.gather(*(store.get("key") for _ in range(15)), return_exceptions=True)

    assert [result for result in results if result is not None and str(result) == "overloaded"] == results[10:]
    assert results[:10] == [None] * 10


async def test_a_closed_store_refuses_and_leaves_no_task(valkey: Server) -> None:
    store = RedisStore(valkey.url)
    await store.connect()
    await store.close()

    with pytest.raises(StoreUnavailable):
        await store.get("key")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def _statistic(store: SharedStore, section: str, name: str) -> int:
    text = await command(store, "INFO", section)
    assert isinstance(text, bytes)
    return int(dict(line.split(":", 1) for line in text.decode().split("\r\n") if ":" in line)[name])
