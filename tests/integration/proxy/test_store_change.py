"""The store's address may change while the proxy runs: what was reserved in the old one is settled there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llm_sidecar import storage
from llm_sidecar.embedded_store import embedded_store
from tests.integration.booked import booked
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    CHAT_PATH,
    TOKEN,
    Upstream,
    chat_body,
    document,
    provider,
    raw_server,
    streaming,
    until,
)
from tests.integration.proxy.wire import CHAT_STREAM

Serve = Callable[..., Awaitable[Upstream]]
TEAM = {"limits": [{"name": "calls", "per": "Day", "requests": 100}]}


async def test_a_request_settles_where_it_was_reserved(
    start_proxy: StartProxy, serve: Serve, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "LOOK_SECONDS", 0.01)
    hold = asyncio.Event()
    upstream = await serve(streaming(*CHAT_STREAM, hold=hold))
    one = provider("p", upstream.base_url)
    async with embedded_store() as former_url:
        proxy = await start_proxy(document(one, store_url=former_url, team=TEAM))
        async with proxy.open("POST", "/v1/chat/completions", data=b'{"model":"m","stream":true}') as response:
            await proxy.sidecar.apply(document(one, store_url=store_url, team=TEAM))
            hold.set()
            assert response.status == 200
            await response.read()

        await until(lambda: booked(former_url) == {"calls|used": 1})
        assert booked(store_url) == {}

        reply = await proxy.chat(stream=True)
        assert reply.status == 200
        await until(lambda: booked(store_url) == {"calls|used": 1})


async def test_the_former_store_going_away_is_no_longer_our_trouble(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    upstream = await serve()
    one = provider("p", upstream.base_url)
    async with embedded_store() as former_url:
        proxy = await start_proxy(document(one, store_url=former_url, team=TEAM))
        await proxy.sidecar.apply(document(one, store_url=store_url, team=TEAM))

    assert (await proxy.chat()).status == 200
    assert proxy.metric("llm_sidecar_degraded", part="store") == 0


async def test_requests_are_counted_in_the_former_store_until_the_new_one_is_connected(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    asked, hold = asyncio.Event(), asyncio.Event()

    async def slow(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.set()
        await hold.wait()

    one = provider("p", (await serve()).base_url)
    denying = {**TEAM, "onStoreUnavailable": "Deny"}
    proxy = await start_proxy(document(one, store_url=store_url, team=denying))
    async with raw_server(slow) as port:
        away = document(one, store_url=f"redis://127.0.0.1:{port}", team=denying)
        applying = asyncio.ensure_future(proxy.sidecar.apply(away))
        await asked.wait()
        for _ in range(3):
            assert (await proxy.chat()).status == 200
        hold.set()
        await applying

    assert (await proxy.chat()).code == "quota_store_unavailable"
    assert booked(store_url) == {"calls|used": 3}


async def test_a_request_that_has_not_reserved_yet_does_so_where_it_began(
    start_proxy: StartProxy, serve: Serve, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its body is still on its way when the store is changed, and the former one has nothing open."""
    monkeypatch.setattr(storage, "LOOK_SECONDS", 0.001)
    denying = {**TEAM, "onStoreUnavailable": "Deny"}
    one, body = provider("p", (await serve()).base_url), chat_body()
    async with embedded_store() as former_url:
        proxy = await start_proxy(document(one, store_url=former_url, team=denying))
        retiring = proxy.sidecar._storage._retiring
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
        writer.write(
            f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body[:1]
        )
        budget = proxy.sidecar._pipeline._budget  # type: ignore[union-attr]
        await until(lambda: budget.held_bytes == 1)
        await proxy.sidecar.apply(document(one, store_url=store_url, team=denying))
        for _ in range(3):
            assert (await proxy.chat()).status == 200
        assert retiring
        writer.write(body[1:])
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await until(lambda: not retiring)
        assert booked(former_url) == {"calls|used": 1}
    await until(lambda: booked(store_url) == {"calls|used": 3})


async def test_the_end_of_the_process_books_also_in_a_store_that_is_retiring(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    hold = asyncio.Event()
    one = provider("p", (await serve(streaming(*CHAT_STREAM, hold=hold))).base_url)
    async with embedded_store() as former_url:
        proxy = await start_proxy(document(one, store_url=former_url, team=TEAM))
        async with proxy.open("POST", CHAT_PATH, data=chat_body(stream=True)) as response:
            await proxy.sidecar.apply(document(one, store_url=store_url, team=TEAM))
            stopping = asyncio.ensure_future(proxy.sidecar.stop())
            hold.set()
            await response.read()
            await stopping
        assert booked(former_url) == {"calls|used": 1}
    assert not proxy.sidecar._storage._open
    assert proxy.metric("llm_sidecar_degraded", part="settlements") == 0


async def test_what_could_not_be_booked_is_told(
    start_proxy: StartProxy,
    serve: Serve,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(storage, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(storage, "LOOK_SECONDS", 0.01)
    hold = asyncio.Event()
    one = provider("p", (await serve(streaming(*CHAT_STREAM, hold=hold))).base_url)
    async with embedded_store() as former_url:
        proxy = await start_proxy(document(one, store_url=former_url, team=TEAM))
        replies = [await proxy.open("POST", CHAT_PATH, data=chat_body(stream=True)) for _ in range(3)]
    await proxy.sidecar.apply(document(one, store_url=store_url, team=TEAM))
    hold.set()
    for reply in replies:
        await reply.read()

    await until(lambda: proxy.sidecar.health.dropped_settlements == 3)
    assert proxy.metric("llm_sidecar_degraded", part="settlements") == 1
    assert len([line for line in caplog.messages if "did not take what" in line]) == 1


async def test_a_store_that_was_prepared_for_nothing_is_closed_with_the_next_change(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = provider("p", (await serve()).base_url)
    proxy = await start_proxy(document(one))
    stores = proxy.sidecar._storage
    prepared = await stores.prepare(document(one, store_url=store_url))
    assert prepared is not None
    await proxy.sidecar.apply(document(one, store_url=store_url))
    await until(lambda: prepared not in stores._open)
    assert not prepared.store.available
    assert proxy.metric("llm_sidecar_degraded", part="store") == 0
