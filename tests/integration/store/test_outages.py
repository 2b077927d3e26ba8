"""What each kind of store does when a server that has the key fails, and that the store finds back by itself."""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest

from llm_sidecar.store import Script, StoreUnavailable
from tests.integration.store.conftest import OpenStore, every_kind, needs_redis, until, until_done
from tests.integration.store.servers import REDIS, VALKEY, Server, Servers, cluster, sentinel, single

pytestmark = [pytest.mark.asyncio(loop_factories=["uvloop"])]

COUNT = Script(name="count", source="return redis.call('INCR', KEYS[1])")
SLOW_COUNT = Script(
    name="slow count",
    # Time stands still in a script. This many rounds take some tenths of a second.
    source="redis.call('INCR', KEYS[1]) local n = 0 for _ = 1, 20000000 do n = n + 1 end return n",
)


@pytest.fixture
def key() -> str:
    return f"test:{{{secrets.token_hex(8)}}}"


async def holder(servers: Servers, key: str) -> Server:
    """The server to which the key's commands go."""
    return await (servers.owner(key) if "cluster" in servers.url else servers.master())


@every_kind
async def test_a_server_that_restarts_empty_is_used_again_and_scripts_are_sent_anew(
    servers: Servers, open_store: OpenStore, key: str
) -> None:
    store = open_store(servers, open_seconds=0.05)
    assert await store.run(COUNT, [key], []) == 1
    server = await holder(servers, key)

    server.kill()
    await until(lambda: store.reason is not None)
    await server.start()
    await until(lambda: store.reason is None)

    assert await store.get(key) is None
    assert await store.run(COUNT, [key], []) == 1


@every_kind
async def test_a_paused_server_costs_one_time_out_then_nothing_and_comes_back(
    servers: Servers, open_store: OpenStore, key: str
) -> None:
    store = open_store(servers, timeout_seconds=0.1, open_seconds=0.1)
    await until_done(lambda: store.get(key), StoreUnavailable)
    server = await holder(servers, key)
    server.pause()
    try:
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            await store.get(key)
        assert time.monotonic() - begun < 0.5
        assert caught.value.reason == "timeout"
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await store.get(key)

        for _ in range(100):
            with pytest.raises(StoreUnavailable) as caught:
                store.get(key).send(None)  # one step: what waits does not raise
            assert not caught.value.maybe_executed
        assert store.reason in {"timeout", "connection"}
    finally:
        server.resume()

    await until(lambda: store.reason is None)
    await until_done(lambda: store.get(key), StoreUnavailable)


@every_kind
async def test_a_command_whose_reply_was_lost_is_not_repeated_and_says_that_it_may_be_done(
    servers: Servers, open_store: OpenStore, key: str
) -> None:
    store, patient = open_store(servers, timeout_seconds=0.05), open_store(servers, timeout_seconds=20)
    await patient.connect()
    await until_done(lambda: store.get(key), StoreUnavailable)

    with pytest.raises(StoreUnavailable) as caught:
        await store.run(SLOW_COUNT, [key], [])

    assert caught.value.reason == "timeout"
    assert caught.value.maybe_executed
    assert await patient.get(key) == b"1"
    await until_done(lambda: store.get(key), StoreUnavailable)
    assert await store.get(key) == b"1"


@every_kind
async def test_connections_that_are_cut_are_made_again_without_a_failed_call(
    servers: Servers, open_store: OpenStore, key: str
) -> None:
    store = open_store(servers)
    await store.set(key, b"value", ttl_seconds=60)

    await servers.every("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.05)  # the cut has to arrive; a call before it would be one whose reply was lost

    assert await store.get(key) == b"value"
    assert store.reason is None


@every_kind
async def test_a_full_server_is_out_of_memory_until_it_has_room(
    servers: Servers, open_store: OpenStore, key: str
) -> None:
    store = open_store(servers, open_seconds=0.05)
    await store.connect()
    server = await holder(servers, key)
    await server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        for attempt in (store.set(key, b"value", ttl_seconds=60), store.run(COUNT, [key], [])):
            with pytest.raises(StoreUnavailable) as caught:
                await attempt
            assert caught.value.reason == "out_of_memory"
            assert not caught.value.maybe_executed
        with pytest.raises(StoreUnavailable, match="out_of_memory"):
            await store.set(key, b"value", ttl_seconds=60)
        assert store.reason == "out_of_memory"
    finally:
        await server.ask("CONFIG", "SET", "maxmemory", "0")

    await until(lambda: store.reason is None)
    await store.set(key, b"value", ttl_seconds=60)


@pytest.mark.parametrize("program", [VALKEY, pytest.param(REDIS, marks=needs_redis)], ids=["valkey", "redis"])
async def test_a_server_that_loads_its_data_is_away_until_it_has_all(
    open_store: OpenStore, program: str, key: str
) -> None:
    async with single(program=program) as servers:
        [server] = servers.nodes
        await server.ask("EVAL", "for n = 1, 300 do redis.call('SET', 'k' .. n, string.rep('x', 2000)) end", 0)
        await server.ask("SAVE")
        server.kill()
        slowly = ("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
        server.launch(*slowly)
        await server.listening()
        store = open_store(servers, open_seconds=0.05)

        assert not await store.connect()
        assert store.reason == "loading"
        with pytest.raises(StoreUnavailable, match="loading"):
            await store.get("k1")

        await until(lambda: store.reason is None)
        assert await store.get("k300") == b"x" * 2000


@pytest.mark.parametrize("kind", [single, sentinel, cluster], ids=lambda kind: kind.__name__)
async def test_a_wrong_password_is_named_and_a_store_that_needs_none_any_more_is_found(
    open_store: OpenStore, kind: type[object], key: str
) -> None:
    async with kind(password="right") as servers:  # type: ignore[call-arg,attr-defined]
        good, wrong = open_store(servers), open_store(servers.url.replace(":right@", ":wrong@"))
        none = open_store(servers.url.replace(":right@", ""), open_seconds=0.05)

        assert await good.connect()
        for store in (wrong, none):
            assert not await store.connect()
            assert store.reason == "authentication"
            assert not store.available
            with pytest.raises(StoreUnavailable, match="authentication"):
                await store.get(key)

        if not servers.sentinels:  # which would ask for theirs all the same
            for server in servers.nodes:
                await server.ask("CONFIG", "SET", "requirepass", "")
                server.password = None
            await until(lambda: none.reason is None)
            assert await none.get(key) is None


async def test_a_cut_between_command_and_reply_fails_that_call_alone(valkey: Server, open_store: OpenStore) -> None:
    """The connection ends after the server did the work and before its answer arrives."""
    cutting = False
    handlers: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        while data := await reader.read(65536):  # the store sends one command at a time here
            to_writer.write(data)
            answer = await to_reader.read(65536)
            if cutting:
                break
            writer.write(answer)
        for one in (writer, to_writer):
            one.close()
            await asyncio.gather(one.wait_closed(), return_exceptions=True)
        handlers.discard(asyncio.current_task())

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        store = open_store(f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        assert await store.run(COUNT, ["key"], []) == 1
        cutting = True

        with pytest.raises(StoreUnavailable) as caught:
            await store.run(COUNT, ["key"], [])

        cutting = False
        assert (caught.value.reason, caught.value.maybe_executed) == ("connection", True)
        assert await store.get("key") == b"2"
        assert store.available
        await store.close()
    await until(lambda: not handlers)
