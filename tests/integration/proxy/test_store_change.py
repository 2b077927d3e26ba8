"""The store's address may change while the proxy runs: what was reserved in the old one is settled there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llm_sidecar import storage
from llm_sidecar.embedded_store import embedded_store
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Upstream, document, provider, streaming, until
from tests.integration.proxy.test_quota import booked
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
