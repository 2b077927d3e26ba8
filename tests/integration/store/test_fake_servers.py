"""What a real server does rarely or never, told by a small one of our own, and TLS, which the wheel's lacks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from llm_sidecar.redis_connection import DeadlineWatch, RedisConnection
from llm_sidecar.store import StoreUnavailable
from tests.integration.store.conftest import OpenStore, connection_of, until
from tests.integration.store.servers import Server


@asynccontextmanager
async def server_answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[str]:
    """A server that answers each command (by its name) with the bytes given, and its URL."""
    handlers: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        try:
            while header := await reader.readline():
                words = []
                for _ in range(int(header[1:])):
                    length = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(length + 2))[:-2])
                writer.write(answer(words[0]))
        except ConnectionResetError:
            pass
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
            handlers.discard(asyncio.current_task())

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await until(lambda: not handlers)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("LOADING the dataset is in memory soon", "loading"),
        ("READONLY replica", "readonly"),
        ("MISCONF no disk", "readonly"),
        ("OOM no memory", "out_of_memory"),
        ("NOAUTH log in", "authentication"),
        ("NOPERM not you", "authentication"),
        ("MOVED 1 127.0.0.1:1", "cluster"),
        ("CLUSTERDOWN", "cluster"),
        ("BUSY a script runs", "timeout"),
        ("ERR whatever", "protocol"),
    ],
)
async def test_an_error_reply_becomes_a_reason_and_tells_nothing_else(
    open_store: OpenStore, error: str, reason: str
) -> None:
    async with server_answering(lambda name: b"+OK\r\n" if name == b"SET" else f"-{error}\r\n".encode()) as url:
        store = open_store(url)
        with pytest.raises(StoreUnavailable) as caught:
            await store.get("key")
        await store.close()

    assert caught.value.reason == reason
    assert str(caught.value) == reason


async def test_a_loading_server_counts_as_away_until_it_takes_writes(open_store: OpenStore) -> None:
    loading = True
    async with server_answering(lambda _name: b"-LOADING soon\r\n" if loading else b"+OK\r\n") as url:
        store = open_store(url, open_seconds=0.05)
        assert not await store.connect()
        assert store.reason == "loading"

        loading = False
        await until(lambda: store.available)
        await store.close()


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$-9\r\n", b"@"])
async def test_garbage_drops_the_connection(open_store: OpenStore, garbage: bytes) -> None:
    async with server_answering(lambda name: b"+OK\r\n" if name == b"SET" else garbage) as url:
        store = open_store(url)
        await store.connect()
        connection = connection_of(store)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"protocol|connection"):
                await store.get("key")
        assert connection_of(store) is not connection
        await store.close()


async def test_a_reply_that_nobody_asked_for_drops_the_connection(open_store: OpenStore) -> None:
    """Otherwise every later caller would get the answer of the one before."""
    async with server_answering(lambda name: b"+OK\r\n" if name == b"SET" else b"+one\r\n+two\r\n") as url:
        store = open_store(url)
        for _ in range(3):
            assert await store.get("key") == b"one"
            await until(lambda: connection_of(store) is None)
        await store.close()


async def test_a_reply_without_end_is_bounded() -> None:
    lost: list[str] = []
    async with server_answering(lambda _name: b"$1000000000\r\n" + b"x" * 100_000) as url:
        loop = asyncio.get_running_loop()
        _transport, connection = await loop.create_connection(
            lambda: RedisConnection(on_lost=lambda _connection, reason: lost.append(reason), max_reply_bytes=50_000),
            "127.0.0.1",
            int(url.rpartition(":")[2]),
        )
        reply: asyncio.Future[object] = loop.create_future()
        connection.send(b"*1\r\n$3\r\nGET\r\n", reply_to=reply, deadline=loop.time() + 10)  # type: ignore[arg-type]
        with pytest.raises(StoreUnavailable, match="protocol"):
            await reply

    assert lost == ["protocol"]


async def test_exactly_one_probe_at_a_time_reaches_a_server_that_is_away(open_store: OpenStore) -> None:
    commands: list[bytes] = []

    def answer(name: bytes) -> bytes:
        commands.append(name)
        return b"-LOADING soon\r\n"

    async with server_answering(answer) as url:
        store = open_store(url, open_seconds=0.02)
        await store.connect()
        for _ in range(50):
            with pytest.raises(StoreUnavailable):
                await store.get("key")
        await until(lambda: len(commands) >= 3)
        await store.close()

    assert set(commands) == {b"SET"}


@asynccontextmanager
async def tls_in_front_of(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_tls_is_verified_by_the_authority_that_the_url_names(
    valkey: Server, open_store: OpenStore, tmp_path: Path
) -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with tls_in_front_of(valkey.port, context) as port:
        trusting = open_store(f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}")
        doubting = open_store(f"rediss://localhost:{port}/0")

        assert await trusting.connect()
        await trusting.set("key", b"value", ttl_seconds=60)
        assert await trusting.get("key") == b"value"
        assert not await doubting.connect()
        assert doubting.reason == "connection"
        await trusting.close()
        await doubting.close()


async def test_a_deadline_that_is_already_over_is_watched_like_any_other() -> None:
    """A busy process arms its watch late; uvloop then gives another kind of handle than for a time to come."""
    loop = asyncio.get_running_loop()
    late = asyncio.Event()
    deadline = loop.time() - 2.0
    watch = DeadlineWatch(oldest=lambda: deadline, on_late=late.set)

    watch.arm(loop.time() - 1.0)
    watch.arm(deadline)

    async with asyncio.timeout(10):
        await late.wait()
