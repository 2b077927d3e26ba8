"""A store that does not answer any more costs one request its time-out, once, and nobody else anything."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import redis

from llm_sidecar.cache import memory
from llm_sidecar.embedded_store import embedded_store
from llm_sidecar.store import StoreUnavailable
from tests.integration.background import in_background
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Proxy, Upstream, held_back, plain, until
from tests.integration.proxy.test_cache import cached, twice

Serve = Callable[..., Awaitable[Upstream]]
TIMEOUT_SECONDS = 0.05


@pytest.fixture
def own_store() -> Iterator[str]:
    with in_background(embedded_store()) as url:
        yield url


@pytest.fixture
def paused(own_store: str) -> Iterator[Callable[[], None]]:
    """Stops the store, where it stands, until the end of the test."""
    with redis.Redis.from_url(own_store) as client:
        process = int(client.info("server")["process_id"])
    try:
        yield lambda: os.kill(process, signal.SIGSTOP)
    finally:
        os.kill(process, signal.SIGCONT)


async def seconds_of(proxy: Proxy, number: int) -> float:
    began = time.perf_counter()
    reply = await proxy.chat(temperature=0, seed=number)
    assert (reply.status, reply.headers["x-llm-sidecar-cache"]) == (200, "miss")
    return time.perf_counter() - began


async def test_only_the_first_request_waits_for_a_store_that_hangs(
    start_proxy: StartProxy, serve: Serve, own_store: str, paused: Callable[[], None]
) -> None:
    proxy = await cached(start_proxy, own_store, await serve())
    _, hit = await twice(proxy, own_store, temperature=0)
    assert hit.headers["x-llm-sidecar-cache"] == "hit"
    paused()

    first, *others = [await seconds_of(proxy, number) for number in range(20)]

    assert first >= TIMEOUT_SECONDS
    # A busy machine may hold one of them up; if each waited, it would be all.
    assert sum(one >= TIMEOUT_SECONDS for one in others) <= 4, others


async def test_a_store_that_goes_on_is_used_again(
    start_proxy: StartProxy, serve: Serve, own_store: str, paused: Callable[[], None]
) -> None:
    proxy = await cached(start_proxy, own_store, await serve())
    await twice(proxy, own_store, temperature=0)
    with redis.Redis.from_url(own_store) as client:
        process = int(client.info("server")["process_id"])
    paused()
    await seconds_of(proxy, 1)
    os.kill(process, signal.SIGCONT)
    results: list[str] = []

    async with asyncio.timeout(10):
        while "hit" not in results:
            results.append((await proxy.chat(temperature=0, seed=2)).headers["x-llm-sidecar-cache"])


async def test_what_is_under_way_is_shared_no_longer_after_a_purge_that_nobody_heard_of(
    start_proxy: StartProxy, serve: Serve, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While look-ups fail, a purge by others goes through all the same."""
    monkeypatch.setattr(memory, "LIFETIME_SECONDS", 0.01)
    gate = asyncio.Event()
    proxy = await cached(start_proxy, store_url, one := await serve(held_back(gate, plain())))
    cache = proxy.sidecar._pipeline.serving.cache  # type: ignore[union-attr]
    monkeypatch.setattr(cache, "_look_ups", _Slow())
    before = asyncio.create_task(proxy.chat(temperature=0))
    await until(lambda: len(one.seen) == 1)
    asked_at = time.time()
    await until(lambda: memory.unheard(asked_at) != memory.unheard(time.time()))
    after = asyncio.create_task(proxy.chat(temperature=0))
    await until(lambda: len(one.seen) == 2)
    gate.set()
    assert [(await task).headers["x-llm-sidecar-cache"] for task in (before, after)] == ["miss", "miss"]


class _Slow:
    """Look-ups at a store that does not answer them in time."""

    async def run(self, *_told: object) -> None:
        raise StoreUnavailable("timeout")

    def heard(self) -> None:
        pass
